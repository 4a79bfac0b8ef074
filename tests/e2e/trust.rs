//! Modules that are signed: served, refused with a code for each reason, never replaced by an older one, and verified again
//! without the network.

use std::{fs, path::Path, time::Duration};

use aegis_guests::{Guest, stamping, trap};
use aegis_harness::{
    App, Author, Cluster, Publisher, QUICK, eventually, http,
    load::{Plan, Reuse},
    words,
};
use serde_json::json;

const WAIT: Duration = Duration::from_secs(60);

fn by(cluster: &Cluster) -> String {
    let created = cluster.client().post("notes", &json!({"x": 1}));
    assert_eq!(created.status, 201, "{}", created.text());
    created.json()["by"].as_str().unwrap().to_owned()
}

/// An app that has nothing but what is published.
fn app(publisher: &Publisher, keys: &str) -> App {
    let source = publisher.source("note");
    App::default().settings(&format!("{QUICK}[modules.note]\nsource = \"{source}\"\n{keys}"))
}

fn change_settings(cluster: &Cluster, before: &str, after: &str) {
    let path = cluster.folder().join("aegis.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(before), "{text}");
    fs::write(&path, text.replace(before, after)).unwrap();
}

fn refused(cluster: &Cluster, arguments: &[&str], code: &str) {
    let output = cluster.aegis(arguments);
    let told = words(&output);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains(&format!("modules.note: {code} ")), "expected {code}: {told}");
}

/// Flips a bit of a file.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_signed_module_is_served_and_it_is_told_who_signed_it() {
    let (publisher, team) = (Publisher::start(), Author::new("team"));
    let folder = team.signed("note", "1.0.0", &stamping("one"));
    publisher.publish_folder("note", &folder);
    let cluster = Cluster::start(app(&publisher, &team.trusted(&["note"], "")), 1);
    assert_eq!(by(&cluster), "one");
    let modules = cluster.admin_get("/aegis/api/config?details=modules");
    assert!(modules.contains("\"signed\":{\"keys\":[\"team\"],\"version\":\"1.0.0\"}"), "{modules}");
    let checked = cluster.aegis_ok(&["check", cluster.folder().to_str().unwrap()]);
    assert!(checked.contains("signed     by team, as version 1.0.0"), "{checked}");
    let checked = cluster.aegis_ok(&["check", folder.to_str().unwrap()]);
    assert!(checked.contains("signatures of team"), "{checked}");
}

#[test]
fn each_reason_to_refuse_a_module_has_a_code_of_its_own_and_the_old_version_goes_on() {
    let publisher = Publisher::start();
    let [team, stranger, shop, former] = ["team", "stranger", "shop", "former"].map(Author::new);
    let keys = team.trusted(&["note"], "")
        + &shop.trusted(&["shop-*"], "")
        + &former.trusted(&["*"], "valid-until = 2020-12-31");
    publisher.publish_folder("note", &team.signed("note", "1.0.0", &stamping("one")));
    let cluster = Cluster::start(app(&publisher, &keys), 2);
    let component = stamping("two");
    let manifest = |folder: &Path| folder.join("aegis.module.json");
    let signatures = |folder: &Path| folder.join("aegis.module.json.sig");
    let flipped = team.signed("note", "1.1.1", &component);
    let text = fs::read_to_string(signatures(&flipped)).unwrap();
    flip(&signatures(&flipped), text.find("\"sig\": \"").unwrap() + 10);
    let changed = team.signed("note", "1.1.2", &component);
    let text = fs::read_to_string(manifest(&changed)).unwrap();
    flip(&manifest(&changed), text.find("1.1.2").unwrap() + 4);
    let exchanged = team.signed("note", "1.1.3", &component);
    flip(&exchanged.join("module.wasm"), 100);
    for (folder, code) in [
        (team.unsigned("note", "1.1.0", &component), "AEGIS-M123"),
        (stranger.signed("note", "1.1.0", &component), "AEGIS-M124"),
        (shop.signed("note", "1.1.0", &component), "AEGIS-M125"),
        (team.signed("customer", "1.1.0", &component), "AEGIS-M125"),
        (former.signed("note", "1.1.0", &component), "AEGIS-M126"),
        (team.signed("note", "0.9.0", &component), "AEGIS-M127"),
        (flipped, "AEGIS-M128"),
        (changed, "AEGIS-M128"),
        (exchanged, "AEGIS-M121"),
    ] {
        publisher.publish_folder("note", &folder);
        refused(&cluster, &["reload"], code);
        assert_eq!(by(&cluster), "one", "{code}");
    }
    publisher.publish_folder("note", &team.signed("note", "1.1.0", &component));
    cluster.aegis_ok(&["reload"]);
    assert_eq!(by(&cluster), "two");
}

