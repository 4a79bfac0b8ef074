//! Sealed memory files: bytes that one process makes, that others are handed, and that nobody can change any more. They
//! are in no folder and end with the last process that holds them.
//!
//! A generation travels so ([`crate::bundle`]), the state of a supervisor on its way to the next image, and what a store
//! has only in memory on its way to the store that follows it: the store writes that when it is told to
//! [keep](crate::control::ToChild::Keep), and the supervisor holds it unread.

use std::{fs::File, os::fd::OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};

use crate::IpcError;

/// An empty memory file that [`seal`] can seal; `name` is what the kernel lists it as.
pub fn create(name: &str) -> Result<File, IpcError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create(name, flags)
        .map_err(|error| IpcError::os(format!("creating the memory file {name}"), error))?;
    Ok(File::from(file))
}

/// Nobody changes it from now on.
pub fn seal(file: File) -> Result<OwnedFd, IpcError> {
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)
        .map_err(|error| IpcError::os("sealing a memory file", error))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::FileExt};

    use super::*;

    #[test]
    fn what_is_sealed_can_be_read_and_not_be_changed() {
        let mut file = create("test").unwrap();
        file.write_all(b"kept").unwrap();
        let mut sealed = File::from(seal(file).unwrap());
        let mut bytes = [0; 4];
        sealed.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"kept");
        assert!(sealed.write_all(b"x").is_err());
    }
}
