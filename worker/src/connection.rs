//! One client connection: HTTP/1.1, or HTTP/2 for a client that begins with its preface.
//!
//! The task owns hyper's connection and nothing else does. Others speak to it through its [`Link`]: the sweep of
//! the runtime for time-outs and for the drain, the service for what it is doing. No timer runs per request or per
//! connection.

mod ledger;
mod link;
mod opening;
mod untaken;
mod watched;

use std::{
    future::{Future, poll_fn},
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use aegis_domain::query::CURSOR_BYTES_MAX;
use aegis_ipc::handoff::Audience;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::net::{TcpStream, UnixStream};

pub(crate) use ledger::{Ledger, Patience, milliseconds};
pub(crate) use link::{Activity, Answering, Clock, Link, Order, Protocol, Streaming, View};
pub(crate) use untaken::Awaited;
use watched::{Socket, Watched};

use crate::{
    acceptor::{Accepted, AcceptedStream},
    present::Present,
    service::Service,
};
use aegis_config::settings::Limits;

/// Room for a head beyond its bounds, for a cursor and so that the host can refuse it in its own words.
const HEAD_SLACK_BYTES: usize = CURSOR_BYTES_MAX + 8 * 1024;
/// Header fields that hyper keeps without allocating.
const HEADERS_ON_STACK: usize = 100;
/// Bytes that one HTTP/2 stream may have in its send buffer.
const HTTP2_SEND_BUFFER_BYTES: usize = 256 * 1024;

/// How connections are served; the same for all of a worker.
pub(crate) type Protocols = auto::Builder<TokioExecutor>;

/// Settings of hyper that follow from the limits.
pub(crate) fn protocols(limits: &Limits) -> Protocols {
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX / 4);
    let head_bytes = size(limits.header_bytes_max.saturating_add(limits.uri_bytes_max));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // No header time-out of hyper's: it would set a timer per request and end the connection without a word.
    // No pipelined flushing: a client that has sent one and a half requests would wait for its first answer.
    builder
        .http1()
        .half_close(false)
        .header_read_timeout(None)
        .max_buf_size(head_bytes.saturating_add(HEAD_SLACK_BYTES).max(64 * 1024));
    if limits.headers_max as usize >= HEADERS_ON_STACK {
        builder.http1().max_headers(limits.headers_max as usize + 1);
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams_max)
        .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES)
        .max_header_list_size(u32::try_from(head_bytes.saturating_add(HEAD_SLACK_BYTES)).unwrap_or(u32::MAX));
    builder
}

/// Serves one connection until it ends.
pub(crate) async fn serve(
    accepted: Accepted,
    present: Arc<Present>,
    ledger: Arc<Ledger>,
    protocols: Arc<Protocols>,
) {
    let Accepted { stream, seat } = accepted;
    let origin = present.premises().throttle.as_ref().and_then(|throttle| {
        let peer = match &stream {
            AcceptedStream::Tcp(stream) => stream.peer_addr().ok(),
            AcceptedStream::Unix(_) => None,
        };
        throttle.origin(seat.audience(), peer.map(|peer| peer.ip()))
    });
    let reached_at = reached_at(&stream, seat.audience());
    let socket = match stream {
        AcceptedStream::Tcp(stream) => {
            // An answer is written at once and whole: waiting for more to send only adds delay.
            let _ = stream.set_nodelay(true);
            TcpStream::from_std(stream).map(Socket::Tcp)
        }
        AcceptedStream::Unix(stream) => UnixStream::from_std(stream).map(Socket::Unix),
    };
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(target: "aegis::worker", "registering an accepted connection: {error}");
            return;
        }
    };
    let entry = ledger.open(seat, origin, reached_at);
    let link = Arc::clone(&entry.link);
    let service = Service::new(Arc::clone(&present), Arc::clone(&link));
    let io = TokioIo::new(Watched::new(socket, Arc::clone(&link), present));
    let mut connection = pin!(protocols.serve_connection(io, service));
    let mut went_away = false;
    let outcome = poll_fn(|cx| {
        link.attach(cx.waker());
        if link.was_told(Order::Abort) {
            return Poll::Ready(Ok(()));
        }
        // hyper's graceful end is for HTTP/2 only: over HTTP/1 it drops a request that is on the wire.
        if !went_away && link.was_told(Order::GoAway) && link.protocol() == Protocol::Http2 {
            went_away = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = outcome {
        tracing::debug!(target: "aegis::connection", "connection ended: {error}");
    }
}

/// Where an operator has reached the host, if over TCP.
fn reached_at(stream: &AcceptedStream, audience: Audience) -> Option<IpAddr> {
    match (stream, audience) {
        (AcceptedStream::Tcp(stream), Audience::Admin) => {
            // Without an address, those that are expected in any case have to do.
            Some(stream.local_addr().map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip()))
        }
        (AcceptedStream::Unix(_), _) | (_, Audience::Public) => None,
    }
}
