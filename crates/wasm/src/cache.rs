//! Code that was compiled before, on disk, so that a reload compiles only what has changed.
//!
//! One file per component and kind of engine, named after both. What is found is run, so it counts only if nobody else
//! could have written it: see [`KeptFiles`].

use std::{io, path::Path};

use wasmtime::{Engine, component::Component};

use crate::{
    compatibility,
    kept::{KeptError, KeptFiles},
};

/// Largest code of one component, bytes.
const CODE_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Compiled code on disk.
#[derive(Debug)]
pub struct CodeCache {
    files: KeptFiles,
}

impl CodeCache {
    /// The cache in `folder`, which is made if it is not there. It is kept below `bytes_max` by removing what was used
    /// longest ago.
    ///
    /// # Errors
    /// When the folder cannot be made, or anybody else could have written there.
    pub fn open(folder: &Path, bytes_max: u64) -> Result<Self, KeptError> {
        KeptFiles::open(folder, bytes_max, CODE_BYTES_MAX).map(|files| Self { files })
    }

    /// The component with this digest, if its code is here and fits the engine, and the code.
    pub(crate) fn component(&self, engine: &Engine, digest: &str) -> Option<(Component, Vec<u8>)> {
        let name = name_of(engine, digest);
        let code = self.files.read(&name)?;
        match trusted(engine, &code) {
            Ok(component) => Some((component, code)),
            Err(error) => {
                self.files.remove(&name, &io::Error::other(format!("{error:#}")));
                None
            }
        }
    }

    /// What was not kept or could not be used, and why: the first such thing.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.files.trouble()
    }

    /// Puts code there. Failure costs time, nothing else.
    pub(crate) fn keep(&self, engine: &Engine, digest: &str, code: &[u8]) {
        self.files.keep(&name_of(engine, digest), code);
    }
}

fn name_of(engine: &Engine, digest: &str) -> String {
    format!("{digest}-{}", compatibility::tag(engine))
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
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::engine::{self, Profile};

    /// The smallest component there is.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    struct Place {
        folder: tempfile::TempDir,
        engine: Engine,
    }

    impl Place {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap(), engine: engine::compiler(Profile::Classic).unwrap() }
        }

        fn code_folder(&self) -> PathBuf {
            self.folder.path().join("a/code")
        }

        fn cache(&self) -> CodeCache {
            CodeCache::open(&self.code_folder(), 1 << 20).unwrap()
        }

        fn code(&self) -> Vec<u8> {
            Component::from_binary(&self.engine, EMPTY).unwrap().serialize().unwrap()
        }

        fn files(&self) -> Vec<PathBuf> {
            fs::read_dir(self.code_folder()).unwrap().map(|entry| entry.unwrap().path()).collect()
        }
    }

    #[test]
    fn code_is_found_again_under_its_digest() {
        let place = Place::new();
        let cache = place.cache();
        assert!(cache.component(&place.engine, "aa").is_none());
        let code = place.code();
        cache.keep(&place.engine, "aa", &code);
        assert!(cache.component(&place.engine, "aa").is_some_and(|(_, found)| found == code));
        assert!(cache.component(&place.engine, "bb").is_none());
    }

    /// Nothing that the engine of `place` made comes to `other`.
    fn keeps_apart(place: &Place, other: &Engine) {
        let cache = place.cache();
        cache.keep(&place.engine, "aa", &place.code());
        assert!(cache.component(other, "aa").is_none());
        // Even under the right name it is refused, by the engine itself.
        let file = place.files().remove(0);
        fs::rename(&file, place.code_folder().join(name_of(other, "aa"))).unwrap();
        assert!(cache.component(other, "aa").is_none());
        assert_eq!(place.files(), [] as [PathBuf; 0]);
    }

    #[test]
    fn what_another_engine_made_is_not_found() {
        let mut settings = wasmtime::Config::new();
        settings.epoch_interruption(false);
        keeps_apart(&Place::new(), &Engine::new(&settings).unwrap());
    }

    #[test]
    fn code_of_one_kind_is_never_found_for_the_other() {
        let mut place = Place::new();
        let concurrent = engine::compiler(Profile::Concurrent).unwrap();
        keeps_apart(&place, &concurrent);
        let classic = std::mem::replace(&mut place.engine, concurrent);
        keeps_apart(&place, &classic);
    }
}
