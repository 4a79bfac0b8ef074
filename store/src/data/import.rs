//! Documents from text.

use std::{
    collections::HashSet,
    io::{BufRead, Read},
    path::Path,
};

use aegis_domain::{
    catalog::Catalog,
    document,
    spec::{self, ModelSpec},
};
use aegis_ipc::data::{Change, ChangeKind};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Alone, DataError, FORMAT, Header, Progress, VERSION};
use crate::{
    catalog::Rules,
    clock::now_ms,
    commit::{Overlay, WRITE_BYTES_MAX},
    engine::{
        Batch, CommittedWrite, Engine, EngineResult, Head, IndexRow, IndexState, KeptResponse, MetaEdit,
        UniqueKey, fjall::FjallEngine, records::ID_BYTES_MAX,
    },
    storage::Place,
};

/// Documents that are written together.
const CHUNK_DOCUMENTS: usize = 512;
/// Bytes of documents after which a chunk takes no further one.
const CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// Longest line, bytes.
const LINE_BYTES_MAX: u64 = 2 * WRITE_BYTES_MAX as u64;

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

#[derive(Debug, Deserialize)]
struct Line {
    model: String,
    id: String,
    revision: u64,
    document: Box<RawValue>,
}

/// Takes the documents of an export into the store in `data_folder`, which is made when there is none. A document
/// that exists is replaced, all others stay. Documents are written in chunks, each as a whole; running the same import
/// again changes nothing that is already there. A store that is made knows the models that are `declared`, so that a value of
/// a unique field is there only once; one that a host has used knows its models itself.
///
/// # Errors
/// A host runs, the store cannot be used, the input cannot be read, or a line of it is wrong.
pub fn import(
    data_folder: &Path,
    declared: &[ModelSpec],
    input: &mut dyn BufRead,
    progress: &mut dyn FnMut(Progress),
) -> Result<Imported, DataError> {
    let mut lines = Lines { input, number: 0 };
    let header = read_header(&mut lines)?;
    let mut alone = Alone::open_or_make(data_folder)?;
    alone.begin_with(declared)?;
    let catalog = alone.catalog();
    let mut importer = Importer::new(&alone, catalog.as_ref());
    let report = |done: Imported, progress: &mut dyn FnMut(Progress)| {
        progress(Progress { done: done.total(), total: Some(header.documents) });
    };
    while let Some(text) = lines.next(importer.done.total())? {
        let document = read_document(&text).and_then(|line| importer.check(line));
        let document = document.map_err(|reason| lines.wrong(reason, importer.done.total()))?;
        if importer.is_full(&document) {
            importer.write().map_err(|failure| failure.at(&lines, importer.done.total()))?;
            report(importer.done, progress);
        }
        importer.add(document).map_err(|failure| failure.at(&lines, importer.done.total()))?;
    }
    importer.write().map_err(|failure| failure.at(&lines, importer.done.total()))?;
    report(importer.done, progress);
    let found = importer.done.total();
    if found < header.documents {
        return Err(DataError::CutShort { announced: header.documents, found });
    }
    Ok(importer.done)
}

fn read_header(lines: &mut Lines<'_>) -> Result<Header, DataError> {
    let Some(text) = lines.next(0)? else {
        return Err(lines.wrong("found nothing, expected the header of an export".to_owned(), 0));
    };
    let header: Header = object(&text)
        .and_then(|text| serde_json::from_str(text).map_err(|error| error.to_string()))
        .map_err(|reason| lines.wrong(format!("this is not the header of an export: {reason}"), 0))?;
    if (header.format.as_str(), header.version) != (FORMAT, VERSION) {
        let (format, version) = (header.format, header.version);
        let reason =
            format!("found format {format:?} version {version}, expected {FORMAT:?} version {VERSION}");
        return Err(lines.wrong(reason, 0));
    }
    Ok(header)
}

struct Lines<'a> {
    input: &'a mut dyn BufRead,
    number: u64,
}