#[test]
fn no_older_version_comes_back_unless_somebody_wants_it() {
    let (publisher, team) = (Publisher::start(), Author::new("team"));
    let publish = |version: &str| {
        publisher.publish_folder("note", &team.signed("note", version, &stamping(version)));
    };
    publish("1.0.0");
    let mut cluster = Cluster::start(app(&publisher, &team.trusted(&["note"], "")), 1);
    publish("2.0.0");
    cluster.aegis_ok(&["reload"]);
    // What is refused raises nothing.
    publisher.publish_folder("note", &team.signed("note", "9.0.0", b"\0asm\x01\0\0\0"));
    assert_eq!(cluster.aegis(&["reload"]).status.code(), Some(3));
    publish("1.0.0");
    refused(&cluster, &["reload"], "AEGIS-M127");
    refused(&cluster, &["deploy", "note"], "AEGIS-M127");
    // Going back reads nothing that anybody has published, and lowers nothing.
    cluster.aegis_ok(&["rollback"]);
    assert_eq!(by(&cluster), "1.0.0");
    publish("1.5.0");
    refused(&cluster, &["reload"], "AEGIS-M127");
    cluster.stop_and_restart();
    assert_eq!(by(&cluster), "1.0.0", "what was put back stays");
    refused(&cluster, &["reload"], "AEGIS-M127");
    cluster.aegis_ok(&["deploy", "note", "--force"]);
    assert_eq!(by(&cluster), "1.5.0");
    cluster.aegis_ok(&["reload"]);
    publish("1.4.0");
    refused(&cluster, &["reload"], "AEGIS-M127");
    publish("1.5.1");
    cluster.aegis_ok(&["reload"]);
    assert_eq!(by(&cluster), "1.5.1");
    // Nor does going back to what was forced once.
    cluster.aegis_ok(&["rollback"]);
    assert_eq!(by(&cluster), "1.5.0");
    publish("1.5.0");
    refused(&cluster, &["reload"], "AEGIS-M127");
}

#[test]
fn a_version_that_is_taken_back_raises_nothing() {
    let (publisher, team) = (Publisher::start(), Author::new("team"));
    let judged = "[reload]\ncanary-time = \"10s\"\ncanary-requests-min = 20\nlatency-factor-max = 1000.0\n";
    publisher.publish_folder("note", &team.signed("note", "1.0.0", &stamping("one")));
    let (source, keys) = (publisher.source("note"), team.trusted(&["note"], ""));
    let app = App::default().settings(&format!("{judged}[modules.note]\nsource = \"{source}\"\n{keys}"));
    let cluster = Cluster::start(app, 2);
    let spec = json!({"name": "note", "endpoint": "notes", "version": "1.0.0"});
    let trapping = Guest::model(spec).hook("on-create", trap()).build();
    publisher.publish_folder("note", &team.signed("note", "3.0.0", &trapping));
    let post = http::encode(
        "POST",
        "/aegis/api/models/notes",
        &cluster.address.to_string(),
        &[("content-type", "application/json"), ("connection", "close")],
        b"{\"x\":1}",
    );
    let mut plan = Plan::get(cluster.address, 8, "").requests(move |_| post.clone());
    plan.reuse = Reuse::PerRequest;
    plan.wanted = |status| matches!(status, 201 | 500 | 503);
    let running = plan.spawn();
    let taken_back = cluster.aegis(&["reload"]);
    assert_eq!(taken_back.status.code(), Some(4), "{}", words(&taken_back));
    publisher.publish_folder("note", &team.signed("note", "2.0.0", &stamping("two")));
    cluster.aegis_ok(&["reload"]);
    running.stop().assert_clean();
    assert_eq!(by(&cluster), "two");
}

