//! The processes that the supervisor starts.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
    sync::Arc,
};

use aegis_config::{Config, Log};
use aegis_ipc::{IpcError, bundle::Bundle, codec, handoff::Handoff};
use aegis_supervisor::{Newborn, Program, exit, with_causes};
use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::signal::{SIGHUP, SIGINT, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGWINCH};

use crate::{arguments::BoundArguments, dispatch, logging, output::complain};

/// What a child is and has. An image that was executed finds it in its environment, with what is wrong with it.
pub(crate) type Given = Result<Handoff, IpcError>;

/// A child that the supervisor forked, in the same image.
pub(crate) fn child(newborn: Newborn) -> u8 {
    let Newborn { arguments, handoff } = newborn;
    logging::hush();
    dispatch::role(&arguments, Ok(handoff))
}

/// The store process.
pub(crate) fn store(given: Given) -> u8 {
    let run = |handoff| aegis_store::run(handoff, |log| logging::follow(log, "store"));
    begin("store", given, |_| "store".to_owned(), run)
}

/// A worker process.
pub(crate) fn worker(given: Given) -> u8 {
    let name = |handoff: &Handoff| format!("worker {}.{}", handoff.slot, handoff.generation);
    begin("worker", given, name, aegis_worker::run)
}

/// Sets up the log as the generation says, then goes on as the role.
fn begin(role: &str, given: Given, name: impl Fn(&Handoff) -> String, run: impl FnOnce(Handoff) -> u8) -> u8 {
    name_process(role);
    let begun = given.and_then(|handoff| Ok((log_settings(&handoff)?, handoff)));
    match begun {
        Ok((log, handoff)) => {
            logging::follow(&log, &name(&handoff));
            run(handoff)
        }
        Err(error) => fail(role, &error),
    }
}

/// What `ps` and `top` call a process that was started by descriptor would be the number of the descriptor.
pub(crate) fn name_process(role: &str) {
    if let Ok(name) = CString::new(format!("aegis-{role}")) {
        let _ = nix::sys::prctl::set_name(&name); // only for the eyes of people
    }
}

/// Says why a role cannot begin; the exit status that goes with it.
pub(crate) fn fail(role: &str, error: &IpcError) -> u8 {
    complain(&format!("{role}: {}", with_causes(error)));
    match error {
        // Started by hand, not by a supervisor.
        IpcError::Unexpected { .. } => exit::USAGE,
        _ => exit::OS,
    }
}

/// The log settings of the generation. Reads the bundle through a descriptor of our own: the inherited one belongs to
/// the role.
fn log_settings(handoff: &Handoff) -> Result<Log, IpcError> {
    let missing = || IpcError::Unexpected {
        object: "the handoff".to_owned(),
        found: "no bundle".to_owned(),
        expected: "the generation to serve".to_owned(),
    };
    let number = handoff.bundle.ok_or_else(missing)?;
    let path = format!("/proc/self/fd/{number}");
    let file = File::open(&path).map_err(|error| IpcError::os(format!("opening {path}"), error))?;
    let bundle = Bundle::read(&OwnedFd::from(file))?;
    Ok(codec::decode::<Config>(&bundle.config)?.log)
}

/// Makes this process a helper: signals meant for the supervisor pass it by, and the kernel kills it when the
/// supervisor is gone, because nobody else would wait for what it makes.
pub(crate) fn become_helper() -> Result<(), IpcError> {
    const MEANT_FOR_SUPERVISOR: [i32; 7] = [SIGHUP, SIGINT, SIGUSR1, SIGUSR2, SIGWINCH, SIGTTIN, SIGTTOU];
    let failed = |error: io::Error| IpcError::os("setting up signals", error);
    for signal in MEANT_FOR_SUPERVISOR {
        // A flag that nobody reads: the signal is taken and does nothing.
        signal_hook::flag::register(signal, Arc::default()).map_err(failed)?;
    }
    // Only now: what its parent held back may be waiting.
    SigSet::empty().thread_set_mask().map_err(|error| failed(error.into()))?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|error| IpcError::os("binding this process to the life of its parent", error))
}

/// Becomes another program, which is asked to end when the process that started this one is gone, however that ends.
pub(crate) fn bound(arguments: &BoundArguments) -> u8 {
    let BoundArguments { parent, words } = arguments;
    let [program, name, rest @ ..] = words.as_slice() else { return exit::USAGE };
    let failed = |error: io::Error| {
        complain(&format!("executing {}: {error}", program.display()));
        exit::OS
    };
    if let Err(error) = nix::sys::prctl::set_pdeathsig(Signal::SIGTERM) {
        return failed(error.into());
    }
    // It may have been gone before the kernel was asked to watch over it.
    if std::os::unix::process::parent_id() != *parent {
        return exit::FINE;
    }
    failed(Command::new(program).arg0(name).args(rest).exec())
}

/// What this program does for a supervisor that it is.
pub(crate) const SUPERVISING: Program =
    Program { follow_log: |log| logging::follow(log, "supervisor"), be_child: child };

/// The supervisor that continues in this executable what another one began.
pub(crate) fn supervisor(state: RawFd) -> u8 {
    aegis_supervisor::resume(state, SUPERVISING)
}
