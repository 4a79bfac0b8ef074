use proptest::{collection::vec, prelude::*};

use super::*;

fn rate(per_second: u32, burst: u32) -> Rate {
    Rate::new(NonZeroU32::new(per_second).unwrap(), NonZeroU32::new(burst).unwrap())
}

/// A client that is asked about again and again.
struct Client {
    rate: Rate,
    expected_ns: u64,
}

impl Client {
    fn of(rate: Rate) -> Self {
        Self { rate, expected_ns: 0 }
    }

    fn ask(&mut self, now_ns: u64) -> Result<(), TooEarly> {
        self.expected_ns = self.rate.ask(self.expected_ns, now_ns)?;
        Ok(())
    }
}

#[test]
fn a_burst_is_served_and_then_one_each_interval() {
    let mut client = Client::of(rate(10, 3));
    let mut at = |now_ms: u64| client.ask(now_ms * 1_000_000).map_err(|early| early.wait_ns / 1_000_000);
    assert_eq!([at(1000), at(1000), at(1000), at(1000)], [Ok(()), Ok(()), Ok(()), Err(100)]);
    assert_eq!([at(1040), at(1100), at(1100)], [Err(60), Ok(()), Err(100)]);
    assert_eq!(
        [at(9000), at(9000), at(9000), at(9000)],
        [Ok(()), Ok(()), Ok(()), Err(100)],
        "saved up, no more"
    );
}

#[test]
fn a_clock_that_stands_still_lets_a_burst_through_and_no_more() {
    for now_ns in [0, 1, u64::MAX / 2] {
        let mut client = Client::of(rate(3, 7));
        assert_eq!((0..100).filter(|_| client.ask(now_ns).is_ok()).count(), 7);
    }
}

#[test]
fn a_clock_that_is_a_little_behind_the_one_of_the_last_request_lets_nothing_through_and_takes_nothing_back() {
    let (rate, now_ns) = (rate(1, 1), 7 * SECOND_NS);
    let expected_ns = rate.ask(0, now_ns).unwrap();
    assert_eq!(expected_ns, now_ns + SECOND_NS);
    for behind_ns in [1, 50, 1000, CLOCKS_APART_NS_MAX] {
        let wait_ns = SECOND_NS + behind_ns;
        assert_eq!(rate.ask(expected_ns, now_ns - behind_ns), Err(TooEarly { wait_ns }), "{behind_ns}");
    }
    let of_another_rate_ns = expected_ns + CLOCKS_APART_NS_MAX + 1;
    assert_eq!(rate.ask(of_another_rate_ns, now_ns), Ok(expected_ns));
}

#[test]
fn what_is_told_to_wait_is_whole_seconds_and_never_nothing() {
    let told = |wait_ns| TooEarly { wait_ns }.retry_after_s();
    assert_eq!([0, 1, SECOND_NS, SECOND_NS + 1].map(told), [1, 1, 1, 2]);
    assert_eq!(told(u64::MAX), u32::MAX);
}

fn rates() -> impl Strategy<Value = (u32, u32)> {
    (prop_oneof![1..20_u32, 1..100_000_u32], prop_oneof![1..10_u32, 1..5_000_u32])
}

proptest! {
    #[test]
    fn in_no_time_more_is_served_than_a_burst_and_the_rate(
        (per_second, burst) in rates(),
        begin_ns in 0..u64::MAX / 2,
        gaps in vec(prop_oneof![Just(0.0), 0.0..0.1, 0.0..3.0, 0.0..100.0], 1..400),
    ) {
        let rate = rate(per_second, burst);
        let (mut client, mut now_ns) = (Client::of(rate), begin_ns);
        let mut served = Vec::new();
        for gap in gaps {
            now_ns += (gap * rate.interval_ns as f64) as u64;
            if client.ask(now_ns).is_ok() {
                served.push(now_ns);
            }
        }
        for (first, from) in served.iter().enumerate() {
            for (more, until) in served[first..].iter().enumerate() {
                let time_ns = until - from;
                let allowed = u64::from(burst) + time_ns / rate.interval_ns;
                prop_assert!((more as u64) < allowed, "more than {} in {} ns", allowed, time_ns);
            }
        }
    }

    #[test]
    fn what_clocks_say_in_another_order_lets_no_more_than_a_burst_through_and_only_goes_up(
        (per_second, burst) in rates(),
        begin_ns in SECOND_NS..u64::MAX / 2,
        behind in vec(0..1000_u64, 1..400),
    ) {
        let rate = rate(per_second, burst);
        let (mut client, mut served) = (Client::of(rate), 0);
        for behind_ns in behind {
            let before_ns = client.expected_ns;
            if client.ask(begin_ns - behind_ns).is_ok() {
                served += 1;
                prop_assert!(client.expected_ns > before_ns);
            }
        }
        // A microsecond is less than an interval of these rates.
        prop_assert!(served <= burst);
    }

    #[test]
    fn who_keeps_to_the_rate_is_never_refused(
        (per_second, burst) in rates(),
        begin_ns in 0..u64::MAX / 2,
        late in vec(prop_oneof![4 => Just(0_u64), 1 => 0..5_000_000_000_u64], 1..400),
    ) {
        let mut client = Client::of(rate(per_second, burst));
        let mut late_ns = 0;
        for (number, late) in late.into_iter().enumerate() {
            late_ns += late;
            let now_ns = begin_ns + number as u64 * SECOND_NS / u64::from(per_second) + late_ns;
            prop_assert_eq!(client.ask(now_ns), Ok(()), "request {}", number);
        }
    }

    #[test]
    fn who_waits_as_long_as_is_said_is_served_and_not_a_nanosecond_before(
        (per_second, burst) in rates(),
        now_ns in 0..u64::MAX / 2,
        share in 0.0..=1.0,
        stray_ns in 0..u64::MAX / 2,
    ) {
        let rate = rate(per_second, burst);
        // All that one rate leads to, and what another one, or a clock that went back, may have left.
        let furthest_ns = rate.burst_ns + CLOCKS_APART_NS_MAX;
        let ahead_ns = (share * rate.burst_ns as f64) as u64;
        let ahead_ns = [ahead_ns, rate.burst_ns, rate.burst_ns + 1, furthest_ns, furthest_ns + 1, stray_ns];
        for expected_ns in ahead_ns.map(|ahead_ns| now_ns + ahead_ns) {
            match rate.ask(expected_ns, now_ns) {
                Ok(next_ns) => prop_assert!((now_ns + 1..=now_ns + rate.burst_ns).contains(&next_ns)),
                Err(early) => {
                    prop_assert!((1..=rate.interval_ns + CLOCKS_APART_NS_MAX).contains(&early.wait_ns));
                    prop_assert!(rate.ask(expected_ns, now_ns + early.wait_ns - 1).is_err());
                    prop_assert!(rate.ask(expected_ns, now_ns + early.wait_ns).is_ok());
                    let told_ns = u64::from(early.retry_after_s()) * SECOND_NS;
                    prop_assert!(rate.ask(expected_ns, now_ns + told_ns).is_ok());
                }
            }
        }
    }
}
