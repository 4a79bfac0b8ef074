//! How the host ends.

use std::time::Duration;

use aegis_harness::{App, Cluster, Failure};
use nix::sys::signal::Signal;
use serde_json::json;

const HEAD: &str = "POST /aegis/api/models/todo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n";

#[test]
fn term_finishes_what_is_in_flight_and_refuses_the_rest() {
    let mut cluster = Cluster::start(App::todo(), 2);
    let mut held = cluster.client().connect().unwrap();
    held.send(HEAD.as_bytes()).unwrap();
    aegis_harness::eventually("the request to be in flight", Duration::from_secs(30), || {
        cluster.status().workers.iter().any(|worker| worker.in_flight > 0)
    });
    cluster.signal(Signal::SIGTERM);
    // At once, not when the host has ended: whoever balances the load goes elsewhere.
    aegis_harness::eventually("new connections to be refused", Duration::from_secs(30), || {
        cluster.client().connect().is_err_and(|failure| failure == Failure::Refused)
    });
    held.send(b"{\"text\":\"a\"}").unwrap();
    let response = held.receive(false).unwrap();
    assert_eq!(response.status, 201);
    let id = response.json()["id"].as_str().unwrap().to_owned();
    assert!(cluster.wait_exit(Duration::from_secs(20)).success());
    cluster.restart();
    assert_eq!(cluster.client().get(&format!("todo/{id}")).status, 200);
}

#[test]
fn term_gives_up_at_the_deadline_and_quit_does_not() {
    let app = App::todo().settings("[drain]\ntimeout = \"500ms\"\nspread = \"100ms\"");
    let mut cluster = Cluster::start(app.clone(), 1);
    let mut held = cluster.client().connect().unwrap();
    held.send(HEAD.as_bytes()).unwrap();
    cluster.signal(Signal::SIGTERM);
    assert!(cluster.wait_exit(Duration::from_secs(20)).success());
    assert!(matches!(held.receive(false), Err(Failure::EndOfFile | Failure::Reset)));

    let mut cluster = Cluster::start(app, 1);
    let mut held = cluster.client().connect().unwrap();
    held.send(HEAD.as_bytes()).unwrap();
    aegis_harness::eventually("the request to be in flight", Duration::from_secs(30), || {
        cluster.status().workers.iter().any(|worker| worker.in_flight > 0)
    });
    cluster.signal(Signal::SIGQUIT);
    assert!(matches!(held.receive_after(Duration::from_millis(1500)), Err(Failure::Timeout)), "it waits");
    held.send(b"{\"text\":\"a\"}").unwrap();
    assert_eq!(held.receive(false).unwrap().status, 201);
    assert!(cluster.wait_exit(Duration::from_secs(20)).success());
}

#[test]
fn a_second_interrupt_ends_it_at_once() {
    let mut cluster = Cluster::start(App::todo(), 1);
    let mut held = cluster.client().connect().unwrap();
    held.send(HEAD.as_bytes()).unwrap();
    cluster.signal(Signal::SIGINT);
    aegis_harness::eventually("the host to end", Duration::from_secs(20), || {
        cluster.signal_if_alive(Signal::SIGINT);
        cluster.has_exited()
    });
}

#[test]
fn stop_is_a_command_too() {
    let mut cluster = Cluster::start(App::todo(), 2);
    let _ = cluster.client().create("todo", &json!({"text": "a"}));
    cluster.aegis_ok(&["stop"]);
    assert!(cluster.wait_exit(Duration::from_secs(20)).success());
    assert!(!cluster.folder().join("data/control.sock").exists(), "its sockets are gone");
}
