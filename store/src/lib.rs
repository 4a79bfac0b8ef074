//! The store: the only process of a host that writes.
//!
//! ```text
//!  worker ═══ Unix stream ═══▶ link: reader ──▶ queue ──▶ writer ──▶ engine (disk) ──▶ board: durable number
//!     ▲                        link: sender ◀── outbox ◀────┘ │         engine (memory)
//!     ╚═══════ feed, answers ═══════╝                         └── feed offered while the disk syncs
//! ```
//!
//! * `commit`: which writes of a group are accepted, and what they change. Pure.
//! * `writer`: the one thread that commits groups, removes what is old, and follows the generations.
//! * `engine`: where documents and the log are, on disk and in memory, and what the rows look like.
//! * `storage`: both engines behind one log.
//! * `link`: the workers: live feed, replay from the log, complete copies.
//! * `catalog`, `index`: the models of the generation in force and of the next one; unique fields.
//! * `recover`, `control`: how a store process starts, obeys and ends.
//! * [`data`]: export, import and verification while the host is down.
//!
//! Promises: a write is answered only after it is on disk and published; a group is there as a whole or not at all;
//! numbers are given once; nothing on disk is ever deleted because it could not be read.

mod catalog;
mod clock;
mod commit;
mod control;
pub mod data;
mod engine;
mod error;
mod index;
mod link;
mod lock;
mod lookup;
mod notice;
mod recover;
mod requests;
mod shared;
mod storage;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod writer;

use aegis_config::Log;
use aegis_ipc::handoff::Handoff;

/// Runs the store process until it is told to end, and returns its exit status: 0 when it was asked to end; 75 when
/// starting it again is right, for instance after a failed sync; 78 when somebody has to look at the configuration or
/// the data first; 70 and 71 for a defect and for a refusal of the operating system.
///
/// Call it at most once per process, from the main thread, after the log output is set up. `follow_log` makes that what a
/// generation which comes into force says.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "the descriptors it names are taken over, once")]
pub fn run(handoff: Handoff, follow_log: fn(&Log)) -> u8 {
    match control::run(&handoff, follow_log) {
        Ok(()) => error::EXIT_FINE,
        Err(error) => {
            let code = error.exit_code();
            tracing::error!(code, error = error.report(), "the store ends");
            code
        }
    }
}
