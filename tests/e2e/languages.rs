//! The same contract in three languages: one session over HTTP, answered alike by each.

use std::{fs, path::Path};

use aegis_harness::{App, Client, Start};
use serde_json::{Value, json};

/// What is different each time, in whatever language.
const OWN: [&str; 3] = ["createTime", "updateTime", "instance"];

/// The todo contract in this language, as it was built.
fn component(language: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/todo/components");
    let path = folder.join(format!("{language}.wasm"));
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the todo contract answers, request by request.
fn transcript(bytes: Vec<u8>) -> String {
    // How long an interpreter takes to begin is not what this is about.
    let terms = "[modules.todo]\nsettings = { mark = \"!\" }\nlimits = { deadline = \"10s\" }";
    let app = App::default().component("todo", bytes).settings(terms);
    let cluster = Start::app(app).workers(2).compiled_first().start();
    session().iter().map(|request| answered(&cluster.client(), request)).collect()
}

fn session() -> Vec<(&'static str, &'static str, Value)> {
    let none = Value::Null;
    vec![
        ("POST", "todo", json!({"id": "a", "text": "  buy milk ", "priority": 2, "note": null})),
        ("POST", "todo", json!({"id": "b", "text": "write", "priority": 2, "deep": {"x": [1, "ä", 2.5]}})),
        ("POST", "todo", json!({"text": "   "})),
        ("POST", "todo", json!({"priority": 9})),
        ("POST", "todo", json!({"text": 5})),
        ("POST", "todo", json!({"text": "far more than twenty characters"})),
        ("GET", "todo/a", none.clone()),
        ("PATCH", "todo/a", json!({"text": "buy oat milk", "note": "now"})),
        ("PATCH", "todo/a", json!({"note": null, "priority": 6})),
        ("PATCH", "todo/a", json!({"note": null, "text": ""})),
        ("PATCH", "todo/a", json!({"note": null})),
        ("PUT", "todo/b", json!({"text": "write home", "priority": 2})),
        ("DELETE", "todo/a", none.clone()),
        ("DELETE", "todo/b", none.clone()),
        ("GET", "todo/a?command=shout", none.clone()),
        ("POST", "todo/a/shout", json!({"mark": "?"})),
        ("POST", "todo/a/shout", json!({"mark": "????"})),
        ("GET", "todo/a?command=alike", none.clone()),
        ("GET", "todo/a?command=stranger", none.clone()),
        ("POST", "todo/a/complete", json!({})),
        ("POST", "todo/a/complete", json!({})),
        ("POST", "todo/none/complete", json!({})),
        ("POST", "todo/a/unheard", json!({})),
        ("PATCH", "todo/a", json!({"text": "buy soy milk"})),
        ("DELETE", "todo/a", none.clone()),
        ("GET", "todo?__select=text,words", none),
    ]
}

fn answered(client: &Client, (method, path, body): &(&str, &str, Value)) -> String {
    let response = match *method {
        "GET" => client.get(path),
        "POST" => client.post(path, body),
        "PUT" => client.put(path, body),
        "PATCH" => client.patch(path, body),
        _ => client.delete(path),
    };
    let mut answer = response.json();
    if let Value::Object(members) = &mut answer {
        members.retain(|name, _| !OWN.contains(&name.as_str()) && !name.starts_with("type"));
        if response.status >= 400 {
            members.retain(|name, _| ["code", "detail", "errors"].contains(&name.as_str()));
        }
    }
    // Documents without an id of their own were refused, so that all ids are known.
    format!("{method} {path} {body}\n  {} {answer}\n", response.status)
}

/// Asks a component that has the todo contract all there is to ask, and compares its answers with everybody else's.
pub(crate) fn check(bytes: Vec<u8>) {
    insta::allow_duplicates! {
        insta::assert_snapshot!(transcript(bytes), @r#"
        POST todo {"id":"a","text":"  buy milk ","priority":2,"note":null}
          201 {"text":"buy milk","priority":2,"note":null,"words":2,"isComplete":false,"id":"a","modelName":"TODO","revision":1}
        POST todo {"id":"b","text":"write","priority":2,"deep":{"x":[1,"ä",2.5]}}
          201 {"text":"write","priority":2,"deep":{"x":[1,"ä",2.5]},"words":1,"isComplete":false,"id":"b","modelName":"TODO","revision":1}
        POST todo {"text":"   "}
          422 {"detail":"there is nothing to do","code":"invalid","errors":[{"path":"/text","message":"is empty"}]}
        POST todo {"priority":9}
          422 {"detail":"2 mistakes, the first: /text: is required","code":"invalid","errors":[{"path":"/text","message":"is required"},{"path":"/priority","message":"found 9, expected at most 5"}]}
        POST todo {"text":5}
          422 {"detail":"/text: found the number 5, expected a text","code":"invalid","errors":[{"path":"/text","message":"found the number 5, expected a text"}]}
        POST todo {"text":"far more than twenty characters"}
          422 {"detail":"/text: the value is longer than 20 characters","code":"invalid","errors":[{"path":"/text","message":"the value is longer than 20 characters"}]}
        GET todo/a null
          200 {"text":"buy milk","priority":2,"note":null,"words":2,"isComplete":false,"id":"a","modelName":"TODO","revision":1}
        PATCH todo/a {"text":"buy oat milk","note":"now"}
          200 {"text":"buy oat milk","priority":2,"note":"now","words":3,"isComplete":false,"id":"a","modelName":"TODO","revision":2}
        PATCH todo/a {"note":null,"priority":6}
          422 {"detail":"/priority: found 6, expected at most 5","code":"invalid","errors":[{"path":"/priority","message":"found 6, expected at most 5"}]}
        PATCH todo/a {"note":null,"text":""}
          422 {"detail":"there is nothing to do","code":"invalid","errors":[{"path":"/text","message":"is empty"}]}
        PATCH todo/a {"note":null}
          200 {"text":"buy oat milk","priority":2,"words":3,"isComplete":false,"id":"a","modelName":"TODO","revision":3}
        PUT todo/b {"text":"write home","priority":2}
          200 {"text":"write home","priority":2,"words":2,"id":"b","modelName":"TODO","revision":2}
        DELETE todo/a null
          409 {"detail":"it is to be done yet","code":"conflict","errors":[{"path":"/isComplete","message":"must be true"}]}
        DELETE todo/b null
          409 {"detail":"it is to be done yet","code":"conflict","errors":[{"path":"/isComplete","message":"must be true"}]}
        GET todo/a?command=shout null
          200 "BUY OAT MILK!"
        POST todo/a/shout {"mark":"?"}
          200 "BUY OAT MILK?"
        POST todo/a/shout {"mark":"????"}
          422 {"detail":"arguments of \"shout\": /mark: the value is longer than 3 characters","code":"invalid","errors":[{"path":"/mark","message":"the value is longer than 3 characters"}]}
        GET todo/a?command=alike null
          200 ["write home"]
        GET todo/a?command=stranger null
          403 {"detail":"model TODO may not do this to model \"CUSTOMER\": it is not granted","code":"denied"}
        POST todo/a/complete {}
          200 {"text":"buy oat milk","priority":2,"words":3,"isComplete":true,"id":"a","modelName":"TODO","revision":4}
        POST todo/a/complete {}
          409 {"detail":"it is done already","code":"conflict"}
        POST todo/none/complete {}
          404 {"detail":"there is no document of TODO with the id \"none\"","code":"not-found"}
        POST todo/a/unheard {}
          404 {"detail":"no command \"unheard\" on model TODO","code":"no-such-command"}
        PATCH todo/a {"text":"buy soy milk"}
          409 {"detail":"it is done already","code":"conflict"}
        DELETE todo/a null
          200 {"text":"buy oat milk","priority":2,"words":3,"isComplete":true,"id":"a","modelName":"TODO","revision":4}
        GET todo?__select=text,words null
          200 [{"text":"write home","words":2,"id":"b"}]
        "#);
    }
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn the_todo_contract_in_rust_is_answered_alike() {
    check(component("rust"));
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn the_todo_contract_in_javascript_is_answered_alike() {
    check(component("javascript"));
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn the_todo_contract_in_python_is_answered_alike() {
    check(component("python"));
}
