//! A request body, read no further than allowed.

mod upload;

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use aegis_domain::{Problem, ProblemCode};
use aegis_ipc::board::Cell;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use hyper::body::Incoming;

pub(crate) use self::upload::Upload;
use crate::connection::Link;

/// The body of a request.
#[derive(Debug)]
pub(crate) struct RequestBody {
    source: Source,
    state: State,
}

#[derive(Debug)]
enum Source {
    /// From a client.
    Incoming(Incoming),
    /// Made here.
    Given(Option<Bytes>),
}

/// What is said about a body that has `found` bytes.
pub(crate) fn too_large(found: &str, bytes_max: u64) -> Problem {
    let detail = format!("the body has {found} bytes, at most {bytes_max} are allowed");
    Problem::new(ProblemCode::BodyTooLarge, detail)
}

/// How far a body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Untouched,
    Unfinished,
    Finished,
}

impl RequestBody {
    pub(crate) fn incoming(body: Incoming) -> Self {
        let state = if body.is_end_stream() { State::Finished } else { State::Untouched };
        Self { source: Source::Incoming(body), state }
    }

    /// A body that is already here.
    pub(crate) fn given(bytes: Bytes) -> Self {
        let state = if bytes.is_empty() { State::Finished } else { State::Untouched };
        Self { source: Source::Given(Some(bytes)), state }
    }

    /// Whether the client may still be sending.
    pub(crate) fn is_unread(&self) -> bool {
        self.state != State::Finished
    }

    /// The whole body. One that says it is longer than `bytes_max` is not read at all; one that does not say is read
    /// until it is.
    pub(crate) async fn read(&mut self, bytes_max: u64, deadline: Instant) -> Result<Bytes, Problem> {
        if self.state == State::Finished {
            return Ok(Bytes::new());
        }
        let too_large = |found: &str| too_large(found, bytes_max);
        let declared = self.declared();
        if declared.is_some_and(|declared| declared > bytes_max) {
            return Err(too_large(&declared.unwrap_or_default().to_string()));
        }
        let reading = async {
            let mut first = Bytes::new();
            let mut all: Option<BytesMut> = None;
            while let Some(data) = self.next().await? {
                let length = (all.as_ref().map_or(first.len(), BytesMut::len) + data.len()) as u64;
                if length > bytes_max {
                    return Err(too_large(&format!("more than {bytes_max}")));
                }
                // Most bodies come in one piece, which is passed on as it is.
                match &mut all {
                    Some(all) => all.extend_from_slice(&data),
                    None if first.is_empty() => first = data,
                    None => {
                        let size = declared.unwrap_or_default().max(length);
                        let mut together = BytesMut::with_capacity(usize::try_from(size).unwrap_or_default());
                        together.extend_from_slice(&first);
                        together.extend_from_slice(&data);
                        all = Some(together);
                    }
                }
            }
            Ok(all.map_or(first, BytesMut::freeze))
        };
        match tokio::time::timeout_at(deadline.into(), reading).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let detail = "the body did not arrive in the time a request may take";
                Err(Problem::new(ProblemCode::RequestTimeout, detail))
            }
        }
    }

    /// Gives the body to somebody who reads it later, unless it says that it is longer than `bytes_max`. What is read
    /// is counted in the cell; what is not, the connection is told of.
    pub(crate) fn hand_over(
        &mut self,
        bytes_max: u64,
        was_too_large: Arc<AtomicBool>,
        (cell, link): (Cell, &Arc<Link>),
    ) -> Result<Upload, Problem> {
        if let Some(declared) = self.declared().filter(|declared| *declared > bytes_max) {
            return Err(too_large(&declared.to_string(), bytes_max));
        }
        let has_ended = self.state == State::Finished;
        self.state = State::Finished;
        let source = std::mem::replace(&mut self.source, Source::Given(None));
        let link = Arc::clone(link);
        Ok(Upload { source, bytes_max, bytes_left: bytes_max, was_too_large, has_ended, cell, link })
    }

    /// Throws the rest away, so that the connection can be used again. Gives up after `bytes_max`.
    pub(crate) async fn discard(&mut self, bytes_max: u64, deadline: Instant) {
        if self.declared().is_some_and(|declared| declared > bytes_max) {
            return;
        }
        let discarding = async {
            let mut left = bytes_max;
            while let Ok(Some(data)) = self.next().await {
                let Some(rest) = left.checked_sub(data.len() as u64) else { return };
                left = rest;
            }
        };
        let _ = tokio::time::timeout_at(deadline.into(), discarding).await;
    }

    /// Bytes still to come, if the client said.
    fn declared(&self) -> Option<u64> {
        match &self.source {
            Source::Incoming(body) => body.size_hint().exact(),
            Source::Given(bytes) => Some(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        self.state = State::Unfinished;
        loop {
            let frame = match &mut self.source {
                Source::Incoming(body) => poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await,
                Source::Given(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            };
            match frame {
                None => {
                    self.state = State::Finished;
                    return Ok(None);
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    let detail = format!("the body could not be read to its end: {error}");
                    return Err(Problem::new(ProblemCode::MalformedJson, detail));
                }
            }
        }
    }
}
