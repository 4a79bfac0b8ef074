//! Follows the log for one client.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aegis_ipc::data::{Change, ChangeKind};
use bytes::Bytes;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    Batch, Place, Told,
    filter::Filter,
    gap, gap_of_memory, place,
    queue::{Sender, Slow},
    tell,
};
use crate::{
    connection::{Link, Order, Protocol},
    data::Data,
};

/// How often a silent stream shows that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Most changes asked for at once when the log is read. It begins with one and finds out how large they are, because a
/// slow client holds its page for long.
const PAGE_CHANGES_MAX: u32 = 128;
/// Bytes of a page after which the next one is asked for with half as many changes.
const PAGE_BYTES: usize = 512 * 1024;
/// Time the store has to answer.
const PAGE_TIME: Duration = Duration::from_secs(10);
/// Time a client has to make room for the next event.
const PATIENCE: Duration = Duration::from_secs(10);
/// After how long a client comes back, milliseconds, and over how much longer that is spread.
const RETRY_MS: u64 = 500;
const RETRY_SPREAD_MS: u64 = 2_000;

/// Why a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The worker leaves.
    Drained,
    /// The client does not read.
    Slow,
    /// The log cannot be read now.
    StoreUnavailable,
    /// The hub is gone.
    Closed,
    /// The token of the client is no longer valid.
    Expired,
}

/// How much of a batch was passed on.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    All,
    /// There was no room for the rest, which is in the log.
    Partly,
}

/// One client's way through the log.
pub(super) struct Follower {
    data: Data,
    link: Arc<Link>,
    hub: broadcast::WeakSender<Arc<Batch>>,
    /// None while the client is waited for: what is told meanwhile is in the log, and is not kept for it.
    batches: Option<broadcast::Receiver<Arc<Batch>>>,
    filter: Filter,
    /// Documents that are only in memory may pass the filter.
    hears_memory: bool,
    /// The client was told that changes of theirs before this one may be missing.
    memory_told: u64,
    /// Everything up to here was sent or did not pass the filter.
    position: u64,
    /// Changes asked for at once when the log is read.
    page_changes: u32,
    /// When the client is no longer who it said.
    until: Option<Instant>,
    queue: Sender,
    heartbeat: Interval,
}

/// What the hub tells next.
async fn next(batches: &mut Option<broadcast::Receiver<Arc<Batch>>>) -> Result<Arc<Batch>, RecvError> {
    match batches {
        Some(batches) => batches.recv().await,
        None => Err(RecvError::Lagged(0)),
    }
}

/// Waits until `moment`; for ever without one.
async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

impl Follower {
    pub(super) fn new(
        data: Data,
        link: Arc<Link>,
        (hub, batches): (broadcast::WeakSender<Arc<Batch>>, broadcast::Receiver<Arc<Batch>>),
        (filter, hears_memory): (Filter, bool),
        (position, until): (u64, Option<Instant>),
        queue: Sender,
    ) -> Self {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        let batches = Some(batches);
        Self {
            data,
            link,
            hub,
            batches,
            filter,
            hears_memory,
            memory_told: 0,
            position,
            page_changes: 1,
            until,
            queue,
            heartbeat,
        }
    }

    /// Follows until the stream ends; `resumes` tells whether the log has something for the client already.
    pub(super) async fn run(mut self, resumes: bool, place: Place) {
        let ending = match self.follow(resumes).await {
            Ok(never) => match never {},
            Err(ending) => ending,
        };
        tracing::debug!(target: "aegis::events", position = self.position, "event stream ends: {ending:?}");
        let is_http2 = self.link.protocol() == Protocol::Http2;
        match ending {
            // What waits in the queue would never be read. Other streams of an HTTP/2 connection are not to blame.
            Ending::Slow if !is_http2 => self.link.order(Order::Abort),
            Ending::Slow | Ending::Expired if is_http2 => self.queue.clear(),
            Ending::Slow | Ending::Closed | Ending::Expired => {}
            Ending::Drained | Ending::StoreUnavailable => {
                let _ = self.queue.push(farewell(self.position, self.link.id()));
            }
        }
        if is_http2 {
            place.leave(&self.link, self.queue.untaken_bytes());
        }
    }

