//! A new generation is judged by what its first worker answers to real clients.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use aegis_harness::{
    App, Cluster, app, eventually,
    load::{Plan, Reuse, Running},
    words,
};
use aegis_ipc::operator::WorkerStatus;
use serde_json::json;

const WORKERS: u32 = 2;
/// Latency is not what these tests are about: a busy machine makes it whatever it likes.
const JUDGED: &str =
    "[reload]\ncanary-time = \"1500ms\"\ncanary-requests-min = 20\nlatency-factor-max = 1000.0\n";

/// Creates documents as fast as possible, with a connection for each; also counts refusals of a full worker as answers.
fn writers(cluster: &Cluster) -> Running {
    let address = cluster.address;
    let headers = [("content-type", "application/json"), ("connection", "close")];
    let request = aegis_harness::http::encode(
        "POST",
        "/aegis/api/models/todo",
        &address.to_string(),
        &headers,
        json!({"text": "a"}).to_string().as_bytes(),
    );
    let mut plan = Plan::get(address, 16, "").requests(move |_| request.clone()).reuse(Reuse::PerRequest);
    plan.wanted = |status| matches!(status, 201 | 503);
    let running = plan.spawn();
    eventually("the load to run", Duration::from_secs(20), || running.completed() > 100);
    running
}

#[test]
fn a_generation_that_refuses_its_clients_is_rolled_back_with_the_reason() {
    let patient = JUDGED.replace("1500ms", "60s");
    let cluster = Cluster::start(App::todo().settings(&patient), WORKERS);
    let before = cluster.await_workers(WORKERS as usize);
    let running = writers(&cluster);
    let settings = format!("{patient}\n[limits]\nrequests-in-flight-max = 1\n");
    fs::write(cluster.folder().join("aegis.toml"), settings).unwrap();
    let begun = Instant::now();
    let output = cluster.aegis(&["reload"]);
    // Most of what it answers are errors: it does not keep its clients until its time is over.
    assert!(begun.elapsed() < Duration::from_secs(30), "it was judged after {:?}", begun.elapsed());
    let report = running.stop();

    let text = words(&output);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("the canary answered") && text.contains("with 5xx, the others 0.0 %"), "{text}");
    report.assert_clean();
    let after = cluster.await_workers(WORKERS as usize);
    assert_eq!(cluster.status().generation, 1);
    assert_eq!(
        before.iter().map(|one| one.pid).collect::<Vec<_>>(),
        after.iter().map(|one| one.pid).collect::<Vec<_>>(),
        "those that served before serve on"
    );
    let mut plan = Plan::get(cluster.address, 8, "/aegis/api/models/todo?__limit=1");
    plan.reuse = Reuse::PerRequest;
    plan.run_for(Duration::from_millis(200)).assert_clean();
}

#[test]
fn a_generation_that_answers_as_well_is_judged_and_comes_into_force() {
    let cluster = Cluster::start(App::todo().settings(JUDGED), WORKERS);
    let running = writers(&cluster);
    app::write_module(cluster.folder(), "todo", &format!("{}\nextra = \"text\"\n", app::TODO));
    // Requests that were answered, by all workers, when the canary was first and last seen to be on trial.
    let mut trial: Option<(u64, u64)> = None;
    let output = thread::scope(|scope| {
        let reload = scope.spawn(|| cluster.aegis(&["reload"]));
        eventually("the verdict", Duration::from_secs(60), || {
            let status = cluster.status();
            if status.jobs.iter().any(|job| job.step.contains("one worker serves, to be judged")) {
                let new = |worker: &&WorkerStatus| worker.state == "serving" && worker.generation == 2;
                assert!(status.workers.iter().filter(new).count() <= 1, "{:?}", status.workers);
                let completed = running.completed();
                trial = Some((trial.map_or(completed, |(first, _)| first), completed));
            }
            reload.is_finished()
        });
        reload.join().unwrap()
    });
    let report = running.stop();

    let text = words(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let (_, finding) = text.split_once("the canary is good (").unwrap_or_else(|| panic!("{text}"));
    let (judged, words) = finding.split_once(' ').unwrap();
    assert!(words.starts_with("requests, 0.0 % of them 5xx"), "{text}");
    report.assert_clean();
    let (first, last) = trial.unwrap();
    let share = judged.parse::<f64>().unwrap() / (last - first) as f64;
    let share_max = 1.0 / f64::from(WORKERS + 1) + 0.1;
    assert!(share <= share_max, "{share:.3}: the canary is one of three workers while it is judged");
    assert!(report.workers.keys().any(|worker| worker.ends_with(".2")), "{:?}", report.workers);
    let after = cluster.await_workers(WORKERS as usize);
    assert!(after.iter().all(|worker| worker.generation == 2), "{after:?}");
}
