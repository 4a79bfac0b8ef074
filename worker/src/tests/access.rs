//! Requests to a worker that asks who calls: what is refused, and in which words.

use aegis_config::{Auth, AuthKey, Config, Secret};
use aegis_domain::code::{CodeLimits, Grants};
use aegis_guests::{Guest, respond, whole};
use aegis_wasm::Terms;
use data_encoding::BASE64URL_NOPAD;
use ring::hmac;
use serde_json::{Value, json};

use super::house::{Client, House};
use crate::{generation::Offer, service};

const SECRET: &[u8] = b"a secret of more than 32 bytes, known to host and issuer";

fn asking(config: &mut Config) {
    let key = Some(AuthKey::Shared(Secret::new(SECRET.to_vec())));
    config.auth = Auth { enabled: true, key, ..Auth::default() };
}

/// A field `authorization` with a token of these claims.
fn bearer(claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let message = format!("{}.{}", part(&json!({"alg": "HS256"})), part(claims));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("authorization: Bearer {message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}

fn ada(roles: &[&str]) -> String {
    bearer(&json!({"sub": "ada", "roles": roles, "exp": 4_000_000_000_u64}))
}

#[tokio::test]
async fn a_refused_request_is_told_what_it_takes_and_no_more() {
    let house = House::with(asking).await;
    let expired = bearer(&json!({"sub": "ada", "exp": 1}));
    let nobody = house.ask("GET /aegis/api/models/todos/a\nx-request-id: r").await;
    let late = house.ask(&format!("GET /aegis/api/models/todos/a\n{expired}\nx-request-id: r")).await;
    let operator = house.ask(&format!("GET /aegis/api/config\n{}", ada(&["reader"]))).await;
    insta::assert_snapshot!([nobody.shown(), late.shown(), operator.shown()].join("\n\n"));
}

#[tokio::test]
async fn the_body_of_a_request_without_a_token_is_not_waited_for() {
    let house = House::with(asking).await;
    let mut client = house.client().await;
    client.send("POST /aegis/api/models/todos\ncontent-length: 100\nexpect: 100-continue").await;
    let refused = client.answer(super::house::Extent::Whole).await.unwrap();
    assert_eq!(refused.status, 401);
}

#[tokio::test]
async fn what_is_not_for_operators_needs_a_token_at_their_place_too() {
    let house = House::with(asking).await;
    let mut operator = house.operator().await;
    for (target, status) in [
        ("GET /aegis/api/config", 200),
        ("GET /metrics", 200),
        ("GET /aegis/api/models/todos", 401),
        ("GET /aegis/api/events", 401),
    ] {
        assert_eq!(operator.ask(target).await.status, status, "{target}");
    }
    // A proxy in front may have asked for something of its own.
    let proxied = operator.ask("GET /metrics\nauthorization: Basic YTpi").await;
    assert_eq!(proxied.status, 200, "{}", proxied.body);
    let listed = operator.ask(&format!("GET /aegis/api/models/todos\n{}", ada(&[]))).await;
    assert_eq!(listed.status, 200, "{}", listed.body);
}

#[tokio::test]
async fn on_the_admin_listener_a_token_counts_for_more_than_what_a_page_shows() {
    let house = House::with(asking).await;
    let mut operator = house.operator().await;
    operator.host = "proxy.example";
    for (fields, status, code) in [
        ("accept: */*".to_owned(), 403, Some("admin-only")),
        (ada(&[]), 403, Some("admin-only")),
        (ada(&["admin"]), 200, None),
        ("authorization: Basic YTpi".to_owned(), 401, Some("unauthorized")),
    ] {
        let answer =
            operator.ask(&format!("GET /aegis/api/config\n{fields}\norigin: https://a.example")).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, code), "{fields}");
    }
}

#[tokio::test]
async fn elsewhere_operators_need_a_token_and_webhooks_a_signature() {
    for has_secret in [false, true] {
        let house = House::with(|config| {
            asking(config);
            let secret = || Secret::new(b"It's a Secret to Everybody".to_vec());
            config.reload.webhook_secret = has_secret.then(secret);
        })
        .await;
        for target in
            ["GET /metrics", "GET /aegis/api/config", "GET /aegis/api/jobs/5", "POST /aegis/api/deploy"]
        {
            let nobody = house.ask(target).await;
            assert_eq!(nobody.status, 401, "{target}");
            assert_eq!(nobody.header("www-authenticate"), Some("Bearer realm=\"aegis\""), "{target}");
            assert_eq!(house.ask(&format!("{target}\n{}", ada(&[]))).await.status, 403, "{target}");
        }
        let code = if has_secret { "bad-signature" } else { "unauthorized" };
        let unsigned = house.ask("POST /reload").await;
        assert_eq!((unsigned.status, unsigned.json()["code"].as_str()), (401, Some(code)));
    }
}

