//! Code that keeps failing: it is not called for a while, and what needs none goes on.

use std::time::{Duration, Instant};

use aegis_domain::{
    code::{CodeLimits, Grants, OnFailure},
    service::usual_limits,
};
use aegis_guests::{Body, Guest, answer, spin, trap};
use aegis_ipc::{
    board::{Counter, ModuleCounter},
    control::ToSupervisor,
};
use aegis_wasm::Terms;
use serde_json::json;

use super::house::{Answer, Extent, House, PATIENCE};

const UNRULIES: &str = "/aegis/api/models/unrulies";
const OUTGROWN: &str = "/aegis/api/models/outgrowns";
/// Faults in a row after which code is not called any more.
const FAULTS: usize = 5;

fn terms(limits: CodeLimits) -> Terms {
    Terms { settings: json!({}), limits, grants: Grants::default() }
}

/// A house with a model that does every wrong thing, and a document `a` of it.
async fn unruly(limits: CodeLimits) -> House {
    let house = House::of_components(&[&aegis_guests::unruly().build()], &terms(limits), |_| ()).await;
    assert_eq!(create(&house, r#"{"id":"a"}"#).await.status, 201);
    house
}

async fn create(house: &House, body: &str) -> Answer {
    house.ask(&format!("POST {UNRULIES}\n\n{body}")).await
}

async fn deed(house: &House, name: &str) -> (u16, String) {
    shown(&create(house, &format!("{{\"do\":\"{name}\"}}")).await)
}

/// Status and code.
fn shown(answer: &Answer) -> (u16, String) {
    let code = if answer.status < 400 { json!("") } else { answer.json()["code"].clone() };
    (answer.status, code.as_str().unwrap_or_default().to_owned())
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

async fn fail(house: &House) {
    for _ in 0..FAULTS {
        assert_eq!(deed(house, "trap").await, is(500, "guest-trap"));
    }
}

/// Asks again and again until the answer is another than that the code is not called; that one.
async fn when_called_again(mut ask: impl AsyncFnMut() -> Answer) -> Answer {
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = ask().await;
        if answer.status != 503 {
            return answer;
        }
        assert_eq!(answer.json()["code"], "module-unavailable", "{}", answer.body);
        assert!(Instant::now() < end, "it is never called again");
        tokio::task::yield_now().await;
    }
}

fn counted(house: &House, module: &str, counter: ModuleCounter) -> u64 {
    let entry = house.host.board.module(module).unwrap();
    entry.counter(counter).load(std::sync::atomic::Ordering::Relaxed)
}

fn traps(house: &House) -> u64 {
    house.host.cell.counter(Counter::GuestTraps).load(std::sync::atomic::Ordering::Relaxed)
}

#[tokio::test]
async fn code_that_only_fails_is_refused_without_an_instance_and_reads_go_on() {
    let house = unruly(CodeLimits::default()).await;
    fail(&house).await;
    let refused = create(&house, r#"{"do":"fine"}"#).await;
    assert_eq!(shown(&refused), is(503, "module-unavailable"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    let detail = refused.json()["detail"].as_str().unwrap_or_default().to_owned();
    insta::assert_snapshot!(detail, @"the code of module unruly keeps failing and is not called, for 1 s or less");
    let command = house.ask(&format!("POST {UNRULIES}/a/fine")).await;
    assert_eq!(shown(&command), is(503, "module-unavailable"));
    assert_eq!(house.ask(&format!("GET {UNRULIES}/a")).await.status, 200);
    assert_eq!(house.ask(&format!("GET {UNRULIES}")).await.json().as_array().map(Vec::len), Some(1));
    let model = house.host.catalog.models()[0].clone();
    assert_eq!((house.host.engine.instances(&model), traps(&house)), (0, 5));
}

#[tokio::test]
async fn operators_see_that_code_is_not_called() {
    let house = unruly(CodeLimits::default()).await;
    let mut operator = house.operator().await;
    let modules = operator.ask("GET /aegis/api/config?details=modules").await.json();
    assert_eq!((&modules[0]["breaker"], &modules[0]["health"]), (&json!("closed"), &json!("ok")));
    // The pause begins with the last of them, and may be over before anybody has looked.
    let seen = async {
        loop {
            fail_or_wait(&house).await;
            let modules = operator.ask("GET /aegis/api/config?details=modules").await.json();
            let metrics = operator.ask("GET /metrics").await.body;
            if modules[0]["breaker"] == "open"
                && metrics.contains("aegis_guest_module_open{module=\"unruly\"} 1")
            {
                return (modules, metrics);
            }
        }
    };
    let (modules, metrics) = tokio::time::timeout(PATIENCE, seen).await.unwrap();
    let health = modules[0]["health"].as_str().unwrap_or_default();
    assert!(health.starts_with("it keeps failing and is not called, for "), "{health}");
    assert!(metrics.contains("aegis_guest_module_denials_total{module=\"unruly\"} "), "{metrics}");
    assert!(counted(&house, "unruly", ModuleCounter::Openings) >= 1);
}

async fn fail_or_wait(house: &House) {
    while deed(house, "trap").await.0 != 503 {}
}

#[tokio::test]
async fn after_a_pause_one_call_decides_whether_it_is_called_again() {
    let house = unruly(CodeLimits::default()).await;
    fail(&house).await;
    let begun = Instant::now();
    let trial = when_called_again(async || create(&house, r#"{"do":"fine"}"#).await).await;
    assert_eq!(trial.status, 201, "{}", trial.body);
    assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
    assert_eq!(deed(&house, "trap").await, is(500, "guest-trap"), "one fault says nothing");
    assert_eq!(deed(&house, "fine").await.0, 201);
}

#[tokio::test]
async fn code_that_fails_on_every_seventh_call_costs_few_instances() {
    const CALLS: usize = 1_000;
    let seventh = "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
                   (if (i32.eq (global.get $calls) (i32.const 7)) (then unreachable))";
    let guest = Guest::model(json!({"name": "unruly", "endpoint": "unrulies", "version": "1.0.0"}))
        .item("(global $calls (mut i32) (i32.const 0))")
        .command("count", Body::from(seventh).then(answer("true")));
    let house = House::of_components(&[&guest.build()], &terms(CodeLimits::default()), |_| ()).await;
    assert_eq!(create(&house, r#"{"id":"a"}"#).await.status, 201);
    let begun = Instant::now();
    let mut client = house.client().await;
    for _ in 0..CALLS {
        let status = client.ask(&format!("POST {UNRULIES}/a/count")).await.status;
        assert!(matches!(status, 200 | 500 | 503), "{status}");
    }
    let pauses = begun.elapsed().as_secs();
    assert!(traps(&house) <= 5 * (1 + pauses), "{} instances in {pauses} s", traps(&house));
    assert!(counted(&house, "unruly", ModuleCounter::Denials) > 0);
}

#[tokio::test]
async fn a_no_of_the_code_and_of_the_host_is_no_fault() {
    let house = unruly(CodeLimits::default()).await;
    for _ in 0..4 * FAULTS {
        assert_eq!(deed(&house, "refuse").await, is(409, "conflict"));
        assert_eq!(create(&house, "7").await.status, 422);
        assert_eq!(
            shown(&house.ask(&format!("POST {UNRULIES}/a/unheard")).await),
            is(404, "no-such-command")
        );
    }
    assert_eq!(deed(&house, "fine").await.0, 201);
}

#[tokio::test]
async fn code_that_uses_up_its_own_time_has_failed_and_that_of_its_caller_has_not() {
    let house = unruly(CodeLimits { call_ms_max: 400, ..CodeLimits::default() }).await;
    for _ in 0..FAULTS {
        assert_eq!(deed(&house, "spin").await, is(504, "deadline-exceeded"));
    }
    assert_eq!(deed(&house, "fine").await, is(503, "module-unavailable"));

    let limits = terms(CodeLimits { call_ms_max: 60_000, ..CodeLimits::default() });
    let component = aegis_guests::unruly().build();
    let house = House::of_components(&[&component], &limits, |config| {
        config.limits.request_timeout = Duration::from_millis(100);
    })
    .await;
    for _ in 0..2 * FAULTS {
        let (status, code) = deed(&house, "spin").await;
        assert!(matches!(status, 503 | 504) && code != "module-unavailable", "{status} {code}");
    }
}

#[tokio::test]
async fn code_that_has_not_begun_in_time_has_not_failed() {
    const CALLS: u64 = 10;
    let commands = json!([{ "name": "spin", "cpu-bound": true }]);
    let spec = json!({"name": "unruly", "endpoint": "unrulies", "version": "1.0.0", "commands": commands});
    let guest = Guest::model(spec).command("spin", spin());
    let limits = CodeLimits { cpu_call_ms_max: 500, ..CodeLimits::default() };
    let house = House::of_components(&[&guest.build()], &terms(limits), |config| {
        (config.wasm.cpu_threads, config.wasm.cpu_queue_max) = (1, 16);
    })
    .await;
    assert_eq!(create(&house, r#"{"id":"a"}"#).await.status, 201);
    let mut clients = Vec::new();
    for _ in 0..CALLS {
        let mut client = house.client().await;
        client.send(&format!("POST {UNRULIES}/a/spin")).await;
        clients.push(client);
    }
    let mut told = Vec::new();
    for mut client in clients {
        told.push(shown(&client.answer(Extent::Whole).await.unwrap()));
    }
    let expected = [is(503, "overloaded"), is(504, "deadline-exceeded")];
    assert!(told.iter().all(|told| expected.contains(told)), "{told:?}");
    let of = |counter| counted(&house, "unruly", counter);
    let late = of(ModuleCounter::Timeouts);
    // Whoever comes to the thread in time may have a moment there.
    assert!((1..FAULTS as u64).contains(&late), "only who had the thread has failed: {late} of {told:?}");
    assert_eq!((of(ModuleCounter::Busy), of(ModuleCounter::Openings)), (CALLS - late, 0), "{told:?}");
}

#[tokio::test]
async fn code_that_wants_too_much_has_failed() {
    let house = unruly(CodeLimits::default()).await;
    for _ in 0..FAULTS {
        assert_eq!(deed(&house, "memory-rude").await, is(500, "guest-trap"));
    }
    assert_eq!(deed(&house, "fine").await, is(503, "module-unavailable"));
}

#[tokio::test]
async fn another_version_is_called_at_once_and_the_same_one_is_not() {
    let house = unruly(CodeLimits::default()).await;
    fail(&house).await;
    let limits = terms(CodeLimits::default());
    let same = house.adopt_components(8, &[&aegis_guests::unruly().build()], &limits).await;
    assert!(matches!(same, ToSupervisor::Adopted { generation: 8, .. }), "{same:?}");
    // Had it forgotten, one fault would say nothing.
    while deed(&house, "trap").await.0 != 500 {}
    assert_eq!(deed(&house, "fine").await, is(503, "module-unavailable"));
    let mended = Guest::model(json!({"name": "unruly", "endpoint": "unrulies", "version": "1.0.1"})).build();
    let other = house.adopt_components(9, &[&mended], &limits).await;
    assert!(matches!(other, ToSupervisor::Adopted { generation: 9, .. }), "{other:?}");
    assert_eq!(deed(&house, "trap").await.0, 201);
}

/// A house with documents of an older shape, of which `bad` cannot be brought into the present one.
async fn outgrown(on_failure: OnFailure, trial: Duration) -> House {
    let limits = terms(CodeLimits { on_failure, ..CodeLimits::default() });
    let component = aegis_guests::outgrown().build();
    let house =
        House::of_components(&[&component], &limits, |config| config.reload.canary_time = trial).await;
    for body in [r#"{"id":"bad","name":"explode"}"#, r#"{"id":"a","name":"x"}"#] {
        assert_eq!(house.ask(&format!("POST {OUTGROWN}\n\n{body}")).await.status, 201);
    }
    for _ in 0..FAULTS {
        assert_eq!(shown(&house.ask(&format!("GET {OUTGROWN}/bad")).await), is(500, "guest-trap"));
    }
    house
}

#[tokio::test]
async fn clients_see_what_is_stored_where_the_operator_says_so_and_nothing_else_is_left_out() {
    let house = outgrown(OnFailure::Skip, Duration::ZERO).await;
    let read = house.ask(&format!("GET {OUTGROWN}/a")).await;
    assert_eq!((read.status, read.json()["title"].clone()), (200, json!(null)), "{}", read.body);
    assert_eq!(house.ask(&format!("GET {OUTGROWN}")).await.json().as_array().map(Vec::len), Some(2));
    let changed = house.ask(&format!("PATCH {OUTGROWN}/a\n\n{{\"n\":1}}")).await;
    assert_eq!(shown(&changed), is(503, "module-unavailable"), "what is stored is not made of it");
    let command = house.ask(&format!("GET {OUTGROWN}/a?command=show")).await;
    assert_eq!(shown(&command), is(503, "module-unavailable"));
    let show = async || house.ask(&format!("GET {OUTGROWN}/a?command=show")).await;
    assert_eq!(when_called_again(show).await.json()["title"], "grown");
    let read = house.ask(&format!("GET {OUTGROWN}/a")).await;
    assert_eq!(read.json()["title"], "grown", "what was shown without it is not kept");
}

#[tokio::test]
async fn reads_are_refused_too_unless_the_operator_says_otherwise_and_while_a_version_is_on_trial() {
    for (on_failure, trial) in
        [(OnFailure::Deny, Duration::ZERO), (OnFailure::Skip, Duration::from_secs(3_600))]
    {
        let house = outgrown(on_failure, trial).await;
        let read = house.ask(&format!("GET {OUTGROWN}/a")).await;
        assert_eq!(shown(&read), is(503, "module-unavailable"), "{on_failure:?}");
    }
}

#[tokio::test]
async fn events_wait_until_the_code_is_called_again() {
    let journal = aegis_guests::journal(&["CREATEJOURNAL"]).command("trap", trap());
    let house = House::of_components(&[&journal.build()], &terms(CodeLimits::default()), |_| ()).await;
    let begun = || counted(&house, "journal", ModuleCounter::EventPosition) > 0;
    super::house::eventually("the delivery has begun", begun).await;
    // About this one it refuses, so that it makes no further document.
    let create = async || house.ask("POST /aegis/api/models/journals\n\n{\"id\":\"never\"}").await.status;
    assert_eq!(create().await, 201);
    super::house::eventually("it is heard", || counted(&house, "journal", ModuleCounter::EventsGivenUp) == 1)
        .await;
    for _ in 0..FAULTS {
        let trapped = house.ask("POST /aegis/api/models/journals/never/trap").await;
        assert_eq!(shown(&trapped), is(500, "guest-trap"));
    }
    // Two trials later, the pause is one that nothing here outlasts.
    while counted(&house, "journal", ModuleCounter::Openings) < 3 {
        house.ask("POST /aegis/api/models/journals/never/trap").await;
    }
    assert_eq!(house.ask("DELETE /aegis/api/models/journals/never").await.status, 200);
    assert_eq!(create().await, 201);
    super::house::eventually("it waits", || counted(&house, "journal", ModuleCounter::Denials) > 0).await;
    super::house::eventually("it is heard", || counted(&house, "journal", ModuleCounter::EventsGivenUp) == 2)
        .await;
    assert_eq!(counted(&house, "journal", ModuleCounter::EventsRepeated), 0);
    assert_eq!(counted(&house, "journal", ModuleCounter::Traps), FAULTS as u64 + 2);
}

#[tokio::test]
async fn a_service_that_keeps_failing_is_not_asked_either() {
    let limits = CodeLimits { call_ms_max: 400, ..usual_limits() };
    let house = House::of_service(&aegis_guests::service("hello"), limits, |_| ()).await;
    for _ in 0..2 * FAULTS {
        let late = house.ask("GET /hello/spin").await;
        assert_eq!(shown(&late), is(504, "deadline-exceeded"), "its time passes with a slow client as well");
    }
    for _ in 0..FAULTS {
        assert_eq!(shown(&house.ask("GET /hello/trap").await), is(500, "guest-trap"));
    }
    let refused = house.ask("GET /hello").await;
    assert_eq!((shown(&refused), refused.header("retry-after")), (is(503, "module-unavailable"), Some("1")));
}
