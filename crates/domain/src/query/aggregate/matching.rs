//! `$match`.

use serde_json::{Map, Value};

use super::{Reader, field, object};
use crate::{
    json,
    order::{Key, tag},
    query::{Condition, Field, Filter, Spans, filter::Test, parameters::Mistake, values},
    spec::FieldKind,
};

/// Values of one `$in` or `$nin`.
const LIST_VALUES_MAX: usize = 1000;

/// Reads the condition of a stage.
pub(super) fn parse(reader: &Reader<'_>, value: &Value) -> Result<Filter, Mistake> {
    let members = value.as_object().ok_or_else(|| reader.wrong(value, "an object of conditions"))?;
    members.iter().map(|(name, value)| member(reader, name, value)).collect::<Result<_, _>>().map(Filter::All)
}

fn member(reader: &Reader<'_>, name: &str, value: &Value) -> Result<Filter, Mistake> {
    let parts = || match value {
        Value::Array(parts) if !parts.is_empty() => {
            parts.iter().map(|part| parse(reader, part)).collect::<Result<Vec<_>, _>>()
        }
        _ => Err(reader.wrong(value, format!("an array of conditions in {name}"))),
    };
    match name {
        "$and" => parts().map(Filter::All),
        "$or" => parts().map(Filter::Any),
        "$not" => Ok(Filter::Not(Box::new(parse(reader, value)?))),
        _ if name.starts_with('$') => {
            let found = format!("the operator {:?}", json::shorten(name));
            Err(reader.saying(found, "a field name, $and, $or or $not"))
        }
        _ => {
            let field = field(reader, name)?;
            match value.as_object().filter(|members| members.keys().any(|name| name.starts_with('$'))) {
                Some(operators) => tests(reader, &field, operators),
                None => Ok(condition(&field, equal(reader, &field, value)?)),
            }
        }
    }
}

fn condition(field: &Field, spans: Spans) -> Filter {
    Filter::Is(Condition { field: field.clone(), test: Test::Within(spans) })
}

fn tests(reader: &Reader<'_>, field: &Field, operators: &Map<String, Value>) -> Result<Filter, Mistake> {
    let each = operators.iter().map(|(operator, value)| test(reader, field, operator, value));
    each.collect::<Result<_, _>>().map(Filter::All)
}

fn test(reader: &Reader<'_>, field: &Field, operator: &str, value: &Value) -> Result<Filter, Mistake> {
    let bound = || {
        let key = key(reader, field, value)?;
        let compares = key.as_bytes()[0] > tag::NULL;
        compares
            .then_some(key)
            .ok_or_else(|| reader.wrong(value, format!("a value to compare with in {operator}")))
    };
    let spans = match operator {
        "$eq" => equal(reader, field, value)?,
        "$ne" => equal(reader, field, value)?.complement(),
        "$lt" => Spans::below(&bound()?),
        "$lte" => Spans::up_to(&bound()?),
        "$gt" => Spans::above(&bound()?),
        "$gte" => Spans::from(&bound()?),
        "$in" => list(reader, field, operator, value)?,
        "$nin" => list(reader, field, operator, value)?.complement(),
        "$exists" => match value {
            Value::Bool(true) => Spans::present(),
            Value::Bool(false) => Spans::present().complement(),
            _ => return Err(reader.wrong(value, "true or false in $exists")),
        },
        "$not" => return Ok(Filter::Not(Box::new(tests(reader, field, object(reader, value)?)?))),
        other => {
            let found = format!("the operator {:?}", json::shorten(other));
            let expected = "one of $eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $not";
            return Err(reader.saying(found, expected));
        }
    };
    Ok(condition(field, spans))
}

/// What a value is compared as. A text for a field with points in time is one, as in filters of the query.
fn key(reader: &Reader<'_>, field: &Field, value: &Value) -> Result<Key, Mistake> {
    match (field.kind, value) {
        (FieldKind::Timestamp, Value::String(text)) => values::instant(text).map_err(|expected| {
            reader.wrong(value, format!("{expected} for {}", json::shorten(&field.name)))
        }),
        (_, value) => Ok(field.times().key_of(value)),
    }
}

fn equal(reader: &Reader<'_>, field: &Field, value: &Value) -> Result<Spans, Mistake> {
    match value {
        Value::Null => Ok(Spans::missing_or_null()),
        value => Ok(Spans::one(key(reader, field, value)?.as_bytes())),
    }
}

fn list(reader: &Reader<'_>, field: &Field, operator: &str, value: &Value) -> Result<Spans, Mistake> {
    match value {
        Value::Array(values) if values.len() <= LIST_VALUES_MAX => {
            let each = values.iter().map(|value| equal(reader, field, value));
            Ok(Spans::union(each.collect::<Result<Vec<_>, _>>()?))
        }
        _ => Err(reader.wrong(value, format!("an array of at most {LIST_VALUES_MAX} values in {operator}"))),
    }
}
