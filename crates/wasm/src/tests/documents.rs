//! Hooks over documents that the host holds.

use aegis_domain::code::CodeLimits;
use aegis_guests::{Body, Guest, agree, ask_many, give_back, put, put_for_ever, refuse};
use serde_json::json;

use super::{Worker, answer, entity, trapped};
use crate::{CallError, Entry, RefusalCode};

fn guest(hook: &str, body: Body) -> Guest {
    Guest::model(json!({ "name": "todo", "endpoint": "todos", "version": "1.0.0" })).function(
        "document-hooks",
        hook,
        body,
    )
}

fn create(worker: &Worker, input: &str) -> Result<Option<String>, CallError> {
    worker.call(Entry::Create { input: input.to_owned() })
}

fn refused(result: Result<Option<String>, CallError>) -> (RefusalCode, String) {
    match result {
        Err(CallError::Refused(refusal)) => (refusal.code, refusal.message),
        other => panic!("found {other:?}, expected a refusal"),
    }
}

#[test]
fn a_document_that_is_not_looked_into_stays_as_it_was_written() {
    let worker = Worker::of(&guest("on-create", give_back("input").then(agree())));
    assert_eq!(create(&worker, "{ \"a\" : 1.50 }"), answer("{ \"a\" : 1.50 }"));
}

#[test]
fn they_go_before_hooks_over_texts() {
    let both = guest("on-create", put("input", "/held", "true").then(give_back("input")).then(agree()))
        .hook("on-create", refuse("internal", "it is not asked"));
    assert_eq!(create(&Worker::of(&both), "{}"), answer(r#"{"held":true}"#));
}

#[test]
fn a_document_that_is_only_shown_cannot_be_changed() {
    let body = put("after", "/a", "1").then(give_back("after")).then(agree());
    let worker = Worker::of(&guest("validate", body));
    let asked = worker.call(Entry::Validate { before: None, after: "{}".to_owned() });
    assert_eq!(refused(asked).0, RefusalCode::Denied);
    let body = put("current", "/a", "1").then(give_back("current")).then(agree());
    let worker = Worker::of(&guest("on-delete", body));
    assert_eq!(refused(worker.call(Entry::Delete { current: entity("{}") })).0, RefusalCode::Denied);
}

#[test]
fn a_pointer_that_leads_nowhere_is_an_answer() {
    let worker =
        Worker::of(&guest("on-create", put("input", "/a/b", "1").then(give_back("input")).then(agree())));
    let (code, message) = refused(create(&worker, "{}"));
    assert_eq!(code, RefusalCode::Invalid);
    assert_eq!(message, r#"the pointer "/a/b" leads into no object or array"#);
    let worker =
        Worker::of(&guest("on-create", put("input", "/a", "{").then(give_back("input")).then(agree())));
    assert!(refused(create(&worker, "{}")).1.starts_with("found a value that is no JSON"));
}

#[test]
fn a_document_cannot_be_filled_for_ever() {
    let limits = CodeLimits { payload_bytes_max: 100_000, ..CodeLimits::default() };
    let worker = Worker::limited(&guest("on-create", put_for_ever("input", "/a/-", "\"more\"")), limits);
    assert_eq!(refused(create(&worker, r#"{"a":[]}"#)).0, RefusalCode::TooLarge);
    assert_eq!(worker.module.instances(), 1);
}

#[test]
fn no_more_is_handed_over_at_once_than_may_cross() {
    let limits = CodeLimits { payload_bytes_max: 1024 * 1024, ..CodeLimits::default() };
    let worker = Worker::limited(&guest("on-create", ask_many("input", "/a", 10_000)), limits);
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(100_000));
    let reason = trapped(create(&worker, &large));
    assert!(reason.contains("it asked for more than 1048576 bytes of a document at once"), "{reason}");
    assert_eq!(create(&worker, r#"{"a":1}"#), answer(r#"{"a":1}"#));
}

#[test]
fn a_million_pointers_at_once_are_too_many() {
    let worker = Worker::of(&guest("on-create", ask_many("input", "/a", 1_000_000)));
    let started = std::time::Instant::now();
    trapped(create(&worker, r#"{"a":1}"#));
    assert!(started.elapsed() < super::PATIENCE);
}

#[test]
fn a_handle_that_is_not_given_back_costs_the_instance() {
    let worker = Worker::of(&guest("on-create", agree()));
    assert!(trapped(create(&worker, "{}")).contains("borrow handles still remain"));
    assert_eq!(worker.module.instances(), 0);
}
