//! Values as they are written in a query string.

use serde_json::Value;

use crate::{
    json,
    order::{self, Key},
    spec::FieldKind,
    timestamp::{self, Instant},
};

/// A value that a client compares with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand {
    /// `null`, in any case.
    Null,
    /// Anything else: its key, and itself for answers that repeat it.
    Value(Key, Value),
}

/// Reads a value by the kind of the field, which is [`FieldKind::Any`] for fields that are not declared.
///
/// # Errors
/// What was expected instead.
pub(crate) fn read(kind: FieldKind, text: &str) -> Result<Operand, &'static str> {
    if text.eq_ignore_ascii_case("null") {
        return Ok(Operand::Null);
    }
    read_value(kind, text)
}

/// The same for what is not `null`, whatever it spells.
fn read_value(kind: FieldKind, text: &str) -> Result<Operand, &'static str> {
    let scalar = json::parse(text.as_bytes()).ok();
    let value = match (kind, scalar) {
        (FieldKind::Text, _) => Value::from(text),
        (FieldKind::Integer | FieldKind::Decimal, Some(Value::Number(number))) => Value::Number(number),
        (FieldKind::Integer | FieldKind::Decimal, _) => return Err("a number or null"),
        (FieldKind::Boolean, Some(Value::Bool(flag))) => Value::Bool(flag),
        (FieldKind::Boolean, _) => return Err("true, false or null"),
        (FieldKind::Timestamp, _) => {
            let key = instant(text).map_err(|_| "a date, a date with time and offset (RFC 3339), or null")?;
            return Ok(Operand::Value(key, Value::from(text)));
        }
        (FieldKind::Object | FieldKind::Array | FieldKind::Any, Some(value))
            if !value.is_object() && !value.is_array() =>
        {
            value
        }
        (FieldKind::Object | FieldKind::Array | FieldKind::Any, _) => Value::from(text),
    };
    Ok(Operand::Value(Key::of(kind, Some(&value)), value))
}

/// The key of a point in time, as clients write one.
///
/// # Errors
/// What was expected instead.
pub(crate) fn instant(text: &str) -> Result<Key, &'static str> {
    const EXPECTED: &str = "a date or a date with time and offset (RFC 3339)";
    // A date alone is told by its length, because the parser of dates also takes what follows them.
    let instant = if text.len() == "2026-01-31".len() {
        text.parse().ok().map(Instant::of_day)
    } else {
        // A plus sign that is not escaped arrives as a space.
        let with_plus = text.rsplit_once(' ').map(|(time, offset)| format!("{time}+{offset}"));
        [Some(text), with_plus.as_deref()].into_iter().flatten().find_map(read_time)
    };
    let mut key = Vec::new();
    order::write_instant(instant.ok_or(EXPECTED)?, &mut key);
    Ok(Key::from_canonical(&key))
}

/// A time as it may be stored, or one that leaves out what is nothing.
fn read_time(text: &str) -> Option<Instant> {
    timestamp::instant(text).or_else(|| text.parse::<jiff::Timestamp>().ok().map(Instant::from))
}

/// One value of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    /// As it is written.
    Plain(String),
    /// What is between quotes.
    Quoted(String),
}

impl Item {
    /// Reads it by the kind of the field; what is in quotes is a text wherever a text may be.
    ///
    /// # Errors
    /// As [`read`].
    pub(crate) fn read(&self, kind: FieldKind) -> Result<Operand, &'static str> {
        match (self, kind) {
            (Self::Quoted(text), FieldKind::Text | FieldKind::Object | FieldKind::Array | FieldKind::Any) => {
                let value = Value::from(text.as_str());
                Ok(Operand::Value(Key::of(kind, Some(&value)), value))
            }
            (Self::Quoted(text), _) => read_value(kind, text),
            (Self::Plain(text), _) => read(kind, text),
        }
    }

    /// Its text.
    pub(crate) fn text(&self) -> &str {
        let (Self::Plain(text) | Self::Quoted(text)) = self;
        text
    }
}

/// Takes a comma list apart. An item in double quotes is read as a JSON text, so that it can have commas.
///
/// # Errors
/// What was expected instead.
pub(crate) fn split_list(list: &str) -> Result<Vec<Item>, &'static str> {
    let mut items = Vec::new();
    let mut rest = list;
    loop {
        let (item, following) = if rest.starts_with('"') { quoted(rest)? } else { plain(rest) };
        items.push(item);
        match following.strip_prefix(',') {
            Some(following) => rest = following,
            None if following.is_empty() => return Ok(items),
            None => return Err("a comma after a value in quotes"),
        }
    }
}

/// The texts of a comma list, in which one in double quotes may have commas. Others are trimmed, and empty ones left out.
///
/// # Errors
/// What was expected instead.
pub fn texts_of_list(list: &str) -> Result<Vec<String>, &'static str> {
    let items = split_list(list)?.into_iter().map(|item| match item {
        Item::Plain(text) => text.trim().to_owned(),
        Item::Quoted(text) => text,
    });
    Ok(items.filter(|text| !text.is_empty()).collect())
}

