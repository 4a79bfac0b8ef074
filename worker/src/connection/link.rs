//! What is known about one open connection, and how it is told to end.
//!
//! Written by the connection's own task, read by the sweep of its runtime. Everything is relaxed: the sweep acts on
//! seconds, and the connection checks an order against what it knows at that instant.

use std::{
    future::poll_fn,
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Poll, Waker},
};

use aegis_ipc::{board::monotonic_ms, handoff::Audience, tally::Client};
use http::request::Parts;
use tokio::sync::Notify;

use super::untaken::{Awaited, Untaken};
use crate::{acceptor::Seat, access};

/// First bytes of an HTTP/2 connection (RFC 9113 section 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A clock that is read without a system call and runs in steps of the heartbeat, milliseconds since boot.
#[derive(Debug)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(monotonic_ms().max(1)))
    }

    /// Never 0.
    pub(crate) fn now_ms(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Moves the clock to the present and returns it.
    pub(crate) fn advance(&self) -> u64 {
        let now_ms = monotonic_ms().max(1);
        self.0.store(now_ms, Relaxed);
        now_ms
    }
}

/// What is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Protocol {
    /// Nothing has been said yet.
    Unknown,
    /// HTTP/1.1 or 1.0.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// What a connection may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Order {
    /// HTTP/2: take no new streams, finish those there are.
    GoAway = 1,
    /// HTTP/1: end if there is nothing to read at that instant, else after the next response.
    CloseIdle = 2,
    /// HTTP/1: the next response is the last one.
    LastResponse = 4,
    /// HTTP/1: the request head took too long; say so and end.
    HeadTimeout = 8,
    /// End event streams, with advice when to come again.
    EndStreams = 16,
    /// End at once.
    Abort = 32,
    /// Answer what is still being worked on, whatever there is to say.
    AnswerNow = 64,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activity {
    /// Nothing: between two requests, or before the first.
    Idle,
    /// A part of a request head has arrived.
    Receiving {
        /// When its first byte did.
        since_ms: u64,
    },
    /// A request is being answered, or the answer is not yet written.
    Answering,
    /// The last answer is written; what the client still sends is thrown away so that it reads the answer.
    Lingering {
        /// Since when.
        since_ms: u64,
    },
}

/// A connection at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) id: u64,
    pub(crate) protocol: Protocol,
    pub(crate) activity: Activity,
    /// Open event streams.
    pub(crate) streams: u32,
    /// The client does not read what was written.
    pub(crate) stalled: bool,
    /// Last byte in either direction.
    pub(crate) active_ms: u64,
    /// Since when the client takes nothing of what waits for it over HTTP/2.
    pub(crate) untaken_since_ms: Option<u64>,
    orders: u8,
}

impl View {
    pub(crate) fn was_told(&self, order: Order) -> bool {
        self.orders & order as u8 != 0
    }

    /// A view for decisions that are tried out.
    #[cfg(test)]
    pub(crate) fn sample(id: u64, protocol: Protocol, activity: Activity) -> Self {
        let (stalled, untaken_since_ms) = (false, None);
        Self { id, protocol, activity, streams: 0, stalled, active_ms: 0, untaken_since_ms, orders: 0 }
    }

    /// The same with open event streams.
    #[cfg(test)]
    pub(crate) fn with_streams(self, streams: u32) -> Self {
        Self { streams, ..self }
    }

