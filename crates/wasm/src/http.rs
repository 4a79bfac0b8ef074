//! Services: components that answer HTTP requests themselves, as `wasi:http` 0.2 or 0.3 has it.
//!
//! ```text
//!   request ─▶ Runtime::serve ─▶ an instance in a task of its own ─▶ head
//!                                        │ body, piece by piece ─▶ ServiceBody ─▶ its end, once the code has ended well
//! ```
//!
//! A request has an instance to itself, also where an instance could do several things at a time. Nobody sees it again,
//! unless the service is meant to answer several requests with one instance: then one that ended well waits for the next.
//! Only where a service of WASI 0.3 is meant to, requests share an instance at the same time: see `shared`.
//! Its code runs where its request is, in slices of one epoch, and never on the CPU pool: it waits for its client, and a
//! thread of the pool must not. The code ends when its time is up or when nobody waits for its answer any longer.

mod body;
mod concurrent;
mod crowd;
mod hooks;
mod lobby;
mod revocable;
mod shared;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aegis_domain::{
    code::Grants,
    service::{ServiceSpec, Wasi},
    trial::Lot,
};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, oneshot};
use wasmtime::{Engine, Store, component::InstancePre};
use wasmtime_wasi_http::{
    Error as HttpError, WasiBody, WasiHttpView,
    handler::{Proxy, ProxyPre},
    p2::{self, bindings::http::types::Scheme},
    p3,
};

use self::body::Task;
pub use self::body::{ServiceBody, UploadError};
pub(crate) use self::{
    crowd::Crowd,
    hooks::{Http, link_client},
};
use self::{lobby::Lobby, shared::Job};
use crate::{
    berths::{self, Berth, Berths, Mortal, Shelf},
    call::{Budget, CallError, HARD_DEADLINE_SLACK, Lineage, Refusal, RefusalCode},
    engine::Profile,
    mapping::MappingError,
    output::LogBudget,
    runtime::Runtime,
    services::Services,
    state::{self, Owner, State},
};

/// What the code is asked.
const ENTRY: &str = "the handler";
/// Authority of a request that names none, as HTTP/1.0 allows.
const NOBODY: HeaderValue = HeaderValue::from_static("localhost");

/// What the code answers with, as the host gets it: an answer, or the name of an error code.
type Head = Result<Response<WasiBody>, String>;

/// What answers HTTP in a component, before there is an instance.
///
/// # Errors
/// When it is not there, or of another signature.
pub(crate) fn handler(linked: InstancePre<State>, wasi: Wasi) -> wasmtime::Result<ProxyPre<State>> {
    Ok(match wasi {
        Wasi::V02 => ProxyPre::P2(p2::bindings::ProxyPre::new(linked)?),
        Wasi::V03 => ProxyPre::P3(p3::bindings::ServicePre::new(linked)?),
    })
}

/// A service that can be asked.
pub struct HttpService {
    owner: Arc<Owner>,
    services: Arc<dyn Services>,
    engine: Engine,
    linked: Arc<ProxyPre<State>>,
    places: Arc<Semaphore>,
    /// Instances that ended well and may be asked again, the last one on top. No more than there are places.
    waiting: Arc<Shelf<Resident>>,
    /// What an instance stands for among those of all modules.
    size: u32,
    /// Where requests wait that share instances; nothing where each has one to itself.
    lobby: Option<Arc<Lobby<Job>>>,
}

/// Whether an instance answers several requests at the same time.
fn shares(spec: &ServiceSpec) -> bool {
    spec.wasi == Wasi::V03 && spec.limits.calls_at_a_time_max > 1
}

/// An instance, and how many requests it has had.
struct Resident {
    store: Store<State>,
    proxy: Proxy,
    requests: u64,
    /// Let go of after everything else.
    _berth: Berth,
}

impl Mortal for Resident {
    /// There is nothing that a service exports for it.
    fn is_told(&self) -> bool {
        false
    }

    async fn end(self, _: Instant) {}
}

/// Who asks a service.
#[derive(Debug, Clone)]
pub struct Visit {
    /// The request's id.
    pub request_id: String,
    /// When the answer is not wanted any more, whatever the service's own limit is.
    pub deadline: Instant,
}

