//! The rows of the table: each measures ours and something beside it in the same minutes.

use std::{fs::File, time::Duration};

use aegis_harness::{Cluster, cluster::executable, footprint, load::Report};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde_json::{Value, json};

use crate::{
    Options, auth,
    bare::Bare,
    computing, joining, median, modules,
    nginx::Nginx,
    reload, serving, subject, swap, told, writes,
    wrk::{self, Load, Measured},
};

/// How long after its start a supervisor is looked at: what only the start needs is gone by then.
const REST: Duration = Duration::from_secs(2);

/// One line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) ours: String,
    pub(crate) beside: String,
    pub(crate) ratio: String,
    pub(crate) must: String,
    pub(crate) held: bool,
}

/// What can be asked for by name.
pub(crate) const NAMES: [&str; 12] =
    ["start", "get", "auth", "post", "list", "reload", "hook", "spin", "cpu", "fibonacci", "serve", "swap"];

/// Measures all rows that were asked for.
pub(crate) fn all(options: &Options) -> Vec<Row> {
    let mut rows = Vec::new();
    if options.wants("start") {
        rows.extend(start());
        rows.push(joining::row_of(options));
    }
    if options.wants("get") {
        rows.extend(reads(options));
    }
    if options.wants("auth") {
        rows.extend(auth::all(options));
    }
    if options.wants("post") {
        rows.extend(writes::all(options));
    }
    if options.wants("list") {
        rows.extend(lists(options));
    }
    if options.wants("reload") {
        rows.extend(reload::all(options));
    }
    rows.extend(modules::all(options));
    if options.wants("fibonacci") {
        rows.extend(computing::all(options));
    }
    if options.wants("serve") {
        rows.extend(serving::all(options));
    }
    if options.wants("swap") {
        rows.extend(swap::all(options));
    }
    rows
}

pub(crate) fn row(name: &str, ours: String, beside: String, ratio: String, must: &str, held: bool) -> Row {
    Row { name: name.to_owned(), ours, beside, ratio, must: must.to_owned(), held }
}

/// A row that should be there, and why it has no numbers. It does not hold.
pub(crate) fn not_measured(name: &str, reason: &str) -> Row {
    let must = format!("not measured: {reason}");
    row(name, String::new(), String::new(), String::new(), &must, false)
}

pub(crate) fn rate(value: f64) -> String {
    format!("{value:.0}/s")
}

pub(crate) fn milliseconds(value: f64) -> String {
    format!("{value:.2} ms")
}

fn start() -> Vec<Row> {
    told("start to ready …");
    let times = (0..5).map(|_| subject::start("").1.as_secs_f64() * 1000.0).collect();
    let time = median(times);
    let megabytes = resident_at_rest() as f64 / 1e6;
    vec![
        row("start: to ready", milliseconds(time), String::new(), String::new(), "≤ 300 ms", time <= 300.0),
        row(
            "start: supervisor resident, at rest",
            format!("{megabytes:.1} MB"),
            String::new(),
            String::new(),
            "≤ 6 MB",
            megabytes <= 6.0,
        ),
    ]
}

