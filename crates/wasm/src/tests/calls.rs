//! Calls that go well, and calls that are refused.

use serde_json::json;

use super::{Worker, answer, command, entity};
use crate::{CallError, Entry, RefusalCode};

fn refusal(result: Result<Option<String>, CallError>) -> (RefusalCode, String) {
    match result {
        Err(CallError::Refused(refusal)) => (refusal.code, refusal.message),
        other => panic!("found {other:?}, expected a refusal"),
    }
}

#[test]
fn what_a_module_says_of_itself_becomes_a_specification() {
    let prepared = super::prepare(&aegis_guests::todo().build(), aegis_domain::code::CodeLimits::default());
    let mut spec = prepared.unwrap().spec;
    spec.code.as_mut().unwrap().digest = "(of the bytes)".to_owned();
    insta::assert_json_snapshot!(spec);
}

/// The same hooks over texts and over documents that the host holds.
fn both() -> [Worker; 2] {
    [Worker::of(&aegis_guests::todo()), Worker::of(&aegis_guests::held_todo())]
}

fn made(result: Result<Option<String>, CallError>) -> serde_json::Value {
    serde_json::from_str(&result.unwrap().unwrap()).unwrap()
}

#[test]
fn hooks_make_check_merge_and_forbid() {
    for worker in both() {
        let input = r#"{"title":"a \"quoted\" text, {with} [marks]","n":[1,{"a":null}]}"#.to_owned();
        assert_eq!(
            made(worker.call(Entry::Create { input })),
            json!({"stamped": true, "title": "a \"quoted\" text, {with} [marks]", "n": [1, {"a": null}]})
        );

        let validate = |before: Option<&str>, after: &str| {
            let before = before.map(str::to_owned);
            worker.call(Entry::Validate { before, after: after.to_owned() })
        };
        assert_eq!(validate(None, r#"{"title":"fine"}"#), Ok(None));
        assert_eq!(validate(Some(r#"{"title":"forbidden"}"#), r#"{"title":"fine"}"#), Ok(None));
        let refused = validate(Some("{}"), r#"{"title":"forbidden"}"#);
        assert_eq!(refusal(refused), (RefusalCode::Invalid, "it is forbidden".to_owned()));

        let current = entity(r#"{"title":"a","done":false,"x":{"y":1}}"#);
        let changes = r#"{"done":true,"x":null,"z":"null"}"#.to_owned();
        assert_eq!(
            made(worker.call(Entry::Update { current, changes })),
            json!({"touched": true, "title": "a", "done": true, "z": "null"})
        );

        assert_eq!(worker.call(Entry::Delete { current: entity(r#"{"protected":false}"#) }), Ok(None));
        assert_eq!(worker.call(Entry::Delete { current: entity("{}") }), Ok(None));
        let kept = worker.call(Entry::Delete { current: entity(r#"{"protected":true}"#) });
        assert_eq!(refusal(kept), (RefusalCode::Conflict, "it is protected".to_owned()));
        assert_eq!(worker.module.instances(), 1, "refusals cost nothing");
    }
}

#[test]
fn empty_objects_stay_objects() {
    for worker in both() {
        assert_eq!(made(worker.call(Entry::Create { input: "{}".to_owned() })), json!({"stamped": true}));
        let changes = r#"{"a":null}"#.to_owned();
        let merged = worker.call(Entry::Update { current: entity(r#"{"a":1}"#), changes });
        assert_eq!(made(merged), json!({"touched": true}));
    }
}

#[test]
fn documents_are_brought_into_the_present_shape() {
    let worker = Worker::of(&aegis_guests::outgrown());
    let load = |data: &str| worker.call(Entry::Load { stored: entity(data) });
    assert_eq!(load(r#"{"name":"x"}"#), answer(r#"{"title":"grown","name":"x"}"#));
    assert_eq!(load(r#"{"title":"x"}"#), answer(r#"{"title":"x"}"#));
    assert_eq!(refusal(load(r#"{"x":"forbidden"}"#)).0, RefusalCode::Conflict);
}

#[test]
fn commands_answer_save_and_refuse() {
    let worker = Worker::of(&aegis_guests::todo());
    assert_eq!(worker.command("echo", r#"{"a":"é🦀"}"#), answer(r#"{"a":"é🦀"}"#));
    let target = Some(entity(r#"{"title":"a"}"#));
    let approve = Entry::Command { name: "approve".to_owned(), target, arguments: "{}".to_owned() };
    assert_eq!(worker.call(approve), answer(r#"{"title":"a","approved":true}"#));
    let refused = worker.command("refuse", "{}");
    assert_eq!(refusal(refused), (RefusalCode::Denied, "nobody may do that".to_owned()));
    assert_eq!(refusal(worker.command("unheard", "{}")).0, RefusalCode::NotFound);
}

#[test]
fn settings_reach_the_module() {
    let worker = Worker::of(&aegis_guests::todo());
    assert_eq!(worker.command("greeting", "{}"), answer("\"hello\""));
}

#[test]
fn a_module_without_hooks_says_so_when_it_is_asked() {
    let worker = Worker::of(&aegis_guests::plain());
    let asked = worker.call(Entry::Create { input: "{}".to_owned() });
    assert!(super::trapped(asked).contains("it does not export aegis:module/hooks"));
}

#[test]
fn long_computations_run_on_their_own_threads() {
    let worker = Worker::of(&aegis_guests::todo());
    let burnt = worker.tokio.block_on(worker.compute(command("burn", "{\"n\":1000000}")));
    let number: u64 = burnt.unwrap().unwrap().parse().unwrap();
    assert!(number > 0);
    assert_eq!(worker.runtime.cpu().taken(), 0);
}

#[test]
fn an_instance_stays_and_remembers() {
    let worker = Worker::of(&aegis_guests::counter());
    for expected in 1..=100 {
        assert_eq!(worker.command("next", "{}"), answer(&expected.to_string()));
    }
    assert_eq!(worker.module.instances(), 1);
}

#[test]
fn memory_of_a_call_is_given_back_after_it() {
    let worker = Worker::of(&aegis_guests::todo());
    let argument = format!("\"{}\"", "x".repeat(1024 * 1024));
    for _ in 0..200 {
        assert_eq!(worker.command("echo", &argument), answer(&argument));
    }
    assert_eq!(worker.module.instances(), 1);
}
