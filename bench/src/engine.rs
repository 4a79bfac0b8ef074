//! The storage engine alone, as it comes: what its own group commit reaches with the rows that the host writes per
//! document, synced with `fsync` into a journal in which no room was made before.

use std::time::{Duration, Instant};

use fjall::{Database, KeyspaceCreateOptions, PersistMode};

/// What the engine reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reached {
    /// Documents per second in groups.
    pub(crate) rate: f64,
    /// Median time of one synced write of one document.
    pub(crate) single: Duration,
}

/// Commits documents in groups of `group`, each synced, for `duration`; then single documents for a fifth of it.
pub(crate) fn measure(document: &[u8], group: usize, duration: Duration) -> Reached {
    let folder = tempfile::Builder::new().prefix("aegis-bench-").tempdir().expect("a temporary folder");
    let database = Database::builder(folder.path().join("engine")).open().expect("open the engine");
    let documents = database.keyspace("documents", KeyspaceCreateOptions::default).expect("a keyspace");
    let log = database.keyspace("log", KeyspaceCreateOptions::default).expect("a keyspace");
    let mut number = 0_u64;
    let mut commit = |count: usize| {
        let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
        for _ in 0..count {
            number += 1;
            let key = format!("TODO\0{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            batch.insert(&documents, key, document);
            batch.insert(&log, number.to_be_bytes(), document);
        }
        batch.commit().expect("commit a group");
    };
    let begun = Instant::now();
    let mut committed = 0_usize;
    while begun.elapsed() < duration {
        commit(group);
        committed += group;
    }
    let rate = committed as f64 / begun.elapsed().as_secs_f64();

    let mut singles = Vec::new();
    let end = Instant::now() + duration / 5;
    while Instant::now() < end {
        let begun = Instant::now();
        commit(1);
        singles.push(begun.elapsed());
    }
    singles.sort_unstable();
    Reached { rate, single: singles[singles.len() / 2] }
}
