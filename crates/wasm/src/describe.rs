//! From the bytes of a component to code that workers can map, and what the component says about itself. The work of
//! the compile helper.
//!
//! ```text
//! bytes ─▶ digest ─▶ inspect ─▶ compile ─▶ link ─▶ describe in a throw-away instance ─▶ specification
//! ```

use std::{cell::OnceCell, sync::Arc, time::Duration};

use aegis_domain::{
    code::{CodeLimits, Grants},
    service::Wasi,
    spec::ModelSpec,
};
use sha2::{Digest, Sha256};
use wasmtime::{Engine, component::Component};

use crate::{
    cache::CodeCache,
    call::{Budget, HARD_DEADLINE_SLACK, TimeIsUp},
    contract::{WitModelSpec, base, describing},
    diagnostic::{Code, Diagnostic},
    engine::{self, EngineError, Profile},
    failure::told,
    http, inspect,
    output::LogBudget,
    platform::Platform,
    services::{NoServices, Services},
    specification,
    state::{Owner, State},
    ticker::Ticker,
};

/// Time a component has to say who it is.
pub(crate) const DESCRIBE_TIME: Duration = Duration::from_millis(500);
/// Memory it has for that, bytes: interpreters need most of it to begin.
const DESCRIBE_MEMORY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Longest specification, bytes.
const DESCRIPTION_BYTES_MAX: u64 = 1024 * 1024;

/// Nobody is there to be asked while a component is loaded.
const LOADING: NoServices = NoServices { reason: "a module that is being loaded can reach nothing" };

/// A component that can be run.
#[derive(Debug)]
pub struct Prepared {
    /// The model that it is, with its code.
    pub spec: ModelSpec,
    /// Code for workers of this image. It is trusted because we made it.
    pub code: Vec<u8>,
    /// What it says of itself without any effect, one sentence each.
    pub warnings: Vec<String>,
}

/// A component that can be run as a service.
#[derive(Debug)]
pub struct PreparedService {
    /// SHA-256 of the component's bytes, hexadecimal.
    pub digest: String,
    /// Code for workers of this image. It is trusted because we made it.
    pub code: Vec<u8>,
    /// What it is written for.
    pub wasi: Wasi,
}

/// What the operator says about a module.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Non-secret settings, a JSON object.
    pub settings: serde_json::Value,
    /// What it may use.
    pub limits: CodeLimits,
    /// What it may reach.
    pub grants: Grants,
}

/// Why a component was not prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It is the component's doing.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Refused(Vec<Diagnostic>),
    /// It is this machine's doing.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Compiles components, one after the other.
pub struct Compiler {
    classic: Platform,
    /// For components of WASI 0.3. It is made when the first one comes.
    concurrent: OnceCell<Platform>,
    ticker: Ticker,
    runtime: tokio::runtime::Runtime,
    /// What a component can ask for while it says who it is.
    services: Arc<dyn Services>,
}

impl Compiler {
    /// A compiler of this process.
    ///
    /// # Errors
    /// When this machine cannot run one.
    pub fn new() -> Result<Self, EngineError> {
        let classic = Platform::new(engine::compiler(Profile::Classic)?, Profile::Classic)?;
        let ticker =
            Ticker::start(&classic.engine).map_err(|error| EngineError { reason: error.to_string() })?;
        Self::with(classic, ticker, Arc::new(LOADING))
    }

    /// One whose engine ticks only when whoever tests components says so.
    #[cfg(test)]
    pub(crate) fn ticking_by_hand(services: Arc<dyn Services>) -> Result<Self, EngineError> {
        let classic = Platform::new(engine::compiler(Profile::Classic)?, Profile::Classic)?;
        Self::with(classic, Ticker::by_hand(), services)
    }

