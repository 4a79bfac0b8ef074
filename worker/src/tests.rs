//! A worker in the test process, over real sockets: everything but the process itself.

mod adoption;
mod defects;
mod house;
mod leaving;
mod modules;
mod operators;
mod process;
mod requests;
mod services;
mod streams;
mod webhook;
