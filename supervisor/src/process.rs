//! Start, signal, reap and measure child processes.
//!
//! A child that runs the image of the supervisor is forked and goes on in it, with nothing to load. One that runs another
//! image, while an upgrade is under way, executes an open descriptor of that, so that it is the same program whatever happens
//! to the file meanwhile. Signals go through a process descriptor and so never to a stranger who got the same number.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::Read,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{fs::FileExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use aegis_ipc::handoff::HANDOFF_VARIABLE;
use rustix::{
    fs::{Mode, OFlags},
    io::FdFlags,
    process::{Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, WaitIdStatus, WaitOptions},
};
use serde::{Deserialize, Serialize};

use crate::{SupervisorError, logs, notify::SERVICE_MANAGER_VARIABLES, signals, upgrade::RETURN_VARIABLE};

mod name;
mod shown;

/// Variables that are there for a supervisor, or that only a supervisor sets for a child.
const NOT_FOR_CHILDREN: [&str; 8] = {
    let [first, second, third, fourth, fifth, sixth] = SERVICE_MANAGER_VARIABLES;
    [first, second, third, fourth, fifth, sixth, HANDOFF_VARIABLE, RETURN_VARIABLE]
};

/// An executable, held open.
#[derive(Debug)]
pub struct Image {
    file: File,
    path: PathBuf,
}

impl Image {
    /// The image this process runs, by the name that it was called by, if that is certain: a link may lead elsewhere one day.
    pub fn running() -> Result<Self, SupervisorError> {
        let link = "/proc/self/exe";
        let file = File::open(link).map_err(|error| SupervisorError::os(format!("opening {link}"), error))?;
        if let Some(path) = name::of(&file) {
            return Ok(Self { file, path });
        }
        let path = std::fs::read_link(link)
            .map_err(|error| SupervisorError::os(format!("reading {link}"), error))?;
        Ok(Self { file, path: without_deleted_mark(&path) })
    }

    /// The executable at `path`, after a look at whether it can be one: a regular file that we may execute and that
    /// begins like an ELF image or a script.
    pub fn open(path: &Path) -> Result<Self, SupervisorError> {
        let refused = |reason: String| SupervisorError::NotExecutable { path: path.to_owned(), reason };
        // Without NONBLOCK, a named pipe would hold us up until somebody writes into it.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::open(path, flags, Mode::empty()).map(File::from);
        let file = file.map_err(|error| refused(error.to_string()))?;
        let metadata = file.metadata().map_err(|error| refused(error.to_string()))?;
        if !metadata.is_file() {
            return Err(refused("it is not a regular file".to_owned()));
        }
        rustix::fs::access(path, rustix::fs::Access::EXEC_OK).map_err(|error| refused(error.to_string()))?;
        let mut start = Vec::new();
        (&file).take(4).read_to_end(&mut start).map_err(|error| refused(error.to_string()))?;
        if start != b"\x7fELF" && !start.starts_with(b"#!") {
            return Err(refused("it is neither an ELF image nor a script".to_owned()));
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// Continues with a descriptor that was opened before an exec.
    #[must_use]
    pub fn from_descriptor(descriptor: OwnedFd, path: PathBuf) -> Self {
        Self { file: File::from(descriptor), path }
    }

    /// Whether this is the same file as `other`: not one with the same content or at the same place.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let file = |image: &Self| image.file.metadata().map(|about| (about.dev(), about.ino()));
        matches!((file(self), file(other)), (Ok(ours), Ok(theirs)) if ours == theirs)
    }

    /// Where the file was when it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same image, which is known to be at `path`, or to have been there.
    pub(crate) fn rename(&mut self, path: PathBuf) {
        self.path = path;
    }
}

impl AsFd for Image {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Lets this process and its children open as many descriptors as the administrator allows. The usual soft limit of
/// 1024 is for programs that use `select`; a worker needs one descriptor per connection.
pub fn raise_descriptor_limit() -> Result<(), SupervisorError> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(Resource::Nofile, raised)
        .map_err(|error| SupervisorError::os("raising the limit on open descriptors", error))
}

/// The kernel marks the link of a running image whose file was replaced; the path without it is where the new file is.
fn without_deleted_mark(path: &Path) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    let bytes = path.as_os_str().as_bytes();
    PathBuf::from(OsStr::from_bytes(bytes.strip_suffix(b" (deleted)").unwrap_or(bytes)))
}

