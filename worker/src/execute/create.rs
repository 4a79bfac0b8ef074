//! New documents: one, or many that are made together or not at all.

use std::collections::HashMap;

use aegis_domain::{
    FieldError, Problem, ProblemCode,
    catalog::Model,
    document::{Draft, Stamp},
    json,
};
use aegis_ipc::{
    board::ModelCounter,
    data::{Expect, Operation},
};
use bytes::Bytes;
use serde_json::Value;

use super::{Engine, answer, commit::Place};
use crate::operation::{Outcome, Reply, Request};

/// Single errors told about one batch.
const ERRORS_MAX: usize = 100;

impl Engine {
    /// Creates what the body says: an object is one document, an array many.
    pub(super) async fn create(&self, request: &Request, body: &Bytes) -> Result<Reply, Problem> {
        let model = &*request.model;
        let now_ms = super::now_ms();
        let (drafts, result, place) = match json::parse(body)? {
            Value::Array(items) => {
                (self.drafts(request, items, now_ms).await?, Outcome::CreatedMany, Place::Item)
            }
            one => {
                let draft = self.draft(request, one, &stamp(now_ms)).await?;
                let result = Outcome::Created { id: draft.id.clone(), revision: draft.revision };
                (vec![draft], result, Place::Whole)
            }
        };
        let created = drafts.len() as u64;
        let body = match place {
            Place::Whole => answer::one(request.answer, &drafts[0].id, &drafts[0].body),
            Place::Item => answer::many(request.answer, &drafts),
        };
        let operations = drafts.into_iter().map(|draft| operation(model, draft)).collect();
        let reply = self.commit_new(request, operations, place, result, body).await?;
        if !reply.replayed {
            self.count_model(model, ModelCounter::Creates, created);
        }
        Ok(reply)
    }

    async fn drafts(&self, request: &Request, items: Vec<Value>, now_ms: u64) -> Result<Vec<Draft>, Problem> {
        let (found, most) = (items.len(), self.limits().batch_documents_max as usize);
        if items.is_empty() {
            let detail = "found an empty array, expected at least one document";
            let error = FieldError { path: String::new(), message: detail.to_owned() };
            return Err(Problem::new(ProblemCode::Invalid, detail).with_errors(vec![error]));
        }
        if found > most {
            let detail = format!("found {found} documents in one array, expected at most {most}");
            return Err(Problem::new(ProblemCode::BodyTooLarge, detail));
        }
        let mut drafts = Vec::with_capacity(found);
        let mut refused = 0;
        let mut errors = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            match self.draft(request, item, &stamp(now_ms)).await {
                Ok(draft) => drafts.push(draft),
                Err(problem) => {
                    let problem = at_item(problem, index);
                    if problem.code != ProblemCode::Invalid {
                        return Err(problem);
                    }
                    refused += 1;
                    errors.extend(problem.errors);
                }
            }
        }
        if refused == 0 {
            return made_once(drafts);
        }
        errors.truncate(ERRORS_MAX);
        let detail = format!("{refused} of {found} documents are not valid, so none was created");
        Err(Problem::new(ProblemCode::Invalid, detail).with_errors(errors))
    }
}

/// These documents, unless two have one id.
fn made_once(drafts: Vec<Draft>) -> Result<Vec<Draft>, Problem> {
    let mut first_with = HashMap::with_capacity(drafts.len());
    for (index, Draft { id, .. }) in drafts.iter().enumerate() {
        if let Some(first) = first_with.insert(id.as_str(), index) {
            let detail = format!("found the id {id:?} of document {first} again, expected each id once");
            let error =
                FieldError { path: "/id".to_owned(), message: format!("document {first} has it as well") };
            return Err(at_item(Problem::new(ProblemCode::Invalid, detail).with_errors(vec![error]), index));
        }
    }
    drop(first_with);
    Ok(drafts)
}

/// The operation that makes a document.
pub(super) fn operation(model: &Model, draft: Draft) -> Operation {
    Operation {
        model: model.name().to_owned(),
        id: draft.id,
        expect: Expect::Absent,
        revision: draft.revision,
        body: Some(draft.body),
        changes: draft.changes,
    }
}

/// When a document is made, and its id unless it brings one.
pub(super) fn stamp(now_ms: u64) -> Stamp {
    Stamp { now_ms, fresh_id: uuid::Uuid::now_v7().to_string() }
}

/// The problem of one document as a problem of the array it is in.
fn at_item(mut problem: Problem, index: usize) -> Problem {
    if problem.errors.is_empty() {
        problem.errors.push(FieldError { path: String::new(), message: problem.detail.clone() });
    }
    for error in &mut problem.errors {
        error.path.insert_str(0, &format!("/{index}"));
    }
    problem.detail = format!("document {index}: {}", problem.detail);
    problem
}
