//! Sets of keys: sorted, disjoint, half-open intervals of canonical bytes.
//!
//! Every comparison of the list grammar is one such set, which makes testing a value, combining filters on one field
//! and choosing a part of an index the same few operations.

use std::cmp::Ordering;

use crate::order::{KEY_BYTES_MAX, Key, tag};

/// A set of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spans(Vec<Span>);

/// Keys from `low`, below `high`; no `high` means to the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    /// Smallest key.
    pub(crate) low: Vec<u8>,
    /// First key that is too large.
    pub(crate) high: Option<Vec<u8>>,
}

/// Whether a set is exactly what was asked for, or more than that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    /// Nothing else.
    Exact,
    /// Everything asked for and perhaps more.
    Wider,
}

impl Precision {
    /// Exact only if both are.
    pub(crate) fn and(self, other: Self) -> Self {
        if self == Self::Exact { other } else { Self::Wider }
    }
}

/// The smallest byte string above another.
fn after(bytes: &[u8]) -> Vec<u8> {
    let mut next = Vec::with_capacity(bytes.len() + 1);
    next.extend_from_slice(bytes);
    next.push(0);
    next
}

fn compare_highs(left: Option<&[u8]>, right: Option<&[u8]>) -> Ordering {
    match (left, right) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(left), Some(right)) => left.cmp(right),
    }
}

impl Span {
    fn is_empty(&self) -> bool {
        self.high.as_ref().is_some_and(|high| *high <= self.low)
    }
}

impl Spans {
    /// All keys.
    pub(crate) fn everything() -> Self {
        Self(vec![Span { low: Vec::new(), high: None }])
    }

    /// Keys from `low`, below `high`.
    pub(crate) fn between(low: Vec<u8>, high: Option<Vec<u8>>) -> Self {
        Self::of(vec![Span { low, high }])
    }

    /// One key.
    pub(crate) fn one(key: &[u8]) -> Self {
        Self::between(key.to_vec(), Some(after(key)))
    }

    /// Missing and null, which are the same to every filter but `exists`.
    pub(crate) fn missing_or_null() -> Self {
        Self::between(vec![tag::MISSING], Some(vec![tag::NULL + 1]))
    }

    /// Everything that is there, be it null.
    pub(crate) fn present() -> Self {
        Self::between(vec![tag::NULL], None)
    }

    /// Keys of the same type below a key.
    pub(crate) fn below(key: &Key) -> Self {
        Self::between(vec![key.as_bytes()[0]], Some(key.as_bytes().to_vec()))
    }

    /// Keys of the same type above a key.
    pub(crate) fn above(key: &Key) -> Self {
        Self::between(after(key.as_bytes()), Some(vec![key.as_bytes()[0] + 1]))
    }

    /// Keys of the same type up to a key.
    pub(crate) fn up_to(key: &Key) -> Self {
        Self::between(vec![key.as_bytes()[0]], Some(after(key.as_bytes())))
    }

    /// Keys of the same type from a key.
    pub(crate) fn from(key: &Key) -> Self {
        Self::between(key.as_bytes().to_vec(), Some(vec![key.as_bytes()[0] + 1]))
    }

    /// Keys that start with these bytes.
    pub(crate) fn starting_with(prefix: &[u8]) -> Self {
        let mut high = prefix.to_vec();
        while high.last() == Some(&0xff) {
            high.pop();
        }
        let high = high.pop().map(|last| {
            high.push(last + 1);
            high
        });
        Self::between(prefix.to_vec(), high)
    }

    /// Keys after a key, whatever their type.
    pub(crate) fn after(key: &[u8]) -> Self {
        Self::between(after(key), None)
    }

    /// Keys before a key, whatever their type.
    pub(crate) fn before(key: &[u8]) -> Self {
        Self::between(Vec::new(), Some(key.to_vec()))
    }

