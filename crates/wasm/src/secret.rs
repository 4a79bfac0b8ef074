//! Secrets of the host while code uses them: their text is in the host, and is taken out of everything that code says.

use std::{borrow::Cow, fmt, sync::Arc};

use crate::call::{CallError, Refusal};

/// What stands where a secret stood.
const MARK: &str = "[secret]";
/// Shortest end of a secret that is taken out where a text was cut off in front, bytes.
const END_BYTES_MIN: usize = 4;

/// A secret. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Arc<str>);

impl SecretText {
    /// Keeps a text secret.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// What is kept secret.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretText(…)")
    }
}

/// The secrets that an instance has opened so far, and how many handles it has. The host's configuration bounds the
/// former.
#[derive(Debug, Default)]
pub(crate) struct OpenSecrets {
    known: Vec<SecretText>,
    pub(crate) handles: usize,
}

impl OpenSecrets {
    /// Takes note of a secret that the code may come to know.
    pub(crate) fn note(&mut self, text: &SecretText) {
        if !self.known.contains(text) {
            self.known.push(text.clone());
            // A secret that has another one in it goes first.
            self.known.sort_by_key(|text| std::cmp::Reverse(text.0.len()));
        }
    }

    /// A text without secrets.
    pub(crate) fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut redacted = Cow::Borrowed(text);
        for secret in &self.known {
            if redacted.contains(secret.reveal()) {
                redacted = Cow::Owned(redacted.replace(secret.reveal(), MARK));
            }
        }
        redacted
    }

    /// The end of a longer text without secrets, although it may begin in the middle of one.
    pub(crate) fn redact_end(&self, text: &str) -> String {
        let ends = self.known.iter().filter_map(|secret| {
            let secret = secret.reveal();
            let starts = secret.char_indices().map(|(at, _)| at).skip(1);
            let mut ends = starts.map(|at| &secret[at..]).take_while(|end| end.len() >= END_BYTES_MIN);
            ends.find(|end| text.starts_with(end)).map(str::len)
        });
        match ends.max() {
            Some(length) => format!("{MARK}{}", self.redact(&text[length..])),
            None => self.redact(text).into_owned(),
        }
    }

    /// What code refused with, without secrets.
    pub(crate) fn redact_refusal(&self, refusal: Refusal) -> Refusal {
        if self.known.is_empty() {
            return refusal;
        }
        Refusal {
            message: self.redact(&refusal.message).into_owned(),
            details: refusal.details.map(|details| self.redact(&details).into_owned()),
            ..refusal
        }
    }

    /// What went wrong, without secrets.
    pub(crate) fn redact_error(&self, error: CallError) -> CallError {
        match error {
            CallError::Trapped { module, entry, reason } if !self.known.is_empty() => {
                CallError::Trapped { module, entry, reason: self.redact(&reason).into_owned() }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(texts: &[&str]) -> OpenSecrets {
        let mut secrets = OpenSecrets::default();
        texts.iter().for_each(|text| secrets.note(&SecretText::new(text)));
        secrets
    }

    #[test]
    fn a_secret_is_taken_out_wherever_it_stands() {
        let secrets = opened(&["hush-hush", "hush-hush-long", "ünïcödé"]);
        let told = secrets.redact("a hush-hush-long, hush-hush and ünïcödé; hush");
        assert_eq!(told, "a [secret], [secret] and [secret]; hush");
        assert_eq!(secrets.redact("nothing"), "nothing");
        assert_eq!(format!("{secrets:?}").matches("hush").count(), 0);
    }

    #[test]
    fn a_text_that_begins_within_a_secret_does_not_show_the_rest_of_it() {
        let secrets = opened(&["hush-hush-key", "ünïcödé"]);
        assert_eq!(secrets.redact_end("hush-key at line 7"), "[secret] at line 7");
        assert_eq!(secrets.redact_end("ïcödé: hush-hush-key"), "[secret]: [secret]");
        assert_eq!(secrets.redact_end("hush-hush-key"), "[secret]");
        assert_eq!(secrets.redact_end("key"), "key", "too little to tell anybody anything");
        assert_eq!(opened(&[]).redact_end("key"), "key");
    }
}
