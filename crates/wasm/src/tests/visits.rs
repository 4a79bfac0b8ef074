//! Services: what reaches the code, what comes back, and how it ends.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use aegis_domain::{
    outgoing::HostGrant,
    service::{ServiceSpec, usual_limits},
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc;

use super::{bank::Bank, *};
use crate::{HttpService, ServiceBody, UploadError, Visit, kind_of};

/// A worker with one service.
pub(super) struct Visited {
    pub(super) runtime: Arc<Runtime>,
    pub(super) service: Arc<HttpService>,
    pub(super) tokio: tokio::runtime::Runtime,
}

impl Visited {
    fn new(limits: CodeLimits) -> Self {
        Self::of(&aegis_guests::service("hello"), limits)
    }

    pub(super) fn of(component: &[u8], limits: CodeLimits) -> Self {
        Self::with(component, (limits, &[]), Arc::new(NOTHING))
    }

    /// One that may ask these hosts.
    fn with(component: &[u8], (limits, hosts): (CodeLimits, &[&str]), services: Arc<dyn Services>) -> Self {
        let prepared = Compiler::new().unwrap().prepare_service(component, None).unwrap();
        let (file, place) = seal(&prepared.code);
        let runtime = Arc::new(Runtime::new(1, 1).unwrap());
        let (name, route) = ("hello".to_owned(), "/hello".to_owned());
        let (digest, wasi) = (prepared.digest, prepared.wasi);
        let http = hosts.iter().map(|host| HostGrant::parse(host).unwrap()).collect();
        let spec = ServiceSpec { name, route, digest, limits, http, wasi };
        let service = runtime.load_service(&spec, (&file, place), services).unwrap();
        let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Self { runtime, service: Arc::new(service), tokio: tokio.unwrap() }
    }

    pub(super) async fn ask<B>(&self, path: &str, body: B) -> Result<Response<ServiceBody>, CallError>
    where
        B: Body<Data = Bytes, Error = UploadError> + Send + 'static,
    {
        self.ask_until(Instant::now() + PATIENCE, path, body).await
    }

    pub(super) async fn ask_until<B>(
        &self,
        deadline: Instant,
        path: &str,
        body: B,
    ) -> Result<Response<ServiceBody>, CallError>
    where
        B: Body<Data = Bytes, Error = UploadError> + Send + 'static,
    {
        let request = Request::builder().uri(path).header("x-own", "1").body(body).unwrap();
        let visit = Visit { request_id: "r1".to_owned(), deadline };
        self.runtime.serve(&self.service, visit, request).await
    }

    pub(super) fn get(&self, path: &str) -> Result<(StatusCode, Result<Bytes, CallError>), CallError> {
        self.tokio.block_on(async {
            let response = self.ask(path, nothing()).await?;
            let status = response.status();
            Ok((status, response.into_body().collect().await.map(|whole| whole.to_bytes())))
        })
    }
}

/// A body that comes as it is sent.
pub(super) struct Pieces(pub(super) mpsc::Receiver<Bytes>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
    }
}

pub(super) fn nothing() -> impl Body<Data = Bytes, Error = UploadError> + Send + 'static {
    Full::default().map_err(|never: std::convert::Infallible| match never {})
}

fn quick() -> CodeLimits {
    CodeLimits { call_ms_max: 100, ..usual_limits() }
}

#[test]
fn exports_make_a_component_a_service() {
    use aegis_domain::manifest::Kind;
    assert_eq!(kind_of(&aegis_guests::service("a")).unwrap(), Kind::HttpService);
    assert_eq!(kind_of(&aegis_guests::plain().build()).unwrap(), Kind::Model);
}

#[test]
fn path_and_query_reach_the_code_unchanged() {
    let (status, body) = Visited::new(usual_limits()).get("/hello/%7Ea//b?x=%20&y").unwrap();
    assert_eq!((status, body.unwrap()), (StatusCode::OK, Bytes::from("hello/hello/%7Ea//b?x=%20&y")));
}

#[test]
fn a_body_goes_in_and_comes_out_piece_by_piece() {
    let visited = Visited::new(usual_limits());
    visited.tokio.block_on(async {
        let (pieces, waiting) = mpsc::channel::<Bytes>(1);
        let response = visited.ask("/hello/echo", Pieces(waiting)).await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        assert_eq!(response.headers()["x-own"], "1");
        let mut body = response.into_body();
        for piece in ["one", "two", "three"] {
            pieces.send(Bytes::from(piece)).await.unwrap();
            let came = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(came, piece, "it comes back before the next one goes in");
        }
        drop(pieces);
        assert!(body.frame().await.is_none());
    });
}

