//! Query strings: pairs of texts, and what is wrong with them.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::{
    json::shorten,
    problem::{FieldError, Problem, ProblemCode},
};

/// Parameters of one query.
const PARAMETERS_MAX: usize = 64;

/// One thing that is wrong with a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    parameter: String,
    message: String,
}

impl Mistake {
    /// A parameter with something else than expected. `found` is quoted.
    pub(crate) fn new(parameter: &str, found: &str, expected: impl AsRef<str>) -> Self {
        Self::saying(parameter, format!("{:?}", shorten(found)), expected)
    }

    /// The same with a description of what was found.
    pub(crate) fn saying(parameter: &str, found: impl AsRef<str>, expected: impl AsRef<str>) -> Self {
        let message = format!("found {}, expected {}", found.as_ref(), expected.as_ref());
        Self { parameter: shorten(parameter), message }
    }

    /// A parameter that has only a value, or nothing at all.
    pub(crate) fn nameless(value: &str) -> Self {
        let found = format!("the parameter {:?}, which has no name", shorten(&format!("={value}")));
        Self::saying("", found, "name=value")
    }

    /// Two parameters that exclude one another.
    pub(crate) fn together(parameter: &str, other: &str) -> Self {
        Self::saying(parameter, format!("it together with {other:?}"), "only one of them")
    }
}

/// All mistakes as one problem.
pub(crate) fn problem(mistakes: &[Mistake]) -> Problem {
    let told = |mistake: &Mistake| match mistake.parameter.as_str() {
        // It is about none of them, or about one that cannot be named.
        "" => mistake.message.clone(),
        parameter => format!("parameter {parameter:?}: {}", mistake.message),
    };
    let detail = mistakes.iter().map(told).collect::<Vec<_>>().join("; ");
    let problem = Problem::new(ProblemCode::BadParameter, detail);
    if mistakes.len() < 2 {
        return problem;
    }
    let error =
        |mistake: &Mistake| FieldError { path: mistake.parameter.clone(), message: mistake.message.clone() };
    problem.with_errors(mistakes.iter().map(error).collect())
}

/// Takes a query string apart (`application/x-www-form-urlencoded`).
pub(crate) fn split(raw_query: &str) -> Result<Vec<(String, String)>, Mistake> {
    let pairs = raw_query.split('&').filter(|pair| !pair.is_empty());
    if pairs.clone().count() > PARAMETERS_MAX {
        let found = format!("{} parameters", pairs.count());
        return Err(Mistake::saying("", found, format!("at most {PARAMETERS_MAX}")));
    }
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or_else(|| {
                Mistake::new(name, name, "a name in UTF-8, with every percent sign written as %25")
            })?;
            let value = decode(value).ok_or_else(|| {
                Mistake::new(&name, value, "a value in UTF-8, with every percent sign written as %25")
            })?;
            Ok((name, value))
        })
        .collect()
}

/// A name or a value as it was before it was written into a query string (`application/x-www-form-urlencoded`); none if it was
/// no UTF-8, or has a percent sign without two hexadecimal digits, as in a path.
#[must_use]
pub fn decode(text: &str) -> Option<String> {
    let is_digit = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
    let mut escapes = text.split('%').skip(1).map(str::bytes);
    if !escapes.all(|mut after| is_digit(after.next()) && is_digit(after.next())) {
        return None;
    }
    let spaced: Cow<'_, str> =
        if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    percent_decode(spaced.as_bytes()).decode_utf8().ok().map(Cow::into_owned)
}

/// The query string of the next page: the same, with this cursor instead of a former one and of an offset.
#[must_use]
pub fn with_cursor(raw_query: &str, cursor: &str) -> String {
    let stays = |pair: &&str| {
        let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
        !pair.is_empty() && !matches!(decode(name).as_deref(), Some("__cursor" | "__skip"))
    };
    let mut query: String = raw_query.split('&').filter(stays).flat_map(|pair| [pair, "&"]).collect();
    query.push_str("__cursor=");
    query.push_str(cursor);
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_plus_signs_are_undone() {
        let pairs = split("a=b+c%2B%26&&d&e%5F=%C3%A9&f=1=2&g=%25zz").unwrap();
        let expected = [("a", "b c+&"), ("d", ""), ("e_", "é"), ("f", "1=2"), ("g", "%zz")];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_is_no_utf8_and_no_escape_is_named() {
        let detail = |query: &str| problem(&[split(query).unwrap_err()]).detail;
        insta::assert_snapshot!(
            detail("name=%ff"),
            @r#"parameter "name": found "%ff", expected a value in UTF-8, with every percent sign written as %25"#
        );
        insta::assert_snapshot!(
            detail("%ff=1"),
            @r#"parameter "%ff": found "%ff", expected a name in UTF-8, with every percent sign written as %25"#
        );
        for value in ["%", "%4", "%zz", "%4z", "a%%20", "%+41", "é%é"] {
            let expected = format!(
                "parameter \"t\": found {value:?}, expected a value in UTF-8, with every percent sign written as %25"
            );
            assert_eq!(detail(&format!("t={value}")), expected);
        }
        insta::assert_snapshot!(detail(&"a=1&".repeat(65)), @"found 65 parameters, expected at most 64");
    }

    #[test]
    fn the_next_page_keeps_everything_but_the_place() {
        assert_eq!(
            with_cursor("a=%20&__skip=5&__limit=3&__cursor=x&", "new"),
            "a=%20&__limit=3&__cursor=new"
        );
        assert_eq!(with_cursor("", "new"), "__cursor=new");
        assert_eq!(with_cursor("__%63ursor=x", "new"), "__cursor=new");
    }
}
