//! From HTTP to an [`operation::Request`]: what the headers mean, and the body as far as it is allowed.

mod body;
mod fields;
mod query;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Instant};

use aegis_config::settings::Limits;
use aegis_domain::{
    Problem, ProblemCode,
    access::Principal,
    catalog::Model,
    query::{CURSOR_BYTES_MAX, read_item},
    trial::Lot,
};
use aegis_wasm::Lineage;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header, request::Parts};
use sha2::{Digest, Sha256};

pub(crate) use body::{RequestBody, Upload, too_large};
use fields::{MediaType, Preference};
pub(crate) use fields::{accepts, entity_tags, media_type, request_id};
pub(crate) use query::{flag, pairs, single_pairs, wrong_value};

use crate::{
    access::Caller,
    operation::{Answer, IdempotencyKey, Operation, Precondition, Request},
};

/// `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header).
pub(crate) static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// `Prefer` (RFC 7240).
pub(crate) static PREFER: HeaderName = HeaderName::from_static("prefer");
/// `X-Request-Id`.
pub(crate) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Begins the parameter that says where a list goes on, as the host writes it.
const CURSOR: &str = "__cursor=";
/// Longest idempotency key, characters.
const IDEMPOTENCY_KEY_MAX: usize = 255;
/// Scope of idempotency keys of clients that have not said who they are. It cannot be confused with another
/// principal's, because a key has no space.
const ANONYMOUS: &str = "anonymous";

/// The few headers that a plain read depends on, found in one pass.
#[derive(Debug, Default)]
pub(crate) struct Glance<'r> {
    pub(crate) accept: Option<&'r HeaderValue>,
    pub(crate) if_none_match: Option<&'r HeaderValue>,
    pub(crate) request_id: Option<&'r HeaderValue>,
    host: Option<&'r HeaderValue>,
    /// `If-Match` is there, or one of the above comes twice.
    pub(crate) needs_care: bool,
    /// Size of the head as RFC 9113 section 6.5.2 counts it, without the constant per field.
    pub(crate) bytes: usize,
}

/// What a write asked for besides the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Wish {
    /// Value of `Preference-Applied`, for an answer that has the form of the write's.
    pub(crate) applied: Option<&'static str>,
}

impl Wish {
    /// What becomes of a preference when the write is answered like this.
    fn granted(preference: Option<Preference>, answer: Answer) -> Self {
        let form = match answer {
            Answer::Representation => Preference::Representation,
            Answer::Minimal | Answer::Blind => Preference::Minimal,
        };
        Self { applied: preference.filter(|wanted| *wanted == form).map(Preference::as_str) }
    }
}

/// What a request to a model is about.
#[derive(Debug)]
pub(crate) struct Target<'m> {
    pub(crate) model: &'m Arc<Model>,
    /// One document of it.
    pub(crate) id: Option<String>,
    /// A command on that document.
    pub(crate) command: Option<String>,
}

impl<'r> Glance<'r> {
    pub(crate) fn new(headers: &'r HeaderMap) -> Self {
        let mut glance = Self::default();
        for (name, value) in headers {
            glance.bytes += name.as_str().len() + value.len() + 4;
            let place = if *name == header::ACCEPT {
                &mut glance.accept
            } else if *name == header::IF_NONE_MATCH {
                &mut glance.if_none_match
            } else if *name == X_REQUEST_ID {
                &mut glance.request_id
            } else if *name == header::HOST {
                &mut glance.host
            } else {
                glance.needs_care |= *name == header::IF_MATCH;
                continue;
            };
            glance.needs_care |= place.replace(value).is_some();
        }
        glance
    }
}

/// Whether target and head are such that the request is looked at at all.
pub(crate) fn check_head(
    (version, uri): (Version, &Uri),
    headers: &HeaderMap,
    glance: &Glance<'_>,
    limits: &Limits,
) -> Result<(), Problem> {
    check_sizes(uri, headers, glance, limits)?;
    check_host(version, headers, glance)
}

