//! Files that are kept for later under names that tell what is in them, such as a digest: what was made or fetched once
//! need not be made or fetched again.
//!
//! A file is its content, then the SHA-256 of it. The folder and its files must belong to this user and be closed to
//! everybody else, or nothing in there is looked at. A file that is not as it was written is removed.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use parking_lot::Mutex;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW};
use sha2::{Digest, Sha256};

/// Mode of the folder: nobody else.
const FOLDER_MODE: u32 = 0o700;
/// Mode of a file: nobody else.
const FILE_MODE: u32 = 0o600;
/// Permissions that nobody else may have.
const OTHERS: u32 = 0o077;
/// Bytes of the checksum behind the content.
const CHECKSUM_BYTES: usize = 32;

/// Why nothing is kept.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// Somebody else could have put something there.
    #[error("{}: found {found}, expected a folder of this user that nobody else can enter", path.display())]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// It cannot be made or read.
    #[error("opening {}", path.display())]
    Os {
        /// The folder.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
}

/// A folder with files that only this user has written.
#[derive(Debug)]
pub struct KeptFiles {
    folder: PathBuf,
    bytes_max: u64,
    file_bytes_max: u64,
    trouble: Mutex<Option<String>>,
}

impl KeptFiles {
    /// The files in `folder`, which is made if it is not there. All together are kept below `bytes_max` by removing what
    /// was used longest ago; larger ones than `file_bytes_max` are not kept.
    ///
    /// # Errors
    /// When the folder cannot be made, or anybody else could have written there.
    pub fn open(folder: &Path, bytes_max: u64, file_bytes_max: u64) -> Result<Self, KeptError> {
        let failed = |source| KeptError::Os { path: folder.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(failed)?;
        let metadata = fs::symlink_metadata(folder).map_err(failed)?;
        let found = match whose(&metadata) {
            _ if !metadata.is_dir() => Some("a link or a file".to_owned()),
            Ok(()) => None,
            Err(found) => Some(found),
        };
        match found {
            None => {
                Ok(Self { folder: folder.to_owned(), bytes_max, file_bytes_max, trouble: Mutex::default() })
            }
            Some(found) => Err(KeptError::NotOurs { path: folder.to_owned(), found }),
        }
    }

    /// What is kept under this name, which is noted as used.
    #[must_use]
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        match read(&self.folder.join(name), self.file_bytes_max) {
            Ok(content) => Some(content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.remove(name, &error);
                None
            }
        }
    }

    /// Removes what turned out to be of no use.
    pub fn remove(&self, name: &str, reason: &io::Error) {
        let path = self.folder.join(name);
        self.note(format!("{}: it is not used, and removed: {reason}", path.display()));
        let _ = fs::remove_file(path); // if it stays, it is not used the next time either
    }

    /// Keeps content under a name. Failure costs time later, nothing else.
    pub fn keep(&self, name: &str, content: &[u8]) {
        let path = self.folder.join(name);
        if content.len() as u64 > self.bytes_max.min(self.file_bytes_max) {
            return;
        }
        let kept = write(&path, content).and_then(|()| self.make_room(&path));
        if let Err(error) = kept {
            self.note(format!("{}: it is not kept for later: {error}", path.display()));
        }
    }

    /// The first thing that was not kept, or could not be used, and why. Nobody is told otherwise: whoever keeps files
    /// may not have a log yet.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    fn note(&self, trouble: String) {
        self.trouble.lock().get_or_insert(trouble);
    }

    /// Removes what was used longest ago, but for `newest`, until the rest fits.
    fn make_room(&self, newest: &Path) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            // Somebody else who makes room may be faster.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                files.push(((metadata.mtime(), metadata.mtime_nsec()), metadata.len(), entry.path()));
            }
        }
        let mut bytes: u64 = files.iter().map(|(_, length, _)| length).sum();
        files.sort();
        for (_, length, path) in files {
            if bytes <= self.bytes_max {
                break;
            }
            if path != newest && fs::remove_file(&path).is_ok() {
                bytes -= length;
            }
        }
        Ok(())
    }
}

/// Writes beside and renames, so that a reader finds all of it or nothing. Not synced: a file that a crash left
/// incomplete is found out by its checksum.
fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&beside)?;
    let written = file
        .write_all(content)
        .and_then(|()| file.write_all(&Sha256::digest(content)))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside); // the first failure is the one to tell
    }
    written
}

/// Says what is wrong with the owner or the mode, if anything is.
fn whose(metadata: &fs::Metadata) -> Result<(), String> {
    let (owner, us) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != us {
        return Err(format!("one of user {owner}, and we are {us}"));
    }
    if metadata.mode() & OTHERS != 0 {
        return Err(format!("mode {:o}", metadata.mode() & 0o7777));
    }
    Ok(())
}

