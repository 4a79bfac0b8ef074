//! What systemd is told, and the socket it gives.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use aegis_harness::{
    App, Start, app,
    load::{Plan, Reuse},
    notify::NotifySocket,
};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::signal::Signal,
};
use serde_json::json;

const WAIT: Duration = Duration::from_secs(30);

#[test]
fn the_notify_protocol_is_spoken_exactly() {
    let socket = NotifySocket::bind();
    let settings = "[reload]\ncanary-time = \"50ms\"";
    let mut cluster = Start::app(App::todo().settings(settings))
        .environment("NOTIFY_SOCKET", socket.path())
        .environment("WATCHDOG_USEC", "1000000")
        .start();
    let mut told = Vec::new();
    let mut next = |word: &str| socket.receive_noting(&mut told, word, WAIT, |text| text.contains(word));
    let ready = next("READY=1");
    assert!(ready.contains("STATUS="), "{ready}");

    app::write_module(cluster.folder(), "todo", &app::revised_todo(1));
    cluster.signal(Signal::SIGHUP);
    let reloading = next("RELOADING=1");
    let stamp = reloading.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    let now = (aegis_ipc::board::monotonic_ms() + 1) * 1000; // rounded up: the stamp counts microseconds
    let stamp: u64 = stamp.parse().unwrap();
    assert!(
        stamp <= now && now - stamp < 20_000_000,
        "the monotonic clock, in the same datagram: {reloading}"
    );
    next("READY=1");
    assert_eq!(cluster.status().generation, 2, "not before it is in force");
    let refused = json!({"extra1": "not a number"});
    assert_eq!(cluster.client().post("todo", &refused).status, 422, "not before it is in force");
    next("WATCHDOG=1");

    for worker in cluster.await_workers(2) {
        let environment = fs::read(format!("/proc/{}/environ", worker.pid)).unwrap();
        let text = String::from_utf8_lossy(&environment).into_owned();
        assert!(
            !text.contains("NOTIFY_SOCKET") && !text.contains("WATCHDOG_USEC"),
            "nothing leaks into workers"
        );
    }
    cluster.signal(Signal::SIGTERM);
    next("STOPPING=1");
    assert!(cluster.wait_exit(WAIT).success());
    while let Ok(text) = socket.receive(Duration::from_millis(1)) {
        told.push(text);
    }
    // What comes when it comes: signs of life, requests for patience, lines for people.
    let by_the_clock = ["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=", "STATUS="];
    let states: Vec<&str> = told
        .iter()
        .filter(|text| !by_the_clock.iter().any(|word| text.starts_with(word)))
        .filter_map(|text| text.lines().next())
        .collect();
    assert_eq!(states, ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"], "{told:?}");
}

#[test]
fn the_watchdog_is_silent_while_too_few_workers_are_alive() {
    let socket = NotifySocket::bind();
    let settings = "[hang]\nsuspect-after = \"300ms\"\nkill-after = \"60s\"\n";
    let cluster = Start::app(App::todo().settings(settings))
        .workers(1)
        .environment("NOTIFY_SOCKET", socket.path())
        .environment("WATCHDOG_USEC", "400000")
        .start();
    socket.receive_matching("WATCHDOG=1", WAIT, |text| text.contains("WATCHDOG=1"));
    let store = cluster.status().store.pid;
    let worker = cluster.await_workers(1)[0].pid;
    aegis_harness::cluster::signal_process(store, Signal::SIGSTOP);
    aegis_harness::cluster::signal_process(worker, Signal::SIGSTOP);
    aegis_harness::eventually("the watchdog to fall silent", WAIT, || {
        loop {
            match socket.receive(Duration::from_millis(1500)) {
                Ok(text) if text.contains("WATCHDOG=1") => return false,
                Ok(_) => {}
                Err(_) => return true,
            }
        }
    });
    aegis_harness::cluster::signal_process(store, Signal::SIGCONT);
    aegis_harness::cluster::signal_process(worker, Signal::SIGCONT);
}

#[test]
fn a_socket_of_systemd_is_served_and_queued_connections_are_kept() {
    serves_received_socket("127.0.0.1", |_, address| address);
}

#[test]
fn a_wildcard_socket_of_systemd_serves_the_address_of_the_configuration() {
    serves_received_socket("0.0.0.0", |port, _| format!("127.0.0.1:{port}"));
    serves_received_socket("[::]", |port, _| format!("127.0.0.1:{port}"));
}

#[test]
fn the_bundled_units_fit_the_default_configuration() {
    let unit = fs::read_to_string(units().join("aegis.socket")).unwrap();
    let defaults = fs::read_to_string(units().join("../../config/aegis.toml")).unwrap();
    let (given, given_port) = split_port(&value(&unit, "ListenStream="));
    let (asked, asked_port) = split_port(&value(&defaults, "listen = "));
    assert_eq!(given_port, asked_port);
    serves_received_socket(&given, |port, _| format!("{asked}:{port}"));

    let unit = fs::read_to_string(units().join("aegis.service")).unwrap();
    assert_eq!(value(&unit, "StartLimitIntervalSec="), "0");
}

#[test]
fn the_bundled_service_begins_on_a_machine_that_has_nothing_but_the_app() {
    let unit = fs::read_to_string(units().join("aegis.service")).unwrap();
    // systemd refuses to start what may write to a path that is not there.
    assert!(!unit.contains("ReadWritePaths="), "only the host would make them");
    let machine = tempfile::tempdir().unwrap();
    let places = [("StateDirectory=", "var/lib"), ("RuntimeDirectory=", "run")];
    let places = places.map(|(key, folder)| machine.path().join(folder).join(value(&unit, key)));
    let at_home = |word: &str| match word.strip_prefix('/') {
        Some(path) => machine.path().join(path),
        None => PathBuf::from(word),
    };
    let command = value(&unit, "ExecStart=");
    let words: Vec<PathBuf> = command.split(' ').skip(1).map(at_home).collect();
    App::todo().write(&words[1]);
    places.iter().for_each(|place| fs::create_dir_all(place).unwrap());
    let before = paths_outside(machine.path(), &places);

    let mut host = std::process::Command::new(aegis_harness::cluster::executable())
        .args(&words)
        .args(["--listen", "127.0.0.1:0", "--workers", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(host.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("listening on"), "{line:?}");
    let advice = unit.split_once("`aegis status ").unwrap().1.split_once('`').unwrap().0;
    let asked = std::process::Command::new(aegis_harness::cluster::executable())
        .arg("status")
        .args(advice.split(' ').map(at_home))
        .output()
        .unwrap();
    aegis_harness::cluster::signal_process(host.id(), Signal::SIGTERM);
    assert!(host.wait().unwrap().success());
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    assert_eq!(paths_outside(machine.path(), &places), before, "the rest of the machine is read-only");
}

#[test]
fn systemd_understands_the_bundled_units() {
    if std::process::Command::new("systemd-analyze").arg("--version").output().is_err() {
        return; // this machine has none
    }
    let folder = tempfile::tempdir().unwrap();
    for name in ["aegis.socket", "aegis.service"] {
        let unit = fs::read_to_string(units().join(name)).unwrap();
        // The program must be there.
        fs::write(folder.path().join(name), unit.replace("/usr/local/bin/aegis", "/bin/true")).unwrap();
    }
    let output = std::process::Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(folder.path().join("aegis.service"))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let of_later_versions = ["notify-reload", "RestartSteps", "RestartMaxDelaySec"];
    let ours = told.lines().filter(|line| line.contains("aegis."));
    let ours = ours.filter(|line| !of_later_versions.iter().any(|word| line.contains(word)));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new());
}

fn units() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/systemd")
}

/// What a unit or a configuration says after `key` at the beginning of a line.
fn value(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("no {key}"));
    line.trim_matches(['[', ']', '"']).to_owned()
}

