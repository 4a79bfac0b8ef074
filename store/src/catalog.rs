//! Which models there are, where their documents are, and which fields are unique: of the generation in force and,
//! while another one is about to start, of both. Of the one before, which models there were.

use std::{collections::HashMap, sync::Arc, time::Duration};

use aegis_config::settings::{self, Config, Datasource};
use aegis_domain::{
    catalog::{self, Catalog, Model},
    document,
    spec::{self, ModelSpec},
};
use aegis_ipc::{bundle::Bundle, codec, data::POSITIONS};

use crate::{
    engine::{IndexName, IndexState, UniqueKey},
    storage::Place,
};

/// What the store needs of a generation's configuration.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Bounds of the store process.
    pub(crate) store: settings::Store,
    /// Where models are kept that do not say.
    pub(crate) default_place: Place,
    /// How long the store serves workers that outlive the supervisor.
    pub(crate) orphan_grace: Duration,
    /// How log lines are written.
    pub(crate) log: settings::Log,
}

impl Settings {
    /// Picks them out.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            store: config.store.clone(),
            default_place: default_place(config.datasource),
            orphan_grace: config.workers.orphan_grace,
            log: config.log.clone(),
        }
    }
}

/// One generation, as far as the store cares.
#[derive(Debug)]
pub(crate) struct Generation {
    /// Its number.
    pub(crate) number: u64,
    /// What its configuration says.
    pub(crate) settings: Settings,
    /// Its models, compiled.
    pub(crate) catalog: Catalog,
    /// Its models, as they travel.
    pub(crate) encoded: Vec<u8>,
}

impl Generation {
    /// Reads a generation from its bundle.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(crate) fn read(number: u64, bundle: Bundle) -> Result<Self, Vec<String>> {
        let config: Config =
            codec::decode(&bundle.config).map_err(|error| vec![crate::error::chain(&error)])?;
        let specs = catalog::decode(&bundle.catalog).map_err(|reason| vec![reason])?;
        let settings = Settings::of(&config);
        Ok(Self { number, settings, catalog: Catalog::build(specs)?, encoded: bundle.catalog })
    }

    /// Where the documents of a model are.
    pub(crate) fn place(&self, model: &Model) -> Place {
        place_of(model.spec(), self.settings.default_place)
    }

    fn models(&self) -> impl Iterator<Item = (&Self, &Arc<Model>)> {
        self.catalog.models().iter().map(move |model| (self, model))
    }
}

/// Where models are kept that do not say, by what the configuration says.
pub(crate) fn default_place(datasource: Datasource) -> Place {
    match datasource {
        Datasource::Memory => Place::Memory,
        Datasource::File => Place::File,
    }
}

/// Where the documents of a model are.
pub(crate) fn place_of(spec: &ModelSpec, default: Place) -> Place {
    match spec.datasource {
        Some(spec::Datasource::Memory) => Place::Memory,
        Some(spec::Datasource::File) => Place::File,
        None => default,
    }
}

/// The generation in force, the one that may follow it and the one before.
#[derive(Debug)]
pub(crate) struct Generations {
    active: Generation,
    prepared: Option<Generation>,
    /// Its workers finish what they have begun, also in models that are gone.
    leaving: Option<Generation>,
}

impl Generations {
    /// Only one generation.
    pub(crate) fn new(active: Generation) -> Self {
        Self { active, prepared: None, leaving: None }
    }

    /// The generation in force.
    pub(crate) fn active(&self) -> &Generation {
        &self.active
    }

    /// Number of the generation that may follow.
    pub(crate) fn prepared(&self) -> Option<u64> {
        self.prepared.as_ref().map(|generation| generation.number)
    }

    /// What stands against serving `next` beside the generation in force, whatever the documents are.
    pub(crate) fn objections(&self, next: &Generation) -> Vec<String> {
        let mut reasons = Vec::new();
        for model in next.catalog.models() {
            let Some(current) = self.active.catalog.by_name(model.name()) else { continue };
            let (from, to) = (self.active.place(current), next.place(model));
            if from != to {
                reasons.push(format!(
                    "model {}: its datasource changes from {} to {}, which only a restart of the host can do",
                    model.name(),
                    place_name(from),
                    place_name(to)
                ));
            }
        }
        reasons
    }

    /// Serves another generation beside the one in force. One that was prepared before is forgotten.
    pub(crate) fn prepare(&mut self, next: Generation) {
        self.prepared = Some(next);
    }

    /// Puts the prepared generation in force.
    pub(crate) fn activate(&mut self) {
        if let Some(next) = self.prepared.take() {
            self.leaving = Some(std::mem::replace(&mut self.active, next));
        }
    }

    /// Forgets the prepared generation.
    pub(crate) fn discard(&mut self) {
        self.prepared = None;
    }

    /// Unique fields of both generations.
    pub(crate) fn required(&self) -> HashMap<IndexName, Place> {
        let mut required = HashMap::new();
        for (generation, model) in self.models() {
            let place = generation.place(model);
            for field in model.unique_fields() {
                required.insert(IndexName { model: model.name().to_owned(), field: field.clone() }, place);
            }
        }
        required
    }

