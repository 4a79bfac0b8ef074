//! The life of the process: from the handoff to the exit status.

use std::{
    io::{Read, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, IntoRawFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    thread::JoinHandle,
    time::Instant,
};

use aegis_config::{Config, Environment, Overrides};
use aegis_domain::catalog;
use aegis_ipc::{
    board::{Board, StoreWord},
    bundle::{BUNDLE_FORMAT, Bundle},
    codec,
    control::{ControlSocket, Received, ToChild, ToSupervisor},
    data::{Attach, FromStore, ToStore},
    frame,
    handoff::Handoff,
};
use bytes::BytesMut;

use super::world::{NOTE, PATIENCE, TODO};
use crate::{
    error::{EXIT_CONFIGURATION, EXIT_FINE, EXIT_TRANSIENT},
    testing::{create, specs, write},
};

/// A store process played by a thread, and the supervisor played by the test.
struct Process {
    control: ControlSocket,
    board: Board,
    socket: std::path::PathBuf,
    thread: JoinHandle<u8>,
}

fn bundle(folder: &Path, modules: &[&str]) -> Bundle {
    std::fs::create_dir_all(folder.join("modules")).unwrap();
    let toml = "[workers]\norphan_grace = \"200ms\"\n";
    std::fs::write(folder.join("aegis.toml"), toml).unwrap();
    let config = Config::load(folder, &Overrides::default(), &Environment::default()).unwrap().config;
    Bundle {
        format: BUNDLE_FORMAT,
        digest: "digest".into(),
        engine: String::new(),
        config: codec::encode(&config).unwrap(),
        catalog: catalog::encode(&specs(modules)),
        code: Vec::new(),
        modules: Vec::new(),
    }
}

impl Process {
    fn start(folder: &Path, bundle: &Bundle) -> Self {
        Self::after(0, folder, bundle)
    }

    /// Starts it in a host whose store before has published changes up to `published`.
    fn after(published: u64, folder: &Path, bundle: &Bundle) -> Self {
        let (control, theirs) = ControlSocket::pair().unwrap();
        let (board, descriptor) = Board::create().unwrap();
        board.publish_durable(published);
        let socket = folder.join("store.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let handoff = Handoff {
            slot: 0,
            cell: 0,
            generation: 1,
            epoch: 5,
            control: theirs.into_descriptor().into_raw_fd(),
            board: descriptor.into_raw_fd(),
            bundle: Some(bundle.seal().unwrap().into_raw_fd()),
            listeners: Vec::new(),
            store_listener: Some(listener.into_raw_fd()),
            store_path: socket.clone(),
            kept: None,
            tally: None,
            is_canary: false,
            task: aegis_ipc::deploy::Task::App,
            digest_in_force: None,
            in_force: None,
        };
        let thread = std::thread::spawn(move || crate::run(handoff, |_| ()));
        Self { control, board, socket, thread }
    }

    fn receive(&self) -> ToSupervisor {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.control.receive().unwrap() {
                Received::Message(message, _) => return message,
                Received::Closed => panic!("the store is gone"),
                Received::Empty => assert!(Instant::now() < deadline, "the store is silent"),
            }
            std::thread::yield_now();
        }
    }

    fn until_ready(&self) {
        let pid = std::process::id();
        assert_eq!(self.receive(), ToSupervisor::Hello { protocol: 1, pid, generation: 1 });
        assert_eq!(self.receive(), ToSupervisor::Ready);
    }

    fn send(&self, message: &ToChild, descriptors: &[BorrowedFd<'_>]) {
        assert!(self.control.send(message, descriptors).unwrap());
    }

    fn worker(&self) -> (UnixStream, BytesMut) {
        let mut socket = UnixStream::connect(&self.socket).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let attach =
            Attach { protocol: 1, incarnation: 1, cell: 1, generation: 1, applied: Some(0), brief: false };
        let mut bytes = Vec::new();
        frame::write_message(&ToStore::Attach(attach), &mut bytes).unwrap();
        frame::write_message(&ToStore::Write(write(1, create("TODO", "a", "{}"))), &mut bytes).unwrap();
        socket.write_all(&bytes).unwrap();
        let mut buffer = BytesMut::new();
        loop {
            while let Some(payload) = frame::take(&mut buffer).unwrap() {
                if matches!(codec::decode(&payload).unwrap(), FromStore::Written { request: 1, .. }) {
                    return (socket, buffer);
                }
            }
            let mut piece = [0; 4096];
            match socket.read(&mut piece) {
                Ok(0) => panic!("the store is gone"),
                Ok(length) => buffer.extend_from_slice(&piece[..length]),
                // This process was stopped for a while.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!("the store is silent: {error}"),
            }
        }
    }
}

fn told(process: Process) -> (u8, String) {
    let Process { control, thread, .. } = process;
    let code = thread.join().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match control.receive().unwrap() {
            Received::Message(ToSupervisor::Failed { code: told, reason }, _) => {
                assert_eq!(told, code);
                return (code, reason);
            }
            Received::Message(..) => {}
            Received::Empty | Received::Closed => break,
        }
    }
    (code, String::new())
}

