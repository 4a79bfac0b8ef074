use indexmap::IndexMap;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::spec::{FieldKind, FieldSpec};

fn good(text: &str) -> ModelSpec {
    parse(text, "module.toml").unwrap_or_else(|mistakes| panic!("{}", mistakes.join("\n")))
}

fn bad(text: &str) -> String {
    parse(text, "module.toml").expect_err("must be refused").join("\n")
}

fn plain(kind: FieldKind) -> FieldSpec {
    FieldSpec {
        kind,
        required: false,
        frozen: false,
        unique: false,
        indexed: false,
        default: None,
        min: None,
        max: None,
        pattern: None,
        values: None,
        description: None,
    }
}

#[test]
fn one_line_is_a_whole_model() {
    let spec = good("name = \"todo\"");
    assert_eq!(spec.name.as_str(), "TODO");
    assert_eq!(spec.endpoint, "todos");
    assert_eq!(spec.unknown_fields, UnknownFields::Keep);
    assert_eq!(spec.if_match, IfMatch::Optional);
    assert_eq!((spec.datasource, spec.cache_documents_max, spec.id_field), (None, None, None));
    assert!(spec.fields.is_empty());
}

#[test]
fn every_key_has_its_meaning() {
    let spec = good(
        r#"
        name = "Order"
        endpoint = "orders"
        description = "What was ordered."
        unknown-fields = "refuse"
        id-field = "sku"
        datasource = "memory"
        if-match = "required"
        cache-documents-max = 100
        [fields]
        sku = "text"
        placed = { kind = "timestamp", default = 2026-01-31T09:30:00Z }
        [fields.n]
        kind = "integer"
        required = true
        frozen = true
        unique = true
        indexed = true
        default = 3
        min = 0
        max = 10
        values = [1, 2, 3]
        description = "How many."
        [schema]
        required = ["sku"]
        properties.sku.minLength = 2
        "#,
    );
    assert_eq!(spec.description.as_deref(), Some("What was ordered."));
    assert_eq!(spec.unknown_fields, UnknownFields::Refuse);
    assert_eq!(spec.id_field.as_deref(), Some("sku"));
    assert_eq!(spec.datasource, Some(Datasource::Memory));
    assert_eq!(spec.if_match, IfMatch::Required);
    assert_eq!(spec.cache_documents_max, Some(100));
    assert_eq!(spec.schema, Some(json!({"required": ["sku"], "properties": {"sku": {"minLength": 2}}})));
    assert_eq!(spec.fields.keys().collect::<Vec<_>>(), ["sku", "placed", "n"]);
    assert_eq!(spec.fields["placed"].default, Some(json!("2026-01-31T09:30:00Z")));
    let n = FieldSpec {
        required: true,
        frozen: true,
        unique: true,
        indexed: true,
        default: Some(json!(3)),
        min: Some(0.into()),
        max: Some(10.into()),
        values: Some(vec![json!(1), json!(2), json!(3)]),
        description: Some("How many.".to_owned()),
        ..plain(FieldKind::Integer)
    };
    assert_eq!(spec.fields["n"], n);
}

#[test]
fn every_word_of_a_module_is_named_where_it_is_described() {
    let page = include_str!("../../../../docs/models.md");
    let kinds = fields::KINDS.map(catalog::kind_name);
    let lists: [&[&str]; 5] = [&KEYS, &fields::FIELD_KEYS, &kinds, &mixins::MIXINS, &acl::KEYS];
    for word in lists.into_iter().flatten() {
        let is_named = page.contains(&format!("`{word}`")) || page.contains(&format!("`{word} = "));
        assert!(is_named, "docs/models.md does not name {word}");
    }
}

#[test]
fn mixins_are_another_spelling_and_declare_what_they_name() {
    let spec = good(
        r#"
        name = "todo"
        [fields]
        text = "text"
        [mixins]
        require = "text"
        freeze = ["orderNo"]
        unique = ["email"]
        [mixins.default]
        isComplete = false
        [mixins.range]
        n = { min = 0, max = 1.5 }
        [mixins.pattern]
        email = "^[^@]+@[^@]+$"
        "#,
    );
    let expected = [
        ("text", FieldSpec { required: true, ..plain(FieldKind::Text) }),
        ("orderNo", FieldSpec { frozen: true, ..plain(FieldKind::Any) }),
        (
            "email",
            FieldSpec { unique: true, pattern: Some("^[^@]+@[^@]+$".to_owned()), ..plain(FieldKind::Text) },
        ),
        ("isComplete", FieldSpec { default: Some(json!(false)), ..plain(FieldKind::Any) }),
        (
            "n",
            FieldSpec {
                min: Some(0.into()),
                max: json!(1.5).as_number().cloned(),
                ..plain(FieldKind::Decimal)
            },
        ),
    ];
    let expected: IndexMap<_, _> =
        expected.into_iter().map(|(name, field)| (name.to_owned(), field)).collect();
    assert_eq!(spec.fields, expected);
}