/// Everything under `folder`, without what is in `places`.
fn paths_outside(folder: &Path, places: &[PathBuf]) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !places.contains(&path) {
                waiting.push(path.clone());
            }
            found.insert(path);
        }
    }
    found
}

fn split_port(address: &str) -> (String, String) {
    let (host, port) = address.rsplit_once(':').unwrap();
    (host.to_owned(), port.to_owned())
}

#[test]
fn a_restart_of_the_service_refuses_nobody() {
    let folder = tempfile::tempdir().unwrap();
    App::todo().write(folder.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let running = Plan::get(address, 16, "/livez").reuse(Reuse::PerRequest).spawn();
    for _ in 0..3 {
        let mut host = activate(&listener, folder.path(), &address.to_string());
        let served = running.completed() + 500;
        aegis_harness::eventually("requests to be answered", WAIT, || running.completed() > served);
        aegis_harness::cluster::signal_process(host.id(), Signal::SIGTERM);
        assert!(host.wait().unwrap().success());
    }
    // Those that were queued last are answered, too.
    let mut host = activate(&listener, folder.path(), &address.to_string());
    running.stop().assert_clean();
    aegis_harness::cluster::signal_process(host.id(), Signal::SIGTERM);
    assert!(host.wait().unwrap().success());
}

#[test]
fn a_socket_of_systemd_is_all_that_is_served_where_nobody_says_where_to_listen() {
    let folder = tempfile::tempdir().unwrap();
    App::todo().write(folder.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut host = activate(&listener, folder.path(), "");
    let status = std::process::Command::new(aegis_harness::cluster::executable())
        .args(["status", "--json"])
        .arg(folder.path())
        .output()
        .unwrap();
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let urls: Vec<&str> =
        status["listen"].as_array().unwrap().iter().filter_map(|url| url.as_str()).collect();
    let tcp: Vec<&&str> = urls.iter().filter(|url| url.starts_with("http:")).collect();
    assert_eq!(tcp, [&&*format!("http://{}", listener.local_addr().unwrap())]);
    aegis_harness::cluster::signal_process(host.id(), Signal::SIGTERM);
    assert!(host.wait().unwrap().success());
}

/// Starts a host with a socket, as systemd does, and waits until it serves there. `listen` is what is asked for; without
/// anything, nobody has said it.
fn activate(listener: &TcpListener, folder: &Path, listen: &str) -> Child {
    let listen = if listen.is_empty() { String::new() } else { format!("--listen {listen}") };
    // The number 3 is the protocol's first; the shell moves the socket there and says who it is for.
    fcntl(listener, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let script = format!(
        "exec 3<&{0}; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" run \"$1\" {listen} --workers 2",
        listener.as_raw_fd()
    );
    let mut host = std::process::Command::new("bash")
        .args(["-c", &script])
        .arg(aegis_harness::cluster::executable())
        .arg(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(host.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(line.trim(), format!("listening on http://{address}"), "asked for {listen}");
    host
}

/// Starts a host with a socket bound to `given` on some port, and with what `asked` makes of that port and of the
/// whole address as `listen`.
fn serves_received_socket(given: &str, asked: impl Fn(u16, String) -> String) {
    let folder = tempfile::tempdir().unwrap();
    App::todo().write(folder.path());
    let listener = TcpListener::bind(format!("{given}:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let listen = asked(address.port(), address.to_string());
    let early = std::net::TcpStream::connect(&listen).unwrap();

    let mut host = activate(&listener, folder.path(), &listen);
    drop(listener);
    let mut early = aegis_harness::Connection::from_stream(early, &listen);
    assert_eq!(early.request("GET", "/livez", &[], b"").unwrap().status, 200, "it waited in the queue");
    drop(early);
    aegis_harness::cluster::signal_process(host.id(), Signal::SIGTERM);
    assert!(host.wait().unwrap().success());
}
