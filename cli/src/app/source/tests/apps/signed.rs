//! Modules that are signed, from every kind of source.

use ring::signature::{Ed25519KeyPair, KeyPair};

use super::*;
use crate::trust::{Envelope, pre_authentication_encoding};

/// Where a module is published.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Folder,
    Index,
    Git,
    Registry,
}

const KINDS: [Kind; 4] = [Kind::Folder, Kind::Index, Kind::Git, Kind::Registry];

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

/// A manifest to be signed, about this component.
fn signable(bytes: &[u8]) -> Vec<u8> {
    let component = json!({ "path": "todo.wasm", "sha256": digest_of(bytes), "size": bytes.len() });
    let manifest = json!({
        "schema": "aegis.module/1", "name": "todo", "version": "1.0.0", "component": component,
        "limits": { "memory": "8MiB" },
    });
    manifest.to_string().into_bytes()
}

fn signatures(manifest: &[u8], seed: u8) -> Vec<u8> {
    let mut envelope = Envelope::about(manifest);
    envelope.put("team", pair(seed).sign(&pre_authentication_encoding(manifest)).as_ref()).unwrap();
    serde_json::to_vec(&envelope).unwrap()
}

impl Place {
    /// Trusts the key of this seed, and takes the module from there.
    fn trust(&self, kind: Kind, seed: u8) {
        let address = self.address;
        let source = match kind {
            Kind::Folder => format!("source = \"http://{address}/m/\""),
            Kind::Index => format!("source = \"http://{address}/m/\"\nversion = \"^1\""),
            Kind::Git => {
                format!("source = \"github:team/modules/todo@main\"\napi = \"http://{address}/m/\"")
            }
            Kind::Registry => format!("source = \"oci://{address}/team/todo:1.0.0\""),
        };
        let public_key = BASE64.encode(pair(seed).public_key().as_ref());
        let settings = format!(
            "[modules.todo]\n{source}\n[trust.keys.team]\npublic-key = \"{public_key}\"\nmodules = [\"todo\"]\n"
        );
        self.write("aegis.toml", &settings);
    }

    /// Publishes a module there, perhaps with signatures.
    fn publish_there(&self, kind: Kind, bytes: &[u8], manifest: &[u8], signatures: Option<&[u8]>) {
        let files = [
            ("todo.wasm", "application/wasm", Some(bytes)),
            ("aegis.module.json", "application/vnd.aegis.module.v1+json", Some(manifest)),
            ("aegis.module.json.sig", "application/vnd.dsse.envelope.v1+json", signatures),
        ];
        let mut layers = Vec::new();
        self.files.lock().unwrap().clear();
        for (file, media_type, content) in files.into_iter().filter_map(|(f, t, c)| Some((f, t, c?))) {
            let digest = format!("sha256:{}", digest_of(content));
            let path = match kind {
                Kind::Folder => format!("/m/{file}"),
                Kind::Index => format!("/m/1.0.0/{file}"),
                Kind::Git => format!("/m/repos/team/modules/contents/todo/{file}?ref=main"),
                Kind::Registry => format!("/v2/team/todo/blobs/{digest}"),
            };
            self.files.lock().unwrap().insert(path, content.to_owned());
            layers.push(json!({ "mediaType": media_type, "digest": digest, "size": content.len() }));
        }
        let index = json!({ "schema": "aegis.index/1", "versions": [{ "version": "1.0.0" }] });
        self.publish("aegis.index.json", index.to_string());
        let artifact = json!({ "schemaVersion": 2, "layers": layers }).to_string().into_bytes();
        self.files.lock().unwrap().insert("/v2/team/todo/manifests/1.0.0".to_owned(), artifact);
    }

    /// Who signed the module that is served, and the memory that its manifest asks for.
    fn signers(&self) -> (Vec<String>, u64) {
        let app = self.load().unwrap();
        let signed = app.bundle.modules[0].signed.clone().unwrap();
        assert_eq!(signed.version, "1.0.0");
        (signed.keys, app.models[0].code.as_ref().unwrap().limits.memory_bytes_max)
    }
}

