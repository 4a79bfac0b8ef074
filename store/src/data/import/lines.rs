//! The text of an export, line by line.

use std::io::{BufRead, Read};

use aegis_domain::{document, spec};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{DataError, FORMAT, Header, VERSION};
use crate::commit::WRITE_BYTES_MAX;

/// Longest line, bytes.
const LINE_BYTES_MAX: u64 = 2 * WRITE_BYTES_MAX as u64;

/// A document of an export.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    pub(super) model: String,
    pub(super) id: String,
    pub(super) revision: u64,
    pub(super) document: Box<RawValue>,
}

/// The first line.
pub(super) fn read_header(lines: &mut Lines<'_>) -> Result<Header, DataError> {
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

/// The lines of an export, and which one is at hand.
pub(super) struct Lines<'a> {
    input: &'a mut dyn BufRead,
    number: u64,
}

impl<'a> Lines<'a> {
    pub(super) fn new(input: &'a mut dyn BufRead) -> Self {
        Self { input, number: 0 }
    }

    /// Number of the line at hand, counted from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The next line that is not empty.
    pub(super) fn next(&mut self, imported: u64) -> Result<Option<String>, DataError> {
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

    /// The line at hand is wrong.
    pub(super) fn wrong(&self, reason: String, imported: u64) -> DataError {
        wrong(self.number, reason, imported)
    }
}

/// A line, counted from 1, is wrong.
pub(super) fn wrong(line: u64, reason: String, imported: u64) -> DataError {
    DataError::Line { line: line.max(1), reason, imported }
}

/// One of the others.
pub(super) fn read_document(text: &str) -> Result<Line, String> {
    let line: Line =
        serde_json::from_str(text).map_err(|error| format!("this is not a document: {error}"))?;
    let upper = spec::ModelName::new(&line.model).map_err(|reason| format!("model: {reason}"))?;
    if upper.as_str() != line.model {
        return Err(format!("model: found {:?}, expected {:?}", line.model, upper.as_str()));
    }
    document::check_id(&line.id).map_err(|reason| format!("id: {reason}"))?;
    if line.revision == 0 {
        return Err("revision: found 0, expected 1 or more".to_owned());
    }
    let (id, revision) = document::check_stored(&line.model, line.document.get().as_bytes())
        .map_err(|reason| format!("document: {reason}"))?;
    if id != line.id || revision != line.revision {
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
