//! A `module.toml` as it was written: the values of TOML, but numbers by their text, so that none becomes another one.

use indexmap::IndexMap;
use serde_json::{Number, Value};
use toml::{
    Spanned,
    de::{DeInteger, DeTable, DeValue},
    value::Datetime,
};

use crate::json::{self, NUMBER_BYTES_MAX, shorten};

/// Keys with their values, in the order in which they were written.
pub(super) type Table = IndexMap<String, Written>;

/// One value.
#[derive(Debug)]
pub(super) enum Written {
    Text(String),
    /// As JSON spells it, but for what is no number there (`inf`, `nan`).
    Number(String),
    Flag(bool),
    Time(Datetime),
    List(Vec<Written>),
    Table(Table),
}

impl Written {
    /// The text, if it is one.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Number(_) | Self::Flag(_) | Self::Time(_) | Self::List(_) | Self::Table(_) => None,
        }
    }

    fn of(value: DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.into_owned()),
            DeValue::Integer(number) => Self::Number(whole(&number)),
            DeValue::Float(number) => Self::Number(unsigned_if_positive(number.as_str())),
            DeValue::Boolean(flag) => Self::Flag(flag),
            DeValue::Datetime(time) => Self::Time(time),
            DeValue::Array(items) => {
                Self::List(items.into_iter().map(|item| Self::of(item.into_inner())).collect())
            }
            DeValue::Table(table) => Self::Table(table_of(table)),
        }
    }
}

/// Reads a file.
///
/// # Errors
/// What makes it no TOML.
pub(super) fn read(text: &str) -> Result<Table, toml::de::Error> {
    DeTable::parse(text).map(Spanned::into_inner).map(table_of)
}

fn table_of(table: DeTable<'_>) -> Table {
    let entry = |(key, value): (Spanned<_>, Spanned<_>)| {
        let key: std::borrow::Cow<'_, str> = key.into_inner();
        (key.into_owned(), Written::of(value.into_inner()))
    };
    table.into_iter().map(entry).collect()
}

/// JSON knows no hexadecimal numbers; those that are too large to be translated stay what they are.
fn whole(number: &DeInteger<'_>) -> String {
    match i128::from_str_radix(number.as_str(), number.radix()) {
        Ok(translated) if number.radix() != 10 => translated.to_string(),
        _ => unsigned_if_positive(&number.to_string()),
    }
}

fn unsigned_if_positive(text: &str) -> String {
    text.strip_prefix('+').unwrap_or(text).to_owned()
}

/// The number that a text is, exactly.
pub(super) fn number(text: &str) -> Result<Number, String> {
    if text.len() > NUMBER_BYTES_MAX {
        let length = text.len();
        return Err(format!("found a number of {length} characters, expected at most {NUMBER_BYTES_MAX}"));
    }
    match json::parse(text.as_bytes()) {
        Ok(Value::Number(number)) => Ok(number),
        _ => Err(format!("found the number {}, expected a finite one", shorten(text))),
    }
}