#[test]
fn without_the_network_what_is_kept_is_verified_again() {
    let (publisher, team, other) = (Publisher::start(), Author::new("team"), Author::new("other"));
    publisher.publish_folder("note", &team.signed("note", "1.0.0", &stamping("one")));
    let keys = team.trusted(&["note"], "");
    let mut cluster = Cluster::start(app(&publisher, &keys), 1);
    publisher.publish_folder("note", &team.signed("note", "1.1.0", &stamping("two")));
    cluster.aegis_ok(&["reload"]);
    drop(publisher);
    cluster.aegis_ok(&["reload"]);
    cluster.stop_and_restart();
    assert_eq!(by(&cluster), "two");
    cluster.kill_and_restart();
    assert_eq!(by(&cluster), "two");
    let others = other.trusted(&["note"], "");
    change_settings(&cluster, &keys, &others);
    refused(&cluster, &["reload"], "AEGIS-M124");
    assert_eq!(by(&cluster), "two");
    cluster.stop_and_restart();
    assert_eq!(by(&cluster), "two", "it comes up on the last generation that was good");
    change_settings(&cluster, &others, &keys);
    cluster.aegis_ok(&["reload"]);
}

#[test]
fn a_signature_that_comes_later_is_noticed_by_itself() {
    let (publisher, team) = (Publisher::start(), Author::new("team"));
    publisher.publish_folder("note", &team.signed("note", "1.0.0", &stamping("one")));
    let (source, keys) = (publisher.source("note"), team.trusted(&["note"], ""));
    let settings = format!("{QUICK}poll = \"1s\"\n[modules.note]\nsource = \"{source}\"\n{keys}");
    let cluster = Cluster::start(App::default().settings(&settings), 1);
    let folder = team.unsigned("note", "1.1.0", &stamping("two"));
    publisher.publish_folder("note", &folder);
    eventually("the refusal", WAIT, || cluster.log().contains("modules.note: AEGIS-M123"));
    assert_eq!(by(&cluster), "one");
    team.sign(&folder);
    publisher.publish_folder("note", &folder);
    eventually("the signed version to answer", WAIT, || by(&cluster) == "two");
}

#[test]
fn what_is_deployed_is_looked_at_as_well_and_stays_what_it_is() {
    let (publisher, team, stranger) = (Publisher::start(), Author::new("team"), Author::new("stranger"));
    let settings = format!("{QUICK}{}", team.trusted(&["note"], ""));
    let mut cluster = Cluster::start(App::todo().settings(&settings), 1);
    let source = publisher.source("note");
    let deploy = ["deploy", "note", "--source", &source];
    publisher.publish_folder("note", &team.unsigned("note", "1.0.0", &stamping("one")));
    refused(&cluster, &deploy, "AEGIS-M123");
    publisher.publish_folder("note", &stranger.signed("note", "1.0.0", &stamping("one")));
    refused(&cluster, &deploy, "AEGIS-M124");
    publisher.publish_folder("note", &team.signed("note", "1.0.0", &stamping("one")));
    cluster.aegis_ok(&deploy);
    assert_eq!(by(&cluster), "one");
    drop(publisher);
    cluster.aegis_ok(&["reload"]);
    cluster.stop_and_restart();
    assert_eq!(by(&cluster), "one", "its signatures are kept with it");
    let unsigned = team.unsigned("note", "1.1.0", &stamping("two"));
    let deploy = ["deploy", "note", "--file", unsigned.to_str().unwrap()];
    cluster.aegis_ok(&deploy);
    assert_eq!(by(&cluster), "two", "files of this machine need no signature");
    let policy = "[trust]\nrequire = \"all\"\n";
    change_settings(&cluster, "[trust.keys.team]", &format!("{policy}[trust.keys.team]"));
    refused(&cluster, &["reload"], "AEGIS-M123");
    cluster.aegis_ok(&["deploy", "note", "--force", "--reset"]);
    cluster.aegis_ok(&["reload"]);
    refused(&cluster, &deploy, "AEGIS-M123");
    team.sign(&unsigned);
    let exchanged = team.signed("note", "1.2.0", &stamping("two"));
    fs::write(exchanged.join("module.wasm"), stamping("six")).unwrap();
    let other = cluster.aegis(&["deploy", "note", "--file", exchanged.to_str().unwrap()]);
    assert_eq!(other.status.code(), Some(3));
    assert!(words(&other).contains("AEGIS-M121"), "{}", words(&other));
    cluster.aegis_ok(&deploy);
    assert_eq!(by(&cluster), "two");
}

