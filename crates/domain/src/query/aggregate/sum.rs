//! Sums of decimal numbers, exact while they fit into 128 bits.

use serde_json::Number;

use crate::json::Decimal;

/// Digits after the point that exact sums keep.
const SCALE_MAX: u32 = 18;
/// Digits of a mean behind those of the sum: more than any float can tell apart.
const MEAN_DIGITS: u32 = 60;
/// What floats are made smaller by, so that no sum of some is too large on its way: 2^-100.
const FAR: f64 = f64::from_bits((1023 - 100) << 52);

/// A sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Sum {
    /// `units` × 10^-`scale`.
    Exact {
        /// Whole number.
        units: i128,
        /// Digits after the point.
        scale: u32,
    },
    /// Too large or too fine to be exact.
    Float {
        /// As it is.
        near: f64,
        /// Times [`FAR`]: finite where `near` was too large on the way to what is not.
        far: f64,
    },
}

impl Default for Sum {
    fn default() -> Self {
        Self::Exact { units: 0, scale: 0 }
    }
}

impl Sum {
    /// The number of this text, which is a JSON number.
    fn of(text: &str) -> Self {
        let exact = Self::exact(Decimal::of_text(text));
        exact.unwrap_or_else(|| Self::inexact(text.parse().unwrap_or(f64::NAN)))
    }

    fn inexact(near: f64) -> Self {
        Self::Float { near, far: near * FAR }
    }

    fn exact(number: Decimal<'_>) -> Option<Self> {
        let mut units = 0_i128;
        let mut length = 0_i64;
        for digit in number.digits() {
            length += 1;
            units = units.checked_mul(10)?.checked_add(i128::from(digit.checked_sub(b'0')?))?;
        }
        if number.is_negative() {
            units = -units;
        }
        let scale = length.checked_sub(number.magnitude())?;
        match u32::try_from(scale) {
            Ok(scale) if scale <= SCALE_MAX => Some(Self::Exact { units, scale }),
            Ok(_) => None,
            Err(_) => {
                let zeros = u32::try_from(-scale).ok()?;
                Some(Self::Exact { units: units.checked_mul(10_i128.checked_pow(zeros)?)?, scale: 0 })
            }
        }
    }

    /// Adds the number of this text, which is a JSON number.
    pub(super) fn add(&mut self, text: &str) {
        let number = Self::of(text);
        *self = self.add_exact(number).unwrap_or_else(|| self.add_inexact(number));
    }

    fn add_exact(self, other: Self) -> Option<Self> {
        let (
            Self::Exact { units: left, scale: left_scale },
            Self::Exact { units: right, scale: right_scale },
        ) = (self, other)
        else {
            return None;
        };
        let scale = left_scale.max(right_scale);
        let left = left.checked_mul(10_i128.pow(scale - left_scale))?;
        let right = right.checked_mul(10_i128.pow(scale - right_scale))?;
        Some(Self::Exact { units: left.checked_add(right)?, scale })
    }

    fn add_inexact(self, other: Self) -> Self {
        let ((near, far), (other_near, other_far)) = (self.floats(), other.floats());
        Self::Float { near: near + other_near, far: far + other_far }
    }

    /// As near as a float can be, as it is and times [`FAR`].
    fn floats(self) -> (f64, f64) {
        match self {
            Self::Float { near, far } => (near, far),
            exact @ Self::Exact { .. } => {
                let near: f64 = exact.to_string().parse().unwrap_or(f64::NAN);
                (near, near * FAR)
            }
        }
    }

    /// The mean of so many numbers (not 0), as near as a float can be.
    pub(super) fn mean(self, count: u64) -> String {
        #[expect(clippy::cast_precision_loss, reason = "nobody adds up 2^53 documents")]
        let divisor = count as f64;
        let mean = match self {
            Self::Exact { units, scale } => divide(units, scale, count),
            Self::Float { near, .. } if near.is_finite() => near / divisor,
            Self::Float { far, .. } => far / divisor / FAR,
        };
        Self::inexact(mean).to_string()
    }
}

