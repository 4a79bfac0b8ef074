//! Answers that their client does not take.

use std::time::Duration;

use super::house::{Extent, House, Http2, eventually};
use crate::overload::UNTAKEN_BYTES_MAX;

const TODOS: &str = "/aegis/api/models/todos";
const LARGE: &str = "/aegis/api/models/todos/large";

/// A house with a large document.
async fn house(idle_timeout: Duration) -> House {
    let house = House::with(|config| config.limits.idle_timeout = idle_timeout).await;
    let text = "x".repeat(900_000);
    let created = house.ask(&format!("POST {TODOS}\n\n{{\"id\":\"large\",\"text\":\"{text}\"}}")).await;
    assert_eq!(created.status, 201, "{}", created.body);
    house
}

#[tokio::test]
async fn a_connection_whose_answers_nobody_takes_is_ended_whatever_else_its_client_sends() {
    let house = house(Duration::from_secs(2)).await;
    let (mut answers, mut clients) = (Vec::new(), Vec::new());
    // Nothing of an answer is taken, or a part.
    for window_bytes in [0, 1_000] {
        let mut client = Http2::reluctant(house.public, window_bytes).await;
        for path in [LARGE, TODOS, LARGE] {
            let answer = client.open(path).await;
            assert_eq!(answer.status(), 200);
            answers.push(answer);
        }
        clients.push(client);
    }
    assert!(house.host.load.untaken_bytes() > 6 * 900_000, "what waits is counted");
    eventually("their connections are closed", || house.host.seats.open() == 0).await;
    eventually("nothing is kept for them", || house.host.load.untaken_bytes() == 0).await;
}

#[tokio::test]
async fn answers_wait_for_their_clients_up_to_a_bound() {
    let house = house(Duration::from_secs(60)).await;
    assert_eq!(house.ask(&format!("POST {TODOS}\n\n{{\"id\":\"small\",\"text\":\"x\"}}")).await.status, 201);
    let small = format!("{TODOS}/small");
    let mut client = Http2::connect(house.public).await;
    let waiting = house.host.load.hold_anyway(UNTAKEN_BYTES_MAX);
    for path in [LARGE, TODOS, "/aegis/api/events"] {
        let (status, headers, body) = client.get(path).await;
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, &problem["code"]), (503, &"overloaded".into()), "{path}");
        assert_eq!(headers["retry-after"], "1", "{path}");
    }
    for path in [LARGE, TODOS] {
        let answer = house.ask(&format!("GET {path}")).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (503, &"overloaded".into()),
            "{path} over HTTP/1"
        );
    }
    let metrics = house.operator().await.ask("GET /metrics").await;
    assert_eq!((metrics.status, metrics.body.len() > 4096), (200, true), "operators see how it is");
    // What would be done is not begun, as nobody could say so. Small answers go on, and what is done over HTTP/1.
    assert_eq!(client.post(TODOS, "{\"id\":\"other\",\"text\":\"x\"}").await, 503);
    assert_eq!(house.ask(&format!("GET {TODOS}/other")).await.status, 404);
    assert_eq!(client.get(&small).await.0, 200);
    assert_eq!(house.ask(&format!("GET {small}")).await.status, 200);
    let create = |id: &str| format!("POST {TODOS}\n\n{{\"id\":\"{id}\",\"text\":\"x\"}}");
    assert_eq!(house.ask(&create("third")).await.status, 201);
    let more = house.host.load.hold_anyway(UNTAKEN_BYTES_MAX);
    assert_eq!(house.ask(&create("other")).await.status, 503);
    assert_eq!(house.ask(&format!("GET {TODOS}/other")).await.status, 404);
    drop((waiting, more));
    for path in [LARGE, TODOS] {
        let (status, _, body) = client.get(path).await;
        assert_eq!((status, body.len() > 900_000), (200, true), "{path}");
    }
    eventually("all is taken", || house.host.load.untaken_bytes() == 0).await;
}

#[tokio::test]
async fn an_answer_over_http1_is_counted_until_its_client_has_taken_it_or_is_gone() {
    let house = house(Duration::from_secs(60)).await;
    // More than sockets keep.
    let text = "x".repeat(900_000);
    for id in 1..12 {
        let created = house.ask(&format!("POST {TODOS}\n\n{{\"id\":\"{id}\",\"text\":\"{text}\"}}")).await;
        assert_eq!(created.status, 201, "{}", created.body);
    }
    let (mut takes, mut leaves) = (house.client().await, house.client().await);
    for client in [&mut takes, &mut leaves] {
        client.send(&format!("GET {TODOS}\n\n")).await;
    }
    let both = 2 * 12 * 900_000;
    eventually("what waits for both is counted", || house.host.load.untaken_bytes() > both).await;
    let taken = takes.answer(Extent::Whole).await.unwrap();
    assert_eq!((taken.status, taken.header("connection")), (200, None));
    eventually("one has taken its answer", || house.host.load.untaken_bytes() < both).await;
    assert!(house.host.load.untaken_bytes() > both / 2, "the other one has not");
    assert_eq!(takes.ask(&format!("GET {LARGE}")).await.status, 200, "its connection goes on");
    drop(leaves);
    eventually("nothing is kept", || house.host.load.untaken_bytes() == 0).await;
}
