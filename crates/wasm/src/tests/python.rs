//! The customers of the shop in `examples/`, which are written in Python: a whole interpreter, under the limits of every
//! module. `scripts/guests` builds it.

use std::{fs, path::Path};

use aegis_domain::code::CodeLimits;
use serde_json::{Value, json};

use super::{Worker, entity, vows};
use crate::{CallError, Entity, Entry, RefusalCode};

/// Memory that an instance may want to begin with, bytes: a fourth of what it may have unless said otherwise.
const MEMORY_BYTES_EXPECTED: usize = 16 * 1024 * 1024;

fn shop() -> Worker {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().parent().unwrap();
    let path = root.join("examples/shop/modules/customer/customer.wasm");
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // The usual limits but for the time, on a busy machine.
    Worker::of_bytes(&bytes, CodeLimits { call_ms_max: 5_000, ..CodeLimits::default() })
}

fn customer() -> Value {
    json!({ "firstName": "Ada", "shippingAddress": "London", "creditCardNumber": "5105105105105100" })
}

fn stored(document: &Value) -> Entity {
    entity(&document.to_string())
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

/// One test, because most of its time goes into compiling the interpreter.
#[test]
#[ignore = "scripts/guests builds the module first"]
fn a_whole_interpreter_loads_answers_refuses_and_fails_under_the_usual_limits() {
    let worker = shop();
    let made = json_of(worker.call(Entry::Create { input: customer().to_string() }));
    assert_eq!(made["billingAddress"], "London", "what follows from the address follows");
    assert_eq!(made["customerId"].as_str().unwrap().len(), 36);
    let memory = worker.module.peak_memory_bytes().unwrap();
    assert!(memory < MEMORY_BYTES_EXPECTED, "it took {memory} bytes");

    let validate = |after: &Value| worker.call(Entry::Validate { before: None, after: after.to_string() });
    assert_eq!(validate(&made), Ok(None));
    let mut mistyped = made.clone();
    mistyped["creditCardNumber"] = json!("5105105105105101");
    let no = refused(validate(&mistyped));
    assert_eq!(no, (RefusalCode::Invalid, "it has a wrong creditCardNumber".to_owned()));

    let asked = refused(worker.call(Entry::Delete { current: stored(&made) }));
    assert_eq!(asked.0, RefusalCode::Unavailable, "nobody serves documents here");
    // A key that is not there is a defect of the code: an exception, no trap.
    let failed = refused(validate(&json!({})));
    assert_eq!(failed, (RefusalCode::Internal, "the module has failed".to_owned()));
    assert_eq!(worker.module.instances(), 1, "its instance lives on");

    let arguments = r#"{"n":12}"#.to_owned();
    let compute = Entry::Command { name: "fibonacci".to_owned(), target: None, arguments };
    assert_eq!(json_of(worker.tokio.block_on(worker.compute(compute)))["result"], 144);
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn code_that_promises_has_failed() {
    insta::assert_snapshot!(vows::broken("python"));
}
