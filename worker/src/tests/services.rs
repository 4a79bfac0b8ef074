//! Services over `wasi:http`: what the host adds, takes away and bounds.

use std::time::{Duration, Instant};

use aegis_domain::{code::CodeLimits, service::usual_limits};
use aegis_ipc::board::{Counter, Gauge};
use tokio::io::AsyncWriteExt;

use super::house::{Client, Extent, House, eventually};

async fn hello(limits: CodeLimits) -> House {
    House::of_service(&aegis_guests::service("hello"), limits, |config| config.limits.body_bytes_max = 1000)
        .await
}

/// Head and chunked body of an answer, as text; nothing behind the head when the connection ended before the body did.
async fn whole(client: &mut Client, request: &str) -> (String, Option<String>) {
    client.send(request).await;
    let head = client.until(b"\r\n\r\n").await.expect("a head");
    let body = client.until(b"0\r\n\r\n").await;
    (String::from_utf8(head).unwrap(), body.map(|body| String::from_utf8(body).unwrap()))
}

fn counted(house: &House, counter: Counter) -> u64 {
    house.host.cell.counter(counter).load(std::sync::atomic::Ordering::Relaxed)
}

#[tokio::test]
async fn a_service_answers_at_its_route_and_below_and_the_host_everywhere_else() {
    let house = hello(usual_limits()).await;
    let mut client = house.client().await;
    for path in ["/hello", "/hello/", "/hello/a%20b?c=%7E"] {
        let (head, body) = whole(&mut client, &format!("GET {path}\nx-request-id: mine")).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("aegis-worker: 3.7\r\n") && head.contains("x-request-id: mine\r\n"), "{head}");
        assert!(head.contains("x-service: hello\r\n"), "{head}");
        assert!(head.contains("aegis-seq: 0\r\n"), "{head}");
        assert!(body.unwrap().contains(path));
    }
    assert_eq!(client.ask("GET /livez").await.status, 200);
    assert_eq!(client.ask("GET /hellow").await.status, 404);
    assert_eq!(client.ask("GET /aegis/api/models/todos").await.status, 200);
}

#[tokio::test]
async fn all_methods_are_the_component_s_business() {
    let house = hello(usual_limits()).await;
    let mut client = house.client().await;
    for method in ["OPTIONS", "DELETE", "PATCH", "BREW"] {
        let (head, _) = whole(&mut client, &format!("{method} /hello")).await;
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("x-service: hello"), "{head}");
    }
    client.send("HEAD /hello").await;
    let answer = client.answer(Extent::Head).await.unwrap();
    assert_eq!((answer.status, answer.header("x-service")), (200, Some("hello")));
    assert_eq!(client.ask("GET /livez").await.status, 200, "nothing came behind the head");
}

#[tokio::test]
async fn an_instance_comes_to_its_end_where_the_head_says_how_long_the_answer_is() {
    let limits = CodeLimits { calls_per_instance_max: 100, instances_max: 1, ..usual_limits() };
    let house = hello(limits).await;
    let mut client = house.client().await;
    for round in 0..3 {
        let echoed = client.ask("POST /hello/echo\ncontent-length: 5\n\nabcde").await;
        assert_eq!((echoed.header("content-length"), echoed.body.as_str()), (Some("5"), "abcde"));
        client.send("HEAD /hello/nth").await;
        assert_eq!(client.answer(Extent::Head).await.unwrap().status, 200);
        let (_, body) = whole(&mut client, "GET /hello/nth").await;
        assert_eq!(body.unwrap(), format!("1\r\n{}\r\n0\r\n\r\n", 3 * (round + 1)));
    }
    let in_flight = house.host.cell.gauge(Gauge::InFlight);
    eventually("nothing is in flight", || in_flight.load(std::sync::atomic::Ordering::Relaxed) == 0).await;
    client.send("HEAD /hello/late").await;
    assert_eq!(client.answer(Extent::Head).await.unwrap().status, 200);
    eventually("its failure is counted", || counted(&house, Counter::GuestTraps) == 1).await;
}

