//! Modules from a registry that others have made, as `scripts/registry` fetches it.

use std::{fs, time::Duration};

use aegis_guests::{stamping, stamping_model};
use aegis_harness::{
    App, Cluster, QUICK, Start, eventually,
    registry::{CREDENTIALS, Registry},
    words,
};
use serde_json::json;

const WASM: &str = "application/wasm";
const MODULE: &str = "application/vnd.aegis.module.v1+json";

fn settings(registry: &Registry, reference: &str, more: &str) -> String {
    format!("[modules.note]\nsource = \"{}{reference}\"\n{more}\n{QUICK}", registry.source("team/note"))
}

fn by(cluster: &Cluster) -> String {
    let created = cluster.client().post("notes", &json!({"x": 1}));
    assert_eq!(created.status, 201, "{}", created.text());
    created.json()["by"].as_str().unwrap().to_owned()
}

fn configure(cluster: &Cluster, settings: &str) {
    fs::write(cluster.folder().join("aegis.toml"), settings).unwrap();
}

fn version(version: &str) -> Vec<u8> {
    stamping_model("note", version).info("note", version).build()
}

#[test]
#[ignore = "scripts/registry fetches the registry first"]
fn a_module_is_served_by_its_tag_and_by_its_digest() {
    let registry = Registry::open();
    let first = registry.push("team/note", "stable", &stamping("one"));
    let cluster = Cluster::start(App::default().settings(&settings(&registry, ":stable", "")), 1);
    assert_eq!(by(&cluster), "one");

    registry.push("team/note", "stable", &stamping("two"));
    assert_eq!(by(&cluster), "one", "nothing changes by itself");
    cluster.aegis_ok(&["reload"]);
    assert_eq!(by(&cluster), "two", "the tag is another artifact now");

    configure(&cluster, &settings(&registry, &format!("@{first}"), ""));
    cluster.aegis_ok(&["reload"]);
    assert_eq!(by(&cluster), "one", "the digest is the same for good");

    configure(&cluster, &settings(&registry, ":none", ""));
    let refused = cluster.aegis(&["reload"]);
    let told = words(&refused);
    assert_eq!(refused.status.code(), Some(3), "{told}");
    assert!(told.contains("modules.note: AEGIS-M103") && told.contains("found status 404"), "{told}");
    assert_eq!(by(&cluster), "one");
}

#[test]
#[ignore = "scripts/registry fetches the registry first"]
fn the_greatest_version_among_the_tags_is_served_with_what_its_author_says() {
    let registry = Registry::open();
    registry.push("team/note", "1.0.0", &version("1.0.0"));
    registry.push("team/note", "latest", &version("2.0.0"));
    registry.push("team/note", "2.0.0", &version("2.0.0"));
    let app = App::default().settings(&settings(&registry, "", "version = \"^1\""));
    let cluster = Cluster::start(app, 1);
    assert_eq!(by(&cluster), "1.0.0");

    let about = json!({ "schema": "aegis.module/1", "version": "1.2.0", "limits": { "memory": "8MiB" } });
    let files = [(WASM, version("1.2.0")), (MODULE, about.to_string().into_bytes())];
    let files = files.each_ref().map(|(media_type, content)| (*media_type, content.as_slice()));
    registry.push_files("team/note", "v1.2.0", &files);
    cluster.aegis_ok(&["reload"]);
    assert_eq!(by(&cluster), "1.2.0");
    let modules = cluster.admin_get("/aegis/api/config?details=modules");
    assert!(modules.contains("8388608"), "{modules}");
}

#[test]
#[ignore = "scripts/registry fetches the registry first"]
fn a_registry_that_asks_for_a_password_is_told_one_also_when_it_is_only_looked_at() {
    let registry = Registry::guarded();
    registry.push("team/note", "stable", &stamping("one"));
    let token = tempfile::NamedTempFile::new().unwrap();
    fs::write(token.path(), format!("{CREDENTIALS}\n")).unwrap();
    let more = format!("token-file = \"{}\"", token.path().display());
    let app = App::default().settings(&(settings(&registry, ":stable", &more) + "poll = \"1s\"\n"));
    let cluster = Start::app(app).workers(1).start();
    assert_eq!(by(&cluster), "one");

    registry.push("team/note", "stable", &stamping("two"));
    eventually("what was pushed is served by itself", Duration::from_secs(60), || by(&cluster) == "two");

    for wrong in ["ada:close-sesame", "ada"] {
        fs::write(token.path(), wrong).unwrap();
        let refused = cluster.aegis(&["reload"]);
        let told = words(&refused);
        assert_eq!(refused.status.code(), Some(3), "{told}");
        assert!(told.contains("modules.note: AEGIS-M103") && told.contains("status 401"), "{told}");
        assert!(!told.contains("sesame") && !cluster.log().contains("sesame"), "{told}");
    }
    assert_eq!(by(&cluster), "two");
}
