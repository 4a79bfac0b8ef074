//! One request, from its head to its answer.
//!
//! A plain read of a document whose body is in the cache is answered before `call` returns: no task, no box, no
//! timer. Everything else takes the long way, which knows every rule.

use std::{
    borrow::Cow,
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, OnceLock, atomic::Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use aegis_domain::{Problem, ProblemCode, catalog::Model};
use aegis_ipc::{board::Counter, handoff::Audience};
use arc_swap::Guard;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header, request::Parts,
};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::{
    access::{Caller, Door, Gate},
    admin,
    connection::{Ledger, Link, Order, Protocol},
    custom,
    defect::{self, Defect},
    events,
    execute::not_found,
    host::{Host, microseconds},
    operation::{self, Operation},
    present::Present,
    request::{self, Glance, RequestBody, Target},
    response::{About, Envelope, Extent, Next, Outgoing, Refusal},
    route::{Candidate, Place, no_such_route},
    serve,
    variant::{self, AEGIS_VARIANT},
};

/// Time beyond its deadline after which a request is answered without waiting for its engine.
const DEADLINE_SLACK: Duration = Duration::from_secs(1);
/// Time to throw away the body of a refused request.
const DISCARD_TIME: Duration = Duration::from_secs(2);
/// Answers up to this size are not counted while they wait: they take no more than what they go over.
const UNCOUNTED_BYTES_MAX: u64 = 4 * 1024;
/// Says which patches may be sent (RFC 5789 section 3.1).
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");
const PATCH_TYPES: HeaderValue =
    HeaderValue::from_static("application/merge-patch+json, application/json-patch+json, application/json");

/// Answers the requests of one connection.
#[derive(Clone)]
pub(crate) struct Service {
    present: Arc<Present>,
    link: Arc<Link>,
}

/// One request: it has one host from its beginning to its end, whatever generation the process goes over to meanwhile.
#[derive(Clone, Copy)]
struct Visit<'v> {
    host: &'v Arc<Host>,
    link: &'v Arc<Link>,
    /// Whether the host itself asks.
    is_own: bool,
}

/// An answer, here or on its way.
pub(crate) enum Answering {
    /// Here.
    Ready(Option<Response<Outgoing>>),
    /// On its way.
    Later(Pin<Box<dyn Future<Output = Response<Outgoing>> + Send>>),
}

impl Future for Answering {
    type Output = Result<Response<Outgoing>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Ready(response) => {
                Poll::Ready(Ok(response.take().expect("an answer is not asked for again once it was given")))
            }
            Self::Later(answer) => answer.as_mut().poll(cx).map(Ok),
        }
    }
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Outgoing>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        self.link.request_arrived(request.version());
        let host = self.present.look();
        if request.body().is_end_stream() {
            let visit = Visit { host: &host, link: &self.link, is_own: false };
            match defect::catch(|| visit.at_once(&request)) {
                Ok(Some(response)) => return Answering::Ready(Some(response)),
                Ok(None) => {}
                Err(defect) => return Answering::Ready(Some(visit.broken_at_once(&request, &defect))),
            }
        }
        let begun = Instant::now();
        let (host, link) = (Guard::into_inner(host), Arc::clone(&self.link));
        let (parts, body) = request.into_parts();
        Answering::Later(Box::pin(async move {
            Visit { host: &host, link: &link, is_own: false }
                .answer(parts, RequestBody::incoming(body), begun)
                .await
        }))
    }
}

impl Service {
    pub(crate) fn new(present: Arc<Present>, link: Arc<Link>) -> Self {
        Self { present, link }
    }
}

