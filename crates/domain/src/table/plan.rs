//! The first phase of a query: under the lock, by indexes only.
//!
//! Every document is judged by the keys that the indexes keep: it passes, it does not, or only its body can tell. What
//! remains leaves the lock as candidates. Which documents are judged at all, and in which order, is the plan:
//!
//! * **in order**: along the way that leads through the documents in the order asked for, until the page is full;
//! * **the narrowest**: the smallest set that an index (or one index per branch of an `or`) gives, sorted afterwards.

use std::{cell::Cell, collections::HashSet};

use bytes::Bytes;

use super::{
    Table,
    documents::{Id, SlotNumber},
    walk::{Axis, Onward, Way},
};
use crate::{
    order::Key,
    problem::Problem,
    query::{
        Body, Candidate, Candidates, Certainty, Condition, Counted, Counting, Direction, Filter, First,
        Order, Output, Parts, Place, PlaceWriter, Plan, Precision, Query, Rows, Sort, Spans, Spot, Start,
        Verdict,
    },
};

/// Judging a document by its keys takes less time than reading its body: 0.2 µs against 0.6 µs in 100 000 documents.
const JUDGEMENTS_PER_BODY: u64 = 4;
/// How much longer than the narrowest set the walk in order goes on before that set is sorted after all: the documents that
/// pass may all be at the end of the way.
const PATIENCE_FACTOR: u64 = 4;
/// Bytes of keys that patterns may read for each document that may be judged: less time than judging takes.
const PATTERN_BYTES_PER_JUDGEMENT: u64 = 128;

/// A set of documents that an index gives.
#[derive(Debug)]
struct Narrow {
    ways: Vec<Way>,
    estimate: u64,
}

/// What is wanted of the documents that pass.
struct Demand<'a> {
    sort: &'a Sort,
    after: Option<(&'a [u8], &'a Place)>,
    /// Rows to pass over.
    skip: u64,
    /// Rows that matter, those passed over included.
    kept: usize,
    /// Whether all rows have to be counted.
    counts: bool,
    /// Whether the body of every row is read, whether it is shown or not.
    reads: bool,
}

impl Table {
    /// Plans a query: decides which documents may be in the answer. Looks at no body; the time it takes is bounded by
    /// `scan_max` of the query.
    ///
    /// # Errors
    /// [`QueryTooExpensive`](crate::ProblemCode::QueryTooExpensive) when no index helps enough.
    pub fn plan(&self, query: &Query) -> Result<Plan, Problem> {
        let parts = query.parts();
        let planner = Planner::new(self, parts);
        let candidates = match &parts.output {
            Output::Count(counting) => {
                if let Some(counted) = planner.count_by_index(counting) {
                    return Ok(Plan::answered(query.clone(), counted.page(counting)));
                }
                planner.count()?
            }
            Output::Rows(rows) => planner.rows(rows)?,
            Output::Aggregate(pipeline) => {
                let kept = pipeline.wanted();
                let sort = Sort::default();
                let counts = kept == usize::MAX;
                planner.gather(&Demand { sort: &sort, after: None, skip: 0, kept, counts, reads: true })?
            }
        };
        let plan = Plan::over(query.clone(), candidates, self.retired.snapshot());
        // Most plans are small enough to be taken out of the table at once.
        Ok(self.look(plan).expect("the plan has just been made of this table"))
    }
}

impl Table {
    /// Takes the next documents that a plan asks for out of the table. Nothing when the plan is not of this table or it
    /// was truncated since, or so much has changed that the state of the plan could not be kept: make another plan.
    #[must_use]
    pub fn look(&self, plan: Plan) -> Option<Plan> {
        plan.look(&self.retired.snapshot(), |spot| {
            let slot = self.documents.slot(spot.slot);
            if slot.sequence == spot.sequence {
                return Some(candidate(&slot.id, slot.sequence, slot.length, slot.body(), spot.certainty));
            }
            let version = self.retired.get(spot.sequence)?;
            let body = version.body.as_ref();
            Some(candidate(&version.id, version.sequence, version.length, body, spot.certainty))
        })
    }
}

struct Planner<'a> {
    table: &'a Table,
    parts: &'a Parts,
    /// Work that patterns may still be. When there is none, only bodies tell.
    pattern_bytes_left: Cell<u64>,
}

impl<'a> Planner<'a> {
    fn new(table: &'a Table, parts: &'a Parts) -> Self {
        let judged_max = parts.bounds.scan_max.saturating_mul(JUDGEMENTS_PER_BODY);
        let pattern_bytes = judged_max.saturating_mul(PATTERN_BYTES_PER_JUDGEMENT);
        Self { table, parts, pattern_bytes_left: Cell::new(pattern_bytes) }
    }

