use proptest::prelude::*;

use super::*;

/// Calls once, if that is allowed.
fn call(breaker: &mut Breaker, outcome: Outcome, now_ms: u64) -> Result<Option<Change>, u64> {
    let turn = breaker.ask(now_ms)?;
    Ok(breaker.end(turn, outcome, now_ms))
}

/// Fails until it opens; the pause.
fn fail(breaker: &mut Breaker, now_ms: u64) -> u64 {
    (0..=FAULTS_MIN)
        .find_map(|_| match call(breaker, Outcome::Fault, now_ms) {
            Ok(Some(Change::Opened { pause_ms, .. })) => Some(pause_ms),
            _ => None,
        })
        .expect("it opens")
}

#[test]
fn code_that_only_fails_is_not_called_any_more_after_five_times() {
    let mut breaker = Breaker::default();
    for now_ms in 0..4 {
        assert_eq!(call(&mut breaker, Outcome::Fault, now_ms), Ok(None));
    }
    let opened = Change::Opened { faults: 5, calls: 5, pause_ms: PAUSE_MS_MIN };
    assert_eq!(call(&mut breaker, Outcome::Fault, 4), Ok(Some(opened)));
    assert_eq!(breaker.ask(4), Err(PAUSE_MS_MIN));
    assert_eq!(breaker.stand(500), Stand::Open { left_ms: 504 });
}

#[test]
fn code_that_fails_seldom_is_called_on() {
    let mut breaker = Breaker::default();
    for now_ms in 0..100_000 {
        let outcome = if now_ms % 11 == 10 { Outcome::Fault } else { Outcome::Well };
        assert!(matches!(call(&mut breaker, outcome, now_ms), Ok(None)), "after {now_ms} calls");
    }
}

#[test]
fn calls_that_fail_by_timing_out_one_after_the_other_count_however_long_they_take() {
    let mut breaker = Breaker::default();
    for number in 0..4 {
        assert_eq!(call(&mut breaker, Outcome::Fault, number * 60_000), Ok(None));
    }
    let opened = Change::Opened { faults: 5, calls: 5, pause_ms: PAUSE_MS_MIN };
    assert_eq!(call(&mut breaker, Outcome::Fault, 240_000), Ok(Some(opened)));
}

#[test]
fn faults_of_long_ago_are_forgotten() {
    let mut breaker = Breaker::default();
    for number in 0..50_u64 {
        let now_ms = number * (WINDOW_MS / 4);
        assert_eq!(call(&mut breaker, Outcome::Fault, now_ms), Ok(None), "4 in any window");
        assert_eq!(call(&mut breaker, Outcome::Well, now_ms), Ok(None));
    }
}

#[test]
fn after_the_pause_one_call_is_tried_and_decides() {
    let mut breaker = Breaker::default();
    let pause_ms = fail(&mut breaker, 0);
    let trial = breaker.ask(pause_ms).unwrap();
    assert!(trial.is_trial());
    assert_eq!(breaker.ask(pause_ms), Err(PAUSE_MS_MIN), "there is one trial at a time");
    assert_eq!(breaker.stand(pause_ms), Stand::HalfOpen);
    assert_eq!(breaker.end(trial, Outcome::Unknown, pause_ms), None);
    let trial = breaker.ask(pause_ms).expect("what came to nothing is tried again");
    let opened = Change::Opened { faults: 1, calls: 1, pause_ms: 2 * pause_ms };
    assert_eq!(breaker.end(trial, Outcome::Fault, pause_ms), Some(opened));
    let now_ms = 3 * pause_ms;
    assert_eq!(call(&mut breaker, Outcome::Well, now_ms), Ok(Some(Change::Closed)));
    assert!(!breaker.ask(now_ms).unwrap().is_trial());
}

