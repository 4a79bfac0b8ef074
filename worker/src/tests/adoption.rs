//! Another generation in the same process.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use aegis_domain::{
    catalog::Catalog,
    code::{CodeLimits, Grants},
};
use aegis_guests::{Guest, agree, answer, burn, echo, leave, refuse, spin, splice, trap};
use aegis_ipc::{board::Gauge, control::ToSupervisor};
use aegis_wasm::Terms;
use serde_json::{Value, json};

use super::house::{Answer, House, PATIENCE, eventually, sealed};

fn terms() -> Terms {
    let limits = CodeLimits { cpu_call_ms_max: 120_000, ..CodeLimits::default() };
    Terms { settings: json!({}), limits, grants: Grants::default() }
}

/// A model whose documents say who made them, and with a command that takes long.
fn note(by: &str) -> Vec<u8> {
    let commands = json!([{ "name": "burn", "cpu-bound": true }]);
    let spec = json!({ "name": "note", "endpoint": "notes", "version": "1.0.0", "commands": commands });
    let hook = splice("input", &format!("\"by\":\"{by}\""));
    Guest::model(spec).hook("on-create", hook).command("burn", burn("args")).build()
}

async fn notes(by: &str) -> House {
    House::of_components(&[&note(by)], &terms(), |_| ()).await
}

fn worker(answer: &Answer) -> &str {
    let header = answer.headers.iter().find(|(name, _)| name == "aegis-worker");
    header.map_or("", |(_, value)| value.as_str())
}

fn assert_adopted(answer: &ToSupervisor, expected: u64) {
    assert!(
        matches!(answer, ToSupervisor::Adopted { generation, .. } if *generation == expected),
        "{answer:?}"
    );
}

/// Mappings of executable code of generations in this process.
fn code_mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("r-xp") && line.contains("aegis-bundle")).count()
}

#[tokio::test]
async fn the_next_request_of_a_connection_is_answered_by_the_new_version() {
    let house = notes("one").await;
    let mut client = house.client().await;
    let create = "POST /aegis/api/models/notes\n\n{\"x\":1}";
    let (first, known) = (client.ask(create).await, house.ask("GET /aegis/api/models/notes").await);
    assert_eq!((worker(&first), &first.json()["by"]), ("3.7", &json!("one")));
    for (generation, by) in [(8, "two"), (9, "three"), (7, "one")] {
        assert_adopted(&house.adopt_components(generation, &[&note(by)], &terms()).await, generation);
        let next = client.ask(create).await;
        assert_eq!((worker(&next), &next.json()["by"]), (format!("3.{generation}").as_str(), &json!(by)));
        assert_eq!(house.host.cell.gauge(Gauge::Generation).load(Ordering::Relaxed), generation);
    }
    let all = house.ask("GET /aegis/api/models/notes").await.json();
    assert_eq!(all.as_array().map(Vec::len), Some(known.json().as_array().map_or(0, Vec::len) + 3));
}

#[tokio::test]
async fn a_call_in_flight_ends_with_the_version_it_began_with_and_then_its_code_goes() {
    let mut house = notes("one").await;
    let created = house.ask("POST /aegis/api/models/notes\n\n{\"id\":\"a\"}").await;
    assert_eq!(created.status, 201, "{}", created.body);
    let mapped = code_mappings();
    assert!(mapped > 0, "the code of the first version is mapped");
    let mut client = house.client().await;
    let long = "POST /aegis/api/models/notes/a/burn\n\n{\"steps\":300000000}";
    let burning = tokio::spawn(async move { client.ask(long).await });
    eventually("the call runs", || house.host.engine.cpu_calls() == Some(1)).await;
    assert_adopted(&house.adopt_components(8, &[&note("two")], &terms()).await, 8);
    let fresh = house.ask("POST /aegis/api/models/notes\n\n{}").await;
    assert_eq!((worker(&fresh), &fresh.json()["by"]), ("3.8", &json!("two")));
    assert_eq!(house.host.engine.cpu_calls(), Some(1), "the call is not over");
    house.forget_the_past();
    assert_eq!(code_mappings(), 2 * mapped, "both are needed");
    let burnt = burning.await.unwrap();
    assert_eq!((burnt.status, worker(&burnt)), (200, "3.7"), "{}", burnt.body);
    eventually("only the new code is mapped", || code_mappings() == mapped).await;
}

