//! The code behind models: loaded once per generation, called for hooks and commands, counted, and asked no more than its
//! limits allow.
//!
//! ```text
//! execute ── Entry ──▶ Modules::call ──▶ aegis_wasm::Runtime::call ─▶ JSON
//!                                              │
//!           Services ◀── find, search, write ──┘
//! ```

mod fault;
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

use aegis_config::Config;
use aegis_domain::{
    Problem, ProblemCode,
    catalog::{Catalog, Model},
    code::CommandPlace,
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
    measurements::SEPARATOR,
    services::{text, to_entity},
};
use crate::{execute::WeakEngine, operation::Request, request::Upload};

/// Why the code of a generation cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
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
    pub(crate) patterns: Vec<EventPattern>,
}

/// The code of all models that have some, and of all services.
pub struct Modules {
    runtime: Runtime,
    by_model: HashMap<String, Arc<Module>>,
    subscribers: Vec<Subscriber>,
    /// In the order of the generation.
    http_services: Vec<Arc<HttpService>>,
    board: Board,
    cell: Cell,
}

impl Modules {
    /// Maps the code of all models of a generation out of its sealed file. What modules ask of the host is answered by
    /// `engine`. Nothing when no model has code: then there is no Wasm engine either.
    ///
    /// # Errors
    /// When code is missing or cannot be mapped.
    pub fn load(
        config: &Config,
        (catalog, specs): (&Arc<Catalog>, &[ServiceSpec]),
        (number, generation): (u64, BorrowedFd<'_>),
        places: &[CodePlace],
        engine: &WeakEngine,
        (board, cell): (Board, Cell),
    ) -> Result<Option<Self>, LoadError> {
        let with_code: Vec<_> = catalog.models().iter().filter(|model| model.spec().code.is_some()).collect();
        if with_code.is_empty() && specs.is_empty() {
            return Ok(None);
        }
        let runtime = Runtime::new(config.wasm.cpu_threads as usize, config.wasm.cpu_queue_max as usize)?;
        let file = SealedFile::new(generation)?;
        let services: Arc<dyn aegis_wasm::Services> =
            Arc::new(services::HostServices::new(Arc::clone(catalog), engine.clone(), board));
        let mut by_model = HashMap::with_capacity(with_code.len());
        let mut subscribers = Vec::new();
        for model in with_code {
            let Some(code) = &model.spec().code else { continue };
            let place = (&file, place_of(&code.module, &code.digest, places)?);
            let module = runtime.load(model.name(), code, place, Arc::clone(&services))?;
            let module = Arc::new(module.of_generation(number));
            if !code.subscriptions.is_empty() {
                let (model, module) = (Arc::clone(model), Arc::clone(&module));
                subscribers.push(Subscriber { model, module, patterns: code.subscriptions.clone() });
            }
            by_model.insert(model.name().to_owned(), module);
        }
        let mut http_services = Vec::with_capacity(specs.len());
        for spec in specs {
            let place = (&file, place_of(&spec.name, &spec.digest, places)?);
            let service = runtime.load_service(spec, place, Arc::clone(&services))?;
            http_services.push(Arc::new(service.of_generation(number)));
        }
        Ok(Some(Self { runtime, by_model, subscribers, http_services, board, cell }))
    }

    /// The code of a model.
    pub(crate) fn of(&self, model: &Model) -> Option<&Arc<Module>> {
        self.by_model.get(model.name())
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
    pub(crate) async fn tell(&self, module: &Arc<Module>, call: Call, entry: Entry) -> Result<(), CallError> {
        let (begun, id, name) = (Instant::now(), call.request_id.clone(), entry.name());
        let outcome = self.runtime.call(module, CommandPlace::Io, call, entry).await;
        self.count_call(module.name(), begun);
        outcome.map(|_| ()).inspect_err(|error| {
            let (module, request) = (module.name(), id.as_str());
            self.note(module, error, || {
                tracing::error!(target: "aegis::module", module, entry = name, request, "{error}; its instance is gone");
            });
        })
    }

    /// Asks the service at this position, and waits for the head of its answer.
    pub(crate) async fn serve(
        &self,
        position: usize,
        visit: Visit,
        request: http::Request<Upload>,
    ) -> Result<http::Response<ServiceBody>, Problem> {
        let Some(service) = self.http_services.get(position) else {
            return Err(Problem::new(ProblemCode::Unavailable, "the service is not loaded"));
        };
        let (begun, id) = (Instant::now(), visit.request_id.clone());
        let outcome = self.runtime.serve(service, visit, request).await;
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
        self.note(error.module().unwrap_or_default(), error, || {
            tracing::error!(target: "aegis::module", "{error}; its answer was broken off, its instance is gone");
        });
    }

    fn count_call(&self, module: &str, begun: Instant) {
        let microseconds = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.count(Counter::GuestCalls, 1);
        self.count(Counter::GuestMicroseconds, microseconds);
        self.count_of(module, ModuleCounter::Calls, 1);
        self.count_of(module, ModuleCounter::Microseconds, microseconds);
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
        self.count_of(module, of_module, 1);
        if matches!(error, CallError::Deadline { .. } | CallError::Trapped { .. }) {
            tell();
        }
    }

    fn count(&self, counter: Counter, amount: u64) {
        self.cell.counter(counter).fetch_add(amount, Ordering::Relaxed);
    }

    /// Counts for one module, if the board has room for it.
    fn count_of(&self, module: &str, counter: ModuleCounter, amount: u64) {
        if let Some(entry) = self.board.module(module) {
            entry.counter(counter).fetch_add(amount, Ordering::Relaxed);
        }
    }
}

/// Where the code of a component lies in a generation.
fn place_of(module: &str, digest: &str, places: &[CodePlace]) -> Result<aegis_wasm::CodePlace, LoadError> {
    let place = places.iter().find(|place| place.digest == digest);
    let place =
        place.ok_or_else(|| LoadError::Missing { module: module.to_owned(), digest: digest.to_owned() })?;
    Ok(aegis_wasm::CodePlace { offset: place.offset, length: place.length })
}
