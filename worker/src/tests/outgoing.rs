//! Modules that reach other systems: what they are granted, what they are told, and what a slow one costs.

use std::collections::BTreeMap;

use aegis_config::{HostSecret, Secret, SecretSource};
use aegis_domain::{
    code::{CodeLimits, Grants},
    outgoing::HostGrant,
    service::usual_limits,
};
use aegis_ipc::board::Counter;
use aegis_wasm::Terms;
use serde_json::json;

use super::{
    house::{Answer, Extent, House, eventually},
    upstream::{Upstream, answering},
};

const CALLERS: &str = "/aegis/api/models/callers";

fn hosts(upstream: &Upstream) -> Vec<HostGrant> {
    vec![HostGrant::parse(&upstream.address.to_string()).unwrap()]
}

fn names(names: &[&str]) -> std::collections::BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A house that has the secret `stripe`, with one document of a model that calls others.
async fn calling(grants: Grants, limits: CodeLimits) -> House {
    let terms = Terms { settings: json!({}), limits, grants };
    let component = aegis_guests::caller().build();
    let house = House::of_components(&[&component], &terms, |config| {
        let value = Some(Secret::new(b"sk_hush_hush".to_vec()));
        let source = SecretSource::Variable("STRIPE".to_owned());
        config.secrets = BTreeMap::from([("stripe".to_owned(), HostSecret { source, value })]);
    })
    .await;
    let created = house.ask(&format!("POST {CALLERS}\n\n{{\"id\":\"a\"}}")).await;
    assert_eq!(created.status, 201, "{}", created.body);
    house
}

async fn command(house: &House, name: &str, url: &str) -> Answer {
    house.ask(&format!("POST {CALLERS}/a/{name}\n\n{{\"url\":\"{url}\"}}")).await
}

fn told(answer: &Answer) -> String {
    let problem = answer.json();
    format!(
        "{} {}: {}",
        answer.status,
        problem["code"].as_str().unwrap(),
        problem["detail"].as_str().unwrap()
    )
}

fn counted(house: &House) -> [u64; 3] {
    [Counter::OutgoingRequests, Counter::OutgoingDenied, Counter::OutgoingFailed]
        .map(|counter| house.host.cell.counter(counter).load(std::sync::atomic::Ordering::Relaxed))
}

