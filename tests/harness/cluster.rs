//! Starts and stops real processes on port 0; keeps their logs when a test fails.

use std::{
    collections::HashMap,
    env,
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    net::SocketAddr,
    os::unix::{fs::symlink, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use aegis_ipc::operator::{Reply, Request, Status, WorkerStatus};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    App, Client, Connection, Disk,
    compiled::compile_first,
    wait::{eventually, eventually_some},
};

/// Time a cluster may take to start or stop in a test; generous, the machine may be busy.
pub const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Folder of the app at which the disk of a host is mounted.
pub const DISK_FOLDER: &str = "disk";

/// How a cluster is started.
#[derive(Debug, Clone)]
pub struct Start {
    app: App,
    workers: Option<u32>,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    listen: String,
    compiles_first: bool,
    disk_bytes: Option<u64>,
    disk: Option<Arc<Disk>>,
    link: Option<PathBuf>,
}

/// A running host.
pub struct Cluster {
    folder: Option<TempDir>,
    path: PathBuf,
    start: Start,
    supervisor: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Lines it printed to standard output.
    pub announced: Vec<String>,
}

/// The executable under test: `AEGIS_BIN`, or the one built beside the test.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn executable() -> PathBuf {
    if let Some(path) = env::var_os("AEGIS_BIN") {
        return PathBuf::from(path);
    }
    let this = env::current_exe().expect("the path of the running test");
    let mut folder = this.parent().expect("a test lies in a folder");
    if folder.ends_with("deps") {
        folder = folder.parent().expect("deps lies in the profile's folder");
    }
    let path = folder.join("aegis");
    assert!(path.exists(), "{} is missing: run `cargo build -p aegis` first", path.display());
    path
}

impl Start {
    /// Starts `app` with two workers.
    #[must_use]
    pub fn app(app: App) -> Self {
        Self {
            app,
            workers: Some(2),
            arguments: Vec::new(),
            environment: Vec::new(),
            listen: "127.0.0.1:0".to_owned(),
            compiles_first: false,
            disk_bytes: None,
            disk: None,
            link: None,
        }
    }

    /// With so many workers.
    #[must_use]
    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = Some(workers);
        self
    }

    /// With as many workers as its configuration says.
    #[must_use]
    pub fn workers_as_configured(mut self) -> Self {
        self.workers = None;
        self
    }

    /// With one more argument.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// With one more environment variable.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With its components compiled before it starts, so that this does not count as starting.
    #[must_use]
    pub fn compiled_first(mut self) -> Self {
        self.compiles_first = true;
        self
    }

    /// With its data on a disk of so many bytes. The app's `data_dir` has to be [`DISK_FOLDER`].
    #[must_use]
    pub fn disk(mut self, bytes: u64) -> Self {
        self.disk_bytes = Some(bytes);
        self
    }

    /// By way of a symbolic link, which is made.
    #[must_use]
    pub fn through(mut self, link: &Path) -> Self {
        self.link = Some(link.to_owned());
        self
    }

    /// Starts and waits until it listens.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(mut self) -> Cluster {
        let folder = tempfile::Builder::new().prefix("aegis-test-").tempdir().expect("a temporary folder");
        self.app.write(folder.path());
        let path = folder.path().to_owned();
        if self.compiles_first {
            compile_first(&path);
        }
        if let Some(link) = &self.link {
            symlink(&path, link).expect("link to the app");
        }
        self.disk = self.disk_bytes.map(|bytes| Arc::new(Disk::mount(&path.join(DISK_FOLDER), bytes)));
        let (supervisor, announced, address) = self.spawn(&path);
        Cluster { folder: Some(folder), path, start: self, supervisor, address, announced }
    }

    /// The command that starts it in `folder`, not yet run.
    #[must_use]
    pub fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(executable());
        command.arg("run").arg(self.link.as_deref().unwrap_or(folder)).args(["--listen", &self.listen]);
        if let Some(workers) = self.workers {
            command.args(["--workers", &workers.to_string()]);
        }
        command.args(&self.arguments);
        if let Some(disk) = &self.disk {
            command = disk.within(&command);
        }
        command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null());
        command
    }

    fn spawn(&self, folder: &Path) -> (Child, Vec<String>, SocketAddr) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(folder.join("host.log"))
            .expect("open the log of the host");
        let mut child = self
            .command(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .spawn()
            .expect("start the host");
        let stdout = child.stdout.take().expect("standard output is piped");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        match lines.recv_timeout(START_TIMEOUT) {
            Ok(line) => {
                let address = line
                    .strip_prefix("listening on http://")
                    .and_then(|text| text.parse().ok())
                    .unwrap_or_else(|| panic!("unexpected first line {line:?}"));
                (child, vec![line], address)
            }
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                let log = fs::read_to_string(folder.join("host.log")).unwrap_or_default();
                panic!("the host did not start; its log:\n{log}");
            }
        }
    }
}