    async fn follow(&mut self, resumes: bool) -> Result<std::convert::Infallible, Ending> {
        // First of all, so that a client whose stream ends before there was an event misses none.
        self.push(place(self.position))?;
        if resumes {
            self.catch_up().await?;
        }
        let link = Arc::clone(&self.link);
        let mut end = std::pin::pin!(link.streams_end());
        let until = self.until;
        loop {
            tokio::select! {
                () = &mut end => return Err(Ending::Drained),
                () = reached(until) => return Err(Ending::Expired),
                batch = next(&mut self.batches) => match batch {
                    Ok(batch) => {
                        let heard = self.hear(&batch);
                        drop(batch); // it is not kept for a client that is waited for
                        if heard == Heard::Partly {
                            self.catch_up().await?;
                        }
                    }
                    Err(RecvError::Lagged(_)) => self.catch_up().await?,
                    Err(RecvError::Closed) => return Err(Ending::Closed),
                },
                _ = self.heartbeat.tick() => self.push(place(self.position))?,
            }
        }
    }

    /// Passes on what is new, as far as there is room: the client cannot make any meanwhile.
    fn hear(&mut self, batch: &Batch) -> Heard {
        let Batch::Told(changes) = batch else { return Heard::Partly };
        for told in changes {
            if told.sequence > self.position {
                if self.filter.admits(&told.subject) && self.push(told.frame.clone()).is_err() {
                    return Heard::Partly;
                }
                self.position = told.sequence;
            }
        }
        Heard::All
    }

    /// Reads the log from the position on, at the pace of the client.
    async fn catch_up(&mut self) -> Result<(), Ending> {
        loop {
            if self.link.was_told(Order::EndStreams) {
                return Err(Ending::Drained);
            }
            if self.until.is_some_and(|until| Instant::now() >= until) {
                return Err(Ending::Expired);
            }
            // Listening comes before looking: what the page does not have yet is heard.
            self.batches = Some(self.hub.upgrade().ok_or(Ending::Closed)?.subscribe());
            let deadline = Instant::now() + PAGE_TIME;
            let page = self
                .data
                .changes(self.position, self.page_changes, deadline)
                .await
                .map_err(|_| Ending::StoreUnavailable)?;
            self.page_changes = next_page_changes(self.page_changes, &page.changes);
            let next = self.position.saturating_add(1);
            if next < page.oldest {
                self.push_waiting(gap(next, page.oldest - 1)).await?;
                self.position = page.oldest - 1;
            } else if self.position > page.durable {
                // A position of another log: nothing is known about what the client has seen.
                self.push_waiting(gap(0, page.durable)).await?;
                self.position = page.durable;
            }
            let next = self.position + 1;
            if self.hears_memory && page.memory_oldest > next.max(self.memory_told) {
                self.push_waiting(gap_of_memory(next, page.memory_oldest - 1)).await?;
                self.memory_told = page.memory_oldest;
            }
            // A page ends early when its changes are large: only one that reaches what is durable is the last.
            let complete = page.changes.last().is_none_or(|last| last.sequence >= page.durable);
            for change in page.changes {
                if change.sequence > self.position {
                    let Told { sequence, subject, frame } = tell(&change);
                    drop(change);
                    if self.filter.admits(&subject) {
                        self.push_waiting(frame).await?;
                    }
                    self.position = sequence;
                }
            }
            if complete {
                self.position = self.position.max(page.durable);
                if self.batches.is_some() {
                    return Ok(());
                }
            }
        }
    }

    fn push(&mut self, frame: Bytes) -> Result<(), Ending> {
        self.heartbeat.reset();
        self.queue.push(frame).map_err(|Slow| Ending::Slow)
    }

    /// Pushes as soon as there is room, unless the stream has to end before.
    async fn push_waiting(&mut self, frame: Bytes) -> Result<(), Ending> {
        self.heartbeat.reset();
        if self.queue.push(frame.clone()).is_ok() {
            return Ok(());
        }
        self.batches = None;
        tokio::select! {
            biased;
            () = self.link.streams_end() => Err(Ending::Drained),
            () = reached(self.until) => Err(Ending::Expired),
            pushed = self.queue.push_within(frame, PATIENCE) => pushed.map_err(|Slow| Ending::Slow),
        }
    }
}

/// How many changes to ask for after a page that was asked for with `asked`.
fn next_page_changes(asked: u32, page: &[Change]) -> u32 {
    let bytes: usize = page.iter().map(bytes_of).sum();
    if bytes > PAGE_BYTES { (asked / 2).max(1) } else { (asked * 2).min(PAGE_CHANGES_MAX) }
}

