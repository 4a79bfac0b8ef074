//! The second phase of a query: outside of the lock of the table, body by body.

use std::{sync::Arc, vec};

use bytes::Bytes;

use super::{
    Output, Page, Query,
    candidates::{Body, Candidate, Candidates, Certainty, Order, Snapshot, Spot},
    collect::{Collector, Flow},
    effort::{Effort, Work},
    filter::Verdict,
};
use crate::problem::{Problem, ProblemCode};

/// Candidates that are taken out of the table at a time: the lock is held for about 0.1 ms. Tests are content with fewer
/// documents.
const LOOK_DOCUMENTS_MAX: usize = if cfg!(test) { 8 } else { 1024 };
/// Bodies that are asked for at a time.
const FETCH_DOCUMENTS_MAX: usize = if cfg!(test) { 5 } else { 256 };
/// Bytes of bodies after which no more are asked for at a time.
const FETCH_BYTES_MAX: usize = 4 << 20;

/// A query on its way to an answer. It shows the documents as they were when it was made.
#[derive(Debug)]
pub struct Plan {
    query: Query,
    scanned: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Answered(Page),
    Open(Box<Open>),
}

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// More documents are needed from the table: [`Table::look`](crate::table::Table::look), then step with no bodies.
    Look(Plan),
    /// These bodies are needed, in this order.
    Fetch(Plan, Vec<Wanted>),
    /// There is more to do than the effort allowed: step with no bodies, with a long effort from now on.
    Pause(Plan),
    /// This is the answer.
    Done(Page),
}

/// A version of a document whose body is not in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Id of the document.
    pub id: Arc<str>,
    /// Number of the change that wrote it.
    pub sequence: u64,
}

#[derive(Debug)]
struct Open {
    /// Documents to decide about now.
    candidates: Vec<Candidate>,
    at: usize,
    /// Which conditions hold for the current one, as far as that is known, in the order in which they are met.
    decided: Vec<bool>,
    /// Candidates whose bodies have been asked for.
    asked: Vec<usize>,
    /// Documents to decide about afterwards, which are still in the table.
    spots: vec::IntoIter<Spot>,
    snapshot: Snapshot,
    /// Documents that have to be brought into the order of their ids before the first one is decided about.
    gathered: Option<Vec<Candidate>>,
    collector: Collector,
    scratch: Vec<u8>,
}

impl Plan {
    /// A plan that is an answer already.
    pub(crate) fn answered(query: Query, page: Page) -> Self {
        Self { query, scanned: 0, state: State::Answered(page) }
    }

    /// A plan over candidates, none of which has been looked at.
    pub(crate) fn over(query: Query, candidates: Candidates, snapshot: Snapshot) -> Self {
        let collector = Collector::new(&query, &candidates);
        let spots = candidates.spots;
        let is_read = |spot: &&Spot| {
            spot.certainty == Certainty::Open
                || matches!(collector, Collector::Sorted { .. } | Collector::Piped(_))
        };
        let scanned = spots.iter().filter(is_read).count() as u64;
        let gathers = candidates.order == Order::Any && matches!(collector, Collector::Piped(_));
        let open = Open {
            candidates: Vec::new(),
            at: 0,
            decided: Vec::new(),
            asked: Vec::new(),
            spots: spots.into_iter(),
            snapshot,
            gathered: gathers.then(Vec::new),
            collector,
            scratch: Vec::new(),
        };
        Self { query, scanned, state: State::Open(Box::new(open)) }
    }

    /// Takes the next documents out of the table; nothing if it is no longer the table of the plan.
    pub(crate) fn look(
        mut self,
        snapshot: &Snapshot,
        find: impl FnMut(Spot) -> Option<Candidate>,
    ) -> Option<Self> {
        if let State::Open(open) = &mut self.state
            && open.at == open.candidates.len()
            && open.spots.len() > 0
        {
            if !open.snapshot.is(snapshot) {
                return None;
            }
            open.candidates =
                open.spots.by_ref().take(LOOK_DOCUMENTS_MAX).map(find).collect::<Option<_>>()?;
            open.at = 0;
        }
        Some(self)
    }

    /// Documents whose bodies are looked at to find out whether and where they belong in the answer: a measure of how
    /// long it takes.
    #[must_use]
    pub fn scanned(&self) -> u64 {
        self.scanned
    }

    /// Goes on with the bodies that the last step asked for, in that order; with none at first, after a look
    /// and after a pause. It pauses once it has done as much as `effort` allows, be it within a document.
    ///
    /// # Errors
    /// The answer would be too large.
    pub fn step(self, bodies: Vec<Bytes>, effort: Effort) -> Result<Step, Problem> {
        let Self { query, scanned, state } = self;
        let mut open = match state {
            State::Answered(page) => return Ok(Step::Done(page)),
            State::Open(open) => open,
        };
        open.supply(bodies)?;
        let pause = open.advance(&query, &mut Work::of(effort))?;
        let plan = |open| Self { query: query.clone(), scanned, state: State::Open(open) };
        Ok(match pause {
            Pause::Look => Step::Look(plan(open)),
            Pause::Fetch(wanted) => Step::Fetch(plan(open), wanted),
            Pause::Work => Step::Pause(plan(open)),
            Pause::Done => Step::Done(open.collector.finish(&query)?),
        })
    }
}

