//! The fields as `[fields]` and `[mixins]` declare them together.

use indexmap::IndexMap;

use super::{
    KEYS,
    reader::{Mistakes, describe},
    written::{Table, Written},
};
use crate::{
    catalog::{key_path, kind_name},
    spec::{FieldKind, FieldSpec},
    suggest,
};

/// Keys of one field.
pub(super) const FIELD_KEYS: [&str; 11] = [
    "kind",
    "required",
    "frozen",
    "unique",
    "indexed",
    "default",
    "min",
    "max",
    "pattern",
    "values",
    "description",
];

/// What a field can hold.
pub(super) const KINDS: [FieldKind; 8] = [
    FieldKind::Text,
    FieldKind::Integer,
    FieldKind::Decimal,
    FieldKind::Boolean,
    FieldKind::Timestamp,
    FieldKind::Object,
    FieldKind::Array,
    FieldKind::Any,
];

/// All fields read so far.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    /// The field that will be asked to be a text or integer, whatever else is wrong with it.
    id_field: Option<&'a str>,
    declared: IndexMap<String, Declared>,
}

/// A field, of a kind that may still have to be inferred.
#[derive(Debug)]
struct Declared {
    spec: FieldSpec,
    kind: Option<FieldKind>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(id_field: Option<&'a str>) -> Self {
        Self { id_field, declared: IndexMap::new() }
    }

    /// The field of this name, declared now if it was not before.
    pub(super) fn field(&mut self, name: &str) -> &mut FieldSpec {
        let fresh = || Declared {
            kind: None,
            spec: FieldSpec {
                kind: FieldKind::Any,
                required: false,
                frozen: false,
                unique: false,
                indexed: false,
                default: None,
                min: None,
                max: None,
                pattern: None,
                values: None,
                description: None,
            },
        };
        &mut self.declared.entry(name.to_owned()).or_insert_with(fresh).spec
    }

    /// Reads `[fields]`.
    pub(super) fn read(&mut self, found: Written, mistakes: &mut Mistakes) {
        let Some(table) = mistakes.table(found, "fields", "fields") else { return };
        for (name, found) in table {
            let path = key_path(&["fields", &name]);
            match found {
                Written::Table(table) => self.read_field(&name, table, &path, mistakes),
                short @ Written::Text(_) => self.set_kind(&name, &short, &path, mistakes),
                other => {
                    let (found, hint) = (describe(&other), astray(&name));
                    mistakes.tell(&path, format!("found {found}, expected a kind or a table of rules{hint}"));
                    self.field(&name);
                }
            }
        }
    }

    fn read_field(&mut self, name: &str, mut table: Table, path: &str, mistakes: &mut Mistakes) {
        for key in table.keys().filter(|key| !FIELD_KEYS.contains(&key.as_str())) {
            let hint = suggest::similar(key, FIELD_KEYS.into_iter());
            let message = format!("found an unknown key, expected one of {}{hint}", FIELD_KEYS.join(", "));
            mistakes.tell(&format!("{path}.{}", key_path(&[key])), message);
        }
        if let Some(kind) = table.shift_remove("kind") {
            self.set_kind(name, &kind, &format!("{path}.kind"), mistakes);
        }
        let key = |key: &str| format!("{path}.{key}");
        let spec = self.field(name);
        for (flag, target) in [
            ("required", &mut spec.required),
            ("frozen", &mut spec.frozen),
            ("unique", &mut spec.unique),
            ("indexed", &mut spec.indexed),
        ] {
            *target = mistakes.flag(table.shift_remove(flag), &key(flag)).unwrap_or(false);
        }
        spec.default = table.shift_remove("default").and_then(|found| mistakes.json(found, &key("default")));
        spec.min = mistakes.number(table.shift_remove("min"), &key("min"));
        spec.max = mistakes.number(table.shift_remove("max"), &key("max"));
        spec.pattern = mistakes.text(table.shift_remove("pattern"), &key("pattern"));
        spec.description = mistakes.text(table.shift_remove("description"), &key("description"));
        spec.values = table.shift_remove("values").and_then(|found| match found {
            Written::List(items) => {
                Some(items.into_iter().filter_map(|item| mistakes.json(item, &key("values"))).collect())
            }
            other => {
                let found = describe(&other);
                mistakes.tell(&key("values"), format!("found {found}, expected a list of allowed values"));
                None
            }
        });
    }

    fn set_kind(&mut self, name: &str, found: &Written, path: &str, mistakes: &mut Mistakes) {
        let word = found.as_text().unwrap_or_default();
        let kind = KINDS.into_iter().find(|kind| kind_name(*kind) == word);
        if kind.is_none() {
            let kinds = KINDS.map(kind_name);
            let hint = match usual_name(word) {
                Some(kind) => format!(" (did you mean {:?}?)", kind_name(kind)),
                None => suggest::similar(word, kinds.into_iter()),
            };
            let (found, astray) = (describe(found), astray(name));
            mistakes.tell(path, format!("found {found}, expected one of {}{hint}{astray}", kinds.join(", ")));
        }
        self.field(name);
        // Some kind, so that a mistake in the kind does not look like a mistake in everything else.
        let fallback = if self.id_field == Some(name) { FieldKind::Text } else { FieldKind::Any };
        if let Some(declared) = self.declared.get_mut(name) {
            declared.kind = Some(kind.unwrap_or(fallback));
        }
    }

    /// All fields, each with its kind.
    pub(super) fn finish(self) -> IndexMap<String, FieldSpec> {
        let infer = |spec: &FieldSpec| match spec {
            FieldSpec { pattern: Some(_), .. } => FieldKind::Text,
            FieldSpec { min, max, .. } if min.is_some() || max.is_some() => FieldKind::Decimal,
            _ => FieldKind::Any,
        };
        let resolve =
            |Declared { spec, kind }| FieldSpec { kind: kind.unwrap_or_else(|| infer(&spec)), ..spec };
        self.declared.into_iter().map(|(name, declared)| (name, resolve(declared))).collect()
    }
}

/// What other systems call our kinds.
fn usual_name(word: &str) -> Option<FieldKind> {
    Some(match word.to_ascii_lowercase().as_str() {
        "string" | "str" | "varchar" | "char" | "uuid" | "email" | "url" | "enum" => FieldKind::Text,
        "int" | "long" | "bigint" | "i64" | "u64" => FieldKind::Integer,
        "number" | "float" | "double" | "numeric" | "real" | "money" => FieldKind::Decimal,
        "bool" => FieldKind::Boolean,
        "date" | "time" | "datetime" | "date-time" => FieldKind::Timestamp,
        "map" | "table" | "record" | "struct" | "json" => FieldKind::Object,
        "list" | "vec" | "set" | "tuple" => FieldKind::Array,
        _ => return None,
    })
}

/// TOML gives a key that stands below a section to that section.
fn astray(name: &str) -> &'static str {
    if KEYS.contains(&name) { "; as a key of the model it belongs above the first [section]" } else { "" }
}
