mod stored;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    catalog::Catalog,
    json::{self, tests::any_json},
    module,
};

const NOW: u64 = 1_767_225_600_000;

fn compile(toml: &str) -> std::sync::Arc<Model> {
    let spec =
        module::parse(toml, "module.toml").unwrap_or_else(|mistakes| panic!("{}", mistakes.join("\n")));
    Catalog::build(vec![spec]).unwrap().models()[0].clone()
}

fn todo() -> std::sync::Arc<Model> {
    compile("name = \"todo\"")
}

fn value(text: &str) -> Value {
    json::parse(text.as_bytes()).unwrap()
}

fn stamp() -> Stamp {
    Stamp { now_ms: NOW, fresh_id: "fresh".to_owned() }
}

fn made(model: &Model, input: &str) -> Draft {
    create(model, value(input), &stamp()).unwrap()
}

fn text(draft: &Draft) -> &str {
    std::str::from_utf8(&draft.body).unwrap()
}

fn changed(result: Result<Evolved, Problem>) -> Draft {
    match result.unwrap() {
        Evolved::Changed(draft) => draft,
        Evolved::Unchanged => panic!("expected a change"),
    }
}

fn told(problem: &Problem) -> String {
    let errors: Vec<String> =
        problem.errors.iter().map(|e| format!("\n  {}: {}", e.path, e.message)).collect();
    format!("{problem}{}", errors.concat())
}

fn refused<T: std::fmt::Debug>(result: Result<T, Problem>) -> String {
    told(&result.expect_err("must be refused"))
}

fn order() -> std::sync::Arc<Model> {
    compile(
        r#"
        name = "order"
        unknown-fields = "refuse"
        [fields]
        note = { kind = "text", min = 2, max = 5 }
        n = { kind = "integer", min = 0, max = 10 }
        price = { kind = "decimal", max = 9007199254740992.0 }
        open = { kind = "boolean", default = true }
        at = "timestamp"
        address = "object"
        items = { kind = "array", max = 2 }
        state = { values = ["NEW", "DONE", 1.5] }
        orderNo = { kind = "any", frozen = true }
        email = { pattern = "email", unique = true }
        [mixins]
        require = ["note", "email"]
        "#,
    )
}

const GOOD_ORDER: &str = r#"{"note":"abc","email":"a@b.example"}"#;

