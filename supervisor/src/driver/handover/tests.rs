use std::{
    io::{BufRead, BufReader, Write},
    os::{fd::IntoRawFd, unix::net::UnixStream},
    path::Path,
    time::Duration,
};

use aegis_ipc::{
    bundle::{BUNDLE_FORMAT, Bundle},
    control::{Received, ToChild, ToSupervisor},
    operator::{self, Reply},
};
use rustix::process::Signal;

use super::*;
use crate::{
    Program, Start,
    driver::Upgrading,
    fleet::Action,
    process::{Environment, Launch},
};

const CHILD: ChildId = ChildId(7);

/// A host in the middle of its life, without processes of its own program: a generation, a child, a client that waits.
struct Bench {
    folder: tempfile::TempDir,
    driver: Driver,
    child: ControlSocket,
    client: UnixStream,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = crate::test_config(folder.path());
        config.listen = vec!["127.0.0.1:0".parse().unwrap()];
        let start = Start {
            config: config.clone(),
            compile_arguments: vec!["/srv/app".into()],
            instead: None,
            as_json: false,
            program: Program::IDLE,
        };
        let mut driver = Driver::begin(start, &mut None).unwrap();
        let encoded = codec::encode(&config).unwrap();
        let bundle = Bundle {
            format: BUNDLE_FORMAT,
            digest: "d".to_owned(),
            engine: String::new(),
            config: encoded,
            catalog: vec![1],
            code: Vec::new(),
            modules: Vec::new(),
        };
        let held = Generation::open(bundle.seal().unwrap(), &driver.identity).unwrap();
        driver.generations.insert(3, held);
        driver.bind_listeners(3);

        let (ours, theirs) = ControlSocket::pair().unwrap();
        let image = Image::open(Path::new("/bin/sleep")).unwrap();
        let arguments = ["60".into()];
        let launch =
            Launch { image: &image, arguments: &arguments, environment: Environment::Child(&[]), keep: &[] };
        let process = Process::spawn(&launch).unwrap();
        let role = Role::Worker { slot: 2 };
        let entry = Child {
            role,
            generation: 3,
            process,
            control: ours,
            line: Line::Open,
            cell: Some(5),
            counted_before: 11,
            nonsense: 0,
        };
        driver.children.insert(CHILD, entry);

        let mut client = UnixStream::connect(&config.control_socket).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        driver.admit_operators();
        client.write_all(b"{\"request\":\"reload\",\"wait\":true}\n{\"request\":").unwrap();
        let id = driver.operators.ids().next().unwrap();
        let ready = super::super::Ready {
            source: Source::Operator(id),
            readable: true,
            writable: false,
            hung_up: false,
        };
        driver.serve_operator(id, ready);
        driver.store.kept = Some(aegis_ipc::sealed::create("kept").unwrap().into());
        Self { folder, driver, child: theirs, client }
    }

    /// The state, with a duplicate of every descriptor in place of the driver's own.
    fn state(&self) -> Vec<u8> {
        let (body, kept) = self.driver.state().unwrap();
        let named: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
        let mut state: State = codec::decode(&body).unwrap();
        let mut used = 0;
        for_each_descriptor(&mut state, |number| {
            let position = named.iter().position(|kept| kept == number).expect("kept open across the exec");
            *number = kept[position].try_clone_to_owned().unwrap().into_raw_fd();
            used += 1;
        });
        assert_eq!(used, kept.len(), "nothing is kept open that the state does not name");
        codec::encode(&state).unwrap()
    }
}

fn for_each_descriptor(state: &mut State, mut change: impl FnMut(&mut RawFd)) {
    for number in [&mut state.lock, &mut state.board, &mut state.store_listener, &mut state.operator_listener]
    {
        change(number);
    }
    state.store_kept.iter_mut().chain(&mut state.tally).for_each(&mut change);
    state.images.iter_mut().for_each(|record| change(&mut record.descriptor));
    state.listeners.iter_mut().for_each(|record| change(&mut record.descriptor));
    state.generations.iter_mut().for_each(|record| change(&mut record.bundle));
    state.clients.iter_mut().for_each(|record| change(&mut record.descriptor));
    for child in &mut state.children {
        change(&mut child.process);
        change(&mut child.control);
    }
}

fn without_descriptors(body: &[u8]) -> Vec<u8> {
    let mut state: State = codec::decode(body).unwrap();
    for_each_descriptor(&mut state, |number| *number = 0);
    codec::encode(&state).unwrap()
}

