//! What the driver does by the clock: signs of life, status lines and requests for patience to the service manager, the
//! state for those who watch, and the deadlines of its own errands.

use std::time::Duration;

use aegis_ipc::residence;

use super::{Driver, Stage};
use crate::{
    fleet::{Event, Origin, Request},
    notify::Notifier,
};

/// Shortest time between two states for those who watch, milliseconds.
const WATCHERS_MIN_MS: u64 = 100;
/// Longest time between two states for those who watch, milliseconds.
const WATCHERS_MAX_MS: u64 = 1_000;
/// Time between two requests for patience during a start, reload or stop, milliseconds.
const PATIENCE_INTERVAL_MS: u64 = 5_000;
/// Patience asked for each time: four intervals, so that a lost datagram does no harm.
const PATIENCE: Duration = Duration::from_secs(20);
/// Shortest time between two status lines for the service manager, milliseconds.
const SUMMARY_MIN_MS: u64 = 250;
/// Time between two looks at a status line that names times, milliseconds.
const SUMMARY_MAX_MS: u64 = 30_000;
/// Time without anything happening after which code is let go of that was needed for what happened before, milliseconds.
const REST_MS: u64 = 500;
/// Time between two looks at what versions do that are tried, milliseconds.
const TRIALS_INTERVAL_MS: u64 = 500;
/// Time between two attempts to watch the files of an app that could not be watched, milliseconds.
const WATCH_RETRY_MS: u64 = 1_000;
/// Time between two attempts to note what is deployed when that could not be noted, milliseconds.
const NOTES_RETRY_MS: u64 = 1_000;

/// Time after which the loop is looked at again that was late, milliseconds: one long pass is no reason to be silent for
/// another whole interval.
const LATE_MS: u64 = 100;

/// When what is due.
#[derive(Debug)]
pub(super) struct Rhythm {
    watchdog_interval_ms: Option<u64>,
    watchdog_due_ms: u64,
    patience_due_ms: Option<u64>,
    summary_told_ms: u64,
    summary_revision: u64,
    watchers_told_ms: u64,
    watchers_revision: u64,
    /// Nothing while nothing is tried.
    trials_due_ms: Option<u64>,
    /// When it is tried again to watch the files of the app; nothing unless that has failed.
    watch_retry_ms: Option<u64>,
    /// When it is tried again to note what is deployed; nothing unless that has failed.
    notes_retry_ms: Option<u64>,
    /// Nothing while nothing has happened since the last rest.
    rest_due_ms: Option<u64>,
    rest_revision: u64,
    /// Longest pass of the loop since the last sign of life, microseconds.
    longest_pass_us: u64,
}

impl Rhythm {
    pub(super) fn new(notifier: &Notifier, now_ms: u64) -> Self {
        let interval = notifier.watchdog_interval();
        Self {
            watchdog_interval_ms: interval.map(|interval| milliseconds(interval).max(1)),
            watchdog_due_ms: now_ms,
            patience_due_ms: notifier.is_wanted().then_some(now_ms + PATIENCE_INTERVAL_MS),
            summary_told_ms: now_ms,
            summary_revision: 0,
            watchers_told_ms: now_ms,
            watchers_revision: 0,
            trials_due_ms: None,
            watch_retry_ms: None,
            notes_retry_ms: None,
            rest_due_ms: Some(now_ms + REST_MS),
            rest_revision: 0,
            longest_pass_us: 0,
        }
    }

    pub(super) fn note_pass(&mut self, elapsed_us: u64) {
        self.longest_pass_us = self.longest_pass_us.max(elapsed_us);
    }

    /// A pass is over: somebody woke the loop, or the state has another revision, or it was only a look at the clock.
    pub(super) fn stirred(&mut self, was_woken: bool, revision: u64, now_ms: u64) {
        let was_changed = std::mem::replace(&mut self.rest_revision, revision) != revision;
        if was_woken || was_changed {
            self.rest_due_ms = Some(now_ms + REST_MS);
        }
    }

