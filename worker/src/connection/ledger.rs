//! All open connections of one runtime, and the sweep that ends those whose time is up.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use aegis_config::settings::Limits;
use aegis_ipc::tally::Client;
use parking_lot::Mutex;

use super::link::{Activity, Clock, Link, Order, Protocol, View};
use crate::{
    acceptor::{Seat, Seats},
    drain::{Departures, Drain},
};

/// How long what a client still sends is read after the last answer.
const LINGER: Duration = Duration::from_secs(2);
/// Time that an order to end has before the connection is cut.
const ORDER_GRACE: Duration = Duration::from_secs(5);

/// The open connections of one runtime.
#[derive(Debug)]
pub(crate) struct Ledger {
    clock: Arc<Clock>,
    next_id: AtomicU64,
    links: Mutex<HashMap<u64, Arc<Link>>>,
}

/// Keeps a connection in the ledger until it is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    ledger: Arc<Ledger>,
    pub(super) link: Arc<Link>,
}

/// How long a connection may do what, milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    head_ms: u64,
    idle_ms: u64,
}

impl Patience {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { head_ms: milliseconds(limits.header_timeout), idle_ms: milliseconds(limits.idle_timeout) }
    }

    /// What to tell a connection in normal operation.
    fn judge(self, view: &View, now_ms: u64) -> Option<Order> {
        let quiet_ms = now_ms.saturating_sub(view.active_ms);
        let grace_ms = milliseconds(ORDER_GRACE);
        if view.stalled && quiet_ms >= self.idle_ms {
            return Some(Order::Abort);
        }
        if let Some(order) = self.judge_untaken(view, now_ms) {
            return Some(order);
        }
        match view.activity {
            Activity::Lingering { since_ms } => {
                (now_ms.saturating_sub(since_ms) >= milliseconds(LINGER)).then_some(Order::Abort)
            }
            Activity::Receiving { since_ms } => match now_ms.saturating_sub(since_ms) {
                late if late >= self.head_ms.saturating_add(grace_ms) => Some(Order::Abort),
                late if late >= self.head_ms => Some(Order::HeadTimeout),
                _ => None,
            },
            Activity::Idle if quiet_ms >= self.idle_ms.saturating_add(grace_ms) => Some(Order::Abort),
            Activity::Idle if quiet_ms >= self.idle_ms => match view.protocol {
                Protocol::Http2 => Some(Order::GoAway),
                Protocol::Unknown | Protocol::Http1 => Some(Order::CloseIdle),
            },
            Activity::Idle | Activity::Answering => None,
        }
    }

    /// What to tell a connection over HTTP/2 none of whose answers gets on, whatever else it is in use for.
    fn judge_untaken(self, view: &View, now_ms: u64) -> Option<Order> {
        let late_ms = now_ms.saturating_sub(view.untaken_since_ms?);
        if late_ms >= self.idle_ms.saturating_add(milliseconds(ORDER_GRACE)) {
            return Some(Order::Abort);
        }
        (late_ms >= self.idle_ms).then_some(Order::GoAway)
    }
}

impl Ledger {
    pub(crate) fn new(clock: Arc<Clock>) -> Arc<Self> {
        Arc::new(Self { clock, next_id: AtomicU64::new(0), links: Mutex::new(HashMap::new()) })
    }

    /// `reached_at` is where an operator has reached the host over TCP.
    pub(super) fn open(
        self: &Arc<Self>,
        seat: Seat,
        origin: Option<Client>,
        reached_at: Option<IpAddr>,
    ) -> Entry {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let link = Arc::new(Link::new(id, Arc::clone(&self.clock), seat, origin, reached_at));
        self.links.lock().insert(id, Arc::clone(&link));
        Entry { ledger: Arc::clone(self), link }
    }

    /// A connection that is none: for a request that the worker makes itself.
    pub(crate) fn link_of_nobody(&self, seats: &Arc<Seats>) -> Arc<Link> {
        let seat = seats.take_for_nobody();
        Arc::new(Link::new(0, Arc::clone(&self.clock), seat, None, None))
    }

    /// Looks at every connection once.
    pub(crate) fn sweep(&self, patience: Patience, leaving: Option<(&Drain, &mut Departures)>, now_ms: u64) {
        let links = self.links.lock();
        let mut leaving = leaving;
        for link in links.values() {
            let view = link.view();
            let order = leaving
                .as_mut()
                .and_then(|(drain, departures)| departures.judge(drain, &view, now_ms))
                .or_else(|| patience.judge(&view, now_ms));
            if let Some(order) = order {
                link.order(order);
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.ledger.links.lock().remove(&self.link.id());
    }
}

pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { head_ms: 1_000, idle_ms: 60_000 };

    fn judge(protocol: Protocol, activity: Activity, now_ms: u64) -> Option<Order> {
        PATIENCE.judge(&View::sample(0, protocol, activity), now_ms)
    }

    #[test]
    fn an_idle_connection_is_ended_gently_then_cut() {
        assert_eq!(judge(Protocol::Http1, Activity::Idle, 59_999), None);
        assert_eq!(judge(Protocol::Http1, Activity::Idle, 60_000), Some(Order::CloseIdle));
        assert_eq!(judge(Protocol::Unknown, Activity::Idle, 60_000), Some(Order::CloseIdle));
        assert_eq!(judge(Protocol::Http2, Activity::Idle, 60_000), Some(Order::GoAway));
        assert_eq!(judge(Protocol::Http2, Activity::Idle, 65_000), Some(Order::Abort));
    }

    #[test]
    fn a_slow_request_head_is_answered_then_cut() {
        let receiving = Activity::Receiving { since_ms: 10 };
        assert_eq!(judge(Protocol::Http1, receiving, 1_009), None);
        assert_eq!(judge(Protocol::Http1, receiving, 1_010), Some(Order::HeadTimeout));
        assert_eq!(judge(Protocol::Http1, receiving, 6_010), Some(Order::Abort));
    }

    #[test]
    fn an_answer_may_take_its_time_unless_nobody_reads_it() {
        let mut view = View::sample(0, Protocol::Http1, Activity::Answering);
        assert_eq!(PATIENCE.judge(&view, 10_000_000), None);
        view.stalled = true;
        assert_eq!(PATIENCE.judge(&view, 59_999), None);
        assert_eq!(PATIENCE.judge(&view, 60_000), Some(Order::Abort));
    }

    #[test]
    fn answers_that_nobody_takes_end_a_connection_that_is_in_use() {
        for activity in [Activity::Idle, Activity::Answering] {
            let untaken_since_ms = Some(10);
            let at = |now_ms| {
                let mut view = View::sample(0, Protocol::Http2, activity);
                (view.active_ms, view.untaken_since_ms) = (now_ms, untaken_since_ms);
                PATIENCE.judge(&view, now_ms)
            };
            assert_eq!((at(60_009), at(60_010)), (None, Some(Order::GoAway)));
            assert_eq!((at(65_009), at(65_010)), (Some(Order::GoAway), Some(Order::Abort)));
        }
    }

    #[test]
    fn lingering_ends() {
        assert_eq!(judge(Protocol::Http1, Activity::Lingering { since_ms: 100 }, 2_099), None);
        assert_eq!(judge(Protocol::Http1, Activity::Lingering { since_ms: 100 }, 2_100), Some(Order::Abort));
    }
}
