//! Messages of HTTP, in both directions: header fields and bodies.

use serde::{Serialize, de::DeserializeOwned};

use crate::{Code, Refusal, bindings::aegis::module::types::Header, refuse};

/// Type of the body.
const CONTENT_TYPE: &str = "content-type";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Header fields, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, Vec<u8>)>);

impl Headers {
    /// The first value of a name, in any case, if it is text.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Adds one.
    pub fn add(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.0.push((name.to_owned(), value.into()));
    }

    /// Says the type of a body, unless somebody has said it.
    fn say_type(&mut self, content_type: &str) {
        if !self.0.iter().any(|(name, _)| name.eq_ignore_ascii_case(CONTENT_TYPE)) {
            self.add(CONTENT_TYPE, content_type);
        }
    }
}

impl From<Vec<Header>> for Headers {
    fn from(headers: Vec<Header>) -> Self {
        Self(headers.into_iter().map(|Header { name, value }| (name, value)).collect())
    }
}

impl From<Headers> for Vec<Header> {
    fn from(headers: Headers) -> Self {
        headers.0.into_iter().map(|(name, value)| Header { name, value }).collect()
    }
}

/// A body as text.
pub(crate) fn text(body: &[u8]) -> Result<&str, Refusal> {
    let read = std::str::from_utf8(body);
    read.map_err(|error| refuse(Code::Invalid, format!("found a body that is no text: {error}")))
}

/// A body as JSON.
pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let read = serde_json::from_slice(body);
    read.map_err(|error| refuse(Code::Invalid, format!("found a body that is no JSON: {error}")))
}

/// A body, with the type that it has unless the header fields say another.
pub(crate) fn put_json(headers: &mut Headers, value: &impl Serialize) -> Vec<u8> {
    headers.say_type(JSON);
    serde_json::to_vec(value).unwrap_or_else(|error| panic!("found a value that JSON cannot say: {error}"))
}

/// As [`put_json`], for a text.
pub(crate) fn put_text(headers: &mut Headers, text: &str) -> Vec<u8> {
    headers.say_type(TEXT);
    text.as_bytes().to_vec()
}

/// An answer: of a custom route, or of another system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its header fields.
    pub headers: Headers,
    /// Its body.
    pub body: Vec<u8>,
}

impl Response {
    /// An answer without a body.
    #[must_use]
    pub fn new(status: u16) -> Self {
        Self { status, headers: Headers::default(), body: Vec::new() }
    }

    /// With one more header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.add(name, value);
        self
    }

    /// With a body of JSON.
    ///
    /// # Panics
    /// When JSON cannot say the value, such as a map whose keys are no texts.
    #[must_use]
    pub fn with_json(mut self, value: &impl Serialize) -> Self {
        self.body = put_json(&mut self.headers, value);
        self
    }

    /// With a body of text.
    #[must_use]
    pub fn with_text(mut self, text: &str) -> Self {
        self.body = put_text(&mut self.headers, text);
        self
    }

    /// With a body of bytes.
    #[must_use]
    pub fn with_bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = bytes.into();
        self
    }

    /// The body as text.
    ///
    /// # Errors
    /// When it is no UTF-8.
    pub fn text(&self) -> Result<&str, Refusal> {
        text(&self.body)
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is no JSON, or of another type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        json(&self.body)
    }
}
