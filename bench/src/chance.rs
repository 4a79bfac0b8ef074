//! Whether two counts differ by more than chance.

/// Below this chance a difference is not taken for chance: one comparison in a hundred of what is alike fails.
pub(crate) const LEVEL: f64 = 0.01;

/// The chance that pairs of counts whose two sides come from the same source have together at least as much more on the
/// first side as these do.
///
/// It is the exact sign-flip test of pairs (Fisher, The Design of Experiments, 1935, § 21): were the sides alike, each
/// difference `d` of a pair might as well have been `-d`, so of the `2^n` ways to give the `n` differences their signs all
/// are equally likely, and the answer is the share of those whose sum is at least that of `d` as they are:
///
/// ```text
///   p = #{ s ∈ {-1, 1}ⁿ : Σ sᵢ·|dᵢ| ≥ Σ dᵢ } / 2ⁿ
/// ```
///
/// Unlike a binomial or Poisson bound of the two sums it does not ask that single requests be slow independently of each
/// other. They are not: whatever makes one of them wait makes all wait that are in flight. `p` cannot be below `2⁻ⁿ`.
pub(crate) fn of_no_fewer(pairs: &[(u32, u32)]) -> f64 {
    let differences: Vec<i64> =
        pairs.iter().map(|&(first, second)| i64::from(first) - i64::from(second)).collect();
    let observed: i64 = differences.iter().sum();
    let most: i64 = differences.iter().map(|difference| difference.abs()).sum();
    // Σ sᵢ·|dᵢ| = 2·(sum of those with a plus) - most, so the sums of subsets are enough.
    let mut chances = vec![0.0; most as usize + 1];
    chances[0] = 1.0;
    let mut reached = 0;
    for size in differences.iter().map(|difference| difference.unsigned_abs() as usize) {
        reached += size;
        for sum in (0..=reached).rev() {
            let with = if sum >= size { chances[sum - size] } else { 0.0 };
            chances[sum] = (chances[sum] + with) / 2.0;
        }
    }
    let least = (observed + most) / 2;
    chances[least as usize..].iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "found {found}, expected {expected}");
    }

    /// All signs, one after the other.
    fn counted(pairs: &[(u32, u32)]) -> f64 {
        let differences: Vec<i64> = pairs.iter().map(|&(a, b)| i64::from(a) - i64::from(b)).collect();
        let observed: i64 = differences.iter().sum();
        let sum = |signs: u32| -> i64 {
            let signed = |(n, difference): (usize, &i64)| {
                if signs & (1 << n) == 0 { difference.abs() } else { -difference.abs() }
            };
            differences.iter().enumerate().map(signed).sum()
        };
        let all = 1_u32 << pairs.len();
        f64::from((0..all).filter(|&signs| sum(signs) >= observed).count() as u32) / f64::from(all)
    }

    #[test]
    fn more_in_every_pair_is_as_unlikely_as_heads_every_time() {
        close(of_no_fewer(&[(3, 0), (5, 1), (2, 1), (9, 0), (1, 0), (8, 7), (4, 2)]), 1.0 / 128.0);
    }

    #[test]
    fn fewer_is_never_surprising() {
        close(of_no_fewer(&[(0, 3), (1, 5)]), 1.0);
    }

    #[test]
    fn nothing_differs_from_nothing_by_chance_alone() {
        close(of_no_fewer(&[]), 1.0);
        close(of_no_fewer(&[(0, 0), (4, 4)]), 1.0);
    }

    #[test]
    fn one_pause_of_the_machine_that_hit_many_requests_is_one_event() {
        assert!(of_no_fewer(&[(16_000, 0), (1, 1), (0, 1), (2, 2), (1, 0)]) > 0.1);
    }

    #[test]
    fn it_is_what_trying_all_signs_gives() {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 28
        };
        for length in 0..=12 {
            let pairs: Vec<(u32, u32)> = (0..length).map(|_| (next(), next())).collect();
            close(of_no_fewer(&pairs), counted(&pairs));
        }
    }

    #[test]
    fn a_steady_surplus_is_found_under_noise() {
        let pairs: Vec<(u32, u32)> = (0..60).map(|n| (10 + n * 7 % 11, 5 + n * 5 % 13)).collect();
        assert!(of_no_fewer(&pairs) < LEVEL);
    }
}
