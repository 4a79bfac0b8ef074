//! Is the canary as good as the workers it would replace?

use aegis_config::Reload;
use aegis_ipc::board::{BUCKETS, bucket_bound};

use super::event::{ChildId, Traffic};

/// How much slower than the others the canary's p99 may be whatever the factor, microseconds: a cold cache and the width
/// of a histogram bucket make that much of a difference on a good day.
const LATENCY_NOISE_US: u64 = 2_000;

/// What was found; the text is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Not worse than the others, or too little traffic to tell.
    Good(String),
    /// Worse.
    Bad(String),
}

/// Share of failed answers that is bad whatever the others answered.
const PLAINLY_BAD_RATE: f64 = 0.5;
/// How much of that must be its own: when the others fail as well, the canary is not to blame alone.
const PLAINLY_WORSE_RATE: f64 = 0.25;

/// Why a canary need not be looked at any longer: most of what it answers are errors, and not so with the others.
pub(super) fn is_plainly_bad(
    canary: ChildId,
    before: &[Traffic],
    now: &[Traffic],
    reload: &Reload,
) -> Option<String> {
    let (own, others) = sums(canary, before, now);
    let enough = own.requests >= reload.canary_requests_min.max(1);
    let plainly = own.error_rate() >= PLAINLY_BAD_RATE
        && own.error_rate() > others.error_rate() + reload.error_rate_margin.max(PLAINLY_WORSE_RATE);
    (enough && plainly).then(|| failing(&own, &others))
}

/// Compares what the canary answered between two readings with what all others answered.
///
/// A worker that is missing in either reading is left out. Less than `canary_requests_min` requests at the canary are not
/// judged; nor is latency when the others answered less than that.
pub(super) fn judge(canary: ChildId, before: &[Traffic], after: &[Traffic], reload: &Reload) -> Judgement {
    let (own, others) = sums(canary, before, after);
    if own.requests < reload.canary_requests_min.max(1) {
        return Judgement::Good(format!("{} requests, too few to judge by rate", own.requests));
    }
    if own.error_rate() > others.error_rate() + reload.error_rate_margin {
        return Judgement::Bad(failing(&own, &others));
    }
    if others.requests >= reload.canary_requests_min.max(1) {
        let (own_us, others_us) = (own.p99_us(), others.p99_us());
        let allowed_us =
            (others_us as f64 * reload.latency_factor_max).max((others_us + LATENCY_NOISE_US) as f64);
        if own_us as f64 > allowed_us {
            return Judgement::Bad(format!(
                "the canary's p99 is {own_us} µs, that of the others {others_us} µs"
            ));
        }
    }
    Judgement::Good(format!("{} requests, {:.1} % of them 5xx", own.requests, own.error_rate() * 100.0))
}

/// What the canary and all others did between two readings.
fn sums(canary: ChildId, before: &[Traffic], after: &[Traffic]) -> (Sum, Sum) {
    let (mut own, mut others) = (Sum::default(), Sum::default());
    for late in after {
        if let Some(early) = before.iter().find(|early| early.child == late.child) {
            if late.child == canary { &mut own } else { &mut others }.add(early, late);
        }
    }
    (own, others)
}

fn failing(own: &Sum, others: &Sum) -> String {
    format!(
        "the canary answered {:.1} % of {} requests with 5xx, the others {:.1} % of {}",
        own.error_rate() * 100.0,
        own.requests,
        others.error_rate() * 100.0,
        others.requests,
    )
}

#[derive(Debug)]
struct Sum {
    requests: u64,
    errors: u64,
    latency: [u64; BUCKETS],
}

impl Default for Sum {
    fn default() -> Self {
        Self { requests: 0, errors: 0, latency: [0; BUCKETS] }
    }
}

impl Sum {
    fn add(&mut self, early: &Traffic, late: &Traffic) {
        self.requests += late.requests.saturating_sub(early.requests);
        self.errors += late.errors.saturating_sub(early.errors);
        for (index, sum) in self.latency.iter_mut().enumerate() {
            let reading = |traffic: &Traffic| traffic.latency.get(index).copied().unwrap_or(0);
            *sum += reading(late).saturating_sub(reading(early));
        }
    }

    fn error_rate(&self) -> f64 {
        if self.requests == 0 { 0.0 } else { self.errors as f64 / self.requests as f64 }
    }