#[tokio::test]
async fn a_worker_that_asks_who_calls_passes_its_own_test() {
    let house = House::with(asking).await;
    assert_eq!(service::self_test(&house.host).await, 200);
}

#[tokio::test]
async fn reads_from_the_cache_are_asked_about_on_every_connection() {
    let house = House::with(asking).await;
    let mut client: Client = house.client().await;
    let created = client
        .ask(&format!("POST /aegis/api/models/todos\n{}\n\n{{\"id\":\"a\",\"text\":\"x\"}}", ada(&[])))
        .await;
    assert_eq!(created.status, 201, "{}", created.body);
    for (fields, status) in [(String::new(), 401), (ada(&[]), 200), (String::new(), 401)] {
        let answer = client.ask(&format!("GET /aegis/api/models/todos/a\n{fields}")).await;
        assert_eq!(answer.status, status);
        let head = client.ask(&format!("HEAD /aegis/api/models/todos/a\n{fields}")).await;
        assert_eq!(head.status, status);
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_token_that_it_began_with() {
    let house = House::with(|config| {
        asking(config);
        config.auth.leeway = std::time::Duration::from_secs(0);
    })
    .await;
    let now_s = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let mut client = house.client().await;
    let short = bearer(&json!({"sub": "ada", "exp": now_s + 2}));
    client.send(&format!("GET /aegis/api/events\n{short}")).await;
    assert_eq!(client.answer(super::house::Extent::Head).await.unwrap().status, 200);
    assert!(client.until(b"0\r\n\r\n").await.is_some(), "the end of the stream");
}

#[tokio::test]
async fn a_generation_that_cannot_ask_what_its_models_want_is_not_taken() {
    let house = House::new().await;
    let catalog = crate::data::tests::catalog(&[
        "name = \"todo\"\nendpoint = \"todos\"\n[[acl]]\nsubject = \"anyone\"\nallow = [\"read\"]\n",
    ]);
    let sealed = super::house::sealed(&house.host.config, &catalog, &[], Vec::new());
    let refused = Offer::read(&sealed).err().expect("nobody would be asked");
    assert!(refused.to_string().contains("model TODO: acl: found who may"), "{refused}");
    let mut config = house.host.config.clone();
    config.auth.enabled = true;
    let sealed =
        super::house::sealed(&config, &crate::data::tests::catalog(&["name = \"todo\"\n"]), &[], Vec::new());
    assert!(Offer::read(&sealed).is_err(), "it has no key");
}

fn routed() -> Vec<u8> {
    let answer = || respond("(i32.const 200)", &[("content-type", "text/plain")], &whole("req_path"));
    let read = json!({"subject": "role", "name": "reader", "allow": ["read"]});
    let spec = json!({"name": "label", "endpoint": "labels", "version": "1.0.0", "acl": [read]});
    Guest::model(spec)
        .route(json!({"method": "get", "path": "/open", "public": true}), answer())
        .route(json!({"method": "get", "path": "/plain"}), answer())
        .route(json!({"method": "post", "path": "/plain"}), answer())
        .route(json!({"method": "post", "path": "//named", "allow": ["auditor"]}), answer())
        .build()
}

fn usual_terms() -> Terms {
    Terms { settings: json!({}), limits: CodeLimits::default(), grants: Grants::default() }
}

#[tokio::test]
async fn a_custom_route_is_public_or_for_those_it_names_or_for_whoever_may_what_its_method_does() {
    let house = House::of_components(&[&routed()], &usual_terms(), asking).await;
    let mut shown = Vec::new();
    for target in
        ["GET {}/open", "GET {}/plain", "HEAD {}/plain", "POST {}/plain", "POST /named", "PUT {}/open"]
    {
        for roles in [None, Some(&[][..]), Some(&["reader"]), Some(&["auditor"])] {
            let fields = roles.map_or_else(String::new, ada);
            let target = target.replace("{}", "/aegis/api/models/labels");
            let answer = house.ask(&format!("{target}\n{fields}")).await;
            shown.push(format!("{target} as {roles:?}: {}", answer.status));
        }
    }
    insta::assert_snapshot!(shown.join("\n"));
    let bad = house.ask("GET /aegis/api/models/labels/open\nauthorization: Bearer x").await;
    assert_eq!(bad.status, 401, "who says who they are has to prove it");
}

#[tokio::test]
async fn the_code_of_a_route_does_not_get_the_token() {
    let fields = ada(&[]);
    let count = async |house: &House| -> u32 {
        let answer = house.ask(&format!("GET /aegis/api/models/labels/headers\n{fields}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.body.trim().parse().unwrap()
    };
    let label = aegis_guests::label().build();
    let open = count(&House::of_components(&[&label], &usual_terms(), |_| ()).await).await;
    let guarded = count(&House::of_components(&[&label], &usual_terms(), asking).await).await;
    assert_eq!(guarded, open - 1);
}
