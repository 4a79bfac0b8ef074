//! Whether whatever a command took as its arguments is still taken.
//!
//! Of JSON Schema this understands what most schemas are made of. Anything else that is not as it was is told: nobody can
//! tell from outside whether it takes less.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::Report;

/// What a schema says without demanding anything.
const WORDS: [&str; 10] = [
    "$comment",
    "$id",
    "$schema",
    "default",
    "deprecated",
    "description",
    "examples",
    "readOnly",
    "title",
    "writeOnly",
];
/// What may not rise, and what may not fall.
const LEAST: [&str; 5] = ["minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"];
const MOST: [&str; 5] = ["maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"];

/// Tells what `after` demands and `before` did not.
pub(super) fn compare(key: &str, before: &Value, after: &Value, report: &mut Report<'_>) {
    if before == after || *after == Value::Bool(true) {
        return;
    }
    let nothing = Map::new();
    let (before, after) = match (before, after) {
        (Value::Object(before), Value::Object(after)) => (before, after),
        (Value::Bool(true), Value::Object(after)) => (&nothing, after),
        (Value::Bool(false), _) => return,
        _ => return report(key.to_owned(), "another schema", "one that takes what was taken"),
    };
    required(key, before, after, report);
    properties(key, before, after, report);
    for (word, demanded) in after {
        let known = before.get(word);
        let at = || format!("{key}.{word}");
        if known == Some(demanded) || WORDS.contains(&word.as_str()) {
            continue;
        }
        match word.as_str() {
            "required" | "properties" => {}
            "items" => compare(&at(), known.unwrap_or(&Value::Bool(true)), demanded, report),
            _ if takes_all(word, known, demanded) => {}
            _ => {
                let known = known.map_or_else(|| "none".to_owned(), Value::to_string);
                report(at(), &demanded.to_string(), &known);
            }
        }
    }
}

fn required(key: &str, before: &Map<String, Value>, after: &Map<String, Value>, report: &mut Report<'_>) {
    let known = names(before);
    for name in names(after).into_iter().filter(|name| !known.contains(name)) {
        report(key.to_owned(), &format!("{name} required"), "it not required");
    }
}

/// Names that a schema requires.
fn names(schema: &Map<String, Value>) -> Vec<&str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Properties may come, as fields of documents may.
fn properties(key: &str, before: &Map<String, Value>, after: &Map<String, Value>, report: &mut Report<'_>) {
    let of = |schema: &Map<String, Value>| schema.get("properties").and_then(Value::as_object).cloned();
    let (before, now) = (of(before).unwrap_or_default(), of(after).unwrap_or_default());
    for (name, known) in &before {
        match now.get(name) {
            Some(demanded) => compare(&format!("{key}.{name}"), known, demanded, report),
            None if after.get("additionalProperties") == Some(&Value::Bool(false)) => {
                report(format!("{key}.{name}"), "nothing", "the argument");
            }
            None => {}
        }
    }
}

/// Whether a demand that is another one takes all that was taken.
fn takes_all(word: &str, known: Option<&Value>, demanded: &Value) -> bool {
    let order = || known?.as_f64()?.partial_cmp(&demanded.as_f64()?);
    if LEAST.contains(&word) {
        return order().is_some_and(Ordering::is_ge);
    }
    if MOST.contains(&word) {
        return order().is_some_and(Ordering::is_le);
    }
    let list = |value: &Value| value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    match (word, known) {
        ("additionalProperties", known) => {
            *demanded == Value::Bool(true) || known == Some(&Value::Bool(false))
        }
        ("enum", Some(known)) => list(known).iter().all(|value| list(demanded).contains(value)),
        ("type", Some(known)) => list(known).iter().all(|kind| {
            let demanded = list(demanded);
            demanded.contains(kind) || (kind == "integer" && demanded.contains(&Value::from("number")))
        }),
        ("uniqueItems", _) => *demanded == Value::Bool(false),
        _ => false,
    }
}