fn bytes_of(change: &Change) -> usize {
    match &change.kind {
        ChangeKind::Put { body, changes, .. } => body.len() + changes.as_ref().map_or(0, Bytes::len),
        ChangeKind::Remove { .. } | ChangeKind::Truncate => 0,
    }
}

/// Where to go on, and advice when to come back, spread so that not all clients do so at once.
fn farewell(position: u64, id: u64) -> Bytes {
    let spread = (id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % RETRY_SPREAD_MS;
    Bytes::from(format!("id: {position}\nretry: {}\n\n", RETRY_MS + spread))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aegis_ipc::board::Board;

    use super::*;
    use crate::{
        acceptor::{Doorbell, Seats},
        connection::{Clock, Ledger},
        data::tests::{catalog, config},
        events::{
            Subject,
            queue::{self, Receiver},
        },
    };

    /// A follower at position 7 of what the hub tells.
    fn follower(until: Option<Instant>) -> (Follower, Receiver, broadcast::Sender<Arc<Batch>>) {
        let (board, _descriptor) = Board::create().unwrap();
        let data = Data::new(&config(), &catalog(&[]), board, 0, 1, 1);
        let seats = Seats::new(board.cell(0), 1, Arc::new(Doorbell::new().unwrap()));
        let link = Ledger::new(Arc::new(Clock::new())).link_of_nobody(&seats);
        let (queue, receiver) = queue::queue();
        let hub = broadcast::Sender::new(1);
        let heard = (hub.downgrade(), hub.subscribe());
        (Follower::new(data, link, heard, (Filter::default(), false), (7, until), queue), receiver, hub)
    }

    /// A follower whose client has no room left.
    fn stuck(until: Option<Instant>) -> (Follower, Receiver) {
        let (follower, receiver, _) = follower(until);
        while follower.queue.push(Bytes::from_static(b"x")).is_ok() {}
        (follower, receiver)
    }

    #[tokio::test]
    async fn a_client_knows_where_to_go_on_whatever_it_was_told_so_far() {
        let (mut follower, mut receiver, hub) = follower(None);
        follower.heartbeat = interval(Duration::from_millis(1));
        let following = async { follower.follow(false).await.map(|_| ()) };
        let reading = async {
            let mut frame = async || std::future::poll_fn(|cx| receiver.poll_next(cx)).await.unwrap();
            assert_eq!((frame().await, frame().await), (place(7), place(7)));
            let subject = Subject::Model { model: aegis_ipc::data::POSITIONS.to_owned() };
            let hidden = Told { sequence: 9, subject, frame: Bytes::from_static(b"never told") };
            assert!(hub.send(Arc::new(Batch::Told(vec![hidden]))).is_ok());
            let mut next = frame().await;
            while next == place(7) {
                next = frame().await;
            }
            assert_eq!(next, place(9), "what is not for it is behind it all the same");
        };
        tokio::select! {
            ending = following => panic!("{ending:?}"),
            () = reading => {}
        }
        assert!(farewell(9, 1).starts_with(b"id: 9\nretry: "));
    }

    #[tokio::test]
    async fn a_client_that_is_waited_for_does_not_outstay_its_worker_or_its_token() {
        let (mut follower, _receiver) = stuck(None);
        let link = Arc::clone(&follower.link);
        let frame = Bytes::from_static(b"x");
        let leave = async { link.order(Order::EndStreams) };
        let (pushed, ()) = tokio::join!(follower.push_waiting(frame.clone()), leave);
        assert_eq!(pushed, Err(Ending::Drained));

        let (mut follower, _receiver) = stuck(Some(Instant::now() + Duration::from_millis(5)));
        assert_eq!(follower.push_waiting(frame).await, Err(Ending::Expired));
    }

    #[test]
    fn pages_are_as_many_changes_as_are_not_too_large() {
        let page = |bytes: usize| {
            let body = Bytes::from(vec![b'x'; bytes]);
            let kind = ChangeKind::Put { id: "a".into(), revision: 1, body, changes: None };
            [Change { sequence: 1, model: "TODO".into(), kind, time_ms: 0 }]
        };
        let after = |asked, bytes| next_page_changes(asked, &page(bytes));
        assert_eq!((after(1, 10), after(100, 10)), (2, PAGE_CHANGES_MAX));
        assert_eq!((after(8, PAGE_BYTES + 1), after(1, PAGE_BYTES + 1)), (4, 1));
    }
}
