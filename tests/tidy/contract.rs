//! The contract with module authors stays compatible with every version of it that was released.
//!
//! ```text
//!   tests/museum/VERSION/wit ─▶ Surface ─┐
//!                                        ├─ broken(): what a module that was built then would miss or find changed
//!   wit/ ──────────────────────▶ Surface ┘
//! ```
//!
//! What may follow a release: as a patch other comments, as a minor version also new interfaces, new worlds, and new
//! functions and types in interfaces that the host provides. Everything else is another major version.

mod alterations;
mod rules;
mod surface;

use std::{
    fs,
    path::{Path, PathBuf},
};

use rules::broken;
use sha2::{Digest, Sha256};
use surface::Surface;

use crate::root;

/// Every release of the contract, with the SHA-256 of its files: what was released is never edited.
const RELEASED: &[(&str, &str)] =
    &[("1.0.0", "9cc7cd690c067933b8ac0e5fb40c563acfd22e844022d3c44b2ea116cb6936c6")];

/// Files of a contract in the order of their names, with what they say.
fn files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wit"))
        .collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

fn released(version: &str) -> PathBuf {
    root().join("tests/museum").join(version).join("wit")
}

/// SHA-256 over names and contents of the files, each with its length in front.
fn digest(files: &[(PathBuf, String)]) -> String {
    let mut digest = Sha256::new();
    for (path, text) in files {
        let name = path.file_name().unwrap().to_string_lossy();
        digest.update(format!("{name} {}\n", text.len()));
        digest.update(text);
    }
    format!("{:x}", digest.finalize())
}

#[test]
fn the_contract_keeps_what_was_released() {
    let present = Surface::of(&files(&root().join("wit")));
    for (version, _) in RELEASED {
        let before = Surface::of(&files(&released(version)));
        assert_eq!(before.version.to_string(), *version, "tests/museum/{version} has another version");
        let broken: Vec<String> = broken(&before, &present).iter().map(ToString::to_string).collect();
        assert!(broken.is_empty(), "wit/ does not keep what {version} promises:\n{}", broken.join("\n"));
    }
}

#[test]
fn what_was_released_is_as_it_was() {
    for (version, expected) in RELEASED {
        assert_eq!(digest(&files(&released(version))), *expected, "tests/museum/{version}/wit was edited");
    }
    let mut folders: Vec<String> = fs::read_dir(root().join("tests/museum"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    folders.sort();
    let listed: Vec<&str> = RELEASED.iter().map(|(version, _)| *version).collect();
    assert_eq!(folders, listed, "every release in the museum is compared with");
}
