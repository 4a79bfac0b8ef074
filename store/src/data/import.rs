//! Documents from text.

mod lines;

use std::{collections::HashSet, io::BufRead, path::Path};

use aegis_domain::catalog::Catalog;
use aegis_ipc::data::{Change, ChangeKind};
use bytes::Bytes;

use self::lines::{Line, Lines, read_document, read_header, wrong};
use super::{
    Alone, DataError, Declared, Header, Progress,
    owners::{Objection, Owners, Taken},
};
use crate::{
    clock::now_ms,
    commit::WRITE_BYTES_MAX,
    engine::{Batch, Engine, EngineResult, IndexRow, IndexState, MetaEdit, fjall::FjallEngine},
    error::chain,
    storage::Place,
};

/// Documents that are written together.
const CHUNK_DOCUMENTS: usize = 512;
/// Bytes of documents after which a chunk takes no further one.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// Lines that are put aside together, bytes. They are written at once, so it is less than a single write may be.
const ASIDE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What a line that is put aside takes beside its texts, bytes; more than it is.
const ASIDE_LINE_BYTES: usize = 256;

/// What was imported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Imported {
    /// Documents that did not exist.
    pub created: u64,
    /// Documents that existed in another version.
    pub replaced: u64,
    /// Documents that existed exactly so.
    pub unchanged: u64,
}

impl Imported {
    fn total(self) -> u64 {
        self.created + self.replaced + self.unchanged
    }
}

/// Takes the documents of an export into the store in `data_folder`, which is made when there is none. A document
/// that exists is replaced, all others stay. Documents are written in chunks, each as a whole; running the same import
/// again changes nothing that is already there. A unique value may go from one document to another, in whatever order
/// their lines are. A store that no host has used knows the models that are `declared`, so that a value of a unique field
/// is there only once; one that a host has used knows its models itself.
///
/// # Errors
/// A host runs, the store cannot be used, the input cannot be read, or a line of it is wrong.
pub fn import(
    data_folder: &Path,
    declared: &Declared<'_>,
    input: &mut dyn BufRead,
    progress: &mut dyn FnMut(Progress),
) -> Result<Imported, DataError> {
    let mut lines = Lines::new(input);
    let header = read_header(&mut lines)?;
    let mut alone = Alone::open_or_make(data_folder)?;
    alone.declare(declared)?;
    let catalog = alone.catalog();
    let importer = Importer::new(&alone, catalog.as_ref(), declared);
    let outcome = take_all(importer, &mut lines, &header, progress);
    if !matches!(outcome, Err(DataError::Store { .. }))
        && let Err(error) = alone.engine.ended()
    {
        tracing::warn!(error = chain(&error), "the orderly end of the import was not marked");
    }
    outcome
}

fn take_all(
    mut importer: Importer<'_>,
    lines: &mut Lines<'_>,
    header: &Header,
    progress: &mut dyn FnMut(Progress),
) -> Result<Imported, DataError> {
    let report = |done: Imported, progress: &mut dyn FnMut(Progress)| {
        progress(Progress { done: done.total(), total: Some(header.documents) });
    };
    while let Some(text) = lines.next(importer.done.total())? {
        if importer.found() == header.documents {
            let reason = format!(
                "the header announces {} documents, and here is one more, expected the end of the export",
                header.documents
            );
            return Err(lines.wrong(reason, importer.done.total()));
        }
        let document = read_document(&text).and_then(|line| importer.check(line));
        let document = document.map_err(|reason| lines.wrong(reason, importer.done.total()))?;
        if importer.is_full(&document) {
            importer.write().map_err(|failure| failure.at(lines.number(), importer.done.total()))?;
            report(importer.done, progress);
        }
        let added = importer.add(document, lines.number());
        added.map_err(|failure| failure.at(lines.number(), importer.done.total()))?;
    }
    let found = importer.found();
    let is_cut_short = found < header.documents;
    let aside = if is_cut_short { Ok(()) } else { importer.take_aside() };
    let written = aside.and_then(|()| importer.write());
    written.map_err(|failure| failure.at(lines.number(), importer.done.total()))?;
    report(importer.done, progress);
    if is_cut_short {
        let (announced, imported) = (header.documents, importer.done.total());
        return Err(DataError::CutShort { announced, found, imported });
    }
    Ok(importer.done)
}

/// Why a chunk was not written.
enum Failure {
    /// The document of the line at hand.
    Document(String),
    /// That of a line that was put aside.
    Aside(u64, String),
    Engine(crate::error::EngineError),
}