#[test]
fn a_failure_before_the_head_is_an_error_and_later_the_end_of_the_body() {
    let visited = Visited::new(quick());
    assert!(trapped_service(visited.get("/hello/trap")).contains("unreachable"));
    assert!(trapped_service(visited.get("/hello/none")).contains("without an answer"));
    let spun = visited.get("/hello/spin");
    assert!(matches!(spun, Err(CallError::Deadline { .. })), "{spun:?}");
    let (status, body) = visited.get("/hello/late").unwrap();
    assert!(status == StatusCode::OK && matches!(body, Err(CallError::Trapped { .. })), "{body:?}");
    assert_eq!(
        visited.get("/hello").unwrap().1.unwrap(),
        "hello/hello",
        "and the next request has a fresh one"
    );
}

#[test]
fn an_instance_answers_one_request_unless_it_may_answer_more() {
    let digits = |requests_max| {
        let visited = Visited::new(CodeLimits { calls_per_instance_max: requests_max, ..usual_limits() });
        let ask = |path| visited.get(path).unwrap().1.unwrap();
        [ask("/hello/nth"), ask("/hello/nth"), ask("/hello/nth")].map(|digit| digit[0] - b'0')
    };
    assert_eq!(digits(1), [1, 1, 1]);
    assert_eq!(digits(2), [1, 2, 1], "and no more than it may");
    assert_eq!(digits(u64::MAX), [1, 2, 3]);
}

#[test]
fn an_instance_that_failed_is_not_asked_again() {
    let visited = Visited::new(CodeLimits { calls_per_instance_max: 100, ..quick() });
    for path in ["/hello/trap", "/hello/late", "/hello/spin"] {
        assert_eq!(visited.get("/hello/nth").unwrap().1.unwrap(), "1", "before {path}");
        let failed = visited.get(path);
        assert!(failed.is_err() || failed.is_ok_and(|(_, body)| body.is_err()), "{path}");
    }
}

#[test]
fn ten_thousand_requests_leave_nothing_behind_in_one_instance() {
    let visited = Visited::new(CodeLimits { calls_per_instance_max: u64::MAX, ..usual_limits() });
    for _ in 0..10_500 {
        visited.get("/hello/echo").unwrap().1.unwrap();
    }
    assert_eq!(visited.get("/hello/nth").unwrap().1.unwrap(), "1");
}

#[test]
fn requests_to_other_hosts_are_denied() {
    assert_eq!(Visited::new(usual_limits()).get("/hello/deny").unwrap().1.unwrap(), "denied");
}

#[test]
fn an_instance_that_goes_on_asks_the_services_of_the_generation_of_its_request() {
    let limits = CodeLimits { calls_per_instance_max: 100, ..usual_limits() };
    let (first, second) = (Arc::new(Bank::default()), Arc::new(Bank::default()));
    let hosts = &["127.0.0.1:9000"];
    let services = Arc::<Bank>::clone(&first);
    let mut visited = Visited::with(&aegis_guests::relay(), (limits, hosts), services);
    let ask = |visited: &Visited| visited.get("/hello?127.0.0.1:9000").unwrap().0;
    assert_eq!((ask(&visited), first.sent()), (StatusCode::BAD_GATEWAY, 1));
    let services = Arc::<Bank>::clone(&second);
    visited.service = Arc::new(visited.service.follow(2, services));
    assert_eq!((ask(&visited), first.sent(), second.sent()), (StatusCode::BAD_GATEWAY, 1, 1));
    assert_eq!(Arc::strong_count(&first), 1, "the generation before is let go of");
}

#[test]
fn code_that_nobody_waits_for_ends_and_makes_room() {
    let limits = CodeLimits { instances_max: 1, call_ms_max: 60_000, ..usual_limits() };
    let visited = Visited::new(limits);
    visited.tokio.block_on(async {
        let spun =
            tokio::time::timeout(Duration::from_millis(50), visited.ask("/hello/spin", nothing())).await;
        assert!(spun.is_err(), "it spins");
        let next = tokio::time::timeout(PATIENCE, visited.ask("/hello", nothing())).await;
        assert_eq!(next.expect("there is room").unwrap().status(), StatusCode::OK);
    });
}

pub(super) fn trapped_service<T: std::fmt::Debug>(result: Result<T, CallError>) -> String {
    match result {
        Err(CallError::Trapped { reason, .. }) => reason,
        other => panic!("found {other:?}, expected that it failed"),
    }
}

#[test]
fn instances_of_services_have_room_among_those_of_all_modules() {
    let visited = Visited::new(CodeLimits { calls_per_instance_max: 100, ..quick() });
    let all = visited.runtime.berths().leave(1);
    for number in ["1", "2"] {
        assert_eq!(visited.get("/hello/nth").unwrap().1.unwrap(), number);
    }
    let last = visited.tokio.block_on(visited.runtime.berths().take(1));
    let refused = visited.get("/hello/nth");
    assert!(matches!(refused, Err(CallError::Busy { .. })), "{refused:?}");
    drop((all, last));
    assert_eq!(visited.get("/hello/nth").unwrap().1.unwrap(), "1");
}
