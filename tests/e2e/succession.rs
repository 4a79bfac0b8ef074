//! What one version leaves to the next: events that are under way, and nothing of what it no longer has.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use aegis_guests::{Guest, answer, respond};
use aegis_harness::{App, Cluster, QUICK, app, eventually, http, load::Plan};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(60);
const GRANT: &str = "[modules.journal]\ngrants = { events = [\"CREATETODO\"] }\n";
const MODES: [&str; 2] = ["swap", "rolling"];
const TODOS: &str = "/aegis/api/models/todo";
const VERSIONS: u64 = 4;
const WORKERS: u32 = 2;
/// Documents of one page of a list.
const PAGE: usize = 1000;
/// Events that may come again when another worker or generation takes the delivery over.
const REPEATED_MAX: usize = 16;

/// A version of the code that keeps what it hears.
fn journal(version: u64) -> Guest {
    aegis_guests::journal(&["CREATETODO"]).info("journal", &format!("1.{version}.0"))
}

fn start(code: &Guest) -> Cluster {
    let cluster = Cluster::start(
        App::todo().settings(QUICK).settings(GRANT).component("journal", code.build()),
        WORKERS,
    );
    eventually("the delivery has begun", PATIENCE, || lags(&cluster));
    cluster
}

fn lags(cluster: &Cluster) -> bool {
    cluster.admin_get("/metrics").contains("aegis_guest_module_event_lag{module=\"journal\"}")
}

/// How often each document was heard of, by id.
fn heard(cluster: &Cluster) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for skip in (0..).step_by(PAGE) {
        let path = format!("journals?__limit={PAGE}&__skip={skip}&__select=of&__sort=id");
        let documents = cluster.client().get(&path).json();
        let documents = documents.as_array().unwrap();
        for document in documents {
            *times.entry(document["of"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        if documents.len() < PAGE {
            break;
        }
    }
    times
}

#[test]
fn every_event_is_delivered_while_versions_follow_each_other() {
    for mode in MODES {
        let cluster = start(&journal(0));
        let created: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let (address, host) = (cluster.address, cluster.address.to_string());
        let heard_of = Arc::clone(&created);
        let running = Plan::get(address, 4, "")
            .requests(move |number| {
                let body = format!("{{\"id\":\"d{number}\",\"text\":\"x\"}}");
                http::encode("POST", TODOS, &host, &[("content-type", "application/json")], body.as_bytes())
            })
            .on_success(move |number| {
                heard_of.lock().unwrap().insert(format!("d{number}"));
            })
            .rate(100)
            .spawn();
        for version in 1..=VERSIONS {
            let before = created.lock().unwrap().len();
            eventually("clients write", PATIENCE, || created.lock().unwrap().len() > before + 10);
            app::write_component(cluster.folder(), "journal", &journal(version).build());
            cluster.aegis_ok(&["reload", "--mode", mode]);
        }
        running.stop().assert_clean();
        let created = created.lock().unwrap().clone();
        eventually("every event is delivered", PATIENCE, || heard(&cluster).len() >= created.len());
        let heard = heard(&cluster);
        assert_eq!(heard.keys().cloned().collect::<BTreeSet<_>>(), created, "{mode}: each is heard of");
        // Of each generation one worker after the other may take over.
        let handovers = (VERSIONS * u64::from(WORKERS + 1)) as usize;
        let repeated: usize = heard.values().map(|times| times - 1).sum();
        assert!(repeated <= handovers * REPEATED_MAX, "{mode}: {repeated} of {} came again", created.len());
    }
}

#[test]
fn what_a_version_no_longer_has_is_gone_and_comes_back_with_it() {
    for mode in MODES {
        let says = |text: &str| {
            respond("(i32.const 200)", &[("content-type", "text/plain")], &aegis_guests::whole(text))
        };
        let with = journal(0)
            .route(json!({ "method": "get", "path": "/{id}/label" }), says("req_path"))
            .route(json!({ "method": "get", "path": "//labels/{id}" }), says("req_path"))
            .command("shout", answer("\"loud\""));
        let without = aegis_guests::journal(&[]).info("journal", "2.0.0");
        let cluster = start(&with);
        let client = cluster.client();
        let first = client.create("todo", &json!({"text": "x"}));
        eventually("it is heard of", PATIENCE, || heard(&cluster).contains_key(&first));
        let id = client.get("journals").json()[0]["id"].as_str().unwrap().to_owned();
        let own = |path: &str| client.get(&format!("journals/{id}{path}")).status;
        let root = || client.send("GET", "/labels/7", b"").status;
        assert_eq!((own("/label"), own("?command=shout"), root()), (200, 200, 200));

        app::write_component(cluster.folder(), "journal", &without.build());
        cluster.aegis_ok(&["reload", "--mode", mode]);
        // Connections of their own, so that every worker is asked.
        for _ in 0..10 {
            assert_eq!((own("/label"), own("?command=shout"), root()), (404, 404, 404), "{mode}");
        }
        assert!(!cluster.admin_get("/aegis/api/config?details=routes").contains("label"), "{mode}");
        let unheard: BTreeSet<String> =
            (0..10).map(|_| client.create("todo", &json!({"text": "y"}))).collect();
        eventually("nobody lags any longer", PATIENCE, || !lags(&cluster));
        assert_eq!(heard(&cluster).keys().collect::<Vec<_>>(), [&first], "{mode}: nothing more is heard of");

        app::write_component(cluster.folder(), "journal", &with.build());
        cluster.aegis_ok(&["reload", "--mode", mode]);
        assert_eq!((own("/label"), own("?command=shout"), root()), (200, 200, 200), "{mode}");
        eventually("it hears what it has missed", PATIENCE, || {
            let heard = heard(&cluster);
            unheard.iter().all(|id| heard.contains_key(id))
        });
    }
}