#[tokio::test]
async fn what_is_not_used_any_more_is_unmapped() {
    let mut house = notes("one").await;
    let mapped = code_mappings();
    for generation in 8..18 {
        let by = format!("version {generation}");
        assert_adopted(&house.adopt_components(generation, &[&note(&by)], &terms()).await, generation);
        let made = house.ask("POST /aegis/api/models/notes\n\n{}").await;
        assert_eq!(made.json()["by"], by.as_str());
    }
    house.forget_the_past();
    eventually("only the present code is mapped", || code_mappings() == mapped).await;
}

#[tokio::test]
async fn modules_about_which_nothing_is_new_keep_their_instances() {
    let counter = aegis_guests::counter().build();
    let house = House::of_components(&[&counter, &note("one")], &terms(), |_| ()).await;
    let created = house.ask("POST /aegis/api/models/counters\n\n{\"id\":\"a\"}").await;
    assert_eq!(created.status, 201, "{}", created.body);
    let next = async || house.ask("POST /aegis/api/models/counters/a/next\n\n{}").await.json();
    let before = next().await.as_u64().unwrap();
    assert_adopted(&house.adopt_components(8, &[&counter, &note("two")], &terms()).await, 8);
    assert_eq!(next().await, before + 1, "the instance remembers");
    let other = Terms { settings: json!({ "from": 1 }), ..terms() };
    assert_adopted(&house.adopt_components(9, &[&counter, &note("two")], &other).await, 9);
    assert_eq!(next().await, before + 2, "it agrees to other settings and goes on");
}

#[tokio::test]
async fn an_instance_that_does_not_agree_to_other_settings_is_replaced() {
    let says_no = aegis_guests::refuse("unsupported", "replace me");
    let counter = aegis_guests::counter().lifecycle("reconfigure", says_no).build();
    let house = House::of_components(&[&counter], &terms(), |_| ()).await;
    assert_eq!(house.ask("POST /aegis/api/models/counters\n\n{\"id\":\"a\"}").await.status, 201);
    let next = async || house.ask("POST /aegis/api/models/counters/a/next\n\n{}").await.json();
    assert_eq!(next().await, 1);
    let other = Terms { settings: json!({ "from": 1 }), ..terms() };
    assert_adopted(&house.adopt_components(8, &[&counter], &other).await, 8);
    assert_eq!(next().await, 101);
}

#[tokio::test]
async fn code_that_was_kept_asks_the_generation_of_its_request() {
    let write = aegis_domain::code::Access { read: true, write: true };
    let grants = Grants { models: [("TODO".to_owned(), write)].into(), ..Grants::default() };
    let terms = Terms { grants, ..terms() };
    let stamping = |text: &str| {
        let spec = json!({ "name": "todo", "endpoint": "todos", "version": "1.0.0" });
        Guest::model(spec).hook("on-create", splice("input", &format!("\"by\":\"{text}\""))).build()
    };
    let order = aegis_guests::order().build();
    let house = House::of_components(&[&stamping("one"), &order], &terms, |_| ()).await;
    assert_eq!(
        house.ask("POST /aegis/api/models/orders\n\n{\"id\":\"o\",\"item\":\"tea\"}").await.status,
        201
    );
    let remind = async || {
        let answer = house.ask("POST /aegis/api/models/orders/o/remind\n\n{\"title\":\"tea\"}").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    };
    remind().await;
    assert_adopted(&house.adopt_components(8, &[&stamping("two"), &order], &terms).await, 8);
    remind().await;
    let todos = house.ask("GET /aegis/api/models/todos?__sort=createdAt").await.json();
    let mut by: Vec<&Value> = todos.as_array().unwrap().iter().map(|todo| &todo["by"]).collect();
    by.sort_by_key(|by| by.to_string());
    assert_eq!(by, [&json!("one"), &json!("two")]);
}

