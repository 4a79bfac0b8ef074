//! How a worker leaves without failing a request.
//!
//! ```text
//!   begin                                             deadline − spread             deadline
//!     │ stop accepting, after one last pass                   │                         │
//!     │ HTTP/1: `Connection: close` with the next response,   │ HTTP/1 still idle:      │ whatever is
//!     │ for one connection after the other over 0.2 s, which  │ closed one by one       │ left is cut
//!     │ is over before any is closed for being idle           │                         │
//!     │ HTTP/2: GOAWAY                                        │                         │
//!     │ event streams: `retry`, ended one by one over the     │ a moment before: what   │
//!     │ first `spread`                                        │ still works answers 503 │
//!     └── leave as soon as nothing is open ──────────────────────────────────────────────
//! ```
//!
//! An idle HTTP/1 connection is not closed at once: its next request may be on the wire already. Hyper's own graceful
//! end does close it and lost 14 % of keep-alive requests in a test; answering the next request with `Connection:
//! close` lost none. Busy connections are not told so all at once, because their clients would come back all at once, to
//! workers that serve others and to one that has just started (ADR 30). An event stream on the other hand loses nothing when
//! it ends, because the client resumes after the last event it saw.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::connection::{Activity, Order, Protocol, View, milliseconds};

/// Part of the window kept free before the deadline, so that the last closes happen before the process ends.
const MARGIN_MS: u64 = 250;
/// Time between two HTTP/1 connections in use that are told that they end: long beside what a new connection costs.
const GOODBYE_MS: u64 = 6;
/// Time in which all of them are told, however many there are: short beside that in which slow clients leave.
const GOODBYES_MS_MAX: u64 = 200;

/// One drain, in milliseconds of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Drain {
    begun_ms: u64,
    deadline_ms: Option<u64>,
    spread_ms: u64,
    goodbyes_ms: u64,
}

/// Whether to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not yet.
    Stay,
    /// Nothing is open.
    Empty,
    /// The time is up.
    Overdue,
}

/// The order in which the connections of one runtime leave.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    ranks: HashMap<u64, u64>,
}

impl Drain {
    /// A drain that begins now, with so many open connections.
    pub(crate) fn new(now_ms: u64, deadline: Option<Duration>, spread: Duration, open: u64) -> Self {
        let deadline_ms = deadline.map(|deadline| now_ms.saturating_add(milliseconds(deadline)));
        let spread_ms = milliseconds(spread);
        Self { begun_ms: now_ms, deadline_ms, spread_ms, goodbyes_ms: goodbyes_ms(open).min(spread_ms) }
    }

    /// The same drain after another request to drain, with so many open connections: the sooner deadline counts.
    pub(crate) fn hasten(self, now_ms: u64, deadline: Option<Duration>, open: u64) -> Self {
        let asked_ms = deadline.map(|deadline| now_ms.saturating_add(milliseconds(deadline)));
        let deadline_ms = match (self.deadline_ms, asked_ms) {
            (Some(known), Some(asked)) => Some(known.min(asked)),
            (known, asked) => known.or(asked),
        };
        Self { deadline_ms, goodbyes_ms: self.goodbyes_ms.min(goodbyes_ms(open)), ..self }
    }

    /// Time until the deadline, milliseconds.
    pub(crate) fn remaining_ms(&self, now_ms: u64) -> Option<u64> {
        self.deadline_ms.map(|deadline| deadline.saturating_sub(now_ms))
    }

    /// Whether to go, given what is open.
    pub(crate) fn verdict(&self, open: u64, accepting: bool, now_ms: u64) -> Verdict {
        if open == 0 && !accepting {
            Verdict::Empty
        } else if self.deadline_ms.is_some_and(|deadline| now_ms >= deadline) {
            Verdict::Overdue
        } else {
            Verdict::Stay
        }
    }

    /// When the idle connection of this rank is closed; never without a deadline (its idle time-out still counts).
    fn idle_close_ms(&self, rank: u64) -> Option<u64> {
        let end = self.last_close_ms()?;
        let begin = end.saturating_sub(self.spread_ms).max(self.begun_ms);
        Some(point(begin, end, rank))
    }

    /// When the event streams of the connection of this rank are ended.
    fn stream_end_ms(&self, rank: u64) -> u64 {
        self.point_before(self.last_close_ms().unwrap_or(u64::MAX), self.spread_ms, rank)
    }

