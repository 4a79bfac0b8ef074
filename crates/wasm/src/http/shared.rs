//! Instances that answer several requests at the same time, as those of WASI 0.3 can.
//!
//! ```text
//!   request ─▶ lobby ─▶ a seat in an instance ─▶ handle ─▶ head ─▶ the body is taken ─▶ the seat is free
//!              │ none in time: another instance, if there may be one
//! ```
//!
//! An instance runs in a task of its own as long as somebody is in it, and waits with the others afterwards. Each request
//! is waited for outside of it, where its deadline passes whatever the code does. The engine cannot end one of several
//! things that code does: where nobody waits for one any longer, the instance takes no further request and ends with the
//! last of those that it has; at once, if that one does not let the others go on.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use http::{Request, Response};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{sleep, sleep_until, timeout_at},
};
use wasmtime::Store;
use wasmtime_wasi_http::{WasiBody, handler::Proxy, p3::bindings::Service};

use super::{
    ENTRY, Head, HttpService, Resident, Visit,
    concurrent::{Taken, Visiting, watched},
    crowd::{Asks, Crowd},
    lobby::Lobby,
    revocable::{Revokes, revocable},
};
use crate::{
    call::{Budget, CallError, HARD_DEADLINE_SLACK, TimeIsUp},
    state::{self, State},
    ticker::Running,
};

/// How long somebody waits for an instance that does not look who waits, before another one is made.
const PATIENCE: Duration = Duration::from_millis(10);

/// A request on its way to an instance.
pub(super) struct Job {
    pub(super) asks: Asks,
    pub(super) request: Request<WasiBody>,
    pub(super) replies: Replies,
}

/// What an instance says to those who wait for it.
pub(super) struct Replies {
    /// It has begun; nothing when that was said.
    begun: Option<oneshot::Sender<()>>,
    pub(super) head: oneshot::Sender<Result<(Response<WasiBody>, Taken), String>>,
    pub(super) ended: oneshot::Sender<Result<(), CallError>>,
    /// Closed when whoever waited has gone.
    pub(super) here: oneshot::Receiver<()>,
}

/// The side of the one who waits.
struct Course {
    begun: oneshot::Receiver<()>,
    head: oneshot::Receiver<Result<(Response<WasiBody>, Taken), String>>,
    ended: oneshot::Receiver<Result<(), CallError>>,
    presence: Presence,
}

/// Whoever waits for a request is there as long as this is held.
struct Presence {
    has_gone: Arc<AtomicBool>,
    _here: oneshot::Sender<()>,
    _body: Revokes,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.has_gone.store(true, Ordering::Relaxed);
    }
}

/// A place in the lobby, until it is dropped.
struct Ticket<'a> {
    lobby: &'a Lobby<Job>,
    number: u64,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.lobby.withdraw(self.number);
    }
}

/// An instance as the lobby knows it, until it is dropped.
pub(super) struct Room {
    lobby: Arc<Lobby<Job>>,
    number: u64,
}

impl Room {
    pub(super) fn leave(&self) {
        self.lobby.leave(self.number, Instant::now());
    }

    pub(super) fn shut(&self) {
        self.lobby.shut(self.number);
    }

    /// Whoever is next, and is told that it has begun.
    fn take(&self, context: &Context<'_>) -> Option<Job> {
        loop {
            let mut job = self.lobby.take(self.number, context.waker(), Instant::now())?;
            if job.replies.begun.take().is_some_and(|begun| begun.send(()).is_ok()) {
                return Some(job);
            }
            self.leave();
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shut();
    }
}

fn course(request_id: String, budget: &Budget, request: Request<WasiBody>) -> (Job, Course) {
    let (begins, begun) = oneshot::channel();
    let (says, head) = oneshot::channel();
    let (ends, ended) = oneshot::channel();
    let (stays, here) = oneshot::channel();
    let (parts, body) = request.into_parts();
    let (body, revokes) = revocable(body);
    let has_gone = Arc::new(AtomicBool::new(false));
    let asks = Asks { request_id, until: budget.until, has_gone: Arc::clone(&has_gone) };
    let replies = Replies { begun: Some(begins), head: says, ended: ends, here };
    let presence = Presence { has_gone, _here: stays, _body: revokes };
    (
        Job { asks, request: Request::from_parts(parts, body), replies },
        Course { begun, head, ended, presence },
    )
}

impl HttpService {
    /// Has a request answered in an instance that others may be in, until its answer ends or its time is up.
    pub(super) async fn join(
        self: Arc<Self>,
        visit: Visit,
        budget: Budget,
        request: Request<WasiBody>,
        running: Running,
        head: oneshot::Sender<Head>,
    ) -> Result<(), CallError> {
        let Some(lobby) = &self.lobby else { return Err(Self::refused("it is asked alone".to_owned())) };
        let (until, allowed) = (budget.until, budget.allowed);
        let (job, mut course) = course(visit.request_id, &budget, request);
        let ticket = Ticket { lobby, number: lobby.arrive(job, Instant::now()) };
        let seated = self.be_seated(lobby, &mut course.begun, &budget, &running);
        if timeout_at(until.into(), seated).await.is_err() {
            return Err(CallError::Busy { module: self.owner.module.clone() });
        }
        drop(ticket);
        let Course { head: said, ended, presence: _presence, .. } = course;
        let (running_on, ends) = oneshot::channel();
        let answered = async {
            // What there is to say when it says nothing is said at its end.
            if let Ok(said) = said.await {
                // Nobody may wait for it any longer.
                let _ =
                    head.send(said.map(|(response, taken)| response.map(|body| watched(body, ends, taken))));
            }
            ended.await
        };
        let ended = timeout_at(until.into(), answered).await;
        drop(running_on);
        match ended {
            Ok(Ok(ended)) => ended,
            Ok(Err(_)) => {
                let reason = "the task that ran its instance ended".to_owned();
                Err(CallError::Trapped { module: self.owner.module.clone(), entry: ENTRY.into(), reason })
            }
            Err(_) => Err(self.late(allowed)),
        }
    }