impl<'v> Visit<'v> {
    /// A read of one document from the cache. `None`: anything about the request or the cache is not plain.
    fn at_once<B>(&self, request: &Request<B>) -> Option<Response<Outgoing>> {
        // Whom nobody has asked yet gets nothing at once.
        if *request.method() != Method::GET || self.host.gate.is_some() {
            return None;
        }
        // Only a line in the log says how long it took.
        let begun = self.host.config.log.requests.then(Instant::now);
        let target = request.uri().path_and_query()?;
        if target.query().is_some() {
            return None;
        }
        let host: &'v Host = self.host;
        let (position, id) = host.routes.plain_document(target.path())?;
        let glance = Glance::new(request.headers());
        if glance.needs_care
            || glance.accept.is_some_and(|accept| !matches!(accept.as_bytes(), b"*/*" | b"application/json"))
        {
            return None;
        }
        let line = (request.version(), request.uri());
        request::check_head(line, request.headers(), &glance, &host.config.limits).ok()?;
        // A tag that is not one we would write goes the long way.
        let known = match glance.if_none_match {
            Some(tag) => Some(revision_of(tag)?),
            None => None,
        };
        let table = host.tables.get(position)?;
        let read = host.engine.read_from(table, id)?;
        let envelope = self.envelope(glance.request_id, Extent::Whole);
        let mut response = match (self.admit(None), read.document) {
            (Err(problem), _) => envelope.refuse_at(&problem.into(), read.sequence),
            (Ok(()), Some(found)) if known == Some(found.revision) => {
                envelope.not_modified(found.revision, read.sequence)
            }
            (Ok(()), Some(found)) => envelope.document(found, read.sequence),
            (Ok(()), None) => envelope.refuse_at(&not_found(table.model(), id).into(), read.sequence),
        };
        self.let_wait(&mut response, &envelope, request.method());
        host.count_at_once(response.status(), response.body().known_bytes());
        if host.config.log.requests {
            let took = begun.map_or(Duration::ZERO, |begun| begun.elapsed());
            self.log(&response, took, &envelope, request.method(), target.path());
        }
        Some(response)
    }

    /// The answer to a read that met a defect.
    fn broken_at_once<B>(&self, request: &Request<B>, defect: &Defect) -> Response<Outgoing> {
        let envelope = self.envelope(Glance::new(request.headers()).request_id, Extent::Whole);
        let refusal =
            self.broken(defect, &envelope, (request.method(), request.headers()), request.uri().path());
        let response = envelope.refuse(&refusal);
        self.host.count_at_once(response.status(), response.body().known_bytes());
        response
    }

