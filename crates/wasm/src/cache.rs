//! Code that was compiled before, on disk, so that a reload compiles only what has changed.
//!
//! One file per component and kind of engine, named after both: the code, then its SHA-256. What is found is run, so the
//! folder and its files must belong to this user and be closed to everybody else, or nothing in there is looked at. A
//! file that is not as it was written is removed.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW};
use sha2::{Digest, Sha256};
use wasmtime::{Engine, component::Component};

use crate::compatibility;

/// Mode of the folder: nobody else.
const FOLDER_MODE: u32 = 0o700;
/// Mode of a file: nobody else.
const FILE_MODE: u32 = 0o600;
/// Permissions that nobody else may have.
const OTHERS: u32 = 0o077;
/// Bytes of the checksum behind the code.
const CHECKSUM_BYTES: usize = 32;
/// Largest code of one component, bytes.
const CODE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Why there is no cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
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

/// Compiled code on disk.
#[derive(Debug)]
pub struct CodeCache {
    folder: PathBuf,
    bytes_max: u64,
}

impl CodeCache {
    /// The cache in `folder`, which is made if it is not there. It is kept below `bytes_max` by removing what was used
    /// longest ago.
    ///
    /// # Errors
    /// When the folder cannot be made, or anybody else could have written there.
    pub fn open(folder: &Path, bytes_max: u64) -> Result<Self, CacheError> {
        let failed = |source| CacheError::Os { path: folder.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(failed)?;
        let metadata = fs::symlink_metadata(folder).map_err(failed)?;
        let found = match whose(&metadata) {
            _ if !metadata.is_dir() => Some("a link or a file".to_owned()),
            Ok(()) => None,
            Err(found) => Some(found),
        };
        match found {
            None => Ok(Self { folder: folder.to_owned(), bytes_max }),
            Some(found) => Err(CacheError::NotOurs { path: folder.to_owned(), found }),
        }
    }

    /// The component with this digest, if its code is here and fits the engine, and the code.
    pub(crate) fn component(&self, engine: &Engine, digest: &str) -> Option<(Component, Vec<u8>)> {
        let path = self.path_of(engine, digest);
        let code = match read(&path) {
            Ok(code) => code,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => return self.drop_file(&path, &error),
        };
        match trusted(engine, &code) {
            Ok(component) => Some((component, code)),
            Err(error) => self.drop_file(&path, &io::Error::other(format!("{error:#}"))),
        }
    }

    /// Puts code there. Failure costs time, nothing else.
    pub(crate) fn keep(&self, engine: &Engine, digest: &str, code: &[u8]) {
        let path = self.path_of(engine, digest);
        if code.len() as u64 > self.bytes_max.min(CODE_BYTES_MAX) {
            return;
        }
        let kept = self.write(&path, code).and_then(|()| self.make_room(&path));
        if let Err(error) = kept {
            let path = path.display();
            tracing::warn!(target: "aegis::wasm", %error, %path, "compiled code is not kept");
        }
    }

    fn path_of(&self, engine: &Engine, digest: &str) -> PathBuf {
        self.folder.join(format!("{digest}-{}", compatibility::tag(engine)))
    }

    fn drop_file<T>(&self, path: &Path, reason: &io::Error) -> Option<T> {
        tracing::warn!(target: "aegis::wasm", %reason, path = %path.display(), "compiled code is not used, and removed");
        let _ = fs::remove_file(path); // if it stays, it is not used the next time either
        None
    }

    /// Writes beside and renames, so that a reader finds all of it or nothing. Not synced: a file that a crash left
    /// incomplete is found out by its checksum.
    fn write(&self, path: &Path, code: &[u8]) -> io::Result<()> {
        let beside = path.with_extension(format!("{}.new", std::process::id()));
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&beside)?;
        let written = file
            .write_all(code)
            .and_then(|()| file.write_all(&Sha256::digest(code)))
            .and_then(|()| fs::rename(&beside, path));
        if written.is_err() {
            let _ = fs::remove_file(&beside); // the first failure is the one to tell
        }
        written
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

/// Reads code that we wrote, and notes that it was used.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let flags = i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0);
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > CODE_BYTES_MAX + CHECKSUM_BYTES as u64 {
        return Err(io::Error::other("it is no file of ours"));
    }
    whose(&metadata).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    (&file).take(metadata.len()).read_to_end(&mut bytes)?;
    let code_bytes =
        bytes.len().checked_sub(CHECKSUM_BYTES).ok_or_else(|| io::Error::other("it is cut off"))?;
    let checksum = bytes.split_off(code_bytes);
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

#[expect(unsafe_code, reason = "the engine cannot check that it made the code itself")]
fn trusted(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the file and its folder belong to us and are closed to others, so this program wrote it, for a component
    // that it compiled, and the checksum says that it is as it was written. The engine itself refuses what another
    // version of it made.
    unsafe { Component::deserialize(engine, code) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::engine;

    /// The smallest component there is.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    struct Place {
        folder: tempfile::TempDir,
        engine: Engine,
    }

    impl Place {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap(), engine: engine::compiler().unwrap() }
        }

        fn cache(&self, bytes_max: u64) -> CodeCache {
            CodeCache::open(&self.folder.path().join("a/code"), bytes_max).unwrap()
        }

        fn code(&self) -> Vec<u8> {
            Component::from_binary(&self.engine, EMPTY).unwrap().serialize().unwrap()
        }

        fn files(&self, cache: &CodeCache) -> Vec<PathBuf> {
            let mut files: Vec<_> =
                fs::read_dir(&cache.folder).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.sort();
            files
        }
    }

