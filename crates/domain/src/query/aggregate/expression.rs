//! Values made of rows.

use serde_json::Value;

use super::Reader;
use crate::{
    json,
    order::Times,
    query::{Field, parameters::Mistake},
    raw,
};

/// Bytes of one value or row that is made.
pub(super) const VALUE_BYTES_MAX: usize = 16 << 20;

/// A value or row is larger than any may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooLarge;

/// A value in the making: a few names can repeat a row many times over, and stages repeat each other's work.
#[derive(Debug, Default)]
pub(super) struct Making {
    bytes: Vec<u8>,
    is_too_large: bool,
}

impl Making {
    /// One that begins like this.
    pub(super) fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, is_too_large: false }
    }

    fn push(&mut self, piece: &[u8]) {
        self.is_too_large |= self.bytes.len() + piece.len() > VALUE_BYTES_MAX;
        if !self.is_too_large {
            self.bytes.extend_from_slice(piece);
        }
    }

    /// What was made.
    pub(super) fn finish(self) -> Result<Vec<u8>, TooLarge> {
        if self.is_too_large { Err(TooLarge) } else { Ok(self.bytes) }
    }
}

/// What a value is made of.
#[derive(Debug)]
pub(super) enum Expression {
    /// The whole row, with its points in time.
    Row(Times),
    /// The value of a field.
    Field(Field),
    /// A value, as JSON.
    Literal(Vec<u8>),
    /// An object of values; what is missing is left out.
    Object(Vec<(String, Expression)>),
}

/// Reads an expression.
pub(super) fn parse(reader: &Reader<'_>, value: &Value) -> Result<Expression, Mistake> {
    match value {
        Value::String(text) => match text.strip_prefix('$') {
            Some("$ROOT") => Ok(Expression::Row(reader.fields.times())),
            Some(path) if path.starts_with('$') => Err(reader.wrong(value, "\"$path\" or \"$$ROOT\"")),
            Some(path) => super::field(reader, path).map(Expression::Field),
            None => Ok(literal(value)),
        },
        Value::Object(members) => {
            if let Some((name, value)) = members.iter().find(|(name, _)| name.starts_with('$')) {
                if name == "$literal" && members.len() == 1 {
                    return Ok(literal(value));
                }
                let found = format!("the operator {:?}", json::shorten(name));
                return Err(reader.saying(found, "\"$path\", {\"$literal\": value} or an object of them"));
            }
            let parts = members
                .iter()
                .map(|(name, value)| Ok((reader.new_name(name)?.to_owned(), parse(reader, value)?)));
            Ok(Expression::Object(parts.collect::<Result<_, Mistake>>()?))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => Ok(literal(value)),
    }
}

fn literal(value: &Value) -> Expression {
    Expression::Literal(value.to_string().into_bytes())
}

impl Expression {
    /// Appends the value for a row; tells whether there is one.
    fn write(&self, row: &[u8], out: &mut Making) -> bool {
        match self {
            Self::Row(_) => out.push(row),
            Self::Field(field) => match raw::find(row, &field.path) {
                Some(value) => out.push(value),
                None => return false,
            },
            Self::Literal(value) => out.push(value),
            Self::Object(parts) => {
                out.push(b"{}");
                extend(parts, row, out);
            }
        }
        true
    }

    /// Points in time of its values.
    pub(super) fn times(&self) -> Times {
        match self {
            Self::Row(times) => times.clone(),
            Self::Field(field) => field.times(),
            Self::Literal(_) => Times::default(),
            Self::Object(parts) => {
                let mut times = Times::default();
                parts.iter().for_each(|(name, part)| times.put(std::slice::from_ref(name), part.times()));
                times
            }
        }
    }

    /// The value for a row.
    pub(super) fn value(&self, row: &[u8]) -> Result<Option<Vec<u8>>, TooLarge> {
        let mut out = Making::default();
        let is_there = self.write(row, &mut out);
        out.finish().map(|value| is_there.then_some(value))
    }
}

/// Adds properties to the object at the end of `out`.
pub(super) fn extend(parts: &[(String, Expression)], row: &[u8], out: &mut Making) {
    for (name, part) in parts {
        let brace = out.bytes.pop();
        let start = out.bytes.len();
        if out.bytes.last() != Some(&b'{') {
            out.bytes.push(b',');
        }
        json::write_text(&mut out.bytes, name);
        out.bytes.push(b':');
        if !part.write(row, out) {
            out.bytes.truncate(start);
        }
        out.bytes.extend(brace);
    }
}
