//! Whether enough workers serve for the service manager to hear that the host is well: half of those that are wanted.
//!
//! When more are wanted than before, those that are new have their time to start: until it is over, or all of them serve,
//! only those count that were wanted before.

use serde::{Deserialize, Serialize};

use super::{Fleet, Phase, worker::State};

/// More workers are wanted than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Growth {
    /// How many were counted on before.
    before: u32,
    /// When the others have had their time.
    until_ms: u64,
}

impl Fleet {
    /// Wants so many workers from now on.
    pub(super) fn want(&mut self, workers: u32) {
        let before = self.counted_on(self.now_ms);
        self.wanted = workers;
        self.grow_from(before);
    }

    /// There are so many workers, and more of them are wanted by now.
    pub(super) fn grow_from(&mut self, before: u32) {
        if before < self.wanted {
            self.growth = Some(Growth { before, until_ms: self.now_ms + self.patience_ms() });
        }
    }

    /// Notes that those that are new had their time.
    pub(super) fn end_growth(&mut self) {
        let is_over = |growth: &Growth| growth.until_ms <= self.now_ms || self.is_complete();
        if self.growth.as_ref().is_some_and(is_over) {
            self.growth = None;
        }
    }

    /// Whether enough workers serve. While workers are not wanted, none have to.
    #[must_use]
    pub fn has_quorum(&self, now_ms: u64) -> bool {
        let serving = self.workers.values().filter(|worker| worker.state == State::Serving).count();
        serving >= self.counted_on(now_ms).div_ceil(2) as usize
    }

    /// Workers that should serve by now.
    fn counted_on(&self, now_ms: u64) -> u32 {
        let wanted = match self.phase {
            // The others are not started before the first one is judged.
            Phase::Running if self.is_tried_alone() => 0,
            Phase::New | Phase::Starting | Phase::Running => self.wanted,
            Phase::Paused(_) | Phase::Stopping(_) | Phase::Over => 0,
        };
        let growing = self.growth.as_ref().filter(|growth| now_ms < growth.until_ms);
        growing.map_or(wanted, |growth| wanted.min(growth.before))
    }
}
