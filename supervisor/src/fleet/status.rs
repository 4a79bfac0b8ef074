//! What the fleet tells people.

use aegis_ipc::operator::{Death, Job, Status, StoreStatus, WorkerStatus};
use serde::{Deserialize, Serialize};

use super::{Fleet, Phase, store, worker::State};

/// Deaths that are remembered.
const DEATHS_MAX: usize = 100;
/// Bytes of a reason for a death that are remembered. What a process says of itself may be of any length.
const REASON_BYTES_MAX: usize = 500;

/// A child that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Gone {
    who: String,
    pid: u32,
    generation: u64,
    reason: String,
    at_ms: u64,
}

impl Fleet {
    pub(super) fn tally(&mut self, who: String, pid: u32, generation: u64, mut reason: String) {
        if reason.len() > REASON_BYTES_MAX {
            reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
            reason.push('…');
        }
        self.tally.push_front(Gone { who, pid, generation, reason, at_ms: self.now_ms });
        self.tally.truncate(DEATHS_MAX);
    }

    /// What the fleet knows of the state of the host. The driver fills in `pid`, `version`, `listen`, `deployed`,
    /// `failing`, `trials` and `loop_longest_us`;
    /// of each worker `connections`, `in_flight`, `requests`, `resident_bytes` and `lag`; of the store `durable`.
    #[must_use]
    pub fn status(&self, now_ms: u64) -> Status {
        Status {
            pid: 0,
            version: String::new(),
            uptime_ms: now_ms.saturating_sub(self.started_ms),
            summary: self.summary(now_ms),
            listen: Vec::new(),
            generation: self.in_force,
            digest: self.digest().to_owned(),
            notice: self.hold.as_ref().map(|hold| hold.reason.clone()),
            deployed: Vec::new(),
            failing: Vec::new(),
            trials: Vec::new(),
            workers_wanted: match self.phase {
                Phase::New | Phase::Starting | Phase::Running => self.wanted,
                Phase::Paused(_) | Phase::Stopping(_) | Phase::Over => 0,
            },
            workers: self.worker_status(now_ms),
            store: self.store_status(),
            jobs: self.jobs.open_jobs(),
            last_job: self.jobs.last().map(|ended| ended.job.clone()),
            deaths: self.tally.iter().map(|gone| gone.describe(now_ms)).collect(),
            loop_longest_us: 0,
        }
    }

    fn worker_status(&self, now_ms: u64) -> Vec<WorkerStatus> {
        let mut workers: Vec<WorkerStatus> = self
            .workers
            .values()
            .map(|worker| WorkerStatus {
                slot: worker.slot,
                generation: worker.generation,
                pid: worker.pid,
                state: worker.state_name().to_owned(),
                uptime_ms: now_ms.saturating_sub(worker.spawned_ms),
                connections: 0,
                in_flight: 0,
                requests: 0,
                resident_bytes: 0,
                lag: 0,
            })
            .collect();
        workers.sort_by_key(|worker| worker.slot);
        workers
    }

    fn store_status(&self) -> StoreStatus {
        let (pid, state) = match &self.store.process {
            None => (0, "down"),
            Some(process) => match process.state {
                store::State::Starting => (process.pid, "starting"),
                store::State::Ready { .. } if process.is_silent => (process.pid, "silent"),
                store::State::Ready { .. } => (process.pid, "ready"),
                store::State::Leaving { .. } | store::State::Killed { .. } => (process.pid, "down"),
            },
        };
        let (epoch, restarts) = (self.store.epoch, self.store.restarts);
        StoreStatus { pid, state: state.to_owned(), durable: 0, epoch, restarts, disk_full: None }
    }

    /// A job that waits, runs, or ended not long ago.
    #[must_use]
    pub fn job(&self, job: u64) -> Option<Job> {
        self.jobs.get(job)
    }

    /// The status line: `gen 7 · 8/8 serving · 0 draining · last reload done 3 min ago`.
    #[must_use]
    pub fn summary(&self, now_ms: u64) -> String {
        let draining = self.workers.values().filter(|worker| worker.is_draining()).count();
        let starting = self.workers.values().filter(|worker| worker.state == State::Starting).count();
        let counts = format!("{}/{} serving · {draining} draining", self.serving(), self.wanted);
        let mut parts = match &self.phase {
            Phase::New | Phase::Starting => vec!["starting".to_owned()],
            Phase::Running => vec![format!("gen {} · {counts}", self.in_force)],
            Phase::Paused(_) => {
                vec![format!("gen {} · drained on request · {draining} draining", self.in_force)]
            }
            Phase::Stopping(_) => vec![format!("stopping · {draining} draining")],
            Phase::Over => vec!["stopped".to_owned()],
        };
        if starting > 0 {
            parts.push(format!("{starting} starting"));
        }
        if matches!(self.phase, Phase::Running)
            && let Some(trouble) = self.store.trouble()
        {
            parts.push(trouble.to_owned());
        }
        if let Some(degraded) = &self.degraded {
            parts.push(format!("DEGRADED: {degraded}"));
        }
        if let Some(hold) = &self.hold {
            parts.push(hold.word().to_owned());
        }
        let running = self.jobs.open_jobs().into_iter().next();
        if let Some(job) = running {
            parts.push(format!("{} (job {}): {}", job.kind, job.job, job.step));
        } else if let Some(last) = self.jobs.last() {
            let outcome = last.job.verdict.as_ref().map_or("ended", outcome);
            let ago = ago(now_ms.saturating_sub(last.at_ms));
            parts.push(format!("last {} {outcome} {ago}", last.job.kind));
        }
        parts.join(" · ")
    }

    /// Grows with every change that [`Fleet::status`] shows, but for clocks.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

impl Gone {
    fn describe(&self, now_ms: u64) -> Death {
        Death {
            who: self.who.clone(),
            pid: self.pid,
            generation: self.generation,
            reason: self.reason.clone(),
            ago_ms: now_ms.saturating_sub(self.at_ms),
        }
    }
}

fn outcome(verdict: &aegis_ipc::operator::Verdict) -> &'static str {
    use aegis_ipc::operator::Verdict;
    match verdict {
        Verdict::Done => "done",
        Verdict::Unchanged => "unchanged",
        Verdict::Rejected { .. } => "rejected",
        Verdict::Incompatible { .. } => "incompatible",
        Verdict::RolledBack { .. } => "rolled back",
        Verdict::Superseded => "superseded",
    }
}

/// How long ago, in one unit, so that the line does not change every second.
fn ago(milliseconds: u64) -> String {
    let minutes = milliseconds / 60_000;
    match minutes {
        0 => "just now".to_owned(),
        1..60 => format!("{minutes} min ago"),
        60..2880 => format!("{} h ago", minutes / 60),
        _ => format!("{} d ago", minutes / 1440),
    }
}
