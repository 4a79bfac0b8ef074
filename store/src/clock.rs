//! The time of day, for the times that are stored, and the time that tells how old they are.

use std::time::{SystemTime, UNIX_EPOCH};

use aegis_ipc::board::monotonic_ms;
use parking_lot::Mutex;

/// The clock may gain this much between two looks without being taken for one that was set, milliseconds.
const GAIN_MS_MAX: u64 = 1_000;

/// Milliseconds since 1970 UTC. A clock set before that counts as 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The time by which kept things grow old.
///
/// A clock that is set forward makes everything seem old at once. So from then on this time goes on at its own pace, until
/// what was kept before is as old as it had to become; then it follows the clock again.
#[derive(Debug)]
pub(crate) struct Aging {
    state: Mutex<State>,
    /// What a test has set the clock forward by.
    #[cfg(test)]
    pub(crate) set_forward_ms: std::sync::atomic::AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// The time that was told last.
    told_ms: u64,
    /// The monotonic clock then.
    monotonic_ms: u64,
    /// When the clock is followed again although it was set, by the monotonic clock.
    apart_until_ms: Option<u64>,
}

impl Aging {
    /// Begins with what the clock says now.
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State::new(now_ms(), monotonic_ms())),
            #[cfg(test)]
            set_forward_ms: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// The time now, where things are kept for `kept_ms`.
    pub(crate) fn now_ms(&self, kept_ms: u64) -> u64 {
        let clock_ms = now_ms();
        #[cfg(test)]
        let clock_ms = clock_ms + self.set_forward_ms.load(std::sync::atomic::Ordering::Relaxed);
        self.state.lock().look(clock_ms, monotonic_ms(), kept_ms)
    }
}

impl State {
    fn new(clock_ms: u64, monotonic_ms: u64) -> Self {
        Self { told_ms: clock_ms, monotonic_ms, apart_until_ms: None }
    }

    fn look(&mut self, clock_ms: u64, monotonic_ms: u64, kept_ms: u64) -> u64 {
        let own_ms = self.told_ms.saturating_add(monotonic_ms.saturating_sub(self.monotonic_ms));
        if clock_ms <= own_ms.saturating_add(GAIN_MS_MAX) {
            self.apart_until_ms = None;
        } else if self.apart_until_ms.is_none() {
            tracing::warn!(clock_ms, own_ms, "the clock was set forward; what is kept grows old as before");
            self.apart_until_ms = Some(monotonic_ms.saturating_add(kept_ms));
        }
        let is_apart = self.apart_until_ms.is_some_and(|until_ms| monotonic_ms < until_ms);
        if !is_apart {
            self.apart_until_ms = None;
        }
        self.told_ms = if is_apart { own_ms } else { clock_ms };
        self.monotonic_ms = monotonic_ms;
        self.told_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_grows_no_older_by_a_clock_that_is_set_forward() {
        let day_ms = 86_400_000;
        let mut state = State::new(1_000_000, 50);
        assert_eq!(state.look(1_000_500, 550, day_ms), 1_000_500);
        assert_eq!(state.look(1_001_200, 1_050, day_ms), 1_001_200, "a clock may be drawn a little");
        let jumped = 1_001_200 + 30 * day_ms;
        assert_eq!(state.look(jumped + 100, 1_150, day_ms), 1_001_300);
        assert_eq!(state.look(jumped + day_ms, 1_050 + day_ms, day_ms), 1_001_200 + day_ms);
        assert_eq!(state.look(jumped + day_ms + 100, 1_150 + day_ms, day_ms), jumped + day_ms + 100);
        assert_eq!(state.look(jumped + day_ms + 200, 1_250 + day_ms, day_ms), jumped + day_ms + 200);
    }

    #[test]
    fn a_clock_that_is_set_back_is_followed_at_once() {
        let mut state = State::new(1_000_000, 0);
        assert_eq!(state.look(9_000_000, 100, 60_000), 1_000_100);
        assert_eq!(state.look(1_000_200, 200, 60_000), 1_000_200);
        assert_eq!(state.look(500_000, 300, 60_000), 500_000);
        assert_eq!(state.look(500_100, 400, 60_000), 500_100);
    }
}
