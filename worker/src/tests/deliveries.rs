//! Events that reach the code that subscribes to them.

use aegis_domain::{
    code::{CodeLimits, Grants},
    subscription::EventPattern,
};
use aegis_guests::spin;
use aegis_ipc::{board::ModuleCounter, control::ToSupervisor};
use aegis_wasm::Terms;
use serde_json::{Value, json};

use super::house::{Client, House, eventually};

const TODOS: &str = "/aegis/api/models/todos";
const JOURNALS: &str = "/aegis/api/models/journals";

/// Models with code of which the second keeps what it hears.
async fn listening(subscriptions: &[&str], limits: CodeLimits) -> House {
    let components = [aegis_guests::todo().build(), aegis_guests::journal(subscriptions).build()];
    let components: Vec<&[u8]> = components.iter().map(Vec::as_slice).collect();
    let events = vec![EventPattern::new("*").unwrap()];
    let terms = Terms { settings: json!({}), limits, grants: Grants { events, ..Grants::default() } };
    House::of_components(&components, &terms, |_| ()).await
}

async fn create(house: &House, ids: &[&str]) {
    for id in ids {
        let created = house.ask(&format!("POST {TODOS}\n\n{{\"id\":\"{id}\",\"title\":\"x\"}}")).await;
        assert_eq!(created.status, 201, "{}", created.body);
    }
}

/// What the journal has, in order.
async fn heard(house: &House) -> Vec<String> {
    let documents: Value = house.ask(&format!("GET {JOURNALS}?__sort=id&__limit=1000")).await.json();
    let text = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
    let documents = documents.as_array().unwrap_or_else(|| panic!("{documents}"));
    documents.iter().map(|one| format!("{} {}", text(one, "name"), text(one, "of"))).collect()
}

fn counted(house: &House, counter: ModuleCounter) -> u64 {
    let entry = house.host.board.module("journal").unwrap();
    entry.counter(counter).load(std::sync::atomic::Ordering::Relaxed)
}

async fn taken(house: &House, events: u64) {
    eventually("the events are taken", || counted(house, ModuleCounter::EventsTaken) >= events).await;
}

/// Waits until the worker has taken itself for the one that delivers.
async fn begun(house: &House) {
    eventually("the delivery has begun", || counted(house, ModuleCounter::EventPosition) > 0).await;
}

#[tokio::test]
async fn committed_changes_come_to_who_subscribes_in_their_order() {
    let house = listening(&["CREATETODO", "deletetodo"], CodeLimits::default()).await;
    begun(&house).await;
    create(&house, &["a", "b"]).await;
    assert_eq!(house.ask(&format!("PATCH {TODOS}/a\n\n{{\"n\":1}}")).await.status, 200);
    assert_eq!(house.ask(&format!("DELETE {TODOS}/a")).await.status, 200);
    create(&house, &["c"]).await;
    taken(&house, 4).await;
    assert_eq!(heard(&house).await, ["CREATETODO a", "CREATETODO b", "DELETETODO a", "CREATETODO c"]);
}

#[tokio::test]
async fn a_subscription_begins_with_the_first_change_after_the_worker_or_the_generation_began() {
    let house = listening(&["CREATETODO"], CodeLimits::default()).await;
    create(&house, &["a"]).await;
    taken(&house, 1).await;
    assert_eq!(heard(&house).await, ["CREATETODO a"]);

    let mut house = listening(&[], CodeLimits::default()).await;
    create(&house, &["b"]).await;
    let components = [aegis_guests::todo().build(), aegis_guests::journal(&["CREATETODO"]).build()];
    let components: Vec<&[u8]> = components.iter().map(Vec::as_slice).collect();
    let grants = Grants { events: vec![EventPattern::new("*").unwrap()], ..Grants::default() };
    let terms = Terms { settings: json!({}), limits: CodeLimits::default(), grants };
    let answer = house.adopt_components(2, &components, &terms).await;
    assert!(matches!(answer, ToSupervisor::Adopted { .. }), "{answer:?}");
    house.forget_the_past();
    create(&house, &["c"]).await;
    taken(&house, 1).await;
    assert_eq!(heard(&house).await, ["CREATETODO c"], "what was before is nobody's business");
}

#[tokio::test]
async fn an_event_that_is_not_taken_is_given_up_and_the_next_one_follows() {
    let house = listening(&["CREATETODO"], CodeLimits::default()).await;
    begun(&house).await;
    create(&house, &["poison", "never"]).await;
    eventually("both are given up", || counted(&house, ModuleCounter::EventsGivenUp) == 2).await;
    assert_eq!(counted(&house, ModuleCounter::EventsRepeated), 4, "a trap is tried again, a no is not");
    assert_eq!(heard(&house).await, Vec::<String>::new());
    create(&house, &["a"]).await;
    taken(&house, 1).await;
    assert_eq!(heard(&house).await, ["CREATETODO a"]);
}

#[tokio::test]
async fn an_event_that_leads_to_the_next_for_ever_holds_nobody_up() {
    let house = listening(&["CREATE*"], CodeLimits::default()).await;
    begun(&house).await;
    create(&house, &["a"]).await;
    // What the journal makes of an event begins with CREATE as well.
    taken(&house, 50).await;
    create(&house, &["b"]).await;
    eventually("the other event comes in between", || counted(&house, ModuleCounter::EventsTaken) >= 100)
        .await;
    assert!(heard(&house).await.contains(&"CREATETODO b".to_owned()));
}

