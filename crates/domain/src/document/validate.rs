//! Applies all rules of a model to the properties of a document.

use serde_json::{Map, Value};

use super::{mistakes::Mistakes, unique};
use crate::{
    catalog::Model,
    json::{self, pointer, shorten},
    spec::UnknownFields,
    suggest,
};

/// Finds every mistake; returns the properties as they came.
pub(super) fn validate(
    model: &Model,
    stored: Option<&Map<String, Value>>,
    properties: Map<String, Value>,
    mistakes: &mut Mistakes,
) -> Map<String, Value> {
    let spec = model.spec();
    for (name, field, rule) in model.fields() {
        let value = properties.get(name).filter(|value| !value.is_null());
        let is_id = spec.id_field.as_deref() == Some(name);
        let before = stored.and_then(|stored| stored.get(name)).filter(|value| !value.is_null());
        if let Some(before) = before
            && (field.frozen || is_id)
            && !value.is_some_and(|value| json::same(before, value))
        {
            mistakes.add(&rule.pointer, "is frozen: once set it cannot be changed or removed".to_owned());
            continue;
        }
        match value {
            None if is_id => {
                mistakes.add(&rule.pointer, "is required: it is the id of the document".to_owned())
            }
            None if field.required => mistakes.add(&rule.pointer, "is required".to_owned()),
            None => {}
            Some(value) => {
                rule.check(field, value, &mut |message| mistakes.add(&rule.pointer, message));
                if field.unique
                    && let Some(mistake) = unique::mistake(value)
                {
                    mistakes.add(&rule.pointer, mistake);
                }
            }
        }
    }
    if spec.unknown_fields == UnknownFields::Refuse {
        for name in properties.keys().filter(|name| !spec.fields.contains_key(name.as_str())) {
            if mistakes.room() == 0 {
                // The room is used up, so this only notes that there are more.
                mistakes.add("", String::new());
                break;
            }
            let hint = suggest::similar(name, spec.fields.keys().map(String::as_str));
            let found = shorten(name);
            mistakes.add(&pointer::of(name), format!("{found:?} is not a field of this model{hint}"));
        }
    }
    check_schema(model, properties, mistakes)
}

fn check_schema(
    model: &Model,
    properties: Map<String, Value>,
    mistakes: &mut Mistakes,
) -> Map<String, Value> {
    if !model.has_schema() {
        return properties;
    }
    let document = Value::Object(properties);
    for error in model.schema_mistakes(&document, mistakes.room()) {
        mistakes.add(&error.path, error.message);
    }
    match document {
        Value::Object(properties) => properties,
        _ => Map::new(),
    }
}
