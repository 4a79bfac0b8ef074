//! One store at a time works in a data folder.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use crate::error::StoreError;

/// Name of the lock file in the store's folder.
const LOCK_FILE: &str = "LOCK";
/// A lock file holds a process id; anything longer is not ours.
const CONTENT_BYTES_MAX: u64 = 32;

/// The right to work in the store's folder. The kernel takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct StoreLock {
    _file: File,
}

/// The right to work on the data of a host that does not run. The supervisor of a running host holds the same lock.
#[derive(Debug)]
pub(crate) struct HostLock {
    _file: Option<File>,
}

impl HostLock {
    /// Takes the lock without waiting. A host that never ran has left no file to lock.
    pub(crate) fn take(data_folder: &Path) -> Result<Self, StoreError> {
        let path = data_folder.join(LOCK_FILE);
        match File::open(&path) {
            Ok(file) => lock(file, &path).map(|file| Self { _file: Some(file) }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self { _file: None }),
            Err(error) => Err(StoreError::os(format!("opening {}", path.display()), error)),
        }
    }
}

impl StoreLock {
    /// Takes the lock without waiting and notes our process id in the file, for the message of the next one who tries.
    pub(crate) fn take(folder: &Path) -> Result<Self, StoreError> {
        make_folder(folder)
            .map_err(|error| StoreError::os(format!("creating {}", folder.display()), error))?;
        let path = folder.join(LOCK_FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|error| StoreError::os(format!("opening {}", path.display()), error))?;
        let mut file = lock(file, &path)?;
        // The lock is what counts; on a full disk the message of the next one who tries is poorer, no more.
        let _ = note_holder(&mut file);
        Ok(Self { _file: file })
    }
}

/// Makes a folder, and the data folder around it, which nobody else may look into.
pub(crate) fn make_folder(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn lock(file: File, path: &Path) -> Result<File, StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // What the file says only improves the message, so failing to read it changes nothing.
            let _ = file.take(CONTENT_BYTES_MAX).read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "unknown".to_owned() } else { pid.trim().to_owned() };
            Err(StoreError::InUse { path: path.to_owned(), pid })
        }
        Err(TryLockError::Error(error)) => Err(StoreError::os(format!("locking {}", path.display()), error)),
    }
}

fn note_holder(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn nobody_else_looks_into_folders_that_are_made() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let _lock = StoreLock::take(&data.join("store")).unwrap();
        for made in [data.join("store"), data] {
            assert_eq!(made.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{}", made.display());
        }
    }

    #[test]
    fn a_second_store_is_told_who_holds_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = StoreLock::take(folder.path()).unwrap();
        let error = StoreLock::take(folder.path()).unwrap_err();
        let expected = format!(
            "{} is in use by process {}: one store at a time works in a data folder",
            folder.path().join("LOCK").display(),
            std::process::id()
        );
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.exit_code(), crate::error::EXIT_TRANSIENT);
        drop(first);
        StoreLock::take(folder.path()).unwrap();
    }
}
