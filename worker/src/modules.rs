//! The code behind models: loaded once per generation, called for hooks and commands, counted, and asked no more than its
//! limits allow.
//!
//! ```text
//! execute ── Entry ──▶ Modules::call ──▶ aegis_wasm::Runtime::call ─▶ JSON
//!                                              │
//!           Services ◀── find, search, write ──┘
//! ```

mod fault;
mod guard;
mod life;
mod load;
mod measurements;
mod route;
mod services;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use aegis_domain::{
    Problem, ProblemCode,
    breaker::Stand,
    catalog::Model,
    code::{CodeSpec, CommandPlace},
    service::ServiceSpec,
    subscription::EventPattern,
    trial::Variant,
};
use aegis_ipc::board::{Board, Cell, Counter, ModuleCounter, ModuleEntry};
use aegis_wasm::{
    Call, CallError, Entry, HttpService, Lineage, Module, Origin, RefusalCode, Runtime, ServiceBody, Visit,
};

pub(crate) use self::{
    guard::{Guard, Shut},
    life::{BeginError, HandoverError},
    load::LoadError,
    measurements::SEPARATOR,
    services::{text, to_entity},
};
use crate::{operation::Request, request::Upload};

/// Code that wants to be told of events.
#[derive(Clone)]
pub(crate) struct Subscriber {
    pub(crate) model: Arc<Model>,
    pub(crate) module: Arc<Module>,
    pub(crate) guard: Arc<Guard>,
    pub(crate) patterns: Vec<EventPattern>,
}

/// Why code was not told of an event, or has not taken it.
#[derive(Debug)]
pub(crate) enum NotTold {
    /// It is not called for now.
    Shut(Shut),
    /// It was called.
    Failed(CallError),
}

/// The code of all models that have some, and of all services.
pub(crate) struct Modules {
    runtime: Arc<Runtime>,
    by_model: HashMap<String, Loaded<CodeSpec, Module>>,
    /// Versions that are tried, by model.
    trials: HashMap<String, Loaded<CodeSpec, Module>>,
    subscribers: Vec<Subscriber>,
    /// In the order of the generation.
    http_services: Vec<Loaded<ServiceSpec, HttpService>>,
    board: Board,
    cell: Cell,
}

/// What a call is counted under.
#[derive(Clone, Copy)]
struct Counted<'a> {
    module: &'a str,
    variant: Variant,
}

impl<'a> Counted<'a> {
    /// Code that nothing is tried beside, or on which nothing is tried.
    fn in_force(module: &'a str) -> Self {
        Self { module, variant: Variant::Current }
    }

    /// Where. `None` when there are too many modules.
    fn entry(self, board: Board) -> Option<ModuleEntry> {
        match self.variant {
            Variant::Current => board.module(self.module),
            Variant::Trial => board.module_on_trial(self.module),
        }
    }
}

/// Code, and what was said about it: equal words mean that it need not be loaded anew.
struct Loaded<S, M> {
    spec: S,
    module: Arc<M>,
    guard: Arc<Guard>,
}

impl Modules {
    /// The code of a model.
    pub(crate) fn of(&self, model: &Model) -> Option<&Arc<Module>> {
        self.of_variant(model, Variant::Current)
    }

    /// The code of a model that carries requests of this variant out.
    pub(crate) fn of_variant(&self, model: &Model, variant: Variant) -> Option<&Arc<Module>> {
        self.loaded(model, variant).map(|loaded| &loaded.module)
    }

    fn loaded(&self, model: &Model, variant: Variant) -> Option<&Loaded<CodeSpec, Module>> {
        match variant {
            Variant::Current => self.by_model.get(model.name()),
            Variant::Trial => self.trials.get(model.name()),
        }
    }

    /// Stands before the code of a model. One that is tried has its own.
    fn guard(&self, model: &Model, variant: Variant) -> Result<&Guard, Problem> {
        self.loaded(model, variant).map(|loaded| &*loaded.guard).ok_or_else(|| {
            Problem::new(ProblemCode::Internal, format!("the code of {} is not loaded", model.name()))
        })
    }

    /// Whether the code of a model is called.
    pub(crate) fn stand(&self, model: &Model, variant: Variant) -> Option<Stand> {
        self.loaded(model, variant).map(|loaded| loaded.guard.stand())
    }

    /// Whether clients see documents without the code of their model while that is not called.
    pub(crate) fn may_skip(&self, model: &Model, variant: Variant) -> bool {
        self.loaded(model, variant).is_some_and(|loaded| loaded.guard.may_skip())
    }

    /// Calls that run or wait on the CPU pool.
    pub(crate) fn cpu_calls(&self) -> usize {
        self.runtime.cpu().taken()
    }

    /// Calls code, wherever its work belongs. Answers JSON, or nothing for entries that only agree.
    pub(crate) async fn call(
        &self,
        module: &Arc<Module>,
        place: CommandPlace,
        request: &Request,
        entry: Entry,
    ) -> Result<Option<String>, Problem> {
        let name = entry.name();
        let guard = self.guard(&request.model, request.variant())?;
        let pass = guard.enter(request.lineage);
        let pass = pass.map_err(|shut| shut.problem(module.name()))?;
        let call = Call {
            request_id: request.request_id.clone(),
            origin: if matches!(entry, Entry::Command { .. }) { Origin::Command } else { Origin::Api },
            deadline: request.deadline,
            attempt: 1,
            idempotency_key: request.idempotency.as_ref().map(|key| key.given.clone()),
            lineage: request.lineage,
            lot: request.lot.clone(),
            principal: request.principal.clone(),
        };
        let counted = Counted { module: module.name(), variant: request.variant() };
        let begun = Instant::now();
        // In a box: most requests call no code, and all of them would take memory for it.
        let outcome = Box::pin(self.runtime.call(module, place, call, entry)).await;
        pass.end(guard.outcome(&outcome, place));
        self.count_call(counted, begun);
        let is_short = guard.is_cut_short(&outcome, place);
        outcome.map_err(|error| {
            let (model, request) = (request.model.name(), request.request_id.as_str());
            self.note(counted, (&error, is_short), || {
                tracing::error!(target: "aegis::module", model, entry = %name, request, "{error}; its instance is gone");
            });
            fault::problem(error)
        })
    }

