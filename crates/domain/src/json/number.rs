//! Exact comparison of decimal numbers by their text, without calculating.

use std::{cmp::Ordering, fmt::Write as _};

use serde_json::Number;

/// A number taken apart: sign × 0.d₁d₂d₃… × 10^magnitude, with d₁ ≠ 0 unless the number is zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decimal<'a> {
    negative: bool,
    /// Digits before the point, from the first one that counts; empty if there is none.
    whole: &'a [u8],
    /// Digits after the point, without leading zeros if `whole` is empty, without trailing zeros.
    fraction: &'a [u8],
    /// Exponents beyond ±2^62 are all the same.
    magnitude: i64,
}

const EXPONENT_MAX: i64 = 1 << 62;

impl<'a> Decimal<'a> {
    /// Takes a JSON number apart.
    pub(crate) fn of(number: &'a Number) -> Self {
        Self::of_text(number.as_str())
    }

    /// Takes the text of a JSON number apart; of any other text it makes some number.
    pub(crate) fn of_text(text: &'a str) -> Self {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        let first = fraction.trim_start_matches('0');
        let point = i64::try_from(whole.len()).unwrap_or(EXPONENT_MAX);
        let skipped = i64::try_from(fraction.len() - first.len()).unwrap_or(EXPONENT_MAX);
        // 64-bit parsing fails only for exponents that are out of every range.
        let exponent = exponent
            .parse::<i64>()
            .unwrap_or_else(|_| if exponent.starts_with('-') { -EXPONENT_MAX } else { EXPONENT_MAX });
        let exponent = exponent.clamp(-EXPONENT_MAX, EXPONENT_MAX);
        let (fraction, magnitude) =
            if whole.is_empty() { (first, exponent - skipped) } else { (fraction, exponent + point) };
        let mut decimal =
            Self { negative, whole: whole.as_bytes(), fraction: fraction.as_bytes(), magnitude };
        if decimal.is_zero() {
            decimal.negative = false;
            decimal.magnitude = 0;
        }
        decimal
    }

    /// Whether it is zero.
    pub(crate) fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }

    /// Whether it is below zero.
    pub(crate) fn is_negative(&self) -> bool {
        self.negative
    }

    /// The power of ten in front of which the number is 0.d₁d₂d₃….
    pub(crate) fn magnitude(&self) -> i64 {
        self.magnitude
    }

    /// Digits that count, trailing zeros of the whole part included.
    pub(crate) fn digits(self) -> impl Iterator<Item = u8> {
        self.whole.iter().chain(self.fraction).copied()
    }

    /// Compares by value.
    pub(crate) fn cmp(&self, other: &Self) -> Ordering {
        let sign = |decimal: &Self| match (decimal.is_zero(), decimal.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let by_sign = sign(self).cmp(&sign(other));
        if by_sign.is_ne() || self.is_zero() {
            return by_sign;
        }
        let by_size = self.magnitude.cmp(&other.magnitude).then_with(|| self.cmp_digits(*other));
        if self.negative { by_size.reverse() } else { by_size }
    }

    fn cmp_digits(self, other: Self) -> Ordering {
        let (mut left, mut right) = (self.digits(), other.digits());
        loop {
            match (left.next(), right.next()) {
                (None, None) => return Ordering::Equal,
                (left, right) => {
                    let order = left.unwrap_or(b'0').cmp(&right.unwrap_or(b'0'));
                    if order.is_ne() {
                        return order;
                    }
                }
            }
        }
    }

    /// Appends a spelling that equal numbers share.
    pub(crate) fn write_canonical(self, out: &mut String) {
        if self.negative {
            out.push('-');
        }
        out.push('.');
        let start = out.len();
        out.extend(self.digits().map(char::from));
        let kept = out[start..].trim_end_matches('0').len();
        out.truncate(start + kept);
        write!(out, "e{}", self.magnitude).expect("a text takes everything");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        let mut out = String::new();
        Decimal::of_text(text).write_canonical(&mut out);
        out
    }

    #[test]
    fn spellings_of_one_number_are_equal_and_share_a_canonical_form() {
        for (left, right) in [
            ("1", "1.0"),
            ("1", "10e-1"),
            ("100", "1E2"),
            ("0", "-0.000e7"),
            ("0.001", "1e-3"),
            ("12.50", "0.125e2"),
            ("9007199254740993", "9007199254740993.000"),
        ] {
            assert_eq!(
                Decimal::of_text(left).cmp(&Decimal::of_text(right)),
                Ordering::Equal,
                "{left} {right}"
            );
            assert_eq!(canonical(left), canonical(right), "{left} {right}");
        }
    }

    #[test]
    fn numbers_that_a_float_cannot_tell_apart_differ() {
        for (less, more) in [
            ("9007199254740992", "9007199254740993"),
            ("0.1", "0.10000000000000000001"),
            ("1e400", "1e401"),
            ("-1e400", "1e-400"),
            ("-2", "-1"),
            ("-1", "0"),
            ("0", "1e-999999999999999999999999"),
        ] {
            assert_eq!(Decimal::of_text(less).cmp(&Decimal::of_text(more)), Ordering::Less, "{less} {more}");
            assert_eq!(
                Decimal::of_text(more).cmp(&Decimal::of_text(less)),
                Ordering::Greater,
                "{less} {more}"
            );
            assert_ne!(canonical(less), canonical(more));
        }
    }

    proptest! {
        #[test]
        fn integers_compare_as_integers(left: i64, right: i64) {
            let (l, r) = (left.to_string(), right.to_string());
            prop_assert_eq!(Decimal::of_text(&l).cmp(&Decimal::of_text(&r)), left.cmp(&right));
            prop_assert_eq!(canonical(&l) == canonical(&r), left == right);
        }

        #[test]
        fn floats_compare_as_floats(left in -1e300..1e300_f64, right in -1e300..1e300_f64) {
            let (l, r) = (format!("{left:e}"), format!("{right}"));
            let expected = left.partial_cmp(&right).expect("both are numbers");
            prop_assert_eq!(Decimal::of_text(&l).cmp(&Decimal::of_text(&r)), expected);
        }

        #[test]
        fn any_text_is_taken_apart_without_a_panic(text in ".{0,40}") {
            let decimal = Decimal::of_text(&text);
            prop_assert!(decimal.cmp(&decimal).is_eq());
        }
    }
}
