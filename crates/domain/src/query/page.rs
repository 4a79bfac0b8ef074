//! Answers.

use bytes::Bytes;
use serde_json::json;

use super::{
    Counting, PlaceWriter, Rows, Start, cursor,
    parameters::{self, Mistake},
    select::Mode,
};
use crate::problem::Problem;

/// Bytes of the documents of one page.
pub(crate) const PAGE_BYTES_MAX: usize = 64 << 20;

/// The answer to a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// JSON.
    pub body: Bytes,
    /// Where the list goes on, if it does and the query was for a part of a list that a cursor can continue.
    pub next_cursor: Option<String>,
}

/// How many documents a count has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counted {
    /// Documents.
    pub(crate) total: u64,
    /// Those whose body was in the cache.
    pub(crate) cached: u64,
    /// Bytes of all their bodies.
    pub(crate) bytes: u64,
}

/// The rows of a page.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    /// The documents.
    pub(crate) rows: Vec<Bytes>,
    /// Bytes of the documents.
    pub(crate) bytes: usize,
    /// Id of the last one.
    pub(crate) last_id: Vec<u8>,
    /// Whether there are more after them.
    pub(crate) continues: bool,
    /// Rows of the whole list, if asked for.
    pub(crate) total: u64,
}

impl Listed {
    /// Adds a row.
    ///
    /// # Errors
    /// The page is too large.
    pub(crate) fn add(&mut self, id: &str, row: Bytes) -> Result<(), Problem> {
        self.bytes += row.len();
        if self.bytes > PAGE_BYTES_MAX {
            let found =
                format!("{} documents of more than {} MiB", self.rows.len() + 1, PAGE_BYTES_MAX >> 20);
            return Err(parameters::problem(&[Mistake::saying("__limit", found, "fewer documents")]));
        }
        self.last_id.clear();
        self.last_id.extend_from_slice(id.as_bytes());
        self.rows.push(row);
        Ok(())
    }

    /// The answer.
    pub(crate) fn page(self, query: &Rows) -> Page {
        let mut body = Vec::with_capacity(self.bytes + self.rows.len() + 64);
        if let Start::Page(page) = query.start {
            let limit = u64::try_from(query.limit).unwrap_or(u64::MAX);
            let pages = self.total.div_ceil(limit);
            let head =
                format!(r#"{{"count":{},"total":{pages},"page":{page},"limit":{limit},"data":"#, self.total);
            body.extend_from_slice(head.as_bytes());
        }
        body.push(b'[');
        for (index, row) in self.rows.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            match &query.select {
                Some(select) => select.write(Mode::Keep, row, &mut body),
                None => body.extend_from_slice(row),
            }
        }
        body.push(b']');
        if query.needs_total() {
            body.push(b'}');
        }
        let goes_on = self.continues && !query.needs_total();
        let next_cursor = self.rows.last().filter(|_| goes_on).map(|last| {
            let mut places = PlaceWriter::default();
            cursor::encode(query.fingerprint, places.write(&query.sort, last, &self.last_id))
        });
        Page { body: body.into(), next_cursor }
    }
}

impl Counted {
    /// Counts a document.
    pub(crate) fn add(&mut self, length: u32, is_cached: bool) {
        self.total += 1;
        self.cached += u64::from(is_cached);
        self.bytes += u64::from(length);
    }

    /// The answer.
    pub(crate) fn page(self, counting: &Counting) -> Page {
        let answer = match counting {
            Counting::All => json!({"total": self.total, "cached": self.cached, "bytes": self.bytes}),
            Counting::Value { field, value } => json!({"total": self.total, "field": field, "value": value}),
        };
        Page { body: answer.to_string().into(), next_cursor: None }
    }
}
