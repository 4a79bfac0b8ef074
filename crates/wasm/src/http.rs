//! Services: components that answer HTTP requests themselves, as `wasi:http` 0.2 has it.
//!
//! ```text
//!   request ─▶ Runtime::serve ─▶ a fresh instance in a task of its own ─▶ head
//!                                        │ body, piece by piece ─▶ ServiceBody ─▶ its end, once the code has ended well
//! ```
//!
//! A request has an instance to itself, which nobody sees again. Its code runs where its request is, in slices of one
//! epoch, and never on the CPU pool: it waits for its client, and a thread of the pool must not. The code ends when its
//! time is up or when nobody waits for its answer any longer.

mod body;
mod state;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aegis_domain::{code::Grants, service::ServiceSpec};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, oneshot};
use wasmtime::{Engine, component::InstancePre};
use wasmtime_wasi_http::{
    Error as HttpError, WasiHttpView,
    p2::{
        bindings::{
            ProxyPre,
            http::types::{ErrorCode, Scheme},
        },
        body::HyperOutgoingBody,
    },
};

use self::body::Task;
pub use self::body::{ServiceBody, UploadError};
pub(crate) use self::state::Http;
use crate::{
    call::{Budget, CallError, HARD_DEADLINE_SLACK, Refusal, RefusalCode},
    mapping::MappingError,
    output::LogBudget,
    runtime::Runtime,
    services::Services,
    state::{Owner, State},
};

/// What the code is asked.
const ENTRY: &str = "the handler";
/// Authority of a request that names none, as HTTP/1.0 allows.
const NOBODY: HeaderValue = HeaderValue::from_static("localhost");

/// What the code answers with, as the host gets it.
type Head = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// A service that can be asked.
pub struct HttpService {
    owner: Arc<Owner>,
    services: Arc<dyn Services>,
    engine: Engine,
    linked: ProxyPre<State>,
    places: Arc<Semaphore>,
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
        runtime: &Runtime,
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
            grants: Grants { http: spec.http.clone(), ..Grants::default() },
            log_budget: LogBudget::default(),
        };
        Ok(Self {
            owner: Arc::new(owner),
            services,
            engine: runtime.engine().clone(),
            linked: ProxyPre::new(linked).map_err(failed)?,
            places: Arc::new(Semaphore::new(spec.limits.instances_max.max(1) as usize)),
        })
    }

    /// Name of the service.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.owner.module
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
        let mut state = State::new(Arc::clone(&self.owner), Arc::clone(&self.services), budget);
        state.request_id = visit.request_id;
        let output = state.output.clone();
        let mut store = state.into_store(&self.engine);
        let running = async {
            let instance = self.linked.instantiate_async(&mut store).await?;
            let mut http = store.data_mut().http();
            let request = http.new_incoming_request(Scheme::Http, request)?;
            let head = http.new_response_outparam(head)?;
            instance.wasi_http_incoming_handler().call_handle(&mut store, request, head).await
        };
        match tokio::time::timeout_at(hard.into(), running).await {
            Ok(ended) => ended.map_err(|error| {
                CallError::failed(&self.owner.module, ENTRY, allowed, &error, &output.take())
            }),
            Err(_) => Err(self.late(allowed)),
        }
    }

    fn late(&self, allowed: Duration) -> CallError {
        CallError::Deadline { module: self.owner.module.clone(), entry: ENTRY, allowed }
    }

    fn refused(message: String) -> CallError {
        CallError::Refused(Refusal::new(RefusalCode::Internal, message))
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
        let place = Arc::clone(&service.places).acquire_owned();
        let place = tokio::time::timeout_at(budget.until.into(), place).await;
        let busy = || CallError::Busy { module: module.to_owned() };
        let place = place.map_err(|_| busy())?.map_err(|_| busy())?;
        let names_host = request.headers().get(header::HOST).is_some_and(|host| host.to_str().is_ok());
        if request.uri().authority().is_none() && !names_host {
            request.headers_mut().insert(header::HOST, NOBODY);
        }
        let (sender, head) = oneshot::channel();
        let running = self.ticker().running();
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
        match head.await {
            Ok(Ok(response)) if response.status().is_informational() => {
                Err(HttpService::refused(format!("service {module} answered {}", response.status())))
            }
            Ok(Ok(response)) => Ok(response.map(|body| ServiceBody::new(body, task))),
            Ok(Err(code)) => {
                Err(HttpService::refused(format!("service {module} answered the error {code:?}")))
            }
            Err(_) => {
                task.await?;
                let reason = "it ended without an answer".to_owned();
                Err(CallError::Trapped { module: module.to_owned(), entry: ENTRY, reason })
            }
        }
    }
}