    /// What writes have to keep to. `indexes` tells number and state of a required unique index.
    pub(crate) fn rules(&self, indexes: impl Fn(&IndexName) -> Option<(u32, IndexState)>) -> Rules {
        let mut rules = Rules::default();
        for (generation, model) in self.models() {
            let entry = rules.models.entry(model.name().to_owned()).or_insert_with(|| ModelRules {
                place: generation.place(model),
                models: Vec::new(),
                indexes: Vec::new(),
            });
            for field in model.unique_fields() {
                let name = IndexName { model: model.name().to_owned(), field: field.clone() };
                if entry.indexes.iter().any(|index| index.field == *field) {
                    continue;
                }
                if let Some((number, state)) = indexes(&name) {
                    entry.indexes.push(UniqueIndex { field: field.clone(), number, state });
                }
            }
            entry.models.push(Arc::clone(model));
        }
        let without_fields = |place| ModelRules { place, models: Vec::new(), indexes: Vec::new() };
        for (leaving, model) in self.leaving.iter().flat_map(Generation::models) {
            let entry = rules.models.entry(model.name().to_owned());
            entry.or_insert_with(|| without_fields(leaving.place(model)));
        }
        rules.models.insert(POSITIONS.to_owned(), without_fields(Place::File));
        rules
    }

    fn models(&self) -> impl Iterator<Item = (&Generation, &Arc<Model>)> {
        std::iter::once(&self.active).chain(&self.prepared).flat_map(Generation::models)
    }
}

/// What writes have to keep to.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    models: HashMap<String, ModelRules>,
}

/// What writes to one model have to keep to.
#[derive(Debug)]
pub(crate) struct ModelRules {
    /// Where its documents are.
    pub(crate) place: Place,
    /// The model in each generation that has it.
    models: Vec<Arc<Model>>,
    /// Its unique indexes.
    pub(crate) indexes: Vec<UniqueIndex>,
}

/// One unique index.
#[derive(Debug, Clone)]
pub(crate) struct UniqueIndex {
    /// Name of the field.
    pub(crate) field: String,
    /// Number of the index.
    pub(crate) number: u32,
    /// Whether it is enforced or only filled.
    pub(crate) state: IndexState,
}

impl Rules {
    /// What documents on disk have to keep to while the host is down: the indexes that are complete.
    pub(crate) fn at_rest(
        catalog: &Catalog,
        indexes: impl Fn(&IndexName) -> Option<(u32, IndexState)>,
    ) -> Self {
        let mut rules = Self::default();
        for model in catalog.models() {
            let index = |field: &String| {
                let name = IndexName { model: model.name().to_owned(), field: field.clone() };
                let (number, state) = indexes(&name).filter(|(_, state)| *state == IndexState::Complete)?;
                Some(UniqueIndex { field: field.clone(), number, state })
            };
            let indexes = model.unique_fields().iter().filter_map(index).collect();
            let entry = ModelRules { place: Place::File, models: vec![Arc::clone(model)], indexes };
            rules.models.insert(model.name().to_owned(), entry);
        }
        rules
    }

    /// Rules of a model.
    pub(crate) fn model(&self, name: &str) -> Option<&ModelRules> {
        self.models.get(name)
    }

    /// All models with the place of their documents.
    pub(crate) fn places(&self) -> impl Iterator<Item = (&str, Place)> {
        self.models.iter().map(|(name, rules)| (name.as_str(), rules.place))
    }

    /// Numbers of all unique indexes.
    pub(crate) fn index_numbers(&self) -> Vec<u32> {
        self.models.values().flat_map(|rules| rules.indexes.iter().map(|index| index.number)).collect()
    }

    /// Names of the models in memory, sorted.
    pub(crate) fn memory_models(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .places()
            .filter(|(_, place)| *place == Place::Memory)
            .map(|(name, _)| name.to_owned())
            .collect();
        names.sort();
        names
    }
}

impl ModelRules {
    /// The values that a body has in unique fields: position in `indexes`, and the key of the value.
    ///
    /// # Errors
    /// Why the body is not a stored document.
    pub(crate) fn unique_keys(&self, body: &[u8]) -> Result<Vec<(usize, UniqueKey)>, String> {
        let mut keys: Vec<(usize, UniqueKey)> = Vec::new();
        if self.indexes.is_empty() {
            return Ok(keys);
        }
        for model in &self.models {
            for (field, canonical) in document::unique_values(model, body)? {
                let Some(at) = self.indexes.iter().position(|index| index.field == field) else { continue };
                if !keys.iter().any(|(known, _)| *known == at) {
                    keys.push((at, UniqueKey::new(self.indexes[at].number, &canonical)));
                }
            }
        }
        Ok(keys)
    }
}

/// How a place is called in a configuration.
pub(crate) fn place_name(place: Place) -> &'static str {
    match place {
        Place::File => "file",
        Place::Memory => "memory",
    }
}