    fn of(mut spans: Vec<Span>) -> Self {
        spans.retain(|span| !span.is_empty());
        spans.sort_unstable_by(|left, right| left.low.cmp(&right.low));
        let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match merged.last_mut() {
                Some(last) if last.high.as_ref().is_none_or(|high| *high >= span.low) => {
                    if compare_highs(last.high.as_deref(), span.high.as_deref()).is_lt() {
                        last.high = span.high;
                    }
                }
                _ => merged.push(span),
            }
        }
        Self(merged)
    }

    /// Whether it is every key.
    pub(crate) fn is_everything(&self) -> bool {
        matches!(self.0.as_slice(), [Span { low, high: None }] if low.is_empty())
    }

    /// The only key, if there is one only.
    pub(crate) fn single_key(&self) -> Option<&[u8]> {
        match self.0.as_slice() {
            [Span { low, high: Some(high) }] if high.strip_prefix(low.as_slice()) == Some(&[0]) => Some(low),
            _ => None,
        }
    }

    /// Whether a key is in it.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        let index = self.0.partition_point(|span| span.low.as_slice() <= key);
        index > 0 && self.0[index - 1].high.as_ref().is_none_or(|high| key < high.as_slice())
    }

    /// The intervals, ascending.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Span> {
        self.0.iter()
    }

    /// Keys in any of many sets.
    pub(crate) fn union(sets: impl IntoIterator<Item = Self>) -> Self {
        Self::of(sets.into_iter().flat_map(|set| set.0).collect())
    }

    /// Keys in both.
    pub(crate) fn intersect(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut common = Vec::new();
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            let order = compare_highs(a.high.as_deref(), b.high.as_deref());
            let span = Span {
                low: a.low.clone().max(b.low.clone()),
                high: if order.is_lt() { a.high.clone() } else { b.high.clone() },
            };
            if !span.is_empty() {
                common.push(span);
            }
            if order.is_le() {
                left.next();
            } else {
                right.next();
            }
        }
        Self(common)
    }

    /// Keys that are not in it.
    pub(crate) fn complement(&self) -> Self {
        let mut gaps = Vec::with_capacity(self.0.len() + 1);
        let mut low = Some(Vec::new());
        for span in &self.0 {
            if let Some(low) = low {
                gaps.push(Span { low, high: Some(span.low.clone()) });
            }
            low = span.high.clone();
        }
        if let Some(low) = low {
            gaps.push(Span { low, high: None });
        }
        Self::of(gaps)
    }

    /// The same set over keys that are cut after [`KEY_BYTES_MAX`] bytes, as indexes keep them.
    pub(crate) fn cut(&self) -> (Self, Precision) {
        let long = |bytes: &[u8]| bytes.len() > KEY_BYTES_MAX;
        if !self.0.iter().any(|span| long(&span.low) || span.high.as_deref().is_some_and(long)) {
            return (self.clone(), Precision::Exact);
        }
        let cut = self.0.iter().map(|span| Span {
            low: span.low[..span.low.len().min(KEY_BYTES_MAX)].to_vec(),
            high: span.high.as_ref().map(|high| match high.get(..KEY_BYTES_MAX) {
                Some(kept) if long(high) => after(kept),
                _ => high.clone(),
            }),
        });
        (Self::of(cut.collect()), Precision::Wider)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        vec(prop_oneof![Just(0), Just(1), Just(0xfe), Just(0xff)], 0..4)
    }

    fn spans() -> impl Strategy<Value = Spans> {
        vec((bytes(), proptest::option::of(bytes())), 0..4)
            .prop_map(|spans| Spans::of(spans.into_iter().map(|(low, high)| Span { low, high }).collect()))
    }

    proptest! {
        #[test]
        fn operations_are_those_of_sets(a in spans(), b in spans(), key in bytes()) {
            let (in_a, in_b) = (a.contains(&key), b.contains(&key));
            prop_assert_eq!(a.intersect(&b).contains(&key), in_a && in_b);
            prop_assert_eq!(Spans::union([a.clone(), b.clone()]).contains(&key), in_a || in_b);
            prop_assert_eq!(a.complement().contains(&key), !in_a);
            prop_assert_eq!(a.complement().complement(), a);
        }

        #[test]
        fn a_prefix_covers_what_starts_with_it(prefix in bytes(), key in bytes()) {
            prop_assert_eq!(Spans::starting_with(&prefix).contains(&key), key.starts_with(&prefix));
        }

        #[test]
        fn cut_sets_lose_no_key(
            low in 510_usize..515, high in 510_usize..515, key in 510_usize..515, tail in bytes(),
        ) {
            let long = |length: usize| vec![b'a'; length];
            let set = Spans::between(long(low), Some([long(high), tail.clone()].concat()));
            let key = [long(key), tail].concat();
            let kept = &key[..key.len().min(KEY_BYTES_MAX)];
            let (cut, precision) = set.cut();
            prop_assert!(!set.contains(&key) || cut.contains(kept));
            prop_assert!(precision == Precision::Wider || cut.contains(kept) == set.contains(&key));
        }
    }
}
