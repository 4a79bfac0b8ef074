//! A worker in the test process, over real sockets: everything but the process itself.

mod access;
mod adoption;
mod asking;
mod defects;
mod deliveries;
mod deploy;
mod failing;
pub(crate) mod house;
mod leaving;
mod modules;
mod operators;
mod outgoing;
mod process;
mod rates;
mod requests;
mod routes;
mod services;
mod shapes;
mod streams;
mod trials;
mod untaken;
pub(crate) mod upstream;
mod webhook;