    /// When responses on the HTTP/1 connection of this rank begin to say that it ends: before any of them is closed when it is
    /// idle, which one that is in use also is between two requests.
    fn goodbye_ms(&self, rank: u64) -> u64 {
        let first_close_ms = self.last_close_ms().map_or(u64::MAX, |end| end.saturating_sub(self.spread_ms));
        self.point_before(first_close_ms, self.goodbyes_ms, rank)
    }

    /// When the last connection is closed, if there is a deadline.
    fn last_close_ms(&self) -> Option<u64> {
        Some(self.deadline_ms?.saturating_sub(MARGIN_MS).max(self.begun_ms))
    }

    /// The point of a rank in so long a time from the beginning, but not after `latest_ms`.
    fn point_before(&self, latest_ms: u64, spread_ms: u64, rank: u64) -> u64 {
        let end = self.begun_ms.saturating_add(spread_ms).min(latest_ms).max(self.begun_ms);
        point(self.begun_ms, end, rank)
    }
}

impl Departures {
    /// What to tell a connection now.
    pub(crate) fn judge(&mut self, drain: &Drain, view: &View, now_ms: u64) -> Option<Order> {
        if drain.deadline_ms.is_some_and(|deadline| now_ms >= deadline) {
            return Some(Order::Abort);
        }
        if view.protocol == Protocol::Http2 && !view.was_told(Order::GoAway) {
            return Some(Order::GoAway);
        }
        let is_last_moment =
            drain.deadline_ms.is_some_and(|deadline| now_ms >= deadline.saturating_sub(MARGIN_MS));
        if is_last_moment && view.activity == Activity::Answering && !view.was_told(Order::AnswerNow) {
            return Some(Order::AnswerNow);
        }
        let next = self.ranks.len() as u64;
        let rank = *self.ranks.entry(view.id).or_insert(next);
        if view.streams > 0 && !view.was_told(Order::EndStreams) && now_ms >= drain.stream_end_ms(rank) {
            return Some(Order::EndStreams);
        }
        let idle = view.activity == Activity::Idle && view.protocol != Protocol::Http2;
        // A client whose stream was ended has nothing on the wire: it waits for the time in `retry`.
        let due = view.was_told(Order::EndStreams)
            || drain.idle_close_ms(rank).is_some_and(|close_ms| now_ms >= close_ms);
        (idle && due && !view.was_told(Order::CloseIdle)).then_some(Order::CloseIdle)
    }
}

/// Time in which so many connections are told that they end.
fn goodbyes_ms(open: u64) -> u64 {
    open.saturating_sub(1).saturating_mul(GOODBYE_MS).min(GOODBYES_MS_MAX)
}

/// The point of a rank in a window. Ranks in a row fall evenly, however many there are: each goes into the largest
/// gap that is left (multiples of the golden ratio, modulo 1).
fn point(begin_ms: u64, end_ms: u64, rank: u64) -> u64 {
    let fraction = rank.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let length = u128::from(end_ms.saturating_sub(begin_ms));
    let offset = (length * u128::from(fraction)) >> 32;
    begin_ms + u64::try_from(offset).unwrap_or(0)
}

/// The drain of this process, once there is one.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    begun: AtomicBool,
    drain: Mutex<Option<Drain>>,
    changed: Notify,
}

impl Leaving {
    /// Begins to drain, or hastens a drain that has begun; so many open connections are told one after the other.
    pub(crate) fn begin(&self, now_ms: u64, deadline: Option<Duration>, spread: Duration, open: u64) {
        let mut drain = self.drain.lock();
        *drain = Some(match *drain {
            None => Drain::new(now_ms, deadline, spread, open),
            Some(begun) => begun.hasten(now_ms, deadline, open),
        });
        self.begun.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Whether there is a drain.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether responses on the HTTP/1 connection of this number say that it ends.
    pub(crate) fn says_goodbye(&self, connection: u64, now_ms: impl FnOnce() -> u64) -> bool {
        self.drain().is_some_and(|drain| now_ms() >= drain.goodbye_ms(connection))
    }

    /// The drain.
    pub(crate) fn drain(&self) -> Option<Drain> {
        if self.has_begun() { *self.drain.lock() } else { None }
    }

    /// Waits until a drain begins or its deadline changes. For one waiter.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn orders_over_time(
        drain: &Drain,
        views: &mut [View],
        until_ms: u64,
        step_ms: usize,
    ) -> Vec<(u64, u64, Order)> {
        let mut departures = Departures::default();
        let mut given = Vec::new();
        for now_ms in (drain.begun_ms..=until_ms).step_by(step_ms) {
            for view in views.iter_mut() {
                if let Some(order) = departures.judge(drain, view, now_ms) {
                    if !view.was_told(order) {
                        given.push((now_ms, view.id, order));
                    }
                    view.tell(order);
                    if order == Order::EndStreams {
                        view.streams = 0;
                        view.activity = Activity::Idle;
                    }
                }
            }
        }
        given
    }

