//! How a host comes to the code of its generation: out of the sealed file, or along with its instances from the generation
//! before.

use std::{collections::HashMap, os::fd::BorrowedFd, sync::Arc};

use aegis_domain::{catalog::Model, code::CodeSpec, service::ServiceSpec, trial::Variant};
use aegis_ipc::{bundle::CodePlace, slice};
use aegis_wasm::{EngineError, HttpService, MappingError, Module, Runtime, SealedFile};

use super::{Counted, Guard, Loaded, Modules, Subscriber, services};
use crate::{host::Host, outgoing::Outgoing};

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
                Arc::new(Runtime::with_threads(
                    wasm.cpu_threads as usize,
                    wasm.cpu_queue_max as usize,
                    slice::ask_for_usual,
                )?)
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
        let load = |model: &Model, code: &CodeSpec, variant| -> Result<Loaded<CodeSpec, Module>, LoadError> {
            let (module, guard) = match before.and_then(|before| before.known(model.name(), code)) {
                Some(known) => {
                    (known.module.follow(number, Arc::clone(&services)), known.guard.of_variant(variant))
                }
                None => {
                    let place = (&file, place_of(&code.module, &code.digest, places)?);
                    let module = runtime.load(model.name(), code, place, Arc::clone(&services))?;
                    let counted = Counted { module: &code.module, variant };
                    (module.of_generation(number), Guard::of_host(host, counted, code.limits))
                }
            };
            Ok(Loaded { spec: code.clone(), module: Arc::new(module), guard })
        };
        let mut by_model = HashMap::with_capacity(with_code.len());
        let mut trials = HashMap::new();
        let mut subscribers = Vec::new();
        for (model, code) in with_code {
            let loaded = load(model, code, Variant::Current)?;
            if !code.subscriptions.is_empty() {
                let (model, module) = (Arc::clone(model), Arc::clone(&loaded.module));
                let guard = Arc::clone(&loaded.guard);
                subscribers.push(Subscriber { model, module, guard, patterns: code.subscriptions.clone() });
            }
            by_model.insert(model.name().to_owned(), loaded);
            if let Some(trial) = &model.spec().trial {
                trials.insert(model.name().to_owned(), load(model, &trial.code, Variant::Trial)?);
            }
        }
        let known = before.map_or(&[][..], |before| &before.http_services);
        let http_services = load_services(host, &runtime, (&file, places), known, &services)?;
        let (board, cell) = (host.board, host.cell);
        host.engine.adopt_modules(Self {
            runtime,
            by_model,
            trials,
            subscribers,
            http_services,
            board,
            cell,
        });
        Ok(())
    }

    /// Code of a model about which the same is said, whether it is in force or tried.
    fn known(&self, model: &str, code: &CodeSpec) -> Option<&Loaded<CodeSpec, Module>> {
        let known = [self.by_model.get(model), self.trials.get(model)];
        known.into_iter().flatten().find(|known| known.spec == *code)
    }
}

/// The services of a host, in the order of its generation.
fn load_services(
    host: &Host,
    runtime: &Runtime,
    (file, places): (&SealedFile, &[CodePlace]),
    before: &[Loaded<ServiceSpec, HttpService>],
    services: &Arc<dyn aegis_wasm::Services>,
) -> Result<Vec<Loaded<ServiceSpec, HttpService>>, LoadError> {
    let number = host.identity.generation;
    let load = |spec: &ServiceSpec| {
        let (service, guard) = match before.iter().find(|known| known.spec == *spec) {
            Some(known) => (known.module.follow(number, Arc::clone(services)), Arc::clone(&known.guard)),
            None => {
                let place = (file, place_of(&spec.name, &spec.digest, places)?);
                let service = runtime.load_service(spec, place, Arc::clone(services))?;
                let counted = Counted::in_force(&spec.name);
                (service.of_generation(number), Guard::of_host(host, counted, spec.limits))
            }
        };
        Ok(Loaded { spec: spec.clone(), module: Arc::new(service), guard })
    };
    host.services.iter().map(load).collect()
}

/// Where the code of a component lies in a generation.
fn place_of(module: &str, digest: &str, places: &[CodePlace]) -> Result<aegis_wasm::CodePlace, LoadError> {
    let place = places.iter().find(|place| place.digest == digest);
    let place =
        place.ok_or_else(|| LoadError::Missing { module: module.to_owned(), digest: digest.to_owned() })?;
    Ok(aegis_wasm::CodePlace { offset: place.offset, length: place.length })
}
