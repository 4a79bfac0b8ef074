//! Collects what is wrong with a document, so that a client learns everything at once.

use crate::{
    json::pointer_to,
    problem::{FieldError, Problem, ProblemCode},
};

/// Mistakes told in one answer. A body can hold a mistake every few bytes; nobody reads more.
pub(super) const MISTAKES_MAX: usize = 100;

/// What is told of mistakes that are not about what the caller has named.
const BESIDE: &str = "together with what is stored it breaks a rule of the model";

/// The problem for a caller who may not see the stored document, of which the change named these properties: of mistakes
/// in what it did not name, it tells only that there are some.
#[must_use]
pub fn only_about(named: &[String], problem: Problem) -> Problem {
    if problem.code != ProblemCode::Invalid {
        return problem;
    }
    let pointers: Vec<String> = named.iter().map(|name| pointer_to(name)).collect();
    let is_named = |path: &str| {
        let leads_there = |pointer: &String| path.strip_prefix(pointer.as_str()).is_some_and(is_below);
        pointers.iter().any(leads_there)
    };
    let mut mistakes = Mistakes::default();
    let (told, beside): (Vec<_>, Vec<_>) =
        problem.errors.iter().cloned().partition(|error| is_named(&error.path));
    mistakes.told = told;
    if !beside.is_empty() {
        mistakes.add("", BESIDE.to_owned());
    }
    mistakes.into_problem().unwrap_or(problem)
}

/// Whether what is behind a pointer in a path leads into it, or is nothing.
fn is_below(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

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
        self.into_problem().map_or(Ok(()), Err)
    }

    fn into_problem(self) -> Option<Problem> {
        let first = self.told.first()?;
        let place = if first.path.is_empty() { "the document" } else { first.path.as_str() };
        let detail = match (self.told.len(), self.more) {
            (1, _) => format!("{place}: {}", first.message),
            (count, false) => format!("{count} mistakes, the first: {place}: {}", first.message),
            (count, true) => format!("more than {count} mistakes, the first: {place}: {}", first.message),
        };
        Some(Problem::new(ProblemCode::Invalid, detail).with_errors(self.told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(named: &[&str], errors: &[(&str, &str)]) -> Vec<(String, String)> {
        let error =
            |(path, message): &(&str, &str)| FieldError { path: (*path).into(), message: (*message).into() };
        let problem = Problem::new(ProblemCode::Invalid, "/b: found the text \"hush\", and more")
            .with_errors(errors.iter().map(error).collect());
        let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
        let problem = only_about(&named, problem);
        assert_eq!(problem.code, ProblemCode::Invalid);
        assert!(!format!("{problem:?}").contains("hush"), "{problem:?}");
        problem.errors.into_iter().map(|error| (error.path, error.message)).collect()
    }

    #[test]
    fn of_what_is_stored_only_that_it_breaks_a_rule_is_told() {
        let beside = (String::new(), BESIDE.to_owned());
        assert_eq!(
            told(
                &["a", "x/y"],
                &[("/b", "hush"), ("/a/0", "one"), ("/ab", "hush"), ("/x~1y", "two"), ("", "hush")]
            ),
            [("/a/0".into(), "one".into()), ("/x~1y".into(), "two".into()), beside.clone()]
        );
        assert_eq!(told(&[], &[("/b", "hush"), ("/c", "hush")]), [beside]);
        let other = Problem::new(ProblemCode::Denied, "as the code says");
        assert_eq!(only_about(&[], other.clone()), other);
    }
}