/// Bytes of the supervisor that are in memory, the image read from the disk as after a boot. A file that was written a
/// moment ago is in memory in pieces of up to megabytes, and the kernel maps whole pieces.
fn resident_at_rest() -> u64 {
    let image = File::open(executable()).expect("open the image");
    image.sync_all().expect("write the image to the disk");
    posix_fadvise(&image, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("drop the image from memory");
    let (cluster, _) = subject::start("");
    std::thread::sleep(REST);
    footprint::resident_bytes(cluster.pid())
}

/// Headers and body that the host answers a read with, without those that hyper adds by itself.
pub(crate) fn answered(cluster: &Cluster) -> (Vec<(String, String)>, Vec<u8>) {
    let response = cluster.client().send("GET", subject::PATH, b"");
    assert_eq!(response.status, 200);
    let own = ["date", "content-length", "connection"];
    let headers = response.headers.into_iter().filter(|(name, _)| !own.contains(&name.as_str()));
    (headers.collect(), response.body)
}

/// A load of a path.
type LoadOf = fn(&str) -> Load<'_>;

/// The row of reads that has limits.
const BUSY: &str = "64 connections";
/// Connections at once, what is asked over them, and how that is called.
const READS: [(usize, LoadOf, &str); 3] = [
    (64, |path| Load::Get(path), BUSY),
    (1, |path| Load::Get(path), "1 connection"),
    (64, |path| Load::GetEach(path), "64 at a time, a connection each"),
];

fn reads(options: &Options) -> Vec<Row> {
    let (cluster, _) = subject::start("");
    let (headers, body) = answered(&cluster);
    let bare = Bare::start(&headers, &body);
    let nginx = Nginx::start(&body).inspect_err(|error| told(&format!("without nginx: {error}"))).ok();
    let mut rows = Vec::new();
    for (connections, load_of, how) in READS {
        let (mut ours, mut beside, mut file) = (Vec::new(), Vec::new(), Vec::new());
        for round in 1..=options.rounds {
            told(&format!("GET by id, {how}, round {round} …"));
            let load = load_of(subject::PATH);
            ours.push(clean(wrk::run(cluster.address, connections, options.duration(), &load)));
            beside.push(clean(wrk::run(bare.address, connections, options.duration(), &load)));
            if let Some(nginx) = &nginx {
                let load = load_of("/document.json");
                file.push(clean(wrk::run(nginx.address, connections, options.duration(), &load)));
            }
        }
        rows.extend(compare_reads(how, &ours, &beside, &file));
    }
    rows
}

pub(crate) fn clean(measured: Measured) -> Measured {
    assert_eq!(measured.errors, 0, "wrk saw errors");
    measured
}

fn compare_reads(how: &str, ours: &[Measured], bare: &[Measured], nginx: &[Measured]) -> Vec<Row> {
    let rates = |all: &[Measured]| median(all.iter().map(|one| one.rate).collect());
    let p99 = |all: &[Measured]| median(all.iter().map(|one| one.p99.as_secs_f64() * 1000.0).collect());
    let paired = |pick: fn(&Measured) -> f64| {
        median(ours.iter().zip(bare).map(|(ours, bare)| pick(ours) / pick(bare)).collect())
    };
    let ratio = paired(|one| one.rate);
    let slower = paired(|one| one.p99.as_secs_f64());
    let name = format!("get by id, {how}");
    let must = how == BUSY;
    let mut rows = vec![
        row(
            &format!("{name}: rate / bare hyper"),
            rate(rates(ours)),
            rate(rates(bare)),
            format!("{ratio:.2}"),
            if must { "≥ 0.80" } else { "–" },
            !must || ratio >= 0.80,
        ),
        row(
            &format!("{name}: p99 / bare hyper"),
            milliseconds(p99(ours)),
            milliseconds(p99(bare)),
            format!("{slower:.2}"),
            if must { "≤ 1.5" } else { "–" },
            !must || slower <= 1.5,
        ),
    ];
    if !nginx.is_empty() {
        let ratio = median(ours.iter().zip(nginx).map(|(ours, file)| ours.rate / file.rate).collect());
        rows.push(row(
            &format!("{name}: rate / nginx file"),
            rate(rates(ours)),
            rate(rates(nginx)),
            format!("{ratio:.2}"),
            "–",
            true,
        ));
    }
    rows
}

fn lists(options: &Options) -> Vec<Row> {
    told("list over 100,000 documents: loading …");
    let (cluster, _) = subject::start("[query]\nscan-max = 50000");
    let client = cluster.client();
    for part in 0..100 {
        let documents: Vec<Value> = (0..1000)
            .map(|n| json!({"n": (part * 1000 + n) % 5000, "text": format!("row {n}"), "isComplete": n % 2 == 0}))
            .collect();
        assert_eq!(client.post("todo", &json!(documents)).status, 201);
    }
    let found = client.get("todo?n=77&__sort=-createTime").json();
    let found = found.as_array().expect("a list");
    assert_eq!(found.len(), 20, "one of each 5000 documents");
    assert!(found.iter().all(|document| document["n"] == 77), "{found:?}");
    let created = |document: &Value| document["createTime"].as_str().map(str::to_owned);
    assert!(found.is_sorted_by(|one, other| created(one) >= created(other)), "{found:?}");
    let load = Load::Get("/aegis/api/models/todo?n=77&__sort=-createTime");
    let measured = clean(wrk::run(cluster.address, 1, options.duration(), &load));
    let p50 = measured.p50.as_secs_f64() * 1000.0;
    let refused = client.get("todo?text=row%207");
    let named = refused.status == 400
        && refused.text().contains("query-too-expensive")
        && refused.text().contains("text");
    vec![
        row(
            "list: indexed filter over 100,000: p50",
            milliseconds(p50),
            String::new(),
            String::new(),
            "≤ 5 ms",
            p50 <= 5.0,
        ),
        row(
            "list: unindexed filter is bounded",
            refused.status.to_string(),
            String::new(),
            String::new(),
            "names the index",
            named,
        ),
    ]
}

/// That no request failed, of a load with many.
pub(crate) fn none_failed(name: &str, report: &Report) -> Row {
    row(
        &format!("{name}: failed"),
        report.failed().to_string(),
        format!("of {}", report.succeeded),
        String::new(),
        "0",
        report.failed() == 0 && report.succeeded > 0,
    )
}