    fn any_activity() -> impl Strategy<Value = Activity> {
        prop_oneof![
            Just(Activity::Idle),
            Just(Activity::Receiving { since_ms: 1 }),
            Just(Activity::Answering),
            Just(Activity::Lingering { since_ms: 1 }),
        ]
    }

    fn any_view() -> impl Strategy<Value = View> {
        let protocol = prop_oneof![Just(Protocol::Unknown), Just(Protocol::Http1), Just(Protocol::Http2)];
        (0_u64..50, protocol, any_activity(), 0_u32..3).prop_map(|(id, protocol, activity, streams)| {
            let activity = if streams > 0 { Activity::Answering } else { activity };
            View::sample(id, protocol, activity).with_streams(streams)
        })
    }

    proptest! {
        #[test]
        fn a_request_is_never_cut_before_the_deadline(
            view in any_view(),
            timeout_s in 1_u64..60,
            spread_s in 0_u64..60,
            after_ms in 0_u64..60_000,
        ) {
            let drain = Drain::new(1_000, Some(SECOND * timeout_s as u32), SECOND * spread_s as u32, 1);
            let now_ms = 1_000 + after_ms;
            let order = Departures::default().judge(&drain, &view, now_ms);
            if now_ms < 1_000 + timeout_s * 1_000 {
                prop_assert_ne!(order, Some(Order::Abort));
                if order == Some(Order::CloseIdle) {
                    prop_assert_eq!(view.activity, Activity::Idle);
                    prop_assert_ne!(view.protocol, Protocol::Http2);
                }
            } else {
                prop_assert_eq!(order, Some(Order::Abort));
            }
        }

        #[test]
        fn an_idle_connection_is_closed_only_in_the_last_part_and_before_the_deadline(
            count in 1_u64..200,
            timeout_s in 2_u64..60,
            spread_s in 1_u64..20,
        ) {
            let drain = Drain::new(5_000, Some(SECOND * timeout_s as u32), SECOND * spread_s as u32, 1);
            let deadline_ms = 5_000 + timeout_s * 1_000;
            let mut views: Vec<View> =
                (0..count).map(|id| View::sample(id * 7, Protocol::Http1, Activity::Idle)).collect();
            let given = orders_over_time(&drain, &mut views, deadline_ms - 1, 50);
            prop_assert_eq!(given.len() as u64, count, "every one is closed, once");
            let earliest = deadline_ms.saturating_sub(MARGIN_MS + spread_s * 1_000).max(5_000);
            for (at_ms, _, order) in given {
                prop_assert_eq!(order, Order::CloseIdle);
                prop_assert!(at_ms >= earliest && at_ms < deadline_ms, "{} not in the window", at_ms);
            }
        }

        #[test]
        fn the_sooner_deadline_counts(first in prop::option::of(1_u64..100), second in prop::option::of(1_u64..100)) {
            let drain = Drain::new(0, first.map(|s| SECOND * s as u32), SECOND, 1)
                .hasten(0, second.map(|s| SECOND * s as u32), 1);
            let expected = [first, second].into_iter().flatten().min().map(|s| s * 1_000);
            prop_assert_eq!(drain.remaining_ms(0), expected);
        }
    }

    #[test]
    fn what_still_works_is_told_to_answer_a_moment_before_the_deadline_and_once() {
        let drain = Drain::new(0, Some(10 * SECOND), SECOND, 1);
        let mut views = [
            View::sample(1, Protocol::Http1, Activity::Answering),
            View::sample(2, Protocol::Http1, Activity::Receiving { since_ms: 1 }),
        ];
        let given = orders_over_time(&drain, &mut views, 9_999, 1);
        assert_eq!(given, [(10_000 - MARGIN_MS, 1, Order::AnswerNow)]);
    }

    proptest! {
        #[test]
        fn nobody_is_closed_before_the_time_to_be_told(
            timeout_ms in 0_u64..10_000,
            spread_ms in 0_u64..10_000,
            open in 0_u64..200,
            rank in 0_u64..200,
            other in 0_u64..200,
        ) {
            let (timeout, spread) = (Duration::from_millis(timeout_ms), Duration::from_millis(spread_ms));
            let drain = Drain::new(1_000, Some(timeout), spread, open);
            prop_assert!(drain.goodbye_ms(rank) <= drain.idle_close_ms(other).unwrap());
        }
    }

