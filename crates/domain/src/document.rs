//! The life of a document: created, replaced, merged, patched. Pure functions from the old version and the
//! client's input to the new version, or to everything that is wrong with it.
//!
//! A stored document is the exact JSON that a GET answers: the model's own properties in the client's order,
//! then the five [`HOST_FIELDS`]. Numbers stay as they were written.

mod body;
mod host;
mod merge;
mod mistakes;
mod patch;
mod unique;
mod validate;
mod wanted;

use bytes::Bytes;
use serde_json::{Map, Value};

pub use mistakes::{Said, only_about};
pub use patch::budget::memory_bytes;
pub use unique::unique_values;
pub use wanted::{Form, times, wanted};

use self::{host::Stored, mistakes::Mistakes};
use crate::{
    catalog::Model,
    json::describe,
    problem::{Problem, ProblemCode},
    timestamp,
};

/// What the host adds to every document. Clients may send these back as they read them, but not change them.
pub const HOST_FIELDS: [&str; 5] = ["id", "modelName", "createTime", "updateTime", "revision"];

/// Bytes of one stored document: patches could make it grow beyond any request.
pub const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Highest revision of a document that is kept: each JSON reader takes it exactly, and nobody changes one so often.
const REVISION_MAX: u64 = (1 << 53) - 1;

/// Bytes of an id.
pub const ID_BYTES_MAX: usize = 256;

/// When a document is made and what it is called if nobody says.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// Milliseconds since 1970, UTC.
    pub now_ms: u64,
    /// Id for a document that brings none.
    pub fresh_id: String,
}

/// A version of a document, ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// Its id.
    pub id: String,
    /// Its revision.
    pub revision: u64,
    /// The exact JSON that a GET answers.
    pub body: Bytes,
    /// The merge patch (RFC 7396) that leads here from the version before; `None` for a first version.
    pub changes: Option<Bytes>,
}

/// What became of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evolved {
    /// There is a new version.
    Changed(Draft),
    /// The update says what is already so.
    Unchanged,
}

/// Makes the first version of a document.
///
/// The id is the value of the model's `id-field`, else the `id` of the input, else the stamp's.
///
/// # Errors
/// [`ProblemCode::Invalid`] with every mistake at once.
pub fn create(model: &Model, input: Value, stamp: &Stamp) -> Result<Draft, Problem> {
    let mut properties = object(input)?;
    let mut mistakes = Mistakes::default();
    let given_id = host::take_from_new(model, &mut properties, &mut mistakes);
    for (name, field, _) in model.fields() {
        if let Some(default) = &field.default
            && !properties.contains_key(name)
        {
            properties.insert(name.to_owned(), default.clone());
        }
    }
    let id = host::choose_id(model, &properties, given_id, stamp, &mut mistakes);
    let properties = validate::validate(model, None, properties, &mut mistakes);
    mistakes.finish()?;
    let now = timestamp::format(stamp.now_ms);
    let stored = Stored { properties, id, update_time: now.clone(), create_time: now, revision: 1 };
    draft(model, stored)
}

/// Replaces all properties of a document.
///
/// # Errors
/// [`ProblemCode::Invalid`] with every mistake at once.
pub fn replace(model: &Model, current: &[u8], input: Value, now_ms: u64) -> Result<Evolved, Problem> {
    let mut properties = object(input)?;
    let stored = Stored::read(model, current)?;
    let mut mistakes = Mistakes::default();
    stored.take_unchanged(model, &mut properties, host::Null::IsNothing, &mut mistakes);
    evolve(model, stored, properties, mistakes, now_ms)
}

/// Applies a merge patch (RFC 7396).
///
/// # Errors
/// [`ProblemCode::Invalid`] with every mistake at once.
pub fn merge(model: &Model, current: &[u8], patch: Value, now_ms: u64) -> Result<Evolved, Problem> {
    let mut patch = object(patch)?;
    let stored = Stored::read(model, current)?;
    let mut mistakes = Mistakes::default();
    stored.take_unchanged(model, &mut patch, host::Null::IsRemoval, &mut mistakes);
    let mut properties = stored.properties.clone();
    merge::merge(&mut properties, patch);
    evolve(model, stored, properties, mistakes, now_ms)
}

/// Applies a JSON patch (RFC 6902), all operations or none.
///
/// # Errors
/// [`ProblemCode::MalformedJson`] if the patch is none, [`ProblemCode::PatchTestFailed`] if a `test` does not
/// hold, [`ProblemCode::Invalid`] if an operation cannot be applied or the result has mistakes.
pub fn patch(model: &Model, current: &[u8], patch: Value, now_ms: u64) -> Result<Evolved, Problem> {
    let operations = patch::read(patch)?;
    let stored = Stored::read(model, current)?;
    let mut properties = object(patch::apply(stored.whole(model), operations)?)?;
    let mut mistakes = Mistakes::default();
    stored.take_all(model, &mut properties, &mut mistakes);
    evolve(model, stored, properties, mistakes, now_ms)
}

