//! The data while the host is down: `aegis data export|import|verify`.
//!
//! All three take the locks of a host and of its store, so they refuse to run beside one, and open the store as the host would: an
//! unfinished last group is moved aside first.
//!
//! An export is text, one JSON object per line: a header, then one line for each document on disk.
//!
//! ```text
//! {"format":"aegis-documents","version":1,"documents":2,"sequence":17}
//! {"model":"TODO","id":"a","revision":1,"sequence":16,"document":{"text":"x","id":"a",…}}
//! {"model":"TODO","id":"b","revision":3,"sequence":17,"document":{"text":"y","id":"b",…}}
//! ```
//!
//! `document` is, byte for byte, what a GET answers (a line break between its tokens would be written as a space).
//! Log, idempotency keys and documents in memory are not part of it.

mod declare;
mod export;
mod import;
mod owners;
mod verify;

use std::{io, path::Path};

use aegis_domain::catalog::{self, Catalog};
use serde::{Deserialize, Serialize};

pub use self::{
    declare::Declared,
    export::{Exported, LeftOut, export},
    import::{Imported, import},
    verify::{Verified, verify},
};
use crate::{
    catalog::Rules,
    control::store_folder,
    engine::{
        Engine, EngineResult, Recovered,
        fjall::{FjallEngine, Opened, Options},
    },
    error::{EXIT_CONFIGURATION, EXIT_SYSTEM, EngineError, StoreError},
    index::Indexes,
    lock::{HostLock, StoreLock},
};

/// First line of an export.
const FORMAT: &str = "aegis-documents";
/// Version of the lines that follow.
const VERSION: u32 = 1;
/// Block cache of the engine while a tool runs, bytes.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// `EX_DATAERR` of sysexits.h: what was fed in is wrong.
const EXIT_INPUT: u8 = 65;

/// How far a tool has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Documents (of a verification: rows) done.
    pub done: u64,
    /// How many there are, when it is known beforehand.
    pub total: Option<u64>,
}

/// Why a tool ended early. What was done until then stays done, and the tool can be run again.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// There is nothing to work on.
    #[error("{folder} holds no store")]
    NoStore {
        /// Where it should be.
        folder: String,
    },
    /// The store cannot be opened or used.
    #[error("{operation} failed")]
    Store {
        /// What was attempted.
        operation: String,
        /// Exit status that goes with it.
        code: u8,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The export cannot be read, or not be written.
    #[error("{operation} failed")]
    Stream {
        /// What was attempted.
        operation: &'static str,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// A line of the import is wrong. None of the lines since the last chunk was taken.
    #[error("line {line}: {reason}; {imported} documents were imported")]
    Line {
        /// Counted from 1, the header included.
        line: u64,
        /// What is wrong.
        reason: String,
        /// Documents that are safe already.
        imported: u64,
    },
    /// The export ends early. What there was is imported, unless it needs a value that another document may have given up
    /// in what is missing.
    #[error(
        "the export is cut short: its header announces {announced} documents, found {found}; {imported} documents were imported"
    )]
    CutShort {
        /// By the header.
        announced: u64,
        /// In the lines.
        found: u64,
        /// Documents that are safe already.
        imported: u64,
    },
    /// The models of the app do not fit together.
    #[error("the models of the app cannot be used: {mistakes}")]
    Models {
        /// What is wrong with them.
        mistakes: String,
    },
    /// What earlier imports have written does not keep to what the app declares now.
    #[error(
        "documents of an earlier import do not fit the models of the app: {reasons}; \
         no host has used this store yet, so it can be removed and made anew by an import"
    )]
    Misfit {
        /// The first of them.
        reasons: String,
    },
    /// A document cannot be written as a line.
    #[error("document {id:?} of model {model} is no JSON: {reason}; `aegis data verify` tells more")]
    Document {
        /// Its model.
        model: String,
        /// Its id.
        id: String,
        /// What is wrong.
        reason: String,
    },
}

impl DataError {
    /// Exit status that goes with the failure: 65 wrong input, 71 the operating system, 75 try again (a host runs),
    /// 78 the data need a person.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoStore { .. } | Self::Document { .. } | Self::Models { .. } | Self::Misfit { .. } => {
                EXIT_CONFIGURATION
            }
            Self::Store { code, .. } => *code,
            Self::Stream { .. } => EXIT_SYSTEM,
            Self::Line { .. } | Self::CutShort { .. } => EXIT_INPUT,
        }
    }

    fn store(operation: impl Into<String>, source: EngineError) -> Self {
        Self::Store { operation: operation.into(), code: source.exit_code(), source: Box::new(source) }
    }
}

impl From<StoreError> for DataError {
    fn from(source: StoreError) -> Self {
        let (operation, code) = ("opening the store".to_owned(), source.exit_code());
        Self::Store { operation, code, source: Box::new(source) }
    }
}

/// First line of an export.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    documents: u64,
    sequence: u64,
}

/// A store that a tool works on alone.
struct Alone {
    engine: FjallEngine,
    recovered: Recovered,
    /// What is worth knowing although nothing is wrong.
    notes: Vec<String>,
    _locks: (HostLock, StoreLock),
}

impl Alone {
    /// Opens the store of a data folder to read it; it has to exist. The version that wrote it can still use it afterwards.
    fn open(data_folder: &Path) -> Result<Self, DataError> {
        let options = Self::options(data_folder);
        let exists = options.exists().map_err(|source| DataError::Store {
            operation: "opening the store".to_owned(),
            code: EXIT_SYSTEM,
            source: Box::new(source),
        })?;
        if !exists {
            return Err(DataError::NoStore { folder: options.folder.display().to_string() });
        }
        Self::with(data_folder, &options, Options::open_as_it_is)
    }

    /// Opens the store of a data folder to write into it, and makes it when there is none.
    fn open_or_make(data_folder: &Path) -> Result<Self, DataError> {
        Self::with(data_folder, &Self::options(data_folder), Options::open)
    }

    fn with(
        data_folder: &Path,
        options: &Options,
        open: fn(&Options) -> EngineResult<Opened>,
    ) -> Result<Self, DataError> {
        let locks = (HostLock::take(data_folder)?, StoreLock::take(&options.folder)?);
        let opening = |source| DataError::store("opening the store", source);
        let Opened { engine, set_aside } = open(options).map_err(opening)?;
        let recovered = engine.recover().map_err(opening)?;
        let notes = set_aside.map(|set_aside| {
            format!("the last group was not finished; nobody was told of it, and {set_aside}")
        });
        Ok(Self { engine, recovered, notes: notes.into_iter().collect(), _locks: locks })
    }

    fn options(data_folder: &Path) -> Options {
        Options { folder: store_folder(data_folder), cache_bytes: CACHE_BYTES }
    }

    /// The models that the store was last used with, if they can be understood; before a host has used it, those that
    /// were declared to the last import.
    fn catalog(&self) -> Option<Catalog> {
        let known = self.recovered.catalog.as_ref().or(self.recovered.declared.as_ref());
        let specs = catalog::decode(known?).ok()?;
        Catalog::build(specs).ok()
    }

    /// What documents have to keep to.
    fn rules(&self, catalog: &Catalog) -> Rules {
        let indexes = Indexes::recovered(&self.recovered);
        Rules::at_rest(catalog, |name| indexes.find(name))
    }
}

#[cfg(test)]
mod tests;
