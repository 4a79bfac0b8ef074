//! The compiled form of all models of one generation: what requests are looked up in and checked against.

mod check;
mod command;
mod pattern;
mod rule;
mod schema;

use std::{collections::HashMap, fmt, sync::Arc};

use jsonschema::Validator;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    problem::FieldError,
    route::{self, Route},
    service::ServiceSpec,
    spec::{FieldKind, FieldSpec, ModelSpec},
};
pub(crate) use check::key_path;
pub use command::Command;
pub(crate) use rule::{Rule, kind_name};

/// All models of one generation. Never changed after it is built.
#[derive(Debug, Default)]
pub struct Catalog {
    models: Vec<Arc<Model>>,
    by_endpoint: HashMap<String, usize>,
    by_name: HashMap<String, usize>,
}

impl Catalog {
    /// Compiles the models.
    ///
    /// # Errors
    /// Every mistake of every model at once, each as `model NAME: key path: found X, expected Y`.
    pub fn build(specs: Vec<ModelSpec>) -> Result<Self, Vec<String>> {
        let mut mistakes = Vec::new();
        let mut catalog = Self::default();
        for spec in specs {
            let mut report = |key: &str, message: String| {
                mistakes.push(format!("model {}: {key}: {message}", spec.name));
            };
            if catalog.by_name.contains_key(spec.name.as_str()) {
                report("name", "found the name of another model, expected one of its own".to_owned());
            }
            if let Some(other) = catalog.by_endpoint(&spec.endpoint) {
                let (endpoint, other) = (&spec.endpoint, other.name());
                report("endpoint", format!("found {endpoint:?}, which model {other} has, expected another"));
            }
            let model = Model::compile(spec.clone(), &mut report);
            let index = catalog.models.len();
            catalog.by_name.insert(model.name().to_owned(), index);
            catalog.by_endpoint.insert(model.endpoint().to_owned(), index);
            catalog.models.push(Arc::new(model));
        }
        if mistakes.is_empty() { Ok(catalog) } else { Err(mistakes) }
    }

    /// All models, in the order given.
    #[must_use]
    pub fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    /// The model served under this segment of the path.
    #[must_use]
    pub fn by_endpoint(&self, endpoint: &str) -> Option<&Arc<Model>> {
        self.by_endpoint.get(endpoint).map(|&index| &self.models[index])
    }

    /// The model of this name (upper case).
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Arc<Model>> {
        self.by_name.get(name).map(|&index| &self.models[index])
    }
}

/// A field that filters and sorts can use without looking at documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedField {
    /// Name of the field.
    pub name: String,
    /// What it holds.
    pub kind: FieldKind,
}

/// One compiled model.
pub struct Model {
    spec: ModelSpec,
    /// One per field of the specification, in the same order.
    rules: Vec<Rule>,
    schema: Option<Validator>,
    unique_fields: Vec<String>,
    indexed_fields: Vec<IndexedField>,
    commands: Vec<Command>,
    routes: Vec<Route>,
}

impl Model {
    /// Compiles one model; reports every mistake as (key path, message).
    fn compile(spec: ModelSpec, report: &mut dyn FnMut(&str, String)) -> Self {
        check::check(&spec, report);
        let rules = spec
            .fields
            .iter()
            .map(|(name, field)| {
                Rule::compile(name, field, &mut |key, message| {
                    report(&key_path(&["fields", name, key]), message)
                })
            })
            .collect();
        let compiled = spec.schema.as_ref().map(schema::compile).transpose();
        let schema = compiled.unwrap_or_else(|message| {
            report("schema", message);
            None
        });
        let unique_fields =
            spec.fields.iter().filter(|(_, field)| field.unique).map(|(name, _)| name.clone()).collect();
        let indexed_fields = spec
            .fields
            .iter()
            .filter(|(_, field)| field.indexed || field.unique)
            .map(|(name, field)| IndexedField { name: name.clone(), kind: field.kind })
            .collect();
        let commands = command::compile(&spec, report);
        let routes = route::compile(&spec, report);
        Self { spec, rules, schema, unique_fields, indexed_fields, commands, routes }
    }

