//! The last generation that was in force, kept on disk so that it survives everything: a generation that cannot serve
//! after a cold start is rolled back to it. Beside it the one before, for whoever asks to go back.
//!
//! One file each, `generations/last-good` and `generations/previous` in the data directory: the bytes of the bundle, its code included, so that a host
//! can serve from it without compiling anything, between their length and their checksum. It is replaced as a whole
//! (written beside, synced, renamed, directory synced), so a reader finds the old one or the new.
//!
//! A bundle with code may be large. It is copied a piece at a time, and the loop of the supervisor turns in between.

use std::{
    fs::{File, Permissions},
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::fs::{FileExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use aegis_config::Config;
use aegis_ipc::{
    IpcError,
    bundle::{BUNDLE_BYTES_MAX, Bundle},
    codec,
    replace::{FolderSync, put_in_place},
    sealed,
};

use crate::{SupervisorError, kept::GENERATIONS_FOLDER};

const LAST_GOOD: &str = "last-good";
const PREVIOUS: &str = "previous";
/// What the file begins with.
const MAGIC: [u8; 8] = *b"AEGISLG2";
/// Bytes in front of the bundle: the magic and the bundle's length.
const HEADER_BYTES: u64 = 16;
/// Bytes behind the bundle: the checksum of all before.
const TRAILER_BYTES: u64 = 4;
/// Bytes that are in memory at once.
const PIECE_BYTES: usize = 256 * 1024;
/// Bytes that are written and synced in one pass of the loop. Most bundles without code fit.
const STEP_BYTES: u64 = 4 * 1024 * 1024;

/// Where a data directory has the last good generation, or the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastGood {
    folder: PathBuf,
    file: &'static str,
}

/// Why there is no last good generation to go back to.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// None was ever in force.
    #[error("no generation was in force on this data before")]
    Never,
    /// The file is there, and not as it was written.
    #[error("the generation that is kept in {path} cannot be used: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A bundle on its way to the disk.
#[derive(Debug)]
pub struct Writing {
    last_good: LastGood,
    bundle: File,
    file: File,
    length: u64,
    written: u64,
    checksum: crc32fast::Hasher,
}

/// How far a bundle is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Some of it is written.
    Some,
    /// All of it is on disk, in place of what was there before.
    Done,
}

impl LastGood {
    /// The one of this data directory.
    #[must_use]
    pub fn of(data_directory: &Path) -> Self {
        Self { folder: data_directory.join(GENERATIONS_FOLDER), file: LAST_GOOD }
    }

    /// The one that was in force before the last good one of this data directory was.
    #[must_use]
    pub fn previous_of(data_directory: &Path) -> Self {
        Self { folder: data_directory.join(GENERATIONS_FOLDER), file: PREVIOUS }
    }

