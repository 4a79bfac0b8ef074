//! What all modules of a worker share: the engine, what can be imported, and the threads for long computations.

use std::{
    borrow::Cow,
    future::poll_fn,
    sync::{Arc, OnceLock},
    task::Poll,
    time::Duration,
};

use aegis_domain::{
    code::{CodeSpec, CommandPlace},
    service::ServiceSpec,
};
use wasmtime::Engine;

use crate::{
    berths::Berths,
    call::{Budget, Call, CallError, DEPTH_MAX, HARD_DEADLINE_SLACK, Refusal, RefusalCode, Signals},
    cpu::{CpuPool, Work},
    engine::{self, EngineError, Profile},
    entry::{Answer, Entry},
    http::HttpService,
    mapping,
    mapping::{MappingError, SealedFile},
    module::{CodePlace, Module},
    overtime::{Overtime, processor_time},
    pace::Way,
    platform::Platform,
    route::{RouteRequest, RouteResponse},
    services::Services,
    ticker::{Running, Ticker},
};

/// Runs modules in a worker.
pub struct Runtime {
    classic: Ticking,
    /// For components of WASI 0.3. It is made when the first one comes.
    concurrent: OnceLock<Ticking>,
    cpu: CpuPool,
    overtime: Overtime,
}

/// A platform whose code runs under deadlines.
struct Ticking {
    platform: Platform,
    ticker: Ticker,
    berths: Arc<Berths>,
}

impl Ticking {
    fn start(profile: Profile) -> Result<Self, EngineError> {
        let engine = engine::runner(profile)?;
        let ticker = Ticker::start(&engine).map_err(|error| EngineError { reason: error.to_string() })?;
        Ok(Self { platform: Platform::new(engine, profile)?, ticker, berths: Berths::new() })
    }
}

/// Slices in a row that a call has on the thread of its request. The end of one does not say that it computes for long: the
/// operating system may have run others in the meantime, and then it is over at once when it goes on.
const SLICES_HERE: u32 = 2;

/// What a call comes to.
type Called = Result<Answer, CallError>;

impl Runtime {
    /// A runtime with `cpu_threads` threads for CPU-bound calls, of which `queue_max` more may wait, and as many for those
    /// that turn out to be.
    ///
    /// # Errors
    /// When this machine cannot run one.
    pub fn new(cpu_threads: usize, queue_max: usize) -> Result<Self, EngineError> {
        Self::with_threads(cpu_threads, queue_max, || ())
    }