#[test]
fn a_document_is_stored_as_it_is_answered() {
    let draft = made(&todo(), r#"{"z": 1E5, "a": [ {"b": -0} ], "t": "\u0041/\n", "big": 1e400, "n": null}"#);
    assert_eq!((draft.id.as_str(), draft.revision), ("fresh", 1));
    insta::assert_snapshot!(text(&draft), @r#"{"z":1E5,"a":[{"b":-0}],"t":"A/\n","big":1e400,"n":null,"id":"fresh","modelName":"TODO","createTime":"2026-01-01T00:00:00.000Z","updateTime":"2026-01-01T00:00:00.000Z","revision":1}"#);
    assert_eq!(
        text(&made(&todo(), "{}")),
        r#"{"id":"fresh","modelName":"TODO","createTime":"2026-01-01T00:00:00.000Z","updateTime":"2026-01-01T00:00:00.000Z","revision":1}"#
    );
}

#[test]
fn a_client_may_choose_the_id() {
    assert_eq!(made(&todo(), r#"{"id":"a b.é"}"#).id, "a b.é");
    assert_eq!(made(&todo(), r#"{"id":null}"#).id, "fresh");
    let long = "x".repeat(ID_BYTES_MAX);
    assert_eq!(made(&todo(), &format!("{{\"id\":\"{long}\"}}")).id, long);
    let bad =
        ["\"\"", "\".\"", "\"..\"", "\"a/b\"", "\"a?\"", "\"#\"", "\"a\\u0000b\"", "\"\\u0085\"", "7", "[]"];
    let long = format!("\"{long}x\"");
    let said: Vec<String> = bad
        .into_iter()
        .chain([long.as_str()])
        .map(|id| create(&todo(), value(&format!("{{\"id\":{id}}}")), &stamp()).unwrap_err().detail)
        .collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    /id: found an empty text, expected an id
    /id: found ".", expected an id that is no relative path
    /id: found "..", expected an id that is no relative path
    /id: found the character '/', expected an id without it
    /id: found the character '?', expected an id without it
    /id: found the character '#', expected an id without it
    /id: found the character '\0', expected an id without it
    /id: found the character '\u{85}', expected an id without it
    /id: found the number 7, expected a text
    /id: found an empty array, expected a text
    /id: found 257 bytes, expected at most 256 for an id
    "#);
}

#[test]
fn an_id_that_comes_with_the_stamp_follows_the_same_rules() {
    let long = "x".repeat(ID_BYTES_MAX + 1);
    let said: Vec<String> = ["", "..", "a/b", "a\n", &long]
        .into_iter()
        .map(|id| refused(create(&todo(), json!({}), &Stamp { now_ms: NOW, fresh_id: id.to_owned() })))
        .collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    invalid: /id: found an empty text, expected an id
      /id: found an empty text, expected an id
    invalid: /id: found "..", expected an id that is no relative path
      /id: found "..", expected an id that is no relative path
    invalid: /id: found the character '/', expected an id without it
      /id: found the character '/', expected an id without it
    invalid: /id: found the character '\n', expected an id without it
      /id: found the character '\n', expected an id without it
    invalid: /id: found 257 bytes, expected at most 256 for an id
      /id: found 257 bytes, expected at most 256 for an id
    "#);
}

#[test]
fn a_declared_field_may_be_the_id() {
    let by_sku = compile("name = \"item\"\nid-field = \"sku\"\n[fields]\nsku = \"text\"");
    assert_eq!(made(&by_sku, r#"{"sku":"A-1"}"#).id, "A-1");
    assert_eq!(made(&by_sku, r#"{"sku":"A-1","id":"A-1"}"#).id, "A-1");
    insta::assert_snapshot!(refused(create(&by_sku, json!({"sku": "A-1", "id": "B"}), &stamp())), @r#"
    invalid: /id: found "B", expected "A-1", the value of sku
      /id: found "B", expected "A-1", the value of sku
    "#);
    insta::assert_snapshot!(refused(create(&by_sku, json!({"sku": "a/b"}), &stamp())), @r"
    invalid: /sku: found the character '/', expected an id without it
      /sku: found the character '/', expected an id without it
    ");
    insta::assert_snapshot!(refused(create(&by_sku, json!({"id": "B"}), &stamp())), @r"
    invalid: /sku: is required: it is the id of the document
      /sku: is required: it is the id of the document
    ");
    insta::assert_snapshot!(refused(create(&by_sku, json!({"sku": 5}), &stamp())), @r"
    invalid: /sku: found the number 5, expected a text
      /sku: found the number 5, expected a text
    ");
    let item = made(&by_sku, r#"{"sku":"A-1"}"#);
    insta::assert_snapshot!(refused(replace(&by_sku, &item.body, json!({"sku": "A-2"}), NOW)), @r"
    invalid: /sku: is frozen: once set it cannot be changed or removed
      /sku: is frozen: once set it cannot be changed or removed
    ");
    insta::assert_snapshot!(refused(merge(&by_sku, &item.body, json!({"sku": null}), NOW)), @r"
    invalid: /sku: is frozen: once set it cannot be changed or removed
      /sku: is frozen: once set it cannot be changed or removed
    ");

    let by_number = compile("name = \"item\"\nid-field = \"no\"\n[fields]\nno = \"integer\"");
    assert_eq!(made(&by_number, r#"{"no":9223372036854775808}"#).id, "9223372036854775808");
    assert_eq!(made(&by_number, r#"{"no":-0}"#).id, "0");
    insta::assert_snapshot!(refused(create(&by_number, json!({"no": 1.5}), &stamp())), @r"
    invalid: /no: found the number 1.5, expected a whole number without fraction or exponent
      /no: found the number 1.5, expected a whole number without fraction or exponent
    ");
}

#[test]
fn host_fields_come_back_unchanged_or_not_at_all() {
    let (model, first) =
        (todo(), made(&todo(), r#"{"a":1,"revision":7,"createTime":"x","modelName":"TODO"}"#));
    assert!(text(&first).contains("\"revision\":1"), "{}", text(&first));
    let mut sent = value(text(&first));
    assert_eq!(replace(&model, &first.body, sent.clone(), NOW), Ok(Evolved::Unchanged));
    assert_eq!(merge(&model, &first.body, sent.clone(), NOW), Ok(Evolved::Unchanged));
    sent["a"] = json!(2);
    sent["revision"] = value("1.0");
    assert_eq!(changed(replace(&model, &first.body, sent, NOW + 1)).revision, 2);

    let other =
        json!({"id": "b", "modelName": "X", "createTime": 5, "updateTime": "2026", "revision": 2, "a": 1});
    insta::assert_snapshot!(refused(replace(&model, &first.body, other, NOW)), @r#"
    invalid: 5 mistakes, the first: /id: found the text "b", expected "fresh" or nothing: the host keeps this field
      /id: found the text "b", expected "fresh" or nothing: the host keeps this field
      /modelName: found the text "X", expected "TODO" or nothing: the host keeps this field
      /createTime: found the number 5, expected "2026-01-01T00:00:00.000Z" or nothing: the host keeps this field
      /updateTime: found the text "2026", expected "2026-01-01T00:00:00.000Z" or nothing: the host keeps this field
      /revision: found the number 2, expected 1 or nothing: the host keeps this field
    "#);
    insta::assert_snapshot!(refused(merge(&model, &first.body, json!({"id": null, "b": 1}), NOW)), @r#"
    invalid: /id: found null, expected "fresh" or nothing: the host keeps this field
      /id: found null, expected "fresh" or nothing: the host keeps this field
    "#);
    let patch = json!([{"op": "remove", "path": "/id"}, {"op": "replace", "path": "/revision", "value": 9}]);
    insta::assert_snapshot!(refused(super::patch(&model, &first.body, patch, NOW)), @r"
    invalid: 2 mistakes, the first: /id: found nothing: the host keeps this field
      /id: found nothing: the host keeps this field
      /revision: found the number 9, expected 1 or nothing: the host keeps this field
    ");
    insta::assert_snapshot!(refused(create(&model, json!({"modelName": "X"}), &stamp())), @r#"
    invalid: /modelName: found the text "X", expected "TODO" or nothing: the host keeps this field
      /modelName: found the text "X", expected "TODO" or nothing: the host keeps this field
    "#);
}

#[test]
fn updates_count_and_keep_what_they_do_not_touch() {
    let model = todo();
    let first = made(&model, r#"{"a":1E5,"b":{"x":-0,"y":1},"c":0.10}"#);
    let second = changed(merge(&model, &first.body, value(r#"{"b":{"y":null,"z":2.50},"d":1}"#), NOW + 1000));
    insta::assert_snapshot!(text(&second), @r#"{"a":1E5,"b":{"x":-0,"z":2.50},"c":0.10,"d":1,"id":"fresh","modelName":"TODO","createTime":"2026-01-01T00:00:00.000Z","updateTime":"2026-01-01T00:00:01.000Z","revision":2}"#);
    let patch = value(
        r#"[{"op":"test","path":"/revision","value":2},{"op":"remove","path":"/a"},{"op":"add","path":"/e","value":5}]"#,
    );
    let third = changed(super::patch(&model, &second.body, patch, NOW + 2000));
    insta::assert_snapshot!(text(&third), @r#"{"b":{"x":-0,"z":2.50},"c":0.10,"d":1,"e":5,"id":"fresh","modelName":"TODO","createTime":"2026-01-01T00:00:00.000Z","updateTime":"2026-01-01T00:00:02.000Z","revision":3}"#);
    let fourth = changed(replace(&model, &third.body, value(r#"{"only":1}"#), NOW + 3000));
    insta::assert_snapshot!(text(&fourth), @r#"{"only":1,"id":"fresh","modelName":"TODO","createTime":"2026-01-01T00:00:00.000Z","updateTime":"2026-01-01T00:00:03.000Z","revision":4}"#);
    assert_eq!(fourth.id, "fresh");
}

#[test]
fn an_update_that_changes_nothing_makes_no_revision() {
    let model = todo();
    let first = made(&model, r#"{"a":{"x":1,"y":2},"b":3}"#);
    assert_eq!(
        replace(&model, &first.body, value(r#"{"b":3,"a":{"y":2,"x":1}}"#), NOW),
        Ok(Evolved::Unchanged)
    );
    assert_eq!(merge(&model, &first.body, value(r#"{"c":null,"a":{"x":1}}"#), NOW), Ok(Evolved::Unchanged));
    assert_eq!(super::patch(&model, &first.body, json!([]), NOW), Ok(Evolved::Unchanged));
    let respelt = changed(replace(&model, &first.body, value(r#"{"b":3.0,"a":{"y":2,"x":1}}"#), NOW));
    assert!(text(&respelt).starts_with(r#"{"b":3.0,"#), "{}", text(&respelt));
}

#[test]
fn a_clock_that_was_set_back_does_not_make_a_document_older() {
    let model = todo();
    let first = made(&model, "{}");
    let second = changed(merge(&model, &first.body, json!({"a": 1}), NOW - 60_000));
    assert!(text(&second).contains(r#""updateTime":"2026-01-01T00:00:00.000Z""#));
}

#[test]
fn every_mistake_is_told_at_once_with_its_place() {
    let bad = r#"{
        "note":"x", "n":11, "price":9007199254740993, "open":"yes", "at":"today", "address":[], "items":[1,2,3],
        "state":"OLD", "email":"nobody", "emial":1, "a/b~c":2
    }"#;
    insta::assert_snapshot!(refused(create(&order(), value(bad), &stamp())), @r#"
    invalid: 11 mistakes, the first: /note: found length 1, expected at least 2
      /note: found length 1, expected at least 2
      /n: found 11, expected at most 10
      /price: found 9007199254740993, expected at most 9007199254740992.0
      /open: found the text "yes", expected true or false
      /at: found the text "today", expected an RFC 3339 time such as 2026-01-31T09:30:00Z
      /address: found an empty array, expected an object
      /items: found length 3, expected at most 2
      /state: found the text "OLD", expected one of "NEW", "DONE", 1.5
      /email: found a text of another form, expected an email address
      /emial: "emial" is not a field of this model (did you mean "email"?)
      /a~1b~0c: "a/b~c" is not a field of this model
    "#);
    insta::assert_snapshot!(refused(create(&order(), value(r#"{"n":1.0,"price":"1","note":null}"#), &stamp())), @r#"
    invalid: 4 mistakes, the first: /note: is required
      /note: is required
      /n: found the number 1.0, expected a whole number without fraction or exponent
      /price: found the text "1", expected a number
      /email: is required
    "#);
    insta::assert_snapshot!(refused(create(&order(), value("[1]"), &stamp())), @r"
    invalid: the document: found an array, expected an object
      : found an array, expected an object
    ");
    insta::assert_snapshot!(refused(merge(&order(), &made(&order(), GOOD_ORDER).body, value("5"), NOW)), @r"
    invalid: the document: found the number 5, expected an object
      : found the number 5, expected an object
    ");
}

#[test]
fn a_million_mistakes_are_told_shortly() {
    let mut input = value(GOOD_ORDER);
    for index in 0..2000 {
        input[format!("unknown{index}")] = json!(1);
    }
    let problem = create(&order(), input, &stamp()).unwrap_err();
    assert_eq!(problem.errors.len(), mistakes::MISTAKES_MAX);
    insta::assert_snapshot!(problem.detail, @r#"more than 100 mistakes, the first: /unknown0: "unknown0" is not a field of this model"#);
}

#[test]
fn what_follows_the_rules_is_taken() {
    let input = r#"{
        "note":"äöüäö", "n":10, "price":9007199254740992.000, "open":false, "at":"2026-01-31T09:30:00+01:00",
        "address":{}, "items":[], "state":15e-1, "email":"a@b.example", "orderNo":null
    }"#;
    let first = made(&order(), input);
    assert!(text(&first).contains("\"state\":15e-1"));
    assert!(text(&made(&order(), GOOD_ORDER)).contains("\"open\":true"), "the default is set");
    let without = changed(replace(&order(), &first.body, value(GOOD_ORDER), NOW));
    assert!(!text(&without).contains("open"), "defaults are for new documents");
}

#[test]
fn a_frozen_field_is_set_once() {
    let model = order();
    let first = made(&model, GOOD_ORDER);
    let second = changed(merge(&model, &first.body, value(r#"{"orderNo":1.0}"#), NOW));
    insta::assert_snapshot!(refused(merge(&model, &second.body, json!({"orderNo": 2}), NOW)), @r"
    invalid: /orderNo: is frozen: once set it cannot be changed or removed
      /orderNo: is frozen: once set it cannot be changed or removed
    ");
    insta::assert_snapshot!(refused(replace(&model, &second.body, value(GOOD_ORDER), NOW)), @r"
    invalid: /orderNo: is frozen: once set it cannot be changed or removed
      /orderNo: is frozen: once set it cannot be changed or removed
    ");
    assert_eq!(changed(merge(&model, &second.body, json!({"orderNo": 1, "n": 1}), NOW)).revision, 3);
}

#[test]
fn unique_values_are_equal_exactly_when_the_values_are() {
    let model = compile("name = \"a\"\n[mixins]\nunique = [\"u\", \"v\"]");
    let unique = |input: &str| unique_values(&model, &made(&model, input).body).unwrap();
    assert_eq!(unique(r#"{"x":{"u":1},"v":null}"#), []);
    assert_eq!(unique(r#"{"u":1.0,"v":"\u0041"}"#), unique(r#"{"u":10e-1,"v":"A"}"#));
    for (left, right) in
        [("1", "\"1\""), ("0.1", "0.10000000000000000001"), ("true", "\"true\""), ("[1]", "[1,1]")]
    {
        let unique = |value: &str| unique(&format!("{{\"u\":{value}}}"));
        assert_ne!(unique(left), unique(right));
        assert_eq!(unique(left).len(), 1);
    }
    assert_eq!(unique_values(&todo(), b"anything, for nothing is unique"), Ok(Vec::new()));
    assert!(unique_values(&model, b"no object").is_err());
    assert!(unique_values(&model, b"{\"u\":01}").is_err());
    let of_bytes = |count: usize| json!({"u": "\"".repeat(count)});
    create(&model, of_bytes(unique::UNIQUE_BYTES_MAX), &stamp()).unwrap();
    insta::assert_snapshot!(refused(create(&model, of_bytes(unique::UNIQUE_BYTES_MAX + 1), &stamp())), @r"
    invalid: /u: found 1025 bytes, expected at most 1024 in a unique field
      /u: found 1025 bytes, expected at most 1024 in a unique field
    ");
}

#[test]
fn a_schema_says_what_fields_cannot() {
    let model = compile(
        r#"
        name = "a"
        [schema]
        required = ["x"]
        additionalProperties = false
        [schema.properties]
        x = { type = "array", items = { type = "object", properties = { p = { multipleOf = 0.5 } } }, uniqueItems = true }
        when = { format = "date-time" }
        word = { pattern = "^(a+)+$" }
        n = { type = "integer", minimum = 0, enum = [1, 2, 3] }
        "#,
    );
    assert_eq!(made(&model, r#"{"x":[],"id":"own"}"#).id, "own", "host fields are not the schema's");
    let bad = r#"{"x":[{"p":1.25},{},{}],"when":"today","word":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!","n":-1,"other":1}"#;
    insta::assert_snapshot!(refused(create(&model, value(bad), &stamp())), @r#"
    invalid: 7 mistakes, the first: /x: the value has non-unique elements
      /x: the value has non-unique elements
      /x/0/p: the value is not a multiple of 0.5
      /when: the value is not a "date-time"
      /word: the value does not match "^(a+)+$"
      /n: the value is not one of 1, 2 or 3
      /n: the value is less than the minimum of 0
      : Additional properties are not allowed ('other' was unexpected)
    "#);
    insta::assert_snapshot!(refused(create(&model, json!({}), &stamp())), @r#"
    invalid: the document: "x" is a required property
      : "x" is a required property
    "#);
}

#[test]
fn a_schema_survives_numbers_of_any_size() {
    let model = compile(
        r#"
        name = "a"
        [schema.properties]
        a = { type = "integer", minimum = 1, exclusiveMaximum = 1e300, multipleOf = 7 }
        b = { enum = [1, 0.5, 1e300], multipleOf = 0.3 }
        c = { uniqueItems = true, const = 5 }
        "#,
    );
    let numbers =
        ["1e400", "-1e400", "1e-400", "1e999999999999", "-0", "0.0", "18446744073709551616", "1E5", "5.000"];
    let long = format!("0.{}1", "0".repeat(1000));
    for number in numbers.iter().copied().chain([long.as_str()]) {
        for document in [
            format!("{{\"a\":{number}}}"),
            format!("{{\"b\":{number}}}"),
            format!("{{\"c\":[{number},1e400,{number},1,1.0,1e-400]}}"),
            format!("{{\"c\":{number}}}"),
        ] {
            let _ = create(&model, value(&document), &stamp());
        }
    }
    let taken = |document: &str| create(&model, value(document), &stamp()).is_ok();
    assert!(taken(r#"{"a":70e0,"c":5.000}"#) && taken(r#"{"a":18446744073709551621}"#));
    assert!(!taken(r#"{"a":18446744073709551620}"#));
    assert!(
        !taken(r#"{"a":1e400}"#) && !taken(r#"{"b":1e400}"#) && !taken(r#"{"c":5.0000000000000000000001}"#)
    );
}

#[test]
fn a_document_cannot_outgrow_its_bound() {
    let model = todo();
    let first = made(&model, &format!("{{\"a\":\"{}\"}}", "x".repeat(DOCUMENT_BYTES_MAX - 1000)));
    let problem = merge(&model, &first.body, json!({"b": "x".repeat(2000)}), NOW).unwrap_err();
    assert_eq!(problem.code, ProblemCode::BodyTooLarge);
    insta::assert_snapshot!(problem.detail, @"found a document of 16778356 bytes, expected at most 16777216");
}

#[test]
fn the_deepest_default_can_be_read_again() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let text =
        |depth| format!("name = \"a\"\n[fields]\nx = {{ kind = \"any\", default = {} }}", nested(depth));
    let first = made(&compile(&text(63)), "{}");
    assert_eq!(changed(merge(&todo(), &first.body, json!({"y": 1}), NOW)).revision, 2);
    let refused = module::parse(&text(64), "module.toml").unwrap_err().join("\n");
    insta::assert_snapshot!(refused, @"module.toml:3: fields.x.default: found level 64, expected at most 63");
}

#[test]
fn a_damaged_document_is_a_defect_of_the_host() {
    for damaged in ["", "[]", "{}", r#"{"id":"a","createTime":"b","updateTime":"c","revision":-1}"#] {
        let problem = merge(&todo(), damaged.as_bytes(), json!({}), NOW).unwrap_err();
        assert_eq!(problem.code, ProblemCode::Internal, "{problem}");
    }
}

proptest! {
    #[test]
    fn a_schema_judges_anything_without_a_panic(left in any_json(), right in any_json()) {
        let model = compile(
            r#"
            name = "a"
            [schema.properties]
            a = { enum = [1, "x", 1e300], multipleOf = 0.3, minimum = -1e300, items = { type = "integer" } }
            b = { const = 5, uniqueItems = true, maximum = 0.1, multipleOf = 3, format = "email", maxLength = 3 }
            "#,
        );
        for (left, right) in [(&left, &right), (&right, &left)] {
            let _ = create(&model, value(&format!("{{\"a\":{left},\"b\":[{left},{right},1,1e400]}}")), &stamp());
            let _ = create(&model, value(&format!("{{\"b\":{left}}}")), &stamp());
        }
    }
}

/// An object with any properties but those of the host.
fn any_object() -> impl Strategy<Value = String> {
    proptest::collection::btree_map("[a-cé\"]{0,3}", any_json(), 0..5).prop_map(|members| {
        let members: Vec<String> =
            members.iter().map(|(name, value)| format!("{}:{value}", Value::from(&**name))).collect();
        format!("{{{}}}", members.join(","))
    })
}

fn without_host_fields(body: &[u8]) -> Value {
    let mut members = object(json::parse(body).unwrap()).unwrap();
    for name in HOST_FIELDS {
        assert!(members.shift_remove(name).is_some(), "{name}");
    }
    Value::Object(members)
}

proptest! {
    #[test]
    fn what_is_created_is_read_back_as_written(input in any_object()) {
        let draft = made(&todo(), &input);
        // As text, so that the order and the spelling of numbers count.
        prop_assert_eq!(without_host_fields(&draft.body).to_string(), value(&input).to_string());
        prop_assert_eq!(json::parse(&draft.body).unwrap().to_string(), text(&draft));
    }

    #[test]
    fn updates_lose_nothing_they_do_not_name(input in any_object(), patch in any_object()) {
        let model = todo();
        let first = made(&model, &input);
        let (before, patch) = (value(&input), value(&patch));
        let after = match merge(&model, &first.body, patch.clone(), NOW).unwrap() {
            Evolved::Changed(draft) => without_host_fields(&draft.body),
            Evolved::Unchanged => before.clone(),
        };
        for (name, value) in before.as_object().unwrap() {
            if patch.get(name).is_none() {
                prop_assert_eq!(after[name].to_string(), value.to_string());
            }
        }
        let whole = json!([{"op": "add", "path": "/added", "value": 1}]);
        let added = changed(super::patch(&model, &first.body, whole, NOW));
        let mut expected = before;
        expected["added"] = json!(1);
        prop_assert_eq!(without_host_fields(&added.body).to_string(), expected.to_string());
        prop_assert_eq!((added.revision, added.id), (2, first.id));
    }

    #[test]
    fn replacing_makes_exactly_the_input(input in any_object(), other in any_object()) {
        let model = todo();
        let first = made(&model, &input);
        match replace(&model, &first.body, value(&other), NOW).unwrap() {
            Evolved::Changed(draft) => {
                prop_assert_eq!(without_host_fields(&draft.body).to_string(), value(&other).to_string());
            }
            Evolved::Unchanged => prop_assert_eq!(value(&input), value(&other)),
        }
    }

    #[test]
    fn unique_values_are_found_behind_anything(input in any_object(), number in -1000..1000_i64) {
        let model = compile("name = \"a\"\n[mixins]\nunique = [\"u\"]");
        let mut document = value(&input);
        document["u"] = json!(number);
        let draft = create(&model, document, &stamp()).unwrap();
        let expected = unique_values(&model, &made(&model, &format!("{{\"u\":{number}.0}}")).body).unwrap();
        prop_assert_eq!(unique_values(&model, &draft.body), Ok(expected));
    }
}

#[test]
fn an_update_says_what_it_changes_and_that_leads_from_the_old_version_to_the_new() {
    let model = compile("name = \"todo\"\n[fields]\ntext = \"text\"\n");
    let first = made(&model, r#"{"text":"a","n":{"x":1,"y":2},"gone":true}"#);
    assert_eq!(first.changes, None);
    let later = NOW + 1000;
    let updates = [
        changed(merge(&model, &first.body, value(r#"{"n":{"x":3},"gone":null}"#), later)),
        changed(replace(&model, &first.body, value(r#"{"text":"a","m":[1]}"#), later)),
        changed(patch(&model, &first.body, value(r#"[{"op":"add","path":"/n/z","value":1e2}]"#), NOW)),
    ];
    let changes =
        updates.each_ref().map(|draft| std::str::from_utf8(draft.changes.as_ref().unwrap()).unwrap());
    insta::assert_snapshot!(changes.join("\n"), @r#"
    {"n":{"x":3},"gone":null,"updateTime":"2026-01-01T00:00:01.000Z","revision":2}
    {"m":[1],"n":null,"gone":null,"updateTime":"2026-01-01T00:00:01.000Z","revision":2}
    {"n":{"z":1e2},"revision":2}
    "#);
    for (draft, changes) in updates.iter().zip(changes) {
        let (Value::Object(mut old), Value::Object(patch)) = (value(text(&first)), value(changes)) else {
            panic!("documents and merge patches are objects")
        };
        super::merge::merge(&mut old, patch);
        assert_eq!(Value::Object(old), value(text(draft)));
    }
}
