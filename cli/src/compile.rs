//! The process that makes a generation: reads the app exactly as `examine` did, or puts another version of one module
//! into the generation in force, or takes up one that is kept, and hands the result to the supervisor, or everything that
//! is wrong with it.
//!
//! Compilers and interpreters of what strangers wrote work here, so the process is bounded: in memory, in computing time
//! per component, and by the supervisor in time. If it does not survive a component, the supervisor knows which one.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use aegis_config::{Config, Environment};
use aegis_ipc::{
    IpcError, PROTOCOL_VERSION,
    bundle::Bundle,
    codec,
    control::{CONTROL_BYTES_MAX, ControlSocket, ToSupervisor},
    deploy::{Kept, Order, Task},
    handoff,
};
use aegis_supervisor::{exit, kept};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::resource::{Resource, UsageWho, getrusage, setrlimit},
};

use crate::{
    app::{App, Compilation, Keep, Made, Mistakes, Refusal, deploy, load_app, restore},
    arguments::AppArguments,
    logging,
    output::counted,
    pace,
    roles::{self, Given},
    room,
};

/// What stands in front of mistakes after an upgrade.
const CANNOT_FOLLOW: &str = "the supervisor runs the new executable, but the workers go on with the old one: the code of \
    their modules has to be compiled anew, and the app has mistakes by now; mend them and upgrade again";
/// Why a generation that was put back is not made again of the app after an upgrade.
const PINNED: &str = "the supervisor runs the new executable, but the workers go on with the old one: the code of what was \
    rolled back cannot be compiled anew; `aegis reload` goes on from the app folder, then upgrade again";
/// The generation that a host begins with.
const FIRST_GENERATION: u64 = 1;
/// Bytes of reasons that fit a control message beside its other fields.
const REASONS_BYTES_MAX: usize = CONTROL_BYTES_MAX - 16 * 1024;
/// Bytes of warnings that are told: they go on to operators beside reasons.
const WARNINGS_BYTES_MAX: usize = 8 * 1024;
/// Time in which the supervisor takes a message.
const DELIVERY_TIME: Duration = Duration::from_secs(10);
/// Memory that this process may write to, bytes. What is reserved and never touched does not count.
const DATA_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Address space of this process, bytes: the engine reserves some gigabytes for each linear memory of a component that
/// describes itself.
const ADDRESS_SPACE_BYTES_MAX: u64 = 128 * 1024 * 1024 * 1024;
/// Computing time for one component, over all threads, seconds.
const COMPONENT_SECONDS_MAX: u64 = 300;
/// How much less this process weighs than those that serve, when there are too few cores for all (`nice`): a quarter of a
/// core that they want as well is enough for what has to be done within `reload.probe_timeout`.
const NICE: i32 = 5;
/// What parts of the compiler, and the threads that it works on, say when they panic because they are given no memory.
const OUT_OF_MEMORY: [&str; 2] = ["out-of-memory", "The global thread pool has not been initialized"];

/// Makes a generation.
pub(crate) fn compile(arguments: &AppArguments, environment: &Environment, given: Given) -> u8 {
    make(arguments, environment, given).unwrap_or_else(|error| roles::fail("compile", &error))
}

fn make(arguments: &AppArguments, environment: &Environment, given: Given) -> Result<u8, IpcError> {
    roles::name_process("compile");
    become_bounded()?;
    let handoff = given?;
    let control = ControlSocket::from_descriptor(handoff::adopt(handoff.control, "control socket")?);
    let hello = ToSupervisor::Hello {
        protocol: PROTOCOL_VERSION,
        pid: std::process::id(),
        generation: handoff.generation,
    };
    deliver(&control, &hello, &[])?;
    let held = handoff.bundle.map(|held| handoff::adopt(held, "the bundle of the generation in force"));
    let held = held.transpose()?;
    let in_force = handoff.in_force.map(|held| handoff::adopt(held, "the bundle whose trials go on"));
    let in_force = in_force.transpose()?;
    match (&handoff.task, &held) {
        (Task::App, _) => {}
        (Task::Deploy(order), Some(base)) => {
            return put_in(order, base, handoff.digest_in_force.as_deref(), &control);
        }
        (Task::Deploy(_), None) => {
            let reasons = vec!["there is no generation in force to deploy into".to_owned()];
            return refuse(reasons, &control);
        }
        (Task::Restore(kept), held) => {
            return take_up(kept, held.as_ref(), arguments, environment, &control);
        }
    }
    if let Some(held) = &held
        && still_fits(held)?
    {
        deliver(&control, &ToSupervisor::Compiled, &[held.as_fd()])?;
        return Ok(exit::FINE);
    }
    if let Some(held) = &held
        && is_pinned(held)?
    {
        return refuse(vec![PINNED.to_owned()], &control);
    }
    match read_app(arguments, environment, in_force.as_ref(), &control) {
        Ok(App { config, bundle, code, warnings, .. }) => {
            // Those of the first generation were told by `aegis run`.
            if handoff.generation > FIRST_GENERATION {
                logging::follow(&config.log, "compile");
                warn(warnings, &control)?;
            }
            let is_new = handoff.digest_in_force.as_ref() != Some(&bundle.digest);
            let bundle = bundle.seal_with(code)?;
            // Who starts, or follows an upgrade, has nothing that would serve instead.
            if handoff.generation > FIRST_GENERATION
                && held.is_none()
                && is_new
                && let Some(lack) = room::lack(&bundle, &config.data_dir)
            {
                return refuse(vec![lack], &control);
            }
            deliver(&control, &ToSupervisor::Compiled, &[bundle.as_fd()])?;
            Ok(exit::FINE)
        }
        Err(mistakes) => {
            let why = held.map(|_| CANNOT_FOLLOW.to_owned());
            refuse(why.into_iter().chain(mistakes.lines).collect(), &control)
        }
    }
}

