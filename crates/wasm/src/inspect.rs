//! A look at the bytes of a component before any of them is compiled.

use aegis_domain::{manifest::Kind, service::Wasi};
use wasmparser::{ComponentExternalKind, Encoding, Parser, Payload};

use crate::{
    diagnostic::{Code, Diagnostic},
    engine::MEMORY_BYTES_MAX,
};

/// Largest component, bytes: one with a whole Python inside has 40 MB.
pub const COMPONENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most core modules inside a component.
const CORE_MODULES_MAX: usize = 200;
/// Deepest nesting of components.
const DEPTH_MAX: usize = 16;
/// Most imports or exports that are looked at.
const NAMES_MAX: usize = 1000;
/// Bytes of one page of linear memory.
const PAGE_BYTES: u64 = 65_536;
/// What a component begins with.
const MAGIC: &[u8] = b"\0asm";
/// Package of our own contract.
const CONTRACT: &str = "aegis:module/";
/// The major version of the contract that this host speaks.
const CONTRACT_MAJOR: &str = "1";
/// Interfaces of the contract that the host provides.
const PROVIDED: [&str; 16] = [
    "types",
    "spec",
    "log",
    "config",
    "secrets",
    "clock",
    "random",
    "metrics",
    "documents",
    "models",
    "ports",
    "events",
    "http",
    "inference",
    "bound-service",
    "inbound",
];
/// Packages of WASI that the runtime of a language may want.
const WASI: [&str; 7] = [
    "wasi:io/",
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:random/",
    "wasi:filesystem/",
    "wasi:sockets/",
    "wasi:http/",
];
/// The WASI version that the host provides, up to patches.
const WASI_VERSION: &str = "0.2.";
/// The one that it provides as well to components that answer HTTP with it, up to patches.
const WASI_VERSION_CONCURRENT: &str = "0.3.";

/// Export that makes a component a service of WASI 0.2, up to its version.
const INCOMING_HANDLER: &str = "wasi:http/incoming-handler@";
/// Export that makes a component a service of WASI 0.3, up to its version.
const HANDLER: &str = "wasi:http/handler@";

/// What a component says of itself without running.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Inspection {
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
}

/// What a component is, by what it exports.
///
/// # Errors
/// When it is neither: all that speaks against it at once.
pub fn kind_of(bytes: &[u8]) -> Result<Kind, Vec<Diagnostic>> {
    inspect(bytes).map(|inspection| inspection.kind())
}

impl Inspection {
    pub(crate) fn kind(&self) -> Kind {
        if self.serves().is_some() { Kind::HttpService } else { Kind::Model }
    }

    /// The WASI that it answers HTTP with, if it is a service; the newer one if it speaks both.
    pub(crate) fn serves(&self) -> Option<Wasi> {
        let served = self.handlers().filter_map(|(_, wasi)| wasi);
        served.reduce(|one, other| if one == Wasi::V03 { one } else { other })
    }

    /// What it exports to answer HTTP with, if it is no module of the contract; with the WASI that it is of, if that is one
    /// that this host serves.
    fn handlers(&self) -> impl Iterator<Item = (&str, Option<Wasi>)> {
        let is_module = self.exports.iter().any(|name| name.starts_with(&format!("{CONTRACT}identity@")));
        self.exports.iter().filter(move |_| !is_module).filter_map(|name| {
            let older = name.strip_prefix(INCOMING_HANDLER);
            let older = older.map(|version| version.starts_with(WASI_VERSION).then_some(Wasi::V02));
            let newer = name.strip_prefix(HANDLER);
            let newer = newer.map(|version| is_concurrent_wasi(version).then_some(Wasi::V03));
            Some((name.as_str(), older.or(newer)?))
        })
    }
}

