//! A reload that is asked for by somebody who knows the secret: a git host or a registry where something was published.
//!
//! The signature is the one that git hosts send: `X-Hub-Signature-256: sha256=` and the HMAC-SHA-256 (RFC 2104) of the
//! raw body, hexadecimal. What the body says is of no interest; the app says where to look. It is no decision
//! of an operator, so it undoes none.

use std::{sync::atomic::Ordering, time::Instant};

use aegis_config::Secret;
use aegis_domain::{Problem, ProblemCode};
use aegis_ipc::board::Counter;
use http::{HeaderMap, HeaderName, Response, StatusCode, request::Parts};
use ring::hmac;
use serde_json::json;

use super::jobs;
use crate::{
    host::Host,
    request::RequestBody,
    response::{Envelope, Outgoing},
};

static X_HUB_SIGNATURE_256: HeaderName = HeaderName::from_static("x-hub-signature-256");
static X_GITHUB_EVENT: HeaderName = HeaderName::from_static("x-github-event");

/// What a signature begins with.
const SCHEME: &str = "sha256=";
/// Bytes of a SHA-256.
const DIGEST_BYTES: usize = 32;

/// Reloads, if the request is signed with `secret`.
pub(crate) async fn answer(
    host: &Host,
    secret: &Secret,
    (parts, body): (&Parts, &mut RequestBody),
    envelope: &Envelope<'_>,
    begun: Instant,
) -> Result<Response<Outgoing>, Problem> {
    check(host, secret, (parts, body), begun).await?;
    if parts.headers.get(&X_GITHUB_EVENT).is_some_and(|event| event == "ping") {
        // Sent once, when the webhook is set up: nothing was published.
        return Ok(envelope.json(StatusCode::OK, &json!({"status": "ok"})));
    }
    jobs::reload(host, parts.uri.query().unwrap_or_default(), jobs::Origin::Automatic, envelope).await
}

/// Whether the body is signed. Until that is known, the request counts like any other that is being answered, so that
/// no more bodies than those of such requests are held at once.
async fn check(
    host: &Host,
    secret: &Secret,
    (parts, body): (&Parts, &mut RequestBody),
    begun: Instant,
) -> Result<(), Problem> {
    let limits = &host.config.limits;
    let _admitted = host.load.admit()?;
    // Without a signature nothing has to be read.
    let signature = signature(&parts.headers)?;
    let body = body.read(limits.body_bytes_max, begun + limits.request_timeout).await?;
    host.cell.counter(Counter::BytesIn).fetch_add(body.len() as u64, Ordering::Relaxed);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal());
    // Takes the same time wherever the first difference is.
    hmac::verify(&key, &body, &signature).map_err(|_| refused("found one that does not belong to the body"))
}

fn signature(headers: &HeaderMap) -> Result<[u8; DIGEST_BYTES], Problem> {
    let mut values = headers.get_all(&X_HUB_SIGNATURE_256).iter();
    let value = values.next().ok_or_else(|| refused("found none"))?;
    if values.next().is_some() {
        return Err(refused("found several"));
    }
    let digits = value.to_str().ok().and_then(|text| text.strip_prefix(SCHEME));
    digits.and_then(digest).ok_or_else(|| refused("found something else"))
}

/// The bytes of a digest that is written in hexadecimal.
fn digest(digits: &str) -> Option<[u8; DIGEST_BYTES]> {
    // What reads numbers would take a sign as well.
    if digits.len() != 2 * DIGEST_BYTES || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; DIGEST_BYTES];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn refused(found: &str) -> Problem {
    let detail = format!(
        "X-Hub-Signature-256: {found}, expected {SCHEME} and the HMAC-SHA-256 of the body in hexadecimal digits"
    );
    Problem::new(ProblemCode::BadSignature, detail)
}
