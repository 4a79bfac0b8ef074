//! The rules: models, documents, queries. No clock, no file, no socket, no runtime, no Wasm.
//!
//! Everything here is a function of its arguments. The time is an argument, and so is a fresh id; what is
//! returned is either the result or everything that is wrong, in words for the person who sent it.
//!
//! ```text
//! module.toml ──module::parse──▶ spec::ModelSpec ──catalog::Catalog::build──▶ catalog::Model
//!                                                                      │
//! request body ──json::parse──▶ Value ──document::{create, replace, …}─┴─▶ Draft ──▶ event::Event
//! ```
//!
//! * [`spec`] is what a module says about its model; [`module`] reads it from TOML; [`code`] is what it says about code;
//!   [`manifest`] what its author says about that code; [`route`] are the paths that the code answers itself.
//! * [`catalog`] compiles all models of one generation: names, rules, patterns, schemas.
//! * [`compatibility`] tells what breaks between two versions of a model; [`trial`] which of two a request gets.
//! * [`json`] reads what clients send: strict, bounded, numbers as they were written.
//! * [`document`] evolves documents; [`event`] tells what became of them.
//! * [`table`] keeps the documents of one model in memory; [`query`] answers lists from it; [`order`] is the order of values.
//! * [`access`] decides who may do what with the documents of a model; [`disable`] takes commands and routes out of service.
//! * [`breaker`] decides when code that keeps failing is not called for a while.
//! * [`rate`] decides how often a client is served.
//! * [`outgoing`] decides whom code may reach over the network.
//! * [`problem`] is what can be wrong with a request.

pub mod access;
pub mod breaker;
pub mod catalog;
pub mod code;
pub mod compatibility;
pub mod disable;
pub mod document;
pub mod event;
pub mod json;
pub mod manifest;
pub mod module;
pub mod order;
pub mod outgoing;
pub mod problem;
pub mod query;
pub mod rate;
mod raw;
pub mod route;
pub mod service;
pub mod spec;
pub mod subscription;
pub mod suggest;
pub mod table;
mod timestamp;
pub mod trial;

pub use problem::{FieldError, Problem, ProblemCode, Retry};
pub use timestamp::format as format_timestamp;
