//! Specifications made by chance, as a guest says them and as the host has to understand them.

use std::{cmp::Ordering, collections::BTreeMap, fmt::Debug};

use aegis_domain::{
    code::{CodeLimits, CommandEffect, CommandPlace, CommandSpec, Grants, HookSet},
    json,
    spec::{Datasource, FieldKind, FieldSpec, IfMatch, ModelSpec, UnknownFields},
};
use aegis_guests::Guest;
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::{select, subsequence},
};
use serde_json::{Number, Value, json};

use crate::Terms;

const RULES: [&str; 3] = ["required", "immutable", "indexed"];
const HOOKS: [&str; 5] = ["on-create", "validate", "on-update", "on-delete", "on-load"];
/// Numbers at the limits of what programs can hold, and beyond.
const NUMBERS: [&str; 12] = [
    "0",
    "-0.0",
    "9007199254740993",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "123456789012345678901234567890.123456789",
    "0.1000000000000000055511151231257827",
    "2.2250738585072014e-308",
    "5e-324",
    "1.7976931348623157e308",
    "1E400",
];

/// A number as it is written.
fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        select(&NUMBERS[..]).prop_map(str::to_owned),
        r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
    ]
}

fn whole_number() -> impl Strategy<Value = String> {
    "-?(0|[1-9][0-9]{0,30})"
}

fn as_number(text: &str) -> Value {
    Value::Number(text.parse::<Number>().expect("it is a number"))
}

/// Any JSON, up to a few levels deep.
pub(super) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number().prop_map(|text| as_number(&text)),
        any::<String>().prop_map(Value::from),
        Just(Value::from("\u{0}\u{1f}\u{7f}\u{2028}\u{feff}\u{10ffff}\"\\/")),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![vec(inner.clone(), 0..6).prop_map(Value::from), members(inner)]
    })
}

/// A JSON object.
pub(super) fn object() -> impl Strategy<Value = Value> {
    members(value())
}

