//! What a text field may look like: a regular expression, or one of the well-known names.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use regex::{Regex, RegexBuilder};

/// Memory of one compiled expression.
const REGEX_BYTES_MAX: usize = 1024 * 1024;

/// A rule for texts.
#[derive(Debug, Clone)]
pub(crate) enum Pattern {
    /// Matches anywhere unless anchored, in time linear in the text.
    Regex(Regex),
    /// A well-known form.
    Named(Named),
}

/// The names that may stand in place of a regular expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    Email,
    Phone,
    Ipv4,
    Ipv6,
    CreditCard,
    Ssn,
}

impl Named {
    /// Finds a name, in our spelling or in that of the original.
    fn find(name: &str) -> Option<Self> {
        Some(match name {
            "email" => Self::Email,
            "phone" => Self::Phone,
            "ipv4" | "ipv4Address" => Self::Ipv4,
            "ipv6" | "ipv6Address" => Self::Ipv6,
            "credit-card" | "creditCard" => Self::CreditCard,
            "ssn" => Self::Ssn,
            _ => return None,
        })
    }

    fn matches(self, text: &str) -> bool {
        match self {
            Self::Email => EMAIL.is_match(text),
            Self::Phone => PHONE.is_match(text),
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::CreditCard => is_card_number(text),
            Self::Ssn => SSN.is_match(text),
        }
    }
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with the regular expression, in one line.
    pub(crate) fn compile(pattern: &str) -> Result<Self, String> {
        if let Some(named) = Named::find(pattern) {
            return Ok(Self::Named(named));
        }
        RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build().map(Self::Regex).map_err(|error| {
            match error {
                // The crate draws the place under the expression over several lines; its last line is the
                // reason.
                regex::Error::Syntax(text) => {
                    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
                }
                regex::Error::CompiledTooBig(limit) => format!("compiled it takes more than {limit} bytes"),
                other => other.to_string(),
            }
        })
    }

    /// Whether the text is allowed.
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Regex(regex) => regex.is_match(text),
            Self::Named(named) => named.matches(text),
        }
    }
}

/// What is expected, as in "expected …".
impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Regex(regex) => write!(formatter, "a text that matches {}", regex.as_str()),
            Self::Named(Named::Email) => formatter.write_str("an email address"),
            Self::Named(Named::Phone) => formatter.write_str("a phone number"),
            Self::Named(Named::Ipv4) => formatter.write_str("an IPv4 address"),
            Self::Named(Named::Ipv6) => formatter.write_str("an IPv6 address"),
            Self::Named(Named::CreditCard) => formatter.write_str("a credit card number"),
            Self::Named(Named::Ssn) => formatter.write_str("a social security number such as 123-45-6789"),
        }
    }
}

/// 12 to 19 digits (ISO/IEC 7812), which may be grouped by single spaces or hyphens, with a correct check
/// digit.
fn is_card_number(text: &str) -> bool {
    if !CARD.is_match(text) {
        return false;
    }
    let digits: Vec<u32> = text.chars().filter_map(|character| character.to_digit(10)).collect();
    let luhn = |(place, digit): (usize, &u32)| match (place % 2, digit * 2) {
        (0, _) => *digit,
        (_, doubled) => doubled / 10 + doubled % 10,
    };
    (12..=19).contains(&digits.len()) && digits.iter().rev().enumerate().map(luhn).sum::<u32>() % 10 == 0
}

fn constant(regex: &str) -> Regex {
    Regex::new(regex).expect("the expression is a constant, compiled by a test")
}

/// "Valid e-mail address" of the HTML standard, the one browsers apply to `<input type=email>`.
static EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    constant(concat!(
        r"^[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?",
        r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$"
    ))
});

/// Seven to fifteen digits (ITU-T E.164) with the usual punctuation.
static PHONE: LazyLock<Regex> = LazyLock::new(|| constant(r"^\+?(?:[ ().-]*[0-9]){7,15}$"));

static CARD: LazyLock<Regex> = LazyLock::new(|| constant("^[0-9](?:[ -]?[0-9])*$"));

static SSN: LazyLock<Regex> = LazyLock::new(|| constant("^[0-9]{3}-?[0-9]{2}-?[0-9]{4}$"));

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, good: &[&str], bad: &[&str]) {
        let pattern = Pattern::compile(name).unwrap();
        assert!(matches!(pattern, Pattern::Named(_)), "{name}");
        for text in good {
            assert!(pattern.matches(text), "{name} {text}");
        }
        for text in bad {
            assert!(!pattern.matches(text), "{name} {text}");
        }
    }

    #[test]
    fn well_known_names_say_what_they_mean() {
        check(
            "email",
            &["a@b", "first.last+tag@mail.example.org"],
            &["", "a", "@b", "a@", "a b@c", "a@b@c", "a@-b"],
        );
        check(
            "phone",
            &["+49 (30) 123-4567", "5551234567"],
            &["", "12", "+", "555-CALL-NOW", "1234567890123456"],
        );
        check("ipv4", &["127.0.0.1"], &["256.0.0.1", "1.2.3", "01.2.3.4", "::1"]);
        check("ipv6", &["::1", "2001:db8::1"], &["1.2.3.4", ":::", "2001:db8"]);
        check(
            "credit-card",
            &["4111 1111 1111 1111", "378282246310005", "5555-5555-5555-4444"],
            &["4111111111111112", "4111", "0x4111111111111111", "4111  1111 1111 1111"],
        );
        check("ssn", &["123-45-6789", "123456789"], &["123-456-789", "12-345-6789"]);
    }

    #[test]
    fn other_patterns_are_regular_expressions() {
        let pattern = Pattern::compile("b+").unwrap();
        assert!(pattern.matches("abbc"));
        assert!(!pattern.matches("ac"));
        assert_eq!(pattern.to_string(), "a text that matches b+");
    }

    #[test]
    fn bad_expressions_are_explained_in_one_line() {
        insta::assert_snapshot!(Pattern::compile("(a").unwrap_err(), @"unclosed group");
        insta::assert_snapshot!(Pattern::compile("(?=a)").unwrap_err(), @"look-around, including look-ahead and look-behind, is not supported");
        insta::assert_snapshot!(Pattern::compile("((a{1000}){1000}){1000}").unwrap_err(), @"compiled it takes more than 1048576 bytes");
    }

    #[test]
    fn a_hostile_text_does_not_make_an_expression_slow() {
        let pattern = Pattern::compile("^(a+)+$").unwrap();
        assert!(!pattern.matches(&format!("{}!", "a".repeat(100_000))));
    }
}
