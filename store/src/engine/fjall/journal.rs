//! Looks at the engine's journal files before the engine does.
//!
//! The engine drops everything behind the first byte it cannot read, and refuses a group whose checksum is wrong even
//! at the very end. Both are wrong in one case each: damage in the middle must stop the store, because what follows
//! was acknowledged; a group cut short by a power failure at the end must not, because nobody was told of it. The
//! store syncs every group before it writes the next one, so at most the last group of the newest file can be torn. What
//! was there when the store last ended in order ([`End`]) was acknowledged, and is never torn.
//!
//! ```text
//! group  ┌───────┬───────┬────────┐ ┌──────┬──────┬─────────────┬───────────┬─────┬──────┬────────┬─────┬───────┐
//!        │ 1     │ items │ engine │ │ 2    │ type │ compression │ partition │ key │ raw  │ stored │ key │ value │ …
//!        │ start │ count │ number │ │ item │      │             │           │ len │ len  │ length │     │       │
//!        └───────┴───────┴────────┘ └──────┴──────┴─────────────┴───────────┴─────┴──────┴────────┴─────┴───────┘
//!          1       4       8          1      1      1             8           2     4      4
//!        ┌─────┬──────────────────┬───────┐
//!        │ 3   │ XXH3 of the items│ FJL 3 │
//!        │ end │                  │       │      integers are little endian
//!        └─────┴──────────────────┴───────┘
//! ```

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::xxh3_64;

use super::end::End;
use crate::{engine::EngineResult, error::EngineError, lock::make_folder};

/// Ending of journal files.
pub(super) const JOURNAL_SUFFIX: &str = "jnl";
/// Copies of unfinished groups that began at the same byte.
const COPIES_MAX: u32 = 1000;
const TAG_START: u8 = 1;
const TAG_ITEM: u8 = 2;
const TAG_END: u8 = 3;
const TAG_CLEAR: u8 = 4;
const START_BYTES: usize = 13;
const ITEM_HEADER_BYTES: usize = 21;
const CLEAR_BYTES: usize = 9;
const END_BYTES: usize = 13;
const TRAILER: &[u8] = b"FJL\x03";

/// The unfinished group at the end of the newest journal file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Torn {
    /// The file.
    pub(crate) file: PathBuf,
    /// Where the last whole group ends, bytes.
    pub(crate) offset: u64,
    /// What follows it.
    pub(crate) bytes: Vec<u8>,
}

/// What became of an unfinished last group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SetAside {
    /// It is in this file.
    Moved(PathBuf),
    /// There was no room for a copy.
    Dropped {
        /// Its length.
        bytes: usize,
    },
}

impl fmt::Display for SetAside {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moved(copy) => write!(formatter, "it was moved to {}", copy.display()),
            Self::Dropped { bytes } => {
                write!(formatter, "its {bytes} bytes are gone, as the full disk has no room for a copy")
            }
        }
    }
}

/// Reads all journal files of an engine folder.
///
/// # Errors
/// Damage that is more than an unfinished last group; nothing is changed then.
pub(crate) fn check(folder: &Path) -> EngineResult<Option<Torn>> {
    let files = journals(folder)?;
    let Some((newest, sealed)) = files.split_last() else {
        return Err(EngineError::damaged(folder.display().to_string(), "its journal files (*.jnl) are gone"));
    };
    let end = End::read(folder)?;
    for file in sealed {
        if let Some(torn) = check_file(file, end)? {
            let reason =
                format!("no whole group at byte {}, although newer journal files exist", torn.offset);
            return Err(EngineError::damaged(file.display().to_string(), reason));
        }
    }
    let torn = check_file(newest, end)?;
    match end {
        Some(end) if number(newest).is_some_and(|number| number < end.journal) => {
            let gone = folder.join(format!("{}.{JOURNAL_SUFFIX}", end.journal));
            let reason = format!(
                "it is gone, although it was the newest when the store ended in order, as {} says",
                End::path(folder).display()
            );
            Err(EngineError::damaged(gone.display().to_string(), reason))
        }
        _ => Ok(torn),
    }
}

