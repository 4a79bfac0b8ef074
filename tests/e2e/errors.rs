//! Every row of the error table; that the host survives each, and the connection where HTTP lets it.

use std::{net::TcpStream, time::Duration};

use aegis_harness::{App, Client, Cluster, Connection, Failure, Response};
use serde_json::json;

const MODELS: &str = "/aegis/api/models";

pub(crate) fn assert_problem(response: &Response, status: u16, code: &str) {
    assert_eq!(response.status, status, "{code}: {}", response.text());
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    let problem = response.json();
    assert_eq!(problem["code"], code);
    assert_eq!(problem["status"].to_string(), status.to_string());
    assert!(problem["type"].as_str().unwrap().ends_with(code), "{problem}");
    assert_eq!(problem["error"], problem["detail"], "clients of the original read `error`");
    assert_eq!(problem["instance"].as_str(), response.header("x-request-id"));
    assert!(["never", "same-request", "after"].contains(&problem["retry"].as_str().unwrap()));
    let text = response.text();
    assert!(!text.contains("/tmp/") && !text.contains(".rs:"), "nothing of the machine: {text}");
}

fn post(client: &Client, body: &[u8]) -> Response {
    client.send("POST", &format!("{MODELS}/todo"), body)
}

#[test]
fn bodies_that_are_not_acceptable_json_are_refused_with_a_place() {
    let cluster = Cluster::start(App::todo(), 1);
    let client = cluster.client();
    let deep = [b"[".repeat(10_000), b"]".repeat(10_000)].concat();
    for body in [
        b"{\"text\": \"a\"".as_slice(),
        b"{\"text\": \"a\",}",
        b"{\"text\": \"a\", \"text\": \"b\"}",
        b"{\"text\": \"\xff\"}",
        b"{\"text\": \"\\ud800\"}",
        b"{\"text\": \"a\"} {}",
        b"",
        &deep,
    ] {
        let response = post(&client.with("content-type", "application/json"), body);
        assert_problem(&response, 400, "malformed-json");
    }
    for body in [b"7".as_slice(), b"\"text\"", b"null"] {
        let response = post(&client, body);
        assert!(matches!(response.status, 400 | 422), "{}", response.text());
    }
    assert_eq!(client.get("todo?__count=all").json()["total"].to_string(), "0");
}

#[test]
fn what_is_not_there_is_404_and_what_is_not_allowed_405() {
    let cluster = Cluster::start(App::todo(), 1);
    let client = cluster.client();
    assert_problem(&client.get("todo/none"), 404, "not-found");
    assert_problem(&client.patch("todo/none", &json!({"text": "a"})), 404, "not-found");
    assert_problem(&client.delete("todo/none"), 404, "not-found");
    assert_problem(&client.get("nothing"), 404, "no-such-model");
    assert_problem(&client.get("nothing/7"), 404, "no-such-model");
    assert_problem(&client.send("GET", "/elsewhere", b""), 404, "no-such-route");
    assert_problem(&client.send("GET", "/", b""), 404, "no-such-route");
    let collection = client.send("DELETE", &format!("{MODELS}/todo"), b"");
    assert_problem(&collection, 405, "method-not-allowed");
    assert_eq!(collection.header("allow"), Some("GET, HEAD, POST, OPTIONS"));
    let item = client.send("POST", &format!("{MODELS}/todo/x"), b"{}");
    assert_problem(&item, 405, "method-not-allowed");
    assert_eq!(item.header("allow"), Some("GET, HEAD, PUT, PATCH, DELETE, OPTIONS"));
    let options = client.send("OPTIONS", &format!("{MODELS}/todo"), b"");
    assert_eq!((options.status, options.header("allow")), (204, Some("GET, HEAD, POST, OPTIONS")));
    for id in ["%2e%2e", "__proto__", "%F0%9F%98%80"] {
        assert_problem(&client.get(&format!("todo/{id}")), 404, "not-found");
    }
    let id = client.create("todo", &json!({"text": "a"}));
    for path in ["todo".to_owned(), format!("todo/{id}")] {
        assert_problem(&client.get(&format!("{path}?relation=customer")), 404, "no-such-relation");
        assert_problem(&client.get(&format!("{path}?command=decrypt")), 404, "no-such-command");
    }
}