    /// The number of documents, where the indexes know it without looking at single documents.
    fn count_by_index(&self, counting: &Counting) -> Option<Counted> {
        let all = self.table.statistics();
        match counting {
            Counting::All if self.parts.filter.is_everything() => {
                Some(Counted { total: all.documents, cached: all.cached_documents, bytes: all.bytes })
            }
            Counting::All => None,
            Counting::Value { .. } => self.total().map(|total| Counted { total, ..Counted::default() }),
        }
    }

    /// How many documents pass the filter, if one index knows exactly.
    fn total(&self) -> Option<u64> {
        let filter = &self.parts.filter;
        if filter.is_everything() {
            return Some(self.table.documents.len() as u64);
        }
        self.table.axes().find_map(|axis| match filter.spans(self.table.field(axis)) {
            (spans, Precision::Exact) => Some(self.table.count(axis, &spans)),
            (_, Precision::Wider) => None,
        })
    }

    fn count(&self) -> Result<Candidates, Problem> {
        let mut counted = Counted::default();
        let mut open = Vec::new();
        self.judge_all(&self.narrowest_or_all(), |slot, certainty| {
            if certainty == Certainty::Open {
                open.push(self.spot(slot, certainty));
                return self.check_bodies(open.len());
            }
            let slot = self.table.documents.slot(slot);
            counted.add(slot.length, slot.body().is_some());
            Ok(())
        })?;
        Ok(Candidates { spots: open, order: Order::Any, skipped: 0, total: None, counted })
    }

    fn rows(&self, rows: &Rows) -> Result<Candidates, Problem> {
        let total = if rows.needs_total() { self.total() } else { None };
        let demand = Demand {
            sort: &rows.sort,
            after: match &rows.start {
                Start::After { place, parts } => Some((place, parts)),
                Start::Skip(_) | Start::Page(_) => None,
            },
            skip: rows.skip(),
            kept: rows.kept_max(),
            counts: rows.needs_total() && total.is_none(),
            reads: false,
        };
        let candidates = self.gather(&demand)?;
        Ok(Candidates { total: total.or(candidates.total), ..candidates })
    }

    fn gather(&self, demand: &Demand<'_>) -> Result<Candidates, Problem> {
        let narrow = self.narrowest(&self.parts.filter);
        let way = self.way_in_order(demand.sort, narrow.as_ref());
        match (way, narrow) {
            (Some(way), Some(narrow)) if self.is_better(&way, &narrow, demand) => {
                let patience = narrow.estimate.saturating_mul(PATIENCE_FACTOR);
                match self.in_order(way, demand, patience) {
                    Ok(Some(candidates)) => Ok(candidates),
                    Ok(None) | Err(_) => self.sorted(&narrow, demand),
                }
            }
            (Some(way), None) => match self.in_order(way, demand, u64::MAX)? {
                Some(candidates) => Ok(candidates),
                None => self.sorted(&self.everything(), demand),
            },
            (_, narrow) => self.sorted(&narrow.unwrap_or_else(|| self.everything()), demand),
        }
    }

    /// Whether walking in order, which can stop early, looks at fewer documents than sorting the narrowest set.
    fn is_better(&self, way: &Way, narrow: &Narrow, demand: &Demand<'_>) -> bool {
        let along = self.table.estimate(way.axis, &way.spans);
        if demand.counts || !self.settles() {
            return along <= narrow.estimate;
        }
        let kept = u64::try_from(demand.kept).unwrap_or(u64::MAX);
        let until_full = kept.saturating_mul(along) / narrow.estimate.clamp(1, along.max(1));
        // Sorting costs about as much as judging once more.
        until_full.min(along) <= narrow.estimate.saturating_mul(2)
    }

    /// Whether indexes alone can decide about every condition.
    fn settles(&self) -> bool {
        let mut settles = true;
        self.parts
            .filter
            .conditions(&mut |condition| settles &= self.table.axis(&condition.field.name).is_some());
        settles
    }

    /// The way through the documents in the order asked for, restricted to what the filter says about its field.
    fn way_in_order(&self, sort: &Sort, narrow: Option<&Narrow>) -> Option<Way> {
        let mut way = self.table.way(sort)?;
        // The documents with one value stand in the order of their ids.
        if way.axis == Axis::Ids
            && let Some([only]) = narrow.map(|narrow| narrow.ways.as_slice())
            && only.spans.single_key().is_some()
        {
            return Some(Way { ids: way.keys, ..only.clone() });
        }
        way.spans = self.parts.filter.spans(self.table.field(way.axis)).0;
        Some(way)
    }

