//! Generations: what the compile helper made, what is on disk, and the sockets that serve them.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use aegis_config::Config;
use aegis_ipc::{board::monotonic_ms, control::ToChild, deploy::Task};

use super::{Driver, Interest, Source};
use crate::{
    SupervisorError,
    fleet::{ChildId, Event, Policy, Role, Spawn},
    kept,
    last_good::{LastGood, Progress},
    listen::BindFailure,
    lock::Predecessor,
    logs,
    probe::Generation,
    versions,
    watch::Watch,
    with_causes,
};

/// Time between two attempts to bind an address that children of a killed predecessor still hold.
const BIND_RETRY_MS: u64 = 100;
/// Time in addition to the orphans' own grace that they get to let go of an address.
const BIND_PATIENCE_MS: u64 = 5_000;

/// Addresses that are tried again.
#[derive(Debug, Clone, Copy)]
pub(super) struct PendingBind {
    generation: u64,
    pub(super) retry_ms: u64,
    until_ms: u64,
}

/// What waits for generations to be on the disk.
#[derive(Debug, Default)]
pub(super) struct Awaiting {
    /// Helpers that take up one of them.
    helpers: Vec<Spawn>,
    /// The one to be named as what a host that starts anew comes up on.
    pin: Option<u64>,
    /// Of which the fleet is to be told that all is where it should be.
    report: Option<u64>,
    /// The last one that could not be written as last good.
    unwritten: Option<u64>,
}

/// Why the generation before is not kept.
const LAST_COPY: &str = "in its place is the only copy of what a restart comes up on";
/// Why a host that starts anew does not come up on what was put back.
const NOWHERE: &str = "it could not be kept";

impl Driver {
    /// A compile helper is done; the bundle rode along.
    pub(super) fn compiled(&mut self, child: ChildId, mut descriptors: Vec<OwnedFd>) -> Event {
        let Some(number) = self
            .children
            .get(&child)
            .filter(|child| child.role == Role::Compile)
            .map(|child| child.generation)
        else {
            return Event::Invalid { child, reasons: vec!["no helper that compiles is there".to_owned()] };
        };
        if descriptors.len() != 1 {
            let found = descriptors.len();
            let reasons = vec![format!("the helper sent {found} descriptors, expected one with the bundle")];
            return Event::Invalid { child, reasons };
        }
        match Generation::open(descriptors.remove(0), &self.identity) {
            Ok(generation) => {
                if let Some(reason) = self.cannot_log(&generation.config) {
                    return Event::Invalid { child, reasons: vec![reason] };
                }
                if generation.has_code() {
                    self.engine = Some(generation.engine.clone());
                }
                let policy = Box::new(Policy::new(&generation.config));
                let digest = generation.digest.clone();
                self.generations.insert(number, generation);
                Event::Compiled { child, digest, policy }
            }
            Err(reasons) => Event::Invalid { child, reasons },
        }
    }

    /// Reads the generation that was in force last, as a new one.
    pub(super) fn load_last_good(&mut self, generation: u64) {
        let bundle = LastGood::of(&self.identity.data_dir).read().map_err(|error| error.to_string());
        let opened = bundle
            .and_then(|bundle| Generation::open(bundle, &self.identity).map_err(|reasons| reasons.join("; ")))
            .and_then(|held| held.fits(self.engine.as_deref()).map(|()| held));
        let event = match opened {
            Ok(mut held) => {
                versions::lower_no_more(&mut held.signed);
                let policy = Box::new(Policy::new(&held.config));
                let digest = held.digest.clone();
                self.generations.insert(generation, held);
                Event::LastGoodLoaded { generation, digest, policy }
            }
            Err(reason) => Event::LastGoodMissing { generation, reason },
        };
        self.events.push_back(event);
    }

    /// Begins to write a generation as the one that was in force last; without much code, it is done at once.
    pub(super) fn write_last_good(&mut self, generation: u64) {
        let place = LastGood::of(&self.identity.data_dir);
        self.write_generation(generation, &place);
    }

    /// What is kept as last good is the one to go back to from a generation that takes its place, unless both are
    /// the same app.
    pub(super) fn keep_last_good_before(&self, generation: u64) {
        let Some(held) = self.generations.get(&generation) else { return };
        if let Err(error) = LastGood::of(&self.identity.data_dir).keep_before(&held.bundle) {
            tracing::warn!("a rollback may lead to before the last start: {}", with_causes(&error));
        }
    }

    /// Begins to write a generation as the one to go back to. One that is last good needs no other copy.
    pub(super) fn write_previous(&mut self, generation: u64) {
        let place = LastGood::previous_of(&self.identity.data_dir);
        if self.would_lose_what_is_pinned(generation, &place) {
            return self.spare_what_is_pinned(generation);
        }
        if self.is_last_good(generation) {
            match LastGood::of(&self.identity.data_dir).keep_as_previous() {
                Ok(()) => return self.keeping.retain(|(_, other)| *other.place() != place),
                Err(error) => tracing::debug!("it is written anew: {}", with_causes(&error)),
            }
        }
        self.write_generation(generation, &place);
    }