    #[test]
    fn code_is_found_again_under_its_digest() {
        let place = Place::new();
        let cache = place.cache(1 << 20);
        assert!(cache.component(&place.engine, "aa").is_none());
        let code = place.code();
        cache.keep(&place.engine, "aa", &code);
        assert!(cache.component(&place.engine, "aa").is_some_and(|(_, found)| found == code));
        assert!(cache.component(&place.engine, "bb").is_none());
        let files = place.files(&cache);
        assert_eq!(files.len(), 1, "nothing is left beside it");
        assert_eq!(fs::metadata(&files[0]).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&cache.folder).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_another_engine_made_is_not_found() {
        let place = Place::new();
        let cache = place.cache(1 << 20);
        cache.keep(&place.engine, "aa", &place.code());
        let mut settings = wasmtime::Config::new();
        settings.epoch_interruption(false);
        let other = Engine::new(&settings).unwrap();
        assert!(cache.component(&other, "aa").is_none());
        // Even under the right name it is refused, by the engine itself.
        let file = place.files(&cache).remove(0);
        fs::rename(&file, cache.path_of(&other, "aa")).unwrap();
        assert!(cache.component(&other, "aa").is_none());
        assert_eq!(place.files(&cache), [] as [PathBuf; 0]);
    }

    #[test]
    fn damaged_files_are_removed() {
        let place = Place::new();
        let cache = place.cache(1 << 20);
        for damage in [
            |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2),
            |bytes: &mut Vec<u8>| bytes.truncate(7),
            |bytes: &mut Vec<u8>| bytes[100] ^= 1,
            |bytes: &mut Vec<u8>| bytes.push(0),
        ] {
            cache.keep(&place.engine, "aa", &place.code());
            let file = place.files(&cache).remove(0);
            let mut bytes = fs::read(&file).unwrap();
            damage(&mut bytes);
            fs::write(&file, bytes).unwrap();
            assert!(cache.component(&place.engine, "aa").is_none());
            assert_eq!(place.files(&cache), [] as [PathBuf; 0]);
        }
    }

    #[test]
    fn what_others_could_have_written_is_not_used() {
        let place = Place::new();
        let cache = place.cache(1 << 20);
        cache.keep(&place.engine, "aa", &place.code());
        let file = place.files(&cache).remove(0);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o620)).unwrap();
        assert!(cache.component(&place.engine, "aa").is_none());
        cache.keep(&place.engine, "aa", &place.code());
        let elsewhere = place.folder.path().join("elsewhere");
        fs::rename(&file, &elsewhere).unwrap();
        symlink(&elsewhere, &file).unwrap();
        assert!(cache.component(&place.engine, "aa").is_none(), "links are not followed");
        fs::set_permissions(&cache.folder, fs::Permissions::from_mode(0o755)).unwrap();
        let message = CodeCache::open(&cache.folder, 1).unwrap_err().to_string();
        assert!(
            message.ends_with("found mode 755, expected a folder of this user that nobody else can enter")
        );
        let link = place.folder.path().join("link");
        symlink(&cache.folder, &link).unwrap();
        assert!(CodeCache::open(&link, 1).unwrap_err().to_string().contains("found a link or a file"));
    }

    #[test]
    fn what_was_used_longest_ago_goes_first() {
        let place = Place::new();
        let code = place.code();
        let each = (code.len() + CHECKSUM_BYTES) as u64;
        let cache = place.cache(2 * each);
        let age = |digest: &str, seconds: u64| {
            let file = File::open(cache.path_of(&place.engine, digest)).unwrap();
            let then = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            file.set_modified(then).unwrap();
        };
        cache.keep(&place.engine, "aa", &code);
        cache.keep(&place.engine, "bb", &code);
        age("aa", 1);
        age("bb", 2);
        assert!(cache.component(&place.engine, "aa").is_some(), "used now");
        cache.keep(&place.engine, "cc", &code);
        assert!(cache.component(&place.engine, "bb").is_none());
        assert!(cache.component(&place.engine, "aa").is_some());
        assert!(cache.component(&place.engine, "cc").is_some());
    }

    #[test]
    fn what_is_larger_than_the_cache_is_not_kept() {
        let place = Place::new();
        let cache = place.cache(10);
        cache.keep(&place.engine, "aa", &place.code());
        assert_eq!(place.files(&cache), [] as [PathBuf; 0]);
    }
}
