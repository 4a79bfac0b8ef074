//! Opening the folder of an engine: what may be repaired is repaired, what may not is named and left alone.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::atomic::AtomicU64,
};

use fjall::{Database, KeyspaceCreateOptions};
use parking_lot::Mutex;

use super::{
    FjallEngine, files,
    ground::Ground,
    journal::{self, SetAside},
};
use crate::{
    engine::{
        EngineResult,
        records::{self, FORMAT, FORMAT_OLDEST, Flaw},
    },
    error::EngineError,
    lock::make_folder,
};

/// Folder of the engine inside the store's folder.
const ENGINE_FOLDER: &str = "engine";
/// Stands beside the engine's folder while it is made, so that a half-made one is never taken for a damaged one. The
/// engine is not made under this name: opened again it would cut its journal file down to what it holds, see
/// [`super::ground`].
const NEW_MARK: &str = "engine.new";
/// Where the ends of torn journal files are kept.
const TORN_FOLDER: &str = "torn";
/// File that the engine writes last when it is made.
pub(super) const VERSION_FILE: &str = "version";
/// The journal format that [`journal`] reads, as the engine's version file says it.
const VERSION_KNOWN: &[u8] = b"FJL\x03";
/// Folder of the engine's partitions, one folder each.
pub(super) const PARTITIONS_FOLDER: &str = "keyspaces";
/// Partitions are numbered from 1 in the order in which they are made; 0 is the engine's own.
const PARTITIONS: u32 = 6;
/// File without which the engine deletes a partition's folder.
pub(super) const PARTITION_FILE: &str = "current";

/// Journal files may grow to this before partitions that hold them back are written out, bytes. They are read at every
/// start, and this much takes well under a second.
const JOURNAL_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Rows of the two large partitions wait in memory up to this, bytes.
const LARGE_BUFFER_BYTES: u64 = 32 * 1024 * 1024;
/// Rows of a small partition wait in memory up to this, bytes.
const SMALL_BUFFER_BYTES: u64 = 8 * 1024 * 1024;

/// How an engine is opened.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The store's folder.
    pub(crate) folder: PathBuf,
    /// Bytes of blocks kept in memory.
    pub(crate) cache_bytes: u64,
}

/// An opened engine.
pub(crate) struct Opened {
    /// The engine.
    pub(crate) engine: FjallEngine,
    /// What became of the unfinished last group, if there was one.
    pub(crate) set_aside: Option<SetAside>,
}

impl Options {
    /// Folder of the engine's files.
    pub(crate) fn engine_folder(&self) -> PathBuf {
        self.folder.join(ENGINE_FOLDER)
    }

    /// Is there anything to open? A half-made engine is nothing, and one that may not be looked at is something.
    pub(crate) fn exists(&self) -> EngineResult<bool> {
        let folder = self.engine_folder();
        if !folder.try_exists().map_err(|error| io("looking for", &folder, error))? {
            return Ok(false);
        }
        // A mark alone is no proof: somebody may have put a backup where the making of an engine was interrupted. What
        // is made last is the first group.
        let half_made =
            self.folder.join(NEW_MARK).is_file() && journal::is_unwritten(&folder).unwrap_or(false);
        Ok(!half_made)
    }

    /// Opens the engine, and makes it when there is none. From now on there may be rows in it that older versions do not
    /// understand.
    pub(crate) fn open(&self) -> EngineResult<Opened> {
        if !self.exists()? {
            return Ok(Opened { engine: self.create()?, set_aside: None });
        }
        let opened = self.open_as_it_is()?;
        opened.engine.raise_format()?;
        Ok(opened)
    }

    /// Opens an engine that is there, for reading only: older versions understand it as well as before.
    pub(crate) fn open_as_it_is(&self) -> EngineResult<Opened> {
        let folder = self.engine_folder();
        self.remove_mark()?;
        check_files(&folder)?;
        let mut set_aside = None;
        if reads_journal(&folder)? {
            if let Some(torn) = journal::check(&folder)? {
                set_aside = Some(journal::set_aside(&torn, &self.folder.join(TORN_FOLDER))?);
            }
            journal::write_last_group_again(&folder)?;
        }
        let engine = self.open_folder(&folder)?;
        engine.check_format()?;
        Ok(Opened { engine, set_aside })
    }