    /// As [`new`](Self::new), where threads inherit something from the one that starts them: each of these begins with
    /// `begin`, which may put it off.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_threads(cpu_threads: usize, queue_max: usize, begin: fn()) -> Result<Self, EngineError> {
        Self::with(Ticking::start(Profile::Classic)?, (cpu_threads, queue_max), begin)
    }

    /// A runtime whose engine ticks only when whoever tests code says so.
    #[cfg(test)]
    pub(crate) fn ticking_by_hand(cpu_threads: usize, queue_max: usize) -> Result<Self, EngineError> {
        let platform = Platform::new(engine::runner(Profile::Classic)?, Profile::Classic)?;
        let ticking = Ticking { platform, ticker: Ticker::by_hand(), berths: Berths::new() };
        Self::with(ticking, (cpu_threads, queue_max), || ())
    }

    fn with(classic: Ticking, cpu: (usize, usize), begin: fn()) -> Result<Self, EngineError> {
        let failed = |reason| EngineError { reason };
        let overtime = Overtime::new(cpu.0, begin).map_err(|error| failed(error.to_string()))?;
        let cpu = CpuPool::new(cpu, begin).map_err(failed)?;
        Ok(Self { classic, concurrent: OnceLock::new(), cpu, overtime })
    }

    /// The engine of models and of services of WASI 0.2.
    pub(crate) fn engine(&self) -> &Engine {
        &self.classic.platform.engine
    }

    /// Room for instances of that engine.
    pub(crate) fn berths(&self) -> &Arc<Berths> {
        &self.classic.berths
    }

    /// What counts the epochs of that engine.
    pub(crate) fn ticker(&self) -> &Ticker {
        &self.classic.ticker
    }

    /// What code of this kind runs on.
    fn ticking(&self, profile: Profile) -> Result<&Ticking, EngineError> {
        match (profile, self.concurrent.get()) {
            (Profile::Classic, _) => Ok(&self.classic),
            (Profile::Concurrent, Some(there)) => Ok(there),
            (Profile::Concurrent, None) => {
                let made = Ticking::start(profile)?;
                // Whoever comes second drops what it made.
                Ok(self.concurrent.get_or_init(|| made))
            }
        }
    }

    /// Whether components of WASI 0.3 have come.
    #[cfg(test)]
    pub(crate) fn has_both_engines(&self) -> bool {
        self.concurrent.get().is_some()
    }

    /// Calls that worked overtime.
    #[cfg(test)]
    pub(crate) fn worked_overtime(&self) -> usize {
        self.overtime.came.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Code of a service begins to run.
    pub(crate) fn running(&self, service: &HttpService) -> Running {
        // It was loaded, so what it runs on is there.
        let concurrent = self.concurrent.get().filter(|_| service.profile() == Profile::Concurrent);
        concurrent.unwrap_or(&self.classic).ticker.running()
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
        let Platform { engine, linker } = &self.classic.platform;
        let component = mapping::component(engine, &code.module, file, place.offset, place.length)?;
        let linked = linker.instantiate_pre(&component).map_err(failed)?;
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
        let failed = |reason: String| MappingError { module: spec.name.clone(), reason };
        let ticking = self.ticking(spec.wasi.into()).map_err(|error| failed(error.to_string()))?;
        let Platform { engine, linker } = &ticking.platform;
        let component = mapping::component(engine, &spec.name, file, place.offset, place.length)?;
        let linked = linker.instantiate_pre(&component).map_err(|error| failed(format!("{error:#}")))?;
        HttpService::new((engine, &ticking.berths), spec, linked, services)
    }

    /// Calls code and waits for its answer: JSON, or nothing for entries that only agree. A call that is CPU-bound by
    /// declaration runs on the CPU pool; any other begins here and works overtime, in turns with others, when it
    /// computes for longer than its slices, or begins there when calls of its entry are known to. Dropping the future cancels the call.
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

    /// Carries a call out, and gives it up when its code was to end a while ago and waits for the host instead, or for its
    /// turn.
    async fn carry_out(&self, module: &Arc<Module>, place: CommandPlace, call: Call, entry: Entry) -> Called {
        if call.lineage.depth > DEPTH_MAX {
            let message = format!("modules call each other more than {DEPTH_MAX} deep");
            return Err(CallError::Refused(Refusal::new(RefusalCode::Unsupported, message)));
        }
        if let Some(refusal) = module.refuses(&call) {
            return Err(CallError::Refused(refusal));
        }
        let limits = module.limits();
        let milliseconds = match place {
            CommandPlace::Io => limits.call_ms_max,
            CommandPlace::Cpu => limits.cpu_call_ms_max,
        };
        let mut budget = Budget::new(Duration::from_millis(u64::from(milliseconds)));
        budget.end_by(call.deadline);
        let (signals, hard) = (budget.signals.clone(), budget.until + HARD_DEADLINE_SLACK);
        let entered = entry.name();
        let _cancels = signals.cancel_on_drop();
        let carried_out = async {
            match place {
                CommandPlace::Cpu => self.compute(module, call, entry, budget).await,
                CommandPlace::Io => self.begin(module, call, entry, budget).await,
            }
        };
        tokio::time::timeout_at(hard.into(), carried_out).await.unwrap_or_else(|_| match signals.begun() {
            Some(allowed) => {
                Err(CallError::Deadline { module: module.name().to_owned(), entry: entered, allowed })
            }
            None => Err(module.busy()),
        })
    }

    /// Carries a call out on the CPU pool.
    async fn compute(&self, module: &Arc<Module>, call: Call, entry: Entry, budget: Budget) -> Called {
        let thread = self.cpu.place().ok_or_else(|| module.busy())?;
        let entered = entry.name();
        let running = self.ticker().running();
        let called = Arc::clone(module);
        let work: Work<Called> = Box::pin(async move {
            let _running = running;
            // Not before its turn on a thread has come: until then the instance is for others.
            let place = called.place(&budget).await?;
            called.enter(place, call, entry, budget).await
        });
        let carried_out = self.cpu.carry_out(thread, work).await;
        carried_out.unwrap_or_else(|| Err(ended(module, entered)))
    }

    /// Carries a call out that begins where its request is, unless calls of its entry are known to take long.
    async fn begin(&self, module: &Arc<Module>, call: Call, entry: Entry, budget: Budget) -> Called {
        let place = module.place(&budget).await?;
        let (entered, way, signals) = (entry.name(), Way::of(&entry), budget.signals.clone());
        // The work holds it, not this future: code that nobody waits for any longer still has to learn that.
        let running = self.ticker().running();
        let carried = Arc::clone(module).enter(place, call, entry, budget);
        let mut work: Work<Called> = Box::pin(async move {
            let _running = running;
            carried.await
        });
        let here = match self.begin_here(&mut work, &signals, module.paces().is_long(&way)).await {
            Begun::Over(called) => return called,
            Begun::Goes(here) => here,
        };
        let paces = Arc::clone(module.paces());
        // Noted where it ran, since whoever asked may be gone by then.
        let computed = move |there| paces.note(way, here + there);
        let carried_out = self.overtime.carry_out((work, signals), computed).await;
        carried_out.unwrap_or_else(|| Err(ended(module, entered)))
    }

    /// Carries work out on the thread of its request, until it is over or has to go on elsewhere.
    async fn begin_here(&self, work: &mut Work<Called>, signals: &Signals, is_long: bool) -> Begun {
        let mut slices = if is_long { SLICES_HERE } else { 0 };
        let mut computed = Duration::ZERO;
        while slices < SLICES_HERE {
            let slice = poll_fn(|context| {
                // Most calls are over in their first slice, and should not pay for it.
                let before = (slices > 0).then(processor_time);
                let polled = work.as_mut().poll(context);
                if let Some(before) = before {
                    computed += processor_time().saturating_sub(before);
                }
                match polled {
                    Poll::Ready(called) => Poll::Ready(Some(called)),
                    Poll::Pending if signals.slice_was_used_up() => Poll::Ready(None),
                    Poll::Pending => {
                        // It waits for something: what it computed before is not held against it.
                        (slices, computed) = (0, Duration::ZERO);
                        Poll::Pending
                    }
                }
            });
            if let Some(called) = slice.await {
                return Begun::Over(called);
            }
            slices += 1;
            tokio::task::yield_now().await;
        }
        Begun::Goes(computed)
    }
}

/// What becomes of a call whose thread ended with it.
fn ended(module: &Module, entry: Cow<'static, str>) -> CallError {
    let reason = "the thread that ran it ended".to_owned();
    CallError::Trapped { module: module.name().to_owned(), entry, reason }
}

/// What comes of work that begins on the thread of its request.
enum Begun {
    Over(Called),
    /// It has to go on elsewhere, after it has computed for so long in slices that followed its first.
    Goes(Duration),
}
