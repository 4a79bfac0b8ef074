//! Where log lines go.
//!
//! All processes of a host write to standard error. With `log.file` set, the supervisor opens that file for appending
//! and puts it in the place of its own standard error, which every child inherits. After a rotation it opens the file
//! anew, replaces its descriptor in one atomic step and sends the new one to each child: no line is lost or split.

use std::{
    fs::OpenOptions,
    io::{self, IsTerminal, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt, OpenOptionsExt},
    },
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::{
    fcntl::OFlag,
    sys::signal::{SigSet, SigmaskHow, Signal},
};
use rustix::{
    event::{PollFd, PollFlags},
    fs::{FileType, OFlags},
    io::Errno,
};

use crate::{SupervisorError, listen::make_parent};

/// Opens the log file and makes it our standard error. The descriptor that comes back is for the children.
pub fn redirect(path: &Path) -> Result<OwnedFd, SupervisorError> {
    let file = open(path)?;
    nix::unistd::dup2_stderr(&file)
        .map_err(|error| failed("writing standard error to", path, error.into()))?;
    Ok(file)
}

/// Opens a log file, or makes it.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, SupervisorError> {
    make_parent(path)?;
    let mut options = OpenOptions::new();
    // Without NONBLOCK, a named pipe would hold us up until somebody reads it.
    options.append(true).create(true).mode(0o640).custom_flags(OFlag::O_NONBLOCK.bits());
    let file = options.open(path).map_err(|error| failed("opening", path, explained(path, error)))?;
    // Only opening must not wait: a process that writes in one piece counts on being able to.
    rustix::fs::fcntl_getfl(&file)
        .and_then(|flags| rustix::fs::fcntl_setfl(&file, flags.difference(OFlags::NONBLOCK)))
        .map_err(|error| failed("opening", path, error.into()))?;
    Ok(file.into())
}

/// The kernel's own words for a pipe without a reader are about a device.
fn explained(path: &Path, error: io::Error) -> io::Error {
    let is_unread = error.raw_os_error() == Some(Errno::NXIO.raw_os_error())
        && std::fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
    if is_unread { io::Error::other("it is a pipe that nobody reads") } else { error }
}

fn failed(operation: &str, path: &Path, error: io::Error) -> SupervisorError {
    SupervisorError::os(format!("{operation} the log file {}", path.display()), error)
}

/// As [`redirect`], when a host starts whose log goes to a file: standard error as it was before, for what has to be said
/// there nevertheless.
pub(crate) fn redirect_first(log_file: Option<&Path>) -> Result<Option<OwnedFd>, SupervisorError> {
    let Some(path) = log_file else { return Ok(None) };
    let before = io::stderr().as_fd().try_clone_to_owned().ok();
    redirect(path)?;
    Ok(before)
}

/// Says on what was standard error before that a start has failed, and why: whoever has started the host looks there.
pub(crate) fn tell_failed_start(before: &OwnedFd, reason: &str, log_file: &Path) {
    let line = format!("aegis: the start failed: {reason} (log: {})\n", log_file.display());
    // Nobody is waited for, as with the lines of the log, where it is as well.
    let _ = unstopped(before, || write_now(before, line.as_bytes()));
}

/// Standard error for a process that must never wait for whoever reads it: what does not fit into a full pipe is
/// dropped, and the number of dropped lines is told once there is room again.
#[derive(Debug, Clone, Copy, Default)]
pub struct PatientStderr;

/// Lines that were dropped and not yet told about.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Counts from none: those that a child was forked with are its parent's, which tells about them.
pub(crate) fn count_anew() {
    DROPPED.store(0, Ordering::Relaxed);
}

/// Bytes that a pipe which polls as writable takes at once (`PIPE_BUF`), whole or not at all.
const PIPE_BYTES: usize = 4096;
/// Most attempts to write one piece: signals may interrupt each.
const ATTEMPTS_MAX: usize = 8;

impl Write for PatientStderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        unstopped(&stderr, || write_or_drop(&stderr, line, &DROPPED));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to `output`, whoever has the terminal that it may be. One that stops background output (`stty tostop`) sends TTOU to
/// who writes and takes nothing, and does so again for every new attempt that follows a handler, which the kernel makes by
/// itself; while the signal is blocked, it takes what is written.
pub(crate) fn unstopped<T>(output: &impl IsTerminal, write: impl FnOnce() -> T) -> T {
    if !output.is_terminal() {
        return write();
    }
    let before = SigSet::from(Signal::SIGTTOU).thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let outcome = write();
    if let Ok(before) = before {
        let _ = before.thread_set_mask(); // it was the mask a moment ago
    }
    outcome
}

