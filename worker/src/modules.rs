//! The code behind models: loaded once per generation, called for hooks and commands, counted, and asked no more than its
//! limits allow.
//!
//! ```text
//! execute ── Entry ──▶ Modules::call ──▶ aegis_wasm::Runtime::call ─▶ JSON
//!                                              │
//!           Services ◀── find, search, write ──┘
//! ```

mod fault;
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
};
use aegis_ipc::{
    board::{Cell, Counter},
    bundle::CodePlace,
};
use aegis_wasm::{
    Call, CallError, EngineError, Entry, HttpService, MappingError, Module, Origin, Runtime, SealedFile,
    ServiceBody, Visit,
};

pub(crate) use self::services::{text, to_entity};
use crate::{execute::WeakEngine, operation::Request, outgoing::Outgoing, request::Upload};

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

/// The code of all models that have some, and of all services.
pub struct Modules {
    runtime: Runtime,
    by_model: HashMap<String, Arc<Module>>,
    /// In the order of the generation.
    http_services: Vec<Arc<HttpService>>,
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
        generation: BorrowedFd<'_>,
        places: &[CodePlace],
        engine: &WeakEngine,
        cell: Cell,
    ) -> Result<Option<Self>, LoadError> {
        let with_code: Vec<_> = catalog.models().iter().filter(|model| model.spec().code.is_some()).collect();
        if with_code.is_empty() && specs.is_empty() {
            return Ok(None);
        }
        let runtime = Runtime::new(config.wasm.cpu_threads as usize, config.wasm.cpu_queue_max as usize)?;
        let file = SealedFile::new(generation)?;
        let services: Arc<dyn aegis_wasm::Services> = Arc::new(
            services::HostServices::new(Arc::clone(catalog), engine.clone(), Outgoing::new(cell))
                .knowing(&config.secrets),
        );
        let mut by_model = HashMap::with_capacity(with_code.len());
        for model in with_code {
            let Some(code) = &model.spec().code else { continue };
            let place = (&file, place_of(&code.module, &code.digest, places)?);
            let module = runtime.load(model.name(), code, place, Arc::clone(&services))?;
            by_model.insert(model.name().to_owned(), Arc::new(module));
        }
        let mut http_services = Vec::with_capacity(specs.len());
        for spec in specs {
            let place = (&file, place_of(&spec.name, &spec.digest, places)?);
            http_services.push(Arc::new(runtime.load_service(spec, place, Arc::clone(&services))?));
        }
        Ok(Some(Self { runtime, by_model, http_services, cell }))
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
        self.count_call(begun);
        outcome.map_err(|error| {
            let (model, request) = (request.model.name(), request.request_id.as_str());
            self.note(&error, || {
                tracing::error!(target: "aegis::module", model, entry = name, request, "{error}; its instance is gone");
            });
            fault::problem(error)
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
        self.count_call(begun);
        outcome.map_err(|error| {
            let (service, request) = (service.name(), id.as_str());
            self.note(&error, || {
                tracing::error!(target: "aegis::module", service, request, "{error}; its instance is gone");
            });
            fault::problem(error)
        })
    }

    /// An answer ended too early because of this.
    pub(crate) fn note_broken_off(&self, error: &CallError) {
        self.note(error, || {
            tracing::error!(target: "aegis::module", "{error}; its answer was broken off, its instance is gone");
        });
    }

    fn count_call(&self, begun: Instant) {
        self.count(Counter::GuestCalls, 1);
        let microseconds = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.count(Counter::GuestMicroseconds, microseconds);
    }

    /// Counts what went wrong; `tell` is for what operators should know.
    fn note(&self, error: &CallError, tell: impl FnOnce()) {
        let counter = match error {
            CallError::Refused(_) => Counter::GuestRefusals,
            CallError::Deadline { .. } => Counter::GuestTimeouts,
            CallError::Trapped { .. } => Counter::GuestTraps,
            CallError::Busy { .. } => Counter::GuestBusy,
        };
        self.count(counter, 1);
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
