//! `aegis new model`: an app folder with a small model in it, to begin with.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use aegis_domain::spec::ModelName;
use aegis_supervisor::{exit, with_causes};
use serde_json::json;

use crate::{
    arguments::NewModelArguments,
    output::{self, Form, listed},
};

mod templates;
#[cfg(test)]
mod tests;

/// Longest name, bytes: its endpoint has one more, and at most 64.
const NAME_BYTES_MAX: usize = 63;
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
pub(crate) fn model(arguments: &NewModelArguments, form: Form) -> u8 {
    match write(arguments) {
        Ok(folder) => {
            match form {
                Form::Text => output::result(&format!(
                    "{}: a new model, README.md says how to run it\n",
                    folder.display()
                )),
                Form::Json => output::json(&json!({ "folder": folder.display().to_string() })),
            }
            exit::FINE
        }
        Err(failure) => {
            output::refuse(&with_causes(&failure), form);
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
    let files: Vec<_> = templates::of(arguments.language)
        .into_iter()
        .flatten()
        .map(|(path, text)| (folder.join(named(path)), named(text)))
        .collect();
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
