//! JSON pointers (RFC 6901).

use std::borrow::Cow;

use serde_json::Value;

/// Appends one reference token.
pub(crate) fn push(pointer: &mut String, name: &str) {
    pointer.push('/');
    for character in name.chars() {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

/// The pointer to a property of the outermost object.
#[must_use]
pub fn of(name: &str) -> String {
    let mut pointer = String::with_capacity(name.len() + 1);
    push(&mut pointer, name);
    pointer
}

/// Takes a pointer apart.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn tokens(pointer: &str) -> Result<Vec<Cow<'_, str>>, String> {
    let Some(rest) = pointer.strip_prefix('/') else {
        return if pointer.is_empty() {
            Ok(Vec::new())
        } else {
            Err("must be empty or start with '/'".to_owned())
        };
    };
    rest.split('/').map(unescape).collect()
}

fn unescape(token: &str) -> Result<Cow<'_, str>, String> {
    if !token.contains('~') {
        return Ok(Cow::Borrowed(token));
    }
    let mut plain = String::with_capacity(token.len());
    let mut rest = token.chars();
    while let Some(character) = rest.next() {
        match (character, if character == '~' { rest.next() } else { None }) {
            ('~', Some('0')) => plain.push('~'),
            ('~', Some('1')) => plain.push('/'),
            ('~', _) => return Err("has a '~' that is not followed by '0' or '1'".to_owned()),
            (other, _) => plain.push(other),
        }
    }
    Ok(Cow::Owned(plain))
}

/// An index into an array: digits without leading zero, below `length`.
pub(crate) fn index(token: &str, length: usize) -> Option<usize> {
    let canonical =
        token == "0" || (!token.starts_with('0') && token.bytes().all(|byte| byte.is_ascii_digit()));
    if !canonical {
        return None;
    }
    token.parse::<usize>().ok().filter(|&index| index < length)
}

/// The value at a place.
pub(crate) fn find<'a>(value: &'a Value, names: &[impl AsRef<str>]) -> Option<&'a Value> {
    names.iter().map(AsRef::as_ref).try_fold(value, |value, name| match value {
        Value::Object(members) => members.get(name),
        Value::Array(items) => items.get(index(name, items.len())?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

/// The value at a place, to be changed.
pub(crate) fn find_mut<'a>(value: &'a mut Value, names: &[impl AsRef<str>]) -> Option<&'a mut Value> {
    names.iter().map(AsRef::as_ref).try_fold(value, |value, name| match value {
        Value::Object(members) => members.get_mut(name),
        Value::Array(items) => {
            let index = index(name, items.len())?;
            items.get_mut(index)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_are_undone_in_one_pass() {
        assert_eq!(tokens("/a~01/b~1c").unwrap(), ["a~1", "b/c"]);
        assert_eq!(tokens("").unwrap(), [""; 0]);
        assert_eq!(tokens("/").unwrap(), [""]);
    }

    #[test]
    fn bad_pointers_are_named() {
        assert_eq!(tokens("a").unwrap_err(), "must be empty or start with '/'");
        assert_eq!(tokens("/a~2").unwrap_err(), "has a '~' that is not followed by '0' or '1'");
        assert_eq!(tokens("/a~").unwrap_err(), "has a '~' that is not followed by '0' or '1'");
    }

    #[test]
    fn an_index_has_one_spelling() {
        assert_eq!(index("0", 1), Some(0));
        assert_eq!(index("10", 11), Some(10));
        for bad in ["", "01", "-", "-1", "+1", "1", "1 ", "99999999999999999999"] {
            assert_eq!(index(bad, 1), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_pushed_is_read_back(names in proptest::collection::vec("[a~/01 é]{0,4}", 0..4)) {
            let mut pointer = String::new();
            for name in &names {
                push(&mut pointer, name);
            }
            prop_assert_eq!(tokens(&pointer).unwrap(), names);
        }
    }
}
