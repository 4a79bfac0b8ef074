use std::{
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use aegis_wasm::Code;

use super::{
    fetch::{Failure, Got, Wanted},
    *,
};

mod apps;

/// For servers that answer, on a busy machine.
const PATIENT: Times = Times {
    connect: Duration::from_secs(20),
    idle: Duration::from_secs(20),
    total: Duration::from_secs(20),
    pause: Duration::from_millis(1),
};
/// For what never comes.
const SHORT: Times = Times { idle: Duration::from_millis(300), ..PATIENT };
const BYTES_MAX: usize = 1000;

type Answer = dyn Fn(&str, &mut TcpStream) + Send + Sync;

/// A server that answers as the test says, and remembers the heads of requests.
struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// `answer` is called with the path and the connection.
    fn start(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, is_over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let answer: Arc<Answer> = Arc::new(answer);
        let (heard, over) = (Arc::clone(&requests), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (heard, answer) = (Arc::clone(&heard), Arc::clone(&answer));
                thread::spawn(move || serve(stream.unwrap(), &heard, answer.as_ref()));
            }
        });
        Self { address, requests, is_over, thread: Some(thread) }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn paths(&self) -> Vec<String> {
        self.requests().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn serve(mut stream: TcpStream, heard: &Mutex<Vec<String>>, answer: &Answer) {
    let mut head = String::new();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    while !head.ends_with("\r\n\r\n") {
        match lines.read_line(&mut head) {
            Ok(1..) => {}
            _ => return,
        }
    }
    let path = head.split(' ').nth(1).unwrap().to_owned();
    heard.lock().unwrap().push(head);
    answer(&path, &mut stream);
}

fn send(stream: &mut TcpStream, head: &str, body: &[u8]) {
    let length = body.len();
    let head = format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// Waits until the other side has hung up.
fn hold(stream: &mut TcpStream) {
    let _ = io::copy(stream, &mut io::sink());
}

fn get(url: &str, times: Times) -> Result<Got, Failure> {
    Client::new(times).get(&Wanted {
        url,
        authorization: Some("Bearer s3cret"),
        accept: None,
        bytes_max: BYTES_MAX,
        too_large: Code::TooLarge,
        deadline: Instant::now() + times.total,
        is_known: false,
    })
}

/// The kind and message of a failure; the address of the server is hidden.
fn failure(server: &Server, times: Times) -> String {
    let told = match get(&server.url("m/x"), times).unwrap_err() {
        Failure::Mute(reason) => format!("mute: {reason}"),
        Failure::Away(reason) => format!("away: {reason}"),
        Failure::Wrong(reason) => format!("wrong: {reason}"),
    };
    told.replace(&server.address.to_string(), "HOST")
}

#[test]
fn bytes_come_with_their_digest_and_nothing_is_asked_for_but_them() {
    let server = Server::start(|_, stream| send(stream, "200 OK", b"abc"));
    let got = get(&server.url("m/x"), PATIENT).unwrap();
    assert_eq!(got.bytes, b"abc");
    assert_eq!(got.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    let head = server.requests().remove(0).to_ascii_lowercase();
    assert!(head.starts_with("get /m/x http/1.1\r\n"), "{head}");
    assert!(head.contains("accept-encoding: identity\r\n"), "{head}");
    assert!(head.contains("authorization: bearer s3cret\r\n"), "{head}");
}

#[test]
fn chunked_bodies_and_bodies_up_to_the_end_are_read_too() {
    let server = Server::start(|path, stream| {
        let answer: &[u8] = match path {
            "/chunked" => b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            _ => b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabc",
        };
        stream.write_all(answer).unwrap();
    });
    assert_eq!(get(&server.url("chunked"), PATIENT).unwrap().bytes, b"abc");
    assert_eq!(get(&server.url("plain"), PATIENT).unwrap().bytes, b"abc");
}

#[test]
fn a_refused_connection_is_tried_again_and_then_the_source_is_away() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let Failure::Mute(reason) = get(&format!("http://{address}/"), PATIENT).unwrap_err() else {
        panic!("not mute")
    };
    assert_eq!(
        reason.to_string(),
        format!(
            "AEGIS-M102 fetching the module: found Connection refused (os error 111), expected an answer from http://{address}/"
        )
    );
}

#[test]
fn a_name_without_an_address_is_away_soon() {
    let begun = Instant::now();
    let times = Times { connect: Duration::from_millis(500), ..PATIENT };
    let failed = get("https://nowhere.invalid/", times).unwrap_err();
    assert!(matches!(failed, Failure::Mute(_)), "{failed:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn something_that_speaks_no_tls_is_away_and_is_asked_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        hold(&mut stream);
    });
    let failed = get(&format!("https://{address}/"), PATIENT).unwrap_err();
    let Failure::Mute(reason) = failed else { panic!("{failed:?}") };
    assert!(reason.to_string().contains("received corrupt message"), "{reason}");
    server.join().unwrap();
}

#[test]
fn what_is_not_there_is_told_at_once() {
    let server = Server::start(|_, stream| send(stream, "404 Not Found", b"no"));
    insta::assert_snapshot!(failure(&server, PATIENT), @"wrong: AEGIS-M103 fetching the module: found status 404, expected 200 from http://HOST/m/x");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn a_server_that_has_had_enough_of_us_is_away() {
    let server = Server::start(|_, stream| send(stream, "429 Too Many Requests", b""));
    assert!(failure(&server, PATIENT).starts_with("away: AEGIS-M102"), "{}", failure(&server, PATIENT));
    let server = Server::start(|_, stream| send(stream, "403 Forbidden\r\nx-ratelimit-remaining: 0", b""));
    assert!(failure(&server, PATIENT).starts_with("away: AEGIS-M102"), "{}", failure(&server, PATIENT));
}

#[test]
fn a_failing_server_is_asked_three_times() {
    let server = Server::start(|_, stream| send(stream, "500 Oh", b""));
    insta::assert_snapshot!(failure(&server, PATIENT), @"away: AEGIS-M102 fetching the module: found status 500, expected 200 from http://HOST/m/x");
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn a_failure_that_passes_is_none() {
    let is_well = AtomicBool::new(false);
    let server = Server::start(move |_, stream| {
        let well = is_well.swap(true, Ordering::SeqCst);
        send(stream, if well { "200 OK" } else { "503 Later" }, b"x");
    });
    assert_eq!(get(&server.url(""), PATIENT).unwrap().bytes, b"x");
}

#[test]
fn silence_before_and_within_an_answer_ends_it() {
    let silent = Server::start(|_, stream| hold(stream));
    insta::assert_snapshot!(failure(&silent, SHORT), @"mute: AEGIS-M102 fetching the module: found silence for 300ms, expected an answer from http://HOST/m/x");
    let server = Server::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").unwrap();
        hold(stream);
    });
    insta::assert_snapshot!(failure(&server, SHORT), @"away: AEGIS-M102 fetching the module: found silence for 300ms, expected an answer from http://HOST/m/x");
}

#[test]
fn a_body_that_trickles_ends_with_the_time_for_all() {
    let server = Server::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n").unwrap();
        while stream.write_all(b"x").is_ok() {
            thread::park_timeout(Duration::from_millis(20));
        }
    });
    let times = Times { total: Duration::from_millis(500), ..PATIENT };
    let begun = Instant::now();
    insta::assert_snapshot!(failure(&server, times), @"away: AEGIS-M102 fetching the module: found no end within 500ms, expected an answer from http://HOST/m/x");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn endless_bodies_and_heads_are_cut_off() {
    let body = Server::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").unwrap();
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    insta::assert_snapshot!(failure(&body, PATIENT), @"wrong: AEGIS-M110 reading the component: found more than 1000 bytes, expected at most 1000");
    let head = Server::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n").unwrap();
        while stream.write_all(b"x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n").is_ok() {}
    });
    insta::assert_snapshot!(failure(&head, PATIENT), @"mute: AEGIS-M102 fetching the module: found an answer that is not HTTP (http parse resulted in too many headers), expected an answer from http://HOST/m/x");
}

