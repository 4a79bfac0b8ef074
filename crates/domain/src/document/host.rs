//! The five fields that belong to the host.

use serde_json::{Map, Value};

use super::{HOST_FIELDS, ID_BYTES_MAX, Stamp, mistakes::Mistakes};
use crate::{
    catalog::Model,
    json::{self, describe, pointer, shorten},
    problem::{Problem, ProblemCode},
    spec::FieldKind,
    timestamp,
};

/// A document taken apart.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) properties: Map<String, Value>,
    pub(super) id: String,
    pub(super) create_time: String,
    pub(super) update_time: String,
    pub(super) revision: u64,
}

/// What null means for a host field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Null {
    /// As if the field were not there.
    IsNothing,
    /// The field shall be removed.
    IsRemoval,
}

impl Stored {
    /// Takes the body of a stored document apart.
    pub(super) fn read(model: &Model, body: &[u8]) -> Result<Self, Problem> {
        let apart = Self::take_apart(body).map_err(|what| {
            let detail = format!("a stored document of {} is damaged: {what}", model.name());
            Problem::new(ProblemCode::Internal, detail)
        })?;
        Ok(apart.0)
    }

    /// The document, and what it says its model is; or what is wrong with it.
    pub(super) fn take_apart(body: &[u8]) -> Result<(Self, Option<Value>), String> {
        let Value::Object(mut properties) = json::parse(body).map_err(|problem| problem.detail)? else {
            return Err("it is no object".to_owned());
        };
        let mut take = |name: &str| properties.shift_remove(name);
        let text = |value: Option<Value>, name: &str| match value {
            Some(Value::String(text)) => Ok(text),
            _ => Err(format!("its {name} is no text")),
        };
        // Last first: they stand at the end, where taking them out moves nothing.
        let revision = take("revision").as_ref().and_then(Value::as_u64);
        let update_time = text(take("updateTime"), "updateTime")?;
        let create_time = text(take("createTime"), "createTime")?;
        let model = take("modelName");
        let id = text(take("id"), "id")?;
        let revision = revision.ok_or("its revision is no number")?;
        Ok((Self { properties, id, create_time, update_time, revision }, model))
    }

    /// When a stored document was created and last changed, milliseconds since 1970.
    pub(super) fn read_times(model: &Model, body: &[u8]) -> Result<(u64, u64), Problem> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Times<'a> {
            create_time: &'a str,
            update_time: &'a str,
        }
        let times: Option<Times<'_>> = serde_json::from_slice(body).ok();
        let times = times.and_then(|times| {
            Some((timestamp::milliseconds(times.create_time)?, timestamp::milliseconds(times.update_time)?))
        });
        times.ok_or_else(|| {
            let detail = format!("a stored document of {} is damaged: it has no times", model.name());
            Problem::new(ProblemCode::Internal, detail)
        })
    }

    /// The document as a client sees it.
    pub(super) fn whole(&self, model: &Model) -> Value {
        let mut members = self.properties.clone();
        for name in HOST_FIELDS {
            members.insert(name.to_owned(), self.host_value(model, name));
        }
        Value::Object(members)
    }

    fn host_value(&self, model: &Model, name: &str) -> Value {
        match name {
            "id" => Value::from(self.id.as_str()),
            "modelName" => Value::from(model.name()),
            "createTime" => Value::from(self.create_time.as_str()),
            "updateTime" => Value::from(self.update_time.as_str()),
            _ => Value::from(self.revision),
        }
    }

    /// Takes the host fields out of a client's input; each that is there must be what is stored.
    pub(super) fn take_unchanged(
        &self,
        model: &Model,
        input: &mut Map<String, Value>,
        null: Null,
        mistakes: &mut Mistakes,
    ) {
        for name in HOST_FIELDS {
            match input.shift_remove(name) {
                None => {}
                Some(Value::Null) if null == Null::IsNothing => {}
                Some(found) => self.check_host_value(model, name, &found, mistakes),
            }
        }
    }

    /// Takes the host fields out of a patched document; all must be there and be what is stored.
    pub(super) fn take_all(&self, model: &Model, document: &mut Map<String, Value>, mistakes: &mut Mistakes) {
        for name in HOST_FIELDS {
            match document.shift_remove(name) {
                None => {
                    mistakes.add(&pointer::of(name), "found nothing: the host keeps this field".to_owned())
                }
                Some(found) => self.check_host_value(model, name, &found, mistakes),
            }
        }
    }

    fn check_host_value(&self, model: &Model, name: &str, found: &Value, mistakes: &mut Mistakes) {
        let stored = self.host_value(model, name);
        if !json::same(found, &stored) {
            mistakes.add(&pointer::of(name), host_mistake(found, &stored));
        }
    }
}

