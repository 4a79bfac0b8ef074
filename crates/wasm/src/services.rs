//! What a module may ask of its host beyond its own instance. The worker answers; this crate only passes on.

use std::{future::Future, pin::Pin, sync::Arc, time::Instant};

use aegis_domain::{access::Principal, code::Grants, trial::Lot};

use crate::{
    call::{Lineage, Refusal},
    outgoing::{Dispatch, OutgoingError, Reply, Sent, StreamedBody, Waits},
    secret::SecretText,
};

/// Who asks: code of a model in the course of a call.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// Name of the module.
    pub module: &'a str,
    /// The model, upper case; empty for a service. Which documents its code may reach is decided by it.
    pub model: &'a str,
    /// What its code may reach beyond that.
    pub grants: &'a Grants,
    /// The request that the call belongs to.
    pub request_id: &'a str,
    /// When the answer is not wanted any more.
    pub deadline: Instant,
    /// Most bytes of several documents that its code is given at once.
    pub payload_bytes_max: usize,
    /// Where the call comes from ([`crate::Call::lineage`]).
    pub lineage: Lineage,
    /// What decides which versions carry out what is asked ([`crate::Call::lot`]).
    pub lot: &'a Lot,
    /// Who made the request that led to the call, if that is known. What code may reach is decided by its grants all the
    /// same; the code that it leads to is told.
    pub principal: Option<&'a Arc<Principal>>,
}

/// A document as a module sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entity {
    /// Its id.
    pub id: String,
    /// Name of its model, upper case.
    pub model: String,
    /// Its revision.
    pub revision: u64,
    /// When it was created, milliseconds since 1970.
    pub created_ms: u64,
    /// When it was last changed, milliseconds since 1970.
    pub updated_ms: u64,
    /// The document, JSON.
    pub data: String,
}

/// A list that a module asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// Filters: a JSON object of values, or of operators with values.
    pub filter: String,
    /// Fields to sort by, `-` in front for descending.
    pub sort: Vec<String>,
    /// Most documents.
    pub limit: u32,
    /// Where to go on.
    pub cursor: Option<String>,
    /// Properties wanted; all when empty.
    pub fields: Vec<String>,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The documents.
    pub items: Vec<Entity>,
    /// Where to go on.
    pub cursor: Option<String>,
}

/// A write that a module asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A new document.
    Create {
        /// JSON.
        data: String,
    },
    /// A merge patch (RFC 7396).
    Patch {
        /// Of which document.
        id: String,
        /// JSON.
        changes: String,
        /// The revision that it must have.
        revision: Option<u64>,
    },
    /// A whole new content.
    Replace {
        /// Of which document.
        id: String,
        /// JSON.
        data: String,
        /// The revision that it must have.
        revision: Option<u64>,
    },
    /// A removal.
    Delete {
        /// Of which document.
        id: String,
        /// The revision that it must have.
        revision: Option<u64>,
    },
}

/// How the values that a module measures come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// They are added to a counter.
    Add,
    /// They are observed by a histogram.
    Observe,
}

/// A value that a module measures, as it names it: nothing of it is checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measurement<'a> {
    /// What becomes of the value.
    pub measure: Measure,
    /// Name of what is measured.
    pub name: &'a str,
    /// The value.
    pub value: f64,
    /// Names and values of labels.
    pub labels: &'a [(String, String)],
}

/// What a service comes to.
pub type Served<'a, T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send + 'a>>;

/// The host's services to modules.
pub trait Services: Send + Sync {
    /// One document of `model`.
    fn find<'a>(&'a self, asker: Asker<'a>, model: &'a str, id: &'a str) -> Served<'a, Option<Entity>>;

    /// A list of documents of `model`.
    fn search<'a>(&'a self, asker: Asker<'a>, model: &'a str, search: Search) -> Served<'a, Page>;

    /// Writes one document of `model`.
    fn write<'a>(&'a self, asker: Asker<'a>, model: &'a str, write: Write) -> Served<'a, Entity>;

    /// Writes documents of `model` together or not at all. Answers them in the order of the writes; nothing is written
    /// when they are more than [`Asker::payload_bytes_max`].
    fn write_batch<'a>(
        &'a self,
        asker: Asker<'a>,
        model: &'a str,
        writes: Vec<Write>,
    ) -> Served<'a, Vec<Entity>>;

    /// What a pipeline makes of the documents of `model`; both are JSON.
    fn aggregate<'a>(&'a self, asker: Asker<'a>, model: &'a str, pipeline: &'a str) -> Served<'a, String>;

    /// Takes what the code of `module` measures.
    fn measure(&self, module: &str, measurement: Measurement<'_>);

    /// A secret that the code is granted. A host that says nothing else has none.
    ///
    /// # Errors
    /// When there is none of this name.
    fn secret(&self, _: Asker<'_>, name: &str) -> Result<SecretText, Refusal> {
        Err(Refusal::unavailable(format!("this host has no secret {name:?}")))
    }

    /// Sends a request to another system. A host that says nothing else reaches none.
    fn send<'a>(&'a self, _: Asker<'a>, _: Dispatch) -> Sent<'a, Reply> {
        reaches_nobody()
    }

    /// Sends a request whose bodies are streamed.
    fn stream<'a>(
        &'a self,
        _: Asker<'a>,
        _: http::Request<StreamedBody>,
        _: Waits,
    ) -> Sent<'a, http::Response<StreamedBody>> {
        reaches_nobody()
    }
}

fn reaches_nobody<'a, T: Send + 'a>() -> Sent<'a, T> {
    let error = OutgoingError::Denied("this host reaches no other system".to_owned());
    Box::pin(std::future::ready(Err(error)))
}

/// Services where there is no host to be asked: while a component describes itself, or is called from a command line.
#[derive(Debug, Clone, Copy)]
pub struct NoServices {
    /// What whoever asks is told.
    pub reason: &'static str,
}

impl NoServices {
    fn refuse<'a, T: Send + 'a>(self) -> Served<'a, T> {
        Box::pin(std::future::ready(Err(Refusal::unavailable(self.reason))))
    }
}

impl Services for NoServices {
    fn find<'a>(&'a self, _: Asker<'a>, _: &'a str, _: &'a str) -> Served<'a, Option<Entity>> {
        self.refuse()
    }

    fn search<'a>(&'a self, _: Asker<'a>, _: &'a str, _: Search) -> Served<'a, Page> {
        self.refuse()
    }

    fn write<'a>(&'a self, _: Asker<'a>, _: &'a str, _: Write) -> Served<'a, Entity> {
        self.refuse()
    }

    fn write_batch<'a>(&'a self, _: Asker<'a>, _: &'a str, _: Vec<Write>) -> Served<'a, Vec<Entity>> {
        self.refuse()
    }

    fn aggregate<'a>(&'a self, _: Asker<'a>, _: &'a str, _: &'a str) -> Served<'a, String> {
        self.refuse()
    }

    /// Nobody asks for it here.
    fn measure(&self, _: &str, _: Measurement<'_>) {}
}
