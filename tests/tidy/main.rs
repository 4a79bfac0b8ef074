//! Keeps the house in order: who may depend on whom, how long files and functions are, who opts in to the lints.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod contract;
mod deny;
mod scripts;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
/// Packages that do not ship: they may depend on anything.
const FOR_TESTS: &[&str] = &["aegis-tests", "aegis-guests", "aegis-bench"];
/// Packages of the workspace that ship.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("aegis-config", &[]),
    ("aegis-ipc", &[]),
    ("aegis-domain", &[]),
    ("aegis-wasm", &["aegis-domain"]),
    ("aegis-store", &["aegis-domain", "aegis-config", "aegis-ipc"]),
    ("aegis-worker", &["aegis-domain", "aegis-config", "aegis-ipc", "aegis-wasm"]),
    ("aegis-supervisor", &["aegis-ipc", "aegis-config"]),
    (
        "aegis",
        &[
            "aegis-domain",
            "aegis-config",
            "aegis-ipc",
            "aegis-store",
            "aegis-supervisor",
            "aegis-wasm",
            "aegis-worker",
        ],
    ),
];
/// Crates that must be absent from the whole tree of a package.
const NEVER_LINKED_BY: &[(&str, &[&str])] = &[
    ("aegis-supervisor", &["tokio", "hyper", "fjall", "wasmtime", "rayon", "ureq", "rustls", "aegis-domain"]),
    ("aegis-domain", &["tokio", "hyper", "fjall", "wasmtime", "rayon", "nix", "rustix"]),
    ("aegis-config", &["tokio", "hyper", "fjall", "wasmtime", "rayon", "nix"]),
    ("aegis-store", &["wasmtime", "rayon", "ureq", "rustls"]),
    ("aegis-worker", &["ureq"]),
];
/// Names that say nothing.
const EMPTY_NAMES: &[&str] =
    &["utils.rs", "util.rs", "common.rs", "manager.rs", "helpers.rs", "helper.rs", "mod.rs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Asks for the packages for this platform: those of others are not on this machine.
fn command() -> MetadataCommand {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml")).other_options(vec![
        "--locked".to_owned(),
        "--filter-platform".to_owned(),
        platform,
    ]);
    command
}

fn metadata() -> Metadata {
    command().exec().unwrap()
}

/// Every Rust source file of the workspace with its text.
fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && name != "out" && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                files.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    assert!(files.len() > 50, "the tidy test does not find the sources");
    files
}

#[test]
fn packages_depend_only_on_what_the_table_allows() {
    let metadata = metadata();
    let allowed: BTreeMap<&str, &[&str]> = MAY_DEPEND_ON.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        if FOR_TESTS.contains(&name) {
            continue;
        }
        let Some(allowed) = allowed.get(name) else {
            wrong.push(format!("{name} is not in the table"));
            continue;
        };
        for dependency in &package.dependencies {
            let target = dependency.name.as_str();
            let for_tests = dependency.kind == DependencyKind::Development && FOR_TESTS.contains(&target);
            let inner = (target == "aegis" || target.starts_with("aegis-")) && !for_tests;
            if inner && !allowed.contains(&target) {
                wrong.push(format!("{name} -> {target}"));
            }
        }
    }
    assert!(wrong.is_empty(), "dependencies that the table of ARCHITECTURE.md does not allow: {wrong:#?}");
}

