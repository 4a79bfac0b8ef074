//! Values that no two documents of a model may share.

use serde_json::Value;

use crate::{
    catalog::Model,
    json::{self, Members},
};

/// Bytes of a unique text, or of the canonical form of another unique value: it becomes part of a key in the store.
pub(super) const UNIQUE_BYTES_MAX: usize = 1024;

/// The values of the unique fields of a stored document, each as bytes that are equal exactly when the values
/// are (numbers by value: `1` and `1.0` are equal). Missing and null values are left out: any number of
/// documents may have none.
///
/// Only the unique values are parsed, and nothing behind the last of them is looked at.
///
/// # Errors
/// Why the body is not a stored document.
pub fn unique_values(model: &Model, body: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let fields = model.unique_fields();
    let mut values = Vec::with_capacity(fields.len());
    let mut left = fields.len();
    let mut members = Members::new(body);
    while left > 0 {
        let Some(member) = members.next() else { break };
        let (name, written) = member?;
        if !fields.iter().any(|field| *field == name) {
            continue;
        }
        left -= 1;
        let value = json::parse(written).map_err(|problem| format!("{name}: {}", problem.detail))?;
        if !value.is_null() {
            values.push((name.into_owned(), canonical(&value)));
        }
    }
    Ok(values)
}

/// Why a value cannot be unique.
pub(super) fn mistake(value: &Value) -> Option<String> {
    let length = value.as_str().map_or_else(|| canonical(value).len(), str::len);
    (length > UNIQUE_BYTES_MAX)
        .then(|| format!("found {length} bytes, expected at most {UNIQUE_BYTES_MAX} in a unique field"))
}

fn canonical(value: &Value) -> Vec<u8> {
    let mut bytes = String::new();
    json::write_canonical(&mut bytes, value);
    bytes.into_bytes()
}
