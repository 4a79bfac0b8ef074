//! What a worker and the store say to each other, over one Unix stream per worker, as [`crate::frame`]s.
//!
//! ```text
//! worker                                store
//!   │ Attach{incarnation, applied} ──────▶ │
//!   │ ◀──────── Attached{epoch, durable}   │
//!   │ ◀──────── SnapshotBegin, SnapshotPage…, SnapshotEnd{at}    (no usable `applied`)
//!   │ ◀──────── Feed{first, last, changes} │  everything after `at` / `applied`, in order, for ever
//!   │ Write{request, ops} ───────────────▶ │  one atomic group
//!   │ ◀──────── Feed (same changes)        │  sent while the group is being synced
//!   │                                      │  board.durable := last
//!   │ ◀──────── Written{request, outcome}  │
//! ```
//!
//! Rules the two sides live by:
//!
//! * Answers and feed share one first-in-first-out stream, so an answer is never older than a change already read.
//! * A worker applies a fed change only once `board.durable` has reached its number, and serves a read only once it
//!   has applied everything up to the value of `board.durable` it loaded when the read began.
//! * `first` of a feed frame is the previous `last` + 1; anything else is a gap and the worker sends `Resync`.
//! * Feed, writes and their answers go in their [`crate::brief`] form when the side that reads them has said that it
//!   reads that: the worker in `Attach`, the store in `Attached`. A neighbour of before says nothing of the kind and gets
//!   MessagePack, as everybody does for all other messages.
//! * A write is identified by (incarnation, request). After a broken connection the worker sends unanswered writes
//!   again under the same identity, and the store answers a write it has already committed from its record.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Name under which workers keep in the store how far they have delivered events: no model can have it. The documents of
/// it are JSON, on disk, known by the model that events are delivered to, and shown to nobody.
pub const POSITIONS: &str = "@POSITIONS";

/// Worker to store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToStore {
    /// First message on every connection.
    Attach(Attach),
    /// Commit these operations together or not at all.
    Write(Write),
    /// Fetch exact versions of documents that the worker no longer keeps.
    Fetch {
        /// Chosen by the worker, echoed in the answer.
        request: u64,
        /// Which documents, in which version.
        versions: Vec<Version>,
    },
    /// Is there a stored response under this idempotency key?
    Recall {
        /// Chosen by the worker, echoed in the answer.
        request: u64,
        /// Scope and key, as in [`Idempotency::key`].
        key: String,
    },
    /// Read the change log after `after`, for a subscriber that resumes.
    Changes {
        /// Chosen by the worker, echoed in the answer.
        request: u64,
        /// Last number the subscriber has seen.
        after: u64,
        /// At most this many changes.
        limit: u32,
    },
    /// The worker found a gap; send everything after `applied` again.
    Resync {
        /// Highest number the worker has applied.
        applied: u64,
    },
}

/// Store to worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromStore {
    /// Answer to [`ToStore::Attach`].
    Attached {
        /// Store process number; grows with every restart of the store.
        epoch: u64,
        /// Durable sequence number at the time of the answer.
        durable: u64,
        /// The store reads writes in their [`crate::brief`] form.
        #[serde(default)]
        brief: bool,
    },
    /// The attach was refused, for good (wrong protocol) or for now (shutting down).
    AttachRefused {
        /// Why.
        reason: String,
    },
    /// Forget everything: a complete copy follows.
    SnapshotBegin {
        /// The copy shows the log up to this number.
        at: u64,
    },
    /// Part of the copy.
    SnapshotPage {
        /// Documents, in no promised order.
        documents: Vec<Stored>,
    },
    /// The copy is complete; feed frames from `at` + 1 follow.
    SnapshotEnd {
        /// As in [`FromStore::SnapshotBegin`].
        at: u64,
    },
    /// Changes in commit order.
    Feed {
        /// First number covered.
        first: u64,
        /// Last number covered. A number that is covered and has no change belongs to one that was only in memory and
        /// is lost; after a restart of the store there may be frames without any change.
        last: u64,
        /// The changes. A group may be cut into several frames; the watermark only ever stands at ends of groups.
        changes: Vec<Change>,
    },
    /// Answer to [`ToStore::Write`].
    Written {
        /// As given.
        request: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// Answer to [`ToStore::Fetch`], in the order asked; `None` when that version is no longer kept.
    Fetched {
        /// As given.
        request: u64,
        /// The bodies, of at least the first version asked for. There are fewer than asked for when all of them would not
        /// fit into one frame: ask again for the rest.
        bodies: Vec<Option<Bytes>>,
    },
    /// Answer to [`ToStore::Recall`].
    Recalled {
        /// As given.
        request: u64,
        /// The stored response, if any.
        stored: Option<StoredResponse>,
    },
    /// Answer to [`ToStore::Changes`].
    ChangesRead {
        /// As given.
        request: u64,
        /// Oldest number still in the log; a subscriber older than `oldest` − 1 has missed something.
        oldest: u64,
        /// The same of models that are only in memory: changes of theirs before it may be missing among those that follow.
        #[serde(default)]
        memory_oldest: u64,
        /// Durable number when the log was read.
        durable: u64,
        /// Changes after `after`, in order, at most `limit`, fewer when they are large: ask again after the last one until
        /// none come.
        changes: Vec<Change>,
    },
}

