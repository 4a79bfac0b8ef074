//! From results and problems to HTTP. The only place that knows status codes.

mod outgoing;
mod piece;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, cell::RefCell, sync::OnceLock};

use aegis_domain::{FieldError, Problem, ProblemCode, Retry, query::with_cursor, trial::Variant};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

pub(crate) use outgoing::Outgoing;
pub(crate) use piece::Piece;

use crate::{
    execute::Found,
    host::Host,
    operation::{Outcome, Reply},
    request::{Wish, X_REQUEST_ID},
};

static AEGIS_WORKER: HeaderName = HeaderName::from_static("aegis-worker");
static AEGIS_SEQ: HeaderName = HeaderName::from_static("aegis-seq");
static IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
static PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Type of documents and lists.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// What a request that is not signed well is asked for.
const SIGNATURE_SCHEME: HeaderValue = HeaderValue::from_static("X-Hub-Signature-256");

/// Seconds after which a request that may be repeated later may be repeated.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// What an id keeps in a path segment: the unreserved characters of RFC 3986 section 2.3.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The status code of a problem.
pub(crate) fn status_of(code: ProblemCode) -> StatusCode {
    match code {
        ProblemCode::MalformedJson
        | ProblemCode::BadParameter
        | ProblemCode::BadHeader
        | ProblemCode::QueryTooExpensive => StatusCode::BAD_REQUEST,
        ProblemCode::BadSignature | ProblemCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ProblemCode::AdminOnly | ProblemCode::Denied | ProblemCode::Forbidden => StatusCode::FORBIDDEN,
        ProblemCode::NoSuchRoute
        | ProblemCode::NoSuchModel
        | ProblemCode::NoSuchRelation
        | ProblemCode::NoSuchCommand
        | ProblemCode::NoSuchModule
        | ProblemCode::NotFound => StatusCode::NOT_FOUND,
        ProblemCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ProblemCode::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        ProblemCode::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        ProblemCode::AlreadyExists
        | ProblemCode::Conflict
        | ProblemCode::UniqueTaken
        | ProblemCode::PatchTestFailed
        | ProblemCode::IdempotencyKeyInUse
        | ProblemCode::ReloadRejected
        | ProblemCode::DeployRejected
        | ProblemCode::Incompatible => StatusCode::CONFLICT,
        ProblemCode::RevisionMismatch => StatusCode::PRECONDITION_FAILED,
        ProblemCode::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ProblemCode::UriTooLong => StatusCode::URI_TOO_LONG,
        ProblemCode::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ProblemCode::Invalid | ProblemCode::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        ProblemCode::RevisionRequired => StatusCode::PRECONDITION_REQUIRED,
        ProblemCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ProblemCode::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        ProblemCode::Internal | ProblemCode::GuestFailed | ProblemCode::GuestTrap => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        ProblemCode::Contended
        | ProblemCode::Overloaded
        | ProblemCode::StoreUnavailable
        | ProblemCode::Unavailable
        | ProblemCode::ModuleUnavailable
        | ProblemCode::WriteOutcomeUnknown => StatusCode::SERVICE_UNAVAILABLE,
        ProblemCode::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// Whether a problem is the client's doing: then it is refused, and not failed.
pub(crate) fn is_refusal(code: ProblemCode) -> bool {
    status_of(code).is_client_error()
}

/// A problem and what HTTP wants to be said with it.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) problem: Problem,
    /// Value of `Allow`.
    pub(crate) allow: Option<Cow<'static, str>>,
    /// Value of `WWW-Authenticate`.
    pub(crate) challenge: Option<&'static str>,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, allow: None, challenge: None }
    }
}

/// What a reply is about, as far as headers say it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    /// Segment of the model's path.
    pub(crate) endpoint: &'a str,
    /// Raw query of a list.
    pub(crate) query: &'a str,
    pub(crate) wish: Wish,
    /// The document is gone, so there is no revision to come back to.
    pub(crate) removed: bool,
}

/// Whether the answer has a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Head and body.
    Whole,
    /// The head of what the body would be (`HEAD`).
    HeadOnly,
}

/// Whether the client may send another request over this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It may.
    Open,
    /// This answer is the last one: `Connection: close`, HTTP/1 only.
    Closing,
}

/// Makes the answers to one request.
pub(crate) struct Envelope<'h> {
    pub(crate) host: &'h Host,
    pub(crate) request_id: HeaderValue,
    pub(crate) extent: Extent,
    pub(crate) next: Next,
    /// Which version of the model's code answers, while another one is tried beside it.
    pub(crate) variant: OnceLock<Variant>,
}

