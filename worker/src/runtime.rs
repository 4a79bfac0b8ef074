//! The runtimes: one thread each, no work moves between them.
//!
//! A connection stays on the runtime it was given to, so a request touches one core's caches and no lock of a shared
//! queue. A thread that is stuck shows on the board, because only its own runtime writes its heartbeat.

use std::{
    io, iter,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
};

use aegis_ipc::{
    board::{Board, Gauge},
    slice,
};

use crate::{
    acceptor::{Arrival, Doorbell, Following, Lane},
    connection::{self, Ledger, Patience, Protocols},
    drain::Departures,
    host::Host,
    metronome,
    present::Present,
};

/// Heartbeats between two sweeps for time-outs; a drain is swept with every heartbeat.
const SWEEP_BEATS: u32 = 5;
/// Threads of one runtime for scans that would hold up its requests.
const BLOCKING_THREADS_MAX: usize = 4;

/// Where the connections of one runtime come from and are kept.
pub(crate) struct Intake {
    index: usize,
    arrivals: mpsc::Receiver<Arrival>,
    following: Following,
    ledger: Arc<Ledger>,
}

/// What all runtimes share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) present: Arc<Present>,
    pub(crate) doorbell: Arc<Doorbell>,
    pub(crate) protocols: Arc<Protocols>,
}

/// A runtime of one thread. What it has others do takes long, and is done in turns of the usual length.
///
/// # Errors
/// When its selector cannot be made.
pub(crate) fn build() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .on_thread_start(slice::ask_for_usual)
        .build()
}

/// The ways into `count` runtimes of the worker in a cell of the board. Together they have at least two permits, so that accepting and taking over can
/// overlap, and no more than one per runtime beyond that: what a stuck runtime holds, nobody serves.
pub(crate) fn lanes(count: usize, host: &Host, place: (Board, usize)) -> (Vec<Lane>, Vec<Intake>) {
    let permits = if count == 1 { 2 } else { 1 };
    let connections: Arc<[Arc<AtomicU64>]> = (0..count).map(|_| Arc::default()).collect();
    (0..count)
        .map(|index| {
            let (intake, arrivals) = mpsc::channel(permits);
            let lane = Lane { intake, connections: Arc::clone(&connections[index]) };
            let following = Following::new(place, &host.seats, (&connections, index));
            let ledger = Ledger::new(Arc::clone(&host.clock));
            (lane, Intake { index, arrivals, following, ledger })
        })
        .unzip()
}

/// Runs a further runtime on a thread of its own.
///
/// # Errors
/// When the thread cannot be made.
pub(crate) fn start(intake: Intake, shared: Shared) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(format!("runtime-{}", intake.index)).spawn(move || match build() {
        Ok(runtime) => runtime.block_on(run(intake, shared)),
        Err(error) => tracing::error!(target: "aegis::worker", "making a runtime: {error}"),
    })
}

/// Serves what is accepted for this runtime, for ever, on a thread that is let in at once beside those that compute.
pub(crate) async fn run(intake: Intake, shared: Shared) {
    slice::ask_for_short();
    let Intake { index, mut arrivals, mut following, ledger } = intake;
    let serve = async {
        while let Some(Arrival { accepted, source }) = arrivals.recv().await {
            shared.doorbell.room_was_made();
            // Without a source the acceptor has ended, and what waits is no longer for this worker.
            let source = source.upgrade();
            let more =
                source.map_or_else(Vec::new, |source| following.take(&source, &shared.doorbell).collect());
            let have_followed = !more.is_empty();
            for accepted in iter::once(accepted).chain(more) {
                let Shared { present, protocols, .. } = shared.clone();
                tokio::spawn(connection::serve(accepted, present, Arc::clone(&ledger), protocols));
            }
            if have_followed {
                // The next one may be here already, with as many behind it: first come those that are open.
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::join!(serve, beat(index, &shared.present, &ledger));
}

/// Shows that the runtime is alive, moves the clock, and ends connections whose time is up.
async fn beat(index: usize, present: &Present, ledger: &Ledger) {
    let patience = Patience::new(&present.look().config.limits);
    let premises = present.premises();
    let mut departures = Departures::default();
    let heartbeat = premises.cell.beat(index);
    let mut beats = 0_u32;
    loop {
        let now_ms = premises.clock.advance();
        heartbeat.store(now_ms, Ordering::Relaxed);
        beats = beats.wrapping_add(1);
        let drain = premises.leaving.drain();
        if drain.is_some() || beats.is_multiple_of(SWEEP_BEATS) {
            ledger.sweep(patience, drain.as_ref().map(|drain| (drain, &mut departures)), now_ms);
        }
        metronome::beat().await;
    }
}

/// Announces the runtimes on the board.
pub(crate) fn announce(host: &Host, threads: usize) {
    host.cell.gauge(Gauge::Threads).store(threads as u64, Ordering::Relaxed);
}
