//! JSON Schema 2020-12: compiled once per model, with formats asserted and nothing fetched from anywhere.

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

use crate::problem::FieldError;

/// Compiles a schema.
///
/// # Errors
/// What is wrong with it and where (pointer into the schema).
pub(super) fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .offline()
        .should_validate_formats(true)
        .should_ignore_unknown_formats(false)
        // The default engine backtracks; this one takes time linear in the text and refuses what it cannot
        // do.
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .map_err(|error| {
            let place = error.instance_path().to_string();
            let place = if place.is_empty() { "the top".to_owned() } else { place };
            format!(
                "found a mistake at {place}, expected JSON Schema 2020-12: {}",
                shorten_message(&error.masked().to_string())
            )
        })
}

/// The first mistakes that the schema finds in a document, at most `count_max`.
pub(crate) fn mistakes(schema: &Validator, document: &Value, count_max: usize) -> Vec<FieldError> {
    if schema.is_valid(document) {
        return Vec::new();
    }
    // Masked, because the message would repeat the value, whatever its size.
    let to_error = |error: jsonschema::ValidationError<'_>| FieldError {
        path: error.instance_path().as_str().to_owned(),
        message: shorten_message(&error.masked_with("the value").to_string()),
    };
    schema.iter_errors(document).take(count_max).map(to_error).collect()
}

fn shorten_message(message: &str) -> String {
    const MESSAGE_CHARS_MAX: usize = 300;
    match message.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}
