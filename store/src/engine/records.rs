//! What the rows on disk look like. Format 2; the number is kept in the `meta` partition. Format 1 is the same without
//! updates that say what is different: their rows are read as they are.
//!
//! All integers in keys are big endian, so that the order of bytes is the order of numbers; in values they are
//! little endian. Every value that is not a plain id or number begins with a CRC-32 over the rest of it.
//!
//! | Partition | Key | Value |
//! | --- | --- | --- |
//! | `documents` | length of the model's name (1), model, id | change record |
//! | `log` | sequence number (8) | change record, byte for byte the one in `documents` |
//! | `unique` | index number (4), [`bounded`] value | id of the document |
//! | `responses` | `k`, [`bounded`] key | response record |
//! | `responses` | `t`, time (8), sequence number (8), [`bounded`] key | nothing |
//! | `requests` | group number (8) | request record |
//! | `meta` | `format`, `catalog`, `declared`, `log-oldest`, `reserved` | number or bytes |
//! | `meta` | `index/MODEL/FIELD` | index number (4), state (1) |
//! | `meta` | `dropped/` and index number (4) | nothing |
//!
//! ```text
//! change record    ┌─────┬──────┬───────┬────────┬──────────┬──────┬──────────┬───────┬────┬──────┐
//!                  │ CRC │ kind │ model │ id     │ sequence │ time │ revision │ model │ id │ body │
//!                  │     │      │ length│ length │ number   │ ms   │          │       │    │      │
//!                  │ 4   │ 1    │ 1     │ 2      │ 8        │ 8    │ 8        │       │    │ rest │
//!                  └─────┴──────┴───────┴────────┴──────────┴──────┴──────────┴───────┴────┴──────┘
//!                  kind 1 a document, 2 a removal, 3 a truncation; 4 a document that has, between id and body, what
//!                  is different from the version before: length 4, and that many bytes
//! response record  CRC 4, time ms 8, sequence number 8, key length 4, fingerprint length 4, key, fingerprint, response
//! request record   CRC 4, time ms 8, then per write: incarnation 8, request 8, first 8, last 8
//! ```

use aegis_ipc::data::{Change, ChangeKind};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{
    CommittedWrite, Head, IndexName, IndexRow, IndexState, KeptAge, KeptResponse, RequestGroup, UniqueKey,
};

/// Format of the rows described above.
pub(crate) const FORMAT: u32 = 2;
/// Oldest format whose rows are read.
pub(crate) const FORMAT_OLDEST: u32 = 1;
/// Longest id of a document, bytes. An id has to fit into an engine key with room to spare.
pub(crate) const ID_BYTES_MAX: usize = 4096;
/// Longest name of a model, bytes (one byte holds the length; the domain allows 64).
pub(crate) const MODEL_BYTES_MAX: usize = 255;
/// Unique values and idempotency keys up to this length are kept as they are, longer ones as their SHA-256.
const PLAIN_KEY_BYTES_MAX: usize = 256;

pub(crate) const META_FORMAT: &[u8] = b"format";
pub(crate) const META_CATALOG: &[u8] = b"catalog";
pub(crate) const META_DECLARED: &[u8] = b"declared";
pub(crate) const META_LOG_OLDEST: &[u8] = b"log-oldest";
pub(crate) const META_RESERVED: &[u8] = b"reserved";
pub(crate) const META_INDEX: &[u8] = b"index/";
pub(crate) const META_DROPPED: &[u8] = b"dropped/";

const CHANGE_HEADER_BYTES: usize = 32;
const RESPONSE_HEADER_BYTES: usize = 28;
const REQUEST_HEADER_BYTES: usize = 12;
const REQUEST_WRITE_BYTES: usize = 32;

const KIND_PUT: u8 = 1;
const KIND_REMOVE: u8 = 2;
const KIND_TRUNCATE: u8 = 3;
const KIND_UPDATE: u8 = 4;

/// Bytes of the length of what is different.
const CHANGES_LENGTH_BYTES: usize = 4;

const TAG_PLAIN: u8 = 0;
const TAG_HASHED: u8 = 1;

/// Why stored bytes are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    /// Cut off, or lengths inside contradict the length of the whole.
    #[error("found {found} bytes, expected {expected}")]
    Length {
        /// Bytes there are.
        found: usize,
        /// What the record itself says.
        expected: String,
    },
    /// The checksum is another.
    #[error("checksum {found:08x}, expected {expected:08x}")]
    Checksum {
        /// Computed.
        found: u32,
        /// Stored.
        expected: u32,
    },
    /// A field has a value that this version does not know.
    #[error("{field}: found {found}")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// Its value.
        found: String,
    },
}

