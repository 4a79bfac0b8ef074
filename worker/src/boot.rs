//! Puts a worker together, in order, and takes it apart again.
//!
//! ```text
//!   adopt what was inherited ─▶ read the generation ─▶ Hello ─▶ runtimes, store link, control ─▶ cache complete
//!     ─▶ self-test ─▶ Ready ─▶ (Serve) ─▶ … ─▶ drain ─▶ Bye
//! ```

use std::{
    io,
    os::fd::AsFd,
    path::PathBuf,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use aegis_ipc::{
    IpcError, PROTOCOL_VERSION,
    board::{BEATS, Board, Cell, Gauge},
    control::{ControlSocket, ToSupervisor},
    handoff::{Handoff, adopt},
    tally::Tally,
};
use tokio::{task::JoinHandle, time::interval};

use crate::{
    acceptor::{Acceptor, Doorbell, Listener},
    connection,
    data::Data,
    deliveries,
    drain::Verdict,
    generation::{Offer, OfferError},
    host::{Founding, Host, Identity, Premises},
    metronome,
    modules::{BeginError, LoadError, Modules},
    present::Present,
    reporting::{self, Supervisor},
    runtime::{self, Intake, Shared},
    service,
    signals::{Leave, Signals},
};

/// How often the state of the process is looked at: before it is ready, after so many beats, and while it drains.
const BOOT_WATCH: Duration = Duration::from_secs(1);
const WATCH_BEATS: u32 = 10;
const DRAIN_WATCH: Duration = Duration::from_millis(50);

/// Time in which all code begins in a worker by which a generation is judged. A call has limits of its own.
const BEGIN_TIME: Duration = Duration::from_secs(30);
/// Time that all code together has to release what it holds, when no request is left.
const MODULES_DRAIN_TIME: Duration = Duration::from_millis(500);

const EXIT_FINE: u8 = 0;
const EXIT_BUG: u8 = 70;
const EXIT_OS: u8 = 71;
const EXIT_TRANSIENT: u8 = 75;
const EXIT_CONFIGURATION: u8 = 78;

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error("the worker was given no generation to serve")]
    NoGeneration,
    #[error("{0}")]
    Ipc(String),
    #[error(transparent)]
    Catalog(OfferError),
    #[error("the code of the generation cannot be loaded: {0}")]
    Code(#[from] LoadError),
    #[error("{operation}: {reason}")]
    Os { operation: &'static str, reason: io::Error },
    #[error("the self-test was answered with status {0}")]
    SelfTest(u16),
    #[error(transparent)]
    Begin(#[from] BeginError),
    #[error("{0} ended by itself")]
    Ended(&'static str),
}

impl BootError {
    fn os(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |reason| Self::Os { operation, reason }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::NoGeneration | Self::Catalog(_) | Self::Code(_) => EXIT_CONFIGURATION,
            Self::Ipc(_) | Self::Os { .. } => EXIT_OS,
            Self::SelfTest(_) | Self::Begin(_) => EXIT_TRANSIENT,
            Self::Ended(_) => EXIT_BUG,
        }
    }
}

impl From<OfferError> for BootError {
    fn from(error: OfferError) -> Self {
        match error {
            OfferError::Ipc(error) => error.into(),
            OfferError::Catalog(_) => Self::Catalog(error),
        }
    }
}

impl From<IpcError> for BootError {
    fn from(error: IpcError) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::Ipc(text)
    }
}

/// A worker whose parts are in place, before anything runs.
struct Parts {
    shared: Shared,
    acceptor: Acceptor,
    intakes: Vec<Intake>,
    control: Arc<ControlSocket>,
}

/// Runs a worker until it has left. Returns the exit status.
pub(crate) fn run(handoff: Handoff) -> u8 {
    let control = match adopt(handoff.control, "control socket") {
        Ok(control) => Arc::new(ControlSocket::from_descriptor(control)),
        Err(error) => {
            tracing::error!(target: "aegis::worker", "{}", BootError::from(error));
            return EXIT_OS;
        }
    };
    let outcome = runtime::build().map_err(BootError::os("making a runtime")).and_then(|runtime| {
        let outcome = runtime.block_on(async {
            let signals = Signals::take_over().map_err(BootError::os("taking signals over"))?;
            let parts = assemble(&handoff, Arc::clone(&control))?;
            live(parts, (handoff.store_path, handoff.is_canary), signals).await
        });
        runtime.shutdown_background(); // a scan that still runs is of no use to anybody
        outcome
    });
    match outcome {
        Ok(()) => EXIT_FINE,
        Err(error) => {
            tracing::error!(target: "aegis::worker", "{error}");
            let (code, reason) = (error.exit_code(), error.to_string());
            let _ = control.send(&ToSupervisor::Failed { code, reason }, &[]);
            code
        }
    }
}

fn assemble(handoff: &Handoff, control: Arc<ControlSocket>) -> Result<Parts, BootError> {
    let hello = ToSupervisor::Hello {
        protocol: PROTOCOL_VERSION,
        pid: std::process::id(),
        generation: handoff.generation,
    };
    control.send(&hello, &[])?;
    let board = Board::open(&adopt(handoff.board, "board")?)?;
    let cell_index = handoff.cell as usize;
    let tally = tally(handoff)?;
    let generation = adopt(handoff.bundle.ok_or(BootError::NoGeneration)?, "generation bundle")?;
    let offer = Offer::read(&generation)?;

    let cell = board.cell(cell_index);
    occupy(cell, handoff);
    let identity = Identity::new(handoff.slot, handoff.generation);
    let doorbell =
        Arc::new(Doorbell::new().map_err(|error| BootError::os("making a doorbell")(error.into()))?);
    let (config, catalog) = (&offer.config, &offer.catalog);
    let data = Data::new(config, catalog, board, handoff.cell, handoff.generation, identity.incarnation);
    let code = offer.code.clone();
    let supervisor = Supervisor::new(Arc::clone(&control));
    let founding = Founding { offer, data, board, cell, tally, identity, supervisor };
    let host = Host::new(founding, Arc::clone(&doorbell));
    Modules::load_for(&host, (generation.as_fd(), &code), None)?;

    let threads = host.config.workers.threads.max(1) as usize;
    let (lanes, intakes) = runtime::lanes(threads, &host, (board, cell_index));
    let listeners = listeners(handoff)?;
    let acceptor =
        Acceptor::new(listeners, lanes, Arc::clone(&host.seats), Arc::clone(&doorbell), (board, cell_index))
            .map_err(|error| BootError::os("watching the listening sockets")(error.into()))?;
    runtime::announce(&host, threads.min(BEATS));
    let protocols = Arc::new(connection::protocols(&host.config.limits));
    Ok(Parts {
        shared: Shared { present: Present::new(host), doorbell, protocols },
        acceptor,
        intakes,
        control,
    })
}

/// The tally of the host; one of its own for a worker beside a supervisor of another image that has none it understands.
/// Then each such worker counts for itself.
fn tally(handoff: &Handoff) -> Result<Tally, BootError> {
    if let Some(descriptor) = handoff.tally {
        match Tally::open(&adopt(descriptor, "tally")?) {
            Ok(tally) => return Ok(tally),
            Err(error) => tracing::warn!(target: "aegis::worker", "counting clients alone: {error}"),
        }
    }
    Ok(Tally::create()?.0)
}

fn occupy(cell: Cell, handoff: &Handoff) {
    cell.clear_gauges();
    for (gauge, value) in [
        (Gauge::Pid, u64::from(std::process::id())),
        (Gauge::Slot, u64::from(handoff.slot)),
        (Gauge::Generation, handoff.generation),
    ] {
        cell.gauge(gauge).store(value, Ordering::Relaxed);
    }
}

fn listeners(handoff: &Handoff) -> Result<Vec<Listener>, BootError> {
    let mut listeners = Vec::with_capacity(handoff.listeners.len());
    for inherited in &handoff.listeners {
        let socket = adopt(inherited.descriptor, "listening socket")?;
        let listener = Listener::new(socket, &inherited.address, inherited.audience)
            .map_err(BootError::os("preparing a listening socket"))?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// From the first task to the last connection. Returns when the worker has left.
async fn live(
    parts: Parts,
    (store_path, is_canary): (PathBuf, bool),
    mut signals: Signals,
) -> Result<(), BootError> {
    let Parts { shared, acceptor, intakes, control } = parts;
    let present = Arc::clone(&shared.present);
    let premises = Arc::clone(present.premises());
    let data = present.look().engine.data().clone();
    let data_task = {
        let data = data.clone();
        tokio::spawn(async move {
            data.run(&store_path).await;
        })
    };
    let hub_task = {
        let premises = Arc::clone(&premises);
        tokio::spawn(async move {
            premises.events.run(&data).await;
        })
    };
    let delivery_task = {
        let present = Arc::clone(&present);
        tokio::spawn(async move {
            deliveries::run(present).await;
        })
    };
    let tasks = vec![
        ("the store link", data_task),
        ("the event hub", hub_task),
        ("the delivery of events", delivery_task),
    ];
    let mut crew = Crew { tasks, threads: vec![] };
    for (index, intake) in intakes.into_iter().enumerate() {
        if index == 0 {
            crew.tasks.push(("a runtime", tokio::spawn(runtime::run(intake, shared.clone()))));
        } else {
            let thread =
                runtime::start(intake, shared.clone()).map_err(BootError::os("starting a runtime"))?;
            crew.threads.push(("a runtime", thread));
        }
    }
    let mut follower = {
        let (present, doorbell) = (Arc::clone(&present), Arc::clone(&shared.doorbell));
        tokio::spawn(async move { reporting::follow(control, present, &doorbell).await })
    };

    if !become_ready((&present.host(), is_canary), &mut signals, &mut follower, &crew).await? {
        return Ok(());
    }
    crew.threads.push(("the acceptor", acceptor.start().map_err(BootError::os("starting the acceptor"))?));
    premises.supervisor.tell(&ToSupervisor::Ready)?;
    serve(&present, &shared.doorbell, &mut signals, &mut follower, &crew).await?;
    present.host().engine.drain_modules(Instant::now() + MODULES_DRAIN_TIME).await;
    let _ = premises.supervisor.tell(&ToSupervisor::Bye);
    Ok(())
}

/// Waits for the data and tests the whole way of a request, and of a canary whether all code begins. `false`: the worker was
/// told to leave before.
async fn become_ready(
    (host, is_canary): (&Arc<Host>, bool),
    signals: &mut Signals,
    follower: &mut JoinHandle<io::Result<()>>,
    crew: &Crew,
) -> Result<bool, BootError> {
    let mut prepared = pin!(async {
        host.engine.data().ready().await;
        let status = service::self_test(host).await;
        match host.engine.modules().filter(|_| is_canary) {
            Some(modules) => modules.warm_up(Instant::now() + BEGIN_TIME).await.map(|()| status),
            None => Ok(status),
        }
    });
    let mut watch = interval(BOOT_WATCH);
    loop {
        tokio::select! {
            prepared = &mut prepared => {
                let status = prepared?;
                if status.is_server_error() {
                    return Err(BootError::SelfTest(status.as_u16()));
                }
                return Ok(true);
            }
            _ = signals.next() => return Ok(false),
            _ = &mut *follower => return Ok(false),
            () = host.leaving.changed() => return Ok(false),
            _ = watch.tick() => crew.check()?,
        }
    }
}

/// Serves until there is nothing left to serve.
async fn serve(
    present: &Present,
    doorbell: &Doorbell,
    signals: &mut Signals,
    follower: &mut JoinHandle<io::Result<()>>,
    crew: &Crew,
) -> Result<(), BootError> {
    // No other generation in this process has other values for these.
    let (drain, orphan_grace) = {
        let host = present.look();
        (host.config.drain.clone(), host.config.workers.orphan_grace)
    };
    let premises = present.premises();
    let (mut orphaned, mut said_closed) = (false, false);
    let mut beats = 0_u32;
    let mut drain_watch = interval(DRAIN_WATCH); // armed only while it is asked
    loop {
        let draining = premises.leaving.has_begun();
        tokio::select! {
            leave = signals.next() => {
                let deadline = (leave == Leave::InTime).then_some(drain.timeout);
                premises.leave(deadline, drain.spread);
            }
            _ = &mut *follower, if !orphaned => {
                orphaned = true;
                tracing::warn!(target: "aegis::worker", "the supervisor is gone; finishing what is in flight");
                premises.leave(Some(orphan_grace), drain.spread);
            }
            () = premises.leaving.changed() => doorbell.stop(),
            () = premises.seats.emptied(), if draining => {}
            () = doorbell.stopped(), if draining && !doorbell.has_stopped() => {}
            _ = drain_watch.tick(), if draining => {}
            () = metronome::beat() => {
                beats = beats.wrapping_add(1);
                if !beats.is_multiple_of(WATCH_BEATS) {
                    continue;
                }
                if !draining {
                    crew.check()?;
                } else {
                    report_drain(premises, doorbell);
                }
            }
        }
        let Some(begun) = premises.leaving.drain() else { continue };
        if !said_closed && doorbell.has_stopped() {
            // Somebody waits to be told that nobody is answered by this worker who was not connected already.
            said_closed = report_drain(premises, doorbell);
        }
        match begun.verdict(at_work(premises), !doorbell.has_stopped(), premises.clock.advance()) {
            Verdict::Stay => {}
            Verdict::Empty => return Ok(()),
            Verdict::Overdue => {
                let connections = premises.seats.open();
                tracing::warn!(target: "aegis::worker", connections, "the drain time is up; cutting what is left");
                return Ok(());
            }
        }
    }
}

/// How much there is to wait for: connections, and code that still has something to do for an answer that is out.
fn at_work(premises: &Premises) -> u64 {
    premises.seats.open().max(premises.load.in_flight())
}

/// Tells how far the drain is. `false`: the supervisor did not take it.
fn report_drain(premises: &Premises, doorbell: &Doorbell) -> bool {
    let (connections, in_flight) = (premises.seats.open(), premises.load.in_flight());
    let closed = doorbell.has_stopped();
    premises.supervisor.tell(&ToSupervisor::Draining { connections, in_flight, closed }).unwrap_or(false)
}

/// Tasks and threads without which there is no point in going on.
struct Crew {
    tasks: Vec<(&'static str, JoinHandle<()>)>,
    threads: Vec<(&'static str, thread::JoinHandle<()>)>,
}

impl Crew {
    fn check(&self) -> Result<(), BootError> {
        let task = self.tasks.iter().find(|(_, task)| task.is_finished()).map(|(name, _)| *name);
        let thread = self.threads.iter().find(|(_, thread)| thread.is_finished()).map(|(name, _)| *name);
        task.or(thread).map_or(Ok(()), |name| Err(BootError::Ended(name)))
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for (_, task) in &self.tasks {
            task.abort();
        }
    }
}
