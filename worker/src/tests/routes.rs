//! Custom routes of models.

use std::time::Duration;

use aegis_domain::code::{CodeLimits, Grants};
use aegis_guests::{Guest, echo, respond, whole};
use aegis_ipc::board::Counter;
use aegis_wasm::Terms;
use serde_json::json;

use super::house::{Answer, Extent, House, eventually};

const LABELS: &str = "/aegis/api/models/labels";

async fn labels(limits: CodeLimits, change: impl FnOnce(&mut aegis_config::Config)) -> House {
    let terms = Terms { settings: json!({}), limits, grants: Grants::default() };
    House::of_components(&[&aegis_guests::label().build()], &terms, change).await
}

async fn usual() -> House {
    labels(CodeLimits::default(), |_| ()).await
}

/// Status, `Allow` if there is one, and the end of the body.
fn told(answer: &Answer) -> String {
    let allow = answer.header("allow").map(|allow| format!(" allow {allow}")).unwrap_or_default();
    let body = if answer.header("content-type") == Some("application/problem+json") && !answer.body.is_empty()
    {
        let problem = answer.json();
        format!(" {}: {}", problem["code"].as_str().unwrap(), problem["detail"].as_str().unwrap())
    } else {
        format!(" {}", answer.body)
    };
    format!("{}{allow}{}", answer.status, if answer.body.is_empty() { String::new() } else { body })
}

#[tokio::test]
async fn routes_are_found_by_pattern_and_method_and_go_before_the_generated_ones() {
    let house = usual().await;
    let created = house.ask(&format!("POST {LABELS}\n\n{{\"id\":\"a\",\"title\":\"x\"}}")).await;
    assert_eq!(created.status, 201, "{}", created.body);
    let mut shown = Vec::new();
    for request in [
        "GET {}/a/label",
        "GET {}/a%20b/label",
        "GET {}/a%2Fb/label",
        "GET {}/%2E%2E/label",
        "GET {}/a/labels",
        "GET {}/a",
        "HEAD {}/a",
        "DELETE {}/a/label",
        "OPTIONS {}/a/label",
        "OPTIONS {}/a",
        "POST {}/a",
        "GET {}/query?x=1&y=%20",
        "GET {}/path?x",
        "GET /aegis/api/models/label%73/path",
        "GET /labels-of-all/7",
        "POST /labels-of-all/7",
        "GET /labels-of-all",
        "GET {}/refuse",
        "GET {}/status?204",
        "GET {}/status?404",
        "GET {}/status?101",
        "GET {}/status?99999",
        "PUT {}/a\n\n{\"title\":\"y\"}",
        "DELETE {}/a",
    ] {
        let request = request.replace("{}", LABELS);
        let answer = house.ask(&request).await;
        let answered = match answer.header("content-type") {
            Some("application/json") => format!("{} a document", answer.status),
            _ => told(&answer),
        };
        shown.push(format!("{}\n  {answered}", request.lines().next().unwrap()));
    }
    insta::assert_snapshot!(shown.join("\n"));
}

#[tokio::test]
async fn the_host_says_who_answered_whatever_the_route_says() {
    let house = usual().await;
    let created = house.ask(&format!("POST {LABELS}\n\n{{\"title\":\"x\"}}")).await;
    assert_eq!((created.status, created.header("aegis-seq")), (201, Some("1")));
    let echoed = house.ask(&format!("POST {LABELS}/echo\nx-request-id: mine\n\nsome text")).await;
    assert_eq!((echoed.status, echoed.body.as_str()), (201, "some text"));
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        ("x-kind", "echo"),
        ("aegis-worker", "3.7"),
        ("aegis-seq", "1"),
        ("x-request-id", "mine"),
        ("content-length", "9"),
    ] {
        assert_eq!(echoed.header(name), Some(value), "{name}");
    }
    assert_ne!(echoed.header("connection"), Some("close"));
    let head = house.ask(&format!("HEAD {LABELS}/a/label")).await;
    assert_eq!((head.status, head.header("content-length"), head.body.as_str()), (200, Some("1"), ""));
}

