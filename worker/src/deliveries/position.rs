//! How far a consumer has come: a document of the store that no client sees.
//!
//! It is written only over the version that its writer has read. Of two workers that deliver at once one finds out that
//! it is not the one.

use std::time::Instant;

use aegis_domain::{Problem, ProblemCode};
use aegis_ipc::data::{Expect, Operation, Outcome, POSITIONS, Version};
use serde::{Deserialize, Serialize};

use crate::data::Data;

/// A position that is kept in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    id: String,
    /// Everything up to here was delivered.
    pub(super) position: u64,
    /// Number of the change that wrote it.
    sequence: u64,
    revision: u64,
}

#[derive(Serialize, Deserialize)]
struct Body {
    position: u64,
    /// The store does not tell the revision of a version it is asked for.
    revision: u64,
}

impl Kept {
    /// The position of this consumer. One that was never seen before begins after `begun`.
    pub(super) async fn open(data: &Data, id: &str, begun: u64, deadline: Instant) -> Result<Self, Problem> {
        let first = Self { id: id.to_owned(), position: begun, sequence: 0, revision: 0 };
        let sequence = match first.write(data, begun, deadline).await? {
            Ok(begun) => return Ok(begun),
            Err(Some(sequence)) => sequence,
            Err(None) => return Err(moved(id)),
        };
        let version = Version { model: POSITIONS.to_owned(), id: id.to_owned(), sequence };
        let found = data.fetch(vec![version], deadline).await?.pop().flatten().ok_or_else(|| moved(id))?;
        let body: Body = serde_json::from_slice(&found).map_err(|error| {
            let detail = format!("the position of {id} is damaged: {error}");
            Problem::new(ProblemCode::Internal, detail)
        })?;
        Ok(Self { id: id.to_owned(), position: body.position, sequence, revision: body.revision })
    }

    /// Keeps a later position.
    ///
    /// # Errors
    /// Also when somebody else has kept one: then it is not this worker that delivers.
    pub(super) async fn save(
        &mut self,
        data: &Data,
        position: u64,
        deadline: Instant,
    ) -> Result<(), Problem> {
        match self.write(data, position, deadline).await? {
            Ok(kept) => {
                *self = kept;
                Ok(())
            }
            Err(_) => Err(moved(&self.id)),
        }
    }

    /// Writes it, or answers which change has written it meanwhile.
    async fn write(
        &self,
        data: &Data,
        position: u64,
        deadline: Instant,
    ) -> Result<Result<Self, Option<u64>>, Problem> {
        let revision = self.revision + 1;
        let body = serde_json::to_vec(&Body { position, revision })
            .map_err(|error| Problem::new(ProblemCode::Internal, format!("writing a position: {error}")))?;
        let operation = Operation {
            model: POSITIONS.to_owned(),
            id: self.id.clone(),
            expect: if self.revision == 0 { Expect::Absent } else { Expect::At(self.sequence) },
            revision,
            body: Some(body.into()),
            changes: None,
        };
        match data.commit(vec![operation], None, deadline).await? {
            Outcome::Committed { last, .. } => {
                Ok(Ok(Self { id: self.id.clone(), position, sequence: last, revision }))
            }
            Outcome::Conflict { current, .. } => Ok(Err(current)),
            Outcome::Unavailable { reason } | Outcome::Refused { reason } => {
                let detail = format!("the position of {} is not kept: {reason}", self.id);
                Err(Problem::new(ProblemCode::StoreUnavailable, detail))
            }
            Outcome::UniqueTaken { .. } | Outcome::Replayed(_) => Err(Problem::new(
                ProblemCode::Internal,
                "the store answered a position as it does a document",
            )),
        }
    }
}

fn moved(id: &str) -> Problem {
    Problem::new(ProblemCode::Contended, format!("another worker has moved the position of {id}"))
}
