//! Requests to services: components that answer under a route of their own.
//!
//! The host keeps what is between two neighbours to itself, counts and limits as everywhere, and says who answered;
//! everything else is the component's business, methods and errors included.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use aegis_domain::{Problem, ProblemCode};
use aegis_ipc::board::{Cell, Counter};
use aegis_wasm::{CallError, ServiceBody, Visit};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Version, header, request::Parts};
use http_body::{Body, Frame, SizeHint};
use tokio::time::timeout_at;

use crate::{
    connection::{Answering, Link, Protocol},
    host::Host,
    overload::Admitted,
    request::{RequestBody, X_REQUEST_ID, too_large},
    response::{Envelope, Outgoing, Piece},
};

/// Headers that are between two neighbours (RFC 9110 section 7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What is said about a request that the worker has no time left for.
pub(crate) const LEAVES: &str = "the worker leaves and had no answer yet";

/// What is told about a request to code that the worker has no time left for. What the code has done by then nobody knows,
/// and only a request that asks for nothing but an answer can be sent again.
pub(crate) fn cut_short(method: &Method) -> Problem {
    if method.is_safe() {
        Problem::new(ProblemCode::Unavailable, LEAVES)
    } else {
        Problem::new(ProblemCode::WriteOutcomeUnknown, LEAVES).not_to_be_repeated()
    }
}

/// Answers with what the service at this position says.
pub(crate) async fn answer(
    host: &Arc<Host>,
    link: &Arc<Link>,
    position: usize,
    (parts, body): (&Parts, &mut RequestBody),
    envelope: &Envelope<'_>,
    begun: Instant,
) -> Result<Response<Outgoing>, Problem> {
    let limits = &host.config.limits;
    let admitted = host.load.admit()?;
    host.load.room(link.protocol())?;
    let was_too_large = Arc::new(AtomicBool::new(false));
    let upload = body.hand_over(limits.body_bytes_max, Arc::clone(&was_too_large), (host.cell, link))?;
    let mut request = Request::new(upload);
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.headers_mut() = parts.headers.clone();
    remove_hop_by_hop(request.headers_mut());
    request.headers_mut().insert(&X_REQUEST_ID, envelope.request_id.clone());
    let request_id = envelope.request_id.to_str().unwrap_or_default().to_owned();
    let visit = Visit { request_id, deadline: begun + limits.request_timeout };
    let answered = tokio::select! {
        biased;
        answered = host.engine.serve(position, visit, request) => answered,
        () = link.answer_now() => Err(cut_short(&parts.method)),
    };
    if was_too_large.load(Ordering::Relaxed) {
        return Err(too_large(&format!("more than {}", limits.body_bytes_max), limits.body_bytes_max));
    }
    let (mut head, body) = answered?.into_parts();
    remove_hop_by_hop(&mut head.headers);
    let course = Course { body, host: Arc::clone(host), _admitted: admitted };
    let mut answer = ServiceAnswer { course: None, bytes_left: None, answering: link.answering() };
    match extent(parts, &head, &course.body.size_hint()) {
        Extent::Head => course.end_by_itself(Some(Instant::now() + UNWANTED_TIME_MAX)),
        Extent::Nothing => course.end_by_itself(None),
        Extent::Bytes(bytes) => (answer.course, answer.bytes_left) = (Some(course), Some(bytes)),
        Extent::UntilTheEnd => answer.course = Some(course),
    }
    Ok(envelope.sign(Response::from_parts(head, Outgoing::Service(Box::new(answer)))))
}

/// How much of the body of an answer its client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Nothing: only the head is wanted, whatever the code says behind it.
    Head,
    /// Nothing, as the code itself says.
    Nothing,
    /// So many bytes: nobody asks for anything behind the last one.
    Bytes(u64),
    /// All that comes.
    UntilTheEnd,
}

fn extent(request: &Parts, head: &http::response::Parts, hint: &SizeHint) -> Extent {
    if request.method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED {
        return Extent::Head;
    }
    if head.status == StatusCode::NO_CONTENT {
        return Extent::Nothing;
    }
    if request.version >= Version::HTTP_2 {
        return Extent::UntilTheEnd; // trailers may come behind the last byte
    }
    let length =
        head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    match length.or(hint.exact()) {
        Some(0) => Extent::Nothing,
        Some(bytes) => Extent::Bytes(bytes),
        None => Extent::UntilTheEnd,
    }
}

/// Takes away what is between two neighbours.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Most bytes of bodies that no client gets which are taken so that their code comes to its end. One that says more is
/// ended.
const UNWANTED_BYTES_MAX: usize = 1024 * 1024;
/// How long they are taken. A stream without an end would have its instance, and its place among the requests in flight,
/// until its deadline, and no client that leaves would end it.
const UNWANTED_TIME_MAX: Duration = Duration::from_secs(2);

