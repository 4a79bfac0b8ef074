//! What was written in `aegis.toml`: every value under its key path, with its line; nothing is interpreted yet.
//!
//! Words of a key may be joined with `_` or `-`; module files use the latter.

use std::collections::BTreeMap;

use toml::de::DeTable;

use crate::{
    error::{ConfigError, Place},
    found::Found,
    modules::SECTION,
};

/// One value of the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Written {
    /// Key path as it was written.
    pub(crate) key: String,
    /// Line of its key, counted from 1.
    pub(crate) line: usize,
    /// The value.
    pub(crate) found: Found,
}

/// The values of the file by key path with `_`, such as `limits.body_bytes_max`. A table that is empty stands for itself,
/// and so do the settings of a module.
pub(crate) type Raw = BTreeMap<String, Written>;

/// Reads the text of a file, or says everything that makes it no TOML.
pub(crate) fn parse(text: &str) -> Result<Raw, Vec<ConfigError>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors.iter().map(|error| syntax(text, error)).collect());
    }
    // The second pass reads the values. Only one thing is refused by it alone.
    let unfit = |error: toml::de::Error| {
        let (line, column) = position(text, &error);
        let message = "a number does not fit 64 bits".to_owned();
        vec![ConfigError::Syntax { line, column, message }]
    };
    let table: toml::Table = toml::from_str(text).map_err(unfit)?;
    let mut lines = BTreeMap::new();
    collect_lines(text, "", document.get_ref(), &mut lines);
    let mut reading = Reading { lines, raw: Raw::new(), twice: Vec::new() };
    reading.flatten("", table);
    if reading.twice.is_empty() { Ok(reading.raw) } else { Err(reading.twice) }
}

/// The lines of all keys below a table, by key path as it was written.
pub(crate) fn lines_below(text: &str, section: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    if let Ok(document) = DeTable::parse(text) {
        collect_lines(text, "", document.get_ref(), &mut lines);
    }
    let prefix = join(section, "");
    lines.retain(|key, _| key.starts_with(&prefix));
    lines
}

fn syntax(text: &str, error: &toml::de::Error) -> ConfigError {
    let (line, column) = position(text, error);
    ConfigError::Syntax { line, column, message: error.message().replace('\n', ", ") }
}

fn position(text: &str, error: &toml::de::Error) -> (usize, usize) {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or(text);
    let column = before.chars().rev().take_while(|character| *character != '\n').count() + 1;
    (line_of(text, start), column)
}

fn line_of(text: &str, position: usize) -> usize {
    text.as_bytes().iter().take(position).filter(|byte| **byte == b'\n').count() + 1
}

fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

fn collect_lines(text: &str, parent: &str, table: &DeTable<'_>, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let path = join(parent, key.get_ref());
        if let Some(table) = value.get_ref().as_table() {
            collect_lines(text, &path, table, lines);
        }
        lines.insert(path, line_of(text, key.span().start));
    }
}

struct Reading {
    lines: BTreeMap<String, usize>,
    raw: Raw,
    twice: Vec<ConfigError>,
}

impl Reading {
    fn flatten(&mut self, parent: &str, table: toml::Table) {
        for (key, value) in table {
            let path = join(parent, &key);
            match value {
                toml::Value::Table(table) if path == SECTION => self.modules(table),
                toml::Value::Table(table) if !table.is_empty() => self.flatten(&path, table),
                value => self.insert(path.replace('-', "_"), path, value),
            }
        }
    }

    /// Names of modules and their settings are not ours: they are kept to the letter, and settings in one piece.
    fn modules(&mut self, modules: toml::Table) {
        for (name, value) in modules {
            let path = join(SECTION, &name);
            let toml::Value::Table(terms) = value else {
                self.insert(path.clone(), path, value);
                continue;
            };
            if terms.is_empty() {
                self.insert(path.clone(), path.clone(), toml::Value::Table(terms.clone()));
            }
            for (key, value) in terms {
                let whole = join(&path, &key);
                match value {
                    toml::Value::Table(limits) if key == "limits" && !limits.is_empty() => {
                        for (limit, value) in limits {
                            let known_as = join(&whole, &limit.replace('-', "_"));
                            self.insert(known_as, join(&whole, &limit), value);
                        }
                    }
                    value => self.insert(whole.clone(), whole, value),
                }
            }
        }
    }

    fn insert(&mut self, known_as: String, key: String, value: toml::Value) {
        let line = self.lines.get(&key).copied().unwrap_or(1);
        let written = Written { key, line, found: Found::Typed(value) };
        if let Some(first) = self.raw.insert(known_as, written.clone()) {
            self.twice.push(ConfigError::Value {
                place: Place::File { line, key: written.key },
                found: "the key a second time".to_owned(),
                expected: format!("it once: line {} has it as `{}`", first.line, first.key),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_under_their_key_path_with_their_line() {
        let raw = parse("listen = \"a\"\n\n[limits]\nbody_bytes_max = 1\nx.y = 2\n[drain]\n").unwrap();
        let lines: Vec<_> = raw.iter().map(|(key, written)| (key.as_str(), written.line)).collect();
        assert_eq!(lines, [("drain", 6), ("limits.body_bytes_max", 4), ("limits.x.y", 5), ("listen", 1)]);
    }

    #[test]
    fn every_syntax_error_is_reported_with_its_position() {
        let errors = parse("listen = \n[limits\nbody = 1\nbody = 2\n").unwrap_err();
        let text: Vec<_> = errors.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(text.join("\n"), @"
        aegis.toml:2:8: not valid TOML: unclosed table, expected `]`
        aegis.toml:1:10: not valid TOML: string values must be quoted, expected literal string
        ");
    }

    #[test]
    fn a_key_may_be_written_with_hyphens_but_not_twice() {
        let raw = parse("[limits]\nbody-bytes-max = 1\n").unwrap();
        assert_eq!(raw["limits.body_bytes_max"].key, "limits.body-bytes-max");
        let errors = parse("[limits]\nbody_bytes_max = 1\nbody-bytes-max = 2\n").unwrap_err();
        insta::assert_snapshot!(errors[0], @"aegis.toml:3: limits.body-bytes-max: found the key a second time, expected it once: line 2 has it as `limits.body_bytes_max`");
    }

    #[test]
    fn a_number_that_fits_nowhere_is_a_syntax_error() {
        let errors = parse("[limits]\nbody_bytes_max = 99999999999999999999\n").unwrap_err();
        insta::assert_snapshot!(errors[0], @"aegis.toml:2:18: not valid TOML: a number does not fit 64 bits");
    }
}
