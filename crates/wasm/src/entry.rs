//! The ways into a module's code.

use std::borrow::Cow;

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
    /// Take note of an event.
    Event(Happening),
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
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Create { .. } => "on-create",
            Self::Validate { .. } => "validate",
            Self::Update { .. } => "on-update",
            Self::Delete { .. } => "on-delete",
            Self::Load { .. } => "on-load",
            Self::Command { .. } => "command",
            Self::Route { .. } => "route",
            Self::Event(_) => "on-event",
        }
    }

    /// What people call it: of commands and routes also which one.
    #[must_use]
    pub fn name(&self) -> Cow<'static, str> {
        let kind = self.kind();
        match self {
            Self::Command { name, .. } => format!("{kind} {name}").into(),
            Self::Route { request } => format!("{kind} {} {}", request.method, request.route).into(),
            _ => kind.into(),
        }
    }
}