#[test]
fn pauses_grow_until_the_code_has_proved_itself() {
    let mut breaker = Breaker::default();
    let mut now_ms = 0;
    let mut pauses = Vec::new();
    for _ in 0..9 {
        let pause_ms = fail(&mut breaker, now_ms);
        pauses.push(pause_ms / 1000);
        now_ms += pause_ms;
        assert_eq!(call(&mut breaker, Outcome::Well, now_ms), Ok(Some(Change::Closed)));
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(fail(&mut breaker, now_ms + PROVEN_MS), PAUSE_MS_MIN);
}

#[test]
fn a_call_that_began_before_says_nothing_about_what_is_now() {
    let mut breaker = Breaker::default();
    let late: Vec<Turn> = (0..20).map(|_| breaker.ask(0).unwrap()).collect();
    let pause_ms = fail(&mut breaker, 0);
    let mut told = late.into_iter();
    let mut next = |breaker: &mut Breaker, outcome| {
        assert_eq!(breaker.end(told.next().unwrap(), outcome, pause_ms), None);
    };
    next(&mut breaker, Outcome::Well);
    assert!(breaker.ask(0).is_err());
    let trial = breaker.ask(pause_ms).unwrap();
    next(&mut breaker, Outcome::Fault);
    next(&mut breaker, Outcome::Well);
    assert_eq!(breaker.end(trial, Outcome::Well, pause_ms), Some(Change::Closed));
    for _ in 0..10 {
        next(&mut breaker, Outcome::Fault);
    }
    assert_eq!(breaker.stand(pause_ms), Stand::Closed);
}

/// Instances that code costs in ten minutes with a call each millisecond.
fn faults_in_ten_minutes(fails: impl Fn(u64) -> bool) -> u64 {
    let (mut breaker, mut calls, mut faults) = (Breaker::default(), 0, 0);
    for now_ms in 0..600_000 {
        if let Ok(turn) = breaker.ask(now_ms) {
            calls += 1;
            let is_fault = fails(calls);
            faults += u64::from(is_fault);
            breaker.end(turn, if is_fault { Outcome::Fault } else { Outcome::Well }, now_ms);
        }
    }
    faults
}

#[test]
fn whatever_pattern_code_fails_in_it_costs_few_instances() {
    assert!(faults_in_ten_minutes(|_| true) < 20);
    assert!(faults_in_ten_minutes(|call| call % 7 == 0) < 100);
    assert!(faults_in_ten_minutes(|call| call % 10 == 0) < 100);
    assert!(faults_in_ten_minutes(|call| call % 1000 < 200) < 100);
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Ask,
    End(usize, Outcome),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let outcome = prop_oneof![Just(Outcome::Well), Just(Outcome::Fault), Just(Outcome::Unknown)];
    let step = prop_oneof![
        1 => (0..90_000_u64).prop_map(Step::Pass),
        4 => Just(Step::Ask),
        4 => (0..8_usize, outcome).prop_map(|(which, outcome)| Step::End(which, outcome)),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn nobody_calls_while_it_is_open_and_one_at_a_time_is_tried(steps in steps()) {
        let (mut breaker, mut now_ms, mut open_until_ms) = (Breaker::default(), 0, 0);
        let mut running: Vec<Turn> = Vec::new();
        for step in steps {
            match step {
                Step::Pass(passed_ms) => now_ms += passed_ms,
                Step::Ask => match breaker.ask(now_ms) {
                    Ok(turn) => {
                        prop_assert!(now_ms >= open_until_ms);
                        let tried = running.iter().filter(|one| one.is_trial() && one.era == turn.era);
                        prop_assert!(!turn.is_trial() || tried.count() == 0);
                        running.push(turn);
                    }
                    Err(wait_ms) => prop_assert!((1..=PAUSE_MS_MAX).contains(&wait_ms)),
                },
                Step::End(which, outcome) if !running.is_empty() => {
                    let turn = running.swap_remove(which % running.len());
                    match breaker.end(turn, outcome, now_ms) {
                        Some(Change::Opened { faults, calls, pause_ms }) => {
                            prop_assert_eq!(outcome, Outcome::Fault);
                            prop_assert!(turn.is_trial() || faults >= FAULTS_MIN);
                            prop_assert!(faults <= calls && faults * CALLS_PER_FAULT_MAX >= calls);
                            prop_assert!((PAUSE_MS_MIN..=PAUSE_MS_MAX).contains(&pause_ms));
                            open_until_ms = now_ms + pause_ms;
                        }
                        Some(Change::Closed) => prop_assert!(turn.is_trial() && outcome == Outcome::Well),
                        None => {}
                    }
                }
                Step::End(..) => {}
            }
        }
    }

    #[test]
    fn code_that_is_mended_is_called_again_within_the_longest_pause(steps in steps()) {
        let (mut breaker, mut now_ms) = (Breaker::default(), 0);
        for step in steps {
            match step {
                Step::Pass(passed_ms) => now_ms += passed_ms,
                Step::Ask => drop(call(&mut breaker, Outcome::Fault, now_ms)),
                Step::End(_, outcome) => drop(call(&mut breaker, outcome, now_ms)),
            }
        }
        now_ms += PAUSE_MS_MAX;
        prop_assert!(call(&mut breaker, Outcome::Well, now_ms).is_ok());
        prop_assert_eq!(breaker.stand(now_ms), Stand::Closed);
    }
}
