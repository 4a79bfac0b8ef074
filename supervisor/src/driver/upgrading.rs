//! An upgrade as the old image sees it: the rehearsal, then the exec.

use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
};

use aegis_config::Log;
use aegis_ipc::board::monotonic_ms;
use rustix::pipe::PipeFlags;

use super::{Driver, Interest, Source};
use crate::{
    SupervisorError,
    fleet::Event,
    process::{Ending, Environment, Image, Launch, Process},
    upgrade::{self, Memory, Report},
    with_causes,
};

/// Time that a new image has to rehearse, milliseconds. Whoever asked has the verdict within ten seconds.
const REHEARSAL_MS: u64 = 8_000;
/// Longest report taken from a rehearsal, bytes.
const REPORT_BYTES_MAX: usize = 64 * 1024;

/// An upgrade that runs.
#[derive(Debug)]
pub(super) enum Upgrading {
    /// The new image shows as a child that it can continue.
    Rehearsing(Rehearsal),
    /// It can; this process becomes it as soon as everything else is done.
    Decided(Image),
}

/// A rehearsal.
#[derive(Debug)]
pub(super) struct Rehearsal {
    image: Image,
    process: Process,
    report: File,
    said: Vec<u8>,
    deadline_ms: u64,
    /// Why it was killed, if it was.
    killed_for: Option<String>,
}

impl Upgrading {
    /// When it is over at the latest.
    pub(super) fn deadline_ms(&self) -> Option<u64> {
        match self {
            Self::Rehearsing(rehearsal) => rehearsal.killed_for.is_none().then_some(rehearsal.deadline_ms),
            Self::Decided(_) => Some(0),
        }
    }
}

impl Driver {
    /// Opens the new executable and lets it rehearse.
    pub(super) fn begin_upgrade(&mut self, path: Option<String>) {
        if self.upgrading.is_some() {
            return self.upgrade_failed("another upgrade is running already".to_owned());
        }
        let path = path.map_or_else(|| self.own_image.path().to_owned(), PathBuf::from);
        tracing::info!(path = %path.display(), "the new executable rehearses");
        let image = Image::open(&path).inspect(|image| {
            if image.is(&self.own_image) {
                tracing::warn!(path = %path.display(), "the executable is the one that runs already");
            }
        });
        match image.and_then(|image| self.rehearse(image)) {
            Ok(rehearsal) => self.upgrading = Some(Upgrading::Rehearsing(rehearsal)),
            Err(error) => self.upgrade_failed(with_causes(&error)),
        }
    }