#[test]
fn a_store_serves_follows_generations_and_ends_when_it_is_orphaned() {
    let folder = tempfile::tempdir().unwrap();
    let current = bundle(folder.path(), &[TODO, NOTE]);
    let process = Process::start(folder.path(), &current);
    process.until_ready();
    assert_eq!(process.board.store(StoreWord::Epoch).load(std::sync::atomic::Ordering::Relaxed), 5);
    let worker = process.worker();
    assert_eq!(process.board.durable(), 1);

    let next = bundle(folder.path(), &[TODO, NOTE, "name = \"more\""]).seal().unwrap();
    process.send(&ToChild::Prepare { generation: 2 }, &[next.as_fd()]);
    assert_eq!(process.receive(), ToSupervisor::Prepared { generation: 2 });
    process.send(&ToChild::Activate { generation: 2 }, &[]);
    let broken = Bundle { catalog: b"no catalog".to_vec(), ..current };
    let broken = broken.seal().unwrap();
    process.send(&ToChild::Prepare { generation: 3 }, &[broken.as_fd()]);
    let ToSupervisor::Refused { generation: 3, reasons } = process.receive() else { panic!("not refused") };
    assert!(reasons[0].starts_with("catalog: "), "{reasons:?}");
    process.send(&ToChild::Prepare { generation: 4 }, &[]);
    let refused =
        ToSupervisor::Refused { generation: 4, reasons: vec!["the message brought no bundle".into()] };
    assert_eq!(process.receive(), refused);
    process.send(&ToChild::Poke, &[]);

    let second = Process::start(folder.path(), &bundle(folder.path(), &[TODO]));
    let (code, reason) = told(second);
    assert_eq!(code, EXIT_TRANSIENT);
    assert!(reason.contains(&format!("in use by process {}", std::process::id())), "{reason}");

    let Process { control, thread, board, .. } = process;
    drop(control);
    assert_eq!(thread.join().unwrap(), EXIT_FINE, "the grace has passed, although a worker is connected");
    assert_eq!(board.store(StoreWord::Pid).load(std::sync::atomic::Ordering::Relaxed), 0);
    drop(worker);
}

#[test]
fn a_store_without_workers_ends_at_once_when_it_is_orphaned() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::start(folder.path(), &bundle(folder.path(), &[TODO]));
    process.until_ready();
    let Process { control, thread, .. } = process;
    drop(control);
    assert_eq!(thread.join().unwrap(), EXIT_FINE);
}

#[test]
fn a_damaged_store_stops_with_the_name_of_the_file_and_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path(), &[TODO]);
    let process = Process::start(folder.path(), &bundle);
    process.until_ready();
    let Process { control, thread, .. } = process;
    drop(control);
    assert_eq!(thread.join().unwrap(), EXIT_FINE);
    let config: Config = codec::decode(&bundle.config).unwrap();
    let journal = config.data_dir.join("store/engine/0.jnl");
    super::generations::wait_until_closed(&config.data_dir.join("store"));
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&journal, &bytes).unwrap();
    let (code, reason) = told(Process::start(folder.path(), &bundle));
    assert_eq!(code, EXIT_CONFIGURATION);
    let reason = reason.replace(&config.data_dir.display().to_string(), "/data");
    insta::assert_snapshot!(reason, @"opening the store failed: /data/store/engine/0.jnl is damaged: no whole group at byte 0, but one at byte 57 follows; nothing was changed: keep a copy of the data folder, see what `aegis data verify` finds, and put a backup or an export in its place");
    assert_eq!(std::fs::read(&journal).unwrap(), bytes);
}

