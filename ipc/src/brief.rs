//! The three messages that every write causes, in a form without names: feed, write, and the answer to one committed.
//!
//! They are most of what crosses the data sockets, and finding the fields of a MessagePack map by name costs more than
//! all the rest of reading them. A brief payload begins with a byte that no MessagePack begins with, so a reader takes
//! either form; what cannot be said briefly is said in MessagePack.
//!
//! ```text
//! feed       ┌──────┬───┬─────────┬────────┐  then per change
//!            │ 0xc1 │ 1 │ first 8 │ last 8 │  kind 1, lengths 4 × 4, sequence 8, time 8, revision 8,
//!            └──────┴───┴─────────┴────────┘  model, id, changes, body
//! write      ┌──────┬───┬───────────┬────────┐  then, if kept is 1, lengths 3 × 4, key, fingerprint, response;
//!            │ 0xc1 │ 2 │ request 8 │ kept 1 │  then per operation
//!            └──────┴───┴───────────┴────────┘  kind 1, lengths 4 × 4, expected number 8, revision 8, model, id, changes, body
//! committed  ┌──────┬───┬───────────┬─────────┬────────┐
//!            │ 0xc1 │ 3 │ request 8 │ first 8 │ last 8 │       integers are little endian
//!            └──────┴───┴───────────┴─────────┴────────┘
//!
//! kind of a change      1 put, 2 put that says what is different, 3 removal, 4 truncation
//! kind of an operation  1 put, 2 put that says what is different, 3 removal, and 8 more if the document has to be absent
//! ```
//!
//! This form has no room for a new field. A change of it needs another first number, and the sides have to tell each
//! other that they read it, as [`Attach::brief`](crate::data::Attach::brief) does for this one.

use bytes::Bytes;

use crate::{
    IpcError, codec,
    data::{Change, ChangeKind, Expect, FromStore, Idempotency, Operation, Outcome, ToStore, Write},
    frame::{self, FRAME_HEADER_BYTES},
};

/// First byte of a brief payload: the one that MessagePack never uses.
const MARK: u8 = 0xc1;
const FEED: u8 = 1;
const WRITE: u8 = 2;
const COMMITTED: u8 = 3;

const PUT: u8 = 1;
const UPDATE: u8 = 2;
const REMOVE: u8 = 3;
const TRUNCATE: u8 = 4;
/// Added to the kind of an operation whose document has to be absent.
const ABSENT: u8 = 8;

/// Bytes of a change beside its texts.
const CHANGE_BYTES: usize = 1 + 4 * 4 + 3 * 8;

/// Appends a frame with a [`FromStore::Feed`] to `buffer`.
///
/// # Errors
/// When the frame is too large.
pub fn write_feed(first: u64, last: u64, changes: &[Change], buffer: &mut Vec<u8>) -> Result<(), IpcError> {
    frame::write_with(buffer, |buffer| {
        buffer.extend_from_slice(&[MARK, FEED]);
        put_number(buffer, first);
        put_number(buffer, last);
        for change in changes {
            put_change(buffer, change);
        }
    })
}

/// Appends a frame with a [`FromStore::Written`] to `buffer`.
///
/// # Errors
/// When the frame is too large or the outcome cannot be encoded.
pub fn write_outcome(request: u64, outcome: Outcome, buffer: &mut Vec<u8>) -> Result<(), IpcError> {
    let Outcome::Committed { first, last } = outcome else {
        return frame::write_message(&FromStore::Written { request, outcome }, buffer);
    };
    frame::write_with(buffer, |buffer| {
        buffer.extend_from_slice(&[MARK, COMMITTED]);
        put_number(buffer, request);
        put_number(buffer, first);
        put_number(buffer, last);
    })
}

/// Appends a frame with a message to the store to `buffer`, briefly if it is a write.
///
/// # Errors
/// When the frame is too large or the message cannot be encoded.
pub fn write_to_store(message: &ToStore, buffer: &mut Vec<u8>) -> Result<(), IpcError> {
    let ToStore::Write(write) = message else { return frame::write_message(message, buffer) };
    buffer.reserve(FRAME_HEADER_BYTES + write_bytes(write));
    frame::write_with(buffer, |buffer| put_write(buffer, write))
}

/// Appends a whole frame that was made by [`write_to_store`] to `buffer`, in the form that every store reads.
///
/// # Errors
/// When the frame is none.
pub fn write_plainly(frame: &[u8], buffer: &mut Vec<u8>) -> Result<(), IpcError> {
    match frame.get(FRAME_HEADER_BYTES..) {
        Some(payload) if payload.first() == Some(&MARK) => {
            frame::write_message(&read_to_store(payload)?, buffer)
        }
        Some(_) | None => {
            buffer.extend_from_slice(frame);
            Ok(())
        }
    }
}

