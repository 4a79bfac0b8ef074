//! Writes a document as it is stored and answered.

use serde_json::{Map, Value};

use super::host::Stored;
use crate::{catalog::Model, json};

/// Bytes of the host fields with their names, besides the texts they hold: for the capacity only.
const HOST_FIELDS_BYTES: usize = 100;

pub(super) fn write(model: &Model, document: &Stored) -> Vec<u8> {
    let texts =
        document.id.len() + model.name().len() + document.create_time.len() + document.update_time.len();
    let properties: usize =
        document.properties.iter().map(|(name, value)| name.len() + 4 + length(value)).sum();
    let mut out = Vec::with_capacity(properties + texts + HOST_FIELDS_BYTES);
    out.push(b'{');
    for (name, value) in &document.properties {
        json::write_text(&mut out, name);
        out.push(b':');
        serde_json::to_writer(&mut out, value).expect("a value can be written to memory");
        out.push(b',');
    }
    for (name, text) in [
        ("id", document.id.as_str()),
        ("modelName", model.name()),
        ("createTime", document.create_time.as_str()),
        ("updateTime", document.update_time.as_str()),
    ] {
        out.push(b'"');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        json::write_text(&mut out, text);
        out.push(b',');
    }
    out.extend_from_slice(b"\"revision\":");
    out.extend_from_slice(document.revision.to_string().as_bytes());
    out.push(b'}');
    out
}

/// Writes a merge patch as it is kept with the version that it leads to.
pub(super) fn write_changes(changes: &Map<String, Value>) -> Vec<u8> {
    serde_json::to_vec(changes).expect("a value can be written to memory")
}

/// Bytes of a value as JSON, exact but for escapes.
fn length(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(true) => 4,
        Value::Bool(false) => 5,
        Value::Number(number) => number.as_str().len(),
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| 1 + length(item)).sum::<usize>(),
        Value::Object(members) => {
            2 + members.iter().map(|(name, value)| name.len() + 4 + length(value)).sum::<usize>()
        }
    }
}