impl HttpService {
    pub(crate) fn new(
        (engine, berths): (&Engine, &Arc<Berths>),
        spec: &ServiceSpec,
        linked: InstancePre<State>,
        services: Arc<dyn Services>,
    ) -> Result<Self, MappingError> {
        let failed =
            |error: wasmtime::Error| MappingError { module: spec.name.clone(), reason: format!("{error:#}") };
        let owner = Owner {
            module: spec.name.clone(),
            model: String::new(),
            settings: serde_json::json!({}),
            limits: spec.limits,
            generation: 0,
            grants: Grants { http: spec.http.clone(), ..Grants::default() },
            log_budget: LogBudget::default(),
        };
        let size = berths::size_of(linked.component());
        Ok(Self {
            owner: Arc::new(owner),
            services,
            engine: engine.clone(),
            linked: Arc::new(handler(linked, spec.wasi).map_err(failed)?),
            places: Arc::new(Semaphore::new(spec.limits.instances_max.max(1) as usize)),
            waiting: Shelf::new(berths),
            size,
            lobby: shares(spec).then(|| Arc::new(Lobby::new())),
        })
    }

    /// The same as part of a generation with this number, before its first request.
    #[must_use]
    pub fn of_generation(mut self, number: u64) -> Self {
        if let Some(owner) = Arc::get_mut(&mut self.owner) {
            owner.generation = number;
        }
        self
    }

    /// The same code and the same instances for another generation, which answers with its own services what is asked
    /// of the host.
    #[must_use]
    pub fn follow(&self, number: u64, services: Arc<dyn Services>) -> Self {
        Self {
            owner: Arc::new(self.owner.of_generation(number)),
            services,
            engine: self.engine.clone(),
            linked: Arc::clone(&self.linked),
            places: Arc::clone(&self.places),
            waiting: Arc::clone(&self.waiting),
            size: self.size,
            // Nobody of this generation shares an instance with somebody of that one.
            lobby: self.lobby.as_ref().map(|_| Arc::new(Lobby::new())),
        }
    }

    /// Name of the service.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.owner.module
    }

    /// Requests that are in instances with others.
    #[cfg(test)]
    pub(crate) fn seats_taken(&self) -> u32 {
        self.lobby.as_ref().map_or(0, |lobby| lobby.taken())
    }

    /// For what its code is made.
    pub(crate) fn profile(&self) -> Profile {
        match *self.linked {
            ProxyPre::P2(_) => Profile::Classic,
            ProxyPre::P3(_) => Profile::Concurrent,
        }
    }

    /// Runs the code for one request, until it ends or its time is up.
    async fn enter(
        self: Arc<Self>,
        visit: Visit,
        budget: Budget,
        request: Request<impl Body<Data = Bytes, Error = HttpError> + Send + 'static>,
        head: oneshot::Sender<Head>,
    ) -> Result<(), CallError> {
        let (allowed, hard) = (budget.allowed, budget.until + HARD_DEADLINE_SLACK);
        let failed = |error: &wasmtime::Error, output: &str| {
            CallError::failed(&self.owner.module, ENTRY, allowed, error, output)
        };
        let running = async {
            let waiting = self.waiting.pop();
            let mut resident = match waiting {
                Some(resident) => resident,
                None => {
                    let berth = self.berth(&budget).await?;
                    self.instantiate(berth, &budget).await.map_err(|error| failed(&error, ""))?
                }
            };
            state::belong(&mut resident.store, &self.owner, &self.services);
            match resident.answer(visit, budget, request, head).await {
                Ok(()) => self.give_back(resident),
                Err(error) => return Err(failed(&error, &resident.store.data().output.take())),
            }
            Ok(())
        };
        tokio::time::timeout_at(hard.into(), running).await.unwrap_or_else(|_| Err(self.late(allowed)))
    }

    /// Room for another instance, when there is some in time.
    async fn berth(&self, budget: &Budget) -> Result<Berth, CallError> {
        let berth = self.waiting.berths().take(self.size);
        let berth = tokio::time::timeout_at(budget.until.into(), berth).await;
        berth.map_err(|_| CallError::Busy { module: self.owner.module.clone() })
    }

    async fn instantiate(&self, berth: Berth, budget: &Budget) -> wasmtime::Result<Resident> {
        let budget = budget.again();
        let state = State::new(Arc::clone(&self.owner), Arc::clone(&self.services), budget);
        let mut store = state.into_store(&self.engine);
        let proxy = self.linked.instantiate_async(&mut store).await?;
        Ok(Resident { store, proxy, requests: 0, _berth: berth })
    }

    fn give_back(&self, resident: Resident) {
        let is_spent = resident.requests >= self.owner.limits.calls_per_instance_max;
        if !is_spent && !resident.store.data().limiter.is_bloated() {
            self.waiting.push(resident);
        }
    }

    fn late(&self, allowed: Duration) -> CallError {
        CallError::Deadline { module: self.owner.module.clone(), entry: ENTRY.into(), allowed }
    }

    fn refused(message: String) -> CallError {
        CallError::Refused(Refusal::new(RefusalCode::Internal, message))
    }
}

