//! From an app folder to a generation: configuration and modules, read and checked in one go.
//!
//! `aegis run`, `aegis check` and the compile helper all come through here, so they can never disagree about what is
//! valid.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use aegis_config::{Config, Environment, Loaded, MODULES_FOLDER, Overrides};
use aegis_domain::{
    catalog::{self, Catalog},
    module,
    spec::ModelSpec,
};
use aegis_ipc::{
    bundle::{BUNDLE_FORMAT, Bundle},
    codec,
};
use sha2::{Digest, Sha256};

#[cfg(test)]
mod tests;

/// Name of a module's specification in its folder.
const MODULE_FILE: &str = "module.toml";
/// Most modules of an app.
const MODULES_MAX: usize = 1000;
/// Bytes of all module files together: a quarter of what a bundle may have, because the encoded form may be larger.
const MODULES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A valid app.
#[derive(Debug)]
pub(crate) struct App {
    /// Its configuration.
    pub(crate) config: Config,
    /// Its models, in the order of their folders' names.
    pub(crate) models: Vec<ModelSpec>,
    /// Both, pinned.
    pub(crate) bundle: Bundle,
    /// What its operator should know, one sentence each.
    pub(crate) warnings: Vec<String>,
}

/// Everything that is wrong with an app.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistakes {
    /// One line each: where, what was found, what was expected.
    pub(crate) lines: Vec<String>,
    /// What is to blame.
    pub(crate) blame: Blame,
}

/// What a mistake is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// Only in flags.
    CommandLine,
    /// In files or the environment.
    App,
}

/// Reads the app in `folder`. The same files, flags and variables make the same bundle, byte for byte.
pub(crate) fn load_app(
    folder: &Path,
    overrides: &Overrides,
    environment: &Environment,
) -> Result<App, Mistakes> {
    let loaded = Config::load(folder, overrides, environment);
    let modules_dir = match &loaded {
        Ok(loaded) => Some(loaded.config.modules_dir.clone()),
        Err(errors) => errors.certain().modules_dir.clone(),
    };
    // Mistakes in modules are of interest even when the configuration is wrong.
    let modules = modules_dir.map(|modules_dir| Modules::read(folder, &modules_dir)).unwrap_or_default();
    match loaded {
        Ok(loaded) if modules.mistakes.is_empty() => assemble(loaded, modules),
        Ok(_) => Err(Mistakes { lines: modules.mistakes, blame: Blame::App }),
        Err(errors) => {
            let flags_only = errors.blames_only_flags() && modules.mistakes.is_empty();
            let blame = if flags_only { Blame::CommandLine } else { Blame::App };
            let lines = errors.lines().into_iter().chain(modules.mistakes).collect();
            Err(Mistakes { lines, blame })
        }
    }
}

fn assemble(loaded: Loaded, modules: Modules) -> Result<App, Mistakes> {
    let Loaded { config, mut warnings } = loaded;
    warnings.extend(modules.warnings);
    let refuse = |line: String| Mistakes { lines: vec![line], blame: Blame::App };
    let encoded = codec::encode(&config).map_err(|error| refuse(aegis_supervisor::with_causes(&error)))?;
    let catalog = catalog::encode(&modules.specs);
    let bundle =
        Bundle { format: BUNDLE_FORMAT, digest: digest(&encoded, &catalog), config: encoded, catalog };
    Ok(App { config, models: modules.specs, bundle, warnings })
}

/// Digest of a generation. The length in front keeps configuration and catalog apart.
fn digest(config: &[u8], catalog: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update((config.len() as u64).to_le_bytes());
    hash.update(config);
    hash.update(catalog);
    format!("{:x}", hash.finalize())
}

#[derive(Debug, Default)]
struct Modules {
    specs: Vec<ModelSpec>,
    mistakes: Vec<String>,
    warnings: Vec<String>,
    bytes: usize,
}

