//! A JSON document that somebody else reads and changes by pointers (RFC 6901), part by part.
//!
//! It is parsed when it is first looked into. It grows no more and becomes no deeper than it may, however often it is
//! changed: what is put into it is counted, also where it takes the place of something else.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::{DEPTH_MAX, RESERVED_PREFIX, parse, pointer, shorten};
use crate::problem::Problem;

/// Bytes that are counted for every value, besides the texts in it.
const VALUE_BYTES: usize = 32;

/// Whether a document may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// It may.
    Taken,
    /// It is only shown.
    Refused,
}

/// A document, text until it is looked into.
#[derive(Debug)]
pub struct Held {
    text: String,
    value: Option<Value>,
    is_changed: bool,
    changes: Changes,
    /// What may still be put into it.
    bytes_left: usize,
}

/// Why a document was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It is only shown.
    #[error("the document is only shown, expected no change of it")]
    Refused,
    /// The change makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// More than may be put into it.
    #[error("more was put into the document than it may take")]
    TooLarge,
    /// It was never one.
    #[error("the document is no JSON: {0}")]
    Damaged(Problem),
}

impl Held {
    /// A document, JSON, into which `bytes_max` may be put.
    #[must_use]
    pub fn new(text: String, changes: Changes, bytes_max: usize) -> Self {
        Self { text, value: None, is_changed: false, changes, bytes_left: bytes_max }
    }

    /// The value at a place, if there is one.
    ///
    /// # Errors
    /// When the text is no JSON.
    pub fn get(&mut self, pointer: &str) -> Result<Option<&Value>, Problem> {
        let Ok(names) = pointer::tokens(pointer) else { return Ok(None) };
        Ok(pointer::find(self.value()?, &names))
    }

    /// The JSON of the value at a place, if there is one.
    ///
    /// # Errors
    /// When the text is no JSON.
    pub fn text(&mut self, pointer: &str) -> Result<Option<String>, Problem> {
        if pointer.is_empty() && !self.is_changed {
            return Ok(Some(self.text.clone()));
        }
        Ok(self.get(pointer)?.map(Value::to_string))
    }

    /// The names in the object at a place; none when there is no object.
    ///
    /// # Errors
    /// When the text is no JSON.
    pub fn keys(&mut self, pointer: &str) -> Result<Vec<&str>, Problem> {
        Ok(match self.get(pointer)? {
            Some(Value::Object(members)) => members.keys().map(String::as_str).collect(),
            _ => Vec::new(),
        })
    }

    /// Puts a value at a place: instead of what is there, as a new property of an object, or, with `-` or the length of
    /// an array as index, at the end of an array.
    ///
    /// # Errors
    /// Why it cannot be there. The document is as it was then.
    pub fn set(&mut self, pointer: &str, value: Value) -> Result<(), ChangeError> {
        if self.changes == Changes::Refused {
            return Err(ChangeError::Refused);
        }
        let shown = shorten(pointer);
        let invalid = |what: &str| ChangeError::Invalid(format!("the pointer {shown:?} {what}"));
        let names = pointer::tokens(pointer).map_err(|what| invalid(&what))?;
        let (last, bytes) = (names.last().map(Cow::as_ref), weight(&value));
        let bytes = bytes.saturating_add(last.map_or(0, str::len));
        if bytes > self.bytes_left {
            return Err(ChangeError::TooLarge);
        }
        if names.len() + depth(&value) > DEPTH_MAX {
            return Err(invalid(&format!("leads to more than {DEPTH_MAX} levels")));
        }
        let whole = self.value().map_err(ChangeError::Damaged)?;
        let Some((last, above)) = names.split_last() else {
            *whole = value;
            return self.took(bytes);
        };
        match pointer::find_mut(whole, above) {
            Some(Value::Object(_)) if last.starts_with(RESERVED_PREFIX) => {
                return Err(invalid("has a name that JSON here cannot have"));
            }
            Some(Value::Object(members)) => {
                members.insert(last.as_ref().to_owned(), value);
            }
            Some(Value::Array(items)) => {
                let length = items.len();
                let index = if last == "-" { Some(length) } else { pointer::index(last, length + 1) };
                match index {
                    Some(index) if index == length => items.push(value),
                    Some(index) => items[index] = value,
                    None => return Err(invalid(&format!("leads beyond the {length} elements there are"))),
                }
            }
            Some(_) | None => return Err(invalid("leads into no object or array")),
        }
        self.took(bytes)
    }

    /// Takes away what is at a place. Whether there was something.
    ///
    /// # Errors
    /// When the text is no JSON.
    pub fn remove(&mut self, pointer: &str) -> Result<bool, Problem> {
        let names = pointer::tokens(pointer).ok().filter(|_| self.changes == Changes::Taken);
        let Some((last, above)) = names.as_deref().and_then(<[_]>::split_last) else { return Ok(false) };
        let removed = match pointer::find_mut(self.value()?, above) {
            Some(Value::Object(members)) => members.shift_remove(last.as_ref()).is_some(),
            Some(Value::Array(items)) => {
                let index = pointer::index(last, items.len());
                index.map(|index| items.remove(index)).is_some()
            }
            Some(_) | None => false,
        };
        self.is_changed |= removed;
        Ok(removed)
    }

    /// The text: that which it was made from, unless it was changed.
    #[must_use]
    pub fn into_text(self) -> String {
        match self.value {
            Some(value) if self.is_changed => value.to_string(),
            _ => self.text,
        }
    }

