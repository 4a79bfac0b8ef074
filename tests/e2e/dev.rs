//! `aegis dev`: what changes is built and brought into force, and every outcome is one line.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use aegis_guests::stamping;
use aegis_harness::{
    App, Client,
    app::{TODO, write_module},
    cluster::{START_TIMEOUT, executable},
    eventually, eventually_some,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

/// Time for one outcome; generous, the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `aegis dev`; it is ended when it is dropped.
struct Dev {
    folder: tempfile::TempDir,
    process: Child,
    lines: Receiver<String>,
}

impl Dev {
    fn start(app: &App, prepare: impl FnOnce(&Path)) -> Self {
        Self::start_with(&[], app, prepare)
    }

    fn start_with(arguments: &[&str], app: &App, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        app.write(folder.path());
        prepare(folder.path());
        let log = fs::File::create(folder.path().join("host.log")).unwrap();
        let mut command = Command::new(executable());
        command.arg("dev").arg(folder.path()).args(["--listen", "127.0.0.1:0"]).args(arguments);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        let mut process =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::from(log)).spawn().unwrap();
        let stdout = process.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
        });
        Self { folder, process, lines }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            panic!("no line; the log: {}", fs::read_to_string(self.path().join("host.log")).unwrap())
        })
    }

    /// The next line is where it listens.
    fn address(&self) -> SocketAddr {
        let line = self.line();
        let address = line.strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line}"));
        address.parse().unwrap()
    }

    fn client(&self) -> Client {
        Client::new(self.address())
    }

    fn stop(&mut self) -> Option<i32> {
        self.end_by(Signal::SIGTERM)
    }

    /// Ends it like this; its exit status, if it exits.
    fn end_by(&mut self, signal: Signal) -> Option<i32> {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        kill(pid, signal).unwrap();
        let end = std::time::Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            assert!(std::time::Instant::now() < end, "it does not end");
            thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.stop();
        }
    }
}

#[test]
fn an_edited_module_is_in_force_and_a_broken_one_is_told_while_the_old_one_serves() {
    let mut dev = Dev::start(&App::todo(), |_| {});
    let client = dev.client();
    assert_eq!(client.post("todo", &json!({"text": ""})).status, 201);
    let required = TODO.replace("text = \"text\"", "text = { kind = \"text\", required = true }");
    write_module(dev.path(), "todo", &required);
    let line = dev.line();
    assert!(line.starts_with("reload: in force after "), "{line}");
    // The worker before may still take what comes in the same moment.
    eventually("the rule is in force", PATIENCE, || client.post("todo", &json!({"n": 1})).status == 422);
    write_module(dev.path(), "todo", "name = [");
    let line = dev.line();
    assert!(line.starts_with("reload: rejected: modules/todo/module.toml"), "{line}");
    assert_eq!(client.post("todo", &json!({"n": 1})).status, 422);
    assert_eq!(client.post("todo", &json!({"text": "x"})).status, 201);
    write_module(dev.path(), "todo", TODO);
    let line = dev.line();
    assert!(line.starts_with("reload: in force after "), "{line}");
    eventually("the rule is gone", PATIENCE, || client.post("todo", &json!({"n": 1})).status == 201);
    assert_eq!(dev.stop(), Some(0));
}

#[test]
fn what_a_module_is_built_from_is_built_anew_and_brought_into_force() {
    let settings = "[modules.note]\nbuild = \"test ! -e src/broken && mkdir -p modules/note && cp src/note.wasm \
                    modules/note/.new && mv modules/note/.new modules/note/note.wasm\"\nwatch = [\"src\"]";
    let app = App::default().settings(settings);
    let dev = Dev::start(&app, |folder| {
        fs::create_dir(folder.join("src")).unwrap();
        fs::write(folder.join("src/note.wasm"), stamping("one")).unwrap();
    });
    let line = dev.line();
    assert!(line.starts_with("build note: done in "), "{line}");
    let client = dev.client();
    let by = || client.post("notes", &json!({"x": 1})).json()["by"].clone();
    assert_eq!(by(), "one");
    fs::write(dev.path().join("src/note.wasm"), stamping("two")).unwrap();
    let lines = [dev.line(), dev.line()];
    assert!(lines[0].starts_with("build note: done in "), "{lines:?}");
    assert!(lines[1].starts_with("reload: in force after "), "{lines:?}");
    eventually("the second one is served", PATIENCE, || by() == "two");
    fs::write(dev.path().join("src/broken"), "").unwrap();
    let line = dev.line();
    assert!(line.starts_with("build note: failed (exit status: 1) after "), "{line}");
    assert_eq!(by(), "two");
}

