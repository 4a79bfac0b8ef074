//! Pipelines: a small, bounded part of MongoDB's aggregation.
//!
//! | Stage | Here |
//! | --- | --- |
//! | `$match` | `$eq $ne $gt $gte $lt $lte $in $nin $exists $not $and $or`, and `{"field": value}` for `$eq` |
//! | `$group` | `_id`: an expression; `$sum $avg $min $max $count $first $last $push`; groups come sorted by `_id` |
//! | `$sort` | `{"a": 1, "b": -1}`, ties in the order in which rows come |
//! | `$limit` `$skip` | whole numbers |
//! | `$project` | `1`, `0`, or an expression; `id` and `_id` stay unless they are `0` |
//! | `$count` | `"name"`: one row with the number; no row when there is nothing to count |
//!
//! An expression is `"$path"`, `"$$ROOT"`, `{"$literal": value}`, an object of expressions, or any other value as it is.
//! Rows come in the order of their ids. Conditions of leading `$match` stages use indexes like other filters.

mod accumulator;
mod expression;
mod group;
mod matching;
mod run;
mod sum;

use serde_json::{Map, Value};

pub(crate) use run::Run;

use self::{
    accumulator::Accumulator,
    expression::{Expression, Making, TooLarge},
    group::Group,
};
use super::{
    Bounds, Direction, Field, Filter, Sort,
    parameters::Mistake,
    parse::Fields,
    select::{Mode, Select},
    sort::{SORT_FIELDS_MAX, SortField},
};
use crate::{json, order::Times};

/// Stages of one pipeline.
const STAGES_MAX: usize = 16;

/// A pipeline that has been understood, without its leading `$match` stages.
#[derive(Debug)]
pub(crate) struct Pipeline {
    stages: Vec<Stage>,
    rows_max: usize,
}

#[derive(Debug)]
enum Stage {
    Match(Filter),
    Group(Group),
    Sort(Sort),
    Limit(u64),
    Skip(u64),
    Project(Project),
    Count(String),
}

/// `$project`.
#[derive(Debug)]
struct Project {
    mode: Mode,
    select: Select,
    computed: Vec<(String, Expression)>,
    /// Points in time of the rows that it makes; `None` when it only drops properties.
    times: Option<Times>,
}

/// Where in the pipeline something is, for messages.
#[derive(Debug, Clone, Copy)]
struct Reader<'a> {
    fields: Fields<'a>,
    stage: usize,
    operator: &'a str,
}

impl Reader<'_> {
    fn wrong(&self, found: &Value, expected: impl AsRef<str>) -> Mistake {
        self.saying(json::describe(found), expected)
    }

    fn saying(&self, found: impl AsRef<str>, expected: impl AsRef<str>) -> Mistake {
        let found = format!("in stage {} ({}) {}", self.stage + 1, self.operator, found.as_ref());
        Mistake::saying("__aggregate", found, expected)
    }

    /// A name that a row can get.
    fn new_name<'v>(&self, name: &'v str) -> Result<&'v str, Mistake> {
        if name.is_empty() || name.contains(['.', '$']) {
            return Err(
                self.saying(format!("the name {:?}", json::shorten(name)), "a name without '.' and '$'")
            );
        }
        Ok(name)
    }
}

/// Reads a pipeline. The filter is what its leading `$match` stages say.
pub(crate) fn parse(fields: Fields<'_>, text: &str, bounds: Bounds) -> Result<(Pipeline, Filter), Mistake> {
    let value = json::parse(text.as_bytes()).map_err(|problem| {
        let found = format!("no JSON ({})", problem.detail);
        Mistake::saying("__aggregate", found, "a JSON array of stages")
    })?;
    let Value::Array(items) = value else {
        return Err(Mistake::saying("__aggregate", json::describe(&value), "a JSON array of stages"));
    };
    if items.len() > STAGES_MAX {
        let found = format!("{} stages", items.len());
        return Err(Mistake::saying("__aggregate", found, format!("at most {STAGES_MAX}")));
    }
    // What fields are declared to hold is known as long as rows are documents; of rows that are made, what times they have.
    let mut made: Option<Times> = None;
    let mut filter = Filter::everything();
    let mut stages = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let fields = made.as_ref().map_or(fields, Fields::Made);
        match stage(fields, index, item)? {
            Stage::Match(condition) if stages.is_empty() => filter = filter.and(condition),
            stage => {
                if let Some(times) = stage.times() {
                    made = Some(times);
                }
                stages.push(stage);
            }
        }
    }
    let rows_max = usize::try_from(bounds.limit_max).unwrap_or(usize::MAX);
    Ok((Pipeline { stages, rows_max }, filter))
}

fn stage(fields: Fields<'_>, index: usize, item: &Value) -> Result<Stage, Mistake> {
    const STAGES: &str = "an object with one of $match, $group, $sort, $limit, $skip, $project, $count";
    let unknown =
        |found: String| Mistake::saying("__aggregate", format!("in stage {} {found}", index + 1), STAGES);
    let (operator, value) = match item.as_object().map(|members| (members.len(), members.iter().next())) {
        Some((1, Some(only))) => only,
        Some((count, _)) => return Err(unknown(format!("an object with {count} properties"))),
        None => return Err(unknown(json::describe(item))),
    };
    let reader = Reader { fields, stage: index, operator };
    match operator.as_str() {
        "$match" => matching::parse(&reader, value).map(Stage::Match),
        "$group" => group::parse(&reader, value).map(Stage::Group),
        "$sort" => sort(&reader, value).map(Stage::Sort),
        "$limit" => whole(&reader, value, 1).map(Stage::Limit),
        "$skip" => whole(&reader, value, 0).map(Stage::Skip),
        "$project" => project(&reader, value).map(Stage::Project),
        "$count" => match value {
            Value::String(name) => Ok(Stage::Count(reader.new_name(name)?.to_owned())),
            _ => Err(reader.wrong(value, "a name")),
        },
        other => Err(unknown(format!("{:?}", json::shorten(other)))),
    }
}

