//! What is remembered of tokens is what verification would say.

use proptest::prelude::*;

use super::*;
use crate::access::known::Known;

/// Bounds that a few tokens fill.
const ENTRIES_MAX: usize = 40;
const BYTES_MAX: u64 = 64 * 1024;
/// How far the times in question are from [`NOW_S`].
const AROUND_S: i64 = 120;

fn know(known: &Known, token: &str, now_s: i64) -> Result<Principal, Mistake> {
    known.read(token, (&shared(), &terms()), now_s).map(|principal| (*principal).clone())
}

/// A token with this beginning and end, or one that somebody else has signed.
fn token_of((begins_s, ends_s, size, is_genuine): (Option<i64>, i64, usize, bool)) -> String {
    let mut claims = claims(&json!({"exp": NOW_S + ends_s, "more": vec!["x"; size]}));
    if let Some(begins_s) = begins_s {
        claims["nbf"] = json!(NOW_S + begins_s);
    }
    let secret = if is_genuine { SECRET } else { b"another secret, as long as the first one" };
    token(&json!({"alg": "HS256"}), &claims.to_string(), hs256(secret))
}

proptest! {
    #[test]
    fn what_is_remembered_is_what_would_be_verified_whatever_the_clock_does(
        tokens in prop::collection::vec(
            (prop::option::of(-AROUND_S..AROUND_S), -AROUND_S..AROUND_S, 0_usize..60, prop::bool::weighted(0.9)),
            1..60,
        ),
        asked in prop::collection::vec((any::<prop::sample::Index>(), -2 * AROUND_S..2 * AROUND_S), 1..200),
    ) {
        let known = Known::bounded(ENTRIES_MAX, BYTES_MAX);
        let tokens: Vec<String> = tokens.into_iter().map(token_of).collect();
        for (index, after_s) in asked {
            let (token, now_s) = (index.get(&tokens), NOW_S + after_s);
            let verified = token::read(token, &shared(), &terms(), now_s);
            prop_assert_eq!(know(&known, token, now_s), verified);
            let (entries, bytes) = known.size();
            prop_assert!(entries <= ENTRIES_MAX && bytes <= BYTES_MAX, "{} with {}", entries, bytes);
        }
    }
}

#[test]
fn a_token_is_verified_once_while_it_counts() {
    let known = Known::default();
    let (keys, terms) = (shared(), terms());
    let token = of(&claims(&json!({"exp": NOW_S + 60})));
    let at = |now_s: i64| known.read(&token, (&keys, &terms), now_s);
    let first = at(NOW_S).unwrap();
    assert!(Arc::ptr_eq(&first, &at(NOW_S + 60 + 29).unwrap()), "it is not made a second time");
    assert_eq!(at(NOW_S + 60 + 30).unwrap_err(), Mistake::Expired);
    assert_eq!(known.size().0, 0, "what has expired is forgotten");
}

#[test]
fn refusals_are_not_remembered_and_what_is_too_large_is_verified_each_time() {
    let known = Known::bounded(ENTRIES_MAX, BYTES_MAX);
    for number in 0..100 {
        let forged = token_of((None, 60, number, false));
        assert_eq!(know(&known, &forged, NOW_S), Err(Mistake::Signature));
        let early = token_of((Some(100), 110, number, true));
        assert_eq!(know(&known, &early, NOW_S), Err(Mistake::NotYet));
    }
    assert_eq!(known.size(), (0, 0));
    let known = Known::bounded(ENTRIES_MAX, 16 * 1024);
    let large = token_of((None, 60, 1200, true));
    assert!(know(&known, &large, NOW_S).is_ok() && know(&known, &large, NOW_S).is_ok());
    assert_eq!(known.size(), (0, 0));
    assert_eq!(know(&known, &"x".repeat(8 * 1024 + 1), NOW_S), Err(Mistake::TooLong));
}
