//! Apps whose modules are published.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt};

use aegis_config::{Environment, Overrides};
use aegis_guests::Guest;
use aegis_ipc::deploy::{Order, Supply};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::*;
use crate::app::{App, Compilation, Look, Made, Mistakes, Refusal, deploy, load_app, look};

mod registry;
mod signed;
mod versions;

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A server with files that can be replaced, and an app that has a module from there.
struct Place {
    files: Files,
    server: Option<Server>,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let files = Files::default();
        let served = Arc::clone(&files);
        let server = Server::start(move |path, stream| match served.lock().unwrap().get(path) {
            Some(content) => send(stream, "200 OK", content),
            None => send(stream, "404 Not Found", b""),
        });
        let (address, folder) = (server.address, tempfile::tempdir().unwrap());
        let place = Self { files, server: Some(server), address, folder };
        place.write("aegis.toml", &format!("[modules.todo]\nsource = \"{}\"\n", place.url("m/")));
        place
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn publish(&self, path: &str, content: impl Into<Vec<u8>>) -> &Self {
        self.files.lock().unwrap().insert(format!("/m/{path}"), content.into());
        self
    }

    /// Publishes a component with its manifest; the digest of the component.
    fn publish_component(&self, bytes: &[u8]) -> String {
        let sha256 = digest_of(bytes);
        self.publish("todo.wasm", bytes).publish("aegis.module.json", manifest(&sha256, bytes.len()));
        sha256
    }

    fn load(&self) -> Result<App, Mistakes> {
        Compilation::quiet(Keep::InDataFolder, |compilation| {
            load_app(self.folder.path(), &Overrides::default(), &Environment::new(), compilation)
        })
    }

    fn mistakes(&self) -> String {
        let lines = self.load().unwrap_err().lines.join("\n");
        lines
            .replace(&self.address.to_string(), "HOST")
            .replace(&self.folder.path().display().to_string(), "APP")
    }

    fn paths(&self) -> Vec<String> {
        self.server.as_ref().unwrap().paths()
    }

    /// The source is gone.
    fn close(&mut self) {
        self.server = None;
    }
}

