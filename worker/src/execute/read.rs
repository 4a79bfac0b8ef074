//! One document, as the log shows it at or after the moment the request began.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use aegis_domain::{Problem, ProblemCode, catalog::Model, table::Lookup};
use aegis_ipc::{
    board::{Counter, ModelCounter},
    data,
};
use bytes::Bytes;

use super::{
    Engine, change, loads,
    precondition::{self, ReadVerdict},
};
use crate::{
    data::ModelTable,
    operation::{Outcome, Reply, Request},
};

/// Pause before a document is looked up again whose version the store has just replaced.
pub(super) const NEWER_VERSION_WAIT_MAX: Duration = Duration::from_millis(20);

/// One version of a document.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) revision: u64,
    pub(super) sequence: u64,
    pub(super) body: Bytes,
}

impl Engine {
    pub(super) async fn read(&self, request: &Request, id: &str) -> Result<Reply, Problem> {
        let (current, sequence) = self.current(&request.model, id, request.deadline).await?;
        self.count_model(&request.model, ModelCounter::Reads, 1);
        let version = current.ok_or_else(|| change::not_found(&request.model, id))?;
        let revision = version.revision;
        let (result, body) = match precondition::check_read(&request.precondition, revision)? {
            // What the client has of this revision may be what another version of the code made of it.
            ReadVerdict::NotModified if !loads(&request.model) => {
                (Outcome::NotModified { revision }, Bytes::new())
            }
            ReadVerdict::Show | ReadVerdict::NotModified => {
                (Outcome::Found { revision }, self.loaded(request, id, version).await?.body)
            }
        };
        Ok(Reply { result, body, sequence, replayed: false })
    }

    /// The document with this id, `None` when there is none, and the log position that this reflects: at or above the
    /// watermark at the time of the call.
    pub(super) async fn current(
        &self,
        model: &Arc<Model>,
        id: &str,
        deadline: Instant,
    ) -> Result<(Option<Version>, u64), Problem> {
        let table = self.table(model)?;
        let watermark = self.data().watermark();
        self.data().wait_until_applied(watermark, deadline).await?;
        loop {
            let shown = self.data().applied().unwrap_or(0);
            let seen = table.look_up(id, shown);
            let (revision, sequence) = match seen.found {
                Lookup::Missing => return Ok((None, seen.sequence)),
                Lookup::Hit { revision, sequence, body } => {
                    self.count(Counter::CacheHits, 1);
                    return Ok((Some(Version { revision, sequence, body }), seen.sequence));
                }
                Lookup::Evicted { revision, sequence } => (revision, sequence),
            };
            if let Some(body) = self.fetch_one(table, id, sequence, deadline).await? {
                return Ok((Some(Version { revision, sequence, body }), seen.sequence));
            }
            // The store has a newer version, which becomes visible in a moment.
            let until = deadline.min(Instant::now() + NEWER_VERSION_WAIT_MAX);
            self.data().wait_for(seen.sequence + 1, until).await;
            if Instant::now() >= deadline {
                let detail = format!("the document {id:?} changed faster than it could be read");
                return Err(Problem::new(ProblemCode::DeadlineExceeded, detail));
            }
        }
    }

    async fn fetch_one(
        &self,
        table: &ModelTable,
        id: &str,
        sequence: u64,
        deadline: Instant,
    ) -> Result<Option<Bytes>, Problem> {
        self.count(Counter::CacheMisses, 1);
        let version = data::Version { model: table.model().name().to_owned(), id: id.to_owned(), sequence };
        let body = self.data().fetch(vec![version], deadline).await?.pop().flatten();
        if let Some(body) = &body {
            table.fill(id, sequence, body.clone());
        }
        Ok(body)
    }
}
