//! One generation, pinned: resolved configuration and catalog under one digest, in a sealed memory file.
//!
//! The compile helper writes it, the supervisor hands it on unread but for the configuration, workers and the store
//! read it. The seal makes the bytes immutable for everybody, so all processes of a generation see the same ones.

use std::{
    fs::File,
    io::Write,
    os::{fd::OwnedFd, unix::fs::FileExt},
};

use serde::{Deserialize, Serialize};

use crate::{IpcError, codec, sealed};

/// Layout of [`Bundle`] itself.
pub const BUNDLE_FORMAT: u32 = 1;
/// Largest bundle, bytes.
pub const BUNDLE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// One generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// [`BUNDLE_FORMAT`].
    pub format: u32,
    /// Digest over configuration and catalog, hexadecimal: equal digests mean nothing to do.
    pub digest: String,
    /// MessagePack of the resolved configuration.
    #[serde(with = "serde_bytes")]
    pub config: Vec<u8>,
    /// The catalog's modules, opaque here.
    #[serde(with = "serde_bytes")]
    pub catalog: Vec<u8>,
}

impl Bundle {
    /// Writes the bundle into a new sealed memory file.
    pub fn seal(&self) -> Result<OwnedFd, IpcError> {
        let bytes = codec::encode(self)?;
        let mut file = sealed::create("aegis-bundle")?;
        file.write_all(&bytes).map_err(|error| IpcError::os("writing a bundle", error))?;
        sealed::seal(file)
    }

    /// Reads a bundle back. Uses no file position: processes share the one of an inherited descriptor.
    pub fn read(descriptor: &OwnedFd) -> Result<Self, IpcError> {
        let clone = descriptor.try_clone().map_err(|error| IpcError::os("duplicating a bundle", error))?;
        let file = File::from(clone);
        let length = file.metadata().map_err(|error| IpcError::os("measuring a bundle", error))?.len();
        if length > BUNDLE_BYTES_MAX {
            return Err(IpcError::FrameTooLarge { length_bytes: length, max_bytes: BUNDLE_BYTES_MAX });
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(&mut bytes, 0).map_err(|error| IpcError::os("reading a bundle", error))?;
        let bundle: Self = codec::decode(&bytes)?;
        if bundle.format != BUNDLE_FORMAT {
            return Err(IpcError::Unexpected {
                object: "format of a generation bundle".to_owned(),
                found: bundle.format.to_string(),
                expected: BUNDLE_FORMAT.to_string(),
            });
        }
        Ok(bundle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_reads_back_as_often_as_wanted_and_cannot_be_changed() {
        let bundle =
            Bundle { format: BUNDLE_FORMAT, digest: "d".into(), config: vec![1, 2], catalog: vec![3] };
        let descriptor = bundle.seal().unwrap();
        assert_eq!(Bundle::read(&descriptor).unwrap(), bundle);
        assert_eq!(Bundle::read(&descriptor).unwrap(), bundle);
        let mut file = File::from(descriptor);
        assert!(file.write_all(b"x").is_err());
    }
}
