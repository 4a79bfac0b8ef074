//! What breaks things.

use std::{collections::BTreeMap, thread, time::Duration};

use aegis_harness::{Cluster, app};
use aegis_ipc::operator::Request;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{clients::Dice, watch::Watch};

/// Time a stopped process stays stopped: long enough to be noticed by clients, too short to be taken for hung.
const STOPPED: Duration = Duration::from_millis(300);

/// What was done to the host, and how often.
#[derive(Debug, Default)]
pub(crate) struct Deeds {
    /// By kind.
    pub(crate) strikes: BTreeMap<&'static str, u32>,
    /// Strikes that may cut each connection once.
    pub(crate) cuts: u64,
    /// New generations that were asked for.
    pub(crate) reloads: u32,
    /// New generations that came into force meanwhile.
    pub(crate) generations: u64,
}

struct Nemesis<'a> {
    cluster: &'a mut Cluster,
    watch: &'a Watch,
    workers: u32,
    dice: Dice,
    deeds: Deeds,
    /// Generation that was last seen in force.
    generation: u64,
}

/// Breaks something every now and then until told to stop, and leaves as many workers as there were.
pub(crate) fn run(cluster: &mut Cluster, watch: &Watch, workers: u32) -> Deeds {
    let mut nemesis =
        Nemesis { cluster, watch, workers, dice: Dice::new(4711), deeds: Deeds::default(), generation: 1 };
    while watch.goes_on() {
        thread::sleep(Duration::from_millis(100 + nemesis.dice.below(400)));
        let what = nemesis.strike();
        *nemesis.deeds.strikes.entry(what).or_default() += 1;
    }
    nemesis.ask(&Request::Scale { workers });
    nemesis.deeds
}

impl Nemesis<'_> {
    fn strike(&mut self) -> &'static str {
        let status = self.cluster.status();
        self.deeds.generations += status.generation.saturating_sub(self.generation);
        self.generation = status.generation;
        let workers: Vec<u32> =
            status.workers.iter().map(|worker| worker.pid).filter(|pid| *pid != 0).collect();
        let chosen = self.dice.below(workers.len().max(1) as u64) as usize;
        let Some(victim) = workers.get(chosen).copied() else { return "nobody to strike" };
        match self.dice.below(20) {
            0..6 => {
                self.deeds.cuts += 1;
                send(victim, Signal::SIGKILL);
                "kill -9 of a worker"
            }
            6..9 => {
                send(status.store.pid, Signal::SIGKILL);
                "kill -9 of the store"
            }
            9..11 => {
                stop_and_continue(victim);
                "stop and continue of a worker"
            }
            11..13 => {
                stop_and_continue(status.store.pid);
                "stop and continue of the store"
            }
            13..16 => self.reload(),
            16 => {
                self.ask(&Request::Restart { slot: None });
                "rolling restart"
            }
            17..19 => {
                let workers = (self.workers + self.dice.below(3) as u32).saturating_sub(1).max(1);
                self.ask(&Request::Scale { workers });
                "scale"
            }
            _ => self.kill_host(),
        }
    }

    /// Another text of the module for each, so that none of them is what is in force already.
    fn reload(&mut self) -> &'static str {
        self.deeds.reloads += 1;
        app::write_module(self.cluster.folder(), "todo", &app::revised_todo(self.deeds.reloads));
        self.ask(&Request::Reload { wait: false, mode: None, automatic: false });
        "reload of a changed module"
    }

    fn kill_host(&mut self) -> &'static str {
        self.watch.turn();
        self.cluster.kill_and_restart();
        self.watch.turn();
        self.generation = self.cluster.status().generation;
        "kill -9 of the whole host"
    }

    /// Asks for something that may be refused, for example because the host is still starting.
    fn ask(&self, request: &Request) {
        let _ = self.cluster.ask(request);
    }
}

fn stop_and_continue(pid: u32) {
    send(pid, Signal::SIGSTOP);
    thread::sleep(STOPPED);
    send(pid, Signal::SIGCONT);
}

/// The process may have ended by itself meanwhile: then there is nothing to do.
pub(crate) fn send(pid: u32, signal: Signal) {
    if pid != 0 {
        let _ = kill(Pid::from_raw(pid as i32), signal);
    }
}