    #[test]
    fn connections_in_use_are_told_one_after_the_other_and_soon() {
        let told_ms = |deadline, spread, open| {
            let drain = Drain::new(1_000, deadline, spread, open);
            // Numbers of connections that have come one after the other.
            let mut told: Vec<_> = (70..134).map(|connection| drain.goodbye_ms(connection)).collect();
            told.sort_unstable();
            told
        };
        let told = told_ms(Some(SECOND * 30), SECOND * 5, 64);
        assert!(told[0] <= 1_010 && told[63] >= 1_190 && told[63] < 1_200, "{told:?}");
        assert!(told.windows(2).all(|pair| pair[1] - pair[0] <= 10), "{told:?}");
        assert_eq!(told_ms(None, Duration::ZERO, 64), [1_000; 64], "without a spread, all at once");
        assert_eq!(told_ms(None, SECOND, 1), [1_000; 64], "nobody waits for others where there are none");
        assert!(told_ms(None, SECOND, 11).iter().all(|&told| told <= 1_060), "few are told in less time");
        assert_eq!(
            told_ms(Some(SECOND * 5), SECOND * 5, 64),
            [1_000; 64],
            "idle ones are closed from the beginning"
        );
        let hurried = told_ms(Some(Duration::from_millis(1_300)), SECOND, 64);
        assert!(hurried.iter().all(|&told| told <= 1_050), "before any is closed: {hurried:?}");
        let leaving = Leaving::default();
        assert!(!leaving.says_goodbye(1, || u64::MAX));
        leaving.begin(1_000, None, SECOND, 64);
        assert!(!leaving.says_goodbye(1, || 1_000) && leaving.says_goodbye(1, || 1_200));
    }

    #[test]
    fn a_thousand_closes_are_spread_evenly() {
        let drain = Drain::new(0, Some(30 * SECOND), 10 * SECOND, 1);
        let mut views: Vec<View> =
            (0..1_000).map(|id| View::sample(id, Protocol::Http1, Activity::Idle)).collect();
        let mut per_second = HashMap::<u64, u32>::new();
        for (at_ms, _, _) in orders_over_time(&drain, &mut views, 29_999, 100) {
            *per_second.entry(at_ms / 1_000).or_default() += 1;
        }
        assert!(per_second.values().all(|count| *count <= 130), "{per_second:?}");
    }

    #[test]
    fn event_streams_end_one_by_one_from_the_beginning_and_their_connection_with_them() {
        for deadline in [Some(30 * SECOND), None] {
            let drain = Drain::new(0, deadline, 10 * SECOND, 1);
            let mut views: Vec<View> = (0..100)
                .map(|id| View::sample(id, Protocol::Http1, Activity::Answering).with_streams(1))
                .collect();
            let given = orders_over_time(&drain, &mut views, 10_100, 100);
            let ends: Vec<u64> = given
                .iter()
                .filter(|(_, _, order)| *order == Order::EndStreams)
                .map(|(at, _, _)| *at)
                .collect();
            assert_eq!(ends.len(), 100);
            assert!(ends.iter().any(|at| *at < 1_000) && ends.iter().all(|at| *at <= 10_000));
            let closes = given.iter().filter(|(_, _, order)| *order == Order::CloseIdle).count();
            assert_eq!(closes, 100);
        }
    }

    #[test]
    fn http2_is_told_to_go_away_first_and_its_streams_end_later() {
        let drain = Drain::new(0, Some(30 * SECOND), 10 * SECOND, 1);
        let mut views = [View::sample(3, Protocol::Http2, Activity::Answering).with_streams(2)];
        let orders: Vec<Order> = orders_over_time(&drain, &mut views, 20_000, 100)
            .into_iter()
            .map(|(_, _, order)| order)
            .collect();
        assert_eq!(orders, [Order::GoAway, Order::EndStreams]);
    }

    #[test]
    fn the_worker_leaves_when_empty_or_overdue() {
        let drain = Drain::new(0, Some(SECOND), SECOND, 1);
        assert_eq!(drain.verdict(0, true, 0), Verdict::Stay, "the last accept pass may bring one more");
        assert_eq!(drain.verdict(0, false, 0), Verdict::Empty);
        assert_eq!(drain.verdict(1, false, 999), Verdict::Stay);
        assert_eq!(drain.verdict(1, false, 1_000), Verdict::Overdue);
        assert_eq!(Drain::new(0, None, SECOND, 1).verdict(1, false, u64::MAX), Verdict::Stay);
    }
}
