//! The executable is replaced over and over under load.

use std::fs;

use aegis_harness::{App, Cluster, cluster::executable, load::Plan};
use serde_json::json;

use crate::{Check, Options};

/// One run.
pub(crate) fn run(options: Options) -> Vec<Check> {
    let settings = "[reload]\ncanary-time = \"20ms\"\ncanary-requests-min = 1000000000\n";
    let cluster = Cluster::start(App::todo().settings(settings), options.workers);
    let id = cluster.client().create("todo", &json!({"text": "a"}));
    let running = Plan::get(cluster.address, 32, &format!("/aegis/api/models/todo/{id}")).spawn();
    let copies: Vec<_> =
        ["one", "two"].iter().map(|name| cluster.folder().join(format!("aegis-{name}"))).collect();
    for copy in &copies {
        fs::copy(executable(), copy).expect("copy the executable");
    }
    let descriptors: usize = cluster.descriptors().values().sum();
    let mut done = 0;
    for number in 0..options.upgrades {
        let path = copies[number as usize % 2].to_string_lossy().into_owned();
        let output = cluster.aegis(&["upgrade", &path]);
        done += u32::from(output.status.success() && cluster.status().pid == cluster.pid());
    }
    let report = running.stop();
    cluster.await_workers(options.workers as usize);
    let after: usize = cluster.descriptors().values().sum();
    vec![
        Check::new(
            "each upgrade succeeds in the same process",
            done == options.upgrades,
            format!("{done} of {}", options.upgrades),
        ),
        Check::new(
            "no request fails during upgrades",
            report.failed() == 0 && report.succeeded > 0,
            format!("{} of {}: {:?}", report.failed(), report.succeeded, report.failures),
        ),
        Check::new(
            "descriptors are as before",
            after <= descriptors,
            format!("{descriptors} before, {after} after"),
        ),
    ]
}
