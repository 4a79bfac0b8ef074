//! What modules may ask of this worker: documents of their own model and of those they are granted, on the same way as a
//! client's requests, hooks included.

mod search;
mod together;

use std::{collections::BTreeMap, sync::Arc};

use aegis_config::HostSecret;
use aegis_domain::{
    Problem, ProblemCode,
    catalog::{Catalog, Model},
    code::Access,
    document,
};
use aegis_ipc::board::Board;
use aegis_wasm::{
    Asker, DEPTH_MAX, Dispatch, Entity, Measurement, Page, Refusal, RefusalCode, Search, SecretText, Sent,
    Served, Services, StreamedBody, Waits, Write,
};
use bytes::Bytes;
use serde_json::{Value, value::RawValue};

use super::measurements;
use crate::{
    execute::{Engine, WeakEngine},
    operation::{Answer, Operation, Outcome, Precondition, Reply, Request},
    outgoing::Outgoing,
};

/// Answers the modules of one worker. The engine is held weakly, because it holds the modules that hold this.
pub(super) struct HostServices {
    catalog: Arc<Catalog>,
    engine: WeakEngine,
    board: Board,
    outgoing: Outgoing,
    secrets: BTreeMap<String, SecretText>,
}

impl HostServices {
    pub(super) fn new(
        catalog: Arc<Catalog>,
        engine: WeakEngine,
        (board, outgoing): (Board, Outgoing),
    ) -> Self {
        Self { catalog, engine, board, outgoing, secrets: BTreeMap::new() }
    }

    /// With the secrets of the host. Those that are no text are none that a module could use.
    pub(super) fn knowing(mut self, secrets: &BTreeMap<String, HostSecret>) -> Self {
        self.secrets = secrets
            .iter()
            .filter_map(|(name, secret)| {
                let text = std::str::from_utf8(secret.value.as_ref()?.reveal()).ok()?;
                Some((name.clone(), SecretText::new(text)))
            })
            .collect();
        self
    }

    /// The model that the code behind `asker` means, if it may do `what` there.
    fn model(&self, asker: Asker<'_>, name: &str, what: fn(&Access) -> bool) -> Result<&Arc<Model>, Refusal> {
        let name = name.to_ascii_uppercase();
        let own = self.catalog.by_name(asker.model).and_then(|model| model.spec().code.as_ref());
        let granted = || own.and_then(|code| code.grants.models.get(&name)).is_some_and(what);
        if name != asker.model && !granted() {
            let message =
                format!("model {} may not do this to model {name:?}: it is not granted", asker.model);
            return Err(Refusal::new(RefusalCode::Denied, message));
        }
        self.catalog
            .by_name(&name)
            .ok_or_else(|| Refusal::new(RefusalCode::NotFound, format!("there is no model {name}")))
    }

    async fn ask(&self, asker: Asker<'_>, request: Request) -> Result<Reply, Refusal> {
        self.reach(asker)?.execute(request).await.map_err(|problem| refusal(&problem))
    }

    /// The engine, unless the way to it is too long already.
    fn reach(&self, asker: Asker<'_>) -> Result<Engine, Refusal> {
        if asker.lineage.depth >= DEPTH_MAX {
            let message = format!("modules call each other more than {DEPTH_MAX} deep");
            return Err(Refusal::new(RefusalCode::Unsupported, message));
        }
        let leaving = || Refusal::new(RefusalCode::Unavailable, "this worker is leaving");
        self.engine.upgrade().ok_or_else(leaving)
    }

