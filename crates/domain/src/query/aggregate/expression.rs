//! Values made of rows.

use serde_json::Value;

use super::Reader;
use crate::{
    json,
    order::Times,
    query::{Field, parameters::Mistake},
    raw,
};

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
    pub(super) fn write(&self, row: &[u8], out: &mut Vec<u8>) -> bool {
        match self {
            Self::Row(_) => out.extend_from_slice(row),
            Self::Field(field) => match raw::find(row, &field.path) {
                Some(value) => out.extend_from_slice(value),
                None => return false,
            },
            Self::Literal(value) => out.extend_from_slice(value),
            Self::Object(parts) => {
                out.extend_from_slice(b"{}");
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
    pub(super) fn value(&self, row: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        self.write(row, &mut out).then_some(out)
    }
}

/// Adds properties to the object at the end of `out`.
pub(super) fn extend(parts: &[(String, Expression)], row: &[u8], out: &mut Vec<u8>) {
    for (name, part) in parts {
        let brace = out.pop();
        let start = out.len();
        if out.last() != Some(&b'{') {
            out.push(b',');
        }
        json::write_text(out, name);
        out.push(b':');
        if !part.write(row, out) {
            out.truncate(start);
        }
        out.extend(brace);
    }
}
