//! What the service manager is told, in the protocol of `sd_notify(3)`.
//!
//! The socket is not blocking: a service manager that does not read never holds up the host. Turning points (ready,
//! reloading, stopping) that it did not take are kept and sent again; its queue may hold as few as ten datagrams
//! (`net.unix.max_dgram_qlen`). Nothing is sent when `NOTIFY_SOCKET` is not set.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    io::{self, ErrorKind},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use sd_notify::NotifyState;

use crate::SupervisorError;

/// Environment variables that belong to the supervisor and not to its children.
pub const SERVICE_MANAGER_VARIABLES: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// A longer status line is cut, bytes: the service manager throws a datagram of more than 4 KiB away as a whole.
const STATUS_BYTES_MAX: usize = 1024;
/// Turning points that are kept at most.
const WAITING_MAX: usize = 16;
/// See [`Notifier::retry_interval`].
const RETRY_BUSY: Duration = Duration::from_millis(50);
/// See [`Notifier::retry_interval`].
const RETRY_ABSENT: Duration = Duration::from_secs(1);

/// The way to the service manager, if there is one.
#[derive(Debug)]
pub struct Notifier {
    address: Option<OsString>,
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    /// The last status line that was taken.
    status: String,
    /// Turning points that were not taken yet.
    waiting: VecDeque<String>,
}

impl Notifier {
    /// Finds the service manager in the environment.
    #[must_use]
    pub fn from_environment() -> Self {
        let address = std::env::var_os("NOTIFY_SOCKET").filter(|value| !value.is_empty());
        Self::new(address, sd_notify::watchdog_enabled())
    }

    /// Talks to the socket `address` (`@` in front means the abstract namespace), which expects a sign of life every
    /// `watchdog`. A service manager that cannot be reached is no reason not to run.
    #[must_use]
    pub fn new(address: Option<OsString>, watchdog: Option<Duration>) -> Self {
        let (status, waiting) = (String::new(), VecDeque::new());
        let mut notifier = Self { address, socket: None, watchdog, status, waiting };
        if let Err(error) = notifier.connect() {
            tracing::warn!("{}", crate::with_causes(&error));
        }
        notifier
    }

    fn connect(&mut self) -> Result<(), SupervisorError> {
        self.socket = None;
        self.socket = self.address.as_deref().map(connect).transpose()?;
        Ok(())
    }