#[test]
fn bare_packages_link_nothing_heavy() {
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().unwrap();
    let names: BTreeMap<_, _> =
        metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect();
    let mut wrong = Vec::new();
    for (package, forbidden) in NEVER_LINKED_BY {
        let start = metadata.packages.iter().find(|one| one.name == *package).unwrap();
        let mut seen = BTreeSet::new();
        let mut waiting = vec![&start.id];
        while let Some(id) = waiting.pop() {
            if !seen.insert(id) {
                continue;
            }
            let node = resolve.nodes.iter().find(|node| node.id == *id).unwrap();
            let normal = |dependency: &&cargo_metadata::NodeDep| {
                dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal)
            };
            waiting.extend(node.deps.iter().filter(normal).map(|dependency| &dependency.pkg));
        }
        assert!(seen.len() > 1, "{package} has no dependencies at all?");
        for id in seen {
            if forbidden.contains(&names[id]) {
                wrong.push(format!("{package} links {}", names[id]));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_package_opts_in_to_the_lints() {
    for package in metadata().workspace_packages() {
        let text = fs::read_to_string(&package.manifest_path).unwrap();
        assert!(text.contains("[lints]\nworkspace = true"), "{} does not opt in", package.manifest_path);
    }
}

#[test]
fn files_and_functions_stay_short_and_have_telling_names() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", path.display()));
        }
        let name = path.file_name().unwrap().to_string_lossy();
        if EMPTY_NAMES.contains(&name.as_ref()) {
            wrong.push(format!("{}: the name says nothing", path.display()));
        }
        for (start, length) in long_functions(&text) {
            wrong.push(format!(
                "{}:{start}: function of {length} lines, at most {FUNCTION_LINES_MAX}",
                path.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn unsafe_code_stays_in_its_files() {
    let allowed = [
        "ipc/src/board.rs",
        "ipc/src/fork.rs",
        "ipc/src/handoff.rs",
        "ipc/src/residence.rs",
        "ipc/src/slice.rs",
        "crates/wasm/src/mapping.rs",
        "crates/wasm/src/cache.rs",
    ];
    for (path, text) in sources() {
        let path = path.to_string_lossy();
        let has = text.lines().any(|line| line.contains("unsafe {") || line.contains("unsafe fn"));
        let allowed = allowed.contains(&path.as_ref()) || path == "tests/tidy/main.rs";
        assert!(!has || allowed, "{path} has unsafe code");
    }
}

#[test]
fn the_contract_with_module_authors_is_whole() {
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_dir(root().join("wit")).unwrap_or_else(|error| panic!("{error:#}"));
    let package = &resolve.packages[package];
    assert_eq!(package.name.to_string(), "aegis:module@1.0.0");
    for world in ["model-minimal", "model", "adapter", "service"] {
        assert!(package.worlds.contains_key(world), "there is no world {world}");
    }
}

#[test]
fn sources_speak_of_the_project_alone() {
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            let marks = [["// TO", "DO"].concat(), ["// FIX", "ME"].concat(), ["// XX", "X"].concat()];
            let unfinished = marks.iter().any(|mark| line.contains(mark.as_str()));
            assert!(!unfinished, "{}:{}: unfinished", path.display(), number + 1);
        }
    }
}

/// Functions longer than allowed, by the indentation that rustfmt gives: line of the `fn` and length.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let is_function = code
            .split('(')
            .next()
            .is_some_and(|head| head.split_whitespace().any(|word| word == "fn") && !code.starts_with("//"));
        // An inline snapshot may be as long as what it shows; the lint wants the reason beside it.
        let excused =
            start > 0 && lines[start - 1].contains("clippy::too_many_lines, reason = \"the snapshot");
        if !is_function || excused || code.ends_with(';') || code.ends_with('}') {
            continue;
        }
        let closing = format!("{}}}", " ".repeat(indent));
        let length = lines[start..].iter().position(|line| **line == closing).map_or(0, |end| end + 1);
        if length > FUNCTION_LINES_MAX {
            found.push((start + 1, length));
        }
    }
    found
}

#[test]
fn the_length_check_sees_a_long_function() {
    let body = "    let x = 1;\n".repeat(FUNCTION_LINES_MAX);
    let text = format!("fn long() {{\n{body}}}\n\nfn short() {{\n}}\n");
    assert_eq!(long_functions(&text), [(1, FUNCTION_LINES_MAX + 2)]);
}
