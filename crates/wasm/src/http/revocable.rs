//! Bodies that end when nobody waits for their request any longer, whoever still holds them.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use wasmtime_wasi_http::{Error as HttpError, WasiBody};

/// A body that can be taken away.
struct Revocable {
    body: Arc<Mutex<Option<WasiBody>>>,
    /// Closed when it is; nothing when that was seen.
    open: Option<oneshot::Receiver<()>>,
}

/// Takes a body away when it is dropped, and wakes whoever waits for more of it.
pub(super) struct Revokes {
    body: Arc<Mutex<Option<WasiBody>>>,
    _open: oneshot::Sender<()>,
}

/// The same body, and what takes it away.
pub(super) fn revocable(
    body: impl Body<Data = Bytes, Error = HttpError> + Send + 'static,
) -> (WasiBody, Revokes) {
    let body = Arc::new(Mutex::new(Some(body.boxed_unsync())));
    let (open, revoked) = oneshot::channel();
    let revokes = Revokes { body: Arc::clone(&body), _open: open };
    (Revocable { body, open: Some(revoked) }.boxed_unsync(), revokes)
}

impl Drop for Revokes {
    fn drop(&mut self) {
        let body = self.body.lock().take();
        drop(body); // when nothing is locked any more
    }
}

impl Body for Revocable {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        self.open.take_if(|open| Pin::new(open).poll(context).is_ready());
        if self.open.is_some()
            && let Some(body) = &mut *self.body.lock()
        {
            return Pin::new(body).poll_frame(context);
        }
        Poll::Ready(Some(Err(HttpError::ConnectionTerminated)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.lock().as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.lock().as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    fn poll(body: &mut WasiBody) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn a_body_is_as_it_was_until_it_is_taken_away() {
        let whole = || Full::new(Bytes::from("abc")).map_err(|never| match never {});
        let (mut body, revokes) = revocable(whole());
        assert_eq!(body.size_hint().exact(), Some(3));
        assert!(
            matches!(poll(&mut body), Poll::Ready(Some(Ok(frame))) if frame.data_ref().unwrap() == "abc")
        );
        assert!(matches!(poll(&mut body), Poll::Ready(None)));
        drop(revokes);
        let (mut body, revokes) = revocable(whole());
        drop(revokes);
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Err(HttpError::ConnectionTerminated)))));
        assert!(!body.is_end_stream());
    }
}