/// A worker introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// [`crate::PROTOCOL_VERSION`] of the worker.
    pub protocol: u32,
    /// Unique per worker process: half of a write's identity.
    pub incarnation: u64,
    /// Board cell of the worker, for messages and metrics.
    pub cell: u32,
    /// Generation whose catalog the worker serves.
    pub generation: u64,
    /// Highest number applied, if the worker has a usable copy; the store then sends only what follows.
    pub applied: Option<u64>,
    /// The worker reads feed and answers in their [`crate::brief`] form.
    #[serde(default)]
    pub brief: bool,
}

/// One atomic group of operations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// Chosen by the worker, grows; with the incarnation it identifies the write.
    pub request: u64,
    /// Applied in order, all or none.
    pub operations: Vec<Operation>,
    /// Stored in the same commit.
    #[serde(default)]
    pub idempotency: Option<Idempotency>,
}

/// One operation on one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Model name, upper case.
    pub model: String,
    /// Document id.
    pub id: String,
    /// What must hold before.
    pub expect: Expect,
    /// Revision after the operation (for a removal: the revision removed).
    pub revision: u64,
    /// New body, or `None` to remove the document.
    pub body: Option<Bytes>,
    /// As in [`ChangeKind::Put`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Bytes>,
}

/// What must hold before an operation is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// No document with this id.
    Absent,
    /// The document exists and was last written by the change with this number.
    At(u64),
}

/// A response to be replayed when the same key comes again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// Scope (principal) and the client's key, joined by the worker.
    pub key: String,
    /// Digest of method, path and body: the same key with another fingerprint is an error of the client.
    pub fingerprint: Bytes,
    /// The response, opaque to the store.
    pub response: Bytes,
}

/// A response found under an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredResponse {
    /// As stored.
    pub fingerprint: Bytes,
    /// As stored.
    pub response: Bytes,
    /// Number of the last change of the group it was stored with.
    pub sequence: u64,
}

/// What became of a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Durable. Operation `i` has number `first + i`. A write without operations, which keeps a response only, has
    /// `last` = `first` − 1.
    Committed {
        /// Number of the first change.
        first: u64,
        /// Number of the last change.
        last: u64,
    },
    /// Nothing was changed: what operation `operation` expected does not hold.
    Conflict {
        /// Index into [`Write::operations`].
        operation: u32,
        /// Number of the change that last wrote the document; `None` when there is no such document.
        current: Option<u64>,
    },
    /// Nothing was changed: another document has this value in a unique field.
    UniqueTaken {
        /// Index into [`Write::operations`].
        operation: u32,
        /// Name of the field.
        field: String,
    },
    /// Nothing was changed: the key is known, this is its response.
    Replayed(StoredResponse),
    /// Nothing was changed, and trying again later is right (the store is stopping, or out of space).
    Unavailable {
        /// Why.
        reason: String,
    },
    /// Nothing was changed, and the same write will never be accepted (unknown model, too large).
    Refused {
        /// Why.
        reason: String,
    },
}

/// One committed change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Position in the log.
    pub sequence: u64,
    /// Model name, upper case.
    pub model: String,
    /// What happened.
    pub kind: ChangeKind,
    /// Commit time, milliseconds since 1970 UTC.
    pub time_ms: u64,
}

/// What a change did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    /// A document was created (revision 1) or replaced.
    Put {
        /// Document id.
        id: String,
        /// Revision after the change.
        revision: u64,
        /// The whole document.
        body: Bytes,
        /// What is different from the version before, as whoever wrote the document says it: opaque like the body, and
        /// for subscribers only. `None` for a new document.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        changes: Option<Bytes>,
    },
    /// A document was removed.
    Remove {
        /// Document id.
        id: String,
        /// Revision that was removed.
        revision: u64,
    },
    /// All documents of the model are gone (a memory model after its store crashed).
    Truncate,
}

/// One exact version of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Model name, upper case.
    pub model: String,
    /// Document id.
    pub id: String,
    /// Number of the change that wrote it.
    pub sequence: u64,
}

/// A document of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Model name, upper case.
    pub model: String,
    /// Document id.
    pub id: String,
    /// Current revision.
    pub revision: u64,
    /// Number of the change that wrote it.
    pub sequence: u64,
    /// The whole document.
    pub body: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;

    /// [`ChangeKind`] before it said what is different.
    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    enum OlderKind {
        Put { id: String, revision: u64, body: Bytes },
    }

    #[test]
    fn a_change_is_understood_by_a_neighbour_that_does_not_say_what_is_different() {
        let body = Bytes::from_static(b"{}");
        let older = OlderKind::Put { id: "a".into(), revision: 2, body: body.clone() };
        let newer = |changes| ChangeKind::Put { id: "a".into(), revision: 2, body: body.clone(), changes };
        let encoded = codec::encode(&newer(Some(Bytes::from_static(b"{}")))).unwrap();
        assert_eq!(codec::decode::<OlderKind>(&encoded).unwrap(), older);
        assert_eq!(codec::decode::<ChangeKind>(&codec::encode(&older).unwrap()).unwrap(), newer(None),);
        assert_eq!(codec::encode(&newer(None)).unwrap(), codec::encode(&older).unwrap());
    }
}
