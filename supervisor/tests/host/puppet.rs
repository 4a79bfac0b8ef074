//! The roles, played as simply as possible. What a puppet does wrong is told to it by files in the app's modules folder.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::Write,
    net::TcpListener,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use aegis_config::{Config, Environment, Overrides};
use aegis_ipc::{
    PROTOCOL_VERSION,
    board::{Board, Gauge, StoreWord, monotonic_ms},
    bundle::{BUNDLE_FORMAT, Bundle, Code},
    codec,
    control::{ControlSocket, Received, ToChild, ToSupervisor},
    deploy::Task,
    handoff::{self, HANDOFF_VARIABLE, Handoff, ListenerAddress},
    operator::Request,
};
use aegis_supervisor::{Newborn, Program, Start, last_good::LastGood};

/// Plays a role, if the arguments name one.
pub(crate) fn play(arguments: &[String]) -> Option<u8> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["run", folder] => {
            let config = load(Path::new(folder));
            let compile_arguments = vec![OsString::from(folder)];
            Some(aegis_supervisor::run(Start {
                config,
                compile_arguments,
                instead: None,
                as_json: false,
                program: PROGRAM,
            }))
        }
        ["supervisor", "--resume", state] => Some(aegis_supervisor::resume(state.parse().unwrap(), PROGRAM)),
        _ if std::env::var_os(HANDOFF_VARIABLE).is_some() => {
            play_child(&words, Handoff::from_environment().unwrap())
        }
        _ => None,
    }
}

const PROGRAM: Program = Program { follow_log: |_| (), be_child };

/// A child that was forked.
fn be_child(Newborn { arguments, handoff }: Newborn) -> u8 {
    has_only_what_it_was_given(&handoff);
    let words: Vec<&str> = arguments.iter().map(|word| word.to_str().unwrap()).collect();
    play_child(&words, handoff).unwrap()
}

fn play_child(words: &[&str], handoff: Handoff) -> Option<u8> {
    match words {
        ["compile", folder] => Some(compile(Path::new(folder), &handoff)),
        ["store"] => Some(Puppet::new(handoff).live(store)),
        ["worker"] => Some(Puppet::new(handoff).live(worker)),
        _ => None,
    }
}

/// No descriptor of the supervisor is open in its children but those that they are told of, and no signal is held back.
fn has_only_what_it_was_given(handoff: &Handoff) {
    let told = serde_json::to_value(handoff).unwrap();
    let mut given: Vec<i64> = ["control", "board", "bundle", "in_force", "store_listener", "kept", "tally"]
        .into_iter()
        .filter_map(|name| told[name].as_i64())
        .chain(handoff.listeners.iter().map(|listener| i64::from(listener.descriptor)))
        .chain([0, 1, 2])
        .collect();
    given.sort_unstable();
    let folder = std::fs::read_dir("/proc/self/fd").unwrap();
    let mut open: Vec<i64> =
        folder.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    open.sort_unstable();
    // The one that lists them is the first free number.
    let listing = (0..).find(|number| !given.contains(number)).unwrap();
    open.retain(|number| *number != listing);
    assert_eq!(open, given);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let held_back = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim();
    assert_eq!(held_back.trim_matches('0'), "");
}

pub(crate) fn load(folder: &Path) -> Config {
    Config::load(folder, &Overrides::default(), &Environment::new()).unwrap().config
}

/// The text of a file that tells puppets what to do; empty when there is none.
fn told(modules: &Path, name: &str) -> String {
    std::fs::read_to_string(modules.join(name)).unwrap_or_default().trim().to_owned()
}

fn compile(folder: &Path, handoff: &Handoff) -> u8 {
    let control = ControlSocket::from_descriptor(handoff::adopt(handoff.control, "control").unwrap());
    hello(&control, handoff);
    let config = load(folder);
    if let Task::Restore(_) = handoff.task {
        let held = LastGood::previous_of(&config.data_dir).read().unwrap();
        assert!(control.send(&ToSupervisor::Compiled, &[held.as_fd()]).unwrap());
        return 0;
    }
    let bad = told(&config.modules_dir, "bad");
    if !bad.is_empty() {
        assert!(control.send(&ToSupervisor::Invalid { reasons: vec![bad] }, &[]).unwrap());
        return 0;
    }
    let catalog = told(&config.modules_dir, "catalog");
    let digest = format!("{catalog}-{config:?}");
    let ballast_bytes = told(&config.modules_dir, "ballast").parse().unwrap_or(0);
    let ballast = Code { digest: String::new(), bytes: vec![0; ballast_bytes] };
    let code = if ballast_bytes > 0 { vec![ballast] } else { Vec::new() };
    let bundle = Bundle {
        format: BUNDLE_FORMAT,
        digest,
        engine: String::new(),
        config: codec::encode(&config).unwrap(),
        catalog: catalog.into_bytes(),
        code: Vec::new(),
        modules: Vec::new(),
    };
    let sealed = bundle.seal_with(code).unwrap();
    assert!(control.send(&ToSupervisor::Compiled, &[sealed.as_fd()]).unwrap());
    0
}

