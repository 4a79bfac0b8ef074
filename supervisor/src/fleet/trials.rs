//! Is a version that is tried as good as the one in force beside it? One that clearly is not is taken back by the host
//! itself.
//!
//! What counts are faults: calls that trap, take too long, or end with a defect of which the code tells itself, and
//! those that are not made because of such ones. When code says no to its clients, that is its business. Totals are
//! looked at over all the time that the trial runs, so that little traffic is enough, and over the last seconds, so that
//! a long good time does not hide what is bad now.

use std::collections::VecDeque;

use aegis_ipc::deploy::{Order, Supply, Task, TrialStep};
use serde::{Deserialize, Serialize};

use super::{
    Fleet, Phase,
    event::{Calls, TrialReading},
    requests::{Waiting, Wish},
    rollout::{Rollout, Stage},
};

/// Calls of what is tried, below which nothing is said about it.
const CALLS_MIN: u64 = 10;
/// Faults of what is tried, below which nothing is said about it.
const FAULTS_MIN: u64 = 5;
/// How much better two different rates have to explain what was found than one for both: logarithm of the ratio of
/// likelihoods. Equal rates come to this by chance as rarely as to four standard deviations; it is looked at often.
const EVIDENCE_MIN: f64 = 8.0;
/// Rate of faults that is bad when the version in force was not called.
const ALONE_RATE_MIN: f64 = 0.25;
/// Readings that are the last seconds.
const READINGS_MAX: usize = 20;
/// Time after which a trial is taken back again that was not for some reason, milliseconds.
const AGAIN_MS: u64 = 5_000;

/// The trials that run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trials {
    watched: Vec<Watched>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Watched {
    /// As it was first seen.
    first: TrialReading,
    /// The oldest first.
    latest: VecDeque<TrialReading>,
    /// When it may be taken back.
    from_ms: u64,
}

/// A trial that is to be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bad {
    module: String,
    digest: String,
    reason: String,
}

impl Trials {
    /// Takes a reading of all trials that run, and says which of them are bad. `margin` is by how much a rate of faults may
    /// be greater whatever the numbers are.
    fn read(&mut self, now_ms: u64, readings: Vec<TrialReading>, margin: f64) -> Vec<Bad> {
        self.watched.retain(|watched| readings.iter().any(|reading| reading.is_of(&watched.first)));
        let mut bad = Vec::new();
        for reading in readings {
            let known = self.watched.iter().position(|watched| reading.is_of(&watched.first));
            let at = known.unwrap_or(self.watched.len());
            if known.is_none() {
                let (first, latest) = (reading.clone(), VecDeque::new());
                self.watched.push(Watched { first, latest, from_ms: now_ms });
            }
            let watched = &mut self.watched[at];
            let oldest = watched.latest.front().unwrap_or(&watched.first);
            let found = judge(&watched.first, &reading, margin).or_else(|| judge(oldest, &reading, margin));
            if let Some(reason) = found.filter(|_| watched.from_ms <= now_ms) {
                watched.from_ms = now_ms + AGAIN_MS;
                bad.push(Bad { module: reading.module.clone(), digest: reading.digest.clone(), reason });
            }
            watched.latest.push_back(reading);
            if watched.latest.len() > READINGS_MAX {
                watched.latest.pop_front();
            }
        }
        bad
    }
}

/// Why what is tried is worse than what is in force, by what both did between two readings.
fn judge(before: &TrialReading, after: &TrialReading, margin: f64) -> Option<String> {
    let tried = after.trial.since(before.trial);
    let current = after.current.since(before.current);
    if tried.calls < CALLS_MIN || tried.faults < FAULTS_MIN {
        return None;
    }
    let (own, others) = (tried.fault_rate(), current.fault_rate());
    let is_clear = if current.calls == 0 {
        own >= ALONE_RATE_MIN
    } else {
        let together = (tried.faults + current.faults) as f64 / (tried.calls + current.calls) as f64;
        tried.speaks_against(together) + current.speaks_against(together) >= EVIDENCE_MIN
    };
    let is_worse = own - others > margin && is_clear;
    is_worse.then(|| {
        format!(
            "{:.1} % of {} calls of the version on trial were faults, of the one in force {:.1} % of {}",
            own * 100.0,
            tried.calls,
            others * 100.0,
            current.calls
        )
    })
}