/// Tells the log, and whoever waits for the generation.
fn warn(warnings: Vec<String>, control: &ControlSocket) -> Result<(), IpcError> {
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    if warnings.is_empty() {
        return Ok(());
    }
    let warnings = within(warnings, WARNINGS_BYTES_MAX, "more warning");
    deliver(control, &ToSupervisor::Warned { warnings }, &[])
}

fn refuse(reasons: Vec<String>, control: &ControlSocket) -> Result<u8, IpcError> {
    let reasons = within(reasons, REASONS_BYTES_MAX, "more mistake");
    deliver(control, &ToSupervisor::Invalid { reasons }, &[])?;
    Ok(exit::CONFIGURATION)
}

/// Puts another version of one module into the generation in force.
fn put_in(
    order: &Order,
    base: &OwnedFd,
    digest_in_force: Option<&str>,
    control: &ControlSocket,
) -> Result<u8, IpcError> {
    let now_s = jiff::Timestamp::now().as_second();
    let mut begins = begins(control);
    let compilation = Compilation { keep: Keep::InDataFolder, begins: &mut begins, in_force: None };
    match deploy(order, base, compilation, now_s) {
        Ok(Made { config, bundle, code, warnings }) => {
            logging::follow(&config.log, "compile");
            warn(warnings, control)?;
            let is_new = digest_in_force != Some(bundle.digest.as_str());
            let bundle = bundle.seal_with(code)?;
            if is_new && let Some(lack) = room::lack(&bundle, &config.data_dir) {
                return refuse(vec![lack], control);
            }
            deliver(control, &ToSupervisor::Compiled, &[bundle.as_fd()])?;
            Ok(exit::FINE)
        }
        Err(Refusal::Mistakes(mistakes)) => refuse(mistakes, control),
        Err(Refusal::Incompatible(reasons)) => {
            let reasons = within(reasons, REASONS_BYTES_MAX, "more mistake");
            deliver(control, &ToSupervisor::Incompatible { reasons }, &[])?;
            Ok(exit::CONFIGURATION)
        }
    }
}

/// Takes up a generation that is kept on disk.
fn take_up(
    kept: &Kept,
    in_force: Option<&OwnedFd>,
    arguments: &AppArguments,
    environment: &Environment,
    control: &ControlSocket,
) -> Result<u8, IpcError> {
    let flags = arguments.overrides();
    let running: Config = match in_force {
        Some(held) => codec::decode(&Bundle::read(held)?.config)?,
        None => match Config::load(&arguments.folder, &flags, environment) {
            Ok(loaded) => loaded.config,
            Err(errors) => return refuse(errors.lines(), control),
        },
    };
    match restore(kept, &running, &flags) {
        Ok(bundle) => {
            deliver(control, &ToSupervisor::Compiled, &[bundle.as_fd()])?;
            Ok(exit::FINE)
        }
        Err(reason) => refuse(vec![reason], control),
    }
}

/// Reads the app; tells the supervisor before each component, because it may be the last thing that is heard of us.
fn read_app(
    arguments: &AppArguments,
    environment: &Environment,
    in_force: Option<&OwnedFd>,
    control: &ControlSocket,
) -> Result<App, Mistakes> {
    let mut begins = begins(control);
    let compilation = Compilation { keep: Keep::InDataFolder, begins: &mut begins, in_force };
    load_app(&arguments.folder, &arguments.overrides(), environment, compilation)
}

/// What is done before each component.
fn begins(control: &ControlSocket) -> impl FnMut(&str, &str) {
    |origin, engine| {
        let working = ToSupervisor::Working { on: origin.to_owned(), engine: engine.to_owned() };
        // Without these words the work is the same.
        let _ = control.send(&working, &[]);
        renew_computing_time();
    }
}

/// Whether this image can run the code of a generation that another one made.
fn still_fits(bundle: &OwnedFd) -> Result<bool, IpcError> {
    let bundle = Bundle::read(bundle)?;
    Ok(bundle.engine.is_empty() || aegis_wasm::compatibility().is_ok_and(|ours| ours == bundle.engine))
}

