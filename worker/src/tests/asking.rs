//! What code asks of its host beyond single documents: batches, aggregates, measurements, and code that asks code.

use std::time::{Duration, Instant};

use aegis_domain::code::{Access, CodeLimits, Grants};
use aegis_ipc::board::Counter;
use aegis_wasm::Terms;
use serde_json::{Value, json};

use super::house::{Answer, House, PATIENCE};

const ENTRIES: &str = "/aegis/api/models/entries";

fn terms(models: &[(&str, Access)], limits: CodeLimits) -> Terms {
    let models = models.iter().map(|(name, access)| ((*name).to_owned(), *access)).collect();
    Terms { settings: json!({}), limits, grants: Grants { models, ..Grants::default() } }
}

async fn entries() -> House {
    let limits = CodeLimits { call_ms_max: 60_000, ..CodeLimits::default() };
    let component = aegis_guests::entry().build();
    House::of_components(&[&component], &terms(&[], limits), |config| {
        config.limits.request_timeout = Duration::from_secs(60);
    })
    .await
}

async fn create(house: &House, ids: &[&str]) {
    for id in ids {
        let created = house.ask(&format!("POST {ENTRIES}\n\n{{\"id\":\"{id}\",\"n\":1}}")).await;
        assert_eq!(created.status, 201, "{}", created.body);
    }
}

async fn command(house: &House, name: &str, arguments: &str) -> Answer {
    house.ask(&format!("POST {ENTRIES}/desk/{name}\n\n{arguments}")).await
}

