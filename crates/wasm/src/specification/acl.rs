//! Rules of access, as far as this host keeps them.

use std::collections::BTreeSet;

use aegis_domain::access::{AccessRule, Right, Subject};

use crate::contract::spec as wit;

/// Actions that this host asks about.
const SERVED: [(wit::AclActions, Right); 6] = [
    (wit::AclActions::CREATE, Right::Create),
    (wit::AclActions::READ, Right::Read),
    (wit::AclActions::LIST_ALL, Right::ListAll),
    (wit::AclActions::UPDATE, Right::Update),
    (wit::AclActions::DELETE, Right::Delete),
    (wit::AclActions::COMMAND, Right::Command),
];
/// Actions that this host never asks about.
const UNSERVED: [(wit::AclActions, &str); 2] =
    [(wit::AclActions::SUBSCRIBE, "subscribe"), (wit::AclActions::DECRYPT, "decrypt")];

/// Reads the rules that a component declares.
pub(super) fn read(found: Vec<wit::AclRule>, mistakes: &mut Vec<String>) -> Vec<AccessRule> {
    let one = |(number, rule): (usize, wit::AclRule)| {
        let key = format!("acl.{number}");
        if !rule.fields.is_empty() {
            let count = rule.fields.len();
            mistakes.push(format!(
                "{key}.fields: found {count}, expected none: this version of the host does not ask about fields yet"
            ));
        }
        let allow = rights(rule.allow, &format!("{key}.allow"), mistakes);
        let deny = rights(rule.deny, &format!("{key}.deny"), mistakes);
        subject(rule.subject, rule.name, &key, mistakes).map(|subject| AccessRule { subject, allow, deny })
    };
    found.into_iter().enumerate().filter_map(one).collect()
}

fn subject(about: wit::AclSubject, name: String, key: &str, mistakes: &mut Vec<String>) -> Option<Subject> {
    match about {
        wit::AclSubject::Role => Some(Subject::Role(name)),
        wit::AclSubject::Claim => {
            Subject::claim(&name).map_err(|message| mistakes.push(format!("{key}.name: {message}"))).ok()
        }
        wit::AclSubject::Anyone => Some(Subject::Anyone),
        wit::AclSubject::Model => {
            mistakes.push(format!(
                "{key}.subject: found model, expected role, claim or anyone: this version of the host does not ask models yet"
            ));
            None
        }
    }
}

fn rights(found: wit::AclActions, key: &str, mistakes: &mut Vec<String>) -> BTreeSet<Right> {
    for (_, name) in UNSERVED.iter().filter(|(action, _)| found.contains(*action)) {
        mistakes.push(format!(
            "{key}: found {name}, which this version of the host does not ask about yet, expected others"
        ));
    }
    SERVED.iter().filter(|(action, _)| found.contains(*action)).map(|(_, right)| *right).collect()
}
