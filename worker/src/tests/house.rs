//! A worker with a small store behind it, and a client that shows what comes over the wire.

use std::{
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use aegis_config::Config;
use aegis_domain::{
    catalog::Catalog, code::CodeLimits, outgoing::HostGrant, service::ServiceSpec, spec::ModelSpec,
    trial::Trial,
};
use aegis_ipc::{
    board::{Board, Gauge},
    bundle::{BUNDLE_FORMAT, Bundle, Code},
    codec,
    control::{ControlSocket, Received, ToChild, ToSupervisor},
    deploy::{Member, Offers},
    handoff::{Audience, ListenerAddress},
    operator,
    tally::Tally,
};
use aegis_wasm::{Compiler, Prepared, Terms};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use crate::{
    acceptor::{Acceptor, Doorbell, Listener},
    connection,
    data::{
        Data,
        tests::{catalog, config, fake_store::FakeStore},
    },
    deliveries,
    generation::Offer,
    host::{Founding, Host, Identity},
    modules::Modules,
    present::Present,
    reporting::{self, Supervisor},
    runtime::{self, Shared},
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Time in which something of an answer comes, on a machine that has little left for code that works overtime.
const PATIENCE_FOR_ANSWERS: Duration = Duration::from_secs(60);

const MODULE: &str = r#"
name = "todo"
endpoint = "todos"
[fields]
text = { kind = "text", required = true }
code = { kind = "text", unique = true }
rank = { kind = "integer", indexed = true }
"#;

/// A worker with one runtime: the one of the test.
pub(crate) struct House {
    /// The first one, unless [`House::forget_the_past`] was called.
    pub(crate) host: Arc<Host>,
    present: Arc<Present>,
    pub(crate) doorbell: Arc<Doorbell>,
    pub(crate) store: Arc<FakeStore>,
    pub(crate) public: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) supervisor: ControlSocket,
    tasks: Vec<JoinHandle<()>>,
}

/// The module that the house consists of, as far as a generation tells.
fn member() -> Member {
    let offers = Offers::Model("TODO".to_owned());
    Member { name: "todo".to_owned(), offers, deployed: None, signed: None, trial: None }
}

impl House {
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::serving(catalog(&[MODULE]), Vec::new(), Vec::new(), change).await
    }

    /// A house whose models have code, each of one component.
    pub(crate) async fn of_components(
        components: &[&[u8]],
        terms: &Terms,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        // Elsewhere, because the compiler waits for what it runs, which a thread that serves must not.
        let (specs, code) =
            std::thread::scope(|scope| scope.spawn(|| compiled(components, terms)).join().unwrap());
        Self::serving(Arc::new(Catalog::build(specs).unwrap()), Vec::new(), code, change).await
    }

    /// A house with one model, and another version of its code that half of the users get.
    pub(crate) async fn of_trial((current, tried): (&[u8], &[u8]), terms: &Terms) -> Self {
        let (mut specs, code) =
            std::thread::scope(|scope| scope.spawn(|| compiled(&[current, tried], terms)).join().unwrap());
        let code_of_trial = specs.pop().unwrap().code.unwrap();
        specs[0].trial = Some(Trial { share_percent: 50, code: Box::new(code_of_trial) });
        Self::serving(Arc::new(Catalog::build(specs).unwrap()), Vec::new(), code, |_| ()).await
    }

    /// A house with one service, at `/hello`.
    pub(crate) async fn of_service(
        component: &[u8],
        limits: CodeLimits,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        Self::of_service_reaching(component, limits, Vec::new(), change).await
    }

    /// A house with one service, at `/hello`, that may ask these hosts.
    pub(crate) async fn of_service_reaching(
        component: &[u8],
        limits: CodeLimits,
        http: Vec<HostGrant>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let prepared = std::thread::scope(|scope| {
            scope.spawn(|| Compiler::new().unwrap().prepare_service(component, None).unwrap()).join().unwrap()
        });
        let digest = prepared.digest.clone();
        let service = ServiceSpec {
            name: "hello".to_owned(),
            route: "/hello".to_owned(),
            digest: digest.clone(),
            limits,
            http,
            wasi: prepared.wasi,
        };
        let code = vec![Code { digest, bytes: prepared.code }];
        Self::serving(catalog(&[MODULE]), vec![service], code, change).await
    }

    async fn serving(
        catalog: Arc<Catalog>,
        services: Vec<ServiceSpec>,
        code: Vec<Code>,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = config();
        config.limits.header_timeout = Duration::from_secs(10);
        config.limits.idle_timeout = Duration::from_secs(60);
        change(&mut config);
        let (board, _descriptor) = Board::create().unwrap();
        let store = FakeStore::start(board, Arc::clone(&catalog));
        let (ours, supervisor) = ControlSocket::pair().unwrap();
        let control = Arc::new(ours);
        let identity = Identity::new(3, 7);
        let generation = sealed(&config, &catalog, &services, code);
        let offer = Offer::read(&generation).unwrap();
        let places = offer.code.clone();
        let founding = Founding {
            data: Data::new(&config, &catalog, board, 0, 7, identity.incarnation),
            offer,
            cell: board.cell(0),
            tally: Tally::create().unwrap().0,
            supervisor: Supervisor::new(Arc::clone(&control)),
            board,
            identity,
        };
        board.cell(0).gauge(Gauge::Pid).store(1, Ordering::Relaxed);
        let doorbell = Arc::new(Doorbell::new().unwrap());
        let host = Host::new(founding, Arc::clone(&doorbell));
        Modules::load_for(&host, (generation.as_fd(), &places), None).unwrap();
        let present = Present::new(Arc::clone(&host));
        let (lanes, mut intakes) = runtime::lanes(1, &host, (board, 0));
        let (public, admin) = (listener(Audience::Public), listener(Audience::Admin));
        let listeners = vec![public.1, admin.1];
        let acceptor =
            Acceptor::new(listeners, lanes, Arc::clone(&host.seats), Arc::clone(&doorbell), (board, 0))
                .unwrap();
        drop(acceptor.start().unwrap());
        let protocols = Arc::new(connection::protocols(&host.config.limits));
        let shared = Shared { present: Arc::clone(&present), doorbell: Arc::clone(&doorbell), protocols };
        let mut tasks = vec![tokio::spawn(runtime::run(intakes.remove(0), shared))];
        let (data, path) = (host.engine.data().clone(), store.path().clone());
        tasks.push(tokio::spawn(async move {
            data.run(&path).await;
        }));
        let (premises, data) = (Arc::clone(present.premises()), host.engine.data().clone());
        tasks.push(tokio::spawn(async move { premises.events.run(&data).await }));
        let deliverer = Arc::clone(&present);
        tasks.push(tokio::spawn(async move { match deliveries::run(deliverer).await {} }));
        let (follower, bell) = (Arc::clone(&present), Arc::clone(&doorbell));
        tasks.push(tokio::spawn(async move { reporting::follow(control, follower, &bell).await.unwrap() }));
        tokio::time::timeout(PATIENCE, host.engine.data().ready()).await.expect("the data is ready");
        let house =
            Self { host, present, doorbell, store, public: public.0, admin: admin.0, supervisor, tasks };
        house.tell(&ToChild::Serve);
        let accepting = board.cell(0).gauge(Gauge::Accepting);
        eventually("the worker accepts", || accepting.load(Ordering::Relaxed) == 1).await;
        house
    }

    pub(crate) fn tell(&self, message: &ToChild) {
        assert!(self.supervisor.send(message, &[]).unwrap());
    }

    /// Lets go of the generation that it began with.
    pub(crate) fn forget_the_past(&mut self) {
        self.host = self.present.host();
    }

    /// Tells the worker to go over to models of these components; what it answers.
    pub(crate) async fn adopt_components(
        &self,
        generation: u64,
        components: &[&[u8]],
        terms: &Terms,
    ) -> ToSupervisor {
        let (specs, code) =
            std::thread::scope(|scope| scope.spawn(|| compiled(components, terms)).join().unwrap());
        let catalog = Catalog::build(specs).unwrap();
        self.adopt(generation, &sealed(&self.host.config, &catalog, &[], code)).await
    }

    /// Tells the worker to go over to another generation; what it answers.
    pub(crate) async fn adopt(&self, generation: u64, bundle: &OwnedFd) -> ToSupervisor {
        assert!(self.supervisor.send(&ToChild::Adopt { generation }, &[bundle.as_fd()]).unwrap());
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.supervisor.receive().unwrap() {
                Received::Message(
                    answer @ (ToSupervisor::Adopted { .. } | ToSupervisor::NotAdopted { .. }),
                    _,
                ) => return answer,
                Received::Message(..) => {}
                Received::Empty => tokio::time::sleep(Duration::from_millis(1)).await,
                Received::Closed => panic!("the worker hung up"),
            }
        }
        panic!("the worker did not answer")
    }

    /// The next question to the supervisor.
    pub(crate) async fn asked(&self) -> (u64, operator::Request) {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.supervisor.receive().unwrap() {
                Received::Message(ToSupervisor::Ask { request, ask }, _) => return (request, ask),
                Received::Message(..) => {}
                Received::Empty => tokio::time::sleep(Duration::from_millis(1)).await,
                Received::Closed => panic!("the worker hung up"),
            }
        }
        panic!("the supervisor was not asked")
    }

    /// Begins to drain the way a signal or a message does, and stops accepting.
    pub(crate) fn drain(&self, deadline: Option<Duration>, spread: Duration) {
        self.host.leave(deadline, spread);
        self.doorbell.stop();
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.public).await
    }

    pub(crate) async fn operator(&self) -> Client {
        Client { host: "localhost", ..Client::connect(self.admin).await }
    }

    /// One request over a connection of its own.
    pub(crate) async fn ask(&self, request: &str) -> Answer {
        self.client().await.ask(request).await
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.doorbell.stop();
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The bundle of a generation.
pub(crate) fn sealed(
    config: &Config,
    catalog: &Catalog,
    services: &[ServiceSpec],
    code: Vec<Code>,
) -> OwnedFd {
    let specs: Vec<ModelSpec> = catalog.models().iter().map(|model| model.spec().clone()).collect();
    let bundle = Bundle {
        format: BUNDLE_FORMAT,
        digest: "d".repeat(64),
        engine: String::new(),
        config: codec::encode(config).unwrap(),
        catalog: aegis_domain::catalog::encode_with(&specs, services),
        code: Vec::new(),
        modules: vec![member()],
    };
    bundle.seal_with(code).unwrap()
}

/// What the compile helper makes of components.
fn compiled(components: &[&[u8]], terms: &Terms) -> (Vec<ModelSpec>, Vec<Code>) {
    let compiler = Compiler::new().unwrap();
    let prepared = components.iter().map(|component| {
        let Prepared { spec, code: bytes, .. } = compiler.prepare(component, terms.clone()).unwrap();
        let digest = spec.code.as_ref().unwrap().digest.clone();
        (spec, Code { digest, bytes })
    });
    prepared.unzip()
}

fn listener(audience: Audience) -> (SocketAddr, Listener) {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (address, Listener::new(OwnedFd::from(socket), &ListenerAddress::Tcp(address), audience).unwrap())
}

pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A connection of a client.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    /// What it says that the host is called.
    pub(crate) host: &'static str,
    buffer: Vec<u8>,
}

