use std::{fs, os::unix::fs::PermissionsExt};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;

fn new_key_at(path: &Path, name: Option<&str>) -> Result<Made, Failure> {
    make(&NewKeyArguments { file: path.to_owned(), name: name.map(str::to_owned) })
}

fn sign_at(target: &Path, key: &Path, name: Option<&str>) -> Result<SignedNow, Failure> {
    let (target, key, name) = (target.to_owned(), key.to_owned(), name.map(str::to_owned));
    put_signature(&SignArguments { target, key, name })
}

/// A module folder with a component, and a manifest that says this about it.
fn module(version: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("order.wasm"), b"component").unwrap();
    write_manifest(folder.path(), version);
    folder
}

fn write_manifest(folder: &Path, version: &str) {
    let sha256 = format!("{:x}", Sha256::digest(b"component"));
    let component = json!({ "path": "order.wasm", "sha256": sha256, "size": 9 });
    let manifest =
        json!({ "schema": "aegis.module/1", "name": "order", "version": version, "component": component });
    fs::write(folder.join("aegis.module.json"), manifest.to_string()).unwrap();
}

fn refused(folder: &Path, key: &Path) -> String {
    let told = sign_at(folder, key, None).unwrap_err().to_string();
    told.replace(&folder.display().to_string(), "DIR").replace(&key.display().to_string(), "KEY")
}

