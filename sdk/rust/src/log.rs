//! Lines in the host's log: `log::info("computed", &[("n", &n)])`.

use std::fmt::Display;

pub use crate::bindings::aegis::module::log::Level;
use crate::bindings::aegis::module::log::{enabled, write};

type Values<'a> = &'a [(&'a str, &'a dyn Display)];

fn line(level: Level, message: &str, values: Values<'_>) {
    let values: Vec<_> = values.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect();
    write(level, message, &values);
}

/// Whether lines of this level go to the log.
#[must_use]
pub fn is_enabled(level: Level) -> bool {
    enabled(level)
}

/// For who looks for a defect step by step.
pub fn trace(message: &str, values: Values<'_>) {
    line(Level::Trace, message, values);
}

/// For who looks for a defect.
pub fn debug(message: &str, values: Values<'_>) {
    line(Level::Debug, message, values);
}

/// What an operator may want to know.
pub fn info(message: &str, values: Values<'_>) {
    line(Level::Info, message, values);
}

/// What an operator should know.
pub fn warn(message: &str, values: Values<'_>) {
    line(Level::Warn, message, values);
}

/// What an operator has to do something about.
pub fn error(message: &str, values: Values<'_>) {
    line(Level::Error, message, values);
}
