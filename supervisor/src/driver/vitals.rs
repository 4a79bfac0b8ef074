//! What the board and the process table show: signs of life, traffic, the numbers of the status.

use std::sync::atomic::Ordering;

use aegis_ipc::{
    board::{BEATS, BUCKETS, Board, Counter, Gauge, ModuleCounter, ModuleEntry, StoreWord, monotonic_ms},
    deploy::Tried,
    handoff::Audience,
    operator::{DeployedModule, DiskFull, Reply, Status, TriedModule},
};

use super::{Driver, children::Child};
use crate::{
    fleet::{Calls, ChildId, Role, Traffic, TrialReading, Vital, Vitals},
    probe::Generation,
};

/// Calls of code that ended with a fault, and not because it said no. Those that were not made for the faults before are as
/// bad for whoever asked, and they are all that is seen of code which is not called any more.
const FAULTS: [ModuleCounter; 4] =
    [ModuleCounter::Traps, ModuleCounter::Timeouts, ModuleCounter::Failures, ModuleCounter::Denials];
/// Calls of code, whether or not they were made.
const CALLS: [ModuleCounter; 2] = [ModuleCounter::Calls, ModuleCounter::Denials];

const RESPONSES: [Counter; 5] = [
    Counter::Responses1xx,
    Counter::Responses2xx,
    Counter::Responses3xx,
    Counter::Responses4xx,
    Counter::Responses5xx,
];

/// Requests that a cell has counted as answered, ever.
pub(super) fn requests(board: &Board, cell: u32) -> u64 {
    let cell = board.cell(cell as usize);
    RESPONSES.iter().map(|class| cell.counter(*class).load(Ordering::Relaxed)).sum()
}

/// The disk of the store, while writes are refused because of it.
fn disk_full(board: &Board, now_ms: u64) -> Option<DiskFull> {
    let word = |word| board.store(word).load(Ordering::Relaxed);
    let since_ms = word(StoreWord::DiskFullSince);
    (since_ms != 0).then(|| DiskFull {
        for_ms: now_ms.saturating_sub(since_ms),
        free_bytes: word(StoreWord::DiskFreeBytes),
        needed_bytes: word(StoreWord::DiskNeededBytes),
    })
}

impl Driver {
    pub(super) fn vitals(&self, wanted: Vitals) -> Vec<Vital> {
        let vital = |(id, child): (&ChildId, &Child)| {
            let resident_bytes = match wanted {
                Vitals::Board => 0,
                Vitals::BoardAndMemory => child.process.resident_bytes(),
            };
            match child.role {
                Role::Compile | Role::Look => None,
                Role::Store { .. } => {
                    let beat_ms = self.board.store(StoreWord::Beat).load(Ordering::Relaxed);
                    Some(Vital { child: *id, beat_ms, requests: 0, resident_bytes })
                }
                Role::Worker { .. } => {
                    let cell = child.cell?;
                    let requests = requests(&self.board, cell).saturating_sub(child.counted_before);
                    Some(Vital {
                        child: *id,
                        beat_ms: oldest_beat(&self.board, cell),
                        requests,
                        resident_bytes,
                    })
                }
            }
        };
        self.children.iter().filter_map(vital).collect()
    }

    pub(super) fn traffic(&self) -> Vec<Traffic> {
        let traffic = |(id, child): (&ChildId, &Child)| {
            let number = child.cell?;
            let cell = self.board.cell(number as usize);
            Some(Traffic {
                child: *id,
                requests: requests(&self.board, number),
                errors: cell.counter(Counter::Responses5xx).load(Ordering::Relaxed),
                latency: (0..BUCKETS).map(|index| cell.bucket(index).load(Ordering::Relaxed)).collect(),
            })
        };
        self.children.iter().filter_map(traffic).collect()
    }

    /// What versions that are tried have done so far, and those beside them.
    pub(super) fn trial_readings(&self) -> Vec<TrialReading> {
        let calls = |entry: Option<ModuleEntry>| {
            let total = |counter| entry.map_or(0, |entry| entry.counter(counter).load(Ordering::Relaxed));
            // A fault is counted after its call.
            let faults = FAULTS.into_iter().map(total).sum();
            Calls { calls: CALLS.into_iter().map(total).sum(), faults }
        };
        let reading = |(module, tried): (&str, &Tried)| TrialReading {
            module: module.to_owned(),
            digest: tried.deployed.sha256.clone(),
            current: calls(self.board.module(&tried.current_counted_as)),
            trial: calls(self.board.module_on_trial(&tried.counted_as)),
        };
        let held = self.generations.get(&self.fleet.generation_of_trials());
        held.into_iter().flat_map(Generation::trials).map(reading).collect()
    }