#[test]
fn media_types_are_negotiated() {
    let cluster = Cluster::start(App::todo(), 1);
    let client = cluster.client();
    let text = client.with("content-type", "text/plain");
    assert_problem(&post(&text, b"{\"text\":\"a\"}"), 415, "unsupported-media-type");
    let patch = client.with("content-type", "text/plain").patch("todo/x", &json!({}));
    assert_problem(&patch, 415, "unsupported-media-type");
    assert_eq!(
        patch.header("accept-patch"),
        Some("application/merge-patch+json, application/json-patch+json, application/json")
    );
    assert_problem(&client.with("accept", "image/png").get("todo"), 406, "not-acceptable");
    assert_eq!(client.with("accept", "text/html, application/json;q=0.5").get("todo").status, 200);
    assert_eq!(client.with("accept", "*/*").get("todo").status, 200);
}

#[test]
fn conflicts_conditions_and_rules_have_their_status() {
    let cluster = Cluster::start(App::todo(), 1);
    let client = cluster.client();
    assert_eq!(client.post("todo", &json!({"id": "a", "text": "x"})).status, 201);
    assert_problem(&client.post("todo", &json!({"id": "a"})), 409, "already-exists");
    assert_problem(&client.with("if-match", "\"9\"").delete("todo/a"), 412, "revision-mismatch");
    let absent = client.with("if-match", "\"1\"").delete("todo/none");
    assert_problem(&absent, 404, "not-found"); // conditions count only where the answer would be a success
    assert_problem(&client.with("if-match", "garbage").delete("todo/a"), 400, "bad-header");
    assert_problem(&client.post("todo", &json!({"text": 7})), 422, "invalid");
    assert_problem(&client.post("todo", &json!({"id": "a/b"})), 422, "invalid");
    assert_problem(&client.get("todo?__limit=-1"), 400, "bad-parameter");
}

#[test]
fn a_connection_goes_on_after_each_refusal_that_leaves_nothing_unread() {
    let cluster = Cluster::start(App::todo().settings("[limits]\nuri-bytes-max = \"1KiB\""), 1);
    let _ = cluster.client().post("todo", &json!({"id": "a", "text": "x"}));
    let long = format!("/todo?text={}", "x".repeat(2000));
    let json = ("content-type", "application/json");
    type Row<'a> = (u16, &'a str, &'a str, &'a [(&'a str, &'a str)], &'a str);
    let rows: [Row<'_>; 16] = [
        (400, "POST", "/todo", &[json], "{\"text\": \"a\",}"),
        (400, "POST", "/todo", &[json], ""),
        (422, "POST", "/todo", &[json], "{\"text\": 7}"),
        (409, "POST", "/todo", &[json], "{\"id\": \"a\"}"),
        (415, "POST", "/todo", &[("content-type", "text/plain")], "{\"text\": \"a\"}"),
        (405, "POST", "/todo/a", &[json], "{}"),
        (405, "DELETE", "/todo", &[], ""),
        (404, "PATCH", "/todo/none", &[json], "{\"text\": \"a\"}"),
        (404, "DELETE", "/todo/none", &[], ""),
        (412, "DELETE", "/todo/a", &[("if-match", "\"9\"")], ""),
        (400, "DELETE", "/todo/a", &[("if-match", "garbage")], ""),
        (404, "GET", "/todo/none", &[], ""),
        (404, "GET", "/nothing", &[], ""),
        (406, "GET", "/todo", &[("accept", "image/png")], ""),
        (400, "GET", "/todo?__limit=-1", &[], ""),
        (414, "GET", &long, &[], ""),
    ];
    let mut connection = cluster.client().connect().unwrap();
    for (status, method, path, headers, body) in rows {
        let response = connection.request(method, &format!("{MODELS}{path}"), headers, body.as_bytes());
        let response = response.unwrap_or_else(|failure| panic!("{method} {path}: {failure}"));
        assert_eq!(response.status, status, "{method} {path}: {}", response.text());
        assert!(!response.closes(), "{method} {path}: {status}");
    }
    let read = connection.request("GET", &format!("{MODELS}/todo/a"), &[], b"").unwrap();
    assert_eq!((read.status, read.json()["text"].as_str()), (200, Some("x")));
}

