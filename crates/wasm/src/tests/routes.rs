//! Custom routes.

use aegis_domain::{
    code::{CodeLimits, CommandPlace},
    route::Verb,
};
use bytes::Bytes;

use super::{Worker, call};
use crate::{CallError, Entry, RefusalCode, RouteRequest, RouteResponse};

fn request(route: &str) -> RouteRequest {
    RouteRequest {
        method: Verb::Get,
        route: route.to_owned(),
        path: "/aegis/api/models/labels/7".to_owned(),
        query: "a=b".to_owned(),
        params: vec![("id".to_owned(), "7 é".to_owned())],
        headers: vec![("x-one".to_owned(), Bytes::from_static(b"\xff")), ("x-two".to_owned(), Bytes::new())],
        body: Bytes::from_static(b"\x00\xff body"),
    }
}

fn ask(worker: &Worker, place: CommandPlace, request: RouteRequest) -> Result<RouteResponse, CallError> {
    worker.tokio.block_on(worker.runtime.route(&worker.module, place, call(), request))
}

fn body(worker: &Worker, route: &str) -> String {
    let answered = ask(worker, CommandPlace::Io, request(route)).unwrap();
    assert_eq!(answered.status, 200);
    String::from_utf8(answered.body.to_vec()).unwrap()
}

#[test]
fn a_route_is_given_the_request_and_answers_over_http() {
    let worker = Worker::of(&aegis_guests::label());
    assert_eq!(body(&worker, "/{id}/label"), "7 é");
    assert_eq!(body(&worker, "/query"), "a=b");
    assert_eq!(body(&worker, "/path"), "/aegis/api/models/labels/7");
    assert_eq!(body(&worker, "/headers"), "2");
    let echoed = ask(&worker, CommandPlace::Io, request("/echo")).unwrap();
    assert_eq!((echoed.status, &*echoed.body), (201, &b"\x00\xff body"[..]));
    assert_eq!(echoed.headers[1], ("x-kind".to_owned(), Bytes::from_static(b"echo")));
    assert_eq!(worker.module.instances(), 1);
}

#[test]
fn a_route_that_is_cpu_bound_runs_on_its_own_threads() {
    let worker = Worker::of(&aegis_guests::label());
    let burn = RouteRequest { body: Bytes::from_static(b"1000000"), ..request("/burn") };
    let answered = ask(&worker, CommandPlace::Cpu, burn).unwrap();
    assert!(String::from_utf8(answered.body.to_vec()).unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(worker.runtime.cpu().taken(), 0);
}

#[test]
fn a_route_that_refuses_traps_or_spins_ends_as_any_call_does() {
    let limits = CodeLimits { call_ms_max: 100, ..CodeLimits::default() };
    let worker = Worker::limited(&aegis_guests::label(), limits);
    match ask(&worker, CommandPlace::Io, request("/refuse")) {
        Err(CallError::Refused(refusal)) => assert_eq!(refusal.code, RefusalCode::Conflict),
        other => panic!("{other:?}"),
    }
    let trapped = ask(&worker, CommandPlace::Io, request("/trap")).unwrap_err();
    assert!(
        matches!(&trapped, CallError::Trapped { entry, .. } if entry == "route GET /trap"),
        "{trapped:?}"
    );
    let late = ask(&worker, CommandPlace::Io, request("/spin")).unwrap_err();
    assert!(matches!(&late, CallError::Deadline { entry, .. } if entry == "route GET /spin"), "{late:?}");
    assert_eq!(body(&worker, "/query"), "a=b", "the next call gets another instance");
}

#[test]
fn an_answer_beyond_the_payload_limit_is_not_taken() {
    let limits = CodeLimits { payload_bytes_max: 4096, ..CodeLimits::default() };
    let worker = Worker::limited(&aegis_guests::label(), limits);
    let large = RouteRequest { body: vec![7; 100_000].into(), ..request("/echo") };
    assert!(matches!(ask(&worker, CommandPlace::Io, large), Err(CallError::Trapped { .. })));
    assert_eq!(body(&worker, "/query"), "a=b");
}

#[test]
fn a_module_without_routes_says_so_when_it_is_asked() {
    let worker = Worker::of(&aegis_guests::plain());
    let entry = Entry::Route { request: Box::new(request("/x")) };
    assert!(super::trapped(worker.call(entry)).contains("it does not export aegis:module/routes"));
}
