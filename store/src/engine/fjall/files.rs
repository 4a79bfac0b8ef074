//! Files in the engine's folder that are none of the engine's: somebody has put them there, or something else writes there.

use std::path::{Path, PathBuf};

use super::{end, journal, open};
use crate::{engine::EngineResult, error::EngineError};

/// Foreign files that are named; further ones are left out.
const FOREIGN_MAX: usize = 100;
/// Folder of a partition's tables. A foreign file in it keeps the engine closed.
const TABLES_FOLDER: &str = "tables";

/// Foreign files beside the engine's own, which takes no notice of them. Hidden ones are left out: file managers make such,
/// and so does the engine for a moment.
pub(super) fn foreign(folder: &Path) -> EngineResult<Vec<PathBuf>> {
    let is_own = |name: &str| {
        let own = [open::VERSION_FILE, open::PARTITIONS_FOLDER, "lock", end::END_MARK];
        // What is left of a mark that was being written when the process was killed.
        let name = name.strip_suffix(".new").unwrap_or(name);
        own.contains(&name)
            || Path::new(name).extension().is_some_and(|suffix| suffix == journal::JOURNAL_SUFFIX)
    };
    let mut foreign = strangers(folder, |name| is_hidden(name) || is_own(name))?;
    for partition in entries(&folder.join(open::PARTITIONS_FOLDER))? {
        let is_own = |name: &str| {
            let version = name.strip_prefix('v').is_some_and(is_number);
            version || [open::PARTITION_FILE, TABLES_FOLDER, "blobs"].contains(&name)
        };
        foreign.extend(strangers(&partition, |name| is_hidden(name) || is_own(name))?);
    }
    foreign.sort();
    foreign.truncate(FOREIGN_MAX);
    Ok(foreign)
}

/// Names a foreign file among the tables of a partition: the engine would only say that it gave up.
pub(super) fn check_tables(partition: &Path) -> EngineResult<()> {
    let tables = partition.join(TABLES_FOLDER);
    if !tables.exists() {
        return Ok(());
    }
    // What the engine passes over; it takes anything else for a table.
    let is_passed_over = |name: &str| name == ".DS_Store" || name.starts_with("._");
    match strangers(&tables, |name| is_number(name) || is_passed_over(name))?.pop() {
        None => Ok(()),
        Some(path) => {
            Err(EngineError::damaged(path.display().to_string(), "nothing of this name belongs here"))
        }
    }
}

fn is_number(name: &str) -> bool {
    name.parse::<u64>().is_ok()
}

fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

/// What is in a folder and is not known by its name.
fn strangers(folder: &Path, is_known: impl Fn(&str) -> bool) -> EngineResult<Vec<PathBuf>> {
    let has_known_name =
        |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(&is_known);
    Ok(entries(folder)?.into_iter().filter(|path| !has_known_name(path)).collect())
}

fn entries(folder: &Path) -> EngineResult<Vec<PathBuf>> {
    let failed = |error| EngineError::io(format!("listing {}", folder.display()), error);
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(failed)
}
