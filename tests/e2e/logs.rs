//! Log lines of requests, and what a rotation does to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use aegis_harness::{App, Cluster, QUICK, cluster::executable, eventually, http, load::Plan};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::openpty,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

const WAIT: Duration = Duration::from_secs(30);
/// Requests answered between one rotation and the next.
const REQUESTS_BETWEEN: u64 = 500;

/// The lines about requests in a log file, which must be nothing but whole lines: request id and process.
fn request_lines(path: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().map(|line| {
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error} in line {line:?}"))
    });
    let word = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    lines
        .filter(|line| line["target"] == "aegis::request")
        .inspect(|line| assert!(line["microseconds"].as_u64() > Some(0) && line["status"].is_u64(), "{line}"))
        .map(|line| (word(&line, "id"), word(&line, "process")))
        .collect()
}

#[test]
fn rotated_logs_have_every_answered_request_in_one_whole_line() {
    let settings = "[log]\nfile = \"logs/aegis.log\"\nformat = \"json\"\nrequests = true";
    let cluster = Cluster::start(App::todo().settings(settings), 2);
    let id = cluster.client().create("todo", &json!({"text": "read me"}));
    let (path, host) = (format!("/aegis/api/models/todo/{id}"), cluster.address.to_string());
    let request = move |n| http::encode("GET", &path, &host, &[("x-request-id", &format!("load-{n}"))], b"");
    let running = Plan::get(cluster.address, 16, "").requests(request).rate(2000).spawn();

    let log = cluster.folder().join("logs/aegis.log");
    let mut files: Vec<PathBuf> = Vec::new();
    let by_command = || drop(cluster.aegis_ok(&["logs", "reopen"]));
    let by_signal = || cluster.signal(Signal::SIGUSR1);
    let reopenings: [&dyn Fn(); 4] = [&by_command, &by_signal, &by_command, &by_signal];
    for (number, reopen) in reopenings.into_iter().enumerate() {
        let answered = running.completed() + REQUESTS_BETWEEN;
        eventually("more requests", WAIT, || running.completed() > answered);
        let rotated = log.with_extension(number.to_string());
        fs::rename(&log, &rotated).unwrap();
        files.push(rotated);
        reopen();
        eventually("both workers to write to the new file", WAIT, || {
            let writers: BTreeSet<String> =
                request_lines(&log).into_iter().map(|(_, process)| process).collect();
            writers.len() == 2
        });
    }
    files.push(log);

    let report = running.stop();
    report.assert_clean();
    let mut lines: BTreeMap<String, u32> = BTreeMap::new();
    for (id, _) in files.iter().flat_map(|file| request_lines(file)) {
        *lines.entry(id).or_default() += 1;
    }
    let expected = (0..report.succeeded).map(|n| (format!("load-{n}"), 1));
    let lost: Vec<String> =
        expected.filter(|(id, times)| lines.get(id) != Some(times)).map(|(id, _)| id).collect();
    assert!(lost.is_empty(), "{} of {} lines: {lost:?}", lost.len(), report.succeeded);
}

