//! From parameters to a query.

use std::collections::BTreeMap;

use super::{
    Bounds, Counting, Filter, Output, Parts, Rows, Sort, Start,
    aggregate::{self, Pipeline},
    cursor::{self, Fingerprint},
    filter::{Condition, Field, Part, Test},
    parameters::{self, Mistake},
    pattern::{Case, Pattern},
    select::Select,
    sort::{self, Direction, SORT_FIELDS_MAX, SortField},
    spans::Spans,
    values::{self, Operand},
};
use crate::{
    catalog::Model,
    order::{Key, Times},
    problem::{Problem, ProblemCode},
    spec::FieldKind,
};

/// Values of all `in` and `nin` of one query.
const LIST_VALUES_MAX: usize = 1000;
/// Names of one `__select`.
const SELECT_NAMES_MAX: usize = 64;

const OPERATORS: &str = "one of ne, lt, lte, gt, gte, in, nin, like, ilike, contains, exists";
const CONTROL_NAMES: [&str; 9] =
    ["__operand", "__sort", "__limit", "__skip", "__page", "__cursor", "__count", "__select", "__aggregate"];
const CONTROLS: &str =
    "one of __operand, __sort, __limit, __skip, __page, __cursor, __count, __select, __aggregate";

/// Fields of the host that are points in time.
const HOST_TIMES: [&str; 2] = ["createTime", "updateTime"];

/// What a filter does with its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Operator {
    Eq,
    Ne,
    Lt,
    Lte,
    Gt,
    Gte,
    In,
    Nin,
    Like,
    Ilike,
    Contains,
    Exists,
}

impl Operator {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "ne" => Self::Ne,
            "lt" => Self::Lt,
            "lte" => Self::Lte,
            "gt" => Self::Gt,
            "gte" => Self::Gte,
            "in" => Self::In,
            "nin" => Self::Nin,
            "like" => Self::Like,
            "ilike" => Self::Ilike,
            "contains" => Self::Contains,
            "exists" => Self::Exists,
            _ => return None,
        })
    }
}

/// The fields of rows, by the names that clients use.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fields<'a> {
    /// Those of the documents of a model.
    Of(&'a Model),
    /// Those of rows that a stage of a pipeline has made, with these points in time.
    Made(&'a Times),
}

impl Fields<'_> {
    /// The field of this name: a declared one, one of the host's, or a path into the document.
    ///
    /// # Errors
    /// What was expected instead.
    pub(crate) fn resolve(self, name: &str) -> Result<Field, &'static str> {
        const STEPS_MAX: usize = crate::json::DEPTH_MAX;
        if let Self::Of(model) = self
            && let Some(spec) = model.spec().fields.get(name)
        {
            let (path, within) = (vec![name.to_owned()], Times::default());
            return Ok(Field { name: name.to_owned(), path, kind: spec.kind, within });
        }
        let path: Vec<_> = name.split('.').map(str::to_owned).collect();
        if path.len() > STEPS_MAX || path.iter().any(String::is_empty) {
            return Err("a field name, with single dots between the names of nested fields");
        }
        let within = match self {
            Self::Of(_) => Times::default(),
            Self::Made(times) => times.at(&path),
        };
        let kind = match (self, name) {
            (Self::Of(_), "id" | "modelName") => FieldKind::Text,
            (Self::Of(_), _) if HOST_TIMES.contains(&name) => FieldKind::Timestamp,
            (Self::Of(_), "revision") => FieldKind::Integer,
            (Self::Of(_), _) => FieldKind::Any,
            (Self::Made(_), _) => within.kind(),
        };
        Ok(Field { name: name.to_owned(), path, kind, within })
    }

    /// All points in time of a whole document or row.
    pub(crate) fn times(self) -> Times {
        let model = match self {
            Self::Of(model) => model,
            Self::Made(times) => return times.clone(),
        };
        let mut times = Times::default();
        let declared = model.spec().fields.iter().map(|(name, field)| (name.as_str(), field.kind));
        let of_host = HOST_TIMES.map(|name| (name, FieldKind::Timestamp));
        for (name, kind) in declared.chain(of_host) {
            times.put(&[name.to_owned()], Times::of(kind));
        }
        times
    }
}

