//! Responses that are kept with the write they belong to, for the client that asks again under the same key.

use aegis_domain::{Problem, ProblemCode};
use aegis_ipc::{codec, data::StoredResponse};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::answer;
use crate::operation::{Answer, IdempotencyKey, Outcome, Reply, Request};

/// Layout of [`Kept`]. A reader knows its own and older ones.
const FORMAT: u32 = 2;
/// The layout before commands: what it can say is still written so, for neighbours of the version before.
const FORMAT_WITHOUT_COMMANDS: u32 = 1;

/// A successful response without its sequence number, which the store knows.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    format: u32,
    result: KeptResult,
    body: Bytes,
}

#[derive(Debug, Serialize, Deserialize)]
enum KeptResult {
    Found { revision: u64 },
    Created { id: String, revision: u64 },
    CreatedMany,
    Answered,
}

/// The bytes that the store keeps for a response of a write.
pub(super) fn encode(result: &Outcome, body: &Bytes) -> Result<Bytes, Problem> {
    let result = match result {
        Outcome::Found { revision } => KeptResult::Found { revision: *revision },
        Outcome::Created { id, revision } => KeptResult::Created { id: id.clone(), revision: *revision },
        Outcome::CreatedMany => KeptResult::CreatedMany,
        Outcome::Answered => KeptResult::Answered,
        Outcome::NotModified { .. } | Outcome::Listed { .. } => {
            return Err(Problem::new(ProblemCode::Internal, "a write does not answer like a read"));
        }
    };
    let format = if matches!(result, KeptResult::Answered) { FORMAT } else { FORMAT_WITHOUT_COMMANDS };
    let kept = Kept { format, result, body: body.clone() };
    codec::encode(&kept)
        .map(Bytes::from)
        .map_err(|error| Problem::new(ProblemCode::Internal, error.to_string()))
}

/// Whether a write may have met this problem only because it was made before: one of what is stored, which is also what
/// code looks at that refuses or fails.
pub(super) fn may_be_of_repetition(code: ProblemCode) -> bool {
    matches!(
        code,
        ProblemCode::NotFound
            | ProblemCode::AlreadyExists
            | ProblemCode::UniqueTaken
            | ProblemCode::Conflict
            | ProblemCode::PatchTestFailed
            | ProblemCode::RevisionMismatch
            | ProblemCode::Invalid
            | ProblemCode::Denied
            | ProblemCode::Unavailable
            | ProblemCode::BodyTooLarge
            | ProblemCode::GuestFailed
            | ProblemCode::GuestTrap
    )
}

/// The response to a request whose key is known.
///
/// # Errors
/// [`ProblemCode::IdempotencyKeyReused`] when the key belongs to another request.
pub(super) fn replay(key: &IdempotencyKey, stored: &StoredResponse) -> Result<Reply, Problem> {
    if stored.fingerprint != key.fingerprint {
        let detail =
            "the Idempotency-Key was used before for a request with another method, path, query or body";
        return Err(Problem::new(ProblemCode::IdempotencyKeyReused, detail));
    }
    let kept: Kept = codec::decode(&stored.response)
        .map_err(|error| Problem::new(ProblemCode::Internal, format!("a kept response: {error}")))?;
    if !(FORMAT_WITHOUT_COMMANDS..=FORMAT).contains(&kept.format) {
        let detail = format!("a kept response: found format {}, expected at most {FORMAT}", kept.format);
        return Err(Problem::new(ProblemCode::Internal, detail));
    }
    let result = match kept.result {
        KeptResult::Found { revision } => Outcome::Found { revision },
        KeptResult::Created { id, revision } => Outcome::Created { id, revision },
        KeptResult::CreatedMany => Outcome::CreatedMany,
        KeptResult::Answered => Outcome::Answered,
    };
    Ok(Reply { result, body: kept.body, sequence: stored.sequence, replayed: true })
}

/// A kept response as the caller of this request may see it: what they may read is decided anew, and may be less than when
/// the write was made.
///
/// # Errors
/// [`ProblemCode::Internal`] when it cannot be told which documents it is about.
pub(super) fn shown(request: &Request, reply: Reply) -> Result<Reply, Problem> {
    if request.answer != Answer::Blind {
        return Ok(reply);
    }
    let body = match (&reply.result, request.operation.document()) {
        // What code answers is not a document.
        (Outcome::Answered, _) => Some(reply.body),
        (Outcome::CreatedMany, _) => answer::many_blind(&reply.body),
        (Outcome::Created { id, .. }, _) => Some(answer::one(Answer::Blind, id, &reply.body)),
        (_, id) => id.map(|id| answer::one(Answer::Blind, id, &reply.body)),
    };
    let body = body.ok_or_else(|| {
        let detail = "a kept response: found documents without ids, expected one in each";
        Problem::new(ProblemCode::Internal, detail)
    })?;
    Ok(Reply { body, ..reply })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(fingerprint: &'static [u8]) -> IdempotencyKey {
        let fingerprint = Bytes::from_static(fingerprint);
        IdempotencyKey { key: "k".to_owned(), given: "k".to_owned(), fingerprint }
    }

    fn stored(response: Bytes) -> StoredResponse {
        StoredResponse { fingerprint: Bytes::from_static(b"f"), response, sequence: 9 }
    }

    #[test]
    fn a_kept_response_comes_back_as_it_was() {
        let body = Bytes::from_static(b"{\"id\":\"a\"}");
        for result in [
            Outcome::Found { revision: 4 },
            Outcome::Created { id: "a".to_owned(), revision: 1 },
            Outcome::CreatedMany,
            Outcome::Answered,
        ] {
            let stored = stored(encode(&result, &body).unwrap());
            let reply = Reply { result, body: body.clone(), sequence: 9, replayed: true };
            assert_eq!(replay(&key(b"f"), &stored), Ok(reply));
        }
    }

    #[test]
    fn another_request_under_the_same_key_is_refused() {
        let stored = stored(encode(&Outcome::CreatedMany, &Bytes::new()).unwrap());
        assert_eq!(replay(&key(b"g"), &stored).unwrap_err().code, ProblemCode::IdempotencyKeyReused);
    }

    #[test]
    fn damaged_or_foreign_responses_are_an_error_and_no_panic() {
        let foreign = Kept { format: FORMAT + 1, result: KeptResult::CreatedMany, body: Bytes::new() };
        for response in [Vec::new(), vec![0xc1; 9], codec::encode(&foreign).unwrap()] {
            let problem = replay(&key(b"f"), &stored(response.into())).unwrap_err();
            assert_eq!(problem.code, ProblemCode::Internal, "{problem}");
        }
    }
}
