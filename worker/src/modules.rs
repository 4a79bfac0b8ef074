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
mod measurements;
mod route;
mod services;

use std::{
    collections::HashMap,
    os::fd::BorrowedFd,
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
};
use aegis_ipc::{
    board::{Board, Cell, Counter, ModuleCounter},
    bundle::CodePlace,
};
use aegis_wasm::{
    Call, CallError, EngineError, Entry, HttpService, MappingError, Module, Origin, Runtime, SealedFile,
    ServiceBody, Visit,
};

pub(crate) use self::{
    guard::{Guard, Shut},
    life::HandoverError,
    measurements::SEPARATOR,
    services::{text, to_entity},
};
use crate::{host::Host, operation::Request, outgoing::Outgoing, request::Upload};

/// Why the code of a generation cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The machine's doing.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The generation's doing.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// The generation has a model whose code it does not bring along.
    #[error("the code of module {module} ({digest}) is not in the generation")]
    Missing {
        /// Name of the module.
        module: String,
        /// SHA-256 of the component.
        digest: String,
    },
}

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
    subscribers: Vec<Subscriber>,
    /// In the order of the generation.
    http_services: Vec<Loaded<ServiceSpec, HttpService>>,
    board: Board,
    cell: Cell,
}

/// Code, and what was said about it: equal words mean that it need not be loaded anew.
struct Loaded<S, M> {
    spec: S,
    module: Arc<M>,
    guard: Arc<Guard>,
}

