use super::*;

/// All codes there are: those that the derived reader says it would have taken.
fn codes() -> Vec<ProblemCode> {
    let refused = serde_json::from_str::<ProblemCode>("\"\"").unwrap_err().to_string();
    let names = refused.split('`').skip(3).step_by(2);
    let code = |name| -> ProblemCode { serde_json::from_value(serde_json::Value::from(name)).unwrap() };
    names.map(code).collect()
}

#[test]
fn every_problem_has_its_status() {
    let table: Vec<String> = codes()
        .into_iter()
        .map(|code| {
            let retry = serde_json::to_string(&code.retry()).unwrap();
            format!("{} {} retry {retry}", status_of(code).as_u16(), code.as_str())
        })
        .collect();
    insta::assert_snapshot!(table.join("\n"), @r#"
    400 malformed-json retry "never"
    400 bad-parameter retry "never"
    400 bad-header retry "never"
    400 query-too-expensive retry "never"
    404 no-such-route retry "never"
    404 no-such-model retry "never"
    404 not-found retry "never"
    404 no-such-relation retry "never"
    404 no-such-command retry "never"
    405 method-not-allowed retry "never"
    406 not-acceptable retry "never"
    415 unsupported-media-type retry "never"
    409 already-exists retry "never"
    409 unique-taken retry "never"
    409 patch-test-failed retry "never"
    503 contended retry "after"
    412 revision-mismatch retry "never"
    428 revision-required retry "never"
    422 invalid retry "never"
    422 idempotency-key-reused retry "never"
    409 idempotency-key-in-use retry "after"
    413 body-too-large retry "never"
    414 uri-too-long retry "never"
    431 headers-too-large retry "never"
    408 request-timeout retry "same-request"
    429 rate-limited retry "after"
    503 overloaded retry "after"
    503 store-unavailable retry "after"
    503 write-outcome-unknown retry "after"
    504 deadline-exceeded retry "after"
    409 conflict retry "never"
    403 denied retry "never"
    503 unavailable retry "after"
    503 module-unavailable retry "after"
    500 guest-failed retry "same-request"
    500 guest-trap retry "same-request"
    401 unauthorized retry "never"
    403 forbidden retry "never"
    403 admin-only retry "never"
    401 bad-signature retry "never"
    409 reload-rejected retry "never"
    409 deploy-rejected retry "never"
    409 incompatible retry "never"
    404 no-such-module retry "never"
    500 internal retry "same-request"
    "#);
}

#[test]
fn every_problem_is_in_the_table_for_clients() {
    let page = include_str!("../../../docs/http.md");
    for code in codes() {
        let retry = serde_json::to_value(code.retry()).unwrap();
        let row =
            format!("| {} | `{}` | {} |", status_of(code).as_u16(), code.as_str(), retry.as_str().unwrap());
        assert!(page.contains(&row), "docs/http.md has no row {row}");
    }
}

#[test]
fn a_code_is_written_alike_wherever_it_is_written() {
    for code in codes() {
        assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
    }
}

#[test]
fn the_body_of_a_problem_has_a_fixed_form() {
    let request_id = HeaderValue::from_static("r-1");
    let problem = Problem::new(ProblemCode::Invalid, "two things are wrong").with_errors(vec![
        FieldError { path: "/a/0".into(), message: "found 1, expected a text".into() },
        FieldError { path: String::new(), message: "\"b\" is missing".into() },
    ]);
    let several = problem_body(&problem, &request_id);
    let single = problem_body(&Problem::new(ProblemCode::Overloaded, "full"), &request_id);
    let text = [several, single].map(|body| String::from_utf8(body.to_vec()).unwrap()).join("\n");
    insta::assert_snapshot!(text, @r#"
    {"type":"https://aegis/problems/invalid","title":"The document is not valid","status":422,"detail":"two things are wrong","instance":"r-1","code":"invalid","errors":[{"path":"/a/0","message":"found 1, expected a text"},{"path":"","message":"\"b\" is missing"}],"retry":"never","error":"two things are wrong"}
    {"type":"https://aegis/problems/overloaded","title":"The server is busy","status":503,"detail":"full","instance":"r-1","code":"overloaded","retry":"after","error":"full"}
    "#);
}

#[test]
fn tags_and_numbers_are_written_as_they_are() {
    assert_eq!(entity_tag(u64::MAX), "\"18446744073709551615\"");
    for revision in 0..12 {
        assert_eq!(entity_tag(revision), format!("\"{revision}\""));
    }
    for value in [0, 12, 12, u64::MAX, 0] {
        assert_eq!(number(value), value.to_string());
    }
}
