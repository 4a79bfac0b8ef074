use aegis_ipc::{
    deploy::{Deployed, Form, Tried},
    operator::StoreStatus,
};

use super::*;

fn worker(slot: u32, state: &str) -> WorkerStatus {
    WorkerStatus {
        slot,
        generation: 7,
        pid: 4243 + slot,
        state: state.to_owned(),
        uptime_ms: 3_725_000,
        connections: 12,
        in_flight: 3,
        requests: 1_203_944 * u64::from(slot),
        resident_bytes: 47_395_635,
        lag: 0,
    }
}

fn status() -> Status {
    Status {
        pid: 4242,
        version: "0.1.0".to_owned(),
        uptime_ms: 90_061_000,
        summary: "gen 7 · 1/2 serving · 1 draining".to_owned(),
        listen: vec!["http://127.0.0.1:8080".to_owned(), "http://[::1]:8080".to_owned()],
        generation: 7,
        digest: "0123456789abcdef".repeat(4),
        notice: None,
        deployed: Vec::new(),
        failing: Vec::new(),
        trials: Vec::new(),
        workers_wanted: 2,
        workers: vec![worker(0, "serving"), worker(10, "draining")],
        store: StoreStatus {
            pid: 4250,
            state: "ready".to_owned(),
            durable: 120_345,
            epoch: 1,
            restarts: 0,
            disk_full: None,
        },
        jobs: Vec::new(),
        last_job: None,
        deaths: Vec::new(),
        loop_longest_us: 800,
    }
}

fn job(kind: &str, verdict: Option<Verdict>) -> Job {
    Job { job: 3, kind: kind.to_owned(), step: "draining worker 1".to_owned(), generation: 8, verdict }
}