impl Cluster {
    /// Starts `app` with `workers` workers.
    #[must_use]
    pub fn start(app: App, workers: u32) -> Self {
        Start::app(app).workers(workers).start()
    }

    /// The app folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.path
    }

    /// The disk of its own.
    ///
    /// # Panics
    /// When it was started without one.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        self.start.disk.as_deref().expect("the host has a disk of its own")
    }

    /// What the host has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.path.join("host.log")).unwrap_or_default()
    }

    /// A client.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// A connection to the operators' HTTP listener.
    ///
    /// # Panics
    /// When nobody listens there.
    #[must_use]
    pub fn admin(&self) -> Connection {
        Connection::open_unix(&self.path.join("data/admin.sock"), START_TIMEOUT)
            .unwrap_or_else(|failure| panic!("admin socket: {failure}"))
    }

    /// GET from the operators' HTTP listener, as text.
    #[must_use]
    pub fn admin_get(&self, path: &str) -> String {
        let headers = [("connection", "close")];
        let response = self.admin().request("GET", path, &headers, b"");
        response.unwrap_or_else(|failure| panic!("GET {path} from the admin socket: {failure}")).text()
    }

    /// Process id of the supervisor.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.supervisor.id()
    }

    /// Runs an `aegis` command against this host.
    pub fn aegis(&self, arguments: &[&str]) -> Output {
        Command::new(executable())
            .args(arguments)
            .arg("--control")
            .arg(self.path.join("data/control.sock"))
            .stdin(Stdio::null())
            .output()
            .expect("run aegis")
    }

    /// Runs an `aegis` command that must succeed.
    pub fn aegis_ok(&self, arguments: &[&str]) -> String {
        let output = self.aegis(arguments);
        assert!(
            output.status.success(),
            "aegis {arguments:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Asks the supervisor over its control socket; the first answer.
    pub fn ask(&self, request: &Request) -> io::Result<Reply> {
        let mut stream = UnixStream::connect(self.path.join("data/control.sock"))?;
        stream.set_read_timeout(Some(START_TIMEOUT))?;
        stream.write_all(format!("{}\n", serde_json::to_string(request)?).as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// The state of the host.
    ///
    /// # Panics
    /// When the supervisor does not tell.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.ask(&Request::Status) {
            Ok(Reply::Status(status)) => *status,
            other => panic!("asked for the status, got {other:?}"),
        }
    }

    /// Workers that serve now.
    #[must_use]
    pub fn serving(&self) -> Vec<WorkerStatus> {
        self.status().workers.into_iter().filter(|worker| worker.state == "serving").collect()
    }

    /// Waits until exactly `count` workers serve and no other is alive.
    pub fn await_workers(&self, count: usize) -> Vec<WorkerStatus> {
        eventually_some(&format!("{count} workers, all serving"), START_TIMEOUT, || {
            let workers = self.status().workers;
            (workers.len() == count && workers.iter().all(|worker| worker.state == "serving"))
                .then_some(workers)
        })
    }

    /// Sends a signal to the supervisor.
    pub fn signal(&self, signal: Signal) {
        signal_process(self.pid(), signal);
    }

    /// Kills all processes of the host at once and starts it again on the same data and address. What they wrote and had not
    /// synced is still there: the kernel lives on, unlike after a power cut.
    pub fn kill_and_restart(&mut self) {
        // Stopped first, so that no child is made after the children were listed.
        self.signal(Signal::SIGSTOP);
        let stopped = || fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        eventually("the supervisor to be stopped", START_TIMEOUT, || stopped().contains(") T "));
        let children = self.children();
        self.signal(Signal::SIGKILL);
        for pid in &children {
            let _ = kill(Pid::from_raw(*pid as i32), Signal::SIGKILL);
        }
        let _ = self.supervisor.wait();
        self.restart();
    }

    /// Process ids of all children of the supervisor.
    ///
    /// # Panics
    /// When the system does not tell.
    #[must_use]
    pub fn children(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid());
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        text.split_whitespace().map(|pid| pid.parse().expect("a process id is a number")).collect()
    }

    /// Ends the host with SIGTERM and starts it again on the same data and address.
    pub fn stop_and_restart(&mut self) {
        self.signal(Signal::SIGTERM);
        assert!(self.wait_exit(START_TIMEOUT).success());
        self.restart();
    }

    /// Starts a host that has ended again, on the same data and address.
    pub fn restart(&mut self) {
        self.start.listen = self.address.to_string();
        let (supervisor, announced, address) = self.start.spawn(&self.path);
        assert_eq!(address, self.address);
        self.supervisor = supervisor;
        self.announced = announced;
    }

    /// Starts a host that has ended again, which is expected to end by itself at once: what it said.
    ///
    /// # Panics
    /// When it cannot be run.
    #[must_use]
    pub fn start_in_vain(&self) -> Output {
        let mut command = self.start.command(&self.path);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("start the host");
        let end = Instant::now() + START_TIMEOUT;
        while Instant::now() < end && matches!(child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        child.wait_with_output().expect("read what the host said")
    }

    /// Waits until the supervisor has ended by itself.
    ///
    /// # Panics
    /// When it has not within `deadline`.
    pub fn wait_exit(&mut self, deadline: Duration) -> ExitStatus {
        let supervisor = &mut self.supervisor;
        eventually_some("the supervisor to exit", deadline, || {
            supervisor.try_wait().expect("wait for the supervisor")
        })
    }

    /// Whether the supervisor has ended.
    pub fn has_exited(&mut self) -> bool {
        matches!(self.supervisor.try_wait(), Ok(Some(_)))
    }

    /// Sends a signal to the supervisor unless it has ended.
    pub fn signal_if_alive(&mut self, signal: Signal) {
        if !self.has_exited() {
            self.signal(signal);
        }
    }

    /// Open descriptors of the supervisor, by what they are.
    #[must_use]
    pub fn descriptors(&self) -> HashMap<String, usize> {
        let mut kinds = HashMap::new();
        let entries = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("list descriptors");
        for entry in entries.flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            let kind = target.to_string_lossy().split([':', '[']).next().unwrap_or_default().to_owned();
            *kinds.entry(kind).or_default() += 1;
        }
        kinds
    }
}

/// What a command said: its complaints, then the rest.
#[must_use]
pub fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// Sends a signal to any process of a host.
pub fn signal_process(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap_or_else(|error| panic!("{signal} to {pid}: {error}"));
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Ok(None) = self.supervisor.try_wait() {
            let _ = kill(Pid::from_raw(self.pid() as i32), Signal::SIGTERM);
            let end = Instant::now() + Duration::from_secs(10);
            while Instant::now() < end && matches!(self.supervisor.try_wait(), Ok(None)) {
                thread::sleep(Duration::from_millis(5));
            }
            let _ = self.supervisor.kill();
            let _ = self.supervisor.wait();
        }
        if thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            tell_where(&folder.keep());
        }
    }
}

#[expect(clippy::print_stderr, reason = "a failed test tells where its logs are")]
fn tell_where(folder: &Path) {
    eprintln!("the test failed; app, data and logs are kept in {}", folder.display());
    let log = fs::read_to_string(folder.join("host.log")).unwrap_or_default();
    let tail: Vec<&str> = log.lines().rev().take(40).collect();
    for line in tail.iter().rev() {
        eprintln!("  {line}");
    }
}
