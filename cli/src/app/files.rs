//! Reading files of an app, within bounds and with a word about everything that can be wrong with one.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// What lies in a folder, in the order of names. Hidden entries belong to other tools.
pub(super) fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let is_hidden =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let mut entries: Vec<_> = entries.into_iter().filter(|path| !is_hidden(path)).collect();
    entries.sort();
    Ok(entries)
}

/// Whether a name ends in `.extension`.
pub(super) fn has_extension(name: impl AsRef<OsStr>, extension: &str) -> bool {
    Path::new(&name).extension().is_some_and(|found| found == extension)
}

/// A regular file and its length. Looked at before it is opened: opening a named pipe would wait for somebody to write
/// into it.
pub(super) fn length_of(path: &Path, expected: &str) -> Result<u64, String> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if metadata.is_file() {
        Ok(metadata.len())
    } else {
        Err(format!("found no regular file, expected {expected}"))
    }
}

/// Why a file was not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// There was no memory for it.
    NoMemory,
    /// Anything else, in words.
    Other(String),
}

impl Unread {
    fn of(path: &Path, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::OutOfMemory => Self::NoMemory,
            _ => Self::Other(unreadable(path, error)),
        }
    }

    fn words(self) -> String {
        match self {
            Self::NoMemory => "cannot be read: there is no memory for it".to_owned(),
            Self::Other(words) => words,
        }
    }
}

/// Reads a file whole.
pub(super) fn read_bytes(path: &Path, bytes_max: usize) -> Result<Vec<u8>, String> {
    read_whole(path, bytes_max).map_err(Unread::words)
}

/// The same, for whom it matters whether there was memory.
pub(super) fn read_whole(path: &Path, bytes_max: usize) -> Result<Vec<u8>, Unread> {
    let failed = |error: io::Error| Unread::of(path, &error);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > bytes_max {
        return Err(Unread::Other(format!("found more than {bytes_max} bytes, expected at most that")));
    }
    Ok(bytes)
}

/// Reads a text file, or says what is wrong with it.
pub(crate) fn read_text(path: &Path, bytes_max: usize) -> Result<String, String> {
    length_of(path, "a text file")?;
    String::from_utf8(read_bytes(path, bytes_max)?).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("found bytes in line {line} that are not UTF-8, expected UTF-8 text")
    })
}

/// Why a file or folder cannot be read.
pub(super) fn unreadable(path: &Path, error: &io::Error) -> String {
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
