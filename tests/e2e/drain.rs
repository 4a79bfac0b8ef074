//! What a worker that leaves still has to finish, it finishes.

use std::{
    collections::BTreeMap,
    net::TcpStream,
    time::{Duration, Instant},
};

use aegis_harness::{
    App, Cluster, Connection, QUICK, app, client::MODELS, cluster::signal_process, eventually,
    eventually_some, http,
};
use aegis_ipc::operator::{Reply, Request, Verdict};
use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{setsockopt, sockopt},
    },
    unistd::Pid,
};
use serde_json::json;

const WAIT: Duration = Duration::from_secs(30);
/// How long a worker that says nothing is waited for.
const CLOSING: Duration = Duration::from_secs(2);
/// A stopped worker is not taken for one that hangs.
const FORBEARING: &str = "[hang]\nsuspect-after = \"1m\"\nkill-after = \"2m\"";

/// A worker that is stopped: it does not hear that it is to leave before it goes on.
struct Stopped(u32);

impl Stopped {
    fn new(cluster: &Cluster) -> Self {
        let pid = cluster.await_workers(1)[0].pid;
        signal_process(pid, Signal::SIGSTOP);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0 as i32), Signal::SIGCONT); // unless it is gone
    }
}

/// Reloads until this generation is in force: the job, whether it had ended when that was first seen, and a time at which
/// the old worker had not been told to drain yet.
fn bring_into_force(cluster: &Cluster, generation: u64) -> (u64, bool, Instant) {
    app::write_module(cluster.folder(), "todo", &app::revised_todo(generation as u32));
    let Ok(Reply::Accepted { job }) =
        cluster.ask(&Request::Reload { wait: false, mode: None, automatic: false })
    else {
        panic!("the reload is not accepted")
    };
    let mut before = Instant::now();
    eventually_some("the new generation to be in force", WAIT, || {
        let asked = Instant::now();
        let status = cluster.status();
        if status.generation == generation {
            return Some((job, status.jobs.is_empty(), before));
        }
        before = asked;
        None
    })
}

fn await_done(cluster: &Cluster, job: u64) {
    eventually("the reload to be done", WAIT, || {
        let last = cluster.status().last_job;
        last.is_some_and(|last| last.job == job && last.verdict == Some(Verdict::Done))
    });
}

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
        *finished.entry(response.worker().to_owned()).or_default() += 1;
        let mut closes = response.closes();
        eventually("it is told that its connection ends", WAIT, || {
            closes = closes || connection.request("GET", "/livez", &[], b"").unwrap().closes();
            closes
        });
    }
    assert_eq!(finished, begun);
    let after = cluster.await_workers(2);
    assert!(after.iter().all(|worker| worker.generation == 2), "{after:?}");
}

#[test]
fn a_reload_is_not_done_before_the_old_worker_accepts_no_more() {
    let cluster = Cluster::start(App::todo().settings(QUICK).settings(FORBEARING), 1);
    let stopped = Stopped::new(&cluster);
    let (job, has_ended, before) = bring_into_force(&cluster, 2);
    assert!(
        !has_ended || before.elapsed() >= CLOSING,
        "done although the old worker was stopped and may accept once more"
    );
    drop(stopped);
    await_done(&cluster, job);
    let answered = cluster.client().get("todo");
    assert!(answered.worker().ends_with(".2"), "{}", answered.worker());
}

#[test]
fn an_old_worker_that_does_not_say_that_it_accepts_no_more_is_not_waited_for_without_end() {
    let cluster = Cluster::start(App::todo().settings(QUICK).settings(FORBEARING), 1);
    let _stopped = Stopped::new(&cluster);
    let (job, _, before) = bring_into_force(&cluster, 2);
    await_done(&cluster, job);
    assert!(before.elapsed() >= CLOSING, "{:?}", before.elapsed());
    let leaving: Vec<_> = cluster.status().workers.into_iter().map(|worker| worker.state).collect();
    assert!(leaving.contains(&"draining".to_owned()), "the old worker is there still: {leaving:?}");
}

#[test]
fn a_reload_that_finds_nothing_new_and_ends_a_drain_says_that_workers_are_back() {
    let cluster = Cluster::start(App::todo().settings(QUICK), 1);
    let waking = "nothing has changed in the app; starting 1 workers again";
    cluster.aegis_ok(&["drain"]);
    let output = cluster.aegis(&["reload"]);
    let told = aegis_harness::cluster::words(&output);
    assert!(told.contains(waking) && told.contains("reload done, generation 1 is in force"), "{told}");
    assert_eq!(cluster.serving().len(), 1, "they serve by then");
    cluster.aegis_ok(&["drain"]);
    let job: serde_json::Value = serde_json::from_str(&cluster.aegis_ok(&["reload", "--json"])).unwrap();
    assert_eq!((&job["step"], &job["verdict"]["outcome"]), (&json!(waking), &json!("done")), "{job}");
}
