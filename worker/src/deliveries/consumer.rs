//! One subscriber's way through the log.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use aegis_domain::{
    Problem,
    event::{Event, EventKind},
    trial::Lot,
};
use aegis_ipc::{
    board::{ModuleCounter, ModuleEntry},
    data::{Change, ChangeKind, POSITIONS},
};
use aegis_wasm::{Call, CallError, Entry, Happening, Lineage, Origin};
use tokio::time::{sleep, timeout};

use super::{
    OWNER_WATCH,
    owner::{is_judged, is_owner},
    position::Kept,
    retry::{Verdict, verdict},
};
use crate::{
    data::{Applied, Data},
    host::Host,
    modules::{NotTold, Subscriber},
    present::Present,
};

/// Changes asked for at once when the log is read.
const PAGE_CHANGES: u32 = 256;
/// Time the store has to answer.
const STORE_TIME: Duration = Duration::from_secs(10);
/// Pause after the store did not answer, or another worker delivered too.
const TROUBLE_PAUSE: Duration = Duration::from_millis(500);
/// Events delivered since the position was last kept: so many come again after a crash.
const UNKEPT_EVENTS_MAX: u64 = 16;
/// Changes passed over since the position was last kept.
const UNKEPT_CHANGES_MAX: u64 = 1_000;
/// Time of one call; the module's own limit is shorter.
const CALL_TIME: Duration = Duration::from_secs(60);

/// Why a consumer stops for now.
#[derive(Debug)]
enum Pause {
    /// Another worker delivers, or another generation does.
    NotOwner,
    /// The store has a problem, or the position was moved by somebody else.
    Trouble(Problem),
}

impl From<Problem> for Pause {
    fn from(problem: Problem) -> Self {
        Self::Trouble(problem)
    }
}

/// Delivers to one subscriber while this worker is the one that delivers.
pub(super) struct Consumer {
    host: Arc<Host>,
    present: Arc<Present>,
    subscriber: Subscriber,
    /// What was durable when the generation began in this worker: a subscription that is new begins after it.
    begun: u64,
    entry: Option<ModuleEntry>,
}

/// Where it is.
struct Way {
    kept: Kept,
    /// Everything up to here was delivered or is of no interest.
    position: u64,
    /// Events delivered since the position was last kept.
    unkept: u64,
    /// Changes of models in memory before this one are known to be missed.
    memory_missed: u64,
}

impl Consumer {
    pub(super) fn new(host: Arc<Host>, present: Arc<Present>, subscriber: Subscriber, begun: u64) -> Self {
        let entry = host.board.module(subscriber.module.name());
        Self { host, present, subscriber, begun, entry }
    }

    /// Delivers whenever this worker is the one to do so, until another generation is the present one.
    pub(super) async fn run(self) {
        self.begin().await;
        while self.is_present() {
            // Who delivered before notices in this time as well, and keeps its place: nothing has to come twice.
            let was_owner = is_owner(&self.host);
            sleep(OWNER_WATCH).await;
            if !was_owner || !self.delivers() {
                continue;
            }
            let opened = Kept::open(self.data(), self.subscriber.model.name(), self.begun, deadline()).await;
            let pause = match opened {
                Ok(kept) => self.follow(kept).await,
                Err(problem) => Pause::Trouble(problem),
            };
            if let Pause::Trouble(problem) = pause {
                let model = self.subscriber.model.name();
                tracing::warn!(target: "aegis::events", model, "delivery pauses: {problem}");
                sleep(TROUBLE_PAUSE).await;
            }
        }
    }

    /// Lets a subscription that is new with a version begin with it, although it is not delivered to before it is in force.
    async fn begin(&self) {
        let model = self.subscriber.model.name();
        if is_judged(&self.host)
            && let Err(problem) = Kept::open(self.data(), model, self.begun, deadline()).await
        {
            tracing::debug!(target: "aegis::events", model, "the first position is not kept: {problem}");
        }
    }

