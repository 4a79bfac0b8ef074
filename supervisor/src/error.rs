//! What can go wrong in the supervisor, and which exit status says so.

use std::{error::Error, io, path::PathBuf};

use aegis_ipc::IpcError;

/// Exit statuses, from BSD `sysexits.h`.
pub mod exit {
    /// Everything went as asked.
    pub const FINE: u8 = 0;
    /// The command line was wrong.
    pub const USAGE: u8 = 64;
    /// A mistake of ours.
    pub const BUG: u8 = 70;
    /// The operating system refused something.
    pub const OS: u8 = 71;
    /// It may work when tried again.
    pub const TRANSIENT: u8 = 75;
    /// The configuration is wrong; trying again does not help.
    pub const CONFIGURATION: u8 = 78;
}

/// An error of the supervisor. Every variant names the operation and its object.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// The operating system refused something.
    #[error("{operation} failed")]
    Os {
        /// What was attempted, with its object.
        operation: String,
        /// The answer.
        #[source]
        source: io::Error,
    },
    /// A socket, memory file or message between the processes failed.
    #[error("talking between the processes of the host failed")]
    Ipc(#[from] IpcError),
    /// Another host works on the same data.
    #[error(
        "data directory {directory} is in use by the host with process id {pid}; stop it first, or give this one \
         another data directory"
    )]
    DataDirectoryInUse {
        /// The data directory.
        directory: PathBuf,
        /// Process id that the lock file names.
        pid: String,
    },
    /// A path that must be ours is taken by somebody who answers, or by something else than a socket.
    #[error("cannot listen on Unix socket {path}: {reason}")]
    UnixSocketTaken {
        /// The path.
        path: PathBuf,
        /// Who or what is there.
        reason: String,
    },
    /// What the service manager announced does not make sense.
    #[error("socket activation: {object}: found {found}, expected {expected}")]
    Activation {
        /// Variable or descriptor looked at.
        object: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A file that should be run cannot be.
    #[error("{path} cannot be run: {reason}")]
    NotExecutable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// State handed over by a predecessor cannot be used.
    #[error("state of the previous supervisor: found {found}, expected {expected}")]
    State {
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
}

impl SupervisorError {
    /// Wraps the refusal of the operating system.
    pub fn os(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Os { operation: operation.into(), source: source.into() }
    }

    /// Exit status when this error ends the supervisor.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Os { .. } | Self::Ipc(_) | Self::UnixSocketTaken { .. } => exit::OS,
            Self::DataDirectoryInUse { .. } => exit::TRANSIENT,
            Self::Activation { .. } | Self::NotExecutable { .. } => exit::CONFIGURATION,
            Self::State { .. } => exit::BUG,
        }
    }
}

/// The sentence of an error followed by those of its causes, for one line of a log.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_causes() {
        let error = SupervisorError::from(IpcError::os("creating the board", io::ErrorKind::OutOfMemory));
        insta::assert_snapshot!(
            with_causes(&error),
            @"talking between the processes of the host failed: creating the board failed: out of memory"
        );
    }
}