/// `units` × 10^-`scale` / `count`, rounded once.
fn divide(units: i128, scale: u32, count: u64) -> f64 {
    let count = u128::from(count);
    let mut digits = (units.unsigned_abs() / count).to_string();
    let mut rest = units.unsigned_abs() % count;
    let mut behind = scale;
    while rest > 0 && behind < scale + MEAN_DIGITS {
        digits.push_str(&(rest * 10 / count).to_string());
        rest = rest * 10 % count;
        behind += 1;
    }
    let sign = if units < 0 { "-" } else { "" };
    // What is left says only on which side of the middle between two floats it is.
    let more = if rest > 0 { "1" } else { "" };
    let behind = behind + u32::from(rest > 0);
    format!("{sign}{digits}{more}e-{behind}").parse().unwrap_or(f64::NAN)
}

impl std::fmt::Display for Sum {
    /// As a JSON number, or `null` when it is beyond what a float can hold.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Float { near, far } => {
                let float = if near.is_finite() { near } else { far / FAR };
                match Number::from_f64(float) {
                    // A whole float is written as one, whatever found its way into it.
                    Some(number) => formatter.write_str(number.as_str().trim_end_matches(".0")),
                    None => formatter.write_str("null"),
                }
            }
            Self::Exact { units, scale: 0 } => write!(formatter, "{units}"),
            Self::Exact { units, scale } => {
                let width = usize::try_from(scale).unwrap_or(usize::MAX) + 1;
                let digits = format!("{:0>width$}", units.unsigned_abs());
                let (whole, fraction) = digits.split_at(digits.len() + 1 - width);
                let fraction = fraction.trim_end_matches('0');
                let sign = if units < 0 { "-" } else { "" };
                let point = if fraction.is_empty() { "" } else { "." };
                write!(formatter, "{sign}{whole}{point}{fraction}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(numbers: &[&str]) -> String {
        let mut sum = Sum::default();
        numbers.iter().for_each(|number| sum.add(number));
        sum.to_string()
    }

    #[test]
    fn sums_of_decimals_are_exact() {
        assert_eq!(sum(&["0.1", "0.2"]), "0.3");
        assert_eq!(sum(&["9007199254740993", "1.50", "-0.50"]), "9007199254740994");
        assert_eq!(sum(&["1e3", "-1000.0"]), "0");
        assert_eq!(sum(&["-0.05"]), "-0.05");
        assert_eq!(sum(&[]), "0");
    }

    #[test]
    fn what_is_too_large_or_too_fine_becomes_a_float() {
        assert_eq!(sum(&["1e-30", "1"]), "1");
        assert_eq!(sum(&["170141183460469231731687303715884105727", "1"]), "1.7014118346046923e+38");
        assert_eq!(sum(&["1e300", "1e300"]), "2e+300");
        assert_eq!(sum(&["1e308", "1e308"]), "null");
        assert_eq!(sum(&["1e400"]), "null");
        for numbers in [["1e308", "1e308", "-1e308"], ["1e308", "-1e308", "1e308"]] {
            assert_eq!(sum(&numbers), "1e+308", "whatever comes first");
        }
    }

    fn mean(numbers: &[&str]) -> String {
        let mut sum = Sum::default();
        numbers.iter().for_each(|number| sum.add(number));
        sum.mean(numbers.len() as u64)
    }

    #[test]
    fn means_are_rounded_once() {
        assert_eq!(mean(&["0.1", "0.1", "0.1"]), "0.1");
        assert_eq!(mean(&["1", "2"]), "1.5");
        assert_eq!(mean(&["-1", "0", "0"]), "-0.3333333333333333");
        assert_eq!(mean(&["9007199254740993", "9007199254740995"]), "9007199254740994");
        assert_eq!(mean(&["1e308", "1e308"]), "1e+308");
        assert_eq!(mean(&["0", "0"]), "0");
    }

    proptest! {
        #[test]
        fn whole_numbers_add_up(numbers in proptest::collection::vec(any::<i64>(), 0..20)) {
            let texts: Vec<String> = numbers.iter().map(i64::to_string).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            prop_assert_eq!(sum(&texts), numbers.iter().map(|&number| i128::from(number)).sum::<i128>().to_string());
        }

        #[test]
        fn cents_add_up(cents in proptest::collection::vec(-100_000_i64..100_000, 0..20)) {
            let text = |cents: i64| {
                format!("{}{}.{:02}", if cents < 0 { "-" } else { "" }, cents.abs() / 100, cents.abs() % 100)
            };
            let texts: Vec<String> = cents.iter().map(|&cents| text(cents)).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let found = sum(&texts);
            let mut expected = Sum::default();
            expected.add(&text(cents.iter().sum()));
            prop_assert_eq!(found, expected.to_string());
        }
    }
}
