//! What was fetched before: components by their digest, and the last manifest of each source that was good.
//!
//! The digest of a component is looked at again when it is read; only the manifests are believed because nobody else
//! could have written them.

use std::path::Path;

use aegis_wasm::{COMPONENT_BYTES_MAX, KeptError, KeptFiles};
use semver::Version;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{super::gate::Papers, fetch::Marks};

/// Folder with manifests, inside the folder with components.
const MANIFESTS_FOLDER: &str = "manifests";
/// Bytes of components that are kept.
const COMPONENTS_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Bytes of manifests that are kept.
const MANIFESTS_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Folder with notes about what was seen, inside the folder with components.
const SEEN_FOLDER: &str = "seen";
/// Bytes of notes about what was seen.
const SEEN_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of one manifest with its signatures and what is noted about it; texts may be twice as long as JSON.
const NOTE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What was fetched before, on disk.
#[derive(Debug)]
pub(super) struct Kept {
    components: KeptFiles,
    manifests: KeptFiles,
    seen: KeptFiles,
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
    /// Its version, if it was chosen among several.
    #[serde(default)]
    pub(super) version: Option<Version>,
    /// What its author published, where the manifest was made of that.
    #[serde(default)]
    published: Option<String>,
    /// The file with its signatures.
    #[serde(default)]
    signatures: Option<String>,
}

impl LastGood {
    /// What its author published about it. A component alone has an empty manifest.
    pub(super) fn papers(&self) -> Option<Papers> {
        let manifest = self.published.as_ref().unwrap_or(&self.manifest);
        let signatures = self.signatures.clone().map(String::into_bytes);
        (!manifest.is_empty()).then(|| Papers { manifest: manifest.clone().into_bytes(), signatures })
    }
}

impl Kept {
    /// What is kept in `folder`, which is made if it is not there.
    pub(super) fn open(folder: &Path) -> Result<Self, KeptError> {
        Ok(Self {
            components: KeptFiles::open(folder, COMPONENTS_BYTES_MAX, COMPONENT_BYTES_MAX as u64)?,
            manifests: KeptFiles::open(&folder.join(MANIFESTS_FOLDER), MANIFESTS_BYTES_MAX, NOTE_BYTES_MAX)?,
            seen: KeptFiles::open(&folder.join(SEEN_FOLDER), SEEN_BYTES_MAX, NOTE_BYTES_MAX)?,
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

    /// What was not kept or could not be used, and why: the first such thing.
    pub(super) fn trouble(&self) -> Option<String> {
        [&self.components, &self.manifests, &self.seen].into_iter().find_map(KeptFiles::trouble)
    }

    /// What was seen when the source was last asked for a generation.
    pub(super) fn seen(&self, source: &str) -> Option<Vec<Seen>> {
        let note = self.seen.read(&name_of(source))?;
        let note: SeenNote = serde_json::from_slice(&note).ok()?;
        (note.source == source).then_some(note.seen)
    }

    /// Notes what was seen, whether it is good or not.
    pub(super) fn keep_seen(&self, source: &str, seen: Vec<Seen>) {
        if let Ok(note) = serde_json::to_vec(&SeenNote { source: source.to_owned(), seen }) {
            self.seen.keep(&name_of(source), &note);
        }
    }

    /// What the source said when it was last good.
    pub(super) fn last_good(&self, source: &str) -> Option<LastGood> {
        let note = self.manifests.read(&name_of(source))?;
        serde_json::from_slice::<LastGood>(&note).ok().filter(|good| good.source == source)
    }

    /// Notes that a source is good, now.
    pub(super) fn keep_manifest(
        &self,
        source: &str,
        manifest: String,
        version: Option<Version>,
        papers: Option<Papers>,
    ) {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).ok();
        let (published, signatures) =
            papers.map_or((None, None), |papers| (text(papers.manifest), papers.signatures.and_then(text)));
        let published = published.filter(|published| *published != manifest);
        let reached_at_s = jiff::Timestamp::now().as_second();
        let source_name = source.to_owned();
        let good = LastGood { source: source_name, reached_at_s, manifest, version, published, signatures };
        if let Ok(note) = serde_json::to_vec(&good) {
            self.manifests.keep(&name_of(source), &note);
        }
    }
}

/// Something that a source had, or had not, when it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Where.
    pub(super) url: String,
    /// The form in which it was asked for, if there are several.
    pub(super) accept: Option<String>,
    /// SHA-256 of what was there, hexadecimal; nothing when the source refused to give it.
    pub(super) sha256: Option<String>,
    pub(super) marks: Marks,
}

/// What was seen when a source was asked for a generation.
#[derive(Debug, Serialize, Deserialize)]
struct SeenNote {
    source: String,
    seen: Vec<Seen>,
}

fn name_of(source: &str) -> String {
    format!("{:x}", Sha256::digest(source))
}