#[test]
fn numbers_are_what_was_written() {
    let spec = good(
        r#"
        name = "price"
        schema.properties.d = { enum = [0.10], minimum = -1e+400 }
        [fields]
        a = { kind = "decimal", default = 0.50, min = 0.10, max = 12345678901234567.89 }
        b = { kind = "decimal", default = 12345678901234567.89, values = [12345678901234567.89, +1_000.0, 1e+400] }
        c = { kind = "integer", default = 0x7fff_ffff_ffff_ffff, min = 9007199254740993, max = 99999999999999999999 }
        d = { default = { deep = [-0.0, 5e+22] } }
        "#,
    );
    let written =
        json!([spec.fields["a"], spec.fields["b"], spec.fields["c"], spec.fields["d"], spec.schema]);
    let text = written.to_string();
    for number in [
        r#""default":0.50,"min":0.10,"max":12345678901234567.89"#,
        r#""default":12345678901234567.89"#,
        r#""values":[12345678901234567.89,1000.0,1e+400]"#,
        r#""default":9223372036854775807,"min":9007199254740993,"max":99999999999999999999"#,
        r#""default":{"deep":[-0.0,5e+22]}"#,
        r#""enum":[0.10],"minimum":-1e+400"#,
    ] {
        assert!(text.contains(number), "{number} is not in {text}");
    }
    let specs = vec![spec];
    assert_eq!(catalog::decode(&catalog::encode(&specs)), Ok(specs));
}

#[test]
fn bounds_are_those_that_were_written() {
    let bad = |default: &str| {
        bad(&format!(
            "name = \"price\"\nfields.a = {{ kind = \"decimal\", min = 0.1, max = 12345678901234567.89, default = {default} }}"
        ))
    };
    insta::assert_snapshot!(bad("12345678901234567.895"), @"module.toml:2: fields.a.default: found 12345678901234567.895, expected at most 12345678901234567.89");
    insta::assert_snapshot!(bad("0.09999999999999999999"), @"module.toml:2: fields.a.default: found 0.09999999999999999999, expected at least 0.1");
    insta::assert_snapshot!(bad("-inf"), @"module.toml:2: fields.a.default: found the number -inf, expected a finite one");
    insta::assert_snapshot!(bad(&"9".repeat(1025)), @"module.toml:2: fields.a.default: found a number of 1025 characters, expected at most 1024");
    insta::assert_snapshot!(bad("0xffffffffffffffffffffffffffffffffffffffff"), @"module.toml:2: fields.a.default: found the number 0xffffffffffffffffffffffffffffffffffffff…, expected a finite one");
}

#[test]
fn a_key_of_very_many_parts_is_refused_without_a_panic() {
    assert!(parse(&format!("name = \"a\"\n{}x = 1\n", "x.".repeat(300_000)), "module.toml").is_err());
}

const FULL_OF_MISTAKES: &str = r#"
    name = 5
    endpoint = "a/b"
    descripton = "x"
    unknown-fields = "kepe"
    id-field = "nope"
    datasource = "mongo"
    if-match = true
    cache-documents-max = -1
    schema = "file.json"
    [fields]
    a = "string"
    b = "txet"
    c = 3
    "d.e" = "text"
    revision = "integer"
    id = "text"
    cached = "memory"
    datasource = "memory"
    [fields.n]
    kind = "integer"
    requierd = true
    unique = "yes"
    min = 5
    max = 4
    pattern = "(a"
    values = 3
    default = 9
    [fields.s]
    kind = "array"
    unique = true
    min = inf
    [fields.t]
    kind = "timestamp"
    max = 9007199254740993
    default = "today"
    [mixins]
    requires = ["a"]
    freeze = [1]
    unique = true
    default = 5
    [mixins.range]
    n = { min = 1, mix = 3 }
    m = 3
    [mixins.pattern]
    b = 4
    "#;

