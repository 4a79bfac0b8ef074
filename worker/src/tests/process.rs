//! A worker as a process of its own: this test binary, started again.

use std::{
    io::Read,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use aegis_ipc::{
    board::{Board, Counter, Gauge},
    bundle::{BUNDLE_FORMAT, Bundle},
    codec,
    control::{ControlSocket, Received, ToChild, ToSupervisor},
    handoff::{Audience, HANDOFF_VARIABLE, Handoff, InheritedListener, ListenerAddress},
};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::house::{Client, Extent, PATIENCE};
use crate::data::tests::{catalog, config, fake_store::FakeStore};

const MODULE: &str = "name = \"todo\"\nendpoint = \"todos\"\n[fields]\ntext = \"text\"\n";

/// Not a test: the process that the tests below start.
#[test]
#[expect(clippy::exit, reason = "this process is a worker and ends like one")]
fn a_worker_process() {
    if std::env::var_os(HANDOFF_VARIABLE).is_some() {
        let handoff = Handoff::from_environment().unwrap();
        std::process::exit(i32::from(crate::run(handoff)));
    }
}

/// A worker process and everything it inherits from.
struct Process {
    child: Child,
    supervisor: Option<ControlSocket>,
    board: Board,
    public: SocketAddr,
    _store: Arc<FakeStore>,
    _kept: Vec<OwnedFd>,
}

impl Process {
    fn start(threads: u32, break_bundle: impl FnOnce(&mut Bundle)) -> Self {
        let mut config = config();
        config.workers.threads = threads;
        config.drain.timeout = 20 * Duration::from_secs(1);
        config.limits.idle_timeout = PATIENCE;
        let (board, board_file) = Board::create().unwrap();
        let store = FakeStore::start(board, catalog(&[MODULE]));
        let (supervisor, control) = ControlSocket::pair().unwrap();
        let specs = vec![aegis_domain::module::parse(MODULE, "test").unwrap()];
        let mut bundle = Bundle {
            format: BUNDLE_FORMAT,
            digest: "d".repeat(64),
            engine: String::new(),
            config: codec::encode(&config).unwrap(),
            catalog: aegis_domain::catalog::encode(&specs),
            code: Vec::new(),
            modules: Vec::new(),
        };
        break_bundle(&mut bundle);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let public = listener.local_addr().unwrap();
        let kept =
            vec![board_file, control.into_descriptor(), bundle.seal().unwrap(), OwnedFd::from(listener)];
        let numbers: Vec<RawFd> = kept.iter().map(inheritable).collect();
        let handoff = Handoff {
            slot: 2,
            cell: 4,
            generation: 9,
            epoch: 1,
            control: numbers[1],
            board: numbers[0],
            bundle: Some(numbers[2]),
            listeners: vec![InheritedListener {
                address: ListenerAddress::Tcp(public),
                audience: Audience::Public,
                descriptor: numbers[3],
            }],
            store_listener: None,
            store_path: store.path().clone(),
            kept: None,
            tally: None,
            is_canary: false,
            task: aegis_ipc::deploy::Task::App,
            digest_in_force: None,
            in_force: None,
        };
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::process::a_worker_process", "--nocapture"])
            .env(HANDOFF_VARIABLE, serde_json::to_string(&handoff).unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The control socket has to have one owner, or its end would not be seen.
        let kept = kept.into_iter().filter(|descriptor| descriptor.as_raw_fd() != numbers[1]).collect();
        Self { child, supervisor: Some(supervisor), board, public, _store: store, _kept: kept }
    }

    async fn started(threads: u32) -> Self {
        let process = Self::start(threads, |_| ());
        let hello = process.report().await;
        assert!(
            matches!(hello, ToSupervisor::Hello { protocol: 1, generation: 9, pid } if pid == process.child.id())
        );
        assert_eq!(process.report().await, ToSupervisor::Ready);
        process.tell(&ToChild::Serve, None);
        process
    }

    /// The next report that is not about progress.
    async fn report(&self) -> ToSupervisor {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.supervisor.as_ref().unwrap().receive().unwrap() {
                Received::Message(ToSupervisor::Draining { .. }, _) => {}
                Received::Message(report, _) => return report,
                Received::Empty => tokio::time::sleep(Duration::from_millis(1)).await,
                Received::Closed => panic!("the worker hung up"),
            }
        }
        panic!("the worker reports nothing")
    }

    /// Waits until the worker says that it accepts no more.
    async fn closed(&self) {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.supervisor.as_ref().unwrap().receive().unwrap() {
                Received::Message(ToSupervisor::Draining { closed: true, .. }, _) => return,
                Received::Message(ToSupervisor::Draining { .. }, _) => {}
                Received::Message(report, _) => panic!("{report:?} before it says that it accepts no more"),
                Received::Empty => tokio::time::sleep(Duration::from_millis(1)).await,
                Received::Closed => panic!("the worker hung up"),
            }
        }
        panic!("the worker does not say that it accepts no more")
    }

    fn tell(&self, message: &ToChild, descriptor: Option<&OwnedFd>) {
        let descriptors: Vec<_> = descriptor.iter().map(|descriptor| descriptor.as_fd()).collect();
        assert!(self.supervisor.as_ref().unwrap().send(message, &descriptors).unwrap());
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    async fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < end, "the worker does not end");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn gauge(&self, gauge: Gauge) -> u64 {
        self.board.cell(4).gauge(gauge).load(Ordering::Relaxed)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn inheritable(descriptor: &OwnedFd) -> RawFd {
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    descriptor.as_raw_fd()
}

#[tokio::test]
async fn a_worker_reports_serves_and_leaves_when_told() {
    let mut process = Process::started(3).await;
    assert_eq!((process.gauge(Gauge::Slot), process.gauge(Gauge::Generation)), (2, 9));
    let mut clients = Vec::new();
    for _ in 0..9 {
        let mut client = Client::connect(process.public).await;
        let created = client.ask("POST /aegis/api/models/todos\n\n{\"text\":\"x\"}").await;
        assert_eq!((created.status, created.header("aegis-worker")), (201, Some("2.9")));
        clients.push(client);
    }
    assert_eq!(process.gauge(Gauge::Connections), 9);
    assert_eq!(process.gauge(Gauge::Threads), 3);
    assert!((0..3).all(|thread| process.board.cell(4).beat(thread).load(Ordering::Relaxed) > 0));
    process.tell(&ToChild::Drain { deadline_ms: Some(20_000), is_last: false }, None);
    // Wait for the drain to be in force: its acceptor is gone.
    let end = Instant::now() + PATIENCE;
    while process.gauge(Gauge::Accepting) == 1 {
        assert!(Instant::now() < end, "the worker goes on accepting");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for client in &mut clients {
        client.ask_until_told("GET /livez").await;
    }
    assert_eq!(process.report().await, ToSupervisor::Bye);
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_worker_that_drains_says_when_it_accepts_no_more_and_then_takes_nobody() {
    let mut process = Process::started(2).await;
    let mut early = Client::connect(process.public).await;
    assert_eq!(early.ask("GET /livez").await.status, 200);
    process.tell(&ToChild::Drain { deadline_ms: Some(20_000), is_last: false }, None);
    process.closed().await;
    // Nobody else accepts here: it would be taken if this worker still did.
    let _late = Client::connect(process.public).await;
    early.ask_until_told("GET /livez").await;
    assert_eq!(process.report().await, ToSupervisor::Bye);
    assert_eq!(process.ended().await.code(), Some(0));
    let accepted = process.board.cell(4).counter(Counter::Connections).load(Ordering::Relaxed);
    assert_eq!(accepted, 1, "only who connected before");
}

#[tokio::test]
async fn term_drains_and_other_signals_are_not_for_workers() {
    let mut process = Process::started(1).await;
    let mut client = Client::connect(process.public).await;
    assert_eq!(client.ask("GET /livez").await.status, 200);
    for ignored in
        [Signal::SIGHUP, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGWINCH, Signal::SIGTTIN]
    {
        process.signal(ignored);
    }
    assert_eq!(client.ask("GET /livez").await.status, 200);
    process.signal(Signal::SIGTERM);
    drop(client);
    assert_eq!(process.report().await, ToSupervisor::Bye);
    assert_eq!(process.ended().await.code(), Some(0));
}

#[tokio::test]
async fn an_orphan_finishes_and_leaves() {
    let mut process = Process::started(1).await;
    let mut client = Client::connect(process.public).await;
    assert_eq!(client.ask("GET /livez").await.status, 200);
    process.supervisor = None;
    // The grace of the test configuration is one second: the idle connection does not hold the worker for longer.
    let begun = Instant::now();
    assert_eq!(process.ended().await.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(client.answer(Extent::Whole).await.is_none());
}

#[tokio::test]
async fn a_generation_that_cannot_be_served_is_reported_as_such() {
    let mut process = Process::start(1, |bundle| bundle.catalog = b"[{}]".to_vec());
    assert!(matches!(process.report().await, ToSupervisor::Hello { .. }));
    let ToSupervisor::Failed { code, reason } = process.report().await else { panic!("no failure") };
    assert_eq!(code, 78);
    assert!(reason.starts_with("the generation's models are not valid: "), "{reason}");
    assert_eq!(process.ended().await.code(), Some(78));
}

#[tokio::test]
async fn log_lines_go_to_the_new_file_after_reopening() {
    let mut process = Process::started(1).await;
    let (reader, writer) = nix::unistd::pipe().unwrap();
    process.tell(&ToChild::ReopenLogs, Some(&writer));
    drop(writer);
    let mut old = process.child.stderr.take().unwrap();
    let mut said = String::new();
    // The old file ends as soon as the worker has put the new one in its place.
    tokio::task::spawn_blocking(move || old.read_to_string(&mut said)).await.unwrap().unwrap();
    process.tell(&ToChild::Drain { deadline_ms: Some(0), is_last: false }, None);
    assert_eq!(process.ended().await.code(), Some(0));
    let mut rest = String::new();
    std::fs::File::from(reader).read_to_string(&mut rest).unwrap();
}
