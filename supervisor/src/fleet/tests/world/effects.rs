//! What the fleet's actions bring about in the pretended world.

use std::collections::VecDeque;

use aegis_ipc::{
    PROTOCOL_VERSION,
    board::{BUCKETS, bucket_of},
};

use super::{Adopts, Bind, Closing, Due, Fate, Manner, Parting, Probe, Process, StoreSays, World};
use crate::fleet::{Action, ChildId, Event, Exit, Role, Spawn, Traffic, Vital};

impl<F: Fate> World<F> {
    pub(super) fn carry_out(&mut self, action: &Action, events: &mut VecDeque<Event>) {
        match *action {
            Action::Spawn(spawn) => self.spawn(spawn, events),
            Action::Serve { child } => {
                if let Some(process) = self.processes.get_mut(&child) {
                    (process.is_serving, process.is_open) = (true, true);
                }
            }
            Action::Adopt { child, generation } => self.adopt(child, generation),
            Action::Drain { child, deadline_ms } => self.leave(child, deadline_ms),
            Action::Terminate { child } => self.leave(child, None),
            Action::Kill { child } => {
                let delay_ms = self.fate.dying();
                if let Some(process) = self.processes.get_mut(&child) {
                    process.is_killed = true;
                    process.is_serving = false;
                    self.after(delay_ms, Due::Die(child, Exit::Signal(9)));
                }
            }
            Action::Prepare { child, generation } => self.prepare(child, generation),
            Action::ReadVitals(_) => events.push_back(Event::Vitals(self.vitals())),
            Action::ReadTraffic => events.push_back(Event::Traffic(self.traffic())),
            Action::Upgrade { .. } => {
                let outcome = self.fate.upgrade();
                self.after(30, Due::Exec(outcome));
            }
            Action::CallOffUpgrade => self.queue.retain(|_, due| !matches!(due, Due::Exec(_))),
            Action::ReportKept { generation } => {
                // Without a pin a host comes up on the app, whatever is on its way to the disk.
                let delay_ms = if self.fleet.is_pinned() { self.fate.keeping() } else { 0 };
                self.after(delay_ms, Due::Report(Event::Kept { generation }));
            }
            Action::Exit { code, .. } => self.exit = Some(code),
            Action::BindListeners { .. }
            | Action::CloseListeners { .. }
            | Action::WriteLastGood { .. }
            | Action::LoadLastGood { .. }
            | Action::CopyGeneration { .. }
            | Action::Forget { .. } => self.keep(action, events),
            Action::Poke { .. }
            | Action::Keep { .. }
            | Action::Activate { .. }
            | Action::Discard { .. }
            | Action::ForgetImage { .. }
            | Action::Instruct { .. }
            | Action::KeepLastGoodBefore { .. }
            | Action::WritePrevious { .. }
            | Action::Pin { .. }
            | Action::Accepted { .. }
            | Action::Refused { .. }
            | Action::Progress { .. }
            | Action::Verdict { .. }
            | Action::Notify(_)
            | Action::Log { .. } => {}
        }
    }

    /// What concerns bundles and listeners.
    fn keep(&mut self, action: &Action, events: &mut VecDeque<Event>) {
        match *action {
            Action::BindListeners { generation } => {
                let app = &self.bundles[&generation];
                events.push_back(match app.bind {
                    Bind::Works => {
                        self.bound.extend(app.listeners.iter());
                        Event::ListenersBound { generation }
                    }
                    Bind::Fails => {
                        Event::ListenersFailed { generation, reasons: vec!["port 81 is taken".to_owned()] }
                    }
                });
            }
            Action::CloseListeners { generation } => self.bound = self.bundles[&generation].listeners.clone(),
            Action::WriteLastGood { generation } => self.last_good = Some(self.bundles[&generation].clone()),
            Action::LoadLastGood { generation } => events.push_back(match self.last_good.clone() {
                Some(app) => {
                    let (digest, policy) = (app.digest.clone(), Box::new(app.policy.clone()));
                    self.bundles.insert(generation, app);
                    Event::LastGoodLoaded { generation, digest, policy }
                }
                None => Event::LastGoodMissing { generation, reason: "no such file".to_owned() },
            }),
            Action::CopyGeneration { from, to } => {
                let app = self.bundles[&from].clone();
                self.bundles.insert(to, app);
            }
            Action::Forget { generation } => {
                self.bundles.remove(&generation);
            }
            _ => {}
        }
    }