async fn ids(house: &House) -> Vec<String> {
    let documents = house.ask(&format!("GET {ENTRIES}?__sort=id")).await.json();
    documents.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

async fn metrics(house: &House) -> String {
    house.operator().await.ask("GET /metrics").await.body
}

#[tokio::test]
async fn many_documents_are_found_and_written_together() {
    let house = entries().await;
    create(&house, &["a", "b", "desk"]).await;
    assert_eq!(command(&house, "many", "{}").await.body, "121");
    let traded = command(&house, "trade", r#"{"id":"c"}"#).await;
    assert_eq!((traded.status, traded.body.as_str()), (200, "3"));
    assert_eq!(ids(&house).await, ["a", "c", "desk"]);
    let changed = house.ask(&format!("GET {ENTRIES}/a")).await.json();
    assert_eq!((&changed["traded"], &changed["revision"]), (&json!(true), &json!(2)), "{changed}");
}

#[tokio::test]
async fn a_batch_that_fails_in_one_write_changes_nothing() {
    let house = entries().await;
    create(&house, &["a", "desk"]).await;
    let missing = command(&house, "trade", r#"{"id":"c"}"#).await;
    assert_eq!(missing.status, 404, "{}", missing.body);
    let detail = missing.json()["detail"].clone();
    assert_eq!(detail, "write 2: there is no document of ENTRY with the id \"b\"");
    create(&house, &["b"]).await;
    let taken = command(&house, "trade", r#"{"id":"a"}"#).await;
    assert_eq!(taken.status, 409, "{}", taken.body);
    let wrong = command(&house, "trade", r#"{"id":7}"#).await;
    assert_eq!(wrong.status, 422, "{}", wrong.body);
    assert_eq!(ids(&house).await, ["a", "b", "desk"]);
    assert_eq!(house.ask(&format!("GET {ENTRIES}/a")).await.json()["revision"], 1);
}

#[tokio::test]
async fn a_batch_that_comes_to_more_than_its_code_is_given_at_once_changes_nothing() {
    let traded = async |payload_bytes_max: u64| {
        let limits = CodeLimits { payload_bytes_max, ..CodeLimits::default() };
        let component = aegis_guests::entry().build();
        let house = House::of_components(&[&component], &terms(&[], limits), |_| ()).await;
        create(&house, &["desk"]).await;
        for id in ["a", "b"] {
            let document = json!({ "id": id, "text": "x".repeat(3000) });
            assert_eq!(house.ask(&format!("POST {ENTRIES}\n\n{document}")).await.status, 201);
        }
        let traded = command(&house, "trade", r#"{"id":"c"}"#).await;
        (traded.status, traded.body, ids(&house).await)
    };
    let (status, body, left) = traded(5000).await;
    assert_eq!((status, left), (413, vec!["a".into(), "b".into(), "desk".into()]), "{body}");
    assert!(body.contains("write 2: found more than 5000 bytes of documents"), "{body}");
    let (status, body, left) = traded(8000).await;
    assert_eq!((status, left), (200, vec!["a".into(), "c".into(), "desk".into()]), "{body}");
}

#[tokio::test]
async fn of_batches_that_meet_each_takes_effect_as_a_whole() {
    let house = entries().await;
    create(&house, &["a", "b", "desk"]).await;
    let traders: Vec<_> = (0..8)
        .map(|number| {
            let address = house.public;
            tokio::spawn(async move {
                let mut client = super::house::Client::connect(address).await;
                client.ask(&format!("POST {ENTRIES}/desk/trade\n\n{{\"id\":\"new-{number}\"}}")).await.status
            })
        })
        .collect();
    let mut won = 0;
    for trader in traders {
        match trader.await.unwrap() {
            200 => won += 1,
            status => assert!(matches!(status, 404 | 409), "{status}"),
        }
    }
    assert_eq!(won, 1, "b can be removed once");
    let left = ids(&house).await;
    assert_eq!(left.iter().filter(|id| id.starts_with("new-")).count(), 1, "{left:?}");
    assert_eq!(house.ask(&format!("GET {ENTRIES}/a")).await.json()["revision"], 2);
}

#[tokio::test]
async fn a_pipeline_runs_over_documents_that_the_code_may_read() {
    let components = [aegis_guests::entry().build(), aegis_guests::todo().build()];
    let components: Vec<&[u8]> = components.iter().map(Vec::as_slice).collect();
    for (access, status) in [
        (Access::default(), 403),
        (Access { read: false, write: true }, 403),
        (Access { read: true, write: false }, 200),
    ] {
        let terms = terms(&[("TODO", access)], CodeLimits::default());
        let house = House::of_components(&components, &terms, |_| ()).await;
        create(&house, &["a", "b", "desk"]).await;
        let own = command(&house, "sums", "{}").await;
        assert_eq!((own.status, own.json()), (200, json!([{ "_id": null, "n": 3 }])), "{}", own.body);
        let foreign = command(&house, "foreign-sums", "{}").await;
        assert_eq!(foreign.status, status, "{access:?}: {}", foreign.body);
        let wrong = command(&house, "no-sums", "{}").await;
        assert_eq!(wrong.status, 422, "{}", wrong.body);
    }
}

#[tokio::test]
async fn what_code_measures_is_in_the_metrics_under_its_name() {
    let house = entries().await;
    create(&house, &["desk"]).await;
    for by in ["{\"x\":1}", "{\"x\":1}", "{}"] {
        assert_eq!(command(&house, "count", by).await.status, 200);
    }
    assert_eq!(command(&house, "observe", "{\"size\":25}").await.status, 200);
    let metrics = metrics(&house).await;
    for line in [
        "aegis_module_counted_total{module=\"entry\",by=\"{}\"} 1",
        "aegis_module_counted_total{module=\"entry\",by=\"{\\\"x\\\":1}\"} 2",
        "aegis_module_size_bucket{module=\"entry\",le=\"10\"} 0",
        "aegis_module_size_bucket{module=\"entry\",le=\"25\"} 1",
        "aegis_module_size_bucket{module=\"entry\",le=\"+Inf\"} 1",
        "aegis_module_size_sum{module=\"entry\"} 25",
        "aegis_module_size_count{module=\"entry\"} 1",
        "aegis_guest_module_calls_total{module=\"entry\"} 4",
        "aegis_guest_module_refusals_total{module=\"entry\"} 0",
        "aegis_guest_module_measurements_refused_total{module=\"entry\"} 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} in\n{metrics}");
    }
}

#[tokio::test]
async fn a_flood_of_labels_ends_at_the_bound_and_is_counted() {
    let house = entries().await;
    create(&house, &["desk"]).await;
    assert_eq!(command(&house, "label-bomb", "{}").await.status, 200);
    let metrics = metrics(&house).await;
    let series = metrics.lines().filter(|line| line.starts_with("aegis_module_counted_total{")).count();
    assert_eq!(series, 128);
    let refused =
        format!("aegis_guest_module_measurements_refused_total{{module=\"entry\"}} {}", 10_000 - 128);
    assert!(metrics.lines().any(|line| line == refused), "{metrics}");
}

const ACCOUNTS: &str = "/aegis/api/models/accounts";

async fn accounts() -> House {
    let component = aegis_guests::account().build();
    let limits = CodeLimits { call_ms_max: 60_000, ..CodeLimits::default() };
    let house = House::of_components(&[&component], &terms(&[], limits), |config| {
        config.limits.request_timeout = Duration::from_secs(60);
    })
    .await;
    for id in ["a", "b", "c"] {
        let created = house.ask(&format!("POST {ACCOUNTS}\n\n{{\"id\":\"{id}\"}}")).await;
        assert_eq!(created.status, 201, "{}", created.body);
    }
    house
}

#[tokio::test]
async fn a_command_writes_another_document_before_it_saves_its_own() {
    let house = accounts().await;
    let gave = house.ask(&format!("POST {ACCOUNTS}/a/give\n\n{{\"to\":\"b\"}}")).await;
    assert_eq!((gave.status, &gave.json()["gave"]), (200, &json!(true)), "{}", gave.body);
    assert_eq!(house.ask(&format!("GET {ACCOUNTS}/b")).await.json()["got"], json!(true));
}

#[tokio::test]
async fn a_command_that_writes_its_own_document_is_told_that_it_cannot() {
    let house = accounts().await;
    for (command, arguments) in [("give", "{\"to\":\"a\"}"), ("trade", "{\"id\":\"d\"}")] {
        let refused = house.ask(&format!("POST {ACCOUNTS}/a/{command}\n\n{arguments}")).await;
        assert_eq!(refused.status, 422, "{}", refused.body);
        assert_eq!(
            refused.json()["detail"],
            "this request is changing the document \"a\" of ACCOUNT: what its code answers decides what \
             becomes of it, and code cannot write it as well"
        );
    }
    let untouched = house.ask(&format!("GET {ACCOUNTS}/a")).await.json();
    assert_eq!(untouched["revision"], 1, "{untouched}");
    // Another command may write it, and the same one afterwards.
    assert_eq!(house.ask(&format!("POST {ACCOUNTS}/b/give\n\n{{\"to\":\"a\"}}")).await.status, 200);
    assert_eq!(house.ask(&format!("POST {ACCOUNTS}/a/give\n\n{{\"to\":\"b\"}}")).await.status, 200);
}

#[tokio::test]
async fn another_request_of_the_same_name_writes_what_a_command_is_about_to_save() {
    let house = accounts().await;
    let mut stalling = house.client().await;
    stalling.send(&format!("POST {ACCOUNTS}/a/stall\nx-request-id: same\n\n{{\"to\":\"c\"}}")).await;
    let end = Instant::now() + PATIENCE;
    while house.ask(&format!("GET {ACCOUNTS}/c")).await.json()["got"] != json!(true) {
        assert!(Instant::now() < end, "the command never begins");
    }
    let other = house.ask(&format!("POST {ACCOUNTS}/b/give\nx-request-id: same\n\n{{\"to\":\"a\"}}")).await;
    assert_eq!(other.status, 200, "{}", other.body);
    assert_eq!(house.ask(&format!("GET {ACCOUNTS}/a")).await.json()["got"], json!(true));
}

const MEDDLERS: &str = "/aegis/api/models/meddlers";

/// A house with the documents `a`, `b` and `desk`.
async fn meddlers() -> House {
    let component = aegis_guests::meddler().build();
    let house = House::of_components(&[&component], &terms(&[], CodeLimits::default()), |_| ()).await;
    for document in
        [r#"{"id":"a","text":"on-delete"}"#, r#"{"id":"b","text":"on-delete"}"#, r#"{"id":"desk"}"#]
    {
        let created = house.ask(&format!("POST {MEDDLERS}\n\n{document}")).await;
        assert_eq!(created.status, 201, "{}", created.body);
    }
    house
}

const MEDDLED: &str = "this request is changing the document \"a\" of MEDDLER: what its code answers \
                       decides what becomes of it, and code cannot write it as well";

#[tokio::test]
async fn a_hook_that_writes_its_own_document_is_told_that_it_cannot() {
    let house = meddlers().await;
    for request in [
        "PATCH {}/a\n\n{\"text\":\"on-update\"}",
        "PATCH {}/a\n\n{\"text\":\"validate\"}",
        "PATCH {}/a\ncontent-type: application/json-patch+json\n\n\
         [{\"op\":\"replace\",\"path\":\"/text\",\"value\":\"on-update\"}]",
        "PUT {}/a\n\n{\"id\":\"a\",\"text\":\"on-update\"}",
        "DELETE {}/a",
    ] {
        let refused = house.ask(&request.replace("{}", MEDDLERS)).await;
        assert_eq!((refused.status, &refused.json()["detail"]), (422, &json!(MEDDLED)), "{request}");
    }
    let untouched = house.ask(&format!("GET {MEDDLERS}/a")).await.json();
    assert_eq!(untouched["revision"], 1, "{untouched}");
    // Hooks of other documents may write it.
    let changed = house.ask(&format!("PATCH {MEDDLERS}/desk\n\n{{\"text\":\"on-update\"}}")).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    let plain = house.ask(&format!("PATCH {MEDDLERS}/a\n\n{{\"text\":\"plain\"}}")).await.json();
    assert_eq!((&plain["got"], &plain["revision"]), (&json!(true), &json!(3)), "{plain}");
    assert_eq!(house.ask(&format!("DELETE {MEDDLERS}/b")).await.status, 200);
    assert_eq!(house.ask(&format!("GET {MEDDLERS}/a")).await.status, 404, "it went with the other");
}

#[tokio::test]
async fn a_hook_does_not_write_what_another_write_of_its_batch_changes() {
    let house = meddlers().await;
    let trade = async |text: &str| {
        let arguments = json!({ "id": "c", "text": text });
        house.ask(&format!("POST {MEDDLERS}/desk/trade\n\n{arguments}")).await
    };
    let refused = trade("on-create").await;
    assert_eq!(
        (refused.status, &refused.json()["detail"]),
        (422, &json!(format!("write 0: {MEDDLED}"))),
        "{}",
        refused.body
    );
    assert_eq!(house.ask(&format!("GET {MEDDLERS}/a")).await.json()["revision"], 1);
    let plain = house.ask(&format!("PATCH {MEDDLERS}/b\n\n{{\"text\":\"plain\"}}")).await;
    assert_eq!(plain.status, 200, "{}", plain.body);
    assert_eq!(trade("plain").await.status, 200);
}

/// Two models whose code makes documents of the other for ever.
async fn circle(instances_max: u32) -> House {
    let components = [
        aegis_guests::creating("ping", "pings", "pong").build(),
        aegis_guests::creating("pong", "pongs", "ping").build(),
    ];
    let components: Vec<&[u8]> = components.iter().map(Vec::as_slice).collect();
    let write = Access { read: false, write: true };
    let limits = CodeLimits { instances_max, ..CodeLimits::default() };
    House::of_components(&components, &terms(&[("PING", write), ("PONG", write)], limits), |_| ()).await
}

async fn ping(house: &House) -> (u16, Value) {
    let answer = house.ask("POST /aegis/api/models/pings\n\n{\"n\":1}").await;
    (answer.status, answer.json())
}

#[tokio::test]
async fn code_that_asks_code_in_a_circle_ends_at_the_depth_limit() {
    let house = circle(16).await;
    let (status, problem) = ping(&house).await;
    assert_eq!((status, &problem["detail"]), (422, &json!("modules call each other more than 8 deep")));
    assert_eq!(house.ask("GET /aegis/api/models/pings").await.body, "[]", "nothing of it is stored");
    assert_eq!(house.ask("GET /aegis/api/models/pongs").await.body, "[]");
}

#[tokio::test]
async fn code_that_asks_itself_ends_at_the_depth_limit_before_it_waits_for_an_instance() {
    let component = aegis_guests::creating("ping", "pings", "ping").build();
    let house = House::of_components(&[&component], &terms(&[], CodeLimits::default()), |_| ()).await;
    let (status, problem) = ping(&house).await;
    assert_eq!((status, &problem["detail"]), (422, &json!("modules call each other more than 8 deep")));
    assert_eq!(house.ask("GET /aegis/api/models/pings").await.body, "[]", "nothing of it is stored");
    let lost = house.host.cell.counter(Counter::GuestTimeouts).load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(lost, 0);
}

#[tokio::test]
async fn code_that_waits_for_its_only_instance_ends_at_its_deadline() {
    let house = circle(1).await;
    for _ in 0..2 {
        let begun = Instant::now();
        let (status, problem) = ping(&house).await;
        assert!(matches!(status, 503 | 504), "{problem}");
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    }
    assert_eq!(house.ask("GET /aegis/api/models/pings").await.body, "[]");
}