#[tokio::test]
async fn code_that_does_not_end_is_ended_and_given_up() {
    let limits = CodeLimits { call_ms_max: 500, ..CodeLimits::default() };
    let house = listening(&["CREATETODO"], limits).await;
    begun(&house).await;
    create(&house, &["spin", "a"]).await;
    taken(&house, 1).await;
    assert_eq!(counted(&house, ModuleCounter::EventsGivenUp), 1);
    assert_eq!(counted(&house, ModuleCounter::Timeouts), 5);
    assert_eq!(heard(&house).await, ["CREATETODO a"]);
}

/// A journal with one instance, which this client has for itself as long as it waits for its answer.
async fn occupied() -> (House, Client) {
    let journal = journal_with_a_long_command();
    let components = [aegis_guests::todo().build(), journal];
    let components: Vec<&[u8]> = components.iter().map(Vec::as_slice).collect();
    let limits =
        CodeLimits { instances_max: 1, call_ms_max: 300, cpu_call_ms_max: 120_000, ..CodeLimits::default() };
    let events = vec![EventPattern::new("*").unwrap()];
    let terms = Terms { settings: json!({}), limits, grants: Grants { events, ..Grants::default() } };
    let house = House::of_components(&components, &terms, |_| ()).await;
    begun(&house).await;
    assert_eq!(house.ask(&format!("POST {JOURNALS}\n\n{{\"id\":\"own\"}}")).await.status, 201);
    let mut client = house.client().await;
    client.send(&format!("POST {JOURNALS}/own/spin\n\n{{}}")).await;
    eventually("it has its instance", || {
        let model = house.host.catalog.models().iter().find(|model| model.name() == "JOURNAL").cloned();
        house.host.engine.instances(&model.unwrap()) == 1 && house.host.engine.cpu_calls() == Some(1)
    })
    .await;
    (house, client)
}

fn journal_with_a_long_command() -> Vec<u8> {
    let spec = json!({
        "name": "journal", "endpoint": "journals", "version": "1.0.0",
        "subscriptions": [{ "event": "CREATETODO" }], "commands": [{ "name": "spin", "cpu-bound": true }],
    });
    aegis_guests::journal_of(spec).command("spin", spin()).build()
}

#[tokio::test]
async fn an_event_waits_for_an_instance_as_long_as_others_have_them() {
    let (house, client) = occupied().await;
    create(&house, &["a"]).await;
    // Of events that are told, five attempts are all.
    eventually("it was often too busy", || counted(&house, ModuleCounter::Busy) > 6).await;
    assert_eq!(counted(&house, ModuleCounter::EventsTaken), 0);
    drop(client);
    taken(&house, 1).await;
    let of = |counter| counted(&house, counter);
    assert_eq!((of(ModuleCounter::EventsGivenUp), of(ModuleCounter::EventsRepeated)), (0, 0));
    assert!(heard(&house).await.contains(&"CREATETODO a".to_owned()));
}

#[tokio::test]
async fn an_event_waits_for_the_store() {
    let (house, client) = occupied().await;
    create(&house, &["a"]).await;
    house.store.go_down();
    eventually("the store is missed", || !house.host.engine.data().is_connected()).await;
    let calls = counted(&house, ModuleCounter::Calls);
    drop(client);
    // The one that had the instance, and more than there are attempts.
    eventually("it was often told", || counted(&house, ModuleCounter::Calls) > calls + 7).await;
    house.store.come_up();
    taken(&house, 1).await;
    assert_eq!(counted(&house, ModuleCounter::EventsGivenUp), 0);
}

#[tokio::test]
async fn positions_are_nobodys_business_and_lag_is_everybodys() {
    let house = listening(&["CREATETODO"], CodeLimits::default()).await;
    begun(&house).await;
    create(&house, &["a"]).await;
    taken(&house, 1).await;
    eventually("nothing is left to deliver", || {
        counted(&house, ModuleCounter::EventPosition) == house.host.board.durable()
    })
    .await;
    let metrics = house.operator().await.ask("GET /metrics").await.body;
    for line in [
        "aegis_guest_module_events_total{module=\"journal\"} 1",
        "aegis_guest_module_events_given_up_total{module=\"journal\"} 0",
        "aegis_guest_module_event_lag{module=\"journal\"} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
    assert!(!metrics.contains("event_lag{module=\"todo\"}"), "who does not subscribe does not lag");
    assert_eq!(house.ask("GET /aegis/api/models/@POSITIONS").await.status, 404);
    let mut client = house.client().await;
    let told = client.ask("GET /aegis/api/models/todos").await;
    assert!(!told.body.contains("POSITIONS"));
}

#[tokio::test]
async fn changes_that_came_in_bulk_are_all_delivered() {
    let house = listening(&["CREATETODO"], CodeLimits::default()).await;
    begun(&house).await;
    for tens in 0..30 {
        let one = |ones| json!({"id": format!("n{tens:02}{ones}"), "title": "x"});
        let many: Vec<Value> = (0..10).map(one).collect();
        let created = house.ask(&format!("POST {TODOS}\n\n{}", Value::Array(many))).await;
        assert_eq!(created.status, 201, "{}", created.body);
    }
    taken(&house, 300).await;
    let mut heard = heard(&house).await;
    heard.sort();
    let expected: Vec<String> = (0..300).map(|number| format!("CREATETODO n{number:03}")).collect();
    assert_eq!(heard, expected);
}
