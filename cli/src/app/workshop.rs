//! Where components are compiled: the compiler, made when the first one comes, and the code that was compiled before.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use aegis_domain::{service::Wasi, spec::ModelSpec};
use aegis_ipc::bundle::{BUNDLE_BYTES_MAX, Code, FRONT_BYTES_MAX};
use aegis_wasm::{CodeCache, Compiler, PrepareError, Terms};

/// Folder with compiled code, inside the data folder.
const CACHE_FOLDER: &str = "code-cache";
/// Bytes of compiled code that are kept for later.
const CACHE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Bytes of the code of one generation: what a bundle has room for.
const CODE_BYTES_MAX: u64 = BUNDLE_BYTES_MAX - FRONT_BYTES_MAX;

/// How an app is compiled.
pub(crate) struct Compilation<'a> {
    /// What becomes of compiled code.
    pub(crate) keep: Keep,
    /// Called before each component, with its file and the tag of the code that is about to be made.
    pub(crate) begins: &'a mut dyn FnMut(&str, &str),
    /// The generation in force, when nobody asked for the app to be read: what is tried in there goes on being tried.
    pub(crate) in_force: Option<&'a OwnedFd>,
}

/// What becomes of compiled code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// It is kept in the data folder.
    InDataFolder,
    /// It is kept there if something is kept there already: looking at an app makes no folder.
    WhereThereIsSome,
}

impl Compilation<'_> {
    /// Nobody wants to know when a component begins.
    pub(crate) fn quiet<T>(keep: Keep, work: impl FnOnce(Compilation<'_>) -> T) -> T {
        work(Compilation { keep, begins: &mut |_, _| {}, in_force: None })
    }
}

/// Compiles components one after the other.
pub(super) struct Workshop<'a> {
    compilation: Compilation<'a>,
    cache_folder: Option<PathBuf>,
    tools: Option<Tools>,
    code: Vec<Code>,
    code_bytes: u64,
    warnings: Vec<String>,
}

struct Tools {
    compiler: Compiler,
    engine: String,
    cache: Option<CodeCache>,
}

/// What a workshop leaves behind.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// The tag of the code; empty when there is none.
    pub(super) engine: String,
    pub(super) code: Vec<Code>,
    pub(super) warnings: Vec<String>,
}

impl<'a> Workshop<'a> {
    /// One that keeps code in this data folder, if it is known.
    pub(super) fn new(compilation: Compilation<'a>, data_dir: Option<&Path>) -> Self {
        let cache_folder = data_dir.map(|data_dir| data_dir.join(CACHE_FOLDER));
        let (code, warnings) = (Vec::new(), Vec::new());
        Self { compilation, cache_folder, tools: None, code, code_bytes: 0, warnings }
    }

    /// Tells what is worked on from now on.
    pub(super) fn begin(&mut self, origin: &str) -> Result<(), Vec<String>> {
        let engine = self.tools()?.engine.clone();
        (self.compilation.begins)(origin, &engine);
        Ok(())
    }

    fn tools(&mut self) -> Result<&mut Tools, Vec<String>> {
        match &mut self.tools {
            Some(tools) => Ok(tools),
            none => {
                let (keep, folder) = (self.compilation.keep, self.cache_folder.as_deref());
                Ok(none.insert(Tools::new(keep, folder, &mut self.warnings)?))
            }
        }
    }

    /// Makes code of a component. All that speaks against it at once, one sentence each.
    pub(super) fn prepare(
        &mut self,
        origin: &str,
        bytes: &[u8],
        terms: Terms,
    ) -> Result<ModelSpec, Vec<String>> {
        self.begin(origin)?;
        let tools = self.tools()?;
        let prepared = tools.compiler.prepare_cached(bytes, terms, tools.cache.as_ref()).map_err(told)?;
        let digest = prepared.spec.code.as_ref().map(|code| code.digest.clone()).unwrap_or_default();
        self.keep(digest, prepared.code)?;
        self.warnings.extend(prepared.warnings.iter().map(|warning| format!("{origin}: {warning}")));
        Ok(prepared.spec)
    }

    /// Makes code of a component that is a service. Answers its digest, and what it is written for.
    pub(super) fn prepare_service(
        &mut self,
        origin: &str,
        bytes: &[u8],
    ) -> Result<(String, Wasi), Vec<String>> {
        self.begin(origin)?;
        let tools = self.tools()?;
        let prepared = tools.compiler.prepare_service(bytes, tools.cache.as_ref()).map_err(told)?;
        self.keep(prepared.digest.clone(), prepared.code)?;
        Ok((prepared.digest, prepared.wasi))
    }

    /// The generation in force, when nobody asked for what is made.
    pub(super) fn in_force(&self) -> Option<&'a OwnedFd> {
        self.compilation.in_force
    }

    /// Takes code that was compiled before as it is.
    pub(super) fn take(&mut self, code: Code) -> Result<(), Vec<String>> {
        self.keep(code.digest, code.bytes)
    }

    fn keep(&mut self, digest: String, bytes: Vec<u8>) -> Result<(), Vec<String>> {
        if self.code.iter().all(|code| code.digest != digest) {
            self.code_bytes += bytes.len() as u64;
            if self.code_bytes > CODE_BYTES_MAX {
                return Err(vec![format!(
                    "with this component, compiled code has {} bytes together, expected at most {CODE_BYTES_MAX}",
                    self.code_bytes
                )]);
            }
            self.code.push(Code { digest, bytes });
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Output {
        let cache = self.tools.as_ref().and_then(|tools| tools.cache.as_ref());
        if let Some(trouble) = cache.and_then(CodeCache::trouble) {
            self.warnings.push(format!("{trouble}; so components are compiled anew"));
        }
        let engine = self.tools.filter(|_| !self.code.is_empty()).map(|tools| tools.engine);
        Output { engine: engine.unwrap_or_default(), code: self.code, warnings: self.warnings }
    }
}

fn told(error: PrepareError) -> Vec<String> {
    match error {
        PrepareError::Refused(diagnostics) => diagnostics.iter().map(ToString::to_string).collect(),
        PrepareError::Engine(error) => vec![error.to_string()],
    }
}

impl Tools {
    fn new(keep: Keep, cache_folder: Option<&Path>, warnings: &mut Vec<String>) -> Result<Self, Vec<String>> {
        let failed = |error: aegis_wasm::EngineError| vec![error.to_string()];
        let compiler = Compiler::new().map_err(failed)?;
        let engine = aegis_wasm::compatibility().map_err(failed)?;
        let folder = cache_folder.filter(|folder| keep == Keep::InDataFolder || folder.is_dir());
        let opened = folder.map(|folder| CodeCache::open(folder, CACHE_BYTES_MAX));
        let cache = opened.and_then(|opened| {
            opened
                .map_err(|error| {
                    let error = aegis_supervisor::with_causes(&error);
                    warnings.push(format!("{error}; so components are compiled anew each time"));
                })
                .ok()
        });
        Ok(Self { compiler, engine, cache })
    }
}