/// Key of a document in `documents`.
pub(crate) fn document_key(model: &str, id: &str, key: &mut Vec<u8>) {
    model_prefix(model, key);
    key.extend_from_slice(id.as_bytes());
}

/// What the keys of all documents of a model begin with.
pub(crate) fn model_prefix(model: &str, key: &mut Vec<u8>) {
    key.clear();
    let length = u8::try_from(model.len()).expect("the store refuses names of models longer than 255 bytes");
    key.push(length);
    key.extend_from_slice(model.as_bytes());
}

/// Name of the model in a key of `documents`.
pub(crate) fn read_model(key: &[u8]) -> Result<String, Flaw> {
    let name = key.split_first().and_then(|(length, rest)| rest.get(..usize::from(*length)));
    match name {
        Some(name) if !name.is_empty() => text("model", name),
        Some(_) | None => Err(Flaw::Length { found: key.len(), expected: "a model's name".to_owned() }),
    }
}

/// Key of a change in `log`, or of a group in `requests`.
pub(crate) fn number_key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// Reverses [`number_key`].
pub(crate) fn read_number_key(key: &[u8]) -> Result<u64, Flaw> {
    let bytes = key.try_into().map_err(|_| Flaw::Length { found: key.len(), expected: "8".to_owned() })?;
    Ok(u64::from_be_bytes(bytes))
}

/// Writes a change record.
pub(crate) fn write_change(change: &Change, record: &mut Vec<u8>) {
    let (kind, id, revision, different, body): (u8, &str, u64, Option<&Bytes>, &[u8]) = match &change.kind {
        ChangeKind::Put { id, revision, body, changes } => {
            let kind = if changes.is_some() { KIND_UPDATE } else { KIND_PUT };
            (kind, id, *revision, changes.as_ref(), body)
        }
        ChangeKind::Remove { id, revision } => (KIND_REMOVE, id, *revision, None, &[]),
        ChangeKind::Truncate => (KIND_TRUNCATE, "", 0, None, &[]),
    };
    let different_bytes = different.map_or(0, |changes| CHANGES_LENGTH_BYTES + changes.len());
    record.clear();
    record.reserve(CHANGE_HEADER_BYTES + change.model.len() + id.len() + different_bytes + body.len());
    record.extend_from_slice(&[0; 4]);
    record.push(kind);
    record.push(
        u8::try_from(change.model.len()).expect("the store refuses names of models longer than 255 bytes"),
    );
    let id_length = u16::try_from(id.len()).expect("the store refuses ids longer than 4096 bytes");
    record.extend_from_slice(&id_length.to_le_bytes());
    record.extend_from_slice(&change.sequence.to_le_bytes());
    record.extend_from_slice(&change.time_ms.to_le_bytes());
    record.extend_from_slice(&revision.to_le_bytes());
    record.extend_from_slice(change.model.as_bytes());
    record.extend_from_slice(id.as_bytes());
    if let Some(changes) = different {
        let length = u32::try_from(changes.len()).expect("a message is smaller than 4 GiB");
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(changes);
    }
    record.extend_from_slice(body);
    seal(record);
}

/// Reads a change record; body and what is different in it are slices of `record`.
pub(crate) fn read_change(record: &Bytes) -> Result<Change, Flaw> {
    check_seal(record, CHANGE_HEADER_BYTES)?;
    let model_end = CHANGE_HEADER_BYTES + usize::from(record[5]);
    let id_end = model_end + usize::from(u16::from_le_bytes([record[6], record[7]]));
    if record.len() < id_end {
        return Err(Flaw::Length { found: record.len(), expected: format!("at least {id_end}") });
    }
    let model = text("model", &record[CHANGE_HEADER_BYTES..model_end])?;
    let id = text("id", &record[model_end..id_end])?;
    let Head { sequence, revision } = read_head(record)?;
    let kind = match record[4] {
        KIND_PUT => ChangeKind::Put { id, revision, body: record.slice(id_end..), changes: None },
        KIND_UPDATE => {
            let (changes, body) = split_changes(record, id_end)?;
            ChangeKind::Put { id, revision, body, changes: Some(changes) }
        }
        KIND_REMOVE => ChangeKind::Remove { id, revision },
        KIND_TRUNCATE => ChangeKind::Truncate,
        found => return Err(Flaw::Unknown { field: "kind", found: found.to_string() }),
    };
    Ok(Change { sequence, model, kind, time_ms: le_u64(record, 16) })
}