impl TrialReading {
    /// Whether both are of one version of one module.
    fn is_of(&self, other: &Self) -> bool {
        (&self.module, &self.digest) == (&other.module, &other.digest)
    }
}

impl Calls {
    fn since(self, before: Self) -> Self {
        let calls = self.calls.saturating_sub(before.calls);
        // A call is counted a moment before its fault is.
        Self { calls, faults: self.faults.saturating_sub(before.faults).min(calls) }
    }

    fn fault_rate(self) -> f64 {
        if self.calls == 0 { 0.0 } else { self.faults as f64 / self.calls as f64 }
    }

    /// How much better the rate that was found explains the faults than another one does: logarithm of the ratio of
    /// likelihoods.
    fn speaks_against(self, rate: f64) -> f64 {
        let own = self.fault_rate();
        let gain = |own: f64, rate: f64| if own > 0.0 { own * (own / rate).ln() } else { 0.0 };
        self.calls as f64 * (gain(own, rate) + gain(1.0 - own, 1.0 - rate))
    }
}

impl Fleet {
    /// The generation whose trials are looked at: one that is on its way as soon as a worker may serve it, the one in force
    /// otherwise.
    #[must_use]
    pub fn generation_of_trials(&self) -> u64 {
        let comes = |rollout: &&Rollout| matches!(rollout.stage, Stage::Canary(_) | Stage::Wave { .. });
        self.rollout.as_ref().filter(comes).map_or(self.in_force, |rollout| rollout.to)
    }

    /// What the trials have done so far.
    pub(super) fn trials(&mut self, readings: Vec<TrialReading>) {
        let margin = self.policy.reload.error_rate_margin;
        let bad = self.trials.read(self.now_ms, readings, margin);
        for Bad { module, digest, reason } in bad {
            if self.phase != Phase::Running {
                continue;
            }
            if self.generation_of_trials() != self.in_force && self.begins_trial(&module) {
                self.roll_back(reason);
            } else if !self.is_deploying(&module) {
                self.take_trial_back(module, digest, reason);
            }
        }
    }

    /// Whether the rollout that runs brings the version that is tried of a module.
    fn begins_trial(&self, module: &str) -> bool {
        let task = self.rollout.as_ref().map(|rollout| &rollout.task);
        let Some(task @ Task::Deploy(order)) = task else { return false };
        order.module == module && matches!(order.trial, Some(TrialStep::Share(_))) && !task.brings_no_code()
    }

    /// Whether what becomes of a module is being decided already.
    fn is_deploying(&self, module: &str) -> bool {
        let runs = self
            .rollout
            .as_ref()
            .is_some_and(|rollout| matches!(&rollout.task, Task::Deploy(order) if order.module == module));
        let waits = |waiting: &Waiting| {
            matches!(&waiting.wish, Wish::Deploy(Order { module: other, trial: Some(TrialStep::Abort { .. }), .. })
                if other == module)
        };
        runs || self.line.iter().any(waits)
    }