    /// Makes an empty engine. What is left of an earlier try goes before: nothing was ever served from it.
    fn create(&self) -> EngineResult<FjallEngine> {
        let (folder, mark) = (self.engine_folder(), self.folder.join(NEW_MARK));
        make_folder(&self.folder).map_err(|error| io("creating", &self.folder, error))?;
        // Earlier versions made the engine in a folder of the mark's name.
        for half_made in [&folder, &mark].into_iter().filter(|path| path.is_dir()) {
            std::fs::remove_dir_all(half_made)
                .map_err(|error| io("removing the half-made", half_made, error))?;
        }
        std::fs::write(&mark, "").map_err(|error| io("creating", &mark, error))?;
        self.sync_folder()?;
        let engine = self.open_folder(&folder)?;
        let mut batch = engine.database.batch().durability(Some(fjall::PersistMode::SyncAll));
        batch.insert(&engine.meta, records::META_FORMAT, FORMAT.to_le_bytes());
        batch.commit().map_err(|error| engine.failed("writing the format", error))?;
        self.remove_mark()?;
        Ok(engine)
    }

    fn remove_mark(&self) -> EngineResult<()> {
        let mark = self.folder.join(NEW_MARK);
        if !mark.is_file() {
            return Ok(());
        }
        std::fs::remove_file(&mark).map_err(|error| io("removing", &mark, error))?;
        self.sync_folder()
    }

    fn sync_folder(&self) -> EngineResult<()> {
        let synced = std::fs::File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| io("syncing", &self.folder, error))
    }

    fn open_folder(&self, folder: &Path) -> EngineResult<FjallEngine> {
        let name = folder.display().to_string();
        let failed = |error| EngineError::from_fjall(format!("opening {name}"), &name, error);
        // The engine panics on some shapes of damage. It has started no thread then that would matter to us.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let builder =
                Database::builder(folder).cache_size(self.cache_bytes).max_journaling_size(JOURNAL_BYTES_MAX);
            builder.open()
        }));
        let database = match opened {
            Ok(database) => database.map_err(failed)?,
            Err(panic) => {
                return Err(EngineError::damaged(name, format!("the engine gave up: {}", words(&*panic))));
            }
        };
        let keyspace = |name: &str, buffer_bytes: u64| {
            database
                .keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(buffer_bytes))
                .map_err(failed)
        };
        let documents = keyspace("documents", LARGE_BUFFER_BYTES)?;
        let log = keyspace("log", LARGE_BUFFER_BYTES)?;
        let unique = keyspace("unique", SMALL_BUFFER_BYTES)?;
        let responses = keyspace("responses", SMALL_BUFFER_BYTES)?;
        let requests = keyspace("requests", SMALL_BUFFER_BYTES)?;
        let meta = keyspace("meta", SMALL_BUFFER_BYTES)?;
        let mut engine = FjallEngine {
            folder: name,
            database: database.clone(),
            documents,
            log,
            unique,
            responses,
            requests,
            meta,
            last: AtomicU64::new(0),
            log_oldest: AtomicU64::new(1),
            log_swept: AtomicU64::new(0),
            responses_swept_ms: AtomicU64::new(0),
            ground: Mutex::new(Ground::of(folder)),
        };
        engine.read_numbers()?;
        Ok(engine)
    }
}

impl FjallEngine {
    fn read_numbers(&mut self) -> EngineResult<()> {
        if let Some(row) = self.log.last_key_value() {
            let key = row.key().map_err(|error| self.failed("reading the log", error))?;
            let last = records::read_number_key(&key).map_err(|flaw| self.flawed("log", &key, &flaw))?;
            *self.last.get_mut() = last;
        }
        if let Some(oldest) = self.meta_number(records::META_LOG_OLDEST)? {
            *self.log_oldest.get_mut() = oldest;
        }
        Ok(())
    }

