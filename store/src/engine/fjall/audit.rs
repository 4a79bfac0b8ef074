//! Walks over every row on disk and tells what does not fit.

use std::collections::{BTreeSet, HashMap};

use aegis_domain::document;
use aegis_ipc::data::{Change, ChangeKind, POSITIONS, Stored};
use bytes::Bytes;
use fjall::{Keyspace, Slice};

use super::{FjallEngine, into_stored};
use crate::{
    catalog::Rules,
    engine::{
        Engine, EngineResult, UniqueKey,
        records::{self, Flaw},
    },
};

/// Errors in a row after which a partition is given up: the engine may return the same one for ever.
const ERRORS_IN_A_ROW_MAX: u32 = 100;
/// Models that are named as unknown; further ones are left out.
const UNKNOWN_MODELS_MAX: usize = 20;

/// What was walked over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Audited {
    /// Documents.
    pub(crate) documents: u64,
    /// Changes in the log.
    pub(crate) changes: u64,
    /// Values in unique indexes.
    pub(crate) unique_values: u64,
    /// Kept responses.
    pub(crate) responses: u64,
    /// Models of documents that the rules do not have, the first of them.
    pub(crate) unknown_models: BTreeSet<String>,
}

/// Where findings and progress go.
pub(crate) struct Sink<'a> {
    /// Takes what is wrong.
    pub(crate) finding: &'a mut dyn FnMut(String),
    /// Takes the number of rows so far.
    pub(crate) progress: &'a mut dyn FnMut(u64),
    rows: u64,
}

impl<'a> Sink<'a> {
    /// Nothing so far.
    pub(crate) fn new(finding: &'a mut dyn FnMut(String), progress: &'a mut dyn FnMut(u64)) -> Self {
        Self { finding, progress, rows: 0 }
    }

    fn row(&mut self) {
        self.rows += 1;
        (self.progress)(self.rows);
    }
}

/// The newest change of a document in the log.
struct Newest {
    sequence: u64,
    /// Checksum of the whole record of a document that exists; `None` for one that was removed.
    record: Option<u32>,
    seen: bool,
}

impl FjallEngine {
    /// Compares documents, log and unique indexes with each other and reads everything else. `rules` tells which
    /// values belong into which index.
    pub(crate) fn audit(&self, rules: Option<&Rules>, sink: &mut Sink<'_>) -> Audited {
        let mut audited = Audited::default();
        let mut newest = self.audit_log(sink, &mut audited);
        let mut expected = HashMap::new();
        self.audit_documents(rules, &mut newest, &mut expected, sink, &mut audited);
        self.audit_unique(rules, expected, sink, &mut audited);
        self.audit_responses(sink, &mut audited);
        if let Err(error) = self.recover() {
            (sink.finding)(error.to_string());
        }
        audited
    }

    fn audit_log(&self, sink: &mut Sink<'_>, audited: &mut Audited) -> HashMap<Vec<u8>, Newest> {
        let mut newest = HashMap::new();
        self.each_row("log", &self.log, sink, |key, record, finding| {
            audited.changes += 1;
            let checksum = crc32fast::hash(&record);
            let change = records::read_number_key(&key).and_then(|number| {
                records::read_change(&Bytes::from_owner(record)).map(|change| (number, change))
            });
            let (number, change) = match change {
                Ok(read) => read,
                Err(flaw) => return finding(self.flawed("log", &key, &flaw).to_string()),
            };
            if number != change.sequence {
                finding(format!("log row {number} holds change {}", change.sequence));
            }
            let Change { model, kind, sequence, .. } = change;
            let (id, record) = match &kind {
                ChangeKind::Put { id, .. } => (id, Some(checksum)),
                ChangeKind::Remove { id, .. } => (id, None),
                ChangeKind::Truncate => {
                    let prefix = document_key(&model, "");
                    newest.retain(|key: &Vec<u8>, _| !key.starts_with(&prefix));
                    return;
                }
            };
            newest.insert(document_key(&model, id), Newest { sequence, record, seen: false });
        });
        newest
    }

