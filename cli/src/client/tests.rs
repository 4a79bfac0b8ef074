use std::{
    io::{BufRead, BufReader},
    os::unix::net::UnixListener,
    thread::{self, JoinHandle},
};

use super::*;

/// A host that answers the first line it reads with these bytes, then closes.
fn host(folder: &Path, answer: &'static [u8]) -> (PathBuf, JoinHandle<String>) {
    let path = folder.join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let host = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        (&stream).write_all(answer).unwrap();
        line
    });
    (path, host)
}

#[test]
fn a_request_is_one_line_and_so_is_its_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (path, host) = host(folder.path(), b"{\"reply\":\"accepted\",\"job\":3}\n{\"reply\":\"done\"}\n");
    let mut client = Client::connect(&path).unwrap();
    assert_eq!(
        client.ask(&Request::Reload { wait: true, mode: None, automatic: false }).unwrap(),
        Reply::Accepted { job: 3 }
    );
    assert_eq!(client.receive(ANSWER_TIMEOUT).unwrap(), Incoming::Reply(Reply::Done));
    assert_eq!(client.receive(ANSWER_TIMEOUT).unwrap(), Incoming::Closed);
    assert_eq!(host.join().unwrap(), "{\"request\":\"reload\",\"wait\":true}\n");
}

#[test]
fn a_missing_host_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let told = |path: &Path| {
        let error = Client::connect(path).unwrap_err();
        assert_eq!(error.exit_code(), exit::TRANSIENT);
        error.to_string().replace(&folder.path().display().to_string(), "APP")
    };
    insta::assert_snapshot!(told(&path), @"no host listens on APP/control.sock; is `aegis run` running?");
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(told(&path), told(&folder.path().join("control.sock")), "a socket left behind is the same");
}

#[test]
fn what_is_no_socket_is_refused_by_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let long = folder.path().join("x".repeat(200));
    let error = Client::connect(&long).unwrap_err();
    assert!(matches!(error, ClientError::Os { operation: "connecting to", .. }), "{error:?}");
    assert_eq!(error.exit_code(), exit::OS);
}

#[test]
fn a_host_that_accepts_nobody_does_not_hold_the_command_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let mut held = Vec::new();
    let error = loop {
        match Client::connect(&path) {
            Ok(client) => held.push(client),
            Err(error) => break error,
        }
        assert!(held.len() < 100_000, "the queue never filled up");
    };
    assert!(matches!(error, ClientError::Silent { .. }), "{error:?}");
}

#[test]
fn a_silent_host_is_noticed_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let mut client = Client::connect(&path).unwrap();
    client.send(&Request::Status).unwrap();
    assert_eq!(client.receive(Duration::from_millis(20)).unwrap(), Incoming::Nothing);
}

#[test]
fn half_an_answer_is_kept_until_the_rest_comes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut client = Client::connect(&path).unwrap();
    let (mut host, _) = listener.accept().unwrap();
    host.write_all(b"{\"reply\":").unwrap();
    assert_eq!(client.receive(Duration::from_millis(20)).unwrap(), Incoming::Nothing);
    host.write_all(b"\"done\"}\n").unwrap();
    assert_eq!(client.receive(ANSWER_TIMEOUT).unwrap(), Incoming::Reply(Reply::Done));
}

#[test]
fn nonsense_and_a_closed_door_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let told = |answer: &'static [u8]| {
        let (path, host) = host(folder.path(), answer);
        let error = Client::connect(&path).unwrap().ask(&Request::Status).unwrap_err();
        host.join().unwrap();
        std::fs::remove_file(&path).unwrap();
        error.to_string().replace(&folder.path().display().to_string(), "APP")
    };
    insta::assert_snapshot!(told(b"HTTP/1.1 400 Bad Request\r\n\r\n"), @r#"the host on APP/control.sock answered with "HTTP/1.1 400 Bad Request", expected a line of JSON that this version of aegis knows"#);
    insta::assert_snapshot!(told(b"{\"reply\":\"from the future\"}\n"), @r#"the host on APP/control.sock answered with "{\"reply\":\"from the future\"}", expected a line of JSON that this version of aegis knows"#);
    insta::assert_snapshot!(told(b""), @"the host on APP/control.sock closed the connection before it answered; `aegis status` tells how it is");
}

#[test]
fn an_answer_as_long_as_a_host_may_give_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let reply = Reply::Error { message: "x".repeat(REPLY_BYTES_MAX - 100) };
    let answer = serde_json::to_string(&reply).unwrap() + "\n";
    let (path, host) = host(folder.path(), answer.leak().as_bytes());
    assert_eq!(Client::connect(&path).unwrap().ask(&Request::Status).unwrap(), reply);
    host.join().unwrap();
}

#[test]
fn a_line_without_end_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let host = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let mut client = Client::connect(&path).unwrap();
    let error = client.receive(ANSWER_TIMEOUT).unwrap_err();
    assert!(matches!(error, ClientError::Nonsense { .. }), "{error:?}");
    drop(client);
    host.join().unwrap();
}