impl Modules {
    fn read(app_dir: &Path, modules_dir: &Path) -> Self {
        let mut modules = Self::default();
        let shown = |path: &Path| path.strip_prefix(app_dir).unwrap_or(path).display().to_string();
        match folders(modules_dir) {
            Ok(entries) => {
                if entries.len() > MODULES_MAX {
                    let expected = format!(
                        "{}: found {} entries, expected at most {MODULES_MAX}",
                        shown(modules_dir),
                        entries.len()
                    );
                    modules.mistakes.push(expected);
                } else {
                    entries.iter().for_each(|entry| modules.read_entry(entry, &shown(entry)));
                }
            }
            Err(error) => modules.read_failed(app_dir, modules_dir, &shown(modules_dir), &error),
        }
        if modules.mistakes.is_empty() {
            if let Err(mistakes) = Catalog::build(modules.specs.clone()) {
                modules.mistakes.extend(mistakes);
            }
            if modules.specs.is_empty() && modules.warnings.is_empty() {
                modules
                    .warnings
                    .push(format!("{}: no modules in it, so no models are served", shown(modules_dir)));
            }
        }
        modules
    }

    /// A missing folder is fine unless somebody named it.
    fn read_failed(&mut self, app_dir: &Path, modules_dir: &Path, shown: &str, error: &io::Error) {
        let is_missing =
            error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(modules_dir).is_err();
        match (is_missing, modules_dir == app_dir.join(MODULES_FOLDER)) {
            (true, true) => self.warnings.push(format!("{shown}: no such folder, so no models are served")),
            (true, false) => {
                self.mistakes.push(format!("{shown}: found nothing, expected a folder with modules"))
            }
            (false, _) => self.mistakes.push(format!("{shown}: {}", unreadable(modules_dir, error))),
        }
    }

    fn read_entry(&mut self, path: &Path, shown: &str) {
        let Some(name) = path.file_name().and_then(OsStr::to_str) else {
            self.mistakes.push(format!("{shown}: found a name that is not UTF-8, expected one that is"));
            return;
        };
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.read_module(path, shown),
            Ok(_) if has_extension(name, "toml") => {
                let folder = name.trim_end_matches(".toml");
                self.mistakes.push(format!(
                    "{shown}: found a file, expected a folder: a module is {MODULES_FOLDER}/{folder}/{MODULE_FILE}"
                ));
            }
            Ok(_) => self.warnings.push(format!("{shown}: not a folder, so no module; ignored")),
            Err(error) => self.mistakes.push(format!("{shown}: {}", unreadable(path, &error))),
        }
    }

    fn read_module(&mut self, folder: &Path, shown: &str) {
        let origin = format!("{shown}/{MODULE_FILE}");
        let text = match read_text(&folder.join(MODULE_FILE), module::MODULE_BYTES_MAX) {
            Ok(text) => text,
            Err(mistake) => return self.mistakes.push(format!("{origin}: {mistake}")),
        };
        self.bytes += text.len();
        if self.bytes > MODULES_BYTES_MAX {
            return self.mistakes.push(format!("{origin}: with this file, modules have more than {MODULES_BYTES_MAX} bytes together, expected at most that"));
        }
        match module::parse(&text, &origin) {
            Ok(spec) => self.specs.push(spec),
            Err(mistakes) => self.mistakes.extend(mistakes),
        }
    }
}

/// What lies in the modules folder, in the order of names. Hidden entries belong to other tools.
fn folders(modules_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let is_hidden =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let entries =
        fs::read_dir(modules_dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let mut entries: Vec<_> = entries.into_iter().filter(|path| !is_hidden(path)).collect();
    entries.sort();
    Ok(entries)
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}

/// Reads a text file, or says what is wrong with it.
fn read_text(path: &Path, bytes_max: usize) -> Result<String, String> {
    let failed = |error: io::Error| unreadable(path, &error);
    // Looked at before it is opened: opening a named pipe would wait for somebody to write into it.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err("found no regular file, expected a text file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > bytes_max {
        return Err(format!("found more than {bytes_max} bytes, expected at most that"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("found bytes in line {line} that are not UTF-8, expected UTF-8 text")
    })
}

/// Why a file or folder cannot be read.
fn unreadable(path: &Path, error: &io::Error) -> String {
    match (error.kind(), fs::read_link(path)) {
        (io::ErrorKind::NotFound, Ok(target)) => {
            format!(
                "found a symbolic link to {}, which does not exist, expected one that leads somewhere",
                target.display()
            )
        }
        (io::ErrorKind::NotFound, Err(_)) => "found nothing, expected a file".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}
