//! Somebody outside tells that something is published, and proves to know the secret.

use std::{fs, process::Command, time::Duration};

use aegis_harness::{App, Cluster, QUICK, app, cluster::executable, eventually, words};
use serde_json::json;

/// The example that GitHub gives: this secret, this body, this signature.
const SECRET: &str = "It's a Secret to Everybody";
const BODY: &[u8] = b"Hello, World!";
const SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

/// A host that takes webhooks; the secret lies outside its folder.
fn cluster(folder: &tempfile::TempDir) -> Cluster {
    let secret = folder.path().join("secret");
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let settings = format!("{QUICK}webhook-secret-file = \"{}\"", secret.display());
    Cluster::start(App::todo().settings(&settings), 2)
}

/// Whether the number that a revised module wants is enforced.
fn is_revised(cluster: &Cluster) -> bool {
    cluster.client().post("todo", &json!({"extra1": "not a number"})).status == 422
}

#[test]
fn a_changed_module_comes_into_force_by_a_signed_request_and_by_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = cluster(&folder);
    app::write_module(cluster.folder(), "todo", &app::revised_todo(1));
    let signed = cluster.client().with("x-hub-signature-256", SIGNATURE);
    let wrong = cluster.client().with("x-hub-signature-256", &SIGNATURE.replace('7', "8"));
    for client in [cluster.client(), wrong] {
        assert_eq!(client.send("POST", "/aegis/api/reload?wait=true", BODY).status, 401);
    }
    assert_eq!(signed.send("POST", "/reload?wait=true", b"Another body").status, 401);
    assert_eq!(signed.with("x-github-event", "ping").send("POST", "/reload", BODY).status, 200);
    let status = cluster.status();
    assert!(status.jobs.is_empty() && status.last_job.is_none(), "nothing was asked of the supervisor");
    assert!(!is_revised(&cluster));

    let accepted = signed.send("POST", "/aegis/api/reload", BODY);
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    eventually("the reload", Duration::from_secs(30), || is_revised(&cluster));
    // Whoever asks a worker that has to leave is told to come back for the verdict.
    eventually("the reload to end", Duration::from_secs(30), || cluster.status().jobs.is_empty());
    let unchanged = signed.send("POST", "/reload?wait=true", BODY);
    assert_eq!((unchanged.status, cluster.status().generation), (200, 2), "{}", unchanged.text());
    let checked = Command::new(executable()).arg("check").arg(cluster.folder()).output().unwrap();
    let checked = [checked.stdout, checked.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(checked.concat().contains("todo"), "{checked:?}");
    for text in [cluster.log(), cluster.admin_get("/aegis.config.json"), checked.concat()] {
        assert!(!text.contains("Everybody"), "{text}");
    }
}

#[test]
fn what_was_rolled_back_stays_when_something_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = cluster(&folder);
    app::write_module(cluster.folder(), "todo", &app::revised_todo(1));
    cluster.aegis_ok(&["reload"]);
    cluster.aegis_ok(&["rollback"]);
    let signed = cluster.client().with("x-hub-signature-256", SIGNATURE);
    let told = signed.send("POST", "/reload?wait=true", BODY);
    assert_eq!((told.status, &told.json()["code"]), (409, &json!("reload-rejected")), "{}", told.text());
    assert!(told.text().contains("rolled back on request; it stays"), "{}", told.text());
    assert_eq!(signed.send("POST", "/reload", BODY).status, 202);
    assert!(!is_revised(&cluster) && cluster.status().notice.is_some());
    cluster.aegis_ok(&["reload"]);
    assert!(is_revised(&cluster));
}

#[test]
fn a_storm_of_signed_requests_is_joined_to_few_reloads() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = cluster(&folder);
    let signed = cluster.client().with("x-hub-signature-256", SIGNATURE);
    app::write_module(cluster.folder(), "todo", &app::revised_todo(1));
    let mut jobs: Vec<u64> = (0..50)
        .map(|_| {
            let accepted = signed.send("POST", "/reload", BODY);
            assert_eq!(accepted.status, 202, "{}", accepted.text());
            accepted.json()["job"].as_u64().unwrap()
        })
        .collect();
    jobs.dedup();
    assert!(cluster.status().jobs.len() <= 2, "one runs and one waits: {:?}", cluster.status().jobs);
    assert!(jobs.len() < 50, "{jobs:?}");
    eventually("the last to end", Duration::from_secs(60), || cluster.status().jobs.is_empty());
    assert!(is_revised(&cluster));
}

#[test]
fn a_new_secret_comes_into_force_with_a_reload_and_a_bad_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = cluster(&folder);
    let secret = folder.path().join("secret");
    let ping = cluster.client().with("x-github-event", "ping").with("x-hub-signature-256", SIGNATURE);
    fs::write(&secret, "too short").unwrap();
    let refused = cluster.aegis(&["reload"]);
    let told = words(&refused);
    assert_eq!(refused.status.code(), Some(3), "{told}");
    assert!(told.contains("found a secret of 9 bytes, expected 16 to 4096"), "{told}");
    assert!(!told.contains("too short"), "{told}");
    assert_eq!(ping.send("POST", "/reload", BODY).status, 200);
    fs::write(&secret, "another secret that is long enough").unwrap();
    cluster.aegis_ok(&["reload"]);
    cluster.await_workers(2);
    assert_eq!(ping.send("POST", "/reload", BODY).status, 401);
}
