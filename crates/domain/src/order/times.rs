//! Which parts of a value are points in time, where that is not a matter of a single field.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{Key, write_raw, write_typed};
use crate::{json, spec::FieldKind};

/// Where in a value texts are points in time. Parts are shared: a stage can repeat the rows before it many times over, and stages
/// repeat each other's work.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Times {
    /// The value itself is one.
    is_time: bool,
    /// Those in properties of an object; none of them is empty.
    members: BTreeMap<String, Arc<Times>>,
    /// Those in every item of an array; not empty.
    items: Option<Arc<Times>>,
}

impl Times {
    /// Those of a value in a field of this kind.
    pub(crate) fn of(kind: FieldKind) -> Self {
        Self { is_time: kind == FieldKind::Timestamp, ..Self::default() }
    }

    /// Those of an array of such values.
    pub(crate) fn of_items(items: Self) -> Self {
        Self { items: (!items.is_empty()).then(|| Arc::new(items)), ..Self::default() }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        !self.is_time && self.members.is_empty() && self.items.is_none()
    }

    /// What the value itself is compared as.
    pub(crate) fn kind(&self) -> FieldKind {
        if self.is_time { FieldKind::Timestamp } else { FieldKind::Any }
    }

    /// Those of the property at the end of a path, which leads into arrays by number.
    pub(crate) fn at(&self, path: &[String]) -> Self {
        let found = path.iter().try_fold(self, |times, name| {
            let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
            times.member(name).or_else(|| times.items().filter(|_| is_number))
        });
        found.cloned().unwrap_or_default()
    }

    /// Adds those of the property at the end of a path.
    pub(crate) fn put(&mut self, path: &[String], times: Self) {
        if times.is_empty() {
            return;
        }
        match path.split_first() {
            Some((first, rest)) => {
                Arc::make_mut(self.members.entry(first.clone()).or_default()).put(rest, times);
            }
            None => *self = times,
        }
    }

    pub(super) fn is_time(&self) -> bool {
        self.is_time
    }

    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        self.members.get(name).map(AsRef::as_ref)
    }

    pub(super) fn items(&self) -> Option<&Self> {
        self.items.as_deref()
    }

    /// Appends the canonical bytes of a value as it is written in a row.
    pub(crate) fn write_raw(&self, value: Option<&[u8]>, out: &mut Vec<u8>) {
        let is_compound = value.is_some_and(|raw| matches!(raw.first(), Some(b'{' | b'[')));
        match value.filter(|_| is_compound && !self.is_empty()).map(json::parse) {
            Some(Ok(value)) => write_typed(&value, Some(self), out),
            // Of what is not well-formed, there is no value.
            Some(Err(_)) | None => write_raw(self.kind(), value, out),
        }
    }

    /// The key of a value as it is written in a row.
    pub(crate) fn key_of_raw(&self, value: &[u8]) -> Key {
        let mut bytes = Vec::new();
        self.write_raw(Some(value), &mut bytes);
        Key::from_canonical(&bytes)
    }

    /// The key of a value.
    pub(crate) fn key_of(&self, value: &Value) -> Key {
        match value {
            Value::Object(_) | Value::Array(_) => {
                let mut bytes = Vec::new();
                write_typed(value, Some(self), &mut bytes);
                Key::from_canonical(&bytes)
            }
            value => Key::of(self.kind(), Some(value)),
        }
    }
}
