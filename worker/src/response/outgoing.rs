//! The body of an answer. One type for all, so that nothing is boxed.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::{
    events::EventBody,
    serve::{BrokenOff, ServiceAnswer},
};

/// What is sent.
pub(crate) enum Outgoing {
    /// Nothing.
    Empty,
    /// Bytes that are here.
    Whole(Bytes),
    /// Events as they happen.
    Events(EventBody),
    /// What a service says, as it says it.
    Service(Box<ServiceAnswer>),
}

impl Outgoing {
    /// Bytes known now.
    pub(crate) fn known_bytes(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Empty | Self::Events(_) | Self::Service(_) => 0,
        }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let me = self.get_mut();
        match me {
            Self::Empty => Poll::Ready(None),
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *me = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Events(events) => events.poll_next(cx).map(|next| next.map(|bytes| Ok(Frame::data(bytes)))),
            Self::Service(answer) => answer.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Events(_) => false,
            Self::Service(answer) => answer.has_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Events(_) => SizeHint::default(),
            Self::Service(answer) => answer.size_hint(),
            known => SizeHint::with_exact(known.known_bytes()),
        }
    }
}
