//! What all modules of a worker share: the engine, what can be imported, and the threads for long computations.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use aegis_domain::{
    code::{CodeSpec, CommandPlace},
    service::ServiceSpec,
};
use wasmtime::{Engine, component::Linker};

use crate::{
    call::{Budget, Call, CallError},
    cpu::{self, CpuPool, Work},
    engine::{self, EngineError},
    entry::{Answer, Entry},
    http::HttpService,
    imports, mapping,
    mapping::{MappingError, SealedFile},
    module::{CodePlace, Module},
    route::{RouteRequest, RouteResponse},
    services::Services,
    state::State,
    ticker::Ticker,
};

/// Runs modules in a worker.
pub struct Runtime {
    engine: Engine,
    linker: Linker<State>,
    ticker: Ticker,
    cpu: CpuPool,
    overtime: CpuPool,
}

/// Calls that may work overtime at once. Further ones go on where they are, in slices.
const OVERTIME_MAX: usize = 32;

/// What a call comes to.
type Called = Result<Answer, CallError>;

impl Runtime {
    /// A runtime with `cpu_threads` threads for CPU-bound calls, of which `queue_max` more may wait.
    ///
    /// # Errors
    /// When this machine cannot run one.
    pub fn new(cpu_threads: usize, queue_max: usize) -> Result<Self, EngineError> {
        let engine = engine::runner()?;
        let ticker = Ticker::start(&engine).map_err(|error| EngineError { reason: error.to_string() })?;
        Self::with(engine, ticker, cpu_threads, queue_max)
    }

    /// A runtime whose engine ticks only when whoever tests code says so.
    #[cfg(test)]
    pub(crate) fn ticking_by_hand(cpu_threads: usize, queue_max: usize) -> Result<Self, EngineError> {
        Self::with(engine::runner()?, Ticker::by_hand(), cpu_threads, queue_max)
    }

    fn with(
        engine: Engine,
        ticker: Ticker,
        cpu_threads: usize,
        queue_max: usize,
    ) -> Result<Self, EngineError> {
        let mut linker = Linker::new(&engine);
        imports::link(&mut linker).map_err(|error| EngineError { reason: format!("{error:#}") })?;
        let failed = |reason| EngineError { reason };
        let cpu = CpuPool::new("cpu", cpu_threads, queue_max, cpu::NICE_DECLARED).map_err(failed)?;
        let overtime = CpuPool::new("overtime", OVERTIME_MAX, 0, cpu::NICE_OVERTIME).map_err(failed)?;
        Ok(Self { engine, linker, ticker, cpu, overtime })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn ticker(&self) -> &Ticker {
        &self.ticker
    }

    /// Threads for CPU-bound calls.
    #[must_use]
    pub fn cpu(&self) -> &CpuPool {
        &self.cpu
    }

    /// Maps the code of a model's module.
    ///
    /// # Errors
    /// When there is no code at that place, or code that another image made.
    pub fn load(
        &self,
        model: &str,
        code: &CodeSpec,
        (file, place): (&SealedFile, CodePlace),
        services: Arc<dyn Services>,
    ) -> Result<Module, MappingError> {
        let failed = |error: wasmtime::Error| MappingError {
            module: code.module.clone(),
            reason: format!("{error:#}"),
        };
        let component = mapping::component(&self.engine, &code.module, file, place.offset, place.length)?;
        let linked = self.linker.instantiate_pre(&component).map_err(failed)?;
        Module::new(self, model, code, linked, services)
    }

    /// Maps the code of a service.
    ///
    /// # Errors
    /// When there is no code at that place, or code that another image made.
    pub fn load_service(
        &self,
        spec: &ServiceSpec,
        (file, place): (&SealedFile, CodePlace),
        services: Arc<dyn Services>,
    ) -> Result<HttpService, MappingError> {
        let failed =
            |error: wasmtime::Error| MappingError { module: spec.name.clone(), reason: format!("{error:#}") };
        let component = mapping::component(&self.engine, &spec.name, file, place.offset, place.length)?;
        let linked = self.linker.instantiate_pre(&component).map_err(failed)?;
        HttpService::new(self, spec, linked, services)
    }

    /// Calls code and waits for its answer: JSON, or nothing for entries that only agree. A call that is CPU-bound by
    /// declaration runs on the CPU pool; any other begins here and goes on on a thread of its own when it takes longer
    /// than a slice. Dropping the future cancels the call.
    ///
    /// # Errors
    /// See [`CallError`]. After anything but a refusal the instance is gone and the next call gets a fresh one.
    pub async fn call(
        &self,
        module: &Arc<Module>,
        place: CommandPlace,
        call: Call,
        entry: Entry,
    ) -> Result<Option<String>, CallError> {
        self.carry_out(module, place, call, entry).await.map(|answer| match answer {
            Answer::Json(text) => Some(text),
            Answer::Agreed | Answer::Response(_) => None,
        })
    }

    /// Asks a custom route, and waits for its answer. As [`Self::call`] otherwise.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn route(
        &self,
        module: &Arc<Module>,
        place: CommandPlace,
        call: Call,
        request: RouteRequest,
    ) -> Result<RouteResponse, CallError> {
        let entry = Entry::Route { request: Box::new(request) };
        let name = entry.name();
        match self.carry_out(module, place, call, entry).await? {
            Answer::Response(response) => Ok(response),
            Answer::Agreed | Answer::Json(_) => {
                let reason = "it answered something else than a response".to_owned();
                Err(CallError::Trapped { module: module.name().to_owned(), entry: name, reason })
            }
        }
    }

    async fn carry_out(&self, module: &Arc<Module>, place: CommandPlace, call: Call, entry: Entry) -> Called {
        let limits = module.limits();
        let milliseconds = match place {
            CommandPlace::Io => limits.call_ms_max,
            CommandPlace::Cpu => limits.cpu_call_ms_max,
        };
        let budget = Budget::new(Duration::from_millis(u64::from(milliseconds)));
        let signals = budget.signals.clone();
        let _cancels = signals.cancel_on_drop();
        let entered = entry.name();
        // The work holds it, not this future: code that nobody waits for any longer still has to learn that.
        let running = self.ticker.running();
        let carried = Arc::clone(module).enter(call, entry, budget);
        let mut work: Work<Called> = Box::pin(async move {
            let _running = running;
            carried.await
        });
        let (pool, place) = match place {
            CommandPlace::Cpu => {
                let busy = || CallError::Busy { module: module.name().to_owned() };
                (&self.cpu, self.cpu.place().ok_or_else(busy)?)
            }
            CommandPlace::Io => loop {
                let slice = poll_fn(|context| match work.as_mut().poll(context) {
                    Poll::Ready(called) => Poll::Ready(Some(called)),
                    Poll::Pending if signals.slice_was_used_up() => Poll::Ready(None),
                    Poll::Pending => Poll::Pending,
                });
                if let Some(called) = slice.await {
                    return called;
                }
                if let Some(place) = self.overtime.free_thread() {
                    break (&self.overtime, place);
                }
                tokio::task::yield_now().await;
            },
        };
        let wanted = signals.clone();
        let carried_out = pool.carry_out(place, work, move || !wanted.is_cancelled()).await;
        carried_out.unwrap_or_else(|| {
            let reason = "the thread that ran it ended".to_owned();
            Err(CallError::Trapped { module: module.name().to_owned(), entry: entered, reason })
        })
    }
}