#[test]
fn a_quiet_host_shows_its_workers() {
    insta::assert_snapshot!(render(&status()), @"
    gen 7 · 1/2 serving · 1 draining
    listening on http://127.0.0.1:8080, http://[::1]:8080
    aegis 0.1.0, pid 4242, up 1 d 1 h, generation 7 (0123456789ab)
    store ready, pid 4250, 0 restarts, durable up to change 120345

    SLOT  GEN   PID  STATE            UP  CONNS  ACTIVE  REQUESTS    MEMORY  LAG
       0    7  4243  serving   1 h 2 min     12       3         0  45.1 MiB    0
      10    7  4253  draining  1 h 2 min     12       3  12039440  45.1 MiB    0
    ");
}

#[test]
fn a_full_disk_is_told() {
    let disk_full =
        DiskFull { for_ms: 182_000, free_bytes: 20 * 1024 * 1024, needed_bytes: 72 * 1024 * 1024 };
    let status = Status { store: StoreStatus { disk_full: Some(disk_full), ..status().store }, ..status() };
    let text = render(&status);
    let told = text.lines().find(|line| line.contains("disk")).unwrap();
    insta::assert_snapshot!(told, @"the disk of the store is nearly full, writes have been refused for 3 min 2 s: 20.0 MiB free, 72.0 MiB needed");
}

#[test]
fn a_busy_host_shows_jobs_and_deaths() {
    let death = |ago_ms| Death {
        who: "worker 3".to_owned(),
        pid: 99,
        generation: 6,
        reason: "crashed by SIGKILL".to_owned(),
        ago_ms,
    };
    let status = Status {
        jobs: vec![job("reload", None)],
        last_job: Some(job("scale", Some(Verdict::Done))),
        deaths: [5, 5000, 65_000, 7_200_000, 200_000_000, 1].map(death).to_vec(),
        workers: Vec::new(),
        listen: Vec::new(),
        ..status()
    };
    insta::assert_snapshot!(render(&status), @"
    gen 7 · 1/2 serving · 1 draining
    listening on nothing
    aegis 0.1.0, pid 4242, up 1 d 1 h, generation 7 (0123456789ab)
    store ready, pid 4250, 0 restarts, durable up to change 120345

    SLOT  GEN  PID  STATE  UP  CONNS  ACTIVE  REQUESTS  MEMORY  LAG

    job 3 (reload): draining worker 1

    last: scale done

    processes that ended:
      worker 3 (pid 99, generation 6) crashed by SIGKILL, 5 ms ago
      worker 3 (pid 99, generation 6) crashed by SIGKILL, 5 s ago
      worker 3 (pid 99, generation 6) crashed by SIGKILL, 1 min 5 s ago
      worker 3 (pid 99, generation 6) crashed by SIGKILL, 2 h 0 min ago
      worker 3 (pid 99, generation 6) crashed by SIGKILL, 2 d 7 h ago
    ");
}

#[test]
fn every_verdict_is_a_sentence() {
    let verdicts = [
        Verdict::Done,
        Verdict::Unchanged,
        Verdict::Rejected { reasons: vec!["aegis.toml:1: one".to_owned(), "modules/a: two".to_owned()] },
        Verdict::RolledBack { reason: "worker 1 was not ready after 60 s".to_owned() },
        Verdict::Superseded,
    ];
    let sentences = verdicts.map(|verdict| ended(&job("reload", Some(verdict))));
    insta::assert_snapshot!(sentences.join("\n"), @"
    reload done, generation 8 is in force
    reload: nothing has changed, nothing was done
    reload rejected, nothing was touched
      aegis.toml:1: one
      modules/a: two
    reload rolled back: worker 1 was not ready after 60 s
    reload superseded by a newer request before it began
    ");
}

fn deployed() -> Deployed {
    Deployed {
        source: "https://modules.example.com/order/".to_owned(),
        form: Form::Component,
        sha256: "fedcba9876543210".repeat(4),
        manifest_sha256: None,
        signature_sha256: None,
        since_s: 1_700_000_000,
    }
}

#[test]
fn a_host_that_does_not_serve_its_app_folder_or_calls_no_code_says_so_at_the_top() {
    let status = Status {
        notice: Some("rolled back on request; it stays until `aegis reload`".to_owned()),
        deployed: vec![DeployedModule { module: "order".to_owned(), deployed: deployed() }],
        failing: vec!["order".to_owned()],
        workers: Vec::new(),
        ..status()
    };
    insta::assert_snapshot!(render(&status), @r"
    gen 7 · 1/2 serving · 1 draining
    listening on http://127.0.0.1:8080, http://[::1]:8080
    aegis 0.1.0, pid 4242, up 1 d 1 h, generation 7 (0123456789ab)
    store ready, pid 4250, 0 restarts, durable up to change 120345
    not the app folder: rolled back on request; it stays until `aegis reload`
    module order deployed from https://modules.example.com/order/ (fedcba987654) since 2023-11-14T22:13:20Z
    module order keeps failing, a worker does not call it

    SLOT  GEN  PID  STATE  UP  CONNS  ACTIVE  REQUESTS  MEMORY  LAG
    ");
}

#[test]
fn a_version_that_is_tried_is_shown_with_the_one_beside_it_and_whether_it_is_called() {
    let tried = Tried {
        share_percent: 20,
        version: "2.0.0".to_owned(),
        counted_as: "order".to_owned(),
        deployed: deployed(),
        current_version: "1.0.0".to_owned(),
        current_sha256: "0123456789abcdef".repeat(4),
        current_counted_as: "order".to_owned(),
    };
    let tried = |failing| TriedModule { module: "order".to_owned(), failing, tried: tried.clone() };
    insta::assert_snapshot!(trial(&tried(false)) + &trial(&tried(true)), @r"
    module order: 20 % get version 2.0.0 (fedcba987654) from https://modules.example.com/order/ since 2023-11-14T22:13:20Z, the others version 1.0.0 (0123456789ab)
    module order: 20 % get version 2.0.0 (fedcba987654) from https://modules.example.com/order/ since 2023-11-14T22:13:20Z, the others version 1.0.0 (0123456789ab); what is tried keeps failing, a worker does not call it
    ");
}

#[test]
fn what_others_would_notice_is_listed_with_the_way_to_do_it_all_the_same() {
    let reasons = vec!["modules.a: endpoint: found x, expected y".to_owned(), "second".to_owned()];
    insta::assert_snapshot!(ended(&job("deploy", Some(Verdict::Incompatible { reasons }))), @r"
    deploy refused, nothing was touched: others would notice (--force does it all the same, but not with --share)
      modules.a: endpoint: found x, expected y
      second
    ");
}
