//! What a document must be like to be in a list.

use memchr::memmem;

use super::{
    pattern::Pattern,
    spans::{Precision, Spans},
};
use crate::{
    order::{self, KEY_BYTES_MAX, Key, Times, tag},
    raw,
    spec::FieldKind,
};

/// A field of a document, as a client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    /// The name, dots included.
    pub(crate) name: String,
    /// The way to the value.
    pub(crate) path: Vec<String>,
    /// What it holds, as far as that is declared.
    pub(crate) kind: FieldKind,
    /// Points in time within it, of a row that a stage of a pipeline has made.
    pub(crate) within: Times,
}

impl Field {
    /// The value in a stored document.
    pub(crate) fn find<'a>(&self, document: &'a [u8]) -> Option<&'a [u8]> {
        raw::find(document, &self.path)
    }

    /// All points in time of it.
    pub(crate) fn times(&self) -> Times {
        if self.within.is_empty() { Times::of(self.kind) } else { self.within.clone() }
    }

    /// Appends the canonical bytes of a value of it, as it is written in a document or row.
    pub(crate) fn write_key(&self, value: Option<&[u8]>, out: &mut Vec<u8>) {
        if self.within.is_empty() {
            order::write_raw(self.kind, value, out);
        } else {
            self.within.write_raw(value, out);
        }
    }
}

/// A condition on a document.
#[derive(Debug, Clone)]
pub(crate) enum Filter {
    /// Every one holds; without parts it always holds.
    All(Vec<Filter>),
    /// At least one holds.
    Any(Vec<Filter>),
    /// It does not hold.
    Not(Box<Filter>),
    /// A field passes a test.
    Is(Condition),
}

/// A test of a field.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    /// The field.
    pub(crate) field: Field,
    /// The test.
    pub(crate) test: Test,
}

/// A test of a value.
#[derive(Debug, Clone)]
pub(crate) enum Test {
    /// Its key is in a set.
    Within(Spans),
    /// It is a text like a pattern.
    Like(Pattern),
    /// It is a text with a part, or an array with an item.
    Contains(Box<Part>),
}

/// What a text or an array contains.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    text: memmem::Finder<'static>,
    items: Vec<Key>,
}

/// What is known about a condition without looking at the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It holds.
    Yes,
    /// It does not.
    No,
    /// Only the document can tell.
    Unknown,
}

impl From<bool> for Verdict {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl Part {
    /// A part of a text, or an item of an array that is this text or the value that this text spells.
    pub(crate) fn new(text: &str, spelled: Option<Key>) -> Self {
        let mut items = vec![Key::from_canonical(&[&[tag::TEXT], text.as_bytes()].concat())];
        items.extend(spelled);
        Self { text: memmem::Finder::new(text).into_owned(), items }
    }
}

impl Condition {
    /// Whether a stored document passes. `scratch` is memory to work in.
    pub(crate) fn holds(&self, document: &[u8], scratch: &mut Vec<u8>) -> bool {
        let value = self.field.find(document);
        scratch.clear();
        match &self.test {
            Test::Within(spans) => {
                self.field.write_key(value, scratch);
                spans.contains(scratch)
            }
            Test::Like(pattern) => value
                .is_some_and(|value| value.starts_with(b"\"") && pattern.fits(raw::text(value).as_bytes())),
            Test::Contains(part) => value.is_some_and(|value| match value.first() {
                Some(b'"') => part.text.find(raw::text(value).as_bytes()).is_some(),
                Some(b'[') => raw::items(value).any(|item| {
                    scratch.clear();
                    order::write_raw(FieldKind::Any, Some(item), scratch);
                    part.items.iter().any(|key| key.as_bytes() == scratch.as_slice())
                }),
                _ => false,
            }),
        }
    }

    /// How much work it is at most to find out whether a document of so many bytes passes, in bytes that only
    /// have to be read.
    pub(crate) fn work(&self, document_bytes: usize) -> u64 {
        1 + document_bytes as u64 + self.pattern_work(document_bytes)
    }

    /// What of it is due to a pattern, when the value has so many bytes.
    pub(crate) fn pattern_work(&self, value_bytes: usize) -> u64 {
        match &self.test {
            Test::Like(pattern) => pattern.work(value_bytes),
            Test::Within(_) | Test::Contains(_) => 0,
        }
    }

