//! The executable is replaced over and over under load.

use std::fs;

use aegis_harness::{App, Cluster, Footprint, cluster::executable, load::Plan};
use serde_json::json;

use crate::{Check, Options};

/// Upgrades after which the host has what it keeps of the image and the generation before.
const FEW: u32 = 4;

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
    let upgrade = |number: u32| {
        let path = copies[number as usize % 2].to_string_lossy().into_owned();
        let output = cluster.aegis(&["upgrade", &path]);
        u32::from(output.status.success() && cluster.status().pid == cluster.pid())
    };
    let descriptors = || {
        cluster.await_workers(options.workers as usize);
        // Asking for the status opens one for a moment.
        Footprint::steady(&cluster).descriptors.values().sum::<usize>()
    };
    let few = options.upgrades.min(FEW);
    let mut done: u32 = (0..few).map(upgrade).sum();
    let before = descriptors();
    done += (few..options.upgrades).map(upgrade).sum::<u32>();
    let report = running.stop();
    let after = descriptors();
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
            "descriptors are no more than after the first few",
            after <= before,
            format!("{before} then, {after} after"),
        ),
    ]
}
