//! How far the journal went when the store last ended in order.
//!
//! A last group that cannot be read is taken for one that a power failure has cut short, of which nobody was told. Where the
//! store has ended in order before, that is wrong: everything up to there was synced and acknowledged. So the store
//! writes down then which journal file is the newest and how far it is written.
//!
//! What the mark says stays true: the engine only adds to a journal file, and removes one only when there are newer ones.
//! So nothing depends on when it is written or removed. A store that is killed later leaves a mark behind that says less
//! than it could, one that is killed while it writes it leaves the one before, and a copy of the engine's folder has the
//! mark that goes with its journal.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use aegis_ipc::replace::{FolderSync, replace};
use xxhash_rust::xxh3::xxh3_64;

use super::journal;
use crate::{engine::EngineResult, error::EngineError};

/// The mark, in the engine's folder. The engine takes no notice of it.
pub(super) const END_MARK: &str = "clean-end";
/// Length that a mark has at most, bytes.
const MARK_BYTES_MAX: u64 = 128;
/// Read at once, bytes.
const PIECE_BYTES: usize = 64 * 1024;

/// How far the journal went when the store last ended in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// Number of the journal file that was the newest.
    pub(super) journal: u64,
    /// Where its last group ended, bytes.
    pub(super) bytes: u64,
}

impl End {
    /// Where the mark is.
    pub(super) fn path(folder: &Path) -> PathBuf {
        folder.join(END_MARK)
    }

    /// Reads the mark. One that is damaged is as good as none.
    pub(super) fn read(folder: &Path) -> EngineResult<Option<Self>> {
        let path = Self::path(folder);
        let failed = |error| EngineError::io(format!("reading {}", path.display()), error);
        match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
            Ok(found) if found.len() > MARK_BYTES_MAX => return Ok(Self::unreadable(&path)),
            Ok(_) => {}
        }
        let bytes = std::fs::read(&path).map_err(failed)?;
        let end = Self::parse(&String::from_utf8_lossy(&bytes));
        Ok(end.or_else(|| Self::unreadable(&path)))
    }

    fn unreadable(path: &Path) -> Option<Self> {
        tracing::warn!(mark = %path.display(), "the mark of the last orderly end cannot be read and is ignored");
        None
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let mut number = || words.next()?.parse().ok();
        let end = Self { journal: number()?, bytes: number()? };
        (text == end.text()).then_some(end)
    }

    fn text(self) -> String {
        let facts = format!("{} {}", self.journal, self.bytes);
        format!("{facts} {:016x}\n", xxh3_64(facts.as_bytes()))
    }

    /// Marks that everything in the journal is synced and acknowledged. Nobody may write to it any more.
    pub(super) fn mark(folder: &Path) -> EngineResult<()> {
        let Some(newest) = journal::journals(folder)?.pop() else { return Ok(()) };
        let Some(journal) = journal::number(&newest) else { return Ok(()) };
        let bytes = written(&newest)
            .map_err(|error| EngineError::io(format!("reading {}", newest.display()), error))?;
        let path = Self::path(folder);
        let text = Self { journal, bytes }.text();
        replace(&path, 0o600, text.as_bytes(), FolderSync::WherePossible)
            .map_err(|error| EngineError::io(format!("writing {}", path.display()), error))
    }
}

/// How far a file is written: groups do not end with zeros, and what is reserved behind them reads as zeros.
fn written(path: &Path) -> std::io::Result<u64> {
    let file = File::open(path)?;
    let (mut end, mut piece) = (file.metadata()?.len(), vec![0; PIECE_BYTES]);
    let zeros = vec![0; PIECE_BYTES];
    while end > 0 {
        let length = usize::try_from(end).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        let begin = end - length as u64;
        file.read_exact_at(&mut piece[..length], begin)?;
        if piece[..length] != zeros[..length] {
            let last = piece[..length].iter().rposition(|byte| *byte != 0);
            return Ok(last.map_or(begin, |last| begin + last as u64 + 1));
        }
        end = begin;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_says_how_far_the_newest_journal_is_written() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(End::read(folder.path()).unwrap(), None);
        End::mark(folder.path()).unwrap();
        assert_eq!(End::read(folder.path()).unwrap(), None, "there is no journal");
        std::fs::write(folder.path().join("3.jnl"), "older").unwrap();
        let mut bytes = vec![0; 3 * PIECE_BYTES];
        bytes[PIECE_BYTES + 6] = 3;
        std::fs::write(folder.path().join("12.jnl"), &bytes).unwrap();
        End::mark(folder.path()).unwrap();
        let expected = End { journal: 12, bytes: PIECE_BYTES as u64 + 7 };
        assert_eq!(End::read(folder.path()).unwrap(), Some(expected));
        std::fs::write(folder.path().join("13.jnl"), [0; 10]).unwrap();
        End::mark(folder.path()).unwrap();
        assert_eq!(End::read(folder.path()).unwrap(), Some(End { journal: 13, bytes: 0 }));
    }

    #[test]
    fn a_damaged_mark_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let whole = End { journal: 1, bytes: 77 }.text();
        for damaged in ["", "1 77", "1 78 0000000000000000\n", &whole.replace("77", "76"), &"1 ".repeat(99)] {
            std::fs::write(End::path(folder.path()), damaged).unwrap();
            assert_eq!(End::read(folder.path()).unwrap(), None, "{damaged:?}");
        }
        std::fs::write(End::path(folder.path()), whole).unwrap();
        assert_eq!(End::read(folder.path()).unwrap(), Some(End { journal: 1, bytes: 77 }));
    }
}
