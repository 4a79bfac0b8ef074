//! Jitter: a small generator whose state is part of the fleet, so that a run can be repeated from its seed.

use serde::{Deserialize, Serialize};

/// State of the generator (SplitMix64: Steele, Lea, Flood, 2014). For jitter only, never for secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chance {
    state: u64,
}

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// `value` plus or minus at most `percent` of it.
    pub(super) fn around(&mut self, value: u64, percent: u64) -> u64 {
        let spread = value / 100 * percent + value % 100 * percent / 100;
        (value - spread).saturating_add(self.next() % (spread.saturating_mul(2).saturating_add(1)))
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_share_and_reaches_both_ends() {
        let mut chance = Chance::new(7);
        let drawn: Vec<u64> = (0..2000).map(|_| chance.around(1000, 20)).collect();
        assert!(drawn.iter().all(|value| (800..=1200).contains(value)));
        assert!(drawn.iter().any(|value| *value < 820) && drawn.iter().any(|value| *value > 1180));
        assert_eq!(chance.around(0, 20), 0);
    }
}