#[test]
fn a_restored_host_is_the_same_host() {
    let bench = Bench::new();
    let before = bench.state();
    let mut adopter = Adopter::default();
    let restored = Driver::restore(&before, &mut adopter).unwrap();
    drop(bench.driver);
    drop(adopter);
    let (after, _) = restored.state().unwrap();
    assert_eq!(without_descriptors(&after), without_descriptors(&before));

    // It hears the child, is heard by it, and sees its end.
    let mut restored = restored;
    bench.child.send(&ToSupervisor::Ready, &[]).unwrap();
    restored.hear(CHILD);
    assert_eq!(restored.events.pop_back(), Some(Event::Ready { child: CHILD }));
    restored.insist(CHILD, &ToChild::Serve, &[]);
    assert!(matches!(bench.child.receive::<ToChild>().unwrap(), Received::Message(ToChild::Serve, _)));
    restored.signal_child(CHILD, Signal::KILL);
    let ready = restored.poller.wait(0, Some(10_000));
    assert!(ready.iter().any(|ready| ready.source == Source::Process(CHILD)), "{ready:?}");
    restored.bury(CHILD);
    assert!(matches!(restored.events.pop_back(), Some(Event::Exited { child: CHILD, .. })));
}

#[test]
fn clients_are_counted_on_where_the_tally_is_known_and_anew_where_it_is_not() {
    use aegis_ipc::tally::{Known, Tally};
    let client = |memory: &OwnedFd| Tally::open(memory).unwrap().client(Known::Subject, b"ada");
    let bench = Bench::new();
    let before = client(&bench.driver.tally_memory);
    let restored = |change: fn(&mut State)| {
        let mut state: State = codec::decode(&bench.state()).unwrap();
        change(&mut state);
        Driver::restore(&codec::encode(&state).unwrap(), &mut Adopter::default()).unwrap()
    };
    assert_eq!(client(&restored(|_| ()).tally_memory), before);
    // What an older image leaves, and one with a tally of another layout.
    let none = restored(|state| state.tally = None);
    let other = restored(|state| {
        state.tally = Some(aegis_ipc::sealed::create("tally").unwrap().into_raw_fd());
    });
    for driver in [none, other] {
        assert_ne!(client(&driver.tally_memory), before);
    }
}

#[test]
fn a_client_that_waits_is_answered_by_the_next_image() {
    let bench = Bench::new();
    let mut restored = Driver::restore(&bench.state(), &mut Adopter::default()).unwrap();
    let asker = crate::fleet::Asker(0);
    restored.perform(crate::fleet::Action::Accepted { asker, job: 4 });
    restored.perform(crate::fleet::Action::Refused { asker, message: "no".to_owned() });
    restored.answer_operators();
    let mut lines =
        BufReader::new(&bench.client).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap());
    assert_eq!(lines.next(), Some(Reply::Accepted { job: 4 }));
    assert_eq!(lines.next(), Some(Reply::Error { message: "no".to_owned() }));
}

#[test]
fn a_reload_that_nobody_decided_stays_one_and_a_client_that_leaves_is_told_of() {
    use crate::fleet::{Asker, Caller, Event, Origin, Patience, Request};

    let mut driver = Bench::new().driver;
    driver.relay(CHILD, 1, operator::Request::Reload { wait: false, mode: None, automatic: true });
    let caller = Caller { asker: Asker(1), patience: Patience::Accepted };
    let request = Request::Reload { origin: Origin::Automatic, mode: None };
    assert_eq!(driver.events.back(), Some(&Event::Request { asker: Some(caller), request }));
    let client = driver.operators.ids().next().unwrap();
    driver.operators.hang_up(client);
    driver.answer_operators();
    assert_eq!(driver.events.back(), Some(&Event::Left { asker: Asker(0) }));
}

#[test]
fn a_state_of_another_version_and_a_damaged_one_are_refused_and_close_nothing_of_the_original() {
    let bench = Bench::new();
    let refusal = |body: &[u8]| match Driver::restore(body, &mut Adopter::default()) {
        Ok(_) => panic!("restored"),
        Err(error) => crate::with_causes(&error),
    };
    let body = bench.state();
    let mut later: State = codec::decode(&body).unwrap();
    later.format = 2;
    assert_eq!(
        refusal(&codec::encode(&later).unwrap()),
        "state of the previous supervisor: found state format 2, expected 1"
    );
    assert!(refusal(&body[..body.len() / 2]).contains("cannot decode"));
    let mut twice: State = codec::decode(&body).unwrap();
    twice.board = twice.lock;
    let body = codec::encode(&twice).unwrap();
    let mut adopter = Adopter::default();
    assert!(Driver::restore(&body, &mut adopter).is_err());
    assert!(!adopter.originals().is_empty(), "the originals are still there for the way back");
}