/// Is no whole group in any journal file of an engine folder?
pub(super) fn is_unwritten(folder: &Path) -> EngineResult<bool> {
    if !folder.exists() {
        return Ok(true);
    }
    for file in journals(folder)? {
        let bytes = read(&file)?;
        if last_whole_group(&bytes) > 0 || next_whole_group(&bytes, 0).is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Takes the unfinished group out of the journal file, into a file of its own in `folder` if there is room for it.
pub(crate) fn set_aside(torn: &Torn, folder: &Path) -> EngineResult<SetAside> {
    cut(torn, keep(torn, folder))
}

fn keep(torn: &Torn, folder: &Path) -> EngineResult<PathBuf> {
    make_folder(folder).map_err(|error| failed("creating", folder, error))?;
    let journal = torn.file.file_stem().unwrap_or_default().to_string_lossy();
    let name = format!("journal-{journal}-at-{}", torn.offset);
    let names = (2..=COPIES_MAX).map(|number| format!("{name}-{number}.torn"));
    for name in std::iter::once(format!("{name}.torn")).chain(names) {
        let copy = folder.join(name);
        let mut file = match File::create_new(&copy) {
            // Another end of the same journal.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            file => file.map_err(|error| failed("creating", &copy, error))?,
        };
        let written = file.write_all(&torn.bytes).and_then(|()| file.sync_all());
        if let Err(error) = written {
            let _ = std::fs::remove_file(&copy);
            return Err(failed("writing", &copy, error));
        }
        return Ok(copy);
    }
    Err(failed("creating a further copy in", folder, io::ErrorKind::AlreadyExists.into()))
}

/// Shortens the journal when its unfinished group is kept, or cannot be because the disk is full: then the store would
/// never start, and nothing is lost of which anybody was told.
fn cut(torn: &Torn, kept: EngineResult<PathBuf>) -> EngineResult<SetAside> {
    let set_aside = match kept {
        Ok(copy) => SetAside::Moved(copy),
        Err(EngineError::Io { source, .. })
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
        {
            SetAside::Dropped { bytes: torn.bytes.len() }
        }
        Err(error) => return Err(error),
    };
    let journal = OpenOptions::new().write(true).open(&torn.file);
    let journal = journal.map_err(|error| failed("opening", &torn.file, error))?;
    journal.set_len(torn.offset).map_err(|error| failed("shortening", &torn.file, error))?;
    journal.sync_all().map_err(|error| failed("syncing", &torn.file, error))?;
    Ok(set_aside)
}

/// Writes the last group of the newest file over itself, and syncs it, unless the store has ended in order behind it. A store
/// whose sync fails ends at once, and its last group may be whole only in memory: the kernel takes for written what it
/// could not write, and the next sync says that all is well.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_last_group_again(folder: &Path) -> EngineResult<()> {
    let Some(newest) = journals(folder)?.pop() else { return Ok(()) };
    let bytes = read(&newest)?;
    let (mut begin, mut end) = (0, 0);
    while let Some(next) = group_end(&bytes, end) {
        (begin, end) = (end, next);
    }
    let ended = End::read(folder)?;
    let in_order =
        ended.is_some_and(|ended| number(&newest) == Some(ended.journal) && ended.bytes == end as u64);
    if in_order || end == 0 {
        return Ok(());
    }
    let file = OpenOptions::new().write(true).open(&newest);
    let file = file.map_err(|error| failed("opening", &newest, error))?;
    file.write_all_at(&bytes[begin..end], begin as u64).map_err(|error| failed("writing", &newest, error))?;
    file.sync_all().map_err(|error| failed("syncing", &newest, error))
}

fn failed(operation: &str, path: &Path, error: io::Error) -> EngineError {
    EngineError::io(format!("{operation} {}", path.display()), error)
}

/// The file that the engine writes after this one.
pub(super) fn next(journal: &Path) -> Option<PathBuf> {
    let number = number(journal)?;
    Some(journal.with_file_name(format!("{}.{JOURNAL_SUFFIX}", number + 1)))
}

/// The number that a journal file has as its name.
pub(super) fn number(journal: &Path) -> Option<u64> {
    journal.file_stem()?.to_str()?.parse().ok()
}

/// Journal files, oldest first.
pub(super) fn journals(folder: &Path) -> EngineResult<Vec<PathBuf>> {
    let failed = |error| EngineError::io(format!("listing {}", folder.display()), error);
    let mut numbered = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|suffix| suffix != JOURNAL_SUFFIX) {
            continue;
        }
        let Some(number) = number(&path) else {
            return Err(EngineError::damaged(
                path.display().to_string(),
                "its name is not a number and .jnl",
            ));
        };
        numbered.push((number, path));
    }
    numbered.sort();
    Ok(numbered.into_iter().map(|(_, path)| path).collect())
}

