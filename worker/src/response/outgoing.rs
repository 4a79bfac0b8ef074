//! The body of an answer. One type for all, so that nothing is boxed.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http_body::{Body, Frame, SizeHint};

use super::Piece;
use crate::{
    connection::Link,
    events::EventBody,
    overload::Held,
    serve::{BrokenOff, ServiceAnswer},
};

/// What is sent.
pub(crate) enum Outgoing {
    /// Nothing.
    Empty,
    /// Bytes that are here.
    Whole(Piece),
    /// Events as they happen.
    Events(EventBody),
    /// What a service says, as it says it.
    Service(Box<ServiceAnswer>),
}

impl Outgoing {
    /// Bytes known now.
    pub(crate) fn known_bytes(&self) -> u64 {
        match self {
            Self::Whole(piece) => piece.length(),
            Self::Empty | Self::Events(_) | Self::Service(_) => 0,
        }
    }

    /// Has the worker and the connection know of bytes that wait for the client.
    pub(crate) fn wait(&mut self, link: &Arc<Link>, held: Held) {
        if let Self::Whole(piece) = self {
            *piece = piece.take().awaited(link, held);
        }
    }
}

impl Body for Outgoing {
    type Data = Piece;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BrokenOff>>> {
        let me = self.get_mut();
        match me {
            Self::Empty => Poll::Ready(None),
            Self::Whole(piece) => {
                let piece = piece.take();
                *me = Self::Empty;
                Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
            }
            Self::Events(events) => {
                events.poll_next(cx).map(|next| next.map(|bytes| Ok(Frame::data(bytes.into()))))
            }
            Self::Service(answer) => answer.poll_next(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(piece) => piece.is_empty(),
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
