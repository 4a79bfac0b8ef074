//! The contract between the processes of one host.
//!
//! ```text
//!                    control: SOCK_SEQPACKET pair, one per child
//!   supervisor ────────────────────────────────────────────── store, worker × N
//!       │  ▲                                                    │        │
//!       │  └── operator: JSON lines over a Unix socket (CLI)    │  data  │
//!       │                                                       └────────┘
//!       └── board: one shared memory page set, mapped by all   Unix stream, frames
//! ```
//!
//! * [`control`]: what the supervisor and a child say to each other. Small, never blocked by data.
//! * [`data`]: what a worker and the store say to each other: writes, the change feed, misses, snapshots.
//! * [`brief`]: the three messages of `data` that every write causes, in the form that costs least.
//! * [`operator`]: what a person's command and the supervisor say to each other.
//! * [`board`]: the words every process reads without a system call: the durable watermark, the store's epoch,
//!   heartbeats, gauges and counters.
//! * [`bundle`]: one generation (resolved configuration and catalog), pinned by digest, in a sealed memory file.
//! * [`sealed`]: memory files that nobody can change any more, the carriers of bundles and of what outlives a process.
//! * [`deploy`]: one module instead of all, and which modules a generation consists of.
//! * [`fork`]: how a child comes to be without executing the image once more.
//! * [`handoff`]: which descriptors a child inherits, under which numbers.
//! * [`replace`]: how what one process writes is found whole by another.
//! * [`residence`]: how a process stays small.
//! * [`tally`]: when the next request of each client is expected, in words that all workers share.
//! * [`slice`]: how a thread that others wait for is let in at once.
//!
//! Promises: messages are MessagePack maps with named fields, unknown fields are ignored and new fields have a
//! default, so versions N and N−1 understand each other during an upgrade; the brief form is used only between two sides that have
//! told each other that they read it. Frames carry a checksum and a hard size limit. This
//! crate does not know what a model is: documents are opaque bytes under a model name and an id.

pub mod board;
pub mod brief;
pub mod bundle;
pub mod codec;
pub mod control;
pub mod data;
pub mod deploy;
pub mod error;
pub mod fork;
pub mod frame;
pub mod handoff;
pub mod operator;
pub mod replace;
pub mod residence;
pub mod sealed;
pub mod slice;
pub mod tally;

pub use error::IpcError;

/// Version of the messages in this crate. A child says which it speaks in its hello, a worker also to the store; see
/// [`speaks_with`].
pub const PROTOCOL_VERSION: u32 = 1;

/// Whether a process that speaks this version is understood: our own, the one before and the one after. An upgrade
/// exchanges the workers first and the store last, so that for a while the workers are the newer side; and on the way back
/// children of the newer image meet a supervisor of the older one. The newer side says only what the older one reads.
#[must_use]
pub const fn speaks_with(protocol: u32) -> bool {
    protocol > 0 && protocol.abs_diff(PROTOCOL_VERSION) <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_beside_our_own_are_understood() {
        for beside in PROTOCOL_VERSION.saturating_sub(1).max(1)..=PROTOCOL_VERSION + 1 {
            assert!(speaks_with(beside), "{beside}");
        }
        assert!(!speaks_with(PROTOCOL_VERSION + 2) && !speaks_with(0));
    }
}
