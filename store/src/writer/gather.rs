//! Decides how long a group waits for writes that are about to come. Pure.
//!
//! Clients that were just answered send their next write within a fraction of a sync, but too late for a group that
//! begins at once: it then takes only those that came during the last sync, and 64 clients are served in groups of 32.
//! On a disk that takes 4 ms to sync, waiting for the others nearly doubles the rate and shortens everybody's wait.
//! So a group waits, for a small part of a sync, until as many have come as were seen at once before; and when that
//! does not pay, because the clients are slower or gone, it is tried less and less often.

use std::time::Duration;

/// A group waits at most this part of a sync.
const PART_OF_SYNC: u32 = 4;
/// A group never waits longer than this.
const WAIT_MAX: Duration = Duration::from_millis(1);
/// A wait shorter than this is not worth a sleep.
const WAIT_MIN: Duration = Duration::from_micros(20);
/// After failures, at least every so many groups it is tried again: two to the power of this.
const RARELY: u32 = 6;

/// What was seen of the last groups.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// Writes of the last group, and those that had come when it was done.
    seen: usize,
    /// Moving average of the time a group takes in the engine.
    sync: Duration,
    /// Waits in a row that did not pay.
    failures: u32,
    /// Groups to begin at once before the next try.
    skip: u32,
}

/// How long to wait and for how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Patience {
    /// Enough writes to begin.
    pub(super) wanted: usize,
    /// Longest wait.
    pub(super) wait: Duration,
}

impl Gather {
    /// Should a group of `taken` writes, with nothing more in the queue, wait for more?
    pub(super) fn patience(&mut self, taken: usize, group_max: usize) -> Option<Patience> {
        let wanted = self.seen.min(group_max);
        let wait = (self.sync / PART_OF_SYNC).min(WAIT_MAX);
        if taken >= wanted || wait < WAIT_MIN {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some(Patience { wanted, wait })
    }

    /// A wait that began with `before` writes ended with `after`.
    pub(super) fn waited(&mut self, patience: Patience, before: usize, after: usize) {
        let missing = patience.wanted.saturating_sub(before);
        if (after - before) * 2 >= missing {
            self.failures = 0;
        } else {
            self.failures = (self.failures + 1).min(RARELY);
            self.skip = 1 << self.failures;
        }
    }

    /// A group of `writes` took `sync` in the engine, and `arrived` others had come when it was done.
    pub(super) fn committed(&mut self, writes: usize, arrived: usize, sync: Duration) {
        self.seen = writes + arrived;
        self.sync = if self.sync.is_zero() { sync } else { (self.sync * 7 + sync) / 8 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_millis(4);

    /// Clients in a closed loop: each sends its next write `think` after its answer. Returns the sizes of the groups.
    fn closed_loop(clients: usize, think: Duration, sync: Duration, groups: usize) -> Vec<usize> {
        let mut gather = Gather::default();
        let (mut now, mut sizes) = (Duration::ZERO, Vec::new());
        let mut arrivals: Vec<Duration> = (0..clients).map(|client| think * client as u32 / 8).collect();
        for _ in 0..groups {
            arrivals.sort();
            now = now.max(arrivals[0]);
            let taken = arrivals.iter().filter(|arrival| **arrival <= now).count();
            let mut size = taken;
            if let Some(patience) = gather.patience(taken, 1024) {
                let deadline = now + patience.wait;
                while size < patience.wanted && size < clients && arrivals[size] <= deadline {
                    now = now.max(arrivals[size]);
                    size += 1;
                }
                if size < patience.wanted {
                    now = deadline;
                }
                gather.waited(patience, taken, size);
            }
            now += sync;
            let arrived = arrivals[size..].iter().filter(|arrival| **arrival <= now).count();
            gather.committed(size, arrived, sync);
            for arrival in &mut arrivals[..size] {
                *arrival = now + think;
            }
            sizes.push(size);
        }
        sizes
    }

    #[test]
    fn clients_that_come_back_soon_are_served_together() {
        let sizes = closed_loop(64, Duration::from_micros(500), SLOW, 20);
        assert!(sizes[5..].iter().all(|size| *size == 64), "{sizes:?}");
    }

    #[test]
    fn clients_that_take_their_time_are_hardly_waited_for() {
        let mut gather = Gather::default();
        let mut waits = 0;
        for _ in 0..1000 {
            gather.committed(32, 32, SLOW);
            if let Some(patience) = gather.patience(32, 1024) {
                waits += 1;
                gather.waited(patience, 32, 33);
            }
        }
        assert!((1..40).contains(&waits), "{waits}");
    }

    #[test]
    fn a_single_client_never_waits() {
        let mut gather = Gather::default();
        for _ in 0..10 {
            assert_eq!(gather.patience(1, 1024), None);
            gather.committed(1, 0, SLOW);
        }
    }

    #[test]
    fn a_group_waits_for_a_part_of_a_sync_and_for_no_more_than_fit() {
        let mut gather = Gather::default();
        gather.committed(500, 500, Duration::from_micros(400));
        let patience = Patience { wanted: 100, wait: Duration::from_micros(100) };
        assert_eq!(gather.patience(50, 100), Some(patience));
        assert_eq!(gather.patience(100, 100), None);
        gather.committed(500, 500, Duration::from_secs(3600));
        assert_eq!(gather.patience(50, 100).map(|patience| patience.wait), Some(WAIT_MAX));
        let mut quick = Gather::default();
        quick.committed(500, 500, Duration::from_micros(40));
        assert_eq!(quick.patience(50, 100), None, "there is nothing to gain");
    }
}
