//! A registry as others run it: the program of Debian's package `docker-registry`, on a port of its own.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use data_encoding::BASE64;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::{Client, eventually_some};

/// Who may push and pull where that is asked for, as `token-file` has it.
pub const CREDENTIALS: &str = "ada:open-sesame";
/// The same for the registry (bcrypt).
const PASSWORDS: &str = "ada:$2b$05$abcdefghijklmnopqrstuutXu9KzOt.1yBoZUeFWoT/914/JfszCO\n";
/// Type of an artifact's manifest.
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// The registry; it ends when it is dropped.
#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    child: Child,
    is_open: bool,
    _folder: TempDir,
}

impl Registry {
    /// One for everybody.
    #[must_use]
    pub fn open() -> Self {
        Self::start(true)
    }

    /// One that asks for [`CREDENTIALS`].
    #[must_use]
    pub fn guarded() -> Self {
        Self::start(false)
    }

    /// The program is the one that `scripts/registry` has fetched; `scripts/test` says where it is.
    fn start(is_open: bool) -> Self {
        let program = std::env::var_os("REGISTRY_BIN").expect("scripts/test says where the registry is");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (passwords, log) = (folder.path().join("htpasswd"), folder.path().join("log"));
        fs::write(&passwords, PASSWORDS).expect("write who may pull");
        let mut settings = json!({
            "version": "0.1",
            "storage": { "filesystem": { "rootdirectory": folder.path().join("blobs") } },
            "http": { "addr": "127.0.0.1:0", "secret": "of tests" },
        });
        if !is_open {
            settings["auth"] = json!({ "htpasswd": { "realm": "tests", "path": passwords } });
        }
        let file = folder.path().join("config.yml");
        fs::write(&file, settings.to_string()).expect("write the settings of the registry");
        let told = fs::File::create(&log).expect("make the log of the registry");
        let child = Command::new(program)
            .arg("serve")
            .arg(&file)
            .env_clear()
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(told)
            .spawn()
            .expect("start the registry");
        let mut registry =
            Self { address: SocketAddr::from(([127, 0, 0, 1], 0)), child, is_open, _folder: folder };
        registry.address = eventually_some("the registry listens", Duration::from_secs(60), || {
            let told = fs::read_to_string(&log).ok()?;
            told.split("listening on ").nth(1)?.split('"').next()?.parse().ok()
        });
        registry
    }

    /// Where a module is.
    #[must_use]
    pub fn source(&self, module: &str) -> String {
        format!("oci://{}/{module}", self.address)
    }

    /// Pushes a component as common tools for components do: its layer, and what it is as the config. Answers the digest
    /// of the manifest.
    ///
    /// # Panics
    /// When the registry does not take it.
    pub fn push(&self, module: &str, tag: &str, component: &[u8]) -> String {
        let layer = self.push_blob(module, "application/wasm", component);
        let about = json!({
            "created": "2026-01-31T09:30:00Z", "architecture": "wasm", "os": "wasip2",
            "layerDigests": [layer["digest"]], "component": { "exports": [], "imports": [] },
        });
        let about = about.to_string().into_bytes();
        let config = self.push_blob(module, "application/vnd.wasm.config.v0+json", &about);
        self.push_manifest(module, tag, &config, &[layer])
    }

    /// Pushes files as common tools for artifacts do: a layer of each, by type and content, and a config that says nothing.
    /// Answers the digest of the manifest.
    ///
    /// # Panics
    /// When the registry does not take it.
    pub fn push_files(&self, module: &str, tag: &str, files: &[(&str, &[u8])]) -> String {
        let layers: Vec<Value> =
            files.iter().map(|(media_type, content)| self.push_blob(module, media_type, content)).collect();
        let config = self.push_blob(module, "application/vnd.oci.empty.v1+json", b"{}");
        self.push_manifest(module, tag, &config, &layers)
    }

    fn push_manifest(&self, module: &str, tag: &str, config: &Value, layers: &[Value]) -> String {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": layers,
            "annotations": { "org.opencontainers.image.created": "2026-01-31T09:30:00Z" },
        });
        let manifest = manifest.to_string();
        let client = self.client().with("content-type", MANIFEST_TYPE);
        let path = format!("/v2/{module}/manifests/{tag}");
        let pushed = client.send("PUT", &path, manifest.as_bytes());
        assert_eq!(pushed.status, 201, "{}", pushed.text());
        digest(manifest.as_bytes())
    }

    /// Pushes a blob; its descriptor.
    fn push_blob(&self, module: &str, media_type: &str, content: &[u8]) -> Value {
        let begun = self.client().send("POST", &format!("/v2/{module}/blobs/uploads/"), b"");
        assert_eq!(begun.status, 202, "{}", begun.text());
        let place = begun.header("location").expect("the registry says where to put a blob");
        let path = place.strip_prefix(&format!("http://{}", self.address)).unwrap_or(place);
        let separator = if path.contains('?') { '&' } else { '?' };
        let (path, digest) = (format!("{path}{separator}digest={}", digest(content)), digest(content));
        let client = self.client().with("content-type", "application/octet-stream");
        let pushed = client.send("PUT", &path, content);
        assert_eq!(pushed.status, 201, "{}", pushed.text());
        json!({ "mediaType": media_type, "digest": digest, "size": content.len() })
    }

    fn client(&self) -> Client {
        let client = Client::new(self.address);
        if self.is_open {
            return client;
        }
        client.with("authorization", &format!("Basic {}", BASE64.encode(CREDENTIALS.as_bytes())))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{:x}", Sha256::digest(content))
}
