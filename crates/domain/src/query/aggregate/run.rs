//! A pipeline at work.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{
    Group, Pipeline, Project, Stage,
    expression::{TooLarge, VALUE_BYTES_MAX},
    group::Groups,
};
use crate::{
    problem::Problem,
    query::{
        Filter, First, PlaceWriter, Sort,
        parameters::{self, Mistake},
    },
};

/// Bytes that all stages of one pipeline keep together.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// Bytes of the rows that are made of what was kept, when the documents are at their end and nobody pauses.
const MADE_AT_LAST_BYTES_MAX: u64 = 16 * (KEPT_BYTES_MAX as u64);
/// What a row costs beyond its own bytes.
const ROW_BYTES: usize = 128;

/// What a pipeline has made of the rows so far.
#[derive(Debug)]
pub(crate) struct Run {
    states: Vec<State>,
    scratch: Vec<u8>,
    places: PlaceWriter,
    out: Vec<u8>,
    rows: usize,
    /// Bytes of rows that were made, since somebody asked.
    made_bytes: u64,
}

#[derive(Debug)]
enum State {
    /// Match and project keep nothing.
    Nothing,
    /// Rows passed (limit, skip, count).
    Passed(u64),
    Groups(Groups),
    Sorted {
        first: First<Bytes>,
        came: u64,
        bytes: usize,
    },
}

/// Whether more rows are wanted.
type Flow = ControlFlow<()>;

impl Run {
    /// Before the first row.
    pub(crate) fn new(pipeline: &Pipeline) -> Self {
        let states = pipeline.stages.iter().enumerate().map(|(index, stage)| match stage {
            Stage::Match(_) | Stage::Project(_) => State::Nothing,
            Stage::Limit(_) | Stage::Skip(_) | Stage::Count(_) => State::Passed(0),
            Stage::Group(_) => State::Groups(Groups::default()),
            Stage::Sort(_) => {
                State::Sorted { first: First::new(pipeline.wanted_from(index + 1)), came: 0, bytes: 0 }
            }
        });
        Self {
            states: states.collect(),
            scratch: Vec::new(),
            places: PlaceWriter::default(),
            out: Vec::new(),
            rows: 0,
            made_bytes: 0,
        }
    }

    /// Adds a document.
    ///
    /// # Errors
    /// The pipeline keeps or yields too much.
    pub(crate) fn add(&mut self, pipeline: &Pipeline, document: Bytes) -> Result<Flow, Problem> {
        self.push(pipeline, 0, document)
    }

    /// Bytes of the rows that were made since it was asked last: work beyond that of reading documents.
    pub(crate) fn take_made(&mut self) -> u64 {
        std::mem::take(&mut self.made_bytes)
    }

    /// Ends, and is the JSON array of all results.
    ///
    /// # Errors
    /// The pipeline yields or makes too much.
    pub(crate) fn finish(mut self, pipeline: &Pipeline) -> Result<Bytes, Problem> {
        self.made_bytes = 0;
        for index in 0..pipeline.stages.len() {
            let state = std::mem::replace(&mut self.states[index], State::Nothing);
            self.flush(pipeline, index, state)?;
        }
        let mut body = Vec::with_capacity(self.out.len() + 2);
        body.push(b'[');
        body.extend_from_slice(&self.out);
        body.push(b']');
        Ok(body.into())
    }

    fn flush(&mut self, pipeline: &Pipeline, index: usize, state: State) -> Result<(), Problem> {
        match (&pipeline.stages[index], state) {
            (Stage::Group(group), State::Groups(groups)) => {
                self.push_all(pipeline, index + 1, group.finish(groups).map(Bytes::from))
            }
            (Stage::Sort(_), State::Sorted { first, .. }) => {
                self.push_all(pipeline, index + 1, first.into_rows())
            }
            (Stage::Count(name), State::Passed(count @ 1..)) => {
                let mut row = b"{".to_vec();
                crate::json::write_text(&mut row, name);
                row.extend_from_slice(format!(":{count}}}").as_bytes());
                self.push_all(pipeline, index + 1, [Bytes::from(row)])
            }
            _ => Ok(()),
        }
    }

    fn push_all(
        &mut self,
        pipeline: &Pipeline,
        index: usize,
        rows: impl IntoIterator<Item = Bytes>,
    ) -> Result<(), Problem> {
        for row in rows {
            if self.push(pipeline, index, row)?.is_break() {
                break;
            }
            if self.made_bytes > MADE_AT_LAST_BYTES_MAX {
                let found = format!(
                    "a pipeline that makes more than {} MiB of what it has kept",
                    MADE_AT_LAST_BYTES_MAX >> 20
                );
                return Err(too_much(found, "less, by $match, $project or $limit"));
            }
        }
        Ok(())
    }

