//! Time cut into windows of two kinds that follow each other quickly, so that whatever the machine does meanwhile falls
//! into both.
//!
//! ```text
//!   settling ┄┄│ quiet ───│┄┄│ disturbed ───│┄┄│ disturbed ───│┄┄│ quiet ───│┄┄ …
//! ```
//!
//! All that is measured goes on through all of them. What counts is decided by the moment at which something began, and by
//! nothing that is known only later: a sample cannot be left out because it took long. Samples of all windows of a kind
//! are pooled before a quantile is taken. The quantile of a single window says what happened to be in it: a pause of the
//! machine is longer than all else, and most windows have none.

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// When something began and how long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) begun: Instant,
    /// Microseconds.
    pub(crate) took_us: u32,
}

/// What is measured, from whichever thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    samples: Arc<Mutex<Vec<Sample>>>,
}

impl Record {
    pub(crate) fn add(&self, begun: Instant, took: Duration) {
        let took_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).push(Sample { begun, took_us });
    }

    /// Everything up to now.
    pub(crate) fn all(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A time in which samples count if they began in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
}

impl Window {
    /// One that begins now and ends so much later, when this returns.
    pub(crate) fn pass(length: Duration) -> Self {
        let begun = Instant::now();
        thread::sleep(length);
        Self { begun, ended: Instant::now() }
    }

    pub(crate) fn length(&self) -> Duration {
        self.ended - self.begun
    }

    fn contains(&self, begun: Instant) -> bool {
        self.begun <= begun && begun < self.ended
    }
}

/// Which of the two comes first, in turn: whatever grows or shrinks with time is in both kinds alike then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    QuietFirst,
    DisturbedFirst,
}

impl Order {
    /// That of a pair of windows, by its number.
    pub(crate) fn of_pair(number: usize) -> Self {
        if number.is_multiple_of(2) { Self::QuietFirst } else { Self::DisturbedFirst }
    }
}

/// How long what began in these windows took, microseconds, the shortest first. The windows follow each other in time.
pub(crate) fn pooled(samples: &[Sample], windows: &[Window]) -> Vec<u32> {
    let counts = |sample: &&Sample| {
        let place = windows.partition_point(|window| window.ended <= sample.begun);
        windows.get(place).is_some_and(|window| window.contains(sample.begun))
    };
    let mut took_us: Vec<u32> = samples.iter().filter(counts).map(|sample| sample.took_us).collect();
    took_us.sort_unstable();
    took_us
}

/// The least of the sorted values that at least this share (0 to 1) of them does not exceed; `None` of no values at all.
/// Source: Hyndman & Fan, "Sample Quantiles in Statistical Packages", The American Statistician 50 (1996), definition 1.
pub(crate) fn quantile(sorted: &[u32], share: f64) -> Option<u32> {
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(place.max(1) - 1).or(sorted.last()).copied()
}

/// How many of the sorted values are above a limit.
pub(crate) fn above(sorted: &[u32], limit: u32) -> usize {
    sorted.len() - sorted.partition_point(|&value| value <= limit)
}

/// Milliseconds of a quantile; not a number when there were no samples, which holds no limit.
pub(crate) fn quantile_ms(sorted: &[u32], share: f64) -> f64 {
    quantile(sorted, share).map_or(f64::NAN, |us| f64::from(us) / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(base: Instant, ms: u64) -> Instant {
        base + Duration::from_millis(ms)
    }

    fn window(base: Instant, begun_ms: u64, ended_ms: u64) -> Window {
        Window { begun: at(base, begun_ms), ended: at(base, ended_ms) }
    }

    #[test]
    fn samples_count_where_they_began_however_long_they_took() {
        let base = Instant::now();
        let samples = [(0, 1), (10, 9_000_000), (19, 3), (20, 4), (25, 5), (30, 2), (39, 7), (40, 8)]
            .map(|(ms, took_us)| Sample { begun: at(base, ms), took_us });
        let windows = [window(base, 10, 20), window(base, 30, 40)];
        assert_eq!(pooled(&samples, &windows), [2, 3, 7, 9_000_000]);
        assert_eq!(pooled(&samples, &[]), [0; 0]);
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let hundred: Vec<u32> = (1..=100).collect();
        assert_eq!(quantile(&hundred, 0.99), Some(99));
        assert_eq!(quantile(&hundred, 0.5), Some(50));
        assert_eq!(quantile(&hundred, 1.0), Some(100));
        assert_eq!(quantile(&hundred, 0.0), Some(1));
        assert_eq!(quantile(&[7], 0.99), Some(7));
        assert_eq!(quantile(&[], 0.99), None);
    }

    #[test]
    fn a_pause_in_one_of_many_windows_does_not_move_the_pooled_p99() {
        let base = Instant::now();
        let windows: Vec<Window> = (0..10).map(|n| window(base, n * 100, n * 100 + 100)).collect();
        let samples: Vec<Sample> = (0..1000)
            .map(|ms| Sample {
                begun: at(base, ms),
                took_us: if (300..305).contains(&ms) { 14_000 } else { 300 },
            })
            .collect();
        assert_eq!(quantile(&pooled(&samples, &windows[3..4]), 0.99), Some(14_000));
        assert_eq!(quantile(&pooled(&samples, &windows), 0.99), Some(300));
    }

    #[test]
    fn a_limit_is_not_above_itself() {
        assert_eq!(above(&[1, 2, 2, 3, 9], 2), 2);
        assert_eq!(above(&[1, 2], 2), 0);
        assert_eq!(above(&[], 2), 0);
    }

    #[test]
    fn no_samples_hold_no_limit() {
        let ratio = quantile_ms(&[], 0.99) / quantile_ms(&[300], 0.99);
        assert!(ratio.is_nan());
    }

    #[test]
    fn each_kind_comes_first_in_turn() {
        let orders = [0, 1, 2].map(Order::of_pair);
        assert_eq!(orders, [Order::QuietFirst, Order::DisturbedFirst, Order::QuietFirst]);
    }
}
