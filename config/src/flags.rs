//! What the command line may override.

use std::{ffi::OsString, path::PathBuf};

use crate::found::Found;

/// Settings of the command line, as they were typed. They win over environment, file and default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--listen`, as often as given.
    pub listen: Vec<String>,
    /// `--workers`.
    pub workers: Option<String>,
    /// `--data`. Relative to the app folder, like every path here; a command line makes it absolute first.
    pub data: Option<PathBuf>,
    /// `--control`.
    pub control: Option<PathBuf>,
}

impl Overrides {
    /// The flag that overrides a key path, if it was given.
    pub(crate) fn get(&self, key: &str) -> Option<(&'static str, Found)> {
        match key {
            "listen" if !self.listen.is_empty() => Some(("--listen", Found::Word(self.listen.join(",")))),
            "workers.count" => self.workers.clone().map(|text| ("--workers", Found::Word(text))),
            "data_dir" => self.data.clone().map(|path| ("--data", path_word(path))),
            "control_socket" => self.control.clone().map(|path| ("--control", path_word(path))),
            _ => None,
        }
    }
}

fn path_word(path: PathBuf) -> Found {
    word(path.into_os_string())
}

/// Text from the operating system as a value.
pub(crate) fn word(text: OsString) -> Found {
    match text.into_string() {
        Ok(text) => Found::Word(text),
        Err(text) => Found::NotText(text.to_string_lossy().into_owned()),
    }
}
