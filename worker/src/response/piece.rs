//! What is sent at once: bytes, and that they wait for a client.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::{
    connection::{Awaited, Link, Protocol},
    overload::Held,
};

/// Bytes on their way to the client.
pub(crate) struct Piece {
    bytes: Bytes,
    /// Large ones. In a box: most answers are small.
    waiting: Option<Box<Waiting>>,
}

/// That bytes wait, as far as the worker and the connection have to know.
struct Waiting {
    /// Over HTTP/2. Over HTTP/1 a socket that takes nothing says the same.
    awaited: Option<Awaited>,
    _held: Held,
}

impl Piece {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn length(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// What is left, leaving nothing.
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Bytes::new().into())
    }

    /// The same for a client that takes it when it likes.
    pub(crate) fn awaited(self, link: &Arc<Link>, held: Held) -> Self {
        let awaited = (link.protocol() == Protocol::Http2).then(|| link.awaited());
        Self { waiting: Some(Box::new(Waiting { awaited, _held: held })), ..self }
    }
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, waiting: None }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    /// Called when bytes have gone into the socket, which over HTTP/2 only those do that the client takes. Over HTTP/1 hyper
    /// keeps it beside the head without copying it, because the socket writes several slices, and drops it when all has gone.
    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        if let Some(waiting) = &self.waiting
            && let Some(awaited) = &waiting.awaited
            && count > 0
        {
            awaited.progressed();
        }
    }
}
