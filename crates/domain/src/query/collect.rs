//! What is made of the documents that pass the filter, one by one.

use std::ops::ControlFlow;

use super::{
    First, Output, Page, PlaceWriter, Query, Rows, Start,
    aggregate::Run,
    candidates::{Body, Candidate, Candidates, Order, confused},
    page::{Counted, Listed},
};
use crate::problem::Problem;

/// Whether more documents are wanted.
pub(super) type Flow = ControlFlow<()>;

/// The answer in the making.
#[derive(Debug)]
pub(super) enum Collector {
    /// The rows of a page, which come in order.
    Listed { listed: Listed, skip: u64, counts: Counts },
    /// The first rows, which come in any order.
    Sorted { first: First<Candidate>, places: PlaceWriter, counted: u64 },
    /// Their number.
    Counted(Counted),
    /// The result of a pipeline, which takes documents in the order of their ids.
    Piped(Box<Run>),
}

/// Whether the whole list is counted while a page is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    /// Its rows are counted to the last.
    Rows,
    /// Nobody asks, or the number is known.
    Nothing,
}

impl Collector {
    /// Nothing yet, of what the query asks for.
    pub(super) fn new(query: &Query, candidates: &Candidates) -> Self {
        match &query.parts().output {
            Output::Count(_) => Self::Counted(candidates.counted),
            Output::Aggregate(pipeline) => Self::Piped(Box::new(Run::new(pipeline))),
            Output::Rows(rows) if candidates.order == Order::Any => Self::Sorted {
                first: First::new(rows.kept_max()),
                places: PlaceWriter::default(),
                counted: 0,
            },
            Output::Rows(rows) => Self::listed(rows, rows.skip() - candidates.skipped, candidates.total),
        }
    }

    /// Nothing yet, of a page.
    pub(super) fn listed(rows: &Rows, skip: u64, total: Option<u64>) -> Self {
        let counts = if rows.needs_total() && total.is_none() { Counts::Rows } else { Counts::Nothing };
        let listed = Listed { total: total.unwrap_or(0), ..Listed::default() };
        Self::Listed { listed, skip, counts }
    }

    /// How many certain candidates to come are needed with their bodies.
    pub(super) fn bodies_needed(&self, query: &Query) -> usize {
        match (self, &query.parts().output) {
            (Self::Listed { listed, skip: 0, .. }, Output::Rows(rows)) => rows.limit - listed.rows.len(),
            (Self::Listed { .. } | Self::Counted(_), _) => 0,
            (Self::Sorted { .. } | Self::Piped(_), _) => usize::MAX,
        }
    }

    /// How many times the body of a document is read when it is added.
    pub(super) fn reads(&self, query: &Query) -> u64 {
        match (self, &query.parts().output) {
            (Self::Sorted { .. }, Output::Rows(rows)) => rows.sort.fields.len() as u64,
            (Self::Piped(_), Output::Aggregate(pipeline)) => pipeline.reads(),
            (Self::Listed { .. } | Self::Counted(_) | Self::Sorted { .. } | Self::Piped(_), _) => 0,
        }
    }

    /// Bytes that were made of documents since it was asked last, where that is work of its own.
    pub(super) fn take_made(&mut self) -> u64 {
        match self {
            Self::Piped(run) => run.take_made(),
            Self::Listed { .. } | Self::Sorted { .. } | Self::Counted(_) => 0,
        }
    }

    /// Adds a document that passes the filter.
    pub(super) fn add(&mut self, query: &Query, candidate: Candidate) -> Result<Flow, Problem> {
        match (self, &query.parts().output) {
            (Self::Listed { listed, skip, counts }, Output::Rows(rows)) => {
                if *counts == Counts::Rows {
                    listed.total += 1;
                }
                if *skip > 0 {
                    *skip -= 1;
                } else if listed.rows.len() < rows.limit {
                    listed.add(&candidate.id, candidate.body.into_bytes()?)?;
                } else {
                    listed.continues = true;
                    if *counts == Counts::Nothing {
                        return Ok(Flow::Break(()));
                    }
                }
            }
            (Self::Sorted { first, places, counted }, Output::Rows(rows)) => {
                *counted += 1;
                let (body, kept) = candidate.body.for_later()?;
                let place = places.write(&rows.sort, &body, candidate.id.as_bytes());
                let comes_later = match &rows.start {
                    Start::After { place: after, .. } => place > after.as_slice(),
                    Start::Skip(_) | Start::Page(_) => true,
                };
                if comes_later {
                    first.offer(place, Candidate { body: kept, ..candidate });
                }
            }
            (Self::Counted(counted), _) => {
                counted.add(candidate.length, matches!(candidate.body, Body::Cached(_)));
            }
            (Self::Piped(run), Output::Aggregate(pipeline)) => {
                return run.add(pipeline, candidate.body.into_bytes()?);
            }
            (Self::Listed { .. } | Self::Sorted { .. } | Self::Piped(_), _) => return Err(confused()),
        }
        Ok(Flow::Continue(()))
    }

    /// The answer.
    pub(super) fn finish(self, query: &Query) -> Result<Page, Problem> {
        match (self, &query.parts().output) {
            (Self::Listed { listed, .. }, Output::Rows(rows)) => Ok(listed.page(rows)),
            (Self::Counted(counted), Output::Count(counting)) => Ok(counted.page(counting)),
            (Self::Piped(run), Output::Aggregate(pipeline)) => {
                Ok(Page { body: run.finish(pipeline)?, next_cursor: None })
            }
            _ => Err(confused()),
        }
    }
}