/// The body of a service's answer.
pub(crate) struct ServiceAnswer {
    /// Nothing when the client has all that it gets.
    course: Option<Course>,
    /// What the client still gets, where the head says it.
    bytes_left: Option<u64>,
    /// The connection is not idle before the body is out.
    answering: Answering,
}

/// Code that answers, and what it holds until it has ended.
struct Course {
    body: ServiceBody,
    host: Arc<Host>,
    _admitted: Admitted,
}

impl Course {
    /// The client has its answer, and what the code still does is a matter of the code and its deadline: until then where
    /// one is given, and not for much longer when it still says something.
    fn end_by_itself(self, mut until: Option<Instant>) {
        tokio::spawn(async move {
            let mut course = self;
            let mut bytes_left = UNWANTED_BYTES_MAX;
            loop {
                let next = poll_fn(|context| Pin::new(&mut course.body).poll_frame(context));
                let next = match until {
                    Some(until) => timeout_at(until.into(), next).await.ok().flatten(),
                    None => next.await,
                };
                let Some(frame) = next.and_then(|next| course.noted(next)) else { return };
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                let Some(left) = bytes_left.checked_sub(bytes) else { return };
                bytes_left = left;
                if bytes > 0 {
                    until.get_or_insert_with(|| Instant::now() + UNWANTED_TIME_MAX);
                }
            }
        });
    }

    /// The same once it is noted if it was broken off.
    fn noted(&self, next: Result<Frame<Bytes>, CallError>) -> Option<Frame<Bytes>> {
        next.inspect_err(|error| self.host.engine.note_broken_off(error)).ok()
    }
}

/// An answer that ended too early: the connection ends with it, so that nobody takes it for whole.
#[derive(Debug, thiserror::Error)]
#[error("the answer of a service ended too early")]
pub(crate) struct BrokenOff;

impl ServiceAnswer {
    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BrokenOff>>> {
        let Some(course) = &mut self.course else { return Poll::Ready(None) };
        let Some(next) = ready!(Pin::new(&mut course.body).poll_frame(context)) else {
            return Poll::Ready(None);
        };
        let Some(frame) = course.noted(next) else { return Poll::Ready(Some(Err(BrokenOff))) };
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        count(course.host.cell, Counter::BytesOut, bytes);
        let link = self.answering.link();
        let held = (link.protocol() == Protocol::Http2).then(|| course.host.load.hold_anyway(bytes));
        let frame = frame.map_data(|bytes| match held {
            Some(held) => Piece::from(bytes).awaited(link, held),
            None => bytes.into(),
        });
        if let Some(left) = &mut self.bytes_left {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                self.let_go(context);
            }
        }
        Poll::Ready(Some(Ok(frame)))
    }

    /// The last byte is out: whoever took it comes no more, although the code may have something to do yet.
    fn let_go(&mut self, context: &mut Context<'_>) {
        let Some(mut course) = self.course.take() else { return };
        match Pin::new(&mut course.body).poll_frame(context) {
            Poll::Ready(None) => {}
            Poll::Ready(Some(next)) => {
                if course.noted(next).is_some() {
                    course.end_by_itself(None);
                }
            }
            Poll::Pending => course.end_by_itself(None),
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.course.as_ref().is_none_or(|course| course.body.is_end_stream())
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.course.as_ref().map_or_else(SizeHint::default, |course| course.body.size_hint())
    }
}

fn count(cell: Cell, counter: Counter, amount: u64) {
    cell.counter(counter).fetch_add(amount, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_a_client_gets_of_a_body_is_what_its_head_and_its_protocol_say() {
        let of = |method, version, status, length: Option<&str>| {
            let request = Request::builder().method(method).version(version).body(()).unwrap().into_parts().0;
            let answer = Response::builder().status(status);
            let answer =
                length.into_iter().fold(answer, |answer, length| answer.header("content-length", length));
            extent(&request, &answer.body(()).unwrap().into_parts().0, &SizeHint::default())
        };
        let (old, new) = (Version::HTTP_11, Version::HTTP_2);
        for version in [old, new] {
            assert_eq!(of("HEAD", version, 200, Some("5")), Extent::Head);
            assert_eq!(of("GET", version, 204, None), Extent::Nothing);
            assert_eq!(of("GET", version, 304, Some("5")), Extent::Head);
            assert_eq!(of("GET", version, 200, None), Extent::UntilTheEnd);
        }
        assert_eq!(of("GET", old, 200, Some("0")), Extent::Nothing);
        assert_eq!(of("GET", old, 200, Some("5")), Extent::Bytes(5));
        assert_eq!(of("GET", new, 200, Some("5")), Extent::UntilTheEnd);
    }

    #[test]
    fn what_is_between_two_neighbours_goes_no_further() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("te", "trailers"),
            ("keep-alive", "timeout=5"),
            ("x-public", "2"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-public"]);
    }
}