    /// Starts the new image as a child with exactly what it will find when this process becomes it.
    fn rehearse(&self, image: Image) -> Result<Rehearsal, SupervisorError> {
        let (report, reporting) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)
            .map_err(|error| SupervisorError::os("creating the pipe of a rehearsal", error))?;
        let (body, kept) = self.state()?;
        let memory = Memory::create()?;
        let header = memory.header(&self.own_image, &image, Some(reporting.as_raw_fd()), self.log());
        let state = memory.seal(&header, &body)?;
        let mut keep = kept;
        keep.extend([state.as_fd(), reporting.as_fd(), self.own_image.as_fd(), image.as_fd()]);
        let process = Process::spawn(&Launch {
            image: &image,
            arguments: &upgrade::arguments(state.as_raw_fd()),
            environment: Environment::Own,
            keep: &keep,
        })?;
        self.poller.add(&process, Source::Rehearsal, Interest::Read).inspect_err(|_| process.put_down())?;
        let deadline_ms = monotonic_ms() + REHEARSAL_MS;
        Ok(Rehearsal {
            image,
            process,
            report: File::from(report),
            said: Vec::new(),
            deadline_ms,
            killed_for: None,
        })
    }

    /// The rehearsal is over.
    pub(super) fn follow_rehearsal(&mut self) {
        let Some(Upgrading::Rehearsing(rehearsal)) = &mut self.upgrading else { return };
        let ending = match rehearsal.process.reap() {
            Ok(Some(ending)) => ending,
            Ok(None) => return,
            Err(error) => {
                let reason = with_causes(&error);
                self.end_rehearsal();
                return self.upgrade_failed(reason);
            }
        };
        rehearsal.take_report();
        let Some(rehearsal) = self.end_rehearsal() else { return };
        let verdict = rehearsal.killed_for.map_or_else(|| verdict(ending, &rehearsal.said), Err);
        match verdict {
            Ok(version) => {
                tracing::info!(version, path = %rehearsal.image.path().display(), "the rehearsal succeeded");
                self.upgrading = Some(Upgrading::Decided(rehearsal.image));
            }
            Err(reason) => {
                let path = rehearsal.image.path().display();
                self.upgrade_failed(format!("{path} cannot take over: {reason}"));
            }
        }
    }

    /// A rehearsal that takes too long is ended.
    pub(super) fn give_up_rehearsal(&mut self, now_ms: u64) {
        if let Some(Upgrading::Rehearsing(rehearsal)) = &mut self.upgrading
            && rehearsal.killed_for.is_none()
            && rehearsal.deadline_ms <= now_ms
        {
            rehearsal.process.kill_group();
            rehearsal.killed_for = Some(format!("it did not report within {} s", REHEARSAL_MS / 1000));
        }
    }

    /// Ends an upgrade, however far it has come: nobody waits for it any more.
    pub(super) fn call_off_upgrade(&mut self) {
        // What has come of it would be taken for the outcome of the next one.
        self.events.retain(|event| !matches!(event, Event::UpgradeFailed { .. }));
        let Some(upgrading) = self.upgrading.take() else { return };
        tracing::info!("the upgrade is called off");
        if let Upgrading::Rehearsing(Rehearsal { process, .. }) = upgrading {
            self.poller.remove(&process);
            process.kill_group();
            process.put_down();
        }
    }

    fn end_rehearsal(&mut self) -> Option<Rehearsal> {
        match self.upgrading.take()? {
            Upgrading::Rehearsing(rehearsal) => {
                self.poller.remove(&rehearsal.process);
                Some(rehearsal)
            }
            decided @ Upgrading::Decided(_) => {
                self.upgrading = Some(decided);
                None
            }
        }
    }

    /// Becomes the new image, once the rehearsal has succeeded. Returns only when there is none or that fails.
    pub(super) fn continue_elsewhere(&mut self) {
        if !self.events.is_empty() || !self.actions.is_empty() || !self.keeping.is_empty() {
            return; // what they lead to belongs into the state, and what is being written cannot be handed over
        }
        let Some(Upgrading::Decided(image)) =
            self.upgrading.take_if(|upgrading| matches!(upgrading, Upgrading::Decided(_)))
        else {
            return;
        };
        let become_it = || -> Result<std::convert::Infallible, SupervisorError> {
            let (body, mut kept) = self.state()?;
            let memory = Memory::create()?;
            let header = memory.header(&self.own_image, &image, None, self.log());
            let state = memory.seal(&header, &body)?;
            kept.extend([state.as_fd(), self.own_image.as_fd(), image.as_fd()]);
            Err(upgrade::become_image(&image, state.as_raw_fd(), &kept, None))
        };
        let Err(error) = become_it();
        self.upgrade_failed(with_causes(&error));
    }

    fn log(&self) -> Option<&Log> {
        self.config().map(|config| &config.log)
    }

    fn upgrade_failed(&mut self, reason: String) {
        self.events.push_back(Event::UpgradeFailed { reasons: vec![reason] });
    }
}

impl Rehearsal {
    fn take_report(&mut self) {
        let mut bytes = [0; 4096];
        while self.said.len() < REPORT_BYTES_MAX {
            match self.report.read(&mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(length) => self.said.extend_from_slice(&bytes[..length]),
            }
        }
    }
}

/// The version of an image that rehearsed well, or why it did not.
fn verdict(ending: Ending, said: &[u8]) -> Result<String, String> {
    let report = serde_json::from_slice(said.trim_ascii()).ok();
    match (report, ending) {
        (Some(Report::Passed { version }), Ending::Exited(0)) => Ok(version),
        (Some(Report::Failed { reason }), _) => Err(reason),
        (_, Ending::Exited(code)) => {
            Err(format!("its rehearsal exited with {code} without a report of success"))
        }
        (_, Ending::Killed(signal)) => {
            let name = nix::sys::signal::Signal::try_from(signal)
                .map_or("a signal", nix::sys::signal::Signal::as_str);
            Err(format!("its rehearsal was ended by {name}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_report_of_success_and_a_clean_exit_is_a_success() {
        let passed = serde_json::to_vec(&Report::Passed { version: "2.0.0".to_owned() }).unwrap();
        let failed = serde_json::to_vec(&Report::Failed { reason: "no board".to_owned() }).unwrap();
        let verdicts = [
            verdict(Ending::Exited(0), &passed),
            verdict(Ending::Exited(1), &passed),
            verdict(Ending::Exited(70), &failed),
            verdict(Ending::Exited(0), b""),
            verdict(Ending::Exited(0), b"hello"),
            verdict(Ending::Killed(11), &passed),
        ];
        insta::assert_debug_snapshot!(verdicts, @r#"
        [
            Ok(
                "2.0.0",
            ),
            Err(
                "its rehearsal exited with 1 without a report of success",
            ),
            Err(
                "no board",
            ),
            Err(
                "its rehearsal exited with 0 without a report of success",
            ),
            Err(
                "its rehearsal exited with 0 without a report of success",
            ),
            Err(
                "its rehearsal was ended by SIGSEGV",
            ),
        ]
        "#);
    }
}
