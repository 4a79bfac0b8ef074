//! Room in the journal that is written before it is needed.
//!
//! The engine makes a journal file of 64 MiB that is one hole. Each group it syncs then takes new blocks from the file
//! system, which has to note them in a journal of its own before the sync returns: several writes where one would do,
//! and much work for the processor. Where the blocks are there already, a sync writes the group and nothing else; this
//! is why databases write their logs over old or zeroed files.
//!
//! So before a group is committed into the last bit of such room, the next piece of the hole behind it is filled with
//! zeros, which is what it reads as anyway. Nobody depends on it: a file system that cannot tell where the hole begins,
//! a full disk, and a journal file that the engine took up again after a start (it is cut to what it holds, and grows)
//! are only as slow as they were.
//!
//! ```text
//! 0 ── groups ──▶ end of groups ── zeros ──▶ filled ────────── hole ─────────▶ 64 MiB
//!                                 └ at least [`ROOM_BYTES_MIN`] ┘
//! ```

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};

use super::journal;

/// Filled at once, bytes: some fifty groups of 32 small documents, and no more than a disk takes in a few milliseconds.
const PIECE_BYTES: u64 = 1024 * 1024;
/// With less filled room than this the next piece is filled, bytes.
const ROOM_BYTES_MIN: u64 = 256 * 1024;
/// So many zeros in a row are no part of a group of documents, bytes.
const ZEROS_BYTES: usize = 64;

/// The journal file that the engine writes now, and how far it is filled.
#[derive(Debug)]
pub(super) struct Ground {
    folder: PathBuf,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    file: File,
    /// The file that the engine writes after this one.
    next: PathBuf,
    /// Whole size of the file, with its hole, bytes.
    length: u64,
    /// Where the hole begins, at most; bytes.
    filled: u64,
}

impl Ground {
    /// The room in the journal of the engine in this folder.
    pub(super) fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), active: None }
    }

    /// Sees to it that there is room. Only for the thread that writes groups, between two of them: the engine's own
    /// threads make journal files, but write nothing into them.
    ///
    /// # Errors
    /// Of the file system. Nothing is lost by them: the engine meets what is really wrong by itself.
    pub(super) fn prepare(&mut self) -> io::Result<()> {
        if self.active.as_ref().is_none_or(|active| active.next.exists()) {
            self.active = Active::newest(&self.folder)?;
        }
        match &mut self.active {
            Some(active) => active.prepare(),
            None => Ok(()),
        }
    }
}

impl Active {
    fn newest(folder: &Path) -> io::Result<Option<Self>> {
        let newest = journal::journals(folder).map_err(io::Error::other)?.pop();
        let Some(path) = newest else { return Ok(None) };
        let Some(next) = journal::next(&path) else { return Ok(None) };
        let file = File::options().read(true).write(true).open(path)?;
        let length = file.metadata()?.len();
        Ok(Some(Self { file, next, length, filled: 0 }))
    }

    fn prepare(&mut self) -> io::Result<()> {
        if self.filled >= self.length || self.has_room()? {
            return Ok(());
        }
        let hole = seek(&self.file, self.filled, Whence::SeekHole)?.unwrap_or(self.length);
        self.filled = hole;
        // Something behind the hole: not the shape of a journal that is being written.
        if hole >= self.length || seek(&self.file, hole, Whence::SeekData)?.is_some() {
            self.filled = self.length;
            return Ok(());
        }
        let piece = PIECE_BYTES.min(self.length - hole);
        self.file.write_all_at(&vec![0; usize::try_from(piece).unwrap_or(0)], hole)?;
        self.filled = hole + piece;
        Ok(())
    }

    /// Is the last of the filled room, but for the least that there should be, still zeros?
    fn has_room(&self) -> io::Result<bool> {
        let Some(at) = self.filled.checked_sub(ROOM_BYTES_MIN) else { return Ok(false) };
        let mut bytes = [1; ZEROS_BYTES];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes == [0; ZEROS_BYTES])
    }
}

