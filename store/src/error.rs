//! What can go wrong in the store process, and the exit status each failure ends with.

use std::{io, path::PathBuf};

use aegis_ipc::IpcError;

/// Everything went as asked.
pub(crate) const EXIT_FINE: u8 = 0;
/// A defect of the program (`EX_SOFTWARE` of sysexits.h).
pub(crate) const EXIT_BUG: u8 = 70;
/// The operating system refused something that has to work (`EX_OSERR`).
pub(crate) const EXIT_SYSTEM: u8 = 71;
/// Trying again is right (`EX_TEMPFAIL`).
pub(crate) const EXIT_TRANSIENT: u8 = 75;
/// Trying again does not help: somebody has to look at configuration or data (`EX_CONFIG`).
pub(crate) const EXIT_CONFIGURATION: u8 = 78;

/// What to do about damage.
const ADVICE: &str = "nothing was changed: keep a copy of the data folder, see what `aegis data verify` finds, and \
                      put a backup or an export in its place";

/// A failure of a storage engine.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// The operating system refused to read or write.
    #[error("{operation} failed")]
    Io {
        /// What was attempted, with its object.
        operation: String,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// An earlier write failed, so the engine takes no more.
    #[error("{operation} failed: the engine takes no writes after an earlier failure of the disk")]
    Poisoned {
        /// What was attempted, with its object.
        operation: String,
    },
    /// Stored bytes do not make sense. Nothing was changed.
    #[error("{object} is damaged: {reason}")]
    Damaged {
        /// File, folder or record.
        object: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder was written by a newer version.
    #[error(
        "{} has format {found}, but this version of aegis reads formats up to {supported}: \
         start the version that wrote it, or a later one",
        path.display()
    )]
    NewerFormat {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format this version reads.
        supported: u32,
    },
}

impl EngineError {
    pub(crate) fn io(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Io { operation: operation.into(), source: source.into() }
    }

    pub(crate) fn damaged(object: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Damaged { object: object.into(), reason: reason.into() }
    }

    /// Sorts a failure of the engine by what can be done about it.
    pub(crate) fn from_fjall(
        operation: impl Into<String>,
        object: impl Into<String>,
        error: fjall::Error,
    ) -> Self {
        let operation = operation.into();
        match error {
            fjall::Error::Io(source) | fjall::Error::Storage(fjall::LsmError::Io(source)) => {
                Self::Io { operation, source }
            }
            fjall::Error::Poisoned => Self::Poisoned { operation },
            fjall::Error::Locked => {
                Self::Io { operation, source: io::Error::from(io::ErrorKind::ResourceBusy) }
            }
            error => Self::Damaged { object: object.into(), reason: format!("{operation}: {error:?}") },
        }
    }

    /// Exit status of a store that cannot go on because of this.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Io { .. } | Self::Poisoned { .. } => EXIT_TRANSIENT,
            Self::Damaged { .. } | Self::NewerFormat { .. } => EXIT_CONFIGURATION,
        }
    }
}

/// Why the store process ends before it is asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The supervisor handed over something unusable.
    #[error("{operation} failed")]
    Handoff {
        /// What was attempted, with its object.
        operation: String,
        /// Why it failed.
        #[source]
        source: IpcError,
    },
    /// The handoff lacks something.
    #[error("the handoff of the store names no {object}")]
    Missing {
        /// What is missing.
        object: &'static str,
    },
    /// The operating system refused something outside the engine.
    #[error("{operation} failed")]
    Os {
        /// What was attempted, with its object.
        operation: String,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// Another process works in the folder.
    #[error("{} is in use by process {pid}: one store at a time works in a data folder", path.display())]
    InUse {
        /// The lock file.
        path: PathBuf,
        /// Who holds it, as far as the lock file says.
        pid: String,
    },
    /// A store of this host worked in the folder, and it is not there any more.
    #[error(
        "{} is gone, with the changes up to {published} that were acknowledged: no empty store is made in its place; put it \
         back, and the host goes on, or stop the host and start it anew to begin without them", path.display()
    )]
    Gone {
        /// The engine's folder.
        path: PathBuf,
        /// Number of the last change that was published.
        published: u64,
    },
    /// What is in the folder is older than what a store of this host had there.
    #[error(
        "{} ends with change {found}, but changes up to {published} were acknowledged: this is not what the store before \
         left there; put that back, and the host goes on, or stop the host and start it anew to begin with what is there",
        path.display()
    )]
    Behind {
        /// The engine's folder.
        path: PathBuf,
        /// Number of the last change that can have come from it.
        found: u64,
        /// Number of the last change that was published.
        published: u64,
    },
    /// The generation cannot be served.
    #[error("generation {generation} cannot be served: {}", reasons.join("; "))]
    Generation {
        /// Its number.
        generation: u64,
        /// Everything that is wrong with it.
        reasons: Vec<String>,
    },
    /// The engine failed.
    #[error("{operation} failed")]
    Engine {
        /// What the store was doing.
        operation: String,
        /// Why it failed.
        #[source]
        source: EngineError,
    },
    /// A thread of the store ended where it should not.
    #[error("the {thread} thread of the store ended unexpectedly")]
    ThreadLost {
        /// Which one.
        thread: &'static str,
    },
}

impl StoreError {
    pub(crate) fn os(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Os { operation: operation.into(), source: source.into() }
    }

    pub(crate) fn handoff(operation: impl Into<String>, source: IpcError) -> Self {
        Self::Handoff { operation: operation.into(), source }
    }

    pub(crate) fn engine(operation: impl Into<String>, source: EngineError) -> Self {
        Self::Engine { operation: operation.into(), source }
    }

    /// Exit status that goes with the failure.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Handoff { source: IpcError::Os { .. }, .. } | Self::Os { .. } => EXIT_SYSTEM,
            Self::Handoff { .. } | Self::Missing { .. } | Self::ThreadLost { .. } => EXIT_BUG,
            Self::InUse { .. } => EXIT_TRANSIENT,
            Self::Gone { .. } | Self::Behind { .. } | Self::Generation { .. } => EXIT_CONFIGURATION,
            Self::Engine { source, .. } => source.exit_code(),
        }
    }

    /// The message with all its causes, for the supervisor and the log.
    pub(crate) fn report(&self) -> String {
        let what = chain(self);
        match self {
            Self::Engine { source: EngineError::Damaged { .. }, .. } => format!("{what}; {ADVICE}"),
            _ => what,
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
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
    fn a_full_disk_may_pass_but_damage_will_not() {
        let full = EngineError::from_fjall(
            "writing",
            "x",
            fjall::Error::Io(io::Error::from(io::ErrorKind::StorageFull)),
        );
        assert_eq!(full.exit_code(), EXIT_TRANSIENT);
        assert_eq!(
            EngineError::from_fjall("writing", "x", fjall::Error::Poisoned).exit_code(),
            EXIT_TRANSIENT
        );
        let damage = EngineError::from_fjall("reading", "/data/store/engine", fjall::Error::InvalidTrailer);
        assert_eq!(damage.exit_code(), EXIT_CONFIGURATION);
        let error = StoreError::engine("recovering the store", damage);
        insta::assert_snapshot!(error.report(), @"recovering the store failed: /data/store/engine is damaged: reading: InvalidTrailer; nothing was changed: keep a copy of the data folder, see what `aegis data verify` finds, and put a backup or an export in its place");
    }
}