#[tokio::test]
async fn what_needs_another_process_is_said_and_nothing_changes() {
    let house = notes("one").await;
    let spec = json!({ "name": "note", "endpoint": "notes", "version": "1.0.0",
        "fields": [{ "name": "n", "kind": "integer", "rules": ["indexed"] }] });
    let indexed = Guest::model(spec).build();
    let told = house.adopt_components(8, &[&indexed], &terms()).await;
    let reason = "model NOTE: its fields or their rules are others".to_owned();
    assert_eq!(told, ToSupervisor::NotAdopted { generation: 8, reason, loses_state: false });
    let told = house.adopt_components(8, &[&note("two"), &aegis_guests::plain().build()], &terms()).await;
    assert!(
        matches!(&told, ToSupervisor::NotAdopted { reason, .. } if reason.contains("other models")),
        "{told:?}"
    );
    let mut config = house.host.config.clone();
    config.limits.body_bytes_max += 1;
    let catalog = Catalog::build(vec![]).unwrap();
    let told = house.adopt(8, &sealed(&config, &catalog, &[], Vec::new())).await;
    assert!(
        matches!(&told, ToSupervisor::NotAdopted { reason, .. } if reason.contains("configuration")),
        "{told:?}"
    );
    let missing = house.host.catalog.models().iter().map(|model| model.spec().clone()).collect();
    let mut missing: Vec<aegis_domain::spec::ModelSpec> = missing;
    missing[0].code.as_mut().unwrap().digest = "0".repeat(64);
    let catalog = Catalog::build(missing).unwrap();
    let told = house.adopt(8, &sealed(&house.host.config, &catalog, &[], Vec::new())).await;
    assert!(
        matches!(&told, ToSupervisor::NotAdopted { reason, .. } if reason.contains("not in the generation")),
        "{told:?}"
    );
    let made = house.ask("POST /aegis/api/models/notes\n\n{}").await;
    assert_eq!((worker(&made), &made.json()["by"]), ("3.7", &json!("one")));
}

/// A model whose instances remember how often they were called, and take other settings.
fn tallying(name: &str, endpoint: &str) -> Guest {
    let next = "(global.set $count (i64.add (global.get $count) (i64.const 1)))
                (call $answer (call $digits (global.get $count)))";
    Guest::model(json!({ "name": name, "endpoint": endpoint, "version": "1.0.0" }))
        .item("(global $count (mut i64) (i64.const 0))")
        .export("lifecycle")
        .command("next", next)
}

fn tally() -> Vec<u8> {
    tallying("tally", "tallies").build()
}

#[tokio::test]
async fn a_version_that_does_not_take_what_the_one_before_remembers_leaves_everything_as_it_was() {
    let heir = |version: &str| aegis_guests::heir(version);
    let house = House::of_components(&[&heir("0.9.0").build(), &tally()], &terms(), |_| ()).await;
    for endpoint in ["counters", "tallies"] {
        let created = house.ask(&format!("POST /aegis/api/models/{endpoint}\n\n{{\"id\":\"a\"}}")).await;
        assert_eq!(created.status, 201, "{}", created.body);
    }
    let next = async || {
        let counter = house.ask("POST /aegis/api/models/counters/a/next\n\n{}").await.json();
        (counter, house.ask("POST /aegis/api/models/tallies/a/next\n\n{}").await.json())
    };
    assert_eq!(next().await, (json!(1), json!(1)));
    let huge = "(drop (memory.grow (i32.const 513))) (call $answer (global.get $heap) (i32.const 0x2000000))";
    let refuses = [
        (
            heir("1.0.0"),
            "the next code of COUNTER does not take the state of the code before: the module refused: it is too old",
        ),
        (heir("1.0.1").function("handover", "restore", trap()), "restore of module counter failed"),
    ];
    // What is said about the other one differs, so it would go over to the next generation.
    let other = Terms { settings: json!({ "x": 1 }), ..terms() };
    for (generation, (guest, expected)) in (8_u64..).zip(refuses) {
        let told = house.adopt_components(generation, &[&guest.build(), &tally()], &other).await;
        let ToSupervisor::NotAdopted { reason, loses_state: true, .. } = &told else { panic!("{told:?}") };
        assert!(reason.contains(expected), "{reason}");
        assert_eq!(next().await, (json!(generation - 6), json!(generation - 6)), "both remember");
    }
    let told = house.adopt_components(10, &[&heir("0.9.1").build(), &tally()], &other).await;
    assert!(matches!(told, ToSupervisor::NotAdopted { loses_state: true, .. }), "{told:?}");

    let saves_too_much = heir("1.0.0").function("handover", "save", huge).build();
    let house = House::of_components(&[&saves_too_much], &terms(), |_| ()).await;
    assert_eq!(house.ask("POST /aegis/api/models/counters\n\n{\"id\":\"a\"}").await.status, 201);
    assert_eq!(house.ask("POST /aegis/api/models/counters/a/next\n\n{}").await.json(), 1);
    let told = house.adopt_components(8, &[&heir("1.0.1").build()], &terms()).await;
    let ToSupervisor::NotAdopted { reason, loses_state: true, .. } = &told else { panic!("{told:?}") };
    assert!(reason.contains("it hands over more bytes at once than it may"), "{reason}");
    assert_eq!(house.ask("GET /aegis/api/models/counters/a?command=generation").await.body, "7");
}

