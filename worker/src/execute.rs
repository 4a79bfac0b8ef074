//! Carries out one request on one model.
//!
//! ```text
//!             ┌─ read ────▶ wait for the watermark ─▶ table ─▶ (body from the store) ─▶ reply
//!   Request ──┼─ list ────▶ wait for the watermark ─▶ plan ──▶ (bodies) ─▶ page ──────▶ reply
//!             ├─ create ──▶ draft ──────────────────────────▶ commit ─────────────────▶ reply
//!             ├─ change ──▶ read ─▶ conditions ─▶ evolve ───▶ commit ─▶ conflict? again ▶ reply
//!             └─ command ─▶ read ─▶ conditions ─▶ code ─────▶ (commit ─▶ conflict? again) ▶ reply
//! ```
//!
//! Where the code of a model brings documents into another shape (`on-load`), it does so behind every read.
//!
//! With an idempotency key a write first asks whether the key is known. Equal keys inside this worker go one after the
//! other; between workers the store decides inside the commit.

mod answer;
mod batch;
mod change;
mod changing;
mod command;
mod commit;
mod create;
mod hooks;
mod keyed;
mod list;
mod load;
mod precondition;
mod read;
mod replay;

use std::{
    sync::{Arc, OnceLock, Weak, atomic::Ordering},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use aegis_config::{Config, Limits};
use aegis_domain::{
    Problem, ProblemCode, breaker::Stand, catalog::Model, code::CommandPlace, query::Bounds, table::Lookup,
    trial::Variant,
};
use aegis_ipc::{
    board::{Cell, Counter, ModelCounter},
    data::StoredResponse,
};
use aegis_wasm::{Call, CallError, Entry, RouteRequest, RouteResponse, ServiceBody, Visit};
use bytes::Bytes;

use self::{
    change::Change,
    changing::{Changing, Running},
    command::Order,
    keyed::KeyedTurns,
    load::Loaded,
};
pub(crate) use self::{change::not_found, load::loads};
use crate::{
    data::{Data, ModelTable},
    modules::{Modules, NotTold, Subscriber},
    operation::{IdempotencyKey, Operation, Reply, Request},
    request::Upload,
    response::is_refusal,
};

/// Carries out requests. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

/// An engine, as long as somebody else holds it.
#[derive(Clone)]
pub struct WeakEngine {
    inner: Weak<Inner>,
}

impl WeakEngine {
    pub(crate) fn upgrade(&self) -> Option<Engine> {
        self.inner.upgrade().map(|inner| Engine { inner })
    }
}

struct Inner {
    data: Data,
    modules: OnceLock<Modules>,
    cell: Cell,
    limits: Limits,
    bounds: Bounds,
    document_turns: Arc<KeyedTurns>,
    key_turns: Arc<KeyedTurns>,
    changing: Changing,
    loaded: Loaded,
}

/// A document as it is cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its revision.
    pub revision: u64,
    /// The exact JSON that a GET answers.
    pub body: Bytes,
}

/// The answer to [`Engine::read_now`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadNow {
    /// The document; `None` when there is none with this id.
    pub document: Option<Found>,
    /// Log position that the answer reflects.
    pub sequence: u64,
}

