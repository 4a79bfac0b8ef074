//! Event streams.

use aegis_config::settings::Datasource;
use serde_json::Value;

use super::house::{Client, Extent, House, Http2, eventually};

const TODOS: &str = "/aegis/api/models/todos";

/// One event as a browser would see it.
#[derive(Debug)]
struct Event {
    id: Option<u64>,
    name: String,
    data: Value,
}

async fn open(house: &House, request: &str) -> Client {
    let mut client = house.client().await;
    client.send(request).await;
    let answer = client.answer(Extent::Head).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    client
}

/// The next event, out of the chunks of the transfer coding.
async fn next(client: &mut Client) -> Event {
    let mut event = Event { id: None, name: String::new(), data: Value::Null };
    loop {
        let line = String::from_utf8(client.until(b"\n").await.expect("an event")).unwrap();
        match line.trim_end().split_once(": ") {
            Some(("id", id)) => event.id = Some(id.parse().unwrap()),
            Some(("event", name)) => event.name = name.to_owned(),
            Some(("data", data)) => {
                event.data = serde_json::from_str(data).unwrap();
                return event;
            }
            _ => {} // sizes of chunks, blank lines, comments
        }
    }
}

async fn create(house: &House, id: &str) {
    let answer = house.ask(&format!("POST {TODOS}\n\n{{\"id\":\"{id}\",\"text\":\"x\"}}")).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
}

#[tokio::test]
async fn every_change_is_told_once_in_commit_order() {
    let house = House::new().await;
    let mut client = open(&house, "GET /aegis/api/events").await;
    create(&house, "a").await;
    assert_eq!(house.ask(&format!("PATCH {TODOS}/a\n\n{{\"rank\":1}}")).await.status, 200);
    assert_eq!(house.ask(&format!("DELETE {TODOS}/a")).await.status, 200);
    let mut last = 0;
    for (name, revision) in [("CREATETODO", 1), ("UPDATETODO", 2), ("DELETETODO", 2)] {
        let event = next(&mut client).await;
        assert_eq!((event.name.as_str(), event.data["revision"].as_u64()), (name, Some(revision)));
        assert_eq!(event.data["seq"].as_u64(), event.id);
        assert!(event.id.unwrap() > last);
        last = event.id.unwrap();
    }
}

#[tokio::test]
async fn an_update_is_told_with_what_it_changed_live_and_again() {
    let house = House::new().await;
    let mut live = open(&house, "GET /aegis/api/events?type=update").await;
    create(&house, "a").await;
    let patched = house.ask(&format!("PATCH {TODOS}/a\n\n{{\"rank\":1}}")).await.json();
    let replaced = house.ask(&format!("PUT {TODOS}/a\n\n{{\"text\":\"y\"}}")).await.json();
    let mut again = open(&house, "GET /aegis/api/events?type=update\nlast-event-id: 1").await;
    for client in [&mut live, &mut again] {
        let (first, second) = (next(client).await.data, next(client).await.data);
        assert_eq!(first["model"], patched);
        let mut expected = serde_json::json!({"rank": 1, "revision": 2});
        if let Some(time) = first["changes"].get("updateTime") {
            expected["updateTime"] = time.clone(); // unless it was created in the same millisecond
        }
        assert_eq!(first["changes"], expected);
        assert_eq!(second["model"], replaced);
        assert_eq!((&second["changes"]["text"], &second["changes"]["rank"]), (&"y".into(), &Value::Null));
    }
}

#[tokio::test]
async fn filters_select_by_document_type_and_name() {
    let house = House::new().await;
    let mut by_id = open(&house, "GET /aegis/api/events?model=todo&id=b").await;
    let mut by_type = open(&house, "GET /aegis/api/events?type=delete,update").await;
    let mut by_name = open(&house, "GET /aegis/api/events?name=createTodo&id=c").await;
    let mut by_comma = open(&house, "GET /aegis/api/events?id=%22c%2Cd%22").await;
    for id in ["a", "b", "c", "c,d"] {
        create(&house, id).await;
    }
    assert_eq!(house.ask(&format!("DELETE {TODOS}/a")).await.status, 200);
    assert_eq!(next(&mut by_id).await.data["modelId"], "b");
    assert_eq!(next(&mut by_type).await.name, "DELETETODO");
    assert_eq!(next(&mut by_name).await.data["modelId"], "c");
    assert_eq!(next(&mut by_comma).await.data["modelId"], "c,d");
    for query in ["model=nothing", "type=other", "nonsense=1", "id=%22a"] {
        let refused = house.ask(&format!("GET /aegis/api/events?{query}")).await;
        assert!(matches!(refused.status, 400 | 404), "{query}: {}", refused.status);
    }
    assert_eq!(house.ask("GET /aegis/api/events\nlast-event-id: x").await.status, 400);
    assert_eq!(house.ask("GET /aegis/api/events\naccept: application/json").await.status, 406);
}