    /// Whether a generation is there as last good, and nothing is on its way to that place.
    fn is_last_good(&self, generation: u64) -> bool {
        let place = LastGood::of(&self.identity.data_dir);
        let held = self.generations.get(&generation);
        held.is_some_and(|held| place.has_code_of(&held.digest, &held.engine))
            && self.keeping.iter().all(|(_, other)| *other.place() != place)
    }

    fn write_generation(&mut self, generation: u64, place: &LastGood) {
        let begun = match self.generations.get(&generation) {
            Some(held) => place.begin(&held.bundle).map_err(|error| with_causes(&error)),
            None => Err(format!("generation {generation} is not held")),
        };
        match begun {
            Ok(writing) => {
                // One that is still on its way to the same place has been overtaken.
                self.keeping.retain(|(_, other)| other.place() != place);
                self.keeping.push_back((generation, writing));
                self.keep_generations();
            }
            Err(reason) => self.not_written(generation, place, reason),
        }
    }

    /// A generation could not be written. Of two that were in force before, nobody goes back to the older one unasked: what
    /// is in the place of the newer one has to go. A host that runs knows better; one that starts anew goes by what is there.
    fn not_written(&mut self, generation: u64, place: &LastGood, reason: String) {
        if *place != LastGood::previous_of(&self.identity.data_dir) {
            self.awaiting.unwritten = Some(generation);
            return self.events.push_back(Event::LastGoodNotWritten { generation, reason });
        }
        // A host that is pinned may have nothing else to come up on. An older copy of the same one is as good.
        let digests = [self.in_force(), self.generations.get(&generation)];
        let spared: Vec<&str> = digests.into_iter().flatten().map(|held| held.digest.as_str()).collect();
        if let Err(error) = place.remove_unless(&spared) {
            tracing::error!(
                "a rollback after a restart may lead one generation further: {}",
                with_causes(&error)
            );
        }
        self.events.push_back(Event::PreviousNotWritten { generation, reason });
    }

    /// Writes the next part of a generation that is on its way to the disk.
    pub(super) fn keep_generations(&mut self) {
        let Some((generation, mut writing)) = self.keeping.pop_front() else { return self.follow_kept() };
        if self.would_lose_what_is_pinned(generation, writing.place()) {
            writing.give_up();
            self.spare_what_is_pinned(generation);
            return self.follow_kept();
        }
        match writing.advance() {
            Ok(Progress::Some) => return self.keeping.push_front((generation, writing)),
            Ok(Progress::Done) => {}
            Err(error) => self.not_written(generation, writing.place(), with_causes(&error)),
        }
        self.follow_kept();
    }

    /// Whether what a host that starts anew comes up on, now or once that is noted, is only where this generation is to go.
    fn would_lose_what_is_pinned(&self, generation: u64, place: &LastGood) -> bool {
        let data_dir = &self.identity.data_dir;
        if *place != LastGood::previous_of(data_dir) || !self.fleet.is_pinned() {
            return false;
        }
        let is_unwritten = self.awaiting.unwritten == Some(self.fleet.in_force());
        let in_force = self.in_force().filter(|_| is_unwritten).map(|held| held.digest.clone());
        let next = self.generations.get(&generation).map(|held| &held.digest);
        let last_good = LastGood::of(data_dir);
        let is_lost = |digest: &String| Some(digest) != next && place.has(digest) && !last_good.has(digest);
        [kept::noted(data_dir), in_force].iter().flatten().any(is_lost)
    }

    fn spare_what_is_pinned(&mut self, generation: u64) {
        let reason = LAST_COPY.to_owned();
        self.events.push_back(Event::PreviousNotWritten { generation, reason });
    }

    /// What has waited for a generation to be on the disk.
    fn follow_kept(&mut self) {
        if let Some(generation) = self.awaiting.pin.take() {
            self.pin(Some(generation));
        }
        if !self.keeping.is_empty() {
            return;
        }
        if let Some(generation) = self.awaiting.report.take() {
            self.events.push_back(Event::Kept { generation });
        }
        if self.exit.is_none() {
            for spawn in std::mem::take(&mut self.awaiting.helpers) {
                self.start_child(spawn);
            }
        }
    }

    /// Tells the fleet once nothing is on its way to the disk. A host that is not pinned comes up on the app and what is
    /// deployed: that was noted when the generation came into force, or reported as not noted.
    pub(super) fn report_kept(&mut self, generation: u64) {
        if !self.fleet.is_pinned() {
            return self.events.push_back(Event::Kept { generation });
        }
        self.awaiting.report = Some(generation);
        self.follow_kept();
    }

