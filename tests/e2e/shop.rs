//! The example shop: customers and inventory from a few lines each, orders from code in JavaScript, over HTTP.
//!
//! `scripts/guests` builds the code; `scripts/test` does that and runs these tests where there is Node.js.

use aegis_harness::{App, Client, Cluster};
use serde_json::{Value, json};

fn order(client: &Client, items: &Value) -> Value {
    let created = client.post("orders", &json!({"customerId": "c1", "orderItems": items}));
    assert_eq!(created.status, 201, "{}", created.text());
    created.json()
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn an_order_lives_by_the_rules_of_its_code() {
    let cluster = Cluster::start(App::example("shop"), 2);
    let client = cluster.client();
    let customer = json!({
        "id": "c1", "firstName": "Ada", "lastName": "Lovelace", "email": "ada@example.org",
        "shippingAddress": "12 St James's Square, London", "billingAddress": "12 St James's Square, London",
        "creditCardNumber": "5105105105105100",
    });
    let created = client.post("customers", &customer);
    assert_eq!(created.status, 201, "{}", created.text());

    let made =
        order(&client, &json!([{"itemId": "i1", "price": 0.1, "qty": 3}, {"itemId": "i2", "price": 1.2}]));
    assert_eq!((&made["orderTotal"], &made["orderStatus"]), (&json!(1.5), &json!("PENDING")));
    let path = format!("orders/{}", made["id"].as_str().unwrap());

    let changed = client.patch(&path, &json!({"orderItems": [{"itemId": "i1", "price": 2}]}));
    assert_eq!(changed.json()["orderTotal"], 2, "what follows from the items follows: {}", changed.text());
    let kept = client.delete(&path);
    assert_eq!((kept.status, &kept.json()["code"]), (409, &json!("conflict")));

    assert_eq!(client.post(&format!("{path}/approve"), &json!({})).json()["orderStatus"], "APPROVED");
    let settled = client.patch(&path, &json!({"orderItems": [{"itemId": "i9", "price": 9}]}));
    assert_eq!((settled.status, &settled.json()["code"]), (409, &json!("conflict")), "{}", settled.text());
    let asked = client.get(&format!("{path}?command=customer"));
    assert_eq!(asked.json()["firstName"], "Ada", "orders may read customers: {}", asked.text());

    assert_eq!(client.post(&format!("{path}/cancel"), &json!({})).status, 200);
    assert_eq!(client.delete(&path).status, 200);
    assert_eq!(client.get(&path).status, 404);
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn an_order_that_its_code_refuses_says_what_it_lacks() {
    let cluster = Cluster::start(App::example("shop"), 1);
    let refused = cluster.client().post("orders", &json!({"orderItems": [{"itemId": "i1", "price": 1}]}));
    assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("invalid")), "{}", refused.text());
    let paths: Vec<Value> =
        refused.json()["errors"].as_array().unwrap().iter().map(|error| error["path"].clone()).collect();
    assert!(paths.contains(&json!("/firstName")), "{paths:?}");
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn a_long_computation_leaves_other_requests_alone() {
    let cluster = Cluster::start(App::example("shop"), 1);
    let client = cluster.client();
    let made = order(&client, &json!([{"itemId": "i1", "price": 1}]));
    let path = format!("orders/{}", made["id"].as_str().unwrap());
    let computing = {
        let (client, path) = (cluster.client(), format!("{path}/fibonacci"));
        std::thread::spawn(move || client.post(&path, &json!({"n": 20})))
    };
    while !computing.is_finished() {
        assert_eq!(client.get(&path).status, 200);
    }
    let computed = computing.join().unwrap();
    assert_eq!(computed.json()["result"], 6765, "{}", computed.text());
}
