//! The example shop: orders in JavaScript, customers in Python, the inventory in Rust, over HTTP.
//!
//! `scripts/guests` builds the code; `scripts/test` does that and runs these tests where there is what builds it.

use aegis_harness::{App, Client, Cluster, Start};
use serde_json::{Value, json};

fn shop(workers: u32) -> Cluster {
    Start::app(App::example("shop")).workers(workers).compiled_first().start()
}

fn customer(email: &str) -> Value {
    json!({
        "firstName": "Ada", "lastName": "Lovelace", "email": email,
        "shippingAddress": "12 St James's Square, London", "creditCardNumber": "5105105105105100",
    })
}

fn item(name: &str, price: f64) -> Value {
    json!({
        "name": name, "category": "auto", "price": price, "discount": 0.1, "purchaseOrder": "po1", "inStock": 5,
        "properties": ["weight"],
    })
}

fn order(client: &Client, items: &Value) -> Value {
    let created = client.post("orders", &json!({"customerId": "c1", "orderItems": items}));
    assert_eq!(created.status, 201, "{}", created.text());
    created.json()
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn an_order_lives_by_the_rules_of_its_code() {
    let cluster = shop(2);
    let client = cluster.client();
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

    assert_eq!(client.post(&format!("{path}/cancel"), &json!({})).status, 200);
    assert_eq!(client.delete(&path).status, 200);
    assert_eq!(client.get(&path).status, 404);
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn models_in_three_languages_ask_each_other() {
    let cluster = shop(2);
    let client = cluster.client();
    let id = client.create("customers", &customer("ada@example.org"));
    let gear = client.create("inventory", &item("gear", 9.6));
    let path = format!("customers/{id}");
    assert_eq!(client.get(&path).json()["billingAddress"], "12 St James's Square, London");
    assert_eq!(client.get(&format!("inventory/{gear}")).json()["price"], json!(9.5), "less the discount");

    let ordered = json!({
        "customerId": id, "orderItems": [{"itemId": gear, "price": 9.5, "qty": 2}, {"itemId": "gone", "price": 1}],
    });
    let order = format!("orders/{}", client.create("orders", &ordered));
    let items = client.get(&format!("{order}?command=items"));
    let expected = json!([{"itemId": gear, "name": "gear", "inStock": 5, "qty": 2}]);
    assert_eq!(items.json(), expected, "JavaScript asks Rust: {}", items.text());
    let placed = client.post(&format!("{order}/checkout"), &json!({}));
    assert_eq!(placed.json()["orderStatus"], "APPROVED", "{}", placed.text());
    assert_eq!(placed.json()["email"], "ada@example.org", "JavaScript asks Python: {}", placed.text());

    let picked = client.post(&format!("inventory/{gear}/pick"), &json!({"pieces": 2}));
    assert_eq!(picked.json()["inStock"], 3, "{}", picked.text());
    let refused = client.post(&format!("inventory/{gear}/pick"), &json!({"pieces": 4}));
    assert_eq!((refused.status, &refused.json()["errors"][0]["path"]), (409, &json!("/inStock")));
    let frozen = client.patch(&format!("inventory/{gear}"), &json!({"price": 1}));
    assert_eq!(frozen.status, 422, "{}", frozen.text());

    let kept = client.delete(&path);
    assert_eq!((kept.status, &kept.json()["code"]), (409, &json!("conflict")), "Python asks JavaScript");
    let asked = client.get(&format!("{path}?command=orders"));
    assert_eq!(asked.json()[0]["orderStatus"], "APPROVED", "{}", asked.text());
    assert_eq!(client.post(&format!("{order}/cancel"), &json!({})).status, 200);
    assert_eq!(client.delete(&path).status, 200);
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn a_guest_who_wants_to_be_remembered_becomes_a_customer() {
    let cluster = shop(1);
    let client = cluster.client();
    let mut guest = customer("bob@example.org");
    guest["billingAddress"] = json!("elsewhere");
    guest["saveShippingDetails"] = json!(true);
    guest["orderItems"] = json!([{"itemId": "i1", "price": 3}]);
    let order = format!("orders/{}", client.create("orders", &guest));
    let placed = client.post(&format!("{order}/checkout"), &json!({}));
    let id = placed.json()["customerId"].as_str().map(str::to_owned);
    let id = id.unwrap_or_else(|| panic!("{}", placed.text()));
    assert_eq!(client.get(&format!("customers/{id}")).json()["billingAddress"], "elsewhere");

    let mistyped = client.post("customers", &json!({"creditCardNumber": "5105105105105101"}));
    assert_eq!(mistyped.status, 422, "{}", mistyped.text());
    let mut mistyped = customer("eve@example.org");
    mistyped["creditCardNumber"] = json!("5105105105105101");
    let refused = client.post("customers", &mistyped);
    let path = &refused.json()["errors"][0]["path"];
    assert_eq!((refused.status, path), (422, &json!("/creditCardNumber")), "{}", refused.text());
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn an_order_that_its_code_refuses_says_what_it_lacks() {
    let cluster = shop(1);
    let refused = cluster.client().post("orders", &json!({"orderItems": [{"itemId": "i1", "price": 1}]}));
    assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("invalid")), "{}", refused.text());
    let paths: Vec<Value> =
        refused.json()["errors"].as_array().unwrap().iter().map(|error| error["path"].clone()).collect();
    assert!(paths.contains(&json!("/firstName")), "{paths:?}");
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn a_long_computation_leaves_other_requests_alone() {
    let cluster = shop(1);
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
