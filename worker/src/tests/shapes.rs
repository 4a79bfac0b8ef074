//! Documents of older shapes, and hooks over documents that the host holds.

use std::sync::atomic::Ordering;

use aegis_domain::code::{CodeLimits, Grants};
use aegis_ipc::board::Counter;
use aegis_wasm::Terms;
use serde_json::{Value, json};

use super::house::House;

const OUTGROWN: &str = "/aegis/api/models/outgrowns";
const TODOS: &str = "/aegis/api/models/todos";

async fn house(component: &[u8]) -> House {
    let terms = Terms { settings: json!({}), limits: CodeLimits::default(), grants: Grants::default() };
    House::of_components(&[component], &terms, |_| ()).await
}

async fn outgrown() -> House {
    let house = house(&aegis_guests::outgrown().build()).await;
    for body in [r#"{"id":"a","name":"x","kind":"old"}"#, r#"{"id":"b","title":"y","kind":"new"}"#] {
        assert_eq!(house.ask(&format!("POST {OUTGROWN}\n\n{body}")).await.status, 201);
    }
    house
}

fn calls(house: &House) -> u64 {
    house.host.cell.counter(Counter::GuestCalls).load(Ordering::Relaxed)
}

async fn get(house: &House, path: &str) -> Value {
    let answer = house.ask(&format!("GET {OUTGROWN}{path}")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

#[tokio::test]
async fn a_read_shows_the_present_shape_under_the_stored_revision() {
    let house = outgrown().await;
    let read = house.ask(&format!("GET {OUTGROWN}/a")).await;
    assert_eq!(read.header("etag"), Some("\"1\""));
    let document = read.json();
    assert_eq!((&document["title"], &document["name"]), (&json!("grown"), &json!("x")));
    assert_eq!((&document["revision"], &document["id"]), (&json!(1), &json!("a")));
    assert_eq!(get(&house, "/b").await["title"], "y");
    assert_eq!(get(&house, "/a?command=show").await["title"], "grown", "commands see it as well");
}

#[tokio::test]
async fn a_client_is_not_told_that_it_has_what_another_version_may_have_made() {
    let house = outgrown().await;
    for known in ["\"1\"", "*"] {
        let read = house.ask(&format!("GET {OUTGROWN}/a\nif-none-match: {known}")).await;
        assert_eq!((read.status, read.header("etag")), (200, Some("\"1\"")));
        assert_eq!(read.json()["title"], "grown");
    }
    // The tag is good for what names a revision to change.
    let old = house.ask(&format!("PATCH {OUTGROWN}/a\nif-match: \"2\"\n\n{{\"n\":1}}")).await;
    assert_eq!(old.status, 412);
    let now = house.ask(&format!("PATCH {OUTGROWN}/a\nif-match: \"1\"\n\n{{\"n\":1}}")).await;
    assert_eq!((now.status, now.header("etag")), (200, Some("\"2\"")));
}

#[tokio::test]
async fn the_code_is_asked_once_for_each_version() {
    let house = outgrown().await;
    assert_eq!(calls(&house), 0, "a new document has the present shape");
    for _ in 0..5 {
        get(&house, "/a").await;
        get(&house, "").await;
    }
    assert_eq!(calls(&house), 2);
}

#[tokio::test]
async fn lists_show_the_present_shape_and_filter_by_the_stored_one() {
    let house = outgrown().await;
    let titles = |list: Value| -> Vec<Value> {
        list.as_array().unwrap().iter().map(|one| one["title"].clone()).collect()
    };
    assert_eq!(titles(get(&house, "?__sort=id").await), [json!("grown"), json!("y")]);
    assert_eq!(titles(get(&house, "?__sort=id&__select=title").await), [json!("grown"), json!("y")]);
    let selected = get(&house, "?kind=old&__select=title").await;
    assert_eq!(selected, json!([{"title": "grown", "id": "a"}]));
    let page = get(&house, "?__page=1&__limit=1&__sort=id").await;
    assert_eq!((&page["count"], &page["data"][0]["title"]), (&json!(2), &json!("grown")));
    assert_eq!(get(&house, "?title=grown").await, json!([]), "filters see what is stored");
    assert_eq!(get(&house, "?__count=all").await["total"], 2);
}

#[tokio::test]
async fn a_change_stores_the_present_shape() {
    let house = outgrown().await;
    let changed = house.ask(&format!("PATCH {OUTGROWN}/a\n\n{{\"kind\":\"newer\"}}")).await;
    assert_eq!((changed.status, &changed.json()["title"]), (200, &json!("grown")), "{}", changed.body);
    assert_eq!(get(&house, "?title=grown").await[0]["id"], "a");
    let same = house.ask(&format!("PATCH {OUTGROWN}/b\n\n{{\"kind\":\"new\"}}")).await;
    assert_eq!(same.header("etag"), Some("\"1\""), "what is already so is not stored again");
}

#[tokio::test]
async fn a_document_that_cannot_be_loaded_says_so_and_can_be_removed() {
    let house = outgrown().await;
    for (id, word, status, code) in [
        ("r", "forbidden", 409, "conflict"),
        ("t", "explode", 500, "guest-trap"),
        ("s", "scalar", 500, "guest-failed"),
    ] {
        let created = house.ask(&format!("POST {OUTGROWN}\n\n{{\"id\":\"{id}\",\"x\":\"{word}\"}}")).await;
        assert_eq!(created.status, 201, "{}", created.body);
        let read = house.ask(&format!("GET {OUTGROWN}/{id}")).await;
        assert_eq!((read.status, &read.json()["code"]), (status, &json!(code)), "{}", read.body);
        let listed = house.ask(&format!("GET {OUTGROWN}")).await;
        let told = format!("document \"{id}\": ");
        assert!(
            listed.status == status && listed.json()["detail"].as_str().unwrap().starts_with(&told),
            "{}",
            listed.body
        );
        assert_eq!(house.ask(&format!("DELETE {OUTGROWN}/{id}")).await.status, 200);
    }
    assert_eq!(get(&house, "?__count=all").await["total"], 2);
}

#[tokio::test]
async fn hooks_over_held_documents_have_the_same_say_as_others() {
    let mut told = Vec::new();
    for component in [aegis_guests::todo().build(), aegis_guests::held_todo().build()] {
        let house = house(&component).await;
        let mut shown = Vec::new();
        for request in [
            "POST {}\n\n{\"id\":\"a\",\"title\":\"x\",\"n\":1.50}",
            "POST {}\n\n{\"title\":\"forbidden\"}",
            "POST {}\n\n{\"title\":7}",
            "POST {}\n\n[{\"id\":\"b\",\"title\":\"y\",\"protected\":true},{\"id\":\"c\",\"title\":\"z\"}]",
            "PATCH {}/a\n\n{\"title\":\"merged\",\"n\":null}",
            "PUT {}/a\n\n{\"title\":\"replaced\"}",
            "PATCH {}/a\ncontent-type: application/json-patch+json\n\n[{\"op\":\"add\",\"path\":\"/title\",\"value\":\"p\"}]",
            "PATCH {}/a\n\n{\"title\":\"forbidden\"}",
            "PATCH {}/a\n\n{\"revision\":99}",
            "POST {}/a/approve",
            "DELETE {}/b",
            "DELETE {}/c",
            "GET {}?__sort=id",
        ] {
            let answer = house.ask(&request.replace("{}", TODOS)).await;
            let mut body = answer.json();
            for document in body.as_array_mut().map_or(&mut [][..], Vec::as_mut_slice) {
                forget_times(document);
            }
            forget_times(&mut body);
            shown.push((request, answer.status, body));
        }
        told.push(shown);
    }
    assert_eq!(told[0], told[1]);
    let statuses: Vec<u16> = told[0].iter().map(|(_, status, _)| *status).collect();
    assert_eq!(statuses, [201, 422, 422, 201, 200, 200, 200, 422, 422, 200, 409, 200, 200]);
}

/// Takes away what differs from run to run.
fn forget_times(document: &mut Value) {
    if let Some(members) = document.as_object_mut() {
        for name in ["createTime", "updateTime", "instance"] {
            members.remove(name);
        }
    }
}
