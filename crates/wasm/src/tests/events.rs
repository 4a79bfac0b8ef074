//! Events that the code is told of, and which it may be told of.

use aegis_domain::{
    code::{CodeLimits, Grants},
    subscription::EventPattern,
};
use serde_json::json;

use super::{Worker, call, trapped};
use crate::{CallError, Compiler, Entry, Happening, RefusalCode, Terms};

fn happening(key: &str) -> Entry {
    Entry::Event(Happening {
        id: "TODO-7".to_owned(),
        name: "CREATETODO".to_owned(),
        source: "TODO".to_owned(),
        time_ms: 1,
        key: Some(key.to_owned()),
        data: "{}".to_owned(),
    })
}

/// What the description of a module comes to with these grants.
fn described(subscriptions: &[&str], granted: &[&str]) -> Result<Vec<String>, String> {
    let events = granted.iter().map(|event| EventPattern::new(event).unwrap()).collect();
    let grants = Grants { events, ..Grants::default() };
    let terms = Terms { settings: json!({}), limits: CodeLimits::default(), grants };
    let prepared = Compiler::new().unwrap().prepare(&aegis_guests::journal(subscriptions).build(), terms);
    let prepared = prepared.map_err(|error| error.to_string())?;
    Ok(prepared.spec.code.unwrap().subscriptions.iter().map(ToString::to_string).collect())
}

#[test]
fn an_event_reaches_its_handler_which_may_refuse_or_fail() {
    let worker = Worker::of(&aegis_guests::journal(&["CREATEJOURNAL"]));
    match worker.call(happening("never")) {
        Err(CallError::Refused(refusal)) => assert_eq!(refusal.code, RefusalCode::Invalid),
        other => panic!("{other:?}"),
    }
    assert!(trapped(worker.call(happening("poison"))).contains("unreachable"));
    // It asks its host to keep what it has heard, and there is none here.
    match worker.tokio.block_on(worker.enter(call(), happening("a"))) {
        Err(CallError::Refused(refusal)) => assert_eq!(refusal.code, RefusalCode::Unavailable),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_module_without_handlers_says_so_when_it_is_told() {
    let worker = Worker::of(&aegis_guests::plain());
    assert!(trapped(worker.call(happening("a"))).contains("it does not export aegis:module/event-handlers"));
}

#[test]
fn own_events_are_free_and_others_need_a_grant() {
    assert_eq!(described(&["createjournal", "DELETEJOURNAL"], &[]).unwrap().len(), 2);
    assert_eq!(described(&["CREATETODO", "UPDATE*"], &["CREATE*", "UPDATE*"]).unwrap().len(), 2);
    for (wanted, granted) in [("CREATETODO", "DELETE*"), ("*", "CREATE*"), ("CREATE*", "CREATETODO")] {
        let refused = described(&[wanted], &[granted]).unwrap_err();
        assert!(refused.contains("subscriptions.0.event: found"), "{refused}");
    }
    let refused = described(&["no name"], &["*"]).unwrap_err();
    assert!(refused.contains("expected the name of an event"), "{refused}");
    let many: Vec<String> = (0..65).map(|number| format!("E{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(described(&many, &["*"]).unwrap_err().contains("expected at most 64"));
}
