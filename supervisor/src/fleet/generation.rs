//! What the fleet remembers about generations: the bundles themselves are the driver's.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{
    Fleet,
    action::Action,
    policy::{Policy, milliseconds},
};

/// Digests that were found bad and are remembered.
const BAD_MAX: usize = 16;
/// Time in force after which a generation's crashes are no reason to go back to its predecessor any more: what worked
/// for ten minutes is not what changed.
pub(super) const PROBATION_MS: u64 = 600_000;

/// One generation whose bundle the driver holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Generation {
    pub(super) digest: String,
    pub(super) policy: Policy,
    /// Image its processes are started from.
    pub(super) image: u64,
    /// When its workers crashed, within the crash loop window.
    crashes: VecDeque<u64>,
}

/// The generation before the one in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Previous {
    pub(super) generation: u64,
    /// Until when it is kept to go back to.
    pub(super) until_ms: u64,
}

/// A set of modules that was found bad.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bad {
    digest: String,
    reason: String,
}

impl Generation {
    pub(super) fn new(digest: String, policy: Policy, image: u64) -> Self {
        Self { digest, policy, image, crashes: VecDeque::new() }
    }

    /// Notes a crash; true when it completes a crash loop, which is then forgotten.
    pub(super) fn note_crash(&mut self, now_ms: u64) -> bool {
        let restart = &self.policy.restart;
        let window_ms = milliseconds(restart.crash_loop_window);
        self.crashes.push_back(now_ms);
        self.crashes.retain(|at_ms| at_ms + window_ms >= now_ms);
        let is_loop = self.crashes.len() >= restart.crash_loop_count.max(1) as usize;
        if is_loop {
            self.crashes.clear();
        }
        is_loop
    }
}

impl Fleet {
    /// What the configuration of a generation says; that in force when it is no longer known.
    pub(super) fn policy_of(&self, generation: u64) -> &Policy {
        self.generations.get(&generation).map_or(&self.policy, |known| &known.policy)
    }

    /// Image to start processes of a generation from.
    pub(super) fn image_of(&self, generation: u64) -> u64 {
        self.generations.get(&generation).map_or(self.image, |known| known.image)
    }

    /// Digest of the generation in force.
    pub(super) fn digest(&self) -> &str {
        self.generations.get(&self.in_force).map_or("", |known| &known.digest)
    }

    /// Why a digest was found bad.
    pub(super) fn found_bad(&self, digest: &str) -> Option<&str> {
        self.bad.iter().find(|bad| bad.digest == digest).map(|bad| bad.reason.as_str())
    }

    /// Remembers that a digest is bad.
    pub(super) fn remember_bad(&mut self, digest: String, reason: String) {
        self.bad.retain(|bad| bad.digest != digest);
        self.bad.push_front(Bad { digest, reason });
        self.bad.truncate(BAD_MAX);
    }

    /// The number of the generation in force; 0 before there is one.
    pub(crate) fn in_force(&self) -> u64 {
        self.in_force
    }

    /// Takes a generation into force: its configuration rules from here on.
    pub(super) fn bring_into_force(&mut self, generation: u64) {
        self.in_force = generation;
        self.policy = self.policy_of(generation).clone();
        let digest = self.digest().to_owned();
        self.bad.retain(|bad| bad.digest != digest);
        self.turn += 1;
    }

    /// Lets go of bundles and images that nothing can be started from any more.
    pub(super) fn forget_unneeded(&mut self) {
        let mut needed = vec![self.in_force];
        needed.extend(self.previous.map(|previous| previous.generation));
        needed.extend(self.rollout.iter().flat_map(|rollout| [rollout.from, rollout.to]));
        let unneeded: Vec<u64> =
            self.generations.keys().copied().filter(|generation| !needed.contains(generation)).collect();
        for generation in unneeded {
            self.generations.remove(&generation);
            self.actions.push(Action::Forget { generation });
        }
        let used: Vec<u64> =
            self.generations.values().map(|generation| generation.image).chain([self.image]).collect();
        for image in self.images.extract_if(.., |image| !used.contains(image)) {
            self.actions.push(Action::ForgetImage { image });
        }
    }
}
