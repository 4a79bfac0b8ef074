//! Requests of code to other systems, as they are handed to the host: this crate knows no network.

use std::{future::Future, pin::Pin, time::Duration};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use wasmtime_wasi_http::Error as HttpError;

use crate::{
    call::{Refusal, RefusalCode},
    secret::SecretText,
};

/// A whole request.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// As the code says it: `GET`.
    pub method: String,
    /// As the code says it.
    pub url: String,
    /// Header fields.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Bytes,
    /// How long the code waits at most. The deadline of its call holds in any case.
    pub timeout: Option<Duration>,
    /// The most bytes that the body of the answer may have.
    pub response_bytes_max: u64,
    /// What the host puts into `Authorization`.
    pub credential: Option<Credential>,
}

/// A secret that stands for the code.
#[derive(Debug, Clone)]
pub struct Credential {
    /// What stands in front of it: `Bearer`.
    pub scheme: String,
    /// The secret.
    pub secret: SecretText,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Header fields; names are lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body.
    pub body: Bytes,
}

/// A body that comes or goes piece by piece.
pub type StreamedBody = UnsyncBoxBody<Bytes, OutgoingError>;

/// How long code waits at most in the course of a request whose bodies are streamed; nothing: as long as its call lasts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waits {
    /// For a connection.
    pub connect: Option<Duration>,
    /// For the head of the answer.
    pub head: Option<Duration>,
    /// For each piece of its body.
    pub piece: Option<Duration>,
}

/// What a request comes to.
pub type Sent<'a, T> = Pin<Box<dyn Future<Output = Result<T, OutgoingError>> + Send + 'a>>;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutgoingError {
    /// The host is not granted.
    #[error("{0}")]
    Denied(String),
    /// The host is granted, and its name leads to an address that is not.
    #[error("{0}")]
    Prohibited(String),
    /// The request is none.
    #[error("{0}")]
    Invalid(String),
    /// Nobody knows the name.
    #[error("{0}")]
    Unknown(String),
    /// Nobody accepts a connection.
    #[error("{0}")]
    Unreachable(String),
    /// The other side is not who it has to be, or speaks no TLS.
    #[error("{0}")]
    Untrusted(String),
    /// The connection ended, or something else than HTTP came over it.
    #[error("{0}")]
    Broken(String),
    /// There are as many requests under way as there may be.
    #[error("{0}")]
    Busy(String),
    /// It took too long.
    #[error("{0}")]
    Late(String),
    /// The answer is larger than it may be.
    #[error("found an answer of more than {bytes_max} bytes, expected at most that")]
    TooLarge {
        /// The most there may be.
        bytes_max: u64,
    },
    /// One redirect led to the next.
    #[error("found more than {redirects_max} redirects, expected at most that")]
    Lost {
        /// The most there may be.
        redirects_max: u32,
    },
}

impl From<OutgoingError> for Refusal {
    fn from(error: OutgoingError) -> Self {
        use OutgoingError as Error;
        let (code, transient) = match &error {
            Error::Denied(_) | Error::Prohibited(_) => (RefusalCode::Denied, false),
            Error::Invalid(_) => (RefusalCode::Invalid, false),
            Error::Untrusted(_) | Error::Lost { .. } => (RefusalCode::Unavailable, false),
            Error::Unknown(_) | Error::Unreachable(_) | Error::Broken(_) | Error::Busy(_) => {
                (RefusalCode::Unavailable, true)
            }
            Error::Late(_) => (RefusalCode::Timeout, true),
            Error::TooLarge { .. } => (RefusalCode::TooLarge, false),
        };
        Self { code, message: error.to_string(), details: None, transient }
    }
}

/// As `wasi:http` has it, which knows kinds and no sentences.
impl From<OutgoingError> for HttpError {
    fn from(error: OutgoingError) -> Self {
        use OutgoingError as Error;
        match error {
            Error::Denied(_) => Self::HttpRequestDenied,
            Error::Prohibited(_) => Self::DestinationIpProhibited,
            Error::Invalid(_) => Self::HttpRequestUriInvalid,
            Error::Unknown(_) => Self::DnsError { rcode: None, info_code: None },
            Error::Unreachable(_) => Self::ConnectionRefused,
            Error::Untrusted(_) => Self::TlsCertificateError,
            Error::Broken(_) => Self::ConnectionTerminated,
            Error::Busy(_) => Self::ConnectionLimitReached,
            Error::Late(_) => Self::ConnectionReadTimeout,
            Error::TooLarge { bytes_max } => Self::HttpResponseBodySize(Some(bytes_max)),
            Error::Lost { .. } => Self::LoopDetected,
        }
    }
}