    fn with(classic: Platform, ticker: Ticker, services: Arc<dyn Services>) -> Result<Self, EngineError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| EngineError { reason: error.to_string() })?;
        Ok(Self { classic, concurrent: OnceCell::new(), ticker, runtime, services })
    }

    #[cfg(test)]
    pub(crate) fn engine(&self) -> &Engine {
        &self.classic.engine
    }

    /// What code of this kind is made for.
    fn platform(&self, profile: Profile) -> Result<&Platform, EngineError> {
        match (profile, self.concurrent.get()) {
            (Profile::Classic, _) => Ok(&self.classic),
            (Profile::Concurrent, Some(there)) => Ok(there),
            (Profile::Concurrent, None) => {
                let made = Platform::new(engine::compiler(profile)?, profile)?;
                Ok(self.concurrent.get_or_init(|| made))
            }
        }
    }

    /// Prepares a component.
    ///
    /// # Errors
    /// All that speaks against it at once, as far as it can be told.
    pub fn prepare(&self, bytes: &[u8], terms: Terms) -> Result<Prepared, PrepareError> {
        self.prepare_cached(bytes, terms, None)
    }

    /// Prepares a component whose code may be in a cache; if not, it is put there.
    ///
    /// # Errors
    /// As of [`Self::prepare`]. Trouble with the cache is none: the component is compiled.
    pub fn prepare_cached(
        &self,
        bytes: &[u8],
        terms: Terms,
        cache: Option<&CodeCache>,
    ) -> Result<Prepared, PrepareError> {
        inspect::inspect(bytes).map_err(PrepareError::Refused)?;
        let refused = |diagnostic| PrepareError::Refused(vec![diagnostic]);
        let failed = |code, error: &wasmtime::Error| refused(Diagnostic::new(code, told(error)));
        let digest = format!("{:x}", Sha256::digest(bytes));
        let Platform { engine, linker } = &self.classic;
        let (component, code) =
            compile(engine, bytes, &digest, cache).map_err(|error| failed(Code::CompileFailed, &error))?;
        let (info, described) = self.describe(&component, &terms).map_err(refused)?;
        let exports = specification::Exports::of(engine, &component, linker)
            .map_err(|error| failed(Code::LinkFailed, &error))?;
        let identity = specification::Identity { info, digest, exports };
        let warnings = specification::warnings(&described);
        let spec = specification::read(described, identity, terms).map_err(|mistakes| {
            let told = mistakes.into_iter().map(|mistake| Diagnostic::new(Code::BadSpecification, mistake));
            PrepareError::Refused(told.collect())
        })?;
        Ok(Prepared { spec, code, warnings })
    }

    /// Prepares a component that is a service, with or without a cache. There is nothing to ask it.
    ///
    /// # Errors
    /// As of [`Self::prepare`].
    pub fn prepare_service(
        &self,
        bytes: &[u8],
        cache: Option<&CodeCache>,
    ) -> Result<PreparedService, PrepareError> {
        let inspection = inspect::inspect(bytes).map_err(PrepareError::Refused)?;
        let failed =
            |code, error: &wasmtime::Error| PrepareError::Refused(vec![Diagnostic::new(code, told(error))]);
        // One that serves nothing is told so when it is linked.
        let wasi = inspection.serves().unwrap_or_default();
        let Platform { engine, linker } = self.platform(wasi.into())?;
        let digest = format!("{:x}", Sha256::digest(bytes));
        let (component, code) =
            compile(engine, bytes, &digest, cache).map_err(|error| failed(Code::CompileFailed, &error))?;
        let linked = linker.instantiate_pre(&component).and_then(|linked| http::handler(linked, wasi));
        linked.map_err(|error| failed(Code::LinkFailed, &error))?;
        Ok(PreparedService { digest, code, wasi })
    }

    /// Asks the component who it is, in an instance that is thrown away.
    fn describe(
        &self,
        component: &Component,
        terms: &Terms,
    ) -> Result<(base::exports::aegis::module::identity::ModuleInfo, WitModelSpec), Diagnostic> {
        let failed = |code, error: &wasmtime::Error, output: &str| {
            let tail = if output.is_empty() { String::new() } else { format!("; it wrote: {output}") };
            Diagnostic::new(code, format!("{}{tail}", told(error)))
        };
        let linked = self
            .classic
            .linker
            .instantiate_pre(component)
            .map_err(|error| failed(Code::LinkFailed, &error, ""))?;
        let link = |error: wasmtime::Error| failed(Code::LinkFailed, &error, "");
        let identity = base::BaseIndices::new(&linked).map_err(link)?;
        let describing = describing::DescribingIndices::new(&linked).map_err(link)?;
        let limits = CodeLimits {
            memory_bytes_max: DESCRIBE_MEMORY_BYTES_MAX.max(terms.limits.memory_bytes_max),
            payload_bytes_max: DESCRIPTION_BYTES_MAX,
            ..terms.limits
        };
        let owner = Owner {
            module: "a component".to_owned(),
            model: String::new(),
            settings: terms.settings.clone(),
            limits,
            generation: 0,
            grants: Grants::default(),
            log_budget: LogBudget::default(),
        };
        let state = State::new(Arc::new(owner), Arc::clone(&self.services), Budget::new(DESCRIBE_TIME));
        let output = state.output.clone();
        let mut store = state.into_store(&self.classic.engine);
        let _running = self.ticker.running();
        let asked = async {
            let instance = linked.instantiate_async(&mut store).await?;
            specification::Exports::check(&linked, &mut store, &instance)?;
            let module = identity.load(&mut store, &instance)?;
            let info = module.aegis_module_identity().call_info(&mut store).await?;
            let module = describing.load(&mut store, &instance)?;
            let spec = module.aegis_module_describe_model().call_describe(&mut store).await?;
            wasmtime::Result::Ok((info, spec))
        };
        // Code that waits is not asked by the ticker whether its time is up.
        let described = self.runtime.block_on(async {
            let bounded = tokio::time::timeout(DESCRIBE_TIME + HARD_DEADLINE_SLACK, asked);
            bounded.await.unwrap_or_else(|_| Err(TimeIsUp.into()))
        });
        described.map_err(|error: wasmtime::Error| match error.is::<specification::OtherSignature>() {
            true => failed(Code::LinkFailed, &error, ""),
            false => failed(Code::DescribeFailed, &error, &output.take()),
        })
    }
}

/// Compiles a component, or takes the code that was compiled before.
fn compile(
    engine: &Engine,
    bytes: &[u8],
    digest: &str,
    cache: Option<&CodeCache>,
) -> wasmtime::Result<(Component, Vec<u8>)> {
    if let Some(found) = cache.and_then(|cache| cache.component(engine, digest)) {
        return Ok(found);
    }
    let component = Component::from_binary(engine, bytes)?;
    let code = component.serialize()?;
    if let Some(cache) = cache {
        cache.keep(engine, digest, &code);
    }
    Ok((component, code))
}
