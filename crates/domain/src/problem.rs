//! What can be wrong with a request, as a client will read it.
//!
//! The status code belongs to HTTP and is decided in the worker; the code, the text and the advice belong here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Stable name of a kind of problem; part of the problem's `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemCode {
    /// Body is not JSON, or not the JSON that is accepted (duplicate keys, too deep).
    MalformedJson,
    /// A query parameter is unknown or has a bad value.
    BadParameter,
    /// A header has a bad value.
    BadHeader,
    /// A filter would look at too many documents; the detail names the field to index.
    QueryTooExpensive,
    /// No such route.
    NoSuchRoute,
    /// No such model.
    NoSuchModel,
    /// No such document.
    NotFound,
    /// The model has no such relation.
    NoSuchRelation,
    /// The model has no such command.
    NoSuchCommand,
    /// Method not allowed here.
    MethodNotAllowed,
    /// Nothing acceptable can be answered.
    NotAcceptable,
    /// Content type not understood.
    UnsupportedMediaType,
    /// A document with this id exists.
    AlreadyExists,
    /// Another document has this value in a unique field.
    UniqueTaken,
    /// A test of a JSON patch does not hold.
    PatchTestFailed,
    /// Concurrent writes kept winning until the deadline.
    Contended,
    /// The revision is not the one the client has seen.
    RevisionMismatch,
    /// The model demands `If-Match`.
    RevisionRequired,
    /// Schema or mixin says no.
    Invalid,
    /// The same idempotency key came with another request.
    IdempotencyKeyReused,
    /// A request with the same idempotency key is still running.
    IdempotencyKeyInUse,
    /// Body larger than allowed.
    BodyTooLarge,
    /// Request target longer than allowed.
    UriTooLong,
    /// Head larger than allowed.
    HeadersTooLarge,
    /// The request did not arrive in time.
    RequestTimeout,
    /// The client asks more often than it may.
    RateLimited,
    /// The worker is full.
    Overloaded,
    /// The store is not reachable.
    StoreUnavailable,
    /// The write may or may not have been made; the same key tells.
    WriteOutcomeUnknown,
    /// The answer took too long.
    DeadlineExceeded,
    /// The model's code says that this contradicts what there is.
    Conflict,
    /// The model's code says that this may not be done.
    Denied,
    /// Something that the model's code needs is not there.
    Unavailable,
    /// The model's code keeps failing, and is not called for a while.
    ModuleUnavailable,
    /// The model's code says that it has failed.
    GuestFailed,
    /// The model's code has a defect.
    GuestTrap,
    /// Nobody says who asks, or nobody can believe it.
    Unauthorized,
    /// The caller may not do this.
    Forbidden,
    /// Only operators may do this, and only on the admin listener.
    AdminOnly,
    /// The signature is missing or does not belong to the body.
    BadSignature,
    /// A rollout refused the new generation.
    ReloadRejected,
    /// A rollout refused the new version of a module.
    DeployRejected,
    /// Clients or documents would notice the new version of a module.
    Incompatible,
    /// The generation has no such module.
    NoSuchModule,
    /// Defect of the host.
    Internal,
}