fn host_mistake(found: &Value, stored: &Value) -> String {
    let stored = match stored {
        Value::String(text) => format!("{:?}", shorten(text)),
        other => other.to_string(),
    };
    format!("found {}, expected {stored} or nothing: the host keeps this field", describe(found))
}

/// Takes the host fields out of the input for a new document; returns the id, if it has one.
///
/// Of the other fields only the model's name can be wrong: there is nothing stored yet that they could differ
/// from, and a copy of another document brings them along.
pub(super) fn take_from_new(
    model: &Model,
    input: &mut Map<String, Value>,
    mistakes: &mut Mistakes,
) -> Option<String> {
    let mut id = None;
    for name in HOST_FIELDS {
        match (name, input.shift_remove(name)) {
            (_, None | Some(Value::Null)) => {}
            ("id", Some(Value::String(text))) => match id_mistake(&text) {
                None => id = Some(text),
                Some(mistake) => mistakes.add("/id", mistake),
            },
            ("id", Some(other)) => {
                mistakes.add("/id", format!("found {}, expected a text", describe(&other)))
            }
            ("modelName", Some(found)) if found.as_str() != Some(model.name()) => {
                mistakes.add("/modelName", host_mistake(&found, &Value::from(model.name())));
            }
            _ => {}
        }
    }
    id
}

/// The id of a new document. Without one, which is a mistake then, the text is of no use.
pub(super) fn choose_id(
    model: &Model,
    properties: &Map<String, Value>,
    given: Option<String>,
    stamp: &Stamp,
    mistakes: &mut Mistakes,
) -> String {
    let Some(field) = model.spec().id_field.as_deref() else {
        return given.unwrap_or_else(|| {
            // It may come from the path of a request, where anything can stand.
            if let Some(mistake) = id_mistake(&stamp.fresh_id) {
                mistakes.add("/id", mistake);
            }
            stamp.fresh_id.clone()
        });
    };
    let kind = model.spec().fields.get(field).map(|field| field.kind);
    let id = match (kind, properties.get(field)) {
        (Some(FieldKind::Text), Some(Value::String(text))) => text.clone(),
        (Some(FieldKind::Integer), Some(Value::Number(number))) => match number.as_str() {
            "-0" => "0".to_owned(),
            digits => digits.to_owned(),
        },
        // Missing or of another kind: the rules of the field will say so.
        _ => return String::new(),
    };
    if let Some(mistake) = id_mistake(&id) {
        mistakes.add(&pointer::of(field), mistake);
    } else if let Some(given) = given
        && given != id
    {
        let message =
            format!("found {:?}, expected {:?}, the value of {field}", shorten(&given), shorten(&id));
        mistakes.add("/id", message);
    }
    id
}

/// Why a text cannot be an id: it must fit into a path segment and a log line.
pub(super) fn id_mistake(id: &str) -> Option<String> {
    if id.is_empty() {
        Some("found an empty text, expected an id".to_owned())
    } else if id.len() > ID_BYTES_MAX {
        Some(format!("found {} bytes, expected at most {ID_BYTES_MAX} for an id", id.len()))
    } else if id == "." || id == ".." {
        Some(format!("found {id:?}, expected an id that is no relative path"))
    } else {
        let bad = id.chars().find(|c| c.is_control() || matches!(c, '/' | '?' | '#'))?;
        Some(format!("found the character {bad:?}, expected an id without it"))
    }
}