/// Reads what the store said, in either form.
///
/// # Errors
/// When it is no such message.
pub fn read_from_store(payload: &[u8]) -> Result<FromStore, IpcError> {
    if payload.first() != Some(&MARK) {
        return codec::decode(payload);
    }
    let mut reader = Reader { what: "a brief message of the store", rest: &payload[1..] };
    match reader.byte()? {
        FEED => {
            let (first, last) = (reader.number()?, reader.number()?);
            let mut changes = Vec::with_capacity(reader.rest.len() / (4 * CHANGE_BYTES) + 1);
            while !reader.rest.is_empty() {
                changes.push(take_change(&mut reader)?);
            }
            Ok(FromStore::Feed { first, last, changes })
        }
        COMMITTED => {
            let request = reader.number()?;
            let outcome = Outcome::Committed { first: reader.number()?, last: reader.number()? };
            reader.end()?;
            Ok(FromStore::Written { request, outcome })
        }
        found => Err(reader.unknown("message", found)),
    }
}

/// Reads what a worker said, in either form.
///
/// # Errors
/// When it is no such message.
pub fn read_to_store(payload: &[u8]) -> Result<ToStore, IpcError> {
    if payload.first() != Some(&MARK) {
        return codec::decode(payload);
    }
    let mut reader = Reader { what: "a brief message of a worker", rest: &payload[1..] };
    match reader.byte()? {
        WRITE => take_write(&mut reader).map(ToStore::Write),
        found => Err(reader.unknown("message", found)),
    }
}

fn put_number(buffer: &mut Vec<u8>, number: u64) {
    buffer.extend_from_slice(&number.to_le_bytes());
}

fn put_lengths(buffer: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        // A longer part makes the frame too large, which is noticed when it is finished.
        buffer.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
    }
}

fn put_parts(buffer: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        buffer.extend_from_slice(part);
    }
}

fn put_change(buffer: &mut Vec<u8>, change: &Change) {
    let (kind, id, revision, changes, body): (u8, &str, u64, &[u8], &[u8]) = match &change.kind {
        ChangeKind::Put { id, revision, body, changes: None } => (PUT, id, *revision, &[], body),
        ChangeKind::Put { id, revision, body, changes: Some(changes) } => {
            (UPDATE, id, *revision, changes, body)
        }
        ChangeKind::Remove { id, revision } => (REMOVE, id, *revision, &[], &[]),
        ChangeKind::Truncate => (TRUNCATE, "", 0, &[], &[]),
    };
    let parts = [change.model.as_bytes(), id.as_bytes(), changes, body];
    buffer.push(kind);
    put_lengths(buffer, &parts);
    put_number(buffer, change.sequence);
    put_number(buffer, change.time_ms);
    put_number(buffer, revision);
    put_parts(buffer, &parts);
}

/// Capacity for a write, ample for what is of fixed length.
fn write_bytes(write: &Write) -> usize {
    let operation = |operation: &Operation| {
        let content = [&operation.body, &operation.changes];
        let content: usize = content.into_iter().flatten().map(Bytes::len).sum();
        64 + operation.model.len() + operation.id.len() + content
    };
    let kept = |kept: &Idempotency| 16 + kept.key.len() + kept.fingerprint.len() + kept.response.len();
    16 + write.operations.iter().map(operation).sum::<usize>() + write.idempotency.as_ref().map_or(0, kept)
}

fn put_write(buffer: &mut Vec<u8>, write: &Write) {
    buffer.extend_from_slice(&[MARK, WRITE]);
    put_number(buffer, write.request);
    buffer.push(u8::from(write.idempotency.is_some()));
    if let Some(Idempotency { key, fingerprint, response }) = &write.idempotency {
        let parts = [key.as_bytes(), fingerprint, response];
        put_lengths(buffer, &parts);
        put_parts(buffer, &parts);
    }
    for operation in &write.operations {
        let kind = match (&operation.body, &operation.changes) {
            (Some(_), None) => PUT,
            (Some(_), Some(_)) => UPDATE,
            (None, _) => REMOVE,
        };
        let (absent, expected) = match operation.expect {
            Expect::Absent => (ABSENT, 0),
            Expect::At(sequence) => (0, sequence),
        };
        let body = operation.body.as_deref().unwrap_or_default();
        // A removal has nothing that could be different.
        let changes = operation.changes.as_deref().filter(|_| kind == UPDATE).unwrap_or_default();
        let parts = [operation.model.as_bytes(), operation.id.as_bytes(), changes, body];
        buffer.push(kind | absent);
        put_lengths(buffer, &parts);
        put_number(buffer, expected);
        put_number(buffer, operation.revision);
        put_parts(buffer, &parts);
    }
}

