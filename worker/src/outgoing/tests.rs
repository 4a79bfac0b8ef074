//! Requests to servers of the test: who is asked, who is not, and what ends a connection.

use std::io;

use aegis_domain::{code::Grants, outgoing::HostGrant, trial::Lot};
use aegis_ipc::board::Board;
use aegis_wasm::{Credential, Lineage, SecretText};
use bytes::Bytes;
use http_body_util::Empty;
use rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use super::{resolve::Resolved, *};
use crate::tests::upstream::{Upstream, answering};

/// Time in which anything here has to be over, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time after which something that never comes is given up.
const SHORT: Duration = Duration::from_millis(50);

/// Knows one name, which leads elsewhere each time it is looked up, and stays where it was last.
struct Shifting {
    answers: Mutex<Vec<Vec<IpAddr>>>,
    asked: Mutex<Vec<String>>,
}

impl Resolve for Shifting {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolved<'a> {
        self.asked.lock().push(name.to_owned());
        let mut answers = self.answers.lock();
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        Box::pin(std::future::ready(if name == "a.example" {
            Ok(answer)
        } else {
            Err(io::ErrorKind::NotFound.into())
        }))
    }
}

/// A worker with one module.
struct Worker {
    outgoing: Outgoing,
    resolver: Arc<Shifting>,
    grants: Grants,
    lot: Lot,
    cell: Cell,
}

impl Worker {
    fn granted(grants: &[String]) -> Self {
        Self::resolving(grants, &[&["127.0.0.1"]])
    }

    fn resolving(grants: &[String], answers: &[&[&str]]) -> Self {
        Self::with(grants, answers, Connector::default())
    }