#[tokio::test]
async fn a_client_that_resumes_misses_nothing() {
    let house = House::new().await;
    let mut client = open(&house, "GET /aegis/api/events").await;
    create(&house, "a").await;
    let first = next(&mut client).await.id.unwrap();
    drop(client);
    create(&house, "b").await;
    create(&house, "c").await;
    let mut resumed = open(&house, &format!("GET /aegis/api/events\nlast-event-id: {first}")).await;
    create(&house, "d").await;
    for id in ["b", "c", "d"] {
        assert_eq!(next(&mut resumed).await.data["modelId"], id);
    }
}

#[tokio::test]
async fn a_client_that_resumes_misses_nothing_of_what_comes_in_several_pages() {
    let house = House::new().await;
    create(&house, "first").await;
    let text = "x".repeat(10_000);
    for number in 0..30 {
        house.store.put("TODO", &format!("large-{number}"), 1, &format!("{{\"text\":\"{text}\"}}"));
    }
    let mut resumed = open(&house, "GET /aegis/api/events\nlast-event-id: 1").await;
    for number in 0..30 {
        assert_eq!(next(&mut resumed).await.data["modelId"], format!("large-{number}"));
    }
    create(&house, "last").await;
    assert_eq!(next(&mut resumed).await.data["modelId"], "last");
}

#[tokio::test]
async fn a_position_that_no_log_has_is_answered_with_a_gap() {
    let house = House::new().await;
    create(&house, "a").await;
    let mut resumed = open(&house, &format!("GET /aegis/api/events\nlast-event-id: {}", u64::MAX)).await;
    let gap = next(&mut resumed).await;
    assert_eq!((gap.name.as_str(), gap.id, gap.data["from"].as_u64()), ("gap", Some(1), Some(0)));
    create(&house, "b").await;
    assert_eq!(next(&mut resumed).await.data["modelId"], "b");
}

#[tokio::test]
async fn changes_that_were_only_in_memory_are_missed_by_those_who_want_them() {
    for (datasource, hears_of_a_gap) in [(Datasource::Memory, true), (Datasource::File, false)] {
        let house = House::with(|config| config.datasource = datasource).await;
        for id in ["a", "b", "c"] {
            create(&house, id).await;
        }
        house.store.cut_log_of_memory();
        let mut resumed = open(&house, "GET /aegis/api/events\nlast-event-id: 1").await;
        if hears_of_a_gap {
            let gap = next(&mut resumed).await;
            let span = (gap.data["from"].as_u64(), gap.data["to"].as_u64());
            assert_eq!((gap.name.as_str(), gap.id, span), ("gap", Some(1), (Some(2), Some(3))));
        }
        for id in ["b", "c"] {
            assert_eq!(next(&mut resumed).await.data["modelId"], id, "what is there is told");
        }
    }
}

#[tokio::test]
async fn a_client_that_was_away_too_long_is_told_of_the_gap_first() {
    let house = House::new().await;
    for id in ["a", "b", "c"] {
        create(&house, id).await;
    }
    house.store.cut_log();
    create(&house, "d").await;
    let mut resumed = open(&house, "GET /aegis/api/events\nlast-event-id: 1").await;
    let gap = next(&mut resumed).await;
    assert_eq!((gap.name.as_str(), gap.data["from"].as_u64()), ("gap", Some(2)));
    assert_eq!(gap.data["to"].as_u64(), gap.id);
    let event = next(&mut resumed).await;
    assert_eq!(event.data["modelId"], "d");
    // The client remembers the end of the gap: coming back with it is no gap.
    let mut again = open(&house, &format!("GET /aegis/api/events\nlast-event-id: {}", gap.id.unwrap())).await;
    assert_eq!(next(&mut again).await.data["modelId"], "d");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let house = House::new().await;
    let _unread = open(&house, "GET /aegis/api/events").await;
    let text = "x".repeat(900_000);
    let mut writer = house.client().await;
    // More than there is room for, in the worker and in both sockets.
    for _ in 0..30 {
        let body = format!("{{\"text\":\"{text}\"}}");
        assert_eq!(writer.ask(&format!("POST {TODOS}\n\n{body}")).await.status, 201);
    }
    drop(writer);
    eventually("its connection is closed, though it still does not read", || house.host.seats.open() == 0)
        .await;
}

#[tokio::test]
async fn streams_over_http2_that_nobody_reads_give_up_their_places_and_end() {
    let house = House::with(|config| {
        config.limits.streams_max = 2;
        config.limits.idle_timeout = std::time::Duration::from_secs(2);
    })
    .await;
    let mut client = Http2::reluctant(house.public, 0).await;
    let unread = [client.open("/aegis/api/events").await, client.open("/aegis/api/events").await];
    assert_eq!(unread.each_ref().map(|answer| answer.status().as_u16()), [200, 200]);
    assert_eq!(house.ask("GET /aegis/api/events").await.status, 503);
    let text = "x".repeat(900_000);
    for _ in 0..4 {
        let created = house.ask(&format!("POST {TODOS}\n\n{{\"text\":\"{text}\"}}")).await;
        assert_eq!(created.status, 201);
    }
    eventually("their places are free", || house.host.load.streams() == 0).await;
    let _read = open(&house, "GET /aegis/api/events").await;
    eventually("their connection is closed, though it is in use", || house.host.seats.open() == 1).await;
    eventually("nothing is kept for them", || house.host.load.untaken_bytes() == 0).await;
}

