//! The first acts of an image that continues a host: rehearse, or take over, or go back.

use std::{
    fs::File,
    io::Write,
    os::fd::{OwnedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{
    Program, SupervisorError,
    driver::Driver,
    exit,
    fleet::Event,
    process::Image,
    signals,
    upgrade::{self, Adopter, Header, Report},
    with_causes,
};

/// Continues the host whose state is behind the inherited descriptor `state`. The value is the exit status.
pub(crate) fn resume(state: RawFd, program: Program) -> u8 {
    let mut adopter = Adopter::default();
    let read =
        adopter.take(state, "the state of the previous supervisor").and_then(|state| upgrade::read(&state));
    let (header, body) = match read {
        Ok(read) => read,
        Err(error) => {
            tracing::error!("{}", with_causes(&error));
            return error.exit_code();
        }
    };
    if let Ok(log) = serde_json::from_value(header.log.clone()) {
        (program.follow_log)(&log);
    }
    if header.pid == std::process::id() {
        take_over(&header, &body, adopter, program)
    } else {
        rehearse(&header, &body, &mut adopter)
    }
}

/// Restores everything from duplicates, says whether that worked, and leaves without a trace.
fn rehearse(header: &Header, body: &[u8], adopter: &mut Adopter) -> u8 {
    let report = match restore(body, adopter) {
        Ok(_driver) => Report::Passed { version: env!("CARGO_PKG_VERSION").to_owned() },
        Err(reason) => Report::Failed { reason },
    };
    let code = if matches!(report, Report::Passed { .. }) { exit::FINE } else { exit::BUG };
    let nowhere = || SupervisorError::State {
        found: "no pipe".to_owned(),
        expected: "a place to report to".to_owned(),
    };
    let said = header
        .report
        .ok_or_else(nowhere)
        .and_then(|pipe| adopter.take(pipe, "the pipe of the rehearsal"))
        .and_then(|pipe| say(pipe, &report));
    match said {
        Ok(()) => code,
        Err(error) => {
            tracing::error!("{}", with_causes(&error));
            error.exit_code()
        }
    }
}

fn say(pipe: OwnedFd, report: &Report) -> Result<(), SupervisorError> {
    let failed = |error: std::io::Error| SupervisorError::os("reporting the rehearsal", error);
    let line = serde_json::to_vec(report).map_err(|error| failed(error.into()))?;
    File::from(pipe).write_all(&line).map_err(failed)
}

/// Continues for good, or becomes the previous image again.
fn take_over(header: &Header, body: &[u8], mut adopter: Adopter, program: Program) -> u8 {
    let returned = upgrade::reason_of_return();
    let previous = adopter.take(header.image, "the previous image");
    if let Some(successor) = header.successor.filter(|successor| *successor != header.image) {
        // Ours, by now: only held so that it is closed with the others.
        let _ = adopter.take(successor, "this image");
    }
    let restored = restore(body, &mut adopter).and_then(|mut driver| {
        let event = match &returned {
            None => {
                let image = driver.add_own_image().map_err(|error| with_causes(&error))?;
                Event::Upgraded { image, has_code: driver.has_code() }
            }
            Some(reason) => {
                driver.keep_name(header.path.clone());
                Event::UpgradeReturned { reason: reason.clone() }
            }
        };
        Ok((driver, event))
    });
    match (restored, previous) {
        (Ok((mut driver, event)), _) => {
            // Committed: from here on the world may change away from what the state says.
            drop(adopter);
            if let Err(error) = signals::unblock() {
                tracing::error!("{}", with_causes(&error));
            }
            driver.take_over(event, program);
            driver.run()
        }
        (Err(reason), Ok(previous)) if returned.is_none() => {
            tracing::error!("the new image cannot continue and becomes the previous one again: {reason}");
            let previous = Image::from_descriptor(previous, header.path.clone());
            let error = upgrade::become_image(&previous, header.state, &adopter.originals(), Some(&reason));
            tracing::error!("{}", with_causes(&error));
            exit::BUG
        }
        (Err(reason), _) => {
            tracing::error!("nobody can continue this host: {reason}");
            exit::BUG
        }
    }
}

fn restore(body: &[u8], adopter: &mut Adopter) -> Result<Driver, String> {
    match catch_unwind(AssertUnwindSafe(|| Driver::restore(body, adopter))) {
        Ok(Ok(driver)) => Ok(driver),
        Ok(Err(error)) => Err(with_causes(&error)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panic: {}", text.unwrap_or("without a message")))
        }
    }
}
