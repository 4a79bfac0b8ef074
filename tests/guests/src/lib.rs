//! Modules for tests, well-behaved and hostile, made in memory without any toolchain.
//!
//! ```text
//!   Guest: a specification as JSON, bodies as WAT ─▶ core module ─▶ component of the contract in wit/
//! ```
//!
//! What a guest says of itself is laid out in its memory by [`lower`](mod@lower), so that `describe` only answers an
//! address. A fixture that cannot be built is a defect of the test, so building one panics with the reason.

mod body;
mod contract;
mod fixtures;
mod guest;
mod hostile;
mod lower;
mod network;
mod service;
#[cfg(test)]
mod tests;

pub use body::{
    Body, agree, answer, burn, create, echo, find, grow, grow_politely, grow_rudely, log, merge, recurse,
    refuse, setting, spin, splice, trap,
};
pub use fixtures::{counter, greedy, order, plain, todo};
pub use guest::Guest;
pub use hostile::{
    Hostile, core_module, empty_component, five_thousand_core_modules, nested_components, refused, unruly,
};
pub use network::caller;
pub use service::{relay, service};