    /// Delivers from a position on, until it has to stop.
    async fn follow(&self, kept: Kept) -> Pause {
        let mut way = Way { position: kept.position, kept, unkept: 0, memory_missed: 0 };
        let pause = match self.go(&mut way).await {
            Ok(never) => match never {},
            Err(pause) => pause,
        };
        // What another worker delivers next begins there, if this works.
        if way.unkept > 0
            && let Err(problem) = self.keep(&mut way).await
        {
            tracing::debug!(target: "aegis::events", "the last position is not kept: {problem}");
        }
        pause
    }

    async fn go(&self, way: &mut Way) -> Result<std::convert::Infallible, Pause> {
        // Listening comes before looking: what is applied while the log is read is heard.
        let mut subscription = self.data().subscribe();
        self.catch_up(way).await?;
        loop {
            match timeout(OWNER_WATCH, subscription.next()).await {
                Ok(Applied::Changes(changes)) => {
                    for change in changes.iter() {
                        self.pass(way, change).await?;
                    }
                }
                Ok(Applied::Skipped) => self.catch_up(way).await?,
                Err(_) if way.unkept > 0 => self.keep(way).await?,
                Err(_) => self.check()?,
            }
        }
    }

    /// Reads the log from the position on.
    async fn catch_up(&self, way: &mut Way) -> Result<(), Pause> {
        loop {
            self.check()?;
            let page = self.data().changes(way.position, PAGE_CHANGES, deadline()).await?;
            if way.position + 1 < page.oldest {
                self.miss(page.oldest - 1 - way.position);
                way.position = page.oldest - 1;
            }
            if page.memory_oldest > (way.position + 1).max(way.memory_missed) && self.hears_memory() {
                self.miss(page.memory_oldest - 1 - way.position);
                way.memory_missed = page.memory_oldest;
            }
            // A position beyond the log is one of another log: of a store that was restored from an older copy.
            way.position = way.position.min(page.durable);
            for change in &page.changes {
                self.pass(way, change).await?;
            }
            if page.changes.len() < PAGE_CHANGES as usize {
                let last = page.changes.last().map_or(page.durable, |change| change.sequence);
                if last >= page.durable {
                    self.come_to(way, page.durable).await?;
                    return Ok(());
                }
            }
        }
    }

    /// So many changes may not be delivered any more.
    fn miss(&self, missed: u64) {
        let model = self.subscriber.model.name();
        tracing::error!(target: "aegis::events", model, missed, "the log has forgotten changes that were not delivered");
        self.count(ModuleCounter::EventChangesMissed, missed);
    }

    /// Whether it wants to hear of models whose changes are only in memory.
    fn hears_memory(&self) -> bool {
        let kinds = [EventKind::Create, EventKind::Update, EventKind::Delete].map(EventKind::as_str);
        let mut names =
            self.host.models_in_memory().flat_map(|model| kinds.map(|kind| format!("{kind}{model}")));
        names.any(|name| self.subscriber.patterns.iter().any(|pattern| pattern.matches(&name)))
    }

    /// Delivers a change if it is of interest.
    async fn pass(&self, way: &mut Way, change: &Change) -> Result<(), Pause> {
        if change.sequence <= way.position {
            return Ok(());
        }
        if let Some(happening) = self.happening(change) {
            self.deliver(change.sequence, &happening).await?;
            way.unkept += 1;
        }
        self.come_to(way, change.sequence).await
    }

    async fn come_to(&self, way: &mut Way, position: u64) -> Result<(), Pause> {
        way.position = way.position.max(position);
        if let Some(entry) = &self.entry {
            entry.counter(ModuleCounter::EventPosition).store(way.position, Ordering::Relaxed);
        }
        if way.unkept >= UNKEPT_EVENTS_MAX
            || way.position.saturating_sub(way.kept.position) >= UNKEPT_CHANGES_MAX
        {
            self.keep(way).await?;
        }
        Ok(())
    }

    async fn keep(&self, way: &mut Way) -> Result<(), Problem> {
        way.kept.save(self.data(), way.position, deadline()).await?;
        way.unkept = 0;
        Ok(())
    }