    /// The first documents along a way; nothing when more than so many had to be judged.
    fn in_order(
        &self,
        mut way: Way,
        demand: &Demand<'_>,
        patience: u64,
    ) -> Result<Option<Candidates>, Problem> {
        let stop_at = if demand.counts { usize::MAX } else { demand.kept };
        let skip_max = if demand.counts { 0 } else { demand.skip };
        let onward = demand.after.and_then(|(_, place)| self.onward(&way, demand.sort, place));
        let same_key = onward.as_ref().and_then(|onward| {
            let ids = way.ids;
            let after = onward.id.as_slice();
            self.table.cut(&mut way, onward).map(|postings| postings.walk(Some(after), ids))
        });
        let slots = same_key.into_iter().flatten().chain(self.table.walk(&way));
        let mut spots = Vec::new();
        let (mut skipped, mut certain, mut open) = (0, 0, 0);
        for (judged, slot) in slots.enumerate() {
            if judged as u64 >= patience {
                return Ok(None);
            }
            self.check_judged(judged)?;
            let Some(certainty) = self.judge(slot) else { continue };
            match certainty {
                Certainty::Open => open += 1,
                Certainty::Certain if spots.is_empty() && skipped < skip_max => {
                    skipped += 1;
                    certain += 1;
                    continue;
                }
                Certainty::Certain => certain += 1,
            }
            self.check_bodies(if demand.reads { spots.len() } else { open })?;
            spots.push(self.spot(slot, certainty));
            if certain >= stop_at {
                break;
            }
        }
        let counted = Counted::default();
        Ok(Some(Candidates { spots, order: Order::Asked, skipped, total: None, counted }))
    }

    /// Where a way goes on after the last row of the page before.
    fn onward(&self, way: &Way, sort: &Sort, place: &Place) -> Option<Onward> {
        let field = self.table.field(way.axis);
        let key = match way.axis {
            Axis::Ids => Key::from_canonical(&super::walk::id_key(&place.id)),
            Axis::Index(_) if sort.fields.first().is_some_and(|sort| sort.field.name == field) => {
                place.keys.first()?.clone()
            }
            // The documents with one value, by id.
            Axis::Index(_) => Key::from_canonical(way.spans.single_key()?),
        };
        Some(Onward { key, id: place.id.clone() })
    }

    fn sorted(&self, narrow: &Narrow, demand: &Demand<'_>) -> Result<Candidates, Problem> {
        let mut found = Vec::new();
        let mut open = 0;
        self.judge_all(narrow, |slot, certainty| {
            open += usize::from(certainty == Certainty::Open);
            found.push((slot, certainty));
            // Every one is sorted in, be it by its keys or by its body.
            self.check_bodies(found.len())
        })?;
        let axes: Option<Vec<_>> =
            demand.sort.fields.iter().map(|sort| self.table.axis(&sort.field.name)).collect();
        if let Some(axes) = axes.filter(|_| open == 0 && demand.kept < usize::MAX) {
            let slots = found.iter().map(|(slot, _)| *slot);
            return Ok(self.sorted_by_keys(slots, &axes, demand));
        }
        let spots = found.into_iter().map(|(slot, certainty)| self.spot(slot, certainty)).collect();
        Ok(Candidates { spots, order: Order::Any, skipped: 0, total: None, counted: Counted::default() })
    }

    fn sorted_by_keys(
        &self,
        slots: impl ExactSizeIterator<Item = SlotNumber>,
        axes: &[Axis],
        demand: &Demand<'_>,
    ) -> Candidates {
        let total = slots.len() as u64;
        let mut first = First::new(demand.kept);
        let mut places = PlaceWriter::default();
        for number in slots {
            let slot = self.table.documents.slot(number);
            places.begin();
            for (sort, axis) in demand.sort.fields.iter().zip(axes) {
                match axis {
                    Axis::Ids => places.push(sort.direction, &super::walk::id_key(slot.id.0.as_bytes())),
                    Axis::Index(index) => {
                        places.push(sort.direction, self.table.indexes[*index].key_at(number))
                    }
                }
            }
            let place = places.end(slot.id.0.as_bytes());
            if demand.after.is_none_or(|(after, _)| place > after) {
                first.offer(place, number);
            }
        }
        let skip = usize::try_from(demand.skip).unwrap_or(usize::MAX);
        let spots = first.into_rows().skip(skip).map(|slot| self.spot(slot, Certainty::Certain)).collect();
        Candidates {
            spots,
            order: Order::Asked,
            skipped: demand.skip,
            total: Some(total),
            counted: Counted::default(),
        }
    }