    fn audit_documents(
        &self,
        rules: Option<&Rules>,
        newest: &mut HashMap<Vec<u8>, Newest>,
        expected: &mut HashMap<UniqueKey, String>,
        sink: &mut Sink<'_>,
        audited: &mut Audited,
    ) {
        let (oldest, last) = (self.log_oldest(), self.last());
        self.each_row("documents", &self.documents, sink, |key, record, finding| {
            audited.documents += 1;
            let checksum = crc32fast::hash(&record);
            let stored = match records::read_change(&Bytes::from_owner(record)).and_then(into_stored) {
                Ok(stored) => stored,
                Err(flaw) => return finding(self.flawed("documents", &key, &flaw).to_string()),
            };
            let name = format!("document {:?} of model {}", stored.id, stored.model);
            let expected_key = document_key(&stored.model, &stored.id);
            if *key != *expected_key {
                return finding(format!("{name} is kept under the key {}", key.escape_ascii()));
            }
            let sequence = stored.sequence;
            match newest.get_mut(&expected_key) {
                Some(change) => {
                    change.seen = true;
                    if change.record.is_none() {
                        finding(format!("{name} exists, although change {} removed it", change.sequence));
                    } else if change.sequence != sequence {
                        let latest = change.sequence;
                        finding(format!(
                            "{name} is the one of change {sequence}, although change {latest} is later"
                        ));
                    } else if change.record != Some(checksum) {
                        finding(format!("{name} differs from change {sequence}, which wrote it"));
                    }
                }
                None if sequence >= oldest => {
                    finding(format!(
                        "{name} was written by change {sequence}, which is not in the log from {oldest} on"
                    ));
                }
                None => {}
            }
            if sequence > last {
                finding(format!("{name} was written by change {sequence}, but the last one is {last}"));
            }
            if rules.is_some_and(|rules| rules.model(&stored.model).is_none())
                && stored.model != POSITIONS
                && audited.unknown_models.len() < UNKNOWN_MODELS_MAX
            {
                audited.unknown_models.insert(stored.model.clone());
            }
            audit_content(&stored, &name, finding);
            expect_unique(rules, &stored, &name, expected, finding);
        });
        for (key, change) in newest.iter().filter(|(_, change)| !change.seen && change.record.is_some()) {
            let model = records::read_model(key).unwrap_or_default();
            let id = String::from_utf8_lossy(key.get(1 + model.len()..).unwrap_or_default());
            let sequence = change.sequence;
            (sink.finding)(format!(
                "document {id:?} of model {model} is missing, which change {sequence} wrote"
            ));
        }
    }

    fn audit_unique(
        &self,
        rules: Option<&Rules>,
        mut expected: HashMap<UniqueKey, String>,
        sink: &mut Sink<'_>,
        audited: &mut Audited,
    ) {
        let enforced: Vec<u32> = rules.map(Rules::index_numbers).unwrap_or_default();
        self.each_row("unique", &self.unique, sink, |key, owner, finding| {
            audited.unique_values += 1;
            let read = records::read_unique_key(&key)
                .and_then(|unique| super::read_owner(&owner).map(|owner| (unique, owner)));
            let (unique, owner) = match read {
                Ok(read) => read,
                Err(flaw) => return finding(self.flawed("unique", &key, &flaw).to_string()),
            };
            if !enforced.contains(&unique.index) {
                return; // of an index that is dropped or being built
            }
            match expected.remove(&unique) {
                Some(id) if id == owner => {}
                Some(id) => {
                    finding(format!("the value of document {id:?} in index {} is {owner:?}'s", unique.index))
                }
                None => {
                    finding(format!("index {} has a value of {owner:?} that it does not have", unique.index))
                }
            }
        });
        for (key, id) in expected {
            (sink.finding)(format!("index {} lacks a value of document {id:?}", key.index));
        }
    }

