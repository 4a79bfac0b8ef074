//! What modules ask of the host beyond single documents, over several workers: batches, aggregates, measurements.

use std::time::Duration;

use aegis_harness::{App, Cluster, cluster::signal_process, eventually};
use nix::sys::signal::Signal;
use serde_json::json;

fn entries() -> Cluster {
    Cluster::start(App::default().component("entry", aegis_guests::entry().build()), 2)
}

#[test]
fn measurements_of_all_workers_come_together_and_outlive_a_worker() {
    let cluster = entries();
    assert_eq!(cluster.client().post("entries", &json!({"id": "desk"})).status, 201);
    let count = |times: usize| {
        for _ in 0..times {
            // A connection of its own each time, so that both workers count.
            assert_eq!(cluster.client().post("entries/desk/count", &json!({})).status, 200);
        }
    };
    count(40);
    let counted = |expected: &str| {
        let metrics = cluster.admin_get("/metrics");
        let line = format!("\naegis_module_counted_total{{module=\"entry\",by=\"{{}}\"}} {expected}\n");
        metrics.contains(&line)
    };
    assert!(counted("40"), "{}", cluster.admin_get("/metrics"));
    let killed = cluster.serving()[0].pid;
    signal_process(killed, Signal::SIGKILL);
    eventually("another worker serves", Duration::from_secs(20), || {
        let serving = cluster.serving();
        serving.len() == 2 && serving.iter().all(|worker| worker.pid != killed)
    });
    count(2);
    assert!(counted("42"), "{}", cluster.admin_get("/metrics"));
}

#[test]
fn a_batch_of_a_module_is_seen_whole_by_every_worker_and_survives_a_crash() {
    let mut cluster = entries();
    let client = cluster.client();
    for id in ["a", "b", "desk"] {
        assert_eq!(client.post("entries", &json!({"id": id, "n": 2})).status, 201);
    }
    let failed = client.post("entries/desk/trade", &json!({"id": "a"}));
    assert_eq!(failed.status, 409, "{}", failed.text());
    let traded = client.post("entries/desk/trade", &json!({"id": "c", "n": 5}));
    assert_eq!((traded.status, traded.text()), (200, "3".into()), "{}", traded.text());
    cluster.kill_and_restart();
    for _ in 0..4 {
        let client = cluster.client();
        assert_eq!(client.get("entries/b").status, 404);
        assert_eq!(client.get("entries/a").json()["traded"], true);
        let sums = client.post("entries/desk/sums", &json!({}));
        assert_eq!(sums.json(), json!([{ "_id": null, "n": 9 }]), "{}", sums.text());
    }
}