    /// Whether anybody is to be told.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.address.is_some()
    }

    /// How often a sign of life is to be sent: half of what the service manager allows.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|timeout| timeout / 2)
    }

    /// Serving, also after a reload.
    pub fn ready(&mut self, status: &str) {
        let status = cut(status);
        status.clone_into(&mut self.status);
        self.insist(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// A new line for people, sent only when it differs from the last one.
    pub fn status(&mut self, status: &str) {
        let status = cut(status);
        if self.status != status && self.mention(&[NotifyState::Status(status)]) {
            status.clone_into(&mut self.status);
        }
    }

    /// A reload began. Its time must ride in the same datagram, or the service manager counts the reload as failed.
    pub fn reloading(&mut self) {
        match NotifyState::monotonic_usec_now() {
            Ok(time) => self.insist(&[NotifyState::Reloading, time]),
            Err(error) => tracing::warn!(%error, "reading the clock for the service manager failed"),
        }
    }

    /// The host ends.
    pub fn stopping(&mut self, status: &str) {
        let status = cut(status);
        status.clone_into(&mut self.status);
        self.insist(&[NotifyState::Stopping, NotifyState::Status(status)]);
    }

    /// A sign of life.
    pub fn watchdog(&mut self) {
        self.mention(&[NotifyState::Watchdog]);
    }

    /// Asks for `more` time before a start, reload or stop counts as failed.
    pub fn extend_timeout(&mut self, more: Duration) {
        let microseconds = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
        self.mention(&[NotifyState::ExtendTimeoutUsec(microseconds)]);
    }

    /// After what time to [`retry`](Self::retry), when something that must arrive was not taken yet: soon, when the
    /// service manager is only busy.
    #[must_use]
    pub fn retry_interval(&self) -> Option<Duration> {
        let interval = if self.socket.is_some() { RETRY_BUSY } else { RETRY_ABSENT };
        (!self.waiting.is_empty()).then_some(interval)
    }

    /// Sends what was not taken yet, in order.
    pub fn retry(&mut self) {
        while let Some(datagram) = self.waiting.pop_front() {
            if !self.send(&datagram) {
                self.waiting.push_front(datagram);
                return;
            }
        }
    }

    /// Sends a turning point: it is kept until the service manager takes it.
    fn insist(&mut self, states: &[NotifyState<'_>]) {
        if !self.is_wanted() {
            return;
        }
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_front(); // the service manager is asleep; only the latest turns matter when it wakes up
        }
        self.waiting.push_back(datagram(states));
        self.retry();
    }

    /// Sends something that the next of its kind makes good for. Whether it was taken.
    fn mention(&mut self, states: &[NotifyState<'_>]) -> bool {
        self.retry();
        self.is_wanted() && self.waiting.is_empty() && self.send(&datagram(states))
    }

    fn send(&mut self, datagram: &str) -> bool {
        let sent = self.socket.as_ref().map(|socket| socket.send(datagram.as_bytes()));
        let outcome = match sent {
            Some(Err(error)) if !is_closed(&error) => Err(error),
            Some(Ok(_)) => return true,
            // The service manager is another one by now.
            Some(Err(_)) | None => {
                if let Err(error) = self.connect() {
                    tracing::debug!("{}", crate::with_causes(&error));
                }
                let Some(socket) = &self.socket else { return false };
                socket.send(datagram.as_bytes()).map(drop)
            }
        };
        if let Err(error) = &outcome {
            tracing::debug!(%error, datagram, "the service manager does not take a notification now");
        }
        outcome.is_ok()
    }
}

fn cut(status: &str) -> &str {
    &status[..status.floor_char_boundary(STATUS_BYTES_MAX)]
}

fn datagram(states: &[NotifyState<'_>]) -> String {
    let mut datagram = String::new();
    for state in states {
        // One assignment per line: a line break inside a value would begin another one.
        datagram.push_str(&state.to_string().replace('\n', " "));
        datagram.push('\n');
    }
    datagram
}

fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused | ErrorKind::NotConnected | ErrorKind::ConnectionReset
    )
}

fn connect(address: &OsStr) -> Result<UnixDatagram, SupervisorError> {
    let failed = |error| {
        SupervisorError::os(format!("connecting to the service manager at {}", address.display()), error)
    };
    let target = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        path => SocketAddr::from_pathname(OsStr::from_bytes(path)),
    };
    let socket = UnixDatagram::unbound().map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    socket.connect_addr(&target.map_err(failed)?).map_err(failed)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 65_536];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    fn mock() -> (tempfile::TempDir, UnixDatagram, Notifier) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let notifier = Notifier::new(Some(path.into_os_string()), Some(Duration::from_secs(10)));
        (directory, manager, notifier)
    }

    #[test]
    fn the_exact_datagrams_of_a_life() {
        let (_directory, manager, mut notifier) = mock();
        notifier.ready("gen 1, 2 of 2 serving");
        assert_eq!(receive(&manager), "READY=1\nSTATUS=gen 1, 2 of 2 serving\n");
        notifier.status("gen 1, 1 of 2 serving");
        assert_eq!(receive(&manager), "STATUS=gen 1, 1 of 2 serving\n");
        notifier.watchdog();
        assert_eq!(receive(&manager), "WATCHDOG=1\n");
        notifier.extend_timeout(Duration::from_secs(3));
        assert_eq!(receive(&manager), "EXTEND_TIMEOUT_USEC=3000000\n");
        notifier.stopping("draining");
        assert_eq!(receive(&manager), "STOPPING=1\nSTATUS=draining\n");
        assert_eq!(notifier.watchdog_interval(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn reloading_carries_the_monotonic_time_in_the_same_datagram() {
        let (_directory, manager, mut notifier) = mock();
        let before = aegis_ipc::board::monotonic_ms();
        notifier.reloading();
        let datagram = receive(&manager);
        let time =
            datagram.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.strip_suffix('\n'));
        let milliseconds = time.unwrap().parse::<u64>().unwrap() / 1000;
        assert!(milliseconds >= before && milliseconds <= aegis_ipc::board::monotonic_ms(), "{datagram}");
    }

    #[test]
    fn an_unchanged_status_is_not_repeated_and_line_breaks_do_not_begin_another_assignment() {
        let (_directory, manager, mut notifier) = mock();
        notifier.status("a\nREADY=1");
        notifier.status("a\nREADY=1");
        notifier.watchdog();
        assert_eq!(receive(&manager), "STATUS=a READY=1\n");
        assert_eq!(receive(&manager), "WATCHDOG=1\n");
    }

    #[test]
    fn a_manager_that_sleeps_never_blocks_and_misses_no_turning_point() {
        let (_directory, manager, mut notifier) = mock();
        for _ in 0..100_000 {
            notifier.watchdog();
        }
        notifier.reloading();
        notifier.ready("gen 2");
        notifier.status("gen 2, 1 of 2 serving");
        assert_eq!(notifier.retry_interval(), Some(RETRY_BUSY));
        let mut told = Vec::new();
        while told.last().is_none_or(|datagram: &String| !datagram.starts_with("READY=1")) {
            told.push(receive(&manager));
            notifier.retry();
        }
        assert!(told.len() < 100_000 && told[told.len() - 2].starts_with("RELOADING=1"));
        assert_eq!(notifier.retry_interval(), None);
        notifier.status("gen 2, 1 of 2 serving");
        assert_eq!(receive(&manager), "STATUS=gen 2, 1 of 2 serving\n");
    }

    #[test]
    fn a_long_status_line_is_cut_so_that_what_comes_with_it_is_heard() {
        let (_directory, manager, mut notifier) = mock();
        let long = format!("x{}", "ü".repeat(5_000));
        let status = format!("STATUS=x{}\n", "ü".repeat(511));
        notifier.status(&long);
        notifier.status(&long);
        assert_eq!(receive(&manager), status);
        notifier.ready(&long);
        assert_eq!(receive(&manager), format!("READY=1\n{status}"));
        notifier.stopping(&long);
        assert_eq!(receive(&manager), format!("STOPPING=1\n{status}"));
    }

    #[test]
    fn the_abstract_namespace_is_understood() {
        let name = format!("aegis-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let mut notifier = Notifier::new(Some(format!("@{name}").into()), None);
        notifier.watchdog();
        assert_eq!(receive(&manager), "WATCHDOG=1\n");
        assert_eq!(notifier.watchdog_interval(), None);
    }

    #[test]
    fn a_manager_that_comes_later_or_anew_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let mut notifier = Notifier::new(Some(path.clone().into_os_string()), None);
        notifier.watchdog();
        for _ in 0..2 {
            let manager = UnixDatagram::bind(&path).unwrap();
            manager.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            notifier.watchdog();
            assert_eq!(receive(&manager), "WATCHDOG=1\n");
            drop(manager);
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let mut notifier = Notifier::new(None, None);
        notifier.ready("alone");
        notifier.reloading();
    }
}