impl Envelope<'_> {
    /// A document that was read.
    pub(crate) fn document(&self, found: Found, sequence: u64) -> Response<Outgoing> {
        let mut response = self.whole(StatusCode::OK, JSON, found.body, sequence);
        response.headers_mut().insert(header::ETAG, entity_tag(found.revision));
        response
    }

    /// The client has this revision already.
    pub(crate) fn not_modified(&self, revision: u64, sequence: u64) -> Response<Outgoing> {
        let mut response = self.bare(StatusCode::NOT_MODIFIED, sequence);
        response.headers_mut().insert(header::ETAG, entity_tag(revision));
        response
    }

    /// What the engine said.
    pub(crate) fn reply(&self, reply: Reply, about: &About<'_>) -> Response<Outgoing> {
        let Reply { result, body, sequence, replayed } = reply;
        let status = match &result {
            Outcome::NotModified { revision } => return self.not_modified(*revision, sequence),
            Outcome::Created { .. } | Outcome::CreatedMany => StatusCode::CREATED,
            Outcome::Found { .. } | Outcome::Listed { .. } | Outcome::Answered => StatusCode::OK,
        };
        // In which form a stored response was asked for is not known, and what code answers has a form of its own.
        let has_form = !replayed && result != Outcome::Answered;
        let mut response = self.whole(status, JSON, body, sequence);
        let headers = response.headers_mut();
        match result {
            Outcome::Found { revision } if !about.removed => {
                headers.insert(header::ETAG, entity_tag(revision));
            }
            Outcome::Created { id, revision } => {
                headers.insert(header::ETAG, entity_tag(revision));
                self.insert_location(headers, about.endpoint, &id);
            }
            Outcome::Listed { next_cursor: Some(cursor) } => self.insert_next(headers, about, &cursor),
            Outcome::Listed { next_cursor: None }
            | Outcome::Found { .. }
            | Outcome::CreatedMany
            | Outcome::Answered
            | Outcome::NotModified { .. } => {}
        }
        if let Some(applied) = about.wish.applied.filter(|_| has_form) {
            headers.insert(&PREFERENCE_APPLIED, HeaderValue::from_static(applied));
        }
        if replayed {
            headers.insert(&IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }

    /// What is wrong.
    pub(crate) fn refuse(&self, refusal: &Refusal) -> Response<Outgoing> {
        self.refuse_at(refusal, self.host.sequence())
    }

    /// What is wrong, as of a log position.
    pub(crate) fn refuse_at(&self, refusal: &Refusal, sequence: u64) -> Response<Outgoing> {
        let problem = &refusal.problem;
        let body = problem_body(problem, &self.request_id);
        let mut response = self.whole(status_of(problem.code), PROBLEM_JSON, body, sequence);
        let headers = response.headers_mut();
        if problem.code.retry() == Retry::After {
            let seconds = problem.retry_after_s.map_or(RETRY_AFTER_SECONDS, HeaderValue::from);
            headers.insert(header::RETRY_AFTER, seconds);
        }
        if problem.code == ProblemCode::BadSignature {
            // RFC 9110 section 15.5.2: whoever is refused learns what it takes.
            headers.insert(header::WWW_AUTHENTICATE, SIGNATURE_SCHEME);
        }
        if let Some(challenge) = refusal.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(allow) = &refusal.allow {
            headers.insert(header::ALLOW, methods(allow));
        }
        response
    }

    /// The methods of a place.
    pub(crate) fn options(&self, allow: &str) -> Response<Outgoing> {
        let mut response = self.bare(StatusCode::NO_CONTENT, self.host.sequence());
        response.headers_mut().insert(header::ALLOW, methods(allow));
        response
    }

    /// A body that is not a document.
    pub(crate) fn page(&self, status: StatusCode, kind: &'static str, body: Bytes) -> Response<Outgoing> {
        let mut response = self.whole(status, HeaderValue::from_static(kind), body, self.host.sequence());
        response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    /// JSON that is not a document.
    pub(crate) fn json<T: Serialize>(&self, status: StatusCode, value: &T) -> Response<Outgoing> {
        match serde_json::to_vec(value) {
            Ok(body) => self.whole(status, JSON, body.into(), self.host.sequence()),
            Err(error) => {
                let detail = format!("the answer could not be written: {error}");
                self.refuse(&Problem::new(ProblemCode::Internal, detail).into())
            }
        }
    }

    /// An endless answer.
    pub(crate) fn stream(&self, kind: &'static str, body: Outgoing, sequence: u64) -> Response<Outgoing> {
        let mut response = self.bare(StatusCode::OK, sequence);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        *response.body_mut() = body;
        response
    }

    /// An answer that was made elsewhere, just now, with what this host says of every answer.
    pub(crate) fn sign(&self, mut response: Response<Outgoing>) -> Response<Outgoing> {
        let headers = response.headers_mut();
        headers.insert(&AEGIS_WORKER, self.host.identity.header.clone());
        headers.insert(&AEGIS_SEQ, number(self.host.sequence()));
        headers.insert(&X_REQUEST_ID, self.request_id.clone());
        response
    }

    fn whole(&self, status: StatusCode, kind: HeaderValue, body: Bytes, sequence: u64) -> Response<Outgoing> {
        let mut response = self.bare(status, sequence);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, kind);
        if self.extent == Extent::HeadOnly {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len() as u64));
        } else {
            *response.body_mut() = Outgoing::Whole(body.into());
        }
        response
    }

    fn bare(&self, status: StatusCode, sequence: u64) -> Response<Outgoing> {
        // Room for six: what a document needs, with `Connection` while the worker leaves.
        let mut headers = HeaderMap::with_capacity(6);
        headers.insert(&AEGIS_WORKER, self.host.identity.header.clone());
        headers.insert(&AEGIS_SEQ, number(sequence));
        headers.insert(&X_REQUEST_ID, self.request_id.clone());
        if self.next == Next::Closing {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let mut response = Response::new(Outgoing::Empty);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }

    fn insert_location(&self, headers: &mut HeaderMap, endpoint: &str, id: &str) {
        let segment = utf8_percent_encode(id, SEGMENT);
        let location = format!("{}/models/{endpoint}/{segment}", self.host.config.api_root);
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(location)) {
            headers.insert(header::LOCATION, value);
        }
    }

    /// `Link` to the next page: the same query with another cursor.
    fn insert_next(&self, headers: &mut HeaderMap, about: &About<'_>, cursor: &str) {
        let query = with_cursor(about.query, cursor);
        let link = format!("<{}/models/{}?{query}>; rel=\"next\"", self.host.config.api_root, about.endpoint);
        if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(link)) {
            headers.insert(header::LINK, value);
        }
    }
}

