//! A request to a service of WASI 0.3, whose instance does several things at a time: it answers, and goes on to write the
//! body of its answer, or with work of its own.
//!
//! ```text
//!   handle ─▶ head ─▶ the body is taken, piece by piece ─▶ the code has nothing to do any more ─▶ the next request
//! ```

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    Request, Uri, header,
    uri::{Authority, Scheme},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi_http::{
    Error as HttpError, WasiBody, WasiHttpView,
    p3::{self, bindings::Service},
};

use super::Head;
use crate::state::State;

/// Runs the code for one request, until its answer is taken and it has nothing to do any more.
pub(super) async fn answer(
    store: &mut Store<State>,
    service: &Service,
    request: Request<impl Body<Data = Bytes, Error = HttpError> + Send + 'static>,
    head: oneshot::Sender<Head>,
) -> wasmtime::Result<()> {
    // What the code says about the request's body once it has read it is of no use to anybody.
    let (request, _) = p3::Request::from_http(store.data_mut().http().hooks, addressed(request));
    let answered = store.run_concurrent(async |accessor| {
        match service.handle(accessor, request).await? {
            Ok(response) => {
                let (taken, delivered) = oneshot::channel::<()>();
                // The code may wait for that; whoever goes away before ends the code with it.
                let delivered = async { delivered.await.map_err(|_| HttpError::ConnectionTerminated) };
                let response = accessor.with(|access| response.into_http(access, delivered))?;
                let (running, ended) = oneshot::channel();
                let (done, was_taken) = oneshot::channel();
                let taken = Some((taken, done));
                let body = |body| Watched { body, ended, taken }.boxed_unsync();
                if head.send(Ok(response.map(body))).is_err() {
                    return Ok(()); // nobody waits for it any longer
                }
                // A body that the code only passes on comes without the code, and yet not beyond its deadline.
                let _ = was_taken.await;
                drop(running);
            }
            Err(code) => {
                let _ = head.send(Err(format!("{code:?}"))); // nobody may wait for it any longer
            }
        }
        poll_fn(|context| accessor.poll_no_interesting_tasks(context)).await;
        Ok(())
    });
    answered.await?
}

/// The request with what its field `Host` says in its target: that field is between two neighbours and does not reach
/// the code.
fn addressed<B>(request: Request<B>) -> Request<B> {
    let (mut head, body) = request.into_parts();
    let mut target = head.uri.clone().into_parts();
    target.scheme = Some(Scheme::HTTP);
    if target.authority.is_none() {
        let host = head.headers.get(header::HOST);
        target.authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    }
    if let Ok(target) = Uri::from_parts(target) {
        head.uri = target;
    }
    Request::from_parts(head, body)
}

/// The body of an answer: it ends with the code, and says when it was taken to its end.
struct Watched {
    body: WasiBody,
    /// Closed when the code has ended.
    ended: oneshot::Receiver<()>,
    /// Who is told that it was taken: the code, and those who run it.
    taken: Option<(oneshot::Sender<()>, oneshot::Sender<()>)>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        if self.taken.is_none() || Pin::new(&mut self.ended).poll(context).is_ready() {
            self.taken = None;
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if !matches!(frame, Some(Ok(_)))
            && let Some((code, host)) = self.taken.take()
        {
            // Neither has to be there any more.
            let _ = (code.send(()), host.send(()));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.taken.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