#[test]
fn what_is_tried_is_looked_at_as_well_and_raises_nothing_until_it_is_promoted() {
    let publisher = Publisher::start();
    let [team, laboratory, stranger] = ["team", "laboratory", "stranger"].map(Author::new);
    publisher.publish_folder("note", &team.signed("note", "1.0.0", &stamping("one")));
    let key_of_laboratory = laboratory.trusted(&["note"], "");
    let keys = team.trusted(&["note"], "") + &key_of_laboratory;
    let mut cluster = Cluster::start(app(&publisher, &keys), 1);
    let source = publisher.source("next");
    let begin = ["deploy", "note", "--source", &source, "--share", "99"];
    let two = stamping("two");
    for (folder, code) in [
        (team.unsigned("note", "2.0.0", &two), "AEGIS-M123"),
        (stranger.signed("note", "2.0.0", &two), "AEGIS-M124"),
        (team.signed("customer", "2.0.0", &two), "AEGIS-M125"),
        (team.signed("note", "0.9.0", &two), "AEGIS-M127"),
    ] {
        publisher.publish_folder("next", &folder);
        refused(&cluster, &begin, code);
        assert_eq!((cluster.status().trials.len(), by(&cluster)), (0, "one".to_owned()), "{code}");
    }
    publisher.publish_folder("next", &laboratory.signed("note", "2.0.0", &two));
    cluster.aegis_ok(&begin);
    let tried =
        |cluster: &Cluster| cluster.client().with("aegis-variant", "trial").post("notes", &json!({"x": 1}));
    assert_eq!(tried(&cluster).json()["by"], "two");
    // It is not in force, so what is below it is not shut out.
    publisher.publish_folder("note", &team.signed("note", "1.1.0", &stamping("one")));
    cluster.aegis_ok(&["reload"]);
    drop(publisher);
    cluster.stop_and_restart();
    assert_eq!(tried(&cluster).json()["by"], "two", "its signatures are kept with it");
    change_settings(&cluster, &key_of_laboratory, "");
    let output = cluster.aegis(&["reload"]);
    let told = words(&output);
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("modules.note: AEGIS-M124 "), "what is tried is verified again: {told}");
    assert!(told.contains("`aegis deploy note --abort` ends the trial"), "{told}");
    change_settings(&cluster, "[trust.keys.team]", &format!("{key_of_laboratory}[trust.keys.team]"));
    cluster.aegis_ok(&["deploy", "note", "--promote"]);
    assert_eq!(by(&cluster), "two");
    let older = team.signed("note", "1.9.0", &stamping("one"));
    let published = Publisher::start();
    published.publish_folder("next", &older);
    let source = published.source("next");
    refused(&cluster, &["deploy", "note", "--source", &source], "AEGIS-M127");
}