/// Reads what we wrote, and notes that it was used.
fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > bytes_max + CHECKSUM_BYTES as u64 {
        return Err(io::Error::other("it is no file of ours"));
    }
    whose(&metadata).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    (&file).take(metadata.len()).read_to_end(&mut bytes)?;
    let content_bytes =
        bytes.len().checked_sub(CHECKSUM_BYTES).ok_or_else(|| io::Error::other("it is cut off"))?;
    let checksum = bytes.split_off(content_bytes);
    if Sha256::digest(&bytes)[..] != checksum[..] {
        return Err(io::Error::other("its checksum is another"));
    }
    touch(&file);
    Ok(bytes)
}

fn touch(file: &File) {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    // If it cannot, the file goes a little early.
    let _ = rustix::fs::futimens(file, &Timestamps { last_access: now, last_modification: now });
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const CONTENT: &[u8] = &[7; 1000];

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn kept(&self, bytes_max: u64) -> KeptFiles {
            KeptFiles::open(&self.0.path().join("a/kept"), bytes_max, 1 << 20).unwrap()
        }
    }

    fn files(kept: &KeptFiles) -> Vec<PathBuf> {
        let mut files: Vec<_> =
            fs::read_dir(&kept.folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    #[test]
    fn content_is_found_again_under_its_name() {
        let place = Place::new();
        let kept = place.kept(1 << 20);
        assert_eq!(kept.read("aa"), None);
        kept.keep("aa", CONTENT);
        assert_eq!(kept.read("aa").as_deref(), Some(CONTENT));
        assert_eq!(kept.read("bb"), None);
        kept.keep("aa", b"other");
        assert_eq!(kept.read("aa").as_deref(), Some(&b"other"[..]));
        let files = files(&kept);
        assert_eq!(files.len(), 1, "nothing is left beside it");
        assert_eq!(fs::metadata(&files[0]).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&kept.folder).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn damaged_files_are_removed() {
        let place = Place::new();
        let kept = place.kept(1 << 20);
        for damage in [
            |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2),
            |bytes: &mut Vec<u8>| bytes.truncate(7),
            |bytes: &mut Vec<u8>| bytes[100] ^= 1,
            |bytes: &mut Vec<u8>| bytes.push(0),
        ] {
            kept.keep("aa", CONTENT);
            let file = files(&kept).remove(0);
            let mut bytes = fs::read(&file).unwrap();
            damage(&mut bytes);
            fs::write(&file, bytes).unwrap();
            assert_eq!(kept.read("aa"), None);
            assert_eq!(files(&kept), [] as [PathBuf; 0]);
        }
        assert!(
            kept.trouble().unwrap().ends_with("aa: it is not used, and removed: its checksum is another")
        );
    }

    #[test]
    fn what_cannot_be_kept_is_told() {
        let place = Place::new();
        let kept = place.kept(1 << 20);
        kept.keep("aa", CONTENT);
        assert_eq!(kept.trouble(), None);
        fs::remove_dir_all(&kept.folder).unwrap();
        kept.keep("aa", CONTENT);
        kept.keep("bb", CONTENT);
        let trouble = kept.trouble().unwrap();
        assert!(trouble.contains("aa: it is not kept for later: No such file"), "{trouble}");
    }

    #[test]
    fn what_others_could_have_written_is_not_used() {
        let place = Place::new();
        let kept = place.kept(1 << 20);
        kept.keep("aa", CONTENT);
        let file = files(&kept).remove(0);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o620)).unwrap();
        assert_eq!(kept.read("aa"), None);
        kept.keep("aa", CONTENT);
        let elsewhere = place.0.path().join("elsewhere");
        fs::rename(&file, &elsewhere).unwrap();
        symlink(&elsewhere, &file).unwrap();
        assert_eq!(kept.read("aa"), None, "links are not followed");
        let open = |folder: &Path| KeptFiles::open(folder, 1, 1).unwrap_err().to_string();
        fs::set_permissions(&kept.folder, fs::Permissions::from_mode(0o755)).unwrap();
        let message = open(&kept.folder);
        assert!(
            message.ends_with("found mode 755, expected a folder of this user that nobody else can enter")
        );
        let link = place.0.path().join("link");
        symlink(&kept.folder, &link).unwrap();
        assert!(open(&link).contains("found a link or a file"));
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let place = Place::new();
        let each = (CONTENT.len() + CHECKSUM_BYTES) as u64;
        let kept = place.kept(2 * each);
        let age = |name: &str, seconds: u64| {
            let file = File::open(kept.folder.join(name)).unwrap();
            let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            file.set_modified(then).unwrap();
        };
        kept.keep("aa", CONTENT);
        kept.keep("bb", CONTENT);
        age("aa", 1);
        age("bb", 2);
        assert!(kept.read("aa").is_some(), "used now");
        kept.keep("cc", CONTENT);
        assert!(kept.read("bb").is_none());
        assert!(kept.read("aa").is_some());
        assert!(kept.read("cc").is_some());
    }

    #[test]
    fn what_is_larger_than_all_the_room_is_not_kept() {
        let place = Place::new();
        let kept = place.kept(10);
        kept.keep("aa", CONTENT);
        assert_eq!(files(&kept), [] as [PathBuf; 0]);
    }
}
