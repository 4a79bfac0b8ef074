//! Answers as they come: whole and bounded, or piece by piece.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use aegis_wasm::OutgoingError;
use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Sleep;

use super::{Lease, earlier};

/// The whole body, and the connection for the next request.
pub(super) async fn whole(mut body: Incoming, lease: Lease, bytes_max: u64) -> Result<Bytes, OutgoingError> {
    let too_large = || OutgoingError::TooLarge { bytes_max };
    if body.size_hint().lower() > bytes_max {
        return Err(too_large());
    }
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| broken(&error))?.into_data() else { continue };
        if (bytes.len() + data.len()) as u64 > bytes_max {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    lease.give_back();
    Ok(bytes.freeze())
}

fn broken(error: &hyper::Error) -> OutgoingError {
    OutgoingError::Broken(format!("the answer was broken off: {error}"))
}

/// A body that is passed on piece by piece, with the connection it comes from.
pub(super) struct Streamed {
    body: Incoming,
    /// Nothing when it is over.
    lease: Option<Lease>,
    deadline: Instant,
    /// For each piece.
    wait: Option<Duration>,
    patience: Pin<Box<Sleep>>,
}

impl Streamed {
    pub(super) fn new(body: Incoming, lease: Lease, deadline: Instant, wait: Option<Duration>) -> Self {
        let patience = Box::pin(tokio::time::sleep_until(earlier(deadline, wait).into()));
        Self { body, lease: Some(lease), deadline, wait, patience }
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = OutgoingError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, OutgoingError>>> {
        if self.lease.is_none() {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                let end = earlier(self.deadline, self.wait);
                self.patience.as_mut().reset(end.into());
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.lease = None;
                Poll::Ready(Some(Err(broken(&error))))
            }
            Poll::Ready(None) => {
                self.lease.take().into_iter().for_each(Lease::give_back);
                Poll::Ready(None)
            }
            Poll::Pending => {
                if self.patience.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.lease = None;
                Poll::Ready(Some(Err(OutgoingError::Late("the answer did not go on in time".to_owned()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.lease.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