    fn audit_responses(&self, sink: &mut Sink<'_>, audited: &mut Audited) {
        self.each_row("responses", &self.responses, sink, |key, record, finding| {
            let flaw: Result<(), Flaw> = match key.first() {
                Some(b'k') => {
                    audited.responses += 1;
                    records::read_response(&Bytes::from_owner(record)).map(|kept| {
                        if *key != *records::response_key(&records::bounded(kept.key.as_bytes())) {
                            finding(format!("a kept response is under the wrong key {}", key.escape_ascii()));
                        }
                    })
                }
                _ => records::read_age_key(&key).map(|_| ()),
            };
            if let Err(flaw) = flaw {
                finding(self.flawed("responses", &key, &flaw).to_string());
            }
        });
    }

    fn each_row(
        &self,
        partition: &str,
        keyspace: &Keyspace,
        sink: &mut Sink<'_>,
        mut visit: impl FnMut(Slice, Slice, &mut dyn FnMut(String)),
    ) {
        let mut errors = 0;
        for row in keyspace.iter() {
            sink.row();
            let row: EngineResult<_> = row
                .into_inner()
                .map_err(|error| self.failed(&format!("reading partition {partition}"), error));
            match row {
                Ok((key, value)) => {
                    errors = 0;
                    visit(key, value, sink.finding);
                }
                Err(error) => {
                    (sink.finding)(crate::error::chain(&error));
                    errors += 1;
                    if errors >= ERRORS_IN_A_ROW_MAX {
                        (sink.finding)(format!(
                            "partition {partition} is given up after {errors} errors in a row"
                        ));
                        return;
                    }
                }
            }
        }
    }
}

/// Notes which unique values a document has.
fn expect_unique(
    rules: Option<&Rules>,
    stored: &Stored,
    name: &str,
    expected: &mut HashMap<UniqueKey, String>,
    finding: &mut dyn FnMut(String),
) {
    let Some(rules) = rules.and_then(|rules| rules.model(&stored.model)) else { return };
    match rules.unique_keys(&stored.body) {
        Ok(keys) => {
            for (_, key) in keys {
                if let Some(other) = expected.insert(key, stored.id.clone()) {
                    finding(format!("{name} has a unique value that document {other:?} has as well"));
                }
            }
        }
        Err(reason) => finding(format!("{name} cannot be read: {reason}")),
    }
}

/// Whether the host can change a document. Positions are of its own making and never shown.
fn audit_content(stored: &Stored, name: &str, finding: &mut dyn FnMut(String)) {
    if stored.model == POSITIONS {
        return;
    }
    match document::check_stored(&stored.model, &stored.body) {
        Ok((id, revision)) if (id.as_str(), revision) == (stored.id.as_str(), stored.revision) => {}
        Ok((id, revision)) => finding(format!(
            "{name} is kept with revision {}, but says that it is revision {revision} of {id:?}",
            stored.revision
        )),
        Err(reason) => finding(format!("{name} cannot be changed: {reason}")),
    }
}

fn document_key(model: &str, id: &str) -> Vec<u8> {
    let mut key = Vec::new();
    records::document_key(model, id, &mut key);
    key
}

#[cfg(test)]
impl FjallEngine {
    /// Makes one row of every kind wrong, for the test of what is found.
    pub(crate) fn spoil(&self) {
        let put = |keyspace: &Keyspace, key: &[u8], value: &[u8]| keyspace.insert(key, value).unwrap();
        let get = |keyspace: &Keyspace, key: &[u8]| keyspace.get(key).unwrap().unwrap().to_vec();
        // A document is an older version than the log's newest, a removed one is back, one is under another key.
        let older = get(&self.log, &records::number_key(1));
        put(&self.documents, &document_key("TODO", "a"), &older);
        let removed = get(&self.log, &records::number_key(3));
        put(&self.documents, &document_key("TODO", "gone"), &removed);
        let other = get(&self.log, &records::number_key(2));
        put(&self.documents, &document_key("TODO", "elsewhere"), &other);
        self.documents.remove(document_key("TODO", "ü")).unwrap();
        // Rows that are no records.
        let mut flipped = other;
        flipped[40] ^= 1;
        put(&self.log, &records::number_key(6), &flipped);
        put(&self.log, b"\0", b"");
        put(&self.responses, b"kx", b"nonsense");
        // A value in the index that nobody has.
        put(&self.unique, &records::unique_key(&UniqueKey::new(1, b"stray")), b"a");
    }
}
