//! Services over `wasi:http`: unmodified components that answer under a route.

use std::{fs, time::Duration};

use aegis_harness::{App, Cluster, app, eventually, http, load::Plan, words};

fn hello() -> App {
    App::todo().component("hello", aegis_guests::service("one"))
}

#[test]
fn a_component_in_a_folder_answers_under_its_route() {
    let cluster = Cluster::start(hello(), 2);
    let client = cluster.client();
    let answer = client.send("GET", "/hello/there?x=1", b"");
    assert_eq!((answer.status, answer.text()), (200, "one/hello/there?x=1".to_owned()));
    assert_eq!(answer.header("x-service"), Some("one"));
    let echoed = client.send("POST", "/hello/echo", b"{\"a\":1}");
    assert_eq!((echoed.status, echoed.text()), (201, "{\"a\":1}".to_owned()));
    assert_eq!(client.send("GET", "/livez", b"").status, 200);
    assert_eq!(client.get("todo").status, 200, "models are served beside it");
    assert_eq!(client.send("GET", "/hello/deny", b"").text(), "denied", "nothing goes out");
    let modules = cluster.admin_get("/aegis/api/config?details=modules");
    let modules: serde_json::Value = serde_json::from_str(&modules).unwrap();
    assert_eq!(
        (&modules[0]["modelName"], &modules[0]["kind"]),
        (&"TODO".into(), &"model".into()),
        "{modules}"
    );
    assert_eq!((&modules[1]["name"], &modules[1]["kind"]), (&"hello".into(), &"service".into()), "{modules}");
    assert_eq!(modules[1]["route"], "/hello");
    let one = cluster.admin_get("/aegis/api/config?details=modules&modelName=todo");
    assert!(!one.contains("service"), "{one}");
    let trapped = client.send("GET", "/hello/trap", b"");
    assert_eq!((trapped.status, &trapped.json()["code"]), (500, &"guest-trap".into()));
}

/// What the code sends back is out before it has all of the body.
pub(crate) fn assert_echoes_piece_by_piece(cluster: &Cluster) {
    let mut connection = cluster.client().connect().unwrap();
    connection.send(b"POST /hello/echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    for _ in 0..3 {
        connection.send(b"3\r\nabc\r\n").unwrap();
    }
    assert_eq!(connection.receive_head().unwrap().status, 201);
    for piece in ["def", "ghi"] {
        connection.send(format!("3\r\n{piece}\r\n").as_bytes()).unwrap();
        while connection.receive_line().unwrap().trim() != piece {}
    }
}

#[test]
fn a_streamed_body_comes_back_as_it_goes_in() {
    assert_echoes_piece_by_piece(&Cluster::start(hello(), 1));
}

#[test]
fn code_that_does_not_end_is_ended_with_504() {
    let cluster = Cluster::start(hello().settings("[modules.hello.limits]\ndeadline = \"300ms\""), 1);
    let spun = cluster.client().send("GET", "/hello/spin", b"");
    assert_eq!((spun.status, &spun.json()["code"]), (504, &"deadline-exceeded".into()));
    assert_eq!(cluster.client().send("GET", "/hello", b"").status, 200);
}

#[test]
fn a_service_is_replaced_under_load_without_a_failed_request_and_survives_a_restart() {
    let mut cluster = Cluster::start(hello(), 2);
    let echo = http::encode("POST", "/hello/echo", &cluster.address.to_string(), &[], b"again");
    let running = Plan::get(cluster.address, 8, "").requests(move |_| echo.clone()).spawn();
    for name in ["two", "three"] {
        app::write_component(cluster.folder(), "hello", &aegis_guests::service(name));
        cluster.aegis_ok(&["reload"]);
        // A worker that is told to leave may still take a connection that comes at the same moment.
        eventually("the new code answers", Duration::from_secs(30), || {
            cluster.client().send("GET", "/hello", b"").text() == format!("{name}/hello")
        });
    }
    let report = running.stop();
    report.assert_clean();
    assert!(report.succeeded > 0);
    cluster.stop_and_restart();
    assert_eq!(cluster.client().send("GET", "/hello", b"").text(), "three/hello");
}

#[test]
fn the_manifest_says_the_route_and_a_route_of_others_is_a_mistake() {
    let cluster = Cluster::start(hello(), 1);
    let manifest = |text: &str| {
        fs::write(cluster.folder().join("modules/hello/aegis.module.json"), text).unwrap();
        let output = cluster.aegis(&["reload"]);
        words(&output)
    };
    manifest(r#"{ "schema": "aegis.module/1", "kind": "http-service", "route": "/shop/cart" }"#);
    assert_eq!(cluster.client().send("GET", "/shop/cart/1", b"").text(), "one/shop/cart/1");
    assert_eq!(cluster.client().send("GET", "/hello", b"").status, 404);
    for (wrong, told) in [
        (r#""route": "/livez""#, "the host answers at /livez"),
        (r#""route": "/aegis/api/x""#, "the host answers at /aegis/api"),
        (r#""route": "shop""#, "expected one like"),
        (r#""kind": "model""#, r#"expected "model" as its manifest says"#),
    ] {
        let found = manifest(&format!(r#"{{ "schema": "aegis.module/1", {wrong} }}"#));
        assert!(found.contains(told), "{found}");
        assert_eq!(cluster.client().send("GET", "/shop/cart", b"").status, 200);
    }
}
