//! `GET {api_root}/events`: committed changes as server-sent events.
//!
//! ```text
//!   data's feed ──▶ Hub: each change is written once ──▶ follower of each client ──▶ bounded queue ──▶ body
//!                                                              ▲
//!   the store's log, for a client that resumes or fell behind ─┘
//! ```
//!
//! A follower knows the last position it has handled. What the hub says is taken only if it is newer, and whenever
//! the hub had to leave something out, the log is read from that position on. So every event comes once, in commit
//! order, over reconnects and across workers. A client that does not read what is queued for it is waited for, and cut
//! off in the end; it comes back with `Last-Event-ID` and misses nothing. It knows one before there was an event: a
//! stream begins with its position, says it again while it is silent, and ends with it.

mod filter;
mod follower;
mod queue;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Instant,
};

use aegis_domain::{
    Problem, ProblemCode,
    event::{Event, EventKind},
};
use aegis_ipc::{
    board::Counter,
    data::{Change, ChangeKind, POSITIONS},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Response, request::Parts};
use parking_lot::Mutex;
use tokio::{sync::broadcast, task::AbortHandle};

use crate::{
    access::Caller,
    connection::{Awaited, Link, Streaming},
    data::{Applied, Data},
    host::Host,
    overload::{AdmittedStream, Held},
    request,
    response::{Envelope, Outgoing},
};
use filter::Filter;
use follower::Follower;

/// Where a client resumes (WHATWG HTML section 9.2).
static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Groups of changes kept for followers that are a little late.
const HUB_BATCHES: usize = 1024;

/// Passes committed changes on to all followers of the process.
#[derive(Debug)]
pub(crate) struct Hub {
    batches: broadcast::Sender<Arc<Batch>>,
}

/// What followers are told.
#[derive(Debug)]
enum Batch {
    /// Changes, in commit order.
    Told(Vec<Told>),
    /// Some were left out: read the log.
    Skipped,
}

/// One change as it is sent.
#[derive(Debug)]
struct Told {
    sequence: u64,
    subject: Subject,
    frame: Bytes,
}

/// What filters look at.
#[derive(Debug, PartialEq, Eq)]
enum Subject {
    /// A document.
    Document { model: String, id: String, kind: &'static str },
    /// All documents of a model are gone.
    Model { model: String },
}

impl Subject {
    /// What workers keep in the store for themselves.
    fn is_hidden(&self) -> bool {
        let (Self::Document { model, .. } | Self::Model { model }) = self;
        model == POSITIONS
    }
}

/// The body of an event stream.
pub(crate) struct EventBody {
    queue: queue::Receiver,
    follower: AbortHandle,
    link: Arc<Link>,
    _standing: Arc<Mutex<Standing>>,
}

/// What a stream is to its connection as long as its body is there.
enum Standing {
    /// It goes on.
    Open { _streaming: Streaming },
    /// It has ended, and what is left of it waits until the client takes it.
    Left { _awaited: Awaited, _held: Held },
}

/// A stream's place in its worker, which is free when its follower has ended.
struct Place {
    admitted: AdmittedStream,
    standing: Arc<Mutex<Standing>>,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self { batches: broadcast::Sender::new(HUB_BATCHES) }
    }

    /// Passes on what `data` applies, for ever.
    pub(crate) async fn run(&self, data: &Data) {
        let mut subscription = data.subscribe();
        loop {
            let batch = match subscription.next().await {
                // Without listeners nothing is written.
                Applied::Changes(_) if self.batches.receiver_count() == 0 => continue,
                Applied::Changes(changes) => Batch::Told(changes.iter().map(tell).collect()),
                Applied::Skipped => Batch::Skipped,
            };
            let _ = self.batches.send(Arc::new(batch)); // nobody listening is fine
        }
    }

    /// Clients that listen: not those that are waited for.
    #[cfg(test)]
    pub(crate) fn followers(&self) -> usize {
        self.batches.receiver_count()
    }

    /// Groups of changes that are kept because a follower has yet to hear them.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.batches.len()
    }
}

impl EventBody {
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let next = self.queue.poll_next(cx);
        if next.is_ready() {
            self.link.progressed(); // there is room for another one
        }
        next
    }
}

impl Place {
    /// Over HTTP/2 nothing else tells that a client leaves `bytes` untaken: its socket is free, and other streams
    /// of its connection are not to blame.
    fn leave(&self, link: &Arc<Link>, bytes: u64) {
        let held = self.admitted.leave_behind(bytes);
        *self.standing.lock() = Standing::Left { _awaited: link.awaited(), _held: held };
    }
}