/// Whether this is WASI 0.3 as it was released: the candidates before it are each something else.
fn is_concurrent_wasi(version: &str) -> bool {
    let patch = version.strip_prefix(WASI_VERSION_CONCURRENT);
    patch.is_some_and(|patch| !patch.is_empty() && patch.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Looks at a component. All that speaks against it at once.
pub(crate) fn inspect(bytes: &[u8]) -> Result<Inspection, Vec<Diagnostic>> {
    recognize(bytes).map_err(|diagnostic| vec![diagnostic])?;
    let inspection = read(bytes).map_err(|diagnostic| vec![diagnostic])?;
    let serves = inspection.serves();
    // All else that is wrong with a service of another version follows from that.
    if let (None, Some((name, _))) = (serves, inspection.handlers().next()) {
        let message = format!(
            "it exports {name}, this host serves {INCOMING_HANDLER}{WASI_VERSION}x and {HANDLER}{WASI_VERSION_CONCURRENT}x as it was released"
        );
        return Err(vec![Diagnostic::new(Code::OtherVersion, message)]);
    }
    let mut wrong: Vec<Diagnostic> =
        inspection.imports.iter().filter_map(|name| check_import(name, serves)).collect();
    if inspection.kind() == Kind::Model {
        wrong.extend(check_exports(&inspection.exports));
    }
    if wrong.is_empty() { Ok(inspection) } else { Err(wrong) }
}

/// Is it a component at all?
fn recognize(bytes: &[u8]) -> Result<(), Diagnostic> {
    if bytes.len() > COMPONENT_BYTES_MAX {
        let message = format!("found {} bytes, expected at most {COMPONENT_BYTES_MAX}", bytes.len());
        return Err(Diagnostic::new(Code::TooLarge, message));
    }
    let other = |found: &str| {
        Err(Diagnostic::new(Code::NotAComponent, format!("found {found}, expected a Wasm component")))
    };
    if wasmtime::Engine::detect_precompiled(bytes).is_some() {
        return other("code that was compiled already (it is never loaded, from nobody)");
    }
    if bytes.is_empty() {
        return other("an empty file");
    }
    if bytes.trim_ascii_start().starts_with(b"(") {
        return other("the text format (compile it with `wasm-tools parse`)");
    }
    if !bytes.starts_with(MAGIC) {
        return other("bytes that are no Wasm");
    }
    if bytes.len() < 8 {
        return other(&format!("the first {} bytes of a Wasm file", bytes.len()));
    }
    if Parser::is_core_wasm(bytes) {
        return other("a core module (make a component of it with `wasm-tools component new`)");
    }
    Ok(())
}

fn read(bytes: &[u8]) -> Result<Inspection, Diagnostic> {
    let malformed =
        |error: wasmparser::BinaryReaderError| Diagnostic::new(Code::Malformed, error.to_string());
    let too_much = |what: String| Diagnostic::new(Code::DeclaresTooMuch, what);
    let mut inspection = Inspection::default();
    let (mut core_modules, mut depth) = (0_usize, 0_usize);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(malformed)? {
            Payload::Version { encoding, .. } => {
                depth += 1;
                core_modules += usize::from(encoding == Encoding::Module);
                if core_modules > CORE_MODULES_MAX || depth > DEPTH_MAX {
                    return Err(too_much(format!(
                        "found more than {CORE_MODULES_MAX} core modules or more than {DEPTH_MAX} levels, expected fewer"
                    )));
                }
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::MemorySection(memories) => {
                for memory in memories {
                    let memory = memory.map_err(malformed)?;
                    let wanted = memory.initial.saturating_mul(PAGE_BYTES);
                    if memory.memory64 || memory.shared || wanted > MEMORY_BYTES_MAX {
                        return Err(too_much(format!(
                            "found a memory of {wanted} bytes{}, expected a plain one of at most {MEMORY_BYTES_MAX}",
                            if memory.shared { " that is shared" } else { "" }
                        )));
                    }
                }
            }
            Payload::ComponentImportSection(imports) if depth == 1 => {
                for import in imports {
                    inspection.imports.push(import.map_err(malformed)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) if depth == 1 => {
                for export in exports {
                    let export = export.map_err(malformed)?;
                    if export.kind == ComponentExternalKind::Instance {
                        inspection.exports.push(export.name.name.to_owned());
                    }
                }
            }
            _ => {}
        }
        if inspection.imports.len().max(inspection.exports.len()) > NAMES_MAX {
            return Err(too_much(format!("found more than {NAMES_MAX} imports or exports, expected fewer")));
        }
    }
    Ok(inspection)
}

/// Why this import of a component that answers HTTP with this WASI, or does not, cannot be satisfied.
fn check_import(name: &str, serves: Option<Wasi>) -> Option<Diagnostic> {
    if let Some(rest) = name.strip_prefix(CONTRACT) {
        let (interface, version) = rest.split_once('@').unwrap_or((rest, ""));
        if version.split('.').next() != Some(CONTRACT_MAJOR) {
            let message = format!("it needs {name}, this host offers {CONTRACT}{interface}@1.0");
            return Some(Diagnostic::new(Code::OtherVersion, message));
        }
        let known = PROVIDED.contains(&interface);
        let message =
            || format!("it needs {name}, this host offers of {CONTRACT} only {}", PROVIDED.join(", "));
        return (!known).then(|| Diagnostic::new(Code::UnknownImport, message()));
    }
    if WASI.iter().any(|package| name.starts_with(package)) {
        let version = name.split_once('@').map_or("", |(_, version)| version);
        let is_concurrent = serves == Some(Wasi::V03);
        if version.starts_with(WASI_VERSION) || (is_concurrent && is_concurrent_wasi(version)) {
            return None;
        }
        let also = match (is_concurrent, version.starts_with(WASI_VERSION_CONCURRENT)) {
            (true, _) => format!(" and {WASI_VERSION_CONCURRENT}x as it was released"),
            (false, true) => format!(
                ", and {WASI_VERSION_CONCURRENT}x to what exports {HANDLER}{WASI_VERSION_CONCURRENT}x"
            ),
            (false, false) => String::new(),
        };
        let message = format!("it needs {name}, this host offers WASI {WASI_VERSION}x{also}");
        return Some(Diagnostic::new(Code::OtherVersion, message));
    }
    let message = format!("it needs {name}, this host offers {CONTRACT}… and {}", WASI.join(", "));
    Some(Diagnostic::new(Code::UnknownImport, message))
}

/// Why these exports do not make a model.
fn check_exports(exports: &[String]) -> Vec<Diagnostic> {
    let exported = |interface: &str| {
        let prefix = format!("{CONTRACT}{interface}@{CONTRACT_MAJOR}.");
        exports.iter().any(|name| name.starts_with(&prefix))
    };
    let missing = |what: &str| {
        let found = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
        Diagnostic::new(Code::MissingExport, format!("it exports {found}, expected {what}"))
    };
    let mut wrong = Vec::new();
    if !exported("identity") {
        wrong.push(missing("aegis:module/identity@1.0 among it"));
    }
    match (exported("describe-model"), exported("describe-adapter") || exported("describe-service")) {
        (true, false) => {}
        (true, true) => {
            wrong.push(missing("one of describe-model, describe-adapter and describe-service, not several"))
        }
        (false, true) => {
            wrong.push(missing("aegis:module/describe-model@1.0 (adapters and services are not run yet)"))
        }
        (false, false) => wrong.push(missing("aegis:module/describe-model@1.0 among it")),
    }
    wrong
}