    #[cfg(test)]
    pub(crate) fn tell(&mut self, order: Order) {
        self.orders |= order as u8;
    }
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct Link {
    id: u64,
    clock: Arc<Clock>,
    seat: Seat,
    origin: Option<Client>,
    reached_at: Option<IpAddr>,
    protocol: AtomicU8,
    /// Bytes of the preface of HTTP/2 that have arrived while nothing else has.
    preface_bytes: AtomicU8,
    orders: AtomicU8,
    answering: AtomicU32,
    streams: AtomicU32,
    /// When the first byte of an unfinished request head arrived; 0 for none.
    head_since_ms: AtomicU64,
    lingering_since_ms: AtomicU64,
    active_ms: AtomicU64,
    stalled: AtomicBool,
    unread_body: AtomicBool,
    untaken: Untaken,
    waker: OnceLock<Waker>,
    told: Notify,
}

impl Link {
    pub(super) fn new(
        id: u64,
        clock: Arc<Clock>,
        seat: Seat,
        origin: Option<Client>,
        reached_at: Option<IpAddr>,
    ) -> Self {
        let active_ms = AtomicU64::new(clock.now_ms());
        Self {
            id,
            clock,
            seat,
            origin,
            reached_at,
            protocol: AtomicU8::new(Protocol::Unknown as u8),
            preface_bytes: AtomicU8::new(0),
            orders: AtomicU8::new(0),
            answering: AtomicU32::new(0),
            streams: AtomicU32::new(0),
            head_since_ms: AtomicU64::new(0),
            lingering_since_ms: AtomicU64::new(0),
            active_ms,
            stalled: AtomicBool::new(false),
            unread_body: AtomicBool::new(false),
            untaken: Untaken::default(),
            waker: OnceLock::new(),
            told: Notify::new(),
        }
    }

    /// Unique within its runtime.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn audience(&self) -> Audience {
        self.seat.audience()
    }

    /// Whether the listener alone lets a request in where operators are.
    pub(crate) fn lets_operators_in(&self, parts: &Parts) -> bool {
        self.audience() == Audience::Admin && self.sign_of_page(parts).is_none()
    }

    /// What shows that a web page may be behind a request, where operators are reached in a way that browsers know, too.
    pub(crate) fn sign_of_page(&self, parts: &Parts) -> Option<String> {
        self.reached_at.and_then(|address| access::sign_of_page(parts, address))
    }

    /// Whom requests count for that name nobody; nothing where they are not counted.
    pub(crate) fn origin(&self) -> Option<Client> {
        self.origin
    }

    pub(crate) fn protocol(&self) -> Protocol {
        match self.protocol.load(Relaxed) {
            known if known == Protocol::Http1 as u8 => Protocol::Http1,
            known if known == Protocol::Http2 as u8 => Protocol::Http2,
            _ => Protocol::Unknown,
        }
    }

