//! One host per data directory.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
};

use crate::SupervisorError;

/// Name of the lock file inside the data directory.
const LOCK_FILE: &str = "LOCK";

/// The right to work on a data directory. The kernel gives it back when the last holder of the descriptor is gone, so
/// a killed host never leaves it behind.
#[derive(Debug)]
pub struct DataLock {
    file: File,
}

/// How the previous host on the directory ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Predecessor {
    /// There was none, or it said goodbye.
    Gone,
    /// It was killed; children of it may still be finishing.
    Killed,
}

impl DataLock {
    /// Takes the lock. Who has it stays what the last one wrote until [`Self::say_hello`].
    pub fn take(data_directory: &Path) -> Result<(Self, Predecessor), SupervisorError> {
        let path = data_directory.join(LOCK_FILE);
        let failed = |operation: &str, error: Errno| {
            SupervisorError::os(format!("{operation} {}", path.display()), error)
        };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let mut file = rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600))
            .map(File::from)
            .map_err(|error| failed("opening", error))?;
        let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        let mut content = String::new();
        // What is inside only decides between two wordings, so a file that cannot be read counts as empty.
        let _ = (&mut file).take(64).read_to_string(&mut content);
        let previous = content.trim();
        match locked {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(SupervisorError::DataDirectoryInUse {
                    directory: PathBuf::from(data_directory),
                    pid: if previous.is_empty() { "unknown".to_owned() } else { previous.to_owned() },
                });
            }
            Err(error) => return Err(failed("locking", error)),
        }
        let predecessor = if previous.is_empty() { Predecessor::Gone } else { Predecessor::Killed };
        Ok((Self { file }, predecessor))
    }

    /// Continues with a lock that was taken before an exec.
    #[must_use]
    pub fn from_descriptor(descriptor: OwnedFd) -> Self {
        Self { file: File::from(descriptor) }
    }

    /// The descriptor that holds the lock.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Writes our process id into it: whoever comes next without a goodbye in between will find that we were killed. One
    /// that ends before has left nothing behind, and what its predecessor has left is still told.
    ///
    /// On a full disk it is not written: the lock is what counts.
    pub fn say_hello(&self) -> Result<(), SupervisorError> {
        match self.write(&format!("{}\n", std::process::id())) {
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                tracing::warn!(%error, "the lock of the data directory does not tell who has it");
                Ok(())
            }
            written => {
                written.map_err(|error| SupervisorError::os("writing the lock of the data directory", error))
            }
        }
    }

    /// Says goodbye: the next host will find that this one ended in order.
    pub fn say_goodbye(&self) {
        if let Err(error) = self.write("") {
            tracing::warn!(%error, "emptying the lock file failed");
        }
    }

    fn write(&self, content: &str) -> std::io::Result<()> {
        use std::os::unix::fs::FileExt;
        self.file.write_all_at(content.as_bytes(), 0)?;
        self.file.set_len(content.len() as u64)?;
        (&self.file).flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_host_on_the_same_data_is_refused_and_told_who_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let (first, predecessor) = DataLock::take(directory.path()).unwrap();
        assert_eq!(predecessor, Predecessor::Gone);
        first.say_hello().unwrap();
        let error = DataLock::take(directory.path()).unwrap_err();
        let expected = format!("is in use by the host with process id {}", std::process::id());
        assert!(error.to_string().contains(&expected), "{error}");
        assert_eq!(error.exit_code(), crate::exit::TRANSIENT);
        first.say_goodbye();
        drop(first);
        assert_eq!(DataLock::take(directory.path()).unwrap().1, Predecessor::Gone);
    }

    #[test]
    fn on_a_full_disk_it_is_taken_without_a_word() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        DataLock::from_descriptor(full.into()).say_hello().unwrap();
    }

    #[test]
    fn a_killed_predecessor_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let end_early = || DataLock::take(directory.path()).unwrap().1;
        assert_eq!((end_early(), end_early()), (Predecessor::Gone, Predecessor::Gone));
        DataLock::take(directory.path()).unwrap().0.say_hello().unwrap();
        assert_eq!((end_early(), end_early()), (Predecessor::Killed, Predecessor::Killed));
    }

    #[test]
    fn a_duplicate_keeps_the_lock_when_the_first_descriptor_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let (first, _) = DataLock::take(directory.path()).unwrap();
        let duplicate = DataLock::from_descriptor(first.file().try_clone().unwrap().into());
        drop(first);
        assert!(DataLock::take(directory.path()).is_err());
        drop(duplicate);
        assert!(DataLock::take(directory.path()).is_ok());
    }
}