    fn check_format(&self) -> EngineResult<u32> {
        let bytes = self.get(&self.meta, records::META_FORMAT, "reading the format")?;
        match bytes.as_deref().and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes) {
            Some(found) if found > FORMAT => {
                Err(EngineError::NewerFormat { path: PathBuf::from(&self.folder), found, supported: FORMAT })
            }
            Some(found @ FORMAT_OLDEST..=FORMAT) => Ok(found),
            Some(_) | None => {
                let found =
                    bytes.map_or_else(|| "nothing".to_owned(), |bytes| bytes.escape_ascii().to_string());
                let reason = format!("its format number: found {found}, expected {FORMAT}");
                Err(EngineError::damaged(self.folder.as_str(), reason))
            }
        }
    }

    /// From now on there may be rows that older versions do not understand.
    fn raise_format(&self) -> EngineResult<()> {
        if self.check_format()? == FORMAT {
            return Ok(());
        }
        let mut batch = self.database.batch().durability(Some(fjall::PersistMode::SyncAll));
        batch.insert(&self.meta, records::META_FORMAT, FORMAT.to_le_bytes());
        batch.commit().map_err(|error| self.failed("raising the format", error))
    }

    /// The number up to which numbers are reserved for changes that are only in memory.
    pub(crate) fn reserved(&self) -> EngineResult<u64> {
        Ok(self.meta_number(records::META_RESERVED)?.unwrap_or(0))
    }

    fn meta_number(&self, key: &[u8]) -> EngineResult<Option<u64>> {
        let Some(value) = self.get(&self.meta, key, "reading the meta data")? else { return Ok(None) };
        read_number(&value).map(Some).map_err(|flaw| self.flawed("meta", key, &flaw))
    }

    /// The format number, for tests of what becomes of it.
    #[cfg(test)]
    pub(crate) fn format(&self) -> Option<u32> {
        let bytes = self.meta.get(records::META_FORMAT).unwrap()?;
        Some(u32::from_le_bytes((*bytes).try_into().unwrap()))
    }

    /// Changes the format number, for tests of what happens then.
    #[cfg(test)]
    pub(crate) fn pretend_format(&self, format: u32) {
        self.meta.insert(records::META_FORMAT, format.to_le_bytes()).unwrap();
        self.database.persist(fjall::PersistMode::SyncAll).unwrap();
    }
}

/// Reads a number of the `meta` partition.
pub(super) fn read_number(value: &[u8]) -> Result<u64, Flaw> {
    let bytes =
        value.try_into().map_err(|_| Flaw::Length { found: value.len(), expected: "8".to_owned() })?;
    Ok(u64::from_le_bytes(bytes))
}

/// Can [`journal`] read the journal of this folder?
pub(crate) fn reads_journal(folder: &Path) -> EngineResult<bool> {
    let path = folder.join(VERSION_FILE);
    let version = std::fs::read(&path)
        .map_err(|error| EngineError::io(format!("reading {}", path.display()), error))?;
    Ok(version.starts_with(VERSION_KNOWN))
}

/// Refuses a folder in which files are missing: the engine would take it for a new one, or delete what is left.
pub(crate) fn check_files(folder: &Path) -> EngineResult<()> {
    let gone = |path: PathBuf| EngineError::damaged(path.display().to_string(), "the file is gone");
    let version = folder.join(VERSION_FILE);
    if !version.exists() {
        return Err(gone(version));
    }
    let partitions = folder.join(PARTITIONS_FOLDER);
    let failed = |error| EngineError::io(format!("listing {}", partitions.display()), error);
    for number in 0..=PARTITIONS {
        let path = partitions.join(number.to_string()).join(PARTITION_FILE);
        if !path.exists() {
            return Err(gone(path));
        }
    }
    for entry in std::fs::read_dir(&partitions).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let named =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<u64>().is_ok());
        if !named {
            return Err(EngineError::damaged(
                path.display().to_string(),
                "nothing of this name belongs here",
            ));
        }
        files::check_tables(&path)?;
    }
    Ok(())
}

fn io(operation: &str, path: &Path, error: std::io::Error) -> EngineError {
    EngineError::io(format!("{operation} {}", path.display()), error)
}

fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given")
}