    /// Whether a helper is to take up what is still on its way to the disk. What is there in its place is older.
    pub(super) fn has_to_wait(&self, spawn: &Spawn) -> bool {
        let restores = matches!(self.tasks.get(&spawn.child), Some(Task::Restore(_)));
        restores && !self.keeping.is_empty()
    }

    /// Starts a helper once there is what it takes up.
    pub(super) fn hold_back(&mut self, spawn: Spawn) {
        self.awaiting.helpers.push(spawn);
    }

    /// A helper that has not been started is not needed any more.
    pub(super) fn call_off(&mut self, child: ChildId) {
        if self.awaiting.helpers.extract_if(.., |spawn| spawn.child == child).next().is_some() {
            self.tasks.remove(&child);
            let reason = "it was called off".to_owned();
            self.events.push_back(Event::SpawnFailed { child, reason });
        }
    }

    /// Holds a generation also under another number.
    pub(super) fn copy_generation(&mut self, from: u64, to: u64) {
        match self.generations.get(&from).map(Generation::duplicate) {
            Some(Ok(copy)) => {
                self.generations.insert(to, copy);
            }
            Some(Err(error)) => tracing::error!(from, to, %error, "duplicating a generation failed"),
            None => tracing::error!(from, to, "the generation to be duplicated is not held"),
        }
    }

    /// Binds what a generation listens on.
    pub(super) fn bind_listeners(&mut self, generation: u64) {
        let Some(held) = self.generations.get_mut(&generation) else {
            let reasons = vec![format!("generation {generation} is not held")];
            self.events.push_back(Event::ListenersFailed { generation, reasons });
            return;
        };
        let event = match self.listeners.prepare(&held.config) {
            Ok(bindings) => {
                held.bindings = bindings;
                self.predecessor = Predecessor::Gone;
                Event::ListenersBound { generation }
            }
            Err(failures) => {
                let reasons: Vec<String> = failures.iter().map(ToString::to_string).collect();
                let grace = held.config.workers.orphan_grace;
                if failures.iter().all(BindFailure::is_in_use)
                    && self.waits_for_orphans(generation, grace, &reasons)
                {
                    return;
                }
                Event::ListenersFailed { generation, reasons }
            }
        };
        self.pending_bind = None;
        self.events.push_back(event);
    }

    /// Whether addresses that somebody has may still become free: children of a killed predecessor let go of them within
    /// their grace.
    fn waits_for_orphans(&mut self, generation: u64, grace: Duration, reasons: &[String]) -> bool {
        if self.predecessor == Predecessor::Gone {
            return false;
        }
        let now_ms = monotonic_ms();
        let known = self.pending_bind.filter(|pending| pending.generation == generation);
        let until_ms = known.map_or_else(
            || {
                let reasons = reasons.join("; ");
                tracing::warn!(
                    reasons,
                    "the previous host here was killed; waiting for its workers to finish"
                );
                let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
                now_ms.saturating_add(grace_ms).saturating_add(BIND_PATIENCE_MS)
            },
            |pending| pending.until_ms,
        );
        self.pending_bind = Some(PendingBind { generation, retry_ms: now_ms + BIND_RETRY_MS, until_ms });
        now_ms < until_ms
    }

    /// Tries again to bind, when it is time.
    pub(super) fn retry_bind(&mut self, now_ms: u64) {
        if let Some(pending) = self.pending_bind.filter(|pending| pending.retry_ms <= now_ms) {
            self.bind_listeners(pending.generation);
        }
    }

    /// Notes which generation a host that starts anew comes up on, once that can be found. What cannot be found is not noted:
    /// whatever was before may still be there.
    pub(super) fn pin(&mut self, generation: Option<u64>) {
        self.awaiting.pin =
            generation.filter(|wanted| self.keeping.iter().any(|(number, _)| number == wanted));
        if self.awaiting.pin.is_some() {
            return;
        }
        let data_dir = &self.identity.data_dir;
        let Some(generation) = generation else {
            if let Err(error) = kept::pin(data_dir, None) {
                tracing::error!("a restart may come up on another generation: {}", with_causes(&error));
            }
            return;
        };
        let digest = self.generations.get(&generation).map_or("", |held| &held.digest);
        let is_kept =
            [LastGood::of(data_dir), LastGood::previous_of(data_dir)].iter().any(|at| at.has(digest));
        let noted = match is_kept {
            true => kept::pin(data_dir, Some(digest)).map_err(|error| with_causes(&error)),
            false => Err(NOWHERE.to_owned()),
        };
        if let Err(reason) = noted {
            self.events.push_back(Event::NotPinned { generation, reason });
        }
    }

