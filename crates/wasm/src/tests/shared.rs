//! Services of `wasi:http` 0.3 whose instances answer several requests at the same time. `scripts/guests` builds it.

use std::collections::BTreeSet;

use aegis_domain::service::usual_limits;
use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    rust::{SHORT_MS, SLACK, hello, is_late},
    visits::{Pieces, Visited, nothing, trapped_service},
    *,
};
use crate::ServiceBody;

/// Requests of one instance at a time.
const SEATS: u32 = 4;

fn several() -> CodeLimits {
    CodeLimits { calls_per_instance_max: 1000, calls_at_a_time_max: SEATS, ..usual_limits() }
}

fn visited(limits: CodeLimits) -> Arc<Visited> {
    Arc::new(Visited::of(&hello(), limits))
}

type Answered = Result<(StatusCode, Result<Bytes, CallError>), CallError>;

async fn ask(visited: &Visited, path: &str) -> Answered {
    let response = visited.ask(path, nothing()).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await.map(|whole| whole.to_bytes())))
}

async fn text(visited: &Visited, path: &str) -> String {
    let (_, body) = ask(visited, path).await.unwrap();
    String::from_utf8(body.unwrap().into()).unwrap()
}

/// Asks, and waits until the code has begun with it.
async fn begin(visited: &Arc<Visited>, path: &'static str) -> tokio::task::JoinHandle<Answered> {
    let (asking, before) = (Arc::clone(visited), visited.service.seats_taken());
    let asked = tokio::spawn(async move { ask(&asking, path).await });
    let ends = Instant::now() + PATIENCE;
    while visited.service.seats_taken() == before {
        assert!(Instant::now() < ends && !asked.is_finished(), "{path} does not begin");
        tokio::task::yield_now().await;
    }
    asked
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn requests_that_wait_for_one_another_meet_in_one_instance() {
    let visited = visited(CodeLimits { instances_max: 1, ..several() });
    let numbers = visited.tokio.block_on(async {
        let mut asked = JoinSet::new();
        for _ in 0..SEATS {
            let visited = Arc::clone(&visited);
            asked.spawn(async move { text(&visited, "/meet?4").await });
        }
        asked.join_all().await
    });
    let numbers: BTreeSet<String> = numbers.into_iter().collect();
    assert_eq!(numbers, ["1", "2", "3", "4"].map(str::to_owned).into());
    // And it waits for the next, when nobody is in it.
    assert_eq!(visited.get("/nth").unwrap().1.unwrap(), "5");
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn an_instance_has_no_more_at_a_time_and_in_its_life_than_it_may() {
    let visited = visited(CodeLimits { instances_max: 1, call_ms_max: 1_000, ..several() });
    visited.tokio.block_on(async {
        let mut waiting = Vec::new();
        for _ in 0..SEATS {
            waiting.push(begin(&visited, "/wait").await);
        }
        let next = tokio::time::timeout(Duration::from_millis(50), ask(&visited, "/nth")).await;
        assert!(next.is_err(), "{next:?}");
        for waiting in waiting {
            is_late(&waiting.await.unwrap());
        }
        assert_eq!(text(&visited, "/nth").await, "1", "the instance of those that were late has ended");
    });
    let visited = Visited::of(&hello(), CodeLimits { calls_per_instance_max: u64::from(SEATS), ..several() });
    let digits = [(); 6].map(|()| visited.get("/nth").unwrap().1.unwrap()[0] - b'0');
    assert_eq!(digits, [1, 2, 3, 4, 1, 2]);
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn a_request_that_waits_beyond_its_deadline_is_late_and_holds_nobody_up() {
    let visited = visited(several());
    visited.tokio.block_on(async {
        // One that is there when the other one's time is up, and goes on.
        let (pieces, mut body) = echoing(&visited).await;
        let until = Instant::now() + Duration::from_millis(SHORT_MS.into());
        is_late(&visited.ask_until(until, "/wait", nothing()).await);
        goes_on(&pieces, &mut body).await;
        assert_eq!(text(&visited, "/nth").await, "1", "the next has another instance");
        drop(pieces);
        assert!(body.collect().await.unwrap().to_bytes().is_empty());
    });
}

/// Begins with a request whose body is not at its end, and has the first of its answer.
async fn echoing(visited: &Visited) -> (mpsc::Sender<Bytes>, ServiceBody) {
    let (pieces, waiting) = mpsc::channel::<Bytes>(1);
    let mut body = visited.ask("/echo", Pieces(waiting)).await.unwrap().into_body();
    goes_on(&pieces, &mut body).await;
    (pieces, body)
}

async fn goes_on(pieces: &mpsc::Sender<Bytes>, body: &mut ServiceBody) {
    pieces.send(Bytes::from("one")).await.unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn code_that_computes_beyond_its_deadline_ends_with_its_instance_and_the_others_learn_why() {
    let visited = visited(several());
    visited.tokio.block_on(async {
        let (pieces, body) = echoing(&visited).await;
        let (begun, allowed) = (Instant::now(), Duration::from_millis(SHORT_MS.into()));
        is_late(&visited.ask_until(begun + allowed, "/spin", nothing()).await);
        assert!(begun.elapsed() >= allowed && begun.elapsed() < allowed + SLACK, "{:?}", begun.elapsed());
        match body.collect().await {
            Err(CallError::Involved { reason, .. }) => {
                assert_eq!(
                    reason,
                    "request r1 did not stop when its time was up; requests r1, r1 had one instance"
                );
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(text(&visited, "/nth").await, "1", "the next has another instance");
        drop(pieces);
    });
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn code_that_lets_others_run_at_each_turn_is_late_and_disturbs_nobody() {
    let visited = visited(several());
    visited.tokio.block_on(async {
        let (pieces, mut body) = echoing(&visited).await;
        let until = Instant::now() + Duration::from_millis(SHORT_MS.into());
        is_late(&visited.ask_until(until, "/turn", nothing()).await);
        goes_on(&pieces, &mut body).await;
        drop(pieces);
        assert!(body.collect().await.unwrap().to_bytes().is_empty());
    });
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn code_that_waits_and_lets_nobody_else_run_ends_when_the_time_of_all_is_up() {
    let visited = visited(CodeLimits { instances_max: 1, call_ms_max: SHORT_MS, ..several() });
    visited.tokio.block_on(async {
        let (pieces, body) = echoing(&visited).await;
        is_late(&ask(&visited, "/block").await);
        is_late(&body.collect().await);
        let next = tokio::time::timeout(PATIENCE, async {
            // There is one instance only, so there is no other one before that has ended.
            while ask(&visited, "/hello").await.is_err() {}
        });
        next.await.expect("there is room");
        drop(pieces);
    });
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn one_that_computes_keeps_nobody_waiting_who_has_not_begun() {
    let visited = visited(CodeLimits { call_ms_max: 5_000, ..several() });
    visited.tokio.block_on(async {
        for path in ["/spin", "/block"] {
            let spinning = begin(&visited, path).await;
            for _ in 0..20 {
                let answered = tokio::time::timeout(PATIENCE / 2, ask(&visited, "/hello")).await;
                assert_eq!(answered.expect(path).unwrap().0, StatusCode::OK);
            }
            assert!(!spinning.is_finished(), "{path}");
            spinning.abort();
        }
    });
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn a_failure_ends_all_requests_of_its_instance_and_counts_once() {
    let visited = visited(CodeLimits { instances_max: 1, ..several() });
    visited.tokio.block_on(async {
        let waiting = [begin(&visited, "/wait").await, begin(&visited, "/wait").await];
        let failed = ask(&visited, "/trap").await;
        let mut all = vec![failed];
        for waiting in waiting {
            all.push(waiting.await.unwrap());
        }
        let trapped: Vec<_> =
            all.iter().filter(|one| matches!(one, Err(CallError::Trapped { .. }))).collect();
        let involved: Vec<_> =
            all.iter().filter(|one| matches!(one, Err(CallError::Involved { .. }))).collect();
        assert_eq!((trapped.len(), involved.len()), (1, 2), "{all:?}");
        let told = format!("{:?}", involved[0]);
        assert!(told.contains("about to fail") && told.contains("requests r1, r1, r1"), "{told}");
        assert!(told.contains("unreachable"), "{told}");
        assert_eq!(text(&visited, "/nth").await, "1", "the next has a fresh one");
        let (status, body) = ask(&visited, "/late").await.unwrap();
        assert!(status == StatusCode::OK && matches!(body, Err(CallError::Trapped { .. })), "{body:?}");
    });
    assert!(trapped_service(visited.get("/open")).contains("handle limit exceeded"));
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn whoever_goes_away_ends_nothing_but_their_own_request() {
    let visited = visited(several());
    visited.tokio.block_on(async {
        let (pieces, mut body) = echoing(&visited).await;
        // One that waits, one that reads a body, and one whose answer is being taken.
        let leaving = begin(&visited, "/wait").await;
        let (their_pieces, waiting) = mpsc::channel::<Bytes>(1);
        let theirs = visited.ask("/echo", Pieces(waiting)).await.unwrap();
        let poured = visited.ask("/pour", nothing()).await.unwrap();
        leaving.abort();
        drop((theirs, poured));
        tokio::time::timeout(PATIENCE, their_pieces.closed()).await.expect("nobody reads it any more");
        goes_on(&pieces, &mut body).await;
        drop(pieces);
        assert!(body.collect().await.unwrap().to_bytes().is_empty());
        assert_eq!(text(&visited, "/nth").await, "1", "the next has another instance");
    });
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn bodies_go_in_and_out_side_by_side_and_no_faster_than_they_are_taken() {
    let visited = visited(CodeLimits { instances_max: 1, ..several() });
    visited.tokio.block_on(async {
        let slow = visited.ask("/pour", nothing()).await.unwrap();
        let mut asked = JoinSet::new();
        for path in ["/echo", "/through", "/echo"] {
            let visited = Arc::clone(&visited);
            asked.spawn(async move {
                let (pieces, waiting) = mpsc::channel::<Bytes>(1);
                let response = visited.ask(path, Pieces(waiting)).await.unwrap();
                let mut body = response.into_body();
                for piece in ["one", "two", "three"] {
                    pieces.send(Bytes::from(piece)).await.unwrap();
                    let came = body.frame().await.unwrap().unwrap().into_data().unwrap();
                    assert_eq!(came, piece, "{path}: it comes back before the next one goes in");
                }
                drop(pieces);
                assert!(body.collect().await.unwrap().to_bytes().is_empty());
            });
        }
        asked.join_all().await;
        let poured = slow.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(poured.len(), 8 << 20, "nobody took it in the meantime, and all is there");
    });
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn what_goes_on_after_an_answer_has_its_time_and_lets_others_in() {
    let visited = visited(CodeLimits { instances_max: 1, call_ms_max: SHORT_MS, ..several() });
    visited.tokio.block_on(async {
        assert_eq!(text(&visited, "/linger").await, "hello-0.3-one");
        assert_eq!(text(&visited, "/nth").await, "2", "it is the same instance");
        let ends = Instant::now() + PATIENCE;
        while text(&visited, "/nth").await != "1" {
            assert!(Instant::now() < ends, "it goes on for ever");
            tokio::time::timeout(
                Duration::from_millis(u64::from(SHORT_MS) * 2),
                std::future::pending::<()>(),
            )
            .await
            .unwrap_err();
        }
    });
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn memory_belongs_to_the_instance_and_one_that_has_taken_too_much_takes_nobody_any_more() {
    let visited = visited(CodeLimits { memory_bytes_max: 16 << 20, ..several() });
    visited.tokio.block_on(async {
        let waiting = begin(&visited, "/meet?3").await;
        let (_, pieces) = ask(&visited, "/hoard").await.unwrap();
        let pieces: u32 = std::str::from_utf8(&pieces.unwrap()).unwrap().parse().unwrap();
        assert!((8..16).contains(&pieces), "{pieces} MiB");
        assert_eq!(text(&visited, "/nth").await, "1");
        assert!(!waiting.is_finished(), "whoever is there goes on");
        waiting.abort();
    });
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn ten_thousand_requests_side_by_side_leave_nothing_behind_in_one_instance() {
    let limits = CodeLimits { instances_max: 1, calls_per_instance_max: u64::MAX, ..several() };
    let visited = visited(limits);
    visited.tokio.block_on(async {
        let mut asked = JoinSet::new();
        for _ in 0..8 {
            let visited = Arc::clone(&visited);
            asked.spawn(async move {
                for _ in 0..1_313 {
                    ask(&visited, "/echo").await.unwrap().1.unwrap();
                }
            });
        }
        asked.join_all().await;
        assert_eq!(text(&visited, "/nth").await, "10505");
    });
}
