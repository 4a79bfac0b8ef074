//! What a guest says of itself arrives as it was said, and what goes through a guest comes back as it was.

mod declared;

use aegis_domain::{catalog, json};
use aegis_guests::{Guest, agree, echo, give_back, put};
use proptest::prelude::*;
use serde_json::{Value, json};

use self::declared::{Declared, declared, object, value};
use super::{Worker, command};
use crate::{Compiler, Entry};

/// Specifications that are compiled.
const SPECIFICATIONS: u32 = 40;

fn echoing() -> Guest {
    Guest::model(json!({ "name": "echo", "endpoint": "echoes", "version": "1.0.0" }))
}

fn read(text: &str) -> Value {
    json::parse(text.as_bytes()).unwrap_or_else(|problem| panic!("{problem}: {text}"))
}

#[test]
fn a_specification_arrives_as_it_was_said_and_travels_unchanged() {
    let compiler = Compiler::new().unwrap();
    let config = ProptestConfig::with_cases(SPECIFICATIONS);
    proptest!(config, |(declared in declared())| {
        let prepared = compiler.prepare(&declared.guest().build(), Declared::terms());
        let prepared = prepared.map_err(|error| TestCaseError::fail(error.to_string()))?;
        declared.check(&prepared.spec)?;
        let once = catalog::encode(std::slice::from_ref(&prepared.spec));
        let travelled = catalog::decode(&once).map_err(TestCaseError::fail)?;
        prop_assert_eq!(&travelled, std::slice::from_ref(&prepared.spec));
        prop_assert_eq!(catalog::encode(&travelled), once);
    });
}

#[test]
fn documents_pass_through_the_memory_of_a_resident_guest_unchanged() {
    let texts = Worker::of(&echoing().hook("on-create", echo("input")));
    let held = put("input", "/held", "true").then(give_back("input")).then(agree());
    let held = Worker::of(&echoing().function("document-hooks", "on-create", held));
    proptest!(|(document in object())| {
        let text = document.to_string();
        let echoed = texts.call(Entry::Create { input: text.clone() }).unwrap().unwrap();
        prop_assert_eq!(read(&echoed), read(&text));

        let mut changed = read(&held.call(Entry::Create { input: text.clone() }).unwrap().unwrap());
        prop_assert_eq!(changed.as_object_mut().and_then(|members| members.shift_remove("held")), Some(json!(true)));
        prop_assert_eq!(changed, read(&text));
    });
    assert_eq!((texts.module.instances(), held.module.instances()), (1, 1), "one instance did it all");
}

#[test]
fn arguments_and_answers_of_commands_are_any_json() {
    let worker = Worker::of(&echoing().command("echo", echo("args")));
    proptest!(|(argument in value())| {
        let text = argument.to_string();
        let echoed = worker.call(command("echo", &text)).unwrap().unwrap();
        prop_assert_eq!(read(&echoed), read(&text));
    });
}

#[test]
fn a_mixin_sets_what_it_says_and_leaves_what_another_one_said() {
    let range = |options: &str| json!({ "name": "range", "options": options });
    let guest = Guest::model(json!({
        "name": "echo", "endpoint": "echoes", "version": "1.0.0",
        "fields": [{ "name": "a", "kind": "integer" }],
        "mixins": [range(r#"{"fields":["a"],"min":1}"#), range(r#"{"fields":["a"],"max":5}"#)],
    }));
    let prepared = Compiler::new().unwrap().prepare(&guest.build(), Declared::terms()).unwrap();
    let field = &prepared.spec.fields["a"];
    assert_eq!((&field.min, &field.max), (&Some(1.into()), &Some(5.into())));
}
