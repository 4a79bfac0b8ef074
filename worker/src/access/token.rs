//! Tokens: who signed one (JWS, RFC 7515), and what it says (JWT, RFC 7519; carried as RFC 6750 says).

use std::ops::Range;

use aegis_domain::{access::Principal, json};
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderMap, header};
use serde_json::Value;

use super::keys::Keys;

/// Longest token, bytes.
pub(super) const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest name of a caller, bytes: it becomes part of what is stored.
const SUBJECT_BYTES_MAX: usize = 256;
/// Most roles of a caller.
const ROLES_MAX: usize = 256;

/// What tokens must say.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) issuer: Option<String>,
    pub(super) audience: Option<String>,
    /// How far the clocks of host and issuer may be apart, seconds.
    pub(super) leeway_s: i64,
    /// The claim that holds roles.
    pub(super) roles_claim: String,
}

/// Why nobody is known. For the log: clients learn only whether there was a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Mistake {
    #[error("there is none")]
    Missing,
    #[error("there is more than one Authorization")]
    Several,
    #[error("it has more than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    #[error("it is no signed token of three parts in Base64url")]
    Shape,
    #[error("its header wants something that must be understood and is not")]
    Critical,
    #[error("none of the keys has signed it with the algorithm of the key")]
    Signature,
    #[error("its claims are no JSON object")]
    Claims,
    #[error("it does not say until when it is valid")]
    NoExpiry,
    #[error("it has expired")]
    Expired,
    #[error("it is not valid yet")]
    NotYet,
    #[error("it has another issuer")]
    Issuer,
    #[error("it is meant for others")]
    Audience,
    #[error("it has no subject of 1 to {SUBJECT_BYTES_MAX} bytes")]
    Subject,
    #[error("it has more than {ROLES_MAX} roles")]
    Roles,
}

/// The token of a request.
pub(super) fn find(headers: &HeaderMap) -> Result<&str, Mistake> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(Mistake::Missing)?;
    if values.next().is_some() {
        return Err(Mistake::Several);
    }
    let text = value.to_str().map_err(|_| Mistake::Shape)?;
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Mistake::Missing);
    }
    Ok(token.trim_matches(' '))
}

/// Who the token names, at `now_s` seconds since 1970.
pub(super) fn read(token: &str, keys: &Keys, terms: &Terms, now_s: i64) -> Result<Principal, Mistake> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Mistake::TooLong);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Mistake::Shape)?;
    let (header, payload) = message.split_once('.').ok_or(Mistake::Shape)?;
    let header = object(header).ok_or(Mistake::Shape)?;
    let signature = BASE64URL_NOPAD.decode(signature.as_bytes()).map_err(|_| Mistake::Shape)?;
    // RFC 7515 section 4.1.11: whoever does not understand them all must not accept it.
    if header.get("crit").is_some() {
        return Err(Mistake::Critical);
    }
    let algorithm = header.get("alg").and_then(Value::as_str).ok_or(Mistake::Shape)?;
    let key_id = header.get("kid").and_then(Value::as_str);
    if !keys.verify(algorithm, key_id, message.as_bytes(), &signature) {
        return Err(Mistake::Signature);
    }
    let claims = object(payload).ok_or(Mistake::Claims)?;
    check(&claims, terms, now_s)?;
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
    if !(1..=SUBJECT_BYTES_MAX).contains(&subject.len()) {
        return Err(Mistake::Subject);
    }
    let roles = roles(claims.get(&terms.roles_claim));
    if roles.len() > ROLES_MAX {
        return Err(Mistake::Roles);
    }
    Ok(Principal { subject: subject.to_owned(), roles, claims })
}

/// When the token is no longer valid, in seconds since 1970.
pub(super) fn expiry_s(claims: &Value) -> Option<i64> {
    seconds(claims.get("exp")?)
}

/// From when until when the token counts, in seconds since 1970; the end is no part of it.
pub(super) fn window_s(claims: &Value, terms: &Terms) -> Result<Range<i64>, Mistake> {
    let expires_s = expiry_s(claims).ok_or(Mistake::NoExpiry)?;
    let begins_s = match claims.get("nbf") {
        Some(begins) => seconds(begins).ok_or(Mistake::Claims)?.saturating_sub(terms.leeway_s),
        None => i64::MIN,
    };
    Ok(begins_s..expires_s.saturating_add(terms.leeway_s))
}

fn check(claims: &Value, terms: &Terms, now_s: i64) -> Result<(), Mistake> {
    let window_s = window_s(claims, terms)?;
    if now_s >= window_s.end {
        return Err(Mistake::Expired);
    }
    if now_s < window_s.start {
        return Err(Mistake::NotYet);
    }
    if let Some(issuer) = &terms.issuer
        && claims.get("iss").and_then(Value::as_str) != Some(issuer)
    {
        return Err(Mistake::Issuer);
    }
    if let Some(audience) = &terms.audience {
        let is_meant = match claims.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(audience)),
            Some(_) | None => false,
        };
        if !is_meant {
            return Err(Mistake::Audience);
        }
    }
    Ok(())
}

/// A `NumericDate` (RFC 7519 section 2), whole seconds of it.
fn seconds(date: &Value) -> Option<i64> {
    // A fraction is cut off; what no clock shows becomes the end of time.
    date.as_i64()
        .or_else(|| date.as_f64().filter(|seconds| seconds.is_finite()).map(|seconds| seconds as i64))
}

fn roles(claim: Option<&Value>) -> Vec<String> {
    match claim {
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(text)) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        Some(_) | None => Vec::new(),
    }
}

/// A JSON object in Base64url, read as strictly as documents are: no name comes twice.
fn object(part: &str) -> Option<Value> {
    let bytes = BASE64URL_NOPAD.decode(part.as_bytes()).ok()?;
    json::parse(&bytes).ok().filter(Value::is_object)
}