impl Failure {
    fn at(self, line: u64, imported: u64) -> DataError {
        match self {
            Self::Document(reason) => wrong(line, reason, imported),
            Self::Aside(line, reason) => wrong(line, reason, imported),
            Self::Engine(source) => DataError::store("writing the documents", source),
        }
    }

    fn of(model: &str, objection: Objection) -> Self {
        match objection {
            Objection::Body(reason) => Self::Document(format!("document: {reason}")),
            Objection::Taken(taken) => Self::Document(told(model, &taken)),
            Objection::Engine(source) => Self::Engine(source),
        }
    }

    /// The same about a line that was put aside.
    fn aside(self, line: u64) -> Self {
        match self {
            Self::Document(reason) => Self::Aside(line, reason),
            Self::Aside(..) | Self::Engine(_) => self,
        }
    }
}

impl From<crate::error::EngineError> for Failure {
    fn from(error: crate::error::EngineError) -> Self {
        Self::Engine(error)
    }
}

fn told(model: &str, Taken { field, owner, .. }: &Taken) -> String {
    format!("unique field {field} of model {model}: document {owner:?} has the same value")
}

/// Lines with values that other documents have, which may give them up in a line that is yet to come.
#[derive(Default)]
struct Aside {
    lines: Vec<Waiting>,
    documents: HashSet<(String, String)>,
    bytes: usize,
}

struct Waiting {
    number: u64,
    line: Line,
}

struct Importer<'a> {
    engine: &'a FjallEngine,
    catalog: Option<&'a Catalog>,
    declared: &'a Declared<'a>,
    owners: Owners<'a>,
    /// Sent with the first chunk.
    meta: Vec<MetaEdit>,
    /// Documents whose last change is not after this one are as they were before the import.
    begin: u64,
    last: u64,
    changes: Vec<Change>,
    documents: HashSet<(String, String)>,
    bytes: usize,
    aside: Aside,
    chunk: Imported,
    done: Imported,
}

impl<'a> Importer<'a> {
    fn new(alone: &'a Alone, catalog: Option<&'a Catalog>, declared: &'a Declared<'a>) -> Self {
        // Without the models nobody knows what is unique: the next start of the host builds the indexes anew, and
        // tells about values that are there twice.
        let drop_all =
            || alone.recovered.indexes.iter().map(|row: &IndexRow| MetaEdit::DropIndex(row.clone()));
        // An index that the models do not name was built for a generation that has not come into force. What is imported
        // would be missing in it.
        let is_named = |row: &IndexRow| {
            let model = catalog.and_then(|catalog| catalog.by_name(&row.name.model));
            model.is_some_and(|model| model.unique_fields().contains(&row.name.field))
        };
        let unfinished = |edit: &MetaEdit| match edit {
            MetaEdit::DropIndex(row) => row.state == IndexState::Building || !is_named(row),
            _ => false,
        };
        Self {
            engine: &alone.engine,
            catalog,
            declared,
            owners: Owners::new(&alone.engine, catalog.map(|catalog| alone.rules(catalog))),
            meta: drop_all().filter(unfinished).collect(),
            begin: alone.engine.last(),
            last: alone.engine.last().max(alone.recovered.reserved),
            changes: Vec::new(),
            documents: HashSet::new(),
            bytes: 0,
            aside: Aside::default(),
            chunk: Imported::default(),
            done: Imported::default(),
        }
    }

    fn check(&self, line: Line) -> Result<Line, String> {
        let model = self.catalog.and_then(|catalog| catalog.by_name(&line.model));
        match model.map(|model| self.declared.place(model.spec())) {
            Some(Place::Memory) => {
                Err(format!("model {} keeps its documents in memory, so they cannot be imported", line.model))
            }
            Some(Place::File) | None => Ok(line),
        }
    }

    /// Documents of all lines so far.
    fn found(&self) -> u64 {
        self.done.total() + self.chunk.total() + self.aside.lines.len() as u64
    }

    /// Has the chunk to be written before this document?
    fn is_full(&self, line: &Line) -> bool {
        self.documents.len() >= CHUNK_DOCUMENTS
            || self.bytes >= CHUNK_BYTES
            || self.documents.contains(&(line.model.clone(), line.id.clone()))
    }

