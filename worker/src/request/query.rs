//! The pairs of a query string of a route that has a fixed set of parameters.

use aegis_domain::{Problem, ProblemCode, query::decode};

/// Names and values, decoded, in order.
///
/// # Errors
/// A name that is not in `known`, or one or a value that is not percent-encoded UTF-8.
pub(crate) fn pairs(query: &str, known: &[&'static str]) -> Result<Vec<(&'static str, String)>, Problem> {
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let bad = |what: &str| {
            let quoted: String = pair.chars().take(100).collect();
            let detail = format!("parameter {quoted:?}: {what}");
            Problem::new(ProblemCode::BadParameter, detail)
        };
        let is_bad = || bad("found a percent sign that begins no UTF-8, expected %25 for the sign itself");
        let name = decode(name).ok_or_else(is_bad)?;
        let value = decode(value).ok_or_else(is_bad)?;
        let Some(name) = known.iter().find(|known| **known == name) else {
            return Err(bad(&format!("found an unknown name, expected one of {}", known.join(", "))));
        };
        pairs.push((*name, value));
    }
    Ok(pairs)
}