    fn value(&mut self) -> Result<&mut Value, Problem> {
        let parsed = match self.value.take() {
            Some(value) => value,
            None => parse(self.text.as_bytes())?,
        };
        Ok(self.value.insert(parsed))
    }

    fn took(&mut self, bytes: usize) -> Result<(), ChangeError> {
        self.bytes_left -= bytes;
        self.is_changed = true;
        Ok(())
    }
}

/// What is counted for a value.
fn weight(value: &Value) -> usize {
    VALUE_BYTES
        + match value {
            Value::Null | Value::Bool(_) => 0,
            Value::Number(number) => number.as_str().len(),
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(weight).sum(),
            Value::Object(members) => members.iter().map(|(name, value)| name.len() + weight(value)).sum(),
        }
}

/// Levels of objects and arrays.
pub(crate) fn depth(value: &Value) -> usize {
    let deepest = |inner: Option<usize>| 1 + inner.unwrap_or_default();
    match value {
        Value::Array(items) => deepest(items.iter().map(depth).max()),
        Value::Object(members) => deepest(Map::values(members).map(depth).max()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{super::tests::any_json, *};

    const TEXT: &str = r#"{"a":1.50,"b":[1,{"c":"x"}],"d":{}}"#;

    fn held(text: &str) -> Held {
        Held::new(text.to_owned(), Changes::Taken, 10_000)
    }

    #[test]
    fn parts_are_found_by_pointer() {
        let mut document = held(TEXT);
        assert_eq!(document.get("/b/1/c").unwrap(), Some(&json!("x")));
        assert_eq!(document.get("/a").unwrap().unwrap().to_string(), "1.50", "numbers stay as they were");
        for pointer in ["/x", "/b/2", "/b/-", "b", "/a~2", "/a/0"] {
            assert_eq!(document.get(pointer).unwrap(), None, "{pointer}");
        }
        assert_eq!(document.keys("").unwrap(), ["a", "b", "d"]);
        assert_eq!(document.keys("/b").unwrap(), [""; 0]);
        assert_eq!(document.text("/b/1").unwrap().as_deref(), Some(r#"{"c":"x"}"#));
        assert_eq!(document.text("").unwrap().as_deref(), Some(TEXT));
        assert_eq!(document.into_text(), TEXT);
    }

    #[test]
    fn parts_are_put_in_and_taken_away() {
        let mut document = held(TEXT);
        document.set("/d/e", json!(true)).unwrap();
        document.set("/b/0", json!(null)).unwrap();
        document.set("/b/-", json!("end")).unwrap();
        document.set("/b/3", json!("more")).unwrap();
        assert!(document.remove("/a").unwrap() && document.remove("/b/1").unwrap());
        assert!(!document.remove("/a").unwrap() && !document.remove("").unwrap());
        assert_eq!(document.into_text(), r#"{"b":[null,"end","more"],"d":{"e":true}}"#);
        let mut whole = held("1");
        whole.set("", json!({"a": 1})).unwrap();
        assert_eq!(whole.into_text(), r#"{"a":1}"#);
    }

    #[test]
    fn what_makes_no_sense_changes_nothing() {
        let mut document = held(TEXT);
        let told: Vec<String> = ["x", "/a/b", "/x/y", "/b/4", "/b/01", "/$serde_json::private::Number", "/~"]
            .map(|pointer| document.set(pointer, json!(1)).unwrap_err().to_string())
            .into();
        insta::assert_snapshot!(told.join("\n"), @r#"
        the pointer "x" must be empty or start with '/'
        the pointer "/a/b" leads into no object or array
        the pointer "/x/y" leads into no object or array
        the pointer "/b/4" leads beyond the 2 elements there are
        the pointer "/b/01" leads beyond the 2 elements there are
        the pointer "/$serde_json::private::Number" has a name that JSON here cannot have
        the pointer "/~" has a '~' that is not followed by '0' or '1'
        "#);
        assert_eq!(document.into_text(), TEXT);
        let mut shown = Held::new(TEXT.to_owned(), Changes::Refused, 10_000);
        assert_eq!(shown.set("/a", json!(1)), Err(ChangeError::Refused));
        assert!(!shown.remove("/a").unwrap());
    }

    #[test]
    fn a_document_grows_no_further_than_it_may() {
        let mut document = held("[]");
        let added = (0..10_000).take_while(|_| document.set("/-", json!(1)).is_ok()).count();
        assert!((100..1000).contains(&added), "{added}");
        let mut deep = Held::new("{}".to_owned(), Changes::Taken, 1 << 20);
        let mut pointer = String::new();
        let levels = (0..1000)
            .take_while(|_| {
                pointer.push_str("/a");
                deep.set(&pointer, json!({})).is_ok()
            })
            .count();
        assert_eq!(levels, DEPTH_MAX - 1);
        assert!(parse(deep.into_text().as_bytes()).is_ok(), "what was made can be read");
    }

    proptest! {
        #[test]
        fn what_is_put_in_is_found_there_and_the_whole_can_be_read(text in any_json(), part in any_json()) {
            let Ok(part) = parse(part.as_bytes()) else { return Ok(()) };
            let mut document = Held::new(format!("{{\"a\":{text}}}"), Changes::Taken, 1 << 20);
            if document.get("").is_err() {
                return Ok(());
            }
            if document.set("/b", part.clone()).is_ok() {
                prop_assert_eq!(document.get("/b").unwrap(), Some(&part));
                prop_assert!(parse(document.into_text().as_bytes()).is_ok());
            }
        }
    }
}