#[tokio::test]
async fn a_body_beyond_the_payload_limit_is_refused_before_the_code_is_asked() {
    let house = labels(CodeLimits { payload_bytes_max: 2048, ..CodeLimits::default() }, |_| ()).await;
    let large = house.ask(&format!("POST {LABELS}/echo\n\n{}", "x".repeat(2049))).await;
    assert_eq!(told(&large), "413 body-too-large: the body has 2049 bytes, at most 2048 are allowed");
    assert_eq!(house.host.cell.counter(Counter::GuestCalls).load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_route_that_fails_costs_one_request() {
    let house = labels(CodeLimits { call_ms_max: 1_000, ..CodeLimits::default() }, |_| ()).await;
    let trapped = house.ask(&format!("GET {LABELS}/trap")).await;
    assert_eq!(
        told(&trapped),
        "500 guest-trap: route GET /trap of module label failed; the log of the host has it under this request id"
    );
    let late = house.ask(&format!("GET {LABELS}/spin")).await;
    assert_eq!(
        told(&late),
        "504 deadline-exceeded: route GET /spin of module label took longer than 1000 ms"
    );
    assert_eq!(house.ask(&format!("GET {LABELS}/query?x")).await.body, "x");
}

#[tokio::test]
async fn routes_that_are_cpu_bound_wait_for_a_thread_or_are_told_to_come_back() {
    let limits = CodeLimits { cpu_call_ms_max: 5_000, ..CodeLimits::default() };
    let house = labels(limits, |config| (config.wasm.cpu_threads, config.wasm.cpu_queue_max) = (1, 0)).await;
    let mut client = house.client().await;
    client.send(&format!("POST {LABELS}/burn\n\n100000000000")).await;
    eventually("a call runs", || house.host.engine.cpu_calls() == Some(1)).await;
    let refused = house.ask(&format!("POST {LABELS}/burn\n\n1")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{}", refused.body);
    drop(client);
    eventually("its place is free", || house.host.engine.cpu_calls() == Some(0)).await;
    assert_eq!(house.ask(&format!("POST {LABELS}/burn\n\n1")).await.status, 200);
}

#[tokio::test]
async fn a_worker_that_leaves_answers_for_routes_that_are_not_done() {
    let limits = CodeLimits { call_ms_max: 30_000, cpu_call_ms_max: 30_000, ..CodeLimits::default() };
    let house = labels(limits, |_| ()).await;
    let mut reader = house.client().await;
    reader.send(&format!("GET {LABELS}/spin")).await;
    let mut writer = house.client().await;
    writer.send(&format!("POST {LABELS}/burn\nidempotency-key: k\n\n100000000000")).await;
    eventually("both are at work", || house.host.load.in_flight() == 2).await;
    house.drain(Some(Duration::from_millis(500)), Duration::from_millis(250));
    let read = reader.answer(Extent::Whole).await.expect("an answer").json();
    assert_eq!((&read["code"], &read["retry"]), (&"unavailable".into(), &"after".into()), "{read}");
    let written = writer.answer(Extent::Whole).await.expect("an answer");
    assert_eq!((written.status, written.header("connection")), (503, Some("close")));
    let written = written.json();
    assert_eq!((&written["code"], &written["retry"]), (&"write-outcome-unknown".into(), &"never".into()));
}

#[tokio::test]
async fn code_is_told_the_key_that_the_client_gave() {
    let told = respond("(i32.const 200)", &[], &whole("ctx_idempotency_key"));
    let guest = Guest::model(json!({ "name": "label", "endpoint": "labels", "version": "1.0.0" }))
        .command("key", echo("ctx_idempotency_key"))
        .route(json!({ "method": "post", "path": "/key" }), told.clone())
        .route(json!({ "method": "get", "path": "/key" }), told);
    let terms = Terms { settings: json!({}), limits: CodeLimits::default(), grants: Grants::default() };
    let house = House::of_components(&[&guest.build()], &terms, |_| ()).await;
    assert_eq!(house.ask(&format!("POST {LABELS}\n\n{{\"id\":\"a\"}}")).await.status, 201);
    for path in ["a/key", "key"] {
        let told = house.ask(&format!("POST {LABELS}/{path}\nidempotency-key: \"k 1\"")).await;
        assert_eq!(told.json()["code"], "bad-header", "{path}");
        let told = house.ask(&format!("POST {LABELS}/{path}\nidempotency-key: \"k-1\"")).await;
        assert_eq!((told.status, told.body.as_str()), (200, "\"k-1\""), "{path}");
    }
    assert_ne!(house.ask(&format!("GET {LABELS}/key\nidempotency-key: k-1")).await.body, "k-1");
}

#[tokio::test]
async fn operators_see_routes() {
    let house = usual().await;
    let mut operator = house.operator().await;
    let routes = operator.ask("GET /aegis/api/config?details=routes").await.json();
    let shown: Vec<String> = routes[0]["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| format!("{} {} {} {}", route["method"], route["path"], route["place"], route["openapi"]))
        .collect();
    insta::assert_snapshot!(shown.join("\n"));
}