impl Drop for EventBody {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

/// Opens a stream.
pub(crate) async fn open(
    host: &Arc<Host>,
    link: &Arc<Link>,
    parts: &Parts,
    caller: &Caller,
    envelope: &Envelope<'_>,
) -> Result<Response<Outgoing>, Problem> {
    request::accepts(&parts.headers, "text", "event-stream")?;
    let filter = Filter::parse(parts.uri.query().unwrap_or_default(), &host.catalog)?;
    let filter = filter.for_caller(caller, &host.catalog)?;
    let until = host.gate.as_ref().and_then(|gate| gate.time_left(caller)).map(|left| Instant::now() + left);
    let resume = last_event_id(&parts.headers)?;
    let admitted = host.load.admit_stream()?;
    host.load.room(link.protocol())?;
    // Listening comes before looking: what is applied after `applied` was read is heard.
    let batches = host.events.batches.subscribe();
    let position = resume.unwrap_or_else(|| host.sequence());
    let (sender, receiver) = queue::queue();
    let hears_memory = filter.admits_some_of(host.models_in_memory());
    let follower = Follower::new(
        host.engine.data().clone(),
        Arc::clone(link),
        (host.events.batches.downgrade(), batches),
        (filter, hears_memory),
        (position, until),
        sender,
    );
    let standing = Arc::new(Mutex::new(Standing::Open { _streaming: link.streaming() }));
    let place = Place { admitted, standing: Arc::clone(&standing) };
    let follower = tokio::spawn(follower.run(resume.is_some(), place)).abort_handle();
    host.cell.counter(Counter::Streams).fetch_add(1, Ordering::Relaxed);
    let body = EventBody { queue: receiver, follower, link: Arc::clone(link), _standing: standing };
    Ok(envelope.stream("text/event-stream", Outgoing::Events(body), position))
}

/// The position after which a client wants events.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(&LAST_EVENT_ID) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        let quoted: String = text.chars().take(100).collect();
        let detail = format!("Last-Event-ID: found {quoted:?}, expected the id of an event, a number");
        Problem::new(ProblemCode::BadHeader, detail)
    })
}

/// Writes a change as it is sent.
fn tell(change: &Change) -> Told {
    let model = change.model.as_str();
    let (kind, id, revision, body, changes) = match &change.kind {
        ChangeKind::Put { id, revision, body, changes } => {
            (EventKind::of_put(*revision), id, *revision, Some(&body[..]), changes.as_deref())
        }
        ChangeKind::Remove { id, revision } => (EventKind::Delete, id, *revision, None, None),
        ChangeKind::Truncate => {
            let data = format!("{{\"modelName\":\"{model}\",\"seq\":{}}}", change.sequence);
            let frame = frame(Some(change.sequence), "gap", data.as_bytes());
            let subject = Subject::Model { model: model.to_owned() };
            return Told { sequence: change.sequence, subject, frame };
        }
    };
    let (sequence, time_ms) = (change.sequence, change.time_ms);
    let event = Event { sequence, model, kind, id, revision, time_ms, body, changes };
    let frame = frame(Some(sequence), &event.name(), &event.to_json());
    let subject = Subject::Document { model: model.to_owned(), id: id.clone(), kind: kind.as_str() };
    Told { sequence, subject, frame }
}

/// An event that says that those from `from` to `to` are no longer known.
fn gap(from: u64, to: u64) -> Bytes {
    frame(Some(to), "gap", format!("{{\"from\":{from},\"to\":{to}}}").as_bytes())
}

/// The same where only those of models in memory are unknown: the others between the two are told after it.
fn gap_of_memory(from: u64, to: u64) -> Bytes {
    frame(Some(from - 1), "gap", format!("{{\"from\":{from},\"to\":{to}}}").as_bytes())
}

/// A place in the log to go on from, which dispatches no event (WHATWG HTML section 9.2.6).
fn place(position: u64) -> Bytes {
    Bytes::from(format!("id: {position}\n\n"))
}

/// One event of the stream. A line break within JSON is only ever white space between values.
fn frame(id: Option<u64>, event: &str, data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + event.len() + 48);
    if let Some(id) = id {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(itoa::Buffer::new().format(id).as_bytes());
        out.extend_from_slice(b"\n");
    }
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(event.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    let start = out.len();
    out.extend_from_slice(data);
    for byte in &mut out[start..] {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    out.extend_from_slice(b"\n\n");
    out.freeze()
}
