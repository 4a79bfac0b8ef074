//! All documents on disk as text.

use std::{io::Write, path::Path};

use aegis_ipc::data::{POSITIONS, Stored};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Alone, DataError, FORMAT, Header, Progress, VERSION};
use crate::engine::Engine;

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Documents.
    pub documents: u64,
    /// Number of the last change that the export shows.
    pub sequence: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    id: &'a str,
    revision: u64,
    sequence: u64,
    document: &'a RawValue,
}

/// Writes all documents of the store in `data_folder` to `output`, which is best buffered.
///
/// # Errors
/// A host runs, the store cannot be read, or the output takes no more.
pub fn export(
    data_folder: &Path,
    output: &mut dyn Write,
    progress: &mut dyn FnMut(Progress),
) -> Result<Exported, DataError> {
    let alone = Alone::open(data_folder)?;
    let reading = |source| DataError::store("reading the documents", source);
    let snapshot = alone.engine.snapshot().map_err(reading)?;
    let mut models = snapshot.models().map_err(reading)?;
    // Positions are places in the log of this store, which stays here.
    models.retain(|model| model != POSITIONS);
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
    Ok(Exported { documents: done, sequence })
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
