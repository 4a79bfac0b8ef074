//! What the load generator says of a server is what its clients would say.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use aegis_harness::load::Plan;

/// How long the server stands still, once.
const PAUSE: Duration = Duration::from_millis(400);
/// When it does, after its first request.
const PAUSES_AFTER: Duration = Duration::from_millis(200);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\naegis-worker: 1.1\r\n\r\nok";

/// When the server was first asked: from that follows when it stands still, on all connections.
type FirstRequest = Mutex<Option<Instant>>;

#[test]
fn a_server_that_stands_still_is_slow_for_all_that_was_due_meanwhile() {
    let address = serve();
    let report = Plan::get(address, 4, "/").rate(1000).run_for(Duration::from_secs(1));
    report.assert_clean();
    assert!(report.succeeded >= 900, "what was due while it stood still is sent: {}", report.succeeded);
    // 400 of 1000 requests were due while it stood still, evenly: the upper quarter of all had to wait for 150 ms or more.
    assert!(report.quantile(0.75) >= Duration::from_millis(100), "{:?}", report.quantile(0.75));
}

#[test]
fn without_a_rate_each_connection_tells_of_it_once() {
    let report = Plan::get(serve(), 4, "/").run_for(Duration::from_secs(1));
    report.assert_clean();
    let slow = report.latencies_us.iter().filter(|&&us| u128::from(us) > PAUSE.as_micros() / 2).count();
    assert!((1..=4).contains(&slow), "{slow}");
}

/// A server that answers at once but for one time.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let first = Arc::<FirstRequest>::default();
        for stream in listener.incoming() {
            let first = Arc::clone(&first);
            thread::spawn(move || answer(&stream.unwrap(), &first));
        }
    });
    address
}

/// Answers requests without a body until the client goes.
fn answer(mut stream: &TcpStream, first: &FirstRequest) {
    let (mut bytes, mut received) = ([0; 4096], Vec::new());
    while let Ok(count @ 1..) = stream.read(&mut bytes) {
        received.extend_from_slice(&bytes[..count]);
        if received.ends_with(b"\r\n\r\n") {
            received.clear();
            wait_out(first);
            if stream.write_all(ANSWER).is_err() {
                return;
            }
        }
    }
}

/// Waits while the server stands still.
fn wait_out(first: &FirstRequest) {
    let now = Instant::now();
    let stands_from = *first.lock().unwrap().get_or_insert(now) + PAUSES_AFTER;
    if stands_from <= now && now < stands_from + PAUSE {
        thread::sleep(stands_from + PAUSE - now); // a server that stands still is what is tested
    }
}
