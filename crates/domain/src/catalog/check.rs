//! What a specification must fulfil as a whole, whoever wrote it.

use crate::{
    access,
    document::HOST_FIELDS,
    json::shorten,
    spec::{FieldKind, ModelName, ModelSpec},
    trial::check_share,
};

/// Declared fields of one model.
const FIELDS_MAX: usize = 512;

/// Bytes of a field's name.
const FIELD_NAME_BYTES_MAX: usize = 128;

/// Bytes of an endpoint.
const ENDPOINT_BYTES_MAX: usize = 64;

/// Reports every mistake as (key path, message), except those inside one field, its rules and the schema.
pub(super) fn check(spec: &ModelSpec, report: &mut dyn FnMut(&str, String)) {
    match ModelName::new(spec.name.as_str()) {
        Err(message) => report("name", message),
        Ok(name) if name != spec.name => {
            report("name", format!("found {:?}, expected {name}", spec.name.as_str()))
        }
        Ok(_) => {}
    }
    if !is_endpoint(&spec.endpoint) {
        let found = shorten(&spec.endpoint);
        report(
            "endpoint",
            format!(
                "found {found:?}, expected 1 to {ENDPOINT_BYTES_MAX} letters, digits, '_' or '-', \
                 starting with a letter or digit"
            ),
        );
    }
    if spec.fields.len() > FIELDS_MAX {
        report("fields", format!("found {} fields, expected at most {FIELDS_MAX}", spec.fields.len()));
    }
    for name in spec.fields.keys() {
        let key = key_path(&["fields", name]);
        if HOST_FIELDS.contains(&name.as_str()) {
            let id = if name == "id" {
                "; for an id of your own declare another field and name it in id-field"
            } else {
                ""
            };
            report(&key, format!("found a field that the host supplies, expected another name{id}"));
        } else if !is_field_name(name) {
            report(
                &key,
                format!(
                    "found {:?}, expected a name of 1 to {FIELD_NAME_BYTES_MAX} bytes: letters, digits, '_', '-' \
                     or '$', not starting with a digit or '-', without \"__\"",
                    shorten(name)
                ),
            );
        }
    }
    if let Some(name) = &spec.id_field {
        let found = shorten(name);
        match spec.fields.get(name).map(|field| field.kind) {
            None => report("id-field", format!("found {found:?}, expected the name of a declared field")),
            Some(FieldKind::Text | FieldKind::Integer) => {}
            Some(kind) => report(
                "id-field",
                format!(
                    "found {found:?} of kind {}, expected one of kind text or integer",
                    super::kind_name(kind)
                ),
            ),
        }
    }
    access::check(spec, report);
    if let Some(trial) = &spec.trial {
        if spec.code.is_none() {
            report("trial", "found one of a model without code, expected none".to_owned());
        }
        if let Err(message) = check_share(trial.share_percent.into()) {
            report("trial.share-percent", message);
        }
    }
    if spec.cache_documents_max == Some(0) {
        report("cache-documents-max", "found 0, expected at least 1".to_owned());
    }
}

/// A key path as it would be written in TOML.
pub(crate) fn key_path(keys: &[&str]) -> String {
    let bare = |key: &str| {
        !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    let key = |key: &&str| if bare(key) { (*key).to_owned() } else { format!("{:?}", shorten(key)) };
    keys.iter().map(key).collect::<Vec<_>>().join(".")
}

/// Whether a field may have this name: the query grammar gives `.`, `,`, `:`, a leading `-` and `__` a
/// meaning.
fn is_field_name(name: &str) -> bool {
    let starts_well = name.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '$');
    starts_well
        && name.len() <= FIELD_NAME_BYTES_MAX
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '$'))
        && !name.contains("__")
}

fn is_endpoint(endpoint: &str) -> bool {
    (1..=ENDPOINT_BYTES_MAX).contains(&endpoint.len())
        && endpoint.starts_with(|c: char| c.is_ascii_alphanumeric())
        && endpoint.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}