    /// The state of the host, as an answer.
    pub(super) fn status_reply(&self) -> Reply {
        Reply::Status(Box::new(self.status()))
    }

    /// What the fleet knows of the state of the host, and what only the driver sees.
    fn status(&self) -> Status {
        let mut status = self.fleet.status(monotonic_ms());
        status.pid = std::process::id();
        env!("CARGO_PKG_VERSION").clone_into(&mut status.version);
        status.loop_longest_us = self.longest_pass_us;
        let now_ms = monotonic_ms();
        if let Some(held) = self.generations.get(&status.generation) {
            status.listen = self.listeners.urls(&held.bindings, Audience::Public);
            status.listen.extend(self.listeners.urls(&held.bindings, Audience::Admin));
            let deployed = held.deployed.iter().filter_map(|module| {
                let deployed = module.deployed.clone()?;
                Some(DeployedModule { module: module.name.clone(), deployed })
            });
            status.deployed = deployed.collect();
            let trial = |(module, tried): (&str, &Tried)| {
                let entry = self.board.module_on_trial(&tried.counted_as);
                let failing = entry.is_some_and(|entry| entry.is_open(now_ms));
                TriedModule { module: module.to_owned(), failing, tried: tried.clone() }
            };
            status.trials = held.trials().map(trial).collect();
        }
        let in_force = self.board.modules().filter(|entry| !entry.is_on_trial());
        let failing = in_force.filter(|entry| entry.is_open(now_ms));
        status.failing = failing.map(|entry| entry.name()).collect();
        let durable = self.board.durable();
        status.store.durable = durable;
        status.store.disk_full = disk_full(&self.board, now_ms);
        for worker in &mut status.workers {
            let Some(child) = self.children.values().find(|child| child.process.pid() == worker.pid) else {
                continue;
            };
            let Some(number) = child.cell else { continue };
            let cell = self.board.cell(number as usize);
            let gauge = |gauge| cell.gauge(gauge).load(Ordering::Relaxed);
            worker.connections = gauge(Gauge::Connections);
            worker.in_flight = gauge(Gauge::InFlight);
            worker.requests = requests(&self.board, number).saturating_sub(child.counted_before);
            worker.resident_bytes = child.process.resident_bytes();
            worker.lag = durable.saturating_sub(gauge(Gauge::Applied));
        }
        status
    }
}

/// The oldest heartbeat of a worker's threads, 0 while one of them has none yet.
fn oldest_beat(board: &Board, cell: u32) -> u64 {
    let cell = board.cell(cell as usize);
    let threads = cell.gauge(Gauge::Threads).load(Ordering::Relaxed);
    let threads = usize::try_from(threads).unwrap_or(BEATS).min(BEATS);
    let beats = (0..threads).map(|thread| cell.beat(thread).load(Ordering::Relaxed));
    // The acceptor beats only while it may accept; its silence counts only then.
    let accepts = cell.gauge(Gauge::Accepting).load(Ordering::Relaxed) != 0;
    let acceptor = cell.gauge(Gauge::AcceptorBeat).load(Ordering::Relaxed);
    beats.chain((accepts && acceptor != 0).then_some(acceptor)).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_blocked_thread_shows_whatever_the_others_do() {
        let (board, _memory) = Board::create().unwrap();
        let cell = board.cell(3);
        assert_eq!(oldest_beat(&board, 3), 0, "no thread yet");
        cell.gauge(Gauge::Threads).store(2, Ordering::Relaxed);
        cell.beat(0).store(500, Ordering::Relaxed);
        assert_eq!(oldest_beat(&board, 3), 0, "one thread has not begun");
        cell.beat(1).store(900, Ordering::Relaxed);
        assert_eq!(oldest_beat(&board, 3), 500);
        cell.gauge(Gauge::AcceptorBeat).store(300, Ordering::Relaxed);
        assert_eq!(oldest_beat(&board, 3), 500, "the acceptor rests");
        cell.gauge(Gauge::Accepting).store(1, Ordering::Relaxed);
        assert_eq!(oldest_beat(&board, 3), 300);
    }

    #[test]
    fn requests_are_the_responses_of_every_class() {
        let (board, _memory) = Board::create().unwrap();
        for (number, class) in RESPONSES.iter().enumerate() {
            board
                .cell(7)
                .counter(*class)
                .store(10_u64.pow(u32::try_from(number).unwrap()), Ordering::Relaxed);
        }
        assert_eq!(requests(&board, 7), 11_111);
        assert_eq!(requests(&board, 8), 0);
    }
}
