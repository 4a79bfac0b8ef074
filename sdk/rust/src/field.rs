//! One field of a model, and the rules that the host keeps about it.

use serde_json::{Map, Value, json};

use crate::bindings::aegis::module::spec::{FieldKind, FieldRules, FieldSpec, HookSet, MixinSpec};

/// A field. The host checks its rules before and after the hooks.
#[derive(Debug, Clone)]
pub struct Field {
    kind: FieldKind,
    rules: FieldRules,
    default: Option<Value>,
    schema: Map<String, Value>,
    range: Map<String, Value>,
    pattern: Option<String>,
}

impl Field {
    fn of(kind: FieldKind) -> Self {
        Self {
            kind,
            rules: FieldRules::empty(),
            default: None,
            schema: Map::new(),
            range: Map::new(),
            pattern: None,
        }
    }

    /// A text.
    #[must_use]
    pub fn text() -> Self {
        Self::of(FieldKind::Text)
    }

    /// A whole number.
    #[must_use]
    pub fn integer() -> Self {
        Self::of(FieldKind::Integer)
    }

    /// Any number.
    #[must_use]
    pub fn decimal() -> Self {
        Self::of(FieldKind::Decimal)
    }

    /// Yes or no.
    #[must_use]
    pub fn boolean() -> Self {
        Self::of(FieldKind::Boolean)
    }

    /// A time (RFC 3339).
    #[must_use]
    pub fn timestamp() -> Self {
        Self::of(FieldKind::Timestamp)
    }

    /// A JSON object.
    #[must_use]
    pub fn object() -> Self {
        Self::of(FieldKind::Object)
    }

    /// A JSON array.
    #[must_use]
    pub fn array() -> Self {
        Self::of(FieldKind::Array)
    }

    /// Anything.
    #[must_use]
    pub fn any() -> Self {
        Self::of(FieldKind::Any)
    }

    /// A document without it is refused.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.rules |= FieldRules::REQUIRED;
        self
    }

    /// No two documents have the same value.
    #[must_use]
    pub fn unique(mut self) -> Self {
        self.rules |= FieldRules::UNIQUE;
        self
    }

    /// It does not change once it is there.
    #[must_use]
    pub fn immutable(mut self) -> Self {
        self.rules |= FieldRules::IMMUTABLE;
        self
    }

    /// Filtering and sorting by it is cheap.
    #[must_use]
    pub fn indexed(mut self) -> Self {
        self.rules |= FieldRules::INDEXED;
        self
    }

    /// New documents have this value unless they say otherwise.
    #[must_use]
    pub fn default(mut self, value: impl Into<Value>) -> Self {
        self.default = Some(value.into());
        self
    }

    /// The smallest number.
    #[must_use]
    pub fn min(mut self, least: impl Into<Value>) -> Self {
        self.range.insert("min".to_owned(), least.into());
        self
    }

    /// The largest number.
    #[must_use]
    pub fn max(mut self, most: impl Into<Value>) -> Self {
        self.range.insert("max".to_owned(), most.into());
        self
    }

    /// The longest text, characters.
    #[must_use]
    pub fn longest(mut self, characters: u32) -> Self {
        self.schema.insert("maxLength".to_owned(), characters.into());
        self
    }

    /// The only values that it may have.
    #[must_use]
    pub fn values(mut self, values: &[&str]) -> Self {
        self.schema.insert("enum".to_owned(), json!(values));
        self
    }

    /// A regular expression that the text matches.
    #[must_use]
    pub fn pattern(mut self, expression: &str) -> Self {
        self.pattern = Some(expression.to_owned());
        self
    }

    /// Adds the members of a JSON Schema about the value.
    ///
    /// # Panics
    /// When it is not a JSON object: the module does not load then.
    #[must_use]
    pub fn schema(mut self, schema: Value) -> Self {
        let Value::Object(members) = schema else { panic!("found {schema}, expected a JSON Schema object") };
        self.schema.extend(members);
        self
    }

    /// The field as the contract says it.
    pub(crate) fn spec(&self, name: &str) -> FieldSpec {
        FieldSpec {
            name: name.to_owned(),
            kind: self.kind,
            rules: self.rules,
            default_value: self.default.as_ref().map(Value::to_string),
            schema: (!self.schema.is_empty()).then(|| Value::Object(self.schema.clone()).to_string()),
        }
    }

    /// Its rules that the contract says as mixins.
    pub(crate) fn mixins(&self, name: &str) -> Vec<MixinSpec> {
        let mixin = |kind: &str, mut options: Map<String, Value>| {
            options.insert("fields".to_owned(), json!([name]));
            let options = Value::Object(options).to_string();
            MixinSpec { name: kind.to_owned(), on: HookSet::empty(), options }
        };
        let range = (!self.range.is_empty()).then(|| mixin("range", self.range.clone()));
        let pattern = self.pattern.as_ref().map(|expression| {
            mixin("pattern", Map::from_iter([("pattern".to_owned(), Value::from(expression.as_str()))]))
        });
        range.into_iter().chain(pattern).collect()
    }
}