#[test]
fn who_signed_it_is_known_from_every_source_and_from_the_cache() {
    let bytes = aegis_guests::todo().info("todo", "1.0.0").build();
    let manifest = signable(&bytes);
    for kind in KINDS {
        let mut place = Place::new();
        place.trust(kind, 1);
        place.publish_there(kind, &bytes, &manifest, Some(&signatures(&manifest, 1)));
        let team = (vec!["team".to_owned()], 8 << 20);
        assert_eq!(place.signers(), team, "{kind:?}");
        place.close();
        assert_eq!(place.signers(), team, "{kind:?} without the source");
        place.trust(kind, 2);
        let told = place.mistakes();
        assert!(told.contains("modules.todo: AEGIS-M128") && told.contains("AEGIS-M102"), "{kind:?}: {told}");
    }
}

#[test]
fn without_signatures_or_with_others_it_is_refused_from_every_source() {
    let bytes = aegis_guests::todo().info("todo", "1.0.0").build();
    let manifest = signable(&bytes);
    let right = signatures(&manifest, 1);
    let mut flipped = right.clone();
    let at = flipped.windows(4).position(|found| found == b"\"sig").unwrap() + 10;
    flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
    let mut changed = manifest.clone();
    let at = changed.windows(4).position(|found| found == b"8MiB").unwrap();
    changed[at] = b'9';
    for kind in KINDS {
        let place = Place::new();
        place.trust(kind, 1);
        for (manifest, signatures, code) in [
            (&manifest, None, "AEGIS-M123"),
            (&manifest, Some(&signatures(&manifest, 2)), "AEGIS-M128"),
            (&manifest, Some(&flipped), "AEGIS-M128"),
            (&changed, Some(&right), "AEGIS-M128"),
        ] {
            place.publish_there(kind, &bytes, manifest, signatures.map(Vec::as_slice));
            let told = place.mistakes();
            assert!(told.contains(&format!("modules.todo: {code}")), "{kind:?} {code}: {told}");
        }
        place.publish_there(kind, &bytes, &manifest, Some(&right));
        assert_eq!(place.signers().0, ["team"], "{kind:?}");
    }
}

#[test]
fn the_component_of_another_module_is_refused_from_every_source() {
    let bytes = aegis_guests::todo().info("todo", "1.0.0").build();
    let other = aegis_guests::todo().info("todo", "6.6.6").build();
    let manifest = signable(&bytes);
    for kind in KINDS {
        let place = Place::new();
        place.trust(kind, 1);
        place.publish_there(kind, &other, &manifest, Some(&signatures(&manifest, 1)));
        let told = place.mistakes();
        assert!(told.contains("modules.todo: AEGIS-M121"), "{kind:?}: {told}");
    }
}

#[test]
fn a_component_that_the_operator_knows_by_its_digest_needs_no_signature_unless_all_do() {
    let place = Place::new();
    let bytes = todo();
    place.publish("todo.wasm", bytes.clone());
    let source = format!(
        "[modules.todo]\nsource = \"{}\"\nsha256 = \"{}\"\n",
        place.url("m/todo.wasm"),
        digest_of(&bytes)
    );
    place.write("aegis.toml", &format!("{source}[trust]\nrequire = \"remote\"\n"));
    assert_eq!(place.load().unwrap().bundle.modules[0].signed, None);
    place.write("aegis.toml", &format!("{source}[trust]\nrequire = \"all\"\n"));
    assert!(place.mistakes().contains("AEGIS-M123"));
}

#[test]
fn without_keys_nobody_asks_for_signatures() {
    let place = Place::new();
    place.publish_component(&todo());
    place.load().unwrap();
    assert_eq!(place.paths(), ["/m/aegis.module.json", "/m/todo.wasm"]);
}
