//! What a generation's configuration says about processes.

use std::time::Duration;

use aegis_config::{Config, Drain, Hang, Recycle, Reload, Restart, WORKERS_MAX};
use serde::{Deserialize, Serialize};

/// Most extra workers during a rollout.
pub const SURGE_MAX: u32 = 25;

// Two sets of workers, the one that drains and the one that serves, and a rollout fit the cells of the board, of which the
// first is nobody's.
const _: () = assert!(2 * WORKERS_MAX + SURGE_MAX < aegis_ipc::board::CELLS as u32);

/// What a generation's configuration says about processes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Workers that serve.
    pub workers: u32,
    /// Extra workers during a rollout.
    pub surge: u32,
    /// Time from spawn to ready.
    pub ready_timeout: Duration,
    /// How a new generation comes into force.
    pub reload: Reload,
    /// How a worker leaves.
    pub drain: Drain,
    /// What happens after a crash.
    pub restart: Restart,
    /// When a healthy worker is replaced.
    pub recycle: Recycle,
    /// When a silent worker is replaced.
    pub hang: Hang,
}

impl Policy {
    /// Takes what concerns processes from a configuration and brings the counts within their bounds.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            workers: config.workers.count.clamp(1, WORKERS_MAX),
            surge: config.workers.surge.clamp(1, SURGE_MAX),
            ready_timeout: config.workers.ready_timeout,
            reload: Reload {
                poll: config.reload.poll.filter(|_| has_sources(config)),
                ..config.reload.clone()
            },
            drain: config.drain.clone(),
            restart: config.restart.clone(),
            recycle: config.recycle.clone(),
            hang: config.hang.clone(),
        }
    }
}

/// Whether there is anybody to ask.
fn has_sources(config: &Config) -> bool {
    config.modules.values().any(|terms| terms.source.is_some())
}

/// Whole milliseconds of a duration; the fleet counts in nothing else.
#[must_use]
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_workers_as_a_configuration_may_say_are_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = crate::test_config(folder.path());
        config.workers.count = WORKERS_MAX;
        assert_eq!(Policy::new(&config).workers, WORKERS_MAX);
    }
}
