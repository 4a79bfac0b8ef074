//! One key, one effect, one answer.

use std::thread;

use aegis_harness::{App, Cluster};
use serde_json::json;

#[test]
fn fifty_racing_requests_with_one_key_make_one_document() {
    let cluster = Cluster::start(App::todo(), 4);
    let client = cluster.client().with("idempotency-key", "k1");
    let body = json!({"text": "once"});
    let answers: Vec<(u16, String)> = thread::scope(|scope| {
        let requests: Vec<_> = (0..50)
            .map(|_| {
                scope.spawn(|| {
                    let response = client.post("todo", &body);
                    (response.status, response.text())
                })
            })
            .collect();
        requests.into_iter().map(|request| request.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(answers[0].0, 201);
    assert_eq!(client.get("todo?__count=all").json()["total"].to_string(), "1");

    let again = client.post("todo", &body);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!((again.status, again.header("etag")), (201, Some("\"1\"")));
    assert!(!again.json()["id"].as_str().unwrap().contains("k1"), "the key is not the id");

    let other = client.post("todo", &json!({"text": "twice"}));
    assert_eq!(other.status, 422);
    assert_eq!(other.json()["code"], "idempotency-key-reused");
}

#[test]
fn a_key_covers_patches_and_removals_and_survives_a_crash_of_everything() {
    let mut cluster = Cluster::start(App::todo(), 2);
    let client = cluster.client();
    let id = client.create("todo", &json!({"text": "a", "n": 1}));
    let path = format!("todo/{id}");
    let patch = client.with("idempotency-key", "p");
    let first = patch.patch(&path, &json!({"n": 2}));
    let remove = client.with("idempotency-key", "d");
    let removed = remove.delete(&path);
    assert_eq!(removed.status, 200);

    cluster.kill_and_restart();

    let replayed = patch.patch(&path, &json!({"n": 2}));
    assert_eq!((replayed.status, replayed.body), (200, first.body), "although the document is gone by now");
    assert_eq!(replayed.headers.iter().filter(|(name, _)| name == "idempotency-replayed").count(), 1);
    let replayed = remove.delete(&path);
    assert_eq!((replayed.status, replayed.body), (200, removed.body));
}

#[test]
fn a_key_expires() {
    let app = App::todo().settings("[store]\nidempotency-time = \"100ms\"");
    let cluster = Cluster::start(app, 1);
    let client = cluster.client().with("idempotency-key", "k");
    let first = client.create("todo", &json!({"text": "a"}));
    aegis_harness::eventually("the key to expire", std::time::Duration::from_secs(30), || {
        client.create("todo", &json!({"text": "a"})) != first
    });
}

#[test]
fn a_key_has_a_form() {
    let cluster = Cluster::start(App::todo(), 1);
    let long = "k".repeat(1000);
    for key in ["", long.as_str()] {
        let response = cluster.client().with("idempotency-key", key).post("todo", &json!({"text": "a"}));
        assert_eq!(response.status, 400, "{key:?}");
        assert_eq!(response.json()["code"], "bad-header");
    }
}
