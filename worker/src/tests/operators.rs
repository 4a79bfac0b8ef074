//! What operators ask.

use std::sync::atomic::Ordering;

use aegis_ipc::{
    board::{StoreWord, monotonic_ms},
    control::ToChild,
    operator::{self, Job, ReloadMode, Reply, Verdict},
};
use serde_json::json;

use super::house::{Extent, House, eventually};

fn job(verdict: Option<Verdict>) -> Job {
    Job { job: 5, kind: "reload".into(), step: "canary serves".into(), generation: 8, verdict }
}

async fn answer_question(house: &House, expected: operator::Request, replies: Vec<Reply>) {
    let (request, ask) = house.asked().await;
    assert_eq!(ask, expected);
    for reply in replies {
        house.tell(&ToChild::Answer { request, reply });
    }
}

#[tokio::test]
async fn health_is_told_to_everybody_and_readiness_follows_the_store_and_the_drain() {
    let house = House::new().await;
    let mut client = house.client().await;
    let alive = client.ask("GET /livez").await;
    assert_eq!((alive.status, alive.json()), (200, json!({"status": "ok"})));
    assert_eq!(client.ask("GET /readyz").await.json(), json!({"status": "ready"}));
    let beat = house.host.board.store(StoreWord::Beat);
    let long_ago = monotonic_ms().saturating_sub(6_000);
    beat.store(long_ago, Ordering::Relaxed);
    let silent = client.ask("GET /readyz").await;
    assert_eq!((silent.status, silent.json()), (503, json!({"status": "store silent"})));
    beat.store(monotonic_ms() + 60_000, Ordering::Relaxed);
    assert_eq!(client.ask("GET /readyz").await.json(), json!({"status": "ready"}));
    house.store.go_down();
    eventually("the store is missed", || !house.host.engine.data().is_connected()).await;
    let ready = client.ask("GET /readyz").await;
    assert_eq!((ready.status, ready.json()), (503, json!({"status": "store away"})));
    house.host.leave(None, std::time::Duration::ZERO);
    let ready = client.ask("GET /readyz").await;
    assert_eq!((ready.status, ready.json()), (503, json!({"status": "draining"})));
}

#[tokio::test]
async fn operators_places_answer_on_the_admin_listener_only_unless_configured() {
    let places = ["GET /metrics", "GET /aegis/api/config", "GET /aegis/api/jobs/1", "POST /reload"];
    let house = House::new().await;
    for place in places {
        let refused = house.ask(place).await;
        assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("admin-only")), "{place}");
    }
    assert_eq!(house.operator().await.ask("GET /metrics").await.status, 200);
    assert_eq!(house.operator().await.ask("GET /livez").await.status, 200);
    let open = House::with(|config| config.admin_on_public = true).await;
    assert_eq!(open.ask("GET /metrics").await.status, 200);
}

#[tokio::test]
async fn what_a_web_page_makes_a_browser_ask_is_refused_on_the_admin_listener() {
    let house = House::new().await;
    let mut operator = house.operator().await;
    for (host, fields) in [
        ("localhost", "origin: https://evil.example"),
        ("localhost", "sec-fetch-site: cross-site"),
        ("evil.example", "accept: */*"),
    ] {
        operator.host = host;
        for place in ["POST /aegis/api/reload", "POST /reload", "POST /aegis/api/deploy", "GET /metrics"] {
            let refused = operator.ask(&format!("{place}\n{fields}")).await;
            assert_eq!(
                (refused.status, refused.json()["code"].as_str()),
                (403, Some("admin-only")),
                "{place}"
            );
            let detail = refused.json()["detail"].to_string();
            assert!(detail.contains("found") && detail.contains("expected"), "{detail}");
        }
        let config = operator.ask(&format!("GET /aegis.config.json\n{fields}")).await;
        assert_eq!((config.status, config.body.contains("/app")), (200, false), "{}", config.body);
    }
    operator.host = "localhost";
    let typed = operator.ask("GET /metrics\nsec-fetch-site: none").await;
    assert_eq!(typed.status, 200, "{}", typed.body);
}

#[tokio::test]
async fn the_configuration_hides_the_machine_from_the_public() {
    let house = House::new().await;
    let public = house.ask("GET /aegis.config.json").await;
    assert_eq!((public.status, public.body.contains("/app")), (200, false), "{}", public.body);
    let full = house.operator().await.ask("GET /aegis.config.json").await;
    assert!(full.body.contains("/app/data"), "{}", full.body);
}

