//! What the code of a model wants to hear of: events by name, or by how their names begin.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::EventKind;

/// Most subscriptions of one model.
pub const SUBSCRIPTIONS_MAX: usize = 64;
/// Longest pattern, bytes.
const PATTERN_BYTES_MAX: usize = 128;

/// The name of an event, upper case, or with `*` at its end how names begin.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventPattern(String);

impl EventPattern {
    /// Reads a pattern, in any case.
    ///
    /// # Errors
    /// What was found and what is expected.
    pub fn new(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix('*').unwrap_or(text);
        let fits = text.len() <= PATTERN_BYTES_MAX
            && !text.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        if fits {
            return Ok(Self(text.to_ascii_uppercase()));
        }
        let quoted: String = text.chars().take(PATTERN_BYTES_MAX).collect();
        Err(format!(
            "found {quoted:?}, expected the name of an event, such as CREATEORDER, or its beginning with '*' behind it"
        ))
    }

    /// What means all events.
    #[must_use]
    pub fn any() -> Self {
        Self("*".to_owned())
    }

    /// The pattern.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an event with this name, upper case, is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => self.0 == name,
        }
    }

    /// Whether all that `other` means is meant.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        match (self.0.strip_suffix('*'), other.0.strip_suffix('*')) {
            (Some(beginning), Some(longer)) => longer.starts_with(beginning),
            (_, None) => self.matches(&other.0),
            (None, Some(_)) => false,
        }
    }

    /// Whether only changes of this model, upper case, are meant.
    #[must_use]
    pub fn is_about(&self, model: &str) -> bool {
        [EventKind::Create, EventKind::Update, EventKind::Delete]
            .into_iter()
            .any(|kind| self.0.strip_prefix(kind.as_str()) == Some(model))
    }
}

impl fmt::Display for EventPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> EventPattern {
        EventPattern::new(text).unwrap()
    }

    #[test]
    fn a_name_means_one_event_and_a_beginning_all_that_begin_so() {
        assert!(pattern("createorder").matches("CREATEORDER"));
        assert!(!pattern("CREATEORDER").matches("CREATEORDERS"));
        assert!(pattern("CREATE*").matches("CREATEORDER"));
        assert!(!pattern("CREATE*").matches("UPDATEORDER"));
        assert_eq!(pattern("*"), EventPattern::any());
        assert!(pattern("*").matches("ANY"));
        for text in ["", "a b", "*a", "a*b", "a**", "é", &"x".repeat(PATTERN_BYTES_MAX + 1)] {
            assert!(EventPattern::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn own_events_are_the_three_of_the_model_and_no_beginning() {
        assert!(pattern("DeleteOrder").is_about("ORDER"));
        for text in ["DELETEORDERS", "DELETE*", "ORDER", "DELETEORDER*"] {
            assert!(!pattern(text).is_about("ORDER"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn who_covers_a_pattern_matches_what_it_matches(
            one in "[AB]{0,3}[*]?", other in "[AB]{0,3}[*]?", name in "[AB]{1,4}",
        ) {
            let (Ok(one), Ok(other)) = (EventPattern::new(&one), EventPattern::new(&other)) else { return Ok(()) };
            if one.covers(&other) && other.matches(&name) {
                prop_assert!(one.matches(&name));
            }
        }
    }
}
