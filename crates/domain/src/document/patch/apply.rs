//! Applies the operations in order to a copy; the first that fails ends it.

use serde_json::Value;

use super::{Action, Operation, Place, budget::Budget};
use crate::{
    json::{describe, pointer, same},
    problem::{FieldError, Problem, ProblemCode},
};

/// Why an operation failed.
struct Failure {
    code: ProblemCode,
    message: String,
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self { code: ProblemCode::Invalid, message }
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self::from(message.to_owned())
    }
}

/// Applies all operations or none.
pub(in crate::document) fn apply(mut document: Value, operations: Vec<Operation>) -> Result<Value, Problem> {
    let mut budget = Budget::new();
    for (index, operation) in operations.into_iter().enumerate() {
        let name = operation.action.name();
        let Operation { action, path } = operation;
        if let Err(Failure { code, message }) = step(&mut document, action, &path, &mut budget) {
            let message = format!("operation {index} ({name}) {message}");
            let place = if path.pointer.is_empty() { "the document" } else { path.pointer.as_str() };
            let detail = format!("{}: {message}", crate::json::shorten(place));
            return Err(
                Problem::new(code, detail).with_errors(vec![FieldError { path: path.pointer, message }])
            );
        }
    }
    Ok(document)
}

fn step(document: &mut Value, action: Action, path: &Place, budget: &mut Budget) -> Result<(), Failure> {
    match action {
        Action::Add(value) => add(document, path, value, budget),
        Action::Remove => remove(document, path, budget).map(drop),
        Action::Replace(value) => {
            let target = pointer::find_mut(document, &path.names).ok_or("found nothing at this place")?;
            budget.place(&value, path.names.len())?;
            *target = value;
            Ok(())
        }
        Action::Move(from) => move_value(document, &from, path, budget),
        Action::Copy(from) => {
            let value = find_from(document, &from)?;
            // Before the copy is made, since it may be what is too large.
            budget.place(value, path.names.len())?;
            let value = value.clone();
            insert(document, path, value, budget)
        }
        Action::Test(expected) => {
            let found = pointer::find(document, &path.names);
            if found.is_some_and(|found| same(found, &expected)) {
                return Ok(());
            }
            let found = found.map_or_else(|| "nothing".to_owned(), describe);
            let message = format!("found {found}, expected {}", describe(&expected));
            Err(Failure { code: ProblemCode::PatchTestFailed, message })
        }
    }
}

fn find_from<'a>(document: &'a Value, from: &Place) -> Result<&'a Value, Failure> {
    pointer::find(document, &from.names).ok_or_else(|| {
        let from = crate::json::shorten(&from.pointer);
        format!("found nothing at {from:?}, where the value should come from").into()
    })
}

fn move_value(document: &mut Value, from: &Place, path: &Place, budget: &mut Budget) -> Result<(), Failure> {
    let inside = path.names.len() > from.names.len() && path.names.starts_with(&from.names);
    if inside {
        return Err("would move a value into itself".into());
    }
    let value = find_from(document, from)?;
    if from.names == path.names {
        return Ok(());
    }
    budget.place(value, path.names.len())?;
    let value = remove(document, from, budget)?;
    insert(document, path, value, budget)
}

fn add(document: &mut Value, path: &Place, value: Value, budget: &mut Budget) -> Result<(), Failure> {
    budget.place(&value, path.names.len())?;
    insert(document, path, value, budget)
}

fn insert(document: &mut Value, path: &Place, value: Value, budget: &mut Budget) -> Result<(), Failure> {
    let Some((last, parents)) = path.names.split_last() else {
        *document = value;
        return Ok(());
    };
    match pointer::find_mut(document, parents) {
        Some(Value::Object(members)) => {
            members.insert(last.clone(), value);
            Ok(())
        }
        Some(Value::Array(items)) => {
            let length = items.len();
            let index = if last == "-" { Some(length) } else { pointer::index(last, length + 1) };
            let index =
                index.ok_or_else(|| format!("found {length} items, expected an index up to that or '-'"))?;
            budget.push_aside(length - index)?;
            items.insert(index, value);
            Ok(())
        }
        Some(_) => Err("found a plain value around this place, expected an object or array".into()),
        None => Err("found nothing around this place, expected an object or array".into()),
    }
}

fn remove(document: &mut Value, path: &Place, budget: &mut Budget) -> Result<Value, Failure> {
    let nothing = || Failure::from("found nothing at this place");
    let Some((last, parents)) = path.names.split_last() else {
        return Err("would remove the whole document".into());
    };
    match pointer::find_mut(document, parents) {
        Some(Value::Object(members)) => {
            budget.push_aside(members.len())?;
            members.shift_remove(last).ok_or_else(nothing)
        }
        Some(Value::Array(items)) => {
            let index = pointer::index(last, items.len()).ok_or_else(nothing)?;
            budget.push_aside(items.len() - index)?;
            Ok(items.remove(index))
        }
        _ => Err(nothing()),
    }
}
