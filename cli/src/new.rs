//! `aegis new model`: an app folder with a small model in it, to begin with.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use aegis_domain::spec::ModelName;
use aegis_supervisor::{exit, with_causes};

use crate::{
    arguments::{Language, NewModelArguments},
    output::{self, listed},
};

#[cfg(test)]
mod tests;

/// Longest name, bytes: its endpoint has one more, and at most 64.
const NAME_BYTES_MAX: usize = 63;
/// Files of every app, of one without code, and of one in JavaScript: where they go and what is in them.
const SHARED: &[(&str, &str)] =
    &[("aegis.toml", include_str!("new/aegis.toml")), (".gitignore", include_str!("new/gitignore"))];
const TOML: &[(&str, &str)] = &[
    ("README.md", include_str!("new/toml.md")),
    ("modules/@NAME@/module.toml", include_str!("new/module.toml")),
];
const JAVASCRIPT: &[(&str, &str)] = &[
    ("README.md", include_str!("new/js.md")),
    ("modules/@NAME@/aegis.module.json", include_str!("new/aegis.module.json")),
    ("sources/@NAME@.js", include_str!("new/model.js")),
];
/// What builds modules in JavaScript, so that the folder stands alone.
const SDK: &[(&str, &str)] = &[
    ("sdk/build.mjs", include_str!("../../sdk/js/build.mjs")),
    ("sdk/model.d.ts", include_str!("../../sdk/js/model.d.ts")),
    ("sdk/model.js", include_str!("../../sdk/js/model.js")),
    ("sdk/package-lock.json", include_str!("../../sdk/js/package-lock.json")),
    ("sdk/package.json", include_str!("../../sdk/js/package.json")),
    ("sdk/world.wit", include_str!("../../sdk/js/world.wit")),
    ("sdk/wit/guest.wit", include_str!("../../wit/guest.wit")),
    ("sdk/wit/host.wit", include_str!("../../wit/host.wit")),
    ("sdk/wit/spec.wit", include_str!("../../wit/spec.wit")),
    ("sdk/wit/types.wit", include_str!("../../wit/types.wit")),
    ("sdk/wit/worlds.wit", include_str!("../../wit/worlds.wit")),
];

/// Why there is no new model.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// No model can have this name.
    #[error("NAME: {0}")]
    Name(String),
    /// Nothing is overwritten.
    #[error("{}", listed("found files that are there already, expected a folder without them", .0))]
    Occupied(Vec<String>),
    /// The operating system refused a file.
    #[error("writing {} failed", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
}

/// Writes the folder and says what to read first; the exit status.
pub(crate) fn model(arguments: &NewModelArguments) -> u8 {
    match write(arguments) {
        Ok(folder) => {
            output::result(&format!("{}: a new model, README.md says how to run it\n", folder.display()));
            exit::FINE
        }
        Err(failure) => {
            output::complain(&with_causes(&failure));
            match failure {
                Failure::Name(_) | Failure::Occupied(_) => exit::USAGE,
                Failure::File { .. } => exit::OS,
            }
        }
    }
}

fn write(arguments: &NewModelArguments) -> Result<PathBuf, Failure> {
    let name = checked(&arguments.name).map_err(Failure::Name)?;
    let folder = arguments.folder.clone().unwrap_or_else(|| PathBuf::from(&name));
    let named = |text: &str| text.replace("@NAME@", &name).replace("@ENDPOINT@", &format!("{name}s"));
    let templates = match arguments.language {
        Language::Toml => [SHARED, TOML, &[]],
        Language::JavaScript => [SHARED, JAVASCRIPT, SDK],
    };
    let files: Vec<_> =
        templates.into_iter().flatten().map(|(path, text)| (folder.join(named(path)), named(text))).collect();
    let occupied = files.iter().map(|(path, _)| path).filter(|path| fs::symlink_metadata(path).is_ok());
    let occupied: Vec<_> = occupied.map(|path| path.display().to_string()).collect();
    if !occupied.is_empty() {
        return Err(Failure::Occupied(occupied));
    }
    for (path, text) in files {
        write_new(&path, &text).map_err(|source| Failure::File { path, source })?;
    }
    Ok(folder)
}

/// The name as its folder and files have it, lower case.
fn checked(name: &str) -> Result<String, String> {
    ModelName::new(name)?;
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("found {} bytes, expected at most {NAME_BYTES_MAX}", name.len()));
    }
    Ok(name.to_ascii_lowercase())
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    OpenOptions::new().write(true).create_new(true).open(path)?.write_all(text.as_bytes())
}
