//! The process that makes a generation: reads the app exactly as `aegis run` did, and hands the result to the
//! supervisor, or everything that is wrong with it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use aegis_config::Environment;
use aegis_ipc::{
    IpcError, PROTOCOL_VERSION,
    control::{CONTROL_BYTES_MAX, ControlSocket, ToSupervisor},
    handoff::{self, Handoff},
};
use aegis_supervisor::exit;

use crate::{app::load_app, arguments::AppArguments, output::counted, roles};

/// Bytes of reasons that fit a control message beside its other fields.
const REASONS_BYTES_MAX: usize = CONTROL_BYTES_MAX - 16 * 1024;

/// Makes a generation.
pub(crate) fn compile(arguments: &AppArguments, environment: &Environment) -> u8 {
    make(arguments, environment).unwrap_or_else(|error| roles::fail("compile", &error))
}

fn make(arguments: &AppArguments, environment: &Environment) -> Result<u8, IpcError> {
    roles::name_process("compile");
    roles::become_helper()?;
    let handoff = Handoff::from_environment()?;
    let control = ControlSocket::from_descriptor(handoff::adopt(handoff.control, "control socket")?);
    let hello = ToSupervisor::Hello {
        protocol: PROTOCOL_VERSION,
        pid: std::process::id(),
        generation: handoff.generation,
    };
    deliver(&control, &hello, &[])?;
    match load_app(&arguments.folder, &arguments.overrides(), environment) {
        Ok(app) => {
            let bundle = app.bundle.seal()?;
            deliver(&control, &ToSupervisor::Compiled, &[bundle.as_fd()])?;
            Ok(exit::FINE)
        }
        Err(mistakes) => {
            let reasons = within(mistakes.lines, REASONS_BYTES_MAX);
            deliver(&control, &ToSupervisor::Invalid { reasons }, &[])?;
            Ok(exit::CONFIGURATION)
        }
    }
}

/// Sends a message that must arrive: the socket is empty when we start, so it has room for our two.
fn deliver(
    control: &ControlSocket,
    message: &ToSupervisor,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), IpcError> {
    if control.send(message, descriptors)? {
        return Ok(());
    }
    let source = io::Error::from(io::ErrorKind::BrokenPipe);
    Err(IpcError::os("telling the supervisor, which is gone or does not read,", source))
}

/// As many reasons as fit, and how many do not.
fn within(reasons: Vec<String>, bytes_max: usize) -> Vec<String> {
    let count = reasons.len();
    let mut bytes = 0;
    let mut fitting: Vec<String> = reasons
        .into_iter()
        .take_while(|reason| {
            bytes += reason.len() + 8;
            bytes <= bytes_max
        })
        .collect();
    if fitting.len() < count {
        fitting.push(format!("and {}", counted(count - fitting.len(), "more mistake")));
    }
    fitting
}

#[cfg(test)]
mod tests {
    use aegis_ipc::{codec, control::Received};

    use super::*;

    #[test]
    fn a_thousand_long_reasons_still_fit_one_control_message() {
        let reasons = within(vec!["x".repeat(1000); 1000], REASONS_BYTES_MAX);
        assert_eq!(reasons.last().unwrap(), &format!("and {} more mistakes", 1001 - reasons.len()));
        let message = ToSupervisor::Invalid { reasons };
        assert!(codec::encode(&message).unwrap().len() <= CONTROL_BYTES_MAX);
        let (ours, theirs) = ControlSocket::pair().unwrap();
        deliver(&ours, &ToSupervisor::Compiled, &[]).unwrap();
        deliver(&ours, &message, &[]).unwrap();
        let Received::Message(first, _) = theirs.receive::<ToSupervisor>().unwrap() else {
            panic!("no message")
        };
        assert_eq!(first, ToSupervisor::Compiled);
        let Received::Message(second, _) = theirs.receive::<ToSupervisor>().unwrap() else {
            panic!("no message")
        };
        assert_eq!(second, message);
    }

    #[test]
    fn few_reasons_are_told_in_full() {
        assert_eq!(within(vec!["a".to_owned(), "b".to_owned()], 100), ["a", "b"]);
    }

    #[test]
    fn a_supervisor_that_is_gone_is_an_error() {
        let (ours, theirs) = ControlSocket::pair().unwrap();
        drop(theirs);
        assert!(deliver(&ours, &ToSupervisor::Compiled, &[]).is_err());
    }
}
