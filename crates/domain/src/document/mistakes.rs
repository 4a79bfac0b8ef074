//! Collects what is wrong with a document, so that a client learns everything at once.

use crate::problem::{FieldError, Problem, ProblemCode};

/// Mistakes told in one answer. A body can hold a mistake every few bytes; nobody reads more.
pub(super) const MISTAKES_MAX: usize = 100;

#[derive(Debug, Default)]
pub(super) struct Mistakes {
    told: Vec<FieldError>,
    more: bool,
}

impl Mistakes {
    pub(super) fn add(&mut self, path: &str, message: String) {
        if self.told.len() < MISTAKES_MAX {
            self.told.push(FieldError { path: path.to_owned(), message });
        } else {
            self.more = true;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// How many can still be told.
    pub(super) fn room(&self) -> usize {
        MISTAKES_MAX - self.told.len()
    }

    /// Nothing, or the problem that holds all mistakes.
    pub(super) fn finish(self) -> Result<(), Problem> {
        let Some(first) = self.told.first() else { return Ok(()) };
        let place = if first.path.is_empty() { "the document" } else { first.path.as_str() };
        let detail = match (self.told.len(), self.more) {
            (1, _) => format!("{place}: {}", first.message),
            (count, false) => format!("{count} mistakes, the first: {place}: {}", first.message),
            (count, true) => format!("more than {count} mistakes, the first: {place}: {}", first.message),
        };
        Err(Problem::new(ProblemCode::Invalid, detail).with_errors(self.told))
    }
}
