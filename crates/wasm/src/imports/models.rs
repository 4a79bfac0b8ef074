//! Documents of models, as far as the module may reach them.

use super::fault;
use crate::{
    call::{Refusal, RefusalCode},
    contract::{
        Fault, FaultCode,
        models::{self, Query, WriteOp},
        types,
    },
    services::{Entity, Page, Search, Write},
    state::State,
};

/// Most documents that are asked for at once.
const FIND_MANY_MAX: usize = 1000;

/// What the host still gives in one crossing.
struct Crossing {
    bytes_max: usize,
    bytes_left: usize,
}

impl Crossing {
    fn of(state: &State) -> Self {
        let bytes_max = state.payload_bytes_max();
        Self { bytes_max, bytes_left: bytes_max }
    }

    /// Gives so much, or says that it is too much.
    fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        let message = || format!("found more than {} bytes, expected at most that at once", self.bytes_max);
        let left = self.bytes_left.checked_sub(bytes);
        self.bytes_left = left.ok_or_else(|| fault(FaultCode::TooLarge, message()))?;
        Ok(())
    }

    fn take_entity(&mut self, entity: &Entity) -> Result<(), Fault> {
        self.take(entity.id.len() + entity.model.len() + entity.data.len())
    }
}

impl models::Host for State {
    async fn find(
        &mut self,
        model: String,
        id: String,
    ) -> wasmtime::Result<Result<Option<types::Entity>, Fault>> {
        let found = self.services.find(self.asker(), &model, &id).await;
        Ok(found.map(|found| found.map(Into::into)).map_err(Into::into))
    }

    async fn find_many(
        &mut self,
        model: String,
        ids: Vec<String>,
    ) -> wasmtime::Result<Result<Vec<Option<types::Entity>>, Fault>> {
        if ids.len() > FIND_MANY_MAX {
            let message = format!("found {} ids, expected at most {FIND_MANY_MAX}", ids.len());
            return Ok(Err(fault(FaultCode::TooLarge, message)));
        }
        let (mut found, mut crossing) = (Vec::with_capacity(ids.len()), Crossing::of(self));
        for id in &ids {
            match self.services.find(self.asker(), &model, id).await {
                Ok(entity) => {
                    if let Err(fault) = entity.iter().try_for_each(|entity| crossing.take_entity(entity)) {
                        return Ok(Err(fault));
                    }
                    found.push(entity.map(Into::into));
                }
                Err(refusal) => return Ok(Err(refusal.into())),
            }
        }
        Ok(Ok(found))
    }

    async fn search(&mut self, model: String, query: Query) -> wasmtime::Result<Result<models::Page, Fault>> {
        let Query { filter, sort, limit, cursor, fields } = query;
        let search = Search { filter, sort, limit, cursor, fields };
        let page = match self.services.search(self.asker(), &model, search).await {
            Ok(page) => page,
            Err(refusal) => return Ok(Err(refusal.into())),
        };
        let mut crossing = Crossing::of(self);
        let taken = page.items.iter().try_for_each(|entity| crossing.take_entity(entity));
        Ok(taken.map(|()| page.into()))
    }

    async fn related(
        &mut self,
        _: String,
        relation: String,
        _: Option<Query>,
    ) -> wasmtime::Result<Result<models::Page, Fault>> {
        Ok(Err(fault(FaultCode::Unsupported, format!("models have no relations yet: found {relation:?}"))))
    }

    async fn write(
        &mut self,
        model: String,
        operation: WriteOp,
    ) -> wasmtime::Result<Result<types::Entity, Fault>> {
        let written = self.services.write(self.asker(), &model, operation.into()).await;
        Ok(written.map(Into::into).map_err(Into::into))
    }

    async fn write_batch(
        &mut self,
        model: String,
        operations: Vec<WriteOp>,
    ) -> wasmtime::Result<Result<Vec<types::Entity>, Fault>> {
        let writes = operations.into_iter().map(Into::into).collect();
        let written = self.services.write_batch(self.asker(), &model, writes).await;
        Ok(written.map(|written| written.into_iter().map(Into::into).collect()).map_err(Into::into))
    }

    async fn aggregate(
        &mut self,
        model: String,
        pipeline: String,
    ) -> wasmtime::Result<Result<String, Fault>> {
        let answered = self.services.aggregate(self.asker(), &model, &pipeline).await;
        Ok(match answered {
            Ok(answer) => Crossing::of(self).take(answer.len()).map(|()| answer),
            Err(refusal) => Err(refusal.into()),
        })
    }
}

impl From<Entity> for types::Entity {
    fn from(entity: Entity) -> Self {
        let Entity { id, model, revision, created_ms, updated_ms, data } = entity;
        Self { id, model, revision, created: created_ms, updated: updated_ms, data }
    }
}

impl From<Page> for models::Page {
    fn from(page: Page) -> Self {
        Self { items: page.items.into_iter().map(Into::into).collect(), cursor: page.cursor, total: None }
    }
}

impl From<WriteOp> for Write {
    fn from(operation: WriteOp) -> Self {
        match operation {
            WriteOp::Create(data) => Self::Create { data },
            WriteOp::Patch((id, changes, revision)) => Self::Patch { id, changes, revision },
            WriteOp::Replace((id, data, revision)) => Self::Replace { id, data, revision },
            WriteOp::Delete((id, revision)) => Self::Delete { id, revision },
        }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.code {
            RefusalCode::Invalid => FaultCode::Invalid,
            RefusalCode::NotFound => FaultCode::NotFound,
            RefusalCode::Conflict => FaultCode::Conflict,
            RefusalCode::Denied => FaultCode::Denied,
            RefusalCode::Timeout => FaultCode::Timeout,
            RefusalCode::Unavailable => FaultCode::Unavailable,
            RefusalCode::CircuitOpen => FaultCode::CircuitOpen,
            RefusalCode::TooLarge => FaultCode::TooLarge,
            RefusalCode::Cancelled => FaultCode::Cancelled,
            RefusalCode::Unsupported => FaultCode::Unsupported,
            RefusalCode::Internal => FaultCode::Internal,
        };
        Self { code, message: refusal.message, details: refusal.details, transient: refusal.transient }
    }
}