    /// Waits for a seat. Whoever finds too few opens another instance, as soon as there may be one.
    async fn be_seated(
        self: &Arc<Self>,
        lobby: &Arc<Lobby<Job>>,
        begun: &mut oneshot::Receiver<()>,
        budget: &Budget,
        running: &Running,
    ) {
        loop {
            let mut rung = pin!(lobby.rung());
            rung.as_mut().enable();
            let is_short = lobby.is_short();
            tokio::select! {
                biased;
                _ = &mut *begun => return,
                place = Arc::clone(&self.places).acquire_owned(), if is_short => {
                    if let Ok(place) = place && lobby.is_short() {
                        self.open(lobby, place, budget, running.clone());
                    }
                }
                () = rung => {}
                () = sleep(PATIENCE) => lobby.overlook(PATIENCE, Instant::now()),
            }
        }
    }

    /// Opens an instance: one that waits, or a fresh one.
    fn open(
        self: &Arc<Self>,
        lobby: &Arc<Lobby<Job>>,
        place: OwnedSemaphorePermit,
        budget: &Budget,
        running: Running,
    ) {
        let resident = self.waiting.pop();
        let limits = self.owner.limits;
        let had = resident.as_ref().map_or(0, |resident| resident.requests);
        let visits_left = limits.calls_per_instance_max.saturating_sub(had);
        let number = lobby.open(limits.calls_at_a_time_max, visits_left);
        let room = Arc::new(Room { lobby: Arc::clone(lobby), number });
        let (service, budget) = (Arc::clone(self), budget.again());
        tokio::spawn(async move {
            service.accommodate(&room, resident, budget).await;
            drop((running, place));
            // Now those who came in the meantime find what was given back.
            drop(room);
        });
    }

    /// Runs an instance until nobody is in it.
    async fn accommodate(&self, room: &Arc<Room>, resident: Option<Resident>, budget: Budget) {
        let (until, allowed) = (budget.until, budget.allowed);
        let failed = |error: &wasmtime::Error, output: &str| {
            CallError::failed(&self.owner.module, ENTRY, allowed, error, output)
        };
        let made = match resident {
            Some(resident) => Ok(resident),
            None => match self.berth(&budget).await {
                Ok(berth) => {
                    let made = self.instantiate(berth, &budget);
                    let made = timeout_at((until + HARD_DEADLINE_SLACK).into(), made).await;
                    made.unwrap_or_else(|_| Err(TimeIsUp.into())).map_err(|error| failed(&error, ""))
                }
                Err(busy) => Err(busy),
            },
        };
        let mut resident = match made {
            Ok(resident) => resident,
            Err(error) => {
                let context = Context::from_waker(Waker::noop());
                if let Some(job) = room.take(&context) {
                    let _ = job.replies.ended.send(Err(error)); // it may have gone
                }
                return;
            }
        };
        let crowd = Arc::new(Crowd::new(until));
        state::belong(&mut resident.store, &self.owner, &self.services);
        state::share(&mut resident.store, budget, Arc::clone(&crowd));
        let outcome = match &resident.proxy {
            Proxy::P3(service) => run(&mut resident.store, service, room, &crowd).await,
            Proxy::P2(_) => Err(wasmtime::Error::msg("it does one thing at a time")),
        };
        resident.requests += crowd.visits();
        match outcome {
            Ok(()) if crowd.mood().is_spoiled => {}
            Ok(()) => {
                resident.store.data_mut().crowd = None;
                self.give_back(resident);
            }
            Err(error) => {
                let error = failed(&error, &resident.store.data().output.take());
                drop(resident);
                if crowd.fail(&self.owner.module, ENTRY, &error) == 0 {
                    let module = self.owner.module.as_str();
                    tracing::warn!(target: "aegis::module", module, "after its answers: {error}; its instance is gone");
                }
            }
        }
    }
}

/// Runs what is in an instance. Outside of what the engine drives, because what is inside is not asked while code runs,
/// or waits for something that it lets nobody else wait beside.
async fn run(
    store: &mut Store<State>,
    service: &Service,
    room: &Arc<Room>,
    crowd: &Arc<Crowd>,
) -> wasmtime::Result<()> {
    let signals = store.data().budget.signals.clone();
    let mut going = pin!(store.run_concurrent(async |accessor| {
        poll_fn(|context| {
            if crowd.mood().is_spoiled || accessor.with(|mut access| access.get().limiter.is_bloated()) {
                room.shut();
            }
            while crowd.is_at_rest()
                && let Some(job) = room.take(context)
            {
                Visiting::begin(accessor, service, job, room, crowd)?;
            }
            let mood = crowd.mood();
            let is_over = mood.is_deserted
                && (mood.is_spoiled || accessor.poll_no_interesting_tasks(context).is_ready());
            if is_over { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }));
    let mut time = pin!(sleep_until((crowd.until() + HARD_DEADLINE_SLACK).into()));
    poll_fn(|context| {
        loop {
            if let Poll::Ready(ended) = going.as_mut().poll(context) {
                return Poll::Ready(ended.flatten());
            }
            // At rest, it is asked once more whether it takes somebody else.
            if signals.slice_was_used_up() || !crowd.rest() {
                break;
            }
        }
        let until = tokio::time::Instant::from(crowd.until() + HARD_DEADLINE_SLACK);
        if time.deadline() != until {
            time.as_mut().reset(until);
        }
        time.as_mut().poll(context).map(|()| Err(TimeIsUp.into()))
    })
    .await
}
