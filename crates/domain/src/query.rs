//! The list grammar: what a client may ask of many documents, and how it is answered.
//!
//! ```text
//! Query::parse ──▶ Table::plan (under the lock: which documents, by their indexes)
//!                     │
//!                     ▼
//!                  Plan::step ◀──▶ Table::look (under the lock: the next documents), bodies that the worker fetches
//!                     │
//!                     ▼
//!                   Page
//! ```

mod aggregate;
mod candidates;
mod collect;
mod cursor;
mod effort;
mod filter;
mod page;
mod parameters;
mod parse;
mod pattern;
mod plan;
mod select;
mod showing;
mod sort;
mod spans;
mod values;

use std::sync::Arc;

use serde_json::Value;

pub use cursor::CURSOR_BYTES_MAX;
pub use effort::Effort;
pub use page::Page;
pub use parameters::{decode, with_cursor};
pub use parse::{Invocation, no_such_command, read_item, spells_json};
pub use plan::{Plan, Step, Wanted};
pub use showing::Showing;
pub use values::texts_of_list;
pub(crate) use {
    candidates::{Body, Candidate, Candidates, Certainty, Order, Snapshot, Spot},
    filter::{Condition, Field, Filter, Verdict},
    page::Counted,
    sort::{Direction, First, Place, PlaceWriter, Sort},
    spans::{Precision, Span, Spans},
};

use self::{aggregate::Pipeline, cursor::Fingerprint, select::Select};
use crate::{
    catalog::Model,
    document::HOST_FIELDS,
    problem::{Problem, ProblemCode},
};

/// Bounds on queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Documents a query may look at because no index helps.
    pub scan_max: u64,
    /// `__limit` when none is given.
    pub limit_default: u32,
    /// Largest `__limit`.
    pub limit_max: u32,
}

/// A query that has been understood. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Query(Arc<Parts>);

/// What a query consists of.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The model, for messages.
    pub(crate) model: String,
    /// Which documents.
    pub(crate) filter: Filter,
    /// What is made of them.
    pub(crate) output: Output,
    /// Bounds in force.
    pub(crate) bounds: Bounds,
}

/// What is made of the documents that pass the filter.
#[derive(Debug)]
pub(crate) enum Output {
    /// A list of them.
    Rows(Rows),
    /// Their number.
    Count(Counting),
    /// The result of a pipeline.
    Aggregate(Pipeline),
}

/// Which part of the list, in which order and form.
#[derive(Debug)]
pub(crate) struct Rows {
    /// The order.
    pub(crate) sort: Sort,
    /// Where the part begins.
    pub(crate) start: Start,
    /// How many rows at most.
    pub(crate) limit: usize,
    /// Which properties; `None` for all.
    select: Option<Select>,
    /// For cursors.
    fingerprint: Fingerprint,
}

/// Where the part of a list begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// After so many rows.
    Skip(u64),
    /// At a page of `limit` rows, from 1; the answer is an envelope.
    Page(u64),
    /// After a row that was the last of the page before.
    After {
        /// As bytes that compare.
        place: Vec<u8>,
        /// As keys.
        parts: Place,
    },
}

/// How the number is answered.
#[derive(Debug)]
pub(crate) enum Counting {
    /// `__count=all`.
    All,
    /// `__count=field:value`.
    Value {
        /// The field, as named.
        field: String,
        /// The value, as understood.
        value: Value,
    },
}

impl Query {
    /// Reads the part of a request target after the question mark.
    ///
    /// # Errors
    /// [`ProblemCode::BadParameter`] with every mistake, each as parameter, found and expected;
    /// [`ProblemCode::NoSuchRelation`] and [`ProblemCode::NoSuchCommand`] for what only items have.
    pub fn parse(model: &Model, raw_query: &str, bounds: &Bounds) -> Result<Self, Problem> {
        parse::parse(model, raw_query, *bounds).map(|parts| Self(Arc::new(parts)))
    }

    /// Its parts.
    pub(crate) fn parts(&self) -> &Parts {
        &self.0
    }
}

impl Rows {
    /// Rows that are passed over.
    pub(crate) fn skip(&self) -> u64 {
        match self.start {
            Start::Skip(skip) => skip,
            Start::Page(page) => (page - 1).saturating_mul(u64::try_from(self.limit).unwrap_or(u64::MAX)),
            Start::After { .. } => 0,
        }
    }

    /// Rows at the head of the list that have to be known to make the page, one more than it shows.
    pub(crate) fn kept_max(&self) -> usize {
        usize::try_from(self.skip()).unwrap_or(usize::MAX).saturating_add(self.limit).saturating_add(1)
    }

    /// Whether the number of all rows is asked for.
    pub(crate) fn needs_total(&self) -> bool {
        matches!(self.start, Start::Page(_))
    }
}

impl Parts {
    /// The problem of a query that would have to look at too many documents.
    pub(crate) fn too_expensive(&self, documents: u64, is_indexed: impl Fn(&str) -> bool) -> Problem {
        let mut wanted: Vec<String> = Vec::new();
        let mut barred: Vec<String> = Vec::new();
        let mut add = |field: &Field| {
            let can_have = field.path.len() == 1 && !HOST_FIELDS.contains(&field.name.as_str());
            let names = if can_have { &mut wanted } else { &mut barred };
            if !is_indexed(&field.name) && !names.contains(&field.name) {
                names.push(field.name.clone());
            }
        };
        self.filter.conditions(&mut |condition| add(&condition.field));
        if let Output::Rows(rows) = &self.output {
            rows.sort.fields.iter().for_each(|sort| add(&sort.field));
        }
        let quoted =
            |names: &[String]| names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
        let advice = match (wanted.as_slice(), barred.as_slice()) {
            ([], []) => "narrow it with a filter on an indexed field".to_owned(),
            ([], barred) => {
                format!("add a filter on an indexed field, because {} cannot have an index", quoted(barred))
            }
            (wanted, _) => {
                format!("declare an index on {} or add a filter on an indexed field", quoted(wanted))
            }
        };
        let detail = format!(
            "the query would look at {documents} documents of {}, more than {}: {advice}",
            self.model, self.bounds.scan_max,
        );
        Problem::new(ProblemCode::QueryTooExpensive, detail)
    }
}

#[cfg(test)]
pub(crate) mod tests;