/// What a client got.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), host: "x", buffer: Vec::new() }
    }

    /// Asks until an answer says that the connection ends, which is soon, and is lost at no time.
    pub(crate) async fn ask_until_told(&mut self, request: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(request).await;
            assert_eq!(answer.status, 200);
            match answer.header("connection") {
                Some("close") => break,
                other => assert_eq!(other, None),
            }
            assert!(Instant::now() < end, "it is not told");
        }
    }

    /// A connection that was made without a runtime.
    pub(crate) fn adopt(stream: std::net::TcpStream) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self { stream: TcpStream::from_std(stream).unwrap(), host: "x", buffer: Vec::new() }
    }

    /// Sends a request that is written with `\n`, adds `Host`, and reads the answer.
    pub(crate) async fn ask(&mut self, request: &str) -> Answer {
        self.send(request).await;
        let extent = if request.starts_with("HEAD") { Extent::Head } else { Extent::Whole };
        self.answer(extent).await.expect("an answer")
    }

    pub(crate) async fn send(&mut self, request: &str) {
        let (head, body) = request.split_once("\n\n").unwrap_or((request.trim_end(), ""));
        let (line, fields) = head.split_once('\n').unwrap_or((head, ""));
        let mut text = format!("{line} HTTP/1.1\r\nhost: {}\r\n", self.host);
        for field in fields.lines() {
            text.push_str(field);
            text.push_str("\r\n");
        }
        if !body.is_empty() && !fields.contains("transfer-encoding") && !fields.contains("content-length") {
            text.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(body);
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next answer; `None` when the connection ended instead.
    pub(crate) async fn answer(&mut self, extent: Extent) -> Option<Answer> {
        let head = self.until(b"\r\n\r\n").await?;
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").map_or((line, ""), |pair| pair))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut answer = Answer { status, headers, body: String::new() };
        if extent == Extent::Whole
            && let Some(length) = answer.header("content-length").map(|value| value.parse::<usize>().unwrap())
        {
            while self.buffer.len() < length {
                assert!(self.more().await, "the body ended early");
            }
            answer.body = String::from_utf8(self.buffer.drain(..length).collect()).unwrap();
        }
        Some(answer)
    }

    /// Bytes up to and with `end`; `None` when the connection ended before.
    pub(crate) async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Some(self.buffer.drain(..at + end.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Whether the server ends the connection, without saying anything more.
    pub(crate) async fn is_ended(&mut self) -> bool {
        !self.more().await && self.buffer.is_empty()
    }

    async fn more(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE_FOR_ANSWERS, self.stream.read_buf(&mut self.buffer)).await;
        matches!(read.expect("something from the server"), Ok(1..))
    }
}

/// How much of an answer comes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    Head,
    Whole,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// For snapshots: without what differs from run to run.
    pub(crate) fn shown(&self) -> String {
        let mut text = format!("{}\n", self.status);
        for (name, value) in &self.headers {
            match name.as_str() {
                "date" => {}
                "content-length" => text.push_str("content-length: …\n"),
                "x-request-id" => text.push_str("x-request-id: …\n"),
                "link" => {
                    let (before, cursor) = value.split_once("__cursor=").unwrap();
                    let (_, after) = cursor.split_once('>').unwrap();
                    text.push_str(&format!("link: {before}__cursor=…>{after}\n"));
                }
                _ => text.push_str(&format!("{name}: {value}\n")),
            }
        }
        let mut body = self.body.clone();
        for mark in ["\"createTime\":\"", "\"updateTime\":\"", "\"instance\":\""] {
            if let Some(start) = body.find(mark).map(|at| at + mark.len()) {
                let end = start + body[start..].find('"').unwrap();
                body.replace_range(start..end, "…");
            }
        }
        text.push_str(&body);
        text
    }
}

/// A client that speaks HTTP/2 from the first byte.
pub(crate) struct Http2 {
    sender: hyper::client::conn::http2::SendRequest<http_body_util::Full<bytes::Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
    address: SocketAddr,
}

impl Http2 {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let io = hyper_util::rt::TokioIo::new(TcpStream::connect(address).await.unwrap());
        let executor = hyper_util::rt::TokioExecutor::new();
        let (sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        Self { sender, connection: tokio::spawn(connection), address }
    }

    /// A client that takes this many bytes of an answer until it reads it, and sends PINGs all the time.
    pub(crate) async fn reluctant(address: SocketAddr, window_bytes: u32) -> Self {
        let io = hyper_util::rt::TokioIo::new(TcpStream::connect(address).await.unwrap());
        let mut builder = hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
        builder
            .timer(hyper_util::rt::TokioTimer::new())
            .initial_stream_window_size(window_bytes)
            .keep_alive_interval(Duration::from_millis(50))
            .keep_alive_while_idle(true);
        let (sender, connection) = builder.handshake(io).await.unwrap();
        Self { sender, connection: tokio::spawn(connection), address }
    }

    pub(crate) async fn open(&mut self, path: &str) -> hyper::Response<hyper::body::Incoming> {
        let uri = format!("http://{}{path}", self.address);
        let request = hyper::Request::get(uri).body(http_body_util::Full::default()).unwrap();
        self.sender.send_request(request).await.unwrap()
    }

    /// Sends a request, and gives the status of its answer later.
    pub(crate) fn post(&mut self, path: &str, body: &'static str) -> impl Future<Output = u16> + use<> {
        let uri = format!("http://{}{path}", self.address);
        let request = hyper::Request::post(uri).body(http_body_util::Full::from(body)).unwrap();
        let answer = self.sender.send_request(request);
        async { answer.await.unwrap().status().as_u16() }
    }

    pub(crate) async fn get(&mut self, path: &str) -> (u16, hyper::HeaderMap, bytes::Bytes) {
        use http_body_util::BodyExt;
        let (parts, body) = self.open(path).await.into_parts();
        (parts.status.as_u16(), parts.headers, body.collect().await.unwrap().to_bytes())
    }

    /// Whether the server ended the connection in an orderly way.
    pub(crate) async fn is_ended(&mut self) -> bool {
        tokio::time::timeout(PATIENCE, &mut self.connection).await.expect("the end").unwrap().is_ok()
    }
}
