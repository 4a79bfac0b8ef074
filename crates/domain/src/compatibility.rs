//! Whether clients and stored documents of a model go on as before when a new version takes the place of the old one.
//!
//! What is told is what breaks; everything else adds. A field that is new and optional adds, a command too, a rule that is
//! gone as well. It knows only what is declared: what code does differently, nobody can tell from outside.

mod arguments;
mod callers;

use std::cmp::Ordering;

use serde_json::{Number, Value};

use crate::{
    code::{CommandEffect, CommandSpec},
    json::Decimal,
    service::ServiceSpec,
    spec::{Datasource, FieldSpec, IfMatch, ModelSpec, UnknownFields},
};

/// Everything about `new` that breaks what worked with `old`, one sentence each as `key path: found X, expected Y`. Empty
/// when nothing does. `default` is where documents are kept of a model that does not say.
#[must_use]
pub fn breaking(old: &ModelSpec, new: &ModelSpec, default: Datasource) -> Vec<String> {
    let mut breaks = Vec::new();
    let mut report = |key: String, found: &str, expected: &str| {
        breaks.push(format!("{key}: found {found}, expected {expected}"));
    };
    for (key, before, after) in [
        ("name", old.name.as_str(), new.name.as_str()),
        ("endpoint", old.endpoint.as_str(), new.endpoint.as_str()),
        ("id-field", shown(old.id_field.as_deref()), shown(new.id_field.as_deref())),
    ] {
        if before != after {
            report(key.to_owned(), after, before);
        }
    }
    let (before, after) = (old.datasource.unwrap_or(default), new.datasource.unwrap_or(default));
    if before != after {
        report("datasource".to_owned(), kept_in(after), kept_in(before));
    }
    if (old.unknown_fields, new.unknown_fields) == (UnknownFields::Keep, UnknownFields::Refuse) {
        report("unknown-fields".to_owned(), "refuse", "keep");
    }
    if (old.if_match, new.if_match) == (IfMatch::Optional, IfMatch::Required) {
        report("if-match".to_owned(), "required", "optional");
    }
    if new.schema.is_some() && new.schema != old.schema {
        report("schema".to_owned(), "another one", "that of the version before, or none");
    }
    for (name, before) in &old.fields {
        let key = format!("fields.{name}");
        match new.fields.get(name) {
            None => report(key, "nothing", "the field"),
            Some(after) => field(&key, before, after, &mut report),
        }
    }
    let added = new.fields.iter().filter(|(name, _)| !old.fields.contains_key(*name));
    for (name, after) in added {
        demands(&format!("fields.{name}"), (false, false, false), after, &mut report);
    }
    for (name, before) in &old.commands {
        let key = format!("commands.{name}");
        match new.commands.get(name) {
            None => report(key, "nothing", "the command"),
            Some(after) => {
                command(&key, before, after, &mut report);
                callers::roles(&key, &before.allow, (&after.allow, &new.acl), &mut report);
            }
        }
    }
    callers::routes(old, new, &mut report);
    callers::rules(&old.acl, &new.acl, &mut report);
    breaks
}

/// The same for services: what is behind their route is their own business.
#[must_use]
pub fn breaking_service(old: &ServiceSpec, new: &ServiceSpec) -> Vec<String> {
    if old.route == new.route {
        return Vec::new();
    }
    vec![format!("route: found {}, expected {}", new.route, old.route)]
}

type Report<'a> = dyn FnMut(String, &str, &str) + 'a;

fn field(key: &str, old: &FieldSpec, new: &FieldSpec, report: &mut Report<'_>) {
    if old.kind != new.kind {
        let (found, expected) = (crate::catalog::kind_name(new.kind), crate::catalog::kind_name(old.kind));
        report(format!("{key}.kind"), found, expected);
    }
    demands(key, (old.required, old.unique, old.frozen), new, report);
    let narrows = |old: &Option<Number>, new: &Option<Number>, how: Ordering| {
        new.as_ref()
            .is_some_and(|new| old.as_ref().is_none_or(|old| Decimal::of(new).cmp(&Decimal::of(old)) == how))
    };
    if narrows(&old.min, &new.min, Ordering::Greater) {
        report(format!("{key}.min"), &bound(new.min.as_ref()), &bound(old.min.as_ref()));
    }
    if narrows(&old.max, &new.max, Ordering::Less) {
        report(format!("{key}.max"), &bound(new.max.as_ref()), &bound(old.max.as_ref()));
    }
    if new.pattern.is_some() && new.pattern != old.pattern {
        let (found, expected) = (shown(new.pattern.as_deref()), shown(old.pattern.as_deref()));
        report(format!("{key}.pattern"), found, expected);
    }
    if let Some(values) = &new.values {
        let missing = |old: &Vec<Value>| old.iter().any(|value| !values.contains(value));
        if old.values.as_ref().is_none_or(missing) {
            report(format!("{key}.values"), "fewer", "those of the version before at least");
        }
    }
}

/// What is demanded of a field that was not: documents that are there, or clients that write, may not have it.
fn demands(
    key: &str,
    (required, unique, frozen): (bool, bool, bool),
    new: &FieldSpec,
    report: &mut Report<'_>,
) {
    for (word, before, after) in
        [("required", required, new.required), ("unique", unique, new.unique), ("frozen", frozen, new.frozen)]
    {
        if after && !before {
            report(key.to_owned(), &format!("it {word}"), &format!("it not {word}"));
        }
    }
}

fn command(key: &str, old: &CommandSpec, new: &CommandSpec, report: &mut Report<'_>) {
    if old.effect != new.effect {
        report(format!("{key}.effect"), effect(new.effect), effect(old.effect));
    }
    let Some(after) = &new.arguments else { return };
    match &old.arguments {
        None => report(format!("{key}.arguments"), "a schema", "none"),
        Some(before) => arguments::compare(&format!("{key}.arguments"), before, after, report),
    }
}

fn shown(text: Option<&str>) -> &str {
    text.unwrap_or("none")
}

fn bound(bound: Option<&Number>) -> String {
    bound.map_or_else(|| "none".to_owned(), |bound| bound.to_string())
}

fn kept_in(datasource: Datasource) -> &'static str {
    match datasource {
        Datasource::Memory => "memory",
        Datasource::File => "file",
    }
}

fn effect(effect: CommandEffect) -> &'static str {
    match effect {
        CommandEffect::Answers => "answers",
        CommandEffect::Saves => "saves",
    }
}

#[cfg(test)]
mod tests;
