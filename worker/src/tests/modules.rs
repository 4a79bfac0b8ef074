//! Models with code: hooks, commands, and what becomes of code that misbehaves.

use aegis_domain::code::{Access, CodeLimits, Grants};
use aegis_guests::{Guest, answer, echo, refuse, spin, trap};
use aegis_ipc::board::Counter;
use aegis_wasm::Terms;
use serde_json::{Value, json};

use super::house::{Answer, House};

const TODOS: &str = "/aegis/api/models/todos";

fn terms(settings: Value) -> Terms {
    Terms { settings, limits: CodeLimits::default(), grants: Grants::default() }
}

async fn todos() -> House {
    let settings = terms(json!({"greeting": "hello"}));
    House::of_components(&[&aegis_guests::todo().build()], &settings, |_| ()).await
}

/// A model whose create hook does this, with these limits.
async fn creating(hook: impl Into<aegis_guests::Body>, limits: CodeLimits) -> House {
    let guest = Guest::model(json!({"name": "todo", "endpoint": "todos", "version": "1.0.0"}));
    let component = guest.hook("on-create", hook).build();
    House::of_components(
        &[&component],
        &Terms { settings: json!({}), limits, grants: Grants::default() },
        |_| (),
    )
    .await
}

async fn create(house: &House, body: &str) -> Answer {
    house.ask(&format!("POST {TODOS}\n\n{body}")).await
}

fn counted(house: &House, counter: Counter) -> u64 {
    house.host.cell.counter(counter).load(std::sync::atomic::Ordering::Relaxed)
}

/// Status, code and detail.
fn told(answer: &Answer) -> String {
    let problem = answer.json();
    format!(
        "{} {}: {}",
        answer.status,
        problem["code"].as_str().unwrap(),
        problem["detail"].as_str().unwrap()
    )
}

