//! Documents as they are stored, looked at before they are trusted.

use serde_json::json;

use super::*;

#[test]
fn what_the_host_writes_passes_its_own_check() {
    let first = made(&todo(), r#"{"n":1.50}"#);
    assert_eq!(check_stored("TODO", &first.body), Ok(("fresh".to_owned(), 1)));
    let next = changed(merge(&todo(), &first.body, json!({"n": 2}), u64::MAX));
    assert_eq!(check_stored("TODO", &next.body), Ok(("fresh".to_owned(), 2)));
    let deep = format!("\"deep\":{}1{},", "[".repeat(64), "]".repeat(64));
    let wrong = [
        ("\"createTime\":\"2026-01-01T00:00:00.000Z\",", ""),
        ("\"2026-01-01T00:00:00.000Z\"", "7"),
        ("2026-01-01T00:00:00.000Z", "2026-01-01"),
        ("2026-01-01T00:00:00.000Z", "2026-01-01T02:00:00+02:00"),
        ("TODO", "OTHER"),
        ("\"revision\":1", "\"revision\":1.0"),
        ("\"revision\":1", "\"revision\":0"),
        ("\"revision\":1", "\"revision\":9007199254740992"),
        ("\"n\"", "\"n\":1,\"n\""),
        ("\"n\"", "\"$serde_json::private::Number\""),
        ("{", &format!("{{{deep}")),
    ];
    let told = wrong.map(|(from, to)| {
        check_stored("TODO", text(&first).replacen(from, to, 1).as_bytes()).expect_err("it must be found")
    });
    insta::assert_snapshot!(told.join("\n"), @r#"
    its createTime is no text
    its createTime is no text
    its createTime is the text "2026-01-01", expected a time as 2025-12-31T23:59:59.007Z
    its createTime is the text "2026-01-01T02:00:00+02:00", expected a time as 2025-12-31T23:59:59.007Z
    its modelName is the text "OTHER", expected "TODO"
    its revision is no number
    its revision is 0, expected 1 to 9007199254740991
    its revision is 9007199254740992, expected 1 to 9007199254740991
    line 1, column 8: found the property "n" a second time, expected it once
    line 1, column 2: found the reserved property name "$serde_json::private::Number", expected another
    line 1, column 72: found level 65, expected at most 64
    "#);
    let large = Bytes::from(vec![b' '; DOCUMENT_BYTES_MAX + 1]);
    assert_eq!(check_stored("TODO", &large).unwrap_err(), "it has 16777217 bytes, expected at most 16777216");
}