    /// Whether nothing has happened for a while, told once.
    fn rests(&mut self, now_ms: u64) -> bool {
        self.rest_due_ms.take_if(|due_ms| *due_ms <= now_ms).is_some()
    }

    pub(super) fn stage_changed(&mut self, stage: Stage, now_ms: u64) {
        if self.patience_due_ms.is_some() && stage != Stage::Serving {
            self.patience_due_ms = Some(now_ms + PATIENCE_INTERVAL_MS);
        }
    }

    /// Whether those who watch should see the state now.
    pub(super) fn watchers_due(&self, revision: u64, now_ms: u64) -> bool {
        self.watchers_due_ms(revision) <= now_ms
    }

    pub(super) fn watchers_told(&mut self, revision: u64, now_ms: u64) {
        self.watchers_told_ms = now_ms;
        self.watchers_revision = revision;
    }

    fn watchers_due_ms(&self, revision: u64) -> u64 {
        let pause = if revision == self.watchers_revision { WATCHERS_MAX_MS } else { WATCHERS_MIN_MS };
        self.watchers_told_ms + pause
    }

    fn summary_due_ms(&self, revision: u64) -> u64 {
        let pause = if revision == self.summary_revision { SUMMARY_MAX_MS } else { SUMMARY_MIN_MS };
        self.summary_told_ms + pause
    }

    /// Whether versions that are tried should be looked at now: now and then while there are any, and once when there are
    /// none any more.
    fn trials_due(&mut self, are_there: bool, now_ms: u64) -> bool {
        let is_due = match (self.trials_due_ms, are_there) {
            (None, are_there) => are_there,
            (Some(_), false) => true,
            (Some(due_ms), true) => due_ms <= now_ms,
        };
        if is_due {
            self.trials_due_ms = are_there.then_some(now_ms + TRIALS_INTERVAL_MS);
        }
        is_due
    }

    /// The files of the app could not be watched; `true` when that is new.
    pub(super) fn watch_failed(&mut self, now_ms: u64) -> bool {
        self.watch_retry_ms.replace(now_ms + WATCH_RETRY_MS).is_none()
    }

    /// Whether the files of the app could not be watched when that was tried last.
    pub(super) fn has_watch_failed(&self) -> bool {
        self.watch_retry_ms.is_some()
    }

    /// The files of the app are watched, or need not be; `true` when they could not be before.
    pub(super) fn watch_settled(&mut self) -> bool {
        self.watch_retry_ms.take().is_some()
    }

    /// Whether it is to be tried again now to watch the files of the app.
    fn watch_retry_due(&mut self, now_ms: u64) -> bool {
        let is_due = self.watch_retry_ms.is_some_and(|due_ms| due_ms <= now_ms);
        if is_due {
            self.watch_retry_ms = Some(now_ms + WATCH_RETRY_MS);
        }
        is_due
    }

    /// What is deployed in the generation in force could not be noted.
    pub(super) fn notes_failed(&mut self, now_ms: u64) {
        self.notes_retry_ms = Some(now_ms + NOTES_RETRY_MS);
    }

    /// It is noted; `true` when it could not be before.
    pub(super) fn notes_written(&mut self) -> bool {
        self.notes_retry_ms.take().is_some()
    }

    /// Whether it is to be tried again now to note it.
    fn notes_retry_due(&mut self, now_ms: u64) -> bool {
        let is_due = self.notes_retry_ms.is_some_and(|due_ms| due_ms <= now_ms);
        if is_due {
            self.notes_retry_ms = Some(now_ms + NOTES_RETRY_MS);
        }
        is_due
    }