#[tokio::test]
async fn a_body_that_nobody_gets_and_that_does_not_end_is_ended_soon() {
    let house = hello(CodeLimits { instances_max: 1, ..usual_limits() }).await;
    let mut client = house.client().await;
    client.send("HEAD /hello/hang").await;
    assert_eq!(client.answer(Extent::Head).await.unwrap().status, 200);
    let begun = Instant::now();
    let (head, _) = whole(&mut client, "GET /hello/nth").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(begun.elapsed() < house.host.config.limits.request_timeout / 2, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn headers_and_bodies_pass_and_what_is_between_neighbours_does_not() {
    let house = hello(usual_limits()).await;
    let mut client = house.client().await;
    let fields = "connection: keep-alive, x-hop\nx-hop: 1\nx-own: 2\nte: trailers\ncontent-length: 5";
    let answer = client.ask(&format!("POST /hello/echo\n{fields}\n\nabcde")).await;
    assert_eq!((answer.status, answer.body.as_str()), (201, "abcde"));
    assert_eq!(
        (answer.header("x-own"), answer.header("x-hop"), answer.header("te")),
        (Some("2"), None, None)
    );
    assert!(counted(&house, Counter::BytesIn) >= 5);
}

#[tokio::test]
async fn a_body_has_the_bounds_of_all_bodies() {
    let house = hello(usual_limits()).await;
    let body = "x".repeat(2000);
    let declared = house.ask(&format!("POST /hello/echo\n\n{body}")).await;
    assert_eq!((declared.status, &declared.json()["code"]), (413, &"body-too-large".into()));
    let mut client = house.client().await;
    let chunked = format!("POST /hello/echo\ntransfer-encoding: chunked\n\n7d0\r\n{body}\r\n0\r\n\r\n");
    client.send(&chunked).await;
    let head = client.until(b"\r\n\r\n").await.expect("a head");
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 201") || head.starts_with("HTTP/1.1 413"), "{head}");
}

#[tokio::test]
async fn code_that_fails_is_an_error_of_one_request() {
    let house = hello(CodeLimits { call_ms_max: 1_000, ..usual_limits() }).await;
    let trapped = house.ask("GET /hello/trap").await;
    assert_eq!((trapped.status, &trapped.json()["code"]), (500, &"guest-trap".into()));
    let spun = house.ask("GET /hello/spin").await;
    assert_eq!((spun.status, &spun.json()["code"]), (504, &"deadline-exceeded".into()));
    let silent = house.ask("GET /hello/none").await;
    assert_eq!((silent.status, &silent.json()["code"]), (500, &"guest-trap".into()));
    let (head, body) = whole(&mut house.client().await, "GET /hello/late").await;
    assert!(head.starts_with("HTTP/1.1 200") && body.is_none(), "the connection ends before the body does");
    assert_eq!((counted(&house, Counter::GuestTraps), counted(&house, Counter::GuestTimeouts)), (3, 1));
    let in_flight = house.host.cell.gauge(Gauge::InFlight);
    eventually("nothing is in flight", || in_flight.load(std::sync::atomic::Ordering::Relaxed) == 0).await;
}

#[tokio::test]
async fn code_that_spins_leaves_room_for_others_and_ends_with_its_client() {
    let house = hello(CodeLimits { instances_max: 1, ..usual_limits() }).await;
    let mut spinning = house.client().await;
    spinning.send("GET /hello/spin").await;
    let in_flight = house.host.cell.gauge(Gauge::InFlight);
    eventually("it spins", || in_flight.load(std::sync::atomic::Ordering::Relaxed) == 1).await;
    assert_eq!(house.ask("GET /livez").await.status, 200);
    drop(spinning);
    let (head, _) = whole(&mut house.client().await, "GET /hello").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

#[tokio::test]
async fn an_answer_that_is_under_way_is_finished_while_the_worker_leaves() {
    let house = hello(usual_limits()).await;
    let mut client = house.client().await;
    client.send("POST /hello/echo\ntransfer-encoding: chunked\n\n3\r\nabc\r\n").await;
    client.until(b"abc\r\n").await.expect("the first piece");
    let mut idle = house.client().await;
    assert_eq!(idle.ask("GET /livez").await.status, 200);
    house.drain(Some(Duration::from_secs(3)), Duration::from_millis(2_500));
    assert!(idle.is_ended().await, "its turn comes long before the time is up");
    client.stream.write_all(b"3\r\ndef\r\n0\r\n\r\n").await.unwrap();
    client.until(b"def\r\n0\r\n\r\n").await.expect("the rest");
    assert!(client.is_ended().await);
}

#[tokio::test]
async fn a_worker_that_leaves_says_of_what_is_not_done_whether_it_can_be_sent_again() {
    let house = hello(CodeLimits { call_ms_max: 30_000, ..usual_limits() }).await;
    let mut reader = house.client().await;
    reader.send("GET /hello/spin").await;
    let mut writer = house.client().await;
    writer.send("POST /hello/spin\n\nabc").await;
    eventually("both are at work", || house.host.load.in_flight() == 2).await;
    house.drain(Some(Duration::from_millis(500)), Duration::from_millis(250));
    for (client, code, retry) in
        [(&mut reader, "unavailable", "after"), (&mut writer, "write-outcome-unknown", "never")]
    {
        let told = client.answer(Extent::Whole).await.expect("an answer");
        assert_eq!((told.status, told.header("connection")), (503, Some("close")));
        let told = told.json();
        assert_eq!((&told["code"], &told["retry"]), (&code.into(), &retry.into()), "{told}");
    }
}

#[tokio::test]
async fn a_service_answers_over_http_2() {
    let house = hello(usual_limits()).await;
    let (status, headers, body) = super::house::Http2::connect(house.public).await.get("/hello/x").await;
    assert_eq!(
        (status, &headers["x-service"], &body[..]),
        (200, &"hello".parse().unwrap(), &b"hello/hello/x"[..])
    );
}
