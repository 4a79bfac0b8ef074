//! Create, read, replace, patch, remove: one document at a time and in batches.

use aegis_harness::{App, Cluster};
use serde_json::json;

#[test]
fn a_document_lives_through_create_read_patch_and_remove() {
    let cluster = Cluster::start(App::todo(), 2);
    let client = cluster.client();

    let created = client.post("todo", &json!({"text": "a"}));
    assert_eq!(created.status, 201);
    let id = created.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(created.header("location"), Some(format!("/aegis/api/models/todo/{id}").as_str()));
    assert_eq!(created.header("etag"), Some("\"1\""));
    assert!(created.sequence() > 0);

    let read = client.get(&format!("todo/{id}"));
    assert_eq!(read.status, 200);
    assert_eq!(read.body, created.body, "a read answers what the create answered");
    let document = read.json();
    assert_eq!(document["text"], "a");
    assert_eq!(document["modelName"], "TODO");
    assert_eq!(document["revision"].to_string(), "1");
    let time = document["createTime"].as_str().unwrap();
    assert!(time.len() == 24 && time.ends_with('Z'), "RFC 3339 in UTC with milliseconds: {time}");

    let patched = client.patch(&format!("todo/{id}"), &json!({"isComplete": true}));
    assert_eq!(patched.status, 200);
    assert_eq!(patched.header("etag"), Some("\"2\""));
    let after = client.get(&format!("todo/{id}")).json();
    assert_eq!(after["isComplete"], true);
    assert_eq!(after["text"], "a");
    assert!(after["updateTime"].as_str().unwrap() >= after["createTime"].as_str().unwrap());

    let removed = client.delete(&format!("todo/{id}"));
    assert_eq!(removed.status, 200);
    assert_eq!(removed.json()["id"], id.as_str());
    let gone = client.get(&format!("todo/{id}"));
    assert_eq!(gone.status, 404);
    assert_eq!(gone.json()["title"], "Not Found");
    assert!(gone.json()["error"].is_string(), "clients of the original read `error`");
}

#[test]
fn no_line_of_host_config_mentions_the_model() {
    let cluster =
        Cluster::start(App::default().module("parts", "name = \"part\"\n[fields]\nsku = \"text\"\n"), 1);
    let client = cluster.client();
    assert_eq!(client.post("parts", &json!({"sku": "x"})).status, 201, "the endpoint follows from the name");
    assert_eq!(client.get("parts").json().as_array().unwrap().len(), 1);
}

#[test]
fn put_replaces_and_creates_only_when_asked_to() {
    let cluster = Cluster::start(App::todo(), 2);
    let client = cluster.client();
    assert_eq!(client.put("todo/p1", &json!({"text": "x"})).status, 404);

    let create_only = client.with("if-none-match", "*");
    let created = create_only.put("todo/p1", &json!({"text": "x", "n": 1}));
    assert_eq!(created.status, 201);
    assert_eq!(create_only.put("todo/p1", &json!({"text": "y"})).status, 412);

    let replaced = client.put("todo/p1", &json!({"text": "z"}));
    assert_eq!(replaced.status, 200);
    assert_eq!(replaced.json()["text"], "z");
    assert!(replaced.json().get("n").is_none(), "what a replacement leaves out is gone");
    assert_eq!(replaced.json()["createTime"], created.json()["createTime"]);
    assert_eq!(replaced.header("etag"), Some("\"2\""));
}

