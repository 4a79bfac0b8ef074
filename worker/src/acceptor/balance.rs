//! Whether this worker should step back and let a sibling take the next connection.
//!
//! The kernel wakes the acceptor that has waited longest, so arrivals go round and round, whatever a worker already
//! holds. That keeps equal workers equal, but a worker that joins late never catches up. Hence a worker that holds
//! more than its share leaves the wait list and only helps out when a connection stays unclaimed.
//!
//! Connections that end soon take care of themselves: who holds more of them at the moment has fewer in the next one. Where
//! they last less than a tenth of a second (clients that make one for each request) nobody steps back, since a connection
//! that is left to others would wait while this worker has time for it.

use std::{sync::atomic::Ordering, time::Duration};

use aegis_ipc::board::{Board, CELLS, Cell, Gauge, monotonic_ms};

use super::{Seats, seats::SHORT_MS};

/// Longest time a worker with too many connections leaves a waiting one to its siblings.
pub(super) const STEP_BACK_MAX: Duration = Duration::from_millis(2);
/// How often the cells of the board are searched for siblings, milliseconds. In between only known ones are read: a
/// search touches a cache line per cell, which is little once and much for every connection.
const SIBLINGS_REFRESH_MS: u64 = 1;
/// A sibling whose acceptor has not come round for this long is frozen, whatever it says. It comes round at least
/// every 100 ms.
const FROZEN_AFTER_MS: u64 = 250;
/// Connections above the mean that a worker may hold, or the share of the mean if that is more. When all but one are
/// above it by this much, that one is below it by as much times their number: hence so little.
const TOLERATED_CONNECTIONS: f64 = 0.5;
const TOLERATED_SHARE: f64 = 0.02;
/// Connections beyond the tolerated ones at which the longest time is reached, or the share of the mean.
const FULL_STEP_CONNECTIONS: f64 = 1.0;
const FULL_STEP_SHARE: f64 = 0.02;
/// How long the connections that end soon are counted before it is said whether most do.
const TURNOVER_MS: u64 = SHORT_MS;
/// Fewer than this in that time say nothing.
const TURNOVER_MIN: u64 = 16;

/// How long to leave a waiting connection to siblings, at most `longest`. `None`: this worker holds no more than its
/// share.
fn step_back(own: u64, mean: f64, longest: Duration) -> Option<Duration> {
    #[expect(clippy::cast_precision_loss, reason = "connection counts stay far below 2^52")]
    let excess = own as f64 - mean - (mean * TOLERATED_SHARE).max(TOLERATED_CONNECTIONS);
    let full = (mean * FULL_STEP_SHARE).max(FULL_STEP_CONNECTIONS);
    (excess > 0.0).then(|| longest.mul_f64((excess / full).clamp(0.05, 1.0)))
}

/// The workers that accept from the same sockets.
#[derive(Debug)]
pub(super) struct Siblings {
    board: Board,
    own: usize,
    known: Vec<Cell>,
    refreshed_ms: Option<u64>,
    turnover: Turnover,
}

/// Whether the connections of this worker end soon.
#[derive(Debug, Default)]
struct Turnover {
    since_ms: u64,
    short_before: u64,
    is_quick: bool,
}

impl Turnover {
    /// Whether connections last less than [`TURNOVER_MS`]: as many as are open ended so soon within the last such time.
    /// `short` counts from the start those that did; long ones that end all at once come back as long ones.
    fn is_quick(&mut self, short: u64, open: u64, now_ms: u64) -> bool {
        let elapsed_ms = now_ms.saturating_sub(self.since_ms);
        let short_since = short.saturating_sub(self.short_before);
        let enough = open.max(TURNOVER_MIN);
        if elapsed_ms >= TURNOVER_MS {
            // The time since may be any, so a long one without anybody who asked does not count as a short one.
            self.is_quick = short_since * TURNOVER_MS >= enough * elapsed_ms;
            (self.since_ms, self.short_before) = (now_ms, short);
        } else if short_since >= enough {
            // More of them only make it truer. A worker that has just begun would balance until the time is up, just when the
            // clients of the one before it come to it all at once.
            self.is_quick = true;
        }
        self.is_quick
    }
}

impl Siblings {
    pub(super) fn new(board: Board, own: usize) -> Self {
        Self { board, own, known: Vec::new(), refreshed_ms: None, turnover: Turnover::default() }
    }

    /// How long this worker leaves a waiting connection to siblings, at most `longest`. `None`: it takes it.
    pub(super) fn step_back(&mut self, seats: &Seats, longest: Duration) -> Option<Duration> {
        let (open, now_ms) = (seats.open(), monotonic_ms());
        if self.turnover.is_quick(seats.short(), open, now_ms) {
            return None;
        }
        step_back(open, self.mean(open, now_ms), longest)
    }