    /// A generation is in force: only its addresses, its log file, its watch, its deployments and versions remain.
    pub(super) fn settle(&mut self, generation: u64) {
        if !self.generations.contains_key(&generation) {
            return;
        }
        let failures = self.note(generation);
        if failures.is_empty() {
            self.noted();
        } else {
            self.rhythm.notes_failed(monotonic_ms());
            self.events.extend(failures);
        }
        let Some(held) = self.generations.get(&generation) else { return };
        self.listeners.close_unused(&[&held.bindings]);
        let config = held.config.clone();
        self.adjust_log(&config);
        self.adjust_watch(&config);
    }

    /// Notes which modules are deployed in a generation that is in force, and the versions of those that are signed. What was
    /// not noted is in the events.
    fn note(&mut self, generation: u64) -> Vec<Event> {
        let mut failures = Vec::new();
        let data_dir = &self.identity.data_dir;
        let is_stand_in = self.fleet.is_stand_in();
        let Some(held) = self.generations.get_mut(&generation) else { return failures };
        // What was deployed after a stand-in had been good is in force again with the app.
        if !is_stand_in && let Err(error) = kept::keep_deployments(data_dir, &held.deployed) {
            failures.push(Event::DeploymentsNotNoted { generation, reason: with_causes(&error) });
        }
        if let Err(error) = versions::keep(data_dir, &mut held.signed) {
            failures.push(Event::VersionsNotNoted { generation, reason: with_causes(&error) });
        }
        failures
    }

    /// Tries again to note what could not be noted. That it failed is known.
    pub(super) fn note_again(&mut self) {
        let in_force = self.fleet.in_force();
        if self.note(in_force).is_empty() {
            self.noted();
        }
    }

    fn noted(&mut self) {
        if self.rhythm.notes_written() {
            tracing::info!("what is deployed in the generation in force is noted now");
        }
    }

    /// Watches the files of the app, or not, as the configuration says. Where that fails, as while the folder is away, what
    /// was watched before is watched on, and it is tried again in a while.
    pub(super) fn adjust_watch(&mut self, config: &Config) {
        if !config.reload.watch {
            self.rhythm.watch_settled();
            if let Some(watch) = self.watch.take() {
                self.poller.remove(&watch);
            }
            return;
        }
        // One that fits again may have missed something meanwhile.
        let is_fine = self.watch.as_ref().is_some_and(|watch| watch.fits(config));
        if is_fine && !self.rhythm.has_watch_failed() {
            return;
        }
        let started = Watch::start(config)
            .and_then(|watch| self.poller.add(&watch, Source::Files, Interest::Read).map(|()| watch));
        match started {
            Ok(mut watch) => {
                watch.catch_up(monotonic_ms());
                if let Some(before) = self.watch.replace(watch) {
                    self.poller.remove(&before);
                }
                if self.rhythm.watch_settled() {
                    tracing::info!("the files of the app are watched again");
                }
            }
            Err(error) => {
                if self.rhythm.watch_failed(monotonic_ms()) {
                    tracing::error!("the files of the app are not watched for now: {}", with_causes(&error));
                }
            }
        }
    }

    /// Looks whether what is watched is still what the configuration in force says.
    pub(super) fn watch_again(&mut self) {
        if let Some(config) = self.config().cloned() {
            self.adjust_watch(&config);
        }
    }

    /// Why log lines cannot go to the file that the app names by now. What is put back may have to do without.
    fn cannot_log(&self, config: &Config) -> Option<String> {
        let path = config.log.file.as_ref().filter(|path| self.log_file.as_ref() != Some(*path))?;
        let error = logs::open(path).err().filter(|_| self.fleet.follows_app())?;
        Some(format!("log.file: {}", with_causes(&error)))
    }

    /// Writes log lines as and where the configuration says.
    fn adjust_log(&mut self, config: &Config) {
        (self.program.follow_log)(&config.log);
        if self.log_file == config.log.file {
            return;
        }
        if config.log.file.is_none() {
            tracing::warn!("log.file: the present file is kept until the host is started anew");
            return;
        }
        let before = std::mem::replace(&mut self.log_file, config.log.file.clone());
        if let Err(error) = self.reopen_logs() {
            tracing::error!("{}", with_causes(&error));
            self.log_file = before;
        }
    }

    /// Opens the log file anew, here and in every child. Without a log file there is nothing to do.
    pub(super) fn reopen_logs(&mut self) -> Result<(), SupervisorError> {
        let Some(path) = &self.log_file else { return Ok(()) };
        let file = logs::redirect(path)?;
        for id in self.children.keys() {
            if !self.tell(*id, &ToChild::ReopenLogs, &[file.as_fd()]) {
                tracing::warn!(child = id.0, "a child writes to the old log file until it ends");
            }
        }
        tracing::info!(path = %path.display(), "log file opened");
        Ok(())
    }
}
