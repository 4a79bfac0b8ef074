//! Getting bytes from where they are published, within bounds of size and time.
//!
//! Nothing of the environment has a say: no proxies, no compression, no other origin than the one that was named.

use std::{
    io::{self, Read},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use aegis_config::format_time;
use aegis_wasm::{Code, Diagnostic};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use ureq::{
    Agent, Body, Error, Timeout,
    http::{HeaderMap, Response, StatusCode, Uri, header},
    tls::{RootCerts, TlsConfig, TlsProvider},
};

/// Redirects of one request.
const REDIRECTS_MAX: u32 = 5;
/// How often something is asked for again that failed in a way that may pass.
const RETRIES_MAX: u32 = 2;
/// Bytes of the head of an answer.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Characters of where a redirect leads to that are repeated in a message.
const LOCATION_CHARACTERS_MAX: usize = 200;
/// Bytes of a mark that is kept.
const MARK_BYTES_MAX: usize = 1024;
/// Bytes that are read at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(in crate::app) struct Times {
    /// Finding the address and connecting, TLS included; each.
    pub(in crate::app) connect: Duration,
    /// Without a single byte.
    pub(in crate::app) idle: Duration,
    /// Everything that one module needs.
    pub(in crate::app) total: Duration,
    /// Before something is tried again for the first time; twice as long before the next time.
    pub(in crate::app) pause: Duration,
}

/// Why nothing was got.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Nobody answered; it is of no use to ask the same origin for something else.
    Mute(Diagnostic),
    /// There was no whole answer, or an excuse; it may be there again later.
    Away(Diagnostic),
    /// The answer is none that will do.
    Wrong(Diagnostic),
}

/// What is wanted.
pub(super) struct Wanted<'a> {
    pub(super) url: &'a str,
    /// What the source wants to know about who asks, as the header has it.
    pub(super) authorization: Option<&'a str>,
    /// The form it is wanted in, if there are several.
    pub(super) accept: Option<&'a str>,
    /// More bytes than that are refused.
    pub(super) bytes_max: usize,
    /// When too many bytes come.
    pub(super) too_large: Code,
    pub(super) deadline: Instant,
    /// Whether its digest is known, so that it may come from elsewhere.
    pub(super) is_known: bool,
}

/// How a registry wants to be asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Challenge {
    /// Where tokens are given.
    pub(super) realm: String,
    /// What the token is for.
    pub(super) service: String,
}

/// What was got.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) bytes: Vec<u8>,
    /// SHA-256, hexadecimal.
    pub(super) sha256: String,
    pub(super) marks: Marks,
    /// Where more of it is (RFC 8288, `rel="next"`), as it is written.
    pub(super) next: Option<String>,
}

/// What an answer says it can be recognised by (RFC 9110, section 8.8), if it does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marks {
    /// Its `ETag`.
    pub(super) tag: Option<String>,
    /// Its `Last-Modified`.
    pub(super) modified: Option<String>,
}

impl Marks {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name| {
            let text = headers.get(name).and_then(|value| value.to_str().ok());
            text.filter(|text| text.len() <= MARK_BYTES_MAX).map(str::to_owned)
        };
        Self { tag: text(header::ETAG), modified: text(header::LAST_MODIFIED) }
    }

    /// Whether there is one.
    pub(super) fn are_there(&self) -> bool {
        self.tag.is_some() || self.modified.is_some()
    }
}

/// Asks sources.
pub(super) struct Client {
    agent: Agent,
    times: Times,
}

