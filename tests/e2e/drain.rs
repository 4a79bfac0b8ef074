//! What a worker that leaves still has to finish, it finishes.

use std::{collections::BTreeMap, net::TcpStream, time::Duration};

use aegis_harness::{App, Cluster, Connection, app, client::MODELS, eventually, http};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;

const QUICK: &str = "[reload]\ncanary-time = \"50ms\"\ncanary-requests-min = 1000000";
const WAIT: Duration = Duration::from_secs(20);

fn reload(cluster: &Cluster) {
    app::write_module(cluster.folder(), "todo", &format!("{}\nextra = \"text\"\n", app::TODO));
    cluster.aegis_ok(&["reload"]);
}

#[test]
fn a_large_answer_that_is_read_slowly_is_complete_after_a_reload() {
    let cluster = Cluster::start(App::todo().settings(QUICK), 2);
    let client = cluster.client();
    let text = "x".repeat(512 * 1024);
    for n in 0..32 {
        assert_eq!(client.post("todo", &json!({"n": n, "text": text})).status, 201);
    }
    let path = format!("{MODELS}/todo?__limit=1000");
    let whole = client.send("GET", &path, b"").body;

    // The answer is larger than all buffers on its way, so the worker has not got rid of it when it is told to leave.
    let stream = TcpStream::connect(cluster.address).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    setsockopt(&stream, sockopt::RcvBuf, &(32 * 1024)).unwrap();
    let host = cluster.address.to_string();
    let mut slow = Connection::from_stream(stream, &host);
    slow.send(&http::encode("GET", &path, &host, &[], b"")).unwrap();
    let head = slow.receive_head().unwrap();
    assert_eq!((head.status, head.header("content-length")), (200, Some(whole.len().to_string().as_str())));
    assert!(head.worker().ends_with(".1"), "{}", head.worker());
    let mut body = slow.receive_bytes(100 * 1024).unwrap();
    reload(&cluster);
    let leaving = |worker: &aegis_ipc::operator::WorkerStatus| worker.generation == 1;
    assert!(cluster.status().workers.iter().any(leaving), "the old worker waits for its client");
    while body.len() < whole.len() {
        let piece = (whole.len() - body.len()).min(1024 * 1024);
        body.extend(slow.receive_bytes(piece).unwrap());
    }
    assert!(body == whole, "the same bytes as before the reload");
    drop(slow);
    cluster.await_workers(2);
}

#[test]
fn fifty_requests_in_flight_finish_on_the_workers_that_began_them() {
    let cluster = Cluster::start(App::todo().settings(QUICK), 2);
    let head = format!(
        "POST {MODELS}/todo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 12\r\n\r\n"
    );
    let mut held: Vec<Connection> = (0..50).map(|_| cluster.client().connect().unwrap()).collect();
    for connection in &mut held {
        connection.send(head.as_bytes()).unwrap();
    }
    let mut begun = BTreeMap::new();
    eventually("fifty requests to be in flight", WAIT, || {
        let workers = cluster.status().workers;
        begun = workers.iter().map(|worker| (format!("{}.1", worker.slot), worker.in_flight)).collect();
        begun.values().sum::<u64>() == 50
    });
    begun.retain(|_, in_flight| *in_flight > 0);
    reload(&cluster);
    let mut finished = BTreeMap::new();
    for mut connection in held {
        connection.send(b"{\"text\":\"a\"}").unwrap();
        let response = connection.receive(false).unwrap();
        assert_eq!(response.status, 201, "{}", response.text());
        assert!(response.closes());
        *finished.entry(response.worker().to_owned()).or_default() += 1;
    }
    assert_eq!(finished, begun);
    let after = cluster.await_workers(2);
    assert!(after.iter().all(|worker| worker.generation == 2), "{after:?}");
}
