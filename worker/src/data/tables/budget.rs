//! How models share the memory for bodies. Pure.
//!
//! While all bodies fit, every model may keep all of its own, and the rest is spread evenly. When they do not, small
//! models keep everything and the large ones share equally what is left (max-min fairness), so that a model that grows
//! cannot push out one that does not.

/// Beyond this share of its demand a model gets room to grow, so that shares are not computed for each document.
const GROWTH_DIVISOR: u64 = 4;

/// Shares of all models. Their sum never exceeds the whole.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_max: u64,
    shares: Vec<u64>,
    /// Do all bodies fit?
    fits: bool,
}

impl Budget {
    /// Equal shares.
    pub(super) fn new(bytes_max: u64, models: usize) -> Self {
        Self { bytes_max, shares: vec![bytes_max / models.max(1) as u64; models], fits: true }
    }

    /// Bytes that a model may keep.
    pub(super) fn share(&self, model: usize) -> u64 {
        self.shares[model]
    }

    /// Would another distribution let the model keep all its bodies?
    pub(super) fn is_too_small(&self, model: usize, demand: u64) -> bool {
        self.fits && demand > self.shares[model]
    }

    /// Distributes anew. Returns the models whose share has changed, smaller shares first, so that the whole is not
    /// exceeded in between.
    pub(super) fn set_demands(&mut self, demands: &[u64]) -> Vec<(usize, u64)> {
        self.fits = demands
            .iter()
            .try_fold(0_u64, |sum, demand| sum.checked_add(*demand))
            .is_some_and(|sum| sum <= self.bytes_max);
        let shares =
            if self.fits { with_growth(self.bytes_max, demands) } else { fair(self.bytes_max, demands) };
        let mut changed: Vec<(usize, u64)> = shares.iter().copied().enumerate().collect();
        changed.retain(|(model, share)| self.shares[*model] != *share);
        changed.sort_by_key(|(model, share)| *share > self.shares[*model]);
        self.shares = shares;
        changed
    }
}

/// All demands fit: room to grow in proportion first, the rest evenly.
fn with_growth(bytes_max: u64, demands: &[u64]) -> Vec<u64> {
    let spare = bytes_max - demands.iter().sum::<u64>();
    let growth: Vec<u64> = demands.iter().map(|demand| demand / GROWTH_DIVISOR).collect();
    let growth = if growth.iter().sum::<u64>() <= spare { growth } else { vec![0; demands.len()] };
    let rest = (spare - growth.iter().sum::<u64>()) / demands.len().max(1) as u64;
    demands.iter().zip(growth).map(|(demand, growth)| demand + growth + rest).collect()
}

/// The demands do not fit: the smallest are met first.
fn fair(bytes_max: u64, demands: &[u64]) -> Vec<u64> {
    let mut order: Vec<usize> = (0..demands.len()).collect();
    order.sort_by_key(|model| demands[*model]);
    let mut shares = vec![0; demands.len()];
    let (mut left, mut waiting) = (bytes_max, demands.len() as u64);
    for model in order {
        shares[model] = demands[model].min(left / waiting);
        left -= shares[model];
        waiting -= 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_fits_is_kept_whole_with_room_to_grow() {
        let mut budget = Budget::new(1000, 2);
        assert!(budget.is_too_small(0, 600));
        assert_eq!(budget.set_demands(&[600, 40]), [(1, 150), (0, 850)], "smaller shares first");
        assert!(!budget.is_too_small(0, 850));
    }

    #[test]
    fn a_large_model_does_not_push_out_a_small_one() {
        let mut budget = Budget::new(1000, 3);
        budget.set_demands(&[50_000, 100, 700]);
        assert_eq!(budget.shares, [450, 100, 450]);
        assert!(!budget.is_too_small(0, 50_000), "no distribution would help");
    }

    proptest! {
        #[test]
        fn the_whole_is_never_exceeded_and_small_demands_are_met(
            bytes_max in 0..10_000_u64,
            rounds in prop::collection::vec(prop::collection::vec(0..5_000_u64, 4), 1..5),
        ) {
            let mut budget = Budget::new(bytes_max, 4);
            let mut shares = budget.shares.clone();
            for demands in rounds {
                for (model, share) in budget.set_demands(&demands) {
                    shares[model] = share;
                    prop_assert!(shares.iter().sum::<u64>() <= bytes_max, "in between");
                }
                prop_assert_eq!(&shares, &budget.shares);
                prop_assert!(shares.iter().sum::<u64>() <= bytes_max);
                for (demand, share) in demands.iter().zip(&shares) {
                    prop_assert!(*share >= (*demand).min(bytes_max / 4));
                }
            }
        }
    }
}
