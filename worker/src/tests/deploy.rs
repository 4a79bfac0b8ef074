//! What operators deploy.

use aegis_ipc::{
    control::ToChild,
    deploy::{Order, Supply},
    operator::{Job, ReloadMode, Reply, Request, Verdict},
};
use serde_json::json;

use super::house::{Extent, House};

fn posted(query: &str, body: &str) -> String {
    format!("POST /aegis/api/deploy{query}\ncontent-type: application/json\n\n{body}")
}

fn an_order(supply: Supply) -> Order {
    Order { module: "todo".to_owned(), supply, sha256: None, force: false, mode: None, trial: None }
}

#[tokio::test]
async fn a_module_is_deployed_and_the_job_can_be_asked_for() {
    let house = House::new().await;
    let mut operator = house.operator().await;
    operator.send(&posted("", "{\"module\":\"todo\"}")).await;
    let (request, ask) = house.asked().await;
    assert_eq!(ask, Request::Deploy { order: an_order(Supply::App), wait: false });
    house.tell(&ToChild::Answer { request, reply: Reply::Accepted { job: 5 } });
    let accepted = operator.answer(Extent::Whole).await.unwrap();
    assert_eq!((accepted.status, accepted.header("location")), (202, Some("/aegis/api/jobs/5")));
    assert_eq!(accepted.json()["kind"], "deploy");
}

#[tokio::test]
async fn an_order_may_say_how_it_comes_into_force() {
    let house = House::new().await;
    let mut operator = house.operator().await;
    for (query, expected) in [("?mode=rolling", ReloadMode::Rolling), ("?mode=swap", ReloadMode::Swap)] {
        operator.send(&posted(query, "{\"module\":\"todo\"}")).await;
        let (request, ask) = house.asked().await;
        let order = Order { mode: Some(expected), ..an_order(Supply::App) };
        assert_eq!(ask, Request::Deploy { order, wait: false });
        house.tell(&ToChild::Answer { request, reply: Reply::Accepted { job: 5 } });
        assert_eq!(operator.answer(Extent::Whole).await.unwrap().status, 202);
    }
    let refused = operator.ask(&posted("?mode=maybe", "{\"module\":\"todo\"}")).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (400, Some("bad-parameter")));
    assert_eq!(refused.json()["detail"], "parameter \"mode\": found \"maybe\", expected rolling or swap");
}

#[tokio::test]
async fn whoever_waits_gets_the_verdict_with_every_reason() {
    let house = House::new().await;
    let mut operator = house.operator().await;
    let reasons = vec!["modules.todo: endpoint: found x, expected todos".to_owned(), "b".to_owned()];
    for (verdict, status, code) in [
        (Verdict::Done, 200, None),
        (Verdict::Rejected { reasons: reasons.clone() }, 409, Some("deploy-rejected")),
        (Verdict::Incompatible { reasons: reasons.clone() }, 409, Some("incompatible")),
        (Verdict::RolledBack { reason: "the canary traps".to_owned() }, 409, Some("deploy-rejected")),
    ] {
        let source = "https://a.example/todo/";
        let body = format!("{{\"module\":\"todo\",\"source\":\"{source}\",\"force\":true}}");
        operator.send(&posted("?wait=true", &body)).await;
        let (request, ask) = house.asked().await;
        let order = Order { force: true, ..an_order(Supply::Source(source.to_owned())) };
        assert_eq!(ask, Request::Deploy { order, wait: true });
        let (kind, step, verdict) = ("deploy".to_owned(), String::new(), Some(verdict));
        let job = Job { job: 5, kind, step, generation: 8, verdict };
        for reply in [Reply::Accepted { job: 5 }, Reply::Job(job)] {
            house.tell(&ToChild::Answer { request, reply });
        }
        let answer = operator.answer(Extent::Whole).await.unwrap();
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, code), "{}", answer.body);
        if ["deploy-rejected", "incompatible"].contains(&code.unwrap_or_default())
            && !answer.body.contains("traps")
        {
            assert_eq!(answer.json()["errors"].as_array().unwrap().len(), 2, "{}", answer.body);
        }
    }
}

#[tokio::test]
async fn a_malformed_order_is_refused_with_all_its_mistakes_at_once() {
    let house = House::new().await;
    let mut operator = house.operator().await;
    let body = json!({"module": 7, "source": "http://a.example/", "sha256": "abc", "force": "yes", "to": 1});
    let refused = operator.ask(&posted("", &body.to_string())).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (422, Some("invalid")));
    let told: Vec<_> = refused.json()["errors"].as_array().unwrap().iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(told.join("\n"));
    let steps =
        json!({"module": "todo", "source": "https://a.example/", "share": 0, "promote": true, "abort": 1});
    let refused = operator.ask(&posted("", &steps.to_string())).await;
    let told: Vec<_> = refused.json()["errors"].as_array().unwrap().iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    {"path":"/share","message":"found 0, expected a whole number of percent, 1 to 99"}
    {"path":"/source","message":"found \"https://a.example/\", expected none with promote"}
    {"path":"/abort","message":"found 1, expected true or false"}
    "#);
    for (body, status) in [("[]", 422), ("{}", 422), ("{\"module\":\"../x\"}", 422), ("{", 400)] {
        assert_eq!(operator.ask(&posted("", body)).await.status, status, "{body}");
    }
    let plain = "POST /aegis/api/deploy\ncontent-type: text/plain\n\n{\"module\":\"todo\"}";
    assert_eq!(operator.ask(plain).await.status, 415);
    assert_eq!(operator.ask("GET /aegis/api/deploy").await.status, 405);
}

#[tokio::test]
async fn a_module_that_is_not_there_needs_a_source() {
    let house = House::new().await;
    let refused = house.operator().await.ask(&posted("", "{\"module\":\"other\"}")).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (404, Some("no-such-module")));
    assert!(refused.json()["detail"].as_str().unwrap().contains("there are: todo"), "{}", refused.body);
}

#[tokio::test]
async fn only_operators_deploy_and_a_webhook_does_not() {
    let house = House::with(|config| {
        config.reload.webhook_secret =
            Some(aegis_config::Secret::new(b"It's a Secret to Everybody".to_vec()));
    })
    .await;
    let refused = house.ask(&posted("", "{\"module\":\"todo\"}")).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (403, Some("admin-only")));
    let signature = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let signed = format!("POST /aegis/api/deploy\nx-hub-signature-256: sha256={signature}\n\nHello, World!");
    assert_eq!(house.ask(&signed).await.status, 403);
}