    /// Upper bound of the bucket that holds the 99th percentile; twice the last bound for the open one.
    fn p99_us(&self) -> u64 {
        let total: u64 = self.latency.iter().sum();
        let rank = total - total / 100;
        let mut seen = 0;
        for (index, count) in self.latency.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return bucket_bound(index)
                    .unwrap_or_else(|| 2 * bucket_bound(BUCKETS - 2).unwrap_or(u64::MAX / 2));
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aegis_config::ReloadMode;
    use aegis_ipc::board::bucket_of;

    use super::*;

    const CANARY: ChildId = ChildId(9);

    fn reload() -> Reload {
        Reload {
            mode: ReloadMode::Rolling,
            watch: false,
            poll: None,
            webhook_secret_file: None,
            webhook_secret: None,
            canary_time: Duration::from_secs(5),
            canary_requests_min: 100,
            error_rate_margin: 0.01,
            latency_factor_max: 1.5,
            probe_timeout: Duration::from_secs(60),
        }
    }

    fn traffic(child: u64, requests: u64, errors: u64, latency_us: u64) -> Traffic {
        let mut latency = vec![0; BUCKETS];
        latency[bucket_of(latency_us)] = requests;
        Traffic { child: ChildId(child), requests, errors, latency }
    }

    fn judged(canary: (u64, u64, u64), other: (u64, u64, u64)) -> Judgement {
        // Totals of a cell go on from those of its earlier processes: only the differences may count.
        let before = [traffic(1, 50_000, 49_000, 500_000), traffic(9, 70_000, 70_000, 900_000)];
        let grow = |start: &Traffic, by: (u64, u64, u64)| {
            let mut grown = start.clone();
            grown.requests += by.0;
            grown.errors += by.1;
            grown.latency[bucket_of(by.2)] += by.0;
            grown
        };
        let after = [grow(&before[0], other), grow(&before[1], canary), traffic(3, 9_999, 9_999, 1)];
        judge(CANARY, &before, &after, &reload())
    }

    #[test]
    fn an_equal_canary_is_good() {
        insta::assert_debug_snapshot!(judged((1000, 5, 300), (8000, 40, 300)), @r#"
        Good(
            "1000 requests, 0.5 % of them 5xx",
        )
        "#);
    }

    #[test]
    fn errors_beyond_the_margin_are_bad() {
        insta::assert_debug_snapshot!(judged((1000, 16, 300), (8000, 40, 300)), @r#"
        Bad(
            "the canary answered 1.6 % of 1000 requests with 5xx, the others 0.5 % of 8000",
        )
        "#);
    }

    #[test]
    fn most_answers_being_errors_is_plain_after_few_requests_unless_the_others_fail_as_well() {
        let plainly = |canary: (u64, u64), others: (u64, u64)| {
            let before = [traffic(1, 0, 0, 1), traffic(9, 0, 0, 1)];
            let after = [traffic(1, others.0, others.1, 1), traffic(9, canary.0, canary.1, 1)];
            is_plainly_bad(CANARY, &before, &after, &reload())
        };
        assert!(plainly((100, 50), (0, 0)).is_some());
        assert!(plainly((99, 99), (0, 0)).is_none(), "too few to tell");
        assert!(plainly((100, 49), (1000, 0)).is_none(), "it gets its time");
        assert!(plainly((100, 60), (1000, 500)).is_none(), "something fails for all");
    }

    #[test]
    fn ten_times_slower_is_bad() {
        insta::assert_debug_snapshot!(judged((1000, 0, 30_000), (8000, 0, 3_000)), @r#"
        Bad(
            "the canary's p99 is 32768 µs, that of the others 3072 µs",
        )
        "#);
    }

    #[test]
    fn microseconds_are_noise_and_few_requests_prove_nothing() {
        assert!(matches!(judged((1000, 0, 900), (8000, 0, 20)), Judgement::Good(_)));
        assert!(matches!(judged((99, 99, 900_000), (8000, 0, 20)), Judgement::Good(_)));
        assert!(matches!(judged((1000, 0, 900_000), (99, 0, 20)), Judgement::Good(_)));
        assert!(matches!(judge(CANARY, &[], &[], &reload()), Judgement::Good(_)));
    }

    #[test]
    fn one_slow_request_in_a_hundred_is_the_p99_and_one_in_a_thousand_is_not() {
        let mut sum = Sum::default();
        sum.latency[bucket_of(100)] = 990;
        sum.latency[bucket_of(100_000)] = 10;
        assert_eq!(sum.p99_us(), bucket_bound(bucket_of(100)).unwrap());
        sum.latency[bucket_of(100_000)] = 11;
        assert_eq!(sum.p99_us(), bucket_bound(bucket_of(100_000)).unwrap());
    }
}
