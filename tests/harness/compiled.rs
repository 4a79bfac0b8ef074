//! Code that tests before this one compiled: a whole Python takes longer than a host may take to start.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest, Sha256};

use crate::cluster::executable;

/// Mode of folders with code: the host looks at no other.
const FOLDER_MODE: u32 = 0o700;
/// Files with code that are kept for the next tests; the oldest go.
const FILES_MAX: usize = 24;

/// Compiles the components of an app folder, however long it takes, unless a test before has done so.
///
/// # Panics
/// When the app is not valid.
pub fn compile_first(folder: &Path) {
    let (here, shared) = (folder.join("data/code-cache"), shared());
    for place in [&here, &shared] {
        fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(place).expect("a folder for code");
    }
    let digests = digests(folder);
    let wanted = |name: &str| digests.iter().any(|digest| name.starts_with(digest.as_str()));
    for name in names(&shared).iter().filter(|name| wanted(name)) {
        // Another test may be making room.
        let _ = fs::copy(shared.join(name), here.join(name));
    }
    let output = Command::new(executable()).arg("check").arg(folder).output().expect("run aegis check");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for name in names(&here) {
        if !shared.join(&name).exists() {
            let beside = shared.join(format!("new.{}", std::process::id()));
            fs::copy(here.join(&name), &beside).expect("keep code");
            fs::rename(&beside, shared.join(&name)).expect("keep code under its name");
        }
    }
    make_room(&shared);
}

/// Where code is kept from one test to the next: beside the executable that made it.
fn shared() -> PathBuf {
    executable().parent().expect("an executable lies in a folder").join("compiled-by-tests")
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("list code").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Digests of the components of an app folder, which the names of their code begin with.
fn digests(folder: &Path) -> Vec<String> {
    let modules = fs::read_dir(folder.join("modules")).expect("list modules").flatten();
    let files = modules.flat_map(|module| fs::read_dir(module.path()).into_iter().flatten().flatten());
    let components =
        files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|ext| ext == "wasm"));
    components
        .map(|path| format!("{:x}", Sha256::digest(fs::read(path).expect("read a component"))))
        .collect()
}

fn make_room(shared: &Path) {
    let aged = |name: String| {
        let path = shared.join(name);
        fs::metadata(&path).and_then(|metadata| metadata.modified()).ok().map(|time| (time, path))
    };
    let mut files: Vec<_> = names(shared).into_iter().filter_map(aged).collect();
    files.sort();
    for (_, path) in files.iter().rev().skip(FILES_MAX) {
        let _ = fs::remove_file(path);
    }
}
