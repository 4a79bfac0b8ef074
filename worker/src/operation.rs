//! What a client asks of a model and what it gets, free of HTTP.

use std::{sync::Arc, time::Instant};

use aegis_domain::{
    access::Principal,
    catalog::Model,
    trial::{Lot, Variant},
};
use aegis_wasm::Lineage;
use bytes::Bytes;

/// One request to one model.
#[derive(Debug, Clone)]
pub struct Request {
    /// The model.
    pub model: Arc<Model>,
    /// What to do.
    pub operation: Operation,
    /// Conditions that must hold first.
    pub precondition: Precondition,
    /// Present when the client sent an idempotency key.
    pub idempotency: Option<IdempotencyKey>,
    /// When the client stops waiting.
    pub deadline: Instant,
    /// What a write answers with.
    pub answer: Answer,
    /// What the client calls the request: for the code of the model and for the log. Empty when the model has no code.
    pub request_id: String,
    /// Which request it began with, and how many calls of modules led from there to this one.
    pub lineage: Lineage,
    /// What decides which version of a model's code carries it out.
    pub lot: Lot,
    /// Who asks, if that is known. Whether they may was decided before.
    pub principal: Option<Arc<Principal>>,
}

impl Request {
    /// The version of the model's code that carries it out: one and the same from its beginning to its end.
    #[must_use]
    pub fn variant(&self) -> Variant {
        self.lot.draw(self.model.spec(), &self.request_id)
    }
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Read one document.
    Read {
        /// Its id.
        id: String,
    },
    /// Read many.
    List {
        /// The raw query string, without the question mark.
        query: String,
    },
    /// Create one document (a JSON object) or many atomically (an array).
    Create {
        /// The raw body.
        body: Bytes,
    },
    /// Replace a document.
    Replace {
        /// Its id.
        id: String,
        /// The raw body.
        body: Bytes,
    },
    /// Merge patch (RFC 7396).
    Merge {
        /// Its id.
        id: String,
        /// The raw patch.
        body: Bytes,
    },
    /// JSON patch (RFC 6902).
    Patch {
        /// Its id.
        id: String,
        /// The raw patch.
        body: Bytes,
    },
    /// Remove a document.
    Remove {
        /// Its id.
        id: String,
    },
    /// Run a command on a document, which may change it.
    Command {
        /// Its id.
        id: String,
        /// Name of the command.
        command: String,
        /// The raw arguments; empty without any.
        arguments: Bytes,
    },
    /// Ask a command about a document, without changing it.
    Ask {
        /// Its id.
        id: String,
        /// Name of the command.
        command: String,
        /// The raw arguments; empty without any.
        arguments: Bytes,
    },
}

impl Operation {
    /// Whether it can change something.
    #[must_use]
    pub fn writes(&self) -> bool {
        !matches!(self, Self::Read { .. } | Self::List { .. } | Self::Ask { .. })
    }

    /// Id of the one document that it names, if it does.
    #[must_use]
    pub fn document(&self) -> Option<&str> {
        match self {
            Self::Read { id }
            | Self::Replace { id, .. }
            | Self::Merge { id, .. }
            | Self::Patch { id, .. }
            | Self::Remove { id }
            | Self::Command { id, .. }
            | Self::Ask { id, .. } => Some(id),
            Self::List { .. } | Self::Create { .. } => None,
        }
    }

    /// The raw body that it came with; empty without one.
    #[must_use]
    pub fn body(&self) -> Bytes {
        match self {
            Self::Create { body }
            | Self::Replace { body, .. }
            | Self::Merge { body, .. }
            | Self::Patch { body, .. }
            | Self::Command { arguments: body, .. } => body.clone(),
            Self::Read { .. } | Self::List { .. } | Self::Remove { .. } | Self::Ask { .. } => Bytes::new(),
        }
    }
}

/// `If-Match` and `If-None-Match` (RFC 9110 section 13.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Precondition {
    /// The document must exist and have one of these revisions.
    pub if_match: Option<Revisions>,
    /// The document must not exist, or have none of these revisions.
    pub if_none_match: Option<Revisions>,
}

/// A list of entity tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revisions {
    /// `*`.
    Any,
    /// Quoted revisions; tags that are not ours are left out and match nothing.
    Of(Vec<u64>),
}

/// An idempotency key and the request it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Scope (principal) and the client's key.
    pub key: String,
    /// The client's key.
    pub given: String,
    /// Digest of method, path and body.
    pub fingerprint: Bytes,
}

/// What a write answers with (`Prefer: return=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The document.
    Representation,
    /// `{"status":"ok","modelId":id}`.
    Minimal,
    /// The same for a caller who may not read: a refusal does not tell what is stored either.
    Blind,
}

/// What a client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The result.
    pub result: Outcome,
    /// The body, JSON. Empty for [`Outcome::NotModified`].
    pub body: Bytes,
    /// Log position the answer reflects.
    pub sequence: u64,
    /// The response was stored earlier under the same idempotency key.
    pub replayed: bool,
}

/// The result of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// A document was read, replaced, patched or removed.
    Found {
        /// Its revision (the removed one for a removal).
        revision: u64,
    },
    /// The document has a revision that the client said it has.
    NotModified {
        /// That revision.
        revision: u64,
    },
    /// A document was created.
    Created {
        /// Its id.
        id: String,
        /// Its revision.
        revision: u64,
    },
    /// Several documents were created.
    CreatedMany,
    /// A command answered, and nothing was stored.
    Answered,
    /// A list, a count, a page or an aggregate.
    Listed {
        /// Cursor of the next page.
        next_cursor: Option<String>,
    },
}
