use std::cmp::Ordering;

use proptest::{collection::vec, prelude::*};
use serde_json::Value;

use super::*;

fn instant(kind: FieldKind, value: Option<&Value>) -> Option<Instant> {
    let text = value.and_then(Value::as_str).filter(|_| kind == FieldKind::Timestamp)?;
    timestamp::instant(text)
}

/// The place of a value's type in the order of types.
pub(crate) fn rank(kind: FieldKind, value: Option<&Value>) -> u8 {
    match value {
        None => 0,
        Some(Value::Null) => 1,
        Some(Value::Bool(_)) => 2,
        Some(Value::Number(_)) => 3,
        Some(Value::String(_)) if instant(kind, value).is_some() => 4,
        Some(Value::String(_)) => 5,
        Some(Value::Object(_)) => 6,
        Some(Value::Array(_)) => 7,
    }
}

/// The order of values, as the interface describes it and without keys.
pub(crate) fn compare(kind: FieldKind, left: Option<&Value>, right: Option<&Value>) -> Ordering {
    let by_type = rank(kind, left).cmp(&rank(kind, right));
    if by_type.is_ne() {
        return by_type;
    }
    if let (Some(left), Some(right)) = (instant(kind, left), instant(kind, right)) {
        return left.cmp(&right);
    }
    match (left, right) {
        (Some(Value::Bool(left)), Some(Value::Bool(right))) => left.cmp(right),
        (Some(Value::Number(left)), Some(Value::Number(right))) => Decimal::of(left).cmp(&Decimal::of(right)),
        (Some(Value::String(left)), Some(Value::String(right))) => left.chars().cmp(right.chars()),
        (Some(Value::Array(left)), Some(Value::Array(right))) => {
            compare_all(left.iter().map(|item| ("", item)), right.iter().map(|item| ("", item)))
        }
        (Some(Value::Object(left)), Some(Value::Object(right))) => {
            let sorted = |object: &serde_json::Map<String, Value>| {
                let mut members: Vec<_> = object.clone().into_iter().collect();
                members.sort_by(|(left, _), (right, _)| left.cmp(right));
                members
            };
            let (left, right) = (sorted(left), sorted(right));
            compare_all(
                left.iter().map(|(name, value)| (name.as_str(), value)),
                right.iter().map(|(name, value)| (name.as_str(), value)),
            )
        }
        _ => Ordering::Equal,
    }
}

fn compare_all<'a>(
    mut left: impl Iterator<Item = (&'a str, &'a Value)>,
    mut right: impl Iterator<Item = (&'a str, &'a Value)>,
) -> Ordering {
    loop {
        match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some((left_name, left)), Some((right_name, right))) => {
                let order =
                    left_name.cmp(right_name).then_with(|| compare(FieldKind::Any, Some(left), Some(right)));
                if order.is_ne() {
                    return order;
                }
            }
        }
    }
}

fn number() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        "-?(0|[1-9][0-9]{0,3})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?",
        "-?[1-9][0-9]{15,40}",
        "-?[1-9]e-?[0-9]{3,25}",
        any::<i64>().prop_map(|number| number.to_string()),
        (-1e9..1e9_f64).prop_map(|number| number.to_string()),
        Just("-0.0".to_owned()),
    ];
    text.prop_map(|text| json::parse(text.as_bytes()).expect("a number"))
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ab\u{0}\u{1}\u{ff}é\"\\\\\n😀]{0,4}",
        Just("2026-01-31T00:00:00Z".to_owned()),
        Just("2026-01-31T01:00:00.5+01:00".to_owned()),
        Just("2026-01-31T00:00:00.499999999Z".to_owned()),
        Just("1960-01-31T00:00:00.25Z".to_owned()),
    ]
}

/// Any JSON value, small, with many neighbours.
pub(crate) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        number(),
        text().prop_map(Value::String),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            vec((text(), inner), 0..4).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn kind() -> impl Strategy<Value = FieldKind> {
    prop_oneof![Just(FieldKind::Any), Just(FieldKind::Timestamp)]
}

#[test]
fn types_are_ordered_as_the_interface_says() {
    let ascending = [
        "null",
        "false",
        "true",
        "-1e400",
        "-2",
        "-1",
        "-0.5",
        "-1e-400",
        "0",
        "1e-400",
        "0.1",
        "0.11",
        "1",
        "2",
        "10",
        "9007199254740992",
        "9007199254740993",
        "1e400",
        "\"\"",
        "\"A\"",
        "\"a\"",
        "\"aa\"",
        "\"é\"",
        "\"😀\"",
        "{}",
        "{\"a\":1}",
        "{\"a\":1,\"b\":0}",
        "{\"a\":2}",
        "{\"b\":0}",
        "[]",
        "[null]",
        "[0]",
        "[0,null]",
        "[[]]",
    ];
    let mut last = Key::of(FieldKind::Any, None);
    for text in ascending {
        let value = json::parse(text.as_bytes()).unwrap();
        let key = Key::of(FieldKind::Any, Some(&value));
        assert!(last < key, "{text}");
        last = key;
    }
}

#[test]
fn equal_values_have_equal_bytes_whatever_their_spelling() {
    for (left, right) in [
        ("1", "1.0"),
        ("1000", "1e3"),
        ("0", "-0.00e5"),
        ("0.0010", "1E-3"),
        ("123456789.5", "1234567895e-1"),
        (r#""a""#, r#""\u0061""#),
        (r#"{"a":1,"b":[2]}"#, r#"{"b":[2.0],"a":1}"#),
    ] {
        let key = |text: &str| Key::of_raw(FieldKind::Any, Some(text.as_bytes()));
        assert_eq!(key(left), key(right), "{left} {right}");
    }
}

#[test]
fn timestamps_are_points_in_time() {
    let key = |text: &str| Key::of(FieldKind::Timestamp, Some(&Value::from(text)));
    assert_eq!(key("2026-01-31T01:00:00+01:00"), key("2026-01-31T00:00:00.000Z"));
    assert!(key("1969-12-31T23:59:59.999Z") < key("1970-01-01T00:00:00Z"));
    assert!(key("2026-01-31T00:00:00.001Z") > key("2026-01-31T00:00:00Z"));
    assert!(key("9999-12-30T22:00:00Z") < key("no time at all"));
}

#[test]
fn a_key_is_small() {
    assert_eq!(size_of::<Key>(), 24);
}

proptest! {
    #[test]
    fn bytes_compare_like_values(kind in kind(), left in value(), right in value()) {
        let (left_key, right_key) = (Key::of(kind, Some(&left)), Key::of(kind, Some(&right)));
        prop_assert_eq!(left_key.cmp(&right_key), compare(kind, Some(&left), Some(&right)));
        prop_assert_eq!(left_key.as_bytes().cmp(right_key.as_bytes()), left_key.cmp(&right_key));
        prop_assert!(Key::of(kind, None) < left_key);
    }

    #[test]
    fn stored_values_have_the_keys_of_parsed_ones(kind in kind(), value in value()) {
        let key = Key::of(kind, Some(&value));
        prop_assert_eq!(&Key::of_raw(kind, Some(value.to_string().as_bytes())), &key);
        prop_assert_eq!(Key::from_canonical(key.as_bytes()), key);
    }

    #[test]
    fn arbitrary_bytes_have_a_key(kind in kind(), bytes in vec(any::<u8>(), 0..40)) {
        prop_assert!(!Key::of_raw(kind, Some(&bytes)).as_bytes().is_empty());
    }
}
