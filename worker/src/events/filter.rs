//! Which events a client wants.

use aegis_domain::{
    Problem, ProblemCode,
    access::{Action, Right},
    catalog::Catalog,
    event::EventKind,
    query::texts_of_list,
};

use super::Subject;
use crate::{access::Caller, request};

/// Parameters that filter.
const PARAMETERS: &[&str] = &["model", "id", "type", "name"];

/// Empty lists admit everything, but for models that the client may not see.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filter {
    models: Vec<String>,
    ids: Vec<String>,
    kinds: Vec<String>,
    names: Vec<String>,
    /// Models that the client may see; all of them, those that are gone included, when there is no list.
    seen: Option<Vec<String>>,
}

impl Filter {
    /// Reads the query: `model`, `id`, `type` and `name`, each a comma list or repeated; what has commas is in double quotes. Names of models, types and
    /// events may be written in any case.
    pub(super) fn parse(query: &str, catalog: &Catalog) -> Result<Self, Problem> {
        let mut filter = Self::default();
        for (name, value) in request::pairs(query, PARAMETERS)? {
            let wrong = |expected| request::wrong_value(name, &value, expected);
            let items = texts_of_list(&value).map_err(wrong)?;
            if items.is_empty() {
                // Whoever has nothing to name wants nothing, and not everything.
                return Err(wrong("at least one"));
            }
            for item in items {
                match name {
                    "model" => filter.models.push(model(&item, catalog)?),
                    "type" => filter.kinds.push(kind(&item)?),
                    "name" => filter.names.push(item.to_ascii_uppercase()),
                    _ => filter.ids.push(item),
                }
            }
        }
        Ok(filter)
    }

    /// The same for a caller who may list the documents of some models only. Naming others is refused.
    pub(super) fn for_caller(mut self, caller: &Caller, catalog: &Catalog) -> Result<Self, Problem> {
        if matches!(caller, Caller::Trusted) {
            return Ok(self);
        }
        for model in self.models.iter().filter_map(|name| catalog.by_name(name)) {
            caller.may(model, Action::Plain(Right::ListAll))?;
        }
        let models = catalog.models().iter().filter(|model| caller.sees(model, Right::ListAll));
        self.seen = Some(models.map(|model| model.name().to_owned()).collect());
        Ok(self)
    }

    /// Whether documents of one of these models may pass.
    pub(super) fn admits_some_of<'a>(&self, mut models: impl Iterator<Item = &'a str>) -> bool {
        let within = |list: &[String], item: &str| list.iter().any(|wanted| wanted == item);
        models.any(|model| {
            (self.models.is_empty() || within(&self.models, model))
                && self.seen.as_ref().is_none_or(|seen| within(seen, model))
        })
    }

    pub(super) fn admits(&self, subject: &Subject) -> bool {
        let within =
            |list: &[String], item: &str| list.is_empty() || list.iter().any(|wanted| wanted == item);
        let (Subject::Document { model, .. } | Subject::Model { model }) = subject;
        let is_seen = self.seen.as_ref().is_none_or(|seen| seen.contains(model));
        if subject.is_hidden() || !is_seen {
            return false;
        }
        match subject {
            Subject::Model { model } => within(&self.models, model),
            Subject::Document { model, id, kind } => {
                let named =
                    |name: &String| name.strip_prefix(*kind).is_some_and(|of| of.eq_ignore_ascii_case(model));
                within(&self.models, model)
                    && within(&self.ids, id)
                    && within(&self.kinds, kind)
                    && (self.names.is_empty() || self.names.iter().any(named))
            }
        }
    }
}

fn model(item: &str, catalog: &Catalog) -> Result<String, Problem> {
    let name = item.to_ascii_uppercase();
    if catalog.by_name(&name).is_some() {
        return Ok(name);
    }
    let quoted: String = item.chars().take(100).collect();
    Err(Problem::new(ProblemCode::NoSuchModel, format!("no model has the name {quoted:?}")))
}

fn kind(item: &str) -> Result<String, Problem> {
    let known = [EventKind::Create, EventKind::Update, EventKind::Delete].map(EventKind::as_str);
    let wanted = item.to_ascii_uppercase();
    if known.contains(&wanted.as_str()) {
        return Ok(wanted);
    }
    Err(request::wrong_value("type", item, &format!("one of {}", known.join(", "))))
}