    async fn find_one(&self, asker: Asker<'_>, model: &str, id: &str) -> Result<Option<Entity>, Refusal> {
        let model = self.model(asker, model, |access| access.read)?;
        let read = request(asker, model, Operation::Read { id: id.to_owned() });
        match self.ask(asker, read).await {
            Ok(reply) => entity(model, id, &reply).map(Some),
            Err(refusal) if refusal.code == RefusalCode::NotFound => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    async fn search_many(&self, asker: Asker<'_>, model: &str, search: Search) -> Result<Page, Refusal> {
        let model = self.model(asker, model, |access| access.read)?;
        let query = search::query(model, &search)?;
        let reply = self.ask(asker, request(asker, model, Operation::List { query })).await?;
        let items: Vec<&RawValue> = serde_json::from_slice(&reply.body).map_err(|error| damaged(&error))?;
        let items = items.into_iter().map(|item| listed(model, item)).collect::<Result<_, _>>()?;
        let cursor = match reply.result {
            Outcome::Listed { next_cursor } => next_cursor,
            _ => None,
        };
        Ok(Page { items, cursor })
    }

    async fn write_one(&self, asker: Asker<'_>, model: &str, write: Write) -> Result<Entity, Refusal> {
        let model = self.model(asker, model, |access| access.write)?;
        let request = together::written(asker, model, write);
        check_target(&self.reach(asker)?, &request)?;
        let id = target(&request.operation).map(str::to_owned);
        let reply = self.ask(asker, request).await?;
        let id = match (&reply.result, id) {
            (Outcome::Created { id, .. }, _) => id.clone(),
            (_, Some(id)) => id,
            (_, None) => {
                return Err(Refusal::new(
                    RefusalCode::Invalid,
                    "found several documents, expected one object",
                ));
            }
        };
        entity(model, &id, &reply)
    }
}

impl Services for HostServices {
    fn find<'a>(&'a self, asker: Asker<'a>, model: &'a str, id: &'a str) -> Served<'a, Option<Entity>> {
        Box::pin(self.find_one(asker, model, id))
    }

    fn search<'a>(&'a self, asker: Asker<'a>, model: &'a str, search: Search) -> Served<'a, Page> {
        Box::pin(self.search_many(asker, model, search))
    }

    fn write<'a>(&'a self, asker: Asker<'a>, model: &'a str, write: Write) -> Served<'a, Entity> {
        Box::pin(self.write_one(asker, model, write))
    }

    fn write_batch<'a>(
        &'a self,
        asker: Asker<'a>,
        model: &'a str,
        writes: Vec<Write>,
    ) -> Served<'a, Vec<Entity>> {
        Box::pin(self.write_together(asker, model, writes))
    }

    fn aggregate<'a>(&'a self, asker: Asker<'a>, model: &'a str, pipeline: &'a str) -> Served<'a, String> {
        Box::pin(self.aggregate_all(asker, model, pipeline))
    }

    fn measure(&self, module: &str, measurement: Measurement<'_>) {
        measurements::take(self.board, module, &measurement);
    }

    fn secret(&self, _: Asker<'_>, name: &str) -> Result<SecretText, Refusal> {
        let missing = || Refusal::new(RefusalCode::NotFound, format!("there is no secret {name:?}"));
        self.secrets.get(name).cloned().ok_or_else(missing)
    }

    fn send<'a>(&'a self, asker: Asker<'a>, dispatch: Dispatch) -> Sent<'a, aegis_wasm::Reply> {
        Box::pin(self.outgoing.send(asker, dispatch))
    }

    fn stream<'a>(
        &'a self,
        asker: Asker<'a>,
        request: http::Request<StreamedBody>,
        waits: Waits,
    ) -> Sent<'a, http::Response<StreamedBody>> {
        Box::pin(self.outgoing.stream(asker, request, waits))
    }
}

fn request(asker: Asker<'_>, model: &Arc<Model>, operation: Operation) -> Request {
    Request {
        model: Arc::clone(model),
        operation,
        precondition: Precondition::default(),
        idempotency: None,
        deadline: asker.deadline,
        answer: Answer::Representation,
        request_id: asker.request_id.to_owned(),
        lineage: asker.lineage.deeper(),
        lot: asker.lot.clone(),
        principal: asker.principal.cloned(),
    }
}

/// Id of the document that a write changes.
fn target(write: &Operation) -> Option<&str> {
    match write {
        Operation::Merge { id, .. } | Operation::Replace { id, .. } | Operation::Remove { id } => Some(id),
        _ => None,
    }
}