    fn everything(&self) -> Narrow {
        let way = Way {
            axis: Axis::Ids,
            spans: Spans::everything(),
            keys: Direction::Ascending,
            ids: Direction::Ascending,
        };
        Narrow { ways: vec![way], estimate: self.table.documents.len() as u64 }
    }

    fn narrowest_or_all(&self) -> Narrow {
        self.narrowest(&self.parts.filter).unwrap_or_else(|| self.everything())
    }

    /// The smallest set in which all documents are that pass a filter, if it is smaller than everything.
    fn narrowest(&self, filter: &Filter) -> Option<Narrow> {
        let by_axis = self.table.axes().filter_map(|axis| {
            let spans = filter.spans(self.table.field(axis)).0;
            if spans.is_everything() {
                return None;
            }
            let estimate = self.table.estimate(axis, &spans);
            let way = Way { axis, spans, keys: Direction::Ascending, ids: Direction::Ascending };
            Some(Narrow { ways: vec![way], estimate })
        });
        let by_parts = match filter {
            Filter::All(parts) => parts
                .iter()
                .filter(|part| matches!(part, Filter::Any(_) | Filter::All(_)))
                .filter_map(|part| self.narrowest(part))
                .min_by_key(|narrow| narrow.estimate),
            Filter::Any(parts) => self.union(parts),
            Filter::Not(_) | Filter::Is(_) => None,
        };
        by_axis.chain(by_parts).min_by_key(|narrow| narrow.estimate)
    }

    fn union(&self, parts: &[Filter]) -> Option<Narrow> {
        let parts: Vec<_> = parts.iter().map(|part| self.narrowest(part)).collect::<Option<_>>()?;
        let estimate = parts.iter().map(|part| part.estimate).sum();
        Some(Narrow { ways: parts.into_iter().flat_map(|part| part.ways).collect(), estimate })
    }

    /// Judges every document of a set once.
    fn judge_all(
        &self,
        narrow: &Narrow,
        mut found: impl FnMut(SlotNumber, Certainty) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let mut seen = HashSet::new();
        let mut judged = 0;
        for way in &narrow.ways {
            for slot in self.table.walk(way) {
                judged += 1;
                self.check_judged(judged)?;
                if narrow.ways.len() > 1 && !seen.insert(slot) {
                    continue;
                }
                if let Some(certainty) = self.judge(slot) {
                    found(slot, certainty)?;
                }
            }
        }
        Ok(())
    }

    /// Judges a document by its keys; nothing if it does not pass.
    fn judge(&self, number: SlotNumber) -> Option<Certainty> {
        let verdict =
            self.parts.filter.judge(&mut |condition| match self.table.axis(&condition.field.name) {
                Some(Axis::Index(index)) => self.known(condition, self.table.indexes[index].key_at(number)),
                Some(Axis::Ids) => {
                    let id = &self.table.documents.slot(number).id;
                    self.known(condition, &super::walk::id_key(id.0.as_bytes()))
                }
                None => Verdict::Unknown,
            });
        match verdict {
            Verdict::Yes => Some(Certainty::Certain),
            Verdict::Unknown => Some(Certainty::Open),
            Verdict::No => None,
        }
    }

    /// What a key tells about a condition, as long as that is not too much work under the lock.
    fn known(&self, condition: &Condition, key: &[u8]) -> Verdict {
        let left = self.pattern_bytes_left.get().checked_sub(condition.pattern_work(key.len()));
        self.pattern_bytes_left.set(left.unwrap_or(0));
        if left.is_some() { condition.judge(key) } else { Verdict::Unknown }
    }

    fn spot(&self, slot: SlotNumber, certainty: Certainty) -> Spot {
        Spot { slot, certainty, sequence: self.table.documents.slot(slot).sequence }
    }

    fn check_judged(&self, judged: usize) -> Result<(), Problem> {
        self.check(judged, self.parts.bounds.scan_max.saturating_mul(JUDGEMENTS_PER_BODY))
    }

    fn check_bodies(&self, bodies: usize) -> Result<(), Problem> {
        self.check(bodies, self.parts.bounds.scan_max)
    }

    fn check(&self, found: usize, max: u64) -> Result<(), Problem> {
        if u64::try_from(found).is_ok_and(|found| found <= max) {
            return Ok(());
        }
        let documents = self.table.documents.len() as u64;
        Err(self.parts.too_expensive(documents, |field| self.table.axis(field).is_some()))
    }
}

fn candidate(id: &Id, sequence: u64, length: u32, body: Option<&Bytes>, certainty: Certainty) -> Candidate {
    let body = body.map_or(Body::Evicted, |body| Body::Cached(body.clone()));
    Candidate { id: id.0.clone(), sequence, length, certainty, body }
}
