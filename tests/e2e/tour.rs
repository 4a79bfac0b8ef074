//! A tour of the contract with module authors in three languages: one session, answered alike by each.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use aegis_harness::{App, Cluster, Start, app, client::MODELS, eventually};
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
/// What is different each time, in whatever language.
const OWN: [&str; 3] = ["createTime", "updateTime", "instance"];
/// What stands before the words that a parser of the language has for a mistake.
const OF_PARSERS: &str = "found a body that is no JSON";
/// A custom section of no meaning: another component that does the same.
const OTHERWISE: &[u8] = b"\x00\x06\x05other";

/// A loopback API: it answers a body with that body, and no body with the path, and tells the heads of requests.
struct Api {
    address: SocketAddr,
    heads: Receiver<String>,
}

impl Api {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, heads) = mpsc::channel();
        // It ends with the process of the test.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let asked = asked.clone();
                thread::spawn(move || serve(&stream, &asked));
            }
        });
        Self { address, heads }
    }
}

fn serve(stream: &TcpStream, asked: &Sender<String>) {
    let mut reader = BufReader::new(stream);
    loop {
        let lines = reader.by_ref().lines().map_while(Result::ok);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let Some(first) = head.first() else { return };
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or_default()];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        if body.is_empty() {
            body = first.split(' ').nth(1).unwrap().into();
        }
        let _ = asked.send(head.join("\n"));
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = stream;
        if stream.write_all(&[head.as_bytes(), &body].concat()).is_err() {
            return;
        }
    }
}

/// A host with the tour in one language.
struct Tour {
    cluster: Cluster,
    api: Api,
    bytes: Vec<u8>,
    _secret: TempDir,
}

impl Tour {
    fn start(language: &str) -> Self {
        let bytes = read("tour", language);
        let api = Api::start();
        let secret = tempfile::tempdir().unwrap();
        fs::write(secret.path().join("guide"), "hush-hush\n").unwrap();
        let settings = settings(&api, secret.path(), "hello");
        let app = App::default().component("tour", bytes.clone()).settings(&settings);
        let cluster = Start::app(app).workers(1).compiled_first().start();
        eventually("the delivery of events has begun", PATIENCE, || {
            cluster.admin_get("/metrics").contains("aegis_guest_module_event_lag{module=\"tour\"}")
        });
        Self { cluster, api, bytes, _secret: secret }
    }

    fn count(&self) -> Value {
        self.cluster.client().get("tours/a?command=count").json()
    }

    /// Changes what the app says, in place.
    fn greets_with(&self, before: &str, after: &str) {
        let path = self.cluster.folder().join("aegis.toml");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(path, text.replace(before, after)).unwrap();
        self.cluster.aegis_ok(&["reload"]);
    }

    fn log_has(&self, what: &str) {
        eventually(what, PATIENCE, || self.cluster.log().contains(what));
    }
}

fn component(model: &str, language: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests").join(model).join("components");
    folder.join(format!("{language}.wasm"))
}

