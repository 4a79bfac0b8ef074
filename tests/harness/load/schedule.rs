//! When the requests of a load with a rate are due.
//!
//! Each connection has turns of its own, and keeps them. A response that comes late takes the turns that pass meanwhile
//! with it, and what is sent late for that reason counts from its turn: otherwise a server that stands still would be asked
//! once for each connection while it does, and be measured by that alone ("coordinated omission": Gil Tene, "How NOT to
//! Measure Latency"; `wrk2` and HdrHistogram correct for it). A load generator that wakes up late itself is not the
//! server's doing, so a turn for which its connection was free counts from when it is taken.

use std::time::{Duration, Instant};

/// Turns of all connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    began: Instant,
    per_second: u64,
    connections: u64,
}

/// A request that a connection is to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    /// Of the request, over all connections.
    pub(super) number: u64,
    pub(super) due: Instant,
}

impl Turn {
    /// From when the answer to a request counts that is sent now, on a connection that has been free since then.
    pub(super) fn counts_from(&self, free_since: Instant, now: Instant) -> Instant {
        if free_since > self.due { self.due } else { now }
    }
}

impl Schedule {
    pub(super) fn new(began: Instant, per_second: u64, connections: usize) -> Self {
        Self { began, per_second: per_second.max(1), connections: connections as u64 }
    }

    /// The turn of a connection that has had so many.
    pub(super) fn turn(&self, connection: usize, had: u64) -> Turn {
        let number = had * self.connections + connection as u64;
        Turn { number, due: self.began + Duration::from_secs_f64(number as f64 / self.per_second as f64) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_turns_at_the_rate() {
        let began = Instant::now();
        let schedule = Schedule::new(began, 1000, 4);
        let turns: Vec<Turn> =
            (0..2).flat_map(|had| (0..4).map(move |connection| schedule.turn(connection, had))).collect();
        for (number, turn) in turns.iter().enumerate() {
            assert_eq!(turn.number, number as u64);
            assert_eq!(turn.due, began + Duration::from_millis(number as u64));
        }
    }

    #[test]
    fn what_a_late_response_held_up_counts_from_its_turn() {
        let began = Instant::now();
        let turn = Schedule::new(began, 1000, 4).turn(1, 1);
        let (before, after) = (turn.due - Duration::from_millis(1), turn.due + Duration::from_millis(300));
        assert_eq!(turn.counts_from(after, after), turn.due);
        assert_eq!(turn.counts_from(before, after), after, "the load generator itself was late");
    }
}