#[test]
fn sizes_are_bounded_before_they_are_read() {
    let app = App::todo().settings(
        "[limits]\nbody-bytes-max = \"64KiB\"\nuri-bytes-max = \"1KiB\"\nheader-bytes-max = \"8KiB\"",
    );
    let cluster = Cluster::start(app, 1);
    let client = cluster.client();
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(100 * 1024)).into_bytes();
    assert_problem(&post(&client, &large), 413, "body-too-large");

    let mut connection = client.connect().unwrap();
    let head = format!(
        "POST {MODELS}/todo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    connection.send(head.as_bytes()).unwrap();
    let mut refused = None;
    for _ in 0..200 {
        let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
        if connection.send(chunk.as_bytes()).is_err() {
            break;
        }
        refused = Some(());
    }
    assert!(refused.is_some());
    let response = connection.receive(false);
    assert!(matches!(&response, Ok(response) if response.status == 413), "{response:?}");

    let long = client.get(&format!("todo?text={}", "x".repeat(2000)));
    assert_problem(&long, 414, "uri-too-long");
    let heavy = client.with("x-heavy", &"x".repeat(20_000)).try_send("GET", &format!("{MODELS}/todo"), b"");
    match heavy {
        Ok(response) => assert_eq!(response.status, 431),
        Err(failure) => panic!("expected 431, got {failure}"),
    }
    assert_eq!(client.get("todo").status, 200, "the host is well");
}

#[test]
fn a_request_that_does_not_arrive_is_ended() {
    let app = App::todo().settings("[limits]\nheader-timeout = \"200ms\"\nrequest-timeout = \"300ms\"");
    let cluster = Cluster::start(app, 1);
    let mut slow_head = cluster.client().connect().unwrap();
    slow_head.send(b"GET / HTTP/1.1\r\nhost: x\r\n").unwrap();
    match slow_head.receive(false) {
        Ok(response) => assert_eq!(response.status, 408),
        Err(failure) => assert!(matches!(failure, Failure::EndOfFile | Failure::Reset), "{failure}"),
    }
    let mut slow_body = cluster.client().connect().unwrap();
    let head = format!(
        "POST {MODELS}/todo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{{"
    );
    slow_body.send(head.as_bytes()).unwrap();
    let response = slow_body.receive(false).unwrap();
    assert_eq!(response.status, 408, "{}", response.text());
}

#[test]
fn a_full_worker_refuses_at_once_instead_of_queueing() {
    let app = App::todo().settings("[limits]\nrequests-in-flight-max = 2");
    let cluster = Cluster::start(app, 1);
    let client = cluster.client();
    let head = format!(
        "POST {MODELS}/todo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n"
    );
    let mut held: Vec<Connection> = (0..2).map(|_| client.connect().unwrap()).collect();
    for connection in &mut held {
        connection.send(head.as_bytes()).unwrap();
    }
    // Another request before that would take the place of one of them.
    aegis_harness::eventually("both are in flight", Duration::from_secs(30), || {
        cluster.status().workers.iter().any(|worker| worker.in_flight == 2)
    });
    let refused = client.get("todo");
    assert_problem(&refused, 503, "overloaded");
    assert!(refused.header("retry-after").is_some());
    for connection in &mut held {
        connection.send(b"{\"text\":\"a\"}").unwrap();
        assert_eq!(connection.receive(false).unwrap().status, 201);
    }
    assert_eq!(client.get("todo").status, 200);
}

#[test]
fn bytes_that_are_no_http_end_one_connection_only() {
    let cluster = Cluster::start(App::todo(), 1);
    for garbage in [b"\x16\x03\x01\x02\x00".as_slice(), b"\0\0\0\0\0\0\0\0\r\n\r\n", b"GET\r\n\r\n"] {
        let mut connection = cluster.client().connect().unwrap();
        connection.send(garbage).unwrap();
        match connection.receive(false) {
            Ok(response) => assert_eq!(response.status, 400),
            Err(failure) => assert!(matches!(failure, Failure::EndOfFile | Failure::Reset), "{failure}"),
        }
    }
    let mut smuggled = cluster.client().connect().unwrap();
    let head = format!(
        "POST {MODELS}/todo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
    );
    smuggled.send(head.as_bytes()).unwrap();
    if let Ok(response) = smuggled.receive(false) {
        assert!((400..500).contains(&response.status), "{}", response.text());
    }
    drop(TcpStream::connect(cluster.address).unwrap());
    assert_eq!(cluster.client().get("todo").status, 200);
    assert_eq!(cluster.status().deaths.len(), 0, "nobody died of it");
}