/// What has been read so far.
struct Reader<'a> {
    fields: Fields<'a>,
    bounds: Bounds,
    mistakes: Vec<Mistake>,
    filters: Vec<Filter>,
    /// Values of `in` and `nin`, which may be spread over several parameters.
    lists: BTreeMap<(String, Operator), (Field, Vec<Operand>)>,
    list_values: usize,
    controls: BTreeMap<&'static str, String>,
}

/// Reads a query string.
pub(super) fn parse(model: &Model, raw_query: &str, bounds: Bounds) -> Result<Parts, Problem> {
    let pairs = parameters::split(raw_query).map_err(|mistake| parameters::problem(&[mistake]))?;
    refuse_what_items_have(model, &pairs, &["relation", "command", "__expand"])?;
    let mut reader = Reader {
        fields: Fields::Of(model),
        bounds,
        mistakes: Vec::new(),
        filters: Vec::new(),
        lists: BTreeMap::new(),
        list_values: 0,
        controls: BTreeMap::new(),
    };
    for (name, value) in &pairs {
        reader.parameter(name, value);
    }
    let filter = reader.filter();
    let fingerprint = fingerprint(model, &pairs);
    let parts = reader.finish(model, filter, fingerprint);
    parts.map_err(|mistakes| parameters::problem(&mistakes))
}

/// A command that a query string asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// Its name, which the model has.
    pub command: String,
    /// Its arguments, as they came; `None` without any.
    pub arguments: Option<String>,
}

/// Reads the query string of a request for one document: the command that it asks for, if it does.
///
/// # Errors
/// [`ProblemCode::NoSuchRelation`], [`ProblemCode::NoSuchCommand`], or [`ProblemCode::BadParameter`] for an unknown parameter
/// that starts with `__` and for one that comes twice.
pub fn read_item(model: &Model, raw_query: &str) -> Result<Option<Invocation>, Problem> {
    if raw_query.is_empty() {
        return Ok(None);
    }
    let pairs = parameters::split(raw_query).map_err(|mistake| parameters::problem(&[mistake]))?;
    let asked = command_asked(model, &pairs)?;
    refuse_what_items_have(model, &pairs, &["relation"])?;
    let unknown = |(name, _): &&(String, String)| name.starts_with("__");
    let mistake = |(name, _): &(String, String)| match name.as_str() {
        known if known == "__expand" || CONTROL_NAMES.contains(&known) => {
            Mistake::saying(name, "it on a single document", "it on lists only")
        }
        _ => Mistake::saying(name, "an unknown parameter", "none that begins with __ on a single document"),
    };
    let mistakes: Vec<_> = pairs.iter().filter(unknown).map(mistake).collect();
    if mistakes.is_empty() { Ok(asked) } else { Err(parameters::problem(&mistakes)) }
}

fn command_asked(model: &Model, pairs: &[(String, String)]) -> Result<Option<Invocation>, Problem> {
    let is_field = |name: &str| model.spec().fields.contains_key(name);
    let only = |name: &str| {
        let mut values = pairs.iter().filter(|(found, _)| found == name).map(|(_, value)| value);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(parameters::problem(&[Mistake::saying(name, "it twice", "it once")])),
            (first, None) => Ok(first),
        }
    };
    let Some(command) = only("command")?.filter(|_| !is_field("command")) else { return Ok(None) };
    if model.command(command).is_none() {
        return Err(no_such_command(model, command));
    }
    Ok(Some(Invocation { command: command.clone(), arguments: only("args")?.cloned() }))
}

/// Whether a text that a field is compared with is taken for what it spells as JSON: where no declaration says what the
/// field holds.
#[must_use]
pub fn spells_json(model: &Model, field: &str) -> bool {
    let kind = Fields::Of(model).resolve(field).map(|field| field.kind);
    matches!(kind, Ok(FieldKind::Object | FieldKind::Array | FieldKind::Any))
}

/// The problem of a command that the model does not have.
#[must_use]
pub fn no_such_command(model: &Model, name: &str) -> Problem {
    let detail = format!("no command {:?} on model {}", crate::json::shorten(name), model.name());
    Problem::new(ProblemCode::NoSuchCommand, detail)
}

