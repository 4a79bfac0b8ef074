//! Several writes to documents of one model, together or not at all.
//!
//! Each is evolved as if it were alone, from the version that this worker shows, and all are committed as one group.
//! When one of them meets another writer, all are evolved again, until the deadline. What they come to has a bound, which
//! is looked at before anything is committed: whoever asked could not be told afterwards.

use std::{collections::HashSet, time::Instant};

use aegis_domain::{Problem, ProblemCode, json};
use aegis_ipc::{
    board::{Counter, ModelCounter},
    data::{self, Expect},
};
use bytes::Bytes;

use super::{
    Engine,
    change::{self, Change, WINNER_WAIT_MAX, contended},
    changing::Running,
    commit::{Attempt, Place, already_exists},
    create,
};
use crate::operation::{Operation, Outcome, Request};

/// What a write of a batch came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    /// Id of the document.
    pub(crate) id: String,
    /// Its revision; of a removed one, the last.
    pub(crate) revision: u64,
    /// The document as JSON; of a removed one, what it was.
    pub(crate) body: Bytes,
}

impl Written {
    fn bytes(&self) -> usize {
        self.id.len() + self.body.len()
    }
}

/// A write of a batch, evolved.
struct Evolved {
    operation: Option<data::Operation>,
    written: Written,
    counter: ModelCounter,
    /// Log position that it was evolved from.
    shown: u64,
}

impl Engine {
    /// Carries out writes to documents of one model together or not at all, in order, if what they come to has at most
    /// `bytes_max` bytes. None of them has an idempotency key.
    ///
    /// # Errors
    /// The problem of the first write that has one; its detail begins with the number of the write, from 0.
    pub(crate) async fn execute_together(
        &self,
        requests: &[Request],
        bytes_max: usize,
    ) -> Result<Vec<Written>, Problem> {
        let Some(first) = requests.first() else { return Ok(Vec::new()) };
        let most = self.limits().batch_documents_max as usize;
        if requests.len() > most {
            let detail = format!("found {} writes in one batch, expected at most {most}", requests.len());
            return Err(Problem::new(ProblemCode::BodyTooLarge, detail));
        }
        check_targets(requests)?;
        loop {
            let mut batch = self.evolve_all(requests, bytes_max).await?;
            let Some(conflict) = self.commit_together(first, &mut batch).await? else {
                for one in &batch {
                    self.count_model(&first.model, one.counter, 1);
                }
                return Ok(batch.into_iter().map(|one| one.written).collect());
            };
            let (index, current) = conflict;
            let id = batch[index].written.id.clone();
            if batch[index].counter == ModelCounter::Creates {
                return Err(at_write(already_exists(&requests[index], Place::Whole, 0, &id), index));
            }
            self.count(Counter::WriteRetries, 1);
            let winner = current.unwrap_or(0).max(batch[index].shown + 1);
            let until = first.deadline.min(Instant::now() + WINNER_WAIT_MAX);
            self.data().wait_for(winner, until).await;
            if Instant::now() >= first.deadline {
                return Err(at_write(contended(&id), index));
            }
        }
    }

    /// Each as if it were alone, as long as what they come to is within the bound.
    async fn evolve_all(&self, requests: &[Request], bytes_max: usize) -> Result<Vec<Evolved>, Problem> {
        // What the code makes of one write does not change the documents of the others either.
        let asked = requests.iter().filter(|request| request.model.spec().code.is_some());
        let _running: Vec<Running<'_>> = asked
            .filter_map(|request| target(&request.operation).map(|id| self.begin_change(request, id)))
            .collect();
        let mut batch = Vec::with_capacity(requests.len());
        let mut bytes_left = bytes_max;
        for (index, request) in requests.iter().enumerate() {
            let evolved = self.evolve(request).await.map_err(|problem| at_write(problem, index))?;
            bytes_left = bytes_left.checked_sub(evolved.written.bytes()).ok_or_else(|| {
                let detail =
                    format!("found more than {bytes_max} bytes of documents, expected at most that at once");
                at_write(Problem::new(ProblemCode::BodyTooLarge, detail), index)
            })?;
            batch.push(evolved);
        }
        Ok(batch)
    }

