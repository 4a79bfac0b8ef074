//! Modules that are kept in a registry.

use super::*;

const MODULE_TYPE: &str = "application/vnd.aegis.module.v1+json";

/// A registry, which is a server with files at certain paths; and how it is asked for the module.
impl Place {
    fn with_registry(reference: &str, more: &str) -> Self {
        let place = Self::new();
        place.configure(reference, more);
        place
    }

    fn configure(&self, reference: &str, more: &str) {
        let source = format!("oci://{}/team/todo{reference}", self.address);
        self.write("aegis.toml", &format!("[modules.todo]\nsource = \"{source}\"\n{more}\n"));
    }

    fn put(&self, path: &str, content: Vec<u8>) {
        self.files.lock().unwrap().insert(format!("/v2/team/todo/{path}"), content);
    }

    /// Keeps a blob; its layer.
    fn blob(&self, media_type: &str, content: &[u8]) -> serde_json::Value {
        let digest = format!("sha256:{}", digest_of(content));
        self.put(&format!("blobs/{digest}"), content.to_owned());
        json!({ "mediaType": media_type, "digest": digest, "size": content.len() })
    }

    /// Keeps a manifest with these layers under a tag; its digest.
    fn tag(&self, tag: &str, layers: &[serde_json::Value]) -> String {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "layers": layers }).to_string();
        let digest = digest_of(manifest.as_bytes());
        for reference in [tag, &format!("sha256:{digest}")] {
            self.put(&format!("manifests/{reference}"), manifest.clone().into_bytes());
        }
        digest
    }

    /// Keeps a component alone, or with what its author says about it.
    fn push(&self, tag: &str, bytes: &[u8], module: Option<serde_json::Value>) -> String {
        let mut layers = vec![self.blob("application/wasm", bytes)];
        layers.extend(module.map(|module| self.blob(MODULE_TYPE, module.to_string().as_bytes())));
        self.tag(tag, &layers)
    }

    fn tags(&self, tags: &[&str]) {
        let list = json!({ "name": "team/todo", "tags": tags }).to_string();
        self.put("tags/list?n=1000", list.into_bytes());
    }

    fn served(&self) -> String {
        self.load().unwrap().models[0].code.as_ref().unwrap().version.clone()
    }
}

fn version(version: &str) -> Vec<u8> {
    aegis_guests::todo().info("todo", version).build()
}

#[test]
fn a_component_is_found_under_its_tag_and_is_enough() {
    let mut place = Place::with_registry(":stable", "");
    let bytes = version("1.0.0");
    place.push("stable", &bytes, None);
    let app = place.load().unwrap();
    assert_eq!(app.models[0].code.as_ref().unwrap().digest, digest_of(&bytes));
    let blob = format!("/v2/team/todo/blobs/sha256:{}", digest_of(&bytes));
    assert_eq!(place.paths(), ["/v2/", "/v2/team/todo/manifests/stable", &blob]);
    let asked = place.server.as_ref().unwrap().requests().remove(1).to_ascii_lowercase();
    assert!(asked.contains("accept: application/vnd.oci.image.manifest.v1+json"), "{asked}");
    place.close();
    assert_eq!(place.load().unwrap().bundle, app.bundle, "it goes on without the registry");
}

#[test]
fn its_author_may_say_more_in_a_layer_beside_it() {
    let place = Place::with_registry(":1.0.0", "");
    let bytes = version("1.0.0");
    let claim = json!({ "path": "todo.wasm", "sha256": digest_of(&bytes), "size": bytes.len() });
    let limits = json!({ "memory": "8MiB" });
    let module = json!({ "schema": "aegis.module/1", "component": claim, "limits": limits });
    place.push("1.0.0", &bytes, Some(module));
    let app = place.load().unwrap();
    assert_eq!(app.models[0].code.as_ref().unwrap().limits.memory_bytes_max, 8 << 20);
}

