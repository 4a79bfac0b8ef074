//! Connections that wait for the next request of the same module to the same target.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use aegis_domain::outgoing::Target;
use parking_lot::Mutex;

use super::link::Link;

/// Most connections that wait.
const IDLE_MAX: usize = 64;
/// Of these, how many for one module and target.
const IDLE_PER_TARGET_MAX: usize = 8;
/// How long one waits. Servers close theirs after 5 s and more.
const IDLE_TIME: Duration = Duration::from_secs(4);

/// Whose connection it is: modules do not share any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) module: String,
    pub(super) target: Target,
}

/// What waits, the newest last.
#[derive(Debug)]
struct Idle<C> {
    entries: Vec<(Instant, Line, C)>,
    /// Whether there is somebody who ends those that have waited for too long.
    is_swept: bool,
}

impl<C> Idle<C> {
    fn new() -> Self {
        Self { entries: Vec::new(), is_swept: false }
    }

    /// The newest that fits.
    fn take(&mut self, line: &Line, fits: impl Fn(&C) -> bool) -> Option<C> {
        let at = self.entries.iter().rposition(|(_, known, link)| known == line && fits(link))?;
        Some(self.entries.remove(at).2)
    }

    fn put(&mut self, line: Line, link: C, now: Instant) {
        let of_line = |(_, known, _): &(Instant, Line, C)| *known == line;
        if self.entries.iter().filter(|entry| of_line(entry)).count() >= IDLE_PER_TARGET_MAX
            && let Some(oldest) = self.entries.iter().position(of_line)
        {
            self.entries.remove(oldest);
        }
        if self.entries.len() >= IDLE_MAX {
            self.entries.remove(0);
        }
        self.entries.push((now, line, link));
    }

    /// Ends what has waited for too long. Whether something still waits.
    fn sweep(&mut self, now: Instant) -> bool {
        self.entries.retain(|(since, _, _)| now.duration_since(*since) < IDLE_TIME);
        self.is_swept = !self.entries.is_empty();
        self.is_swept
    }
}

/// Connections that wait.
#[derive(Debug, Clone)]
pub(super) struct Pool(Arc<Mutex<Idle<Link>>>);

impl Default for Pool {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Idle::new())))
    }
}

impl Pool {
    /// One to an address that may still be reached. An answer may come before its request was sent to its end: the
    /// connection is not ready for another one then, and may never be.
    pub(super) fn take(&self, line: &Line, may_reach: impl Fn(IpAddr) -> bool) -> Option<Link> {
        self.0.lock().take(line, |link| link.sender.is_ready() && may_reach(link.address))
    }

    pub(super) fn put(&self, line: Line, link: Link) {
        let mut idle = self.0.lock();
        idle.put(line, link, Instant::now());
        if !idle.is_swept {
            idle.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.0.lock().entries.len()
    }
}

async fn sweep(idle: std::sync::Weak<Mutex<Idle<Link>>>) {
    loop {
        tokio::time::sleep(IDLE_TIME).await;
        let Some(idle) = idle.upgrade() else { return };
        if !idle.lock().sweep(Instant::now()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use aegis_domain::outgoing::Host;

    use super::*;

    fn line(module: &str, port: u16) -> Line {
        let target = Target { host: Host::Name("a.example".to_owned()), port, is_secure: false };
        Line { module: module.to_owned(), target }
    }

    #[test]
    fn a_connection_is_used_again_by_its_module_for_its_target_the_newest_first() {
        let (mut idle, now) = (Idle::new(), Instant::now());
        idle.put(line("a", 1), "old", now);
        idle.put(line("a", 1), "new", now);
        idle.put(line("b", 1), "theirs", now);
        assert_eq!(idle.take(&line("a", 2), |_| true), None);
        assert_eq!(idle.take(&line("a", 1), |link| *link != "new"), Some("old"));
        assert_eq!(idle.take(&line("a", 1), |_| true), Some("new"));
        assert_eq!(idle.take(&line("a", 1), |_| true), None);
        assert_eq!(idle.take(&line("b", 1), |_| true), Some("theirs"));
    }

    #[test]
    fn few_wait_and_not_for_long() {
        let (mut idle, now) = (Idle::new(), Instant::now());
        for number in 0..=IDLE_PER_TARGET_MAX {
            idle.put(line("a", 1), number, now);
        }
        assert_eq!(idle.entries.len(), IDLE_PER_TARGET_MAX);
        assert!(idle.entries.iter().all(|(_, _, number)| *number > 0), "the oldest made room");
        for port in 2..2 + IDLE_MAX {
            idle.put(line("a", u16::try_from(port).unwrap()), port, now + IDLE_TIME / 2);
        }
        assert_eq!(idle.entries.len(), IDLE_MAX);
        assert!(idle.sweep(now + IDLE_TIME), "those that came later");
        assert!(!idle.sweep(now + IDLE_TIME * 2));
        assert!(idle.entries.is_empty());
    }
}
