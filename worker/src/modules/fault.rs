//! What clients are told when code says no or fails.

use aegis_domain::{FieldError, Problem, ProblemCode};
use aegis_wasm::{CallError, Refusal, RefusalCode};
use serde_json::Value;

/// Longest message of a module that clients are told, characters.
const MESSAGE_CHARS_MAX: usize = 1000;
/// Single errors of a module that clients are told.
const ERRORS_MAX: usize = 100;

/// The problem as the client reads it. Of a defect clients learn only that there is one; the log has the rest.
pub(super) fn problem(error: CallError) -> Problem {
    match error {
        CallError::Refused(refusal) => refused(&refusal),
        CallError::Deadline { module, entry, allowed } => Problem::new(
            ProblemCode::DeadlineExceeded,
            format!("{entry} of module {module} took longer than {} ms", allowed.as_millis()),
        ),
        CallError::Trapped { module, entry, .. } | CallError::Involved { module, entry, .. } => Problem::new(
            ProblemCode::GuestTrap,
            format!("{entry} of module {module} failed; the log of the host has it under this request id"),
        ),
        CallError::Busy { module } => Problem::new(
            ProblemCode::Overloaded,
            format!("module {module} has as much to do as it may, and there was no room in time"),
        ),
    }
}

fn refused(refusal: &Refusal) -> Problem {
    let code = match refusal.code {
        RefusalCode::Invalid | RefusalCode::Unsupported => ProblemCode::Invalid,
        RefusalCode::NotFound => ProblemCode::NotFound,
        RefusalCode::Conflict => ProblemCode::Conflict,
        RefusalCode::Denied => ProblemCode::Denied,
        RefusalCode::Timeout => ProblemCode::DeadlineExceeded,
        RefusalCode::Unavailable | RefusalCode::CircuitOpen | RefusalCode::Cancelled => {
            ProblemCode::Unavailable
        }
        RefusalCode::TooLarge => ProblemCode::BodyTooLarge,
        RefusalCode::Internal => ProblemCode::GuestFailed,
    };
    let message = shorten(&refusal.message);
    let message = if message.is_empty() { "the model refused without a reason".to_owned() } else { message };
    let details = refusal.details.as_deref().and_then(|details| serde_json::from_str(details).ok());
    Problem::new(code, message).with_errors(details.map_or_else(Vec::new, |details: Value| errors(&details)))
}

/// Single errors: an object from paths to reasons, each a text or told as JSON. Anything else a module says there is for nobody
/// here.
fn errors(details: &Value) -> Vec<FieldError> {
    let Value::Object(reasons) = details else { return Vec::new() };
    let one = |(path, reason): (&String, &Value)| {
        let message = reason.as_str().map_or_else(|| shorten(&reason.to_string()), shorten);
        FieldError { path: pointer(path), message }
    };
    reasons.iter().map(one).take(ERRORS_MAX).collect()
}

/// A path as a JSON pointer (RFC 6901): modules may write it so, or with dots.
fn pointer(path: &str) -> String {
    if path.is_empty() || path.starts_with('/') {
        return path.to_owned();
    }
    path.split('.').map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1"))).collect()
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn clients_learn_what_the_module_said_and_of_defects_only_that_there_is_one() {
        let module = || "order".to_owned();
        let refused = |code, details: Option<&str>| {
            let mut refusal = Refusal::new(code, "no more");
            refusal.details = details.map(str::to_owned);
            CallError::Refused(refusal)
        };
        let told: Vec<String> = [
            refused(RefusalCode::Invalid, Some(r#"{"items.0.price":"negative","/a~b":"gone","n":7}"#)),
            refused(RefusalCode::Conflict, Some("no JSON")),
            refused(RefusalCode::Denied, None),
            refused(RefusalCode::Internal, None),
            CallError::Deadline {
                module: module(),
                entry: "validate".into(),
                allowed: Duration::from_millis(50),
            },
            CallError::Trapped {
                module: module(),
                entry: "on-create".into(),
                reason: "wasm trap: secret".to_owned(),
            },
            CallError::Busy { module: module() },
        ]
        .into_iter()
        .map(problem)
        .map(|problem| format!("{problem} {:?}", problem.errors))
        .collect();
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn no_message_is_longer_than_anybody_reads() {
        let refusal = Refusal::new(RefusalCode::Invalid, "ä".repeat(2 * MESSAGE_CHARS_MAX));
        let problem = problem(CallError::Refused(refusal));
        assert_eq!(problem.detail.chars().count(), MESSAGE_CHARS_MAX + 1);
    }
}
