//! The order of the shop in `examples/`, which is written in JavaScript. `scripts/guests` builds it.

use std::{fs, path::Path};

use aegis_domain::code::CodeLimits;
use serde_json::{Value, json};

use super::{Worker, entity, vows};
use crate::{CallError, Entity, Entry, RefusalCode};

fn shop() -> Worker {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().parent().unwrap();
    let path = root.join("examples/shop/modules/order/order.wasm");
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // Time for a busy machine and code that was not optimized.
    let limits = CodeLimits { call_ms_max: 5_000, ..CodeLimits::default() };
    Worker::of_bytes(&bytes, limits)
}

fn json_of(called: Result<Option<String>, CallError>) -> Value {
    serde_json::from_str(&called.unwrap().unwrap()).unwrap()
}

fn refused(called: Result<Option<String>, CallError>) -> (RefusalCode, String) {
    match called {
        Err(CallError::Refused(refusal)) => (refusal.code, refusal.message),
        other => panic!("found {other:?}, expected a refusal"),
    }
}

fn stored(document: &Value) -> Entity {
    entity(&document.to_string())
}

/// An order of a customer, as it is made.
fn order(worker: &Worker) -> Value {
    let input = json!({
        "customerId": "c1",
        "orderItems": [{ "itemId": "i1", "price": 0.1, "qty": 3 }, { "itemId": "i2", "price": 999.99 }],
    });
    json_of(worker.call(Entry::Create { input: input.to_string() }))
}

fn validated(worker: &Worker, before: Option<&Value>, after: &Value) -> Result<Option<String>, CallError> {
    worker.call(Entry::Validate { before: before.map(Value::to_string), after: after.to_string() })
}

fn command(name: &str, target: &Value, arguments: &str) -> Entry {
    Entry::Command { name: name.to_owned(), target: Some(stored(target)), arguments: arguments.to_owned() }
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn an_order_is_made_with_what_follows_from_its_items() {
    let worker = shop();
    let made = order(&worker);
    assert_eq!(made["orderTotal"], json!(1000.29));
    assert_eq!(made["signatureRequired"], json!(true));
    assert_eq!(made["orderStatus"], json!("PENDING"));
    assert_eq!(made["orderNo"].as_str().unwrap().len(), 36);
    assert_eq!(made["log"][0]["desc"], json!("created"));
    assert!(made["log"][0]["time"].as_f64().unwrap() > 1e12, "it knows the time: {}", made["log"][0]);
    assert_eq!(validated(&worker, None, &made), Ok(None));
    assert_ne!(order(&worker)["orderNo"], made["orderNo"]);
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn guests_have_to_say_more_and_totals_have_to_be_right() {
    let worker = shop();
    let without_items = json_of(worker.call(Entry::Create { input: "{}".to_owned() }));
    assert_eq!(without_items.get("orderTotal"), None, "the model's rules will say what is missing");

    let mut made = order(&worker);
    made.as_object_mut().unwrap().remove("customerId");
    let (code, message) = refused(validated(&worker, None, &made));
    assert_eq!(code, RefusalCode::Invalid);
    assert!(message.starts_with("it lacks firstName, lastName"), "{message}");

    let mut made = order(&worker);
    made["orderTotal"] = json!(1);
    let no = refused(validated(&worker, None, &made));
    assert_eq!(no, (RefusalCode::Invalid, "orderTotal is not the sum of the items".to_owned()));
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn an_order_goes_only_where_it_may() {
    let worker = shop();
    let made = order(&worker);
    let approved = json_of(worker.call(command("approve", &made, "{}")));
    assert_eq!(approved["orderStatus"], json!("APPROVED"));
    assert_eq!(approved["log"][1]["desc"], json!("PENDING to APPROVED"));

    let back = json!({ "orderStatus": "PENDING" }).to_string();
    let no = refused(worker.call(Entry::Update { current: stored(&approved), changes: back }));
    assert_eq!(no, (RefusalCode::Conflict, "an order that is APPROVED cannot become PENDING".to_owned()));

    let no = refused(worker.call(Entry::Delete { current: stored(&approved) }));
    assert_eq!(no.0, RefusalCode::Conflict);
    let canceled = json_of(worker.call(command("cancel", &approved, "{}")));
    assert_eq!(worker.call(Entry::Delete { current: stored(&canceled) }), Ok(None));
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn changes_are_merged_and_settled_fields_stay() {
    let worker = shop();
    let made = order(&worker);
    let changes = json!({ "orderItems": [{ "itemId": "i1", "price": 5 }], "email": null, "note": "x" });
    let update = |current: &Value, changes: &Value| {
        json_of(worker.call(Entry::Update { current: stored(current), changes: changes.to_string() }))
    };
    let changed = update(&made, &changes);
    assert_eq!((&changed["orderTotal"], &changed["note"]), (&json!(5), &json!("x")));
    assert_eq!(changed["signatureRequired"], json!(false));

    let approved = json_of(worker.call(command("approve", &changed, "{}")));
    let moved = update(&approved, &json!({ "shippingAddress": "elsewhere" }));
    let no = refused(validated(&worker, Some(&approved), &moved));
    let told = "shippingAddress cannot change after the approval".to_owned();
    assert_eq!(no, (RefusalCode::Conflict, told));
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn what_throws_is_a_fault_and_the_instance_lives_on() {
    let worker = shop();
    let no = refused(worker.call(command("others", &json!({ "customerId": "c1" }), "{}")));
    assert_eq!(no.0, RefusalCode::Unavailable, "nobody serves documents here");
    let no = refused(worker.call(command("unheard", &json!({}), "{}")));
    assert_eq!(no, (RefusalCode::Internal, "the module has failed".to_owned()));
    assert_eq!(order(&worker)["orderStatus"], json!("PENDING"));
    assert_eq!(worker.module.instances(), 1);
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn long_computations_run_and_end() {
    let worker = shop();
    let entry =
        Entry::Command { name: "fibonacci".to_owned(), target: None, arguments: r#"{"n":12}"#.to_owned() };
    let computed = json_of(worker.tokio.block_on(worker.compute(entry)));
    assert_eq!(computed["result"], json!(144));
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn code_that_promises_has_failed() {
    insta::assert_snapshot!(vows::broken("javascript"));
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn a_hook_without_a_return_answers_what_is_no_document_and_keeps_its_instance() {
    let worker = vows::vows("javascript");
    for _ in 0..2 {
        let forgotten = worker.call(Entry::Create { input: "{\"forgotten\":true}".to_owned() });
        assert_eq!(forgotten, Ok(Some("null".to_owned())));
        assert_eq!(worker.module.instances(), 1);
    }
}
