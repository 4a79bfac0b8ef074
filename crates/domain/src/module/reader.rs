//! Reads TOML values and says what is wrong with them.

use serde_json::{Map, Number, Value};

use super::lines::{Lines, line_of};
use crate::{
    json::{DEPTH_MAX, RESERVED_PREFIX, shorten},
    suggest,
};

/// Mistakes told about one file.
const MISTAKES_MAX: usize = 100;

/// Collects mistakes.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    /// Key path and message.
    told: Vec<(String, String)>,
}

impl Mistakes {
    /// Notes that something is wrong at a key path.
    pub(super) fn tell(&mut self, key: &str, message: impl Into<String>) {
        let mistake = (key.to_owned(), message.into());
        if self.told.len() < MISTAKES_MAX && !self.told.contains(&mistake) {
            self.told.push(mistake);
        }
    }

    /// All mistakes with their lines, from top to bottom; before them, what is nowhere in the file.
    pub(super) fn finish(self, text: &str, origin: &str) -> Vec<String> {
        if self.told.is_empty() {
            return Vec::new();
        }
        let lines = Lines::of(text);
        let mut told: Vec<_> =
            self.told.into_iter().map(|(key, told)| (lines.find(&key), key, told)).collect();
        told.sort_by_key(|(line, ..)| *line);
        let place = |line: Option<usize>| line.map(|line| format!(":{line}")).unwrap_or_default();
        told.into_iter().map(|(line, key, told)| format!("{origin}{}: {key}: {told}", place(line))).collect()
    }

    /// A text, if there is something.
    pub(super) fn text(&mut self, found: Option<toml::Value>, key: &str) -> Option<String> {
        match found? {
            toml::Value::String(text) => Some(text),
            other => {
                self.tell(key, format!("found {}, expected a text", describe(&other)));
                None
            }
        }
    }

    /// True or false, if there is something.
    pub(super) fn flag(&mut self, found: Option<toml::Value>, key: &str) -> Option<bool> {
        match found? {
            toml::Value::Boolean(flag) => Some(flag),
            other => {
                self.tell(key, format!("found {}, expected true or false", describe(&other)));
                None
            }
        }
    }

    /// A number, if there is something.
    pub(super) fn number(&mut self, found: Option<toml::Value>, key: &str) -> Option<f64> {
        match found? {
            // Bounds are floats; a whole number that is not exactly one would be another bound than was
            // written.
            toml::Value::Integer(number) if (number as f64) as i64 == number => Some(number as f64),
            toml::Value::Integer(number) => {
                self.tell(key, format!("found the number {number}, expected one of at most 53 bits"));
                None
            }
            toml::Value::Float(number) if number.is_finite() => Some(number),
            other => {
                self.tell(key, format!("found {}, expected a number", describe(&other)));
                None
            }
        }
    }

    /// A whole number from 1, if there is something.
    pub(super) fn count(&mut self, found: Option<toml::Value>, key: &str) -> Option<u64> {
        let found = found?;
        let count = found.as_integer().and_then(|count| u64::try_from(count).ok()).filter(|&count| count > 0);
        if count.is_none() {
            self.tell(key, format!("found {}, expected a whole number from 1", describe(&found)));
        }
        count
    }

    /// One of a few words, if there is something.
    pub(super) fn choice<T: Copy>(
        &mut self,
        found: Option<toml::Value>,
        key: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let found = found?;
        let chosen = choices.iter().find(|(word, _)| found.as_str() == Some(word));
        if chosen.is_none() {
            let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
            let hint =
                suggest::similar(found.as_str().unwrap_or_default(), choices.iter().map(|(word, _)| *word));
            self.tell(key, format!("found {}, expected {}{hint}", describe(&found), words.join(" or ")));
        }
        chosen.map(|(_, choice)| *choice)
    }

    /// A table, if it is one.
    pub(super) fn table(&mut self, found: toml::Value, key: &str, holds: &str) -> Option<toml::Table> {
        match found {
            toml::Value::Table(table) => Some(table),
            other => {
                self.tell(key, format!("found {}, expected a table of {holds}", describe(&other)));
                None
            }
        }
    }

    /// A list of texts; one text is a list of one.
    pub(super) fn names(&mut self, found: toml::Value, key: &str) -> Vec<String> {
        let items = match found {
            toml::Value::Array(items) => items,
            one @ toml::Value::String(_) => vec![one],
            other => {
                self.tell(key, format!("found {}, expected a list of field names", describe(&other)));
                return Vec::new();
            }
        };
        let mut names = Vec::with_capacity(items.len());
        for item in items {
            match item {
                toml::Value::String(name) => names.push(name),
                other => {
                    self.tell(key, format!("found {} in the list, expected a field name", describe(&other)))
                }
            }
        }
        names
    }

    /// Any value as JSON: dates become texts.
    pub(super) fn json(&mut self, found: toml::Value, key: &str) -> Option<Value> {
        // One level is taken by the document that the value may become part of.
        match to_json(found, 1) {
            Ok(value) => Some(value),
            Err(message) => {
                self.tell(key, message);
                None
            }
        }
    }
}

/// What makes a file no TOML, with its place.
pub(super) fn syntax(text: &str, origin: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or(text);
    let column = 1 + before.chars().rev().take_while(|character| *character != '\n').count();
    let message = error.message().replace('\n', ", ");
    format!("{origin}:{}:{column}: not valid TOML: {message}", line_of(text, start))
}

fn to_json(value: toml::Value, depth: usize) -> Result<Value, String> {
    if depth >= DEPTH_MAX && matches!(value, toml::Value::Array(_) | toml::Value::Table(_)) {
        return Err(format!("found level {depth}, expected at most {}", DEPTH_MAX - 1));
    }
    Ok(match value {
        toml::Value::String(text) => Value::String(text),
        toml::Value::Integer(number) => Value::from(number),
        toml::Value::Float(number) => {
            let found = Number::from_f64(number);
            Value::Number(found.ok_or_else(|| format!("found {number}, expected a finite number"))?)
        }
        toml::Value::Boolean(flag) => Value::Bool(flag),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(items) => {
            Value::Array(items.into_iter().map(|item| to_json(item, depth + 1)).collect::<Result<_, _>>()?)
        }
        toml::Value::Table(table) => {
            let mut members = Map::new();
            for (name, value) in table {
                if name.starts_with(RESERVED_PREFIX) {
                    return Err(format!("found the reserved name {:?}, expected another", shorten(&name)));
                }
                members.insert(name, to_json(value, depth + 1)?);
            }
            Value::Object(members)
        }
    })
}

/// Names a value in a message.
pub(super) fn describe(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => format!("the text {:?}", shorten(text)),
        toml::Value::Integer(number) => format!("the number {number}"),
        toml::Value::Float(number) => format!("the number {number}"),
        toml::Value::Boolean(flag) => flag.to_string(),
        toml::Value::Datetime(time) => format!("the time {time}"),
        toml::Value::Array(_) => "a list".to_owned(),
        toml::Value::Table(_) => "a table".to_owned(),
    }
}