fn read(model: &str, language: &str) -> Vec<u8> {
    let path = component(model, language);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// How long an interpreter takes to begin is not what this is about, nor is latency.
fn settings(api: &Api, secret: &Path, greeting: &str) -> String {
    let (address, secret) = (api.address, secret.join("guide"));
    format!(
        "[secrets]\nguide = {{ file = \"{}\" }}\n\
         [reload]\nmode = \"swap\"\ncanary-time = \"100ms\"\nlatency-factor-max = 1000.0\n\
         probe-timeout = \"300s\"\n\
         [modules.tour]\nlimits = {{ deadline = \"10s\" }}\n\
         settings = {{ greeting = \"{greeting}\", api = \"http://{address}\" }}\n\
         grants = {{ http = [\"{address}\"], secrets = [\"guide\"] }}",
        secret.display()
    )
}

/// Requests below the models, unless they begin with a slash.
fn session() -> Vec<(&'static str, &'static str, Value)> {
    let none = Value::Null;
    vec![
        ("POST", "tours", json!({"id": "a", "name": " the old town ", "secret": "x"})),
        ("POST", "tours", json!({"id": "b", "name": "the palace", "price": 250, "kind": "ride"})),
        ("POST", "tours", json!({"name": "  "})),
        ("POST", "tours", json!({"price": 3})),
        ("PATCH", "tours/a", json!({"guide": "Ada", "langs": ["en", "de"], "deep": {"x": 1.25}})),
        ("PATCH", "tours/a", json!({"guide": null, "name": "the new town"})),
        ("PATCH", "tours/a", json!({"stops": []})),
        ("GET", "tours/a", none.clone()),
        ("GET", "tours/b", none.clone()),
        ("DELETE", "tours/b", none.clone()),
        ("POST", "tours/a/pay", json!({})),
        ("POST", "tours/a/ask", json!({})),
        ("POST", "tours/a/split", json!({})),
        ("GET", "tours/a?command=facts", none.clone()),
        ("GET", "tours/a/label?lang=en", none.clone()),
        ("GET", "tours/%C3%A4/label", none.clone()),
        ("POST", "/tour/echo", json!({"ä": [1, null]})),
        ("POST", "/tour/echo", none.clone()),
        ("GET", "tours?__sort=id", none),
    ]
}

fn answered(cluster: &Cluster, (method, path, body): &(&str, &str, Value)) -> String {
    let target = if path.starts_with('/') { (*path).to_owned() } else { format!("{MODELS}/{path}") };
    let sent = if body.is_null() { String::new() } else { body.to_string() };
    // A name that objects of JavaScript have without being given it.
    let response = cluster.client().with("constructor", "guest").send(method, &target, sent.as_bytes());
    let mut answer = serde_json::from_slice(&response.body).unwrap_or_else(|_| json!(response.text()));
    let errors = response.status >= 400;
    for one in answer.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        forget_own(one);
    }
    if let Value::Object(members) = &mut answer {
        forget_own(members);
        members.retain(|name, _| !errors || ["code", "detail", "errors"].contains(&name.as_str()));
        if let Some(Value::String(detail)) = members.get_mut("detail") {
            detail.truncate(detail.find(OF_PARSERS).map_or(detail.len(), |at| at + OF_PARSERS.len()));
        }
    }
    let kind = response.header("content-type").unwrap_or_default();
    let origin = response.header("x-origin").map(|origin| format!(" from {origin}")).unwrap_or_default();
    format!("{method} {path} {body}\n  {} {kind}{origin}\n  {answer}\n", response.status)
}

fn forget_own(members: &mut serde_json::Map<String, Value>) {
    members.retain(|name, _| !OWN.contains(&name.as_str()));
}

/// Lines of `/metrics` that the module has measured.
fn measured(cluster: &Cluster) -> String {
    let metrics = cluster.admin_get("/metrics");
    let own = |line: &&str| line.starts_with("aegis_module_") && !line.contains("_bucket");
    metrics.lines().filter(own).map(|line| format!("{line}\n")).collect()
}

fn check_session(language: &str) {
    let tour = Tour::start(language);
    let cluster = &tour.cluster;
    let mut transcript: String = session().iter().map(|request| answered(cluster, request)).collect();
    let head = tour.api.heads.recv_timeout(PATIENCE).unwrap().to_lowercase();
    assert!(head.starts_with("post /charge") && head.contains("x-tour: a"), "{head}");
    assert!(head.contains("authorization: bearer hush-hush"), "the host puts the secret in: {head}");
    assert_eq!(cluster.client().post("tours", &json!({"id": "c", "name": "c", "listens": true})).status, 201);
    eventually("the event is heard", PATIENCE, || {
        cluster.client().get("tours/c").json()["heard"] == "CREATETOUR"
    });
    transcript += &answered(cluster, &("GET", "tours/c", Value::Null));
    transcript += &measured(cluster);
    insta::assert_snapshot!("tour", transcript);
}

