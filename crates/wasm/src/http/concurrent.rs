//! A request to a service of WASI 0.3, whose instance does several things at a time: it answers, and goes on to write the
//! body of its answer, or with work of its own.
//!
//! ```text
//!   handle ─▶ head ─▶ the body is taken, piece by piece ─▶ the code has nothing to do any more ─▶ the next request
//! ```

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    Request, Response, Uri, header,
    uri::{Authority, Scheme},
};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use wasmtime::{
    AsContextMut, Store,
    component::{Accessor, AccessorTask, Resource, TypedFunc, TypedFuncCallConcurrent},
};
use wasmtime_wasi_http::{
    Error as HttpError, WasiBody, WasiHttpView,
    p3::{
        self,
        bindings::{Service, http::types::ErrorCode},
    },
};

use super::{
    Head,
    crowd::Crowd,
    shared::{Job, Replies, Room},
};
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
                let (response, taken, was_taken) = taken_by(accessor, response)?;
                let (running, ended) = oneshot::channel();
                if head.send(Ok(response.map(|body| watched(body, ended, taken)))).is_err() {
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

/// The answer of the code as its client takes it, and when it was.
fn taken_by(
    accessor: &Accessor<State>,
    response: p3::Response,
) -> wasmtime::Result<(Response<WasiBody>, Taken, oneshot::Receiver<()>)> {
    let (code, delivered) = oneshot::channel();
    // The code may wait for that.
    let delivered = async { delivered.await.map_err(|_| HttpError::ConnectionTerminated) };
    let response = accessor.with(|access| response.into_http(access, delivered))?;
    let (host, was_taken) = oneshot::channel();
    Ok((response, Taken { code, host }, was_taken))
}

type Handle = TypedFunc<(Resource<p3::Request>,), (Result<Resource<p3::Response>, ErrorCode>,)>;
type Handling =
    TypedFuncCallConcurrent<State, (Resource<p3::Request>,), (Result<Resource<p3::Response>, ErrorCode>,)>;

/// A request to an instance that others are in.
pub(super) struct Visiting {
    number: u64,
    handle: Handle,
    handling: Handling,
    head: oneshot::Sender<Result<(Response<WasiBody>, Taken), String>>,
    here: oneshot::Receiver<()>,
    room: Arc<Room>,
    crowd: Arc<Crowd>,
}

impl Visiting {
    /// Begins with a request.
    ///
    /// # Errors
    /// When the instance takes no more.
    pub(super) fn begin(
        accessor: &Accessor<State>,
        service: &Service,
        job: Job,
        room: &Arc<Room>,
        crowd: &Arc<Crowd>,
    ) -> wasmtime::Result<()> {
        let Job { asks, request, replies: Replies { head, ended, here, .. } } = job;
        let handle = service.wasi_http_handler().func_handle();
        let (handling, number) = accessor.with(|mut access| {
            let state = access.get();
            state.http.ask_for(&asks);
            let http = state.http();
            let (request, _) = p3::Request::from_http(http.hooks, addressed(request));
            let request = http.table.push(request)?;
            let handling = handle.start_call_concurrent(access.as_context_mut(), (request,))?;
            let number = crowd.enter(handling.task(), asks, ended);
            wasmtime::error::Ok((handling, number))
        })?;
        let (room, crowd) = (Arc::clone(room), Arc::clone(crowd));
        accessor.spawn(Self { number, handle, handling, head, here, room, crowd }).map(drop)
    }
}

impl AccessorTask<State> for Visiting {
    /// Until its answer was taken, or nobody waits for it any longer.
    async fn run(self, accessor: &Accessor<State>) -> wasmtime::Result<()> {
        let Self { number, handle, handling, head, here, room, crowd } = self;
        let answered = async {
            let (answer,) = handle.finish_call_concurrent(accessor, handling).await?;
            match answer {
                Ok(response) => {
                    let response = accessor.with(|mut access| access.get().table.delete(response))?;
                    let (response, taken, was_taken) = taken_by(accessor, response)?;
                    let _ = head.send(Ok((response, taken))); // nobody may wait for it any longer
                    wasmtime::error::Ok(was_taken.await.is_ok())
                }
                Err(code) => Ok(head.send(Err(format!("{code:?}"))).is_ok()),
            }
        };
        tokio::select! {
            biased;
            answered = answered => if answered? {
                crowd.leave(number);
                room.leave();
            },
            _ = here => {}
        }
        Ok(())
    }
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

/// Who is told that an answer was taken to its end: the code, and those who run it.
pub(super) struct Taken {
    code: oneshot::Sender<()>,
    host: oneshot::Sender<()>,
}

/// The body of an answer: it ends with the code, and says when it was taken to its end.
struct Watched {
    body: WasiBody,
    /// Closed when the code has ended.
    ended: oneshot::Receiver<()>,
    /// Nothing when it is over.
    taken: Option<Taken>,
}

/// The body of an answer, which ends when `ended` is closed.
pub(super) fn watched(body: WasiBody, ended: oneshot::Receiver<()>, taken: Taken) -> WasiBody {
    Watched { body, ended, taken: Some(taken) }.boxed_unsync()
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
            && let Some(Taken { code, host }) = self.taken.take()
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
