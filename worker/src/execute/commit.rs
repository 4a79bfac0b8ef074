//! One commit and what its outcome means for the client.

use aegis_domain::{FieldError, Problem, ProblemCode, json};
use aegis_ipc::data::{Idempotency, Operation, Outcome as Committed};
use bytes::Bytes;

use super::{Engine, replay};
use crate::operation::{Outcome, Reply, Request};

/// Where the documents of a write are in the body of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The body is the document.
    Whole,
    /// The body is an array of documents.
    Item,
}

/// What a commit came to.
#[derive(Debug)]
pub(super) enum Attempt {
    /// The client has its answer.
    Done(Reply),
    /// What operation `operation` expected does not hold.
    Conflict {
        /// Index of the operation.
        operation: usize,
        /// Number of the change that last wrote the document, which may not be visible yet.
        current: Option<u64>,
    },
}

impl Engine {
    /// Commits documents that must not exist yet.
    pub(super) async fn commit_new(
        &self,
        request: &Request,
        operations: Vec<Operation>,
        place: Place,
        result: Outcome,
        body: Bytes,
    ) -> Result<Reply, Problem> {
        let ids: Vec<String> = operations.iter().map(|operation| operation.id.clone()).collect();
        match self.attempt(request, operations, place, result, body).await? {
            Attempt::Done(reply) => Ok(reply),
            Attempt::Conflict { operation, .. } => {
                let id = ids.get(operation).map_or("", String::as_str);
                Err(already_exists(request, place, operation, id))
            }
        }
    }

    /// Commits once. `result` and `body` are the answer if it works; they are kept with the write when the request has
    /// an idempotency key.
    pub(super) async fn attempt(
        &self,
        request: &Request,
        operations: Vec<Operation>,
        place: Place,
        result: Outcome,
        body: Bytes,
    ) -> Result<Attempt, Problem> {
        let is_keyed = request.idempotency.is_some();
        let idempotency = match &request.idempotency {
            Some(key) => Some(Idempotency {
                key: key.key.clone(),
                fingerprint: key.fingerprint.clone(),
                response: replay::encode(&result, &body)?,
            }),
            None => None,
        };
        let committed = self.data().commit(operations, idempotency, request.deadline).await;
        let committed = committed.map_err(|problem| match problem.code {
            ProblemCode::WriteOutcomeUnknown if !is_keyed => problem.not_to_be_repeated(),
            _ => problem,
        });
        match committed? {
            Committed::Committed { last, .. } => {
                Ok(Attempt::Done(Reply { result, body, sequence: last, replayed: false }))
            }
            Committed::Conflict { operation, current } => {
                Ok(Attempt::Conflict { operation: operation as usize, current })
            }
            Committed::Replayed(stored) => match &request.idempotency {
                Some(key) => Ok(Attempt::Done(self.replayed(request, key, &stored)?)),
                None => Err(Problem::new(ProblemCode::Internal, "a response was replayed without a key")),
            },
            Committed::UniqueTaken { operation, field } => {
                let path = pointer(place, operation as usize, &field);
                let detail = format!("another document of {} has this {field:?}", request.model.name());
                let error = FieldError { path, message: "this value is taken".to_owned() };
                Err(Problem::new(ProblemCode::UniqueTaken, detail).with_errors(vec![error]))
            }
            Committed::Unavailable { reason } => Err(Problem::new(
                ProblemCode::StoreUnavailable,
                format!("the store takes no writes: {reason}"),
            )),
            Committed::Refused { reason } => {
                tracing::error!(model = request.model.name(), reason, "the store refused a write for good");
                Err(Problem::new(ProblemCode::Internal, format!("the store refused the write: {reason}")))
            }
        }
    }
}

pub(super) fn already_exists(request: &Request, place: Place, operation: usize, id: &str) -> Problem {
    let field = request.model.spec().id_field.as_deref().unwrap_or("id");
    let path = pointer(place, operation, field);
    let detail = format!("a document of {} with the id {id:?} exists", request.model.name());
    let error = FieldError { path, message: "this id is taken".to_owned() };
    Problem::new(ProblemCode::AlreadyExists, detail).with_errors(vec![error])
}

/// JSON pointer (RFC 6901) to a field of a document in the body.
fn pointer(place: Place, index: usize, field: &str) -> String {
    let field = json::pointer_to(field);
    match place {
        Place::Whole => field,
        Place::Item => format!("/{index}{field}"),
    }
}
