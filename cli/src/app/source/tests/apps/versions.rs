//! Modules that are published in several versions.

use super::*;

impl Place {
    /// Publishes these versions with an index, and asks for those that match `range`.
    fn with_versions(range: &str, versions: &[&str]) -> Self {
        let place = Self::new();
        let source = place.url("m/");
        place.write("aegis.toml", &format!("[modules.todo]\nsource = \"{source}\"\nversion = \"{range}\"\n"));
        for version in versions {
            place.publish_version(&format!("{version}/"), version, version);
        }
        let lines: Vec<_> = versions.iter().map(|version| json!({ "version": version })).collect();
        place.publish_index(&json!(lines));
        place
    }

    fn publish_index(&self, versions: &serde_json::Value) {
        let index = json!({ "schema": "aegis.index/1", "versions": versions }).to_string();
        self.publish("aegis.index.json", index);
    }

    /// Publishes a component and its manifest in a folder, with the versions that they tell.
    fn publish_version(&self, folder: &str, in_manifest: &str, in_component: &str) -> Vec<u8> {
        let bytes = aegis_guests::todo().info("todo", in_component).build();
        let manifest = manifest_of(&bytes, in_manifest);
        self.publish(&format!("{folder}todo.wasm"), bytes);
        self.publish(&format!("{folder}aegis.module.json"), manifest.clone());
        manifest
    }

    /// The version that is chosen.
    fn version(&self) -> String {
        let app = self.load().unwrap();
        app.models[0].code.as_ref().unwrap().version.clone()
    }
}

fn manifest_of(bytes: &[u8], version: &str) -> Vec<u8> {
    let component = json!({ "path": "todo.wasm", "sha256": digest_of(bytes), "size": bytes.len() });
    let manifest = json!({ "schema": "aegis.module/1", "version": version, "component": component });
    manifest.to_string().into_bytes()
}

#[test]
fn the_greatest_version_within_the_range_is_served() {
    let place = Place::with_versions("^1.2", &["1.2.3", "1.4.0", "2.0.0"]);
    let app = place.load().unwrap();
    assert_eq!(app.models[0].code.as_ref().unwrap().version, "1.4.0");
    assert_eq!(place.paths(), ["/m/aegis.index.json", "/m/1.4.0/aegis.module.json", "/m/1.4.0/todo.wasm"]);
    let shown = crate::check::describe(&app.models[0], &app.components[0]);
    assert!(shown.contains("version    1.4.0, of those that match ^1.2\n"), "{shown}");
}

#[test]
fn a_version_that_comes_later_is_chosen_then_and_one_that_is_yanked_is_left() {
    let place = Place::with_versions("^1.2", &["1.2.3", "1.4.0"]);
    assert_eq!(place.version(), "1.4.0");
    place.publish_version("1.4.1/", "1.4.1", "1.4.1");
    let publish = |yanked: bool| {
        let last = json!({ "version": "1.4.1", "yanked": yanked });
        place.publish_index(&json!([{ "version": "1.4.0" }, last, { "version": "1.2.3" }]));
    };
    publish(false);
    assert_eq!(place.version(), "1.4.1");
    publish(true);
    assert_eq!(place.version(), "1.4.0");
}

#[test]
fn a_version_may_lie_anywhere_below_its_index_and_be_pinned_by_it() {
    let place = Place::with_versions("1", &[]);
    let manifest = place.publish_version("builds/7/", "1.0.0", "1.0.0");
    let pin = |sha256: String| {
        let path = "builds/7/aegis.module.json";
        place.publish_index(&json!([{ "version": "1.0.0", "path": path, "sha256": sha256 }]));
    };
    pin(digest_of(&manifest));
    assert_eq!(place.version(), "1.0.0");
    pin("0".repeat(64));
    let told = place.mistakes().replace(&digest_of(&manifest), "FOUND");
    insta::assert_snapshot!(told, @"modules.todo: AEGIS-M121 verifying the component: found a manifest with the SHA-256 FOUND, expected 0000000000000000000000000000000000000000000000000000000000000000 as aegis.index.json says");
}