#[test]
fn what_announces_too_much_is_not_begun() {
    let server = Server::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n").unwrap();
        hold(stream);
    });
    insta::assert_snapshot!(failure(&server, PATIENT), @"wrong: AEGIS-M110 reading the component: found 10000000000 bytes announced, expected at most 1000");
}

#[test]
fn fewer_bytes_than_announced_are_no_answer() {
    let server = Server::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc").unwrap();
    });
    insta::assert_snapshot!(failure(&server, PATIENT), @"away: AEGIS-M102 fetching the module: found an answer that is cut off, expected an answer from http://HOST/m/x");
}

#[test]
fn what_is_not_http_is_no_answer() {
    let server = Server::start(|_, stream| {
        let _ = stream.write_all(b"SSH-2.0-x\r\n\r\n");
    });
    assert!(failure(&server, PATIENT).starts_with("mute: AEGIS-M102"), "{}", failure(&server, PATIENT));
}

#[test]
fn nothing_is_unpacked() {
    let server = Server::start(|_, stream| send(stream, "200 OK\r\ncontent-encoding: gzip", b"bomb"));
    insta::assert_snapshot!(failure(&server, PATIENT), @r#"wrong: AEGIS-M104 fetching the module: found the content encoding "gzip", expected the bytes as they are"#);
}

#[test]
fn redirects_are_followed_within_the_origin() {
    let server = Server::start(|path, stream| {
        let address = stream.local_addr().unwrap();
        match path {
            "/m/x" => send(stream, "302 Found\r\nlocation: y?z=http://a.example/", b""),
            "/m/y?z=http://a.example/" => send(stream, "307 Found\r\nlocation: /z?of=http://b.example/", b""),
            "/z?of=http://b.example/" => {
                send(stream, &format!("301 Found\r\nlocation: http://{address}/end"), b"")
            }
            _ => send(stream, "200 OK", b"abc"),
        }
    });
    assert_eq!(get(&server.url("m/x"), PATIENT).unwrap().bytes, b"abc");
    assert_eq!(server.paths(), ["/m/x", "/m/y?z=http://a.example/", "/z?of=http://b.example/", "/end"]);
}

#[test]
fn redirects_to_elsewhere_and_in_circles_are_not_followed() {
    let other = Server::start(|_, stream| send(stream, "200 OK", b"abc"));
    let elsewhere = other.url("");
    let server =
        Server::start(move |_, stream| send(stream, &format!("302 Found\r\nlocation: {elsewhere}"), b""));
    let told = failure(&server, PATIENT).replace(&other.address.to_string(), "OTHER");
    insta::assert_snapshot!(told, @r#"wrong: AEGIS-M104 fetching the module: found a redirect to "http://OTHER/", expected one within http://HOST"#);
    assert_eq!(other.requests().len(), 0, "and it does not learn the token");
    let server = Server::start(|_, stream| send(stream, "302 Found\r\nlocation: /again", b""));
    insta::assert_snapshot!(failure(&server, PATIENT), @"wrong: AEGIS-M104 fetching the module: found one more redirect, expected at most 5 redirects");
    assert_eq!(server.requests().len(), 6);
}
