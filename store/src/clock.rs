//! The time of day, for the times that are stored, and the time that tells how old they are.

use std::{
    collections::VecDeque,
    time::{SystemTime, UNIX_EPOCH},
};

use aegis_ipc::board::monotonic_ms;
use parking_lot::Mutex;

/// The clock may gain this much between two looks without being taken for one that was set, milliseconds.
const GAIN_MS_MAX: u64 = 1_000;
/// Steps of the clock that are waited out each by itself; further ones count as one with the last.
const STEPS_MAX: usize = 16;

/// Milliseconds since 1970 UTC. A clock set before that counts as 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The time by which kept things grow old.
///
/// A clock that is set forward makes everything seem old at once. So from then on this time goes on at its own pace, until
/// what was kept before is as old as it had to become; then it follows the clock again. Each time that the clock is set
/// forward is waited out by itself.
#[derive(Debug)]
pub(crate) struct Aging {
    state: Mutex<State>,
    /// What a test has set the clock forward by.
    #[cfg(test)]
    pub(crate) set_forward_ms: std::sync::atomic::AtomicU64,
}

#[derive(Debug)]
struct State {
    /// The time that was told last.
    told_ms: u64,
    /// The monotonic clock then.
    monotonic_ms: u64,
    /// What the clock was set forward by and is not followed yet, oldest first.
    steps: VecDeque<Step>,
}

/// A clock that was set forward.
#[derive(Debug)]
struct Step {
    by_ms: u64,
    /// When it is followed, by the monotonic clock.
    until_ms: u64,
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
        Self { told_ms: clock_ms, monotonic_ms, steps: VecDeque::new() }
    }

    fn look(&mut self, clock_ms: u64, monotonic_ms: u64, kept_ms: u64) -> u64 {
        let own_ms = self.told_ms.saturating_add(monotonic_ms.saturating_sub(self.monotonic_ms));
        let ahead_ms = clock_ms.saturating_sub(own_ms);
        if ahead_ms <= GAIN_MS_MAX {
            self.steps.clear();
        } else {
            self.take_back(ahead_ms);
            self.note(ahead_ms, monotonic_ms.saturating_add(kept_ms));
        }
        self.steps.retain(|step| monotonic_ms < step.until_ms);
        self.told_ms = clock_ms.saturating_sub(self.behind_ms());
        self.monotonic_ms = monotonic_ms;
        self.told_ms
    }

    /// What is not followed of a clock.
    fn behind_ms(&self) -> u64 {
        self.steps.iter().map(|step| step.by_ms).sum()
    }

    /// A clock that is set back is no longer where it was set to last.
    fn take_back(&mut self, ahead_ms: u64) {
        let mut excess_ms = self.behind_ms().saturating_sub(ahead_ms);
        while excess_ms > 0
            && let Some(last) = self.steps.back_mut()
        {
            let less_ms = excess_ms.min(last.by_ms);
            last.by_ms -= less_ms;
            excess_ms -= less_ms;
            if last.by_ms == 0 {
                self.steps.pop_back();
            }
        }
    }

    fn note(&mut self, ahead_ms: u64, until_ms: u64) {
        let by_ms = ahead_ms.saturating_sub(self.behind_ms());
        let is_step = by_ms > GAIN_MS_MAX;
        if is_step {
            tracing::warn!(by_ms, "the clock was set forward; what is kept grows old as before");
        }
        let has_room = self.steps.len() < STEPS_MAX;
        match self.steps.back_mut() {
            Some(last) if !is_step => last.by_ms += by_ms,
            Some(last) if !has_room => *last = Step { by_ms: last.by_ms.saturating_add(by_ms), until_ms },
            _ => self.steps.push_back(Step { by_ms, until_ms }),
        }
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
    fn each_time_that_a_clock_is_set_forward_is_waited_out_by_itself() {
        const HOUR_MS: u64 = 3_600_000;
        const DAY_MS: u64 = 24 * HOUR_MS;
        let mut state = State::new(1_000_000, 0);
        let mut look = |at_ms: u64, set_ms: u64| {
            state.look(1_000_000 + at_ms + set_ms, at_ms, DAY_MS) - 1_000_000 - at_ms
        };
        assert_eq!(look(1_000, 2_000), 0);
        assert_eq!(look(12 * HOUR_MS, 2_500), 0, "it may be drawn a little meanwhile");
        let far_ms = 2_500 + 30 * DAY_MS;
        assert_eq!(look(23 * HOUR_MS, far_ms), 0);
        assert_eq!(look(DAY_MS + 1_000, far_ms), 2_500, "the first step is over, the second is not");
        assert_eq!(look(47 * HOUR_MS - 1, far_ms), 2_500);
        assert_eq!(look(47 * HOUR_MS, far_ms), far_ms);
    }

    #[test]
    fn a_clock_that_is_set_back_in_part_and_forward_again_is_waited_out_anew() {
        const DAY_MS: u64 = 86_400_000;
        let mut state = State::new(1_000_000, 0);
        let mut look = |at_ms: u64, set_ms: u64| {
            state.look(1_000_000 + at_ms + set_ms, at_ms, DAY_MS) - 1_000_000 - at_ms
        };
        assert_eq!(look(1_000, 30 * DAY_MS), 0);
        assert_eq!(look(2_000, DAY_MS), 0);
        assert_eq!(look(3_000, 30 * DAY_MS), 0);
        assert_eq!(look(1_000 + DAY_MS, 30 * DAY_MS), DAY_MS);
        assert_eq!(look(3_000 + DAY_MS, 30 * DAY_MS), 30 * DAY_MS);
    }

    #[test]
    fn steps_beyond_those_that_are_told_apart_count_as_one_with_the_last() {
        let mut state = State::new(1_000_000, 0);
        for at_ms in 1..=100 {
            assert_eq!(state.look(1_000_000 + at_ms + at_ms * 10_000, at_ms, 60_000), 1_000_000 + at_ms);
        }
        assert_eq!(state.steps.len(), STEPS_MAX);
        let last_ms = (100 - 15) * 10_000;
        assert_eq!(state.look(2_060_099, 60_099, 60_000), 2_060_099 - last_ms);
        assert_eq!(state.look(2_060_100, 60_100, 60_000), 2_060_100);
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
