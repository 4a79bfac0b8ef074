//! Changes of one existing document: replace, merge, patch, remove, and commands that may change it.
//!
//! The document is evolved from the version that this worker shows, and the store accepts it only if that is still
//! the last one. Otherwise the worker waits for the winner to become visible, looks at the conditions again and
//! evolves again, until the deadline. Writers of one worker that name no revision queue for the document, so that at
//! most one per worker tries at a time. What code writes does not queue: the request that called it may have the turn of
//! another document, and whoever has the turn of this one may want that.

use std::time::{Duration, Instant};

use aegis_domain::{
    FieldError, Problem, ProblemCode,
    catalog::Model,
    document::{Evolved, Form, Stamp},
    json,
};
use aegis_ipc::{
    board::{Counter, ModelCounter},
    data::{Expect, Operation},
};
use bytes::Bytes;

use super::{
    Engine, answer,
    command::{self, Carried, Order},
    commit::{Attempt, Place},
    create, precondition,
    read::Version,
};
use crate::operation::{Outcome, Reply, Request};

/// Longest wait for the winner of a conflict to become visible before the document is read again.
pub(super) const WINNER_WAIT_MAX: Duration = Duration::from_millis(100);

/// What is done to the document.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change<'a> {
    Replace(&'a Bytes),
    Merge(&'a Bytes),
    Patch(&'a Bytes),
    Remove,
    Command(Order<'a>),
}

/// What to commit and what to answer then.
pub(super) struct Proposal {
    pub(super) operation: Option<Operation>,
    place: Place,
    pub(super) result: Outcome,
    pub(super) body: Bytes,
    pub(super) counter: ModelCounter,
}

impl Engine {
    /// Changes the document with this id.
    pub(super) async fn change(
        &self,
        request: &Request,
        id: &str,
        change: Change<'_>,
    ) -> Result<Reply, Problem> {
        let stores = match change {
            Change::Command(order) => command::stores(request, order)?,
            Change::Replace(_) | Change::Merge(_) | Change::Patch(_) | Change::Remove => true,
        };
        let queues =
            stores && request.lineage.depth == 0 && !precondition::is_conditional(&request.precondition);
        let _turn = if !queues {
            None
        } else {
            let key = format!("{}\0{id}", request.model.name());
            Some(self.document_turns().turn(&key, request.deadline).await.ok_or_else(|| contended(id))?)
        };
        loop {
            let (current, shown) = self.current(&request.model, id, request.deadline).await?;
            let proposal = match current {
                Some(current) => {
                    let current = self.loaded_for(request, id, change, current).await?;
                    self.propose(request, id, change, current).await?
                }
                None => self.propose_new(request, id, change).await?,
            };
            let (operation, counter) = (proposal.operation, proposal.counter);
            if operation.is_none() && request.idempotency.is_none() {
                let Proposal { result, body, .. } = proposal;
                return Ok(Reply { result, body, sequence: shown, replayed: false });
            }
            let operations: Vec<Operation> = operation.into_iter().collect();
            let changes = operations.len();
            match self.attempt(request, operations, proposal.place, proposal.result, proposal.body).await? {
                Attempt::Done(reply) if reply.replayed => return Ok(reply),
                // Only the answer was kept: it shows the document as it was found.
                Attempt::Done(reply) if changes == 0 => return Ok(Reply { sequence: shown, ..reply }),
                Attempt::Done(reply) => {
                    self.count_model(&request.model, counter, 1);
                    return Ok(reply);
                }
                Attempt::Conflict { current, .. } => {
                    self.count(Counter::WriteRetries, 1);
                    let winner = current.unwrap_or(0).max(shown + 1);
                    let until = request.deadline.min(Instant::now() + WINNER_WAIT_MAX);
                    self.data().wait_for(winner, until).await;
                    if Instant::now() >= request.deadline {
                        return Err(contended(id));
                    }
                }
            }
        }
    }

    /// The version that is changed. What can be removed without asking the code is removed whatever its shape.
    pub(super) async fn loaded_for(
        &self,
        request: &Request,
        id: &str,
        change: Change<'_>,
        current: Version,
    ) -> Result<Version, Problem> {
        match change {
            Change::Remove if !asks(&request.model, change) => Ok(current),
            Change::Remove
            | Change::Replace(_)
            | Change::Merge(_)
            | Change::Patch(_)
            | Change::Command(_) => self.loaded(request, id, current).await,
        }
    }

    /// What a change makes of a version of the document.
    pub(super) async fn propose(
        &self,
        request: &Request,
        id: &str,
        change: Change<'_>,
        current: Version,
    ) -> Result<Proposal, Problem> {
        precondition::check_write(&request.precondition, &request.model, current.revision)?;
        let _running = asks(&request.model, change).then(|| self.begin_change(request, id));
        let (form, input) = match change {
            Change::Replace(body) => (Form::Replacement, body),
            Change::Merge(body) => (Form::MergePatch, body),
            Change::Patch(body) => (Form::JsonPatch, body),
            Change::Remove => {
                self.may_remove(request, id, &current).await?;
                return Ok(removal(request, id, &current));
            }
            Change::Command(order) => {
                return match self.carry_out_command(request, (id, &current), order).await? {
                    Carried::Answered(body) => Ok(Proposal {
                        operation: None,
                        place: Place::Whole,
                        result: Outcome::Answered,
                        body,
                        counter: ModelCounter::Commands,
                    }),
                    Carried::Saved(evolved) => {
                        Ok(proposal(request, id, current, evolved, ModelCounter::Commands))
                    }
                };
            }
        };
        let evolved = self.evolved(request, (id, &current), form, input).await?;
        Ok(proposal(request, id, current, evolved, ModelCounter::Updates))
    }

    /// A document that does not exist is made only by a replacement that says it must not exist.
    async fn propose_new(
        &self,
        request: &Request,
        id: &str,
        change: Change<'_>,
    ) -> Result<Proposal, Problem> {
        let model = &*request.model;
        let Change::Replace(body) = change else { return Err(not_found(&request.model, id)) };
        if !precondition::wants_absent(&request.precondition) {
            let mut problem = not_found(&request.model, id);
            problem.detail.push_str("; a replacement creates it only with If-None-Match: *");
            return Err(problem);
        }
        let stamp = Stamp { now_ms: super::now_ms(), fresh_id: id.to_owned() };
        let draft = self.draft(request, json::parse(body)?, &stamp).await?;
        if draft.id != id {
            let field = model.spec().id_field.as_deref().unwrap_or("id");
            let message = format!("found the id {:?}, expected {id:?} as in the path", draft.id);
            let error = FieldError { path: format!("/{field}"), message: message.clone() };
            return Err(Problem::new(ProblemCode::Invalid, message).with_errors(vec![error]));
        }
        let result = Outcome::Created { id: draft.id.clone(), revision: draft.revision };
        let body = answer::one(request.answer, id, &draft.body);
        let operation = Some(create::operation(model, draft));
        Ok(Proposal { operation, place: Place::Whole, result, body, counter: ModelCounter::Creates })
    }
}

/// Whether hooks are asked what becomes of the document. A command that saves looks to it itself.
fn asks(model: &Model, change: Change<'_>) -> bool {
    model.spec().code.as_ref().is_some_and(|code| match change {
        Change::Replace(_) | Change::Merge(_) | Change::Patch(_) => code.hooks.update || code.hooks.validate,
        Change::Remove => code.hooks.delete,
        Change::Command(_) => false,
    })
}

/// The next version of a document.
fn proposal(
    request: &Request,
    id: &str,
    current: Version,
    evolved: Evolved,
    counter: ModelCounter,
) -> Proposal {
    let (revision, body, operation) = match evolved {
        Evolved::Unchanged => (current.revision, current.body, None),
        Evolved::Changed(draft) => {
            let operation = Operation {
                body: Some(draft.body.clone()),
                changes: draft.changes,
                ..operation(request, id, &current, draft.revision)
            };
            (draft.revision, draft.body, Some(operation))
        }
    };
    let body = answer::one(request.answer, id, &body);
    Proposal { operation, place: Place::Whole, result: Outcome::Found { revision }, body, counter }
}

fn removal(request: &Request, id: &str, current: &Version) -> Proposal {
    Proposal {
        operation: Some(operation(request, id, current, current.revision)),
        place: Place::Whole,
        result: Outcome::Found { revision: current.revision },
        body: answer::one(request.answer, id, &current.body),
        counter: ModelCounter::Removes,
    }
}

/// The operation that removes the document.
fn operation(request: &Request, id: &str, current: &Version, revision: u64) -> Operation {
    Operation {
        model: request.model.name().to_owned(),
        id: id.to_owned(),
        expect: Expect::At(current.sequence),
        revision,
        body: None,
        changes: None,
    }
}

/// What is said of a document that is not there.
pub(crate) fn not_found(model: &Model, id: &str) -> Problem {
    let detail = format!("there is no document of {} with the id {id:?}", model.name());
    Problem::new(ProblemCode::NotFound, detail)
}

pub(super) fn contended(id: &str) -> Problem {
    let detail = format!("other writes to the document {id:?} kept coming first until the deadline");
    Problem::new(ProblemCode::Contended, detail)
}

#[cfg(test)]
mod tests {
    use aegis_ipc::board::Board;
    use aegis_wasm::Lineage;

    use super::*;
    use crate::{
        data::tests::{Worker, catalog, config, fake_store::FakeStore, later, soon},
        operation::Operation,
    };

    #[tokio::test]
    async fn what_code_writes_does_not_wait_for_who_may_be_waiting_for_it() {
        let (board, _descriptor) = Board::create().unwrap();
        let catalog = catalog(&["name = \"todo\"\n[fields]\ntext = \"text\"\n"]);
        let store = FakeStore::start(board, std::sync::Arc::clone(&catalog));
        let worker = Worker::start_ready(&config(), &store, &catalog, board).await;
        let engine = Engine::new(&config(), worker.data.clone());
        let request = |operation, depth, deadline| Request {
            lineage: Lineage { depth, ..Lineage::begin() },
            deadline,
            ..super::super::tests::request(&catalog.models()[0], operation)
        };
        let create = Operation::Create { body: Bytes::from_static(b"{\"id\":\"a\"}") };
        engine.execute(request(create, 0, later())).await.unwrap();
        let merge = || Operation::Merge { id: "a".into(), body: Bytes::from_static(b"{\"text\":\"x\"}") };
        let turn = engine.document_turns().turn("TODO\0a", later()).await;
        let contended = engine.execute(request(merge(), 0, soon())).await.unwrap_err();
        assert_eq!(contended.code, ProblemCode::Contended);
        assert!(engine.execute(request(merge(), 1, later())).await.is_ok());
        drop(turn);
    }
}
