//! Reads TOML values and says what is wrong with them.

use serde_json::{Map, Number, Value};

use super::{
    lines::{Lines, line_of},
    written::{self, Table, Written},
};
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
    pub(super) fn text(&mut self, found: Option<Written>, key: &str) -> Option<String> {
        match found? {
            Written::Text(text) => Some(text),
            other => {
                self.tell(key, format!("found {}, expected a text", describe(&other)));
                None
            }
        }
    }

    /// True or false, if there is something.
    pub(super) fn flag(&mut self, found: Option<Written>, key: &str) -> Option<bool> {
        match found? {
            Written::Flag(flag) => Some(flag),
            other => {
                self.tell(key, format!("found {}, expected true or false", describe(&other)));
                None
            }
        }
    }

    /// A number, if there is something.
    pub(super) fn number(&mut self, found: Option<Written>, key: &str) -> Option<Number> {
        let read = match found? {
            Written::Number(text) => written::number(&text),
            other => Err(format!("found {}, expected a number", describe(&other))),
        };
        read.map_err(|message| self.tell(key, message)).ok()
    }

    /// A whole number from 1, if there is something.
    pub(super) fn count(&mut self, found: Option<Written>, key: &str) -> Option<u64> {
        let found = found?;
        let count = match &found {
            Written::Number(text) => text.parse().ok().filter(|&count| count > 0),
            _ => None,
        };
        if count.is_none() {
            self.tell(key, format!("found {}, expected a whole number from 1", describe(&found)));
        }
        count
    }

    /// One of a few words, if there is something.
    pub(super) fn choice<T: Copy>(
        &mut self,
        found: Option<Written>,
        key: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let found = found?;
        let chosen = choices.iter().find(|(word, _)| found.as_text() == Some(word));
        if chosen.is_none() {
            let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
            let hint =
                suggest::similar(found.as_text().unwrap_or_default(), choices.iter().map(|(word, _)| *word));
            self.tell(key, format!("found {}, expected {}{hint}", describe(&found), words.join(" or ")));
        }
        chosen.map(|(_, choice)| *choice)
    }

    /// A table, if it is one.
    pub(super) fn table(&mut self, found: Written, key: &str, holds: &str) -> Option<Table> {
        match found {
            Written::Table(table) => Some(table),
            other => {
                self.tell(key, format!("found {}, expected a table of {holds}", describe(&other)));
                None
            }
        }
    }

    /// A list of texts; one text is a list of one.
    pub(super) fn names(&mut self, found: Written, key: &str) -> Vec<String> {
        let items = match found {
            Written::List(items) => items,
            one @ Written::Text(_) => vec![one],
            other => {
                self.tell(key, format!("found {}, expected a list of field names", describe(&other)));
                return Vec::new();
            }
        };
        let mut names = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Written::Text(name) => names.push(name),
                other => {
                    self.tell(key, format!("found {} in the list, expected a field name", describe(&other)))
                }
            }
        }
        names
    }

    /// Any value as JSON: dates become texts.
    pub(super) fn json(&mut self, found: Written, key: &str) -> Option<Value> {
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

fn to_json(value: Written, depth: usize) -> Result<Value, String> {
    if depth >= DEPTH_MAX && matches!(value, Written::List(_) | Written::Table(_)) {
        return Err(format!("found level {depth}, expected at most {}", DEPTH_MAX - 1));
    }
    Ok(match value {
        Written::Text(text) => Value::String(text),
        Written::Number(text) => Value::Number(written::number(&text)?),
        Written::Flag(flag) => Value::Bool(flag),
        Written::Time(time) => Value::String(time.to_string()),
        Written::List(items) => {
            Value::Array(items.into_iter().map(|item| to_json(item, depth + 1)).collect::<Result<_, _>>()?)
        }
        Written::Table(table) => {
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
pub(super) fn describe(value: &Written) -> String {
    match value {
        Written::Text(text) => format!("the text {:?}", shorten(text)),
        Written::Number(text) => format!("the number {}", shorten(text)),
        Written::Flag(flag) => flag.to_string(),
        Written::Time(time) => format!("the time {time}"),
        Written::List(_) => "a list".to_owned(),
        Written::Table(_) => "a table".to_owned(),
    }
}
