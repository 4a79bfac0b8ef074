//! Requests to services: components that answer under a route of their own.
//!
//! The host keeps what is between two neighbours to itself, counts and limits as everywhere, and says who answered;
//! everything else is the component's business, methods and errors included.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use aegis_domain::{Problem, ProblemCode};
use aegis_ipc::board::{Cell, Counter};
use aegis_wasm::{ServiceBody, Visit};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, header, request::Parts};
use http_body::{Body, Frame, SizeHint};

use crate::{
    connection::{Answering, Link},
    host::Host,
    overload::Admitted,
    request::{RequestBody, X_REQUEST_ID, too_large},
    response::{Envelope, Outgoing},
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
        () = link.answer_now() => Err(Problem::new(ProblemCode::Unavailable, LEAVES)),
    };
    if was_too_large.load(Ordering::Relaxed) {
        return Err(too_large(&format!("more than {}", limits.body_bytes_max), limits.body_bytes_max));
    }
    let (mut head, body) = answered?.into_parts();
    remove_hop_by_hop(&mut head.headers);
    let answer =
        ServiceAnswer { body, host: Arc::clone(host), _admitted: admitted, _answering: link.answering() };
    Ok(envelope.sign(Response::from_parts(head, Outgoing::Service(Box::new(answer)))))
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

/// The body of a service's answer, and what it holds until it is out.
pub(crate) struct ServiceAnswer {
    body: ServiceBody,
    host: Arc<Host>,
    _admitted: Admitted,
    /// The connection is not idle before the body is out.
    _answering: Answering,
}

/// An answer that ended too early: the connection ends with it, so that nobody takes it for whole.
#[derive(Debug, thiserror::Error)]
#[error("the answer of a service ended too early")]
pub(crate) struct BrokenOff;

impl ServiceAnswer {
    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        Pin::new(&mut self.body).poll_frame(context).map(|next| {
            next.map(|frame| match frame {
                Ok(frame) => {
                    let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                    count(self.host.cell, Counter::BytesOut, bytes);
                    Ok(frame)
                }
                Err(error) => {
                    self.host.engine.note_broken_off(&error);
                    Err(BrokenOff)
                }
            })
        })
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
