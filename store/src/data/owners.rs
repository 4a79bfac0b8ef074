//! Who has which value of a unique field, while documents come in.

use aegis_ipc::data::Stored;
use bytes::Bytes;

use crate::{
    catalog::Rules,
    commit::{Overlay, View},
    engine::{
        CommittedWrite, Engine, EngineResult, Head, KeptResponse, UniqueEdit, UniqueKey, fjall::FjallEngine,
    },
    error::EngineError,
    storage::Place,
};

/// What is on disk, and what documents have changed about it that are not written yet.
pub(super) struct Owners<'a> {
    engine: &'a FjallEngine,
    /// Nothing while the models are not known.
    rules: Option<Rules>,
    overlay: Overlay,
}

/// A value of a unique field that another document has.
#[derive(Debug)]
pub(super) struct Taken {
    /// Name of the field.
    pub(super) field: String,
    /// Number of its index.
    pub(super) index: u32,
    /// Id of the document that has it.
    pub(super) owner: String,
}

/// Why a document cannot have its values.
#[derive(Debug)]
pub(super) enum Objection {
    /// It is none that the host could have stored.
    Body(String),
    /// Another one has one of them.
    Taken(Taken),
    /// The engine failed.
    Engine(EngineError),
}

impl From<EngineError> for Objection {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl<'a> Owners<'a> {
    /// Those on disk.
    pub(super) fn new(engine: &'a FjallEngine, rules: Option<Rules>) -> Self {
        Self { engine, rules, overlay: Overlay::default() }
    }

    /// A document is another one from now on: it gives up the values that it had and gets those that it has, or nothing is
    /// changed.
    pub(super) fn change(
        &mut self,
        model: &str,
        id: &str,
        old: Option<&Stored>,
        new: &[u8],
    ) -> Result<(), Objection> {
        self.overlay.begin();
        let release = old.map_or(Ok(()), |old| self.release(old, new));
        let changed = release.and_then(|()| self.claim(model, id, new));
        if changed.is_err() {
            self.overlay.undo();
        }
        changed
    }

    /// A document gives up the values that it will not have any more.
    pub(super) fn release(&mut self, old: &Stored, new: &[u8]) -> Result<(), Objection> {
        let (old, new) = (self.keys(&old.model, &old.body)?, self.keys(&old.model, new)?);
        for (_, key) in old.iter().filter(|key| !new.contains(key)) {
            self.overlay.put_owner(Place::File, key, None);
        }
        Ok(())
    }

    /// A document gets its values.
    pub(super) fn claim(&mut self, model: &str, id: &str, body: &[u8]) -> Result<(), Objection> {
        let view = OnDisk(self.engine);
        for (position, key) in self.keys(model, body)? {
            match self.overlay.owner(&view, Place::File, &key)? {
                Some(owner) if owner == id => {}
                Some(owner) => {
                    let rules = self.rules.as_ref().and_then(|rules| rules.model(model));
                    let field = rules.map(|rules| rules.indexes[position].field.clone()).unwrap_or_default();
                    return Err(Objection::Taken(Taken { field, index: key.index, owner }));
                }
                None => self.overlay.put_owner(Place::File, &key, Some(id.to_owned())),
            }
        }
        Ok(())
    }

    /// What has changed, to be written with the documents.
    pub(super) fn take_edits(&mut self) -> Vec<UniqueEdit> {
        let edits = std::mem::take(&mut self.overlay).into_unique_edits();
        edits.into_iter().map(|edit| edit.what).collect()
    }

    fn keys(&self, model: &str, body: &[u8]) -> Result<Vec<(usize, UniqueKey)>, Objection> {
        let rules = self.rules.as_ref().and_then(|rules| rules.model(model));
        rules.map_or_else(|| Ok(Vec::new()), |rules| rules.unique_keys(body)).map_err(Objection::Body)
    }
}

/// The engine on disk as a plan sees it, for the one question that is asked here.
struct OnDisk<'a>(&'a FjallEngine);

impl View for OnDisk<'_> {
    fn head(&self, _place: Place, model: &str, id: &str) -> EngineResult<Option<Head>> {
        self.0.head(model, id)
    }

    fn body(&self, _place: Place, model: &str, id: &str) -> EngineResult<Option<Bytes>> {
        Ok(self.0.document(model, id)?.map(|stored| stored.body))
    }

    fn unique_owner(&self, _place: Place, key: &UniqueKey) -> EngineResult<Option<String>> {
        self.0.unique_owner(key)
    }

    fn response(&self, key: &str) -> EngineResult<Option<KeptResponse>> {
        self.0.response(key)
    }

    fn committed(&self, _incarnation: u64, _request: u64) -> Option<CommittedWrite> {
        None
    }
}
