//! Compiled code is there once, however many workers run it.

use std::{fs, time::Duration};

use aegis_guests::{Guest, splice};
use aegis_harness::{App, Cluster, eventually};
use serde_json::json;

const MODULES: usize = 20;
const WORKERS: u32 = 4;

/// Kilobytes of all mappings of bundles in a process.
#[derive(Debug, Default, Clone, Copy)]
struct Mapped {
    resident: u64,
    /// Each page divided by the number of processes that have it.
    proportional: u64,
    /// Pages that this process has changed, and so has alone.
    own: u64,
}

fn mapped(pid: u32) -> Mapped {
    let path = format!("/proc/{pid}/smaps");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (mut sum, mut is_bundle) = (Mapped::default(), false);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(name), value) = (words.next(), words.next()) else { continue };
        if !name.ends_with(':') {
            is_bundle = line.contains("/memfd:aegis-bundle");
        } else if is_bundle {
            let kilobytes =
                || value.and_then(|text| text.parse::<u64>().ok()).expect("a number of kilobytes");
            match name {
                "Rss:" => sum.resident += kilobytes(),
                "Pss:" => sum.proportional += kilobytes(),
                "Anonymous:" => sum.own += kilobytes(),
                _ => {}
            }
        }
    }
    sum
}

#[test]
fn pages_of_code_are_counted_once_over_all_workers() {
    let app = (0..MODULES).fold(App::todo(), |app, number| {
        let name = format!("m{number}");
        let spec = json!({ "name": name, "endpoint": name, "version": "1.0.0" });
        app.component(&name, Guest::model(spec).hook("on-create", splice("input", "\"a\":1")).build())
    });
    let cluster = Cluster::start(app, WORKERS);
    let workers = cluster.await_workers(WORKERS as usize);
    for worker in &workers {
        // Each worker runs the code of each module, on whichever connection comes to it.
        let prefix = format!("{}.", worker.slot);
        for number in 0..MODULES {
            eventually("the worker has run the code", Duration::from_secs(30), || {
                let answer = cluster.client().post(&format!("m{number}"), &json!({}));
                assert_eq!(answer.status, 201);
                answer.header("aegis-worker").is_some_and(|name| name.starts_with(&prefix))
            });
        }
    }
    let all: Vec<Mapped> = workers.iter().map(|worker| mapped(worker.pid)).collect();
    let once = all.iter().map(|mapped| mapped.resident).max().unwrap();
    let counted: u64 = all.iter().map(|mapped| mapped.proportional).sum();
    assert!(once > 0, "{all:?}");
    assert!(counted * 10 <= once * 11, "found {counted} kB over all, expected {once} kB once: {all:?}");
    assert!(all.iter().all(|mapped| mapped.own == 0), "nobody has pages of their own: {all:?}");
}