impl Client {
    pub(super) fn new(times: Times) -> Self {
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::PlatformVerifier)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .accept_encoding("identity")
            .user_agent(concat!("aegis/", env!("CARGO_PKG_VERSION")))
            .max_response_header_size(HEAD_BYTES_MAX)
            .max_idle_connections(0)
            .timeout_resolve(Some(times.connect))
            .timeout_connect(Some(times.connect))
            .timeout_per_read(Some(times.idle))
            .timeout_per_write(Some(times.idle))
            .build();
        Self { agent: config.into(), times }
    }

    /// Gets what is wanted, whole.
    pub(super) fn get(&self, wanted: &Wanted<'_>) -> Result<Got, Failure> {
        let answer = self.follow(wanted, &Marks::default())?;
        self.receive(answer, wanted)
    }

    /// Gets what is wanted unless it is still what had these marks; nothing then.
    pub(super) fn get_unless(&self, wanted: &Wanted<'_>, marks: &Marks) -> Result<Option<Got>, Failure> {
        let answer = self.follow(wanted, marks)?;
        if answer.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        self.receive(answer, wanted).map(Some)
    }

    /// Whether there is what is wanted, without its bytes.
    pub(super) fn has(&self, wanted: &Wanted<'_>) -> Result<(), Failure> {
        self.follow(wanted, &Marks::default()).map(drop)
    }

    /// How the source wants to be asked, if it wants to know who asks (RFC 6750, section 3).
    pub(super) fn challenge(&self, wanted: &Wanted<'_>) -> Result<Option<Challenge>, Failure> {
        let url: Uri = wanted.url.parse().map_err(|_| not_followed("an address that is none", "one"))?;
        let answer = self.ask_patiently(&url, wanted, &Marks::default())?;
        match answer.status() {
            StatusCode::UNAUTHORIZED => {}
            status if status.is_server_error() => return Err(refused(&answer, &url)),
            // Whoever wants to know nothing need not even know the address.
            _ => return Ok(None),
        }
        let header = answer.headers().get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let challenge = header
            .and_then(challenge)
            .filter(|challenge| challenge.realm.starts_with("https://") || wanted.url.starts_with("http://"));
        challenge.map(Some).ok_or_else(|| refused(&answer, &url))
    }

    /// An answer with what is wanted in it.
    fn follow(&self, wanted: &Wanted<'_>, marks: &Marks) -> Result<Response<Body>, Failure> {
        let mut url: Uri = wanted.url.parse().map_err(|_| not_followed("an address that is none", "one"))?;
        let (mut redirects, mut is_elsewhere) = (0, false);
        loop {
            let answer = match is_elsewhere {
                true => self.ask_patiently(&url, &Wanted { authorization: None, ..*wanted }, marks)?,
                false => self.ask_patiently(&url, wanted, marks)?,
            };
            let status = answer.status();
            let is_same = status == StatusCode::NOT_MODIFIED && marks.are_there();
            if status == StatusCode::OK || is_same {
                return Ok(answer);
            }
            let location = answer.headers().get(header::LOCATION).filter(|_| status.is_redirection());
            let Some(location) = location else { return Err(refused(&answer, &url)) };
            let location = location.to_str().unwrap_or_default();
            url = match redirected(&url, location) {
                Err(_) if wanted.is_known && leads_safely(&url, location) => {
                    // Whoever keeps the bytes of a registry need not know who asks.
                    is_elsewhere = true;
                    location.parse().map_err(|_| not_followed("a redirect to no address", "one"))?
                }
                within => within?,
            };
            redirects += 1;
            if redirects > REDIRECTS_MAX {
                let expected = format!("at most {REDIRECTS_MAX} redirects");
                return Err(not_followed("one more redirect", &expected));
            }
        }
    }

    /// Asks again, after a pause, when that may help.
    fn ask_patiently(
        &self,
        url: &Uri,
        wanted: &Wanted<'_>,
        marks: &Marks,
    ) -> Result<Response<Body>, Failure> {
        let mut pause = self.times.pause;
        let mut retries = 0;
        loop {
            let failed = match self.ask(url, wanted, marks) {
                Ok(answer) if !answer.status().is_server_error() => return Ok(answer),
                Ok(answer) => refused(&answer, url),
                Err(error) if may_pass(&error) => Failure::Mute(self.reason(&error, url)),
                Err(error) => return Err(self.failure(&error, url)),
            };
            if retries == RETRIES_MAX || Instant::now() + pause >= wanted.deadline {
                return Err(failed);
            }
            thread::sleep(pause);
            pause *= 2;
            retries += 1;
        }
    }

    fn ask(&self, url: &Uri, wanted: &Wanted<'_>, marks: &Marks) -> Result<Response<Body>, Error> {
        let left = wanted.deadline.saturating_duration_since(Instant::now());
        let mut request = self.agent.get(url);
        if let Some(authorization) = wanted.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(accept) = wanted.accept {
            request = request.header(header::ACCEPT, accept);
        }
        // A tag is exact; the time beside it need not be (RFC 9110, section 13.1.3).
        match (&marks.tag, &marks.modified) {
            (Some(tag), _) => request = request.header(header::IF_NONE_MATCH, tag),
            (None, Some(time)) => request = request.header(header::IF_MODIFIED_SINCE, time),
            (None, None) => {}
        }
        request.config().timeout_global(Some(left)).build().call()
    }

    /// Reads the body, and looks at nothing but its size and digest.
    fn receive(&self, answer: Response<Body>, wanted: &Wanted<'_>) -> Result<Got, Failure> {
        let bytes_max = wanted.bytes_max;
        let too_large = |found: String| {
            let message = format!("found {found}, expected at most {bytes_max}");
            Failure::Wrong(Diagnostic::new(wanted.too_large, message))
        };
        let (head, body) = answer.into_parts();
        let (marks, next) = (Marks::of(&head.headers), next(&head.headers));
        let encoding = head.headers.get(header::CONTENT_ENCODING);
        if let Some(encoding) =
            encoding.filter(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
        {
            let found = format!("the content encoding {encoding:?}");
            return Err(not_followed(&found, "the bytes as they are"));
        }
        if let Some(length) = body.content_length().filter(|length| *length > bytes_max as u64) {
            return Err(too_large(format!("{length} bytes announced")));
        }
        let url: Uri = wanted.url.parse().unwrap_or_default();
        let mut reader = body.into_reader();
        let (mut bytes, mut hash) = (Vec::new(), Sha256::new());
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Away(self.reason(&Error::from(error), &url))),
            };
            let Some(part) = chunk.get(..count).filter(|part| bytes.len() + part.len() <= bytes_max) else {
                return Err(too_large(format!("more than {bytes_max} bytes")));
            };
            hash.update(part);
            bytes.extend_from_slice(part);
        }
        Ok(Got { bytes, sha256: format!("{:x}", hash.finalize()), marks, next })
    }

    /// What it means that there is no answer.
    fn failure(&self, error: &Error, url: &Uri) -> Failure {
        match error {
            Error::LargeResponseHeader(..) => {
                not_followed(&format!("a head of more than {HEAD_BYTES_MAX} bytes"), "at most that")
            }
            // Something before may have taken the time.
            Error::Timeout(Timeout::Global) => Failure::Away(self.reason(error, url)),
            _ => Failure::Mute(self.reason(error, url)),
        }
    }

    /// An error of the transport in words.
    fn reason(&self, error: &Error, url: &Uri) -> Diagnostic {
        let found = match error {
            Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                format!("no connection within {}", format_time(self.times.connect))
            }
            Error::Timeout(Timeout::PerRead | Timeout::PerWrite) => {
                format!("silence for {}", format_time(self.times.idle))
            }
            Error::Timeout(_) => format!("no end within {}", format_time(self.times.total)),
            Error::HostNotFound => "no address for its name".to_owned(),
            Error::Protocol(error) => format!("an answer that is not HTTP ({error})"),
            Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                "an answer that is cut off".to_owned()
            }
            Error::Io(error) => error.to_string(),
            other => other.to_string(),
        };
        let message = format!("found {found}, expected an answer from {url}");
        Diagnostic::new(Code::SourceAway, message)
    }
}

