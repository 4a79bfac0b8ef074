//! What modules ask about many documents at once.

use std::sync::Arc;

use aegis_domain::catalog::Model;
use aegis_wasm::{Asker, Entity, Refusal, RefusalCode, Write};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{HostServices, check_target, refusal, request, to_entity};
use crate::operation::{Operation, Request, Revisions};

impl HostServices {
    pub(super) async fn write_together(
        &self,
        asker: Asker<'_>,
        model: &str,
        writes: Vec<Write>,
    ) -> Result<Vec<Entity>, Refusal> {
        let model = self.model(asker, model, |access| access.write)?;
        let requests: Vec<Request> = writes.into_iter().map(|write| written(asker, model, write)).collect();
        let engine = self.reach(asker)?;
        requests.iter().try_for_each(|request| check_target(&engine, request))?;
        let written = engine
            .execute_together(&requests, asker.payload_bytes_max)
            .await
            .map_err(|problem| refusal(&problem))?;
        let entities = written.iter().map(|one| to_entity(model, &one.id, one.revision, &one.body));
        entities.collect::<Result<_, _>>().map_err(|problem| refusal(&problem))
    }

    pub(super) async fn aggregate_all(
        &self,
        asker: Asker<'_>,
        model: &str,
        pipeline: &str,
    ) -> Result<String, Refusal> {
        let model = self.model(asker, model, |access| access.read)?;
        let query = format!("__aggregate={}", utf8_percent_encode(pipeline, NON_ALPHANUMERIC));
        let reply = self.ask(asker, request(asker, model, Operation::List { query })).await?;
        String::from_utf8(reply.body.to_vec()).map_err(|error| {
            Refusal::new(RefusalCode::Internal, format!("the host answered what is no text: {error}"))
        })
    }
}

/// A write as the request that a client would send.
pub(super) fn written(asker: Asker<'_>, model: &Arc<Model>, write: Write) -> Request {
    let (operation, revision) = match write {
        Write::Create { data } => (Operation::Create { body: data.into() }, None),
        Write::Patch { id, changes, revision } => (Operation::Merge { id, body: changes.into() }, revision),
        Write::Replace { id, data, revision } => (Operation::Replace { id, body: data.into() }, revision),
        Write::Delete { id, revision } => (Operation::Remove { id }, revision),
    };
    let mut request = request(asker, model, operation);
    if let Some(revision) = revision {
        request.precondition.if_match = Some(Revisions::Of(vec![revision]));
    }
    request
}