#[tokio::test]
async fn a_version_that_does_not_begin_takes_nothing_away_from_code_that_hands_over() {
    let picky = |guest: Guest| guest.lifecycle("init", refuse("unavailable", "there is no key")).build();
    let heir = |version: &str| aegis_guests::heir(version);
    let of_another_model = picky(tallying("tally", "tallies"));
    let house = House::of_components(&[&heir("1.0.0").build(), &tally()], &terms(), |_| ()).await;
    assert_eq!(house.ask("POST /aegis/api/models/counters\n\n{\"id\":\"a\"}").await.status, 201);
    assert_eq!(next_count(&house).await, 1);
    let fails = [(picky(heir("1.0.1")), tally()), (heir("1.0.0").build(), of_another_model.clone())];
    for (count, (counter, tally)) in (2..).zip(fails) {
        let told = house.adopt_components(8, &[&counter, &tally], &terms()).await;
        let ToSupervisor::NotAdopted { reason, loses_state: true, .. } = &told else { panic!("{told:?}") };
        assert!(reason.contains("does not begin: "), "{reason}");
        let lost = "there is no key; new workers would begin without what the code in force remembers";
        assert!(reason.ends_with(lost), "{reason}");
        assert_eq!(next_count(&house).await, count, "it remembers");
    }

    let house = House::of_components(&[&tally()], &terms(), |_| ()).await;
    let told = house.adopt_components(8, &[&of_another_model], &terms()).await;
    let ToSupervisor::NotAdopted { reason, loses_state: false, .. } = &told else { panic!("{told:?}") };
    assert!(reason.ends_with("there is no key"), "{reason}");
}

/// What the instances of [`aegis_guests::heir`] hand over.
const SAVE: &str = "(local.set $i (call $allocate (i32.const 8)))
    (i64.store (local.get $i) (global.get $count))
    (call $answer (local.get $i) (i32.const 8))";

/// A house with one counter that has counted to 3.
async fn counted_to_three(guest: &Guest) -> House {
    let house = House::of_components(&[&guest.build()], &terms(), |_| ()).await;
    assert_eq!(house.ask("POST /aegis/api/models/counters\n\n{\"id\":\"a\"}").await.status, 201);
    for count in 1..=3 {
        assert_eq!(next_count(&house).await, count);
    }
    house
}

async fn next_count(house: &House) -> Value {
    house.ask("POST /aegis/api/models/counters/a/next\n\n{}").await.json()
}

#[tokio::test]
async fn other_settings_alone_take_nothing_away_from_code_that_hands_over() {
    let heir = || aegis_guests::heir("1.0.0");
    let cannot = [
        heir().without("lifecycle"),
        heir().lifecycle("reconfigure", refuse("unsupported", "replace me")),
        heir().lifecycle("reconfigure", trap()),
    ];
    let other = Terms { settings: json!({ "x": 1 }), ..terms() };
    for guest in cannot {
        let house = counted_to_three(&guest).await;
        assert_adopted(&house.adopt_components(8, &[&guest.build()], &other).await, 8);
        assert_eq!(next_count(&house).await, 4);
        assert_eq!(house.ask("GET /aegis/api/models/counters/a?command=generation").await.body, "8");
    }
}