/// Whether a request of HTTP/1.1 names its host as RFC 9112 section 3.2 demands: once, and with a value that can be one.
/// Two neighbours that read different hosts out of one request can be played off against each other.
fn check_host(version: Version, headers: &HeaderMap, glance: &Glance<'_>) -> Result<(), Problem> {
    if version > Version::HTTP_11 {
        return Ok(());
    }
    let found = match glance.host {
        None if version < Version::HTTP_11 => return Ok(()),
        None => "nothing",
        Some(_) if glance.needs_care && headers.get_all(header::HOST).iter().nth(1).is_some() => {
            "several values"
        }
        Some(host) if host.as_bytes().iter().all(|byte| may_stand_in_host(*byte)) => return Ok(()),
        Some(_) => "a value that no host has",
    };
    let detail = format!("Host: found {found}, expected one host (RFC 9112 section 3.2)");
    Err(Problem::new(ProblemCode::BadHeader, detail))
}

/// The characters of `uri-host` and of a port (RFC 3986 section 3.2.2).
fn may_stand_in_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%:[]".contains(&byte)
}

/// Whether target and head keep within the bounds (414, 431).
fn check_sizes(uri: &Uri, headers: &HeaderMap, glance: &Glance<'_>, limits: &Limits) -> Result<(), Problem> {
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len()) as u64;
    if target > limits.uri_bytes_max {
        let target = target - cursor_bytes(uri.query().unwrap_or_default());
        if target > limits.uri_bytes_max {
            let detail = format!(
                "the request target has {target} bytes, at most {} are allowed",
                limits.uri_bytes_max
            );
            return Err(Problem::new(ProblemCode::UriTooLong, detail));
        }
    }
    if headers.len() > limits.headers_max as usize {
        let detail = format!(
            "the request has {} header fields, at most {} are allowed",
            headers.len(),
            limits.headers_max
        );
        return Err(Problem::new(ProblemCode::HeadersTooLarge, detail));
    }
    if glance.bytes as u64 > limits.header_bytes_max {
        let detail = format!(
            "the header fields have {} bytes, at most {} are allowed",
            glance.bytes, limits.header_bytes_max
        );
        return Err(Problem::new(ProblemCode::HeadersTooLarge, detail));
    }
    Ok(())
}

/// Bytes of a query that the host has added to it to lead to the next page: a list that is answered can be gone through.
fn cursor_bytes(query: &str) -> u64 {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(CURSOR));
    // With what separates it from what the client has written.
    let counted = |value: &str| 1 + CURSOR.len() + value.len().min(CURSOR_BYTES_MAX);
    value.map_or(0, |value| counted(value) as u64)
}

/// A request to a model as it is carried out for `caller`, who may. The method is one that the place allows.
pub(crate) async fn read(
    target: Target<'_>,
    parts: &Parts,
    body: &mut RequestBody,
    limits: &Limits,
    (caller, deadline): (&Caller, Instant),
) -> Result<(Request, Wish), Problem> {
    let Target { model, id, command } = target;
    let headers = &parts.headers;
    let precondition = precondition(headers)?;
    let preference = fields::preference(headers);
    let query = parts.uri.query().unwrap_or_default();
    let operation = match (&parts.method, id) {
        (&Method::GET | &Method::HEAD, None) => Operation::List { query: query.to_owned() },
        (_, Some(id)) if let Some(command) = command => {
            let arguments = arguments(headers, body, limits, deadline).await?;
            Operation::Command { id, command, arguments }
        }
        (&Method::GET | &Method::HEAD, Some(id)) => match read_item(model, query)? {
            Some(asked) => {
                let arguments = asked.arguments.unwrap_or_default().into();
                Operation::Ask { id, command: asked.command, arguments }
            }
            None => Operation::Read { id },
        },
        (&Method::DELETE, Some(id)) => Operation::Remove { id },
        (method, id) => with_body(method, id, headers, body, limits, deadline).await?,
    };
    let writes = operation.writes();
    let idempotency = if writes { idempotency(parts, &operation, caller)? } else { None };
    let answer = if writes && preference == Some(Preference::Minimal) {
        Answer::Minimal
    } else {
        Answer::Representation
    };
    let request = caller.ask(Request {
        model: Arc::clone(model),
        operation,
        precondition,
        idempotency,
        deadline,
        answer,
        request_id: String::new(),
        lineage: Lineage::begin(),
        lot: Lot::default(),
        principal: None,
    });
    let wish = Wish::granted(preference.filter(|_| writes), request.answer);
    Ok((request, wish))
}