/// What to start.
#[derive(Debug)]
pub struct Launch<'a> {
    /// The executable.
    pub image: &'a Image,
    /// Arguments after the program name.
    pub arguments: &'a [OsString],
    /// What it finds in its environment.
    pub environment: Environment<'a>,
    /// Descriptors that the child inherits under their numbers, besides standard error.
    pub keep: &'a [BorrowedFd<'a>],
}

/// What a child finds in its environment.
#[derive(Debug, Clone, Copy)]
pub enum Environment<'a> {
    /// Ours, without what the service manager meant for us, and these variables.
    Child(&'a [(&'a str, String)]),
    /// Ours as it is: the child rehearses being us, and is gone when we are.
    Own,
}

/// A child process.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    descriptor: OwnedFd,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Ending {
    /// It exited with this status.
    Exited(u8),
    /// This signal killed it.
    Killed(i32),
}

impl Process {
    /// Starts a child in a process group of its own, so that a key press in our terminal does not reach it.
    pub fn spawn(launch: &Launch<'_>) -> Result<Self, SupervisorError> {
        let failed = |error| {
            SupervisorError::os(
                format!("starting {:?} of {}", launch.arguments, launch.image.path.display()),
                error,
            )
        };
        let mut command = Command::new(descriptor_path(launch.image.as_fd()));
        command
            .arg0("aegis")
            .args(launch.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0);
        match launch.environment {
            Environment::Child(variables) => {
                for variable in NOT_FOR_CHILDREN {
                    command.env_remove(variable);
                }
                command.envs(variables.iter().map(|(name, value)| (name, value)));
            }
            // It has our lock and our sockets, and may be anything that runs.
            Environment::Own => aegis_ipc::fork::bind_to_life_of_parent(&mut command),
        }
        let child = {
            let _inheritable = Inheritable::mark(launch.keep).map_err(failed)?;
            command.spawn().map_err(failed)?
        };
        // Nobody but us reaps it, so the number still means the child when its descriptor is opened.
        Self::adopt(child.id()).inspect_err(|_| {
            let mut child = child;
            let _ = child.kill();
            let _ = child.wait();
        })
    }

    /// Starts a child that goes on in the image of this process, as `life` says, in a process group of its own. It has the
    /// descriptors of `keep`, and standard error. In lists of processes it is called after `arguments`, as if it had been
    /// started with them.
    ///
    /// Only for a process with one thread, of which the child needs nothing that has a descriptor.
    pub fn fork(
        keep: &[BorrowedFd<'_>],
        arguments: &[OsString],
        life: impl FnOnce() -> u8 + 'static,
    ) -> Result<Self, SupervisorError> {
        let command_line = shown::command_line(arguments);
        let pid = aegis_ipc::fork::live_on(keep, move |closed| {
            logs::count_anew();
            match become_child(closed, &command_line) {
                Ok(()) => life(),
                Err(error) => {
                    tracing::error!("a child: {}", crate::with_causes(&error));
                    error.exit_code()
                }
            }
        })?;
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        // The child does it as well: whoever comes first. It may be gone already.
        let _ = rustix::process::setpgid(number, number);
        Self::adopt(pid).inspect_err(|_| {
            if let Some(number) = number {
                let _ = rustix::process::kill_process(number, Signal::KILL);
                let _ = rustix::process::waitpid(Some(number), WaitOptions::empty());
            }
        })
    }

    /// A process that is our child already.
    pub fn adopt(pid: u32) -> Result<Self, SupervisorError> {
        let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let descriptor = number
            .ok_or(rustix::io::Errno::INVAL)
            .and_then(|number| rustix::process::pidfd_open(number, PidfdFlags::empty()))
            .map_err(|error| SupervisorError::os(format!("opening a descriptor of process {pid}"), error))?;
        Ok(Self { pid, descriptor })
    }

    /// Continues with a process descriptor that was opened before an exec.
    #[must_use]
    pub fn from_descriptor(pid: u32, descriptor: OwnedFd) -> Self {
        Self { pid, descriptor }
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal. A process that is gone already is no error.
    pub fn signal(&self, signal: Signal) {
        match rustix::process::pidfd_send_signal(&self.descriptor, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::warn!(pid = self.pid, ?signal, %error, "sending a signal failed"),
        }
    }

    /// Kills it and whatever it started itself. Only before it is reaped: until then its number is nobody else's.
    pub fn kill_group(&self) {
        let group = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(Err(error)) = group.map(|group| rustix::process::kill_process_group(group, Signal::KILL))
        {
            tracing::warn!(pid = self.pid, %error, "killing a process group failed");
        }
    }

    /// Kills it and takes its exit status: a child that nobody would hear of again.
    pub fn put_down(&self) {
        self.signal(Signal::KILL);
        let gone = rustix::process::waitid(WaitId::PidFd(self.descriptor.as_fd()), WaitIdOptions::EXITED);
        if let Err(error) = gone {
            tracing::warn!(pid = self.pid, %error, "reaping a killed process failed");
        }
    }

    /// How it ended, or `None` while it lives. The zombie is gone after the first `Some`.
    pub fn reap(&self) -> Result<Option<Ending>, SupervisorError> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = rustix::process::waitid(WaitId::PidFd(self.descriptor.as_fd()), options)
            .map_err(|error| SupervisorError::os(format!("reaping process {}", self.pid), error))?;
        Ok(status.as_ref().map(ending))
    }

    /// Resident memory in bytes, 0 once it is gone.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let mut bytes = [0; 128];
        let read =
            File::open(format!("/proc/{}/statm", self.pid)).and_then(|file| file.read_at(&mut bytes, 0));
        let text = read.ok().and_then(|length| std::str::from_utf8(&bytes[..length]).ok());
        let pages = text.and_then(|text| text.split(' ').nth(1)).and_then(|pages| pages.parse::<u64>().ok());
        pages.unwrap_or(0) * rustix::param::page_size() as u64
    }
}

