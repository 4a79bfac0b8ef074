//! A worker that leaves fails no request.

use std::time::{Duration, Instant};

use super::house::{Client, Extent, House, Http2, eventually};
use crate::drain::Verdict;

const TODOS: &str = "/aegis/api/models/todos";
const SECOND: Duration = Duration::from_secs(1);

fn verdict(house: &House) -> Verdict {
    let host = &house.host;
    let drain = host.leaving.drain().expect("a drain has begun");
    drain.verdict(host.seats.open(), !house.doorbell.has_stopped(), host.clock.advance())
}

#[tokio::test]
async fn keep_alive_clients_are_told_soon_one_after_the_other_and_none_is_lost() {
    let house = House::new().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = house.client().await;
        assert_eq!(client.ask("GET /livez").await.header("connection"), None);
        clients.push(client);
    }
    house.drain(Some(30 * SECOND), SECOND);
    eventually("the acceptor has stopped", || house.doorbell.has_stopped()).await;
    assert_eq!(verdict(&house), Verdict::Stay);
    for client in &mut clients {
        client.ask_until_told(&format!("GET {TODOS}")).await;
        assert!(client.is_ended().await);
    }
    eventually("the worker may go long before its deadline", || verdict(&house) == Verdict::Empty).await;
}

#[tokio::test]
async fn idle_clients_stay_until_the_last_part_of_the_time() {
    let house = House::new().await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(house.client().await);
    }
    assert_eq!(clients[0].ask("GET /livez").await.status, 200);
    eventually("all are accepted", || house.host.seats.open() == 10).await;
    let begun = Instant::now();
    house.drain(Some(2 * SECOND), SECOND);
    // One speaks up before its time is come.
    clients[9].ask_until_told("GET /livez").await;
    let mut ends = Vec::new();
    for mut client in clients {
        assert!(client.is_ended().await);
        ends.push(begun.elapsed());
    }
    assert!(ends[0] >= Duration::from_millis(700), "not before the last part: {ends:?}");
    assert!(ends[9] < 2 * SECOND, "before the deadline: {ends:?}");
    eventually("the worker may go", || verdict(&house) == Verdict::Empty).await;
}

#[tokio::test]
async fn a_request_that_is_just_arriving_is_served_though_its_connection_was_to_be_closed() {
    let house = House::new().await;
    let mut client = house.client().await;
    assert_eq!(client.ask("GET /livez").await.status, 200);
    // The bytes are in the socket before the worker closes: both happen without letting its runtime run in between.
    use tokio::io::AsyncWriteExt;
    let request = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    client.stream.try_write(request).unwrap();
    house.drain(Some(SECOND / 2), SECOND / 2);
    let answer = client.answer(Extent::Whole).await.expect("an answer, not the end of the connection");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    client.stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_connection_in_the_accept_queue_is_served_by_the_last_pass_or_left_to_siblings() {
    let house = House::new().await;
    // The connection and its request are there before the drain: all happens without letting the runtime run in between.
    let mut stream = std::net::TcpStream::connect(house.public).unwrap();
    std::io::Write::write_all(&mut stream, b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    house.drain(Some(30 * SECOND), SECOND);
    let answer = Client::adopt(stream).answer(Extent::Whole).await.expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
}

#[tokio::test]
async fn http2_clients_get_a_goaway_and_the_end_of_what_they_began() {
    let house = House::new().await;
    let mut client = Http2::connect(house.public).await;
    assert_eq!(client.get("/livez").await.0, 200);
    let mut events = client.open("/aegis/api/events").await;
    house.drain(Some(30 * SECOND), SECOND);
    let mut seen = Vec::new();
    while let Some(frame) = http_body_util::BodyExt::frame(events.body_mut()).await {
        seen.extend_from_slice(&frame.unwrap().into_data().unwrap());
    }
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.starts_with("id: 0\n\nid: 0\nretry: "), "{seen}");
    drop(events);
    assert!(client.is_ended().await);
    eventually("the worker may go", || verdict(&house) == Verdict::Empty).await;
}

#[tokio::test]
async fn event_streams_end_with_advice_and_within_the_spread() {
    let house = House::new().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = house.client().await;
        client.send("GET /aegis/api/events").await;
        assert_eq!(client.answer(Extent::Head).await.unwrap().status, 200);
        clients.push(client);
    }
    let begun = Instant::now();
    house.drain(None, SECOND);
    for client in &mut clients {
        client.until(b"id: 0\n\n").await.expect("its place");
        let advice = client.until(b"\n\n").await.expect("advice");
        assert!(String::from_utf8(advice).unwrap().contains("id: 0\nretry: "), "its place, too");
        while client.until(b"\n").await.is_some() {}
    }
    assert!(begun.elapsed() < 3 * SECOND, "{:?}", begun.elapsed());
    eventually("the worker may go", || verdict(&house) == Verdict::Empty).await;
}

#[tokio::test]
async fn what_still_works_in_the_last_moment_is_answered_503_and_the_rest_is_cut() {
    let house = House::new().await;
    house.store.set_mood(crate::data::tests::fake_store::Mood::Silent);
    let mut writer = Client::connect(house.public).await;
    writer.send(&format!("POST {TODOS}\n\n{{\"text\":\"x\"}}")).await;
    let mut http2 = Http2::connect(house.public).await;
    let posted = http2.post(TODOS, "{\"text\":\"x\"}");
    eventually("the writes wait", || house.host.load.in_flight() == 2).await;
    let mut slow = Client::connect(house.public).await;
    tokio::io::AsyncWriteExt::write_all(&mut slow.stream, b"GET /li").await.unwrap();
    eventually("all are accepted", || house.host.seats.open() == 3).await;
    house.drain(Some(SECOND / 2), SECOND / 4);
    assert_eq!(verdict(&house), Verdict::Stay);
    let answer = writer.answer(Extent::Whole).await.expect("an answer");
    assert_eq!((answer.status, &answer.json()["code"]), (503, &"write-outcome-unknown".into()));
    assert_eq!(answer.json()["retry"], "never", "it has no key under which it could be sent again");
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(posted.await, 503);
    assert!(slow.answer(Extent::Whole).await.is_none(), "half a request has no answer");
    eventually("it may go", || matches!(verdict(&house), Verdict::Overdue | Verdict::Empty)).await;
}
