//! Every committed write makes one event, in commit order, and a subscriber can resume.

use aegis_harness::{App, Client, Cluster, Connection};
use serde_json::{Value, json};

struct Events {
    connection: Connection,
}

impl Events {
    fn open(client: &Client, query: &str, last: Option<&str>) -> Self {
        let mut connection = client.connect().unwrap();
        let resume = last.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let head = format!(
            "GET /aegis/api/events?{query} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n{resume}\r\n"
        );
        connection.send(head.as_bytes()).unwrap();
        let response = connection.receive_head().unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), Some("text/event-stream"));
        Self { connection }
    }

    /// The next event: id, name and data.
    fn next(&mut self) -> (String, String, Value) {
        let (mut id, mut name) = (String::new(), String::new());
        loop {
            let line = self.connection.receive_line().unwrap();
            if let Some(text) = line.strip_prefix("id: ") {
                text.clone_into(&mut id);
            } else if let Some(text) = line.strip_prefix("event: ") {
                text.clone_into(&mut name);
            } else if let Some(text) = line.strip_prefix("data: ") {
                return (id, name, serde_json::from_str(text).unwrap());
            }
        }
    }
}

#[test]
fn each_write_makes_exactly_one_event_in_order() {
    let cluster = Cluster::start(App::todo(), 2);
    let client = cluster.client();
    let mut events = Events::open(&client, "model=todo", None);
    let id = client.create("todo", &json!({"text": "a"}));
    let path = format!("todo/{id}");
    let patched = client.patch(&path, &json!({"text": "b"}));
    assert_eq!(client.patch(&path, &json!({"text": "b"})).status, 200, "no change, no event");
    assert_eq!(client.delete(&path).status, 200);

    let seen: Vec<_> = (0..3).map(|_| events.next()).collect();
    let names: Vec<&str> = seen.iter().map(|(_, name, _)| name.as_str()).collect();
    assert_eq!(names, ["CREATETODO", "UPDATETODO", "DELETETODO"]);
    let (sequence, _, update) = &seen[1];
    assert_eq!(*sequence, patched.sequence().to_string());
    assert_eq!(update["modelName"], "TODO");
    assert_eq!(update["modelId"], id.as_str());
    assert_eq!(update["revision"].to_string(), "2");
    assert_eq!(update["model"]["text"], "b");
    assert_eq!(update["changes"]["text"], "b");
    assert_eq!(update["changes"]["revision"].to_string(), "2");
    assert_eq!(update["changes"]["id"], Value::Null, "it did not change");
    for (_, name, event) in [&seen[0], &seen[2]] {
        assert!(event.get("changes").is_none(), "{name}");
    }
    let mut ids: Vec<&str> = seen.iter().map(|(_, _, event)| event["id"].as_str().unwrap()).collect();
    ids.dedup();
    assert_eq!(ids.len(), 3, "event ids are unique");
}

#[test]
fn a_subscriber_resumes_where_it_left_on_any_worker_and_after_a_restart() {
    let mut cluster = Cluster::start(App::todo(), 2);
    let client = cluster.client();
    let mut events = Events::open(&client, "", None);
    let _ = client.create("todo", &json!({"text": "0"}));
    let (last, _, _) = events.next();
    drop(events);
    for n in 1..=20 {
        let _ = client.create("todo", &json!({"text": n.to_string()}));
    }
    let id = client.create("todo", &json!({"text": "old", "same": true}));
    assert_eq!(client.patch(&format!("todo/{id}"), &json!({"text": "new"})).status, 200);
    cluster.stop_and_restart();
    let mut events = Events::open(&client, "", Some(&last));
    for n in 1..=20 {
        assert_eq!(events.next().2["model"]["text"], n.to_string().as_str());
    }
    assert_eq!(events.next().1, "CREATETODO");
    let update = events.next().2;
    assert_eq!((&update["model"]["same"], &update["model"]["text"]), (&json!(true), &json!("new")));
    assert_eq!(update["changes"]["text"], "new");
    assert!(update["changes"].get("same").is_none(), "{update}");
}

#[test]
fn a_subscriber_that_is_too_old_is_told_of_the_gap_first() {
    let app = App::todo().settings("[store]\nlog-changes-min = 10");
    let cluster = Cluster::start(app, 1);
    let client = cluster.client();
    let first = client.post("todo", &json!({"text": "0"})).sequence();
    for part in 0..20 {
        let documents: Vec<Value> = (0..100).map(|n| json!({"text": format!("{part}-{n}")})).collect();
        assert_eq!(client.post("todo", &json!(documents)).status, 201);
    }
    aegis_harness::eventually("the log to be cut", std::time::Duration::from_secs(20), || {
        let _ = client.create("todo", &json!({"text": "more"}));
        let mut events = Events::open(&client, "", Some(&first.to_string()));
        events.next().1 == "gap"
    });
}

#[test]
fn a_subscriber_sees_only_what_it_asked_for() {
    let app =
        App::todo().module("note", "name = \"note\"\nendpoint = \"notes\"\n[fields]\ntext = \"text\"\n");
    let cluster = Cluster::start(app, 2);
    let client = cluster.client();
    let mut deletes = Events::open(&client, "model=note&name=DELETENOTE", None);
    let todo = client.create("todo", &json!({"text": "a"}));
    let note = client.create("notes", &json!({"text": "b"}));
    assert_eq!(client.delete(&format!("todo/{todo}")).status, 200);
    assert_eq!(client.delete(&format!("notes/{note}")).status, 200);
    let (_, name, event) = deletes.next();
    assert_eq!((name.as_str(), event["modelId"].as_str()), ("DELETENOTE", Some(note.as_str())));
}
