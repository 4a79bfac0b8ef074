//! What leaves the lock of a table.

use std::sync::Arc;

use bytes::Bytes;

use super::page::Counted;
use crate::problem::{Problem, ProblemCode};

/// A document that may be in the answer.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) id: Arc<str>,
    pub(crate) sequence: u64,
    /// Bytes of its body.
    pub(crate) length: u32,
    pub(crate) certainty: Certainty,
    pub(crate) body: Body,
}

/// Where a candidate is in its table, as long as it is there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    pub(crate) slot: u32,
    pub(crate) certainty: Certainty,
    /// Number of the change that wrote the version that is meant.
    pub(crate) sequence: u64,
}

/// Whether a candidate passes the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// It does.
    Certain,
    /// Its body will tell.
    Open,
}

/// The body of a candidate.
#[derive(Debug)]
pub(crate) enum Body {
    /// It was in the cache.
    Cached(Bytes),
    /// It was fetched for this plan.
    Fetched(Bytes),
    /// It is to be fetched when needed.
    Evicted,
}

/// Candidates, and what is known about them.
#[derive(Debug)]
pub(crate) struct Candidates {
    /// The documents.
    pub(crate) spots: Vec<Spot>,
    /// Their order.
    pub(crate) order: Order,
    /// Rows that have been passed over already.
    pub(crate) skipped: u64,
    /// Rows of the whole list, if known.
    pub(crate) total: Option<u64>,
    /// What was counted without becoming a candidate.
    pub(crate) counted: Counted,
}

/// The order of candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// As the query wants it.
    Asked,
    /// None.
    Any,
}

/// A state of a table that spots belong to. As long as somebody holds it the table keeps the versions that it replaces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot(Arc<()>);

impl Snapshot {
    /// Whether somebody else holds it.
    pub(crate) fn is_held(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Whether it is the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Body {
    /// The bytes, which have been fetched if they were evicted.
    pub(super) fn into_bytes(self) -> Result<Bytes, Problem> {
        match self {
            Self::Cached(bytes) | Self::Fetched(bytes) => Ok(bytes),
            Self::Evicted => Err(confused()),
        }
    }

    /// The bytes, and what to keep until it is known whether they are needed again: nothing that is not kept anyway.
    pub(super) fn for_later(self) -> Result<(Bytes, Self), Problem> {
        match self {
            Self::Cached(bytes) => Ok((bytes.clone(), Self::Cached(bytes))),
            Self::Fetched(bytes) => Ok((bytes, Self::Evicted)),
            Self::Evicted => Err(confused()),
        }
    }
}

/// A defect of the host.
pub(super) fn confused() -> Problem {
    Problem::new(ProblemCode::Internal, "a query was answered in a way that does not fit it")
}