#[test]
fn a_last_group_that_is_damaged_after_an_orderly_end_is_not_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path(), &[TODO]);
    let config: Config = codec::decode(&bundle.config).unwrap();
    let process = Process::start(folder.path(), &bundle);
    process.until_ready();
    let worker = process.worker();
    let Process { control, thread, .. } = process;
    drop((control, worker));
    assert_eq!(thread.join().unwrap(), EXIT_FINE);
    super::generations::wait_until_closed(&config.data_dir.join("store"));
    let engine = config.data_dir.join("store/engine");
    let journal = engine.join("0.jnl");
    let mut bytes = std::fs::read(&journal).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[written - 20] ^= 1;
    std::fs::write(&journal, &bytes).unwrap();
    let (code, reason) = told(Process::start(folder.path(), &bundle));
    assert_eq!(code, EXIT_CONFIGURATION, "{reason}");
    assert!(reason.contains("/engine/0.jnl is damaged: no whole group at byte "), "{reason}");
    assert!(
        reason.contains(&format!("up to byte {} when the store ended in order", written + 1)),
        "{reason}"
    );
    assert_eq!(std::fs::read(&journal).unwrap(), bytes, "it is left alone");
    // A person decides.
    super::generations::wait_until_closed(&config.data_dir.join("store"));
    std::fs::remove_file(engine.join("clean-end")).unwrap();
    Process::start(folder.path(), &bundle).until_ready();
}

#[test]
fn a_store_that_follows_another_one_begins_nothing_anew() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path(), &[TODO]);
    let config: Config = codec::decode(&bundle.config).unwrap();
    let told = |process| {
        let (code, reason) = told(process);
        assert_eq!(code, EXIT_CONFIGURATION);
        reason.replace(&config.data_dir.display().to_string(), "/data")
    };
    let reason = told(Process::after(3, folder.path(), &bundle));
    insta::assert_snapshot!(reason, @"/data/store/engine is gone, with the changes up to 3 that were acknowledged: no empty store is made in its place; put it back, and the host goes on, or stop the host and start it anew to begin without them");
    assert!(!config.data_dir.exists(), "nothing is made in its place");

    let process = Process::start(folder.path(), &bundle);
    process.until_ready();
    let worker = process.worker();
    assert_eq!(process.board.durable(), 1);
    let Process { control, thread, .. } = process;
    drop((control, worker));
    assert_eq!(thread.join().unwrap(), EXIT_FINE);
    super::generations::wait_until_closed(&config.data_dir.join("store"));
    let reason = told(Process::after(3, folder.path(), &bundle));
    insta::assert_snapshot!(reason, @"/data/store/engine ends with change 1, but changes up to 3 were acknowledged: this is not what the store before left there; put that back, and the host goes on, or stop the host and start it anew to begin with what is there");
    super::generations::wait_until_closed(&config.data_dir.join("store"));
    Process::after(1, folder.path(), &bundle).until_ready();
}

#[test]
fn a_store_that_got_a_broken_handoff_says_what_is_missing() {
    let (_control, theirs) = ControlSocket::pair().unwrap();
    let handoff = Handoff {
        slot: 0,
        cell: 0,
        generation: 1,
        epoch: 1,
        control: theirs.into_descriptor().into_raw_fd(),
        board: Board::create().unwrap().1.into_raw_fd(),
        bundle: None,
        listeners: Vec::new(),
        store_listener: None,
        store_path: "/nowhere".into(),
        kept: None,
        tally: None,
        is_canary: false,
        task: aegis_ipc::deploy::Task::App,
        digest_in_force: None,
        in_force: None,
    };
    let error = crate::control::run(&handoff, |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "the handoff of the store names no bundle");
}
