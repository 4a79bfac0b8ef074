//! Services over `wasi:http` 0.3 whose instances answer several requests at the same time. `scripts/guests` builds the module.

use std::{fs, thread, time::Duration};

use aegis_harness::{App, Client, Cluster, Failure, Response, app, eventually, http};

use crate::services_in_rust::{component, named};

const WAIT: Duration = Duration::from_secs(30);
/// Four requests at a time in an instance, and few enough instances that they meet.
const SHARED: &str = "[modules.hello.limits]\ninvocations = 1000\nconcurrent = 4\n";

fn hello(more: &str) -> App {
    App::todo().component("hello", component()).settings(&format!("{SHARED}{more}"))
}

fn get(cluster: &Cluster, path: &str) -> Response {
    cluster.client().send("GET", &format!("/hello/{path}"), b"")
}

/// Sends all at once and waits for the answers.
fn together(client: &Client, paths: &[&str]) -> Vec<Result<Response, Failure>> {
    thread::scope(|scope| {
        let asked: Vec<_> = paths
            .iter()
            .map(|path| scope.spawn(move || client.try_send("GET", &format!("/hello/{path}"), b"")))
            .collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    })
}

/// Begins with a request whose body is not at its end, and has seen the first of its answer.
fn begun(cluster: &Cluster) -> http::Connection {
    let mut connection = cluster.client().connect().unwrap();
    connection.send(b"POST /hello/echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    connection.send(b"3\r\nabc\r\n").unwrap();
    assert_eq!(connection.receive_head().unwrap().status, 201);
    connection
}

/// That it goes on.
fn goes_on(connection: &mut http::Connection) {
    connection.send(b"3\r\ndef\r\n").unwrap();
    while connection.receive_line().unwrap().trim() != "def" {}
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn requests_that_wait_for_one_another_are_answered_if_the_manifest_says_so() {
    let cluster = Cluster::start(App::todo().component("hello", component()), 1);
    let manifest = r#"{ "schema": "aegis.module/1", "kind": "http-service",
        "instances": { "max": 1, "max-invocations": 1000, "max-concurrent": 3 } }"#;
    fs::write(cluster.folder().join("modules/hello/aegis.module.json"), manifest).unwrap();
    cluster.aegis_ok(&["reload"]);
    let mut numbers: Vec<String> = together(&cluster.client(), &["meet?3"; 3])
        .into_iter()
        .map(|answer| answer.unwrap().text())
        .collect();
    numbers.sort();
    assert_eq!(numbers, ["1", "2", "3"]);
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn answers_whose_heads_say_their_length_leave_the_instance_as_it_is() {
    let cluster = Cluster::start(hello("instances = 1\n"), 1);
    let client = cluster.client();
    for number in 1..=3 {
        assert_eq!(client.send("POST", "/hello/echo", b"abc").header("content-length"), Some("3"));
        assert_eq!(client.send("HEAD", "/hello/", b"").status, 200);
        assert_eq!(get(&cluster, "nth").text(), (3 * number).to_string());
    }
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn one_that_waits_or_computes_beyond_its_deadline_is_late_and_the_others_are_answered() {
    let cluster = Cluster::start(hello("deadline = \"1s\"\n"), 1);
    let client = cluster.client();
    for path in ["wait", "turn", "spin", "block"] {
        let answers = together(&client, &[path, "nth", "nth", "echo", "nth"]);
        let (late, others) = answers.split_first().unwrap();
        let late = late.as_ref().unwrap();
        assert_eq!((late.status, &late.json()["code"]), (504, &"deadline-exceeded".into()), "{path}");
        // Who was with one that lets nobody run may have begun, and is not answered, or not to the end.
        let lets_run = matches!(path, "wait" | "turn");
        for other in others {
            let is_well = other.as_ref().is_ok_and(|other| matches!(other.status, 200 | 201));
            assert!(is_well || !lets_run, "{path}: {other:?}");
        }
        assert_eq!(get(&cluster, "").status, 200, "after {path}");
    }
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn a_failure_breaks_off_what_its_instance_was_doing_and_the_log_has_both_under_their_ids() {
    let cluster = Cluster::start(hello("instances = 1\n"), 1);
    let mut connection = begun(&cluster);
    let trapped = cluster.client().with("x-request-id", "it-fails").send("GET", "/hello/trap", b"");
    assert_eq!((trapped.status, &trapped.json()["code"]), (500, &"guest-trap".into()));
    connection.send(b"3\r\ndef\r\n0\r\n\r\n").unwrap();
    let mut rest = Vec::new();
    while let Ok(line) = connection.receive_line() {
        if line.is_empty() {
            break;
        }
        rest.push(line.trim().to_owned());
    }
    assert_ne!(rest.last().map(String::as_str), Some("0"), "the body does not end well: {rest:?}");
    assert_eq!(get(&cluster, "nth").text(), "1");
    let log = cluster.log();
    assert!(log.contains("it-fails") && log.contains("about to fail"), "{log}");
    assert!(log.contains("ended with its instance"), "{log}");
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn a_client_that_leaves_ends_nothing_but_its_own_request() {
    let cluster = Cluster::start(hello(""), 1);
    let (mut stays, leaves) = (begun(&cluster), begun(&cluster));
    drop(leaves);
    // The next instance, when it is noticed.
    eventually("it is noticed that the client left", WAIT, || get(&cluster, "nth").text() == "1");
    goes_on(&mut stays);
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn a_swap_lets_requests_end_where_they_are_and_sends_new_ones_to_the_new_version() {
    let cluster = Cluster::start(hello(""), 2);
    let mut older = begun(&cluster);
    for name in ["hello-0.3-two", "hello-0.3-six"] {
        app::write_component(cluster.folder(), "hello", &named(name));
        cluster.aegis_ok(&["reload", "--mode", "swap"]);
        assert_eq!(get(&cluster, "").text(), format!("{name}/hello/"));
        goes_on(&mut older);
    }
}
