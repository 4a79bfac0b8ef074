//! Which descriptors a child inherits, under which numbers.
//!
//! A child that is forked is handed the [`Handoff`] as it is; to one that is executed the supervisor announces it in one
//! environment variable. Numbers stay as they are: duplicating onto fixed ones collides with descriptors that the standard
//! library uses while it spawns.

use std::{
    net::SocketAddr,
    os::fd::{FromRawFd, OwnedFd, RawFd},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::{IpcError, deploy::Task};

/// Environment variable that carries the [`Handoff`] as JSON.
pub const HANDOFF_VARIABLE: &str = "AEGIS_HANDOFF";

/// What a child is and what it inherits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handoff {
    /// Slot the worker fills (0 for the store and the compile helper).
    pub slot: u32,
    /// Cell of the board that the process writes.
    pub cell: u32,
    /// Generation it serves.
    pub generation: u64,
    /// Store: its process number, one more than that of its predecessor.
    pub epoch: u64,
    /// Control socket.
    pub control: RawFd,
    /// The board's memory file.
    pub board: RawFd,
    /// The generation's bundle. Compile helper: that of the generation in force, when it is needed.
    pub bundle: Option<RawFd>,
    /// Listening sockets for clients.
    pub listeners: Vec<InheritedListener>,
    /// Store: the listening Unix socket that workers connect to.
    pub store_listener: Option<RawFd>,
    /// Where workers connect to the store.
    pub store_path: PathBuf,
    /// Store: what its predecessor had only in memory, when that could keep it (see [`crate::sealed`]).
    #[serde(default)]
    pub kept: Option<RawFd>,
    /// Worker: the memory file of the tally (see [`crate::tally`]). A supervisor of an older image has none.
    #[serde(default)]
    pub tally: Option<RawFd>,
    /// Worker: its generation is judged by it. Code that does not begin speaks against the generation then; later it costs
    /// nobody but those who call it.
    #[serde(default)]
    pub is_canary: bool,
    /// Compile helper: what it is to make.
    #[serde(default)]
    pub task: Task,
    /// Compile helper: digest of the generation in force. When that is what it makes, there is nothing to be done.
    #[serde(default)]
    pub digest_in_force: Option<String>,
    /// Compile helper: the bundle of the generation in force, when nobody asked for the app to be read again. What is tried
    /// in there goes on being tried, also when the app has the same by now.
    #[serde(default)]
    pub in_force: Option<RawFd>,
}

/// One inherited listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InheritedListener {
    /// The bound address.
    pub address: ListenerAddress,
    /// Who is served there.
    pub audience: Audience,
    /// The socket.
    pub descriptor: RawFd,
}

/// A bound address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ListenerAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// Unix stream socket.
    Unix(PathBuf),
}

/// Who is served on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Audience {
    /// Clients of the generated API.
    Public,
    /// Operators: also metrics, introspection, reload.
    Admin,
}

impl Handoff {
    /// Reads the announcement from the environment.
    pub fn from_environment() -> Result<Self, IpcError> {
        let text = std::env::var(HANDOFF_VARIABLE).map_err(|_| IpcError::Unexpected {
            object: format!("environment variable {HANDOFF_VARIABLE}"),
            found: "nothing".to_owned(),
            expected: "the announcement of the supervisor (this role is started by `aegis run`)".to_owned(),
        })?;
        serde_json::from_str(&text).map_err(|error| IpcError::Unexpected {
            object: format!("environment variable {HANDOFF_VARIABLE}"),
            found: error.to_string(),
            expected: "JSON of a handoff".to_owned(),
        })
    }
}

/// Takes ownership of an inherited descriptor, after checking that it is open, and marks it closed on exec.
///
/// Call it at most once per announced number.
#[expect(unsafe_code, reason = "ownership of an inherited descriptor can only be asserted")]
pub fn adopt(descriptor: RawFd, object: &str) -> Result<OwnedFd, IpcError> {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    // SAFETY: the number was announced by the process that spawned us and left it open for us, and nothing else in
    // this process uses it, so the `OwnedFd` is its only owner. After a fork, what owned it in the parent is in memory that
    // the child does not go back to, and is never dropped there (see `crate::fork`). A number that is not open is refused below: `fcntl`
    // fails before the value is used for anything else.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    match fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
        Ok(_) => Ok(owned),
        Err(error) => {
            use std::os::fd::IntoRawFd;
            let _ = owned.into_raw_fd(); // not ours to close: it was never open
            Err(IpcError::os(format!("adopting descriptor {descriptor} ({object})"), error))
        }
    }
}