#[test]
fn a_modules_folder_that_is_named_anew_is_watched() {
    let dev = Dev::start(&App::todo(), |_| {});
    let client = dev.client();
    // The configuration names it as soon as it is there.
    fs::create_dir_all(dev.path().join("other/modules/todo")).unwrap();
    fs::write(dev.path().join("other/modules/todo/module.toml"), TODO).unwrap();
    let settings = fs::read_to_string(dev.path().join("aegis.toml")).unwrap_or_default();
    fs::write(dev.path().join("aegis.toml"), format!("modules_dir = \"other/modules\"\n{settings}")).unwrap();
    let line = dev.line();
    assert!(line.starts_with("reload: "), "{line}");
    let required = TODO.replace("text = \"text\"", "text = { kind = \"text\", required = true }");
    write_module(&dev.path().join("other"), "todo", &required);
    let line = dev.line();
    assert!(line.starts_with("reload: in force after "), "{line}");
    eventually("the rule is in force", PATIENCE, || client.post("todo", &json!({"n": 1})).status == 422);
}

#[test]
fn a_control_socket_that_is_named_anew_is_told_to_be_that_of_the_next_host() {
    let dev = Dev::start(&App::todo(), |_| {});
    dev.address();
    let settings = fs::read_to_string(dev.path().join("aegis.toml")).unwrap_or_default();
    fs::write(dev.path().join("aegis.toml"), format!("control_socket = \"other.sock\"\n{settings}")).unwrap();
    let line = dev.line();
    assert!(line.starts_with("reload: rejected: ") && line.contains("control_socket"), "{line}");
}

#[test]
fn an_app_with_mistakes_starts_when_they_are_mended() {
    let dev = Dev::start(&App::default().module("todo", "name = ["), |_| {});
    eventually("the mistake is told", PATIENCE, || {
        let log = fs::read_to_string(dev.path().join("host.log")).unwrap();
        log.contains("modules/todo/module.toml")
    });
    // Whoever waits for a change must have seen the end of the host, or the change is part of the start.
    write_module(dev.path(), "todo", TODO);
    assert_eq!(dev.client().post("todo", &json!({"text": "x"})).status, 201);
}

#[test]
fn a_program_is_told_everything_in_json() {
    let mut dev = Dev::start_with(&["--json"], &App::todo(), |folder| {
        write_module(folder, "todo", "name = [");
    });
    let told = |dev: &Dev| -> Value { serde_json::from_str(&dev.line()).unwrap() };
    let refused = told(&dev);
    assert_eq!(refused["valid"], json!(false), "{refused}");
    assert!(
        refused["mistakes"][0].as_str().unwrap().starts_with("modules/todo/module.toml:1:9: "),
        "{refused}"
    );
    write_module(dev.path(), "todo", TODO);
    let listening = told(&dev);
    assert!(listening["listening"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{listening}");
    write_module(dev.path(), "todo", "name = [");
    let rejected = told(&dev);
    assert_eq!(rejected["reload"]["outcome"], "rejected", "{rejected}");
    assert!(rejected["took_ms"].is_u64(), "{rejected}");
    assert_eq!(dev.stop(), Some(0));
}

#[test]
fn a_terminal_that_is_closed_ends_it_with_its_host() {
    for signal in [Signal::SIGHUP, Signal::SIGQUIT] {
        let mut dev = Dev::start(&App::todo(), |_| {});
        let address = dev.address();
        assert_eq!(Client::new(address).get("todo").status, 200);
        assert_eq!(dev.end_by(signal), Some(0), "{signal}");
        assert!(TcpStream::connect(address).is_err(), "{signal}: its host has ended before");
    }
}

#[test]
fn its_host_and_a_build_that_runs_are_ended_when_it_is_killed() {
    let mut dev = Dev::start(&App::todo(), |_| {});
    let address = dev.address();
    assert_eq!(dev.end_by(Signal::SIGKILL), None);
    eventually("the host has ended", PATIENCE, || TcpStream::connect(address).is_err());

    let settings =
        "[modules.todo]\nbuild = \"echo $$ > build.new && mv build.new build.pid && exec sleep 600\"";
    let mut dev = Dev::start(&App::todo().settings(settings), |_| {});
    let path = dev.path().join("build.pid");
    let read = || fs::read_to_string(&path).ok();
    let build = eventually_some("the build has begun", PATIENCE, read);
    assert_eq!(dev.end_by(Signal::SIGKILL), None);
    let status = format!("/proc/{}/status", build.trim());
    let is_gone = || fs::read_to_string(&status).map_or(true, |status| status.contains("State:\tZ"));
    eventually("the build has ended", PATIENCE, is_gone);
}