    /// As if somebody had asked for it, before all others that deploy. There is no more of it in the line than there are
    /// trials.
    fn take_trial_back(&mut self, module: String, digest: String, reason: String) {
        let trial = Some(TrialStep::Abort { reason: Some(reason) });
        let order =
            Order { module, supply: Supply::App, sha256: Some(digest), force: false, mode: None, trial };
        let wish = Wish::Deploy(order);
        let job = self.jobs.open(wish.kind(), self.in_force);
        self.line.push_front(Waiting { job, wish });
        self.turn += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARGIN: f64 = 0.01;

    fn reading(current: (u64, u64), trial: (u64, u64)) -> TrialReading {
        let calls = |(calls, faults)| Calls { calls, faults };
        let (module, digest) = ("order".to_owned(), "d".to_owned());
        TrialReading { module, digest, current: calls(current), trial: calls(trial) }
    }

    fn judged(current: (u64, u64), trial: (u64, u64)) -> Option<String> {
        // Totals go on from those of earlier trials.
        let before = reading((1_000, 900), (500, 500));
        let after = reading((1_000 + current.0, 900 + current.1), (500 + trial.0, 500 + trial.1));
        judge(&before, &after, MARGIN)
    }

    #[test]
    fn one_in_two_is_bad_after_a_few_calls_whoever_else_is_called() {
        insta::assert_snapshot!(
            judged((90, 0), (10, 5)).unwrap(),
            @"50.0 % of 10 calls of the version on trial were faults, of the one in force 0.0 % of 90"
        );
        assert!(judged((0, 0), (10, 5)).is_some());
        assert!(judged((0, 0), (10, 10)).is_some());
        assert!(judged((9_000, 90), (1_000, 500)).is_some());
        assert!(judged((1_000_000, 0), (100_000, 2_000)).is_some(), "2 % are clear after many calls");
        assert!(judged((20, 0), (180, 90)).is_some(), "a large share is no protection");
    }

    #[test]
    fn chance_few_calls_and_what_fails_for_all_are_no_reason() {
        assert_eq!(judged((90, 0), (9, 9)), None, "too few to tell");
        assert_eq!(judged((900, 0), (100, 4)), None);
        assert_eq!(judged((90, 30), (10, 6)), None, "both fail");
        assert_eq!(judged((90, 45), (10, 5)), None);
        assert_eq!(judged((1_000_000, 0), (100_000, 900)), None, "within the margin");
        assert_eq!(judged((90, 90), (10, 0)), None);
        assert_eq!(judged((0, 0), (1_000, 20)), None, "there is nothing to compare it with");
    }

    proptest! {
        #[test]
        fn what_fails_no_more_often_is_never_bad(
            calls in 1..10_000_u64, others in 1..10_000_u64, rate in 0.0..1.0_f64
        ) {
            let faults = |calls: u64, rate: f64| (calls as f64 * rate).floor() as u64;
            prop_assert_eq!(judged((others, (faults(others, rate) + 1).min(others)), (calls, faults(calls, rate))), None);
        }
    }

    #[test]
    fn a_trial_that_goes_bad_after_a_long_good_time_is_found_by_what_it_did_of_late() {
        let mut trials = Trials::default();
        let mut at_ms = 0;
        let mut read = |current: u64, trial: (u64, u64)| {
            at_ms += 500;
            trials.read(at_ms, vec![reading((current, 0), trial)], MARGIN)
        };
        for step in 0..1_000 {
            assert_eq!(read(step * 900, (step * 100, 0)), []);
        }
        let bad = read(1_000 * 900, (100_000, 50));
        assert_eq!((bad.len(), bad[0].module.as_str(), bad[0].digest.as_str()), (1, "order", "d"));
        assert_eq!(read(1_001 * 900, (100_100, 100)), [], "it is being taken back");
        for _ in 0..8 {
            assert_eq!(read(1_001 * 900, (100_100, 100)), []);
        }
        assert_eq!(read(1_001 * 900, (100_100, 100)).len(), 1, "and again when it still runs");
    }

    #[test]
    fn another_version_begins_anew_and_what_is_gone_is_forgotten() {
        let mut trials = Trials::default();
        let other = |reading: TrialReading| TrialReading { digest: "e".to_owned(), ..reading };
        assert_eq!(trials.read(0, vec![reading((0, 0), (0, 0))], MARGIN), []);
        assert_eq!(trials.read(500, vec![other(reading((100, 0), (100, 100)))], MARGIN), []);
        assert_eq!(trials.watched.len(), 1);
        assert_eq!(trials.read(1_000, vec![other(reading((200, 0), (200, 150)))], MARGIN).len(), 1);
        assert_eq!(trials.read(1_500, Vec::new(), MARGIN), []);
        assert_eq!(trials, Trials::default());
    }
}