impl Modules {
    /// Gives a host the code of its generation, mapped out of its sealed file. What modules ask of the host is answered
    /// with this generation. Code that is `before` already, and about which the same is said, keeps its instances. Without
    /// any code there is no Wasm engine either.
    ///
    /// # Errors
    /// When code is missing or cannot be mapped.
    pub(crate) fn load_for(
        host: &Host,
        (generation, places): (BorrowedFd<'_>, &[CodePlace]),
        before: Option<&Self>,
    ) -> Result<(), LoadError> {
        let models = host.catalog.models().iter();
        let with_code: Vec<_> =
            models.filter_map(|model| Some((model, model.spec().code.as_ref()?))).collect();
        if with_code.is_empty() && host.services.is_empty() {
            return Ok(());
        }
        let runtime = match before {
            Some(before) => Arc::clone(&before.runtime),
            None => {
                let wasm = &host.config.wasm;
                Arc::new(Runtime::new(wasm.cpu_threads as usize, wasm.cpu_queue_max as usize)?)
            }
        };
        let file = SealedFile::new(generation)?;
        let services = services::HostServices::new(
            Arc::clone(&host.catalog),
            host.engine.downgrade(),
            (host.board, Outgoing::new(host.cell)),
        );
        let services: Arc<dyn aegis_wasm::Services> = Arc::new(services.knowing(&host.config.secrets));
        let number = host.identity.generation;
        let guarded = |name: &str, limits| {
            Arc::new(Guard::new(name, limits, host.board, (host.engine.data().clone(), &host.config)))
        };
        let mut by_model = HashMap::with_capacity(with_code.len());
        let mut subscribers = Vec::new();
        for (model, code) in with_code {
            let known = before.and_then(|before| before.by_model.get(model.name()));
            let (module, guard) = match known.filter(|known| known.spec == *code) {
                Some(known) => (known.module.follow(number, Arc::clone(&services)), Arc::clone(&known.guard)),
                None => {
                    let place = (&file, place_of(&code.module, &code.digest, places)?);
                    let module = runtime.load(model.name(), code, place, Arc::clone(&services))?;
                    (module.of_generation(number), guarded(&code.module, code.limits))
                }
            };
            let module = Arc::new(module);
            if !code.subscriptions.is_empty() {
                let (model, module, guard) = (Arc::clone(model), Arc::clone(&module), Arc::clone(&guard));
                subscribers.push(Subscriber { model, module, guard, patterns: code.subscriptions.clone() });
            }
            by_model.insert(model.name().to_owned(), Loaded { spec: code.clone(), module, guard });
        }
        let mut http_services = Vec::with_capacity(host.services.len());
        for spec in &host.services {
            let known =
                before.and_then(|before| before.http_services.iter().find(|known| known.spec == *spec));
            let (service, guard) = match known {
                Some(known) => (known.module.follow(number, Arc::clone(&services)), Arc::clone(&known.guard)),
                None => {
                    let place = (&file, place_of(&spec.name, &spec.digest, places)?);
                    let service = runtime.load_service(spec, place, Arc::clone(&services))?;
                    (service.of_generation(number), guarded(&spec.name, spec.limits))
                }
            };
            http_services.push(Loaded { spec: spec.clone(), module: Arc::new(service), guard });
        }
        let (board, cell) = (host.board, host.cell);
        host.engine.adopt_modules(Self { runtime, by_model, subscribers, http_services, board, cell });
        Ok(())
    }

    /// The code of a model.
    pub(crate) fn of(&self, model: &Model) -> Option<&Arc<Module>> {
        self.by_model.get(model.name()).map(|loaded| &loaded.module)
    }

    /// Stands before the code of a model.
    fn guard(&self, model: &Model) -> Result<&Guard, Problem> {
        let loaded = self.by_model.get(model.name());
        loaded.map(|loaded| &*loaded.guard).ok_or_else(|| {
            Problem::new(ProblemCode::Internal, format!("the code of {} is not loaded", model.name()))
        })
    }

    /// Whether the code of a model is called.
    pub(crate) fn stand(&self, model: &Model) -> Option<Stand> {
        self.by_model.get(model.name()).map(|loaded| loaded.guard.stand())
    }

    /// Whether clients see documents without the code of their model while that is not called.
    pub(crate) fn may_skip(&self, model: &Model) -> bool {
        self.by_model.get(model.name()).is_some_and(|loaded| loaded.guard.may_skip())
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
        let guard = self.guard(&request.model)?;
        let pass = guard.enter(&request.request_id, request.depth);
        let pass = pass.map_err(|shut| shut.problem(module.name()))?;
        let call = Call {
            request_id: request.request_id.clone(),
            origin: if matches!(entry, Entry::Command { .. }) { Origin::Command } else { Origin::Api },
            deadline: request.deadline,
            attempt: 1,
            idempotency_key: request.idempotency.as_ref().map(|key| key.key.clone()),
            depth: request.depth,
        };
        let begun = Instant::now();
        let outcome = self.runtime.call(module, place, call, entry).await;
        pass.end(guard.outcome(&outcome, place));
        self.count_call(module.name(), begun);
        outcome.map_err(|error| {
            let (model, request) = (request.model.name(), request.request_id.as_str());
            self.note(module.name(), &error, || {
                tracing::error!(target: "aegis::module", model, entry = name, request, "{error}; its instance is gone");
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
        let pass = guard.enter(&call.request_id, call.depth).map_err(NotTold::Shut)?;
        let (begun, id, name) = (Instant::now(), call.request_id.clone(), entry.name());
        let attempt = call.attempt;
        let outcome = self.runtime.call(module, CommandPlace::Io, call, entry).await;
        match (attempt, guard.outcome(&outcome, CommandPlace::Io)) {
            (1, first) => pass.end(first),
            (_, repeated) => pass.end_repeated(repeated),
        }
        self.count_call(module.name(), begun);
        outcome.map(|_| ()).map_err(|error| {
            let (module, request) = (module.name(), id.as_str());
            self.note(module, &error, || {
                tracing::error!(target: "aegis::module", module, entry = name, request, "{error}; its instance is gone");
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
        let pass = guard.enter(&id, 0).map_err(|shut| shut.problem(service.name()))?;
        let outcome = self.runtime.serve(service, visit, request).await;
        pass.end(guard::outcome_of_service(&outcome));
        self.count_call(service.name(), begun);
        outcome.map_err(|error| {
            let (service, request) = (service.name(), id.as_str());
            self.note(service, &error, || {
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
        self.note(module, error, || {
            tracing::error!(target: "aegis::module", "{error}; its answer was broken off, its instance is gone");
        });
    }

    fn count_call(&self, module: &str, begun: Instant) {
        let microseconds = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.count(Counter::GuestCalls, 1);
        self.count(Counter::GuestMicroseconds, microseconds);
        if let Some(entry) = self.board.module(module) {
            entry.counter(ModuleCounter::Calls).fetch_add(1, Ordering::Relaxed);
            entry.counter(ModuleCounter::Microseconds).fetch_add(microseconds, Ordering::Relaxed);
        }
    }

    /// Counts what went wrong; `tell` is for what operators should know.
    fn note(&self, module: &str, error: &CallError, tell: impl FnOnce()) {
        let (counter, of_module) = match error {
            CallError::Refused(_) => (Counter::GuestRefusals, ModuleCounter::Refusals),
            CallError::Deadline { .. } => (Counter::GuestTimeouts, ModuleCounter::Timeouts),
            CallError::Trapped { .. } => (Counter::GuestTraps, ModuleCounter::Traps),
            CallError::Busy { .. } => (Counter::GuestBusy, ModuleCounter::Busy),
        };
        self.count(counter, 1);
        if let Some(entry) = self.board.module(module) {
            entry.counter(of_module).fetch_add(1, Ordering::Relaxed);
        }
        if matches!(error, CallError::Deadline { .. } | CallError::Trapped { .. }) {
            tell();
        }
    }

    fn count(&self, counter: Counter, amount: u64) {
        self.cell.counter(counter).fetch_add(amount, Ordering::Relaxed);
    }
}

/// Where the code of a component lies in a generation.
fn place_of(module: &str, digest: &str, places: &[CodePlace]) -> Result<aegis_wasm::CodePlace, LoadError> {
    let place = places.iter().find(|place| place.digest == digest);
    let place =
        place.ok_or_else(|| LoadError::Missing { module: module.to_owned(), digest: digest.to_owned() })?;
    Ok(aegis_wasm::CodePlace { offset: place.offset, length: place.length })
}