/// The arguments of a command. Without a body there are none, and no type either.
async fn arguments(
    headers: &HeaderMap,
    body: &mut RequestBody,
    limits: &Limits,
    deadline: Instant,
) -> Result<Bytes, Problem> {
    if headers.contains_key(header::CONTENT_TYPE) {
        fields::media_type(headers, false)?;
        return body.read(limits.body_bytes_max, deadline).await;
    }
    let arguments = body.read(limits.body_bytes_max, deadline).await?;
    if !arguments.is_empty() {
        fields::media_type(headers, false)?;
    }
    Ok(arguments)
}

async fn with_body(
    method: &Method,
    id: Option<String>,
    headers: &HeaderMap,
    body: &mut RequestBody,
    limits: &Limits,
    deadline: Instant,
) -> Result<Operation, Problem> {
    let patches = *method == Method::PATCH;
    if *method == Method::PUT && headers.contains_key(header::CONTENT_RANGE) {
        let detail = "Content-Range: found one with PUT, expected a whole document (RFC 9110 section 14.5)";
        return Err(Problem::new(ProblemCode::BadHeader, detail));
    }
    let kind = fields::media_type(headers, patches)?;
    let body = body.read(limits.body_bytes_max, deadline).await?;
    Ok(match (id, kind) {
        (None, _) => Operation::Create { body },
        (Some(id), MediaType::JsonPatch) => Operation::Patch { id, body },
        (Some(id), MediaType::Json | MediaType::MergePatch) if patches => Operation::Merge { id, body },
        (Some(id), MediaType::Json | MediaType::MergePatch) => Operation::Replace { id, body },
    })
}

/// Whether the body of a `PATCH` is a JSON patch.
pub(crate) fn is_json_patch(headers: &HeaderMap) -> bool {
    matches!(fields::media_type(headers, true), Ok(MediaType::JsonPatch))
}

/// `If-Match` and `If-None-Match`.
pub(crate) fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    Ok(Precondition {
        if_match: entity_tags(headers, &header::IF_MATCH)?,
        if_none_match: entity_tags(headers, &header::IF_NONE_MATCH)?,
    })
}

/// The `Idempotency-Key` that the client gives.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let refused = |found: &str| {
        let detail = format!(
            "Idempotency-Key: found {found}, expected one value of 1 to {IDEMPOTENCY_KEY_MAX} visible ASCII characters"
        );
        Problem::new(ProblemCode::BadHeader, detail)
    };
    if values.next().is_some() {
        return Err(refused("several values"));
    }
    let bytes = value.as_bytes();
    if bytes.is_empty() || bytes.len() > IDEMPOTENCY_KEY_MAX {
        return Err(refused(&format!("{} characters", bytes.len())));
    }
    let Some(key) = value.to_str().ok().filter(|_| bytes.iter().all(u8::is_ascii_graphic)) else {
        return Err(refused("characters of another kind"));
    };
    Ok(Some(key))
}

fn idempotency(
    parts: &Parts,
    operation: &Operation,
    caller: &Caller,
) -> Result<Option<IdempotencyKey>, Problem> {
    let Some(given) = idempotency_key(&parts.headers)? else { return Ok(None) };
    let body = operation.body();
    let mut digest = Sha256::new();
    digest.update(parts.method.as_str());
    digest.update([0]);
    digest.update(parts.uri.path_and_query().map_or("", |target| target.as_str()));
    digest.update([0]);
    // The same bytes are another patch under another type.
    digest.update(if matches!(operation, Operation::Patch { .. }) { "patch" } else { "json" });
    digest.update([0]);
    digest.update(&body);
    let fingerprint = Bytes::copy_from_slice(digest.finalize().as_slice());
    let key = match caller.principal().map(Arc::as_ref) {
        // With its length: no end of a name is ever taken for the beginning of a key.
        Some(Principal { subject, .. }) => format!("of {} {subject} {given}", subject.len()),
        None => format!("{ANONYMOUS} {given}"),
    };
    Ok(Some(IdempotencyKey { key, given: given.to_owned(), fingerprint }))
}