/// Why no document can be decided about at the moment.
enum Pause {
    Look,
    Fetch(Vec<Wanted>),
    /// The step has done enough.
    Work,
    Done,
}

impl Open {
    fn supply(&mut self, bodies: Vec<Bytes>) -> Result<(), Problem> {
        if bodies.len() != self.asked.len() {
            let detail = format!("a query asked for {} bodies and got {}", self.asked.len(), bodies.len());
            return Err(Problem::new(ProblemCode::Internal, detail));
        }
        for (index, body) in self.asked.drain(..).zip(bodies) {
            self.candidates[index].body = Body::Fetched(body);
        }
        Ok(())
    }

    fn advance(&mut self, query: &Query, work: &mut Work) -> Result<Pause, Problem> {
        loop {
            if let Some(gathered) = &mut self.gathered {
                gathered.append(&mut self.candidates);
                self.at = 0;
            } else if self.at < self.candidates.len() {
                if self.lacks_body(query) {
                    return Ok(Pause::Fetch(self.ask(query)));
                }
                let Some(flow) = self.take(query, work)? else { return Ok(Pause::Work) };
                if flow.is_break() {
                    self.at = self.candidates.len();
                    self.spots = Vec::new().into_iter();
                    self.snapshot = Snapshot::default();
                }
                continue;
            }
            if self.spots.len() > 0 {
                return Ok(Pause::Look);
            }
            if let Some(mut gathered) = self.gathered.take() {
                gathered.sort_unstable_by(|left, right| left.id.cmp(&right.id));
                self.candidates = gathered;
            } else if self.list_sorted(query).is_break() {
                return Ok(Pause::Done);
            }
        }
    }

    fn lacks_body(&self, query: &Query) -> bool {
        let candidate = &self.candidates[self.at];
        matches!(candidate.body, Body::Evicted)
            && (candidate.certainty == Certainty::Open || self.collector.bodies_needed(query) > 0)
    }

    /// Asks for the body of the current candidate, and of following ones that will probably be needed.
    fn ask(&mut self, query: &Query) -> Vec<Wanted> {
        let mut certain = self.collector.bodies_needed(query);
        let mut bytes = 0;
        let mut wanted = Vec::new();
        for (index, candidate) in self.candidates.iter().enumerate().skip(self.at) {
            if wanted.len() == FETCH_DOCUMENTS_MAX || bytes >= FETCH_BYTES_MAX {
                break;
            }
            if candidate.certainty == Certainty::Certain {
                if certain == 0 {
                    continue;
                }
                certain -= 1;
            }
            if matches!(candidate.body, Body::Evicted) {
                bytes += candidate.length as usize;
                wanted.push(Wanted { id: Arc::clone(&candidate.id), sequence: candidate.sequence });
                self.asked.push(index);
            }
        }
        wanted
    }

    /// Decides about the current candidate; not yet if that is more work than is left.
    fn take(&mut self, query: &Query, work: &mut Work) -> Result<Option<Flow>, Problem> {
        let verdict = self.judge(query, work);
        let candidate = &mut self.candidates[self.at];
        let length = u64::from(candidate.length);
        match verdict {
            Verdict::Unknown => return Ok(None),
            Verdict::Yes if !work.spend(self.collector.reads(query) * length) => return Ok(None),
            Verdict::Yes | Verdict::No => {}
        }
        self.at += 1;
        self.decided.clear();
        let body = std::mem::replace(&mut candidate.body, Body::Evicted);
        if verdict == Verdict::No {
            return Ok(Some(Flow::Continue(())));
        }
        let candidate = Candidate {
            id: Arc::clone(&candidate.id),
            sequence: candidate.sequence,
            length: candidate.length,
            certainty: Certainty::Certain,
            body,
        };
        let flow = self.collector.add(query, candidate)?;
        work.charge(self.collector.take_made());
        Ok(Some(flow))
    }

    /// Whether the current candidate passes the filter; unknown if that is more work than is left. What was
    /// found out about single conditions is kept for the next step.
    fn judge(&mut self, query: &Query, work: &mut Work) -> Verdict {
        let Self { candidates, at, decided, scratch, .. } = self;
        let candidate = &candidates[*at];
        let (Certainty::Open, Body::Cached(document) | Body::Fetched(document)) =
            (candidate.certainty, &candidate.body)
        else {
            return Verdict::Yes;
        };
        let mut asked = 0;
        query.parts().filter.judge(&mut |condition| {
            asked += 1;
            if let Some(holds) = decided.get(asked - 1) {
                return (*holds).into();
            }
            if !work.spend(condition.work(document.len())) {
                return Verdict::Unknown;
            }
            let holds = condition.holds(document, scratch);
            decided.push(holds);
            holds.into()
        })
    }

    /// Once all rows have passed by, those that belong in the page are known, and are listed.
    fn list_sorted(&mut self, query: &Query) -> Flow {
        let Output::Rows(rows) = &query.parts().output else { return Flow::Break(()) };
        let listing = Collector::listed(rows, 0, None);
        match std::mem::replace(&mut self.collector, listing) {
            Collector::Sorted { first, counted, .. } => {
                let skip = usize::try_from(rows.skip()).unwrap_or(usize::MAX);
                self.candidates = first.into_rows().skip(skip).collect();
                self.at = 0;
                self.collector = Collector::listed(rows, 0, Some(counted));
                Flow::Continue(())
            }
            other => {
                self.collector = other;
                Flow::Break(())
            }
        }
    }
}
