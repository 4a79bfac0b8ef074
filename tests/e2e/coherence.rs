//! One order, many readers: whichever worker answers, it answers with the newest acknowledged state.

use std::{collections::HashMap, time::Duration};

use aegis_harness::{App, Client, Cluster, Connection, eventually};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// One connection to each worker, by the worker's name.
fn pinned(client: &Client, workers: usize) -> HashMap<String, Connection> {
    let mut pinned = HashMap::new();
    eventually("a connection to every worker", Duration::from_secs(20), || {
        let mut connection = client.connect().unwrap();
        let response = connection.request("GET", "/aegis/api/models/todo?__limit=1", &[], b"").unwrap();
        pinned.entry(response.worker().to_owned()).or_insert(connection);
        pinned.len() == workers
    });
    pinned
}

fn send(connection: &mut Connection, method: &str, path: &str, body: &Value) -> (u16, u64, Value) {
    let headers = [("content-type", "application/json")];
    let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let path = format!("/aegis/api/models/{path}");
    let response = connection.request(method, &path, &headers, &bytes).unwrap();
    (response.status, response.sequence(), response.json())
}

#[test]
fn a_write_through_one_worker_is_seen_at_once_through_every_other() {
    let cluster = Cluster::start(App::todo(), 4);
    let client = cluster.client();
    let mut workers: Vec<(String, Connection)> = pinned(&client, 4).into_iter().collect();
    for round in 0..200_usize {
        let writer = round % 4;
        let id = format!("c{}", round % 7);
        let path = format!("todo/{id}");
        let body = json!({"id": id, "n": round});
        let mut written = send(&mut workers[writer].1, "POST", "todo", &body);
        if written.0 == 409 {
            written = send(&mut workers[writer].1, "PUT", &path, &json!({"n": round}));
        }
        assert!(matches!(written.0, 200 | 201), "{written:?}");
        for (name, reader) in &mut workers {
            let (status, sequence, document) = send(reader, "GET", &path, &Value::Null);
            assert_eq!(status, 200);
            assert!(sequence >= written.1, "{sequence} after {}", written.1);
            assert_eq!(document["n"].to_string(), round.to_string(), "worker {name} is stale");
        }
        if round % 5 == 0 {
            assert_eq!(send(&mut workers[writer].1, "DELETE", &path, &Value::Null).0, 200);
            for reader in &mut workers {
                assert_eq!(send(&mut reader.1, "GET", &path, &Value::Null).0, 404);
            }
        }
    }
    let lists: Vec<String> = workers
        .iter_mut()
        .map(|(_, connection)| send(connection, "GET", "todo?__limit=1000", &Value::Null).2.to_string())
        .collect();
    assert!(lists.iter().all(|list| *list == lists[0]), "all caches have the same content");
}

#[test]
fn a_stopped_worker_delays_no_write_and_is_not_stale_when_it_goes_on() {
    let cluster =
        Cluster::start(App::todo().settings("[hang]\nsuspect-after = \"60s\"\nkill-after = \"120s\""), 2);
    let client = cluster.client();
    let id = client.create("todo", &json!({"n": 0}));
    let path = format!("todo/{id}");
    let mut workers = pinned(&client, 2);
    let status = cluster.status();
    let stopped = &status.workers[0];
    let name = format!("{}.{}", stopped.slot, stopped.generation);
    let mut held = workers.remove(&name).unwrap();
    let mut other = workers.into_values().next().unwrap();
    aegis_harness::cluster::signal_process(stopped.pid, Signal::SIGSTOP);
    for n in 1..=2000 {
        let (status, _, _) = send(&mut other, "PATCH", &path, &json!({"n": n}));
        assert_eq!(status, 200);
    }
    aegis_harness::cluster::signal_process(stopped.pid, Signal::SIGCONT);
    let (status, _, document) = send(&mut held, "GET", &path, &Value::Null);
    assert_eq!((status, document["n"].to_string()), (200, "2000".to_owned()));
}

#[test]
fn concurrent_increments_through_all_workers_lose_nothing() {
    let cluster = Cluster::start(App::todo(), 4);
    let client = cluster.client();
    let id = client.create("todo", &json!({"n": 0}));
    let path = format!("todo/{id}");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    eventually("an increment", Duration::from_secs(30), || {
                        let read = client.get(&path);
                        let n: i64 = read.json()["n"].to_string().parse().unwrap();
                        let guarded = client.with("if-match", read.header("etag").unwrap());
                        guarded.patch(&path, &json!({"n": n + 1})).status == 200
                    });
                }
            });
        }
    });
    assert_eq!(client.get(&path).json()["n"].to_string(), "200");
}

#[test]
fn sequential_and_concurrent_writes_are_all_answered_with_any_number_of_workers() {
    for workers in [1, 2, 4] {
        let cluster = Cluster::start(App::todo(), workers);
        let client = cluster.client();
        for n in 0..100 {
            let _ = client.create("todo", &json!({"n": n}));
        }
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    for n in 0..25 {
                        let _ = client.create("todo", &json!({"n": n}));
                    }
                });
            }
        });
        assert_eq!(client.get("todo?__count=all").json()["total"].to_string(), "600");
    }
}
