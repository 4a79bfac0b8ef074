//! Apps with components.

use std::os::unix::fs::MetadataExt;

use aegis_guests::Guest;
use serde_json::json;

use super::*;

fn digest_of(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

impl Folder {
    /// Writes a component, built once for all tests of this process.
    fn component(&self, path: &str, guest: &Guest) -> Vec<u8> {
        let bytes = guest.build();
        self.write(path, &bytes);
        bytes
    }

    fn manifest(&self, module: &str, mut manifest: serde_json::Value) -> &Self {
        manifest["schema"] = json!("aegis.module/1");
        self.write(&format!("modules/{module}/aegis.module.json"), manifest.to_string())
    }
}

#[test]
fn a_component_in_a_folder_is_a_module() {
    let folder = Folder::new();
    let bytes = folder.component("modules/things/todo.wasm", &aegis_guests::todo());
    folder.write("modules/note/module.toml", NOTE);
    let app = folder.load().unwrap();
    let text = check::summary(&app).replace(&folder.path().display().to_string(), "APP");
    let text = text.replace(&app.bundle.digest, "DIGEST").replace(&digest_of(&bytes)[..12], "COMPONENT");
    let kept: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("models")).collect();
    insta::assert_snapshot!(kept.join("\n"), @"
    models   2
      NOTE  /aegis/api/models/notes  file, 1 field
      TODO  /aegis/api/models/todos  file, 3 fields
        component  todo 1.2.0, built with wat
        file       25.1KiB, SHA-256 COMPONENT…
        model      TODO at todos
        hooks      create, validate, update, delete
        commands   echo, approve, burn (CPU pool), refuse, greeting
        limits     memory 64MiB, deadline 1s, cpu-deadline 10s, payload 4MiB, 16 instances with 100000 calls each
    ");
}

#[test]
fn the_bundle_carries_the_code_of_each_component_once() {
    let folder = Folder::new();
    folder.write("modules/note/module.toml", NOTE);
    let bytes = folder.component("modules/todo/todo.wasm", &aegis_guests::todo());
    folder.component("modules/plain/plain.wasm", &aegis_guests::plain());
    let app = folder.load().unwrap();
    let sealed = app.bundle.seal_with(app.code.clone()).unwrap();
    let read = Bundle::read(&sealed).unwrap();
    assert_eq!(read.code.len(), 2);
    assert_eq!(read.engine, aegis_wasm::compatibility().unwrap());
    let place = read.place_of(&digest_of(&bytes)).unwrap();
    let code = app.code.iter().find(|code| code.digest == place.digest).unwrap();
    assert_eq!(place.length, code.bytes.len() as u64);
    let models = catalog::decode(&read.catalog).unwrap();
    assert!(models.iter().all(|model| model.code.is_some() == (model.name.as_str() != "NOTE")));
    assert_eq!(aegis_ipc::bundle::CODE_ALIGNMENT, aegis_wasm::CODE_ALIGNMENT);
    folder.write("modules/plain/plain.wasm", aegis_guests::plain().info("plain", "1.0.1").build());
    assert_ne!(folder.load().unwrap().bundle.digest, read.digest, "another component is another generation");
}

#[test]
fn without_components_there_is_no_engine_and_no_cache() {
    let folder = Folder::new();
    folder.write("modules/note/module.toml", NOTE);
    let app = folder.load().unwrap();
    assert_eq!((app.bundle.engine.as_str(), app.code.len()), ("", 0));
    assert!(!folder.path().join("data").exists());
}

#[test]
fn the_manifest_sets_limits_and_settings_and_the_operator_goes_before() {
    let folder = Folder::new();
    let bytes = folder.component("modules/todo/todo.wasm", &aegis_guests::todo());
    folder.component("modules/todo/todo.debug.wasm", &aegis_guests::plain());
    folder.manifest(
        "todo",
        json!({
            "name": "todo", "version": "1.1.0", "kind": "model", "abi": "aegis:module@1.0",
            "component": { "path": "todo.wasm", "sha256": digest_of(&bytes), "size": bytes.len() },
            "limits": { "memory": "8MiB", "deadline": "250ms" }, "instances": { "max": 3, "on-module-failure": "skip" },
            "config": { "defaults": { "greeting": "hello", "deep": { "a": 1, "b": [2] } } },
            "needs": { "inference": ["m"], "models": {} },
        }),
    );
    folder.write(
        "aegis.toml",
        "[modules.todo]\nsettings = { deep = { b = [3], c-d = true } }\nlimits = { deadline = \"100ms\", payload = \"64KiB\" }\n",
    );
    let app = folder.load().unwrap();
    let code = app.models[0].code.as_ref().unwrap();
    assert_eq!(code.settings, json!({ "greeting": "hello", "deep": { "a": 1, "b": [3], "c-d": true } }));
    insta::assert_debug_snapshot!(code.limits, @"
    CodeLimits {
        memory_bytes_max: 8388608,
        call_ms_max: 100,
        cpu_call_ms_max: 10000,
        payload_bytes_max: 65536,
        instances_max: 3,
        calls_per_instance_max: 100000,
        calls_at_a_time_max: 1,
        on_failure: Skip,
    }
    ");
    insta::assert_snapshot!(app.warnings.join("\n"), @r#"
    modules/todo/aegis.module.json: needs.inference: this version cannot grant it yet, calls are answered `denied`
    modules/todo/todo.wasm: version: it says "1.2.0", its manifest "1.1.0"
    "#);
    assert_eq!(app.components[0].needs, ["inference", "models"]);
}

#[test]
fn nothing_looks_at_bytes_that_are_not_those_of_the_manifest() {
    let folder = Folder::new();
    folder.write("modules/a/a.wasm", "no component at all").write("modules/b/b.wasm", "neither");
    let claim = |size: u64| json!({ "component": { "size": size, "sha256": "00".repeat(32) } });
    folder.manifest("a", claim(19)).manifest("b", claim(8));
    insta::assert_snapshot!(folder.mistakes(), @"
    modules/a/a.wasm: AEGIS-M121 verifying the component: found the SHA-256 f89f1c33b42d79205828e85824231db6747cd89d50731df5dd22df9acb8ecebe, expected 0000000000000000000000000000000000000000000000000000000000000000 as its manifest says
    modules/b/b.wasm: AEGIS-M120 verifying the component: found 7 bytes, expected 8 as its manifest says
    ");
}

#[test]
fn a_file_of_a_gigabyte_is_not_even_read() {
    let folder = Folder::new();
    folder.write("modules/a/a.wasm", "\0asm");
    let file = std::fs::OpenOptions::new().write(true).open(folder.path().join("modules/a/a.wasm")).unwrap();
    file.set_len(1 << 30).unwrap();
    insta::assert_snapshot!(folder.mistakes(), @"modules/a/a.wasm: AEGIS-M110 reading the component: found 1073741824 bytes, expected at most 67108864");
}

#[test]
fn mistakes_of_components_come_all_at_once() {
    let folder = Folder::new();
    folder.write("modules/both/module.toml", TODO).write("modules/both/both.wasm", "");
    folder.write("modules/core/core.wasm", aegis_guests::core_module());
    folder.write("modules/empty/empty.wasm", aegis_guests::empty_component());
    folder.write("modules/lonely.wasm", "");
    folder.manifest("lost", json!({ "component": { "path": "lost.wasm" } }));
    folder.write("modules/several/a.wasm", "").write("modules/several/b.wasm", "");
    folder.write("modules/syntax/syntax.wasm", "").write("modules/syntax/aegis.module.json", "{");
    folder.write("modules/text/text.wasm", "(component)");
    folder.write("modules/wrong/wrong.wasm", "");
    folder.manifest("wrong", json!({ "kind": "adapter", "limits": { "memory": "much" } }));
    folder.manifest("limits", json!({ "limits": { "memory": "much" }, "instances": { "max": 0 } }));
    fs::create_dir_all(folder.path().join("modules/folder/folder.wasm")).unwrap();
    folder.write("aegis.toml", "[modules.nobody]\nsettings = {}\n[modules.both.limits]\nmemory = \"1MiB\"\n[modules.severel]\nsettings = {}\n");
    insta::assert_snapshot!(folder.mistakes(), @r#"
    modules/both: found both module.toml and both.wasm, expected one of them
    modules/core/core.wasm: AEGIS-M130 inspecting the component: found a core module (make a component of it with `wasm-tools component new`), expected a Wasm component
    modules/empty/empty.wasm: AEGIS-M160 inspecting the component: it exports nothing, expected aegis:module/identity@1.0 among it
    modules/empty/empty.wasm: AEGIS-M160 inspecting the component: it exports nothing, expected aegis:module/describe-model@1.0 among it
    modules/folder/folder.wasm: AEGIS-M101 reading the component: found no regular file, expected a Wasm component
    modules/limits/aegis.module.json: AEGIS-M100 reading the manifest of the component: limits.memory: found "much", expected a size from 64KiB to 256MiB, such as "64KiB" or "2MiB"
    modules/limits/aegis.module.json: AEGIS-M100 reading the manifest of the component: instances.max: found "0", expected a whole number from 1 to 512
    modules/lonely.wasm: found a file, expected a folder: a module is modules/lonely/lonely.wasm
    modules/lost: AEGIS-M101 reading the component: found no lost.wasm, expected the file that aegis.module.json names
    modules/several: AEGIS-M101 reading the component: found a.wasm, b.wasm, expected one *.wasm file, or the manifest aegis.module.json that names one
    modules/syntax/aegis.module.json: AEGIS-M100 reading the manifest of the component: line 1, column 2: found the end, expected a property name in double quotes
    modules/text/text.wasm: AEGIS-M130 inspecting the component: found the text format (compile it with `wasm-tools parse`), expected a Wasm component
    modules/wrong/aegis.module.json: AEGIS-M100 reading the manifest of the component: kind: found "adapter", expected "model" or "http-service": this version serves no other kind yet
    aegis.toml:3: modules.both: found settings, limits or other terms of code, expected them for a folder of modules with a component
    aegis.toml:1: modules.nobody: found no such module, expected one with a component, or its source
    aegis.toml:5: modules.severel: found no such module (did you mean "several"?), expected one with a component, or its source
    "#);
}

#[test]
fn only_instances_of_wasi_0_3_answer_several_requests_at_a_time() {
    let folder = Folder::new();
    folder.write("modules/older/older.wasm", aegis_guests::service("older"));
    folder.component("modules/todo/todo.wasm", &aegis_guests::todo());
    let instances = json!({ "instances": { "max-invocations": 100, "max-concurrent": 4 } });
    folder.manifest("older", instances.clone()).manifest("todo", instances);
    folder.write("modules/much/much.wasm", aegis_guests::service("much"));
    folder.manifest("much", json!({ "instances": { "max-concurrent": 1001 } }));
    insta::assert_snapshot!(folder.mistakes(), @r#"
    modules/much/aegis.module.json: AEGIS-M100 reading the manifest of the component: instances.max-concurrent: found "1001", expected a whole number from 1 to 1000
    modules/older/older.wasm: AEGIS-M100 reading the manifest of the component: found 4 requests at a time in one instance, expected 1: an instance of wasi:http 0.2 does one thing at a time, one of 0.3 several
    modules/todo/todo.wasm: AEGIS-M100 reading the manifest of the component: found 4 requests at a time in one instance, expected 1: models are asked one thing at a time, services of wasi:http 0.3 several
    "#);
}

#[test]
fn what_a_component_says_is_checked_like_what_a_file_says() {
    let folder = Folder::new();
    let spec = json!({
        "name": "odd", "endpoint": "Not/A-Segment", "version": "1.0.0",
        "fields": [{ "name": "x", "kind": "integer", "default-value": "\"text\"" }],
    });
    folder.component("modules/odd/odd.wasm", &Guest::model(spec));
    insta::assert_snapshot!(folder.mistakes(), @r#"
    modules/odd/odd.wasm: AEGIS-M190 checking the component: endpoint: found "Not/A-Segment", expected 1 to 64 letters, digits, '_' or '-', starting with a letter or digit
    modules/odd/odd.wasm: AEGIS-M190 checking the component: fields.x.default: found the text "text", expected a whole number
    "#);
}

#[test]
fn every_hostile_component_is_a_mistake_with_a_number() {
    let folder = Folder::new();
    for (number, hostile) in aegis_guests::refused().into_iter().enumerate() {
        folder.write(&format!("modules/m{number}/m.wasm"), hostile.bytes);
    }
    let mistakes = folder.mistakes();
    assert!(mistakes.lines().all(|line| line.contains(".wasm: AEGIS-M")), "{mistakes}");
    let count =
        mistakes.lines().map(|line| line.split('/').nth(1)).collect::<std::collections::BTreeSet<_>>();
    assert_eq!(count.len(), aegis_guests::refused().len());
}

#[test]
fn code_is_kept_and_taken_from_there_the_next_time() {
    let folder = Folder::new();
    folder.component("modules/todo/todo.wasm", &aegis_guests::todo());
    let first = folder.load().unwrap();
    let cache = folder.path().join("data/code-cache");
    let files = || -> Vec<_> {
        fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap()).map(|entry| entry.path()).collect()
    };
    assert_eq!(files().len(), 1);
    let file = files().remove(0);
    let written = fs::metadata(&file).unwrap();
    let second = folder.load().unwrap();
    assert_eq!(second.bundle, first.bundle);
    assert!(second.code == first.code);
    assert_eq!(fs::metadata(&file).unwrap().ino(), written.ino(), "it was not written again");
    fs::write(&file, "damaged").unwrap();
    assert!(folder.load().unwrap().code == first.code);
    assert_ne!(fs::metadata(&file).unwrap().len(), 7);
}

#[test]
fn a_look_at_an_app_keeps_no_code() {
    let folder = Folder::new();
    folder.component("modules/plain/plain.wasm", &aegis_guests::plain());
    let look = || {
        Compilation::quiet(Keep::WhereThereIsSome, |compilation| {
            load_app(folder.path(), &Overrides::default(), &Environment::new(), compilation).unwrap()
        })
    };
    look();
    assert!(!folder.path().join("data").exists());
}

#[test]
fn a_cache_that_others_can_write_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    folder.component("modules/plain/plain.wasm", &aegis_guests::plain());
    let cache = folder.path().join("data/code-cache");
    fs::create_dir_all(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    let warnings =
        folder.load().unwrap().warnings.join("\n").replace(&folder.path().display().to_string(), "APP");
    insta::assert_snapshot!(warnings, @"APP/data/code-cache: found mode 777, expected a folder of this user that nobody else can enter; so components are compiled anew each time");
}

#[test]
fn whoever_wants_to_know_is_told_before_each_component() {
    let folder = Folder::new();
    folder.component("modules/plain/plain.wasm", &aegis_guests::plain());
    folder.write("modules/wrong/wrong.wasm", "");
    let mut told = Vec::new();
    let mut begins = |origin: &str, engine: &str| told.push((origin.to_owned(), engine.to_owned()));
    let compilation = Compilation { keep: Keep::InDataFolder, begins: &mut begins, in_force: None };
    let _ = load_app(folder.path(), &Overrides::default(), &Environment::new(), compilation);
    let engine = aegis_wasm::compatibility().unwrap();
    let expected = ["modules/plain/plain.wasm", "modules/wrong/wrong.wasm"];
    assert_eq!(told, expected.map(|origin| (origin.to_owned(), engine.clone())));
}

#[test]
fn a_single_component_is_looked_at_without_an_app() {
    let folder = Folder::new();
    let bytes = folder.component("order.wasm", &aegis_guests::order());
    let path = folder.path().join("order.wasm");
    let Read::Model(model, component) = load_component(&path).unwrap().read else {
        panic!("found a service")
    };
    let text = check::describe(&model, &component).replace(&digest_of(&bytes)[..12], "COMPONENT");
    insta::assert_snapshot!(text, @"
    component  order 2.1.3, built with wat
    file       16.8KiB, SHA-256 COMPONENT…
    model      ORDER at orders
    hooks      none
    commands   customer, remind
    limits     memory 64MiB, deadline 1s, cpu-deadline 10s, payload 4MiB, 16 instances with 100000 calls each
    ");
    fs::write(&path, "(component)").unwrap();
    let mistakes = load_component(&path).map(|loaded| loaded.read).unwrap_err();
    let told = mistakes.lines[0].replace(&folder.path().display().to_string(), "APP");
    insta::assert_snapshot!(told, @"APP/order.wasm: AEGIS-M130 inspecting the component: found the text format (compile it with `wasm-tools parse`), expected a Wasm component");
}

#[test]
fn what_a_component_says_without_effect_is_told() {
    let folder = Folder::new();
    let guest = Guest::model(json!({
        "name": "plain",
        "endpoint": "plains",
        "version": "1.0.0",
        "domain": "sales",
        "datasource": { "name": "file", "cache-bytes": 1000 },
        "preload": 3,
        "extensions": [{ "key": "perhaps", "value": "1" }],
    }));
    folder.component("modules/plain/plain.wasm", &guest);
    insta::assert_snapshot!(folder.load().unwrap().warnings.join("\n"), @r#"
    modules/plain/plain.wasm: domain: found "sales", which has no effect in this version of the host; ignored
    modules/plain/plain.wasm: preload: found 3, which has no effect in this version of the host; ignored
    modules/plain/plain.wasm: datasource.cache-bytes: found 1000, which has no effect in this version of the host; ignored
    modules/plain/plain.wasm: extensions: found "perhaps", which has no effect in this version of the host; ignored
    "#);
    let alone = load_component(&folder.path().join("modules/plain/plain.wasm")).unwrap();
    assert_eq!(alone.warnings.len(), 4, "{:?}", alone.warnings);
}

#[test]
fn a_component_that_is_in_no_app_may_want_to_hear_of_any_event() {
    let folder = Folder::new();
    folder.component("modules/journal/journal.wasm", &aegis_guests::journal(&["CREATETODO", "UPDATE*"]));
    assert!(load_component(&folder.path().join("modules/journal/journal.wasm")).is_ok());
    assert!(folder.load().is_err(), "in an app somebody has to grant it");
}

#[test]
fn grants_of_models_and_events_that_are_not_there_are_told_with_their_line() {
    let folder = Folder::new();
    folder.component("modules/todo/todo.wasm", &aegis_guests::todo());
    folder.write("modules/note/module.toml", NOTE);
    folder.write(
        "aegis.toml",
        "[modules.todo.grants.models]\nnote = [\"read\"]\nnotte = [\"read\"]\nCustomer = [\"write\"]\n\
         [modules.todo.grants]\nevents = [\"CreateNote\", \"UPDATE*\", \"CREATENOTTE\", \"order*\"]\n",
    );
    insta::assert_snapshot!(folder.load().unwrap().warnings.join("\n"), @r#"
    aegis.toml:4: modules.todo.grants.models.Customer: there is no such model, so nothing is granted by that
    aegis.toml:3: modules.todo.grants.models.notte: there is no such model (did you mean "NOTE"?), so nothing is granted by that
    aegis.toml:6: modules.todo.grants.events: there is no event CREATENOTTE (did you mean "CREATENOTE"?), so nothing is granted by that
    aegis.toml:6: modules.todo.grants.events: there is no event ORDER*, so nothing is granted by that
    "#);
}