#[tokio::test]
async fn other_settings_under_which_nobody_takes_the_state_leave_everything_as_it_was() {
    // It takes nothing from this version of its own.
    let heir = aegis_guests::heir("0.9.0").lifecycle("reconfigure", refuse("unsupported", "replace me"));
    let agrees =
        tallying("sum", "sums").function("handover", "save", SAVE).function("handover", "restore", agree());
    let components = [heir.build(), agrees.build(), tally()];
    let components: Vec<&[u8]> = components.iter().map(Vec::as_slice).collect();
    let house = House::of_components(&components, &terms(), |_| ()).await;
    let endpoints = ["counters", "sums", "tallies"];
    for endpoint in endpoints {
        let created = house.ask(&format!("POST /aegis/api/models/{endpoint}\n\n{{\"id\":\"a\"}}")).await;
        assert_eq!(created.status, 201, "{}", created.body);
    }
    let other = Terms { settings: json!({ "x": 1 }), ..terms() };
    for count in 1..=3 {
        for endpoint in endpoints {
            let next = house.ask(&format!("POST /aegis/api/models/{endpoint}/a/next\n\n{{}}")).await;
            assert_eq!(next.json(), count, "{endpoint} remembers");
        }
        let told = house.adopt_components(8, &components, &other).await;
        let ToSupervisor::NotAdopted { reason, loses_state: true, .. } = &told else { panic!("{told:?}") };
        let expected = "the next code of COUNTER does not take the state of the code before: the module refused: it is too old";
        assert_eq!(reason, expected);
    }
}

#[tokio::test]
async fn code_writes_documents_of_its_own_model_as_it_ends() {
    let flush = |version: &str| {
        Guest::model(json!({ "name": "flush", "endpoint": "flushes", "version": "1.0.0" }))
            .info("flush", version)
            .hook("on-create", echo("input"))
            .lifecycle("drain", leave("flush", "{\"id\":\"left\"}"))
            .build()
    };
    let mut house = House::of_components(&[&flush("1.0.0")], &terms(), |_| ()).await;
    assert_eq!(house.ask("POST /aegis/api/models/flushes\n\n{\"id\":\"a\"}").await.status, 201);
    assert_adopted(&house.adopt_components(8, &[&flush("1.0.1")], &terms()).await, 8);
    house.forget_the_past();
    let stored = async {
        while house.ask("GET /aegis/api/models/flushes/left").await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, stored).await.expect("what the instance left is stored");
}

#[tokio::test]
async fn code_that_writes_documents_of_its_own_model_as_it_hands_over_is_refused_and_hands_over() {
    let heir = |version: &str| {
        aegis_guests::heir(version)
            .hook("on-create", echo("input"))
            .function("handover", "save", leave("counter", "{\"id\":\"left\"}").then(SAVE))
            .lifecycle("reconfigure", refuse("unsupported", "replace me"))
    };
    let house = counted_to_three(&heir("1.0.0")).await;
    assert_adopted(&house.adopt_components(8, &[&heir("1.0.1").build()], &terms()).await, 8);
    assert_eq!(next_count(&house).await, 4);
    let other = Terms { settings: json!({ "x": 1 }), ..terms() };
    assert_adopted(&house.adopt_components(9, &[&heir("1.0.1").build()], &other).await, 9);
    assert_eq!(next_count(&house).await, 5);
    assert_eq!(house.ask("GET /aegis/api/models/counters/left").await.status, 404);
}

#[tokio::test]
async fn a_version_that_is_rejected_has_written_nothing_as_if_it_had_ended() {
    let heir = |version: &str| {
        aegis_guests::heir(version).lifecycle("drain", leave("counter", "{\"id\":\"left\"}")).build()
    };
    let house = counted_to_three(&aegis_guests::heir("0.9.0")).await;
    let told = house.adopt_components(8, &[&heir("1.0.0")], &terms()).await;
    assert!(matches!(told, ToSupervisor::NotAdopted { loses_state: true, .. }), "{told:?}");
    assert_eq!(house.ask("GET /aegis/api/models/counters/left").await.status, 404);
    assert_eq!(next_count(&house).await, 4);
}