impl Lines<'_> {
    /// The next line that is not empty.
    fn next(&mut self, imported: u64) -> Result<Option<String>, DataError> {
        loop {
            let mut bytes = Vec::new();
            let length = (&mut self.input)
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut bytes)
                .map_err(|source| DataError::Stream { operation: "reading the export", source })?;
            if length == 0 {
                return Ok(None);
            }
            self.number += 1;
            if length as u64 == LINE_BYTES_MAX {
                return Err(self.wrong(format!("the line is longer than {LINE_BYTES_MAX} bytes"), imported));
            }
            let text = String::from_utf8(bytes).map_err(|error| self.wrong(error.to_string(), imported))?;
            if !text.trim().is_empty() {
                return Ok(Some(text));
            }
        }
    }

    fn wrong(&self, reason: String, imported: u64) -> DataError {
        DataError::Line { line: self.number.max(1), reason, imported }
    }
}

fn read_document(text: &str) -> Result<Line, String> {
    let line: Line =
        serde_json::from_str(text).map_err(|error| format!("this is not a document: {error}"))?;
    let upper = spec::ModelName::new(&line.model).map_err(|reason| format!("model: {reason}"))?;
    if upper.as_str() != line.model {
        return Err(format!("model: found {:?}, expected {:?}", line.model, upper.as_str()));
    }
    if line.id.is_empty() || line.id.len() > ID_BYTES_MAX {
        return Err(format!("id: found {} bytes, expected 1 to {ID_BYTES_MAX}", line.id.len()));
    }
    let (id, revision) = document::check_stored(&line.model, line.document.get().as_bytes())
        .map_err(|reason| format!("document: {reason}"))?;
    if id != line.id || revision != line.revision || line.revision == 0 {
        return Err(format!(
            "found revision {} of {:?}, but the document says revision {revision} of {id:?}",
            line.revision, line.id
        ));
    }
    Ok(line)
}

/// The reader would take an array of the right values for an object.
fn object(text: &str) -> Result<&str, String> {
    match text.trim_start().chars().next() {
        Some('{') => Ok(text),
        Some(other) => Err(format!("it begins with {other:?}, expected '{{'")),
        None => Err("found nothing, expected '{'".to_owned()),
    }
}

/// Why a chunk was not written.
enum Failure {
    Document(String),
    Engine(crate::error::EngineError),
}

impl Failure {
    fn at(self, lines: &Lines<'_>, imported: u64) -> DataError {
        match self {
            Self::Document(reason) => lines.wrong(reason, imported),
            Self::Engine(source) => DataError::store("writing the documents", source),
        }
    }
}

impl From<crate::error::EngineError> for Failure {
    fn from(error: crate::error::EngineError) -> Self {
        Self::Engine(error)
    }
}

struct Importer<'a> {
    engine: &'a FjallEngine,
    catalog: Option<&'a Catalog>,
    rules: Option<Rules>,
    /// Sent with the first chunk.
    meta: Vec<MetaEdit>,
    last: u64,
    overlay: Overlay,
    changes: Vec<Change>,
    documents: HashSet<(String, String)>,
    bytes: usize,
    chunk: Imported,
    done: Imported,
}

