//! Committed changes, told to the code of models that subscribe to them.
//!
//! ```text
//!   the feed, and the store's log for what is older ──▶ one consumer for each subscribing model ──▶ on-event
//!                                                             │ ▲
//!                                            the store: its position, durable
//! ```
//!
//! Of all workers one of what is in force delivers ([`owner`]). A consumer goes through the log in order, one event at a time. Its position is
//! a document of the store, kept every few events, so an event that was committed is delivered at least once: after a
//! crash, those since the position was last kept come again. An event that the code does not take is tried again a few
//! times ([`retry`]), then given up, counted and logged, and the next one follows. Consumers do not wait for one another.

mod consumer;
mod owner;
mod position;
mod retry;

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use aegis_ipc::board::{Counter, ModuleCounter};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use self::{consumer::Consumer, owner::is_owner};
use crate::{host::Host, modules::Subscriber, present::Present};

/// How often a worker looks whether it is the one that delivers.
const OWNER_WATCH: Duration = Duration::from_millis(250);
/// Time in which consumers of a generation that is no longer the present one end what is under way and keep their place.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// Pause after a defect of the host has ended a consumer.
const DEFECT_PAUSE: Duration = Duration::from_secs(1);

/// Delivers to all subscribers of the present generation, for ever. When another generation takes its place, the event
/// that is under way is seen through first; one that takes too long is delivered again by that one, if it still subscribes.
pub(crate) async fn run(present: Arc<Present>) -> Infallible {
    present.host().engine.data().ready().await;
    // Before it accepts, so that a subscription that is new begins with the first change that a client makes.
    let mut begun = present.look().engine.data().watermark();
    loop {
        let host = present.host();
        let subscribers = host.engine.subscribers();
        let subscribed: Vec<String> =
            subscribers.iter().map(|subscriber| subscriber.module.name().to_owned()).collect();
        let mut consumers = JoinSet::new(); // ends them when the generation is not the present one any longer
        for subscriber in subscribers {
            consumers.spawn(keep_delivering(Arc::clone(&host), Arc::clone(&present), subscriber, begun));
        }
        while Arc::ptr_eq(&host, &present.look()) {
            if is_owner(&host) {
                forget_others(&host, &subscribed);
            }
            sleep(OWNER_WATCH).await;
        }
        let settled = async { while consumers.join_next().await.is_some() {} };
        if timeout(SETTLE_TIME, settled).await.is_err() {
            consumers.shutdown().await;
        }
        begun = present.take_since().unwrap_or(begun);
    }
}

/// Delivers until the generation is no longer the present one. Begins again when a defect of the host has ended a consumer:
/// it is told as often as it happens, and in no closer turns.
async fn keep_delivering(host: Arc<Host>, present: Arc<Present>, subscriber: Subscriber, begun: u64) {
    loop {
        let mut one = JoinSet::new(); // ends what runs in it when this ends
        one.spawn(Consumer::new(Arc::clone(&host), Arc::clone(&present), subscriber.clone(), begun).run());
        let ended = one.join_next().await;
        if let Some(Ok(())) = ended {
            return;
        }
        host.cell.counter(Counter::Defects).fetch_add(1, Ordering::Relaxed);
        let model = subscriber.model.name();
        tracing::error!(target: "aegis::events", model, "the delivery of events ended: {ended:?}; it begins again");
        sleep(DEFECT_PAUSE).await;
    }
}

/// Modules that do not subscribe any longer lag behind nothing.
fn forget_others(host: &Host, subscribed: &[String]) {
    for entry in host.board.modules() {
        let position = entry.counter(ModuleCounter::EventPosition);
        if position.load(Ordering::Relaxed) != 0 && !subscribed.contains(&entry.name()) {
            position.store(0, Ordering::Relaxed);
        }
    }
}
