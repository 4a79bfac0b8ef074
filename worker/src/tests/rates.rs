//! Requests of clients who ask too often.

use std::{sync::atomic::Ordering, time::Instant};

use aegis_config::{Config, Secret};
use aegis_ipc::board::Counter;

use super::house::{Answer, Client, Extent, House, Http2};

const PER_SECOND: u32 = 1;
const BURST: u32 = 3;

fn limited(config: &mut Config) {
    config.limits.requests_per_second = PER_SECOND;
    config.limits.requests_burst = BURST;
}

/// Asks until it is refused, which is soon.
async fn until_refused(client: &mut Client, request: &str) -> Answer {
    let begun = Instant::now();
    let mut served = 0;
    loop {
        let answer = client.ask(request).await;
        if answer.status == 429 {
            return answer;
        }
        served += 1;
        let most = u64::from(BURST) + begun.elapsed().as_secs() * u64::from(PER_SECOND);
        assert!(served <= most, "{served} served, {most} expected: {}", answer.shown());
    }
}

fn refused(house: &House) -> u64 {
    house.host.cell.counter(Counter::RateLimited).load(Ordering::Relaxed)
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_again_and_the_connection_goes_on() {
    let house = House::with(limited).await;
    let mut client = house.client().await;
    let made =
        client.ask("POST /aegis/api/models/todos\ncontent-type: application/json\n\n{\"text\":\"a\"}").await;
    let path = made.header("location").unwrap().to_owned();
    // The short way, and the long one.
    let read = until_refused(&mut client, &format!("GET {path}")).await;
    let long = until_refused(&mut client, &format!("GET {path}?x=1")).await;
    let written = until_refused(
        &mut client,
        "POST /aegis/api/models/todos\ncontent-type: application/json\n\n{\"text\":\"b\"}",
    );
    insta::assert_snapshot!(read.shown(), @r#"
    429
    aegis-worker: 3.7
    aegis-seq: 1
    x-request-id: …
    content-type: application/problem+json
    retry-after: 1
    content-length: …
    {"type":"https://aegis/problems/rate-limited","title":"Too many requests","status":429,"detail":"requests from one address (IPv6: one /64) that name no caller are served at a rate of 1 a second, at most 3 at once","instance":"…","code":"rate-limited","retry":"after","error":"requests from one address (IPv6: one /64) that name no caller are served at a rate of 1 a second, at most 3 at once"}
    "#);
    for (answer, way) in [(long, "long"), (written.await, "written")] {
        assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("1"), None), "{way}");
    }
    assert_eq!(refused(&house), 3);
    for place in ["GET /livez", "GET /readyz", "GET /livez", "HEAD /readyz"] {
        assert_eq!(client.ask(place).await.status, 200, "{place}");
    }
    assert_eq!(house.host.cell.counter(Counter::RateUncounted).load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn the_body_of_a_request_too_many_is_not_waited_for() {
    let house = House::with(limited).await;
    until_refused(&mut house.client().await, "GET /aegis/api/models/todos").await;
    let mut client = house.client().await;
    let answer = loop {
        client.send("POST /aegis/api/models/todos\ncontent-length: 100\nexpect: 100-continue").await;
        let answer = client.answer(Extent::Whole).await.unwrap();
        match answer.status {
            429 => break answer,
            // It was let in after all, for a second had gone by.
            _ => client = house.client().await,
        }
    };
    assert_eq!(answer.json()["code"], "rate-limited");
}

#[tokio::test]
async fn everything_counts_that_is_asked_on_a_public_address_and_nothing_on_that_of_operators() {
    let house = House::with(|config| {
        limited(config);
        config.reload.webhook_secret = Some(Secret::new(b"It's a Secret to Everybody".to_vec()));
    })
    .await;
    for request in [
        "POST /reload",
        "GET /none",
        "GET /metrics",
        "GET /aegis.config.json",
        "OPTIONS /aegis/api/models/todos",
        "GET /aegis/api/models/todos\nhost: twice",
        "GET /aegis/api/events",
    ] {
        let mut client = house.client().await;
        if request.ends_with("events") {
            // A stream that is let in has no end.
            until_refused(&mut client, "GET /none").await;
        }
        let before = refused(&house);
        until_refused(&mut client, request).await;
        assert_eq!(refused(&house), before + 1, "{request}");
    }
    let before = refused(&house);
    let mut operator = house.operator().await;
    for _ in 0..2 * BURST {
        for request in ["GET /metrics", "GET /aegis/api/config", "GET /aegis/api/models/todos"] {
            assert_eq!(operator.ask(request).await.status, 200, "{request}");
        }
    }
    assert_eq!(refused(&house), before);
}

#[tokio::test]
async fn streams_of_http2_count_one_by_one() {
    let house = House::with(limited).await;
    let mut client = Http2::connect(house.public).await;
    let (begun, mut served) = (Instant::now(), 0);
    let headers = loop {
        let (status, headers, _) = client.get("/aegis/api/models/todos").await;
        if status == 429 {
            break headers;
        }
        served += 1;
        assert!(served <= u64::from(BURST) + begun.elapsed().as_secs());
    };
    assert_eq!(headers["retry-after"], "1");
    assert_eq!(client.get("/livez").await.0, 200, "the connection goes on");
}

#[tokio::test]
async fn nobody_is_counted_unless_a_limit_is_set() {
    let house = House::new().await;
    assert!(house.host.throttle.is_none());
    let mut client = house.client().await;
    for _ in 0..200 {
        assert_eq!(client.ask("GET /aegis/api/models/todos").await.status, 200);
    }
    assert_eq!(refused(&house), 0);
}
