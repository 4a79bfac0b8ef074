//! Follows the log for one client.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    Batch,
    filter::Filter,
    gap,
    queue::{Sender, Slow},
    tell,
};
use crate::{
    connection::{Link, Order, Protocol},
    data::Data,
};

/// How often a silent stream shows that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Changes asked for at once when the log is read.
const PAGE_CHANGES: u32 = 256;
/// Time the store has to answer.
const PAGE_TIME: Duration = Duration::from_secs(10);
/// Time a client that resumes has to make room for the next event.
const RESUME_PATIENCE: Duration = Duration::from_secs(10);
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

/// One client's way through the log.
pub(super) struct Follower {
    data: Data,
    link: Arc<Link>,
    batches: broadcast::Receiver<Arc<Batch>>,
    filter: Filter,
    /// Everything up to here was sent or did not pass the filter.
    position: u64,
    /// When the client is no longer who it said.
    until: Option<Instant>,
    queue: Sender,
    heartbeat: Interval,
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
        batches: broadcast::Receiver<Arc<Batch>>,
        filter: Filter,
        (position, until): (u64, Option<Instant>),
        queue: Sender,
    ) -> Self {
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        Self { data, link, batches, filter, position, until, queue, heartbeat }
    }

    /// Follows until the stream ends; `resumes` tells whether the log has something for the client already.
    pub(super) async fn run(mut self, resumes: bool) {
        let ending = match self.follow(resumes).await {
            Ok(never) => match never {},
            Err(ending) => ending,
        };
        tracing::debug!(target: "aegis::events", position = self.position, "event stream ends: {ending:?}");
        match ending {
            // What waits in the queue would never be read. Other streams of an HTTP/2 connection are not to blame.
            Ending::Slow if self.link.protocol() != Protocol::Http2 => self.link.order(Order::Abort),
            Ending::Slow | Ending::Closed | Ending::Expired => {}
            Ending::Drained | Ending::StoreUnavailable => {
                let _ = self.queue.push(retry(self.link.id()));
            }
        }
    }

    async fn follow(&mut self, resumes: bool) -> Result<std::convert::Infallible, Ending> {
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
                batch = self.batches.recv() => match batch {
                    Ok(batch) => self.hear(&batch).await?,
                    Err(RecvError::Lagged(_)) => self.catch_up().await?,
                    Err(RecvError::Closed) => return Err(Ending::Closed),
                },
                _ = self.heartbeat.tick() => self.push(Bytes::from_static(b":\n\n"))?,
            }
        }
    }

    async fn hear(&mut self, batch: &Batch) -> Result<(), Ending> {
        let Batch::Told(changes) = batch else { return self.catch_up().await };
        for told in changes {
            if told.sequence > self.position {
                if self.filter.admits(&told.subject) {
                    self.push(told.frame.clone())?;
                }
                self.position = told.sequence;
            }
        }
        Ok(())
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
            let deadline = Instant::now() + PAGE_TIME;
            let page = self
                .data
                .changes(self.position, PAGE_CHANGES, deadline)
                .await
                .map_err(|_| Ending::StoreUnavailable)?;
            let next = self.position.saturating_add(1);
            if next < page.oldest {
                self.push_waiting(gap(next, page.oldest - 1)).await?;
                self.position = page.oldest - 1;
            } else if self.position > page.durable {
                // A position of another log: nothing is known about what the client has seen.
                self.push_waiting(gap(0, page.durable)).await?;
                self.position = page.durable;
            }
            // A page ends early when its changes are large: only one that reaches what is durable is the last.
            let complete = page.changes.last().is_none_or(|last| last.sequence >= page.durable);
            for change in &page.changes {
                if change.sequence > self.position {
                    let told = tell(change);
                    if self.filter.admits(&told.subject) {
                        self.push_waiting(told.frame).await?;
                    }
                    self.position = change.sequence;
                }
            }
            if complete {
                self.position = self.position.max(page.durable);
                return Ok(());
            }
        }
    }

    fn push(&mut self, frame: Bytes) -> Result<(), Ending> {
        self.heartbeat.reset();
        self.queue.push(frame).map_err(|Slow| Ending::Slow)
    }

    async fn push_waiting(&mut self, frame: Bytes) -> Result<(), Ending> {
        self.heartbeat.reset();
        self.queue.push_within(frame, RESUME_PATIENCE).await.map_err(|Slow| Ending::Slow)
    }
}

/// Advice when to come back, spread so that not all clients do so at once.
fn retry(id: u64) -> Bytes {
    let spread = (id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % RETRY_SPREAD_MS;
    Bytes::from(format!("retry: {}\n\n", RETRY_MS + spread))
}