#[tokio::test]
async fn a_module_asks_the_hosts_that_it_is_granted_with_the_secrets_that_it_is_granted() {
    let server = Upstream::start(|_| answering(200, "", r#"{"paid":true}"#)).await;
    let grants = Grants { http: hosts(&server), secrets: names(&["stripe"]), ..Grants::default() };
    let house = calling(grants, CodeLimits::default()).await;
    for name in ["fetch", "pay", "both"] {
        let answer = command(&house, name, &server.url("/x")).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"paid":true}"#), "{name}");
    }
    let seen = server.requests();
    let authorized = |request: &String| request.contains("authorization: Bearer sk_hush_hush\r\n");
    assert_eq!(seen.iter().map(authorized).collect::<Vec<_>>(), [false, true, false, false]);
    assert!(seen.iter().all(|request| request.starts_with("GET /x HTTP/1.1\r\n")), "{seen:?}");
    assert_eq!(counted(&house), [4, 0, 0]);
    let hidden = command(&house, "tell", "").await;
    assert_eq!(
        told(&hidden),
        "403 denied: seeing the secret \"stripe\" is not granted to this module (\"secrets.reveal\")"
    );
}

#[tokio::test]
async fn without_grants_a_module_is_told_no_and_lives_on() {
    let server = Upstream::start(|_| answering(200, "", "{}")).await;
    let house = calling(Grants::default(), CodeLimits::default()).await;
    let url = server.url("/");
    let denied = format!("403 denied: http://{} is not granted to this module", server.address);
    assert_eq!(told(&command(&house, "fetch", &url).await), denied);
    assert_eq!(told(&command(&house, "both", &url).await), denied);
    assert_eq!(
        told(&command(&house, "pay", &url).await),
        "403 denied: the secret \"stripe\" is not granted to this module"
    );
    assert_eq!((server.accepted(), counted(&house)), (0, [3, 3, 0]));
    let traps = house.host.cell.counter(Counter::GuestTraps).load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(traps, 0);
}

#[tokio::test]
async fn a_secret_that_code_may_see_does_not_come_out_with_what_it_says() {
    let grants = Grants { reveal: names(&["stripe"]), ..Grants::default() };
    let house = calling(grants, CodeLimits::default()).await;
    assert_eq!(told(&command(&house, "tell", "").await), "422 invalid: [secret]");
}

#[tokio::test]
async fn a_secret_that_code_may_see_is_not_told_when_it_fails() {
    let grants = Grants { reveal: names(&["stripe"]), ..Grants::default() };
    let house = calling(grants, CodeLimits::default()).await;
    let failed = command(&house, "panic", "").await;
    assert_eq!((failed.status, &failed.json()["code"]), (500, &"guest-trap".into()), "{}", failed.body);
    assert!(!failed.body.contains("hush"), "{}", failed.body);
}

#[tokio::test]
async fn handles_of_secrets_are_few() {
    let grants = Grants { secrets: names(&["stripe"]), ..Grants::default() };
    let house = calling(grants, CodeLimits::default()).await;
    assert_eq!(
        told(&command(&house, "hoard", "").await),
        "413 body-too-large: found 64 open secrets, expected fewer: drop those not in use"
    );
}

#[tokio::test]
async fn a_server_that_stalls_costs_one_call_until_its_deadline_and_its_connection_is_closed() {
    let server =
        Upstream::start(
            |request| if request.contains("/stuck") { String::new() } else { answering(200, "", "{}") },
        )
        .await;
    let limits = CodeLimits { call_ms_max: 1_000, ..CodeLimits::default() };
    let house = calling(Grants { http: hosts(&server), ..Grants::default() }, limits).await;
    let stuck = command(&house, "fetch", &server.url("/stuck")).await;
    assert_eq!((stuck.status, &stuck.json()["code"]), (504, &"deadline-exceeded".into()), "{}", stuck.body);
    eventually("the connection is closed", || server.open() == 0).await;
    let late = house.host.cell.counter(Counter::GuestTimeouts).load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(late, 1, "its instance is gone");
    assert_eq!(command(&house, "fetch", &server.url("/")).await.status, 200);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_the_connection_of_its_request_with_it() {
    let server = Upstream::start(|_| String::new()).await;
    let limits = CodeLimits { call_ms_max: 60_000, ..CodeLimits::default() };
    let house = calling(Grants { http: hosts(&server), ..Grants::default() }, limits).await;
    let mut client = house.client().await;
    client.send(&format!("POST {CALLERS}/a/fetch\n\n{{\"url\":\"{}\"}}", server.url("/"))).await;
    eventually("the request is there", || server.requests().len() == 1).await;
    drop(client);
    eventually("the connection is closed", || server.open() == 0).await;
}

#[tokio::test]
async fn an_answer_is_no_larger_than_what_may_cross_the_border() {
    let server = Upstream::start(|_| answering(200, "", &format!("\"{}\"", "a".repeat(70_000)))).await;
    let limits = CodeLimits { payload_bytes_max: 65_536, ..CodeLimits::default() };
    let house = calling(Grants { http: hosts(&server), ..Grants::default() }, limits).await;
    let large = told(&command(&house, "fetch", &server.url("/")).await);
    assert_eq!(large, "413 body-too-large: found an answer of more than 65536 bytes, expected at most that");
}

async fn relaying(http: Vec<HostGrant>, limits: CodeLimits) -> House {
    House::of_service_reaching(&aegis_guests::relay(), limits, http, |_| ()).await
}

/// Status and chunked body.
async fn relayed(house: &House, authority: &str) -> (String, Option<String>) {
    let mut client = house.client().await;
    client.send(&format!("GET /hello?{authority}")).await;
    let head = String::from_utf8(client.until(b"\r\n\r\n").await.expect("a head")).unwrap();
    let body = client.until(b"0\r\n\r\n").await.map(|body| String::from_utf8(body).unwrap());
    (head.split(' ').nth(1).unwrap().to_owned(), body)
}

#[tokio::test]
async fn a_service_over_wasi_http_reaches_what_it_is_granted_and_nothing_else() {
    let server = Upstream::start(|_| answering(203, "", "from elsewhere")).await;
    let (granted, denied) = (server.address.to_string(), "127.0.0.1:1");
    let house = relaying(hosts(&server), usual_limits()).await;
    for _ in 0..2 {
        let (status, body) = relayed(&house, &granted).await;
        assert_eq!(status, "203");
        assert!(body.unwrap().contains("from elsewhere"));
    }
    assert_eq!(server.accepted(), 1, "the connection is used again by the next instance");
    assert!(server.requests()[0].contains(&format!("host: {granted}\r\n")), "{:?}", server.requests());
    let (status, body) = relayed(&house, denied).await;
    assert_eq!((status.as_str(), body.unwrap().contains('P')), ("502", true), "HTTP-request-denied");
    assert_eq!(counted(&house), [3, 1, 0]);
    let ungranted = relaying(Vec::new(), usual_limits()).await;
    assert_eq!(relayed(&ungranted, &granted).await.0, "502");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_service_waits_for_others_until_its_own_deadline() {
    let server = Upstream::start(|_| "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_owned()).await;
    let house = relaying(hosts(&server), CodeLimits { call_ms_max: 1_000, ..usual_limits() }).await;
    let (status, body) = relayed(&house, &server.address.to_string()).await;
    assert_eq!((status.as_str(), body), ("200", None), "the answer ends before its body does");
    eventually("the connection is closed", || server.open() == 0).await;
    let silent = Upstream::start(|_| String::new()).await;
    let house = relaying(hosts(&silent), CodeLimits { call_ms_max: 1_000, ..usual_limits() }).await;
    let mut client = house.client().await;
    client.send(&format!("GET /hello?{}", silent.address)).await;
    let late = client.answer(Extent::Head).await.expect("an answer").status;
    assert!(late == 504 || late == 502, "{late}");
    eventually("the connection is closed", || silent.open() == 0).await;
}