    fn push(&mut self, pipeline: &Pipeline, index: usize, row: Bytes) -> Result<Flow, Problem> {
        let Some(stage) = pipeline.stages.get(index) else { return self.yield_row(pipeline, &row) };
        match (stage, &mut self.states[index]) {
            (Stage::Match(filter), _) => self.filtered(pipeline, index, filter, row),
            (Stage::Project(project), _) => self.projected(pipeline, index, project, &row),
            (Stage::Skip(skip), State::Passed(passed)) if *passed < *skip => {
                *passed += 1;
                Ok(Flow::Continue(()))
            }
            (Stage::Skip(_), _) => self.push(pipeline, index + 1, row),
            (Stage::Limit(limit), State::Passed(passed)) => {
                *passed += 1;
                let is_last = *passed >= *limit;
                let flow = self.push(pipeline, index + 1, row)?;
                Ok(if is_last { Flow::Break(()) } else { flow })
            }
            (Stage::Count(_), State::Passed(passed)) => {
                *passed += 1;
                Ok(Flow::Continue(()))
            }
            (Stage::Group(group), _) => self.grouped(index, group, &row),
            (Stage::Sort(sort), _) => self.sorted(index, sort, row),
            (Stage::Limit(_) | Stage::Count(_), _) => Ok(Flow::Break(())),
        }
    }

    fn filtered(
        &mut self,
        pipeline: &Pipeline,
        index: usize,
        filter: &Filter,
        row: Bytes,
    ) -> Result<Flow, Problem> {
        if filter.holds(&row, &mut self.scratch) {
            self.push(pipeline, index + 1, row)
        } else {
            Ok(Flow::Continue(()))
        }
    }

    fn projected(
        &mut self,
        pipeline: &Pipeline,
        index: usize,
        project: &Project,
        row: &[u8],
    ) -> Result<Flow, Problem> {
        let made = project.apply(row).map_err(|TooLarge| too_large())?;
        self.made_bytes += made.len() as u64;
        self.push(pipeline, index + 1, made.into())
    }

    fn grouped(&mut self, index: usize, group: &Group, row: &[u8]) -> Result<Flow, Problem> {
        if let State::Groups(groups) = &mut self.states[index] {
            group.add(groups, row, KEPT_BYTES_MAX).map_err(|TooLarge| too_large())?;
        }
        self.check_kept()
    }

    fn sorted(&mut self, index: usize, sort: &Sort, row: Bytes) -> Result<Flow, Problem> {
        if let State::Sorted { first, came, bytes } = &mut self.states[index] {
            *came += 1;
            *bytes += row.len() + ROW_BYTES;
            // The number of the row in place of an id makes the sort stable.
            let place = self.places.write(sort, &row, &came.to_be_bytes());
            if let Some(dropped) = first.offer(place, row) {
                *bytes -= dropped.len() + ROW_BYTES;
            }
        }
        self.check_kept()
    }

    fn check_kept(&self) -> Result<Flow, Problem> {
        let kept = self.states.iter().map(|state| match state {
            State::Nothing | State::Passed(_) => 0,
            State::Groups(groups) => groups.bytes(),
            State::Sorted { bytes, .. } => *bytes,
        });
        if kept.sum::<usize>() <= KEPT_BYTES_MAX {
            return Ok(Flow::Continue(()));
        }
        let found = format!("a pipeline that keeps more than {} MiB", KEPT_BYTES_MAX >> 20);
        Err(too_much(found, "less, by $match, $project or a $limit after $sort"))
    }

    fn yield_row(&mut self, pipeline: &Pipeline, row: &[u8]) -> Result<Flow, Problem> {
        if self.rows >= pipeline.rows_max {
            let found = format!("a pipeline that yields more than {} rows", pipeline.rows_max);
            return Err(too_much(found, "less, by a $limit at the end"));
        }
        if self.out.len() + row.len() > KEPT_BYTES_MAX {
            let found = format!("a pipeline that yields more than {} MiB", KEPT_BYTES_MAX >> 20);
            return Err(too_much(found, "less, by $project or $limit"));
        }
        if self.rows > 0 {
            self.out.push(b',');
        }
        self.out.extend_from_slice(row);
        self.rows += 1;
        Ok(Flow::Continue(()))
    }
}

fn too_large() -> Problem {
    let found = format!("a pipeline that makes a row or value of more than {} MiB", VALUE_BYTES_MAX >> 20);
    too_much(found, "less, by $match or $project")
}

fn too_much(found: String, expected: &str) -> Problem {
    parameters::problem(&[Mistake::saying("__aggregate", found, expected)])
}

impl Pipeline {
    /// How many times a document is read, once by each stage and once for the answer.
    pub(crate) fn reads(&self) -> u64 {
        self.stages.len() as u64 + 1
    }

    /// How many documents it can need at most.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted_from(0)
    }

    /// How many rows the stages from this one on can need at most.
    fn wanted_from(&self, index: usize) -> usize {
        let mut skipped = 0_u64;
        for stage in &self.stages[index..] {
            match stage {
                Stage::Skip(skip) => skipped = skipped.saturating_add(*skip),
                Stage::Limit(limit) => {
                    return usize::try_from(skipped.saturating_add(*limit)).unwrap_or(usize::MAX);
                }
                Stage::Project(_) => {}
                Stage::Match(_) | Stage::Group(_) | Stage::Sort(_) | Stage::Count(_) => break,
            }
        }
        usize::MAX
    }
}