#[tokio::test]
async fn details_are_arrays_about_models_and_workers() {
    let house = House::new().await;
    let created = house.ask("POST /aegis/api/models/todos\n\n{\"text\":\"<script>x</script>\"}").await;
    assert_eq!(created.status, 201);
    let mut operator = house.operator().await;
    for kind in
        ["models", "data", "events", "threads", "relations", "commands", "ports", "modules", "workers"]
    {
        let answer = operator.ask(&format!("GET /aegis/api/config?details={kind}")).await;
        assert_eq!(answer.status, 200, "{kind}");
        assert!(!answer.json().as_array().unwrap().is_empty(), "{kind}");
        let page = operator.ask(&format!("GET /aegis/api/config?details={kind}&html=true")).await;
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert!(page.body.starts_with("<!doctype html>"));
    }
    let data = operator.ask("GET /aegis/api/config?details=data&modelName=todo").await.json();
    assert_eq!((&data[0]["modelName"], &data[0]["total"]), (&json!("TODO"), &json!(1)));
    let models = operator.ask("GET /aegis/api/config").await.json();
    assert_eq!(models[0]["path"], "/aegis/api/models/todos");
    assert_eq!(operator.ask("GET /aegis/api/config?details=x").await.status, 400);
    assert_eq!(operator.ask("GET /aegis/api/config?modelName=x").await.status, 404);
}

#[tokio::test]
async fn a_reload_is_accepted_and_its_job_can_be_asked_for() {
    let house = House::new().await;
    let mut operator = house.operator().await;
    operator.send("POST /aegis/api/reload").await;
    let reload = operator::Request::Reload { wait: false, mode: None, automatic: false };
    answer_question(&house, reload, vec![Reply::Accepted { job: 5 }]).await;
    let accepted = operator.answer(Extent::Whole).await.unwrap();
    assert_eq!((accepted.status, accepted.header("location")), (202, Some("/aegis/api/jobs/5")));
    operator.send("GET /aegis/api/jobs/5").await;
    answer_question(&house, operator::Request::Job { job: 5 }, vec![Reply::Job(job(None))]).await;
    let state = operator.answer(Extent::Whole).await.unwrap().json();
    assert_eq!((&state["state"], &state["step"]), (&json!("running"), &json!("canary serves")));
    operator.send("GET /aegis/api/jobs/6").await;
    let unknown = Reply::Error { message: "no such job".into() };
    answer_question(&house, operator::Request::Job { job: 6 }, vec![unknown]).await;
    assert_eq!(operator.answer(Extent::Whole).await.unwrap().status, 404);
    assert_eq!(operator.ask("GET /aegis/api/jobs/x").await.status, 404);
}

#[tokio::test]
async fn a_waiting_reload_is_answered_with_its_verdict() {
    let house = House::new().await;
    let rejected = Verdict::Rejected { reasons: vec!["a.toml: bad".into(), "b.toml: worse".into()] };
    let rolled_back = Verdict::RolledBack { reason: "the canary crashed".into() };
    for (verdict, status) in
        [(Verdict::Done, 200), (Verdict::Unchanged, 200), (rejected, 409), (rolled_back, 409)]
    {
        let mut operator = house.operator().await;
        operator.send("POST /reload?wait=true").await;
        let progress = Reply::Progress { job: 5, step: "probe".into(), is_warning: false };
        let replies = vec![Reply::Accepted { job: 5 }, progress, Reply::Job(job(Some(verdict.clone())))];
        answer_question(
            &house,
            operator::Request::Reload { wait: true, mode: None, automatic: false },
            replies,
        )
        .await;
        let answer = operator.answer(Extent::Whole).await.unwrap();
        assert_eq!(answer.status, status, "{verdict:?}: {}", answer.body);
        if let Verdict::Rejected { reasons } = verdict {
            assert_eq!(answer.json()["errors"][1]["message"], reasons[1]);
        }
    }
}

#[tokio::test]
async fn a_reload_may_say_how_it_comes_into_force() {
    let house = House::new().await;
    for (word, mode) in [("swap", ReloadMode::Swap), ("rolling", ReloadMode::Rolling)] {
        let mut operator = house.operator().await;
        operator.send(&format!("POST /reload?mode={word}")).await;
        let reload = operator::Request::Reload { wait: false, mode: Some(mode), automatic: false };
        answer_question(&house, reload, vec![Reply::Accepted { job: 5 }]).await;
        assert_eq!(operator.answer(Extent::Whole).await.unwrap().status, 202);
    }
    let refused = house.operator().await.ask("POST /reload?mode=both").await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["detail"], "parameter \"mode\": found \"both\", expected rolling or swap");
}

#[tokio::test]
async fn a_waiting_reload_outlives_this_worker_as_a_job() {
    let house = House::new().await;
    let mut operator = house.operator().await;
    operator.send("POST /reload?wait=true").await;
    answer_question(
        &house,
        operator::Request::Reload { wait: true, mode: None, automatic: false },
        vec![Reply::Accepted { job: 5 }],
    )
    .await;
    house.drain(Some(std::time::Duration::from_millis(1_500)), std::time::Duration::ZERO);
    let answer = operator.answer(Extent::Whole).await.unwrap();
    assert_eq!((answer.status, answer.header("location")), (202, Some("/aegis/api/jobs/5")));
}
