//! All documents on disk as text.

use std::{io::Write, path::Path};

use aegis_ipc::data::{POSITIONS, Stored};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Alone, DataError, Declared, FORMAT, Header, Progress, VERSION};
use crate::{engine::Engine, storage::Place};

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Documents.
    pub documents: u64,
    /// Number of the last change that the export shows.
    pub sequence: u64,
    /// What was left out.
    pub left_out: Vec<LeftOut>,
}

/// Documents on disk of a model that keeps its documents in memory by now. No host shows them, and no import takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The model.
    pub model: String,
    /// How many there are.
    pub documents: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    id: &'a str,
    revision: u64,
    sequence: u64,
    document: &'a RawValue,
}

/// Writes all documents of the store in `data_folder` to `output`, which is best buffered. Those of models that keep their
/// documents in memory, as what is `declared` or what the store knows says, are left out: an import would refuse them.
///
/// # Errors
/// A host runs, the store cannot be read, or the output takes no more.
pub fn export(
    data_folder: &Path,
    declared: &Declared<'_>,
    output: &mut dyn Write,
    progress: &mut dyn FnMut(Progress),
) -> Result<Exported, DataError> {
    let alone = Alone::open(data_folder)?;
    let reading = |source| DataError::store("reading the documents", source);
    let snapshot = alone.engine.snapshot().map_err(reading)?;
    let mut models = snapshot.models().map_err(reading)?;
    // Positions are places in the log of this store, which stays here.
    models.retain(|model| model != POSITIONS);
    let (in_memory, models): (Vec<_>, Vec<_>) = {
        let catalog = alone.catalog();
        let is_in_memory =
            |name: &String| declared.place_by_name(name, catalog.as_ref()) == Some(Place::Memory);
        models.into_iter().partition(is_in_memory)
    };
    let mut left_out = Vec::new();
    for model in in_memory {
        let mut documents = 0;
        for stored in snapshot.documents(&model) {
            stored.map_err(reading)?;
            documents += 1;
        }
        left_out.push(LeftOut { model, documents });
    }
    let mut total = 0;
    for model in &models {
        for stored in snapshot.documents(model) {
            stored.map_err(reading)?;
            total += 1;
        }
    }
    let sequence = snapshot.last();
    let header = Header { format: FORMAT.to_owned(), version: VERSION, documents: total, sequence };
    line(output, &header)?;
    let mut done = 0;
    for model in &models {
        for stored in snapshot.documents(model) {
            document(output, &stored.map_err(reading)?)?;
            done += 1;
            progress(Progress { done, total: Some(total) });
        }
    }
    output.flush().map_err(writing)?;
    Ok(Exported { documents: done, sequence, left_out })
}

fn document(output: &mut dyn Write, stored: &Stored) -> Result<(), DataError> {
    let broken =
        |reason: String| DataError::Document { model: stored.model.clone(), id: stored.id.clone(), reason };
    let text = std::str::from_utf8(&stored.body).map_err(|error| broken(error.to_string()))?;
    // Inside of JSON texts line breaks are always escaped, so these are only space between tokens.
    let one_line = text.replace(['\n', '\r'], " ");
    let document = RawValue::from_string(one_line).map_err(|error| broken(error.to_string()))?;
    let Stored { model, id, revision, sequence, .. } = stored;
    line(output, &Line { model, id, revision: *revision, sequence: *sequence, document: &document })
}

fn line<T: Serialize>(output: &mut dyn Write, line: &T) -> Result<(), DataError> {
    serde_json::to_writer(&mut *output, line).map_err(|error| writing(error.into()))?;
    output.write_all(b"\n").map_err(writing)
}

fn writing(source: std::io::Error) -> DataError {
    DataError::Stream { operation: "writing the export", source }
}
