//! Reading single values out of stored documents without reading the rest of them.
//!
//! Stored documents are well-formed JSON, so values are skipped by their quotes and brackets only. Bytes that are no JSON
//! yield nothing or nonsense, never a panic.

use std::borrow::Cow;

use memchr::memchr2;

/// The value at the end of a path of property names (in an array: positions), as it is written.
pub(crate) fn find<'a>(document: &'a [u8], path: &[String]) -> Option<&'a [u8]> {
    path.iter().try_fold(document, |value, step| match value.first() {
        Some(b'{') => members(value).find(|member| member.is(step)).map(|member| member.value),
        Some(b'[') => {
            let position = crate::json::pointer::index(step, usize::MAX)?;
            items(value).nth(position)
        }
        _ => None,
    })
}

/// The content of a text whose quotes are still around it; empty for anything else.
pub(crate) fn text(raw: &[u8]) -> Cow<'_, str> {
    let inside = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
    if memchr::memchr(b'\\', inside).is_none() {
        return String::from_utf8_lossy(inside);
    }
    serde_json::from_slice(raw).map_or(Cow::Borrowed(""), Cow::Owned)
}

/// One property of an object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member<'a> {
    /// The name with its quotes.
    name: &'a [u8],
    /// The value as it is written.
    pub(crate) value: &'a [u8],
}

impl<'a> Member<'a> {
    /// Whether it has this name.
    pub(crate) fn is(&self, name: &str) -> bool {
        let written = &self.name[1..self.name.len() - 1];
        if memchr::memchr(b'\\', written).is_none() {
            written == name.as_bytes()
        } else {
            text(self.name) == name
        }
    }

    /// The name with its quotes, as it is written.
    pub(crate) fn written_name(&self) -> &'a [u8] {
        self.name
    }
}

/// The properties of an object, in the order in which they are written.
pub(crate) fn members(object: &[u8]) -> impl Iterator<Item = Member<'_>> {
    let mut at = 1;
    std::iter::from_fn(move || {
        let name_at = skip_separators(object, at);
        if object.get(name_at) != Some(&b'"') {
            return None;
        }
        let name_end = skip_text(object, name_at)?;
        let value_at = skip_separators(object, name_end);
        at = skip_value(object, value_at)?;
        Some(Member { name: &object[name_at..name_end], value: &object[value_at..at] })
    })
}

/// The items of an array.
pub(crate) fn items(array: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = 1;
    std::iter::from_fn(move || {
        let start = skip_separators(array, at);
        at = skip_value(array, start)?;
        Some(&array[start..at])
    })
}

fn skip_separators(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\n' | b'\r' | b'\t' | b',' | b':')) {
        at += 1;
    }
    at
}

/// Where the text ends whose opening quote is at `at`.
fn skip_text(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Where the value ends that begins at `at`; nothing if none begins there.
fn skip_value(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => skip_text(bytes, at),
        b'{' | b'[' => skip_brackets(bytes, at),
        b'}' | b']' => None,
        _ => {
            let rest = &bytes[at..];
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t');
            Some(at + rest.iter().position(ends).unwrap_or(rest.len()))
        }
    }
}

fn skip_brackets(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut open = 0_usize;
    loop {
        match bytes.get(at)? {
            b'"' => {
                at = skip_text(bytes, at)?;
                continue;
            }
            b'{' | b'[' => open += 1,
            b'}' | b']' => {
                open -= 1;
                if open == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    fn path(dotted: &str) -> Vec<String> {
        dotted.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn values_are_cut_out_as_written() {
        let document =
            br#" {"a" : 1.50, "b\"c": [ "]" , {"x":"}\\"} , -2e3 ] ,"d":{"e":{"f":null}}, "g":"h" } "#;
        let document = document.trim_ascii();
        let found = |dotted| find(document, &path(dotted)).map(String::from_utf8_lossy);
        assert_eq!(found("a").unwrap(), "1.50");
        assert_eq!(found("b\"c.0").unwrap(), "\"]\"");
        assert_eq!(found("b\"c.1.x").unwrap(), r#""}\\""#);
        assert_eq!(found("b\"c.2").unwrap(), "-2e3");
        assert_eq!(found("d.e.f").unwrap(), "null");
        assert_eq!(found("g").unwrap(), "\"h\"");
        for missing in ["x", "a.b", "b\"c.3", "b\"c.01", "d.e.g", "d.0", "b"] {
            assert_eq!(found(missing), None, "{missing}");
        }
    }

    #[test]
    fn a_name_is_compared_after_its_escapes_are_undone() {
        let names: Vec<_> = members(br#"{"a\\b":1,"a\u0062":2,"":3}"#).collect();
        assert!(names[0].is("a\\b") && !names[0].is("a\\\\b"));
        assert!(names[1].is("ab") && !names[1].is("a\\u0062"));
        assert!(names[2].is(""));
    }

    proptest! {
        #[test]
        fn members_are_those_that_a_parser_finds(
            members_in in proptest::collection::hash_map(".{0,6}", ".{0,6}", 0..6),
        ) {
            let object: Map<String, Value> = members_in.into_iter().map(|(n, v)| (n, Value::from(v))).collect();
            let text = Value::Object(object.clone()).to_string();
            let read: Map<String, Value> = members(text.as_bytes())
                .map(|m| (super::text(m.written_name()).into_owned(), Value::from(super::text(m.value))))
                .collect();
            prop_assert_eq!(read, object);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = find(&bytes, &path("a.0.b"));
            let _ = (members(&bytes).count(), items(&bytes).count(), text(&bytes).len());
        }

        #[test]
        fn arbitrary_pieces_of_json_never_panic(text in r#"[{}\[\]":,\\a0 ]{0,40}"#) {
            let _ = find(text.as_bytes(), &path("a.0.a"));
            for member in members(text.as_bytes()) {
                let _ = (member.is("a"), items(member.value).count());
            }
        }
    }
}
