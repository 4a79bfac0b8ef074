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

/// The contract as it is, generated from `wit/`: for what has no shorter way here.
#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, reason = "generated")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "wit",
        inline: "
            package aegis:rust;

            /// What a module in Rust uses and offers. Imports that are not used are not in the component.
            world module {
                include aegis:module/host-common@1.0.0;
                import aegis:module/spec@1.0.0;
                import aegis:module/models@1.0.0;
                export aegis:module/identity@1.0.0;
                export aegis:module/describe-model@1.0.0;
                export aegis:module/hooks@1.0.0;
                export aegis:module/commands@1.0.0;
                export aegis:module/lifecycle@1.0.0;
            }
        ",
        world: "aegis:rust/module",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_bindings",
        default_bindings_module: "aegis_module::bindings",
    });
}

mod command;
pub mod documents;
mod entity;
mod exports;
mod field;
mod host;
pub mod log;
mod model;
mod refusal;

pub use serde_json::{Value, json};

pub use bindings::aegis::module::types::{Context, Origin, Principal};
pub use command::Command;
pub use entity::{Document, Entity};
#[doc(hidden)]
pub use exports::{Definition, Exported};
pub use field::Field;
pub use host::{is_cancelled, new_id, now_ms, setting, time_left_ms};
pub use model::Model;
pub use refusal::{Code, Refusal, refuse};

/// Makes the component of a module: `export!(note)`, where `note` is a function that gives its [`Model`].
#[macro_export]
macro_rules! export {
    ($model:path) => {
        const _: () = {
            struct Definition;
            impl $crate::Definition for Definition {
                fn model() -> $crate::Model {
                    $model()
                }
            }
            type Exported = $crate::Exported<Definition>;
    $crate::bindings::export_bindings!(Exported with_types_in $crate::bindings);
        };
    };
}
