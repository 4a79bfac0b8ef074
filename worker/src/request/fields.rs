//! The meaning of single header fields.

use aegis_domain::{Problem, ProblemCode};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::PREFER;
use crate::operation::Revisions;

/// Longest request id of a client that is repeated, characters.
const REQUEST_ID_MAX: usize = 128;

/// Body of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaType {
    /// `application/json`
    Json,
    /// `application/merge-patch+json` (RFC 7396)
    MergePatch,
    /// `application/json-patch+json` (RFC 6902)
    JsonPatch,
}

/// `Prefer: return=…` (RFC 7240 section 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Preference {
    Representation,
    Minimal,
}

impl Preference {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Representation => "return=representation",
            Self::Minimal => "return=minimal",
        }
    }
}

/// The type of the body (RFC 9110 section 8.3), which has to come as it is (section 8.4). A body without a type is taken
/// for JSON.
pub(crate) fn media_type(headers: &HeaderMap, patches: bool) -> Result<MediaType, Problem> {
    for coding in headers.get_all(header::CONTENT_ENCODING) {
        if !coding.as_bytes().eq_ignore_ascii_case(b"identity") {
            let quoted: String =
                String::from_utf8_lossy(coding.as_bytes()).chars().take(REQUEST_ID_MAX).collect();
            let detail = format!("Content-Encoding: found {quoted:?}, expected a body as it is");
            return Err(Problem::new(ProblemCode::UnsupportedMediaType, detail));
        }
    }
    let codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) =
        codings.into_iter().find(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        let quoted: String =
            String::from_utf8_lossy(coding.as_bytes()).chars().take(REQUEST_ID_MAX).collect();
        let detail = format!("Transfer-Encoding: found {quoted:?}, expected chunked alone");
        return Err(Problem::new(ProblemCode::UnsupportedMediaType, detail));
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(value) = types.next() else { return Ok(MediaType::Json) };
    if types.any(|other| other != value) {
        let detail = "Content-Type: found several values, expected one";
        return Err(Problem::new(ProblemCode::BadHeader, detail));
    }
    let text = value.to_str().unwrap_or_default();
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let kind = match essence.as_str() {
        "application/json" => Some(MediaType::Json),
        "application/merge-patch+json" if patches => Some(MediaType::MergePatch),
        "application/json-patch+json" if patches => Some(MediaType::JsonPatch),
        _ => None,
    };
    let utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            let charset = value.trim().trim_matches('"');
            charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("utf8")
        }
        _ => true,
    });
    kind.filter(|_| utf8).ok_or_else(|| {
        let expected = if patches {
            "application/json, application/merge-patch+json or application/json-patch+json"
        } else {
            "application/json"
        };
        let quoted: String = text.chars().take(REQUEST_ID_MAX).collect();
        let detail = format!("Content-Type: found {quoted:?}, expected {expected}, in UTF-8");
        Problem::new(ProblemCode::UnsupportedMediaType, detail)
    })
}

/// Whether `Accept` (RFC 9110 section 12.5.1) admits `kind/subtype`. The most specific range decides.
pub(crate) fn accepts(headers: &HeaderMap, kind: &str, subtype: &str) -> Result<(), Problem> {
    let mut best: Option<(u8, bool)> = None;
    let mut given = String::new();
    for value in headers.get_all(header::ACCEPT) {
        let text = value.to_str().unwrap_or_default();
        given.push_str(text);
        for range in text.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let Some((range_kind, range_subtype)) = parts.next().and_then(|essence| essence.split_once('/'))
            else {
                continue;
            };
            let (range_kind, range_subtype) = (range_kind.trim(), range_subtype.trim());
            let specificity = match (range_kind, range_subtype) {
                ("*", "*") => 0,
                (any, "*") if any.eq_ignore_ascii_case(kind) => 1,
                (any, sub) if any.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) => 2,
                _ => continue,
            };
            let quality = parts
                .filter_map(|parameter| parameter.split_once('='))
                .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"))
                .and_then(|(_, value)| value.trim().parse::<f32>().ok());
            if best.is_none_or(|(known, _)| specificity > known) {
                best = Some((specificity, quality.is_none_or(|quality| quality > 0.0)));
            }
        }
    }
    match best {
        Some((_, true)) => Ok(()),
        None if given.trim().is_empty() => Ok(()),
        Some((_, false)) | None => {
            let quoted: String = given.chars().take(REQUEST_ID_MAX).collect();
            let detail = format!("Accept: found {quoted:?}, expected one that admits {kind}/{subtype}");
            Err(Problem::new(ProblemCode::NotAcceptable, detail))
        }
    }
}

