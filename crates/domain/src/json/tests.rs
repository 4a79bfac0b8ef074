use proptest::prelude::*;

use super::*;

fn detail(input: &[u8]) -> String {
    let problem = parse(input).expect_err("must be refused");
    assert_eq!(problem.code, ProblemCode::MalformedJson);
    problem.detail
}

fn nested(depth: usize) -> String {
    "[".repeat(depth) + &"]".repeat(depth)
}

#[test]
fn mistakes_are_named_with_their_place() {
    let inputs = [
        "",
        "  ",
        "{",
        "{\"a\": 1,}",
        "{\"a\" 1}",
        "{a: 1}",
        "{\"a\": 1\n,\n \"a\": 2}",
        "[1 2]",
        "[1,]",
        "{} {}",
        "\"é\u{1}\"",
        "\"open",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "nul",
        "True",
        "01",
        "-",
        "1.",
        "1e",
        ".5",
        "+1",
        "NaN",
        "\u{feff}{}",
        "{\"$serde_json::private::Number\": \"1\"}",
    ];
    let said: Vec<String> =
        inputs.iter().map(|input| format!("{input:?}: {}", detail(input.as_bytes()))).collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    "": line 1, column 1: found the end, expected a value
    "  ": line 1, column 3: found the end, expected a value
    "{": line 1, column 2: found the end, expected a property name in double quotes
    "{\"a\": 1,}": line 1, column 9: found '}', expected a property name in double quotes
    "{\"a\" 1}": line 1, column 6: found '1', expected ':' after the property name
    "{a: 1}": line 1, column 2: found 'a', expected a property name in double quotes
    "{\"a\": 1\n,\n \"a\": 2}": line 3, column 2: found the property "a" a second time, expected it once
    "[1 2]": line 1, column 4: found '2', expected ',' or ']'
    "[1,]": line 1, column 4: found ']', expected a value
    "{} {}": line 1, column 4: found '{', expected the end of the input
    "\"é\u{1}\"": line 1, column 3: found '\u{1}', expected an escape instead of a control character
    "\"open": line 1, column 6: found the end, expected '"' at the end of the text
    "\"\\x\"": line 1, column 3: found 'x', expected one of " \ / b f n r t u after a backslash
    "\"\\u12g4\"": line 1, column 6: found 'g', expected four hexadecimal digits
    "\"\\ud800\"": line 1, column 2: found a high surrogate alone, expected a surrogate pair
    "\"\\ud800\\u0041\"": line 1, column 2: found a high surrogate alone, expected a surrogate pair
    "\"\\udc00\"": line 1, column 2: found a low surrogate alone, expected a surrogate pair
    "nul": line 1, column 1: found an unknown word, expected null
    "True": line 1, column 1: found 'T', expected a value
    "01": line 1, column 2: found '1', expected no digit after a leading zero
    "-": line 1, column 2: found the end, expected a digit
    "1.": line 1, column 3: found the end, expected a digit
    "1e": line 1, column 3: found the end, expected a digit
    ".5": line 1, column 1: found '.', expected a value
    "+1": line 1, column 1: found '+', expected a value
    "NaN": line 1, column 1: found 'N', expected a value
    "\u{feff}{}": line 1, column 1: found a byte order mark, expected a value
    "{\"$serde_json::private::Number\": \"1\"}": line 1, column 2: found the reserved property name "$serde_json::private::Number", expected another
    "#);
}

#[test]
fn invalid_utf8_is_named_with_its_place() {
    insta::assert_snapshot!(detail(b"{\"a\":\n \"\xff\"}"), @"line 2, column 3: found the byte 0xff, expected UTF-8");
}

#[test]
fn levels_are_bounded() {
    assert!(parse(nested(DEPTH_MAX).as_bytes()).is_ok());
    insta::assert_snapshot!(detail(nested(DEPTH_MAX + 1).as_bytes()), @"line 1, column 65: found level 65, expected at most 64");
    assert!(detail(nested(10_000).as_bytes()).starts_with("line 1, column 65"));
    assert!(detail("{\"a\":".repeat(10_000).as_bytes()).contains("found level 65"));
}

#[test]
fn numbers_are_kept_as_written() {
    for text in
        ["1e400", "1E5", "-0", "-0.0", "9223372036854775808", "0.1", "0.30000000000000004", "1.0", "1e+05"]
    {
        let value = parse(text.as_bytes()).unwrap();
        assert_eq!(value.to_string(), text);
    }
    assert!(parse(&[b'1'; NUMBER_BYTES_MAX]).is_ok());
    insta::assert_snapshot!(detail(&[b'1'; NUMBER_BYTES_MAX + 1]), @"line 1, column 1: found a number of 1025 characters, expected at most 1024");
}