/// A whole HTTP/1.1 answer for a request that never became one. The connection ends with it.
pub(crate) fn raw(host: &Host, problem: &Problem) -> Bytes {
    let request_id = host.identity.fresh_request_id();
    let body = problem_body(problem, &request_id);
    let status = status_of(problem.code);
    let mut out = BytesMut::with_capacity(body.len() + 400);
    let mut line = |text: &str, value: &[u8]| {
        out.put_slice(text.as_bytes());
        out.put_slice(value);
        out.put_slice(b"\r\n");
    };
    line("HTTP/1.1 ", format!("{} {}", status.as_str(), status.canonical_reason().unwrap_or("")).as_bytes());
    line("content-type: ", PROBLEM_JSON.as_bytes());
    line("content-length: ", itoa::Buffer::new().format(body.len()).as_bytes());
    line("aegis-worker: ", host.identity.header.as_bytes());
    line("aegis-seq: ", itoa::Buffer::new().format(host.sequence()).as_bytes());
    line("x-request-id: ", request_id.as_bytes());
    line("connection: close", b"");
    line("", b"");
    out.put_slice(&body);
    host.count(status, std::time::Instant::now(), body.len() as u64);
    out.freeze()
}

/// RFC 9457, with `error` for clients of the original.
#[derive(Serialize)]
struct ProblemBody<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    errors: &'a [FieldError],
    retry: Retry,
    error: &'a str,
}

fn problem_body(problem: &Problem, request_id: &HeaderValue) -> Bytes {
    let code = problem.code;
    let body = ProblemBody {
        r#type: format!("https://aegis/problems/{}", code.as_str()),
        title: code.title(),
        status: status_of(code).as_u16(),
        detail: &problem.detail,
        instance: request_id.to_str().unwrap_or_default(),
        code: code.as_str(),
        errors: &problem.errors,
        retry: problem.retry,
        error: &problem.detail,
    };
    // Text, numbers and lists only: writing them cannot fail.
    serde_json::to_vec(&body).map(Bytes::from).unwrap_or_default()
}

/// Values as they are in most answers: positions stay the same while nothing is written, revisions are small.
fn number(value: u64) -> HeaderValue {
    thread_local! {
        static LAST: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static("0"))) };
    }
    LAST.with_borrow_mut(|(known, header)| {
        if *known != value {
            let mut digits = itoa::Buffer::new();
            let digits = digits.format(value).as_bytes();
            (*known, *header) =
                (value, HeaderValue::from_bytes(digits).expect("digits are valid in a header"));
        }
        header.clone()
    })
}

/// The value of `Allow`.
fn methods(allow: &str) -> HeaderValue {
    HeaderValue::from_str(allow).expect("names of methods are valid in a header")
}

/// The quoted revision.
fn entity_tag(revision: u64) -> HeaderValue {
    const SMALL: [&str; 9] =
        ["\"1\"", "\"2\"", "\"3\"", "\"4\"", "\"5\"", "\"6\"", "\"7\"", "\"8\"", "\"9\""];
    let small = usize::try_from(revision).ok().and_then(|revision| SMALL.get(revision.checked_sub(1)?));
    if let Some(tag) = small {
        return HeaderValue::from_static(tag);
    }
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(revision).as_bytes();
    let mut bytes = [b'"'; 22]; // 20 digits and two quotes
    bytes[1..=digits.len()].copy_from_slice(digits);
    HeaderValue::from_bytes(&bytes[..digits.len() + 2]).expect("digits and quotes are valid in a header")
}