#[test]
fn patches_come_as_merge_patch_or_json_patch() {
    let cluster = Cluster::start(App::todo(), 2);
    let client = cluster.client();
    let id = client.create("todo", &json!({"text": "a", "tags": ["x"], "deep": {"a": 1, "b": 2}}));
    let path = format!("todo/{id}");

    let merge = client.with("content-type", "application/merge-patch+json");
    let merged = merge.patch(&path, &json!({"deep": {"a": null, "c": 3}})).json();
    assert_eq!(merged["deep"].to_string(), r#"{"b":2,"c":3}"#);

    let patch = client.with("content-type", "application/json-patch+json");
    let operations = json!([
        {"op": "test", "path": "/text", "value": "a"},
        {"op": "add", "path": "/tags/-", "value": "y"},
        {"op": "remove", "path": "/deep"}
    ]);
    let patched = patch.patch(&path, &operations).json();
    assert_eq!(patched["tags"], json!(["x", "y"]));
    assert!(patched.get("deep").is_none());

    let failing = patch.patch(&path, &json!([{"op": "test", "path": "/text", "value": "other"}]));
    assert_eq!(failing.status, 409);
    assert_eq!(failing.json()["code"], "patch-test-failed");
    assert_eq!(client.get(&path).header("etag"), Some("\"3\""), "a failed patch changed nothing");

    let unchanged = client.patch(&path, &json!({"text": "a"}));
    assert_eq!(unchanged.status, 200);
    assert_eq!(unchanged.header("etag"), Some("\"3\""), "a patch that changes nothing makes no revision");
}

#[test]
fn writes_are_conditional_on_the_revision() {
    let cluster = Cluster::start(App::todo(), 2);
    let client = cluster.client();
    let id = client.create("todo", &json!({"text": "a"}));
    let path = format!("todo/{id}");

    assert_eq!(client.with("if-match", "\"1\"").patch(&path, &json!({"text": "b"})).status, 200);
    let stale = client.with("if-match", "\"1\"").patch(&path, &json!({"text": "c"}));
    assert_eq!(stale.status, 412);
    assert_eq!(stale.json()["code"], "revision-mismatch");
    assert_eq!(client.with("if-match", "*").patch(&path, &json!({"text": "d"})).status, 200);
    assert_eq!(client.with("if-match", "\"7\", \"3\"").delete(&path).status, 200, "any of a list may match");

    let id = client.create("todo", &json!({"text": "a"}));
    let path = format!("todo/{id}");
    let fresh = client.with("if-none-match", "\"1\"").get(&path);
    assert_eq!(fresh.status, 304);
    assert!(fresh.body.is_empty());
    assert_eq!(client.with("if-none-match", "\"9\"").get(&path).status, 200);
}

#[test]
fn a_model_may_demand_the_revision() {
    let module = "name = \"ledger\"\nendpoint = \"ledgers\"\nif-match = \"required\"\n[fields]\namount = \"decimal\"\n";
    let cluster = Cluster::start(App::default().module("ledger", module), 1);
    let client = cluster.client();
    let id = client.create("ledgers", &json!({"amount": 1}));
    let refused = client.patch(&format!("ledgers/{id}"), &json!({"amount": 2}));
    assert_eq!(refused.status, 428);
    assert_eq!(refused.json()["code"], "revision-required");
    assert_eq!(client.delete(&format!("ledgers/{id}")).status, 428);
    let accepted = client.with("if-match", "\"1\"").patch(&format!("ledgers/{id}"), &json!({"amount": 2}));
    assert_eq!(accepted.status, 200);
}

#[test]
fn an_array_is_created_whole_or_not_at_all() {
    let cluster = Cluster::start(App::todo(), 2);
    let client = cluster.client();
    let created = client.post("todo", &json!([{"id": "b1", "text": "x"}, {"id": "b2", "text": "y"}]));
    assert_eq!(created.status, 201);
    assert_eq!(created.json().as_array().unwrap().len(), 2);
    assert_eq!(client.get("todo/b2").json()["text"], "y");

    let clash = client.post("todo", &json!([{"id": "b3", "text": "x"}, {"id": "b1", "text": "y"}]));
    assert_eq!(clash.status, 409);
    assert_eq!(client.get("todo/b3").status, 404, "nothing of a refused batch is there");

    let invalid = client.post("todo", &json!([{"text": "x"}, {"text": 7}]));
    assert_eq!(invalid.status, 422);
    assert_eq!(invalid.json()["errors"][0]["path"], "/1/text");
}

#[test]
fn a_client_may_ask_for_a_minimal_answer_and_name_its_request() {
    let cluster = Cluster::start(App::todo(), 1);
    let client = cluster.client().with("prefer", "return=minimal").with("x-request-id", "req-7");
    let created = client.post("todo", &json!({"id": "m1", "text": "a"}));
    assert_eq!(created.status, 201);
    assert_eq!(created.text(), r#"{"status":"ok","modelId":"m1"}"#);
    assert_eq!(created.header("preference-applied"), Some("return=minimal"));
    assert_eq!(created.header("x-request-id"), Some("req-7"));
    assert_eq!(client.patch("todo/m1", &json!({"text": "b"})).text(), r#"{"status":"ok","modelId":"m1"}"#);
    let head = client.send("HEAD", "/aegis/api/models/todo/m1", b"");
    assert_eq!((head.status, head.header("etag")), (200, Some("\"2\"")));
}

#[test]
fn numbers_come_back_as_they_were_written() {
    let cluster = Cluster::start(App::todo(), 1);
    let client = cluster.client();
    let body = br#"{"text":"n","a":9007199254740993,"b":0.10,"c":1e3,"d":-0,"e":12345678901234567890123}"#;
    let created = client.send("POST", "/aegis/api/models/todo", body);
    assert_eq!(created.status, 201, "{}", created.text());
    let text = created.text();
    for number in ["9007199254740993", "0.10", ":1e3,", "\"d\":-0,", "12345678901234567890123"] {
        assert!(text.contains(number), "{number} in {text}");
    }
    let id = created.json()["id"].as_str().unwrap().to_owned();
    let patched = client.patch(&format!("todo/{id}"), &json!({"text": "m"})).text();
    assert!(patched.contains("\"b\":0.10,"), "{patched}");
}