#[test]
fn a_million_names_are_read() {
    let mut text = String::from("{");
    for index in 0..1_000_000 {
        write!(text, "\"k{index}\":0,").unwrap();
    }
    text.push_str("\"end\":0}");
    assert_eq!(parse(text.as_bytes()).unwrap().as_object().unwrap().len(), 1_000_001);
}

#[test]
fn numbers_of_one_value_are_the_same_in_every_place() {
    let parse = |text: &str| parse(text.as_bytes()).unwrap();
    assert!(same(&parse(r#"{"a":[1,{"b":2.50}],"c":null}"#), &parse(r#"{"c":null,"a":[1.0,{"b":25e-1}]}"#)));
    assert!(!same(&parse("[1,2]"), &parse("[2,1]")));
    assert!(!same(&parse("{\"a\":null}"), &parse("{}")));
    assert!(!same(&parse("\"1\""), &parse("1")));
}

#[test]
fn values_are_described_in_a_few_words() {
    let long = format!("\"{}\"", "ä".repeat(100));
    let said: Vec<String> = ["null", "true", "1.50", "\"a\\\"b\"", &long, "[]", "[1]", "{}", "{\"a\":1}"]
        .iter()
        .map(|text| describe(&parse(text.as_bytes()).unwrap()))
        .collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    null
    true
    the number 1.50
    the text "a\"b"
    the text "ääääääääääääääääääääääääääääääääääääääää…"
    an empty array
    an array
    an empty object
    an object
    "#);
}

/// Any value, with numbers in many spellings, as text and with white space.
pub(crate) fn any_json() -> impl Strategy<Value = String> {
    let number = r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?";
    let text = any::<String>().prop_map(|text| Value::from(text).to_string());
    let escaped =
        proptest::collection::vec(any::<u16>().prop_filter("whole", |u| !(0xd800..0xe000).contains(u)), 0..4)
            .prop_map(|units| {
                format!("\"{}\"", units.iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>())
            });
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        Just("\"\\ud83d\\ude00\\/\\b\"".to_owned()),
        number.prop_map(|text: String| text),
        text,
        escaped,
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let members = proptest::collection::btree_map("[a-z\"\\\\é]{0,5}", inner.clone(), 0..6);
        prop_oneof![
            proptest::collection::vec(inner, 0..6).prop_map(|items| format!("[{}]", items.join(" ,\n"))),
            members.prop_map(|members| {
                let members: Vec<String> = members
                    .iter()
                    .map(|(name, value)| format!("{} :{value}\t", Value::from(&**name)))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// The value with every exponent spelt as `serde_json` does.
fn respelt(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(number.as_str().parse().expect("a number")),
        Value::Array(items) => Value::Array(items.into_iter().map(respelt).collect()),
        Value::Object(members) => {
            Value::Object(members.into_iter().map(|(name, value)| (name, respelt(value))).collect())
        }
        plain @ (Value::Null | Value::Bool(_) | Value::String(_)) => plain,
    }
}

proptest! {
    #[test]
    fn what_serde_json_reads_is_read_the_same(text in any_json()) {
        let expected: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(respelt(parse(text.as_bytes()).unwrap()), expected);
    }

    #[test]
    fn what_is_read_is_written_and_read_again(text in any_json()) {
        let value = parse(text.as_bytes()).unwrap();
        prop_assert_eq!(parse(value.to_string().as_bytes()), Ok(value));
    }

    #[test]
    fn what_serde_json_refuses_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if parse(&bytes).is_ok() {
            prop_assert!(serde_json::from_slice::<Value>(&bytes).is_ok());
        }
    }

    #[test]
    fn damaged_json_is_read_exactly_when_serde_json_reads_it(text in any_json(), at: prop::sample::Index, byte in r#"[{}\[\]":,\\0e. -]"#) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte.as_bytes()[0];
        let ours = parse(&bytes);
        let duplicate = ours.as_ref().is_err_and(|problem| problem.detail.contains("a second time"));
        prop_assert!(duplicate || ours.is_ok() == serde_json::from_slice::<Value>(&bytes).is_ok(), "{:?}", ours);
    }

    #[test]
    fn same_values_share_one_canonical_form(left in any_json(), right in any_json()) {
        let (left, right) = (parse(left.as_bytes()).unwrap(), parse(right.as_bytes()).unwrap());
        let canonical = |value: &Value| {
            let mut out = String::new();
            write_canonical(&mut out, value);
            out
        };
        prop_assert_eq!(canonical(&left) == canonical(&right), same(&left, &right));
        prop_assert!(same(&left, &left));
        prop_assert_eq!(canonical(&left), canonical(&respelt(left.clone())));
    }
}
