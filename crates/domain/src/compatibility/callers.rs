//! Whether callers may still do what they might, and find the routes that they know.

use super::Report;
use crate::{
    access::{AccessRule, Right, Subject},
    route::{Pattern, RouteSpec, Verb},
    spec::ModelSpec,
};

/// Tells what a model's rules no longer allow, or deny now.
pub(super) fn rules(old: &[AccessRule], new: &[AccessRule], report: &mut Report<'_>) {
    if new.is_empty() {
        return; // everybody may do everything
    }
    let denies = |rules: &[AccessRule], subject: &Subject, right: Right| {
        rules.iter().any(|rule| is_about(rule, subject) && rule.deny.contains(&right))
    };
    let everybody = AccessRule {
        subject: Subject::Anyone,
        allow: Right::ALL.iter().map(|(_, right)| *right).collect(),
        deny: Default::default(),
    };
    let allowing = if old.is_empty() { std::slice::from_ref(&everybody) } else { old };
    for rule in allowing {
        let gone = |right: &&Right| {
            let is_allowed = new.iter().any(|new| is_about(new, &rule.subject) && new.allow.contains(*right));
            !is_allowed && !denies(old, &rule.subject, **right)
        };
        if let Some(rights) = named(rule.allow.iter().filter(gone)) {
            report(
                "acl".to_owned(),
                &format!("{rights} not allowed to {}", shown(&rule.subject)),
                "it allowed",
            );
        }
    }
    for rule in new {
        let is_new = |right: &&Right| !denies(old, &rule.subject, **right);
        if let Some(rights) = named(rule.deny.iter().filter(is_new)) {
            report(
                "acl".to_owned(),
                &format!("{rights} denied to {}", shown(&rule.subject)),
                "it not denied",
            );
        }
    }
}

/// Whether a rule is about all those that `subject` is.
fn is_about(rule: &AccessRule, subject: &Subject) -> bool {
    rule.subject == *subject || rule.subject == Subject::Anyone
}

fn named<'a>(rights: impl Iterator<Item = &'a Right>) -> Option<String> {
    let names: Vec<_> = rights.map(|right| right.as_str()).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn shown(subject: &Subject) -> String {
    match subject {
        Subject::Role(role) => format!("role {role}"),
        Subject::Claim { name, value } => format!("claim {name}={value}"),
        Subject::Anyone => "anyone".to_owned(),
    }
}

/// Tells which roles may no longer do what is for those that are named. When nobody is, it is for whoever the rules of the
/// model, `acl`, say.
pub(super) fn roles(
    key: &str,
    old: &[String],
    (new, acl): (&[String], &[AccessRule]),
    report: &mut Report<'_>,
) {
    let key = format!("{key}.allow");
    match (old, new) {
        ([], []) => {}
        ([], new) => report(key, &format!("only {}", new.join(", ")), "none"),
        (_, []) if acl.is_empty() => {}
        (old, new) => {
            let gone: Vec<_> = old.iter().filter(|role| !new.contains(role)).map(String::as_str).collect();
            if !gone.is_empty() {
                report(key, &format!("it without {}", gone.join(", ")), "them as well");
            }
        }
    }
}

/// Tells which custom routes are gone, or no longer for everybody they were for, and which answer where the generated
/// interface did.
pub(super) fn routes(old: &ModelSpec, new: &ModelSpec, report: &mut Report<'_>) {
    let of = |spec: &ModelSpec| spec.code.as_ref().map_or_else(Vec::new, |code| code.routes.clone());
    let (before, after) = (of(old), of(new));
    for (verb, place) in generated(old) {
        if before.iter().any(|route| answers_all(route, verb, &place)) {
            continue;
        }
        let replaces = |route: &&RouteSpec| route.method == verb && answers_all(route, verb, &place);
        if let Some(route) = after.iter().find(replaces) {
            let key = format!("routes.{verb} {}", route.path);
            report(key, "it in place of what is generated", "it elsewhere");
        }
    }
    for before in before.iter().filter(|route| !route.disabled) {
        let key = format!("routes.{} {}", before.method, before.path);
        let Some(after) = after.iter().find(|route| answers_the_same(route, before)) else {
            report(key, "nothing", "the route");
            continue;
        };
        if before.public && !after.public {
            report(format!("{key}.public"), "false", "true");
        } else if !after.public {
            roles(&key, &before.allow, (&after.allow, &new.acl), report);
        }
    }
}

fn answers_the_same(one: &RouteSpec, other: &RouteSpec) -> bool {
    let is_like = || Some(Pattern::parse(&one.path).ok()?.is_like(&Pattern::parse(&other.path).ok()?));
    one.method == other.method && is_like().unwrap_or(one.path == other.path)
}

/// Where the generated interface of a model answers, and what, as far as no custom route does.
fn generated(model: &ModelSpec) -> Vec<(Verb, Pattern)> {
    const COLLECTION: [Verb; 4] = [Verb::Get, Verb::Head, Verb::Post, Verb::Options];
    const DOCUMENT: [Verb; 6] = [Verb::Get, Verb::Head, Verb::Put, Verb::Patch, Verb::Delete, Verb::Options];
    const COMMAND: [Verb; 3] = [Verb::Post, Verb::Patch, Verb::Options];
    let mut places = vec![("/".to_owned(), &COLLECTION[..]), ("/{id}".to_owned(), &DOCUMENT)];
    let commands = model.commands.iter().filter(|(_, command)| !command.disabled);
    places.extend(commands.map(|(name, _)| (format!("/{{id}}/{name}"), &COMMAND[..])));
    let parsed = places.iter().filter_map(|(path, verbs)| Some((Pattern::parse(path).ok()?, *verbs)));
    parsed.flat_map(|(place, verbs)| verbs.iter().map(move |verb| (*verb, place.clone()))).collect()
}

/// Whether a route answers at every path of a place. One that answers at a few, as `/search` does among all ids, adds:
/// nobody can tell that there is a document of this name.
fn answers_all(route: &RouteSpec, verb: Verb, place: &Pattern) -> bool {
    let is_asked = route.method == verb || (route.method, verb) == (Verb::Get, Verb::Head);
    is_asked && Pattern::parse(&route.path).is_ok_and(|pattern| pattern.covers(place))
}