/// `If-Match` compares strongly, so weak tags are left out; `If-None-Match` compares weakly (RFC 9110 section 13.1).
pub(crate) fn entity_tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Revisions>, Problem> {
    let mut values = headers.get_all(name).iter().peekable();
    if values.peek().is_none() {
        return Ok(None);
    }
    let mut revisions = Vec::new();
    let mut any = false;
    let mut tags = 0_usize;
    for value in values {
        let text = value.to_str().map_err(|_| bad_tags(name, "characters beyond ASCII"))?;
        let mut rest = text.trim();
        while !rest.is_empty() {
            // Elements of a list may be empty (RFC 9110 section 5.6.1).
            if let Some(after) = rest.strip_prefix(',') {
                rest = after.trim_start();
                continue;
            }
            tags += 1;
            if let Some(after) = rest.strip_prefix('*') {
                any = true;
                rest = next_element(after).ok_or_else(|| bad_tags(name, text))?;
                continue;
            }
            let (weak, quoted) = match rest.strip_prefix("W/") {
                Some(quoted) => (true, quoted),
                None => (false, rest),
            };
            let (tag, after) = quoted
                .strip_prefix('"')
                .and_then(|opened| opened.split_once('"'))
                .ok_or_else(|| bad_tags(name, text))?;
            rest = next_element(after).ok_or_else(|| bad_tags(name, text))?;
            if weak && *name == header::IF_MATCH {
                continue;
            }
            revisions.extend(revision(tag));
        }
    }
    match (any, tags) {
        (_, 0) => Err(bad_tags(name, "")),
        (true, 1) => Ok(Some(Revisions::Any)),
        (true, _) => Err(Problem::new(
            ProblemCode::BadHeader,
            format!("{name}: found * among others, expected * or a list of quoted entity tags"),
        )),
        (false, _) => Ok(Some(Revisions::Of(revisions))),
    }
}

/// A revision as we write it: other tags, such as `"01"`, are not ours.
fn revision(tag: &str) -> Option<u64> {
    let canonical = tag.bytes().all(|byte| byte.is_ascii_digit()) && !tag.starts_with('0');
    tag.parse().ok().filter(|_| canonical)
}

/// The text after the comma, or nothing at the end. `None`: something else follows.
fn next_element(after: &str) -> Option<&str> {
    let after = after.trim_start();
    if after.is_empty() { Some(after) } else { after.strip_prefix(',').map(str::trim_start) }
}

fn bad_tags(name: &HeaderName, found: &str) -> Problem {
    let quoted: String = found.chars().take(REQUEST_ID_MAX).collect();
    let detail = format!("{name}: found {quoted:?}, expected * or a list of quoted entity tags");
    Problem::new(ProblemCode::BadHeader, detail)
}

/// The first `return` preference; others are ignored, as RFC 7240 section 2 wants it.
pub(crate) fn preference(headers: &HeaderMap) -> Option<Preference> {
    headers
        .get_all(&PREFER)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(elements)
        .filter_map(|preference| preference.split(';').next()?.split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("return"))
        .find_map(|(_, value)| match value.trim().trim_matches('"') {
            "minimal" => Some(Preference::Minimal),
            "representation" => Some(Preference::Representation),
            _ => None,
        })
}

/// The elements of a list; commas inside quotes are of an element (RFC 9110 section 5.6.1).
fn elements(text: &str) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |character| {
        let is_plain = !std::mem::take(&mut is_escaped);
        match character {
            '"' if is_plain => is_quoted = !is_quoted,
            '\\' if is_plain && is_quoted => is_escaped = true,
            _ => {}
        }
        character == ',' && !is_quoted
    })
}

/// A request id of the client that may be repeated in answers and logs.
pub(crate) fn request_id(value: &HeaderValue) -> Option<HeaderValue> {
    let bytes = value.as_bytes();
    let fits = !bytes.is_empty() && bytes.len() <= REQUEST_ID_MAX && bytes.iter().all(u8::is_ascii_graphic);
    fits.then(|| value.clone())
}