/// Looks whether a text can be the id of a document.
///
/// # Errors
/// Why it cannot.
pub fn check_id(id: &str) -> Result<(), String> {
    host::id_mistake(id).map_or(Ok(()), Err)
}

/// Looks whether a stored document of the model with this name is as the host writes them, so that it can show and change
/// it. Answers the id and the revision that it says it has.
///
/// # Errors
/// What is wrong with it, for whoever keeps the data.
pub fn check_stored(model: &str, body: &[u8]) -> Result<(String, u64), String> {
    if body.len() > DOCUMENT_BYTES_MAX {
        return Err(format!("it has {} bytes, expected at most {DOCUMENT_BYTES_MAX}", body.len()));
    }
    let (stored, named) = Stored::take_apart(body)?;
    check_id(&stored.id).map_err(|reason| format!("its id: {reason}"))?;
    if !(1..=REVISION_MAX).contains(&stored.revision) {
        return Err(format!("its revision is {}, expected 1 to {REVISION_MAX}", stored.revision));
    }
    if named.as_ref().and_then(Value::as_str) != Some(model) {
        let found = named.as_ref().map_or_else(|| "nothing".to_owned(), describe);
        return Err(format!("its modelName is {found}, expected {model:?}"));
    }
    for (name, time) in [("createTime", &stored.create_time), ("updateTime", &stored.update_time)] {
        // Later versions compare times as texts, so they are all of one form.
        if timestamp::milliseconds(time).is_none_or(|time_ms| timestamp::format(time_ms) != *time) {
            let found = describe(&Value::from(time.as_str()));
            return Err(format!("its {name} is {found}, expected a time as 2025-12-31T23:59:59.007Z"));
        }
    }
    Ok((stored.id, stored.revision))
}

/// The same version in the shape that the code of its model has brought it into. What the code says of the host's fields
/// is ignored, and the rules of the model are not asked: nothing is stored.
///
/// # Errors
/// [`ProblemCode::Invalid`] when it is no object, [`ProblemCode::BodyTooLarge`].
pub fn reshape(model: &Model, current: &Bytes, shape: Value) -> Result<Bytes, Problem> {
    let mut properties = object(shape)?;
    let stored = Stored::read(model, current)?;
    properties.retain(|name, _| !HOST_FIELDS.contains(&name.as_str()));
    if properties == stored.properties {
        return Ok(current.clone());
    }
    draft(model, Stored { properties, ..stored }).map(|draft| draft.body)
}

/// What all updates have in common: rules, revision, time.
fn evolve(
    model: &Model,
    stored: Stored,
    properties: Map<String, Value>,
    mut mistakes: Mistakes,
    now_ms: u64,
) -> Result<Evolved, Problem> {
    if mistakes.is_empty() && properties == stored.properties {
        return Ok(Evolved::Unchanged);
    }
    let properties = validate::validate(model, Some(&stored.properties), properties, &mut mistakes);
    mistakes.finish()?;
    let Some(revision) = stored.revision.checked_add(1) else {
        return Err(Problem::new(ProblemCode::Internal, "there is no revision after the last one"));
    };
    // A clock that was set back must not make a document older. The texts sort like the times.
    let update_time = timestamp::format(now_ms).max(stored.update_time.clone());
    let mut changes = merge::difference(&stored.properties, &properties);
    if update_time != stored.update_time {
        changes.insert("updateTime".to_owned(), Value::from(update_time.as_str()));
    }
    changes.insert("revision".to_owned(), Value::from(revision));
    let changes = Some(body::write_changes(&changes).into());
    let draft = draft(model, Stored { properties, update_time, revision, ..stored })?;
    Ok(Evolved::Changed(Draft { changes, ..draft }))
}

fn draft(model: &Model, document: Stored) -> Result<Draft, Problem> {
    let body = body::write(model, &document);
    if body.len() > DOCUMENT_BYTES_MAX {
        let detail =
            format!("found a document of {} bytes, expected at most {DOCUMENT_BYTES_MAX}", body.len());
        return Err(Problem::new(ProblemCode::BodyTooLarge, detail));
    }
    Ok(Draft { id: document.id, revision: document.revision, body: body.into(), changes: None })
}

fn object(value: Value) -> Result<Map<String, Value>, Problem> {
    match value {
        Value::Object(members) => Ok(members),
        other => {
            let mut mistakes = Mistakes::default();
            mistakes.add("", format!("found {}, expected an object", describe(&other)));
            mistakes.finish().map(|()| Map::new())
        }
    }
}

#[cfg(test)]
mod tests;
