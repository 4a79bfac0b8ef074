//! What follows a call about an event.

use std::time::Duration;

use aegis_wasm::{CallError, RefusalCode};

/// Calls about one event.
pub(super) const ATTEMPTS_MAX: u32 = 5;
/// Pause after the first call, doubled after each further one.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Pause after a call that says nothing about the event.
const PAUSE: Duration = Duration::from_millis(250);

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The code has taken it.
    Taken,
    /// It is told again after this time.
    Again(Duration),
    /// It is told again after this time, and as often as if it had not been told: the code was not called, or could not do
    /// anything about it.
    Waits(Duration),
    /// It is not told again.
    GivenUp,
}

/// Decides after the call with this number, from 1; while the store is away, whatever code fails at fails for that.
pub(super) fn verdict(attempt: u32, outcome: &Result<(), CallError>, store_is_there: bool) -> Verdict {
    let error = match outcome {
        Ok(()) => return Verdict::Taken,
        Err(CallError::Busy { .. }) => return Verdict::Waits(PAUSE),
        Err(_) if !store_is_there => return Verdict::Waits(PAUSE),
        Err(error) => error,
    };
    let is_final = match error {
        // Another call would be answered the same.
        CallError::Refused(refusal) => {
            !refusal.transient
                && matches!(
                    refusal.code,
                    RefusalCode::Invalid
                        | RefusalCode::NotFound
                        | RefusalCode::Denied
                        | RefusalCode::TooLarge
                        | RefusalCode::Unsupported
                )
        }
        CallError::Deadline { .. }
        | CallError::Trapped { .. }
        | CallError::Involved { .. }
        | CallError::Busy { .. } => false,
    };
    if is_final || attempt >= ATTEMPTS_MAX {
        return Verdict::GivenUp;
    }
    Verdict::Again(PAUSE_MIN * 2_u32.pow(attempt.saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use aegis_wasm::Refusal;

    use super::*;

    #[test]
    fn a_defect_is_tried_again_ever_later_and_then_given_up() {
        let trap = || {
            let (module, reason) = ("a".to_owned(), "unreachable".to_owned());
            Err(CallError::Trapped { module, entry: "on-event".into(), reason })
        };
        let verdicts: Vec<_> = (1..=ATTEMPTS_MAX).map(|attempt| verdict(attempt, &trap(), true)).collect();
        let again = |milliseconds| Verdict::Again(Duration::from_millis(milliseconds));
        assert_eq!(verdicts, [again(100), again(200), again(400), again(800), Verdict::GivenUp]);
        assert_eq!(verdict(3, &Ok(()), true), Verdict::Taken);
    }

    #[test]
    fn what_says_nothing_about_the_event_is_no_attempt_at_it() {
        let busy = Err(CallError::Busy { module: "a".to_owned() });
        let refused = Err(CallError::Refused(Refusal::new(RefusalCode::Unavailable, "the store is away")));
        for attempt in [1, ATTEMPTS_MAX, 1_000] {
            assert_eq!(verdict(attempt, &busy, true), Verdict::Waits(PAUSE));
            assert_eq!(verdict(attempt, &refused, false), Verdict::Waits(PAUSE));
        }
        assert_eq!(verdict(ATTEMPTS_MAX, &refused, true), Verdict::GivenUp);
        assert_eq!(verdict(1_000, &Ok(()), false), Verdict::Taken);
    }

    #[test]
    fn a_no_that_stays_a_no_is_not_asked_for_again() {
        let refused = |code, transient| {
            let refusal = Refusal { transient, ..Refusal::new(code, "no") };
            verdict(1, &Err(CallError::Refused(refusal)), true)
        };
        assert_eq!(refused(RefusalCode::Invalid, false), Verdict::GivenUp);
        assert!(matches!(refused(RefusalCode::Invalid, true), Verdict::Again(_)));
        for code in [RefusalCode::Unavailable, RefusalCode::Conflict, RefusalCode::Timeout] {
            assert!(matches!(refused(code, false), Verdict::Again(_)), "{code:?}");
        }
    }
}