    /// Every other request.
    async fn answer(self, parts: Parts, mut body: RequestBody, begun: Instant) -> Response<Outgoing> {
        let _answering = self.link.answering();
        let extent = if parts.method == Method::HEAD { Extent::HeadOnly } else { Extent::Whole };
        let glance = Glance::new(&parts.headers);
        let mut envelope = self.envelope(glance.request_id, extent);
        let outcome = defect::caught(pin!(self.handle(&parts, &glance, &mut body, &envelope, begun))).await;
        let outcome = outcome.unwrap_or_else(|defect| {
            Err(self.broken(&defect, &envelope, (&parts.method, &parts.headers), parts.uri.path()))
        });
        if body.is_unread() {
            // A client that has let the time for its body pass is not waited for once more.
            if !matches!(&outcome, Err(refusal) if refusal.problem.code == ProblemCode::RequestTimeout) {
                self.settle(&parts, &mut body).await;
            }
            if body.is_unread() {
                self.link.leave_body_unread();
                envelope.next = self.closing();
            }
        }
        // The worker may have begun to leave meanwhile.
        if envelope.next == Next::Open {
            envelope.next = self.next();
        }
        let mut response = match outcome {
            Ok(response) => response,
            Err(refusal) => envelope.refuse(&refusal),
        };
        self.let_wait(&mut response, &envelope, &parts.method);
        if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE && parts.method == Method::PATCH {
            // RFC 5789 section 2.2: the client learns which patches it may send.
            response.headers_mut().insert(ACCEPT_PATCH, PATCH_TYPES);
        }
        if let Some(variant) = envelope.variant.get() {
            response.headers_mut().insert(AEGIS_VARIANT, HeaderValue::from_static(variant.as_str()));
        }
        if envelope.next == Next::Closing {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        self.host.count(response.status(), begun, response.body().known_bytes());
        if self.host.config.log.requests {
            self.log(&response, begun.elapsed(), &envelope, &parts.method, parts.uri.path());
        }
        response
    }

    async fn handle(
        &self,
        parts: &Parts,
        glance: &Glance<'_>,
        body: &mut RequestBody,
        envelope: &Envelope<'_>,
        begun: Instant,
    ) -> Result<Response<Outgoing>, Refusal> {
        let host: &'v Host = self.host;
        self.check_head(parts, glance)?;
        let routes = match host.routes.custom(parts.uri.path()).answering(&parts.method) {
            Ok(route) => return self.route(route, (parts, body), envelope, begun).await,
            Err(others) => others,
        };
        let found = host.routes.find(parts.uri.path());
        let caller = self.counted_at(parts, found.as_ref().ok())?;
        let place = match found {
            Err(_) if routes.has_served() => {
                return not_answered(&parts.method, routes.allow(&[]).into(), envelope);
            }
            found => found?,
        };
        if let Place::Service(position) = place {
            let answered =
                serve::answer(self.host, self.link, position, (parts, body), envelope, begun).await;
            return answered.map_err(Refusal::from);
        }
        let (methods, allow) = place.methods();
        let allow = if routes.is_empty() { allow.into() } else { routes.allow(methods).into() };
        if !methods.contains(&parts.method) {
            return not_answered(&parts.method, allow, envelope);
        }
        if let (Place::Reload, Some(secret)) = (&place, &host.config.reload.webhook_secret)
            && !self.may_administer(&caller, parts)
        {
            let answered = admin::answer_webhook(host, secret, (parts, body), envelope, begun).await;
            return answered.map_err(Refusal::from);
        }
        if place.is_admin() && !self.may_administer(&caller, parts) {
            return Err(admin_only(self.link.sign_of_page(parts)).into());
        }
        match place {
            Place::Collection(model) => {
                let target = Target { model, id: None, command: None };
                self.model(target, &caller, (parts, body), envelope, begun).await
            }
            Place::Document(model, id) => {
                let target = Target { model, id: Some(id.into_owned()), command: None };
                self.model(target, &caller, (parts, body), envelope, begun).await
            }
            Place::Command(model, id, command) => {
                let (id, command) = (Some(id.into_owned()), Some(command.into_owned()));
                self.model(Target { model, id, command }, &caller, (parts, body), envelope, begun).await
            }
            Place::Deploy => {
                admin::answer_deploy(host, (parts, body), envelope, begun).await.map_err(Refusal::from)
            }
            Place::Events => {
                events::open(self.host, self.link, parts, &caller, envelope).await.map_err(Refusal::from)
            }
            place => {
                // In a box: it takes more memory than any other, and is asked seldom.
                let answered = Box::pin(admin::answer(self.host, self.link, &place, parts, envelope)).await;
                answered.map_err(Refusal::from)
            }
        }
    }

    /// What a custom route answers. Where one is disabled, nothing is.
    async fn route(
        &self,
        route: Candidate<'v>,
        (parts, body): (&Parts, &mut RequestBody),
        envelope: &Envelope<'_>,
        begun: Instant,
    ) -> Result<Response<Outgoing>, Refusal> {
        if route.is_disabled() {
            self.counted(self.caller_at(parts, None))?;
            return Err(no_such_route(parts.uri.path()).into());
        }
        let caller = self.counted(self.asked(|gate| gate.at_route(&parts.headers, &route)))?;
        caller.may_take(&route)?;
        let at = (self.host, &**self.link);
        custom::answer(at, route, &caller, (parts, body), envelope, begun).await.map_err(Refusal::from)
    }

    async fn model(
        &self,
        target: Target<'_>,
        caller: &Caller,
        (parts, body): (&Parts, &mut RequestBody),
        envelope: &Envelope<'_>,
        begun: Instant,
    ) -> Result<Response<Outgoing>, Refusal> {
        let host: &'v Host = self.host;
        let (model, limits) = (target.model, &host.config.limits);
        let deadline = begun + limits.request_timeout;
        let _admitted = host.load.admit()?;
        if !parts.method.is_safe() {
            host.load.room(self.link.protocol())?;
        }
        let prepared = async {
            caller.may_ask(&target, parts)?;
            let lot = variant::lot(model, &parts.headers, envelope)?;
            request::accepts(&parts.headers, "application", "json")?;
            let (request, wish) = request::read(target, parts, body, limits, (caller, deadline)).await?;
            Ok((operation::Request { lot, ..request }, wish))
        };
        let (mut request, wish) = prepared.await.inspect_err(|problem| host.count_refused(model, problem))?;
        self.count_body(&request.operation);
        if model.spec().code.is_some() {
            envelope.request_id.to_str().unwrap_or_default().clone_into(&mut request.request_id);
        }
        let removed = matches!(request.operation, Operation::Remove { .. });
        let reply = self.execute(request, deadline).await?;
        let query = parts.uri.query().unwrap_or_default();
        let about = About { endpoint: model.endpoint(), query, wish, removed };
        Ok(envelope.reply(reply, &about))
    }

    /// The engine keeps the deadline itself; this is the last word if it does not.
    async fn execute(
        &self,
        request: operation::Request,
        deadline: Instant,
    ) -> Result<operation::Reply, Problem> {
        let (reads, is_keyed) = (!request.operation.writes(), request.idempotency.is_some());
        let answer = pin!(self.host.engine.execute(request));
        let answer = tokio::time::timeout_at((deadline + DEADLINE_SLACK).into(), answer);
        let leaves = tokio::select! {
            biased;
            outcome = answer => match outcome {
                Ok(outcome) => return outcome,
                Err(_) => false,
            },
            () = self.link.answer_now() => true,
        };
        let (code, detail) = match (reads, leaves) {
            (true, true) => (ProblemCode::Unavailable, serve::LEAVES),
            (true, false) => {
                (ProblemCode::DeadlineExceeded, "the answer was not ready in the time there was")
            }
            (false, true) => (
                ProblemCode::WriteOutcomeUnknown,
                "the worker leaves and had no answer yet; the same request with its Idempotency-Key tells",
            ),
            (false, false) => (
                ProblemCode::WriteOutcomeUnknown,
                "the store did not answer in the time there was; the same request with its Idempotency-Key tells",
            ),
        };
        let problem = Problem::new(code, detail);
        Err(if reads || is_keyed { problem } else { problem.not_to_be_repeated() })
    }

    /// A large answer waits until its client takes it, which may have asked for many before it takes one. What has
    /// changed something is answered all the same, and so are operators, who want to know how the worker is.
    fn let_wait(&self, response: &mut Response<Outgoing>, envelope: &Envelope<'_>, method: &Method) {
        let bytes = response.body().known_bytes();
        if bytes <= UNCOUNTED_BYTES_MAX || self.link.protocol() == Protocol::Unknown {
            return;
        }
        let load = &self.host.load;
        let may_be_refused = method.is_safe() && self.link.audience() == Audience::Public;
        let held = if may_be_refused { load.hold(bytes) } else { Ok(load.hold_anyway(bytes)) };
        match held {
            Ok(held) => response.body_mut().wait(self.link, held),
            Err(problem) => *response = envelope.refuse(&problem.into()),
        }
    }

    fn count_body(&self, operation: &Operation) {
        let bytes = operation.body().len() as u64;
        self.host.cell.counter(Counter::BytesIn).fetch_add(bytes, Ordering::Relaxed);
    }

    /// Reads out the body of a request that was refused without it, so that the connection stays usable. A client
    /// that waits for `100 Continue` will not send it.
    async fn settle(&self, parts: &Parts, body: &mut RequestBody) {
        if !parts.headers.contains_key(header::EXPECT) {
            let bytes_max = self.host.config.limits.body_bytes_max;
            body.discard(bytes_max, Instant::now() + DISCARD_TIME).await;
        }
    }

    /// What is said about a request that met a defect. The client learns that there was one, the log which.
    fn broken(
        &self,
        defect: &Defect,
        envelope: &Envelope<'_>,
        (method, headers): (&Method, &HeaderMap),
        path: &str,
    ) -> Refusal {
        self.host.cell.counter(Counter::Defects).fetch_add(1, Ordering::Relaxed);
        tracing::error!(
            target: "aegis::worker",
            method = method.as_str(),
            path,
            id = envelope.request_id.to_str().unwrap_or_default(),
            panic = defect.words,
            "a request met a defect of the host and was ended",
        );
        let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        let detail = if reads {
            "a defect of the host ended the request; the log of the host has it under this request id"
        } else {
            "a defect of the host ended the request, which may or may not have changed something; \
             the log of the host has it under this request id"
        };
        let problem = Problem::new(ProblemCode::Internal, detail);
        let is_keyed = headers.contains_key(&request::IDEMPOTENCY_KEY);
        if reads || is_keyed { problem.into() } else { problem.not_to_be_repeated().into() }
    }

    /// Who asks, as the gate says; nobody is asked without one.
    fn asked(&self, ask: impl FnOnce(&Gate) -> Result<Caller, Refusal>) -> Result<Caller, Refusal> {
        self.host.gate.as_ref().filter(|_| !self.is_own).map_or(Ok(Caller::Trusted), ask)
    }

    /// Whether the request is looked at at all. One that is not counts as well.
    fn check_head(&self, parts: &Parts, glance: &Glance<'_>) -> Result<(), Problem> {
        let line = (parts.version, &parts.uri);
        let checked = request::check_head(line, &parts.headers, glance, &self.host.config.limits);
        if checked.is_err() {
            self.admit(None)?;
        }
        checked
    }

    /// Who asks for this place, once the request was counted. Whether the host is well may be asked at any time.
    fn counted_at(&self, parts: &Parts, place: Option<&Place<'_, '_>>) -> Result<Caller, Refusal> {
        let asked = self.caller_at(parts, place);
        if matches!(place, Some(Place::Alive | Place::Ready)) { asked } else { self.counted(asked) }
    }

    /// What is asked, once the request was counted: for the caller who is known, else for where it comes from.
    fn counted(&self, asked: Result<Caller, Refusal>) -> Result<Caller, Refusal> {
        self.admit(asked.as_ref().ok())?;
        asked
    }

    /// Lets a request in, unless its client asks more often than it may.
    fn admit(&self, caller: Option<&Caller>) -> Result<(), Problem> {
        let Some(throttle) = &self.host.throttle else { return Ok(()) };
        let Some(origin) = self.link.origin() else { return Ok(()) };
        throttle.admit(origin, caller.and_then(Caller::principal).map(Arc::as_ref))
    }

    fn caller_at(&self, parts: &Parts, place: Option<&Place<'_, '_>>) -> Result<Caller, Refusal> {
        self.asked(|gate| {
            let headers = &parts.headers;
            let door = Door {
                lets_operators_in: self.may_administer(&Caller::Anonymous, parts)
                    // Whom it turns away is told why, unless they say who they are.
                    || (self.link.audience() == Audience::Admin && !headers.contains_key(header::AUTHORIZATION)),
                takes_webhooks: self.host.config.reload.webhook_secret.is_some(),
            };
            gate.at_place(headers, place, door)
        })
    }

    fn may_administer(&self, caller: &Caller, parts: &Parts) -> bool {
        self.host.config.admin_on_public || caller.is_admin() || self.link.lets_operators_in(parts)
    }

    fn envelope(&self, given_id: Option<&HeaderValue>, extent: Extent) -> Envelope<'v> {
        let request_id =
            given_id.and_then(request::request_id).unwrap_or_else(|| self.host.identity.fresh_request_id());
        Envelope { host: self.host, request_id, extent, next: self.next(), variant: OnceLock::new() }
    }