/// Lists have no commands, and no model has relations, so every name of one is unknown. A field of that name comes first.
fn refuse_what_items_have(
    model: &Model,
    pairs: &[(String, String)],
    parameters: &[&str],
) -> Result<(), Problem> {
    let asks = |(name, _): &&(String, String)| {
        parameters.contains(&name.as_str()) && !model.spec().fields.contains_key(name)
    };
    let Some((parameter, names)) = pairs.iter().find(asks) else { return Ok(()) };
    let name = names.split(',').next().unwrap_or_default();
    if parameter == "command" {
        return Err(no_such_command(model, name));
    }
    let detail = format!("no relation {:?} on model {}", crate::json::shorten(name), model.name());
    Err(Problem::new(ProblemCode::NoSuchRelation, detail))
}

/// The fingerprint covers what decides which rows come in which order, wherever it is written in the query string.
fn fingerprint(model: &Model, pairs: &[(String, String)]) -> Fingerprint {
    let mut deciding: Vec<_> = pairs
        .iter()
        .filter(|(name, _)| !name.starts_with("__") || matches!(name.as_str(), "__operand" | "__sort"))
        .collect();
    deciding.sort_unstable();
    cursor::fingerprint(model.name(), deciding)
}

impl Reader<'_> {
    fn parameter(&mut self, name: &str, value: &str) {
        if name.is_empty() {
            return self.mistakes.push(Mistake::nameless(value));
        }
        if name.starts_with("__") {
            return self.control(name, value);
        }
        let (field, operator) = match name.rsplit_once("__") {
            // No declared field has such a name.
            Some((field, operator)) => match Operator::of(operator) {
                Some(operator) => (field, operator),
                None => {
                    let found = format!("the operator {:?}", crate::json::shorten(operator));
                    return self.mistakes.push(Mistake::saying(name, found, OPERATORS));
                }
            },
            None => (name, Operator::Eq),
        };
        match self.fields.resolve(field) {
            Err(expected) => self.mistakes.push(Mistake::new(name, field, expected)),
            Ok(field) => {
                if let Err(mistake) = self.condition(name, field, operator, value) {
                    self.mistakes.push(mistake);
                }
            }
        }
    }

    fn control(&mut self, name: &str, value: &str) {
        match CONTROL_NAMES.iter().find(|known| **known == name) {
            None => self.mistakes.push(Mistake::saying(name, "an unknown parameter", CONTROLS)),
            Some(name) => {
                if self.controls.insert(name, value.to_owned()).is_some() {
                    self.mistakes.push(Mistake::saying(name, "it more than once", "it once"));
                }
            }
        }
    }

    fn condition(&mut self, name: &str, field: Field, operator: Operator, text: &str) -> Result<(), Mistake> {
        let wrong = |expected: &str| Mistake::new(name, text, expected);
        let test = match operator {
            Operator::In | Operator::Nin => return self.list(name, field, operator, text),
            Operator::Eq | Operator::Ne => {
                let spans = equal(&values::read(field.kind, text).map_err(wrong)?);
                Test::Within(if operator == Operator::Ne { spans.complement() } else { spans })
            }
            Operator::Lt | Operator::Lte | Operator::Gt | Operator::Gte => {
                let without_null =
                    |expected: &str| wrong(expected.trim_end_matches(" or null").trim_end_matches(','));
                let Operand::Value(key, _) = values::read(field.kind, text).map_err(without_null)? else {
                    return Err(wrong("a value to compare with"));
                };
                Test::Within(match operator {
                    Operator::Lt => Spans::below(&key),
                    Operator::Lte => Spans::up_to(&key),
                    Operator::Gt => Spans::above(&key),
                    _ => Spans::from(&key),
                })
            }
            Operator::Like => {
                Test::Like(Pattern::new(text, Case::Sensitive).map_err(|expected| wrong(&expected))?)
            }
            Operator::Ilike => {
                Test::Like(Pattern::new(text, Case::Ignored).map_err(|expected| wrong(&expected))?)
            }
            Operator::Contains => {
                let spelled = values::read(FieldKind::Any, text).ok().map(|operand| match operand {
                    Operand::Value(key, _) => key,
                    Operand::Null => Key::of(FieldKind::Any, Some(&serde_json::Value::Null)),
                });
                Test::Contains(Box::new(Part::new(text, spelled)))
            }
            Operator::Exists => Test::Within(match text {
                "true" => Spans::present(),
                "false" => Spans::present().complement(),
                _ => return Err(wrong("true or false")),
            }),
        };
        self.filters.push(Filter::Is(Condition { field, test }));
        Ok(())
    }

    fn list(&mut self, name: &str, field: Field, operator: Operator, text: &str) -> Result<(), Mistake> {
        let wrong = |text: &str, expected: &str| Mistake::new(name, text, expected);
        let items = values::split_list(text).map_err(|expected| wrong(text, expected))?;
        self.list_values += items.len();
        if self.list_values > LIST_VALUES_MAX {
            let found = format!("{} values in lists", self.list_values);
            return Err(Mistake::saying(name, found, format!("at most {LIST_VALUES_MAX}")));
        }
        let read =
            |item: &values::Item| item.read(field.kind).map_err(|expected| wrong(item.text(), expected));
        let operands = items.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let key = (field.name.clone(), operator);
        self.lists.entry(key).or_insert_with(|| (field, Vec::new())).1.extend(operands);
        Ok(())
    }

    /// All filters as one.
    fn filter(&mut self) -> Filter {
        let mut parts = std::mem::take(&mut self.filters);
        for ((_, operator), (field, operands)) in std::mem::take(&mut self.lists) {
            let spans = Spans::union(operands.iter().map(equal));
            let spans = if operator == Operator::Nin { spans.complement() } else { spans };
            parts.push(Filter::Is(Condition { field, test: Test::Within(spans) }));
        }
        match self.controls.remove("__operand").as_deref() {
            // Without filters there is nothing to combine, and everything passes.
            None | Some("and") => Filter::All(parts),
            Some("or") if parts.is_empty() => Filter::everything(),
            Some("or") => Filter::Any(parts),
            Some(other) => {
                self.mistakes.push(Mistake::new("__operand", other, "\"and\" or \"or\""));
                Filter::everything()
            }
        }
    }

    fn finish(
        mut self,
        model: &Model,
        filter: Filter,
        fingerprint: Fingerprint,
    ) -> Result<Parts, Vec<Mistake>> {
        self.refuse_combinations();
        let mut parts = Parts {
            model: model.name().to_owned(),
            filter,
            output: Output::Count(Counting::All),
            bounds: self.bounds,
        };
        let output = if let Some(count) = self.controls.remove("__count") {
            self.count(&count).map(|(counting, condition)| {
                let filter = std::mem::replace(&mut parts.filter, Filter::everything());
                parts.filter = filter.and(condition);
                Output::Count(counting)
            })
        } else if let Some(text) = self.controls.remove("__aggregate") {
            self.aggregate(&text).map(|(pipeline, condition)| {
                let filter = std::mem::replace(&mut parts.filter, Filter::everything());
                parts.filter = filter.and(condition);
                Output::Aggregate(pipeline)
            })
        } else {
            self.rows(fingerprint).map(Output::Rows)
        };
        match output {
            Some(output) if self.mistakes.is_empty() => Ok(Parts { output, ..parts }),
            _ => Err(self.mistakes),
        }
    }

    fn refuse_combinations(&mut self) {
        const LISTING: [&str; 6] = ["__sort", "__limit", "__skip", "__page", "__cursor", "__select"];
        let exclusive = |name: &'static str, others: &'static [&'static str]| {
            others.iter().map(move |other| (name, *other))
        };
        let pairs = exclusive("__count", &LISTING)
            .chain(exclusive("__count", &["__aggregate"]))
            .chain(exclusive("__aggregate", &LISTING))
            .chain(exclusive("__page", &["__skip", "__cursor"]))
            .chain(exclusive("__skip", &["__cursor"]));
        for (name, other) in pairs {
            if self.controls.contains_key(name) && self.controls.contains_key(other) {
                self.mistakes.push(Mistake::together(name, other));
            }
        }
    }

    fn count(&mut self, text: &str) -> Option<(Counting, Filter)> {
        const EXPECTED: &str = "\"all\" or \"field:value\"";
        if text == "all" {
            return Some((Counting::All, Filter::everything()));
        }
        let read = || {
            let (name, value) = text.split_once(':').ok_or(EXPECTED)?;
            let field = self.fields.resolve(name)?;
            let operand = values::read(field.kind, value)?;
            let spans = equal(&operand);
            let value = match operand {
                Operand::Null => serde_json::Value::Null,
                Operand::Value(_, value) => value,
            };
            let counting = Counting::Value { field: name.to_owned(), value };
            Ok::<_, &str>((counting, Filter::Is(Condition { field, test: Test::Within(spans) })))
        };
        read().map_err(|expected| self.mistakes.push(Mistake::new("__count", text, expected))).ok()
    }

    fn aggregate(&mut self, text: &str) -> Option<(Pipeline, Filter)> {
        aggregate::parse(self.fields, text, self.bounds).map_err(|mistake| self.mistakes.push(mistake)).ok()
    }

    fn rows(&mut self, fingerprint: Fingerprint) -> Option<Rows> {
        let sort = self.sort();
        let limit = self.limit();
        let skip = self.number("__skip", 0, u64::MAX, "a whole number from 0");
        let page = self.number("__page", 1, u64::MAX, "a whole number from 1");
        let after = self.cursor(&sort, fingerprint);
        let select = self.select();
        let start = match (skip, page, after) {
            (_, _, Some((place, parts))) => Start::After { place, parts },
            (_, Some(page), None) => Start::Page(page),
            (skip, None, None) => Start::Skip(skip.unwrap_or(0)),
        };
        self.mistakes.is_empty().then_some(Rows { sort, start, limit, select, fingerprint })
    }

    fn number(&mut self, name: &str, min: u64, max: u64, expected: &str) -> Option<u64> {
        let text = self.controls.remove(name)?;
        // A sign, which parsing would take, has no place here.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && (min..=max).contains(number));
        if number.is_none() {
            self.mistakes.push(Mistake::new(name, &text, expected));
        }
        number
    }

    fn limit(&mut self) -> usize {
        let max = self.bounds.limit_max;
        let expected = format!("a whole number from 1 to {max}");
        let default = u64::from(self.bounds.limit_default.min(max));
        let limit = self.number("__limit", 1, u64::from(max), &expected).unwrap_or(default);
        usize::try_from(limit).unwrap_or(usize::MAX)
    }

    fn sort(&mut self) -> Sort {
        let Some(text) = self.controls.remove("__sort") else { return Sort::default() };
        let mut sort = Sort::default();
        for name in text.split(',') {
            let (name, direction) = match name.strip_prefix('-') {
                Some(name) => (name, Direction::Descending),
                None => (name, Direction::Ascending),
            };
            match self.fields.resolve(name) {
                Ok(field) => sort.fields.push(SortField { field, direction }),
                Err(expected) => return self.bad_sort(Mistake::new("__sort", &text, expected)),
            }
        }
        if sort.fields.len() > SORT_FIELDS_MAX {
            let found = format!("{} fields", sort.fields.len());
            return self.bad_sort(Mistake::saying("__sort", found, format!("at most {SORT_FIELDS_MAX}")));
        }
        sort
    }

    fn bad_sort(&mut self, mistake: Mistake) -> Sort {
        self.mistakes.push(mistake);
        Sort::default()
    }

    fn cursor(&mut self, sort: &Sort, fingerprint: Fingerprint) -> Option<(Vec<u8>, sort::Place)> {
        let text = self.controls.remove("__cursor")?;
        let read = cursor::decode(fingerprint, &text).and_then(|place| {
            let parts = sort::read_place(sort, &place).ok_or("a damaged cursor")?;
            Ok((place, parts))
        });
        let expected = "the cursor of the page before, with the same filters, __operand and __sort";
        read.map_err(|found| self.mistakes.push(Mistake::saying("__cursor", found, expected))).ok()
    }

    fn select(&mut self) -> Option<Select> {
        let text = self.controls.remove("__select")?;
        let mut select = Select::default();
        select.add(&["id".to_owned()]);
        for (index, name) in text.split(',').enumerate() {
            match self.fields.resolve(name) {
                _ if index >= SELECT_NAMES_MAX => {
                    let found = format!("{} names", text.split(',').count());
                    let expected = format!("at most {SELECT_NAMES_MAX}");
                    self.mistakes.push(Mistake::saying("__select", found, expected));
                    break;
                }
                Ok(field) => select.add(&field.path),
                Err(expected) => self.mistakes.push(Mistake::new("__select", &text, expected)),
            }
        }
        Some(select)
    }
}

/// The keys that are equal to a value.
fn equal(operand: &Operand) -> Spans {
    match operand {
        Operand::Null => Spans::missing_or_null(),
        Operand::Value(key, _) => Spans::one(key.as_bytes()),
    }
}