impl ProblemCode {
    /// The stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.entry().0
    }

    /// A short sentence for people, the same for every occurrence.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.entry().1
    }

    /// What a client may do.
    #[must_use]
    pub fn retry(self) -> Retry {
        self.entry().2
    }

    fn entry(self) -> (&'static str, &'static str, Retry) {
        use Retry::{After, Never, SameRequest};
        match self {
            Self::MalformedJson => ("malformed-json", "The body is not acceptable JSON", Never),
            Self::BadParameter => ("bad-parameter", "A query parameter is not acceptable", Never),
            Self::BadHeader => ("bad-header", "A header is not acceptable", Never),
            Self::QueryTooExpensive => ("query-too-expensive", "The query needs an index", Never),
            Self::NoSuchRoute => ("no-such-route", "Not Found", Never),
            Self::NoSuchModel => ("no-such-model", "Not Found", Never),
            Self::NotFound => ("not-found", "Not Found", Never),
            Self::NoSuchRelation => ("no-such-relation", "Not Found", Never),
            Self::NoSuchCommand => ("no-such-command", "Not Found", Never),
            Self::MethodNotAllowed => ("method-not-allowed", "Method not allowed", Never),
            Self::NotAcceptable => ("not-acceptable", "Nothing acceptable can be answered", Never),
            Self::UnsupportedMediaType => ("unsupported-media-type", "Content type not supported", Never),
            Self::AlreadyExists => ("already-exists", "The document exists", Never),
            Self::UniqueTaken => ("unique-taken", "A unique value is taken", Never),
            Self::PatchTestFailed => ("patch-test-failed", "A test of the patch does not hold", Never),
            Self::Contended => ("contended", "Too many concurrent writes to the document", After),
            Self::RevisionMismatch => ("revision-mismatch", "The document has another revision", Never),
            Self::RevisionRequired => ("revision-required", "If-Match is required", Never),
            Self::Invalid => ("invalid", "The document is not valid", Never),
            Self::IdempotencyKeyReused => {
                ("idempotency-key-reused", "The key belongs to another request", Never)
            }
            Self::IdempotencyKeyInUse => {
                ("idempotency-key-in-use", "A request with this key is running", After)
            }
            Self::BodyTooLarge => ("body-too-large", "The body is too large", Never),
            Self::UriTooLong => ("uri-too-long", "The request target is too long", Never),
            Self::HeadersTooLarge => ("headers-too-large", "The header fields are too large", Never),
            Self::RequestTimeout => ("request-timeout", "The request did not arrive in time", SameRequest),
            Self::RateLimited => ("rate-limited", "Too many requests", After),
            Self::Overloaded => ("overloaded", "The server is busy", After),
            Self::StoreUnavailable => ("store-unavailable", "The store is not available", After),
            Self::WriteOutcomeUnknown => {
                ("write-outcome-unknown", "The write may or may not have been made", After)
            }
            Self::DeadlineExceeded => ("deadline-exceeded", "The answer took too long", After),
            Self::Conflict => ("conflict", "The model says that this contradicts what there is", Never),
            Self::Denied => ("denied", "The model says that this may not be done", Never),
            Self::Unavailable => ("unavailable", "The model needs something that is not there", After),
            Self::ModuleUnavailable => {
                ("module-unavailable", "The model's code keeps failing and is not called", After)
            }
            Self::GuestFailed => ("guest-failed", "The model's code has failed", SameRequest),
            Self::GuestTrap => ("guest-trap", "Defect of the model's code", SameRequest),
            Self::Unauthorized => ("unauthorized", "Who asks is not known", Never),
            Self::Forbidden => ("forbidden", "The caller may not do this", Never),
            Self::AdminOnly => ("admin-only", "Only for operators", Never),
            Self::BadSignature => ("bad-signature", "The signature is not acceptable", Never),
            Self::ReloadRejected => ("reload-rejected", "The new generation was refused", Never),
            Self::DeployRejected => ("deploy-rejected", "The new version of the module was refused", Never),
            Self::Incompatible => {
                ("incompatible", "The new version of the module breaks the one before", Never)
            }
            Self::NoSuchModule => ("no-such-module", "Not Found", Never),
            Self::Internal => ("internal", "Defect of the host", SameRequest),
        }
    }
}

/// What a client may do after a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Retry {
    /// The same request will fail again, or do what it does a second time.
    Never,
    /// The same request may be sent again at once.
    SameRequest,
    /// The same request may be sent again after the time in `Retry-After`.
    After,
}

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// JSON pointer to the place, empty for the whole document; or the name of a query parameter.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

/// A problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// Which kind.
    pub code: ProblemCode,
    /// This occurrence, one sentence.
    pub detail: String,
    /// All single errors, when there are several things to say.
    pub errors: Vec<FieldError>,
    /// What the client may do: what the kind says, unless more is known.
    pub retry: Retry,
    /// Seconds after which it is worth trying again, when they are known.
    pub retry_after_s: Option<u32>,
}

impl Problem {
    /// A problem with a detail sentence.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), retry: code.retry(), retry_after_s: None }
    }

    /// The same, about a write that may have been made and has no key under which that could be asked: it is not to be
    /// sent again as it is.
    #[must_use]
    pub fn not_to_be_repeated(mut self) -> Self {
        self.retry = Retry::Never;
        self
    }

    /// The same, worth trying again after so many seconds.
    #[must_use]
    pub fn worth_trying_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// The same with all single errors.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code.as_str(), self.detail)
    }
}
