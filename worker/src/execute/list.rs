//! Many documents, all as one log prefix shows them.
//!
//! The plan is made under the read lock of the table and holds on to what it saw; bodies that are not cached are fetched
//! afterwards, in exactly the versions of the plan. A version that the store has replaced meanwhile means another plan.
//! Bodies fetched before are kept for it, so that plans over a busy model come closer to their end each time.

use std::{collections::HashMap, sync::Arc, time::Instant};

use aegis_domain::{
    Problem, ProblemCode,
    query::{Effort, Page, Plan, Query, Step, Wanted},
};
use aegis_ipc::{
    board::{Counter, ModelCounter},
    data,
};
use bytes::Bytes;
use tokio::{
    task::{JoinError, spawn_blocking},
    time::timeout_at,
};

use super::{Engine, load::loads, read::NEWER_VERSION_WAIT_MAX};
use crate::{
    data::ModelTable,
    operation::{Outcome, Reply, Request},
};

/// Documents a plan may look at on the thread that serves connections: about half a millisecond.
const SCANNED_INLINE_MAX: u64 = 5_000;
/// Plans made for one list.
const PLANS_MAX: usize = 50;
/// Bytes of fetched bodies kept for the next plan.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Fetched bodies, for the next plan of the same list.
#[derive(Debug, Default)]
struct Kept {
    bodies: HashMap<(Arc<str>, u64), Bytes>,
    bytes: usize,
}

impl Engine {
    pub(super) async fn list(&self, request: &Request, raw_query: &str) -> Result<Reply, Problem> {
        let (query, showing) = if loads(&request.model) {
            Query::parse_whole(&request.model, raw_query, self.bounds())?
        } else {
            (Query::parse(&request.model, raw_query, self.bounds())?, None)
        };
        let table = self.table(&request.model)?;
        let data = self.data();
        data.wait_until_applied(data.watermark(), request.deadline).await?;
        let mut kept = Kept::default();
        for _ in 0..PLANS_MAX {
            let (plan, sequence) = table.plan(&query, data.applied().unwrap_or(0))?;
            self.count(Counter::Scanned, plan.scanned());
            if let Some(page) = self.carry_out(plan, table, &mut kept, request.deadline).await? {
                table.count(data.cell(), ModelCounter::Lists, 1);
                let page = match &showing {
                    Some(showing) => self.loaded_page(request, page, showing).await?,
                    None => page,
                };
                let result = Outcome::Listed { next_cursor: page.next_cursor };
                return Ok(Reply { result, body: page.body, sequence, replayed: false });
            }
            let until = request.deadline.min(Instant::now() + NEWER_VERSION_WAIT_MAX);
            data.wait_for(sequence + 1, until).await;
            if Instant::now() >= request.deadline {
                break;
            }
        }
        let detail = "the documents of the list changed faster than they could be read; \
                      a filter on an indexed field or a smaller __limit makes it faster";
        Err(Problem::new(ProblemCode::DeadlineExceeded, detail))
    }

    /// Carries out a plan; `None` when a version it needs is gone, or the table itself.
    async fn carry_out(
        &self,
        plan: Plan,
        table: &ModelTable,
        kept: &mut Kept,
        deadline: Instant,
    ) -> Result<Option<Page>, Problem> {
        let is_long = plan.scanned() > SCANNED_INLINE_MAX;
        let mut effort = if is_long { Effort::Long } else { Effort::Brief };
        let mut plan = plan;
        let mut bodies = Vec::new();
        loop {
            let step = match effort {
                Effort::Brief => plan.step(bodies, effort)?,
                Effort::Long => long_step(plan, bodies, deadline).await?,
            };
            if !matches!(step, Step::Done(_)) && Instant::now() >= deadline {
                return Err(too_long());
            }
            let next = match step {
                Step::Done(page) => return Ok(Some(page)),
                Step::Look(next) => table.look(next).map(|next| (next, Vec::new())),
                Step::Pause(next) => {
                    effort = Effort::Long;
                    Some((next, Vec::new()))
                }
                Step::Fetch(next, wanted) => {
                    self.bodies(table, wanted, kept, deadline).await?.map(|found| (next, found))
                }
            };
            let Some(next) = next else { return Ok(None) };
            (plan, bodies) = next;
        }
    }

    /// All wanted bodies in order; `None` when one of them is gone.
    async fn bodies(
        &self,
        table: &ModelTable,
        wanted: Vec<Wanted>,
        kept: &mut Kept,
        deadline: Instant,
    ) -> Result<Option<Vec<Bytes>>, Problem> {
        let mut found: Vec<Option<Bytes>> = wanted.iter().map(|wanted| kept.get(wanted)).collect();
        let missing: Vec<usize> = (0..wanted.len()).filter(|index| found[*index].is_none()).collect();
        if missing.is_empty() {
            return Ok(found.into_iter().collect());
        }
        self.count(Counter::CacheMisses, missing.len() as u64);
        let version = |index: &usize| data::Version {
            model: table.model().name().to_owned(),
            id: wanted[*index].id.as_ref().to_owned(),
            sequence: wanted[*index].sequence,
        };
        let versions = missing.iter().map(version).collect();
        let fetched = self.data().fetch(versions, deadline).await?;
        for (index, body) in missing.into_iter().zip(fetched) {
            if let Some(body) = &body {
                table.fill(&wanted[index].id, wanted[index].sequence, body.clone());
                kept.add(&wanted[index], body);
            }
            found[index] = body;
        }
        Ok(found.into_iter().collect())
    }
}

impl Kept {
    fn get(&self, wanted: &Wanted) -> Option<Bytes> {
        self.bodies.get(&(Arc::clone(&wanted.id), wanted.sequence)).cloned()
    }

    fn add(&mut self, wanted: &Wanted, body: &Bytes) {
        if self.bytes + body.len() <= KEPT_BYTES_MAX {
            self.bytes += body.len();
            self.bodies.insert((Arc::clone(&wanted.id), wanted.sequence), body.clone());
        }
    }
}

/// A step on a thread of its own. One that the deadline finds there goes on to its end, which is near.
async fn long_step(plan: Plan, bodies: Vec<Bytes>, deadline: Instant) -> Result<Step, Problem> {
    let mut stepping = spawn_blocking(move || plan.step(bodies, Effort::Long));
    match timeout_at(deadline.into(), &mut stepping).await {
        Ok(stepped) => stepped.map_err(|error| stopped(&error))?,
        Err(_) => {
            // It may not have begun.
            stepping.abort();
            Err(too_long())
        }
    }
}

fn too_long() -> Problem {
    Problem::new(ProblemCode::DeadlineExceeded, "the list took too long")
}

fn stopped(error: &JoinError) -> Problem {
    Problem::new(ProblemCode::Internal, format!("a scan did not end: {error}"))
}