#[tokio::test]
async fn many_changes_at_once_are_told_to_whoever_reads() {
    let house = House::with(|config| config.limits.batch_documents_max = 2_000).await;
    let mut client = open(&house, "GET /aegis/api/events").await;
    let documents: Vec<String> =
        (0..1_500).map(|number| format!("{{\"id\":\"d{number}\",\"text\":\"x\"}}")).collect();
    let created = house.ask(&format!("POST {TODOS}\n\n[{}]", documents.join(","))).await;
    assert_eq!(created.status, 201, "{}", created.body);
    create(&house, "last").await;
    for number in 0..1_500 {
        assert_eq!(next(&mut client).await.data["modelId"], format!("d{number}"));
    }
    assert_eq!(next(&mut client).await.data["modelId"], "last");
}

#[tokio::test]
async fn a_client_that_was_told_of_nothing_yet_misses_nothing() {
    let house = House::new().await;
    create(&house, "a").await;
    let mut client = open(&house, "GET /aegis/api/events?type=delete").await;
    let first = String::from_utf8(client.until(b"\n\n").await.unwrap()).unwrap();
    let (_, place) = first.trim_end().split_once("id: ").unwrap();
    drop(client);
    assert_eq!(house.ask(&format!("DELETE {TODOS}/a")).await.status, 200);
    let resuming = format!("GET /aegis/api/events?type=delete\nlast-event-id: {place}");
    assert_eq!(next(&mut open(&house, &resuming).await).await.data["modelId"], "a");
}

#[tokio::test]
async fn nothing_is_kept_for_a_client_that_is_waited_for() {
    let house = House::new().await;
    let text = "x".repeat(200_000);
    for number in 0..60 {
        house.store.put("TODO", &format!("large-{number}"), 1, &format!("{{\"text\":\"{text}\"}}"));
    }
    let mut client = reading_little(&house, "GET /aegis/api/events\nlast-event-id: 0").await;
    eventually("it is waited for", || house.host.events.followers() == 0).await;
    for number in 0..10 {
        house.store.put("TODO", &format!("small-{number}"), 1, "{\"text\":\"x\"}");
    }
    eventually("all of it is told", || house.host.sequence() == 70).await;
    assert_eq!(house.host.events.kept(), 0);
    for number in 0..60 {
        assert_eq!(next(&mut client).await.data["modelId"], format!("large-{number}"));
    }
    for number in 0..10 {
        assert_eq!(next(&mut client).await.data["modelId"], format!("small-{number}"));
    }
    create(&house, "last").await;
    assert_eq!(next(&mut client).await.data["modelId"], "last");
}

/// A stream most of whose events wait in the worker.
async fn reading_little(house: &House, request: &str) -> Client {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut client = Client::adopt(socket.connect(house.public).await.unwrap().into_std().unwrap());
    client.send(request).await;
    assert_eq!(client.answer(Extent::Head).await.unwrap().status, 200);
    client
}

#[tokio::test]
async fn a_slow_client_that_resumes_does_not_have_what_is_told_meanwhile_kept_for_it() {
    let house = House::new().await;
    let text = "x".repeat(200_000);
    for number in 0..40 {
        house.store.put("TODO", &format!("large-{number}"), 1, &format!("{{\"text\":\"{text}\"}}"));
    }
    let mut client = reading_little(&house, "GET /aegis/api/events\nlast-event-id: 0").await;
    // It reads, and while it does, there is more to tell.
    let mut read = 0;
    while read < 10 {
        house.store.put("TODO", &format!("small-{read}"), 1, "{\"text\":\"x\"}");
        assert_eq!(next(&mut client).await.data["modelId"], format!("large-{read}"));
        read += 1;
    }
    eventually("all of it is told", || house.host.sequence() == 50).await;
    while house.host.events.kept() > 0 {
        assert!(read < 20, "{} are kept while the client reads the log", house.host.events.kept());
        assert_eq!(next(&mut client).await.data["modelId"], format!("large-{read}"));
        read += 1;
    }
    for number in read..40 {
        assert_eq!(next(&mut client).await.data["modelId"], format!("large-{number}"));
    }
    for number in 0..10 {
        assert_eq!(next(&mut client).await.data["modelId"], format!("small-{number}"));
    }
}

#[tokio::test]
async fn streams_are_bounded_and_make_room() {
    let house = House::with(|config| config.limits.streams_max = 1).await;
    let first = open(&house, "GET /aegis/api/events").await;
    let refused = house.ask("GET /aegis/api/events").await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (503, Some("overloaded")));
    drop(first);
    eventually("the first one is gone", || house.host.load.streams() == 0).await;
    open(&house, "GET /aegis/api/events").await;
}