#[test]
fn a_layer_of_another_module_is_refused() {
    let place = Place::with_registry(":1.0.0", "");
    let (good, other) = (version("1.0.0"), version("6.6.6"));
    let claim = json!({ "sha256": digest_of(&good), "size": good.len() });
    let module = json!({ "schema": "aegis.module/1", "component": claim });
    let mut told = Vec::new();
    // The manifest of the artifact names another layer than the manifest of the module is about.
    place.push("1.0.0", &other, Some(module.clone()));
    told.push(place.mistakes());
    // The registry has other bytes than it says.
    place.push("1.0.0", &good, Some(module.clone()));
    place.put(&format!("blobs/sha256:{}", digest_of(&good)), other.clone());
    told.push(place.mistakes());
    let module_digest = digest_of(module.to_string().as_bytes());
    place.put(&format!("blobs/sha256:{module_digest}"), b"{ \"schema\": \"aegis.module/1\" }".to_vec());
    told.push(place.mistakes());
    let mut told = told.join("\n");
    for (bytes, name) in [(digest_of(&good), "GOOD"), (digest_of(&other), "OTHER"), (module_digest, "MODULE")]
    {
        told = told.replace(&bytes, name);
    }
    insta::assert_snapshot!(told, @"
    modules.todo: AEGIS-M121 verifying the component: found a layer with the SHA-256 OTHER, expected GOOD, the component that its manifest is about
    modules.todo: AEGIS-M121 verifying the component: found the SHA-256 OTHER, expected GOOD
    modules.todo: AEGIS-M121 verifying the component: found the SHA-256 eeaea48eeffb01f815a18c0213c47db488436897d811aabfdcc55545c2f27942 of its manifest, expected sha256:MODULE
    ");
}

#[test]
fn a_digest_names_one_artifact_for_good() {
    let place = Place::with_registry(":1.0.0", "");
    let digest = place.push("1.0.0", &version("1.0.0"), None);
    place.configure(&format!("@sha256:{digest}"), "");
    assert_eq!(place.served(), "1.0.0");
    place.push("1.0.0", &version("1.0.1"), None);
    let replaced = place.files.lock().unwrap()["/v2/team/todo/manifests/1.0.0"].clone();
    place.put(&format!("manifests/sha256:{digest}"), replaced.clone());
    let told = place.mistakes().replace(&digest, "WANTED").replace(&digest_of(&replaced), "FOUND");
    insta::assert_snapshot!(told, @"modules.todo: AEGIS-M121 verifying the component: found a manifest with the SHA-256 FOUND, expected sha256:WANTED");
}

#[test]
fn the_greatest_tag_within_the_range_is_served() {
    let place = Place::with_registry("", "version = \"^1.2\"");
    for tag in ["1.2.3", "v1.10.0", "2.0.0"] {
        place.push(tag, &version(tag.trim_start_matches('v')), None);
    }
    place.tags(&["latest", "1.2.3", "v1.10.0", "2.0.0"]);
    assert_eq!(place.served(), "1.10.0");
    place.tags(&["latest", "2.0.0"]);
    insta::assert_snapshot!(place.mistakes(), @"modules.todo: AEGIS-M106 choosing the version of the component: found 2.0.0, expected one that matches ^1.2");
    place.push("1.3.0", &version("1.3.1"), None);
    place.tags(&["1.3.0"]);
    insta::assert_snapshot!(place.mistakes(), @r#"modules.todo: AEGIS-M122 verifying the component: found a component that says it is version "1.3.1", expected 1.3.0"#);
}

#[test]
fn artifacts_that_are_no_modules_are_refused() {
    let place = Place::with_registry(":1.0.0", "");
    let mut told = Vec::new();
    for layers in [
        vec![],
        vec![place.blob("application/wasm", b"a"), place.blob("application/wasm", b"b")],
        vec![json!({ "mediaType": "application/wasm", "digest": "sha512:00", "size": 1 })],
        vec![
            json!({ "mediaType": "application/wasm", "digest": format!("sha256:{}", "0".repeat(64)), "size": 1_u64 << 40 }),
        ],
    ] {
        place.tag("1.0.0", &layers);
        told.push(place.mistakes());
    }
    insta::assert_snapshot!(told.join("\n"), @r#"
    modules.todo: AEGIS-M100 reading the manifest of the component: found 0 layers of the type application/wasm, expected one
    modules.todo: AEGIS-M100 reading the manifest of the component: found 2 layers of the type application/wasm, expected one
    modules.todo: AEGIS-M100 reading the manifest of the component: found the digest "sha512:00" of a layer, expected sha256: and 64 hexadecimal digits
    modules.todo: AEGIS-M110 reading the component: found 1099511627776 bytes in its manifest, expected at most 67108864
    "#);
}

/// A registry that gives tokens to whoever asks, or to those with the right words.
fn guarded(words: Option<&str>) -> Place {
    let files = Files::default();
    let served = Arc::clone(&files);
    let server = Server::start(move |path, stream| {
        let address = stream.local_addr().unwrap();
        let challenge =
            format!("401 No\r\nwww-authenticate: Bearer realm=\"http://{address}/token\",service=\"it\"");
        let found = |path: &str| served.lock().unwrap().get(path).cloned();
        match (path, found(path)) {
            ("/v2/", _) => send(stream, &challenge, b""),
            (path, _) if path.starts_with("/token?service=it&scope=repository:team/todo:pull") => {
                send(stream, "200 OK", b"{ \"token\": \"t0ken\" }");
            }
            (_, Some(content)) => send(stream, "200 OK", &content),
            (_, None) => send(stream, "404 Not Found", b""),
        }
    });
    let (address, folder) = (server.address, tempfile::tempdir().unwrap());
    let place = Place { files, server: Some(server), address, folder };
    let more = if words.is_some() { "token-file = \"words\"" } else { "" };
    place.configure(":1.0.0", more);
    if let Some(words) = words {
        place.write("words", words);
    }
    place.push("1.0.0", &version("1.0.0"), None);
    place
}

#[test]
fn a_registry_that_wants_a_token_is_asked_for_one() {
    for (words, told) in [(None, None), (Some("me:word\n"), Some("authorization: basic bwu6d29yza==\r\n"))] {
        let place = guarded(words);
        assert_eq!(place.served(), "1.0.0");
        let heads = place.server.as_ref().unwrap().requests();
        let heads: Vec<String> = heads.iter().map(|head| head.to_ascii_lowercase()).collect();
        for head in &heads {
            let is_asking = head.starts_with("get /v2/ ") || head.starts_with("get /token?");
            match told.filter(|_| is_asking) {
                Some(told) => assert!(head.contains(told), "{head}"),
                None if is_asking => assert!(!head.contains("authorization:"), "{head}"),
                None => assert!(head.contains("authorization: bearer t0ken\r\n"), "{head}"),
            }
        }
        assert_eq!(heads.len(), 4, "{heads:?}");
    }
}

#[test]
fn a_registry_may_keep_its_blobs_elsewhere_where_nobody_learns_who_asks() {
    let files = Files::default();
    let kept = Arc::clone(&files);
    let elsewhere = Server::start(move |path, stream| {
        let found = kept.lock().unwrap().get(path).cloned();
        send(stream, "200 OK", &found.unwrap_or_default());
    });
    let (served, other) = (Arc::clone(&files), elsewhere.address);
    let server = Server::start(move |path, stream| {
        let found = served.lock().unwrap().get(path).cloned();
        match found {
            Some(_) if path.contains("/blobs/") => {
                send(stream, &format!("307 There\r\nlocation: http://{other}{path}"), b"");
            }
            Some(content) => send(stream, "200 OK", &content),
            None => send(stream, "404 Not Found", b""),
        }
    });
    let (address, folder) = (server.address, tempfile::tempdir().unwrap());
    let place = Place { files, server: Some(server), address, folder };
    place.configure(":1.0.0", "token-file = \"token\"");
    place.write("token", "s3cret");
    place.push("1.0.0", &version("1.0.0"), None);
    assert_eq!(place.served(), "1.0.0");
    let known = place.server.as_ref().unwrap().requests().remove(1).to_ascii_lowercase();
    assert!(known.contains("authorization: bearer s3cret\r\n"), "{known}");
    let strange = elsewhere.requests();
    assert!(strange.len() == 1 && !strange[0].to_ascii_lowercase().contains("authorization"), "{strange:?}");
}

#[test]
fn a_list_of_tags_goes_on_where_its_answer_says() {
    let files = Files::default();
    let served = Arc::clone(&files);
    let server = Server::start(move |path, stream| {
        let found = served.lock().unwrap().get(path).cloned();
        match (path, found) {
            ("/v2/team/todo/tags/list?n=1000", _) => {
                let link = "200 OK\r\nlink: </v2/team/todo/tags/list?last=1.0.0&n=1000>; rel=\"next\"";
                send(stream, link, b"{ \"tags\": [\"1.0.0\"] }");
            }
            ("/v2/team/todo/tags/list?last=1.0.0&n=1000", _) => {
                send(stream, "200 OK", b"{ \"tags\": [\"1.1.0\"] }");
            }
            (_, Some(content)) => send(stream, "200 OK", &content),
            (_, None) => send(stream, "404 Not Found", b""),
        }
    });
    let (address, folder) = (server.address, tempfile::tempdir().unwrap());
    let place = Place { files, server: Some(server), address, folder };
    place.configure("", "version = \"^1\"");
    place.push("1.1.0", &version("1.1.0"), None);
    assert_eq!(place.served(), "1.1.0");
}

#[test]
fn a_list_of_tags_without_end_is_given_up() {
    let server = Server::start(|path, stream| match path {
        "/v2/" => send(stream, "200 OK", b""),
        _ => {
            let link = "200 OK\r\nlink: </v2/team/todo/tags/list?last=x>; rel=\"next\"";
            send(stream, link, b"{ \"tags\": [\"1.0.0\"] }");
        }
    });
    let (address, folder) = (server.address, tempfile::tempdir().unwrap());
    let place = Place { files: Files::default(), server: Some(server), address, folder };
    place.configure("", "version = \"^1\"");
    assert!(place.mistakes().starts_with("modules.todo: AEGIS-M107"), "{}", place.mistakes());
}
