//! Every action of the fleet, carried out.

use std::{
    io::Write,
    os::fd::{AsFd, OwnedFd},
};

use aegis_ipc::{board::monotonic_ms, control::ToChild, handoff::Audience, operator::Reply};
use rustix::process::Signal;

use super::{Announcement, Driver, Stage};
use crate::{
    fleet::{Action, ChildId, Event, Level, Notice, Patience},
    logs,
};

impl Driver {
    /// Does what the fleet says.
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::Spawn(spawn) if self.has_to_wait(&spawn) => self.hold_back(spawn),
            Action::Spawn(spawn) => self.start_child(spawn),
            Action::Instruct { child, task } => {
                self.tasks.insert(child, task);
            }
            Action::Serve { child } => self.insist(child, &ToChild::Serve, &[]),
            Action::Drain { child, deadline_ms } => self.drain_child(child, deadline_ms),
            Action::Adopt { child, generation } => self.tell_to_adopt(child, generation),
            Action::Poke { child } => {
                let _ = self.tell(child, &ToChild::Poke, &[]); // may be lost, as the fleet knows
            }
            Action::Keep { child } => {
                let _ = self.tell(child, &ToChild::Keep, &[]); // a store that does not hear it ends all the same
            }
            Action::Terminate { child } => self.signal_child(child, Signal::TERM),
            Action::Kill { child } => {
                self.call_off(child);
                self.signal_child(child, Signal::KILL);
            }

            Action::BindListeners { generation } => self.bind_listeners(generation),
            Action::CloseListeners { generation } => self.settle(generation),
            Action::Prepare { child, generation } => self.prepare_store(child, generation),
            Action::Activate { child, generation } => {
                self.insist(child, &ToChild::Activate { generation }, &[])
            }
            Action::Discard { child, generation } => {
                self.insist(child, &ToChild::Discard { generation }, &[])
            }
            Action::WriteLastGood { generation } => self.write_last_good(generation),
            Action::KeepLastGoodBefore { generation } => self.keep_last_good_before(generation),
            Action::WritePrevious { generation } => self.write_previous(generation),
            Action::Pin { generation } => self.pin(generation),
            Action::ReportKept { generation } => self.report_kept(generation),
            Action::LoadLastGood { generation } => self.load_last_good(generation),
            Action::CopyGeneration { from, to } => self.copy_generation(from, to),
            Action::Forget { generation } => {
                self.generations.remove(&generation);
            }
            Action::ForgetImage { image } => {
                self.images.remove(&image);
            }

            Action::ReadVitals(wanted) => {
                let vitals = self.vitals(wanted);
                self.events.push_back(Event::Vitals(vitals));
            }
            Action::ReadTraffic => {
                let traffic = self.traffic();
                self.events.push_back(Event::Traffic(traffic));
            }
            Action::Upgrade { path } => self.begin_upgrade(path),
            Action::CallOffUpgrade => self.call_off_upgrade(),