    /// Mean of open connections over this worker and all siblings that could take the next one.
    fn mean(&mut self, own_connections: u64, now_ms: u64) -> f64 {
        if self.refreshed_ms.is_none_or(|then| now_ms.saturating_sub(then) >= SIBLINGS_REFRESH_MS) {
            self.refreshed_ms = Some(now_ms);
            self.known.clear();
            let others = (0..CELLS).filter(|index| *index != self.own);
            self.known
                .extend(others.map(|index| self.board.cell(index)).filter(|cell| is_willing(cell, now_ms)));
        }
        let (mut sum, mut count) = (own_connections, 1_u32);
        for cell in self.known.iter().filter(|cell| is_willing(cell, now_ms)) {
            sum += cell.gauge(Gauge::Connections).load(Ordering::Relaxed);
            count += 1;
        }
        #[expect(clippy::cast_precision_loss, reason = "connection counts stay far below 2^52")]
        let sum = sum as f64;
        sum / f64::from(count)
    }
}

fn is_willing(cell: &Cell, now_ms: u64) -> bool {
    cell.gauge(Gauge::Willing).load(Ordering::Relaxed) == 1
        && now_ms.saturating_sub(cell.gauge(Gauge::AcceptorBeat).load(Ordering::Relaxed)) < FROZEN_AFTER_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step_back(own: u64, mean: f64) -> Option<Duration> {
        super::step_back(own, mean, STEP_BACK_MAX)
    }

    #[test]
    fn only_a_worker_above_its_share_steps_back_and_never_for_long() {
        assert_eq!(step_back(0, 0.0), None);
        assert_eq!(step_back(25, 25.0), None);
        assert_eq!(step_back(25, 24.5), None);
        assert_eq!(step_back(1_020, 1_000.0), None, "2 % more than the mean are tolerated");
        assert!(step_back(26, 25.0).unwrap() < step_back(27, 25.0).unwrap());
        assert_eq!(step_back(27, 25.0), Some(STEP_BACK_MAX));
        assert_eq!(step_back(1_040, 1_000.0), Some(STEP_BACK_MAX));
    }

    #[test]
    fn a_worker_that_is_the_last_to_catch_up_comes_within_a_quarter_of_the_others() {
        for workers in 2..=16_u32 {
            let others = 26.0;
            let last = (0..26).find(|last| {
                let mean = (others * f64::from(workers - 1) + f64::from(*last)) / f64::from(workers);
                step_back(26, mean).is_none()
            });
            let bound = if workers <= 8 { 1.25 } else { 1.6 };
            assert!(others <= f64::from(last.unwrap()) * bound, "{workers} workers: 26 and {last:?}");
        }
    }

    #[test]
    fn the_mean_counts_only_siblings_that_could_take_a_connection() {
        let (board, _descriptor) = Board::create().unwrap();
        let set = |index, willing, beat_ms, connections| {
            let cell = board.cell(index);
            cell.gauge(Gauge::Willing).store(willing, Ordering::Relaxed);
            cell.gauge(Gauge::AcceptorBeat).store(beat_ms, Ordering::Relaxed);
            cell.gauge(Gauge::Connections).store(connections, Ordering::Relaxed);
        };
        let mut siblings = Siblings::new(board, 0);
        let mut mean = |own, now_ms| (siblings.mean(own, now_ms) * 10.0).round();
        assert_eq!(mean(7, 1_000), 70.0);
        set(0, 1, 1_000, 1);
        set(1, 1, 1_000, 10);
        set(2, 0, 1_000, 1_000);
        set(3, 1, 1_000, 20);
        set(4, 1, 700, 1_000);
        assert_eq!(mean(0, 1_001), 100.0, "itself once, not one without room, not a frozen one");
        set(3, 0, 1_001, 20);
        assert_eq!(mean(0, 1_001), 50.0, "one that has no more room is left out at once");
        set(5, 1, 1_001, 20);
        assert_eq!(mean(0, 1_001), 50.0, "a new one is not yet known");
        assert_eq!(mean(0, 1_002), 100.0, "and is a moment later");
    }

    #[test]
    fn connections_that_end_as_fast_as_they_come_last_shortly() {
        let mut turnover = Turnover::default();
        let mut is_quick = |short, open, now_ms| turnover.is_quick(short, open, now_ms);
        assert!(!is_quick(0, 40, 1_000));
        assert!(!is_quick(39, 40, 1_050), "not before as many have ended as are open");
        assert!(is_quick(40, 40, 1_051), "and then at once");
        assert!(is_quick(100, 40, 1_100), "a hundred ended while forty are open");
        assert!(is_quick(100, 40, 1_199));
        assert!(!is_quick(130, 40, 1_200), "thirty ended: they last longer");
        assert!(!is_quick(145, 0, 1_300), "too few to tell");
        assert!(!is_quick(245, 40, 11_300), "a hundred in ten seconds");
    }
}