#[test]
fn what_is_not_the_version_that_was_chosen_is_refused() {
    let place = Place::with_versions("^1", &["1.0.0"]);
    let mut told = Vec::new();
    place.publish_version("1.0.0/", "1.0.1", "1.0.0");
    told.push(place.mistakes());
    place.publish_version("1.0.0/", "1.0.0", "1.0.1");
    told.push(place.mistakes());
    let bytes = todo();
    place.publish("1.0.0/todo.wasm", bytes.clone());
    place.publish("1.0.0/aegis.module.json", manifest(&digest_of(&bytes), bytes.len()));
    told.push(place.mistakes());
    place.publish_index(&json!([{ "version": "2.0.0" }, { "version": "1.0.0", "yanked": true }]));
    told.push(place.mistakes());
    place.publish("aegis.index.json", "{}");
    told.push(place.mistakes());
    place.files.lock().unwrap().remove("/m/aegis.index.json");
    told.push(place.mistakes());
    insta::assert_snapshot!(told.join("\n"), @r#"
    modules.todo: AEGIS-M122 verifying the component: found version "1.0.1" in its manifest, expected 1.0.0, which was chosen
    modules.todo: AEGIS-M122 verifying the component: found a component that says it is version "1.0.1", expected 1.0.0
    modules.todo: AEGIS-M122 verifying the component: found no version in its manifest, expected 1.0.0, which was chosen
    modules.todo: AEGIS-M106 choosing the version of the component: found 2.0.0, 1.0.0 (yanked), expected one that matches ^1
    modules.todo: AEGIS-M107 choosing the version of the component: missing field `schema` at line 1 column 2
    modules.todo: AEGIS-M103 fetching the module: found status 404, expected 200 from http://HOST/m/aegis.index.json
    "#);
}

#[test]
fn while_the_source_is_away_the_last_good_version_is_used_if_it_is_still_wanted() {
    let mut place = Place::with_versions("^1.2", &["1.2.3", "1.4.0"]);
    assert_eq!(place.version(), "1.4.0");
    let source = place.url("m/");
    place.close();
    let app = place.load().unwrap();
    assert_eq!(app.components[0].chosen.as_deref(), Some("1.4.0, of those that match ^1.2"));
    assert!(app.warnings[0].contains("AEGIS-M102"), "{:?}", app.warnings);
    place.write("aegis.toml", &format!("[modules.todo]\nsource = \"{source}\"\nversion = \"~1.2\"\n"));
    assert!(place.mistakes().starts_with("modules.todo: AEGIS-M102"), "{}", place.mistakes());
}

#[test]
fn in_a_repository_folders_that_are_called_like_versions_are_versions() {
    let place = Place::new();
    let (api, listing) = (place.url("v3/"), "/v3/repos/team/modules/contents/todo");
    for version in ["1.2.3", "v1.4.0", "2.0.0"] {
        let bytes = aegis_guests::todo().info("todo", version.trim_start_matches('v')).build();
        let manifest = manifest_of(&bytes, version.trim_start_matches('v'));
        for (file, content) in [("aegis.module.json", manifest), ("todo.wasm", bytes)] {
            let path = format!("{listing}/{version}/{file}?ref=main");
            place.files.lock().unwrap().insert(path, content);
        }
    }
    let folders = ["1.2.3", "v1.4.0", "2.0.0", "docs"].map(|name| json!({ "name": name, "type": "dir" }));
    let mut items = Vec::from(folders);
    items.push(json!({ "name": "1.9.0", "type": "file" }));
    place.files.lock().unwrap().insert(format!("{listing}?ref=main"), json!(items).to_string().into_bytes());
    let source = "source = \"github:team/modules/todo@main\"\nversion = \"^1\"";
    place.write("aegis.toml", &format!("[modules.todo]\n{source}\napi = \"{api}\"\n"));
    assert_eq!(place.version(), "1.4.0");
}