/// Code does not write the document that the request it belongs to is about to store or to remove.
fn check_target(engine: &Engine, write: &Request) -> Result<(), Refusal> {
    match target(&write.operation) {
        Some(id) if engine.is_changing(write, id) => {
            let model = write.model.name();
            let message = format!(
                "this request is changing the document {id:?} of {model}: what its code answers decides what \
                 becomes of it, and code cannot write it as well"
            );
            Err(Refusal::new(RefusalCode::Unsupported, message))
        }
        _ => Ok(()),
    }
}

/// A document that was answered alone.
fn entity(model: &Model, id: &str, reply: &Reply) -> Result<Entity, Refusal> {
    let (Outcome::Found { revision } | Outcome::Created { revision, .. }) = reply.result else {
        return Err(Refusal::new(RefusalCode::Internal, "the host answered without a revision"));
    };
    to_entity(model, id, revision, &reply.body).map_err(|problem| refusal(&problem))
}

/// A document as modules see it.
pub(crate) fn to_entity(model: &Model, id: &str, revision: u64, body: &Bytes) -> Result<Entity, Problem> {
    let (created_ms, updated_ms) = document::times(model, body)?;
    Ok(Entity {
        id: id.to_owned(),
        model: model.name().to_owned(),
        revision,
        created_ms,
        updated_ms,
        data: text(model, body)?,
    })
}

/// A stored document as text.
pub(crate) fn text(model: &Model, body: &Bytes) -> Result<String, Problem> {
    String::from_utf8(body.to_vec()).map_err(|error| {
        let detail = format!("a stored document of {} is damaged: {error}", model.name());
        Problem::new(ProblemCode::Internal, detail)
    })
}

/// A document of a list, which may have only some of its properties, but those of [`Host`] and its times.
fn listed(model: &Model, item: &RawValue) -> Result<Entity, Refusal> {
    #[derive(serde::Deserialize)]
    struct Host {
        id: String,
        revision: u64,
    }
    let host: Host = serde_json::from_str(item.get()).map_err(|error| damaged(&error))?;
    let body = Bytes::copy_from_slice(item.get().as_bytes());
    to_entity(model, &host.id, host.revision, &body).map_err(|problem| refusal(&problem))
}

fn damaged(error: &serde_json::Error) -> Refusal {
    Refusal::new(RefusalCode::Internal, format!("the host answered what is no document: {error}"))
}

/// A problem of the host as a module reads it.
fn refusal(problem: &Problem) -> Refusal {
    let code = match problem.code {
        ProblemCode::NotFound | ProblemCode::NoSuchModel => RefusalCode::NotFound,
        ProblemCode::AlreadyExists
        | ProblemCode::UniqueTaken
        | ProblemCode::Contended
        | ProblemCode::RevisionMismatch
        | ProblemCode::RevisionRequired
        | ProblemCode::Conflict => RefusalCode::Conflict,
        ProblemCode::Denied => RefusalCode::Denied,
        ProblemCode::BodyTooLarge => RefusalCode::TooLarge,
        ProblemCode::DeadlineExceeded => RefusalCode::Timeout,
        ProblemCode::Overloaded
        | ProblemCode::StoreUnavailable
        | ProblemCode::WriteOutcomeUnknown
        | ProblemCode::Unavailable => RefusalCode::Unavailable,
        ProblemCode::ModuleUnavailable => RefusalCode::CircuitOpen,
        ProblemCode::Internal | ProblemCode::GuestTrap | ProblemCode::GuestFailed => RefusalCode::Internal,
        _ => RefusalCode::Invalid,
    };
    let mut refusal = Refusal::new(code, problem.detail.clone());
    refusal.transient = problem.retry != aegis_domain::Retry::Never;
    if !problem.errors.is_empty() {
        let details: serde_json::Map<String, Value> = problem
            .errors
            .iter()
            .map(|error| (error.path.clone(), Value::from(error.message.as_str())))
            .collect();
        refusal.details = Some(Value::Object(details).to_string());
    }
    refusal
}