    /// What the key of the field tells, as an index keeps it.
    pub(crate) fn judge(&self, key: &[u8]) -> Verdict {
        if key.len() >= KEY_BYTES_MAX {
            return Verdict::Unknown;
        }
        match (&self.test, key[0]) {
            (Test::Within(spans), _) => spans.contains(key).into(),
            // The key of a point in time is not the text that was written.
            (_, tag::INSTANT) | (Test::Contains(_), tag::ARRAY) => Verdict::Unknown,
            (Test::Like(pattern), tag::TEXT) => pattern.fits(&key[1..]).into(),
            (Test::Contains(part), tag::TEXT) => part.text.find(&key[1..]).is_some().into(),
            (Test::Like(_) | Test::Contains(_), _) => Verdict::No,
        }
    }

    /// Keys of an index among which are all that pass.
    fn spans(&self) -> (Spans, Precision) {
        match &self.test {
            Test::Within(spans) => spans.cut(),
            Test::Like(pattern) if self.field.kind != FieldKind::Timestamp => {
                let prefix = [&[tag::TEXT], pattern.prefix().as_bytes()].concat();
                (Spans::starting_with(&prefix).cut().0, Precision::Wider)
            }
            Test::Like(_) | Test::Contains(_) => (Spans::everything(), Precision::Wider),
        }
    }
}

impl Filter {
    /// The filter that everything passes.
    pub(crate) fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// Whether everything passes, by its form.
    pub(crate) fn is_everything(&self) -> bool {
        matches!(self, Self::All(parts) if parts.iter().all(Self::is_everything))
    }

    /// Both.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self.is_everything(), other.is_everything()) {
            (true, _) => other,
            (_, true) => self,
            (false, false) => Self::All(vec![self, other]),
        }
    }

    /// Whether a stored document passes. `scratch` is memory to work in.
    pub(crate) fn holds(&self, document: &[u8], scratch: &mut Vec<u8>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(document, scratch)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(document, scratch)),
            Self::Not(part) => !part.holds(document, scratch),
            Self::Is(condition) => condition.holds(document, scratch),
        }
    }

    /// Combines what is known about the conditions (Kleene's logic).
    pub(crate) fn judge(&self, known: &mut impl FnMut(&Condition) -> Verdict) -> Verdict {
        match self {
            Self::All(parts) => Self::fold(parts, Verdict::Yes, Verdict::No, known),
            Self::Any(parts) => Self::fold(parts, Verdict::No, Verdict::Yes, known),
            Self::Not(part) => match part.judge(known) {
                Verdict::Yes => Verdict::No,
                Verdict::No => Verdict::Yes,
                Verdict::Unknown => Verdict::Unknown,
            },
            Self::Is(condition) => known(condition),
        }
    }

    fn fold(
        parts: &[Self],
        neutral: Verdict,
        decisive: Verdict,
        known: &mut impl FnMut(&Condition) -> Verdict,
    ) -> Verdict {
        let mut verdict = neutral;
        for part in parts {
            match part.judge(known) {
                decided if decided == decisive => return decisive,
                Verdict::Unknown => verdict = Verdict::Unknown,
                Verdict::Yes | Verdict::No => {}
            }
        }
        verdict
    }

    /// Keys of the index of a field among which are those of all documents that pass. [`Precision::Exact`]: and of no others.
    pub(crate) fn spans(&self, field: &str) -> (Spans, Precision) {
        match self {
            Self::Is(condition) if condition.field.name == field => condition.spans(),
            Self::Is(_) => (Spans::everything(), Precision::Wider),
            Self::All(parts) => parts.iter().map(|part| part.spans(field)).fold(
                (Spans::everything(), Precision::Exact),
                |(spans, precision), (more, its_precision)| {
                    (spans.intersect(&more), precision.and(its_precision))
                },
            ),
            Self::Any(parts) => {
                let parts: Vec<_> = parts.iter().map(|part| part.spans(field)).collect();
                let precision = parts.iter().fold(Precision::Exact, |all, (_, its)| all.and(*its));
                (Spans::union(parts.into_iter().map(|(spans, _)| spans)), precision)
            }
            Self::Not(part) => match part.spans(field) {
                (spans, Precision::Exact) => (spans.complement(), Precision::Exact),
                (_, Precision::Wider) => (Spans::everything(), Precision::Wider),
            },
        }
    }

    /// Visits every condition.
    pub(crate) fn conditions(&self, visit: &mut impl FnMut(&Condition)) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.conditions(visit)),
            Self::Not(part) => part.conditions(visit),
            Self::Is(condition) => visit(condition),
        }
    }
}
