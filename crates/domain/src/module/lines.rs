//! Where in a `module.toml` its keys stand.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::mixins::MIXINS;
use crate::catalog::key_path;

/// The positions of all keys of a file.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    /// Where each key path begins, bytes. An item of a list goes by its number, or by itself if it is a text.
    starts: BTreeMap<String, usize>,
}

impl<'a> Lines<'a> {
    /// Reads a file that is known to be TOML.
    pub(super) fn of(text: &'a str) -> Self {
        let mut lines = Self { text, starts: BTreeMap::new() };
        if let Ok(document) = DeTable::parse(text) {
            lines.collect("", document.get_ref());
        }
        lines
    }

    fn collect(&mut self, parent: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            self.insert(join(parent, &key_path(&[key.get_ref()])), key.span().start, value.get_ref());
        }
    }

    fn insert(&mut self, path: String, start: usize, value: &DeValue<'_>) {
        match value {
            DeValue::Table(table) => self.collect(&path, table),
            DeValue::Array(items) => {
                for (number, item) in items.iter().enumerate() {
                    let text = item.get_ref().as_str();
                    let name = text.map_or_else(|| number.to_string(), |text| key_path(&[text]));
                    self.insert(join(&path, &name), item.span().start, item.get_ref());
                }
            }
            _ => {}
        }
        self.starts.entry(path).or_insert(start);
    }

    /// The line of a key path, counted from 1. What is missing is told where it should be: at the table around it.
    pub(super) fn find(&self, key: &str) -> Option<usize> {
        let mut key = key;
        loop {
            let start =
                self.starts.get(key).or_else(|| mixins(key).find_map(|mixin| self.starts.get(&mixin)));
            if let Some(start) = start {
                return Some(line_of(self.text, *start));
            }
            // A field that is not in `[fields]` has nothing to do with where that begins.
            key = key.rsplit_once('.').map(|(around, _)| around).filter(|around| *around != "fields")?;
        }
    }
}

/// The places in `[mixins]` that can say what a key in `[fields]` says.
fn mixins(key: &str) -> impl Iterator<Item = String> {
    let field = key.strip_prefix("fields.");
    let rule = field.and_then(|field| field.rsplit_once('.')).map(|(field, rule)| match rule {
        "required" => format!("mixins.require.{field}"),
        "frozen" => format!("mixins.freeze.{field}"),
        "min" | "max" => format!("mixins.range.{field}.{rule}"),
        _ => format!("mixins.{rule}.{field}"),
    });
    let whole = field.map(|field| MIXINS.map(|mixin| format!("mixins.{mixin}.{field}")));
    rule.into_iter().chain(whole.into_iter().flatten())
}

fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

/// The line of a position, counted from 1.
pub(super) fn line_of(text: &str, position: usize) -> usize {
    1 + text.as_bytes().iter().take(position).filter(|byte| **byte == b'\n').count()
}