    /// Gives an order; the connection's task looks at it at once.
    pub(crate) fn order(&self, order: Order) {
        let before = self.orders.fetch_or(order as u8, Relaxed);
        if before & order as u8 != 0 {
            return;
        }
        if matches!(order, Order::EndStreams | Order::AnswerNow) {
            self.told.notify_waiters();
        }
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn was_told(&self, order: Order) -> bool {
        self.orders.load(Relaxed) & order as u8 != 0
    }

    /// Waits for [`Order::EndStreams`].
    pub(crate) async fn streams_end(&self) {
        self.told(Order::EndStreams).await;
    }

    /// Waits for [`Order::AnswerNow`], in the future that answers a request.
    pub(crate) async fn answer_now(&self) {
        if self.protocol() == Protocol::Http2 {
            return self.told(Order::AnswerNow).await;
        }
        // Over HTTP/1 that future is polled by the connection's own task, which an order wakes.
        poll_fn(|_| if self.was_told(Order::AnswerNow) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    async fn told(&self, order: Order) {
        loop {
            let told = self.told.notified();
            tokio::pin!(told);
            told.as_mut().enable(); // before looking, so that no order is missed
            if self.was_told(order) {
                return;
            }
            told.await;
        }
    }

    /// The waker of the task that runs the connection. A task has one waker for all its life.
    pub(super) fn attach(&self, waker: &Waker) {
        if self.waker.get().is_none() {
            let _ = self.waker.set(waker.clone());
        }
    }

    /// Bytes came in.
    pub(super) fn received(&self, bytes: &[u8]) {
        let now_ms = self.clock.now_ms();
        self.active_ms.store(now_ms, Relaxed);
        let mut protocol = self.protocol();
        if protocol == Protocol::Unknown {
            protocol = self.listen_for_preface(bytes);
            self.protocol.store(protocol as u8, Relaxed);
        }
        if protocol != Protocol::Http2
            && self.answering.load(Relaxed) == 0
            && self.head_since_ms.load(Relaxed) == 0
        {
            self.head_since_ms.store(now_ms, Relaxed);
        }
        if self.was_told(Order::CloseIdle) {
            // The request was on the wire: it gets its answer, and that is the last one.
            self.orders.fetch_and(!(Order::CloseIdle as u8), Relaxed);
            self.orders.fetch_or(Order::LastResponse as u8, Relaxed);
        }
    }

    /// What is spoken by whoever has begun like this. A part of the preface leaves it open, wherever reads cut it.
    fn listen_for_preface(&self, bytes: &[u8]) -> Protocol {
        let seen = self.preface_bytes.load(Relaxed);
        let missing = &HTTP2_PREFACE[usize::from(seen)..];
        let length = bytes.len().min(missing.len());
        if bytes[..length] != missing[..length] {
            return Protocol::Http1;
        }
        if length < missing.len() {
            self.preface_bytes.store(seen + length as u8, Relaxed);
            return Protocol::Unknown;
        }
        // What looked like the beginning of a request head was none.
        self.head_since_ms.store(0, Relaxed);
        Protocol::Http2
    }

    /// Bytes went out.
    pub(super) fn sent(&self) {
        self.active_ms.store(self.clock.now_ms(), Relaxed);
        if self.stalled.load(Relaxed) {
            self.stalled.store(false, Relaxed);
        }
    }

    /// The socket takes no more bytes for now.
    pub(super) fn stall(&self) {
        self.stalled.store(true, Relaxed);
    }

    /// A request head is complete. `answering` counts those whose answer takes time.
    pub(crate) fn request_arrived(&self, version: http::Version) {
        self.head_since_ms.store(0, Relaxed);
        if self.protocol() == Protocol::Unknown {
            let protocol = if version == http::Version::HTTP_2 { Protocol::Http2 } else { Protocol::Http1 };
            self.protocol.store(protocol as u8, Relaxed);
        }
    }

    /// Counts a request whose answer takes time, until the guard is dropped.
    pub(crate) fn answering(self: &Arc<Self>) -> Answering {
        self.answering.fetch_add(1, Relaxed);
        Answering(Arc::clone(self))
    }

    /// Counts an event stream, until the guard is dropped.
    pub(crate) fn streaming(self: &Arc<Self>) -> Streaming {
        self.streams.fetch_add(1, Relaxed);
        Streaming(Arc::clone(self))
    }

    /// Counts a piece of an answer over HTTP/2 that waits for the client, until the guard is dropped.
    pub(crate) fn awaited(self: &Arc<Self>) -> Awaited {
        Awaited::new(self)
    }

    pub(super) fn untaken(&self) -> &Untaken {
        &self.untaken
    }

    /// The client took something of an answer over HTTP/2.
    pub(crate) fn progressed(&self) {
        self.untaken.progressed(self.clock.now_ms());
    }

    /// The request body was left unread: when the connection ends, the client may still be sending.
    pub(crate) fn leave_body_unread(&self) {
        self.unread_body.store(true, Relaxed);
    }

    /// Whether to keep reading after the last answer. The first call starts the time.
    pub(super) fn lingers(&self) -> bool {
        let lingers = self.unread_body.load(Relaxed);
        if lingers && self.lingering_since_ms.load(Relaxed) == 0 {
            self.lingering_since_ms.store(self.clock.now_ms(), Relaxed);
        }
        lingers
    }

    /// Whether something of a request head has arrived, and not yet all of it.
    pub(super) fn has_begun_a_head(&self) -> bool {
        self.head_since_ms.load(Relaxed) != 0
    }

    /// Whether a request head is being received over HTTP/1.
    pub(super) fn receives_head(&self) -> bool {
        self.has_begun_a_head() && self.protocol() == Protocol::Http1
    }

    /// Whether an end of input is to be made up now that nothing can be read.
    pub(super) fn ends_input(&self) -> Option<Order> {
        let orders = self.orders.load(Relaxed);
        if orders & (Order::CloseIdle as u8 | Order::HeadTimeout as u8) == 0 {
            return None;
        }
        match self.activity() {
            Activity::Idle if orders & Order::CloseIdle as u8 != 0 => Some(Order::CloseIdle),
            Activity::Receiving { .. } if orders & Order::HeadTimeout as u8 != 0 => Some(Order::HeadTimeout),
            Activity::Idle
            | Activity::Receiving { .. }
            | Activity::Answering
            | Activity::Lingering { .. } => None,
        }
    }

    fn activity(&self) -> Activity {
        let lingering_since_ms = self.lingering_since_ms.load(Relaxed);
        let head_since_ms = self.head_since_ms.load(Relaxed);
        if lingering_since_ms != 0 {
            Activity::Lingering { since_ms: lingering_since_ms }
        } else if self.answering.load(Relaxed) + self.streams.load(Relaxed) > 0 || self.stalled.load(Relaxed)
        {
            Activity::Answering
        } else if head_since_ms != 0 {
            Activity::Receiving { since_ms: head_since_ms }
        } else {
            Activity::Idle
        }
    }

    /// The connection now.
    pub(crate) fn view(&self) -> View {
        View {
            id: self.id,
            protocol: self.protocol(),
            activity: self.activity(),
            streams: self.streams.load(Relaxed),
            stalled: self.stalled.load(Relaxed),
            active_ms: self.active_ms.load(Relaxed),
            untaken_since_ms: self.untaken.since_ms(),
            orders: self.orders.load(Relaxed),
        }
    }
}

/// See [`Link::answering`].
#[derive(Debug)]
pub(crate) struct Answering(Arc<Link>);

impl Answering {
    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.0
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Relaxed);
    }
}

/// See [`Link::streaming`].
#[derive(Debug)]
pub(crate) struct Streaming(Arc<Link>);

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{connection::Ledger, tests::house::House};

