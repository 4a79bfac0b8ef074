//! What a module's rules refuse, and what they add.

use aegis_harness::{App, Cluster};
use serde_json::json;

const ORDER: &str = r#"
name = "order"
endpoint = "orders"
unknown-fields = "refuse"

[fields]
orderItems = "array"
orderNo = "text"
email = "text"
priority = "integer"
status = { kind = "text", default = "PENDING", values = ["PENDING", "APPROVED"] }

[mixins]
require = ["orderItems"]
freeze = ["orderNo"]
unique = ["email"]

[mixins.range]
priority = { min = 1, max = 5 }

[mixins.pattern]
email = "email"
"#;

fn cluster() -> Cluster {
    Cluster::start(App::default().module("order", ORDER), 2)
}

#[test]
fn everything_wrong_is_told_at_once() {
    let cluster = cluster();
    let response = cluster
        .client()
        .post("orders", &json!({"email": "nobody", "priority": 9, "status": "LOST", "color": "red"}));
    assert_eq!(response.status, 422);
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    let problem = response.json();
    assert_eq!(problem["code"], "invalid");
    let mut paths: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["path"].as_str().unwrap()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/color", "/email", "/orderItems", "/priority", "/status"]);
}

#[test]
fn frozen_fields_keep_their_value_and_defaults_fill_in() {
    let cluster = cluster();
    let client = cluster.client();
    let created = client.post("orders", &json!({"orderItems": [], "orderNo": "A1"})).json();
    assert_eq!(created["status"], "PENDING");
    let path = format!("orders/{}", created["id"].as_str().unwrap());
    let refused = client.patch(&path, &json!({"orderNo": "A2"}));
    assert_eq!(refused.status, 422);
    assert_eq!(refused.json()["errors"][0]["path"], "/orderNo");
    assert_eq!(client.patch(&path, &json!({"orderNo": "A1", "priority": 2})).status, 200);
    assert_eq!(client.patch(&path, &json!({"orderItems": null})).status, 422, "required stays required");
}

#[test]
fn a_unique_value_belongs_to_one_document() {
    let cluster = cluster();
    let client = cluster.client();
    let first = client.create("orders", &json!({"orderItems": [], "email": "a@b.example"}));
    let taken = client.post("orders", &json!({"orderItems": [], "email": "a@b.example"}));
    assert_eq!(taken.status, 409);
    assert_eq!(taken.json()["code"], "unique-taken");
    assert_eq!(taken.json()["errors"][0]["path"], "/email");
    assert_eq!(client.delete(&format!("orders/{first}")).status, 200);
    assert_eq!(client.post("orders", &json!({"orderItems": [], "email": "a@b.example"})).status, 201);
    assert_eq!(client.post("orders", &json!({"orderItems": []})).status, 201, "no value is no clash");
    assert_eq!(client.post("orders", &json!({"orderItems": []})).status, 201);
}

#[test]
fn the_hosts_own_fields_are_read_only() {
    let cluster = cluster();
    let client = cluster.client();
    let created = client.post("orders", &json!({"id": "o1", "orderItems": []}));
    assert_eq!(created.status, 201, "a client may choose the id");
    let document = created.json();
    assert_eq!(client.put("orders/o1", &document).status, 200, "sending them back unchanged is fine");
    for (field, value) in
        [("id", json!("o2")), ("revision", json!(9)), ("createTime", json!("2020-01-01T00:00:00.000Z"))]
    {
        let response = client.patch("orders/o1", &json!({field: value}));
        assert_eq!(response.status, 422, "{field}");
        assert_eq!(response.json()["errors"][0]["path"], format!("/{field}").as_str());
    }
}
