//! What `wasi:http` keeps in an instance: its bounds, and the way out.

use std::{future::Future, sync::Arc, time::Instant};

use aegis_domain::trial::Lot;
use http::{HeaderName, Request, Response, header};
use http_body_util::BodyExt;
use wasmtime::{
    AsContextMut, StoreContextMut,
    component::{Accessor, Linker, Resource},
};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, RequestOptions, WasiBody, WasiHttp, WasiHttpCtx, WasiHttpCtxView,
    WasiHttpHooks, WasiHttpView,
    p3::{self, bindings::http::client},
};

use super::crowd::Asks;
use crate::{
    call::Lineage,
    outgoing::{OutgoingError, Waits},
    services::{Asker, Services},
    state::{Owner, State, fields_bytes_max},
};

/// Where code of WASI 0.3 asks other hosts.
const CLIENT: &str = "wasi:http/client@0.3.0";
/// Bytes that a guest writes to a body at once; two pieces wait for the client at most.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// The side of the host.
pub(crate) struct Http {
    context: WasiHttpCtx,
    hooks: Hooks,
}

/// What is allowed.
struct Hooks {
    owner: Arc<Owner>,
    services: Arc<dyn Services>,
    /// The present call.
    call: Option<Caller>,
}

/// A call that a request is sent in.
#[derive(Clone)]
struct Caller {
    request_id: String,
    deadline: Instant,
    lineage: Lineage,
}

impl Http {
    pub(crate) fn new(owner: Arc<Owner>, services: Arc<dyn Services>) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(fields_bytes_max(&owner.limits));
        Self { context, hooks: Hooks { owner, services, call: None } }
    }

    /// What the code asks for from now on is decided by this generation of its module.
    pub(crate) fn belong(&mut self, owner: &Arc<Owner>, services: &Arc<dyn Services>) {
        self.hooks.owner = Arc::clone(owner);
        self.hooks.services = Arc::clone(services);
    }

    /// What the code asks for from now on, it asks for because of this request.
    pub(super) fn ask_for(&mut self, asks: &Asks) {
        let (request_id, deadline) = (asks.request_id.clone(), asks.until);
        self.hooks.call = Some(Caller { request_id, deadline, lineage: Lineage::default() });
    }
}

/// Has requests to other hosts go out in the name of the request that the code works for, where it has several. In WASI
/// 0.2, which code of 0.3 may use beside it, that is the one that began last.
pub(crate) fn link_client(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance(CLIENT)?.func_wrap_concurrent(
        "send",
        |accessor: &Accessor<State>, (request,): (Resource<p3::Request>,)| {
            Box::pin(async move {
                accessor.with(|mut access| attribute(access.as_context_mut()))?;
                let http = accessor.with_getter::<WasiHttp>(State::http);
                let sent = <WasiHttp as client::HostWithStore<State>>::send(&http, request).await;
                Ok((sent.map(Ok).or_else(|error| error.downcast().map(Err))?,))
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Finds out which request the code works for that runs now.
fn attribute(mut store: StoreContextMut<'_, State>) -> wasmtime::Result<()> {
    let Some(crowd) = store.data().crowd.clone() else { return Ok(()) };
    let root = store.async_call_stack()?.last();
    if let Some(asks) = root.and_then(|root| crowd.asks(root)) {
        store.data_mut().http.ask_for(&asks);
    }
    Ok(())
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let deadline = self.budget.until;
        let is_known = |call: &Caller| self.crowd.is_some() || call.deadline == deadline;
        if !self.http.hooks.call.as_ref().is_some_and(is_known) {
            let (request_id, lineage) = (self.request_id.clone(), self.lineage);
            self.http.hooks.call = Some(Caller { request_id, deadline, lineage });
        }
        WasiHttpCtxView { hooks: &mut self.http.hooks, table: &mut self.table, ctx: &mut self.http.context }
    }
}

/// Why the code did not get what it asked another host for.
type Told = Box<dyn Future<Output = Result<(), Error>> + Send>;

impl WasiHttpHooks for Hooks {
    fn forbidden_header_filter(&mut self) -> wasmtime_wasi_http::ForbiddenHeaderFilter {
        Arc::new(is_forbidden)
    }

    /// Whoever is granted nothing is not even asked about.
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Told,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Told), Error>> + Send> {
        let Some(call) = self.call.clone().filter(|_| !self.owner.grants.http.is_empty()) else {
            return Box::new(std::future::ready(Err(Error::HttpRequestDenied)));
        };
        let (owner, services) = (Arc::clone(&self.owner), Arc::clone(&self.services));
        let options = options.unwrap_or_default();
        let waits = Waits {
            connect: options.connect_timeout,
            head: options.first_byte_timeout,
            piece: options.between_bytes_timeout,
        };
        let broken = |error: Error| OutgoingError::Broken(format!("the request was broken off: {error}"));
        let request = request.map(|body| body.map_err(broken).boxed_unsync());
        Box::new(async move {
            let lot = Lot::default(); // it asks no model
            let asker = Asker {
                module: &owner.module,
                model: &owner.model,
                grants: &owner.grants,
                request_id: &call.request_id,
                deadline: call.deadline,
                payload_bytes_max: owner.payload_bytes_max(),
                lineage: call.lineage,
                lot: &lot,
                principal: None,
            };
            let response = services.stream(asker, request, waits).await?;
            let response = response.map(|body| body.map_err(Error::from).boxed_unsync());
            Ok((response, Box::new(std::future::ready(Ok(()))) as Told))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }
}

/// Headers that are between two neighbours: they neither reach the code nor come from it.
fn is_forbidden(name: &HeaderName) -> bool {
    DEFAULT_FORBIDDEN_HEADERS.contains(name) || *name == header::TE
}