    fn next(&self) -> Next {
        let says_goodbye = || self.host.leaving.says_goodbye(self.link.id(), || self.host.clock.advance());
        if self.link.was_told(Order::LastResponse) || says_goodbye() { self.closing() } else { Next::Open }
    }

    /// HTTP/2 has no such header; it says GOAWAY.
    fn closing(&self) -> Next {
        if self.link.protocol() == Protocol::Http2 { Next::Open } else { Next::Closing }
    }

    fn log(
        &self,
        response: &Response<Outgoing>,
        took: Duration,
        envelope: &Envelope<'_>,
        method: &Method,
        path: &str,
    ) {
        tracing::info!(
            target: "aegis::request",
            method = method.as_str(),
            path,
            status = response.status().as_u16(),
            bytes = response.body().known_bytes(),
            // What was done took some time, however little.
            microseconds = microseconds(took).max(1),
            id = envelope.request_id.to_str().unwrap_or_default(),
        );
    }
}

/// What is said where a method is none of those that are answered; `OPTIONS` asks for them.
fn not_answered(
    method: &Method,
    allow: Cow<'static, str>,
    envelope: &Envelope<'_>,
) -> Result<Response<Outgoing>, Refusal> {
    if *method == Method::OPTIONS {
        return Ok(envelope.options(&allow));
    }
    let detail = format!("{method} is not allowed here, only {allow}");
    let problem = Problem::new(ProblemCode::MethodNotAllowed, detail);
    Err(Refusal { allow: Some(allow), ..problem.into() })
}

