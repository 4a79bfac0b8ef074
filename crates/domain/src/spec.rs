//! `ModelSpec`: what a module says about its model. Everything the host generates follows from it.

use std::fmt;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::{
    access::AccessRule,
    code::{CodeSpec, CommandSpec},
    trial::Trial,
};

/// Name of a model: upper case, the registry key and the storage namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelName(String);

impl ModelName {
    /// Upper-cases and checks a name: letters, digits, `_` and `-`, starting with a letter, at most 64 bytes.
    pub fn new(name: &str) -> Result<Self, String> {
        let name = name.to_ascii_uppercase();
        let fits = (1..=64).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_uppercase())
            && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_' || c == '-');
        if fits {
            Ok(Self(name))
        } else {
            Err(format!(
                "found {name:?}, expected 1 to 64 letters, digits, '_' or '-', starting with a letter"
            ))
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What a declarative module says about its model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// Name, upper case.
    pub name: ModelName,
    /// Segment of the path under which it is served, by convention plural.
    pub endpoint: String,
    /// For people.
    pub description: Option<String>,
    /// Declared fields, in declared order.
    pub fields: IndexMap<String, FieldSpec>,
    /// Whether properties that are not declared are kept or refused.
    pub unknown_fields: UnknownFields,
    /// JSON Schema 2020-12 for what fields and rules cannot say.
    pub schema: Option<Value>,
    /// The declared field that supplies the id of a new document.
    pub id_field: Option<String>,
    /// Where documents are kept; the host's default when absent.
    pub datasource: Option<Datasource>,
    /// Whether writes to an existing document must carry `If-Match`.
    pub if_match: IfMatch,
    /// Documents whose body each worker keeps; the host's bound when absent.
    pub cache_documents_max: Option<u64>,
    /// Who may do what; whoever is known to the host may do everything when there are no rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acl: Vec<AccessRule>,
    /// Commands by name; only code has some.
    #[serde(default)]
    pub commands: IndexMap<String, CommandSpec>,
    /// The code behind the model; none for a declarative one.
    #[serde(default)]
    pub code: Option<CodeSpec>,
    /// Another version of the code that gets a share of the requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
}

/// One declared field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldSpec {
    /// What it holds.
    pub kind: FieldKind,
    /// Mixin `require`: a document without it is refused (missing and null are the same).
    pub required: bool,
    /// Mixin `freeze`: cannot be changed once set.
    pub frozen: bool,
    /// Mixin `unique`: no two documents of the model have the same value.
    pub unique: bool,
    /// Filters and sorts on it use an index. Unique fields are indexed as well.
    pub indexed: bool,
    /// Mixin `default`: value of a new document that does not say.
    pub default: Option<Value>,
    /// Mixin `range`, lower bound, inclusive: of the number, or of the length of a text or array.
    pub min: Option<Number>,
    /// Mixin `range`, upper bound, inclusive.
    pub max: Option<Number>,
    /// Mixin `pattern`: a regular expression (linear time), matched anywhere unless anchored; texts only.
    pub pattern: Option<String>,
    /// The only values allowed.
    pub values: Option<Vec<Value>>,
    /// For people.
    pub description: Option<String>,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FieldKind {
    /// Unicode text.
    Text,
    /// A whole number.
    Integer,
    /// A number, kept as written.
    Decimal,
    /// True or false.
    Boolean,
    /// RFC 3339 date and time, as text.
    Timestamp,
    /// A JSON object.
    Object,
    /// A JSON array.
    Array,
    /// Any JSON value.
    Any,
}

/// What happens to properties that are not declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnknownFields {
    /// Kept as they are.
    Keep,
    /// Refused (422).
    Refuse,
}

/// Whether writes must be conditional.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IfMatch {
    /// A write without `If-Match` applies to whatever revision there is.
    Optional,
    /// A write without `If-Match` is refused (428).
    Required,
}

/// Where documents are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Datasource {
    /// In the store process only; gone when it ends.
    Memory,
    /// In the embedded store on disk.
    File,
}
