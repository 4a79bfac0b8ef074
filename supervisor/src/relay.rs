//! Who waits for which answer of the fleet.
//!
//! A request comes from an operator's connection, or from a worker that relays what a client asked it over HTTP. The
//! fleet knows both only by a number; this is where the number becomes a way back again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    control::ClientId,
    fleet::{Asker, ChildId, Patience},
};

/// Most requests that wait for an answer.
pub const ASKERS_MAX: usize = 1024;

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// A connection to the operator's socket.
    Client(ClientId),
    /// A request that a worker relays.
    Worker {
        /// The worker process.
        child: ChildId,
        /// As the worker numbered it.
        request: u64,
    },
}

/// Everybody who waits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Askers {
    waiting: BTreeMap<Asker, (Who, Patience)>,
    next: u64,
}

impl Askers {
    /// Notes that somebody waits; `None` when too many do already.
    pub fn register(&mut self, who: Who, patience: Patience) -> Option<Asker> {
        if self.waiting.len() >= ASKERS_MAX {
            return None;
        }
        let asker = Asker(self.next);
        self.next += 1;
        self.waiting.insert(asker, (who, patience));
        Some(asker)
    }

    /// The way back to an asker whose request was taken. One that wants to hear no more is forgotten.
    pub fn accepted(&mut self, asker: Asker) -> Option<(Who, Patience)> {
        let (who, patience) = *self.waiting.get(&asker)?;
        if patience == Patience::Accepted {
            self.waiting.remove(&asker);
        }
        Some((who, patience))
    }

    /// The way back to an asker that waits on.
    #[must_use]
    pub fn find(&self, asker: Asker) -> Option<Who> {
        self.waiting.get(&asker).map(|(who, _)| *who)
    }

    /// The way back to an asker that is told the last thing now.
    pub fn finish(&mut self, asker: Asker) -> Option<Who> {
        self.waiting.remove(&asker).map(|(who, _)| who)
    }

    /// A worker is gone, and whoever asked it with it. The value: those who waited.
    pub fn forget_worker(&mut self, gone: ChildId) -> Vec<Asker> {
        let asked_it = |who: &Who| matches!(who, Who::Worker { child, .. } if *child == gone);
        let left: Vec<Asker> =
            self.waiting.iter().filter(|(_, (who, _))| asked_it(who)).map(|(asker, _)| *asker).collect();
        self.waiting.retain(|_, (who, _)| !asked_it(who));
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impatient_asker_hears_one_answer_and_a_patient_one_all() {
        let mut askers = Askers::default();
        let hasty = askers.register(Who::Client(1), Patience::Accepted).unwrap();
        let patient = askers.register(Who::Client(2), Patience::Verdict).unwrap();
        assert_eq!(askers.accepted(hasty), Some((Who::Client(1), Patience::Accepted)));
        assert_eq!(askers.find(hasty), None);
        assert_eq!(askers.accepted(patient), Some((Who::Client(2), Patience::Verdict)));
        assert_eq!(askers.find(patient), Some(Who::Client(2)));
        assert_eq!(askers.finish(patient), Some(Who::Client(2)));
        assert_eq!(askers.finish(patient), None);
    }

    #[test]
    fn the_askers_of_a_dead_worker_are_forgotten() {
        let mut askers = Askers::default();
        let worker = |child, request| Who::Worker { child: ChildId(child), request };
        let gone = askers.register(worker(1, 5), Patience::Verdict).unwrap();
        let alive = askers.register(worker(2, 5), Patience::Verdict).unwrap();
        assert_eq!(askers.forget_worker(ChildId(1)), [gone]);
        assert_eq!(askers.find(gone), None);
        assert_eq!(askers.find(alive), Some(worker(2, 5)));
    }

    #[test]
    fn the_number_of_askers_is_bounded() {
        let mut askers = Askers::default();
        for client in 0..ASKERS_MAX as u64 {
            assert!(askers.register(Who::Client(client), Patience::Verdict).is_some());
        }
        assert_eq!(askers.register(Who::Client(0), Patience::Verdict), None);
    }
}
