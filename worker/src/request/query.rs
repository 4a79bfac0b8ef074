//! The pairs of a query string of a route that has a fixed set of parameters.

use aegis_domain::{Problem, ProblemCode, query::decode};

/// Characters of a value that a message repeats.
const VALUE_CHARACTERS_SHOWN_MAX: usize = 100;

/// Names and values, decoded, in order.
///
/// # Errors
/// A name that is not in `known`, or one or a value that is not percent-encoded UTF-8.
pub(crate) fn pairs(query: &str, known: &[&'static str]) -> Result<Vec<(&'static str, String)>, Problem> {
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let bad = |place: &str, what: &str| {
            let quoted: String = place.chars().take(VALUE_CHARACTERS_SHOWN_MAX).collect();
            let detail = format!("parameter {quoted:?}: {what}");
            Problem::new(ProblemCode::BadParameter, detail)
        };
        let is_bad =
            || bad(pair, "found a percent sign that begins no UTF-8, expected %25 for the sign itself");
        let name = decode(name).ok_or_else(is_bad)?;
        let value = decode(value).ok_or_else(is_bad)?;
        let Some(name) = known.iter().find(|known| **known == name) else {
            return Err(bad(&name, &format!("found an unknown name, expected one of {}", known.join(", "))));
        };
        pairs.push((*name, value));
    }
    Ok(pairs)
}

/// The same, with each name once.
///
/// # Errors
/// A name that comes twice, or as [`pairs`].
pub(crate) fn single_pairs(
    query: &str,
    known: &[&'static str],
) -> Result<Vec<(&'static str, String)>, Problem> {
    let pairs = pairs(query, known)?;
    let comes_twice = |name: &str| pairs.iter().filter(|(found, _)| *found == name).count() > 1;
    match known.iter().find(|name| comes_twice(name)) {
        Some(name) => {
            let detail = format!("parameter {name:?}: found it twice, expected it once");
            Err(Problem::new(ProblemCode::BadParameter, detail))
        }
        None => Ok(pairs),
    }
}

/// Reads a parameter that is on or off; its name alone is on.
///
/// # Errors
/// [`ProblemCode::BadParameter`] for anything else.
pub(crate) fn flag(name: &str, value: &str) -> Result<bool, Problem> {
    match value {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(wrong_value(name, value, "true or false")),
    }
}

/// The problem of a value that a parameter does not have.
pub(crate) fn wrong_value(name: &str, value: &str, expected: &str) -> Problem {
    let found: String = value.chars().take(VALUE_CHARACTERS_SHOWN_MAX).collect();
    let detail = format!("parameter {name:?}: found {found:?}, expected {expected}");
    Problem::new(ProblemCode::BadParameter, detail)
}