    #[tokio::test]
    async fn the_preface_of_http2_is_known_however_it_is_cut() {
        let house = House::new().await;
        let ledger = Ledger::new(Arc::new(Clock::new()));
        let link = || ledger.link_of_nobody(&house.host.seats);
        let frame = [0; 9];
        for cut in 1..HTTP2_PREFACE.len() {
            let (first, rest) = HTTP2_PREFACE.split_at(cut);
            let link = link();
            link.received(first);
            assert_eq!(link.protocol(), Protocol::Unknown, "{cut}");
            assert!(matches!(link.activity(), Activity::Receiving { .. }), "{cut}");
            link.received(&[rest, &frame].concat());
            assert_eq!((link.protocol(), link.activity()), (Protocol::Http2, Activity::Idle), "{cut}");
            link.received(&frame);
            assert_eq!(link.activity(), Activity::Idle, "a frame is no request head");
        }
        let link = link();
        HTTP2_PREFACE.iter().for_each(|byte| link.received(&[*byte]));
        assert_eq!((link.protocol(), link.activity()), (Protocol::Http2, Activity::Idle));
    }

    #[tokio::test]
    async fn what_only_begins_like_the_preface_is_http1() {
        let house = House::new().await;
        let link = Ledger::new(Arc::new(Clock::new())).link_of_nobody(&house.host.seats);
        link.received(b"PRI * HT");
        link.received(b"TP/1.1\r\n");
        assert_eq!(link.protocol(), Protocol::Http1);
        assert!(matches!(link.activity(), Activity::Receiving { .. }));
    }
}