    /// When a sign of life is due: whether the loop was on time since the last look.
    fn sign_due(&mut self, now_ms: u64) -> Option<bool> {
        let interval_ms = self.watchdog_interval_ms.filter(|_| self.watchdog_due_ms <= now_ms)?;
        let was_on_time = std::mem::take(&mut self.longest_pass_us) / 1000 < interval_ms;
        let pause_ms = if was_on_time { interval_ms } else { LATE_MS.min(interval_ms) };
        self.watchdog_due_ms = now_ms + pause_ms;
        Some(was_on_time)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Driver {
    /// When the loop must wake up although nothing happens.
    pub(super) fn deadline_ms(&self, now_ms: u64) -> Option<u64> {
        let has_work = !self.events.is_empty() || !self.actions.is_empty() || !self.keeping.is_empty();
        if has_work || !self.operators.unread().is_empty() {
            return Some(now_ms);
        }
        let rhythm = &self.rhythm;
        let watchers = self.operators.has_watchers().then(|| rhythm.watchers_due_ms(self.fleet.revision()));
        let busy = self.stage != Stage::Serving;
        let deadlines = [
            self.fleet.next_deadline(),
            self.watch.as_ref().and_then(|watch| watch.due_ms()),
            self.pending_bind.map(|pending| pending.retry_ms),
            self.upgrading.as_ref().and_then(super::Upgrading::deadline_ms),
            rhythm.watchdog_interval_ms.map(|_| rhythm.watchdog_due_ms),
            rhythm.patience_due_ms.filter(|_| busy),
            rhythm.trials_due_ms,
            rhythm.watch_retry_ms,
            rhythm.notes_retry_ms,
            rhythm.rest_due_ms,
            self.notifier.is_wanted().then(|| rhythm.summary_due_ms(self.fleet.revision())),
            self.notifier.retry_interval().map(|pause| now_ms + milliseconds(pause)),
            watchers,
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Does what is due.
    pub(super) fn take_timers(&mut self, now_ms: u64) {
        if self.fleet.next_deadline().is_some_and(|due_ms| due_ms <= now_ms) {
            self.events.push_back(Event::Tick);
        }
        if self.watch.as_mut().is_some_and(|watch| watch.take_due(now_ms)) {
            tracing::info!("files of the app changed");
            // It may be another folder that bears the name now, or none for a while.
            self.watch_again();
            let request = Request::Reload { origin: Origin::Automatic, mode: None };
            self.events.push_back(Event::Request { asker: None, request });
        }
        if self.rhythm.watch_retry_due(now_ms) {
            self.watch_again();
        }
        if self.rhythm.notes_retry_due(now_ms) {
            self.note_again();
        }
        self.look_at_trials(now_ms);
        self.keep_generations();
        self.retry_bind(now_ms);
        self.give_up_rehearsal(now_ms);
        self.tell_service_manager(now_ms);
        if self.rhythm.rests(now_ms)
            && let Err(error) = residence::let_go_of_code()
        {
            tracing::debug!("the supervisor stays larger than it need be: {}", crate::with_causes(&error));
        }
    }

    fn look_at_trials(&mut self, now_ms: u64) {
        let held = self.generations.get(&self.fleet.generation_of_trials());
        let are_there = held.is_some_and(|held| held.trials().next().is_some());
        if self.rhythm.trials_due(are_there, now_ms) {
            let readings = self.trial_readings();
            self.events.push_back(Event::Trials(readings));
        }
    }

    fn tell_service_manager(&mut self, now_ms: u64) {
        if !self.notifier.is_wanted() {
            return;
        }
        self.notifier.retry();
        let revision = self.fleet.revision();
        if self.rhythm.summary_due_ms(revision) <= now_ms {
            self.rhythm.summary_revision = revision;
            self.rhythm.summary_told_ms = now_ms;
            let summary = self.fleet.summary(now_ms);
            self.notifier.status(&summary);
        }
        if let Some(was_on_time) = self.rhythm.sign_due(now_ms) {
            if !was_on_time {
                tracing::warn!("no sign of life for the service manager: the loop was late");
            } else if !self.has_quorum(now_ms) {
                tracing::warn!("no sign of life for the service manager: too few workers show one");
            } else {
                self.notifier.watchdog();
            }
        }
        if self.stage != Stage::Serving && self.rhythm.patience_due_ms.is_some_and(|due_ms| due_ms <= now_ms)
        {
            self.rhythm.patience_due_ms = Some(now_ms + PATIENCE_INTERVAL_MS);
            self.notifier.extend_timeout(PATIENCE);
        }
    }

    /// Whether enough workers serve and show signs of life. Before the first start is over and while the host ends, none
    /// have to.
    fn has_quorum(&self, now_ms: u64) -> bool {
        matches!(self.stage, Stage::Starting | Stage::Stopping) || self.fleet.has_quorum(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_late_pass_it_is_soon_looked_again_whether_there_is_a_sign_of_life() {
        let mut rhythm = Rhythm::new(&Notifier::new(None, Some(Duration::from_secs(10))), 0);
        assert_eq!((rhythm.sign_due(0), rhythm.sign_due(4_999)), (Some(true), None));
        rhythm.note_pass(5_100_000);
        assert_eq!(rhythm.sign_due(5_200), Some(false));
        assert_eq!((rhythm.sign_due(5_299), rhythm.sign_due(5_300)), (None, Some(true)));
        assert_eq!((rhythm.sign_due(10_299), rhythm.sign_due(10_300)), (None, Some(true)));
    }

    #[test]
    fn what_could_not_be_watched_is_tried_again_each_second_until_it_can_be() {
        let mut rhythm = Rhythm::new(&Notifier::new(None, None), 0);
        assert!(!rhythm.has_watch_failed() && !rhythm.watch_retry_due(10_000));
        assert!(rhythm.watch_failed(10_000) && rhythm.has_watch_failed());
        assert!(!rhythm.watch_failed(10_100), "told once");
        let due_ms = 10_100 + WATCH_RETRY_MS;
        assert_eq!((rhythm.watch_retry_due(due_ms - 1), rhythm.watch_retry_due(due_ms)), (false, true));
        assert!(!rhythm.watch_retry_due(due_ms + WATCH_RETRY_MS - 1));
        assert_eq!((rhythm.watch_settled(), rhythm.watch_settled()), (true, false));
        assert!(!rhythm.watch_retry_due(u64::MAX));
    }

    #[test]
    fn what_could_not_be_noted_is_tried_again_each_second_until_it_is() {
        let mut rhythm = Rhythm::new(&Notifier::new(None, None), 0);
        assert!(!rhythm.notes_written() && !rhythm.notes_retry_due(10_000));
        rhythm.notes_failed(10_000);
        let due_ms = 10_000 + NOTES_RETRY_MS;
        assert_eq!((rhythm.notes_retry_due(due_ms - 1), rhythm.notes_retry_due(due_ms)), (false, true));
        assert!(!rhythm.notes_retry_due(due_ms + NOTES_RETRY_MS - 1));
        assert!(rhythm.notes_retry_due(due_ms + NOTES_RETRY_MS), "it has failed again");
        assert_eq!((rhythm.notes_written(), rhythm.notes_written()), (true, false));
        assert!(!rhythm.notes_retry_due(u64::MAX));
    }

    #[test]
    fn a_rest_begins_when_nothing_happened_for_a_while_and_is_told_once() {
        let mut rhythm = Rhythm::new(&Notifier::new(None, None), 1_000);
        rhythm.stirred(true, 0, 1_000 + REST_MS - 1);
        assert!(!rhythm.rests(1_000 + REST_MS), "something happened meanwhile");
        assert!(rhythm.rests(1_000 + 2 * REST_MS));
        rhythm.stirred(false, 0, 5 * REST_MS);
        assert!(!rhythm.rests(10 * REST_MS), "it was only the clock");
        rhythm.stirred(false, 1, 20 * REST_MS);
        assert!(!rhythm.rests(20 * REST_MS));
        assert!(rhythm.rests(21 * REST_MS));
    }
}
