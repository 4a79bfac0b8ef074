//! Whether callers may still do what they might, and find the routes that they know.

use super::Report;
use crate::{
    access::{AccessRule, Right, Subject},
    route::{Pattern, RouteSpec},
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

/// Tells which custom routes are gone, or no longer for everybody they were for.
pub(super) fn routes(old: &ModelSpec, new: &ModelSpec, report: &mut Report<'_>) {
    let of = |spec: &ModelSpec| spec.code.as_ref().map_or_else(Vec::new, |code| code.routes.clone());
    let after = of(new);
    for before in of(old).iter().filter(|route| !route.disabled) {
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
