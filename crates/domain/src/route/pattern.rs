//! Patterns of paths.

use std::{cmp::Ordering, collections::BTreeSet};

/// Bytes of a pattern.
const PATTERN_BYTES_MAX: usize = 200;
/// Segments of a pattern.
const SEGMENTS_MAX: usize = 16;
/// Bytes of the name of a part that matches anything.
const NAME_BYTES_MAX: usize = 64;

/// Where a pattern begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// At the path of its model.
    Model,
    /// At the root of the host.
    Root,
}

/// A pattern of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    base: Base,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    /// Itself.
    Literal(String),
    /// Any one, under this name.
    Any(String),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What was found and what is expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(PATTERN_BYTES_MAX).collect();
        let found = |what: &str| format!("found {shown:?}, {what}");
        if text.len() > PATTERN_BYTES_MAX {
            return Err(found(&format!("expected at most {PATTERN_BYTES_MAX} bytes")));
        }
        let (base, below) = match (text.strip_prefix("//"), text.strip_prefix('/')) {
            (Some(below), _) => (Base::Root, below),
            (None, Some(below)) => (Base::Model, below),
            (None, None) => {
                return Err(found("expected a path like \"/{id}/label\", or \"//label\" from the root"));
            }
        };
        let mut names = BTreeSet::new();
        let mut segments = Vec::new();
        if !below.is_empty() {
            for segment in below.split('/') {
                let read = Segment::parse(segment).map_err(|message| found(&message))?;
                if let Segment::Any(name) = &read
                    && !names.insert(name.clone())
                {
                    return Err(found(&format!("which has {{{name}}} twice, expected every name once")));
                }
                segments.push(read);
            }
        }
        if segments.len() > SEGMENTS_MAX {
            return Err(found(&format!("expected at most {SEGMENTS_MAX} segments")));
        }
        if base == Base::Root && !matches!(segments.first(), Some(Segment::Literal(_))) {
            return Err(found("expected a name, and no part in braces, in front of a path from the root"));
        }
        let is_service = |segment: &Segment| *segment == Segment::Literal("service".to_owned());
        if base == Base::Model && segments.iter().take(2).any(is_service) {
            return Err(found("expected another: \"service\" leads to ports"));
        }
        Ok(Self { text: text.to_owned(), base, segments })
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Where it begins.
    #[must_use]
    pub fn base(&self) -> Base {
        self.base
    }

    /// Number of its segments.
    #[must_use]
    pub fn length(&self) -> usize {
        self.segments.len()
    }

    /// What its parts in braces are in the path of these segments, if it matches. Segments that mean places relative to
    /// others (`.` and `..`) match nothing.
    #[must_use]
    pub fn matches<S: AsRef<str>>(&self, path: &[S]) -> Option<Vec<(String, String)>> {
        if path.len() != self.segments.len() {
            return None;
        }
        let mut parts = Vec::new();
        for (segment, found) in self.segments.iter().zip(path) {
            match (segment, found.as_ref()) {
                (Segment::Literal(literal), found) if literal == found => {}
                (Segment::Literal(_), _) | (Segment::Any(_), "" | "." | "..") => return None,
                (Segment::Any(name), found) => parts.push((name.clone(), found.to_owned())),
            }
        }
        Some(parts)
    }

    /// Whether it matches a path that is `place` or below it.
    pub(super) fn reaches(&self, place: &str) -> bool {
        let mut segments = self.segments.iter();
        self.base == Base::Root
            && place.split('/').skip(1).all(|wanted| match segments.next() {
                Some(Segment::Literal(literal)) => literal == wanted,
                Some(Segment::Any(_)) => true,
                None => false,
            })
    }

    /// Whether it matches the same paths as another.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.base == other.base && self.precedence(other) == Ordering::Equal
    }

    /// Whether it matches all paths that another matches.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let covers = |(one, other): (&Segment, &Segment)| match (one, other) {
            (Segment::Any(_), _) => true,
            (Segment::Literal(literal), Segment::Literal(other)) => literal == other,
            (Segment::Literal(_), Segment::Any(_)) => false,
        };
        self.base == other.base
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(covers)
    }

    /// Which of two patterns is asked first: names go before parts in braces, from the first segment on.
    pub(super) fn precedence(&self, other: &Self) -> Ordering {
        let rank = |pattern: &Self| -> Vec<(bool, String)> {
            let one = |segment: &Segment| match segment {
                Segment::Literal(literal) => (false, literal.clone()),
                Segment::Any(_) => (true, String::new()),
            };
            pattern.segments.iter().map(one).collect()
        };
        rank(self).cmp(&rank(other))
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            let fits = (1..=NAME_BYTES_MAX).contains(&name.len())
                && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
            let wrong = || {
                format!("expected a name of at most {NAME_BYTES_MAX} letters, digits, '_' or '-' in braces")
            };
            return if fits { Ok(Self::Any(name.to_owned())) } else { Err(wrong()) };
        }
        match text {
            "" => Err("expected a name between slashes, and none at the end".to_owned()),
            "." | ".." => Err(format!("expected no {text:?} in it: it would lead to another place")),
            _ if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) => {
                Ok(Self::Literal(text.to_owned()))
            }
            _ => {
                Err("expected letters, digits, '-', '.', '_' or '~', or one name in braces, between slashes"
                    .to_owned())
            }
        }
    }
}
