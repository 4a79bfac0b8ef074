//! The requests that one instance answers at the same time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Instant,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use wasmtime::component::GuestTaskId;

use crate::call::CallError;

/// Slices of one epoch for which code may compute without a rest when nobody waits for its request any longer: enough to
/// give up in order. The others in its instance wait meanwhile.
const SLICES_AFTER_THE_END_MAX: u32 = 50;
/// Requests of an instance that are named when it fails.
const NAMED_MAX: usize = 8;

/// Who is in an instance. What runs the instance, its code and those who wait outside look at it.
#[derive(Debug)]
pub(crate) struct Crowd {
    roster: Mutex<Roster>,
    /// Slices that code of requests that are over has computed since the instance was at rest.
    overtime_slices: AtomicU32,
    /// Whether the instance may take another request: it has been at rest since the one before.
    is_at_rest: AtomicBool,
}

/// How things are in an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mood {
    /// Nobody is there for whom somebody waits.
    pub(super) is_deserted: bool,
    /// Somebody went away whose code goes on, which nothing but the end of the instance ends.
    pub(super) is_spoiled: bool,
}

#[derive(Debug)]
struct Roster {
    /// How many there have been; the number of a visitor is how many were before.
    visits: u64,
    present: BTreeMap<u64, Visitor>,
    /// When the time of all that there have been is up.
    until: Instant,
    /// Whose code did not stop.
    blamed: Option<String>,
}

/// One request.
#[derive(Debug)]
struct Visitor {
    task: GuestTaskId,
    asks: Asks,
    ended: oneshot::Sender<Result<(), CallError>>,
}

/// A request as it is known by, and when nobody waits for it any longer.
#[derive(Debug, Clone)]
pub(crate) struct Asks {
    pub(crate) request_id: String,
    pub(crate) until: Instant,
    /// Whether whoever waited has gone.
    pub(super) has_gone: Arc<AtomicBool>,
}

impl Asks {
    /// Whether whoever waited has gone.
    pub(super) fn is_gone(&self) -> bool {
        self.has_gone.load(Ordering::Relaxed)
    }

    fn is_over(&self) -> bool {
        self.is_gone() || Instant::now() >= self.until
    }
}

impl Crowd {
    /// Nobody, yet. Without anybody the instance has time until then.
    pub(super) fn new(until: Instant) -> Self {
        let roster = Roster { visits: 0, present: BTreeMap::new(), until, blamed: None };
        Self {
            roster: Mutex::new(roster),
            overtime_slices: AtomicU32::new(0),
            is_at_rest: AtomicBool::new(true),
        }
    }

    /// A request begins. Gives its number.
    pub(super) fn enter(
        &self,
        task: GuestTaskId,
        asks: Asks,
        ended: oneshot::Sender<Result<(), CallError>>,
    ) -> u64 {
        self.is_at_rest.store(false, Ordering::Relaxed);
        let mut roster = self.roster.lock();
        let number = roster.visits;
        roster.visits += 1;
        roster.until = roster.until.max(asks.until);
        roster.present.insert(number, Visitor { task, asks, ended });
        number
    }

    /// A request ended well.
    pub(super) fn leave(&self, number: u64) {
        let left = self.roster.lock().present.remove(&number);
        if let Some(visitor) = left {
            let _ = visitor.ended.send(Ok(())); // nobody may wait for it any longer
        }
    }

    /// How things are.
    pub(super) fn mood(&self) -> Mood {
        let roster = self.roster.lock();
        let gone = roster.present.values().filter(|visitor| visitor.asks.is_gone()).count();
        Mood { is_deserted: gone == roster.present.len(), is_spoiled: gone > 0 }
    }

    /// How many requests there have been.
    pub(super) fn visits(&self) -> u64 {
        self.roster.lock().visits
    }

    /// When the time of all that there have been is up.
    pub(super) fn until(&self) -> Instant {
        self.roster.lock().until
    }

    /// Whether another request may begin.
    pub(super) fn is_at_rest(&self) -> bool {
        self.is_at_rest.load(Ordering::Relaxed)
    }

    /// All code waits. Whether it was not so before.
    pub(super) fn rest(&self) -> bool {
        self.overtime_slices.store(0, Ordering::Relaxed);
        !self.is_at_rest.swap(true, Ordering::Relaxed)
    }

    /// Which request a call belongs to; `root` is the call of the handler. Numbers of calls are used again, so the last
    /// one counts.
    pub(super) fn asks(&self, root: GuestTaskId) -> Option<Asks> {
        let roster = self.roster.lock();
        roster.present.values().rev().find(|visitor| visitor.task == root).map(|visitor| visitor.asks.clone())
    }

    /// Code has computed for a slice, for the call `root` if that is known. Whether the instance has to end, because
    /// nobody waits for that any longer and the others wait for its end.
    pub(crate) fn has_to_end(&self, root: Option<GuestTaskId>) -> bool {
        let asks = root.and_then(|root| self.asks(root));
        let is_over = match &asks {
            Some(asks) => asks.is_over(),
            // What goes on after its answer has time until the last request's is up.
            None => Instant::now() >= self.until(),
        };
        if !is_over {
            return false;
        }
        let slices = self.overtime_slices.fetch_add(1, Ordering::Relaxed) + 1;
        if slices > SLICES_AFTER_THE_END_MAX {
            let told = || "what went on after its answer".to_owned();
            self.roster.lock().blamed =
                Some(asks.map_or_else(told, |asks| format!("request {}", asks.request_id)));
            return true;
        }
        false
    }

    /// The instance has failed: tells all that are there, and how many those were. One of them is told what `failed` says:
    /// it is one fault of the code, and not one of each request.
    pub(super) fn fail(&self, module: &str, entry: &'static str, failed: &CallError) -> usize {
        let (present, blamed) = {
            let mut roster = self.roster.lock();
            (std::mem::take(&mut roster.present), roster.blamed.take())
        };
        let names: Vec<&str> =
            present.values().take(NAMED_MAX).map(|visitor| visitor.asks.request_id.as_str()).collect();
        let why = match &blamed {
            Some(blamed) => format!("{blamed} did not stop when its time was up"),
            None => failed.to_string(),
        };
        let reason = format!("{why}; requests {} had one instance", names.join(", "));
        // Where it is known whose fault it is, that one has been told.
        let mut is_told = blamed.is_some();
        let count = present.len();
        for visitor in present.into_values() {
            let error = if is_told || visitor.asks.is_over() {
                CallError::Involved { module: module.to_owned(), entry: entry.into(), reason: reason.clone() }
            } else {
                is_told = true;
                failed.clone()
            };
            let _ = visitor.ended.send(Err(error)); // nobody may wait for it any longer
        }
        count
    }
}
