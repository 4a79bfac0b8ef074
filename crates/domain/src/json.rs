//! JSON as the host accepts it: strict, bounded, and with numbers kept as they were written.
//!
//! `serde_json` cannot be asked for any of that: it keeps the last of two equal names, spells `1E5` as
//! `1e+5`, and takes an object with one of its private names (`$serde_json::private::…`) for a number or for
//! JSON inside a text. So reading is done here, and what is read is still a [`serde_json::Value`].

mod held;
mod members;
mod number;
mod parser;
pub(crate) mod pointer;

use std::fmt::Write as _;

use serde_json::Value;

pub(crate) use held::depth;
pub use held::{ChangeError, Changes, Held};
pub use members::{Member, Members};
pub(crate) use number::Decimal;
pub use pointer::of as pointer_to;

use crate::problem::{Problem, ProblemCode};

/// Objects and arrays inside one another.
pub const DEPTH_MAX: usize = 64;

/// Characters in which one number may be written. Everything beyond is an attack on whoever calculates with
/// it.
pub const NUMBER_BYTES_MAX: usize = 1024;

/// Names that `serde_json` uses to carry numbers and raw text through its own data model; a document with
/// such a name would be read as something else by every later reader.
pub(crate) const RESERVED_PREFIX: &str = "$serde_json::private::";

/// Reads one JSON value (RFC 8259), the whole input and nothing but it.
///
/// # Errors
/// [`ProblemCode::MalformedJson`] with line and column (both from 1, columns in characters), what was found
/// and what was expected. Refused beyond the grammar: a name twice in one object, more than [`DEPTH_MAX`]
/// levels, input that is not UTF-8, half of a surrogate pair, a number longer than [`NUMBER_BYTES_MAX`].
pub fn parse(input: &[u8]) -> Result<Value, Problem> {
    parser::parse(input).map_err(|fault| {
        let (line, column) = parser::position(input, fault.at);
        Problem::new(ProblemCode::MalformedJson, format!("line {line}, column {column}: {}", fault.message))
    })
}

/// Whether two values are the same. Numbers are compared exactly by value (`1`, `1.0` and `10e-1` are the
/// same), the order of properties does not matter.
#[must_use]
pub fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            left == right || Decimal::of(left).cmp(&Decimal::of(right)).is_eq()
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| same(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, value)| right.get(name).is_some_and(|other| same(value, other)))
        }
        _ => left == right,
    }
}

/// Names a value in a message: short, whatever its size.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => format!("the number {}", shorten(number.as_str())),
        Value::String(text) => format!("the text {:?}", shorten(text)),
        Value::Array(items) if items.is_empty() => "an empty array".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(members) if members.is_empty() => "an empty object".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// At most the first 40 characters, with a sign that there are more.
pub(crate) fn shorten(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 40;
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Appends a text as a JSON string.
pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(&mut *out, text).expect("a text can be written to memory");
}

/// Appends a form of the value in which [`same`] values are the same bytes and others are not.
pub(crate) fn write_canonical(out: &mut String, value: &Value) {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => {
            write!(out, "{value}").expect("a text takes everything");
        }
        Value::Number(number) => Decimal::of(number).write_canonical(out),
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write_canonical(out, item);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (name, value) in members {
                write!(out, "{name:?}:").expect("a text takes everything");
                write_canonical(out, value);
                out.push(',');
            }
            out.push('}');
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
