//! Requests that meet a defect of the host.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aegis_ipc::board::Counter;
use tracing::{Event, Metadata, Subscriber, span};

use super::house::{Answer, House};
use crate::service;

const TODOS: &str = "/aegis/api/models/todos";

/// No deadline can be computed from it, so every request that needs one panics.
fn without_deadlines(config: &mut aegis_config::Config) {
    config.limits.request_timeout = Duration::MAX;
}

fn assert_told(answer: &Answer) {
    assert_eq!(answer.status, 500, "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!((problem["code"].as_str(), problem["instance"].as_str()), (Some("internal"), Some("mine")));
    assert_eq!(answer.header("x-request-id"), Some("mine"));
    assert!(!answer.body.contains("overflow") && !answer.body.contains(".rs"), "{}", answer.body);
}

/// A log whose first line about a request is a panic.
struct BrokenLog {
    is_broken: AtomicBool,
}

impl Subscriber for BrokenLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "aegis::request"
    }

    fn event(&self, _: &Event<'_>) {
        assert!(!self.is_broken.swap(false, Ordering::Relaxed), "the log is broken");
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[tokio::test]
async fn a_panic_is_answered_and_counted_and_the_connection_goes_on() {
    let house = House::with(without_deadlines).await;
    let mut client = house.client().await;
    for request in ["POST {}\nx-request-id: mine\n\n{\"text\":\"x\"}", "GET {}\nx-request-id: mine"] {
        assert_told(&client.ask(&request.replace("{}", TODOS)).await);
        assert_eq!(client.ask("GET /livez").await.status, 200, "over the same connection");
    }
    let counted = |counter| house.host.cell.counter(counter).load(Ordering::Relaxed);
    assert_eq!((counted(Counter::Defects), counted(Counter::Responses5xx)), (2, 2));
    assert_eq!(house.host.load.in_flight(), 0, "its place is free again");
}

#[tokio::test]
async fn a_write_that_met_a_panic_is_to_be_repeated_only_under_its_key() {
    let house = House::with(without_deadlines).await;
    for (request, advice) in [
        ("POST {}\n\n{\"text\":\"x\"}", "never"),
        ("DELETE {}/a", "never"),
        ("POST {}\nidempotency-key: k\n\n{\"text\":\"x\"}", "same-request"),
        ("GET {}", "same-request"),
    ] {
        let broken = house.ask(&request.replace("{}", TODOS)).await;
        assert_eq!((broken.status, &broken.json()["retry"]), (500, &advice.into()), "{request}");
    }
}

#[tokio::test]
async fn a_panic_ends_one_stream_of_http2_and_no_other() {
    let house = House::with(without_deadlines).await;
    let mut client = super::house::Http2::connect(house.public).await;
    assert_eq!(client.get(TODOS).await.0, 500);
    assert_eq!(client.get("/livez").await.0, 200);
}

#[tokio::test]
async fn a_panic_of_a_read_that_is_answered_at_once_is_answered_too() {
    let house = House::with(|config| config.log.requests = true).await;
    house.store.put("TODO", "a", 1, "{}");
    let data = house.host.engine.data();
    super::house::eventually("the document is here", || data.applied() == Some(1)).await;
    let mut client = house.client().await;
    let log = Arc::new(BrokenLog { is_broken: AtomicBool::new(true) });
    let _broken = tracing::subscriber::set_default(log);
    let read = format!("GET {TODOS}/a\nx-request-id: mine");
    assert_told(&client.ask(&read).await);
    assert_eq!(client.ask(&read).await.status, 200, "over the same connection");
    assert_eq!(house.host.cell.counter(Counter::Defects).load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_worker_that_panics_fails_its_self_test() {
    let house = House::with(without_deadlines).await;
    assert_eq!(service::self_test(&house.host).await, 500);
}
