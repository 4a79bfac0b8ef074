//! Bodies on their way to a service and back.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;
use wasmtime_wasi_http::{Error as HttpError, WasiBody};

use super::HttpService;
use crate::call::CallError;

/// Why the body of a request does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UploadError {
    /// It is longer than the host allows.
    #[error("the body has more than {bytes_max} bytes")]
    TooLarge {
        /// The most there may be.
        bytes_max: u64,
    },
    /// The client went away, or does not speak HTTP.
    #[error("the body could not be read to its end")]
    Broken,
}

impl From<UploadError> for HttpError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::TooLarge { bytes_max } => Self::HttpRequestBodySize(Some(bytes_max)),
            UploadError::Broken => Self::ConnectionTerminated,
        }
    }
}

/// Code that runs for one request, until this is dropped.
#[derive(Debug)]
pub(super) struct Task {
    module: String,
    entry: &'static str,
    handle: JoinHandle<Result<(), CallError>>,
}

impl Task {
    pub(super) fn spawn(
        module: &str,
        entry: &'static str,
        work: impl Future<Output = Result<(), CallError>> + Send + 'static,
    ) -> Self {
        Self { module: module.to_owned(), entry, handle: tokio::spawn(work) }
    }
}

impl Future for Task {
    type Output = Result<(), CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.handle).poll(context).map(|joined| {
            joined.unwrap_or_else(|error| {
                let reason = format!("the task that ran it ended: {error}");
                Err(CallError::Trapped { module: self.module.clone(), entry: self.entry.into(), reason })
            })
        })
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// The body of a service's answer. It ends well only if the code does.
#[derive(Debug)]
pub struct ServiceBody {
    body: WasiBody,
    has_ended: bool,
    /// Nothing when it is over.
    task: Option<Task>,
}

impl ServiceBody {
    pub(super) fn new(body: WasiBody, task: Task) -> Self {
        Self { body, has_ended: false, task: Some(task) }
    }
}

impl Body for ServiceBody {
    type Data = Bytes;
    type Error = CallError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallError>>> {
        let mut was_broken_off = false;
        if !self.has_ended {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => return Poll::Ready(Some(Ok(frame))),
                Some(Err(_)) => was_broken_off = true,
                None => {}
            }
            self.has_ended = true;
        }
        let Some(task) = &mut self.task else { return Poll::Ready(None) };
        if was_broken_off {
            let reason = format!("service {} broke its answer off", task.module);
            self.task = None;
            return Poll::Ready(Some(Err(HttpService::refused(reason))));
        }
        let ended = ready!(Pin::new(task).poll(context));
        self.task = None;
        Poll::Ready(ended.err().map(Err))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended && self.task.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
