//! Former versions of documents, for plans that have not looked at them yet.
//!
//! A plan that has many documents to look at takes them out of the table little by little, so that the lock is never held
//! for long, and all the same shows one state of the table. What changes in the meantime is kept here. A version that
//! nobody is waiting for is not.

use std::collections::HashMap;

use super::documents::Version;
use crate::query::Snapshot;

/// Bytes of former versions, beyond which plans that wait for them have to be made anew.
const RETIRED_BYTES_MAX: u64 = 32 << 20;
/// What a version costs beyond its body.
const VERSION_BYTES: u64 = 128;

/// Former versions by their sequence number.
#[derive(Debug, Default)]
pub(super) struct Retired {
    versions: HashMap<u64, Version>,
    bytes: u64,
    snapshot: Snapshot,
}

impl Retired {
    /// Keeps every version from now on that is replaced while the snapshot is held.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    /// Takes a version that has been replaced.
    pub(super) fn add(&mut self, version: Version) {
        if !self.snapshot.is_held() {
            return self.forget();
        }
        self.bytes += version.body.as_ref().map_or(0, |body| body.len() as u64) + VERSION_BYTES;
        self.versions.insert(version.sequence, version);
        if self.bytes > RETIRED_BYTES_MAX {
            self.end();
        }
    }

    /// The version with this number.
    pub(super) fn get(&self, sequence: u64) -> Option<&Version> {
        self.versions.get(&sequence)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.versions.len()
    }

    /// Ends all snapshots.
    pub(super) fn end(&mut self) {
        self.snapshot = Snapshot::default();
        self.forget();
    }

    fn forget(&mut self) {
        if !self.versions.is_empty() {
            self.versions = HashMap::new();
            self.bytes = 0;
        }
    }
}