/// What is different, and the body behind it, in a record whose id ends at `at`.
fn split_changes(record: &Bytes, at: usize) -> Result<(Bytes, Bytes), Flaw> {
    let flaw = |end: usize| Flaw::Length { found: record.len(), expected: format!("at least {end}") };
    let begin = at + CHANGES_LENGTH_BYTES;
    let length = record[at..].first_chunk().ok_or_else(|| flaw(begin))?;
    let end = begin.saturating_add(u32::from_le_bytes(*length) as usize);
    if record.len() < end {
        return Err(flaw(end));
    }
    Ok((record.slice(begin..end), record.slice(end..)))
}

/// Reads the two numbers of a change record that a compare-and-set needs, without looking at the rest.
pub(crate) fn read_head(record: &[u8]) -> Result<Head, Flaw> {
    if record.len() < CHANGE_HEADER_BYTES {
        return Err(Flaw::Length {
            found: record.len(),
            expected: format!("at least {CHANGE_HEADER_BYTES}"),
        });
    }
    Ok(Head { sequence: le_u64(record, 8), revision: le_u64(record, 24) })
}

/// Key of a value in `unique`.
pub(crate) fn unique_key(key: &UniqueKey) -> Vec<u8> {
    let mut bytes = key.index.to_be_bytes().to_vec();
    bytes.extend_from_slice(&key.value);
    bytes
}

/// Reverses [`unique_key`].
pub(crate) fn read_unique_key(bytes: &[u8]) -> Result<UniqueKey, Flaw> {
    match bytes.split_first_chunk::<4>() {
        Some((index, value)) => Ok(UniqueKey { index: u32::from_be_bytes(*index), value: value.to_vec() }),
        None => Err(Flaw::Length { found: bytes.len(), expected: "at least 5".to_owned() }),
    }
}

/// Key of a response in `responses`.
pub(crate) fn response_key(bounded_key: &[u8]) -> Vec<u8> {
    let mut bytes = vec![b'k'];
    bytes.extend_from_slice(bounded_key);
    bytes
}

/// Key of the age of a response in `responses`.
pub(crate) fn age_key(age: &KeptAge) -> Vec<u8> {
    let mut bytes = vec![b't'];
    bytes.extend_from_slice(&age.time_ms.to_be_bytes());
    bytes.extend_from_slice(&age.sequence.to_be_bytes());
    bytes.extend_from_slice(&age.key);
    bytes
}

/// Reverses [`age_key`].
pub(crate) fn read_age_key(bytes: &[u8]) -> Result<KeptAge, Flaw> {
    let flaw = || Flaw::Length { found: bytes.len(), expected: "at least 18".to_owned() };
    let (time, rest) = bytes.get(1..).and_then(|rest| rest.split_first_chunk::<8>()).ok_or_else(flaw)?;
    let (sequence, key) = rest.split_first_chunk::<8>().ok_or_else(flaw)?;
    Ok(KeptAge {
        time_ms: u64::from_be_bytes(*time),
        sequence: u64::from_be_bytes(*sequence),
        key: key.to_vec(),
    })
}

/// Writes a response record.
pub(crate) fn write_response(response: &KeptResponse) -> Vec<u8> {
    let mut record = vec![0; 4];
    record.extend_from_slice(&response.time_ms.to_le_bytes());
    record.extend_from_slice(&response.sequence.to_le_bytes());
    for part in [response.key.len(), response.fingerprint.len()] {
        let length = u32::try_from(part).expect("a message is smaller than 4 GiB");
        record.extend_from_slice(&length.to_le_bytes());
    }
    record.extend_from_slice(response.key.as_bytes());
    record.extend_from_slice(&response.fingerprint);
    record.extend_from_slice(&response.response);
    seal(&mut record);
    record
}

/// Reads a response record.
pub(crate) fn read_response(record: &Bytes) -> Result<KeptResponse, Flaw> {
    check_seal(record, RESPONSE_HEADER_BYTES)?;
    let length =
        |at: usize| u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]) as usize;
    let key_end = RESPONSE_HEADER_BYTES.saturating_add(length(20));
    let fingerprint_end = key_end.saturating_add(length(24));
    if record.len() < fingerprint_end {
        return Err(Flaw::Length { found: record.len(), expected: format!("at least {fingerprint_end}") });
    }
    Ok(KeptResponse {
        key: text("key", &record[RESPONSE_HEADER_BYTES..key_end])?,
        fingerprint: record.slice(key_end..fingerprint_end),
        response: record.slice(fingerprint_end..),
        sequence: le_u64(record, 12),
        time_ms: le_u64(record, 4),
    })
}

/// Writes a request record.
pub(crate) fn write_requests(group: &RequestGroup) -> Vec<u8> {
    let mut record = vec![0; 4];
    record.extend_from_slice(&group.time_ms.to_le_bytes());
    for write in &group.writes {
        for number in [write.incarnation, write.request, write.first, write.last] {
            record.extend_from_slice(&number.to_le_bytes());
        }
    }
    seal(&mut record);
    record
}

