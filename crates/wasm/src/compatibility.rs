//! Which code an image can run.

use std::hash::{Hash, Hasher};

use sha2::{Digest, Sha256};
use wasmtime::Engine;

use crate::engine::{self, EngineError, Profile};

/// Bytes of a tag before it is written in hexadecimal.
const TAG_BYTES: usize = 16;

/// The tag of code that this image compiles on this machine. Code with another tag was compiled by another version of
/// the engine, with other settings or for another processor, and is compiled anew. It is that of code for one call at a
/// time, and speaks for the other kind as well, whose settings follow.
///
/// # Errors
/// When this machine cannot run the engine.
pub fn compatibility() -> Result<String, EngineError> {
    Ok(tag(&engine::compiler(Profile::Classic)?))
}

pub(crate) fn tag(engine: &Engine) -> String {
    let mut hash = Hash256(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hash);
    hash.0.finalize().iter().take(TAG_BYTES).map(|byte| format!("{byte:02x}")).collect()
}

/// A hasher whose results mean the same in every version of the standard library.
struct Hash256(Sha256);

impl Hasher for Hash256 {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Nobody asks for it: the whole digest is taken instead.
    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_the_same_each_time() {
        let first = compatibility().unwrap();
        assert_eq!(first.len(), 2 * TAG_BYTES);
        assert_eq!(compatibility().unwrap(), first);
    }

    #[test]
    fn other_settings_have_another_tag() {
        let mut settings = wasmtime::Config::new();
        settings.epoch_interruption(false);
        let other = tag(&Engine::new(&settings).unwrap());
        assert_ne!(other, compatibility().unwrap());
    }

    #[test]
    fn code_for_several_things_at_a_time_has_another_tag() {
        let concurrent = tag(&engine::compiler(Profile::Concurrent).unwrap());
        assert_ne!(concurrent, compatibility().unwrap());
    }
}
