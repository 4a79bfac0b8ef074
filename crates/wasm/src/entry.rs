//! The ways into a module's code.

use crate::services::Entity;

/// What is asked of the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Make a document from what the client sent. Answers the document.
    Create {
        /// JSON.
        input: String,
    },
    /// Agree to a document, or not.
    Validate {
        /// What it was; `None` when it is new.
        before: Option<String>,
        /// What it would be, JSON.
        after: String,
    },
    /// Merge changes into a document. Answers the document.
    Update {
        /// What it is.
        current: Entity,
        /// A merge patch (RFC 7396).
        changes: String,
    },
    /// Agree to a removal, or not.
    Delete {
        /// What it is.
        current: Entity,
    },
    /// Run a command. Answers its result.
    Command {
        /// Which.
        name: String,
        /// The document that it is about, if it is about one.
        target: Option<Entity>,
        /// JSON.
        arguments: String,
    },
    /// Take note of an event.
    Event(Happening),
}

/// An event that the code is told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    /// What it is known by: the same when it is told again.
    pub id: String,
    /// Its name, such as `CREATEORDER`.
    pub name: String,
    /// Where it comes from: the name of a model.
    pub source: String,
    /// When it happened, milliseconds since 1970.
    pub time_ms: u64,
    /// What it is about: the id of a document.
    pub key: Option<String>,
    /// JSON.
    pub data: String,
}

impl Entry {
    /// Name of the entry, as the contract has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "on-create",
            Self::Validate { .. } => "validate",
            Self::Update { .. } => "on-update",
            Self::Delete { .. } => "on-delete",
            Self::Command { .. } => "a command",
            Self::Event(_) => "on-event",
        }
    }
}