    /// Tells the code until it has taken the event, or it is given up.
    async fn deliver(&self, sequence: u64, happening: &Happening) -> Result<(), Pause> {
        // The calls about it, and those of them that count as attempts.
        let (mut calls, mut attempts) = (0, 0);
        loop {
            self.check()?;
            let call = Call {
                request_id: format!("event-{sequence}"),
                origin: Origin::Event,
                deadline: Instant::now() + CALL_TIME,
                attempt: calls + 1,
                idempotency_key: None,
                lineage: Lineage::begin(),
                lot: Lot::current(),
                principal: None,
            };
            let told = self.host.engine.tell(&self.subscriber, call, Entry::Event(happening.clone())).await;
            let outcome = match told {
                Ok(()) => Ok(()),
                // It has not been asked, so this is no attempt: the event waits until the code is called again.
                Err(NotTold::Shut(shut)) => {
                    sleep(shut.retry_after.min(OWNER_WATCH)).await;
                    continue;
                }
                Err(NotTold::Failed(error)) => Err(error),
            };
            let verdict = verdict(attempts + 1, &outcome, self.data().is_connected());
            if !matches!(outcome, Err(CallError::Busy { .. })) {
                calls += 1;
            }
            match verdict {
                Verdict::Taken => {
                    self.count(ModuleCounter::EventsTaken, 1);
                    return Ok(());
                }
                Verdict::Again(pause) => {
                    self.count(ModuleCounter::EventsRepeated, 1);
                    sleep(pause).await;
                }
                Verdict::Waits(pause) => {
                    sleep(pause).await;
                    continue;
                }
                Verdict::GivenUp => {
                    self.count(ModuleCounter::EventsGivenUp, 1);
                    let (model, event) = (self.subscriber.model.name(), happening.name.as_str());
                    let reason = outcome.err().map(|error| error.to_string()).unwrap_or_default();
                    tracing::error!(target: "aegis::events", model, event, sequence, attempt = attempts + 1, "an event is given up: {reason}");
                    return Ok(());
                }
            }
            attempts += 1;
        }
    }

    /// The event of a change, if the subscriber wants to hear of it.
    fn happening(&self, change: &Change) -> Option<Happening> {
        if change.model == POSITIONS {
            return None;
        }
        let (kind, id, revision, body, changes) = match &change.kind {
            ChangeKind::Put { id, revision, body, changes } => {
                (EventKind::of_put(*revision), id, *revision, Some(&body[..]), changes.as_deref())
            }
            ChangeKind::Remove { id, revision } => (EventKind::Delete, id, *revision, None, None),
            ChangeKind::Truncate => return None,
        };
        let Change { sequence, model, time_ms, .. } = change;
        let (sequence, time_ms) = (*sequence, *time_ms);
        let event = Event { sequence, model, kind, id, revision, time_ms, body, changes };
        let name = event.name();
        if !self.subscriber.patterns.iter().any(|pattern| pattern.matches(&name)) {
            return None;
        }
        Some(Happening {
            id: event.id_text(),
            name,
            source: model.clone(),
            time_ms,
            key: Some(id.clone()),
            data: String::from_utf8_lossy(&event.to_json()).into_owned(),
        })
    }

    fn check(&self) -> Result<(), Pause> {
        if self.delivers() { Ok(()) } else { Err(Pause::NotOwner) }
    }

    fn delivers(&self) -> bool {
        self.is_present() && is_owner(&self.host)
    }

    /// Whether its generation is the one that requests are answered with now.
    fn is_present(&self) -> bool {
        Arc::ptr_eq(&self.host, &self.present.look())
    }

    fn count(&self, counter: ModuleCounter, amount: u64) {
        if let Some(entry) = &self.entry {
            entry.counter(counter).fetch_add(amount, Ordering::Relaxed);
        }
    }

    fn data(&self) -> &Data {
        self.host.engine.data()
    }
}

fn deadline() -> Instant {
    Instant::now() + STORE_TIME
}
