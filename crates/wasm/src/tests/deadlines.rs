//! Code that does not end ends at its own deadline, wherever it is called.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use aegis_domain::code::{CodeLimits, CommandPlace};
use aegis_guests::{Guest, spin};
use bytes::Bytes;
use serde_json::json;

use super::{NOTHING, PATIENCE, Worker, answer, call, command, entity, prepare, seal};
use crate::{CallError, Drained, Entry, Handover, Happening, Module, RouteRequest, Succession};

/// Time of one call in these tests.
const CALL_MS: u32 = 100;
const CALL: Duration = Duration::from_millis(CALL_MS as u64);
/// How much later it may be seen, on a busy machine. A tick is a millisecond.
const SLACK: Duration = Duration::from_secs(2);

fn limits() -> CodeLimits {
    CodeLimits { call_ms_max: CALL_MS, cpu_call_ms_max: CALL_MS, ..CodeLimits::default() }
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// A worker with a module that remembers, and spins in this function.
fn spinning(interface: &str, function: &str) -> Worker {
    Worker::limited(&aegis_guests::heir("1.0.0").function(interface, function, spin()), limits())
}

/// What comes of it, at the deadline and not much later.
fn on_time<T>(worker: &Worker, what: &str, deed: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let outcome = worker.tokio.block_on(deed);
    let took = begun.elapsed();
    assert!(took >= CALL - Duration::from_millis(10) && took < CALL + SLACK, "{what}: {took:?}");
    outcome
}

fn is_late<T: std::fmt::Debug>(what: &str, outcome: &Result<T, CallError>) {
    assert!(matches!(outcome, Err(CallError::Deadline { .. })), "{what}: {outcome:?}");
}

fn begin(worker: &Worker) {
    assert_eq!(worker.command("next", "{}"), answer("1"));
}

#[test]
fn every_hook_command_route_and_event_handler() {
    let happening = Happening {
        id: "TODO-7".to_owned(),
        name: "CREATETODO".to_owned(),
        source: "TODO".to_owned(),
        time_ms: 1,
        key: None,
        data: "{}".to_owned(),
    };
    let text = || "{}".to_owned();
    let entries = [
        ("hooks", "on-create", Entry::Create { input: text() }),
        ("hooks", "validate", Entry::Validate { before: None, after: text() }),
        ("hooks", "on-update", Entry::Update { current: entity("{}"), changes: text() }),
        ("hooks", "on-delete", Entry::Delete { current: entity("{}") }),
        ("hooks", "on-load", Entry::Load { stored: entity("{}") }),
        ("document-hooks", "on-create", Entry::Create { input: text() }),
        ("document-hooks", "validate", Entry::Validate { before: None, after: text() }),
        ("commands", "run", command("any", "{}")),
        ("event-handlers", "on-event", Entry::Event(happening)),
        ("lifecycle", "init", command("next", "{}")),
    ];
    for (interface, function, entry) in entries {
        let worker = spinning(interface, function);
        is_late(function, &on_time(&worker, function, worker.enter(call(), entry)));
        assert_eq!(worker.module.instances(), 0, "{function}");
    }
    let route = json!({ "method": "get", "path": "/spin" });
    let guest = Guest::model(json!({ "name": "label", "endpoint": "labels", "version": "1.0.0" }));
    let worker = Worker::limited(&guest.route(route, spin()), limits());
    let request = RouteRequest {
        method: aegis_domain::route::Verb::Get,
        route: "/spin".to_owned(),
        path: "/spin".to_owned(),
        query: String::new(),
        params: Vec::new(),
        headers: Vec::new(),
        body: Bytes::new(),
    };
    let asked = worker.runtime.route(&worker.module, CommandPlace::Io, call(), request);
    is_late("a route", &on_time(&worker, "a route", asked));
}

#[test]
fn what_an_instance_hands_over_and_takes() {
    let worker = spinning("handover", "save");
    begin(&worker);
    let saved = on_time(&worker, "save", worker.runtime.save(&worker.module, soon()));
    is_late("save", &saved);
    assert_eq!(worker.command("next", "{}"), answer("1"), "its instance is gone");

    let worker = spinning("handover", "restore");
    let handover = Handover { from_version: "1.0.0".to_owned(), state: vec![0; 8] };
    let restored = on_time(&worker, "restore", worker.runtime.restore(&worker.module, &handover, soon()));
    is_late("restore", &restored);
    assert_eq!(worker.module.instances(), 0);
}

#[test]
fn what_an_instance_is_asked_and_told() {
    let worker = spinning("lifecycle", "health");
    begin(&worker);
    is_late("health", &on_time(&worker, "health", worker.runtime.health(&worker.module, soon())));

    let worker = spinning("lifecycle", "reconfigure");
    begin(&worker);
    let next = with_other_settings(&worker, &worker.module);
    let told = on_time(&worker, "reconfigure", worker.runtime.succeed(&next, &worker.module, soon()));
    assert_eq!(told, Succession { kept: 0, replaced: 1 });
}

#[test]
fn the_end_of_an_instance() {
    let worker = spinning("lifecycle", "drain");
    begin(&worker);
    let drained = on_time(&worker, "drain", worker.runtime.drain(&worker.module, Instant::now() + CALL));
    assert_eq!(drained, Drained { ended: 0, cut_off: 1 });
    assert_eq!(worker.module.instances(), 0);
}

/// The same code in the same worker, under other settings.
fn with_other_settings(worker: &Worker, module: &Arc<Module>) -> Arc<Module> {
    let guest = aegis_guests::heir("1.0.0").function("lifecycle", "reconfigure", spin());
    let prepared = prepare(&guest.build(), limits()).unwrap_or_else(|error| panic!("{error}"));
    let (file, place) = seal(&prepared.code);
    let mut code = prepared.spec.code.unwrap();
    code.settings = json!({ "other": true });
    let name = prepared.spec.name.to_string();
    let next = worker.runtime.load(&name, &code, (&file, place), Arc::new(NOTHING)).unwrap();
    assert_eq!(next.name(), module.name());
    Arc::new(next)
}
