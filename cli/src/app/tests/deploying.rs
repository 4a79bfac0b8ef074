//! Another version of one module, put into a generation that is there.

use std::path::PathBuf;

use aegis_guests::{Guest, splice};
use aegis_ipc::deploy::{Order, Supply};
use serde_json::json;

use super::*;

const NOW_S: i64 = 1_700_000_000;

fn stamping(name: &str, stamp: &str) -> Vec<u8> {
    let spec = json!({"name": name, "endpoint": format!("{name}s"), "version": "1.0.0"});
    Guest::model(spec).hook("on-create", splice("input", &format!("\"by\":\"{stamp}\""))).build()
}

/// An app with two components, and the generation that it makes.
fn two_components() -> (Folder, OwnedFd) {
    let folder = Folder::new();
    folder
        .write("modules/a/a.wasm", stamping("alpha", "one"))
        .write("modules/b/b.wasm", stamping("beta", "one"));
    let App { bundle, code, .. } = folder.load().unwrap();
    let base = bundle.seal_with(code).unwrap();
    (folder, base)
}

fn order(module: &str, supply: Supply) -> Order {
    Order { module: module.to_owned(), supply, sha256: None, force: false, mode: None, trial: None }
}

/// Deploys, and tells which components were worked on.
fn deployed(order: &Order, base: &OwnedFd, now_s: i64) -> (Result<Made, Refusal>, Vec<String>) {
    let mut begun = Vec::new();
    let mut begins = |origin: &str, _: &str| begun.push(origin.to_owned());
    let compilation = Compilation { keep: Keep::InDataFolder, begins: &mut begins, in_force: None };
    let made = deploy(order, base, compilation, now_s);
    (made, begun)
}

fn refused(order: &Order, base: &OwnedFd) -> String {
    match deployed(order, base, NOW_S).0.unwrap_err() {
        Refusal::Mistakes(lines) | Refusal::Incompatible(lines) => lines.join("\n"),
    }
}

#[test]
fn only_the_named_module_is_looked_at_and_all_others_keep_digest_and_code() {
    let (folder, base) = two_components();
    let before = Bundle::read(&base).unwrap();
    folder.write("modules/a/a.wasm", stamping("alpha", "two")).write("modules/b/b.wasm", "broken");
    folder.write("aegis.toml", "workers = \"many\"\n");
    let (made, begun) = deployed(&order("a", Supply::App), &base, NOW_S);
    let Made { bundle, code, warnings, .. } = made.unwrap();
    assert_eq!((begun, warnings), (vec!["modules/a".to_owned()], Vec::new()));
    let models = |bundle: &Bundle| catalog::decode(&bundle.catalog).unwrap();
    let (old, new) = (models(&before), models(&bundle));
    assert_ne!(old[0], new[0]);
    assert_eq!((&old[1], old.len()), (&new[1], new.len()));
    assert_eq!((&before.config, &before.modules), (&bundle.config, &bundle.modules));
    assert_ne!(before.digest, bundle.digest);
    let sealed = bundle.seal_with(code).unwrap();
    let after = Bundle::read(&sealed).unwrap();
    let digest = &new[1].code.as_ref().unwrap().digest;
    let bytes = |file: &OwnedFd, bundle: &Bundle| {
        let place = bundle.place_of(digest).unwrap();
        let mut bytes = vec![0; place.length as usize];
        let file = fs::File::from(file.try_clone().unwrap());
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, place.offset).unwrap();
        bytes
    };
    assert!(bytes(&base, &before) == bytes(&sealed, &after), "the code is that of before");
    assert_eq!(after.code.len(), 2, "and nobody's code is left over");
}

#[test]
fn what_is_deployed_twice_is_deployed_since_the_first_time() {
    let (folder, base) = two_components();
    let path = folder.path().join("next.wasm");
    fs::write(&path, stamping("alpha", "two")).unwrap();
    let order = order("a", Supply::File(path.clone()));
    let Made { bundle, code, .. } = deployed(&order, &base, NOW_S).0.unwrap();
    let first = bundle.digest.clone();
    let base = bundle.seal_with(code).unwrap();
    let again = deployed(&order, &base, NOW_S + 100).0.unwrap();
    assert_eq!(again.bundle.digest, first);
    fs::write(&path, stamping("alpha", "three")).unwrap();
    let other = deployed(&order, &base, NOW_S + 100).0.unwrap();
    assert_ne!(other.bundle.digest, first);
    let since = |bundle: &Bundle| bundle.modules[0].deployed.as_ref().unwrap().since_s;
    assert_eq!((since(&again.bundle), since(&other.bundle)), (NOW_S, NOW_S + 100));
}

#[test]
fn what_cannot_be_a_module_or_does_not_fit_the_others_is_refused() {
    let (folder, base) = two_components();
    let path = folder.path().join("next.wasm");
    fs::write(&path, stamping("beta", "two")).unwrap();
    let here = || Supply::File(path.clone());
    let mut told: Vec<String> =
        ["", ".", "..", "../a", "a/", "/a", ".a"].map(|name| refused(&order(name, here()), &base)).into();
    told.push(refused(&order("c", Supply::App), &base));
    told.push(refused(&order("c", Supply::Reset), &base));
    told.push(refused(&order("c", here()), &base));
    told.push(refused(&order("a", here()), &base));
    told.push(refused(&order("a", Supply::File(PathBuf::from("/nowhere.wasm"))), &base));
    told.push(refused(&order("a", Supply::Source("http://a.example/".to_owned())), &base));
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn routes_from_the_root_that_somebody_else_answers_are_refused() {
    let routing = |name: &str, path: &str| {
        let spec = json!({"name": name, "endpoint": format!("{name}s"), "version": "1.0.0"});
        Guest::model(spec).route(json!({"method": "post", "path": path}), aegis_guests::trap()).build()
    };
    let folder = Folder::new();
    folder
        .write("modules/a/a.wasm", stamping("alpha", "one"))
        .write("modules/b/b.wasm", routing("beta", "//labels/{id}"));
    let App { bundle, code, .. } = folder.load().unwrap();
    let base = bundle.seal_with(code).unwrap();
    let told = ["//aegis/api/deploy", "//labels/{name}"].map(|path| {
        let file = folder.path().join("next.wasm");
        fs::write(&file, routing("alpha", path)).unwrap();
        match deployed(&order("a", Supply::File(file)), &base, NOW_S).0 {
            Err(Refusal::Mistakes(lines)) => lines.join("\n"),
            other => panic!("found {other:?}"),
        }
    });
    insta::assert_snapshot!(told.join("\n"), @r#"
    model ALPHA: routes: found POST "//aegis/api/deploy", expected another: the host answers at /aegis/api
    model BETA: routes: found POST "//labels/{id}", expected another: model ALPHA answers the same paths
    "#);
}
