//! A body on its way to a service, which reads it piece by piece.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use aegis_ipc::board::{Cell, Counter};
use aegis_wasm::UploadError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::Source;
use crate::connection::Link;

/// A body that is read as it is wanted, no further than allowed.
pub(crate) struct Upload {
    pub(super) source: Source,
    pub(super) bytes_max: u64,
    pub(super) bytes_left: u64,
    pub(super) was_too_large: Arc<AtomicBool>,
    pub(super) has_ended: bool,
    pub(super) cell: Cell,
    pub(super) link: Arc<Link>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let me = self.get_mut();
        let next = match &mut me.source {
            Source::Incoming(body) => match Pin::new(body).poll_frame(context) {
                Poll::Ready(next) => next.map(|frame| frame.map_err(|_| UploadError::Broken)),
                Poll::Pending => return Poll::Pending,
            },
            Source::Given(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
        };
        let bytes = match &next {
            None => {
                me.has_ended = true;
                0
            }
            Some(frame) => frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64,
        };
        me.cell.counter(Counter::BytesIn).fetch_add(bytes, Ordering::Relaxed);
        let Some(left) = me.bytes_left.checked_sub(bytes) else {
            me.was_too_large.store(true, Ordering::Relaxed);
            me.source = Source::Given(None);
            return Poll::Ready(Some(Err(UploadError::TooLarge { bytes_max: me.bytes_max })));
        };
        me.bytes_left = left;
        Poll::Ready(next)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Incoming(body) => body.size_hint(),
            Source::Given(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let is_over = match &self.source {
            Source::Incoming(body) => body.is_end_stream(),
            Source::Given(_) => self.has_ended,
        };
        if !is_over && !self.has_ended {
            self.link.leave_body_unread();
        }
    }
}