    /// Name, upper case.
    #[must_use]
    pub fn name(&self) -> &str {
        self.spec.name.as_str()
    }

    /// Segment of the path under which the model is served.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.spec.endpoint
    }

    /// What the module said.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Names of the fields whose values no two documents share, in declared order.
    #[must_use]
    pub fn unique_fields(&self) -> &[String] {
        &self.unique_fields
    }

    /// Fields with an index, unique ones included, in declared order.
    #[must_use]
    pub fn indexed_fields(&self) -> &[IndexedField] {
        &self.indexed_fields
    }

    /// Commands, in declared order, with those that are disabled.
    #[must_use]
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// The command of this name, unless it is disabled.
    #[must_use]
    pub fn command(&self, name: &str) -> Option<&Command> {
        self.commands.iter().find(|command| command.name() == name && !command.spec().disabled)
    }

    /// Custom routes, the more particular ones first, with those that are disabled.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// Declared fields with their compiled rules, in declared order.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &FieldSpec, &Rule)> {
        self.spec.fields.iter().zip(&self.rules).map(|((name, field), rule)| (name.as_str(), field, rule))
    }

    /// The first mistakes that the model's JSON Schema finds in the properties of a document.
    pub(crate) fn schema_mistakes(&self, properties: &Value, count_max: usize) -> Vec<FieldError> {
        self.schema.as_ref().map_or_else(Vec::new, |schema| schema::mistakes(schema, properties, count_max))
    }

    /// Whether the model has a JSON Schema.
    pub(crate) fn has_schema(&self) -> bool {
        self.schema.is_some()
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Model").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// Every mistake in one specification, as (key path, message).
#[must_use]
pub fn mistakes(spec: &ModelSpec) -> Vec<(String, String)> {
    let mut mistakes = Vec::new();
    Model::compile(spec.clone(), &mut |key, message| mistakes.push((key.to_owned(), message)));
    mistakes
}

/// Everything that a generation serves, as it travels.
#[derive(Serialize)]
struct Offer<'a> {
    models: &'a [ModelSpec],
    services: &'a [ServiceSpec],
}

/// The form in which models travel in a bundle: JSON.
#[must_use]
pub fn encode(specs: &[ModelSpec]) -> Vec<u8> {
    serde_json::to_vec(specs).expect("a specification has only text keys and plain values")
}

/// The form in which models and services travel together. Without services it is that of the models alone, which
/// earlier versions read.
#[must_use]
pub fn encode_with(specs: &[ModelSpec], services: &[ServiceSpec]) -> Vec<u8> {
    if services.is_empty() {
        return encode(specs);
    }
    serde_json::to_vec(&Offer { models: specs, services })
        .expect("a specification has only text keys and plain values")
}

/// The models of what [`encode`] or [`encode_with`] made.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode(bytes: &[u8]) -> Result<Vec<ModelSpec>, String> {
    #[derive(Deserialize)]
    struct Models {
        models: Vec<ModelSpec>,
    }
    let read = if is_list(bytes) {
        serde_json::from_slice(bytes)
    } else {
        serde_json::from_slice(bytes).map(|Models { models }| models)
    };
    read.map_err(|error| format!("catalog: {error}"))
}

/// The services of what [`encode`] or [`encode_with`] made.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode_services(bytes: &[u8]) -> Result<Vec<ServiceSpec>, String> {
    #[derive(Deserialize)]
    struct Services {
        services: Vec<ServiceSpec>,
    }
    if is_list(bytes) {
        return Ok(Vec::new());
    }
    let read = serde_json::from_slice(bytes).map(|Services { services }| services);
    read.map_err(|error| format!("catalog: {error}"))
}

fn is_list(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"[")
}

#[cfg(test)]
mod tests;
