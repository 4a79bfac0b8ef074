//! What `$group` makes of the rows of a group.

use serde_json::Value;

use super::{
    Expression, Reader,
    expression::{self, TooLarge},
    sum::Sum,
};
use crate::{
    order::{Key, Times, tag},
    query::parameters::Mistake,
};

/// What is made of a value of every row.
#[derive(Debug)]
pub(super) struct Accumulator {
    operator: Operator,
    of: Expression,
    /// Points in time of what it looks at.
    of_times: Times,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Sum,
    Average,
    Min,
    Max,
    Count,
    First,
    Last,
    Push,
}

/// What has been made so far.
#[derive(Debug)]
pub(super) enum State {
    /// Sum and number of numbers.
    Sum(Sum, u64),
    /// Number of rows.
    Count(u64),
    /// The smallest or largest value, as key and as JSON.
    Best(Option<(Key, Vec<u8>)>),
    /// The first or last value; JSON.
    Kept(Option<Vec<u8>>),
    /// All values, with commas between them; JSON.
    All(Vec<u8>),
}

/// Reads `{"$sum": …}`.
pub(super) fn parse(reader: &Reader<'_>, value: &Value) -> Result<Accumulator, Mistake> {
    const EXPECTED: &str = "an object with one of $sum, $avg, $min, $max, $count, $first, $last, $push";
    let only =
        value.as_object().filter(|members| members.len() == 1).and_then(|members| members.iter().next());
    let Some((name, of)) = only else { return Err(reader.wrong(value, EXPECTED)) };
    let operator = match name.as_str() {
        "$sum" => Operator::Sum,
        "$avg" => Operator::Average,
        "$min" => Operator::Min,
        "$max" => Operator::Max,
        "$count" => Operator::Count,
        "$first" => Operator::First,
        "$last" => Operator::Last,
        "$push" => Operator::Push,
        other => return Err(reader.saying(format!("{:?}", crate::json::shorten(other)), EXPECTED)),
    };
    if operator == Operator::Count && of.as_object().is_none_or(|members| !members.is_empty()) {
        return Err(reader.wrong(of, "an empty object in $count"));
    }
    let of = expression::parse(reader, of)?;
    Ok(Accumulator { operator, of_times: of.times(), of })
}

impl Accumulator {
    /// The state before the first row.
    pub(super) fn start(&self) -> State {
        match self.operator {
            Operator::Sum | Operator::Average => State::Sum(Sum::default(), 0),
            Operator::Count => State::Count(0),
            Operator::Min | Operator::Max => State::Best(None),
            Operator::First | Operator::Last => State::Kept(None),
            Operator::Push => State::All(Vec::new()),
        }
    }

    /// Adds a row.
    pub(super) fn add(&self, state: &mut State, row: &[u8]) -> Result<(), TooLarge> {
        match state {
            State::Count(count) => *count += 1,
            State::Sum(sum, count) => {
                let value = self.of.value(row)?.filter(|value| is_number(value));
                if let Some(number) = value.as_deref().and_then(|value| std::str::from_utf8(value).ok()) {
                    sum.add(number);
                    *count += 1;
                }
            }
            State::Best(best) => {
                let Some(value) = self.of.value(row)? else { return Ok(()) };
                let key = self.of_times.key_of_raw(&value);
                let replaces = best.as_ref().is_none_or(|(best, _)| match self.operator {
                    Operator::Min => key < *best,
                    _ => key > *best,
                });
                if replaces && key.as_bytes()[0] > tag::NULL {
                    *best = Some((key, value));
                }
            }
            State::Kept(kept) => {
                if kept.is_none() || self.operator == Operator::Last {
                    *kept = Some(self.of.value(row)?.unwrap_or_else(|| b"null".to_vec()));
                }
            }
            State::All(all) => {
                let Some(value) = self.of.value(row)? else { return Ok(()) };
                if !all.is_empty() {
                    all.push(b',');
                }
                all.extend_from_slice(&value);
            }
        }
        Ok(())
    }

    /// Points in time of the result.
    pub(super) fn times(&self) -> Times {
        match self.operator {
            Operator::Min | Operator::Max | Operator::First | Operator::Last => self.of_times.clone(),
            Operator::Push => Times::of_items(self.of_times.clone()),
            Operator::Sum | Operator::Average | Operator::Count => Times::default(),
        }
    }

    /// Appends the result.
    pub(super) fn finish(&self, state: &State, out: &mut Vec<u8>) {
        match state {
            State::Count(count) => out.extend_from_slice(count.to_string().as_bytes()),
            State::Sum(_, 0) if self.operator == Operator::Average => out.extend_from_slice(b"null"),
            State::Sum(sum, count) if self.operator == Operator::Average => {
                out.extend_from_slice(sum.mean(*count).as_bytes());
            }
            State::Sum(sum, _) => out.extend_from_slice(sum.to_string().as_bytes()),
            State::Best(best) => {
                out.extend_from_slice(best.as_ref().map_or(b"null", |(_, value)| value.as_slice()));
            }
            State::Kept(kept) => out.extend_from_slice(kept.as_deref().unwrap_or(b"null")),
            State::All(all) => {
                out.push(b'[');
                out.extend_from_slice(all);
                out.push(b']');
            }
        }
    }
}

impl State {
    /// Bytes it keeps.
    pub(super) fn bytes(&self) -> usize {
        let kept = match self {
            Self::Sum(..) | Self::Count(_) => 0,
            Self::Best(best) => best.as_ref().map_or(0, |(key, value)| key.as_bytes().len() + value.len()),
            Self::Kept(kept) => kept.as_ref().map_or(0, Vec::len),
            Self::All(all) => all.capacity(),
        };
        size_of::<Self>() + kept
    }
}

fn is_number(value: &[u8]) -> bool {
    value.first().is_some_and(|byte| *byte == b'-' || byte.is_ascii_digit())
}