#[tokio::test]
async fn code_that_is_called_all_the_time_goes_on_with_what_it_remembers_and_its_settings() {
    let heir = aegis_guests::heir("1.0.0").command("spin", spin()).build();
    let limits = CodeLimits { call_ms_max: 120_000, ..CodeLimits::default() };
    let house = House::of_components(&[&heir], &Terms { limits, ..terms() }, |_| ()).await;
    assert_eq!(house.ask("POST /aegis/api/models/counters\n\n{\"id\":\"a\"}").await.status, 201);
    let mut spinning = house.client().await;
    spinning.send("POST /aegis/api/models/counters/a/spin\n\n{}").await;
    let model = house.host.catalog.models()[0].clone();
    eventually("it spins", || house.host.engine.instances(&model) == 1).await;
    let next = async || house.ask("POST /aegis/api/models/counters/a/next\n\n{}").await.json();
    assert_eq!((next().await, next().await), (json!(1), json!(2)));
    let other = Terms { settings: json!({ "x": 1 }), limits, ..terms() };
    let told = house.adopt_components(8, &[&heir], &other).await;
    let ToSupervisor::NotAdopted { reason, loses_state: true, .. } = &told else { panic!("{told:?}") };
    assert_eq!(reason, "the code of COUNTER does not hand its state over: module counter is busy");
    assert_eq!(next().await, json!(3), "it remembers");
    drop(spinning);
    eventually("the call has ended", || house.host.engine.instances(&model) == 1).await;
    assert_adopted(&house.adopt_components(8, &[&heir], &other).await, 8);
    assert_eq!(next().await, json!(4), "it goes on under other settings");
}

#[tokio::test]
async fn what_has_handed_over_is_not_called_before_the_exchange() {
    const STEPS: u64 = 60_000_000;
    // It is halted and saved after the counter, which may write to it, and takes its time.
    let slow = |version: &str| {
        let save = format!(
            "(drop (call $burn (i64.const {STEPS}))) (call $answer (global.get $heap) (i32.const 0))"
        );
        Guest::model(json!({ "name": "slow", "endpoint": "slows", "version": "1.0.0" }))
            .info("slow", version)
            .command("be", answer("true"))
            .function("handover", "save", save.as_str())
            .function("handover", "restore", agree())
            .build()
    };
    let write = aegis_domain::code::Access { read: true, write: true };
    let grants = Grants { models: [("SLOW".to_owned(), write)].into(), ..Grants::default() };
    let limits = CodeLimits { call_ms_max: 60_000, ..CodeLimits::default() };
    let terms = Terms { grants, limits, ..terms() };
    let of = |version: &str| [aegis_guests::heir(version).build(), slow(version)];
    let [heir, other] = of("1.0.0");
    let house = House::of_components(&[&heir, &other], &terms, |_| ()).await;
    for endpoint in ["counters", "slows"] {
        let created = house.ask(&format!("POST /aegis/api/models/{endpoint}\n\n{{\"id\":\"a\"}}")).await;
        assert_eq!(created.status, 201, "{}", created.body);
    }
    assert_eq!(house.ask("POST /aegis/api/models/slows/a/be\n\n{}").await.body, "true");
    let mut client = house.client().await;
    let next = "POST /aegis/api/models/counters/a/next\n\n{}";
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let counting = tokio::spawn(async move {
        let mut counts = Vec::new();
        while !stopped.load(Ordering::Relaxed) {
            counts.push(client.ask(next).await.json().as_u64().unwrap());
        }
        counts
    });
    let [heir, other] = of("1.0.1");
    assert_adopted(&house.adopt_components(8, &[&heir, &other], &terms).await, 8);
    let last = house.ask(next).await.json().as_u64().unwrap();
    stop.store(true, Ordering::Relaxed);
    let counts = counting.await.unwrap();
    assert!(counts.len() > 1 && last > 1, "{counts:?}");
    assert!(counts.is_sorted(), "it goes back: {counts:?}");
}
