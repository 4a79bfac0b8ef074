//! JSON Patch (RFC 6902).
//!
//! Not with the `json-patch` crate: with numbers kept as text its `test` finds `1` and `1.0` different
//! (section 4.6 wants them equal), its removals move the last property into the gap, and nothing bounds what
//! repeated copies make of a small patch. The tests hold this against it where the two must agree.

mod apply;
pub(super) mod budget;

use serde_json::{Map, Value};

pub(super) use apply::apply;

use crate::{
    json::{RESERVED_PREFIX, describe, pointer},
    problem::{FieldError, Problem, ProblemCode},
    suggest,
};

/// Operations of one patch.
pub(super) const OPERATIONS_MAX: usize = 1000;

/// Mistakes in the form of a patch that are told at once.
const MISTAKES_MAX: usize = 20;

/// One operation.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) action: Action,
    pub(super) path: Place,
}

#[derive(Debug)]
pub(super) enum Action {
    Add(Value),
    Remove,
    Replace(Value),
    Move(Place),
    Copy(Place),
    Test(Value),
}

impl Action {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "add",
            Self::Remove => "remove",
            Self::Replace(_) => "replace",
            Self::Move(_) => "move",
            Self::Copy(_) => "copy",
            Self::Test(_) => "test",
        }
    }
}

/// A place in the document: the pointer as written, and its names.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) pointer: String,
    pub(super) names: Vec<String>,
}

/// Reads a patch; says everything that is wrong with its form.
pub(super) fn read(patch: Value) -> Result<Vec<Operation>, Problem> {
    let malformed = |detail: String| Problem::new(ProblemCode::MalformedJson, detail);
    let Value::Array(items) = patch else {
        let found = describe(&patch);
        return Err(malformed(format!(
            "found {found}, expected a JSON patch: an array of operations (RFC 6902)"
        )));
    };
    if items.len() > OPERATIONS_MAX {
        return Err(malformed(format!(
            "found {} operations, expected at most {OPERATIONS_MAX}",
            items.len()
        )));
    }
    let mut errors = Vec::new();
    let mut operations = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let mut report = |member: &str, message: String| {
            errors.push(FieldError { path: format!("/{index}{member}"), message });
        };
        operations.extend(read_operation(item, &mut report));
        if errors.len() >= MISTAKES_MAX {
            break;
        }
    }
    match errors.first() {
        None => Ok(operations),
        Some(first) => {
            let detail = format!("the patch is malformed at {}: {}", first.path, first.message);
            Err(malformed(detail).with_errors(errors))
        }
    }
}

fn read_operation(item: Value, report: &mut dyn FnMut(&str, String)) -> Option<Operation> {
    const NAMES: [&str; 6] = ["add", "remove", "replace", "move", "copy", "test"];
    let mut members = match item {
        Value::Object(members) => members,
        other => {
            report("", format!("found {}, expected an operation: an object", describe(&other)));
            return None;
        }
    };
    let path = read_place(&mut members, "path", report);
    let action = match members.get("op") {
        Some(Value::String(name)) => match name.as_str() {
            "add" => read_value(&mut members, report).map(Action::Add),
            "remove" => Some(Action::Remove),
            "replace" => read_value(&mut members, report).map(Action::Replace),
            "move" => read_place(&mut members, "from", report).map(Action::Move),
            "copy" => read_place(&mut members, "from", report).map(Action::Copy),
            "test" => read_value(&mut members, report).map(Action::Test),
            _ => {
                let found = describe(&Value::from(name.as_str()));
                let hint = suggest::similar(name, NAMES.into_iter());
                report("/op", format!("found {found}, expected one of {}{hint}", NAMES.join(", ")));
                None
            }
        },
        other => {
            let found = other.map_or_else(|| "nothing".to_owned(), describe);
            report("/op", format!("found {found}, expected one of {}", NAMES.join(", ")));
            None
        }
    };
    Some(Operation { action: action?, path: path? })
}

fn read_value(members: &mut Map<String, Value>, report: &mut dyn FnMut(&str, String)) -> Option<Value> {
    let value = members.get_mut("value").map(Value::take);
    if value.is_none() {
        report("/value", "found nothing, expected a value".to_owned());
    }
    value
}

fn read_place(
    members: &mut Map<String, Value>,
    member: &str,
    report: &mut dyn FnMut(&str, String),
) -> Option<Place> {
    let place = format!("/{member}");
    let pointer = match members.get_mut(member).map(Value::take) {
        Some(Value::String(text)) => text,
        other => {
            let found = other.as_ref().map_or_else(|| "nothing".to_owned(), describe);
            report(&place, format!("found {found}, expected a JSON pointer (RFC 6901)"));
            return None;
        }
    };
    match pointer::tokens(&pointer) {
        Ok(names) if names.iter().any(|name| name.starts_with(RESERVED_PREFIX)) => {
            let found = describe(&Value::from(pointer));
            report(&place, format!("found {found} with a reserved property name, expected another"));
            None
        }
        Ok(names) => {
            let names = names.into_iter().map(std::borrow::Cow::into_owned).collect();
            Some(Place { pointer, names })
        }
        Err(reason) => {
            let found = describe(&Value::from(pointer));
            report(&place, format!("found {found}, which is no JSON pointer: it {reason}"));
            None
        }
    }
}

#[cfg(test)]
mod tests;