fn digest_of(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn manifest(sha256: &str, size: usize) -> String {
    let component = json!({ "path": "todo.wasm", "sha256": sha256, "size": size });
    json!({ "schema": "aegis.module/1", "component": component }).to_string()
}

fn todo() -> Vec<u8> {
    aegis_guests::todo().build()
}

#[test]
fn a_published_module_is_served_without_a_folder() {
    let place = Place::new();
    let sha256 = place.publish_component(&todo());
    let app = place.load().unwrap();
    assert_eq!(app.models[0].code.as_ref().unwrap().digest, sha256);
    assert_eq!(app.warnings, [] as [&str; 0]);
    assert_eq!(place.paths(), ["/m/aegis.module.json", "/m/todo.wasm"]);
    let kept = place.folder.path().join("data/module-cache");
    assert_eq!(fs::metadata(&kept).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(kept.join(&sha256)).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_component_that_is_kept_is_not_fetched_again() {
    let place = Place::new();
    place.publish_component(&todo());
    let first = place.load().unwrap().bundle;
    assert_eq!(place.load().unwrap().bundle, first);
    assert_eq!(place.paths(), ["/m/aegis.module.json", "/m/todo.wasm", "/m/aegis.module.json"]);
}

#[test]
fn the_last_good_version_is_used_while_the_source_is_away() {
    let mut place = Place::new();
    place.publish_component(&todo());
    let first = place.load().unwrap().bundle;
    place.close();
    let app = place.load().unwrap();
    assert_eq!(app.bundle, first);
    assert_eq!(app.warnings.len(), 1, "{:?}", app.warnings);
    let warning = &app.warnings[0];
    assert!(warning.starts_with("modules.todo: AEGIS-M102 fetching the module: found "), "{warning}");
    assert!(warning.contains("it was published when it was last reached, 20"), "{warning}");
    fs::remove_dir_all(place.folder.path().join("data/module-cache")).unwrap();
    assert!(place.mistakes().starts_with("modules.todo: AEGIS-M102"), "{}", place.mistakes());
}

#[test]
fn a_wrong_answer_is_a_mistake_although_a_good_version_is_kept() {
    let place = Place::new();
    let bytes = todo();
    let good = place.publish_component(&bytes);
    place.load().unwrap();
    let mut told = Vec::new();
    for (claimed, size) in [
        ("0".repeat(64), bytes.len()),
        ("1".repeat(64), bytes.len() - 1),
        ("1".repeat(64), bytes.len() + 1),
        // It is kept, and so not fetched.
        (good.clone(), bytes.len() - 1),
        (good.clone(), bytes.len() + 1),
        (good.clone(), 1 << 40),
    ] {
        place.publish("aegis.module.json", manifest(&claimed, size));
        told.push(place.mistakes());
    }
    place.publish("aegis.module.json", "{ \"schema\": \"aegis.module/1\" }");
    told.push(place.mistakes());
    place.publish("aegis.module.json", " ".repeat(300_000));
    told.push(place.mistakes());
    place.publish_component(b"\0asm\x01\0\0\0");
    told.push(place.mistakes());
    place.files.lock().unwrap().clear();
    told.push(place.mistakes());
    let size = bytes.len();
    let mut told = told.join("\n").replace(&good, "GOOD");
    for (number, name) in [(size, "SIZE"), (size - 1, "SIZE-1"), (size + 1, "SIZE+1")] {
        told = told.replace(&number.to_string(), name);
    }
    insta::assert_snapshot!(told, @"
    modules.todo: AEGIS-M121 verifying the component: found the SHA-256 GOOD, expected 0000000000000000000000000000000000000000000000000000000000000000
    modules.todo: AEGIS-M120 verifying the component: found SIZE bytes announced, expected at most SIZE-1
    modules.todo: AEGIS-M120 verifying the component: found SIZE bytes, expected SIZE+1 as its manifest says
    modules.todo: AEGIS-M120 verifying the component: found SIZE bytes, expected SIZE-1 as its manifest says
    modules.todo: AEGIS-M120 verifying the component: found SIZE bytes, expected SIZE+1 as its manifest says
    modules.todo: AEGIS-M110 reading the component: found 1099511627776 bytes in its manifest, expected at most 67108864
    modules.todo: AEGIS-M100 reading the manifest of the component: component.path: found nothing, expected it in what is published
    modules.todo: AEGIS-M100 reading the manifest of the component: component.sha256: found nothing, expected it in what is published
    modules.todo: AEGIS-M100 reading the manifest of the component: component.size: found nothing, expected it in what is published
    modules.todo: AEGIS-M100 reading the manifest of the component: found 300000 bytes announced, expected at most 262144
    modules.todo: AEGIS-M130 inspecting the component: found a core module (make a component of it with `wasm-tools component new`), expected a Wasm component
    modules.todo: AEGIS-M103 fetching the module: found status 404, expected 200 from http://HOST/m/aegis.module.json
    ");
}

#[test]
fn a_component_alone_is_known_by_the_digest_in_the_configuration() {
    let mut place = Place::new();
    let sha256 = place.publish_component(&todo());
    let configured = |place: &Place, sha256: &str| {
        let url = place.url("m/todo.wasm");
        place.write("aegis.toml", &format!("[modules.todo]\nsource = \"{url}\"\nsha256 = \"{sha256}\"\n"));
    };
    configured(&place, &"0".repeat(64));
    assert!(place.mistakes().starts_with("modules.todo: AEGIS-M121"), "{}", place.mistakes());
    configured(&place, &sha256);
    place.load().unwrap();
    let asked = place.paths().len();
    place.load().unwrap();
    assert_eq!(place.paths().len(), asked, "it is kept, so nobody is asked");
    place.close();
    assert_eq!(place.load().unwrap().warnings, [] as [&str; 0]);
}

#[test]
fn the_operator_may_pin_what_a_folder_publishes() {
    let place = Place::new();
    let sha256 = place.publish_component(&todo());
    let source = place.url("m/");
    let pinned = |sha256: &str| {
        place.write("aegis.toml", &format!("[modules.todo]\nsource = \"{source}\"\nsha256 = \"{sha256}\"\n"));
    };
    pinned(&sha256);
    place.load().unwrap();
    pinned(&"0".repeat(64));
    let told = place.mistakes().replace(&sha256, "PUBLISHED");
    insta::assert_snapshot!(told, @"modules.todo: AEGIS-M121 verifying the component: found the SHA-256 PUBLISHED in its manifest, expected 0000000000000000000000000000000000000000000000000000000000000000");
}

#[test]
fn a_private_source_gets_the_token_of_its_file() {
    let place = Place::new();
    place.publish_component(&todo());
    let source = place.url("m/");
    place.write("aegis.toml", &format!("[modules.todo]\nsource = \"{source}\"\ntoken-file = \"token\"\n"));
    let missing = place.mistakes();
    place.write("token", "two words\n");
    let bad = place.mistakes();
    insta::assert_snapshot!([missing, bad].join("\n"), @"
    modules.todo: AEGIS-M105 fetching the module: APP/token: found nothing, expected a file
    modules.todo: AEGIS-M105 fetching the module: APP/token: found no token, expected one line of ASCII characters without spaces
    ");
    place.write("token", "s3cret\n");
    let app = place.load().unwrap();
    let heads = place.server.as_ref().unwrap().requests();
    assert!(heads.iter().all(|head| head.to_ascii_lowercase().contains("authorization: bearer s3cret\r\n")));
    let config = String::from_utf8_lossy(&app.bundle.config).into_owned();
    assert!(!config.contains("s3cret"), "the token is in no bundle");
}

#[test]
fn a_folder_in_a_repository_is_read_through_the_api_of_its_git_host() {
    let mut place = Place::new();
    let (bytes, api) = (todo(), place.url("v3/"));
    let sha256 = digest_of(&bytes);
    let manifest = manifest(&sha256, bytes.len()).into_bytes();
    for (file, content) in [("aegis.module.json", manifest), ("todo.wasm", bytes)] {
        let path = format!("/v3/repos/team/modules/contents/todo/{file}?ref=main");
        place.files.lock().unwrap().insert(path, content);
    }
    let source = "source = \"github:team/modules/todo@main\"";
    place.write("aegis.toml", &format!("[modules.todo]\n{source}\napi = \"{api}\"\n"));
    let app = place.load().unwrap();
    assert_eq!(app.models[0].code.as_ref().unwrap().digest, sha256);
    let heads = place.server.as_ref().unwrap().requests();
    let raw = "accept: application/vnd.github.raw+json\r\n";
    assert!(heads.iter().all(|head| head.to_ascii_lowercase().contains(raw)), "{heads:?}");
    place.close();
    assert_eq!(place.load().unwrap().bundle, app.bundle);
}

#[test]
fn a_folder_of_the_same_name_is_a_mistake() {
    let place = Place::new();
    place.publish_component(&todo());
    place.write("modules/todo/module.toml", "name = \"todo\"\n");
    insta::assert_snapshot!(place.mistakes(), @"modules/todo: found a folder, expected none: aegis.toml has a source for modules.todo");
}

#[test]
fn a_source_that_is_away_is_waited_for_once() {
    let mut place = Place::new();
    let source = place.url("m/");
    let modules: String = (0..3).map(|n| format!("[modules.m{n}]\nsource = \"{source}{n}/\"\n")).collect();
    place.write("aegis.toml", &modules);
    place.close();
    // Whoever comes is hung up on.
    let listener = TcpListener::bind(place.address).unwrap();
    let connections = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&connections);
    thread::spawn(move || listener.incoming().for_each(|_| *counted.lock().unwrap() += 1));
    let told = place.mistakes();
    assert_eq!(told.lines().count(), 3, "{told}");
    assert!((1..=3).contains(&*connections.lock().unwrap()), "one module was tried, three times at most");
}

#[test]
fn looking_at_an_app_keeps_nothing() {
    let place = Place::new();
    place.publish_component(&todo());
    Compilation::quiet(Keep::WhereThereIsSome, |compilation| {
        load_app(place.folder.path(), &Overrides::default(), &Environment::new(), compilation)
    })
    .unwrap();
    assert!(!place.folder.path().join("data").exists());
}

#[test]
fn a_version_whose_deployment_is_refused_is_still_new_to_whoever_looks() {
    let place = Place::new();
    let moved = |endpoint: &str| {
        let spec = json!({"name": "todo", "endpoint": endpoint, "version": "1.0.0"});
        Guest::model(spec).build()
    };
    place.publish_component(&moved("todos"));
    let App { config, bundle, code, .. } = place.load().unwrap();
    let base = bundle.seal_with(code).unwrap();
    let changed = || look(&config).changed;
    assert_eq!(look(&config), Look { asked: 1, ..Look::default() });
    place.publish_component(&moved("tasks"));
    let deployed = |force| {
        let (module, supply) = ("todo".to_owned(), Supply::App);
        let order = Order { module, supply, sha256: None, force, mode: None, trial: None };
        Compilation::quiet(Keep::InDataFolder, |compilation| deploy(&order, &base, compilation, 0))
    };
    let refused = deployed(false).map(|Made { warnings, .. }| warnings);
    assert!(matches!(refused, Err(Refusal::Incompatible(_))), "{refused:?}");
    assert_eq!(changed(), ["todo"]);
    deployed(true).unwrap();
    assert_eq!(changed(), ["todo"], "it may still turn out to be bad");
    place.load().unwrap();
    assert_eq!(changed(), [] as [&str; 0], "it was tried with the app");
}