    /// Begins to write the bundle behind `bundle`. Nothing is replaced before all of it is there.
    pub fn begin(&self, bundle: &OwnedFd) -> Result<Writing, SupervisorError> {
        let bundle = bundle
            .try_clone()
            .map(File::from)
            .and_then(|bundle| Ok((bundle.metadata()?.len(), bundle)))
            .map_err(|error| SupervisorError::os("reading the bundle in force", error));
        let (length, bundle) = bundle?;
        let mut header = [0; HEADER_BYTES as usize];
        header[..MAGIC.len()].copy_from_slice(&MAGIC);
        header[MAGIC.len()..].copy_from_slice(&length.to_le_bytes());
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&header);
        let create = || {
            std::fs::create_dir_all(&self.folder)?;
            let mut file = File::create(self.path_being_written())?;
            // A configuration may have a secret in it.
            file.set_permissions(Permissions::from_mode(0o600))?;
            file.write_all(&header)?;
            Ok(file)
        };
        let file = create().map_err(|error| self.failed(error))?;
        Ok(Writing { last_good: self.clone(), bundle, file, length, written: 0, checksum })
    }

    /// Reads it into a new sealed memory file.
    pub fn read(&self) -> Result<OwnedFd, Missing> {
        let path = self.path();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Missing::Never),
            Err(error) => return Err(Missing::Damaged { path, reason: error.to_string() }),
        };
        open(&file).map_err(|error| Missing::Damaged { path, reason: crate::with_causes(&error) })
    }

    /// Keeps it as the previous one as well, unless it is the app of this bundle, or none is there. Only its beginning is looked
    /// at: whether it is whole is found out by whoever goes back to it.
    pub fn keep_before(&self, bundle: &OwnedFd) -> Result<(), SupervisorError> {
        let failed = |error| SupervisorError::os(format!("reading {}", self.path().display()), error);
        let file = match File::open(self.path()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let known = Bundle::read_from(&file, HEADER_BYTES);
        let both = known.and_then(|known| Ok((known, Bundle::read(bundle)?)));
        let (known, next) = both.map_err(|error| failed(io::Error::other(error)))?;
        if is_same_app(&known, &next) {
            return Ok(());
        }
        self.keep_as_previous()
    }

    /// Is the previous one as well from now on, without being written again.
    pub fn keep_as_previous(&self) -> Result<(), SupervisorError> {
        let previous = Self { folder: self.folder.clone(), file: PREVIOUS };
        let link = || {
            let beside = previous.path_being_written();
            match std::fs::remove_file(&beside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            std::fs::hard_link(self.path(), &beside)?;
            std::fs::rename(&beside, previous.path())?;
            // It is still there if both were the same file before.
            let _ = std::fs::remove_file(&beside);
            File::open(&self.folder)?.sync_all()
        };
        link().map_err(|error| previous.failed(error))
    }

    /// Whether it is the generation of this digest. Only its beginning is looked at.
    #[must_use]
    pub fn has(&self, digest: &str) -> bool {
        File::open(self.path()).is_ok_and(|file| is_of(&file, digest))
    }

    /// The same, and its code is for this kind of engine.
    #[must_use]
    pub fn has_code_of(&self, digest: &str, engine: &str) -> bool {
        let known = File::open(self.path()).ok().and_then(|file| Bundle::read_from(&file, HEADER_BYTES).ok());
        known.is_some_and(|known| known.digest == digest && known.engine == engine)
    }

    /// Takes it away, unless it is a generation of one of these digests: what should be in its place could not be written.
    pub fn remove_unless(&self, digests: &[&str]) -> Result<(), SupervisorError> {
        let is_spared = |file: &File| digests.iter().any(|digest| is_of(file, digest));
        let remove = || {
            match File::open(self.path()) {
                Ok(file) if is_spared(&file) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                _ => std::fs::remove_file(self.path())?,
            }
            File::open(&self.folder)?.sync_all()
        };
        remove().map_err(|error| SupervisorError::os(format!("removing {}", self.path().display()), error))
    }

    fn path(&self) -> PathBuf {
        self.folder.join(self.file)
    }

    fn failed(&self, error: io::Error) -> SupervisorError {
        SupervisorError::os(format!("writing {}", self.path().display()), error)
    }

    fn path_being_written(&self) -> PathBuf {
        self.folder.join(format!("{}.new", self.file))
    }
}

/// Whether a file begins as the generation of this digest does.
fn is_of(file: &File, digest: &str) -> bool {
    Bundle::read_from(file, HEADER_BYTES).is_ok_and(|found| found.digest == digest)
}

/// Whether both are the same app, wherever it lies, where it is served and with how many workers: flags may say that, and those
/// of today count for whatever is gone back to.
fn is_same_app(before: &Bundle, next: &Bundle) -> bool {
    if before.digest == next.digest {
        return true;
    }
    let configs = [before, next].map(|bundle| codec::decode::<Config>(&bundle.config));
    let [Ok(mut config), Ok(wanted)] = configs else { return false };
    config.app_dir.clone_from(&wanted.app_dir);
    config.modules_dir.clone_from(&wanted.modules_dir);
    config.data_dir.clone_from(&wanted.data_dir);
    config.control_socket.clone_from(&wanted.control_socket);
    config.admin_socket.clone_from(&wanted.admin_socket);
    config.listen.clone_from(&wanted.listen);
    config.listens_by_default = wanted.listens_by_default;
    config.workers.count = wanted.workers.count;
    config == wanted && before.catalog == next.catalog && before.modules == next.modules
}

impl Writing {
    /// Where it goes to.
    #[must_use]
    pub fn place(&self) -> &LastGood {
        &self.last_good
    }

    /// Leaves what is in its place. Of what was written nothing stays.
    pub fn give_up(self) {
        let _ = std::fs::remove_file(self.last_good.path_being_written());
    }

    /// Writes the next part. Of what cannot be written to its end nothing stays: the disk may be full.
    pub fn advance(&mut self) -> Result<Progress, SupervisorError> {
        self.step().map_err(|error| {
            let _ = std::fs::remove_file(self.last_good.path_being_written());
            self.last_good.failed(error)
        })
    }

    fn step(&mut self) -> io::Result<Progress> {
        let until = self.length.min(self.written.saturating_add(STEP_BYTES));
        self.copy_until(until)?;
        if self.written < self.length {
            // Each step waits for its own part, so that none waits for the whole.
            self.file.sync_data()?;
            return Ok(Progress::Some);
        }
        self.replace()?;
        Ok(Progress::Done)
    }

    fn copy_until(&mut self, until: u64) -> io::Result<()> {
        let Self { bundle, file, written, checksum, .. } = self;
        for_pieces(bundle, *written, until - *written, |piece| {
            checksum.update(piece);
            file.write_all(piece)?;
            *written += piece.len() as u64;
            Ok(())
        })
    }

    fn replace(&mut self) -> io::Result<()> {
        let LastGood { folder, file } = &self.last_good;
        self.file.write_all(&self.checksum.clone().finalize().to_le_bytes())?;
        let beside = self.last_good.path_being_written();
        put_in_place(&self.file, &beside, &folder.join(file), FolderSync::Required)
    }
}

/// Copies what the file holds into a sealed memory file, if it is whole.
fn open(file: &File) -> Result<OwnedFd, IpcError> {
    let failed = |error: io::Error| IpcError::os("reading it", error);
    let unexpected = |found: String, expected: String| IpcError::Unexpected {
        object: "the file".to_owned(),
        found,
        expected,
    };
    let length = file.metadata().map_err(failed)?.len();
    if length < HEADER_BYTES + TRAILER_BYTES {
        return Err(unexpected(format!("{length} bytes"), "a whole generation".to_owned()));
    }
    let mut header = [0; HEADER_BYTES as usize];
    file.read_exact_at(&mut header, 0).map_err(failed)?;
    let (magic, announced) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        let expected = "what this version of aegis writes; another one may have written it".to_owned();
        return Err(unexpected("another beginning".to_owned(), expected));
    }
    let announced = announced.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    if announced > BUNDLE_BYTES_MAX || announced != length - HEADER_BYTES - TRAILER_BYTES {
        let expected = format!("{announced} of a generation and {} around it", HEADER_BYTES + TRAILER_BYTES);
        return Err(unexpected(format!("{length} bytes"), expected));
    }
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&header);
    let mut memory = sealed::create("aegis-bundle")?;
    for_pieces(file, HEADER_BYTES, announced, |piece| {
        checksum.update(piece);
        memory.write_all(piece)
    })
    .map_err(failed)?;
    let mut trailer = [0; TRAILER_BYTES as usize];
    file.read_exact_at(&mut trailer, HEADER_BYTES + announced).map_err(failed)?;
    let (found, expected) = (checksum.finalize(), u32::from_le_bytes(trailer));
    if found != expected {
        return Err(unexpected(format!("checksum {found:08x}"), format!("{expected:08x}")));
    }
    sealed::seal(memory)
}