impl AsFd for Process {
    /// Becomes readable when the process ends.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Gives a child what it would have if its image was executed: a process group of its own, no standard input and output, all
/// signals, its command line, and an environment without what is meant for its parent.
fn become_child(closed: std::io::Result<()>, command_line: &[u8]) -> Result<(), SupervisorError> {
    closed.map_err(|error| SupervisorError::os("closing what it was not given", error))?;
    let failed = |error: std::io::Error| SupervisorError::os("becoming one", error);
    rustix::process::setpgid(None, None).map_err(|error| failed(error.into()))?;
    let nothing = File::options().read(true).write(true).open("/dev/null").map_err(failed)?;
    nix::unistd::dup2_stdin(&nothing).map_err(|error| failed(error.into()))?;
    nix::unistd::dup2_stdout(&nothing).map_err(|error| failed(error.into()))?;
    signals::let_all_through()?;
    if let Err(error) = shown::change(command_line, &NOT_FOR_CHILDREN) {
        tracing::debug!(%error, "a child goes by the command line and the environment of the supervisor");
    }
    Ok(())
}

/// How often the kernel killed a process of our control group because memory ran out.
#[derive(Debug)]
pub struct MemoryKills {
    events: Option<PathBuf>,
    seen: u64,
}

impl MemoryKills {
    /// Starts to count. Without a control group of version 2 it never finds any.
    #[must_use]
    pub fn new() -> Self {
        let group = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let path = group.lines().find_map(|line| line.strip_prefix("0::/"));
        let events = path.map(|path| Path::new("/sys/fs/cgroup").join(path).join("memory.events"));
        let mut kills = Self { events, seen: 0 };
        kills.seen = kills.count();
        kills
    }

    /// Whether there was one that was not taken yet. Each explains the end of one process.
    pub fn take_one(&mut self) -> bool {
        let is_one = self.count() > self.seen;
        self.seen += u64::from(is_one);
        is_one
    }

    fn count(&self) -> u64 {
        let text = self.events.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
        text.as_deref().map_or(0, memory_kills)
    }
}

impl Default for MemoryKills {
    fn default() -> Self {
        Self::new()
    }
}

/// The count in the text of `memory.events`.
fn memory_kills(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

fn ending(status: &WaitIdStatus) -> Ending {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ending::Exited(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        (None, signal) => Ending::Killed(signal.unwrap_or(0)),
    }
}

/// Descriptors that are inheritable while this value lives. Only right because the process has one thread: nobody else
/// can start a child meanwhile.
pub(crate) struct Inheritable<'a> {
    descriptors: &'a [BorrowedFd<'a>],
}

impl<'a> Inheritable<'a> {
    pub(crate) fn mark(descriptors: &'a [BorrowedFd<'a>]) -> std::io::Result<Self> {
        let guard = Self { descriptors };
        for descriptor in descriptors {
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        Ok(guard)
    }
}

impl Drop for Inheritable<'_> {
    fn drop(&mut self) {
        for descriptor in self.descriptors {
            if let Err(error) = rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC) {
                tracing::error!(descriptor = descriptor.as_raw_fd(), %error, "a descriptor stays inheritable");
            }
        }
    }
}

/// A path by which a forked child reaches the file behind `descriptor`, which keeps its number there.
fn descriptor_path(descriptor: BorrowedFd<'_>) -> OsString {
    OsString::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}

#[cfg(test)]
mod tests;