fn write_or_drop(output: &impl AsFd, line: &[u8], dropped: &AtomicU64) {
    let before = dropped.swap(0, Ordering::Relaxed);
    let notice = format!("({before} log lines dropped: nobody read standard error)\n");
    let told = before == 0 || write_now(output, notice.as_bytes());
    if !told {
        dropped.fetch_add(before, Ordering::Relaxed);
    }
    if !told || !write_now(output, line) {
        dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes as much as is taken without waiting; whether that was everything.
fn write_now(output: &impl AsFd, bytes: &[u8]) -> bool {
    // A file takes everything at once, so that lines of several processes never mix; nobody can make it wait.
    let piece_bytes = if bytes.len() > PIPE_BYTES && is_file(output) { bytes.len() } else { PIPE_BYTES };
    for piece in bytes.chunks(piece_bytes) {
        let mut rest = piece;
        for _ in 0..ATTEMPTS_MAX {
            if rest.is_empty() || !takes_now(output) {
                break;
            }
            match rustix::io::write(output, rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => return false,
            }
        }
        if !rest.is_empty() {
            return false;
        }
    }
    true
}

fn is_file(output: &impl AsFd) -> bool {
    let kind = rustix::fs::fstat(output).map(|status| FileType::from_raw_mode(status.st_mode));
    kind == Ok(FileType::RegularFile)
}

fn takes_now(output: &impl AsFd) -> bool {
    let mut polled = [PollFd::new(output, PollFlags::OUT)];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&now)).is_ok_and(|ready| ready == 1)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read, sync::mpsc, thread, time::Duration};

    use nix::sys::stat::Mode;

    use super::*;
    use crate::with_causes;

    #[test]
    fn a_reader_that_sleeps_costs_lines_and_not_time() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let dropped = AtomicU64::new(0);
        let line = [b"x".repeat(999).as_slice(), b"\n"].concat();
        for _ in 0..1000 {
            write_or_drop(&writer, &line, &dropped);
        }
        let lost = dropped.load(Ordering::Relaxed);
        assert!((1..1000).contains(&lost), "{lost}");

        let mut reader = File::from(reader);
        let mut taken = vec![0; 8192];
        reader.read_exact(&mut taken).unwrap();
        write_or_drop(&writer, b"awake\n", &dropped);
        drop(writer);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        let told = format!("({lost} log lines dropped: nobody read standard error)\nawake\n");
        assert!(rest.ends_with(&told), "{:?}", &rest[rest.len() - 200..]);
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_long_line_is_written_whole_into_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let file = File::create(&path).unwrap();
        let line = b"y".repeat(100_000);
        write_or_drop(&file, &line, &AtomicU64::new(0));
        assert_eq!(std::fs::read(&path).unwrap(), line);
    }

    /// Opens it in a thread, so that whoever waits for a reader is noticed.
    fn opened(path: &Path) -> Result<OwnedFd, SupervisorError> {
        let (sender, receiver) = mpsc::channel();
        let path = path.to_owned();
        thread::spawn(move || sender.send(open(&path)));
        receiver.recv_timeout(Duration::from_secs(20)).expect("opening a log file waits for nobody")
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_refused_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let told = with_causes(&opened(&path).unwrap_err());
        insta::assert_snapshot!(
            told.replace(&directory.path().display().to_string(), "LOGS"),
            @"opening the log file LOGS/pipe failed: it is a pipe that nobody reads"
        );
    }

    #[test]
    fn whoever_writes_into_a_log_file_or_a_pipe_may_wait() {
        let directory = tempfile::tempdir().unwrap();
        let [pipe, file] = ["pipe", "file"].map(|name| directory.path().join(name));
        nix::unistd::mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let mut reader =
            OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&pipe).unwrap();
        for path in [&pipe, &file] {
            let log = opened(path).unwrap();
            let flags = rustix::fs::fcntl_getfl(&log).unwrap();
            assert!(!flags.contains(OFlags::NONBLOCK), "{flags:?}");
            assert!(flags.contains(OFlags::APPEND), "{flags:?}");
            write_or_drop(&log, b"line\n", &AtomicU64::new(0));
        }
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "line\n");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "line\n");
    }
}
