//! What was fetched before: components by their digest, and the last manifest of each source that was good.
//!
//! The digest of a component is looked at again when it is read; only the manifests are believed because nobody else
//! could have written them.

use std::path::Path;

use aegis_wasm::{COMPONENT_BYTES_MAX, KeptError, KeptFiles};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Folder with manifests, inside the folder with components.
const MANIFESTS_FOLDER: &str = "manifests";
/// Bytes of components that are kept.
const COMPONENTS_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Bytes of manifests that are kept.
const MANIFESTS_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of one manifest with what is noted about it; texts may be twice as long as JSON.
const NOTE_BYTES_MAX: u64 = 1024 * 1024;

/// What was fetched before, on disk.
#[derive(Debug)]
pub(super) struct Kept {
    components: KeptFiles,
    manifests: KeptFiles,
}

/// The last manifest of a source whose component was accepted.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastGood {
    /// Where it is from.
    source: String,
    /// When the source last said so, seconds since 1970.
    pub(super) reached_at_s: i64,
    /// The manifest, as it came.
    pub(super) manifest: String,
}

impl Kept {
    /// What is kept in `folder`, which is made if it is not there.
    pub(super) fn open(folder: &Path) -> Result<Self, KeptError> {
        Ok(Self {
            components: KeptFiles::open(folder, COMPONENTS_BYTES_MAX, COMPONENT_BYTES_MAX as u64)?,
            manifests: KeptFiles::open(&folder.join(MANIFESTS_FOLDER), MANIFESTS_BYTES_MAX, NOTE_BYTES_MAX)?,
        })
    }

    /// The component with this digest.
    pub(super) fn component(&self, sha256: &str) -> Option<Vec<u8>> {
        let bytes = self.components.read(sha256)?;
        if format!("{:x}", Sha256::digest(&bytes)) == sha256 {
            return Some(bytes);
        }
        self.components.remove(sha256, &std::io::Error::other("its digest is not its name"));
        None
    }

    /// Keeps a component that was verified.
    pub(super) fn keep_component(&self, sha256: &str, bytes: &[u8]) {
        self.components.keep(sha256, bytes);
    }

    /// What the source said when it was last good.
    pub(super) fn last_good(&self, source: &str) -> Option<LastGood> {
        let note = self.manifests.read(&name_of(source))?;
        serde_json::from_slice::<LastGood>(&note).ok().filter(|good| good.source == source)
    }

    /// Notes that a source is good, now.
    pub(super) fn keep_manifest(&self, source: &str, manifest: &str) {
        let reached_at_s = jiff::Timestamp::now().as_second();
        let good = LastGood { source: source.to_owned(), reached_at_s, manifest: manifest.to_owned() };
        if let Ok(note) = serde_json::to_vec(&good) {
            self.manifests.keep(&name_of(source), &note);
        }
    }
}

fn name_of(source: &str) -> String {
    format!("{:x}", Sha256::digest(source))
}