fn take_change(reader: &mut Reader<'_>) -> Result<Change, IpcError> {
    let kind = reader.byte()?;
    let lengths = reader.lengths::<4>()?;
    let (sequence, time_ms, revision) = (reader.number()?, reader.number()?, reader.number()?);
    let [model, id, changes, body] = reader.parts(lengths)?;
    let model = reader.text("model", model)?;
    let kind = match kind {
        PUT | UPDATE => ChangeKind::Put {
            id: reader.text("id", id)?,
            revision,
            body: Bytes::copy_from_slice(body),
            changes: (kind == UPDATE).then(|| Bytes::copy_from_slice(changes)),
        },
        REMOVE => ChangeKind::Remove { id: reader.text("id", id)?, revision },
        TRUNCATE => ChangeKind::Truncate,
        found => return Err(reader.unknown("kind of a change", found)),
    };
    Ok(Change { sequence, model, kind, time_ms })
}

fn take_write(reader: &mut Reader<'_>) -> Result<Write, IpcError> {
    let request = reader.number()?;
    let idempotency = match reader.byte()? {
        0 => None,
        1 => {
            let lengths = reader.lengths::<3>()?;
            let [key, fingerprint, response] = reader.parts(lengths)?;
            Some(Idempotency {
                key: reader.text("key", key)?,
                fingerprint: Bytes::copy_from_slice(fingerprint),
                response: Bytes::copy_from_slice(response),
            })
        }
        found => return Err(reader.unknown("response to keep", found)),
    };
    let mut operations = Vec::with_capacity(1);
    while !reader.rest.is_empty() {
        operations.push(take_operation(reader)?);
    }
    Ok(Write { request, operations, idempotency })
}

fn take_operation(reader: &mut Reader<'_>) -> Result<Operation, IpcError> {
    let kind = reader.byte()?;
    let lengths = reader.lengths::<4>()?;
    let (expected, revision) = (reader.number()?, reader.number()?);
    let [model, id, changes, body] = reader.parts(lengths)?;
    let (body, changes) = match kind & !ABSENT {
        PUT => (Some(Bytes::copy_from_slice(body)), None),
        UPDATE => (Some(Bytes::copy_from_slice(body)), Some(Bytes::copy_from_slice(changes))),
        REMOVE => (None, None),
        _ => return Err(reader.unknown("kind of an operation", kind)),
    };
    let expect = if kind & ABSENT == 0 { Expect::At(expected) } else { Expect::Absent };
    let (model, id) = (reader.text("model", model)?, reader.text("id", id)?);
    Ok(Operation { model, id, expect, revision, body, changes })
}

/// Takes a payload apart from front to back.
struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn bytes(&mut self, length: usize) -> Result<&'a [u8], IpcError> {
        match self.rest.split_at_checked(length) {
            Some((bytes, rest)) => {
                self.rest = rest;
                Ok(bytes)
            }
            None => {
                let found = format!("an end after {} bytes", self.rest.len());
                Err(self.unexpected(found, format!("{length} bytes")))
            }
        }
    }

    fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], IpcError> {
        let mut array = [0; LENGTH];
        array.copy_from_slice(self.bytes(LENGTH)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, IpcError> {
        self.array().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<u64, IpcError> {
        self.array().map(u64::from_le_bytes)
    }

    fn lengths<const COUNT: usize>(&mut self) -> Result<[usize; COUNT], IpcError> {
        let mut lengths = [0; COUNT];
        for length in &mut lengths {
            *length = u32::from_le_bytes(self.array()?) as usize;
        }
        Ok(lengths)
    }

    fn parts<const COUNT: usize>(&mut self, lengths: [usize; COUNT]) -> Result<[&'a [u8]; COUNT], IpcError> {
        let mut parts: [&[u8]; COUNT] = [&[]; COUNT];
        for (part, length) in parts.iter_mut().zip(lengths) {
            *part = self.bytes(length)?;
        }
        Ok(parts)
    }

    fn text(&self, field: &str, bytes: &[u8]) -> Result<String, IpcError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => {
                let found = format!("bytes that are not UTF-8 ({error})");
                Err(self.unexpected(found, format!("the text of a field {field}")))
            }
        }
    }

    fn end(&self) -> Result<(), IpcError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(self.unexpected(format!("{} more bytes", self.rest.len()), "its end".to_owned()))
    }

    fn unknown(&self, field: &str, found: u8) -> IpcError {
        self.unexpected(found.to_string(), format!("a known number for the {field}"))
    }

    fn unexpected(&self, found: String, expected: String) -> IpcError {
        IpcError::Unexpected { object: self.what.to_owned(), found, expected }
    }
}

#[cfg(test)]
mod tests;