#[test]
fn fields_that_came_later_are_tolerated() {
    let bench = Bench::new();
    let body = bench.state();
    let mut value: BTreeMap<String, serde_json::Value> = BTreeMap::new();
    value.insert("later".to_owned(), serde_json::json!({ "deep": [1, 2] }));
    let mut grown = codec::encode(&value).unwrap();
    // A MessagePack map: its length is in the header, its entries follow.
    let entry = grown.split_off(1);
    let (header, entries) = body.split_at(3);
    assert_eq!(header[0], 0xde, "a map with a 16 bit length");
    let length = u16::from_be_bytes([header[1], header[2]]) + 1;
    let grown = [&[0xde], length.to_be_bytes().as_slice(), &entry, entries].concat();
    assert!(Driver::restore(&grown, &mut Adopter::default()).is_ok());
}

#[test]
fn a_child_that_says_something_new_is_not_given_up() {
    let mut bench = Bench::new();
    bench.driver.events.clear();
    for _ in 0..16 {
        bench.child.send(&"LaterKindOfMessage", &[]).unwrap();
    }
    bench.child.send(&ToSupervisor::Ready, &[]).unwrap();
    bench.driver.hear(CHILD);
    assert_eq!(bench.driver.events, [Event::Ready { child: CHILD }]);
    bench.child.send(&"LaterKindOfMessage", &[]).unwrap();
    bench.driver.hear(CHILD);
    assert!(matches!(bench.driver.events.back(), Some(Event::Unreachable { child: CHILD, .. })));
}

#[test]
fn a_worker_may_not_end_the_host_or_have_it_run_something_else() {
    let mut bench = Bench::new();
    bench.driver.events.clear();
    let path = Some("/bin/sh".to_owned());
    for ask in [operator::Request::Upgrade { path }, operator::Request::Drain, operator::Request::Watch] {
        bench.child.send(&ToSupervisor::Ask { request: 9, ask }, &[]).unwrap();
        bench.driver.hear(CHILD);
        let Received::Message(ToChild::Answer { request: 9, reply }, _) = bench.child.receive().unwrap()
        else {
            panic!("no answer")
        };
        assert!(matches!(reply, Reply::Error { .. }), "{reply:?}");
    }
    assert!(bench.driver.events.is_empty());
}

/// An image whose rehearsal does not end by itself.
fn endless(bench: &Bench) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let path = bench.folder.path().join("endless");
    std::fs::write(&path, "#!/bin/sh\nexec sleep 1000\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    Some(path.to_str().unwrap().to_owned())
}

#[test]
fn an_upgrade_that_is_called_off_is_none() {
    let mut bench = Bench::new();
    let path = endless(&bench);
    bench.driver.events.clear();
    for _ in 0..2 {
        bench.driver.perform(Action::Upgrade { path: path.clone() });
        assert_eq!(bench.driver.events, [], "no other one is in its way");
        bench.driver.perform(Action::CallOffUpgrade);
        assert!(bench.driver.upgrading.is_none());
    }
    // As far as it can have come: it is about to be continued in the new image, or it has just failed.
    bench.driver.upgrading = Some(Upgrading::Decided(Image::running().unwrap()));
    bench.driver.events.push_back(Event::UpgradeFailed { reasons: Vec::new() });
    bench.driver.perform(Action::CallOffUpgrade);
    assert!(bench.driver.upgrading.is_none());
    assert_eq!(bench.driver.events, []);
}

#[test]
fn a_host_that_leaves_leaves_no_rehearsal_behind() {
    let mut bench = Bench::new();
    let path = endless(&bench);
    bench.driver.perform(Action::Upgrade { path });
    let data_dir = bench.driver.identity.data_dir.clone();
    bench.driver.leave();
    drop(bench.driver);
    DataLock::take(&data_dir).expect("nobody has the lock");
}

#[test]
fn a_control_socket_of_the_service_manager_outlives_the_host() {
    let bench = Bench::new();
    let path = bench.driver.identity.control_socket.clone();
    let leave = |origin: Origin| {
        let mut state: State = codec::decode(&bench.state()).unwrap();
        assert_eq!(state.operator_origin, Origin::Bound);
        state.operator_origin = origin;
        let state = codec::encode(&state).unwrap();
        let mut restored = Driver::restore(&state, &mut Adopter::default()).unwrap();
        let (state, _) = restored.state().unwrap();
        assert_eq!(codec::decode::<State>(&state).unwrap().operator_origin, origin, "upgraded once more");
        restored.leave();
    };
    leave(Origin::Activated);
    assert!(path.exists());
    leave(Origin::default()); // what an image of before leaves
    assert!(!path.exists());
}
