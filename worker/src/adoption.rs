//! Takes another generation over without a new process.
//!
//! ```text
//!   Adopt ─▶ read the bundle ─▶ can it? ─▶ map and link what is new beside what runs ─▶ begin it ─▶ exchange ─▶ Adopted
//!            └──────────── on a thread of its own ─────────────┘                       one pointer
//!                                      old host ─▶ its last request ends ─▶ instances and code go
//! ```
//!
//! Modules about which nothing has changed keep their code and their instances. When code does not begin, or does not hand
//! over what it remembers, nothing of the next generation stays, and the one before goes on as if it had not been asked. Where
//! code in force remembers something, this is said: new workers would begin without it.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use aegis_domain::{catalog::Model, trial::Variant};
use aegis_ipc::{board::Gauge, control::ToSupervisor};
use aegis_wasm::Module;
use tokio::sync::mpsc;

use crate::{
    generation::{Offer, OfferError, obstacle},
    host::Host,
    metronome,
    modules::{BeginError, HandoverError, LoadError, Modules},
    present::Present,
};

/// Generations that wait to be taken over. The supervisor waits for each answer, so there is one at most.
const ORDERS_MAX: usize = 2;

/// Time in which all code that is new begins beside what runs. A call has limits of its own.
const BEGIN_TIME: Duration = Duration::from_secs(10);
/// Time in which all code together hands its state over.
const HANDOVER_TIME: Duration = Duration::from_secs(2);
/// Time in which all code that was replaced releases what it holds.
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// What is said besides where new workers would lose something.
const WOULD_BE_LOST: &str = "new workers would begin without what the code in force remembers";

/// What the supervisor wants to be served.
pub(crate) struct Order {
    pub(crate) generation: u64,
    pub(crate) bundle: OwnedFd,
}

/// Why a generation is not taken over.
#[derive(Debug, thiserror::Error)]
enum AdoptionError {
    #[error(transparent)]
    Offer(#[from] OfferError),
    #[error("{0}")]
    Different(String),
    #[error("its code cannot be loaded: {0}")]
    Code(#[from] LoadError),
    #[error(transparent)]
    Begin(#[from] BeginError),
    #[error(transparent)]
    Handover(#[from] HandoverError),
    #[error("the thread that prepared it ended by itself")]
    Ended,
}

/// The way to [`run`].
pub(crate) fn orders() -> (mpsc::Sender<Order>, mpsc::Receiver<Order>) {
    mpsc::channel(ORDERS_MAX)
}

/// Takes over what it is told to, one after the other, for ever.
pub(crate) async fn run(present: Arc<Present>, mut orders: mpsc::Receiver<Order>) {
    while let Some(Order { generation, bundle }) = orders.recv().await {
        let answer = match adopt(&present, generation, bundle).await {
            Ok(adopted) => adopted,
            Err(error) => refusal(&present.host(), generation, &error),
        };
        if let Err(error) = present.premises().supervisor.tell(&answer) {
            tracing::error!(target: "aegis::worker", %error, "the supervisor is not told what is served");
        }
    }
}

/// What is said about a generation that is not taken over.
fn refusal(before: &Host, generation: u64, error: &AdoptionError) -> ToSupervisor {
    let reason = error.to_string();
    match error {
        // Another process can.
        AdoptionError::Offer(_) | AdoptionError::Different(_) => {
            ToSupervisor::NotAdopted { generation, reason, loses_state: false }
        }
        // It says what is lost.
        AdoptionError::Handover(_) => ToSupervisor::NotAdopted { generation, reason, loses_state: true },
        AdoptionError::Code(_) | AdoptionError::Begin(_) | AdoptionError::Ended => {
            failed(before, generation, reason)
        }
    }
}

/// What is said about a generation with which something went wrong in this process before state was handed over. Where the
/// code in force hands some over, new workers instead of this one would begin without it, for which nobody has asked.
pub(crate) fn failed(before: &Host, generation: u64, reason: String) -> ToSupervisor {
    let loses_state = hands_over(before);
    let reason = if loses_state { format!("{reason}; {WOULD_BE_LOST}") } else { reason };
    ToSupervisor::NotAdopted { generation, reason, loses_state }
}

/// Whether some code of a generation, in force or tried, hands over what it remembers.
fn hands_over(host: &Host) -> bool {
    let Some(modules) = host.engine.modules() else { return false };
    let does =
        |model: &Model, variant| modules.of_variant(model, variant).is_some_and(|module| module.hands_over());
    let mut models = host.catalog.models().iter();
    models.any(|model| does(model, Variant::Current) || does(model, Variant::Trial))
}

async fn adopt(
    present: &Arc<Present>,
    generation: u64,
    bundle: OwnedFd,
) -> Result<ToSupervisor, AdoptionError> {
    let begun = Instant::now();
    let before = present.host();
    let next = tokio::task::spawn_blocking(move || prepare(&before, generation, &bundle));
    let next = next.await.map_err(|_| AdoptionError::Ended)??;
    let patience = next.config.drain.timeout;
    let before = present.host();
    let (replaced, halted) = match (before.engine.modules(), next.engine.modules()) {
        (Some(before), Some(next)) => {
            next.begin_beside(before, Instant::now() + BEGIN_TIME).await?;
            let halted = next.take_over(before, Instant::now() + HANDOVER_TIME).await?;
            (before.replaced_by(next), halted)
        }
        (_, _) => (Vec::new(), Vec::new()),
    };
    drop(before);
    let prepare_microseconds = microseconds(begun.elapsed());

    let begun = Instant::now();
    let before = present.exchange(Arc::clone(&next));
    // Not before: whatever the code did in between, the next generation would not know of it.
    drop(halted);
    let premises = present.premises();
    premises.cell.gauge(Gauge::Generation).store(generation, Ordering::Relaxed);
    let switch_microseconds = microseconds(begun.elapsed());

    next.engine.data().serve_generation(generation);
    tracing::info!(
        target: "aegis::worker",
        generation, prepare_microseconds, switch_microseconds, "another generation is served"
    );
    tokio::spawn(release(before, replaced, patience));
    Ok(ToSupervisor::Adopted { generation, prepare_microseconds, switch_microseconds })
}

/// The host of a generation, complete, that nobody asks yet.
fn prepare(before: &Host, generation: u64, bundle: &OwnedFd) -> Result<Arc<Host>, AdoptionError> {
    let offer = Offer::read(bundle)?;
    if let Some(reason) = obstacle((&before.config, &before.catalog, &before.services), &offer) {
        return Err(AdoptionError::Different(reason));
    }
    let places = offer.code.clone();
    let host = before.next(offer, generation);
    Modules::load_for(&host, (bundle.as_fd(), &places), before.engine.modules())?;
    Ok(host)
}

/// Lets go of a generation when its last request has ended, not on a thread that serves requests: it takes a while.
/// Requests end by their deadlines; one that should hold on for longer lets go of it itself.
async fn release(before: Arc<Host>, replaced: Vec<Arc<Module>>, patience: Duration) {
    let until = Instant::now() + patience;
    while Arc::strong_count(&before) > 1 {
        if Instant::now() >= until {
            let generation = before.identity.generation;
            tracing::warn!(target: "aegis::worker", generation, "requests still run with a generation before this one");
            break;
        }
        metronome::beat().await;
    }
    if let Some(modules) = before.engine.modules() {
        modules.end(&replaced, Instant::now() + DRAIN_TIME).await;
    }
    drop(replaced);
    drop(tokio::task::spawn_blocking(move || drop(before)).await);
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
