//! Workers that keep crashing: started again ever more slowly, and with the last generation that was good.

use std::time::{Duration, Instant};

use aegis_harness::{App, Cluster, QUICK, app, cluster::signal_process, eventually};
use nix::sys::signal::Signal;
use serde_json::json;

const WAIT: Duration = Duration::from_secs(30);

/// Makes the only worker crash, and gives the time until another one serves.
fn crash(cluster: &Cluster) -> Duration {
    let victim = cluster.await_workers(1)[0].pid;
    let begun = Instant::now();
    signal_process(victim, Signal::SIGABRT);
    eventually("another worker to serve", WAIT, || {
        cluster.serving().iter().any(|worker| worker.pid != victim)
    });
    begun.elapsed()
}

#[test]
fn workers_that_keep_crashing_are_started_again_ever_more_slowly() {
    let settings = "[restart]\ndelay-min = \"300ms\"\ncrash-loop-count = 1000";
    let cluster = Cluster::start(App::todo().settings(settings), 1);
    let times: Vec<Duration> = (0..5).map(|_| crash(&cluster)).collect();
    // The first is started again at once, the next ones after 300 ms, doubled each time, 20 per cent more or less.
    for (time, least_ms) in times[1..].iter().zip([240, 480, 960, 1920]) {
        assert!(*time >= Duration::from_millis(least_ms), "{times:?}");
    }
    assert!(cluster.status().deaths.iter().all(|death| death.reason == "crashed by SIGABRT"));
    assert_eq!(cluster.client().get("todo").status, 200);
}

#[test]
fn a_generation_that_crashes_in_a_loop_is_rolled_back_without_being_asked() {
    let app = App::todo().settings(QUICK).settings("[restart]\ndelay-min = \"10ms\"");
    let cluster = Cluster::start(app, 1);
    let client = cluster.client();
    let id = client.create("todo", &json!({"text": "a"}));
    app::write_module(cluster.folder(), "todo", &format!("{}\nextra = \"text\"\n", app::TODO));
    cluster.aegis_ok(&["reload"]);
    assert_eq!(cluster.status().generation, 2);

    // Three crashes of one generation are a loop; the third replacement is of the generation before.
    for _ in 0..3 {
        crash(&cluster);
    }
    // It is in force before its job has ended, which waits for the workers of before.
    eventually("the generation before to be in force by a rollback", WAIT, || {
        let status = cluster.status();
        status.generation == 1 && status.last_job.is_some_and(|job| job.kind == "rollback")
    });
    let workers = cluster.await_workers(1);
    assert_eq!(workers[0].generation, 1);
    assert_eq!(client.get(&format!("todo/{id}")).status, 200);
    assert_eq!(client.post("todo", &json!({"extra": 7})).status, 201, "its rules are in force again");
}