fn plain(text: &str) -> (Item, &str) {
    let (item, following) = text.split_at(text.find(',').unwrap_or(text.len()));
    (Item::Plain(item.to_owned()), following)
}

fn quoted(text: &str) -> Result<(Item, &str), &'static str> {
    let mut is_escaped = false;
    let end = text.char_indices().skip(1).find_map(|(at, character)| {
        let ends = character == '"' && !is_escaped;
        is_escaped = character == '\\' && !is_escaped;
        ends.then_some(at + 1)
    });
    let (item, following) = text.split_at(end.ok_or("a quote at the end of a value that starts with one")?);
    match json::parse(item.as_bytes()) {
        Ok(Value::String(item)) => Ok((Item::Quoted(item), following)),
        _ => Err("a JSON text between quotes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(kind: FieldKind, text: &str) -> String {
        match read(kind, text) {
            Ok(Operand::Null) => "null".to_owned(),
            Ok(Operand::Value(key, value)) => format!("{value} {}", key.as_bytes()[0]),
            Err(expected) => format!("expected {expected}"),
        }
    }

    #[test]
    fn values_are_read_by_the_kind_of_the_field() {
        assert_eq!(shown(FieldKind::Text, "5"), "\"5\" 80");
        assert_eq!(shown(FieldKind::Text, "NuLL"), "null");
        assert_eq!(shown(FieldKind::Text, "\"a\""), "\"\\\"a\\\"\" 80");
        assert_eq!(shown(FieldKind::Integer, "5.50"), "5.50 64");
        assert_eq!(shown(FieldKind::Decimal, "abc"), "expected a number or null");
        assert_eq!(shown(FieldKind::Decimal, ""), "expected a number or null");
        assert_eq!(shown(FieldKind::Boolean, "true"), "true 48");
        assert_eq!(shown(FieldKind::Boolean, "yes"), "expected true, false or null");
        assert_eq!(shown(FieldKind::Any, "5"), "5 64");
        assert_eq!(shown(FieldKind::Any, "\"5\""), "\"5\" 80");
        assert_eq!(shown(FieldKind::Any, "true"), "true 48");
        assert_eq!(shown(FieldKind::Any, "{\"a\":1}"), "\"{\\\"a\\\":1}\" 80");
        assert_eq!(shown(FieldKind::Any, "PENDING"), "\"PENDING\" 80");
        assert_eq!(shown(FieldKind::Any, ""), "\"\" 80");
    }

    #[test]
    fn points_in_time_are_equal_whatever_their_spelling() {
        let key = |text| match read(FieldKind::Timestamp, text) {
            Ok(Operand::Value(key, _)) => key,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(key("2026-01-31"), key("2026-01-31T00:00:00Z"));
        assert_eq!(key("2026-01-31T01:00:00.000+01:00"), key("2026-01-31T00:00:00Z"));
        assert_eq!(key("2026-01-31T01:00:00 01:00"), key("2026-01-31T00:00:00Z"));
        assert!(key("2026-01-31T00:00:00.001Z") > key("2026-01-31T00:00:00Z"));
        assert!(key("1969-12-31T23:59:59.9Z") < key("1970-01-01"));
        for bad in ["", "yesterday", "2026-02-30", "2026-01-31T00:00:00", "2026"] {
            assert!(read(FieldKind::Timestamp, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_are_split_at_commas_outside_quotes() {
        let split = |list| {
            split_list(list).map(|items| items.iter().map(|item| item.text().to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(split("a,b,,c").unwrap(), ["a", "b", "", "c"]);
        assert_eq!(split("").unwrap(), [""]);
        assert_eq!(split(r#""a,\"b",c"d"#).unwrap(), ["a,\"b", "c\"d"]);
        assert_eq!(split(r#""a"b"#).unwrap_err(), "a comma after a value in quotes");
        assert_eq!(split(r#"a,"b"#).unwrap_err(), "a quote at the end of a value that starts with one");
        assert_eq!(split(r#""\x""#).unwrap_err(), "a JSON text between quotes");
        assert_eq!(texts_of_list(r#" a ,,"b, c","#).unwrap(), ["a", "b, c"]);
    }

    #[test]
    fn a_value_in_quotes_is_a_text_wherever_a_text_may_be() {
        let read = |kind, list| split_list(list).unwrap()[0].read(kind).unwrap();
        assert_eq!(read(FieldKind::Any, "\"5\""), read(FieldKind::Text, "5"));
        assert_ne!(read(FieldKind::Any, "5"), read(FieldKind::Text, "5"));
        assert_ne!(read(FieldKind::Text, "\"null\""), Operand::Null);
        let of_numbers = split_list("\"null\"").unwrap()[0].read(FieldKind::Integer);
        assert_eq!(of_numbers, Err("a number or null"), "it is a text");
        assert_eq!(read(FieldKind::Integer, "\"5\""), read(FieldKind::Integer, "5"));
    }
}