            Action::Accepted { .. }
            | Action::Refused { .. }
            | Action::Progress { .. }
            | Action::Verdict { .. } => {
                self.tell_asker(action);
            }
            Action::Notify(notice) => self.notify(notice),
            Action::Log { level, line } => match level {
                Level::Error => tracing::error!("{line}"),
                Level::Warn => tracing::warn!("{line}"),
                Level::Info => tracing::info!("{line}"),
            },
            Action::Exit { code, reason } => self.end(code, reason),
        }
    }

    fn end(&mut self, code: u8, reason: Option<String>) {
        tracing::debug!(code, ?reason, "the host ends");
        let (before, log_file) = (self.stderr_before.take(), &self.log_file);
        if let (Some(before), Some(log_file), Some(reason)) = (before, log_file, reason) {
            logs::tell_failed_start(&before, &reason, log_file);
        }
        self.exit = Some(code);
    }

    fn drain_child(&mut self, child: ChildId, deadline_ms: Option<u64>) {
        let is_last = !self.fleet.is_followed();
        if !self.tell(child, &ToChild::Drain { deadline_ms, is_last }, &[]) {
            let signal = if deadline_ms.is_some() { Signal::TERM } else { Signal::QUIT };
            self.signal_child(child, signal);
        }
    }

    fn prepare_store(&mut self, child: ChildId, generation: u64) {
        match self.bundle_of(generation) {
            Ok(bundle) => self.insist(child, &ToChild::Prepare { generation }, &[bundle.as_fd()]),
            Err(reason) => {
                self.events.push_back(Event::Refused { child, generation, reasons: vec![reason] });
            }
        }
    }

    fn tell_to_adopt(&mut self, child: ChildId, generation: u64) {
        match self.bundle_of(generation) {
            Ok(bundle) => self.insist(child, &ToChild::Adopt { generation }, &[bundle.as_fd()]),
            Err(reason) => {
                let refused = Event::NotAdopted { child, generation, reason, loses_state: false };
                self.events.push_back(refused);
            }
        }
    }

    /// A descriptor of the bundle of a generation.
    fn bundle_of(&self, generation: u64) -> Result<OwnedFd, String> {
        let held = self.generations.get(&generation);
        let held = held.ok_or_else(|| format!("generation {generation} is not held"))?;
        let copy = held.bundle.try_clone();
        copy.map_err(|error| format!("duplicating the bundle of generation {generation} failed: {error}"))
    }

    fn tell_asker(&mut self, action: Action) {
        let (asker, who, reply) = match action {
            Action::Accepted { asker, job } => {
                let Some((who, patience)) = self.askers.accepted(asker) else { return };
                self.reply(who, &Reply::Accepted { job });
                if patience == Patience::Accepted {
                    self.unexpect(who, asker);
                }
                return;
            }
            Action::Progress { asker, job, step, is_warning } => {
                let Some(who) = self.askers.find(asker) else { return };
                self.reply(who, &Reply::Progress { job, step, is_warning });
                return;
            }
            Action::Refused { asker, message } => {
                (asker, self.askers.finish(asker), Reply::Error { message })
            }
            Action::Verdict { asker, job, verdict } => {
                let reply = match self.fleet.job(job) {
                    Some(told) => Reply::Job(aegis_ipc::operator::Job { verdict: Some(verdict), ..told }),
                    None => Reply::Error { message: format!("job {job} ended: {verdict:?}") },
                };
                (asker, self.askers.finish(asker), reply)
            }
            _ => return,
        };
        if let Some(who) = who {
            self.reply(who, &reply);
            self.unexpect(who, asker);
        }
    }

    fn notify(&mut self, notice: Notice) {
        let now_ms = monotonic_ms();
        let summary = self.fleet.summary(now_ms);
        match notice {
            Notice::Ready => {
                self.stage = Stage::Serving;
                self.announce();
                self.notifier.ready(&summary);
            }
            Notice::Reloading => {
                self.stage = Stage::Reloading;
                self.notifier.reloading();
            }
            Notice::Stopping => {
                self.stage = Stage::Stopping;
                self.listeners.let_go();
                self.notifier.stopping(&summary);
            }
        }
        self.rhythm.stage_changed(self.stage, now_ms);
    }

    /// Tells standard output once where clients connect.
    fn announce(&mut self) {
        if self.announcement == Announcement::Made {
            return;
        }
        self.stderr_before = None;
        let as_json = self.announcement == Announcement::DueAsJson;
        self.announcement = Announcement::Made;
        let in_force = self.fleet.status(monotonic_ms()).generation;
        let Some(held) = self.generations.get(&in_force) else { return };
        let mut lines = String::new();
        for url in self.listeners.urls(&held.bindings, Audience::Public) {
            let line = if as_json {
                serde_json::json!({ "listening": url }).to_string()
            } else {
                format!("listening on {url}")
            };
            lines.push_str(&line);
            lines.push('\n');
        }
        for url in self.listeners.urls(&held.bindings, Audience::Admin) {
            tracing::info!("operators are served on {url}");
        }
        let mut stdout = std::io::stdout().lock();
        let told = logs::unstopped(&std::io::stdout(), || {
            stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush())
        });
        if let Err(error) = told {
            tracing::warn!(%error, "telling standard output where the host listens failed");
        }
    }
}
