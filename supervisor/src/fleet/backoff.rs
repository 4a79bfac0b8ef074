//! How long to wait before a process that ended is started again.
//!
//! ```text
//!   was healthy, or the first trouble     at once
//!   then                                  delay_min × 2^k, at most delay_max, ± 20 %
//!   configuration error (78)              delay_max: the same inputs will not get better
//!   killed by somebody else while serving at once (10 ms if it had just come): a person's deed, not a fault
//! ```
//!
//! A process that lived for `reset_after` forgets the delay.

use aegis_config::Restart;
use serde::{Deserialize, Serialize};

use super::{chance::Chance, policy::milliseconds};

/// Share by which a delay varies, so that slots that failed together do not come back together, percent.
const JITTER_PERCENT: u64 = 20;
/// Delay after somebody else killed a worker that had just come, milliseconds. Bounds what a program that kills every
/// worker on sight can make the machine do.
const OUTSIDE_DELAY_MS: u64 = 10;
/// A worker that has served for less has just come, milliseconds. It is ten times what one takes to start.
const OUTSIDE_LIFE_MS: u64 = 50;

/// Failures that one announced as hopeless counts for.
const FAILURES_HOPELESS: u32 = 10;

/// Why a process ended, as far as the delay is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// By its own fault, or we killed it for one.
    Fault,
    /// It says that trying again is useless.
    Hopeless,
    /// Killed by somebody else while it served.
    Outside,
    /// It left in good order, without being asked.
    OwnWill,
}

/// Delay before the next start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Backoff {
    failures: u32,
    until_ms: u64,
}

impl Backoff {
    /// Notes an end after `lived_ms` of readiness and returns the delay, milliseconds.
    pub(super) fn note(
        &mut self,
        now_ms: u64,
        lived_ms: u64,
        cause: Cause,
        restart: &Restart,
        chance: &mut Chance,
    ) -> u64 {
        if lived_ms >= milliseconds(restart.reset_after) {
            self.failures = 0;
        }
        let healthy = lived_ms >= milliseconds(restart.healthy_after);
        let delay_ms = match cause {
            Cause::Outside if lived_ms < OUTSIDE_LIFE_MS => OUTSIDE_DELAY_MS,
            Cause::Outside => 0,
            Cause::Fault | Cause::OwnWill if healthy => {
                self.failures = self.failures.max(1);
                0
            }
            Cause::Fault | Cause::OwnWill => {
                let doublings = self.failures.checked_sub(1);
                self.failures = self.failures.saturating_add(1);
                doublings.map_or(0, |doublings| delay_ms(doublings, restart, chance))
            }
            Cause::Hopeless => {
                self.failures = self.failures.saturating_add(FAILURES_HOPELESS);
                chance.around(milliseconds(restart.delay_max), JITTER_PERCENT)
            }
        };
        self.until_ms = now_ms + delay_ms;
        delay_ms
    }

    /// When the next start is allowed.
    pub(super) fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// Troubles since it was last healthy.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Starts afresh: what comes now is something else than what failed.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn delay_ms(doublings: u32, restart: &Restart, chance: &mut Chance) -> u64 {
    let factor = 1_u64.checked_shl(doublings).unwrap_or(u64::MAX);
    let delay = milliseconds(restart.delay_min).saturating_mul(factor).min(milliseconds(restart.delay_max));
    chance.around(delay, JITTER_PERCENT)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn restart() -> Restart {
        Restart {
            delay_min: Duration::from_millis(50),
            delay_max: Duration::from_secs(30),
            healthy_after: Duration::from_secs(10),
            reset_after: Duration::from_secs(60),
            crash_loop_count: 5,
            crash_loop_window: Duration::from_secs(30),
        }
    }

    fn delays(lives_ms: &[u64], cause: Cause) -> Vec<u64> {
        let (mut backoff, mut chance) = (Backoff::default(), Chance::new(1));
        lives_ms.iter().map(|lived| backoff.note(5, *lived, cause, &restart(), &mut chance)).collect()
    }

    #[test]
    fn the_first_crash_is_answered_at_once_and_the_delay_doubles_up_to_its_limit() {
        let delays = delays(&[100; 16], Cause::Fault);
        assert_eq!(delays[0], 0);
        for (index, delay) in delays.iter().enumerate().skip(1) {
            let nominal = (50 << (index - 1)).min(30_000);
            assert!(
                (nominal * 8 / 10..=nominal * 12 / 10).contains(delay),
                "{index}: {delay} around {nominal}"
            );
        }
    }

    #[test]
    fn a_healthy_life_is_answered_at_once_but_only_a_long_one_forgets() {
        let delays = delays(&[0, 0, 0, 0, 10_000, 0, 60_000, 0], Cause::Fault);
        assert_eq!((delays[0], delays[4], delays[6]), (0, 0, 0));
        assert!((320..=480).contains(&delays[5]), "{}: the fifth failure goes on doubling", delays[5]);
        assert!((40..=60).contains(&delays[7]), "{}: the delay starts again", delays[7]);
    }

    #[test]
    fn what_is_hopeless_waits_longest_and_what_others_did_waits_least() {
        assert!(delays(&[0; 3], Cause::Hopeless).iter().all(|delay| (24_000..=36_000).contains(delay)));
        assert_eq!(delays(&[49, 50, 50], Cause::Outside), [10, 0, 0]);
    }
}