    fn prepare(&mut self, child: ChildId, generation: u64) {
        let delay_ms = 1 + self.fate.delay(20);
        let reasons = vec!["two documents have the same email".to_owned()];
        let answer = match self.bundles[&generation].store {
            StoreSays::Yes => Event::Prepared { child, generation },
            StoreSays::No => Event::Refused { child, generation, reasons },
            StoreSays::Nothing => return,
        };
        self.after(delay_ms, Due::Report(answer));
    }

    fn adopt(&mut self, child: ChildId, generation: u64) {
        match self.fate.adopts() {
            Adopts::After(delay_ms) => {
                let adopted = Event::Adopted { child, generation, prepare_us: 4_500, switch_us: 3 };
                self.after(delay_ms, Due::Report(adopted));
            }
            Adopts::Not => {
                let reason = "model ORDER: its fields are others".to_owned();
                let refused = Event::NotAdopted { child, generation, reason, loses_state: false };
                self.after(1, Due::Report(refused));
            }
            Adopts::LosesState => {
                let reason = "the code of ORDER does not hand its state over".to_owned();
                let refused = Event::NotAdopted { child, generation, reason, loses_state: true };
                self.after(1, Due::Report(refused));
            }
            Adopts::Silently => {}
            Adopts::Dying(exit) => self.after(5, Due::Die(child, exit)),
        }
    }

    fn spawn(&mut self, spawn: Spawn, events: &mut VecDeque<Event>) {
        let (child, generation) = (spawn.child, spawn.generation);
        let own = match spawn.role {
            Role::Worker { .. } => self.bundles[&generation].manner,
            Role::Store { .. } | Role::Compile | Role::Look => Manner::Good,
        };
        let manner = self.fate.manner(spawn.role).unwrap_or(own);
        if manner == Manner::Unborn {
            events.push_back(Event::SpawnFailed { child, reason: "too many processes".to_owned() });
            return;
        }
        let pid = 100 + child.0 as u32;
        let process = Process::new(spawn);
        self.processes.insert(child, process);
        events.push_back(Event::Spawned { child, pid });
        let claimed = if manner == Manner::Impostor { generation + 1 } else { generation };
        let hello = Event::Hello { child, protocol: PROTOCOL_VERSION, pid, generation: claimed };
        self.after(1, Due::Report(hello));
        if spawn.role == Role::Compile {
            return self.probe(child);
        }
        if spawn.role == Role::Look {
            return self.look(child);
        }
        self.live(child, manner);
    }

    fn look(&mut self, child: ChildId) {
        let delay_ms = 5 + self.fate.delay(50);
        match self.fate.look() {
            Some(look) => {
                self.after(delay_ms, Due::Report(Event::Looked { child, look }));
                self.after(delay_ms + 1, Due::Die(child, Exit::Code(0)));
            }
            None => self.after(delay_ms, Due::Die(child, Exit::Signal(11))),
        }
    }