impl Resident {
    async fn answer(
        &mut self,
        visit: Visit,
        budget: Budget,
        request: Request<impl Body<Data = Bytes, Error = HttpError> + Send + 'static>,
        head: oneshot::Sender<Head>,
    ) -> wasmtime::Result<()> {
        self.requests += 1;
        state::begin(&mut self.store, budget, visit.request_id, Lineage::begin(), Lot::default());
        let proxy = match &self.proxy {
            Proxy::P2(proxy) => proxy,
            Proxy::P3(service) => {
                return concurrent::answer(&mut self.store, service, request, head).await;
            }
        };
        let mut http = self.store.data_mut().http();
        let request = http.new_incoming_request(Scheme::Http, request)?;
        let head = http.new_response_outparam_from_callback(move |answer| {
            // Nobody may wait for it any longer.
            let _ = head.send(answer.map_err(|code| format!("{code:?}")));
        })?;
        proxy.wasi_http_incoming_handler().call_handle(&mut self.store, request, head).await
    }
}

impl Runtime {
    /// Asks a service, and waits for the head of its answer. Dropping the future, or the body of the answer, ends the
    /// code.
    ///
    /// # Errors
    /// See [`CallError`]. What goes wrong after the head is the last thing that the body says.
    pub async fn serve<B>(
        &self,
        service: &Arc<HttpService>,
        visit: Visit,
        mut request: Request<B>,
    ) -> Result<Response<ServiceBody>, CallError>
    where
        B: Body<Data = Bytes, Error = UploadError> + Send + 'static,
    {
        let module = service.owner.module.as_str();
        let mut budget = Budget::new(Duration::from_millis(u64::from(service.owner.limits.call_ms_max)));
        budget.end_by(visit.deadline);
        let names_host = request.headers().get(header::HOST).is_some_and(|host| host.to_str().is_ok());
        if request.uri().authority().is_none() && !names_host {
            request.headers_mut().insert(header::HOST, NOBODY);
        }
        if service.lobby.is_some() {
            let (sender, head) = oneshot::channel();
            let running = self.running(service);
            let request = request.map(|body| body.map_err(HttpError::from).boxed_unsync());
            let joined = Arc::clone(service).join(visit, budget, request, running, sender);
            return answered(module, head, Task::spawn(module, ENTRY, joined)).await;
        }
        let place = Arc::clone(&service.places).acquire_owned();
        let place = tokio::time::timeout_at(budget.until.into(), place).await;
        let busy = || CallError::Busy { module: module.to_owned() };
        let place = place.map_err(|_| busy())?.map_err(|_| busy())?;
        let (sender, head) = oneshot::channel();
        let running = self.running(service);
        let carried = Arc::clone(service).enter(
            visit,
            budget,
            request.map(|body| body.map_err(HttpError::from)),
            sender,
        );
        let task = Task::spawn(module, ENTRY, async move {
            let ended = carried.await;
            drop((running, place));
            ended
        });
        answered(module, head, task).await
    }
}

/// Waits for the head of an answer.
async fn answered(
    module: &str,
    head: oneshot::Receiver<Head>,
    task: Task,
) -> Result<Response<ServiceBody>, CallError> {
    match head.await {
        Ok(Ok(response)) if response.status().is_informational() => {
            Err(HttpService::refused(format!("service {module} answered {}", response.status())))
        }
        Ok(Ok(response)) => Ok(response.map(|body| ServiceBody::new(body, task))),
        Ok(Err(code)) => Err(HttpService::refused(format!("service {module} answered the error {code}"))),
        Err(_) => {
            task.await?;
            let reason = "it ended without an answer".to_owned();
            Err(CallError::Trapped { module: module.to_owned(), entry: ENTRY.into(), reason })
        }
    }
}
