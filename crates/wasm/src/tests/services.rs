//! What a module asks of its host.

use std::sync::Arc;

use aegis_domain::code::CodeLimits;
use parking_lot::Mutex;

use super::{Worker, answer, call, command, entity};
use crate::{
    Call, CallError, Entity, Lineage, Measurement, Page, Refusal, RefusalCode, Search, Served, Services,
    Write, services::Asker,
};

/// A host with one customer that takes note of what it is asked.
#[derive(Default)]
struct Host {
    asked: Mutex<Vec<String>>,
    /// Bytes of each document that it has of `entry`, and of what pipelines make of them; none when there are none.
    bulk: Option<usize>,
}

impl Host {
    fn note(&self, asker: Asker<'_>, what: &str) {
        let (model, request, depth) = (asker.model, asker.request_id, asker.lineage.depth);
        self.asked.lock().push(format!("{model} in {request} at {depth}: {what}"));
    }
}

impl Services for Host {
    fn find<'a>(&'a self, asker: Asker<'a>, model: &'a str, id: &'a str) -> Served<'a, Option<Entity>> {
        self.note(asker, &format!("find {model} {id}"));
        Box::pin(async move {
            match id {
                "stuck" => std::future::pending().await,
                "secret" => Err(Refusal::new(RefusalCode::Denied, "not yours")),
                "7" => Ok(Some(entity(r#"{"name":"Ada"}"#))),
                _ => Ok(self.bulk.map(|bytes| entity(&"x".repeat(bytes)))),
            }
        })
    }

    fn search<'a>(&'a self, _: Asker<'a>, _: &'a str, _: Search) -> Served<'a, Page> {
        let items = self.bulk.into_iter().map(|bytes| entity(&"x".repeat(bytes))).collect();
        Box::pin(async { Ok(Page { items, cursor: None }) })
    }

    fn write<'a>(&'a self, asker: Asker<'a>, model: &'a str, write: Write) -> Served<'a, Entity> {
        self.note(asker, &format!("write {model} {write:?}"));
        let Write::Create { data } = write else { panic!("{write:?}") };
        Box::pin(async move { Ok(entity(&data)) })
    }

    fn write_batch<'a>(
        &'a self,
        asker: Asker<'a>,
        model: &'a str,
        writes: Vec<Write>,
    ) -> Served<'a, Vec<Entity>> {
        self.note(asker, &format!("write to {model} {writes:?}"));
        Box::pin(async move { Ok(writes.iter().map(|_| entity("{}")).collect()) })
    }

    fn aggregate<'a>(&'a self, asker: Asker<'a>, model: &'a str, pipeline: &'a str) -> Served<'a, String> {
        self.note(asker, &format!("aggregate {model} {pipeline}"));
        Box::pin(async { Ok(self.bulk.map_or("[7]".to_owned(), |bytes| "1".repeat(bytes))) })
    }

    fn measure(&self, module: &str, measurement: Measurement<'_>) {
        self.asked.lock().push(format!("{module}: {measurement:?}"));
    }
}

fn with_host() -> (Worker, Arc<Host>) {
    let host = Arc::new(Host::default());
    let limits = CodeLimits { call_ms_max: 200, ..CodeLimits::default() };
    (Worker::with(&aegis_guests::order(), limits, Arc::<Host>::clone(&host)), host)
}

#[test]
fn documents_of_other_models_are_found() {
    let (worker, host) = with_host();
    assert_eq!(worker.command("customer", "\"7\""), answer(r#"{"name":"Ada"}"#));
    assert_eq!(worker.command("customer", "\"8\""), answer("null"));
    assert_eq!(
        host.asked.lock().join("\n"),
        "ORDER in r1 at 0: find customer 7\nORDER in r1 at 0: find customer 8"
    );
}

#[test]
fn documents_of_other_models_are_written() {
    let (worker, host) = with_host();
    let deep = Call { lineage: Lineage::begin().deeper().deeper(), ..call() };
    let written = worker.tokio.block_on(worker.enter(deep, command("remind", r#"{"title":"a"}"#)));
    assert_eq!(written, answer(r#"{"title":"a"}"#));
    let asked = host.asked.lock().join("\n");
    assert_eq!(asked, r#"ORDER in r1 at 2: write todo Create { data: "{\"title\":\"a\"}" }"#);
}

#[test]
fn what_code_asks_for_while_it_begins_is_part_of_the_request_that_needs_it() {
    let host = Arc::new(Host::default());
    let guest = aegis_guests::order().lifecycle("init", aegis_guests::find("customer", "config"));
    let worker = Worker::with(&guest, CodeLimits::default(), Arc::<Host>::clone(&host));
    let deep = Call { lineage: Lineage::begin().deeper().deeper(), ..call() };
    let found = worker.tokio.block_on(worker.enter(deep, command("customer", "\"7\"")));
    assert_eq!(found, answer(r#"{"name":"Ada"}"#));
    let asked = host.asked.lock();
    assert_eq!(asked.len(), 2, "as it begins, and in the call: {asked:?}");
    assert!(asked.iter().all(|one| one.starts_with("ORDER in r1 at 2: find customer ")), "{asked:?}");
}

#[test]
fn a_no_of_the_host_is_an_answer_that_the_module_can_pass_on() {
    let (worker, _) = with_host();
    match worker.command("customer", "\"secret\"") {
        Err(CallError::Refused(refusal)) => {
            assert_eq!((refusal.code, refusal.message.as_str()), (RefusalCode::Denied, "not yours"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(worker.module.instances(), 1);
}

#[test]
fn a_host_that_does_not_answer_costs_the_instance_and_no_more_time() {
    let (worker, _) = with_host();
    let stuck = worker.command("customer", "\"stuck\"");
    assert!(matches!(stuck, Err(CallError::Deadline { .. })), "{stuck:?}");
    assert_eq!(worker.module.instances(), 0);
    assert_eq!(worker.command("customer", "\"8\""), answer("null"));
}

#[test]
fn what_a_module_measures_and_asks_about_many_documents_reaches_the_host() {
    let host = Arc::new(Host::default());
    let worker = Worker::with(&aegis_guests::entry(), CodeLimits::default(), Arc::<Host>::clone(&host));
    assert_eq!(worker.command("many", "{}"), answer("222"), "there is none of the three");
    host.asked.lock().clear();
    assert_eq!(worker.command("trade", r#"{"id":"new"}"#), answer("3"));
    assert_eq!(worker.command("sums", "{}"), answer("[7]"));
    assert_eq!(worker.command("count", r#""me""#), answer("true"));
    assert_eq!(worker.command("observe", "25"), answer("true"));
    insta::assert_snapshot!(host.asked.lock().join("\n"));
}

#[test]
fn what_the_host_has_of_many_documents_is_no_more_than_may_cross_at_once() {
    let of = |bulk, name: &str| {
        let host = Arc::new(Host { bulk: Some(bulk), ..Host::default() });
        let limits = CodeLimits { payload_bytes_max: 3000, ..CodeLimits::default() };
        let worker = Worker::with(&aegis_guests::entry(), limits, Arc::<Host>::clone(&host));
        let answer = worker.command(name, "{}");
        (answer, host.asked.lock().len())
    };
    assert_eq!(of(900, "many"), (answer("111"), 3));
    assert_eq!(of(2000, "sums"), (answer(&"1".repeat(2000)), 1));
    for (bulk, name, asked) in [(2000, "many", 2), (3001, "sums", 1)] {
        match of(bulk, name) {
            (Err(CallError::Refused(refusal)), found) => {
                assert_eq!((refusal.code, found), (RefusalCode::TooLarge, asked), "{name}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}
