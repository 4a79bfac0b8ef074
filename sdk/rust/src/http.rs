//! Requests to other systems, as far as the operator grants them: whole, with an answer of any status.

use serde::Serialize;

use crate::{
    Headers, Refusal, Response,
    bindings::aegis::module::http,
    message::{put_json, put_text},
    secrets::Secret,
};

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `GET` and its like.
    pub method: String,
    /// Where it goes.
    pub url: String,
    /// Its header fields.
    pub headers: Headers,
    /// Its body.
    pub body: Vec<u8>,
    /// Milliseconds that it may take; what is left of the call when there are none.
    pub timeout_ms: Option<u32>,
    /// Most bytes of the answer's body; what may cross to a module when there are none.
    pub response_bytes_max: Option<u32>,
}

impl Request {
    /// A request of any method, without a body.
    #[must_use]
    pub fn new(method: &str, url: &str) -> Self {
        Self {
            method: method.to_owned(),
            url: url.to_owned(),
            headers: Headers::default(),
            body: Vec::new(),
            timeout_ms: None,
            response_bytes_max: None,
        }
    }

    /// Asks for something.
    #[must_use]
    pub fn get(url: &str) -> Self {
        Self::new("GET", url)
    }

    /// Sends something.
    #[must_use]
    pub fn post(url: &str) -> Self {
        Self::new("POST", url)
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
    pub fn json(mut self, value: &impl Serialize) -> Self {
        self.body = put_json(&mut self.headers, value);
        self
    }

    /// With a body of text.
    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.body = put_text(&mut self.headers, text);
        self
    }

    /// With a body of bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = bytes.into();
        self
    }

    /// With so many milliseconds.
    #[must_use]
    pub fn timeout_ms(mut self, milliseconds: u32) -> Self {
        self.timeout_ms = Some(milliseconds);
        self
    }

    /// With an answer of at most so many bytes.
    #[must_use]
    pub fn response_bytes_max(mut self, bytes: u32) -> Self {
        self.response_bytes_max = Some(bytes);
        self
    }

    fn to_wit(&self) -> http::Request {
        http::Request {
            method: self.method.clone(),
            url: self.url.clone(),
            headers: self.headers.clone().into(),
            body: self.body.clone(),
            timeout_ms: self.timeout_ms,
            max_response_bytes: self.response_bytes_max,
        }
    }
}

impl From<http::Response> for Response {
    fn from(response: http::Response) -> Self {
        let http::Response { status, headers, body } = response;
        Self { status, headers: headers.into(), body }
    }
}

/// Sends a request.
///
/// # Errors
/// When it is not granted, or there is no answer.
pub fn send(request: &Request) -> Result<Response, Refusal> {
    Ok(http::send(&request.to_wit())?.into())
}

/// Sends a request with a secret that the host puts into it: `Authorization: SCHEME SECRET`.
///
/// # Errors
/// As of [`send`].
pub fn send_authorized(request: &Request, scheme: &str, secret: &Secret) -> Result<Response, Refusal> {
    Ok(http::send_authorized(&request.to_wit(), scheme, &secret.0)?.into())
}

/// Sends requests, at most 64, several at a time. The answers are in the order of the requests.
#[must_use]
pub fn send_all(requests: &[Request]) -> Vec<Result<Response, Refusal>> {
    let requests: Vec<_> = requests.iter().map(Request::to_wit).collect();
    let sent = http::send_all(&requests).into_iter();
    sent.map(|one| one.map(Response::from).map_err(Refusal::from)).collect()
}