impl<'a> Importer<'a> {
    fn new(alone: &'a Alone, catalog: Option<&'a Catalog>) -> Self {
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
            rules: catalog.map(|catalog| alone.rules(catalog)),
            meta: drop_all().filter(unfinished).collect(),
            last: alone.engine.last().max(alone.recovered.reserved),
            overlay: Overlay::default(),
            changes: Vec::new(),
            documents: HashSet::new(),
            bytes: 0,
            chunk: Imported::default(),
            done: Imported::default(),
        }
    }

    fn check(&self, line: Line) -> Result<Line, String> {
        let model = self.catalog.and_then(|catalog| catalog.by_name(&line.model));
        match model.map(|model| model.spec().datasource) {
            Some(Some(spec::Datasource::Memory)) => {
                Err(format!("model {} keeps its documents in memory, so they cannot be imported", line.model))
            }
            Some(Some(spec::Datasource::File) | None) | None => Ok(line),
        }
    }

    /// Has the chunk to be written before this document?
    fn is_full(&self, line: &Line) -> bool {
        self.documents.len() >= CHUNK_DOCUMENTS
            || self.bytes >= CHUNK_BYTES
            || self.documents.contains(&(line.model.clone(), line.id.clone()))
    }

    fn add(&mut self, line: Line) -> Result<(), Failure> {
        let Line { model, id, revision, document } = line;
        let body = Bytes::copy_from_slice(document.get().as_bytes());
        self.bytes += body.len();
        self.documents.insert((model.clone(), id.clone()));
        let existing = self.engine.document(&model, &id)?;
        match &existing {
            Some(existing) if existing.revision == revision && existing.body == body => {
                self.chunk.unchanged += 1;
                return Ok(());
            }
            Some(_) => self.chunk.replaced += 1,
            None => self.chunk.created += 1,
        }
        self.claim(&model, &id, existing.as_ref().map(|existing| &existing.body[..]), &body)?;
        self.last += 1;
        let kind = ChangeKind::Put { id, revision, body, changes: None };
        self.changes.push(Change { sequence: self.last, model, kind, time_ms: now_ms() });
        Ok(())
    }

    /// Gives the document its unique values, unless another one has them.
    fn claim(&mut self, model: &str, id: &str, old: Option<&[u8]>, new: &[u8]) -> Result<(), Failure> {
        let Some(rules) = self.rules.as_ref().and_then(|rules| rules.model(model)) else { return Ok(()) };
        let keys = |body: &[u8]| {
            rules.unique_keys(body).map_err(|reason| Failure::Document(format!("document: {reason}")))
        };
        let (old, new) = (old.map_or_else(|| Ok(Vec::new()), keys)?, keys(new)?);
        let view = OnDisk(self.engine);
        for (_, key) in old.iter().filter(|key| !new.contains(key)) {
            self.overlay.put_owner(Place::File, key, None);
        }
        for (position, key) in new {
            match self.overlay.owner(&view, Place::File, &key)? {
                Some(owner) if owner == id => {}
                Some(owner) => {
                    let field = &rules.indexes[position].field;
                    let reason = format!(
                        "unique field {field} of model {model}: document {owner:?} has the same value"
                    );
                    return Err(Failure::Document(reason));
                }
                None => self.overlay.put_owner(Place::File, &key, Some(id.to_owned())),
            }
        }
        Ok(())
    }

    /// Writes the chunk as a whole.
    fn write(&mut self) -> Result<(), Failure> {
        let unique = std::mem::take(&mut self.overlay).into_unique_edits();
        let batch = Batch {
            changes: self.changes.iter().collect(),
            unique: unique.into_iter().map(|edit| edit.what).collect(),
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

/// The engine on disk as a plan sees it, for the one question that an import asks.
struct OnDisk<'a>(&'a FjallEngine);

impl crate::commit::View for OnDisk<'_> {
    fn head(&self, _place: Place, model: &str, id: &str) -> EngineResult<Option<Head>> {
        self.0.head(model, id)
    }

    fn body(&self, _place: Place, model: &str, id: &str) -> EngineResult<Option<Bytes>> {
        Ok(self.0.document(model, id)?.map(|stored| stored.body))
    }

    fn unique_owner(&self, _place: Place, key: &UniqueKey) -> EngineResult<Option<String>> {
        self.0.unique_owner(key)
    }

    fn response(&self, key: &str) -> EngineResult<Option<KeptResponse>> {
        self.0.response(key)
    }

    fn committed(&self, _incarnation: u64, _request: u64) -> Option<CommittedWrite> {
        None
    }
}
