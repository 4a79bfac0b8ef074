//! A value as it was written, before anybody knows what it should be.

use std::fmt;

/// Longest part of a wrong value that is repeated in a message, characters.
const SHOWN_CHARACTERS_MAX: usize = 60;

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Found {
    /// In a file, where texts, numbers and booleans differ.
    Typed(toml::Value),
    /// In a flag or variable, where everything is text and lists are separated by commas.
    Word(String),
    /// In a flag or variable, not UTF-8; shown with replacement characters.
    NotText(String),
}

impl Found {
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Typed(toml::Value::String(text)) | Self::Word(text) => Some(text),
            Self::Typed(_) | Self::NotText(_) => None,
        }
    }

    pub(crate) fn whole(&self) -> Option<u64> {
        match self {
            Self::Typed(toml::Value::Integer(number)) => u64::try_from(*number).ok(),
            Self::Word(text) => text.replace('_', "").parse().ok(),
            Self::Typed(_) | Self::NotText(_) => None,
        }
    }

    pub(crate) fn list(&self) -> Vec<Self> {
        match self {
            Self::Typed(toml::Value::Array(items)) => items.iter().cloned().map(Self::Typed).collect(),
            Self::Word(text) => text.split(',').map(|item| Self::Word(item.trim().to_owned())).collect(),
            Self::Typed(_) | Self::NotText(_) => vec![self.clone()],
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        use toml::Value;
        match self {
            Self::Typed(Value::String(text)) | Self::Word(text) => formatter.write_str(&shown(text)),
            Self::Typed(Value::Integer(number)) => write!(formatter, "{number}"),
            Self::Typed(Value::Float(number)) => write!(formatter, "{number:?}"),
            Self::Typed(Value::Boolean(flag)) => write!(formatter, "{flag}"),
            Self::Typed(Value::Datetime(moment)) => write!(formatter, "{moment}"),
            Self::Typed(Value::Array(_)) => formatter.write_str("a list"),
            Self::Typed(Value::Table(_)) => formatter.write_str("a table"),
            Self::NotText(lossy) => write!(formatter, "{} (not UTF-8)", shown(lossy)),
        }
    }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((end, _)) => format!("{:?}… ({} bytes)", &text[..end], text.len()),
        None => format!("{text:?}"),
    }
}
