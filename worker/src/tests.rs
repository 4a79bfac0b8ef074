//! A worker in the test process, over real sockets: everything but the process itself.

mod defects;
mod house;
mod leaving;
mod modules;
mod operators;
mod outgoing;
mod process;
mod requests;
mod services;
mod streams;
pub(crate) mod upstream;
mod webhook;