/// What an instance remembers goes on under other settings, and is handed to another version.
fn check_life(language: &str) {
    let tour = Tour::start(language);
    assert_eq!(tour.cluster.client().post("tours", &json!({"id": "a", "name": "a"})).status, 201);
    eventually("the event is heard, so that one instance is called last", PATIENCE, || {
        tour.cluster.admin_get("/metrics").contains("aegis_guest_module_events_total{module=\"tour\"} 1\n")
    });
    assert_eq!(tour.count(), json!({"greeting": "hello", "calls": 1}));
    assert_eq!(tour.count(), json!({"greeting": "hello", "calls": 2}));
    tour.greets_with("hello", "good day");
    assert_eq!(tour.count(), json!({"greeting": "good day", "calls": 3}));
    tour.log_has("other settings");
    let other = [&tour.bytes, OTHERWISE].concat();
    app::write_component(tour.cluster.folder(), "tour", &other);
    tour.cluster.aegis_ok(&["reload"]);
    assert_eq!(tour.count(), json!({"greeting": "good day", "calls": 4}));
    tour.log_has("taken over");
    tour.log_has("the tour ends");
    let ailing = || tour.cluster.admin_get("/aegis/api/config?details=modules").contains("the guide is ill");
    assert!(!ailing());
    tour.greets_with("good day", "ill");
    assert!(ailing());
}

/// What code passes on has the digits that it was sent with.
fn check_numbers(language: &str) {
    let tour = Tour::start(language);
    let numbers = r#""whole":9007199254740993,"exact":12345678901234567.89"#;
    let sent = format!(r#"{{"id":"n","name":"n","price":5,{numbers}}}"#);
    let client = tour.cluster.client();
    assert_eq!(client.send("POST", &format!("{MODELS}/tours"), sent.as_bytes()).status, 201);
    let shown = client.get("tours/n").text();
    assert!(shown.contains(numbers) && shown.contains("\"grade\":\"fair\""), "{shown}");
}

/// Interfaces of the contract that a component names, wherever it does.
fn interfaces(component: &[u8]) -> BTreeSet<String> {
    let name = b"aegis:module/";
    let begins = |at: &usize| component[*at..].starts_with(name);
    let named = |at: usize| {
        let rest = component[at + name.len()..].iter();
        rest.take_while(|byte| byte.is_ascii_lowercase() || **byte == b'-')
            .map(|byte| char::from(*byte))
            .collect()
    };
    (0..component.len()).filter(begins).map(named).collect()
}

/// Neither what it could have used nor what it could have offered is in a component that does not.
fn check_interfaces(language: &str) {
    let (todo, tour) = (interfaces(&read("todo", language)), interfaces(&read("tour", language)));
    let common = ["commands", "config", "describe-model", "hooks", "identity", "lifecycle", "models"];
    let special = ["clock", "event-handlers", "handover", "http", "metrics", "routes", "secrets"];
    for interface in common {
        assert!(todo.contains(interface) && tour.contains(interface), "{interface}: {todo:?} {tour:?}");
    }
    // All of Python's SDK that a module gets with its model tells the time.
    for interface in special.into_iter().filter(|interface| language != "python" || *interface != "clock") {
        assert!(!todo.contains(interface) && tour.contains(interface), "{interface}: {todo:?} {tour:?}");
    }
}

macro_rules! languages {
    ($($language:ident),*) => {$(
        mod $language {
            #[test]
            #[ignore = "scripts/guests builds the module first"]
            fn the_contract_is_answered_alike() {
                super::check_session(stringify!($language));
            }

            #[test]
            #[ignore = "scripts/guests builds the modules first"]
            fn a_component_has_the_interfaces_that_it_uses_and_offers() {
                super::check_interfaces(stringify!($language));
            }

            #[test]
            #[ignore = "scripts/guests builds the module first"]
            fn what_is_remembered_outlasts_settings_and_versions() {
                super::check_life(stringify!($language));
            }
        }
    )*};
}

languages!(rust, javascript, python);

#[test]
#[ignore = "scripts/guests builds the module first"]
fn numbers_that_a_module_in_rust_does_not_touch_stay_as_they_are() {
    check_numbers("rust");
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn numbers_that_a_module_in_python_does_not_touch_stay_as_they_are() {
    check_numbers("python");
}
