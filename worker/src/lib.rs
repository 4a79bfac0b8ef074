//! A worker process: serves the HTTP interface of one generation from its own copy of the data.
//!
//! A request walks the rooms once, in order:
//!
//! ```text
//!   acceptor ─▶ connection ─▶ service ─▶ route ─▶ request ─▶ execute ─▶ data ─▶ (store)
//!   one thread  HTTP/1.1, 2    │           which    what it    the rules  cache,
//!   per worker                 │           place    means                 commit
//!                              └◀──────────────── response ◀──────────────┘
//! ```
//!
//! * [`mod@operation`]: a request and its result, free of HTTP. What the front and the back of the house agree on.
//! * `acceptor`: takes connections from the shared sockets, evenly, and only when a runtime has room.
//! * `runtime`, `metronome`: N threads with one runtime each; a connection stays on the one it was given to.
//! * `connection`: one client over HTTP; its time-outs; how it is told to end.
//! * `service`: one request from head to answer. Cached reads are answered on the spot.
//! * `access`: who asks, and whether they may.
//! * `route`, `request`, `response`: what a path names, what headers and body mean, what is said in return.
//! * [`execute`], [`data`]: carries a request out on a coherent copy of all models.
//! * `modules`: the code behind models, and what it may ask of the worker; `custom`: routes that it answers itself.
//! * `outgoing`: requests of that code to other systems, as far as they are granted.
//! * `events`, `admin`: the other places of the interface: change streams, health, metrics, introspection, reload.
//! * `throttle`, `overload`, `drain`: when to say no, and how to leave without failing a request.
//! * `defect`: a panic ends its request and nothing else.
//! * `generation`, `present`, `adoption`: what a generation offers, which one requests are answered with, and how another
//!   one takes its place without a new process.
//! * `boot`, `reporting`, `signals`, `host`: the process: how it is put together and whom it obeys.
//!
//! Three promises hold everywhere: a read shows every write that was answered before it began, on whichever worker;
//! no queue, body, wait or retry is without a bound; a worker that leaves fails no request that it has accepted.

pub mod data;
pub mod execute;
pub mod operation;

mod acceptor;
mod access;
mod admin;
mod adoption;
mod boot;
mod connection;
mod custom;
mod defect;
mod deliveries;
mod drain;
mod events;
mod generation;
mod host;
mod metronome;
mod modules;
mod outgoing;
mod overload;
mod present;
mod reporting;
mod request;
mod response;
mod route;
mod runtime;
mod serve;
mod service;
mod signals;
#[cfg(test)]
mod tests;
mod throttle;
mod variant;

pub use access::check_key;
use aegis_ipc::handoff::Handoff;

/// Runs a worker with what it inherited, until it has left. Returns the exit status: 0 fine, 70 a defect, 71 an
/// error of the operating system, 75 an error that may pass, 78 a generation that cannot be served.
///
/// Call it once per process, from the main thread, before any other thread exists: it takes ownership of the
/// descriptors that `handoff` names and of the signal mask.
#[must_use]
pub fn run(handoff: Handoff) -> u8 {
    boot::run(handoff)
}
