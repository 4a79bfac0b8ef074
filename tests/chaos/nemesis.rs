//! What breaks things.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use aegis_harness::Cluster;
use aegis_ipc::operator::Request;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::clients::Dice;

/// Breaks something every now and then until told to stop; says what and how often.
pub(crate) fn run(cluster: &Cluster, stop: &AtomicBool) -> BTreeMap<&'static str, u32> {
    let mut dice = Dice::new(4711);
    let mut done = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(100 + dice.below(400)));
        let what = strike(cluster, &mut dice);
        *done.entry(what).or_default() += 1;
    }
    let _ = cluster.ask(&Request::Scale { workers: 4 });
    done
}

fn strike(cluster: &Cluster, dice: &mut Dice) -> &'static str {
    let status = cluster.status();
    let workers: Vec<u32> = status.workers.iter().map(|worker| worker.pid).filter(|pid| *pid != 0).collect();
    let Some(victim) = workers.get(dice.below(workers.len().max(1) as u64) as usize).copied() else {
        return "nobody to strike";
    };
    match dice.below(6) {
        0 | 1 => {
            send(victim, Signal::SIGKILL);
            "kill -9 of a worker"
        }
        2 => {
            send(status.store.pid, Signal::SIGKILL);
            "kill -9 of the store"
        }
        3 => {
            send(victim, Signal::SIGSTOP);
            thread::sleep(Duration::from_millis(300));
            send(victim, Signal::SIGCONT);
            "stop and continue of a worker"
        }
        4 => {
            let _ = cluster.ask(&Request::Restart { slot: None });
            "rolling restart"
        }
        _ => {
            let _ = cluster.ask(&Request::Scale { workers: 3 + dice.below(3) as u32 });
            "scale"
        }
    }
}

/// The process may have ended by itself meanwhile: then there is nothing to do.
pub(crate) fn send(pid: u32, signal: Signal) {
    if pid != 0 {
        let _ = kill(Pid::from_raw(pid as i32), signal);
    }
}
