//! The supervisor: one process with one thread that owns the listening sockets and every life of a host.
//!
//! ```text
//!   systemd (optional)
//!   └─ supervisor ── sockets, lives, rollouts          this crate
//!      ├─ store        the one writer
//!      ├─ worker × N   serve requests on the inherited sockets
//!      └─ compile      makes a generation, then leaves
//! ```
//!
//! It decides in [`fleet`], which is pure, and acts in the loop around it. It parses no byte that a client sent, runs no
//! module, opens no database, starts no thread and never waits: everything it does in one pass is short, and the longest
//! pass is shown in the status.
//!
//! What it promises:
//!
//! * The sockets stay open through crashes of workers, reloads and upgrades, so no client is refused.
//! * A generation that is bad is found bad before it is in force, or taken back.
//! * Its own executable is replaced in place, same process id, with a rehearsal before and a way back after.
//! * Killed itself, it leaves workers that finish what they have and go; the next one waits for their addresses.
//!
//! Read in this order: [`fleet`] (what there should be), `driver` (the loop), [`process`], [`listen`], [`signals`],
//! [`control`] and [`relay`] (who asks), [`probe`], [`last_good`], [`kept`] and [`versions`] (generations), `upgrade` and `resume` (the next
//! image), [`notify`], [`logs`], [`watch`], [`lock`].

#![forbid(unsafe_code)]

use std::{ffi::OsString, os::fd::RawFd};

use aegis_config::{Config, Log};
use aegis_ipc::handoff::Handoff;

pub mod control;
mod driver;
mod error;
pub mod fleet;
pub mod kept;
pub mod last_good;
pub mod listen;
pub mod lock;
pub mod logs;
pub mod notify;
pub mod probe;
pub mod process;
pub mod relay;
mod resume;
pub mod signals;
mod upgrade;
pub mod versions;
pub mod watch;

pub use error::{SupervisorError, exit, with_causes};

/// What a host is started with.
#[derive(Debug, Clone)]
pub struct Start {
    /// The resolved configuration.
    pub config: Config,
    /// Arguments after `compile` that make the compile helper load the same app with the same flags.
    pub compile_arguments: Vec<OsString>,
    /// A generation that is kept on disk, to begin with instead of the app.
    pub instead: Option<Instead>,
    /// Whether standard output is told in JSON where the host listens.
    pub as_json: bool,
    /// What this program does beside being a supervisor.
    pub program: Program,
}

/// What the program that a supervisor is part of does for it.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Makes log lines of this process be written as a generation that comes into force says: their level and format.
    pub follow_log: fn(&Log),
    /// Is a child, which was forked just now: the value is its exit status.
    pub be_child: fn(Newborn) -> u8,
}

impl Program {
    /// One that does nothing, for a supervisor that is not going to work.
    pub(crate) const IDLE: Self = Self { follow_log: |_| (), be_child: |_| exit::BUG };
}

/// What a child that was forked is to be.
#[derive(Debug)]
pub struct Newborn {
    /// Its role, and the arguments of it: what would be the command line of an image that is executed.
    pub arguments: Vec<OsString>,
    /// What it is and what it has.
    pub handoff: Handoff,
}

/// What a host begins with instead of the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instead {
    /// Digest of the generation.
    pub digest: String,
    /// Why not with the app.
    pub cause: fleet::hold::Cause,
    /// The same for people.
    pub reason: String,
}

/// Becomes the supervisor of a host, until that ends. The value is the exit status of the process.
///
/// Call it in the main thread, before any other thread is started and before descriptors are opened: sockets that the
/// service manager passed are taken here.
#[must_use]
pub fn run(start: Start) -> u8 {
    name_process();
    driver::run(start)
}

/// Continues the host of a previous image of this process, whose state is behind the inherited descriptor `state`; or,
/// in another process than the one the state names, only shows that it could. The value is the exit status, also that of each
/// child.
///
/// Call it in the main thread, before any other thread is started and before descriptors are opened.
#[must_use]
pub fn resume(state: RawFd, program: Program) -> u8 {
    name_process();
    resume::resume(state, program)
}

/// An image that was started by descriptor is called after its number until it says otherwise.
fn name_process() {
    if let Err(error) = nix::sys::prctl::set_name(c"aegis") {
        tracing::debug!(%error, "naming the process failed");
    }
}

/// The configuration of an empty app in `folder`, for tests.
#[cfg(test)]
fn test_config(folder: &std::path::Path) -> aegis_config::Config {
    let folder = std::fs::canonicalize(folder).unwrap();
    std::fs::create_dir_all(folder.join(aegis_config::MODULES_FOLDER)).unwrap();
    let overrides = aegis_config::Overrides::default();
    aegis_config::Config::load(&folder, &overrides, &aegis_config::Environment::new()).unwrap().config
}
