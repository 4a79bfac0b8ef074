//! What an app declares, for a store that no host has used yet.
//!
//! A host writes down the models that it serves, and from then on these are what counts. Until then only imports have
//! written into the store, and each goes by what the app declares when it begins: whoever corrects a `module.toml`
//! after an import was refused is not held to what it said before.

use std::collections::HashMap;

use aegis_config::settings::Datasource;
use aegis_domain::{
    catalog::{self, Catalog},
    spec::ModelSpec,
};

use super::{
    Alone, DataError,
    owners::{Objection, Owners},
};
use crate::{
    catalog::{Rules, default_place, place_of},
    commit::Collision,
    engine::{Batch, Engine, IndexName, IndexState, MetaEdit},
    error::EngineError,
    index::{Collisions, Indexes, NewIndex},
    storage::Place,
};

/// Documents whose values are written together.
const PIECE_DOCUMENTS: usize = 512;

/// What an app says about the models that need no code.
#[derive(Debug, Clone, Copy)]
pub struct Declared<'a> {
    /// The models.
    pub models: &'a [ModelSpec],
    /// Where the documents of models are that do not say.
    pub datasource: Datasource,
}

impl Declared<'_> {
    /// Where the documents of a model are.
    pub(super) fn place(&self, model: &ModelSpec) -> Place {
        place_of(model, default_place(self.datasource))
    }

    /// The same for the model of this name, as the app says or else the store, if anybody knows it.
    pub(super) fn place_by_name(&self, name: &str, stored: Option<&Catalog>) -> Option<Place> {
        let declared = self.models.iter().find(|model| model.name.as_str() == name);
        let stored = || stored.and_then(|catalog| catalog.by_name(name)).map(|model| model.spec());
        declared.or_else(stored).map(|model| self.place(model))
    }
}

impl Alone {
    /// Lets a store that no host has used know the models of an app, and builds their unique indexes.
    pub(super) fn declare(&mut self, declared: &Declared<'_>) -> Result<(), DataError> {
        if self.recovered.catalog.is_some() || declared.models.is_empty() {
            return Ok(());
        }
        let catalog = Catalog::build(declared.models.to_vec())
            .map_err(|mistakes| DataError::Models { mistakes: mistakes.join("; ") })?;
        let on_disk = catalog.models().iter().filter(|model| declared.place(model.spec()) == Place::File);
        let required: HashMap<IndexName, Place> = on_disk
            .flat_map(|model| {
                let name =
                    |field: &String| IndexName { model: model.name().to_owned(), field: field.clone() };
                model.unique_fields().iter().map(name).map(|name| (name, Place::File))
            })
            .collect();
        let mut indexes = Indexes::recovered(&self.recovered);
        let mut meta = indexes.drop_surplus(&required);
        let (new, begun) = indexes.begin_missing(&required);
        meta.extend(begun);
        meta.push(MetaEdit::Declared(catalog::encode(declared.models)));
        let failed = |source| DataError::store("writing the models", source);
        self.engine.apply(&Batch { meta, ..Batch::default() }).map_err(failed)?;
        self.fill(&catalog, &new)?;
        self.engine.apply(&Batch { meta: indexes.complete(&new), ..Batch::default() }).map_err(failed)?;
        self.recovered = self.engine.recover().map_err(failed)?;
        Ok(())
    }

    /// Puts the values of the documents that are there into new indexes.
    fn fill(&self, catalog: &Catalog, new: &[NewIndex]) -> Result<(), DataError> {
        let failed = |source: EngineError| DataError::store("building unique indexes", source);
        let number = |name: &IndexName| {
            let index = new.iter().find(|index| index.name == *name)?;
            Some((index.number, IndexState::Complete))
        };
        let mut owners = Owners::new(&self.engine, Some(Rules::at_rest(catalog, number)));
        let write = |owners: &mut Owners<'_>| {
            self.engine.apply(&Batch { unique: owners.take_edits(), ..Batch::default() }).map_err(failed)
        };
        let mut collisions = Collisions::default();
        let mut bad = None;
        let snapshot = self.engine.snapshot().map_err(failed)?;
        let mut models: Vec<&str> = new.iter().map(|index| index.name.model.as_str()).collect();
        models.dedup();
        let documents = models.into_iter().flat_map(|model| snapshot.documents(model));
        for (count, stored) in (1..).zip(documents) {
            let stored = stored.map_err(failed)?;
            match owners.change(&stored.model, &stored.id, None, &stored.body) {
                Ok(()) => {}
                Err(Objection::Taken(taken)) => {
                    collisions.add(Collision { index: taken.index, ids: (taken.owner, stored.id) });
                }
                Err(Objection::Body(reason)) => {
                    bad.get_or_insert(format!(
                        "document {:?} of model {}: {reason}",
                        stored.id, stored.model
                    ));
                }
                Err(Objection::Engine(source)) => return Err(failed(source)),
            }
            if count % PIECE_DOCUMENTS == 0 {
                write(&mut owners)?;
            }
        }
        write(&mut owners)?;
        let mut reasons = collisions.reasons(new);
        reasons.extend(bad);
        if reasons.is_empty() { Ok(()) } else { Err(DataError::Misfit { reasons: reasons.join("; ") }) }
    }
}