/// Reads a request record.
pub(crate) fn read_requests(number: u64, record: &[u8]) -> Result<RequestGroup, Flaw> {
    check_seal(record, REQUEST_HEADER_BYTES)?;
    let (writes, rest) = record[REQUEST_HEADER_BYTES..].as_chunks::<REQUEST_WRITE_BYTES>();
    if !rest.is_empty() {
        let expected = format!("{REQUEST_HEADER_BYTES} and a multiple of {REQUEST_WRITE_BYTES}");
        return Err(Flaw::Length { found: record.len(), expected });
    }
    let writes = writes
        .iter()
        .map(|write| CommittedWrite {
            incarnation: le_u64(write, 0),
            request: le_u64(write, 8),
            first: le_u64(write, 16),
            last: le_u64(write, 24),
        })
        .collect();
    Ok(RequestGroup { number, time_ms: le_u64(record, 4), writes })
}

/// Key of an index in `meta`.
pub(crate) fn index_key(name: &IndexName) -> Vec<u8> {
    let mut key = META_INDEX.to_vec();
    key.extend_from_slice(format!("{}/{}", name.model, name.field).as_bytes());
    key
}

/// Value of an index in `meta`.
pub(crate) fn write_index(row: &IndexRow) -> Vec<u8> {
    let mut value = row.number.to_le_bytes().to_vec();
    value.push(match row.state {
        IndexState::Building => 0,
        IndexState::Complete => 1,
    });
    value
}

/// Reads key and value of an index in `meta`.
pub(crate) fn read_index(key: &[u8], value: &[u8]) -> Result<IndexRow, Flaw> {
    let name = text("name of an index", key.strip_prefix(META_INDEX).unwrap_or(key))?;
    let Some((model, field)) = name.split_once('/') else {
        return Err(Flaw::Unknown { field: "name of an index", found: name });
    };
    let name = IndexName { model: model.to_owned(), field: field.to_owned() };
    let (number, state) = match value {
        [a, b, c, d, state @ (0 | 1)] => (u32::from_le_bytes([*a, *b, *c, *d]), *state),
        _ => return Err(Flaw::Unknown { field: "state of an index", found: format!("{value:?}") }),
    };
    let state = if state == 0 { IndexState::Building } else { IndexState::Complete };
    Ok(IndexRow { name, number, state })
}

/// Key of a dropped index in `meta`.
pub(crate) fn dropped_key(number: u32) -> Vec<u8> {
    let mut key = META_DROPPED.to_vec();
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Reverses [`dropped_key`].
pub(crate) fn read_dropped_key(key: &[u8]) -> Result<u32, Flaw> {
    let number = key.strip_prefix(META_DROPPED).and_then(|number| number.try_into().ok());
    number
        .map(u32::from_be_bytes)
        .ok_or_else(|| Flaw::Unknown { field: "key of a dropped index", found: format!("{key:?}") })
}

/// The form of a value that goes into keys: itself when short, its SHA-256 when long, told apart by a tag.
pub(crate) fn bounded(value: &[u8]) -> Vec<u8> {
    let (tag, digest);
    let content = if value.len() <= PLAIN_KEY_BYTES_MAX {
        tag = TAG_PLAIN;
        value
    } else {
        tag = TAG_HASHED;
        digest = Sha256::digest(value);
        digest.as_slice()
    };
    let mut key = Vec::with_capacity(1 + content.len());
    key.push(tag);
    key.extend_from_slice(content);
    key
}

fn seal(record: &mut [u8]) {
    let checksum = crc32fast::hash(&record[4..]);
    record[..4].copy_from_slice(&checksum.to_le_bytes());
}

fn check_seal(record: &[u8], header_bytes: usize) -> Result<(), Flaw> {
    if record.len() < header_bytes {
        return Err(Flaw::Length { found: record.len(), expected: format!("at least {header_bytes}") });
    }
    let expected = u32::from_le_bytes([record[0], record[1], record[2], record[3]]);
    let found = crc32fast::hash(&record[4..]);
    if found == expected { Ok(()) } else { Err(Flaw::Checksum { found, expected }) }
}

/// Callers have checked that the record is long enough.
fn le_u64(record: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&record[at..at + 8]);
    u64::from_le_bytes(bytes)
}

fn text(field: &'static str, bytes: &[u8]) -> Result<String, Flaw> {
    String::from_utf8(bytes.to_vec())
        .map_err(|error| Flaw::Unknown { field, found: format!("bytes that are not UTF-8 ({error})") })
}

#[cfg(test)]
mod tests;