fn check_file(file: &Path, ended: Option<End>) -> EngineResult<Option<Torn>> {
    let bytes = read(file)?;
    let end = last_whole_group(&bytes);
    let rest = &bytes[end..];
    // The engine reserves space at the end of a journal file; unwritten space reads as zeros.
    let last_written = rest.iter().rposition(|byte| *byte != 0);
    if let Some(next) = next_whole_group(&bytes, end + 1) {
        let reason = format!("no whole group at byte {end}, but one at byte {next} follows");
        return Err(EngineError::damaged(file.display().to_string(), reason));
    }
    if let Some(ended) = ended.filter(|ended| number(file) == Some(ended.journal))
        && (end as u64) < ended.bytes
    {
        let mark = file.parent().map(End::path).unwrap_or_default();
        let reason = format!(
            "no whole group at byte {end}, although there were groups up to byte {} when the store ended in order, so \
             what was acknowledged is damaged; to go on without it, remove {}",
            ended.bytes,
            mark.display()
        );
        return Err(EngineError::damaged(file.display().to_string(), reason));
    }
    let Some(last_written) = last_written else { return Ok(None) };
    Ok(Some(Torn { file: file.to_owned(), offset: end as u64, bytes: rest[..=last_written].to_vec() }))
}

fn read(file: &Path) -> EngineResult<Vec<u8>> {
    std::fs::read(file).map_err(|error| EngineError::io(format!("reading {}", file.display()), error))
}

/// Where the whole groups at the beginning end.
fn last_whole_group(bytes: &[u8]) -> usize {
    let mut at = 0;
    while let Some(end) = group_end(bytes, at) {
        at = end;
    }
    at
}

/// Where a whole group begins at or after `from`.
fn next_whole_group(bytes: &[u8], from: usize) -> Option<usize> {
    let begins = |at: &usize| {
        bytes[*at] == TAG_START && matches!(bytes.get(at + START_BYTES), Some(&(TAG_ITEM | TAG_CLEAR)))
    };
    (from..bytes.len()).filter(begins).find(|at| group_end(bytes, *at).is_some())
}

/// Where the group that begins at `at` ends, if it is whole.
fn group_end(bytes: &[u8], at: usize) -> Option<usize> {
    let start = bytes.get(at..at + START_BYTES)?;
    if start[0] != TAG_START {
        return None;
    }
    let items = u32::from_le_bytes([start[1], start[2], start[3], start[4]]);
    let items_start = at + START_BYTES;
    let mut items_end = items_start;
    for _ in 0..items {
        items_end = item_end(bytes, items_end)?;
    }
    let end = bytes.get(items_end..items_end + END_BYTES)?;
    let (checksum, trailer) = end[1..].split_first_chunk::<8>()?;
    let whole = end[0] == TAG_END
        && trailer == TRAILER
        && u64::from_le_bytes(*checksum) == xxh3_64(&bytes[items_start..items_end]);
    whole.then_some(items_end + END_BYTES)
}

