//! Collects what is wrong with a document, so that a client learns everything at once.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::HOST_FIELDS;
use crate::{
    json::pointer_to,
    problem::{FieldError, Problem, ProblemCode},
};

/// Mistakes told in one answer. A body can hold a mistake every few bytes; nobody reads more.
pub(super) const MISTAKES_MAX: usize = 100;

/// What is told of mistakes that are not about what the caller has named.
const BESIDE: &str = "together with what is stored it breaks a rule of the model";

/// What is told of a field that the host keeps: not what it is.
const KEPT: &str = "the host keeps this field";

/// What a change says itself of the document that comes of it, for a caller who may not see the stored one.
#[derive(Debug)]
pub struct Said {
    /// JSON Pointers to values that are whole in the change.
    pointers: HashSet<String>,
    /// Whether the change has all properties that there will be.
    is_all: bool,
}

impl Said {
    /// By a merge patch (RFC 7396): its values, but not the objects around them, in which there may be others.
    #[must_use]
    pub fn by_patch(patch: &Map<String, Value>) -> Self {
        let mut pointers = HashSet::new();
        note_values(patch, "", &mut pointers);
        Self { pointers, is_all: false }
    }

    /// By a document in place of the stored one.
    #[must_use]
    pub fn by_replacement(document: &Map<String, Value>) -> Self {
        Self { pointers: document.keys().map(|name| pointer_to(name)).collect(), is_all: true }
    }

    fn has(&self, path: &str) -> bool {
        if path.is_empty() {
            return self.is_all;
        }
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
        ends.into_iter().any(|end| self.pointers.contains(&path[..end]))
    }
}

fn note_values(patch: &Map<String, Value>, above: &str, pointers: &mut HashSet<String>) {
    for (name, value) in patch {
        let pointer = format!("{above}{}", pointer_to(name));
        match value {
            Value::Object(members) if !members.is_empty() => note_values(members, &pointer, pointers),
            Value::Object(_) => {}
            _ => drop(pointers.insert(pointer)),
        }
    }
}

/// The problem for a caller who may not see the stored document: of mistakes in what the change does not say, it tells only
/// that there are some.
#[must_use]
pub fn only_about(said: &Said, problem: Problem) -> Problem {
    if problem.code != ProblemCode::Invalid {
        return problem;
    }
    let is_kept = |path: &str| HOST_FIELDS.iter().any(|name| path == pointer_to(name));
    let mut mistakes = Mistakes::default();
    let mut is_beside = false;
    for FieldError { path, message } in &problem.errors {
        match said.has(path) {
            true if is_kept(path) => mistakes.add(path, KEPT.to_owned()),
            true => mistakes.add(path, message.clone()),
            false => is_beside = true,
        }
    }
    if is_beside {
        // The last one at most has to go for it.
        mistakes.told.truncate(MISTAKES_MAX - 1);
        mistakes.add("", BESIDE.to_owned());
    }
    mistakes.into_problem().unwrap_or(problem)
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
    use serde_json::json;

    use super::*;

    fn told(said: &Said, errors: &[(&str, &str)]) -> Vec<(String, String)> {
        let error =
            |(path, message): &(&str, &str)| FieldError { path: (*path).into(), message: (*message).into() };
        let problem = Problem::new(ProblemCode::Invalid, "/b: found the text \"hush\", and more")
            .with_errors(errors.iter().map(error).collect());
        let problem = only_about(said, problem);
        assert_eq!(problem.code, ProblemCode::Invalid);
        assert!(!format!("{problem:?}").contains("hush"), "{problem:?}");
        problem.errors.into_iter().map(|error| (error.path, error.message)).collect()
    }

    #[test]
    fn of_what_is_stored_only_that_it_breaks_a_rule_is_told() {
        let beside = (String::new(), BESIDE.to_owned());
        let patch = said(Said::by_patch, &json!({"a": [1], "x/y": null, "c": {"d": {"e": 1}, "f": {}}}));
        let errors = [
            ("/b", "hush"),
            ("/a/0", "one"),
            ("/ab", "hush"),
            ("/x~1y", "two"),
            ("/c/d/e", "three"),
            ("/c/d", "hush"),
            ("/c/f", "hush"),
            ("/c/g", "hush"),
            ("", "hush"),
        ];
        let own = [("/a/0", "one"), ("/x~1y", "two"), ("/c/d/e", "three")];
        let own = own.map(|(path, message)| (path.to_owned(), message.to_owned()));
        assert_eq!(told(&patch, &errors), [own.as_slice(), std::slice::from_ref(&beside)].concat());
        let nothing = said(Said::by_patch, &json!({}));
        assert_eq!(told(&nothing, &[("/b", "hush"), ("/c", "hush")]), [beside]);
        let other = Problem::new(ProblemCode::Denied, "as the code says");
        assert_eq!(only_about(&nothing, other.clone()), other);
    }

    #[test]
    fn of_what_the_host_keeps_only_that_it_does_is_told() {
        let patch = said(Said::by_patch, &json!({"revision": 7, "updateTime": "x"}));
        let kept = |path: &str| (path.to_owned(), KEPT.to_owned());
        let errors = [("/revision", "hush"), ("/updateTime", "hush")];
        assert_eq!(told(&patch, &errors), [kept("/revision"), kept("/updateTime")]);
        let document = said(Said::by_replacement, &json!({"revision": 7, "a": {"b": 1}}));
        let errors = [("/revision", "hush"), ("/a/c", "unexpected"), ("", "too few"), ("/frozen", "hush")];
        let beside = (String::new(), BESIDE.to_owned());
        let own = ["/a/c", ""].iter().zip(["unexpected", "too few"]);
        let own: Vec<_> = own.map(|(path, message)| ((*path).to_owned(), message.to_owned())).collect();
        assert_eq!(told(&document, &errors), [&[kept("/revision")], own.as_slice(), &[beside]].concat());
    }

    fn said(how: impl Fn(&Map<String, Value>) -> Said, change: &Value) -> Said {
        how(change.as_object().unwrap())
    }
}