fn admin_only(sign_of_page: Option<String>) -> Problem {
    let detail = sign_of_page.unwrap_or_else(|| "this is answered on the admin listener only".to_owned());
    Problem::new(ProblemCode::AdminOnly, detail)
}

/// The revision that an entity tag names, if it is one tag as we write it.
fn revision_of(tag: &HeaderValue) -> Option<u64> {
    let digits = tag.as_bytes().strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    if digits.is_empty() || digits.len() > 19 || digits[0] == b'0' {
        return None;
    }
    digits
        .iter()
        .try_fold(0_u64, |value, digit| digit.is_ascii_digit().then(|| value * 10 + u64::from(digit - b'0')))
}

/// Asks the worker itself what a client would, on the same way. Returns the status of the answer.
pub(crate) async fn self_test(host: &Arc<Host>) -> StatusCode {
    let ledger = Ledger::new(Arc::clone(&host.clock));
    let link = ledger.link_of_nobody(&host.seats);
    let listed = |model: &&Arc<Model>| !custom::replaces_list(model);
    let path = match host.catalog.models().iter().find(listed) {
        Some(model) => format!("{}/models/{}?__limit=1", host.config.api_root, model.endpoint()),
        None => "/livez".to_owned(),
    };
    let request = Request::builder().uri(path).header(header::HOST, "localhost");
    let request = request.header(header::ACCEPT, "application/json").body(());
    let Ok(request) = request else { return StatusCode::INTERNAL_SERVER_ERROR };
    let (parts, ()) = request.into_parts();
    let visit = Visit { host, link: &link, is_own: true };
    visit.answer(parts, RequestBody::given(Bytes::new()), Instant::now()).await.status()
}

/// Memory that is taken for a request that is not answered at once, bytes.
#[cfg(test)]
pub(crate) fn bytes_taken_for_a_request(host: &Arc<Host>) -> usize {
    let link = Ledger::new(Arc::clone(&host.clock)).link_of_nobody(&host.seats);
    let (parts, ()) = Request::new(()).into_parts();
    let visit = Visit { host, link: &link, is_own: true };
    size_of_val(&visit.answer(parts, RequestBody::given(Bytes::new()), Instant::now()))
}