fn item_end(bytes: &[u8], at: usize) -> Option<usize> {
    match *bytes.get(at)? {
        TAG_CLEAR => Some(at + CLEAR_BYTES),
        TAG_ITEM => {
            let header = bytes.get(at..at + ITEM_HEADER_BYTES)?;
            let key = usize::from(u16::from_le_bytes([header[11], header[12]]));
            let value = u32::from_le_bytes([header[17], header[18], header[19], header[20]]) as usize;
            let end = at + ITEM_HEADER_BYTES + key + value;
            (end <= bytes.len()).then_some(end)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use fjall::{Database, KeyspaceCreateOptions, PersistMode};
    use proptest::prelude::*;

    use super::*;

    /// Bytes of a journal with `groups` groups as the engine writes it, without the reserved space.
    fn journal(groups: usize) -> (tempfile::TempDir, PathBuf, Vec<u8>, Vec<usize>) {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::builder(folder.path()).open().unwrap();
        let rows = database.keyspace("rows", KeyspaceCreateOptions::default).unwrap();
        for group in 0..groups {
            let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
            batch.insert(&rows, format!("a{group}"), "x".repeat(group * 3000));
            batch.insert(&rows, format!("b{group}"), "y");
            batch.remove(&rows, "a0");
            batch.commit().unwrap();
        }
        let file = folder.path().join("0.jnl");
        let mut bytes = std::fs::read(&file).unwrap();
        let mut ends = vec![0];
        while let Some(end) = group_end(&bytes, ends[ends.len() - 1]) {
            ends.push(end);
        }
        bytes.truncate(*ends.last().unwrap());
        (folder, file, bytes, ends)
    }

    #[test]
    fn groups_of_the_engine_are_whole_with_and_without_compression_and_reserved_space() {
        let (folder, file, bytes, ends) = journal(4);
        assert_eq!(ends.len(), 5);
        assert_eq!(check(folder.path()).unwrap(), None);
        std::fs::write(&file, &bytes).unwrap();
        assert_eq!(check(folder.path()).unwrap(), None);
    }

    #[test]
    fn a_cut_leaves_whole_groups_and_what_was_cut_is_kept() {
        let (folder, file, bytes, ends) = journal(3);
        let cut = ends[2] + 17; // the last byte kept is not zero
        std::fs::write(&file, &bytes[..cut]).unwrap();
        let torn = check(folder.path()).unwrap().unwrap();
        assert_eq!((torn.offset, torn.bytes.len()), (ends[2] as u64, 17));
        let aside = folder.path().join("aside");
        let first = aside.join(format!("journal-0-at-{}.torn", ends[2]));
        let again = aside.join(format!("journal-0-at-{}-2.torn", ends[2]));
        assert_eq!(set_aside(&torn, &aside).unwrap(), SetAside::Moved(first.clone()));
        assert_eq!(std::fs::read(&file).unwrap(), bytes[..ends[2]]);
        assert_eq!(check(folder.path()).unwrap(), None);
        let other = Torn { bytes: b"other".to_vec(), ..torn };
        assert_eq!(set_aside(&other, &aside).unwrap(), SetAside::Moved(again.clone()));
        assert_eq!(std::fs::read(first).unwrap(), bytes[ends[2]..cut]);
        assert_eq!(std::fs::read(again).unwrap(), b"other");
    }

    #[test]
    fn a_torn_group_is_dropped_where_a_full_disk_has_no_room_for_a_copy() {
        let (folder, file, bytes, ends) = journal(2);
        let cut_short = &bytes[..bytes.len() - 1];
        std::fs::write(&file, cut_short).unwrap();
        let torn = check(folder.path()).unwrap().unwrap();
        let kept = |kind: io::ErrorKind| Err(failed("writing", Path::new("copy"), kind.into()));
        cut(&torn, kept(io::ErrorKind::PermissionDenied)).unwrap_err();
        assert_eq!(std::fs::read(&file).unwrap(), cut_short);
        let dropped = SetAside::Dropped { bytes: cut_short.len() - ends[1] };
        assert_eq!(cut(&torn, kept(io::ErrorKind::StorageFull)).unwrap(), dropped);
        assert_eq!(std::fs::read(&file).unwrap(), bytes[..ends[1]]);
    }

    #[test]
    fn the_last_group_is_written_again_unless_the_store_has_ended_behind_it() {
        let (folder, file, bytes, _) = journal(3);
        let modified = || std::fs::metadata(&file).unwrap().modified().unwrap();
        std::fs::write(&file, &bytes).unwrap();
        let long_ago = std::time::SystemTime::UNIX_EPOCH;
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
        write_last_group_again(folder.path()).unwrap();
        assert_ne!(modified(), long_ago, "it is written");
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "and the same");
        End::mark(folder.path()).unwrap();
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
        write_last_group_again(folder.path()).unwrap();
        assert_eq!(modified(), long_ago, "what was there at an orderly end was synced");
    }

    #[test]
    fn a_last_group_with_a_hole_is_torn_but_one_in_the_middle_is_damage() {
        let (folder, file, bytes, ends) = journal(3);
        let mut holed = bytes.clone();
        holed[ends[2] + 40..ends[2] + 60].fill(0);
        std::fs::write(&file, &holed).unwrap();
        assert_eq!(check(folder.path()).unwrap().unwrap().offset, ends[2] as u64);
        let mut damaged = bytes;
        damaged[ends[1] + 40] ^= 1;
        std::fs::write(&file, &damaged).unwrap();
        let message = check(folder.path()).unwrap_err().to_string();
        let expected = format!("no whole group at byte {}, but one at byte {} follows", ends[1], ends[2]);
        assert!(message.ends_with(&expected), "{message}");
        assert_eq!(std::fs::read(&file).unwrap(), damaged, "nothing was changed");
    }

    #[test]
    fn a_last_group_that_was_there_at_an_orderly_end_is_not_torn() {
        let (folder, file, bytes, ends) = journal(3);
        let (whole, middle) = (ends[3], ends[2]);
        let flipped = |at: usize| {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            flipped
        };
        std::fs::write(&file, flipped(middle + 40)).unwrap();
        assert!(check(folder.path()).unwrap().is_some(), "nobody knows that it was whole");
        std::fs::write(&file, &bytes).unwrap();
        End::mark(folder.path()).unwrap();
        assert_eq!(check(folder.path()).unwrap(), None);
        // A flipped bit, a file that is cut, and one that reads as zeros.
        let mut zeros = bytes.clone();
        zeros[middle..].fill(0);
        for damaged in [flipped(middle + 40), bytes[..whole - 1].to_vec(), bytes[..middle].to_vec(), zeros] {
            std::fs::write(&file, &damaged).unwrap();
            let message = check(folder.path()).unwrap_err().to_string();
            let expected =
                format!("no whole group at byte {middle}, although there were groups up to byte {whole}");
            assert!(message.contains(&expected), "{message}");
            assert_eq!(std::fs::read(&file).unwrap(), damaged, "nothing was changed");
        }
        // What a store that was killed later has left behind is not under the older mark.
        std::fs::write(&file, [&bytes, &bytes[..17]].concat()).unwrap();
        assert_eq!(check(folder.path()).unwrap().unwrap().offset, whole as u64);
        // The engine goes on to the next file and removes this one.
        std::fs::rename(&file, folder.path().join("1.jnl")).unwrap();
        std::fs::write(folder.path().join("1.jnl"), &bytes[..middle]).unwrap();
        assert_eq!(check(folder.path()).unwrap(), None);
        End::mark(folder.path()).unwrap();
        std::fs::rename(folder.path().join("1.jnl"), &file).unwrap();
        let message = check(folder.path()).unwrap_err().to_string();
        assert!(message.contains("/1.jnl is damaged: it is gone"), "{message}");
    }

    #[test]
    fn a_torn_sealed_journal_or_none_at_all_is_damage() {
        let (folder, file, bytes, _) = journal(2);
        std::fs::write(folder.path().join("1.jnl"), &bytes).unwrap();
        std::fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
        assert!(check(folder.path()).unwrap_err().to_string().contains("although newer journal files exist"));
        let empty = tempfile::tempdir().unwrap();
        assert!(check(empty.path()).unwrap_err().to_string().ends_with("its journal files (*.jnl) are gone"));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(0_u8..5, 0..300)) {
            let end = last_whole_group(&bytes);
            prop_assert!(end <= bytes.len());
            let _ = next_whole_group(&bytes, end);
        }
    }
}