impl Engine {
    /// An engine over this worker's copy.
    #[must_use]
    pub fn new(config: &Config, data: Data) -> Self {
        let inner = Inner {
            cell: data.cell(),
            data,
            modules: OnceLock::new(),
            limits: config.limits.clone(),
            bounds: bounds_of(config),
            document_turns: Arc::default(),
            key_turns: Arc::default(),
            changing: Changing::default(),
            loaded: Loaded::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// An engine without code over the same copy, for another generation. Requests of both that want the same document
    /// or key wait for each other.
    pub(crate) fn next(&self, config: &Config) -> Self {
        let inner = Inner {
            cell: self.inner.cell,
            data: self.inner.data.clone(),
            modules: OnceLock::new(),
            limits: config.limits.clone(),
            bounds: bounds_of(config),
            document_turns: Arc::clone(&self.inner.document_turns),
            key_turns: Arc::clone(&self.inner.key_turns),
            changing: Changing::default(),
            // Another version of the code may make something else of a document.
            loaded: Loaded::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// This worker's copy.
    #[must_use]
    pub fn data(&self) -> &Data {
        &self.inner.data
    }

    /// The same engine, held weakly: for what the engine itself holds.
    #[must_use]
    pub fn downgrade(&self) -> WeakEngine {
        WeakEngine { inner: Arc::downgrade(&self.inner) }
    }

    /// Gives the engine the code of its models, once, before the first request.
    pub(crate) fn adopt_modules(&self, modules: Modules) {
        let adopted = self.inner.modules.set(modules);
        debug_assert!(adopted.is_ok(), "an engine has one set of modules");
    }

    /// Instances that the code of a model has in this worker.
    pub(crate) fn instances(&self, model: &Model) -> usize {
        self.modules().and_then(|modules| modules.of(model)).map_or(0, |module| module.instances())
    }

    /// What the code of a model says of itself: nothing when it is well, or has nothing to say.
    pub(crate) async fn ailment(&self, model: &Model, deadline: Instant) -> Option<String> {
        let modules = self.modules()?;
        modules.ailment((model, modules.of(model)?), deadline).await
    }

    /// Whether the code of a model is called.
    pub(crate) fn stand(&self, model: &Model, variant: Variant) -> Option<Stand> {
        self.modules().and_then(|modules| modules.stand(model, variant))
    }

    /// Lets all code release what it holds, once no request is left.
    pub(crate) async fn drain_modules(&self, deadline: Instant) {
        if let Some(modules) = self.modules() {
            modules.drain(deadline).await;
        }
    }

    /// Calls that run or wait on the CPU pool, if there is one.
    pub(crate) fn cpu_calls(&self) -> Option<usize> {
        self.modules().map(Modules::cpu_calls)
    }

    /// Code that wants to be told of events.
    pub(crate) fn subscribers(&self) -> Vec<Subscriber> {
        self.modules().map(|modules| modules.subscribers().to_vec()).unwrap_or_default()
    }

    /// Tells code of an event.
    pub(crate) async fn tell(
        &self,
        subscriber: &Subscriber,
        call: Call,
        entry: Entry,
    ) -> Result<(), NotTold> {
        match self.modules() {
            Some(modules) => modules.tell(subscriber, call, entry).await,
            None => Err(NotTold::Failed(CallError::Busy { module: subscriber.module.name().to_owned() })),
        }
    }

    /// Asks the service at this position of the generation, and waits for the head of its answer.
    pub(crate) async fn serve(
        &self,
        position: usize,
        visit: Visit,
        request: http::Request<Upload>,
    ) -> Result<http::Response<ServiceBody>, Problem> {
        let missing = || Problem::new(ProblemCode::Unavailable, "the service is not loaded");
        self.modules().ok_or_else(missing)?.serve(position, visit, request).await
    }

    /// Asks a custom route of a model.
    pub(crate) async fn route(
        &self,
        model: &Model,
        place: CommandPlace,
        call: Call,
        request: RouteRequest,
    ) -> Result<RouteResponse, Problem> {
        let variant = call.lot.draw(model.spec(), &call.request_id);
        let (modules, module) = self.module_of(model, variant)?;
        modules.route((model, module, variant), place, call, request).await
    }

    /// Code of a model answered what nobody can use.
    pub(crate) fn note_unusable(&self, model: &Model, variant: Variant) {
        if let Ok((modules, module)) = self.module_of(model, variant) {
            modules.note_unusable(module.name(), variant);
        }
    }

    /// The answer of a service ended too early because of this.
    pub(crate) fn note_broken_off(&self, error: &CallError) {
        if let Some(modules) = self.modules() {
            modules.note_broken_off(error);
        }
    }

    /// The code of its models and services, if there is any.
    pub(crate) fn modules(&self) -> Option<&Modules> {
        self.inner.modules.get()
    }

    /// Reads one document without waiting for anything. `None` when that takes a wait, for the feed or for a body that
    /// is not cached: then [`execute`](Self::execute) answers. Conditions are for the caller to look at.
    #[must_use]
    pub fn read_now(&self, model: &Model, id: &str) -> Option<ReadNow> {
        if loads(model) {
            return None;
        }
        self.read_from(self.data().table(model.name())?, id)
    }

    /// As [`read_now`](Self::read_now), for a caller that keeps the table at hand, of a model whose code does not bring
    /// documents into another shape.
    #[must_use]
    pub fn read_from(&self, table: &ModelTable, id: &str) -> Option<ReadNow> {
        let data = self.data();
        if !data.caught_up() {
            return None;
        }
        let seen = table.look_up(id, data.applied()?);
        let document = match seen.found {
            Lookup::Missing => None,
            Lookup::Hit { revision, body, .. } => {
                self.count(Counter::CacheHits, 1);
                Some(Found { revision, body })
            }
            Lookup::Evicted { .. } => return None,
        };
        table.count(self.inner.cell, ModelCounter::Reads, 1);
        Some(ReadNow { document, sequence: seen.sequence })
    }

    /// Carries out a request.
    ///
    /// # Errors
    /// The problem as the client reads it.
    pub async fn execute(&self, request: Request) -> Result<Reply, Problem> {
        let outcome = self.dispatch(&request).await;
        if let Err(problem) = &outcome
            && is_refusal(problem.code)
        {
            self.count_model(&request.model, ModelCounter::Refused, 1);
        }
        outcome
    }

    /// Code is asked what becomes of the document, until what this answers is dropped.
    fn begin_change(&self, request: &Request, id: &str) -> Running<'_> {
        self.inner.changing.begin(request, id)
    }

    /// Whether code that led to this request was asked what becomes of the document that it writes.
    pub(crate) fn is_changing(&self, request: &Request, id: &str) -> bool {
        self.inner.changing.has(request, id)
    }

    async fn dispatch(&self, request: &Request) -> Result<Reply, Problem> {
        match &request.operation {
            Operation::Read { id } => self.read(request, id).await,
            Operation::List { query } => self.list(request, query).await,
            Operation::Ask { id, command, arguments } => {
                self.ask(request, id, Order { name: command, arguments }).await
            }
            Operation::Create { .. }
            | Operation::Replace { .. }
            | Operation::Merge { .. }
            | Operation::Patch { .. }
            | Operation::Command { .. }
            | Operation::Remove { .. } => match &request.idempotency {
                Some(key) => self.write_once(request, key).await,
                None => self.write(request).await,
            },
        }
    }

    /// A write whose key the client may send again.
    async fn write_once(&self, request: &Request, key: &IdempotencyKey) -> Result<Reply, Problem> {
        let Some(_turn) = self.inner.key_turns.turn(&key.key, request.deadline).await else {
            let detail = "a request with the same Idempotency-Key is still running";
            return Err(Problem::new(ProblemCode::IdempotencyKeyInUse, detail));
        };
        if let Some(reply) = self.kept(request, key).await? {
            return Ok(reply);
        }
        match self.write(request).await {
            // Another worker may have made the same write since, and what is wrong now may be its doing.
            Err(problem) if replay::may_be_of_repetition(problem.code) => {
                self.kept(request, key).await?.ok_or(problem)
            }
            outcome => outcome,
        }
    }

    /// The response that is kept under the key.
    async fn kept(&self, request: &Request, key: &IdempotencyKey) -> Result<Option<Reply>, Problem> {
        let stored = self.data().recall(key.key.clone(), request.deadline).await?;
        stored.map(|stored| self.replayed(request, key, &stored)).transpose()
    }

    /// A response that is kept under the key, as whoever asks now may see it.
    fn replayed(
        &self,
        request: &Request,
        key: &IdempotencyKey,
        stored: &StoredResponse,
    ) -> Result<Reply, Problem> {
        let reply = replay::shown(request, replay::replay(key, stored)?)?;
        self.count(Counter::Replays, 1);
        Ok(reply)
    }

    async fn write(&self, request: &Request) -> Result<Reply, Problem> {
        match &request.operation {
            Operation::Create { body } => self.create(request, body).await,
            Operation::Replace { id, body } => self.change(request, id, Change::Replace(body)).await,
            Operation::Merge { id, body } => self.change(request, id, Change::Merge(body)).await,
            Operation::Patch { id, body } => self.change(request, id, Change::Patch(body)).await,
            Operation::Remove { id } => self.change(request, id, Change::Remove).await,
            Operation::Command { id, command, arguments } => {
                self.change(request, id, Change::Command(Order { name: command, arguments })).await
            }
            Operation::Read { .. } | Operation::List { .. } | Operation::Ask { .. } => {
                Err(Problem::new(ProblemCode::Internal, "a read does not write"))
            }
        }
    }

    fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    fn bounds(&self) -> &Bounds {
        &self.inner.bounds
    }

    fn document_turns(&self) -> &KeyedTurns {
        &self.inner.document_turns
    }

    fn table(&self, model: &Model) -> Result<&Arc<ModelTable>, Problem> {
        self.data().table(model.name()).ok_or_else(|| {
            Problem::new(ProblemCode::NoSuchModel, format!("this worker has no data of {}", model.name()))
        })
    }

    fn count(&self, counter: Counter, amount: u64) {
        self.inner.cell.counter(counter).fetch_add(amount, Ordering::Relaxed);
    }

    fn count_model(&self, model: &Model, counter: ModelCounter, amount: u64) {
        if let Some(table) = self.data().table(model.name()) {
            table.count(self.inner.cell, counter, amount);
        }
    }
}

fn bounds_of(config: &Config) -> Bounds {
    let query = &config.query;
    Bounds { scan_max: query.scan_max, limit_default: query.limit_default, limit_max: query.limit_max }
}

/// Milliseconds since 1970, UTC.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as u64)
}

#[cfg(test)]
mod tests;
