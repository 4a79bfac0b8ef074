//! `module.toml`: a model without code.
//!
//! ```
//! let todo = aegis_domain::module::parse(
//!     r#"
//!     name = "todo"
//!
//!     [fields]
//!     text = "text"
//!     isComplete = { kind = "boolean", default = false }
//!
//!     [mixins]
//!     require = ["text"]
//!     "#,
//!     "modules/todo/module.toml",
//! )?;
//! assert_eq!(todo.name.as_str(), "TODO");
//! assert_eq!(todo.endpoint, "todos");
//! assert!(todo.fields["text"].required);
//! # Ok::<(), Vec<String>>(())
//! ```
//!
//! `[mixins]` is another spelling of the rules of fields, with the names the original gave them. A mixin may
//! name a field that `[fields]` does not: it is declared by that, of kind `text` if it has a pattern,
//! `decimal` if it has a range, else `any`. The same holds for a field whose table names no kind.

mod acl;
mod fields;
mod lines;
mod mixins;
mod reader;
mod written;

use indexmap::IndexMap;

use self::{
    fields::Fields,
    reader::{Mistakes, describe},
    written::{Table, Written},
};
use crate::{
    catalog,
    spec::{Datasource, IfMatch, ModelName, ModelSpec, UnknownFields},
    suggest,
};

/// Bytes of one `module.toml`.
pub const MODULE_BYTES_MAX: usize = 1024 * 1024;

/// Keys of the outermost table.
const KEYS: [&str; 12] = [
    "name",
    "endpoint",
    "description",
    "fields",
    "mixins",
    "schema",
    "unknown-fields",
    "id-field",
    "datasource",
    "if-match",
    "cache-documents-max",
    "acl",
];

/// Reads a `module.toml`; `origin` names it in messages.
///
/// # Errors
/// All mistakes at once, each as `origin:line: key path: found X, expected Y`, with "did you mean" where a name is
/// close to a known one. What is missing as a whole has no line.
pub fn parse(toml_text: &str, origin: &str) -> Result<ModelSpec, Vec<String>> {
    if toml_text.len() > MODULE_BYTES_MAX {
        let found = toml_text.len();
        return Err(vec![format!(
            "{origin}: file: found {found} bytes, expected at most {MODULE_BYTES_MAX}"
        )]);
    }
    let table = written::read(toml_text).map_err(|error| vec![reader::syntax(toml_text, origin, &error)])?;
    let mut mistakes = Mistakes::default();
    let spec = read(table, &mut mistakes);
    match mistakes.finish(toml_text, origin) {
        told if told.is_empty() => {
            spec.ok_or_else(|| vec![format!("{origin}: found no model, expected one")])
        }
        told => Err(told),
    }
}

fn read(table: Table, mistakes: &mut Mistakes) -> Option<ModelSpec> {
    for key in table.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        let hint = suggest::similar(key, KEYS.into_iter());
        let message = format!("found an unknown key, expected one of {}{hint}", KEYS.join(", "));
        mistakes.tell(&catalog::key_path(&[key]), message);
    }
    let spec = read_model(table, mistakes)?;
    for (key, message) in catalog::mistakes(&spec) {
        mistakes.tell(&key, message);
    }
    Some(spec)
}

fn read_model(mut table: Table, mistakes: &mut Mistakes) -> Option<ModelSpec> {
    let name = read_name(table.shift_remove("name"), mistakes);
    let id_field = mistakes.text(table.shift_remove("id-field"), "id-field");
    let mut fields = Fields::new(id_field.as_deref());
    if let Some(found) = table.shift_remove("fields") {
        fields.read(found, mistakes);
    }
    if let Some(found) = table.shift_remove("mixins") {
        mixins::read(found, &mut fields, mistakes);
    }
    let fields = fields.finish();
    let endpoint = mistakes.text(table.shift_remove("endpoint"), "endpoint");
    // A placeholder for a missing name, so that the rest can be checked all the same; it is never returned.
    let name = name.or_else(|| ModelName::new("unnamed").ok())?;
    let unknown_fields = [("keep", UnknownFields::Keep), ("refuse", UnknownFields::Refuse)];
    let datasources = [("memory", Datasource::Memory), ("file", Datasource::File)];
    let if_match = [("optional", IfMatch::Optional), ("required", IfMatch::Required)];
    Some(ModelSpec {
        endpoint: endpoint.unwrap_or_else(|| format!("{}s", name.as_str().to_ascii_lowercase())),
        name,
        description: mistakes.text(table.shift_remove("description"), "description"),
        fields,
        unknown_fields: mistakes
            .choice(table.shift_remove("unknown-fields"), "unknown-fields", &unknown_fields)
            .unwrap_or(UnknownFields::Keep),
        schema: read_schema(table.shift_remove("schema"), mistakes),
        id_field,
        datasource: mistakes.choice(table.shift_remove("datasource"), "datasource", &datasources),
        if_match: mistakes
            .choice(table.shift_remove("if-match"), "if-match", &if_match)
            .unwrap_or(IfMatch::Optional),
        cache_documents_max: mistakes.count(table.shift_remove("cache-documents-max"), "cache-documents-max"),
        acl: acl::read(table.shift_remove("acl"), mistakes),
        commands: IndexMap::new(),
        code: None,
        trial: None,
    })
}

fn read_schema(found: Option<Written>, mistakes: &mut Mistakes) -> Option<serde_json::Value> {
    match found? {
        table @ Written::Table(_) => mistakes.json(table, "schema"),
        other => {
            mistakes.tell("schema", format!("found {}, expected a table: a JSON Schema", describe(&other)));
            None
        }
    }
}

fn read_name(found: Option<Written>, mistakes: &mut Mistakes) -> Option<ModelName> {
    let Some(found) = found else {
        mistakes.tell("name", "found nothing, expected the name of the model");
        return None;
    };
    let text = mistakes.text(Some(found), "name")?;
    ModelName::new(&text).map_err(|message| mistakes.tell("name", message)).ok()
}

#[cfg(test)]
mod tests;
