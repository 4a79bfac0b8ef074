use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::listen::{Occupant, Origin, bind_unix};

struct Bench {
    _directory: tempfile::TempDir,
    path: PathBuf,
    server: Server,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("control.sock");
        let server = Server::new(bind_unix(&path, Occupant::Ask).unwrap(), Origin::Bound);
        Self { _directory: directory, path, server }
    }

    fn connect(&mut self) -> (UnixStream, ClientId) {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let accepted = self.server.accept();
        (stream, *accepted.last().expect("admitted"))
    }
}

fn reply(stream: &UnixStream) -> Reply {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap()
}

#[test]
fn requests_are_taken_line_by_line_whatever_the_pieces() {
    let mut bench = Bench::new();
    let (mut client, id) = bench.connect();
    client.write_all(b"{\"request\":\"status\"}\n\n{\"request\":\"scale\",").unwrap();
    assert_eq!(bench.server.read(id), [Ok(Request::Status)]);
    assert_eq!(bench.server.read(id), []);
    client.write_all(b"\"workers\":3}\r\n").unwrap();
    assert_eq!(bench.server.read(id), [Ok(Request::Scale { workers: 3 })]);
}

#[test]
fn garbage_is_answered_and_the_connection_lives_on() {
    let mut bench = Bench::new();
    let (mut client, id) = bench.connect();
    client.write_all(b"\xff\xfe{\n{\"request\":\"explode\"}\n{\"request\":\"status\"}\n").unwrap();
    let lines = bench.server.read(id);
    assert_eq!(lines[2], Ok(Request::Status));
    let messages: Vec<&String> = lines[..2].iter().map(|line| line.as_ref().unwrap_err()).collect();
    insta::assert_debug_snapshot!(messages, @r#"
    [
        "not a request: expected value at line 1 column 1; expected one JSON object per line, such as {\"request\":\"status\"}",
        "not a request: unknown variant `explode`, expected one of `status`, `watch`, `reload`, `deploy`, `rollback`, `scale`, `restart`, `drain`, `upgrade`, `logs-reopen`, `stop`, `job` at line 1 column 20; expected one JSON object per line, such as {\"request\":\"status\"}",
    ]
    "#);
}

#[test]
fn an_endless_line_is_refused_and_not_kept() {
    let mut bench = Bench::new();
    let (mut client, id) = bench.connect();
    client.set_nonblocking(true).unwrap();
    let mut lines = Vec::new();
    let mut sent = 0;
    while lines.is_empty() {
        sent += client.write(&[b'x'; 8192]).unwrap_or(0);
        lines = bench.server.read(id);
        assert!(sent < 4 * LINE_BYTES_MAX, "the line was never refused");
    }
    assert_eq!(lines, [Err("a line may be 262144 bytes long, this one is longer".to_owned())]);
    bench.server.send(id, &Reply::Done);
    bench.server.flush(id);
    assert_eq!(bench.server.finished(), [id]);
}

#[test]
fn a_client_that_closed_its_half_still_gets_the_answer_it_waits_for() {
    let mut bench = Bench::new();
    let (mut client, id) = bench.connect();
    client.write_all(b"{\"request\":\"reload\",\"wait\":true}").unwrap();
    client.write_all(b"\n").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(bench.server.read(id), [Ok(Request::Reload { wait: true, mode: None, automatic: false })]);
    bench.server.expect(id, 9);
    assert_eq!(bench.server.changed_readiness(), [(id, Readiness { read: false, write: false })]);
    assert_eq!(bench.server.finished(), [] as [ClientId; 0]);

    bench.server.send(id, &Reply::Accepted { job: 4 });
    bench.server.fulfilled(id, 9);
    assert_eq!(bench.server.changed_readiness(), [(id, Readiness { read: false, write: true })]);
    assert_eq!(bench.server.changed_readiness(), [], "said once");
    bench.server.flush(id);
    assert_eq!(reply(&client), Reply::Accepted { job: 4 });
    assert_eq!(bench.server.finished(), [id]);
    assert_eq!(bench.server.close(id), BTreeSet::new());
    assert_eq!(bench.server.ids().count(), 0);
}

#[test]
fn who_does_not_read_is_cut_off() {
    let mut bench = Bench::new();
    let (_client, id) = bench.connect();
    let long = Reply::Error { message: "x".repeat(100_000) };
    for _ in 0..40 {
        bench.server.send(id, &long);
        bench.server.flush(id);
    }
    assert_eq!(bench.server.finished(), [id]);
}

#[test]
fn one_too_many_is_told_so() {
    let mut bench = Bench::new();
    let clients: Vec<_> = (0..CLIENTS_MAX).map(|_| bench.connect()).collect();
    let extra = UnixStream::connect(&bench.path).unwrap();
    assert_eq!(bench.server.accept(), [] as [ClientId; 0]);
    let Reply::Error { message } = reply(&extra) else { panic!("no refusal") };
    assert_eq!(message, "64 operators are connected already, try again later");
    assert_eq!(bench.server.ids().count(), clients.len());
}

#[test]
fn watchers_are_those_who_have_taken_the_last_state() {
    let mut bench = Bench::new();
    let (client, id) = bench.connect();
    let (_other, _) = bench.connect();
    bench.server.watch(id);
    assert_eq!(bench.server.watchers(), [id]);
    bench.server.send(id, &Reply::Done);
    assert_eq!(bench.server.watchers(), [] as [ClientId; 0]);
    bench.server.flush(id);
    assert_eq!(reply(&client), Reply::Done);
    assert_eq!(bench.server.watchers(), [id]);
}

#[test]
fn a_client_continues_with_the_successor() {
    let mut bench = Bench::new();
    let (mut client, id) = bench.connect();
    client.write_all(b"{\"request\":").unwrap();
    assert_eq!(bench.server.read(id), []);
    bench.server.send(id, &Reply::Accepted { job: 1 });
    bench.server.expect(id, 5);
    let mut successor = Server::new(bench.server.as_fd().try_clone_to_owned().unwrap(), Origin::Bound);
    for (record, descriptor) in bench.server.records() {
        successor.restore(record, descriptor.try_clone_to_owned().unwrap());
    }
    drop(bench.server);
    client.write_all(b"\"status\"}\n").unwrap();
    assert_eq!(successor.read(id), [Ok(Request::Status)]);
    successor.flush(id);
    assert_eq!(reply(&client), Reply::Accepted { job: 1 });
    successor.fulfilled(id, 5);
    let another = UnixStream::connect(&bench.path).unwrap();
    assert_eq!(successor.accept(), [id + 1]);
    drop(another);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_end_the_server(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.write_all(&bytes).unwrap();
        let mut client = Client {
            stream: near,
            input: Vec::new(),
            output: Vec::new(),
            interest: Interest::Answers,
            phase: Phase::Open,
            waiting: BTreeSet::new(),
            polled_for: Readiness::FRESH,
        };
        client.fill();
        let lines = client.take_lines();
        let breaks = bytes.iter().filter(|byte| **byte == b'\n').count();
        prop_assert!(lines.len() <= breaks);
        prop_assert_eq!(client.phase, Phase::Open);
    }
}
