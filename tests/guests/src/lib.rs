//! Modules for tests, well-behaved and hostile, made in memory without any toolchain.
//!
//! ```text
//!   Guest: a specification as JSON, bodies as WAT ─▶ core module ─▶ component of the contract in wit/
//! ```
//!
//! What a guest says of itself is laid out in its memory by [`lower`](mod@lower), so that `describe` only answers an
//! address. A fixture that cannot be built is a defect of the test, so building one panics with the reason.

mod asking;
mod body;
mod bombs;
mod contract;
mod documents;
mod fixtures;
mod guest;
mod hostile;
mod lower;
mod network;
mod route;
mod service;
mod system;
#[cfg(test)]
mod tests;

pub use asking::{account, count, creating, entry, journal, journal_of, leave, meddler, observe, tally};
pub use body::{
    Body, agree, answer, burn, create, echo, fibonacci, find, grow, grow_politely, grow_rudely, log, merge,
    recurse, refuse, setting, spin, splice, trap,
};
pub use bombs::{
    a_gigabyte_declared, bytes_of_data, hoarder, labyrinth, many_locals, maze, mazes, with_core_module,
};
pub use documents::{
    MERGE, ask_many, give_back, merge_into, put, put_for_ever, refuse_where_true, when_document_holds,
};
pub use fixtures::{
    counter, greedy, heir, held_todo, label, order, outgrown, plain, stamping, stamping_model, todo,
};
pub use guest::Guest;
pub use hostile::{
    Hostile, core_module, empty_component, five_thousand_core_modules, nested_components, refused, unruly,
};
pub use network::{caller, tell};
pub use route::{digits, first_part, respond, whole};
pub use service::{relay, service};
pub use system::{mutter, sleep, with_system};