/// Lines of the store, from a mark in the log on.
fn lines_of_store(cluster: &Cluster, from: usize) -> Vec<String> {
    let log = cluster.log();
    let lines = log[from..].lines().filter(|line| line.contains(" store[") || line.contains(r#""store""#));
    lines.map(str::to_owned).collect()
}

#[test]
fn level_and_format_of_every_process_are_those_of_the_generation_in_force() {
    let mut cluster = Cluster::start(App::todo().settings(QUICK), 2);
    let settings = format!("{QUICK}\n[log]\nlevel = \"info,aegis_store=debug\"\nformat = \"json\"");
    fs::write(cluster.folder().join("aegis.toml"), settings).unwrap();
    cluster.aegis_ok(&["reload"]);
    // The store tells at `debug` of a worker that goes.
    cluster.aegis_ok(&["restart"]);
    eventually("a debug line of the store", WAIT, || {
        let told = |line: &String| line.contains(r#""level":"DEBUG""#) && line.contains("connection ended");
        lines_of_store(&cluster, 0).iter().any(told)
    });
    cluster.await_workers(2);
    // What was begun before the reload may end after it in text; from here on everything is new.
    let mark = cluster.log().len();
    cluster.aegis_ok(&["restart"]);
    let log = cluster.log();
    assert!(log.len() > mark, "something was told");
    let other = log[mark..].lines().find(|line| serde_json::from_str::<Value>(line).is_err());
    assert_eq!(other, None, "the supervisor writes JSON, too");

    cluster.aegis_ok(&["rollback"]);
    cluster.await_workers(2);
    let mark = cluster.log().len();
    cluster.aegis_ok(&["restart"]);
    cluster.signal(Signal::SIGTERM);
    assert!(cluster.wait_exit(WAIT).success());
    let lines = lines_of_store(&cluster, mark);
    assert!(lines.iter().any(|line| line.contains("INFO store[")), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains("DEBUG") && !line.contains('{')), "{lines:?}");
}

/// A host in the background of a terminal. Its process group is killed when this is dropped.
struct Background {
    folder: tempfile::TempDir,
    terminal: fs::File,
    shell: Child,
}

impl Background {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        App::todo().write(folder.path());
        let pty = openpty(None, None).unwrap();
        let script = "stty tostop; set -m; \"$0\" run \"$1\" --listen 127.0.0.1:0 --workers 2 & echo $! > \"$1/pid\"; wait";
        let mut command = Command::new("setsid");
        command.args(["--ctty", "sh", "-c", script]).arg(executable()).arg(folder.path());
        let stdio = || Stdio::from(pty.slave.try_clone().unwrap());
        let shell = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
        Self { folder, terminal: pty.master.into(), shell }
    }

    /// Reads what is shown until this is.
    fn until(&mut self, shown: &str) -> String {
        let (mut text, mut bytes) = (String::new(), [0; 4096]);
        while !text.contains(shown) {
            let mut polled = [PollFd::new(self.terminal.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut polled, PollTimeout::try_from(WAIT).unwrap()).unwrap();
            assert!(ready > 0, "{shown:?} is not shown, but {text:?}");
            let count = self.terminal.read(&mut bytes).unwrap();
            text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        text
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.folder.path().join("pid")).unwrap_or_default();
        if let Ok(pid) = pid.trim().parse() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL); // unless it is gone
        }
        let _ = self.shell.wait();
    }
}

#[test]
fn a_terminal_that_stops_background_output_shows_what_a_host_says_and_stops_nothing() {
    let mut host = Background::start();
    host.until("listening on http://");
    let control = host.folder.path().join("data/control.sock");
    let ask = |word: &str| {
        let asked = Command::new(executable()).args([word, "--control"]).arg(&control).output().unwrap();
        assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
        String::from_utf8(asked.stdout).unwrap()
    };
    ask("restart");
    let status = ask("status");
    assert!(status.contains("2/2 serving"), "{status}");
    ask("stop");
    assert!(host.shell.wait().unwrap().success());
}

#[test]
fn a_reload_to_a_log_file_that_cannot_be_opened_is_rejected_and_the_old_one_stays() {
    let named = |file: &str| format!("{QUICK}[log]\nfile = \"{file}\"\n");
    let cluster = Cluster::start(App::todo().settings(&named("first.log")), 1);
    fs::create_dir(cluster.folder().join("second.log")).unwrap();
    fs::write(cluster.folder().join("aegis.toml"), named("second.log")).unwrap();
    let refused = cluster.aegis(&["reload"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{told}");
    assert!(
        told.contains("log.file: opening the log file ")
            && told.contains("second.log failed: Is a directory"),
        "{told}"
    );
    let log = fs::read_to_string(cluster.folder().join("first.log")).unwrap();
    assert!(log.contains("reload (job 2): rejected"), "{log}");
    fs::write(cluster.folder().join("aegis.toml"), named("third.log")).unwrap();
    cluster.aegis_ok(&["reload"]);
    assert!(cluster.folder().join("third.log").exists());
}
