//! Services over `wasi:http` 0.3: an unmodified component that was built with the public bindings of WASI for Rust, as
//! `wasmtime serve` runs it too. `scripts/guests` builds it.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use aegis_harness::{App, Client, Cluster, app, eventually, http, load::Plan};

use crate::services;

/// What the component calls itself.
const NAME: &str = "hello-0.3-one";

/// The component, as it was built.
pub(crate) fn component() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/hello/components/rust.wasm");
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The component under another name of the same length: another version of it.
pub(crate) fn named(name: &str) -> Vec<u8> {
    let mut bytes = component();
    let places: Vec<usize> =
        (0..bytes.len()).filter(|at| bytes[*at..].starts_with(NAME.as_bytes())).collect();
    assert!(!places.is_empty() && name.len() == NAME.len(), "{NAME} is in {places:?}");
    for place in places {
        bytes[place..place + NAME.len()].copy_from_slice(name.as_bytes());
    }
    bytes
}

fn hello() -> App {
    App::todo().component("hello", component())
}

/// What any host of WASI answers for this component, below `path`.
fn answers_as_it_should(client: &Client, path: &str) {
    let answer = client.send("GET", &format!("{path}/there?x=1"), b"");
    assert_eq!((answer.status, answer.text()), (200, format!("{NAME}{path}/there?x=1")));
    assert_eq!(answer.header("x-service"), Some(NAME));
    let echoed = client.with("x-own", "1").send("POST", &format!("{path}/echo"), b"{\"a\":1}");
    assert_eq!((echoed.status, echoed.text()), (201, "{\"a\":1}".to_owned()));
    assert_eq!(echoed.header("x-own"), Some("1"));
    let passed = client.send("POST", &format!("{path}/through"), b"as it is");
    assert_eq!((passed.status, passed.text()), (200, "as it is".to_owned()));
    assert_eq!(client.send("POST", &format!("{path}/whole"), &[1; 300_000]).text(), "300000");
    assert_eq!(client.send("GET", &format!("{path}/pour"), b"").body.len(), 8 << 20);
    for failure in ["trap", "refuse"] {
        assert_eq!(client.send("GET", &format!("{path}/{failure}"), b"").status, 500);
        assert_eq!(client.send("GET", &format!("{path}/"), b"").status, 200, "after {failure}");
    }
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn a_component_in_a_folder_answers_under_its_route() {
    let cluster = Cluster::start(hello().component("older", aegis_guests::service("older")), 2);
    let client = cluster.client();
    answers_as_it_should(&client, "/hello");
    let trapped = client.send("GET", "/hello/trap", b"");
    assert_eq!((trapped.status, &trapped.json()["code"]), (500, &"guest-trap".into()));
    let refused = client.send("GET", "/hello/refuse", b"");
    assert_eq!((refused.status, &refused.json()["code"]), (500, &"guest-failed".into()));
    assert_eq!(client.send("GET", "/older/x", b"").text(), "older/older/x", "beside one of WASI 0.2");
    assert_eq!(client.get("todo").status, 200, "and beside models");
    let modules = cluster.admin_get("/aegis/api/config?details=modules");
    assert!(modules.contains("\"hello\"") && modules.contains("\"/hello\""), "{modules}");
    let log = cluster.log();
    assert!(log.contains("about to fail"), "the operator is told what the code wrote: {log}");
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn the_same_file_answers_under_wasmtime_serve() {
    let peer = Peer::start(&component());
    answers_as_it_should(&Client::new(peer.address), "");
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn a_streamed_body_comes_back_as_it_goes_in() {
    services::assert_echoes_piece_by_piece(&Cluster::start(hello(), 1));
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn code_that_does_not_end_is_ended_with_504_and_a_body_that_is_too_large_with_413() {
    let settings = "[limits]\nbody_bytes_max = \"1KiB\"\n[modules.hello.limits]\ndeadline = \"300ms\"";
    let cluster = Cluster::start(hello().settings(settings), 1);
    for path in ["/hello/spin", "/hello/wait"] {
        let late = cluster.client().send("GET", path, b"");
        assert_eq!((late.status, &late.json()["code"]), (504, &"deadline-exceeded".into()), "{path}");
        assert_eq!(cluster.client().send("GET", "/hello", b"").status, 200);
    }
    assert_eq!(cluster.client().send("POST", "/hello/whole", &[1; 2048]).status, 413);
    assert_eq!(cluster.client().send("POST", "/hello/whole", &[1; 1024]).text(), "1024");
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn a_service_is_replaced_under_load_without_a_failed_request_and_survives_a_restart() {
    let mut cluster = Cluster::start(hello(), 2);
    let echo = http::encode("POST", "/hello/echo", &cluster.address.to_string(), &[], b"again");
    let running = Plan::get(cluster.address, 8, "").requests(move |_| echo.clone()).spawn();
    for name in ["hello-0.3-two", "hello-0.3-six"] {
        app::write_component(cluster.folder(), "hello", &named(name));
        cluster.aegis_ok(&["reload"]);
        assert_eq!(cluster.client().send("GET", "/hello", b"").text(), format!("{name}/hello"));
    }
    let report = running.stop();
    report.assert_clean();
    assert!(report.succeeded > 0);
    cluster.stop_and_restart();
    assert_eq!(cluster.client().send("GET", "/hello", b"").text(), "hello-0.3-six/hello");
}

#[test]
#[ignore = "scripts/guests builds the module first"]
fn an_instance_answers_several_requests_if_its_manifest_says_so() {
    let cluster = Cluster::start(hello(), 1);
    let nth = || cluster.client().send("GET", "/hello/nth", b"").text();
    assert_eq!([nth(), nth()], ["1", "1"]);
    let manifest =
        r#"{ "schema": "aegis.module/1", "kind": "http-service", "instances": { "max-invocations": 3 } }"#;
    fs::write(cluster.folder().join("modules/hello/aegis.module.json"), manifest).unwrap();
    cluster.aegis_ok(&["reload"]);
    // Each of them ends before its answer does.
    assert_eq!([nth(), nth(), nth(), nth()], ["1", "2", "3", "1"]);
}

/// A running `wasmtime serve`.
struct Peer {
    address: SocketAddr,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Peer {
    /// The program is the one that `scripts/wasmtime` has fetched; `scripts/test` says where it is.
    fn start(component: &[u8]) -> Self {
        let program = std::env::var_os("WASMTIME_BIN").expect("scripts/test says where wasmtime is");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hello.wasm");
        fs::write(&file, component).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(program)
            // What the runtime of Rust wants of WASI 0.2 beside it.
            .args(["serve", "-Scli", "--addr", &address.to_string()])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let peer = Self { address, child, _folder: folder };
        eventually("wasmtime listens", Duration::from_secs(60), || TcpStream::connect(address).is_ok());
        peer
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
