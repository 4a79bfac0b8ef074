//! What git hosts and registries ask: a reload, with a signature in place of the admin listener.

use aegis_config::{Config, Secret};
use aegis_ipc::{control::ToChild, operator::Reply, operator::Request};
use serde_json::json;

use super::house::{Answer, Extent, House};

/// The example that GitHub gives: this secret, this body, this signature.
const SECRET: &[u8] = b"It's a Secret to Everybody";
const BODY: &str = "Hello, World!";
const SIGNATURE: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

fn with_secret(config: &mut Config) {
    config.reload.webhook_secret = Some(Secret::new(SECRET.to_vec()));
}

fn signed(target: &str, fields: &str) -> String {
    format!("POST {target}\nx-hub-signature-256: sha256={SIGNATURE}{fields}\n\n{BODY}")
}

async fn refused(house: &House, request: &str) -> Answer {
    let answer = house.ask(request).await;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (401, Some("bad-signature")), "{request}");
    assert_eq!(answer.header("www-authenticate"), Some("X-Hub-Signature-256"));
    answer
}

#[tokio::test]
async fn a_signed_request_reloads_at_every_place_of_reload() {
    let house = House::with(with_secret).await;
    for target in ["/reload", "/aegis/reload", "/aegis/api/reload"] {
        let mut client = house.client().await;
        client.send(&signed(target, "\nx-github-event: push")).await;
        let (request, ask) = house.asked().await;
        assert_eq!(ask, Request::Reload { wait: false, mode: None, automatic: true });
        house.tell(&ToChild::Answer { request, reply: Reply::Accepted { job: 5 } });
        let accepted = client.answer(Extent::Whole).await.unwrap();
        assert_eq!((accepted.status, accepted.header("location")), (202, Some("/aegis/api/jobs/5")));
    }
    let mut client = house.client().await;
    client.send(&signed("/reload?wait=true", "")).await;
    assert_eq!(house.asked().await.1, Request::Reload { wait: true, mode: None, automatic: true });
}

#[tokio::test]
async fn a_request_that_is_not_signed_well_is_refused_and_asks_for_nothing() {
    let house = House::with(with_secret).await;
    let field = "x-hub-signature-256:";
    let other = SIGNATURE.replace('7', "8");
    let short = &SIGNATURE[..62];
    for fields in [
        String::new(),
        format!("\n{field} sha256={other}"),
        format!("\n{field} sha256={short}"),
        format!("\n{field} sha256={SIGNATURE}00"),
        format!("\n{field} sha256=+f{short}"),
        format!("\n{field} sha1={SIGNATURE}"),
        format!("\n{field} {SIGNATURE}"),
        format!("\n{field} sha256={SIGNATURE}\n{field} sha256={SIGNATURE}"),
        format!("\nx-hub-signature: sha256={SIGNATURE}"),
        format!("\nx-github-event: ping\n{field} sha256={other}"),
    ] {
        let answer = refused(&house, &format!("POST /reload{fields}\n\n{BODY}")).await;
        assert!(!answer.body.contains("Secret"), "{}", answer.body);
    }
    refused(&house, &format!("POST /reload\n{field} sha256={SIGNATURE}\n\n{BODY} And more.")).await;
    refused(&house, &format!("POST /reload\n{field} sha256={SIGNATURE}\ncontent-length: 0\n\n")).await;
    // The first question of all is that of a signed request.
    let mut client = house.client().await;
    client.send(&signed("/reload", "")).await;
    assert_eq!(house.asked().await.0, 1);
}

#[tokio::test]
async fn digits_may_be_upper_case_and_a_ping_is_answered_without_a_reload() {
    let house = House::with(with_secret).await;
    let upper = SIGNATURE.to_ascii_uppercase();
    let ping = format!("POST /reload\nx-github-event: ping\nx-hub-signature-256: sha256={upper}\n\n{BODY}");
    let answer = house.ask(&ping).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"status": "ok"})));
}

#[tokio::test]
async fn a_body_is_bounded_and_the_connection_goes_on_after_a_refusal() {
    let house = House::with(|config| {
        with_secret(config);
        config.limits.body_bytes_max = 12;
    })
    .await;
    let mut client = house.client().await;
    assert_eq!(client.ask(&signed("/reload", "")).await.status, 413);
    let mut client = house.client().await;
    assert_eq!(client.ask("POST /reload\n\nunsigned").await.status, 401);
    assert_eq!(client.ask("GET /livez").await.status, 200);
    assert_eq!(client.ask("GET /reload").await.status, 405);
}

#[tokio::test]
async fn without_a_secret_a_signature_is_nothing_and_with_one_the_other_places_stay_closed() {
    let house = House::new().await;
    assert_eq!(house.ask(&signed("/reload", "")).await.json()["code"], "admin-only");
    let house = House::with(with_secret).await;
    for place in ["GET /metrics", "GET /aegis/api/jobs/5", "GET /aegis/api/config"] {
        assert_eq!(house.ask(place).await.json()["code"], "admin-only", "{place}");
    }
    assert!(!house.ask("GET /aegis.config.json").await.body.contains("ecret"));
    let full = house.operator().await.ask("GET /aegis.config.json").await.body;
    assert!(!full.contains("Everybody") && !full.contains("webhook_secret\""), "{full}");
    let mut operator = house.operator().await;
    operator.send("POST /reload").await;
    assert_eq!(
        house.asked().await.1,
        Request::Reload { wait: false, mode: None, automatic: false },
        "operators need no signature"
    );
}