#[test]
fn a_new_key_is_closed_to_others_and_never_replaces_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop-team.key");
    let made = new_key_at(&path, None).unwrap();
    assert_eq!(made.name, "shop-team");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(PrivateKey::parse(&text).unwrap().public_key(), made.public_key);
    assert!(matches!(new_key_at(&path, None), Err(Failure::Occupied(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    let other = new_key_at(&folder.path().join("other.key"), Some("second")).unwrap();
    assert_eq!(other.name, "second");
    assert_ne!(other.public_key, made.public_key);
    assert!(matches!(new_key_at(&folder.path().join("a b"), None), Err(Failure::Name(_))));
}

#[test]
fn a_new_key_says_what_its_hosts_are_told() {
    insta::assert_snapshot!(told(Path::new("shop-team.key"), "shop-team", "PUBLIC"), @r#"
    shop-team.key: a new key; whoever has this file can sign with it

    # Hosts that trust it say so in aegis.toml:
    [trust.keys.shop-team]
    public-key = "PUBLIC"
    modules = ["*"] # or those alone that it may sign, such as "order" or "shop-*"
    "#);
}

#[test]
fn keys_of_other_tools_are_read() {
    // Made with `openssl genpkey -algorithm ed25519`, and its public half with `openssl pkey -pubout`.
    let openssl = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIMtdZfNVk9gXKHqiIJxjGwqtyO/maKgiL5F9CVlnUlZE\n-----END PRIVATE KEY-----";
    assert_eq!(
        PrivateKey::parse(openssl).unwrap().public_key(),
        "6EBopIMF7SloW1zSPiS7ebyq3flNJ8Kxpdz3vLHc8x8="
    );
    let told = [
        "",
        "-----BEGIN PRIVATE KEY-----\n?\n-----END PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
    ]
    .map(|text| PrivateKey::parse(text).err().unwrap());
    insta::assert_snapshot!(told.join("\n"), @"
    found no -----BEGIN PRIVATE KEY-----, expected a private key (Ed25519, PKCS#8) as `aegis key new` or openssl makes one
    found no Base64 (invalid length at 0), expected a private key (Ed25519, PKCS#8) as `aegis key new` or openssl makes one
    found another key (InvalidEncoding), expected a private key (Ed25519, PKCS#8) as `aegis key new` or openssl makes one
    ");
}

#[test]
fn signatures_come_one_beside_the_other_until_the_manifest_changes() {
    let (module, keys) = (module("1.0.0"), tempfile::tempdir().unwrap());
    let (one, two) = (keys.path().join("one.pem"), keys.path().join("two.pem"));
    new_key_at(&one, None).unwrap();
    new_key_at(&two, None).unwrap();
    let first = sign_at(module.path(), &one, None).unwrap();
    assert_eq!(first.file, module.path().join("aegis.module.json.sig"));
    assert_eq!((first.module.as_str(), first.version.as_str()), ("order", "1.0.0"));
    assert_eq!(
        sign_at(&module.path().join("aegis.module.json"), &two, None).unwrap().signers,
        ["one", "two"]
    );
    let again = sign_at(module.path(), &one, None).unwrap();
    assert_eq!((again.signers, again.dropped), (vec!["two".to_owned(), "one".to_owned()], 0));
    let text = fs::read_to_string(&first.file).unwrap();
    let envelope: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(envelope["payloadType"], "application/vnd.aegis.module.v1+json");
    write_manifest(module.path(), "1.0.1");
    let changed = sign_at(module.path(), &two, Some("team")).unwrap();
    assert_eq!((changed.signers, changed.dropped), (vec!["team".to_owned()], 2));
    let files: Vec<_> = fs::read_dir(module.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files.len(), 3, "{files:?}");
}

#[test]
fn a_manifest_that_is_not_about_its_component_is_not_signed() {
    let keys = tempfile::tempdir().unwrap();
    let key = keys.path().join("one.pem");
    new_key_at(&key, None).unwrap();
    let folder = module("1.0.0");
    let mut told = Vec::new();
    fs::write(folder.path().join("order.wasm"), b"another!!").unwrap();
    told.push(refused(folder.path(), &key));
    fs::write(folder.path().join("aegis.module.json"), "{ \"schema\": \"aegis.module/1\" }").unwrap();
    told.push(refused(folder.path(), &key));
    write_manifest(folder.path(), "newest");
    fs::write(folder.path().join("order.wasm"), b"component").unwrap();
    told.push(refused(folder.path(), &key));
    write_manifest(folder.path(), "1.0.0");
    fs::write(folder.path().join("aegis.module.json.sig"), "?").unwrap();
    told.push(refused(folder.path(), &key));
    fs::remove_file(folder.path().join("order.wasm")).unwrap();
    told.push(refused(folder.path(), &key));
    fs::remove_file(folder.path().join("aegis.module.json")).unwrap();
    told.push(refused(folder.path(), &key));
    fs::write(&key, "nothing").unwrap();
    told.push(refused(folder.path(), &key));
    insta::assert_snapshot!(told.join("\n"), @r#"
    nothing was signed
      DIR/order.wasm: AEGIS-M121 verifying the component: found the SHA-256 0b62bab76943c6cca66d8b5bc88ab323b12c0cbe67054e6793bf2cd772798d4e, expected 6985ca1f4daa5a584a28eae043a239cb96689af1337ea13afb63e00c2bf512fa as its manifest says
    nothing was signed
      DIR/aegis.module.json: name: found nothing, expected the name of the module in what is signed
      DIR/aegis.module.json: version: found nothing, expected a version such as "1.4.0" in what is signed
      DIR/aegis.module.json: component.sha256: found nothing, expected the digest of the component in what is signed
      DIR/aegis.module.json: component.sha256: that of the component is 0b62bab76943c6cca66d8b5bc88ab323b12c0cbe67054e6793bf2cd772798d4e
    nothing was signed
      DIR/aegis.module.json: version: found "newest", expected a version such as "1.4.0" in what is signed
    nothing was signed
      DIR/aegis.module.json.sig: found no envelope with signatures (expected value at line 1 column 1), expected one as `aegis sign` writes it
    nothing was signed
      DIR/aegis.module.json: AEGIS-M101 reading the component: found no order.wasm, expected the file that aegis.module.json names
    nothing was signed
      DIR/aegis.module.json: found nothing, expected a file
    KEY: found no -----BEGIN PRIVATE KEY-----, expected a private key (Ed25519, PKCS#8) as `aegis key new` or openssl makes one
    "#);
}
