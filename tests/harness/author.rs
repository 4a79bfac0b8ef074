//! Who writes modules and signs them, with the commands that authors have.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::cluster::executable;

/// An author with a key and a folder for what is published.
#[derive(Debug)]
pub struct Author {
    folder: TempDir,
    /// What signatures call the key.
    pub name: String,
    public_key: String,
}

impl Author {
    /// Makes a key of this name.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder of the author");
        let key = folder.path().join(format!("{name}.pem"));
        let made = run(&["--json", "key", "new", &key.display().to_string()]);
        let made: Value = serde_json::from_str(&made).expect("a key as JSON");
        let public_key = made["publicKey"].as_str().expect("a public key").to_owned();
        Self { folder, name: name.to_owned(), public_key }
    }

    /// Lines of `aegis.toml` that say what the key may sign.
    #[must_use]
    pub fn trusted(&self, modules: &[&str], more: &str) -> String {
        let Self { name, public_key, .. } = self;
        format!("[trust.keys.{name}]\npublic-key = \"{public_key}\"\nmodules = {modules:?}\n{more}\n")
    }

    /// A folder with a module that is signed.
    #[must_use]
    pub fn signed(&self, module: &str, version: &str, component: &[u8]) -> PathBuf {
        let folder = self.unsigned(module, version, component);
        self.sign(&folder);
        folder
    }

    /// A folder with a module that nobody has signed yet.
    ///
    /// # Panics
    /// When it cannot be written.
    #[must_use]
    pub fn unsigned(&self, module: &str, version: &str, component: &[u8]) -> PathBuf {
        let folder = self.folder.path().join(format!("{module}-{version}"));
        let _ = fs::remove_dir_all(&folder); // what is there is of an earlier step of the test
        fs::create_dir(&folder).expect("a folder of a module");
        let sha256 = format!("{:x}", Sha256::digest(component));
        let claim = json!({ "path": "module.wasm", "sha256": sha256, "size": component.len() });
        let manifest =
            json!({ "schema": "aegis.module/1", "name": module, "version": version, "component": claim });
        fs::write(folder.join("module.wasm"), component).expect("write a component");
        fs::write(folder.join("aegis.module.json"), manifest.to_string()).expect("write a manifest");
        folder
    }

    /// Signs the module in a folder.
    pub fn sign(&self, folder: &Path) {
        let key = self.folder.path().join(format!("{}.pem", self.name));
        run(&["sign", &folder.display().to_string(), "--key", &key.display().to_string()]);
    }
}

fn run(arguments: &[&str]) -> String {
    let output = Command::new(executable()).args(arguments).output().expect("run aegis");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "aegis {arguments:?}: {told}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
