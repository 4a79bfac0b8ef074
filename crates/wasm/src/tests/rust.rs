//! A service over `wasi:http` 0.3 as anybody would write it, in Rust. `scripts/guests` builds it.

use std::{fs, path::Path};

use aegis_domain::service::{ServiceSpec, Wasi, usual_limits};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc;

use super::{
    visits::{Pieces, Visited, nothing, trapped_service},
    *,
};
use crate::{CodeCache, HttpService, RefusalCode};

/// How long code may run that is meant to be late.
pub(super) const SHORT_MS: u32 = 200;
/// How much later than its deadline it may end, on a busy machine.
pub(super) const SLACK: Duration = Duration::from_millis(600);

pub(super) fn hello() -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().parent().unwrap();
    let path = root.join("tests/guests/hello/components/rust.wasm");
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn quick() -> CodeLimits {
    CodeLimits { call_ms_max: SHORT_MS, ..usual_limits() }
}

fn visited(limits: CodeLimits) -> Visited {
    Visited::of(&hello(), limits)
}

pub(super) fn is_late<T: std::fmt::Debug>(result: &Result<T, CallError>) {
    assert!(matches!(result, Err(CallError::Deadline { .. })), "{result:?}");
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn a_request_reaches_the_code_and_its_answer_the_client() {
    let visited = visited(usual_limits());
    let (status, body) = visited.get("/hello/%7Ea//b?x=%20&y").unwrap();
    assert_eq!((status, body.unwrap()), (StatusCode::OK, Bytes::from("hello-0.3-one/hello/%7Ea//b?x=%20&y")));
    let (_, poured) = visited.get("/hello/pour").unwrap();
    assert_eq!(poured.unwrap().len(), 8 << 20);
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn a_body_goes_in_and_comes_out_piece_by_piece_whether_the_code_reads_it_or_not() {
    let visited = visited(usual_limits());
    visited.tokio.block_on(async {
        for (path, expected) in [("/echo", StatusCode::CREATED), ("/through", StatusCode::OK)] {
            let (pieces, waiting) = mpsc::channel::<Bytes>(1);
            let response = visited.ask(path, Pieces(waiting)).await.unwrap();
            assert_eq!(response.status(), expected);
            let mut body = response.into_body();
            for piece in ["one", "two", "three"] {
                pieces.send(Bytes::from(piece)).await.unwrap();
                let came = body.frame().await.unwrap().unwrap().into_data().unwrap();
                assert_eq!(came, piece, "{path}: it comes back before the next one goes in");
            }
            drop(pieces);
            let rest = body.collect().await.unwrap().to_bytes();
            assert!(rest.is_empty(), "{path}: {rest:?}");
        }
    });
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn header_fields_and_trailers_go_in_and_come_out() {
    let visited = visited(usual_limits());
    visited.tokio.block_on(async {
        for path in ["/echo", "/through"] {
            let trailers = HeaderMap::from_iter([(
                http::HeaderName::from_static("x-sum"),
                HeaderValue::from_static("6"),
            )]);
            let body = Full::new(Bytes::from("abcdef")).with_trailers(async { Some(Ok(trailers)) });
            let body = body.map_err(|never: std::convert::Infallible| match never {});
            let response = visited.ask(path, body).await.unwrap();
            assert_eq!(response.headers().contains_key("x-own"), path == "/echo");
            let whole = response.into_body().collect().await.unwrap();
            assert_eq!(whole.trailers().unwrap()["x-sum"], "6", "{path}");
            assert_eq!(whole.to_bytes(), "abcdef", "{path}");
        }
    });
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn code_that_fails_costs_its_instance_and_tells_why() {
    let visited = visited(CodeLimits { calls_per_instance_max: 100, ..usual_limits() });
    let one = || assert_eq!(visited.get("/nth").unwrap().1.unwrap(), "1");
    one();
    let reason = trapped_service(visited.get("/trap"));
    assert!(reason.contains("unreachable") && reason.contains("; it wrote: about to fail"), "{reason}");
    one();
    let (status, body) = visited.get("/late").unwrap();
    assert!(status == StatusCode::OK && matches!(body, Err(CallError::Trapped { .. })), "{body:?}");
    one();
    match visited.get("/refuse") {
        Err(CallError::Refused(refusal)) => {
            assert_eq!(refusal.code, RefusalCode::Internal);
            assert_eq!(refusal.message, "service hello answered the error ErrorCode::ConfigurationError");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn code_ends_at_its_deadline_whatever_it_does() {
    let visited = visited(quick());
    let allowed = Duration::from_millis(SHORT_MS.into());
    for path in ["/spin", "/turn", "/wait"] {
        let begun = Instant::now();
        is_late(&visited.get(path));
        let took = begun.elapsed();
        assert!(took >= allowed && took < allowed + SLACK, "{path}: {took:?}");
    }
    // What it answered is out, and its end is not well.
    let (_, lingering) = visited.get("/linger").unwrap();
    is_late(&lingering);
    // A body that the code only passes on.
    visited.tokio.block_on(async {
        let (pieces, waiting) = mpsc::channel::<Bytes>(1);
        let response = visited.ask("/through", Pieces(waiting)).await.unwrap();
        pieces.send(Bytes::from("one")).await.unwrap();
        is_late(&response.into_body().collect().await);
        assert!(pieces.is_closed(), "nobody takes more of it");
    });
    assert_eq!(visited.get("/nth").unwrap().1.unwrap(), "1");
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn code_that_spins_keeps_nobody_else_waiting() {
    let visited = visited(CodeLimits { call_ms_max: 3_000, ..usual_limits() });
    let one_thread = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for path in ["/spin", "/turn"] {
        one_thread.block_on(async {
            let spinning = async { visited.ask(path, nothing()).await };
            let answered = async {
                for _ in 0..10 {
                    let response = visited.ask("/hello", nothing()).await.unwrap();
                    response.into_body().collect().await.unwrap();
                }
            };
            tokio::select! {
                biased;
                spun = spinning => panic!("{path} ended first: {spun:?}"),
                () = answered => {}
            }
        });
    }
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn an_instance_answers_one_request_unless_it_may_answer_more() {
    let digits = |requests_max| {
        let visited = visited(CodeLimits { calls_per_instance_max: requests_max, ..usual_limits() });
        [(); 3].map(|()| visited.get("/nth").unwrap().1.unwrap()[0] - b'0')
    };
    assert_eq!(digits(1), [1, 1, 1]);
    assert_eq!(digits(2), [1, 2, 1], "and no more than it may");
    assert_eq!(digits(u64::MAX), [1, 2, 3]);
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn ten_thousand_requests_leave_nothing_behind_in_one_instance() {
    let visited = visited(CodeLimits { calls_per_instance_max: u64::MAX, ..usual_limits() });
    for _ in 0..10_500 {
        visited.get("/echo").unwrap().1.unwrap();
    }
    assert_eq!(visited.get("/nth").unwrap().1.unwrap(), "10501");
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn memory_and_handles_are_limited_and_other_hosts_are_denied() {
    let limits = CodeLimits { memory_bytes_max: 16 << 20, calls_per_instance_max: 100, ..usual_limits() };
    let visited = visited(limits);
    let (_, pieces) = visited.get("/hoard").unwrap();
    let pieces: u32 = std::str::from_utf8(&pieces.unwrap()).unwrap().parse().unwrap();
    assert!((8..16).contains(&pieces), "{pieces} MiB");
    assert_eq!(visited.get("/nth").unwrap().1.unwrap(), "1", "and what has taken so much is not used again");
    let reason = trapped_service(visited.get("/open"));
    assert!(reason.contains("handle limit exceeded"), "{reason}");
    let (status, body) = visited.get("/ask?127.0.0.1:1").unwrap();
    assert_eq!((status, body.unwrap()), (StatusCode::BAD_GATEWAY, "ErrorCode::HttpRequestDenied".into()));
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn code_that_nobody_waits_for_ends_and_makes_room() {
    let visited = visited(CodeLimits { instances_max: 1, ..usual_limits() });
    visited.tokio.block_on(async {
        for path in ["/spin", "/wait"] {
            let left = tokio::time::timeout(Duration::from_millis(50), visited.ask(path, nothing())).await;
            assert!(left.is_err(), "it does not end");
            let next = tokio::time::timeout(PATIENCE, visited.ask("/hello", nothing())).await;
            let next = next.expect("there is room").unwrap();
            assert_eq!(next.status(), StatusCode::OK);
        }
        let poured = visited.ask("/pour", nothing()).await.unwrap();
        drop(poured);
        let next = tokio::time::timeout(PATIENCE, visited.ask("/hello", nothing())).await;
        assert!(next.expect("there is room").is_ok());
    });
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn the_second_engine_is_made_for_the_first_component_that_wants_it() {
    let older = Visited::of(&aegis_guests::service("older"), usual_limits());
    assert!(!older.runtime.has_both_engines());
    let newer = visited(usual_limits());
    assert!(newer.runtime.has_both_engines());
    // One worker runs both, side by side.
    let prepared = Compiler::new().unwrap().prepare_service(&hello(), None).unwrap();
    let both = Visited { service: load(&older.runtime, prepared, Wasi::V03).unwrap(), ..older };
    assert!(both.runtime.has_both_engines());
    assert_eq!(both.get("/nth").unwrap().1.unwrap(), "1");
    assert_eq!(older_answer(&both.runtime), "older/hello");
}

fn load(
    runtime: &Arc<Runtime>,
    prepared: crate::PreparedService,
    wasi: Wasi,
) -> Result<Arc<HttpService>, crate::MappingError> {
    let (file, place) = seal(&prepared.code);
    let (name, route, digest) = ("hello".to_owned(), "/hello".to_owned(), prepared.digest);
    let spec = ServiceSpec { name, route, digest, limits: usual_limits(), http: Vec::new(), wasi };
    runtime.load_service(&spec, (&file, place), Arc::new(NOTHING)).map(Arc::new)
}

/// What a service of WASI 0.2 says in this worker.
fn older_answer(runtime: &Arc<Runtime>) -> Bytes {
    let prepared = Compiler::new().unwrap().prepare_service(&aegis_guests::service("older"), None).unwrap();
    let service = load(runtime, prepared, Wasi::V02).unwrap();
    let tokio = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let visited = Visited { runtime: Arc::clone(runtime), service, tokio };
    visited.get("/hello").unwrap().1.unwrap()
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn code_of_one_engine_is_never_loaded_by_the_other() {
    let runtime = Arc::new(Runtime::new(1, 1).unwrap());
    let compiler = Compiler::new().unwrap();
    for (component, wasi) in [(hello(), Wasi::V02), (aegis_guests::service("older"), Wasi::V03)] {
        let prepared = compiler.prepare_service(&component, None).unwrap();
        assert_ne!(prepared.wasi, wasi);
        let Err(error) = load(&runtime, prepared, wasi) else { panic!("it is loaded") };
        assert!(error.to_string().contains("concurrency"), "{error}");
    }
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn compiled_code_is_kept_apart_from_that_of_the_other_engine() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("code");
    let cache = CodeCache::open(&place, 1 << 30).unwrap();
    let prepare = || Compiler::new().unwrap().prepare_service(&hello(), Some(&cache)).unwrap();
    let files = || fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let first = prepare();
    let [file] = files().try_into().unwrap();
    assert_eq!(prepare().code, first.code, "it is found again");
    // Somebody has put code of the classic engine in its place.
    let classic = Compiler::new().unwrap();
    classic.prepare_service(&aegis_guests::service("older"), Some(&cache)).unwrap();
    let older = files().into_iter().find(|other| *other != file).unwrap();
    fs::rename(older, &file).unwrap();
    assert_eq!(prepare().code.len(), first.code.len(), "and compiled anew where it is not what it has to be");
    assert_eq!(files(), [file]);
}