fn members(of: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    btree_map("[a-z\"\\\\é~/🦀]{0,5}", of, 0..6)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

/// A field as it is said.
#[derive(Debug, Clone)]
struct Field {
    kind: &'static str,
    rules: Vec<&'static str>,
    unique: bool,
    default: Option<Value>,
    schema: Option<Value>,
    range: Option<(Option<String>, Option<String>)>,
}

fn default_of(kind: &'static str) -> BoxedStrategy<Value> {
    match kind {
        "text" | "bytes" => any::<String>().prop_map(Value::from).boxed(),
        "integer" => whole_number().prop_map(|text| as_number(&text)).boxed(),
        "decimal" => number().prop_map(|text| as_number(&text)).boxed(),
        "boolean" => any::<bool>().prop_map(Value::from).boxed(),
        "timestamp" => select(&["2026-01-31T09:30:00Z", "0001-01-01T00:00:00.000000001+14:00"][..])
            .prop_map(Value::from)
            .boxed(),
        "object" => object().boxed(),
        "array" => vec(value(), 0..4).prop_map(Value::from).boxed(),
        _ => value().boxed(),
    }
}

/// Bounds in order, each finite, in the spelling in which specifications travel.
fn range() -> impl Strategy<Value = (Option<String>, Option<String>)> {
    let bound = || {
        let finite = number().prop_filter("a bound is finite", |text| as_number(text).as_f64().is_some());
        option::of(finite.prop_map(|text| as_number(&text).to_string()))
    };
    (bound(), bound()).prop_map(|(min, max)| {
        let of = |text: &Option<String>| text.as_deref().and_then(|text| as_number(text).as_f64());
        match of(&min).partial_cmp(&of(&max)) {
            // Which one is greater, floats cannot always tell.
            Some(Ordering::Equal) => (None, max),
            Some(Ordering::Greater) if max.is_some() => (max, min),
            _ => (min, max),
        }
    })
}

fn field() -> impl Strategy<Value = Field> {
    let kinds = ["text", "integer", "decimal", "boolean", "timestamp", "object", "array", "bytes", "any"];
    let schema = prop_oneof![
        any::<String>().prop_map(|text| json!({ "description": text })),
        value().prop_map(|value| json!({ "const": value })),
        any::<u32>().prop_map(|most| json!({ "maxLength": most })),
    ];
    (select(kinds.to_vec()), option::of(schema), subsequence(&RULES[..], 0..=3), any::<bool>(), range())
        .prop_flat_map(|(kind, schema, rules, unique, range)| {
            let unique = unique && !matches!(kind, "object" | "array");
            let bounded = matches!(kind, "text" | "bytes" | "integer" | "decimal" | "array" | "any");
            option::of(default_of(kind)).prop_map(move |default| Field {
                kind,
                rules: rules.clone(),
                unique,
                // A default has to keep within the bounds.
                range: (bounded && default.is_none()).then(|| range.clone()),
                default,
                schema: schema.clone(),
            })
        })
}

/// A command as it is said: description, schema of arguments, whether it saves, whether it computes.
type Command = (Option<String>, Option<Value>, bool, bool);

/// What a guest says of itself.
#[derive(Debug, Clone)]
pub(super) struct Declared {
    name: String,
    endpoint: String,
    description: Option<String>,
    fields: BTreeMap<String, Field>,
    schema: Option<Value>,
    strict: bool,
    takes_id: bool,
    hooks: Vec<&'static str>,
    commands: BTreeMap<String, Command>,
    routes: Vec<(&'static str, bool, Option<Value>)>,
    datasource: Option<(&'static str, Option<u32>)>,
    events: Vec<&'static str>,
    extension: Value,
}

fn command() -> impl Strategy<Value = Command> {
    let schema = option::of(value().prop_map(|value| json!({ "properties": { "a": { "default": value } } })));
    (option::of(any::<String>()), schema, any::<bool>(), any::<bool>())
}

/// A specification that is acceptable.
pub(super) fn declared() -> impl Strategy<Value = Declared> {
    let field_name = "[a-zA-Zà-öΑ-Ρа-я一-丏가-갏𐐀-𐐏$][a-zA-Z0-9à-öΑ-Ρа-я٠-٩一-丏$-]{0,20}"
        .prop_filter("the host supplies it", |name| name != "id" && name != "revision");
    let verbs = ["get", "head", "post", "put", "patch", "delete", "options"];
    let source = (select(vec!["", "default", "memory", "file", "FILE"]), option::of(1..=u32::MAX));
    let shape = (
        "[A-Za-z][A-Za-z0-9_-]{0,63}",
        "[A-Za-z0-9][A-Za-z0-9_-]{0,63}",
        option::of(any::<String>()),
        btree_map(field_name, field(), 0..8),
        option::of(value().prop_map(|value| json!({ "examples": [value] }))),
        any::<bool>(),
        any::<bool>(),
    );
    let code = (
        subsequence(&HOOKS[..], 0..=5),
        btree_map("[A-Za-z][A-Za-z0-9_.-]{0,12}", command(), 0..4),
        vec((select(verbs.to_vec()), any::<bool>(), option::of(object())), 0..4),
        option::of(source),
        subsequence(&["CREATE", "update", "Delete"][..], 0..=3),
        value(),
    );
    (shape, code).prop_map(|(shape, code)| {
        let (name, endpoint, description, fields, schema, strict, takes_id) = shape;
        let (hooks, commands, routes, datasource, events, extension) = code;
        let commands = commands.into_iter().filter(|(name, _)| name != "service").collect();
        Declared {
            name,
            endpoint,
            description,
            fields,
            schema,
            strict,
            takes_id,
            hooks,
            commands,
            routes,
            datasource,
            events,
            extension,
        }
    })
}

impl Declared {
    pub(super) fn terms() -> Terms {
        Terms { settings: json!({}), limits: CodeLimits::default(), grants: Grants::default() }
    }

    /// The field that supplies ids, if one can and shall.
    fn id_field(&self) -> Option<&String> {
        let fits = |field: &Field| matches!(field.kind, "text" | "integer" | "bytes");
        self.fields.iter().find(|(_, field)| self.takes_id && fits(field)).map(|(name, _)| name)
    }

    /// The record `model-spec`.
    fn record(&self) -> Value {
        let text = |value: &Option<Value>| value.as_ref().map(Value::to_string);
        let fields = self.fields.iter().map(|(name, field)| {
            let mut rules = field.rules.clone();
            rules.extend(field.unique.then_some("unique"));
            json!({
                "name": name, "kind": field.kind, "rules": rules,
                "default-value": text(&field.default), "schema": text(&field.schema),
            })
        });
        let mixins = self.fields.iter().filter_map(|(name, field)| {
            let (min, max) = field.range.as_ref().filter(|(min, max)| min.is_some() || max.is_some())?;
            let bound = |key: &str, bound: &Option<String>| {
                bound.as_ref().map(|bound| format!(r#","{key}":{bound}"#)).unwrap_or_default()
            };
            let (min, max) = (bound("min", min), bound("max", max));
            Some(
                json!({ "name": "range", "options": format!(r#"{{"fields":[{}]{min}{max}}}"#, json!(name)) }),
            )
        });
        let commands = self.commands.iter().map(|(name, (description, schema, saves, computes))| {
            json!({
                "name": name, "description": description, "argument-schema": text(schema),
                "saves": saves, "cpu-bound": computes,
            })
        });
        let routes = self.routes.iter().enumerate().map(|(number, (method, computes, openapi))| {
            json!({
                "method": method, "path": format!("/{{id}}/way{number}"), "cpu-bound": computes, "openapi": text(openapi),
            })
        });
        let events = self.events.iter().map(|kind| json!({ "event": format!("{kind}{}", self.name) }));
        let source = self.datasource.map(|(name, entries)| json!({ "name": name, "cache-entries": entries }));
        json!({
            "name": self.name, "endpoint": self.endpoint, "version": "1.0.0", "description": self.description,
            "id-field": self.id_field(), "fields": fields.collect::<Vec<_>>(), "schema": text(&self.schema),
            "strict": self.strict, "hooks": self.hooks, "mixins": mixins.collect::<Vec<_>>(),
            "commands": commands.collect::<Vec<_>>(), "routes": routes.collect::<Vec<_>>(),
            "subscriptions": events.collect::<Vec<_>>(), "datasource": source,
            "extensions": [{ "key": "note", "value": self.extension.to_string() }],
        })
    }

    /// A guest that says it.
    pub(super) fn guest(&self) -> Guest {
        let guest = Guest::model(self.record());
        ["hooks", "commands", "routes", "event-handlers"].iter().fold(guest, |guest, one| guest.export(one))
    }

    /// Whether the host has understood it.
    pub(super) fn check(&self, found: &ModelSpec) -> Result<(), TestCaseError> {
        prop_assert_eq!(found.name.as_str(), self.name.to_ascii_uppercase());
        prop_assert_eq!(&found.endpoint, &self.endpoint);
        prop_assert_eq!(&found.description, &self.description);
        prop_assert_eq!(found.unknown_fields == UnknownFields::Refuse, self.strict);
        prop_assert_eq!(found.id_field.as_ref(), self.id_field());
        prop_assert_eq!(found.if_match, IfMatch::Optional);
        let source = self.datasource.map_or("", |(name, _)| name).to_ascii_lowercase();
        let expected = match source.as_str() {
            "memory" => Some(Datasource::Memory),
            "file" => Some(Datasource::File),
            _ => None,
        };
        prop_assert_eq!(found.datasource, expected);
        prop_assert_eq!(found.cache_documents_max, self.datasource.and_then(|(_, most)| most).map(u64::from));
        prop_assert_eq!(found.fields.keys().collect::<Vec<_>>(), self.fields.keys().collect::<Vec<_>>());
        for (field, (name, expected)) in found.fields.values().zip(&self.fields) {
            expected.check(name, field)?;
        }
        let mut parts = Vec::new();
        collect_parts(found.schema.as_ref(), &mut parts);
        let whole = self.schema.iter().cloned();
        let own = self
            .fields
            .iter()
            .filter_map(|(name, field)| Some(json!({ "properties": { name: field.schema.clone()? } })));
        same_all(parts, whole.chain(own))?;
        self.check_code(found)
    }

    fn check_code(&self, found: &ModelSpec) -> Result<(), TestCaseError> {
        let code = found.code.as_ref().expect("it is a component");
        let asks = |hook: &str| self.hooks.contains(&hook);
        let hooks = HookSet {
            create: asks("on-create"),
            validate: asks("validate"),
            update: asks("on-update"),
            delete: asks("on-delete"),
            load: asks("on-load"),
        };
        prop_assert_eq!(code.hooks, hooks);
        prop_assert_eq!(&code.module, &self.name);
        let place = |computes: bool| if computes { CommandPlace::Cpu } else { CommandPlace::Io };
        prop_assert_eq!(found.commands.keys().collect::<Vec<_>>(), self.commands.keys().collect::<Vec<_>>());
        for (found, (description, schema, saves, computes)) in
            found.commands.values().zip(self.commands.values())
        {
            let CommandSpec { description: told, arguments, effect, place: runs, allow, disabled } = found;
            prop_assert!(allow.is_empty() && !disabled);
            prop_assert_eq!(told, description);
            same_all(arguments.iter().cloned(), schema.iter().cloned())?;
            prop_assert_eq!(*effect == CommandEffect::Saves, *saves);
            prop_assert_eq!(*runs, place(*computes));
        }
        prop_assert_eq!(code.routes.len(), self.routes.len());
        for (number, (found, (method, computes, openapi))) in code.routes.iter().zip(&self.routes).enumerate()
        {
            prop_assert_eq!(found.method.as_str(), method.to_ascii_uppercase());
            prop_assert_eq!(&found.path, &format!("/{{id}}/way{number}"));
            prop_assert_eq!(found.place, place(*computes));
            same_all(found.openapi.iter().cloned(), openapi.iter().cloned())?;
        }
        let events: Vec<&str> = code.subscriptions.iter().map(|pattern| pattern.as_str()).collect();
        let expected = self.events.iter().map(|kind| format!("{kind}{}", self.name).to_ascii_uppercase());
        prop_assert_eq!(events, expected.collect::<Vec<_>>());
        Ok(())
    }
}

impl Field {
    fn check(&self, name: &str, found: &FieldSpec) -> Result<(), TestCaseError> {
        let kind = match found.kind {
            FieldKind::Text if self.kind == "bytes" => "bytes",
            FieldKind::Text => "text",
            FieldKind::Integer => "integer",
            FieldKind::Decimal => "decimal",
            FieldKind::Boolean => "boolean",
            FieldKind::Timestamp => "timestamp",
            FieldKind::Object => "object",
            FieldKind::Array => "array",
            FieldKind::Any => "any",
        };
        prop_assert_eq!(kind, self.kind, "{}", name);
        let has = |rule: &str| self.rules.contains(&rule);
        prop_assert_eq!(
            (found.required, found.frozen, found.indexed, found.unique),
            (has("required"), has("immutable"), has("indexed"), self.unique)
        );
        // To have null and to be absent are the same.
        let default = self.default.iter().filter(|default| !default.is_null()).cloned();
        same_all(found.default.iter().cloned(), default)?;
        let written = |bound: &Option<Number>| bound.as_ref().map(|bound| bound.as_str().to_owned());
        let bounds = (written(&found.min), written(&found.max));
        prop_assert_eq!(bounds, self.range.clone().unwrap_or_default());
        Ok(())
    }
}

/// The parts that a schema was put together from.
fn collect_parts(schema: Option<&Value>, parts: &mut Vec<Value>) {
    match schema.map(|schema| (schema, schema.get("allOf").and_then(Value::as_array))) {
        Some((_, Some(all))) => all.iter().for_each(|part| collect_parts(Some(part), parts)),
        Some((part, None)) => parts.push(part.clone()),
        None => {}
    }
}

/// Whether values are the same, one by one.
fn same_all(
    found: impl IntoIterator<Item = Value>,
    expected: impl IntoIterator<Item = Value>,
) -> Result<(), TestCaseError> {
    let (found, expected): (Vec<Value>, Vec<Value>) =
        (found.into_iter().collect(), expected.into_iter().collect());
    let same = found.len() == expected.len()
        && found.iter().zip(&expected).all(|(found, expected)| json::same(found, expected));
    prop_assert!(same, "found {:?}, expected {:?}", found, expected);
    Ok(())
}
