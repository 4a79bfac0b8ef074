//! Files that a new app begins with: where they go and what is in them, with `@NAME@` and `@ENDPOINT@` to be filled in.

use crate::arguments::Language;

/// A file: its path in the app folder, and its text.
pub(super) type File = (&'static str, &'static str);

/// Files of every app.
const SHARED: &[File] =
    &[("aegis.toml", include_str!("aegis.toml")), (".gitignore", include_str!("gitignore"))];
/// Files of an app without code.
const TOML: &[File] =
    &[("README.md", include_str!("toml.md")), ("modules/@NAME@/module.toml", include_str!("module.toml"))];
/// The manifest of a module that is a component.
const MANIFEST: &[File] = &[("modules/@NAME@/aegis.module.json", include_str!("aegis.module.json"))];
/// The contract, so that what builds modules stands alone.
pub(super) const CONTRACT: &[File] = &[
    ("sdk/wit/guest.wit", include_str!("../../../wit/guest.wit")),
    ("sdk/wit/host.wit", include_str!("../../../wit/host.wit")),
    ("sdk/wit/spec.wit", include_str!("../../../wit/spec.wit")),
    ("sdk/wit/types.wit", include_str!("../../../wit/types.wit")),
    ("sdk/wit/worlds.wit", include_str!("../../../wit/worlds.wit")),
];
/// A model in JavaScript, and what builds it.
pub(super) const JAVASCRIPT: &[File] = &[
    ("README.md", include_str!("js.md")),
    ("sources/@NAME@.js", include_str!("model.js")),
    ("sdk/access.js", include_str!("../../../sdk/js/access.js")),
    ("sdk/build.mjs", include_str!("../../../sdk/js/build.mjs")),
    ("sdk/documents.js", include_str!("../../../sdk/js/documents.js")),
    ("sdk/entity.js", include_str!("../../../sdk/js/entity.js")),
    ("sdk/host.js", include_str!("../../../sdk/js/host.js")),
    ("sdk/http.js", include_str!("../../../sdk/js/http.js")),
    ("sdk/index.d.ts", include_str!("../../../sdk/js/index.d.ts")),
    ("sdk/index.js", include_str!("../../../sdk/js/index.js")),
    ("sdk/json.js", include_str!("../../../sdk/js/json.js")),
    ("sdk/message.js", include_str!("../../../sdk/js/message.js")),
    ("sdk/metrics.js", include_str!("../../../sdk/js/metrics.js")),
    ("sdk/model.js", include_str!("../../../sdk/js/model.js")),
    ("sdk/package-lock.json", include_str!("../../../sdk/js/package-lock.json")),
    ("sdk/package.json", include_str!("../../../sdk/js/package.json")),
    ("sdk/refusal.js", include_str!("../../../sdk/js/refusal.js")),
    ("sdk/secrets.js", include_str!("../../../sdk/js/secrets.js")),
    ("sdk/spec.js", include_str!("../../../sdk/js/spec.js")),
    ("sdk/text.js", include_str!("../../../sdk/js/text.js")),
    ("sdk/words.js", include_str!("../../../sdk/js/words.js")),
];
/// A model in Rust, and the crate that it depends on.
pub(super) const RUST: &[File] = &[
    ("README.md", include_str!("rust.md")),
    ("sources/Cargo.toml", include_str!("cargo.toml")),
    ("sources/src/lib.rs", include_str!("model.rs")),
    ("sdk/Cargo.toml", include_str!("../../../sdk/rust/Cargo.toml")),
    ("sdk/src/access.rs", include_str!("../../../sdk/rust/src/access.rs")),
    ("sdk/src/bindings.rs", include_str!("../../../sdk/rust/src/bindings.rs")),
    ("sdk/src/command.rs", include_str!("../../../sdk/rust/src/command.rs")),
    ("sdk/src/documents.rs", include_str!("../../../sdk/rust/src/documents.rs")),
    ("sdk/src/entity.rs", include_str!("../../../sdk/rust/src/entity.rs")),
    ("sdk/src/event.rs", include_str!("../../../sdk/rust/src/event.rs")),
    ("sdk/src/exports.rs", include_str!("../../../sdk/rust/src/exports.rs")),
    ("sdk/src/exports/optional.rs", include_str!("../../../sdk/rust/src/exports/optional.rs")),
    ("sdk/src/field.rs", include_str!("../../../sdk/rust/src/field.rs")),
    ("sdk/src/held.rs", include_str!("../../../sdk/rust/src/held.rs")),
    ("sdk/src/host.rs", include_str!("../../../sdk/rust/src/host.rs")),
    ("sdk/src/http.rs", include_str!("../../../sdk/rust/src/http.rs")),
    ("sdk/src/lib.rs", include_str!("../../../sdk/rust/src/lib.rs")),
    ("sdk/src/life.rs", include_str!("../../../sdk/rust/src/life.rs")),
    ("sdk/src/log.rs", include_str!("../../../sdk/rust/src/log.rs")),
    ("sdk/src/message.rs", include_str!("../../../sdk/rust/src/message.rs")),
    ("sdk/src/metrics.rs", include_str!("../../../sdk/rust/src/metrics.rs")),
    ("sdk/src/model.rs", include_str!("../../../sdk/rust/src/model.rs")),
    ("sdk/src/refusal.rs", include_str!("../../../sdk/rust/src/refusal.rs")),
    ("sdk/src/route.rs", include_str!("../../../sdk/rust/src/route.rs")),
    ("sdk/src/secrets.rs", include_str!("../../../sdk/rust/src/secrets.rs")),
];
/// A model in Python, and what builds it.
pub(super) const PYTHON: &[File] = &[
    ("README.md", include_str!("python.md")),
    ("sources/model.py", include_str!("model.py")),
    ("sdk/build.py", include_str!("../../../sdk/python/build.py")),
    ("sdk/requirements.txt", include_str!("../../../sdk/python/requirements.txt")),
    ("sdk/world.py", include_str!("../../../sdk/python/world.py")),
    ("sdk/aegis_module/__init__.py", include_str!("../../../sdk/python/aegis_module/__init__.py")),
    ("sdk/aegis_module/access.py", include_str!("../../../sdk/python/aegis_module/access.py")),
    ("sdk/aegis_module/answering.py", include_str!("../../../sdk/python/aegis_module/answering.py")),
    ("sdk/aegis_module/documents.py", include_str!("../../../sdk/python/aegis_module/documents.py")),
    ("sdk/aegis_module/entity.py", include_str!("../../../sdk/python/aegis_module/entity.py")),
    ("sdk/aegis_module/event.py", include_str!("../../../sdk/python/aegis_module/event.py")),
    ("sdk/aegis_module/exact.py", include_str!("../../../sdk/python/aegis_module/exact.py")),
    ("sdk/aegis_module/exports.py", include_str!("../../../sdk/python/aegis_module/exports.py")),
    ("sdk/aegis_module/field.py", include_str!("../../../sdk/python/aegis_module/field.py")),
    ("sdk/aegis_module/held.py", include_str!("../../../sdk/python/aegis_module/held.py")),
    ("sdk/aegis_module/host.py", include_str!("../../../sdk/python/aegis_module/host.py")),
    ("sdk/aegis_module/http.py", include_str!("../../../sdk/python/aegis_module/http.py")),
    ("sdk/aegis_module/log.py", include_str!("../../../sdk/python/aegis_module/log.py")),
    ("sdk/aegis_module/message.py", include_str!("../../../sdk/python/aegis_module/message.py")),
    ("sdk/aegis_module/metrics.py", include_str!("../../../sdk/python/aegis_module/metrics.py")),
    ("sdk/aegis_module/model.py", include_str!("../../../sdk/python/aegis_module/model.py")),
    ("sdk/aegis_module/refusal.py", include_str!("../../../sdk/python/aegis_module/refusal.py")),
    ("sdk/aegis_module/routing.py", include_str!("../../../sdk/python/aegis_module/routing.py")),
    ("sdk/aegis_module/secrets.py", include_str!("../../../sdk/python/aegis_module/secrets.py")),
];

/// The files of an app in a language, in groups.
pub(super) fn of(language: Language) -> Vec<&'static [File]> {
    match language {
        Language::Toml => vec![SHARED, TOML],
        Language::JavaScript => vec![SHARED, MANIFEST, JAVASCRIPT, CONTRACT],
        Language::Rust => vec![SHARED, MANIFEST, RUST, CONTRACT],
        Language::Python => vec![SHARED, MANIFEST, PYTHON, CONTRACT],
    }
}
