//! All documents on disk at one moment.

use aegis_ipc::data::Stored;
use bytes::Bytes;
use fjall::{Keyspace, Readable};

use super::into_stored;
use crate::{
    engine::{EngineResult, Snapshot, records},
    error::EngineError,
};

/// A view of the documents.
pub(super) struct FjallSnapshot {
    /// For messages.
    pub(super) folder: String,
    pub(super) documents: Keyspace,
    pub(super) snapshot: fjall::Snapshot,
    pub(super) last: u64,
}

impl Snapshot for FjallSnapshot {
    fn last(&self) -> u64 {
        self.last
    }

    fn models(&self) -> EngineResult<Vec<String>> {
        let mut models = Vec::new();
        let mut from: Vec<u8> = Vec::new();
        // From the first document of a model straight to the first one of the next.
        while let Some(row) = self.snapshot.range(&self.documents, from.as_slice()..).next() {
            let key =
                row.key().map_err(|error| EngineError::from_fjall("listing models", &self.folder, error))?;
            let model = records::read_model(&key).map_err(|flaw| {
                let object = format!("key {} of partition documents in {}", key.escape_ascii(), self.folder);
                EngineError::damaged(object, flaw.to_string())
            })?;
            from.clear();
            from.extend_from_slice(&key[..=model.len()]);
            // Names are UTF-8, in which no byte is 255: the next byte up is behind all ids of this model.
            if let Some(last) = from.last_mut() {
                *last += 1;
            }
            models.push(model);
        }
        Ok(models)
    }

    fn documents<'a>(&'a self, model: &str) -> Box<dyn Iterator<Item = EngineResult<Stored>> + 'a> {
        let mut prefix = Vec::new();
        records::model_prefix(model, &mut prefix);
        Box::new(self.snapshot.prefix(&self.documents, prefix).map(|row| {
            let (key, record) = row
                .into_inner()
                .map_err(|error| EngineError::from_fjall("reading all documents", &self.folder, error))?;
            records::read_change(&Bytes::from_owner(record)).and_then(into_stored).map_err(|flaw| {
                let object = format!("row {} of partition documents in {}", key.escape_ascii(), self.folder);
                EngineError::damaged(object, flaw.to_string())
            })
        }))
    }
}