    /// Code that wants to be told of events.
    pub(crate) fn subscribers(&self) -> &[Subscriber] {
        &self.subscribers
    }

    /// Tells code of an event.
    pub(crate) async fn tell(
        &self,
        subscriber: &Subscriber,
        call: Call,
        entry: Entry,
    ) -> Result<(), NotTold> {
        let Subscriber { module, guard, .. } = subscriber;
        let pass = guard.enter(call.lineage).map_err(NotTold::Shut)?;
        let (begun, id, name) = (Instant::now(), call.request_id.clone(), entry.name());
        let attempt = call.attempt;
        let outcome = self.runtime.call(module, CommandPlace::Io, call, entry).await;
        match (attempt, guard.outcome(&outcome, CommandPlace::Io)) {
            (1, first) => pass.end(first),
            (_, repeated) => pass.end_repeated(repeated),
        }
        let counted = Counted::in_force(module.name());
        self.count_call(counted, begun);
        let is_short = guard.is_cut_short(&outcome, CommandPlace::Io);
        outcome.map(|_| ()).map_err(|error| {
            let (module, request) = (module.name(), id.as_str());
            self.note(counted, (&error, is_short), || {
                tracing::error!(target: "aegis::module", module, entry = %name, request, "{error}; its instance is gone");
            });
            NotTold::Failed(error)
        })
    }

    /// Asks the service at this position, and waits for the head of its answer.
    pub(crate) async fn serve(
        &self,
        position: usize,
        visit: Visit,
        request: http::Request<Upload>,
    ) -> Result<http::Response<ServiceBody>, Problem> {
        let Some(Loaded { module: service, guard, .. }) = self.http_services.get(position) else {
            return Err(Problem::new(ProblemCode::Unavailable, "the service is not loaded"));
        };
        let (begun, id) = (Instant::now(), visit.request_id.clone());
        let pass = guard.enter(Lineage::begin()).map_err(|shut| shut.problem(service.name()))?;
        let outcome = Box::pin(self.runtime.serve(service, visit, request)).await;
        pass.end(guard::outcome_of_service(&outcome));
        let counted = Counted::in_force(service.name());
        self.count_call(counted, begun);
        outcome.map_err(|error| {
            let (service, request) = (service.name(), id.as_str());
            self.note(counted, (&error, false), || {
                tracing::error!(target: "aegis::module", service, request, "{error}; its instance is gone");
            });
            fault::problem(error)
        })
    }

    /// An answer ended too early because of this.
    pub(crate) fn note_broken_off(&self, error: &CallError) {
        let module = error.module().unwrap_or_default();
        if let Some(service) = self.http_services.iter().find(|service| service.module.name() == module) {
            service.guard.note_broken_off(error);
        }
        self.note(Counted::in_force(module), (error, false), || {
            tracing::error!(target: "aegis::module", "{error}; its answer was broken off, its instance is gone");
        });
    }

    /// Code answered what nobody can use.
    pub(crate) fn note_unusable(&self, module: &str, variant: Variant) {
        if let Some(entry) = (Counted { module, variant }).entry(self.board) {
            entry.counter(ModuleCounter::Failures).fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count_call(&self, counted: Counted<'_>, begun: Instant) {
        let microseconds = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.count(Counter::GuestCalls, 1);
        self.count(Counter::GuestMicroseconds, microseconds);
        if let Some(entry) = counted.entry(self.board) {
            entry.counter(ModuleCounter::Calls).fetch_add(1, Ordering::Relaxed);
            entry.counter(ModuleCounter::Microseconds).fetch_add(microseconds, Ordering::Relaxed);
        }
    }

    /// Counts what went wrong, and whether that was for want of time that the code should have had; `tell` is for what
    /// operators should know.
    fn note(&self, counted: Counted<'_>, (error, is_short): (&CallError, bool), tell: impl FnOnce()) {
        let (counter, of_module) = match error {
            CallError::Refused(_) => (Counter::GuestRefusals, ModuleCounter::Refusals),
            // A version that is tried is judged by its timeouts, and this one says nothing about it.
            CallError::Deadline { .. } if is_short => (Counter::GuestTimeouts, ModuleCounter::Busy),
            CallError::Deadline { .. } => (Counter::GuestTimeouts, ModuleCounter::Timeouts),
            CallError::Trapped { .. } | CallError::Involved { .. } => {
                (Counter::GuestTraps, ModuleCounter::Traps)
            }
            CallError::Busy { .. } => (Counter::GuestBusy, ModuleCounter::Busy),
        };
        self.count(counter, 1);
        if let Some(entry) = counted.entry(self.board) {
            entry.counter(of_module).fetch_add(1, Ordering::Relaxed);
            if matches!(error, CallError::Refused(refusal) if refusal.code == RefusalCode::Internal) {
                entry.counter(ModuleCounter::Failures).fetch_add(1, Ordering::Relaxed);
            }
        }
        if matches!(
            error,
            CallError::Deadline { .. } | CallError::Trapped { .. } | CallError::Involved { .. }
        ) {
            tell();
        }
    }

    fn count(&self, counter: Counter, amount: u64) {
        self.cell.counter(counter).fetch_add(amount, Ordering::Relaxed);
    }
}
