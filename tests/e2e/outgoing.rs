//! Modules that reach other systems: with secrets, within their grants, as long as their calls last.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use aegis_harness::{App, Cluster, Start, eventually, words};
use serde_json::json;

use crate::services_in_rust;

const PATIENCE: Duration = Duration::from_secs(30);

/// A loopback API. The end of the path says what it does; it tells what it was asked, and when a connection is over.
struct Api {
    address: SocketAddr,
    heads: Receiver<String>,
    ends: Receiver<()>,
}

impl Api {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ((asked, heads), (over, ends)) = (mpsc::channel(), mpsc::channel());
        // It ends with the process of the test.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (asked, over) = (asked.clone(), over.clone());
                thread::spawn(move || {
                    serve(&stream, &asked);
                    let _ = over.send(());
                });
            }
        });
        Self { address, heads, ends }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn head(&self) -> String {
        self.heads.recv_timeout(PATIENCE).unwrap()
    }
}

fn serve(stream: &TcpStream, asked: &Sender<String>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    loop {
        let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
        let Some(first) = head.first().cloned() else { return };
        let _ = asked.send(head.join("\n"));
        let (status, field, body) = match first.split(' ').nth(1).unwrap() {
            // Nothing is said, and the loop ends when the other side hangs up.
            "/stuck" => continue,
            "/metadata" => ("302 Found", "location: http://169.254.169.254/latest/\r\n", ""),
            _ => ("200 OK", "", "{\"paid\":true}"),
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\n{field}content-length: {length}\r\n\r\n{body}");
        let mut stream = stream;
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// A model that calls others, with a secret in a file; a service that does, and what both are granted. Calls of the model end
/// after `deadline`.
fn calling(api: &Api, deadline: &str) -> App {
    let address = api.address;
    App::default()
        .component("caller", aegis_guests::caller().build())
        .component("relay", aegis_guests::relay())
        .settings(&format!(
            "[secrets]\nstripe = {{ env = \"STRIPE_KEY\" }}\n\
             [modules.caller]\nlimits = {{ deadline = \"{deadline}\" }}\n\
             grants = {{ http = [\"{address}\"], secrets = [\"stripe\"] }}\n\
             [modules.relay]\ngrants = {{ http = [\"{address}\"] }}\n"
        ))
}

fn start(api: &Api) -> Cluster {
    start_with(api, "20s")
}

fn start_with(api: &Api, deadline: &str) -> Cluster {
    let cluster =
        Start::app(calling(api, deadline)).workers(2).environment("STRIPE_KEY", "sk_hush_hush").start();
    assert_eq!(cluster.client().post("callers", &json!({"id": "a"})).status, 201);
    cluster
}

fn ask(cluster: &Cluster, command: &str, url: &str) -> (u16, String) {
    let answer = cluster.client().post(&format!("callers/a/{command}"), &json!({ "url": url }));
    (answer.status, answer.text())
}

#[test]
fn a_module_pays_with_a_secret_that_nobody_sees() {
    let api = Api::start();
    let cluster = start(&api);
    assert_eq!(ask(&cluster, "pay", &api.url("/charge")), (200, "{\"paid\":true}".to_owned()));
    let head = api.head();
    assert!(head.starts_with("GET /charge HTTP/1.1\n"), "{head}");
    assert!(head.contains("authorization: Bearer sk_hush_hush"), "{head}");
    let shown = [
        cluster.log(),
        cluster.client().send("GET", "/aegis.config.json", b"").text(),
        cluster.admin_get("/aegis/api/config?details=modules"),
        cluster.aegis_ok(&["status"]),
        format!("{:?}", ask(&cluster, "tell", "")),
    ];
    assert!(shown.iter().all(|shown| !shown.contains("hush")), "{shown:?}");
}

#[test]
fn what_is_not_granted_is_denied_on_every_hop_and_counted() {
    let api = Api::start();
    let cluster = start(&api);
    for (url, told) in [
        ("http://127.0.0.1:1/".to_owned(), "http://127.0.0.1:1 is not granted to this module"),
        ("http://[::ffff:127.0.0.1]:1/".to_owned(), "http://127.0.0.1:1 is not granted to this module"),
        (format!("http://{}@169.254.169.254/", api.address), "found a user in the address"),
        (api.url("/metadata"), "http://169.254.169.254 is not granted to this module"),
    ] {
        let (status, text) = ask(&cluster, "fetch", &url);
        assert!(status == 403 && text.contains(told), "{status} {text}");
    }
    assert!(api.head().starts_with("GET /metadata"), "only the last one reached it");
    eventually("the denials are counted", PATIENCE, || {
        let metrics = cluster.admin_get("/metrics");
        metrics.contains("\naegis_outgoing_requests_total 4\n")
            && metrics.contains("\naegis_outgoing_denied_total 4\n")
    });
}

#[test]
fn a_stalled_server_costs_one_call_and_its_connection() {
    let api = Api::start();
    let cluster = start_with(&api, "2s");
    let (status, text) = ask(&cluster, "fetch", &api.url("/stuck"));
    assert_eq!(status, 504, "{text}");
    api.ends.recv_timeout(PATIENCE).unwrap();
    assert_eq!(ask(&cluster, "fetch", &api.url("/again")).0, 200);
}

#[test]
fn a_service_over_wasi_http_fetches_within_its_grants() {
    let api = Api::start();
    let cluster = start(&api);
    let client = cluster.client();
    let fetched = client.send("GET", &format!("/relay?{}", api.address), b"");
    assert_eq!((fetched.status, fetched.text()), (200, "{\"paid\":true}".to_owned()));
    assert!(api.head().starts_with("GET / HTTP/1.1"));
    assert_eq!(client.send("GET", "/relay?127.0.0.1:1", b"").status, 502);
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn a_service_of_wasi_3_in_rust_fetches_within_its_grants_as_well() {
    let api = Api::start();
    let granted = format!("[modules.hello]\ngrants = {{ http = [\"{}\"] }}\n", api.address);
    let app = App::todo().component("hello", services_in_rust::component()).settings(&granted);
    let cluster = Cluster::start(app, 1);
    let client = cluster.client();
    let fetched = client.send("GET", &format!("/hello/ask?{}", api.address), b"");
    assert_eq!((fetched.status, fetched.text()), (200, "{\"paid\":true}".to_owned()));
    assert!(api.head().starts_with("GET / HTTP/1.1"));
    for other in ["127.0.0.1:1", "localhost:1", "169.254.169.254"] {
        let denied = client.send("GET", &format!("/hello/ask?{other}"), b"");
        assert_eq!(
            (denied.status, denied.text()),
            (502, "ErrorCode::HttpRequestDenied".to_owned()),
            "{other}"
        );
    }
    eventually("the denials are counted", Duration::from_secs(5), || {
        cluster.admin_get("/metrics").contains("\naegis_outgoing_denied_total 3\n")
    });
}

#[test]
fn a_secret_is_read_anew_with_every_reload_and_one_that_is_missing_changes_nothing() {
    let api = Api::start();
    let cluster = start(&api);
    let file = cluster.folder().join("stripe");
    let settings = cluster.folder().join("aegis.toml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, text.replace("{ env = \"STRIPE_KEY\" }", "{ file = \"stripe\" }")).unwrap();
    let refused = cluster.aegis(&["reload"]);
    let told = words(&refused);
    assert!(refused.status.code() == Some(3) && told.contains("secrets.stripe"), "{told}");
    for secret in ["sk_first_key", "sk_second_key"] {
        fs::write(&file, secret).unwrap();
        cluster.aegis_ok(&["reload"]);
        // A worker that is told to leave may still take a connection that comes at the same moment.
        eventually("the new secret is sent", PATIENCE, || {
            assert_eq!(ask(&cluster, "pay", &api.url("/charge")).0, 200);
            api.head().contains(&format!("authorization: Bearer {secret}"))
        });
    }
}

#[test]
fn a_secret_in_what_code_wrote_before_it_failed_is_in_no_answer_and_in_no_log() {
    let app = App::default().component("caller", aegis_guests::caller().build()).settings(
        "[secrets]\nstripe = { env = \"STRIPE_KEY\" }\n\
         [modules.caller]\ngrants = { \"secrets.reveal\" = [\"stripe\"] }\n",
    );
    let cluster = Start::app(app).workers(1).environment("STRIPE_KEY", "sk_hush_hush").start();
    assert_eq!(cluster.client().post("callers", &json!({"id": "a"})).status, 201);
    for name in ["panic", "tell"] {
        let failed = cluster.client().post(&format!("callers/a/{name}"), &json!({}));
        assert!(matches!(failed.status, 422 | 500), "{}", failed.text());
        assert!(!failed.text().contains("hush"), "{}", failed.text());
    }
    eventually("the log has both", PATIENCE, || cluster.log().matches("[secret]").count() >= 2);
    let log = cluster.log();
    assert!(log.contains("it wrote: [secret]") && !log.contains("hush"), "{log}");
}
