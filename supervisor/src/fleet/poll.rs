//! Asking the sources of modules, now and then, whether something was published.
//!
//! ```text
//!   nothing new        again after the interval, ± 10 %
//!   something new      an automatic reload, then again
//!   nobody answers     interval × 2^k, at most an hour (or the interval, if that is more)
//! ```
//!
//! A helper asks, and only while nothing else goes on: whatever rollout begins takes its place. What counts as new is what
//! differs from what the last helper that made a generation saw, so what was found bad is tried once.

use serde::{Deserialize, Serialize};

use super::{
    Fleet,
    action::{Action, Level, Role, Spawn},
    event::{ChildId, Look, Origin, Request},
    lives::{EXIT_GRACE_MS, KILL_AGAIN_MS},
    policy::milliseconds,
    probe::{Helper, State},
};

/// Share by which an interval varies, so that hosts that were started together do not ask together, percent.
const JITTER_PERCENT: u64 = 10;
/// Longest time between two looks while nobody answers, unless the interval is longer, milliseconds.
const BACKOFF_MS_MAX: u64 = 3_600_000;
/// Doublings of the interval.
const DOUBLINGS_MAX: u32 = 16;

/// When the sources are asked next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Poll {
    due_ms: Option<u64>,
    /// Looks in a row that brought no answer.
    failures: u32,
    /// Sources that could not be asked the last time.
    absent: u32,
}

impl Poll {
    /// When the next look is due.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.due_ms
    }

    fn pause_ms(&self, interval_ms: u64) -> u64 {
        let factor = 1_u64 << self.failures.min(DOUBLINGS_MAX);
        interval_ms.saturating_mul(factor).min(BACKOFF_MS_MAX.max(interval_ms))
    }
}

impl Fleet {
    /// Asks the sources when it is time, and nothing else goes on.
    pub(super) fn advance_poll(&mut self) {
        let Some(interval) = self.policy.reload.poll else {
            self.dismiss_looks();
            self.poll = Poll::default();
            return;
        };
        if self.rollout.is_some() || self.waiting.is_some() {
            self.dismiss_looks();
            self.poll.due_ms = None;
            return;
        }
        if self.helpers.values().any(|helper| helper.looks) {
            return;
        }
        let pause_ms = self.poll.pause_ms(milliseconds(interval));
        let latest_ms = self.now_ms + pause_ms + pause_ms / 100 * JITTER_PERCENT + JITTER_PERCENT;
        match self.poll.due_ms {
            Some(due_ms) if due_ms <= self.now_ms => self.look(),
            // The interval may have become shorter.
            Some(due_ms) if due_ms <= latest_ms => {}
            _ => self.poll.due_ms = Some(self.now_ms + self.chance.around(pause_ms, JITTER_PERCENT)),
        }
    }

    fn look(&mut self) {
        self.poll.due_ms = None;
        let (child, generation) = (self.new_child(), self.in_force);
        let kill_at_ms = self.now_ms + milliseconds(self.policy.reload.probe_timeout);
        let (working_on, state) = (None, State::Working);
        self.helpers.insert(child, Helper { generation, pid: 0, kill_at_ms, working_on, looks: true, state });
        let image = self.image_of(generation);
        self.actions.push(Action::Spawn(Spawn {
            child,
            role: Role::Look,
            generation,
            image,
            cell: 0,
            is_canary: false,
        }));
    }

    /// A rollout takes the place of whoever looks.
    fn dismiss_looks(&mut self) {
        let again_ms = self.now_ms + KILL_AGAIN_MS;
        let looking =
            self.helpers.iter_mut().filter(|(_, helper)| helper.looks && helper.state != State::Finished);
        for (child, helper) in looking {
            helper.state = State::Finished;
            helper.kill_at_ms = again_ms;
            self.actions.push(Action::Kill { child: *child });
        }
    }

    /// The sources have been asked.
    pub(super) fn looked(&mut self, child: ChildId, look: &Look) {
        let kill_at_ms = self.now_ms + EXIT_GRACE_MS;
        let Some(helper) = self.helpers.get_mut(&child).filter(|helper| helper.looks) else { return };
        if std::mem::replace(&mut helper.state, State::Finished) != State::Working {
            return;
        }
        helper.kill_at_ms = kill_at_ms;
        let before = std::mem::replace(&mut self.poll.absent, look.absent);
        if look.absent > 0 && look.absent >= look.asked {
            self.poll.failures = self.poll.failures.saturating_add(1);
        } else {
            self.poll.failures = 0;
        }
        if look.absent > 0 && before == 0 {
            let away = look.away.join("; ");
            let line =
                format!("{} of {} sources of modules cannot be asked: {away}", look.absent, look.asked);
            self.log(Level::Warn, line);
        } else if look.absent == 0 && before > 0 {
            self.log(Level::Info, "all sources of modules can be asked again".to_owned());
        }
        if !look.changed.is_empty() {
            self.log(Level::Info, format!("something was published: {}", look.changed.join(", ")));
            self.request(None, Request::Reload { origin: Origin::Automatic, mode: None });
        }
    }

    /// Whoever looked is gone without an answer.
    pub(super) fn look_failed(&mut self, helper: &Helper, reason: String) {
        self.poll.failures = self.poll.failures.saturating_add(1);
        if self.poll.failures == 1 {
            self.log(Level::Warn, format!("the sources of modules could not be asked: {reason}"));
        }
        self.tally("look".to_owned(), helper.pid, helper.generation, reason);
    }
}
