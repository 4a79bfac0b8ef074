//! What clients are told while the store does not answer, and what a key is worth afterwards.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use aegis_harness::{App, Client, Cluster, Response, cluster::signal_process, eventually, eventually_some};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::errors::assert_problem;

const WAIT: Duration = Duration::from_secs(30);
/// By how much one deadline has to come before another one, so that it does on any machine.
const AHEAD: Duration = Duration::from_secs(2);
/// Clients that write at the same time.
const CLIENTS: usize = 16;
/// Times the store is stopped until it has been in the middle of a write.
const ROUNDS_MAX: u64 = 20;

/// The store, stopped; it goes on when this is dropped.
struct Stopped(u32);

impl Stopped {
    fn store_of(cluster: &Cluster) -> Self {
        let pid = cluster.status().store.pid;
        signal_process(pid, Signal::SIGSTOP);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal_process(self.0, Signal::SIGCONT);
    }
}

/// Says that the request may come again, and when.
fn assert_comes_again(response: &Response, status: u16, code: &str) {
    assert_problem(response, status, code);
    assert_eq!(response.json()["retry"], "after");
    assert_eq!(response.header("retry-after"), Some("1"));
}

fn keyed(client: &Client, key: &str) -> Response {
    client.with("idempotency-key", key).post("todo", &json!({"text": key}))
}

fn in_flight(cluster: &Cluster) -> u64 {
    cluster.status().workers.iter().map(|worker| worker.in_flight).sum()
}

#[test]
fn while_the_store_is_silent_reads_go_on_and_writes_are_told_to_come_again() {
    // Time enough for what has to be done before a deadline, such as telling the store of a write; and nobody is taken for
    // hung, neither the store, which is silent for the sum of three deadlines, nor the worker on a busy machine.
    let settings = "[limits]\nwrite-timeout = \"3s\"\nrequest-timeout = \"5s\"\n[cache]\ndocuments-max = 1\n\
                    [hang]\nsuspect-after = \"60s\"";
    let cluster = Cluster::start(App::todo().settings(settings), 1);
    let client = cluster.client();
    let evicted = client.create("todo", &json!({"text": "first"}));
    let cached = client.create("todo", &json!({"text": "second"}));

    let stopped = Stopped::store_of(&cluster);
    assert_eq!(client.get(&format!("todo/{cached}")).status, 200, "from the cache of the worker");
    assert_comes_again(&client.get(&format!("todo/{evicted}")), 503, "store-unavailable");
    let unknown = client.post("todo", &json!({"text": "third"}));
    assert_problem(&unknown, 503, "write-outcome-unknown");
    // Without a key it would be made twice, and here it is.
    assert_eq!((&unknown.json()["retry"], unknown.header("retry-after")), (&json!("never"), Some("1")));
    // It is asked first whether it knows the key: without an answer, nothing is written.
    assert_comes_again(&keyed(&client, "fourth"), 503, "store-unavailable");
    drop(stopped);

    // As long as it is told to, it comes again: a store that has just gone on may take a while.
    eventually("the fourth is made", WAIT, || keyed(&client, "fourth").status == 201);
    let read = |path: &str| {
        eventually_some("it is read", WAIT, || {
            let answer = client.get(path);
            (answer.status != 503).then_some(answer)
        })
    };
    assert_eq!(read(&format!("todo/{evicted}")).status, 200);
    let total = read("todo?__count=all").json()["total"].to_string();
    assert_eq!(total, "4", "the third was made after all");
}

#[test]
fn a_write_whose_outcome_is_unknown_is_settled_by_its_key() {
    let settings = "[limits]\nwrite-timeout = \"1s\"\nrequest-timeout = \"5s\"";
    let cluster = Cluster::start(App::todo().settings(settings), 2);
    let client = cluster.client();
    // A write can be stopped before the key is asked for as well; some round stops one after that.
    let unknown =
        (0..ROUNDS_MAX).map(|round| interrupted_keys(&cluster, round)).find(|keys| !keys.is_empty());
    for key in unknown.expect("the store was never in the middle of a write when it was stopped") {
        let settled = eventually_some("it is settled", WAIT, || {
            let answer = keyed(&client, &key);
            (answer.status != 503).then_some(answer)
        });
        assert_eq!(settled.status, 201, "{key}: {}", settled.text());
        let again = keyed(&client, &key);
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!((again.status, &again.body), (201, &settled.body));
        let found = client.get(&format!("todo?text={key}&__select=id")).json();
        assert_eq!(found, json!([{"id": settled.json()["id"]}]), "one document only");
    }
}

/// Stops the store while many clients write, each until it is refused. Gives the keys of those writes whose outcome was
/// unknown; all others were made or surely not.
fn interrupted_keys(cluster: &Cluster, round: u64) -> Vec<String> {
    let client = cluster.client();
    let written = AtomicU64::new(0);
    let write_until_refused = |number: usize| {
        for n in 0.. {
            let key = format!("k-{round}-{number}-{n}");
            let response = keyed(&client, &key);
            if response.status != 201 {
                return (key, response);
            }
            written.fetch_add(1, Ordering::Relaxed);
        }
        unreachable!("some write is refused");
    };
    let refusals: Vec<(String, Response)> = thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|number| scope.spawn(move || write_until_refused(number))).collect();
        eventually("the clients to write", WAIT, || written.load(Ordering::Relaxed) > 50);
        let stopped = Stopped::store_of(cluster);
        let refusals = clients.into_iter().map(|client| client.join().unwrap()).collect();
        drop(stopped);
        refusals
    });
    let mut interrupted = Vec::new();
    for (key, response) in refusals {
        if response.json()["code"] == "write-outcome-unknown" {
            assert_comes_again(&response, 503, "write-outcome-unknown");
            interrupted.push(key);
        } else {
            assert_comes_again(&response, 503, "store-unavailable");
        }
    }
    interrupted
}

#[test]
fn a_repeat_whose_deadline_ends_before_the_first_request_does_is_told_so() {
    let settings = "[limits]\nrequest-timeout = \"5s\"\n[workers]\nthreads = 1";
    let cluster = Cluster::start(App::todo().settings(settings), 1);
    let body = json!({"text": "once"}).to_string();
    let head = format!(
        "POST /aegis/api/models/todo HTTP/1.1\r\nhost: x\r\nidempotency-key: k\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let stopped = Stopped::store_of(&cluster);
    // The repeat begins first, and with it its time; its body comes when the other one has the key.
    let mut repeat = cluster.client().connect().unwrap();
    let begun = Instant::now();
    repeat.send(head.as_bytes()).unwrap();
    eventually("the repeat to begin", WAIT, || in_flight(&cluster) == 1);
    // A busy machine must not see both deadlines pass at once.
    eventually("the repeat's time to be well ahead", WAIT, || begun.elapsed() > AHEAD);
    let mut first = cluster.client().connect().unwrap();
    first.send(format!("{head}{body}").as_bytes()).unwrap();
    eventually("the first request to begin", WAIT, || in_flight(&cluster) == 2);
    repeat.send(body.as_bytes()).unwrap();

    assert_comes_again(&repeat.receive(false).unwrap(), 409, "idempotency-key-in-use");
    assert_comes_again(&first.receive(false).unwrap(), 503, "store-unavailable");
    drop(stopped);
    let client = cluster.client().with("idempotency-key", "k");
    assert_eq!(client.send("POST", "/aegis/api/models/todo", body.as_bytes()).status, 201);
    assert_eq!(client.get("todo?__count=all").json()["total"].to_string(), "1");
}
