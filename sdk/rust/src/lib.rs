//! Modules for Ægis in Rust: a [`Model`] with its fields, hooks and commands becomes a component.
//!
//! ```no_run
//! use aegis_module::{Code, Command, Field, Model, export, refuse};
//!
//! fn note() -> Model {
//!     Model::new("note")
//!         .field("text", Field::text().required().longest(200))
//!         .field("closed", Field::boolean().default(false))
//!         .on_delete(|note, _| match note.data["closed"] == true {
//!             true => Ok(()),
//!             false => Err(refuse(Code::Conflict, "close it first")),
//!         })
//!         .command(Command::about_one("close", |_, mut note, _| {
//!             note.data["closed"] = true.into();
//!             Ok(note.data)
//!         }).saves())
//! }
//!
//! export!(note);
//! ```
//!
//! An `Err` is the answer of a module that is well, and clients see it. A panic is a defect: it costs the instance, and
//! the client gets 500. How to build and to run a module is in `docs/modules.md`.
//!
//! | what for | where |
//! | --- | --- |
//! | what a model is, and its code | [`Model`], [`Field`], [`Command`], [`Route`], [`DocumentHooks`] |
//! | who may do what | [`Model::allow`], [`Model::deny`], [`Command::allow`] |
//! | documents of models | [`documents`] |
//! | other systems, and secrets for them | [`http`], [`secrets`] |
//! | measurements and lines in the log | [`metrics`], [`log`] |
//! | settings, time, chance | [`setting`], [`now_ms`], [`time_left_ms`], [`is_cancelled`], [`new_id`], [`random_bytes`] |
//!
//! Decimals of a [`Value`] that have more digits than an `f64` keeps are rounded. With the feature `exact-numbers` they stay as
//! they were written; then types of serde that are flattened, untagged or tagged cannot have numbers.

mod access;
pub mod bindings;
mod command;
pub mod documents;
mod entity;
mod event;
mod exports;
mod field;
mod held;
mod host;
pub mod http;
mod life;
pub mod log;
mod message;
pub mod metrics;
mod model;
mod refusal;
mod route;
pub mod secrets;

pub use serde_json::{Value, json};

pub use access::{Rights, Who};
pub use bindings::aegis::module::types::{Context, Origin, Principal};
pub use command::Command;
pub use entity::{Document, Entity};
pub use event::Event;
#[doc(hidden)]
pub use exports::{Definition, Exported};
pub use field::Field;
pub use held::{DocumentHooks, HeldDocument};
pub use host::{generation, is_cancelled, monotonic_ns, new_id, now_ms, random_bytes, setting, time_left_ms};
pub use message::{Headers, Response};
pub use model::Model;
pub use refusal::{Code, Refusal, refuse};
pub use route::{Method, Route, RouteRequest};

/// Makes the component of a module: `export!(note)`, where `note` is a function that gives its [`Model`].
///
/// What not every module offers is named behind it: `export!(note, routes, events, document_hooks, handover)`. The host
/// refuses a component that declares routes or events and does not offer to answer them.
#[macro_export]
macro_rules! export {
    ($model:path $(, $interface:ident)* $(,)?) => {
        const _: () = {
            struct Definition;
            impl $crate::Definition for Definition {
                fn model() -> $crate::Model {
                    $model()
                }
            }
            type Exported = $crate::Exported<Definition>;
            $crate::bindings::export_bindings!(Exported with_types_in $crate::bindings);
            $($crate::export_interface!($interface Exported);)*
        };
    };
}

/// One of the interfaces that not every module offers.
#[doc(hidden)]
#[macro_export]
macro_rules! export_interface {
    (document_hooks $exported:ident) => {
        $crate::bindings::document_hooks::export_document_hooks!(
            $exported with_types_in $crate::bindings::document_hooks
        );
    };
    (events $exported:ident) => {
        $crate::bindings::events::export_events!($exported with_types_in $crate::bindings::events);
    };
    (handover $exported:ident) => {
        $crate::bindings::handover::export_handover!($exported with_types_in $crate::bindings::handover);
    };
    (routes $exported:ident) => {
        $crate::bindings::routes::export_routes!($exported with_types_in $crate::bindings::routes);
    };
}