/// Whether this generation is one that somebody has put back.
fn is_pinned(held: &OwnedFd) -> Result<bool, IpcError> {
    let bundle = Bundle::read(held)?;
    let config: Config = codec::decode(&bundle.config)?;
    // A note that cannot be read says at least that there was one.
    Ok(kept::pinned(&config.data_dir).map_or(true, |pinned| pinned.as_ref() == Some(&bundle.digest)))
}

/// Makes this process a helper that is held to what a helper may have.
pub(crate) fn become_bounded() -> Result<(), IpcError> {
    roles::become_helper()?;
    pace::keep_turns_short();
    // Threads inherit it. Where it is forbidden, the helper weighs as much as those that serve.
    let _ = rustix::process::setpriority_process(None, NICE);
    limit_memory()?;
    end_without_memory();
    Ok(())
}

fn limit_memory() -> Result<(), IpcError> {
    for (resource, bytes_max) in
        [(Resource::RLIMIT_DATA, DATA_BYTES_MAX), (Resource::RLIMIT_AS, ADDRESS_SPACE_BYTES_MAX)]
    {
        let (_, hard) = nix::sys::resource::getrlimit(resource)
            .map_err(|error| IpcError::os("reading the limits of the helper", error))?;
        setrlimit(resource, bytes_max.min(hard), hard)
            .map_err(|error| IpcError::os("limiting the memory of the helper", error))?;
    }
    Ok(())
}

/// Has a panic for want of memory end this process as any other want of memory does, at once and with the signal by which the
/// supervisor knows it.
fn end_without_memory() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        let words = panic.payload_as_str().unwrap_or_default();
        if OUT_OF_MEMORY.iter().any(|known| words.contains(known)) {
            std::process::abort();
        }
    }));
}

/// Counts computing time anew: beyond it, the kernel ends this process.
pub(crate) fn renew_computing_time() {
    let renew = || -> nix::Result<()> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let used = usage.user_time().tv_sec() + usage.system_time().tv_sec();
        let (_, hard) = nix::sys::resource::getrlimit(Resource::RLIMIT_CPU)?;
        let seconds_max = u64::try_from(used).unwrap_or(0) + COMPONENT_SECONDS_MAX;
        setrlimit(Resource::RLIMIT_CPU, seconds_max.min(hard), hard)
    };
    if let Err(error) = renew() {
        tracing::debug!(%error, "the computing time of the helper is not limited"); // the supervisor limits its time
    }
}

/// Sends a message that must arrive.
pub(crate) fn deliver(
    control: &ControlSocket,
    message: &ToSupervisor,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), IpcError> {
    let deadline = Instant::now() + DELIVERY_TIME;
    while !control.send(message, descriptors)? {
        let mut polled = [PollFd::new(control.as_fd(), PollFlags::POLLOUT)];
        let wait = PollTimeout::try_from(deadline.saturating_duration_since(Instant::now()))
            .unwrap_or(PollTimeout::ZERO);
        let is_ready = poll(&mut polled, wait).is_ok_and(|ready| ready > 0);
        let is_gone = polled[0]
            .revents()
            .is_some_and(|events| events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP));
        if !is_ready || is_gone {
            let source = io::Error::from(io::ErrorKind::BrokenPipe);
            return Err(IpcError::os("telling the supervisor, which is gone or does not read,", source));
        }
    }
    Ok(())
}

/// As many reasons as fit, and how many do not.
fn within(reasons: Vec<String>, bytes_max: usize, one_more: &str) -> Vec<String> {
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
        fitting.push(format!("and {}", counted(count - fitting.len(), one_more)));
    }
    fitting
}

#[cfg(test)]
mod tests {
    use aegis_ipc::{codec, control::Received};

    use super::*;

    #[test]
    fn a_thousand_long_reasons_still_fit_one_control_message() {
        let reasons = within(vec!["x".repeat(1000); 1000], REASONS_BYTES_MAX, "more mistake");
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
        assert_eq!(within(vec!["a".to_owned(), "b".to_owned()], 100, "more mistake"), ["a", "b"]);
    }

    #[test]
    fn warnings_go_ahead_of_the_bundle_and_none_are_not_told() {
        let (ours, theirs) = ControlSocket::pair().unwrap();
        warn(Vec::new(), &ours).unwrap();
        assert!(matches!(theirs.receive::<ToSupervisor>().unwrap(), Received::Empty));
        warn(vec!["x".repeat(WARNINGS_BYTES_MAX - 8), "y".to_owned()], &ours).unwrap();
        let Received::Message(ToSupervisor::Warned { warnings }, _) = theirs.receive().unwrap() else {
            panic!("no warnings")
        };
        assert_eq!(warnings[1..], ["and 1 more warning"]);
    }

    #[test]
    fn a_supervisor_that_is_gone_is_an_error() {
        let (ours, theirs) = ControlSocket::pair().unwrap();
        drop(theirs);
        assert!(deliver(&ours, &ToSupervisor::Compiled, &[]).is_err());
    }
}