#[test]
fn all_mistakes_are_told_at_once() {
    insta::assert_snapshot!(bad(FULL_OF_MISTAKES), @r#"
    module.toml:2: name: found the number 5, expected a text
    module.toml:3: endpoint: found "a/b", expected 1 to 64 letters, digits, '_' or '-', starting with a letter or digit
    module.toml:4: descripton: found an unknown key, expected one of name, endpoint, description, fields, mixins, schema, unknown-fields, id-field, datasource, if-match, cache-documents-max, acl (did you mean "description"?)
    module.toml:5: unknown-fields: found the text "kepe", expected "keep" or "refuse" (did you mean "keep"?)
    module.toml:6: id-field: found "nope", expected the name of a declared field
    module.toml:7: datasource: found the text "mongo", expected "memory" or "file"
    module.toml:8: if-match: found true, expected "optional" or "required"
    module.toml:9: cache-documents-max: found the number -1, expected a whole number from 1
    module.toml:10: schema: found the text "file.json", expected a table: a JSON Schema
    module.toml:12: fields.a: found the text "string", expected one of text, integer, decimal, boolean, timestamp, object, array, any (did you mean "text"?)
    module.toml:13: fields.b: found the text "txet", expected one of text, integer, decimal, boolean, timestamp, object, array, any (did you mean "text"?)
    module.toml:14: fields.c: found the number 3, expected a kind or a table of rules
    module.toml:15: fields."d.e": found "d.e", expected a name of 1 to 128 bytes: letters, digits, '_', '-' or '$', not starting with a digit or '-', without "__"
    module.toml:16: fields.revision: found a field that the host supplies, expected another name
    module.toml:17: fields.id: found a field that the host supplies, expected another name; for an id of your own declare another field and name it in id-field
    module.toml:18: fields.cached: found the text "memory", expected one of text, integer, decimal, boolean, timestamp, object, array, any
    module.toml:19: fields.datasource: found the text "memory", expected one of text, integer, decimal, boolean, timestamp, object, array, any; as a key of the model it belongs above the first [section]
    module.toml:22: fields.n.requierd: found an unknown key, expected one of kind, required, frozen, unique, indexed, default, min, max, pattern, values, description (did you mean "required"?)
    module.toml:23: fields.n.unique: found the text "yes", expected true or false
    module.toml:24: fields.n.min: found 5, expected at most max = 4
    module.toml:26: fields.n.pattern: found "(a", expected a regular expression: unclosed group
    module.toml:26: fields.n.pattern: found a pattern for the kind integer, expected it for text only
    module.toml:27: fields.n.values: found the number 3, expected a list of allowed values
    module.toml:28: fields.n.default: found 9, expected at most 4
    module.toml:31: fields.s.unique: found true for the kind array, expected it for plain values only
    module.toml:32: fields.s.min: found the number inf, expected a finite one
    module.toml:35: fields.t.max: found a bound for the kind timestamp, expected it for numbers, text and arrays
    module.toml:36: fields.t.default: found the text "today", expected an RFC 3339 time such as 2026-01-31T09:30:00Z
    module.toml:38: mixins.requires: found an unknown mixin, expected one of require, freeze, unique, default, range, pattern (did you mean "require"?)
    module.toml:39: mixins.freeze: found the number 1 in the list, expected a field name
    module.toml:40: mixins.unique: found true, expected a list of field names
    module.toml:41: mixins.default: found the number 5, expected a table of values by field
    module.toml:43: mixins.range.n.min: found it a second time, expected it either here or in [fields]
    module.toml:43: mixins.range.n.mix: found an unknown key, expected min or max
    module.toml:44: mixins.range.m: found the number 3, expected a table such as { min = 0, max = 10 }
    module.toml:46: mixins.pattern.b: found the number 4, expected a text
    "#);
}

#[test]
fn a_file_that_is_not_toml_is_told_with_its_place() {
    insta::assert_snapshot!(bad("name = \"a\"\nfields = {\n x = \"é\" y\n}"), @"module.toml:3:10: not valid TOML: missing comma between key-value pairs, expected `,`");
    insta::assert_snapshot!(bad("name = \"a\"\nname = \"b\""), @"module.toml:2:1: not valid TOML: duplicate key");
    insta::assert_snapshot!(bad(""), @"module.toml: name: found nothing, expected the name of the model");
    insta::assert_snapshot!(bad(&" ".repeat(MODULE_BYTES_MAX + 1)), @"module.toml: file: found 1048577 bytes, expected at most 1048576");
}

#[test]
fn a_mistake_is_told_with_the_line_that_has_to_be_changed() {
    let text = r#"
        [fields]
        one = { kind = "integer", min = 9, max = 8 }
        fields = 3
        [fields."t w o"]
        required = true
        pattern = "(a"
        [fields.three]
        kind = "text"
        [mixins]
        require = [
            "one",
            "f.o.u.r",
        ]
        range.five = { min = 2, max = 1 }
        [mixins.pattern]
        three = "(b"
        [[acl]]
        subject = "role"
        [[acl]]
        subject = "anyone"
        "b.d" = 1
        "#;
    insta::assert_snapshot!(bad(text), @r#"
    module.toml: name: found nothing, expected the name of the model
    module.toml:3: fields.one.min: found 9, expected at most max = 8
    module.toml:4: fields.fields: found the number 3, expected a kind or a table of rules; as a key of the model it belongs above the first [section]
    module.toml:5: fields."t w o": found "t w o", expected a name of 1 to 128 bytes: letters, digits, '_', '-' or '$', not starting with a digit or '-', without "__"
    module.toml:7: fields."t w o".pattern: found "(a", expected a regular expression: unclosed group
    module.toml:13: fields."f.o.u.r": found "f.o.u.r", expected a name of 1 to 128 bytes: letters, digits, '_', '-' or '$', not starting with a digit or '-', without "__"
    module.toml:15: fields.five.min: found 2, expected at most max = 1
    module.toml:17: fields.three.pattern: found "(b", expected a regular expression: unclosed group
    module.toml:18: acl.0.name: found nothing, expected a name
    module.toml:18: acl.0: found neither allow nor deny, expected at least one of them
    module.toml:22: acl.1."b.d": found an unknown key, expected one of subject, name, allow, deny
    "#);
    let far = format!("name = \"a\"{}fields.x = \"int\"\n", "\r\n".repeat(1000));
    insta::assert_snapshot!(bad(&far), @r#"module.toml:1001: fields.x: found the text "int", expected one of text, integer, decimal, boolean, timestamp, object, array, any (did you mean "integer"?)"#);
}

#[test]
fn mistakes_of_a_schema_are_told_with_their_place() {
    insta::assert_snapshot!(bad("name = \"a\"\n[schema.properties.a]\ntype = \"strnig\""), @"module.toml:2: schema: found a mistake at /properties/a/type, expected JSON Schema 2020-12: value is not valid under any of the schemas listed in the 'anyOf' keyword");
    insta::assert_snapshot!(bad("name = \"a\"\n[schema]\n\"$ref\" = \"https://example.org/schema.json\""), @"module.toml:2: schema: found a mistake at the top, expected JSON Schema 2020-12: Resource 'https://example.org/schema.json' is not present in a registry and retrieving it failed: Retrieval is disabled, cannot fetch https://example.org/schema.json");
    insta::assert_snapshot!(bad("name = \"a\"\n[schema.properties.a]\npattern = \"(?=a)\""), @r#"module.toml:2: schema: found a mistake at /properties/a/pattern, expected JSON Schema 2020-12: value is not a "regex""#);
    insta::assert_snapshot!(bad("name = \"a\"\n[schema.properties.a]\nformat = \"dat-time\""), @"module.toml:2: schema: found a mistake at /properties/a/format, expected JSON Schema 2020-12: Unknown format: 'dat-time'. Adjust configuration to ignore unrecognized formats");
    insta::assert_snapshot!(bad("name = \"a\"\n[schema]\n\"$serde_json::private::Number\" = \"1\""), @r#"module.toml:2: schema: found the reserved name "$serde_json::private::Number", expected another"#);
}

proptest! {
    #[test]
    fn what_is_read_survives_the_bundle(
        kind in 0..8_usize,
        flags in any::<[bool; 4]>(),
        min in proptest::option::of(-1000..1000_i64),
        name in "[a-z]{1,8}",
    ) {
        let kind = ["text", "integer", "decimal", "boolean", "timestamp", "object", "array", "any"][kind];
        let mut text = format!("name = \"{name}\"\n[fields.x]\nkind = \"{kind}\"\n");
        for (flag, on) in ["required", "frozen", "unique", "indexed"].iter().zip(flags) {
            text += &format!("{flag} = {on}\n");
        }
        if let Some(min) = min {
            text += &format!("min = {min}.25\n");
        }
        if let Ok(spec) = parse(&text, "module.toml") {
            let specs = vec![spec];
            prop_assert_eq!(catalog::decode(&catalog::encode(&specs)), Ok(specs));
        }
    }

    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in r#"(name|fields|mixins|schema|x|=|\[|\]|\{|\}|"|'|\.|,|1|\n| ){0,40}"#) {
        let _ = parse(&text, "module.toml");
    }
}