/// Hands `length` bytes of `file` from `start` on to `take`, a piece at a time.
fn for_pieces(
    file: &File,
    start: u64,
    length: u64,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(length).unwrap_or(PIECE_BYTES))];
    let (mut at, end) = (start, start + length);
    while at < end {
        let bytes = piece.len().min(usize::try_from(end - at).unwrap_or(PIECE_BYTES));
        file.read_exact_at(&mut piece[..bytes], at)?;
        take(&piece[..bytes])?;
        at += bytes as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use aegis_ipc::bundle::{BUNDLE_FORMAT, Bundle, Code};

    use super::*;

    fn bundle(digest: &str) -> Bundle {
        Bundle {
            format: BUNDLE_FORMAT,
            digest: digest.to_owned(),
            engine: "e".to_owned(),
            config: vec![1; 100],
            catalog: vec![2; 5000],
            code: Vec::new(),
            modules: Vec::new(),
        }
    }

    fn write(last_good: &LastGood, bundle: &OwnedFd) -> usize {
        let mut writing = last_good.begin(bundle).unwrap();
        let mut steps = 1;
        while writing.advance().unwrap() == Progress::Some {
            steps += 1;
        }
        steps
    }

    fn bytes_of(bundle: OwnedFd) -> Vec<u8> {
        let file = File::from(bundle);
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn the_newest_bundle_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let last_good = LastGood::of(directory.path());
        assert!(matches!(last_good.read(), Err(Missing::Never)));
        for digest in ["first", "second"] {
            assert_eq!(
                write(&last_good, &bundle(digest).seal().unwrap()),
                1,
                "small ones are written at once"
            );
            assert_eq!(Bundle::read(&last_good.read().unwrap()).unwrap(), bundle(digest));
        }
        let files: Vec<_> = std::fs::read_dir(directory.path().join(GENERATIONS_FOLDER)).unwrap().collect();
        assert_eq!(files.len(), 1, "nothing is left beside it");
        let mode = files[0].as_ref().unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "nobody else may read it");
    }

    #[test]
    fn another_generation_than_the_last_good_one_has_it_as_the_previous_one() {
        let directory = tempfile::tempdir().unwrap();
        let (last_good, previous) = (LastGood::of(directory.path()), LastGood::previous_of(directory.path()));
        let digest = |place: &LastGood| Bundle::read(&place.read().unwrap()).unwrap().digest;
        let sealed = |digest| bundle(digest).seal().unwrap();
        last_good.keep_before(&sealed("first")).unwrap();
        write(&last_good, &bundle("first").seal().unwrap());
        last_good.keep_before(&sealed("first")).unwrap();
        assert!(matches!(previous.read(), Err(Missing::Never)));
        for _ in 0..2 {
            last_good.keep_before(&sealed("second")).unwrap();
            assert_eq!((digest(&previous), digest(&last_good)), ("first".to_owned(), "first".to_owned()));
        }
        write(&last_good, &bundle("second").seal().unwrap());
        assert_eq!((digest(&previous), digest(&last_good)), ("first".to_owned(), "second".to_owned()));
        let files = std::fs::read_dir(directory.path().join(GENERATIONS_FOLDER)).unwrap();
        assert_eq!(files.count(), 2, "nothing is left beside them");
        std::fs::write(last_good.path(), "nonsense").unwrap();
        let told = crate::with_causes(&last_good.keep_before(&sealed("third")).unwrap_err());
        assert!(told.contains("generations/last-good"), "{told}");
        assert_eq!(digest(&previous), "first");
    }

    #[test]
    fn what_is_taken_away_is_gone_unless_it_is_the_one_that_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let previous = LastGood::previous_of(directory.path());
        previous.remove_unless(&["first"]).unwrap();
        assert!(!previous.has("first"));
        write(&previous, &bundle("first").seal().unwrap());
        previous.remove_unless(&["second", "first"]).unwrap();
        assert!(previous.has("first") && !previous.has("second"));
        assert!(previous.has_code_of("first", "e") && !previous.has_code_of("first", "another"));
        previous.remove_unless(&["second"]).unwrap();
        assert!(matches!(previous.read(), Err(Missing::Never)));
        std::fs::write(previous.path(), "nonsense").unwrap();
        previous.remove_unless(&["first"]).unwrap();
        assert!(matches!(previous.read(), Err(Missing::Never)));
    }

    #[test]
    fn an_app_is_the_same_wherever_it_is_served() {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::test_config(folder.path());
        let with = |digest: &str, config: &Config| Bundle {
            config: codec::encode(config).unwrap(),
            ..bundle(digest)
        };
        let (mut moved, mut changed) = (config.clone(), config.clone());
        moved.workers.count += 1;
        moved.data_dir = "/elsewhere".into();
        changed.limits.body_bytes_max += 1;
        let first = with("first", &config);
        assert!(is_same_app(&first, &with("second", &moved)));
        assert!(!is_same_app(&first, &with("second", &changed)));
        assert!(!is_same_app(&first, &Bundle { catalog: Vec::new(), ..with("second", &moved) }));
    }

    #[test]
    fn code_is_kept_as_well_and_written_step_by_step() {
        let directory = tempfile::tempdir().unwrap();
        let last_good = LastGood::of(directory.path());
        write(&last_good, &bundle("before").seal().unwrap());
        let bytes = (0..10_000_000_u32).map(|at| (at % 251) as u8).collect();
        let sealed = bundle("large").seal_with(vec![Code { digest: "c".to_owned(), bytes }]).unwrap();
        let mut writing = last_good.begin(&sealed).unwrap();
        assert_eq!(writing.advance().unwrap(), Progress::Some);
        assert_eq!(Bundle::read(&last_good.read().unwrap()).unwrap().digest, "before");
        assert_eq!(writing.advance().unwrap(), Progress::Some);
        assert_eq!(writing.advance().unwrap(), Progress::Done);
        assert!(bytes_of(last_good.read().unwrap()) == bytes_of(sealed));
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let last_good = LastGood::of(directory.path());
        write(&last_good, &bundle("x").seal().unwrap());
        let path = directory.path().join(GENERATIONS_FOLDER).join(LAST_GOOD);
        let whole = std::fs::read(&path).unwrap();
        for position in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
            std::fs::write(&path, &whole[..position]).unwrap();
            assert!(matches!(last_good.read(), Err(Missing::Damaged { .. })), "cut at {position}");
            let mut flipped = whole.clone();
            flipped[position] ^= 0x10;
            std::fs::write(&path, &flipped).unwrap();
            assert!(matches!(last_good.read(), Err(Missing::Damaged { .. })), "flipped at {position}");
        }
    }

    #[test]
    fn the_file_of_another_version_is_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join(GENERATIONS_FOLDER);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join(LAST_GOOD), [7; 100]).unwrap();
        let message = LastGood::of(directory.path()).read().unwrap_err().to_string();
        assert!(
            message.ends_with("expected what this version of aegis writes; another one may have written it"),
            "{message}"
        );
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error_with_the_path() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(GENERATIONS_FOLDER), "a file").unwrap();
        let error = LastGood::of(directory.path()).begin(&bundle("x").seal().unwrap()).unwrap_err();
        assert!(error.to_string().ends_with("generations/last-good failed"), "{error}");
    }

    #[test]
    fn of_a_bundle_that_is_given_up_nothing_stays() {
        let directory = tempfile::tempdir().unwrap();
        let last_good = LastGood::of(directory.path());
        write(&last_good, &bundle("first").seal().unwrap());
        last_good.begin(&bundle("second").seal().unwrap()).unwrap().give_up();
        let files = std::fs::read_dir(directory.path().join(GENERATIONS_FOLDER)).unwrap();
        assert_eq!((files.count(), last_good.has("first")), (1, true));
    }

    #[test]
    fn of_a_bundle_that_cannot_be_kept_nothing_stays() {
        let directory = tempfile::tempdir().unwrap();
        let last_good = LastGood::of(directory.path());
        let folder = directory.path().join(GENERATIONS_FOLDER);
        std::fs::create_dir_all(folder.join(LAST_GOOD).join("in the way")).unwrap();
        let mut writing = last_good.begin(&bundle("x").seal().unwrap()).unwrap();
        while matches!(writing.advance(), Ok(Progress::Some)) {}
        let left: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [LAST_GOOD]);
    }
}