    fn with(grants: &[String], answers: &[&[&str]], connector: Connector) -> Self {
        let addresses = |texts: &&[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let answers = Mutex::new(answers.iter().map(addresses).collect());
        let resolver = Arc::new(Shifting { answers, asked: Mutex::default() });
        let cell = Board::create().unwrap().0.cell(0);
        let http = grants.iter().map(|grant| HostGrant::parse(grant).unwrap()).collect();
        let outgoing = Outgoing::with(Arc::<Shifting>::clone(&resolver), connector, cell);
        Self { outgoing, resolver, grants: Grants { http, ..Grants::default() }, lot: Lot::default(), cell }
    }

    fn asker<'a>(&'a self, module: &'a str) -> Asker<'a> {
        let deadline = Instant::now() + PATIENCE;
        Asker {
            module,
            model: "M",
            grants: &self.grants,
            request_id: "r1",
            deadline,
            payload_bytes_max: 0,
            lineage: Lineage::default(),
            lot: &self.lot,
            principal: None,
        }
    }

    async fn send(&self, dispatch: Dispatch) -> Result<Reply, OutgoingError> {
        self.outgoing.send(self.asker("m"), dispatch).await
    }

    async fn get(&self, url: &str) -> Result<String, OutgoingError> {
        self.send(get(url))
            .await
            .map(|reply| format!("{} {}", reply.status, String::from_utf8_lossy(&reply.body)))
    }

    async fn refused(&self, url: &str) -> String {
        self.get(url).await.unwrap_err().to_string()
    }

    /// Requests, denials, failures.
    fn counted(&self) -> [u64; 3] {
        [Counter::OutgoingRequests, Counter::OutgoingDenied, Counter::OutgoingFailed]
            .map(|counter| self.cell.counter(counter).load(Ordering::Relaxed))
    }
}

fn get(url: &str) -> Dispatch {
    Dispatch {
        method: "GET".to_owned(),
        url: url.to_owned(),
        headers: Vec::new(),
        body: Bytes::new(),
        timeout: None,
        response_bytes_max: 1000,
        credential: None,
    }
}

fn authorized(url: &str) -> Dispatch {
    let credential = Credential { scheme: "Bearer".to_owned(), secret: SecretText::new("hush-hush") };
    Dispatch { credential: Some(credential), ..get(url) }
}

async fn hello() -> Upstream {
    Upstream::start(|_| answering(200, "x-own: 1", "hello")).await
}

async fn silent() -> Upstream {
    Upstream::start(|_| String::new()).await
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_request_goes_out_and_the_whole_answer_comes_back() {
    let server = hello().await;
    let worker = Worker::granted(&[server.address.to_string()]);
    let mut dispatch =
        Dispatch { method: "PUT".to_owned(), body: Bytes::from("abc"), ..get(&server.url("/a?b=c")) };
    dispatch.headers.push(("X-Mine".to_owned(), b"2".to_vec()));
    let reply = worker.send(dispatch).await.unwrap();
    assert_eq!((reply.status, &reply.body[..]), (200, &b"hello"[..]));
    assert!(reply.headers.contains(&("x-own".to_owned(), b"1".to_vec())), "{:?}", reply.headers);
    let seen = server.requests().remove(0);
    assert!(seen.starts_with("PUT /a?b=c HTTP/1.1\r\n") && seen.ends_with("\r\n\r\nabc"), "{seen}");
    assert!(
        seen.contains(&format!("host: {}\r\n", server.address)) && seen.contains("x-mine: 2\r\n"),
        "{seen}"
    );
    assert!(seen.contains("user-agent: aegis/") && seen.contains("content-length: 3\r\n"), "{seen}");
    assert_eq!(worker.counted(), [1, 0, 0]);
}

#[tokio::test]
async fn a_connection_serves_its_module_again_and_no_other() {
    let server = hello().await;
    let worker = Worker::granted(&[server.address.to_string()]);
    for _ in 0..3 {
        worker.get(&server.url("/")).await.unwrap();
    }
    assert_eq!((server.accepted(), worker.outgoing.pool.waiting()), (1, 1));
    worker.outgoing.send(worker.asker("other"), get(&server.url("/"))).await.unwrap();
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn a_connection_that_the_other_side_closed_meanwhile_is_replaced() {
    let server = Upstream::start(|_| answering(200, "connection: close", "x")).await;
    let worker = Worker::granted(&[server.address.to_string()]);
    for number in 1..=3 {
        assert_eq!(worker.get(&server.url("/")).await.unwrap(), "200 x");
        assert_eq!(server.accepted(), number);
    }
}

#[tokio::test]
async fn a_host_that_is_not_granted_is_not_even_looked_up() {
    let server = hello().await;
    let worker = Worker::granted(&["b.example".to_owned()]);
    for url in [server.url("/"), "https://a.example/".to_owned(), "https://b.example:444/".to_owned()] {
        let refused = worker.get(&url).await.unwrap_err();
        assert!(matches!(refused, OutgoingError::Denied(_)), "{refused:?}");
    }
    assert_eq!((server.accepted(), worker.resolver.asked.lock().len(), worker.counted()), (0, 0, [3, 3, 0]));
}

#[tokio::test]
async fn a_granted_name_that_leads_into_the_house_is_denied_after_it_is_looked_up() {
    let server = hello().await;
    let port = server.address.port();
    let grants = [format!("a.example:{port}"), "127.0.0.1:1".to_owned()];
    for address in ["127.0.0.1", "::ffff:127.0.0.1", "169.254.169.254", "::1", "10.1.2.3"] {
        let worker = Worker::resolving(&grants, &[&[address]]);
        let refused = worker.get(&format!("http://a.example:{port}/")).await.unwrap_err();
        assert!(matches!(refused, OutgoingError::Prohibited(_)), "{refused:?}");
        assert_eq!(worker.counted(), [1, 1, 0]);
    }
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn one_address_of_a_name_that_must_not_be_reached_spoils_all() {
    let server = hello().await;
    let grants = [format!("a.example:{}", server.address.port()), server.address.to_string()];
    let worker = Worker::resolving(&grants, &[&["127.0.0.1", "169.254.169.254"]]);
    let refused = worker.refused(&format!("http://a.example:{}/", server.address.port())).await;
    assert!(refused.contains("169.254.169.254, a link-local address"), "{refused}");
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_the_next_time_has_no_second_say() {
    let server = Upstream::start(|_| answering(200, "connection: close", "x")).await;
    let (port, grants) = (server.address.port(), server.address.to_string());
    let worker =
        Worker::resolving(&[format!("a.example:{port}"), grants], &[&["127.0.0.1"], &["169.254.169.254"]]);
    let url = format!("http://a.example:{port}/");
    assert_eq!(worker.get(&url).await.unwrap(), "200 x");
    assert_eq!(
        worker.resolver.asked.lock().len(),
        1,
        "once for a connection, and it went where it was looked at"
    );
    assert!(matches!(worker.get(&url).await, Err(OutgoingError::Prohibited(_))));
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_redirect_is_followed_within_what_is_granted() {
    let other = Upstream::start(|_| answering(200, "", "there")).await;
    let location = format!("location: {}", other.url("/there"));
    let server = Upstream::start(move |request| {
        if request.starts_with("GET /first") {
            answering(307, "location: /second", "")
        } else {
            answering(302, &location, "gone")
        }
    })
    .await;
    let worker = Worker::granted(&[server.address.to_string(), other.address.to_string()]);
    let mut dispatch = authorized(&server.url("/first"));
    dispatch.headers.push(("Cookie".to_owned(), b"mine".to_vec()));
    let reply = worker.send(dispatch).await.unwrap();
    assert_eq!((reply.status, &reply.body[..]), (200, &b"there"[..]));
    for seen in server.requests() {
        assert!(
            seen.contains("authorization: Bearer hush-hush\r\n") && seen.contains("cookie: mine"),
            "{seen}"
        );
    }
    let seen = other.requests().remove(0);
    assert!(!seen.contains("hush") && !seen.contains("cookie"), "{seen}");
}

#[tokio::test]
async fn a_redirect_to_what_is_not_granted_is_denied() {
    for (location, told) in [
        ("http://169.254.169.254/latest/meta-data/", "http://169.254.169.254 is not granted to this module"),
        ("http://127.0.0.1:1/", "http://127.0.0.1:1 is not granted to this module"),
        ("http://[::ffff:169.254.169.254]/", "http://169.254.169.254 is not granted to this module"),
        ("http://a.example:7/", "http://a.example:7 is at 127.0.0.1, a loopback address"),
        ("//user@a.example:7/", "found a user in the address"),
    ] {
        let server = Upstream::start(move |_| answering(302, &format!("location: {location}"), "")).await;
        let worker = Worker::granted(&[server.address.to_string(), "a.example:7".to_owned()]);
        let refused = worker.refused(&server.url("/")).await;
        assert!(refused.starts_with(told), "{refused}");
        assert_eq!((server.requests().len(), worker.counted()), (1, [1, 1, 0]));
    }
}

#[tokio::test]
async fn redirects_come_to_an_end() {
    let server = Upstream::start(|_| answering(302, "location: /again", "")).await;
    let worker = Worker::granted(&[server.address.to_string()]);
    let refused = worker.refused(&server.url("/")).await;
    assert_eq!(refused, "found more than 5 redirects, expected at most that");
    assert_eq!((server.requests().len(), worker.counted()), (6, [1, 0, 1]));
}

#[tokio::test]
async fn a_secret_goes_over_tls_or_to_an_address_that_is_granted_as_such() {
    let server = hello().await;
    let port = server.address.port();
    let named = Worker::resolving(&[format!("a.example:{port}")], &[&["93.184.215.14"]]);
    let refused = named.send(authorized(&format!("http://a.example:{port}/"))).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("http://a.example:{port} is not secure, expected https: for a request with a secret")
    );
    let literal = Worker::granted(&[server.address.to_string()]);
    literal.send(authorized(&server.url("/"))).await.unwrap();
    assert!(server.requests().remove(0).contains("authorization: Bearer hush-hush\r\n"));
}

#[tokio::test]
async fn a_server_that_says_nothing_costs_no_more_than_the_deadline_and_its_connection_is_closed() {
    let server = silent().await;
    let worker = Worker::granted(&[server.address.to_string()]);
    let hurried = worker.send(Dispatch { timeout: Some(SHORT), ..get(&server.url("/")) }).await;
    assert!(matches!(hurried, Err(OutgoingError::Late(_))), "{hurried:?}");
    let asker = Asker { deadline: Instant::now() + SHORT, ..worker.asker("m") };
    let late = worker.outgoing.send(asker, get(&server.url("/"))).await;
    assert!(matches!(late, Err(OutgoingError::Late(_))), "{late:?}");
    until("its connections are closed", || server.accepted() == 2 && server.open() == 0).await;
    assert_eq!(worker.counted(), [2, 0, 2]);
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_any_longer_ends_its_connection() {
    let server = silent().await;
    let worker = Worker::granted(&[server.address.to_string()]);
    let url = server.url("/");
    {
        let mut waiting = Box::pin(worker.get(&url));
        while server.requests().is_empty() {
            assert!(tokio::time::timeout(Duration::from_millis(1), &mut waiting).await.is_err());
        }
        assert_eq!(server.open(), 1);
    }
    until("the connection is closed", || server.open() == 0).await;
}

#[tokio::test]
async fn an_answer_has_a_bound_however_it_comes() {
    for answer in [
        answering(200, "", &"a".repeat(1001)),
        format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n",
            "a".repeat(1001)
        ),
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}", "a".repeat(1001)),
    ] {
        let server = Upstream::start(move |_| answer.clone()).await;
        let worker = Worker::granted(&[server.address.to_string()]);
        assert_eq!(worker.get(&server.url("/")).await, Err(OutgoingError::TooLarge { bytes_max: 1000 }));
        until("the connection is closed", || server.open() == 0).await;
    }
    let server = Upstream::start(|_| answering(200, "", &"a".repeat(1000))).await;
    let worker = Worker::granted(&[server.address.to_string()]);
    assert_eq!(worker.get(&server.url("/")).await.unwrap().len(), 1004);
}

#[tokio::test]
async fn what_is_no_answer_is_an_error_that_may_pass() {
    for answer in [
        "SSH-2.0-x\r\n\r\n".to_owned(),
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(70_000)),
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\nabc".to_owned(),
    ] {
        let server = Upstream::start(move |_| answer.clone()).await;
        let worker = Worker::granted(&[server.address.to_string()]);
        let broken = worker.get(&server.url("/")).await;
        assert!(matches!(broken, Err(OutgoingError::Broken(_))), "{broken:?}");
    }
    let gone = hello().await.address;
    let worker = Worker::granted(&[gone.to_string(), "c.example".to_owned()]);
    let unreachable = worker.get(&format!("http://{gone}/")).await;
    assert!(matches!(unreachable, Err(OutgoingError::Unreachable(_))), "{unreachable:?}");
    assert!(matches!(worker.get("https://c.example").await, Err(OutgoingError::Unknown(_))));
    assert_eq!(worker.counted(), [2, 0, 2]);
}

#[tokio::test]
async fn one_module_does_not_take_the_places_of_others() {
    let server =
        Upstream::start(
            |request| if request.contains("/stuck") { String::new() } else { answering(200, "", "x") },
        )
        .await;
    let worker = Worker::granted(&[server.address.to_string()]);
    let url = server.url("/stuck");
    let mut stuck: Vec<_> = (0..MODULE_REQUESTS_MAX).map(|_| Box::pin(worker.get(&url))).collect();
    while server.requests().len() < MODULE_REQUESTS_MAX {
        for one in &mut stuck {
            assert!(tokio::time::timeout(Duration::from_micros(1), one).await.is_err());
        }
    }
    let one_more = worker.send(Dispatch { timeout: Some(SHORT), ..get(&server.url("/")) }).await;
    assert!(matches!(one_more, Err(OutgoingError::Late(_))), "{one_more:?}");
    worker.outgoing.send(worker.asker("other"), get(&server.url("/"))).await.unwrap();
    drop(stuck);
    worker.get(&server.url("/")).await.unwrap();
}

/// A server that is `a.example` over TLS, and a worker's trust in it.
async fn secure() -> (Upstream, Connector) {
    let certificate = include_bytes!("tests/certificate.der");
    let key = PrivateKeyDer::try_from(&include_bytes!("tests/key.der")[..]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let server =
        server.with_no_client_auth().with_single_cert(vec![certificate.to_vec().into()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let wrap = move |stream| {
        let accepting = acceptor.accept(stream);
        async move { accepting.await.ok() }
    };
    let upstream = Upstream::start_over(|_| answering(200, "", "secure"), wrap).await;
    let mut roots = RootCertStore::empty();
    roots.add(certificate.to_vec().into()).unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    (upstream, Connector::trusting(client.with_root_certificates(roots).with_no_client_auth()))
}

#[tokio::test]
async fn over_tls_the_other_side_is_who_its_name_says() {
    let (server, connector) = secure().await;
    let port = server.address.port();
    let worker = Worker::with(
        &[format!("a.example:{port}"), server.address.to_string()],
        &[&["127.0.0.1"]],
        connector,
    );
    let reply = worker.send(authorized(&format!("https://a.example:{port}/"))).await.unwrap();
    assert_eq!(&reply.body[..], b"secure");
    assert!(server.requests().remove(0).contains("authorization: Bearer hush-hush"));
    let another = worker.get(&format!("https://127.0.0.1:{port}/")).await;
    assert!(matches!(another, Err(OutgoingError::Untrusted(_))), "{another:?}");
}

#[tokio::test]
async fn nobody_is_trusted_whom_the_system_does_not_know() {
    let (server, _) = secure().await;
    let port = server.address.port();
    let worker = Worker::granted(&[format!("a.example:{port}"), server.address.to_string()]);
    let unknown = worker.get(&format!("https://a.example:{port}/")).await;
    assert!(matches!(unknown, Err(OutgoingError::Untrusted(_))), "{unknown:?}");
}

fn streamed(url: &str, body: StreamedBody) -> Request<StreamedBody> {
    Request::post(url).body(body).unwrap()
}

fn nothing() -> StreamedBody {
    Empty::new().map_err(|never: std::convert::Infallible| match never {}).boxed_unsync()
}

#[tokio::test]
async fn bodies_are_streamed_in_both_directions() {
    let server = Upstream::start(|_| {
        "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
            .to_owned()
    })
    .await;
    let worker = Worker::granted(&[server.address.to_string()]);
    let body = Pieces(vec!["one", "two"].into_iter()).boxed_unsync();
    let mut request = streamed(&server.url("/x?y"), body);
    request.headers_mut().insert("content-length", "6".parse().unwrap());
    let response = worker.outgoing.stream(worker.asker("m"), request, Waits::default()).await.unwrap();
    assert_eq!(response.status(), 302, "where it leads is the code's business");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "abcdef");
    assert_eq!(worker.outgoing.pool.waiting(), 1, "the connection was read to its end");
    let seen = server.requests().remove(0);
    assert!(seen.starts_with("POST /x?y HTTP/1.1\r\n") && seen.ends_with("onetwo"), "{seen}");
}

#[tokio::test]
async fn a_connection_whose_answer_came_before_its_request_was_sent_is_not_used_again() {
    // A body without a length is answered as soon as its head is there.
    let server = Upstream::start(|_| answering(413, "", "no")).await;
    let worker = Worker::granted(&[server.address.to_string()]);
    for number in 1..=2 {
        let request = streamed(&server.url("/"), Unending.boxed_unsync());
        let early = worker.outgoing.stream(worker.asker("m"), request, Waits::default()).await.unwrap();
        assert_eq!(early.into_body().collect().await.unwrap().to_bytes(), "no");
        assert_eq!(worker.get(&server.url("/")).await.unwrap(), "413 no");
        assert_eq!(server.accepted(), 1 + number);
    }
}

/// A body of which there is always more to come.
struct Unending;

impl http_body::Body for Unending {
    type Data = Bytes;
    type Error = OutgoingError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, OutgoingError>>> {
        std::task::Poll::Pending
    }
}

/// A body that comes in pieces.
struct Pieces(std::vec::IntoIter<&'static str>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = OutgoingError;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, OutgoingError>>> {
        std::task::Poll::Ready(self.0.next().map(|piece| Ok(http_body::Frame::data(Bytes::from(piece)))))
    }
}

#[tokio::test]
async fn a_streamed_answer_that_does_not_go_on_ends_with_its_connection() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc";
    let server = Upstream::start(move |_| half.to_owned()).await;
    let worker = Worker::granted(&[server.address.to_string()]);
    let ask = |asker, waits| worker.outgoing.stream(asker, streamed(&server.url("/"), nothing()), waits);
    // Long enough for the half that comes, on a busy machine.
    let until_deadline = Asker { deadline: Instant::now() + SHORT * 40, ..worker.asker("m") };
    let per_piece = Waits { piece: Some(SHORT), ..Waits::default() };
    for (asker, waits) in [(until_deadline, Waits::default()), (worker.asker("m"), per_piece)] {
        let mut body = ask(asker, waits).await.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
        let late = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(late, OutgoingError::Late(_)), "{late:?}");
        assert!(body.frame().await.is_none());
        until("the connection is closed", || server.open() == 0).await;
    }
    let dropped = ask(worker.asker("m"), Waits::default()).await.unwrap();
    assert_eq!(server.open(), 1);
    drop(dropped);
    until("the connection is closed", || server.open() == 0).await;
}

#[tokio::test]
async fn a_streamed_request_is_looked_at_like_any_other() {
    let server = silent().await;
    let worker = Worker::granted(&[server.address.to_string(), "a.example".to_owned()]);
    let ask = |url: &str, waits| worker.outgoing.stream(worker.asker("m"), streamed(url, nothing()), waits);
    assert!(matches!(ask("http://127.0.0.1:1/", Waits::default()).await, Err(OutgoingError::Denied(_))));
    assert!(matches!(ask("http://a.example/", Waits::default()).await, Err(OutgoingError::Prohibited(_))));
    let waits = Waits { head: Some(SHORT), ..Waits::default() };
    assert!(matches!(ask(&server.url("/"), waits).await, Err(OutgoingError::Late(_))));
    until("the connection is closed", || server.open() == 0).await;
    assert_eq!(worker.counted(), [3, 2, 1]);
}