fn hello(control: &ControlSocket, handoff: &Handoff) {
    let (protocol, pid, generation) = (PROTOCOL_VERSION, std::process::id(), handoff.generation);
    assert!(control.send(&ToSupervisor::Hello { protocol, pid, generation }, &[]).unwrap());
}

/// What all children have.
struct Puppet {
    handoff: Handoff,
    control: ControlSocket,
    board: Board,
    modules: PathBuf,
    catalog: String,
    terminate: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

/// What a role does with a message; the exit status when it is the end.
type Role = fn(&Puppet, Option<&ToChild>) -> Option<u8>;

impl Puppet {
    fn new(handoff: Handoff) -> Self {
        let control = ControlSocket::from_descriptor(handoff::adopt(handoff.control, "control").unwrap());
        let board = Board::open(&handoff::adopt(handoff.board, "board").unwrap()).unwrap();
        let bundle = Bundle::read(&handoff::adopt(handoff.bundle.unwrap(), "bundle").unwrap()).unwrap();
        let config: Config = codec::decode(&bundle.config).unwrap();
        let terminate = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGTERM, terminate.clone()).unwrap();
        let catalog = String::from_utf8(bundle.catalog).unwrap();
        Self { handoff, control, board, modules: config.modules_dir, catalog, terminate }
    }

    fn live(&self, role: Role) -> u8 {
        hello(&self.control, &self.handoff);
        if let Some(code) = role(self, None) {
            return code;
        }
        assert!(self.control.send(&ToSupervisor::Ready, &[]).unwrap());
        loop {
            if self.terminate.load(Ordering::Relaxed) {
                return 0;
            }
            let now_ms = monotonic_ms();
            self.board.store(StoreWord::Beat).store(now_ms, Ordering::Relaxed);
            let cell = self.board.cell(self.handoff.cell as usize);
            cell.gauge(Gauge::Threads).store(1, Ordering::Relaxed);
            cell.beat(0).store(now_ms, Ordering::Relaxed);
            let mut polled = [rustix::event::PollFd::new(&self.control, rustix::event::PollFlags::IN)];
            let wait = rustix::time::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            let _ = rustix::event::poll(&mut polled, Some(&wait));
            match self.control.receive::<ToChild>().unwrap() {
                Received::Message(message, _) => {
                    if let Some(code) = role(self, Some(&message)) {
                        return code;
                    }
                }
                Received::Empty => {}
                Received::Closed => return 0,
            }
        }
    }
}

fn store(puppet: &Puppet, message: Option<&ToChild>) -> Option<u8> {
    if let Some(ToChild::Prepare { generation }) = message {
        let refusal = told(&puppet.modules, "refused");
        let (generation, reasons) = (*generation, vec![refusal.clone()]);
        let answer = match refusal.as_str() {
            "" => ToSupervisor::Prepared { generation },
            _ => ToSupervisor::Refused { generation, reasons },
        };
        assert!(puppet.control.send(&answer, &[]).unwrap());
    }
    None
}

fn worker(puppet: &Puppet, message: Option<&ToChild>) -> Option<u8> {
    match message {
        None if puppet.catalog == "crash" => Some(1),
        Some(ToChild::Serve) => {
            for listener in &puppet.handoff.listeners {
                if matches!(listener.address, ListenerAddress::Tcp(_)) {
                    let socket = handoff::adopt(listener.descriptor, "listener").unwrap();
                    let line = format!("{} {}\n", std::process::id(), puppet.handoff.generation);
                    std::thread::spawn(move || serve(&TcpListener::from(socket), &line));
                }
            }
            None
        }
        Some(ToChild::Poke) if told(&puppet.modules, "ask") == "reload" => {
            let ask = Request::Reload { wait: true, mode: None, automatic: false };
            assert!(puppet.control.send(&ToSupervisor::Ask { request: 42, ask }, &[]).unwrap());
            None
        }
        Some(ToChild::Answer { request: 42, reply }) => {
            let path = puppet.modules.join("answers");
            let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
            writeln!(file, "{}", serde_json::to_string(reply).unwrap()).unwrap();
            None
        }
        Some(ToChild::Drain { .. }) => Some(0),
        _ => None,
    }
}

/// Tells everybody who connects the process and its generation.
fn serve(listener: &TcpListener, line: &str) {
    let mut polled = [rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN)];
    loop {
        let _ = rustix::event::poll(&mut polled, None);
        match listener.accept() {
            Ok((mut stream, _)) => {
                let _ = stream.write_all(line.as_bytes());
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => std::thread::park_timeout(Duration::from_millis(10)),
        }
    }
}
