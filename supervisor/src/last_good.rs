//! The last generation that was in force, kept on disk so that it survives everything: a generation that cannot serve
//! after a cold start is rolled back to it.
//!
//! One file, `generations/last-good` in the data directory: a checksummed frame around the bytes of the bundle. It is
//! replaced as a whole (written beside, synced, renamed, directory synced), so a reader finds the old one or the new.

use std::{
    fs::File,
    io::{self, Write},
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::{Path, PathBuf},
};

use aegis_ipc::{IpcError, bundle::Bundle, codec, frame};
use bytes::BytesMut;

use crate::SupervisorError;

const FOLDER: &str = "generations";
const FILE: &str = "last-good";
const FILE_BEING_WRITTEN: &str = "last-good.new";

/// Where the last good generation of a data directory is.
#[derive(Debug, Clone)]
pub struct LastGood {
    folder: PathBuf,
}

/// Why there is no last good generation to go back to.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// None was ever in force.
    #[error("no generation was in force on this data before")]
    Never,
    /// The file is there, and not as it was written.
    #[error("the last good generation in {path} cannot be used: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl LastGood {
    /// The one of this data directory.
    #[must_use]
    pub fn of(data_directory: &Path) -> Self {
        Self { folder: data_directory.join(FOLDER) }
    }

    /// Writes the bundle behind `bundle`.
    pub fn write(&self, bundle: &OwnedFd) -> Result<(), SupervisorError> {
        let bytes =
            bytes_of(bundle).map_err(|error| SupervisorError::os("reading the bundle in force", error))?;
        let mut framed = Vec::with_capacity(frame::FRAME_HEADER_BYTES + bytes.len());
        frame::write(&bytes, &mut framed)?;
        self.replace(&framed).map_err(|error| {
            SupervisorError::os(format!("writing {}", self.folder.join(FILE).display()), error)
        })
    }

    /// Reads it into a new sealed memory file.
    pub fn read(&self) -> Result<OwnedFd, Missing> {
        let path = self.folder.join(FILE);
        let damaged = |reason: String| Missing::Damaged { path: path.clone(), reason };
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Missing::Never),
            Err(error) => return Err(damaged(error.to_string())),
        };
        open(&bytes).map_err(|error| damaged(crate::with_causes(&error)))
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let new = self.folder.join(FILE_BEING_WRITTEN);
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, self.folder.join(FILE))?;
        File::open(&self.folder)?.sync_all()
    }
}

fn open(bytes: &[u8]) -> Result<OwnedFd, IpcError> {
    let mut buffer = BytesMut::from(bytes);
    let incomplete = || IpcError::Unexpected {
        object: "the file".to_owned(),
        found: format!("{} bytes", bytes.len()),
        expected: "one whole frame".to_owned(),
    };
    let payload = frame::take(&mut buffer)?.ok_or_else(incomplete)?;
    codec::decode::<Bundle>(&payload)?.seal()
}

fn bytes_of(bundle: &OwnedFd) -> io::Result<Vec<u8>> {
    let file = File::from(bundle.try_clone()?);
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use aegis_ipc::bundle::BUNDLE_FORMAT;

    use super::*;

    fn bundle(digest: &str) -> Bundle {
        Bundle {
            format: BUNDLE_FORMAT,
            digest: digest.to_owned(),
            config: vec![1; 100],
            catalog: vec![2; 5000],
        }
    }

    #[test]
    fn the_newest_bundle_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let last_good = LastGood::of(directory.path());
        assert!(matches!(last_good.read(), Err(Missing::Never)));
        for digest in ["first", "second"] {
            last_good.write(&bundle(digest).seal().unwrap()).unwrap();
            assert_eq!(Bundle::read(&last_good.read().unwrap()).unwrap(), bundle(digest));
        }
        let files: Vec<_> = std::fs::read_dir(directory.path().join(FOLDER)).unwrap().collect();
        assert_eq!(files.len(), 1, "nothing is left beside it");
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let last_good = LastGood::of(directory.path());
        last_good.write(&bundle("x").seal().unwrap()).unwrap();
        let path = directory.path().join(FOLDER).join(FILE);
        let whole = std::fs::read(&path).unwrap();
        for position in (0..whole.len()).step_by(97) {
            std::fs::write(&path, &whole[..position]).unwrap();
            assert!(matches!(last_good.read(), Err(Missing::Damaged { .. })), "cut at {position}");
            let mut flipped = whole.clone();
            flipped[position] ^= 0x10;
            std::fs::write(&path, &flipped).unwrap();
            assert!(matches!(last_good.read(), Err(Missing::Damaged { .. })), "flipped at {position}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error_with_the_path() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FOLDER), "a file").unwrap();
        let error = LastGood::of(directory.path()).write(&bundle("x").seal().unwrap()).unwrap_err();
        assert!(error.to_string().ends_with("generations/last-good failed"), "{error}");
    }
}
