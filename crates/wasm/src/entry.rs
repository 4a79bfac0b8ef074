//! The ways into a module's code.

use crate::{
    route::{RouteRequest, RouteResponse},
    services::Entity,
};

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
    /// Bring a stored document into the shape that the code knows. Answers the document.
    Load {
        /// What is stored.
        stored: Entity,
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
    /// Answer a request to a custom route.
    Route {
        /// The request.
        request: Box<RouteRequest>,
    },
}

/// What code answers.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It agrees.
    Agreed,
    /// JSON.
    Json(String),
    /// An answer over HTTP.
    Response(RouteResponse),
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
            Self::Load { .. } => "on-load",
            Self::Command { .. } => "a command",
            Self::Route { .. } => "a route",
        }
    }
}
