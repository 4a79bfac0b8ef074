use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::json;

fn value(text: &str) -> Value {
    json::parse(text.as_bytes()).unwrap()
}

fn run(document: &str, patch: &str) -> Result<Value, Problem> {
    apply(value(document), read(value(patch))?)
}

fn told(document: &str, patch: &str) -> String {
    let problem = run(document, patch).expect_err("must be refused");
    let errors: Vec<String> =
        problem.errors.iter().map(|e| format!("\n  {}: {}", e.path, e.message)).collect();
    format!("{problem}{}", errors.concat())
}

#[test]
fn operations_do_what_the_rfc_says() {
    for (document, patch, result) in [
        (r#"{"a":1}"#, r#"[{"op":"add","path":"/b","value":[2]}]"#, r#"{"a":1,"b":[2]}"#),
        (r#"{"a":[1,3]}"#, r#"[{"op":"add","path":"/a/1","value":2}]"#, r#"{"a":[1,2,3]}"#),
        (r#"{"a":[1]}"#, r#"[{"op":"add","path":"/a/-","value":2}]"#, r#"{"a":[1,2]}"#),
        (r#"{"a":1,"b":2,"c":3}"#, r#"[{"op":"remove","path":"/a"}]"#, r#"{"b":2,"c":3}"#),
        (r#"{"a":[1,2,3]}"#, r#"[{"op":"remove","path":"/a/1"}]"#, r#"{"a":[1,3]}"#),
        (r#"{"a":1,"b":2}"#, r#"[{"op":"replace","path":"/a","value":1E5}]"#, r#"{"a":1E5,"b":2}"#),
        (
            r#"{"a":{"x":1},"b":{}}"#,
            r#"[{"op":"move","from":"/a/x","path":"/b/y"}]"#,
            r#"{"a":{},"b":{"y":1}}"#,
        ),
        (r#"{"a":[1,2]}"#, r#"[{"op":"move","from":"/a/0","path":"/a/1"}]"#, r#"{"a":[2,1]}"#),
        (r#"{"a":1}"#, r#"[{"op":"move","from":"/a","path":"/a"}]"#, r#"{"a":1}"#),
        (r#"{"a":{"x":1}}"#, r#"[{"op":"copy","from":"/a","path":"/a/y"}]"#, r#"{"a":{"x":1,"y":{"x":1}}}"#),
        (r#"{"a":1.0,"b":[{}]}"#, r#"[{"op":"test","path":"/a","value":10e-1}]"#, r#"{"a":1.0,"b":[{}]}"#),
        (r#"{"a":1}"#, r#"[{"op":"replace","path":"","value":{"b":2}}]"#, r#"{"b":2}"#),
        (r#"{"~/":{"":1}}"#, r#"[{"op":"remove","path":"/~0~1/","ignored":true}]"#, r#"{"~/":{}}"#),
        (r#"{"a":1}"#, "[]", r#"{"a":1}"#),
    ] {
        assert_eq!(run(document, patch).map(|value| value.to_string()), Ok(result.to_owned()), "{patch}");
    }
}

#[test]
fn names_that_the_parser_does_not_take_are_not_made_by_a_patch_either() {
    let patches = [
        r#"[{"op":"add","path":"/$serde_json::private::Number","value":"1"}]"#,
        r#"[{"op":"copy","from":"/a","path":"/a/$serde_json::private::RawValue"}]"#,
        r#"[{"op":"move","from":"/a","path":"/$serde_json::private::x/b"}]"#,
    ];
    let told: Vec<String> = patches.iter().map(|patch| told(r#"{"a":{}}"#, patch)).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    malformed-json: the patch is malformed at /0/path: found the text "/$serde_json::private::Number" with a reserved property name, expected another
      /0/path: found the text "/$serde_json::private::Number" with a reserved property name, expected another
    malformed-json: the patch is malformed at /0/path: found the text "/a/$serde_json::private::RawValue" with a reserved property name, expected another
      /0/path: found the text "/a/$serde_json::private::RawValue" with a reserved property name, expected another
    malformed-json: the patch is malformed at /0/path: found the text "/$serde_json::private::x/b" with a reserved property name, expected another
      /0/path: found the text "/$serde_json::private::x/b" with a reserved property name, expected another
    "#);
    let harmless = r#"[{"op":"add","path":"/serde_json::private::x","value":1}]"#;
    assert!(run("{}", harmless).is_ok());
}

#[test]
fn an_operation_that_cannot_be_applied_is_named() {
    let document = r#"{"a":[1,{"b":2}],"n":1}"#;
    let patches = [
        r#"[{"op":"test","path":"/n","value":1},{"op":"test","path":"/n","value":2}]"#,
        r#"[{"op":"test","path":"/x","value":null}]"#,
        r#"[{"op":"remove","path":"/x"}]"#,
        r#"[{"op":"remove","path":""}]"#,
        r#"[{"op":"remove","path":"/a/2"}]"#,
        r#"[{"op":"remove","path":"/a/-"}]"#,
        r#"[{"op":"replace","path":"/a/01","value":1}]"#,
        r#"[{"op":"add","path":"/a/3","value":1}]"#,
        r#"[{"op":"add","path":"/n/x","value":1}]"#,
        r#"[{"op":"add","path":"/x/y","value":1}]"#,
        r#"[{"op":"move","from":"/a","path":"/a/1/b"}]"#,
        r#"[{"op":"move","from":"","path":"/x"}]"#,
        r#"[{"op":"copy","from":"/x","path":"/y"}]"#,
    ];
    let said: Vec<String> = patches.iter().map(|patch| told(document, patch)).collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    patch-test-failed: /n: operation 1 (test) found the number 1, expected the number 2
      /n: operation 1 (test) found the number 1, expected the number 2
    patch-test-failed: /x: operation 0 (test) found nothing, expected null
      /x: operation 0 (test) found nothing, expected null
    invalid: /x: operation 0 (remove) found nothing at this place
      /x: operation 0 (remove) found nothing at this place
    invalid: the document: operation 0 (remove) would remove the whole document
      : operation 0 (remove) would remove the whole document
    invalid: /a/2: operation 0 (remove) found nothing at this place
      /a/2: operation 0 (remove) found nothing at this place
    invalid: /a/-: operation 0 (remove) found nothing at this place
      /a/-: operation 0 (remove) found nothing at this place
    invalid: /a/01: operation 0 (replace) found nothing at this place
      /a/01: operation 0 (replace) found nothing at this place
    invalid: /a/3: operation 0 (add) found 2 items, expected an index up to that or '-'
      /a/3: operation 0 (add) found 2 items, expected an index up to that or '-'
    invalid: /n/x: operation 0 (add) found a plain value around this place, expected an object or array
      /n/x: operation 0 (add) found a plain value around this place, expected an object or array
    invalid: /x/y: operation 0 (add) found nothing around this place, expected an object or array
      /x/y: operation 0 (add) found nothing around this place, expected an object or array
    invalid: /a/1/b: operation 0 (move) would move a value into itself
      /a/1/b: operation 0 (move) would move a value into itself
    invalid: /x: operation 0 (move) would move a value into itself
      /x: operation 0 (move) would move a value into itself
    invalid: /y: operation 0 (copy) found nothing at "/x", where the value should come from
      /y: operation 0 (copy) found nothing at "/x", where the value should come from
    "#);
}

#[test]
fn a_patch_that_is_none_is_told_with_all_its_mistakes() {
    insta::assert_snapshot!(told("{}", r#"{"a":1}"#), @"malformed-json: found an object, expected a JSON patch: an array of operations (RFC 6902)");
    insta::assert_snapshot!(told("{}", r#"[
        1,
        {"path":"/a"},
        {"op":"ad","path":"/a","value":1},
        {"op":"add","path":"a"},
        {"op":"move","path":"/a~2","from":3},
        {"op":true}
    ]"#), @r#"
    malformed-json: the patch is malformed at /0: found the number 1, expected an operation: an object
      /0: found the number 1, expected an operation: an object
      /1/op: found nothing, expected one of add, remove, replace, move, copy, test
      /2/op: found the text "ad", expected one of add, remove, replace, move, copy, test (did you mean "add"?)
      /3/path: found the text "a", which is no JSON pointer: it must be empty or start with '/'
      /3/value: found nothing, expected a value
      /4/path: found the text "/a~2", which is no JSON pointer: it has a '~' that is not followed by '0' or '1'
      /4/from: found the number 3, expected a JSON pointer (RFC 6901)
      /5/path: found nothing, expected a JSON pointer (RFC 6901)
      /5/op: found true, expected one of add, remove, replace, move, copy, test
    "#);
    let many = Value::Array(vec![json!({"op": "remove", "path": "/a"}); OPERATIONS_MAX + 1]);
    insta::assert_snapshot!(read(many).unwrap_err(), @"malformed-json: found 1001 operations, expected at most 1000");
    let wrong = Value::Array(vec![json!(null); OPERATIONS_MAX]);
    assert_eq!(read(wrong).unwrap_err().errors.len(), MISTAKES_MAX);
}

#[test]
fn copies_cannot_explode() {
    let nesting = vec![json!({"op": "copy", "from": "", "path": "/a"}); 70];
    let nesting = apply(json!({"x": 1}), read(Value::Array(nesting)).unwrap()).unwrap_err();
    insta::assert_snapshot!(nesting, @"invalid: /a: operation 63 (copy) would nest 65 levels, expected at most 64");
    let doubling = (0..60)
        .map(|i| json!({"op": "copy", "from": "", "path": if i % 2 == 0 { "/a" } else { "/b" }}))
        .collect();
    let doubling = apply(json!({"x": 1}), read(Value::Array(doubling)).unwrap()).unwrap_err();
    insta::assert_snapshot!(doubling, @"invalid: /a: operation 24 (copy) would make the patch place more than 67108864 bytes");
    let wide = (0..40).map(|i| json!({"op": "copy", "from": "/a", "path": format!("/b/{i}")})).collect();
    let wide =
        apply(json!({"a": "x".repeat(4 << 20), "b": []}), read(Value::Array(wide)).unwrap()).unwrap_err();
    insta::assert_snapshot!(wide, @"invalid: /b/15: operation 15 (copy) would make the patch place more than 67108864 bytes");
}

#[test]
fn additions_cannot_nest_without_end() {
    let nested = value(&format!("{}{}", "[".repeat(60), "]".repeat(60)));
    let place = |count: usize| format!("/a{}", "/0".repeat(count));
    let patch = vec![
        json!({"op": "add", "path": place(0), "value": nested}),
        json!({"op": "add", "path": format!("{}/-", place(59)), "value": nested}),
    ];
    insta::assert_snapshot!(apply(json!({}), read(Value::Array(patch)).unwrap()).unwrap_err(), @"invalid: /a/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0/0…: operation 1 (add) would nest 121 levels, expected at most 64");
}

#[test]
fn a_thousand_insertions_in_front_of_many_items_are_refused() {
    let items: Vec<Value> = vec![Value::Null; 100_000];
    let patch = vec![json!({"op": "add", "path": "/a/0", "value": null}); OPERATIONS_MAX];
    let refused = apply(json!({"a": items}), read(Value::Array(patch)).unwrap()).unwrap_err();
    assert!(refused.detail.ends_with("would make the patch move more than 50000000 values"), "{refused}");
}

fn any_document() -> impl Strategy<Value = Value> {
    let leaf =
        prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), (0..3).prop_map(Value::from)];
    let inner = leaf.prop_recursive(3, 16, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::hash_map("[ab]", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    });
    proptest::collection::hash_map("[ab]", inner, 0..3)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

fn any_operation() -> impl Strategy<Value = Value> {
    let path = || "(/(a|b|0|1|-)){0,3}";
    prop_oneof![
        (path(), any_document()).prop_map(|(path, value)| json!({"op": "add", "path": path, "value": value})),
        (path(), 0..3).prop_map(|(path, value)| json!({"op": "replace", "path": path, "value": value})),
        path().prop_map(|path| json!({"op": "remove", "path": path})),
        // Moving the whole document to itself changes nothing; the other implementation refuses it.
        (path(), path())
            .prop_filter("not both the root", |(from, path)| !(from.is_empty() && path.is_empty()))
            .prop_map(|(from, path)| json!({"op": "move", "from": from, "path": path})),
        (path(), path()).prop_map(|(from, path)| json!({"op": "copy", "from": from, "path": path})),
        (path(), 0..3).prop_map(|(path, value)| json!({"op": "test", "path": path, "value": value})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn results_are_those_of_another_implementation(
        document in any_document(),
        patch in proptest::collection::vec(any_operation(), 1..4),
    ) {
        let patch = Value::Array(patch);
        let theirs: json_patch::Patch = serde_json::from_value(patch.clone()).unwrap();
        let mut expected = document.clone();
        let expected = json_patch::patch_unsafe(&mut expected, &theirs).map(|()| expected);
        let ours = apply(document, read(patch).unwrap());
        match (ours, expected) {
            (Ok(ours), Ok(expected)) => prop_assert_eq!(ours, expected),
            (Err(_), Err(_)) => {}
            (ours, expected) => prop_assert!(false, "{:?} but {:?}", ours, expected),
        }
    }
}
