//! What a store has only in memory, on its way to the store that follows it, in a sealed memory file.
//!
//! The store writes it when it is told to [keep](crate::control::ToChild::Keep), the supervisor holds it unread and hands
//! it to the next store. It is in no folder: it ends with the host.

use std::{fs::File, os::fd::OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags};

use crate::IpcError;

/// An empty memory file that [`seal`] can seal.
pub fn create() -> Result<File, IpcError> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("aegis-kept", flags)
        .map_err(|error| IpcError::os("creating the memory file for the next store", error))?;
    Ok(File::from(file))
}

/// Nobody changes it from now on.
pub fn seal(file: File) -> Result<OwnedFd, IpcError> {
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)
        .map_err(|error| IpcError::os("sealing the memory file for the next store", error))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::FileExt};

    use super::*;

    #[test]
    fn what_is_sealed_can_be_read_and_not_be_changed() {
        let mut file = create().unwrap();
        file.write_all(b"kept").unwrap();
        let mut sealed = File::from(seal(file).unwrap());
        let mut bytes = [0; 4];
        sealed.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"kept");
        assert!(sealed.write_all(b"x").is_err());
    }
}