    fn live(&mut self, child: ChildId, manner: Manner) {
        let mut ready_ms = 10 + self.fate.delay(100);
        match manner {
            Manner::Slow(late_ms) => ready_ms = late_ms,
            Manner::Unborn | Manner::Good | Manner::NeverReady | Manner::Impostor => {}
            Manner::DiesEarly(after_ms, exit) => self.after(after_ms, Due::Die(child, exit)),
            Manner::Fails(code) => {
                let reason = "the self-test failed".to_owned();
                self.after(5, Due::Report(Event::Failed { child, code, reason }));
                self.after(6, Due::Die(child, Exit::Code(code.into())));
            }
            Manner::Crashes(after_ms, exit) => self.after(ready_ms + after_ms, Due::Die(child, exit)),
            Manner::Hangs(after_ms, for_ms) => {
                self.after(ready_ms + after_ms, Due::Hang(child));
                self.after(ready_ms + after_ms + for_ms, Due::Recover(child));
            }
            Manner::Mute(after_ms) => {
                let reason = "control socket closed".to_owned();
                self.after(ready_ms + after_ms, Due::Report(Event::Unreachable { child, reason }));
            }
            Manner::Errs(percent) => {
                if let Some(process) = self.processes.get_mut(&child) {
                    process.errs_percent = percent;
                }
            }
        }
        let never = matches!(manner, Manner::NeverReady | Manner::DiesEarly(..) | Manner::Fails(_));
        if !never {
            self.after(ready_ms, Due::Report(Event::Ready { child }));
        }
    }

    fn probe(&mut self, child: ChildId) {
        let delay_ms = 5 + self.fate.delay(50);
        if self.has_code {
            let on = "modules/order/order.wasm".to_owned();
            self.after(2, Due::Report(Event::Working { child, on }));
        }
        let answer = match self.fate.probe() {
            Probe::Valid(app) => {
                let (digest, policy) = (app.digest.clone(), Box::new(app.policy.clone()));
                self.compiling.insert(child, *app);
                Event::Compiled { child, digest, policy }
            }
            Probe::Invalid => Event::Invalid { child, reasons: vec!["listen: found \"x\"".to_owned()] },
            Probe::Dies(exit) => return self.after(delay_ms, Due::Die(child, exit)),
            Probe::Hangs => return,
        };
        self.after(delay_ms, Due::Report(answer));
        self.after(delay_ms + 1, Due::Die(child, Exit::Code(0)));
    }

    pub(super) fn leave(&mut self, child: ChildId, deadline_ms: Option<u64>) {
        let parting = self.fate.parting();
        let now_ms = self.now_ms;
        let Some(process) = self.processes.get_mut(&child) else { return };
        process.is_serving = false;
        process.leave_by_ms = deadline_ms.map(|deadline_ms| now_ms + deadline_ms);
        if std::mem::replace(&mut process.is_leaving, true) {
            return;
        }
        process.left_ms = now_ms;
        if process.is_hung {
            return;
        }
        let is_open = process.is_open;
        if let Parting::After(delay_ms) = parting {
            process.is_ending = true;
            let delay_ms = deadline_ms.map_or(delay_ms, |deadline_ms| delay_ms.min(deadline_ms));
            self.after(delay_ms, Due::Die(child, Exit::Code(0)));
        }
        if is_open && let Closing::After(delay_ms) = self.fate.closing() {
            let closed = Event::Draining { child, connections: 1, in_flight: 0, closed: true };
            self.after(delay_ms, Due::Report(closed));
        }
    }

    fn vitals(&self) -> Vec<Vital> {
        let vital = |(child, process): (&ChildId, &Process)| Vital {
            child: *child,
            beat_ms: if process.is_hung { process.hung_ms } else { self.now_ms },
            requests: process.requests,
            resident_bytes: process.resident_bytes,
        };
        self.processes.iter().filter(|(_, process)| process.ready_ms.is_some()).map(vital).collect()
    }

    /// Every worker answers a thousand requests a second from its readiness on.
    fn traffic(&self) -> Vec<Traffic> {
        let workers = self.processes.iter().filter(|(_, process)| process.spawn.cell > 0);
        workers
            .map(|(child, process)| {
                let requests = process.ready_ms.map_or(0, |ready_ms| self.now_ms - ready_ms);
                let mut latency = vec![0; BUCKETS];
                latency[bucket_of(300)] = requests;
                Traffic { child: *child, requests, errors: requests * process.errs_percent / 100, latency }
            })
            .collect()
    }
}
