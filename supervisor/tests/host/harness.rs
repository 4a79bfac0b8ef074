//! A host to tell stories about.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use aegis_ipc::operator::{Job, Reply, Request, Status, Verdict};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `condition` gives something.
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// The answers to a request that was sent, up to the last one.
pub(crate) fn answers(stream: UnixStream) -> Vec<Reply> {
    let mut replies = Vec::new();
    for line in BufReader::new(stream).lines() {
        let reply: Reply = serde_json::from_str(&line.unwrap()).unwrap();
        let last = !matches!(reply, Reply::Accepted { .. } | Reply::Progress { .. });
        replies.push(reply);
        if last {
            break;
        }
    }
    replies
}

/// The verdict on a request that was sent.
pub(crate) fn verdict(stream: UnixStream) -> Verdict {
    match answers(stream).pop() {
        Some(Reply::Job(Job { verdict: Some(verdict), .. })) => verdict,
        other => panic!("no verdict: {other:?}"),
    }
}

/// A running host.
pub(crate) struct Host {
    folder: tempfile::TempDir,
    process: Child,
    control: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Host {
    /// Starts a host with this configuration, besides the listening address, and waits until it serves.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_with(config, |_| ())
    }

    /// The same, with changes to the command that starts it.
    pub(crate) fn start_with(config: &str, change: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("modules")).unwrap();
        let mut host = Self::in_folder(folder, config, change);
        host.read_address();
        host
    }

    fn in_folder(folder: tempfile::TempDir, config: &str, change: impl FnOnce(&mut Command)) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let path = folder.path().join("aegis.toml");
        if !path.exists() {
            std::fs::write(&path, format!("listen = [\"{address}\"]\n{config}")).unwrap();
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("run").arg(folder.path()).stdout(Stdio::piped()).stdin(Stdio::null());
        change(&mut command);
        let process = command.spawn().unwrap();
        let control = crate::puppet::load(folder.path()).control_socket;
        Self { folder, process, control, address }
    }

    /// Ends this supervisor with SIGKILL and starts another one in the same folder.
    pub(crate) fn replace_after_kill(mut self) -> Self {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join("aegis.toml"), self.config_with_address()).unwrap();
        let mut next = Self::in_folder(folder, "", |_| ());
        next.read_address();
        next
    }

    fn config_with_address(&self) -> String {
        format!("listen = [\"{}\"]\n[workers]\ncount = 2\norphan_grace = \"2s\"\n", self.address)
    }

    fn read_address(&mut self) {
        let mut line = String::new();
        BufReader::new(self.process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let address = line.strip_prefix("listening on http://").unwrap_or_else(|| panic!("{line:?}"));
        self.address = address.trim_end().parse().unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Tells the puppets something, by a file in the modules folder.
    pub(crate) fn tell(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join("modules").join(name), text).unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid() as i32), signal).unwrap();
    }

    /// Process and generation of whoever answers a client.
    pub(crate) fn ask(&self) -> (u32, u64) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut line = String::new();
        stream.read_to_string(&mut line).unwrap();
        let (pid, generation) = line.trim_end().split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        (pid.parse().unwrap(), generation.parse().unwrap())
    }

    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.control).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    }

    /// Sends a request, whose answers come over the connection.
    pub(crate) fn send(&self, request: &Request) -> UnixStream {
        let mut stream = self.connect();
        let mut line = serde_json::to_vec(request).unwrap();
        line.push(b'\n');
        stream.write_all(&line).unwrap();
        stream
    }

    /// Sends a request and returns the answers up to the last one.
    pub(crate) fn request(&self, request: &Request) -> Vec<Reply> {
        answers(self.send(request))
    }

    /// Sends a request and returns its verdict.
    pub(crate) fn verdict(&self, request: &Request) -> Verdict {
        verdict(self.send(request))
    }

    pub(crate) fn status(&self) -> Status {
        match self.request(&Request::Status).pop() {
            Some(Reply::Status(status)) => *status,
            other => panic!("no status: {other:?}"),
        }
    }

    /// Waits until `count` workers serve and nobody else is left.
    pub(crate) fn settled(&self, count: usize) -> Status {
        eventually(&format!("{count} workers serve"), || {
            let status = self.status();
            let serving = status.workers.iter().filter(|worker| worker.state == "serving").count();
            (serving == count && status.workers.len() == count).then_some(status)
        })
    }

    /// A script in the folder of the host.
    pub(crate) fn script(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path: PathBuf = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Open descriptors of the supervisor.
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Waits for the end of the supervisor.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        eventually("the supervisor ends", || self.process.try_wait().unwrap())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Children see the end of their control socket and leave.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