    fn add(&mut self, line: Line, number: u64) -> Result<(), Failure> {
        let key = (line.model.clone(), line.id.clone());
        if self.aside.documents.contains(&key) {
            let (model, id) = key;
            let reason = format!(
                "document {id:?} of model {model} is there for the second time, and the first one has to wait for a \
                 value that another document has"
            );
            return Err(Failure::Document(reason));
        }
        let existing = self.engine.document(&line.model, &line.id)?;
        let body = line.document.get().as_bytes();
        if existing.as_ref().is_some_and(|known| known.revision == line.revision && known.body == body) {
            self.chunk.unchanged += 1;
            self.bytes += body.len();
            self.documents.insert(key);
            return Ok(());
        }
        match self.owners.change(&line.model, &line.id, existing.as_ref(), body) {
            Ok(()) => {
                self.take(line, existing.is_some());
                Ok(())
            }
            Err(Objection::Taken(taken)) if self.may_be_given_up(&line.model, &taken)? => {
                self.put_aside(line, number, &taken)
            }
            Err(objection) => Err(Failure::of(&line.model, objection)),
        }
    }

    /// The document is part of the chunk.
    fn take(&mut self, line: Line, is_there: bool) {
        let Line { model, id, revision, document } = line;
        let body = Bytes::copy_from_slice(document.get().as_bytes());
        self.bytes += body.len();
        self.documents.insert((model.clone(), id.clone()));
        if is_there {
            self.chunk.replaced += 1;
        } else {
            self.chunk.created += 1;
        }
        self.last += 1;
        let kind = ChangeKind::Put { id, revision, body, changes: None };
        self.changes.push(Change { sequence: self.last, model, kind, time_ms: now_ms() });
    }

    /// Whether the document that has a value is one that this import has not written.
    fn may_be_given_up(&self, model: &str, taken: &Taken) -> EngineResult<bool> {
        if self.documents.contains(&(model.to_owned(), taken.owner.clone())) {
            return Ok(false);
        }
        let head = self.engine.head(model, &taken.owner)?;
        Ok(head.is_some_and(|head| head.sequence <= self.begin))
    }

    fn put_aside(&mut self, line: Line, number: u64, taken: &Taken) -> Result<(), Failure> {
        let bytes = ASIDE_LINE_BYTES + 2 * (line.model.len() + line.id.len()) + line.document.get().len();
        if self.aside.bytes + bytes > ASIDE_BYTES_MAX {
            let reason = told(&line.model, taken);
            return Err(Failure::Document(format!(
                "{reason}, and more than {ASIDE_BYTES_MAX} bytes of lines would have to wait for such values"
            )));
        }
        self.aside.bytes += bytes;
        self.aside.documents.insert((line.model.clone(), line.id.clone()));
        self.aside.lines.push(Waiting { number, line });
        Ok(())
    }

    /// Takes the lines that were put aside. All of them give up what they had before any gets what it has, so that
    /// documents can exchange their values.
    fn take_aside(&mut self) -> Result<(), Failure> {
        if self.bytes + self.aside.bytes > WRITE_BYTES_MAX {
            self.write()?;
        }
        let mut is_there = Vec::new();
        let aside = std::mem::take(&mut self.aside).lines;
        for Waiting { number, line } in &aside {
            let existing = self.engine.document(&line.model, &line.id)?;
            is_there.push(existing.is_some());
            if let Some(existing) = existing {
                let released = self.owners.release(&existing, line.document.get().as_bytes());
                released.map_err(|objection| Failure::of(&line.model, objection).aside(*number))?;
            }
        }
        for (Waiting { number, line }, is_there) in aside.into_iter().zip(is_there) {
            let claimed = self.owners.claim(&line.model, &line.id, line.document.get().as_bytes());
            claimed.map_err(|objection| Failure::of(&line.model, objection).aside(number))?;
            self.take(line, is_there);
        }
        Ok(())
    }

    /// Writes the chunk as a whole.
    fn write(&mut self) -> Result<(), Failure> {
        let batch = Batch {
            changes: self.changes.iter().collect(),
            unique: self.owners.take_edits(),
            meta: std::mem::take(&mut self.meta),
            ..Batch::default()
        };
        self.engine.apply(&batch)?;
        drop(batch);
        self.changes.clear();
        self.documents.clear();
        self.bytes = 0;
        let Imported { created, replaced, unchanged } = std::mem::take(&mut self.chunk);
        self.done.created += created;
        self.done.replaced += replaced;
        self.done.unchanged += unchanged;
        Ok(())
    }
}