/// Whether it is worth while to try again at once: the connection did not come about.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Timeout(Timeout::Connect | Timeout::Resolve) | Error::HostNotFound => true,
        // That is how TLS says no.
        Error::Io(error) => error.kind() != io::ErrorKind::InvalidData,
        _ => false,
    }
}

/// What another status than 200 means.
fn refused(answer: &Response<Body>, url: &Uri) -> Failure {
    let status = answer.status();
    let message = format!("found status {}, expected 200 from {url}", status.as_u16());
    // Git hosts say 403 to those who have asked too often.
    let is_enough = answer.headers().get("x-ratelimit-remaining").is_some_and(|left| left == "0");
    let is_busy = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
        || (status == StatusCode::FORBIDDEN && is_enough);
    if is_busy || status.is_server_error() {
        Failure::Away(Diagnostic::new(Code::SourceAway, message))
    } else {
        Failure::Wrong(Diagnostic::new(Code::SourceRefuses, message))
    }
}

fn not_followed(found: &str, expected: &str) -> Failure {
    Failure::Wrong(Diagnostic::new(Code::SourceAnswer, format!("found {found}, expected {expected}")))
}

/// Where a redirect leads to, if it stays within the origin.
fn redirected(from: &Uri, location: &str) -> Result<Uri, Failure> {
    let origin = format!("{}://{}", from.scheme_str().unwrap_or_default(), authority(from));
    // An address may stand in a query as well.
    let has_scheme = location.split(['/', '?', '#']).next().is_some_and(|first| first.ends_with(':'));
    let absolute = if has_scheme && location.contains("://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{}:{location}", from.scheme_str().unwrap_or_default())
    } else if location.starts_with('/') {
        format!("{origin}{location}")
    } else {
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{origin}{folder}/{location}")
    };
    let shown: String = location.chars().take(LOCATION_CHARACTERS_MAX).collect();
    let refused = || not_followed(&format!("a redirect to {shown:?}"), &format!("one within {origin}"));
    if location.is_empty() {
        return Err(refused());
    }
    let to: Uri = absolute.parse().map_err(|_| refused())?;
    let is_same = to.scheme() == from.scheme() && authority(&to).eq_ignore_ascii_case(authority(from));
    if is_same { Ok(to) } else { Err(refused()) }
}

/// Whether bytes whose digest is known may come from there: over TLS, or from a registry without.
fn leads_safely(from: &Uri, location: &str) -> bool {
    location.starts_with("https://") || (from.scheme_str() == Some("http") && location.starts_with("http://"))
}

/// Where more of a list is: `<address>; rel="next"`.
fn next(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(header::LINK)?.to_str().ok()?;
    let (address, relation) = link.strip_prefix('<')?.split_once('>')?;
    (address.len() <= MARK_BYTES_MAX && relation.contains("rel=\"next\"")).then(|| address.to_owned())
}

/// What stands in `Bearer realm="…",service="…"`.
fn challenge(header: &str) -> Option<Challenge> {
    let (scheme, mut rest) = header.split_once(' ')?;
    let (mut realm, mut service) = (None, String::new());
    while let Some((name, quoted)) = rest.split_once("=\"") {
        let (value, behind) = quoted.split_once('"')?;
        match name.trim_matches([',', ' ']) {
            "realm" => realm = Some(value.to_owned()),
            "service" => value.clone_into(&mut service),
            _ => {}
        }
        rest = behind;
    }
    let realm = realm.filter(|_| scheme.eq_ignore_ascii_case("bearer"))?;
    Some(Challenge { realm, service })
}

fn authority(url: &Uri) -> &str {
    url.authority().map_or("", |authority| authority.as_str())
}