impl Stage {
    /// Points in time of the rows that it makes; `None` when rows stay what they are.
    fn times(&self) -> Option<Times> {
        match self {
            Self::Group(group) => Some(group.times()),
            Self::Project(project) => project.times.clone(),
            Self::Count(_) => Some(Times::default()),
            Self::Match(_) | Self::Sort(_) | Self::Limit(_) | Self::Skip(_) => None,
        }
    }
}

fn object<'v>(reader: &Reader<'_>, value: &'v Value) -> Result<&'v Map<String, Value>, Mistake> {
    value
        .as_object()
        .filter(|members| !members.is_empty())
        .ok_or_else(|| reader.wrong(value, "an object with at least one property"))
}

fn whole(reader: &Reader<'_>, value: &Value, min: u64) -> Result<u64, Mistake> {
    let number = value.as_u64().filter(|number| *number >= min);
    number.ok_or_else(|| reader.wrong(value, format!("a whole number from {min}")))
}

fn sort(reader: &Reader<'_>, value: &Value) -> Result<Sort, Mistake> {
    let members = object(reader, value)?;
    if members.len() > SORT_FIELDS_MAX {
        let found = format!("{} fields", members.len());
        return Err(reader.saying(found, format!("at most {SORT_FIELDS_MAX}")));
    }
    let mut sort = Sort::default();
    for (name, direction) in members {
        let direction = match direction.as_i64() {
            Some(1) => Direction::Ascending,
            Some(-1) => Direction::Descending,
            _ => return Err(reader.wrong(direction, "1 or -1")),
        };
        let field = field(reader, name)?;
        sort.fields.push(SortField { field, direction });
    }
    Ok(sort)
}

fn field(reader: &Reader<'_>, name: &str) -> Result<Field, Mistake> {
    reader
        .fields
        .resolve(name)
        .map_err(|expected| reader.saying(format!("{:?}", json::shorten(name)), expected))
}

fn project(reader: &Reader<'_>, value: &Value) -> Result<Project, Mistake> {
    const EXPECTED: &str = "1, 0, \"$path\" or an object of expressions";
    const KEPT: [&str; 2] = ["_id", "id"];
    let mut keep = Select::default();
    let mut drop = Select::default();
    let mut computed: Vec<(String, Expression)> = Vec::new();
    let mut decided = Vec::new();
    let mut times = Times::default();
    for (name, value) in object(reader, value)? {
        let field = field(reader, name)?;
        let path = field.path.clone();
        let flag = match value {
            Value::Bool(flag) => Some(*flag),
            value => value.as_f64().filter(|number| [0.0, 1.0].contains(number)).map(|number| number == 1.0),
        };
        match (flag, value) {
            (Some(true), _) => {
                keep.add(&path);
                times.put(&path, field.times());
            }
            (Some(false), _) if KEPT.contains(&name.as_str()) => decided.push((name.as_str(), path)),
            (Some(false), _) => drop.add(&path),
            (None, Value::Object(_)) => {
                computed.push((reader.new_name(name)?.to_owned(), expression::parse(reader, value)?));
            }
            (None, Value::String(text)) if text.starts_with('$') => {
                computed.push((reader.new_name(name)?.to_owned(), expression::parse(reader, value)?));
            }
            (None, _) => return Err(reader.wrong(value, EXPECTED)),
        }
    }
    let keeps = !keep.is_empty() || !computed.is_empty();
    if keeps && !drop.is_empty() {
        return Err(reader.saying("properties to keep and properties to drop", "only one of both"));
    }
    if let Some((name, _)) = computed.iter().find(|(name, _)| keep.has(name)) {
        let found = format!("{:?} and something within it", json::shorten(name));
        return Err(reader.saying(found, "only one of both"));
    }
    if !keeps {
        decided.iter().for_each(|(_, path)| drop.add(path));
        return Ok(Project { mode: Mode::Drop, select: drop, computed, times: None });
    }
    for name in KEPT {
        let is_decided = decided.iter().any(|(dropped, _)| *dropped == name)
            || computed.iter().any(|(new, _)| new == name);
        if !is_decided {
            let field = field(reader, name)?;
            keep.add(&field.path);
            times.put(&field.path, field.times());
        }
    }
    computed.iter().for_each(|(name, value)| times.put(std::slice::from_ref(name), value.times()));
    Ok(Project { mode: Mode::Keep, select: keep, computed, times: Some(times) })
}

impl Project {
    /// The row that this makes of a row.
    fn apply(&self, row: &[u8]) -> Result<Vec<u8>, TooLarge> {
        let mut selected = Vec::with_capacity(row.len());
        self.select.write(self.mode, row, &mut selected);
        let mut out = Making::from(selected);
        expression::extend(&self.computed, row, &mut out);
        out.finish()
    }
}