/// Where the next hole or data begins, at or after `from`; none when there is none.
fn seek(file: &File, from: u64, whence: Whence) -> io::Result<Option<u64>> {
    let from = i64::try_from(from).map_err(io::Error::other)?;
    match lseek(file, from, whence) {
        Ok(at) => Ok(u64::try_from(at).ok()),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: u64 = 4 * PIECE_BYTES;

    /// A journal file as the engine makes it: one hole.
    fn journal(folder: &Path, number: u64) -> File {
        let path = folder.join(format!("{number}.jnl"));
        let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        file.set_len(LENGTH).unwrap();
        file
    }

    fn hole(file: &File) -> u64 {
        seek(file, 0, Whence::SeekHole).unwrap().unwrap()
    }

    /// Groups as they come, each of which has the room prepared before it.
    fn write(ground: &mut Ground, file: &File, from: u64, groups: u64, group_bytes: u64) -> u64 {
        for group in 0..groups {
            ground.prepare().unwrap();
            file.write_all_at(&vec![7; group_bytes as usize], from + group * group_bytes).unwrap();
        }
        from + groups * group_bytes
    }

    #[test]
    fn there_is_always_room_before_a_group_and_never_much() {
        let folder = tempfile::tempdir().unwrap();
        let file = journal(folder.path(), 0);
        let mut ground = Ground::of(folder.path());
        let mut end = 0;
        while end < LENGTH - PIECE_BYTES {
            ground.prepare().unwrap();
            let room = hole(&file) - end;
            assert!(
                (ROOM_BYTES_MIN - 4096..=PIECE_BYTES + ROOM_BYTES_MIN).contains(&room),
                "{room} at {end}"
            );
            end = write(&mut ground, &file, end, 1, 4096);
        }
        end = write(&mut ground, &file, end, (LENGTH - end) / 4096, 4096);
        assert_eq!((end, file.metadata().unwrap().len()), (LENGTH, LENGTH));
        let bytes = std::fs::read(folder.path().join("0.jnl")).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 7), "zeros over a group");
    }

    #[test]
    fn the_file_that_the_engine_goes_on_to_gets_room_too() {
        let folder = tempfile::tempdir().unwrap();
        let first = journal(folder.path(), 9);
        let mut ground = Ground::of(folder.path());
        write(&mut ground, &first, 0, 3, 1000);
        let second = journal(folder.path(), 10);
        write(&mut ground, &second, 0, 3, 1000);
        assert_eq!((hole(&first), hole(&second)), (PIECE_BYTES, PIECE_BYTES));
    }

    #[test]
    fn a_file_that_grows_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = journal(folder.path(), 0);
        file.write_all_at(b"groups", 0).unwrap();
        file.set_len(6).unwrap();
        Ground::of(folder.path()).prepare().unwrap();
        assert_eq!(std::fs::read(folder.path().join("0.jnl")).unwrap(), b"groups");
    }

    #[test]
    fn a_hole_with_something_behind_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = journal(folder.path(), 0);
        file.write_all_at(b"here", PIECE_BYTES / 2).unwrap();
        let mut ground = Ground::of(folder.path());
        ground.prepare().unwrap();
        ground.prepare().unwrap();
        assert_eq!(hole(&file), 0);
    }

    #[test]
    fn groups_larger_than_the_room_go_over_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = journal(folder.path(), 0);
        let mut ground = Ground::of(folder.path());
        let end = write(&mut ground, &file, 0, 2, PIECE_BYTES + 5000);
        ground.prepare().unwrap();
        assert!(hole(&file) >= end + ROOM_BYTES_MIN - 4096, "{}", hole(&file));
    }

    #[test]
    fn a_folder_without_a_journal_is_no_failure() {
        Ground::of(tempfile::tempdir().unwrap().path()).prepare().unwrap();
    }
}