#[tokio::test]
async fn a_new_document_is_what_the_code_makes_of_it() {
    let house = todos().await;
    let created = create(&house, r#"{"id":"a","title":"x"}"#).await;
    assert_eq!(created.status, 201, "{}", created.body);
    assert_eq!(created.json()["stamped"], true);
    assert_eq!(
        house.ask(&format!("GET {TODOS}/a")).await.body,
        created.body,
        "what is stored is what was answered"
    );
    let many = create(&house, r#"[{"title":"y"},{"title":"z"}]"#).await.json();
    assert!(many.as_array().unwrap().iter().all(|one| one["stamped"] == true), "{many}");
}

#[tokio::test]
async fn a_document_that_the_code_or_the_rules_refuse_is_not_stored() {
    let house = todos().await;
    let told = [
        told(&create(&house, r#"{"title":"forbidden"}"#).await),
        told(&create(&house, r#"{"title":7}"#).await),
        told(&create(&house, r#"[{"title":"fine"},{"title":"forbidden"}]"#).await),
        told(&create(&house, "7").await),
    ];
    insta::assert_snapshot!(told.join("\n"));
    assert_eq!(house.ask(&format!("GET {TODOS}")).await.body, "[]");
}

#[tokio::test]
async fn every_kind_of_change_goes_through_the_code() {
    let house = todos().await;
    create(&house, r#"{"id":"a","title":"x","n":1}"#).await;
    for (request, title) in [
        (format!("PATCH {TODOS}/a\n\n{{\"title\":\"merged\"}}"), "merged"),
        (format!("PUT {TODOS}/a\n\n{{\"title\":\"replaced\"}}"), "replaced"),
        (
            format!(
                "PATCH {TODOS}/a\ncontent-type: application/json-patch+json\n\n\
                 [{{\"op\":\"replace\",\"path\":\"/title\",\"value\":\"patched\"}}]"
            ),
            "patched",
        ),
    ] {
        let answer = house.ask(&request).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let document = answer.json();
        assert_eq!((&document["title"], &document["touched"]), (&json!(title), &json!(true)), "{document}");
    }
    let refused = house.ask(&format!("PATCH {TODOS}/a\n\n{{\"title\":\"forbidden\"}}")).await;
    assert_eq!(refused.status, 422, "the last word on a change is the code's: {}", refused.body);
    let foreign = house.ask(&format!("PATCH {TODOS}/a\n\n{{\"revision\":99}}")).await;
    assert_eq!(foreign.status, 422, "{}", foreign.body);
}

#[tokio::test]
async fn the_code_may_forbid_a_removal() {
    let house = todos().await;
    create(&house, r#"{"id":"a","title":"x","protected":true}"#).await;
    create(&house, r#"{"id":"b","title":"x"}"#).await;
    let refused = house.ask(&format!("DELETE {TODOS}/a")).await;
    insta::assert_snapshot!(told(&refused), @"409 conflict: it is protected");
    assert_eq!(house.ask(&format!("DELETE {TODOS}/b")).await.status, 200);
    assert_eq!(house.ask(&format!("GET {TODOS}/a")).await.status, 200);
}

#[tokio::test]
async fn commands_answer_or_save() {
    let house = todos().await;
    create(&house, r#"{"id":"a","title":"x"}"#).await;
    let mut shown = Vec::new();
    for request in [
        "POST {}/a/echo\n\n{\"n\":1}",
        "PATCH {}/a/echo\n\n{\"n\":2}",
        "POST {}/a/echo",
        "GET {}/a?command=echo&args=%7B%22n%22:3%7D",
        "GET {}/a?command=greeting",
        "POST {}/a/burn\n\n{\"steps\":1000}",
        "POST {}/a/approve",
        "GET {}/a?command=approve",
        "POST {}/a/refuse",
        "POST {}/a/unknown",
        "POST {}/b/echo",
        "GET {}/a/echo",
        "POST {}/a/echo\n\n[1]",
        "POST {}/a/approve\nif-match: \"1\"",
        "OPTIONS {}/a/echo",
    ] {
        let request = request.replace("{}", TODOS);
        let answer = house.ask(&request).await;
        let etag = answer.header("etag").map(|tag| format!(" etag {tag}")).unwrap_or_default();
        let allow = answer.header("allow").map(|allow| format!(" allow {allow}")).unwrap_or_default();
        let body = answer.shown().lines().last().unwrap_or_default().to_owned();
        let body = if answer.body.is_empty() { String::new() } else { body };
        shown.push(format!("{}\n  {}{etag}{allow} {body}", request.lines().next().unwrap(), answer.status));
    }
    insta::assert_snapshot!(shown.join("\n"));
}

#[tokio::test]
async fn arguments_that_are_no_json_are_told_by_where_they_are() {
    let house = todos().await;
    create(&house, r#"{"id":"a","title":"x"}"#).await;
    let asked = house.ask(&format!("GET {TODOS}/a?command=echo&args=zzz")).await;
    insta::assert_snapshot!(told(&asked), @r#"400 bad-parameter: parameter "args": found no JSON (line 1, column 1: found 'z', expected a value), expected an argument as JSON"#);
    let told_of_body = house.ask(&format!("POST {TODOS}/a/echo\n\nzzz")).await;
    assert!(told(&told_of_body).starts_with("400 malformed-json"), "{}", told_of_body.body);
}

#[tokio::test]
async fn a_command_is_carried_out_once_for_each_idempotency_key() {
    let house = todos().await;
    create(&house, r#"{"id":"a","title":"x"}"#).await;
    for request in [
        format!("POST {TODOS}/a/approve\nidempotency-key: one"),
        format!("POST {TODOS}/a/echo\nidempotency-key: two\n\n{{\"n\":1}}"),
    ] {
        let (first, second) = (house.ask(&request).await, house.ask(&request).await);
        assert_eq!((first.status, second.status), (200, 200), "{}", second.body);
        assert_eq!(first.body, second.body);
        assert_eq!(second.header("idempotency-replayed"), Some("true"));
    }
    let other = house.ask(&format!("POST {TODOS}/a/echo\nidempotency-key: two\n\n{{\"n\":2}}")).await;
    assert_eq!(told(&other).split(':').next(), Some("422 idempotency-key-reused"));
}

#[tokio::test]
async fn a_preference_is_applied_where_the_answer_has_the_form_of_a_write() {
    let house = todos().await;
    let minimal = "prefer: return=minimal";
    for (request, applied) in [
        (format!("POST {TODOS}\n{minimal}\nidempotency-key: one\n\n{{\"id\":\"a\",\"title\":\"x\"}}"), true),
        (format!("POST {TODOS}\n{minimal}\nidempotency-key: one\n\n{{\"id\":\"a\",\"title\":\"x\"}}"), false),
        (format!("POST {TODOS}/a/echo\n{minimal}\n\n{{\"n\":1}}"), false),
        (format!("POST {TODOS}/a/approve\n{minimal}"), true),
    ] {
        let answer = house.ask(&request).await;
        assert!(answer.status < 300, "{request}: {}", answer.body);
        let expected = applied.then_some("return=minimal");
        assert_eq!(answer.header("preference-applied"), expected, "{request}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_trap_costs_one_request_and_its_instance() {
    let house =
        creating(trap().when_holds("input", "explode").then(refuse("invalid", "no")), CodeLimits::default())
            .await;
    let refused = create(&house, r#"{"x":1}"#).await;
    let trapped = create(&house, r#"{"x":"explode"}"#).await;
    insta::assert_snapshot!(told(&trapped), @"500 guest-trap: on-create of module todo failed; the log of the host has it under this request id");
    assert_eq!(
        told(&create(&house, r#"{"x":1}"#).await),
        told(&refused),
        "the next call gets another instance"
    );
    assert_eq!((counted(&house, Counter::GuestTraps), counted(&house, Counter::GuestRefusals)), (1, 2));
    assert_eq!(house.ask(&format!("GET {TODOS}")).await.body, "[]");
}

#[tokio::test]
async fn code_that_does_not_end_is_ended_and_others_are_served_meanwhile() {
    let limits = CodeLimits { call_ms_max: 300, ..CodeLimits::default() };
    let house = creating(spin(), limits).await;
    let spinning: Vec<_> = (0..4)
        .map(|_| {
            let address = house.public;
            tokio::spawn(async move {
                let mut client = super::house::Client::connect(address).await;
                client.ask(&format!("POST {TODOS}\n\n{{\"x\":1}}")).await
            })
        })
        .collect();
    super::house::eventually("code runs", || counted(&house, Counter::Connections) >= 4).await;
    let mut client = house.client().await;
    let mut served = 0;
    while !spinning.iter().all(tokio::task::JoinHandle::is_finished) {
        assert_eq!(client.ask(&format!("GET {TODOS}/none")).await.status, 404);
        served += 1;
    }
    assert!(served >= 5, "{served} reads while code was spinning");
    for task in spinning {
        // Those that waited for the others had less of their 300 ms.
        let told = told(&task.await.unwrap());
        let late = "504 deadline-exceeded: on-create of module todo took longer than ";
        assert!(told.starts_with(late), "{told}");
    }
    assert_eq!(counted(&house, Counter::GuestTimeouts), 4);
}

#[tokio::test]
async fn a_full_queue_of_the_cpu_pool_says_so_at_once() {
    let limits = CodeLimits { cpu_call_ms_max: 5_000, instances_max: 16, ..CodeLimits::default() };
    let settings = Terms { settings: json!({}), limits, grants: Grants::default() };
    let change = |config: &mut aegis_config::Config| {
        (config.wasm.cpu_threads, config.wasm.cpu_queue_max) = (1, 1);
    };
    let house = House::of_components(&[&aegis_guests::todo().build()], &settings, change).await;
    create(&house, r#"{"id":"a","title":"x"}"#).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = house.client().await;
        client.send(&format!("POST {TODOS}/a/burn\n\n{{\"steps\":100000000000}}")).await;
        clients.push(client);
    }
    let calls = || house.host.engine.cpu_calls();
    super::house::eventually("one call runs and one waits", || calls() == Some(2)).await;
    let refused = house.ask(&format!("POST {TODOS}/a/burn\n\n{{\"steps\":1}}")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{}", refused.body);
    assert_eq!(counted(&house, Counter::GuestBusy), 1);
    drop(clients);
    super::house::eventually("clients that went away free their places", || calls() == Some(0)).await;
    let fine = house.ask(&format!("POST {TODOS}/a/burn\n\n{{\"steps\":1}}")).await;
    assert_eq!(fine.status, 200, "{}", fine.body);
}

#[tokio::test]
async fn operators_see_modules_commands_and_calls() {
    let house = todos().await;
    create(&house, r#"{"id":"a","title":"x"}"#).await;
    let mut operator = house.operator().await;
    let modules = operator.ask("GET /aegis/api/config?details=modules").await.json();
    let module = &modules[0];
    assert_eq!(
        (&module["form"], &module["module"], &module["version"]),
        (&json!("component"), &json!("todo"), &json!("1.2.0"))
    );
    assert_eq!((&module["instances"], module["digest"].as_str().unwrap().len()), (&json!(1), 64));
    let commands = operator.ask("GET /aegis/api/config?details=commands").await.json();
    insta::assert_snapshot!(serde_json::to_string_pretty(&commands[0]["commands"][1]).unwrap());
    let metrics = operator.ask("GET /metrics").await.body;
    assert!(metrics.contains("\naegis_guest_calls_total 2\n"), "{metrics}");
}

#[tokio::test]
async fn reads_of_a_model_with_code_never_enter_it() {
    let house = todos().await;
    create(&house, r#"{"id":"a","title":"x"}"#).await;
    let before = counted(&house, Counter::GuestCalls);
    for _ in 0..10 {
        assert_eq!(house.ask(&format!("GET {TODOS}/a")).await.status, 200);
    }
    house.ask(&format!("GET {TODOS}")).await;
    assert_eq!(counted(&house, Counter::GuestCalls), before);
}

#[tokio::test]
async fn code_reaches_other_models_only_as_far_as_it_is_granted() {
    let components = [aegis_guests::todo().build(), aegis_guests::order().build()];
    let components: Vec<&[u8]> = components.iter().map(Vec::as_slice).collect();
    for (access, status, code) in [
        (None, 403, Some("denied")),
        (Some(Access { read: true, write: false }), 403, Some("denied")),
        (Some(Access { read: false, write: true }), 200, None),
    ] {
        let models = access.map(|access| ("TODO".to_owned(), access)).into_iter().collect();
        let terms = Terms { grants: Grants { models, ..Grants::default() }, ..terms(json!({})) };
        let house = House::of_components(&components, &terms, |_| ()).await;
        let order = house.ask("POST /aegis/api/models/orders\n\n{\"id\":\"o\",\"item\":\"tea\"}").await;
        assert_eq!(order.status, 201, "{}", order.body);
        let reminded = house.ask("POST /aegis/api/models/orders/o/remind\n\n{\"title\":\"tea\"}").await;
        assert_eq!(reminded.status, status, "{access:?}: {}", reminded.body);
        match code {
            Some(code) => assert_eq!(reminded.json()["code"], code, "{access:?}"),
            None => {
                let todos = house.ask(&format!("GET {TODOS}")).await.json();
                assert_eq!(
                    (&todos[0]["title"], &todos[0]["stamped"]),
                    (&json!("tea"), &json!(true)),
                    "{todos}"
                );
            }
        }
    }
}

#[tokio::test]
async fn code_learns_its_generation_and_says_whether_it_is_well() {
    let counter = aegis_guests::counter();
    let house = House::of_components(&[&counter.build()], &terms(json!({})), |_| ()).await;
    let created = house.ask("POST /aegis/api/models/counters\n\n{\"id\":\"a\"}").await;
    assert_eq!(created.status, 201, "{}", created.body);
    assert_eq!(house.ask("POST /aegis/api/models/counters/a/generation").await.body, "7");
    let mut operator = house.operator().await;
    let modules = operator.ask("GET /aegis/api/config?details=modules").await.json();
    assert_eq!(modules[0]["health"], "ok");

    let ill = counter.lifecycle("health", refuse("unavailable", "no more room"));
    let house = House::of_components(&[&ill.build()], &terms(json!({})), |_| ()).await;
    let mut operator = house.operator().await;
    let modules = operator.ask("GET /aegis/api/config?details=modules").await.json();
    assert_eq!(modules[0]["health"], "no more room");
}

#[tokio::test]
async fn code_that_does_not_release_what_it_holds_delays_no_worker_for_long() {
    let stuck = aegis_guests::counter().lifecycle("drain", spin());
    let house = House::of_components(&[&stuck.build()], &terms(json!({})), |_| ()).await;
    house.ask("POST /aegis/api/models/counters\n\n{\"id\":\"a\"}").await;
    assert_eq!(house.ask("POST /aegis/api/models/counters/a/next").await.body, "1");
    let model = house.host.catalog.models()[0].clone();
    assert_eq!(house.host.engine.instances(&model), 1);
    let begun = std::time::Instant::now();
    let most = std::time::Duration::from_millis(100);
    house.host.engine.drain_modules(begun + most).await;
    assert!(begun.elapsed() < super::house::PATIENCE);
    assert_eq!(house.host.engine.instances(&model), 0);
}

#[tokio::test]
async fn defects_that_code_tells_of_and_answers_that_nobody_can_use_are_failures_and_a_no_is_none() {
    let guest = Guest::model(json!({"name": "todo", "endpoint": "todos", "version": "1.0.0"}))
        .command("broken", refuse("internal", "it is broken"))
        .command("denied", refuse("denied", "nobody may"))
        .command("prose", answer("no JSON"));
    let house = House::of_components(&[&guest.build()], &terms(json!({})), |_| ()).await;
    assert_eq!(create(&house, "{\"id\":\"a\"}").await.status, 201);
    for (command, status) in [("broken", 500), ("denied", 403), ("prose", 500)] {
        let answer = house.ask(&format!("POST {TODOS}/a/{command}\n\n{{}}")).await;
        assert_eq!(answer.status, status, "{command}: {}", answer.body);
    }
    let metrics = house.operator().await.ask("GET /metrics").await.body;
    for (total, count) in [("calls", 3), ("failures", 2), ("refusals", 2), ("traps", 0)] {
        let line = format!("aegis_guest_module_{total}_total{{module=\"todo\"}} {count}");
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
}

#[tokio::test]
async fn a_document_that_is_none_is_a_failure_of_the_code_and_no_mistake_of_the_client() {
    let commands = json!([{ "name": "save", "saves": true }]);
    let spec = json!({"name": "todo", "endpoint": "todos", "version": "1.0.0", "commands": commands});
    let guest = Guest::model(spec)
        .hook("on-create", answer("null").when_holds("input", "\"none\"").then(echo("input")))
        .hook("on-update", answer("[]"))
        .command("save", answer("7"));
    let house = House::of_components(&[&guest.build()], &terms(json!({})), |_| ()).await;
    assert_eq!(create(&house, "{\"id\":\"a\"}").await.status, 201);
    let mut told = Vec::new();
    for request in [
        format!("POST {TODOS}\n\n{{\"is\":\"none\"}}"),
        format!("PATCH {TODOS}/a\n\n{{\"b\":1}}"),
        format!("POST {TODOS}/a/save\n\n{{}}"),
    ] {
        let answer = house.ask(&request).await;
        told.push(format!("{} {}", answer.status, answer.json()["code"]));
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    500 "guest-failed"
    500 "guest-failed"
    500 "guest-failed"
    "#);
    let metrics = house.operator().await.ask("GET /metrics").await.body;
    let line = "aegis_guest_module_failures_total{module=\"todo\"} 3";
    assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
}

#[tokio::test]
async fn what_code_refuses_because_another_worker_did_it_first_under_the_same_key_is_replayed() {
    for no in [
        refuse("denied", "it is paid"),
        refuse("unavailable", "it is paid"),
        refuse("internal", "it is paid"),
        refuse("too-large", "it is paid"),
        trap(),
    ] {
        let commands = json!([{ "name": "pay", "saves": true }]);
        let spec = json!({"name": "todo", "endpoint": "todos", "version": "1.0.0", "commands": commands});
        let pays = no.when_holds("target_data", "\"paid\":true").then(answer("{\"paid\":true}"));
        let guest = Guest::model(spec).command("pay", pays);
        let house = House::of_components(&[&guest.build()], &terms(json!({})), |_| ()).await;
        assert_eq!(create(&house, "{\"id\":\"a\"}").await.status, 201);
        let pay = format!("POST {TODOS}/a/pay\nidempotency-key: k\n\n{{}}");
        let first = house.ask(&pay).await;
        assert_eq!(first.status, 200, "{}", first.body);
        house.store.forget_a_key();
        let second = house.ask(&pay).await;
        assert_eq!((second.status, &second.body), (200, &first.body));
        assert_eq!(second.header("idempotency-replayed"), Some("true"));
        let other = house.ask(&pay.replace("key: k", "key: l")).await;
        assert!(other.status >= 400, "it is paid: {}", other.body);
    }
}