    async fn evolve(&self, request: &Request) -> Result<Evolved, Problem> {
        let (id, change) = match &request.operation {
            Operation::Create { body } => return self.evolve_new(request, body).await,
            Operation::Replace { id, body } => (id, Change::Replace(body)),
            Operation::Merge { id, body } => (id, Change::Merge(body)),
            Operation::Remove { id } => (id, Change::Remove),
            Operation::Read { .. }
            | Operation::List { .. }
            | Operation::Patch { .. }
            | Operation::Command { .. }
            | Operation::Ask { .. } => {
                return Err(Problem::new(ProblemCode::Internal, "this cannot be part of a batch"));
            }
        };
        let (current, shown) = self.current(&request.model, id, request.deadline).await?;
        let current = current.ok_or_else(|| change::not_found(&request.model, id))?;
        let current = self.loaded_for(request, id, change, current).await?;
        let proposal = self.propose(request, id, change, current).await?;
        let (Outcome::Found { revision } | Outcome::Created { revision, .. }) = proposal.result else {
            return Err(Problem::new(ProblemCode::Internal, "a change came to no revision"));
        };
        let written = Written { id: id.clone(), revision, body: proposal.body };
        Ok(Evolved { operation: proposal.operation, written, counter: proposal.counter, shown })
    }

    async fn evolve_new(&self, request: &Request, body: &Bytes) -> Result<Evolved, Problem> {
        let draft = self.draft(request, json::parse(body)?, &create::stamp(super::now_ms())).await?;
        let written = Written { id: draft.id.clone(), revision: draft.revision, body: draft.body.clone() };
        let operation = Some(create::operation(&request.model, draft));
        Ok(Evolved { operation, written, counter: ModelCounter::Creates, shown: 0 })
    }

    /// Commits once. Answers which write met another writer, and the number of that one's change.
    async fn commit_together(
        &self,
        request: &Request,
        batch: &mut [Evolved],
    ) -> Result<Option<(usize, Option<u64>)>, Problem> {
        let mut places = Vec::with_capacity(batch.len());
        let mut operations = Vec::with_capacity(batch.len());
        for (index, one) in batch.iter_mut().enumerate() {
            if let Some(operation) = one.operation.take() {
                debug_assert_eq!(operation.expect == Expect::Absent, one.counter == ModelCounter::Creates);
                operations.push(operation);
                places.push(index);
            }
        }
        if operations.is_empty() {
            return Ok(None);
        }
        match self.attempt(request, operations, Place::Item, Outcome::CreatedMany, Bytes::new()).await? {
            Attempt::Done(_) => Ok(None),
            Attempt::Conflict { operation, current } => {
                let index = places.get(operation).copied().ok_or_else(|| {
                    Problem::new(ProblemCode::Internal, "the store answered about a write that was not asked")
                })?;
                Ok(Some((index, current)))
            }
        }
    }
}

/// Id of the document that a write of a batch changes; nothing when it makes one.
fn target(write: &Operation) -> Option<&str> {
    match write {
        Operation::Merge { id, .. } | Operation::Replace { id, .. } | Operation::Remove { id } => Some(id),
        _ => None,
    }
}

/// A document is written once in a batch: a second write would be evolved from what the first one replaces.
fn check_targets(requests: &[Request]) -> Result<(), Problem> {
    let mut seen = HashSet::new();
    for (index, request) in requests.iter().enumerate() {
        let Some(id) = target(&request.operation) else { continue };
        if !seen.insert(id) {
            let detail = format!("found the document {id:?} a second time, expected every document once");
            return Err(at_write(Problem::new(ProblemCode::Invalid, detail), index));
        }
    }
    Ok(())
}

/// The problem of one write as one of the batch.
fn at_write(mut problem: Problem, index: usize) -> Problem {
    problem.detail = format!("write {index}: {}", problem.detail);
    problem
}
