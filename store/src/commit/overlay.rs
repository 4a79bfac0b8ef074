//! What the writes of a group have changed so far, on top of what is committed.

use std::collections::HashMap;

use bytes::Bytes;

use super::{Placed, View};
use crate::{
    engine::{EngineResult, Head, UniqueEdit, UniqueKey, records},
    storage::Place,
};

/// As in the documents of an engine.
type DocumentKey = Vec<u8>;
type Document = Option<(Head, Bytes)>;
type OwnerKey = (Place, UniqueKey);

/// Changes of a group so far. Those of the write at hand can be undone.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    documents: HashMap<DocumentKey, Document>,
    owners: HashMap<OwnerKey, Option<String>>,
    undo: Vec<Undo>,
}

#[derive(Debug)]
enum Undo {
    Document(DocumentKey, Option<Document>),
    Owner(OwnerKey, Option<Option<String>>),
}

impl Overlay {
    /// With room for what most groups of so many writes change: one document each.
    pub(crate) fn for_writes(writes: usize) -> Self {
        Self { documents: HashMap::with_capacity(writes), ..Self::default() }
    }

    /// A write begins: what was changed until now stays.
    pub(crate) fn begin(&mut self) {
        self.undo.clear();
    }

    /// The write at hand is not accepted.
    pub(crate) fn undo(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Document(key, before) => restore(&mut self.documents, key, before),
                Undo::Owner(key, before) => restore(&mut self.owners, key, before),
            }
        }
    }

    /// Revision and number of a document.
    pub(crate) fn head(
        &self,
        view: &dyn View,
        place: Place,
        model: &str,
        id: &str,
    ) -> EngineResult<Option<Head>> {
        match self.document(model, id) {
            Some(document) => Ok(document.as_ref().map(|(head, _)| *head)),
            None => view.head(place, model, id),
        }
    }

    /// Body of a document.
    pub(crate) fn body(
        &self,
        view: &dyn View,
        place: Place,
        model: &str,
        id: &str,
    ) -> EngineResult<Option<Bytes>> {
        match self.document(model, id) {
            Some(document) => Ok(document.as_ref().map(|(_, body)| body.clone())),
            None => view.body(place, model, id),
        }
    }

    /// A document is this from now on.
    pub(crate) fn put_document(&mut self, model: &str, id: &str, document: Document) {
        let key = document_key(model, id);
        let before = self.documents.insert(key.clone(), document);
        self.undo.push(Undo::Document(key, before));
    }

    /// Who has a unique value.
    pub(crate) fn owner(
        &self,
        view: &dyn View,
        place: Place,
        key: &UniqueKey,
    ) -> EngineResult<Option<String>> {
        if !self.owners.is_empty()
            && let Some(owner) = self.owners.get(&(place, key.clone()))
        {
            return Ok(owner.clone());
        }
        view.unique_owner(place, key)
    }

    /// Somebody has a unique value from now on.
    pub(crate) fn put_owner(&mut self, place: Place, key: &UniqueKey, owner: Option<String>) {
        let key = (place, key.clone());
        let before = self.owners.insert(key.clone(), owner);
        self.undo.push(Undo::Owner(key, before));
    }

    /// The last word about each unique value.
    pub(crate) fn into_unique_edits(self) -> Vec<Placed<UniqueEdit>> {
        let edits = self.owners.into_iter();
        edits.map(|((place, key), owner)| Placed { place, what: UniqueEdit { key, owner } }).collect()
    }

    fn document(&self, model: &str, id: &str) -> Option<&Document> {
        if self.documents.is_empty() {
            return None;
        }
        self.documents.get(&document_key(model, id))
    }
}

fn document_key(model: &str, id: &str) -> DocumentKey {
    let mut key = Vec::with_capacity(1 + model.len() + id.len());
    records::document_key(model, id, &mut key);
    key
}

fn restore<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, key: K, before: Option<V>) {
    match before {
        Some(before) => map.insert(key, before),
        None => map.remove(&key),
    };
}
