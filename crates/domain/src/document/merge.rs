//! JSON Merge Patch (RFC 7396).

use std::collections::HashSet;

use serde_json::{Map, Value};

/// Applies an object patch to an object; what stays keeps its place.
pub(super) fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    let mut removed = HashSet::new();
    for (name, value) in patch {
        match value {
            Value::Null => {
                removed.insert(name);
            }
            Value::Object(patch) => match target.get_mut(&name) {
                Some(Value::Object(inner)) => merge(inner, patch),
                Some(other) => *other = without_nulls(patch),
                None => {
                    target.insert(name, without_nulls(patch));
                }
            },
            plain => {
                target.insert(name, plain);
            }
        }
    }
    // All at once: taking them out one by one would move the rest each time.
    if !removed.is_empty() {
        target.retain(|name, _| !removed.contains(name));
    }
}

/// The object patch that makes `target` out of `source`. A merge patch cannot say null: what has become null is told as
/// what was removed.
pub(super) fn difference(source: &Map<String, Value>, target: &Map<String, Value>) -> Map<String, Value> {
    let mut patch = Map::new();
    for (name, value) in target {
        match (source.get(name), value) {
            (Some(before), value) if before == value => {}
            (Some(Value::Object(before)), Value::Object(after)) => {
                patch.insert(name.clone(), Value::Object(difference(before, after)));
            }
            (Some(_) | None, value) => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    for name in source.keys().filter(|name| !target.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    patch
}

fn without_nulls(patch: Map<String, Value>) -> Value {
    let mut fresh = Map::new();
    merge(&mut fresh, patch);
    Value::Object(fresh)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::json;

    /// The algorithm as the RFC writes it (section 2).
    fn merge_patch(target: Value, patch: &Value) -> Value {
        let Value::Object(patch) = patch else { return patch.clone() };
        let mut target = match target {
            Value::Object(target) => target,
            _ => Map::new(),
        };
        for (name, value) in patch {
            if value.is_null() {
                target.remove(name);
            } else {
                let inner = target.remove(name).unwrap_or(Value::Null);
                target.insert(name.clone(), merge_patch(inner, value));
            }
        }
        Value::Object(target)
    }

    fn any_object() -> impl Strategy<Value = Map<String, Value>> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), (0..3).prop_map(Value::from)];
        let value = leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                proptest::collection::hash_map("[abc]", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        });
        proptest::collection::hash_map("[abcd]", value, 0..5)
            .prop_map(|members| members.into_iter().collect())
    }

    #[test]
    fn properties_keep_their_order() {
        let mut target =
            json::parse(br#"{"a":1,"b":2,"c":{"x":1,"y":2},"d":4}"#).unwrap().as_object().unwrap().clone();
        let patch = json!({"a": null, "c": {"x": null, "z": 3}, "e": {"n": null}, "b": 5});
        merge(&mut target, patch.as_object().unwrap().clone());
        assert_eq!(Value::Object(target).to_string(), r#"{"b":5,"c":{"y":2,"z":3},"d":4,"e":{}}"#);
    }

    #[test]
    fn a_difference_tells_what_was_set_and_what_was_removed() {
        let source = json!({"same": [1], "old": 1, "inner": {"a": 1, "b": 2}, "list": [1, 2], "null": 1});
        let target = json!({"same": [1], "inner": {"a": 1, "b": 3}, "list": [1], "null": null, "new": {}});
        let patch = difference(source.as_object().unwrap(), target.as_object().unwrap());
        let expected = r#"{"inner":{"b":3},"list":[1],"null":null,"new":{},"old":null}"#;
        assert_eq!(Value::Object(patch).to_string(), expected);
    }

    proptest! {
        #[test]
        fn the_result_is_that_of_the_rfc(target in any_object(), patch in any_object()) {
            let expected = merge_patch(Value::Object(target.clone()), &Value::Object(patch.clone()));
            let mut merged = target;
            merge(&mut merged, patch);
            prop_assert_eq!(Value::Object(merged), expected);
        }

        #[test]
        fn a_difference_leads_from_one_object_to_the_other(source in any_object(), target in any_object()) {
            let Value::Object(target) = without_nulls(target) else { unreachable!() };
            let patch = difference(&source, &target);
            let unchanged = |name: &String| source.get(name) == target.get(name);
            prop_assert!(!patch.keys().any(unchanged), "{patch:?}");
            let mut merged = source;
            merge(&mut merged, patch);
            prop_assert_eq!(merged, target);
        }
    }
}
