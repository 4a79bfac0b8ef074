//! `[[acl]]`: who may do what, one table per rule.

use std::collections::BTreeSet;

use super::{
    reader::{Mistakes, describe},
    written::{Table, Written},
};
use crate::{
    access::{AccessRule, Right, Subject},
    catalog::key_path,
    suggest,
};

/// Keys of one rule.
pub(super) const KEYS: [&str; 4] = ["subject", "name", "allow", "deny"];

/// Whom a rule can be about.
#[derive(Clone, Copy, PartialEq)]
enum About {
    Role,
    Claim,
    Anyone,
}

/// Reads all rules.
pub(super) fn read(found: Option<Written>, mistakes: &mut Mistakes) -> Vec<AccessRule> {
    let items = match found {
        None => return Vec::new(),
        Some(Written::List(items)) => items,
        Some(other) => {
            let message = format!("found {}, expected a list of tables [[acl]]", describe(&other));
            mistakes.tell("acl", message);
            return Vec::new();
        }
    };
    let one = |(number, item): (usize, Written)| {
        let key = format!("acl.{number}");
        let table = mistakes.table(item, &key, "subject, name, allow and deny")?;
        rule(table, &key, mistakes)
    };
    items.into_iter().enumerate().filter_map(one).collect()
}

fn rule(mut table: Table, key: &str, mistakes: &mut Mistakes) -> Option<AccessRule> {
    for name in table.keys().filter(|name| !KEYS.contains(&name.as_str())) {
        let hint = suggest::similar(name, KEYS.into_iter());
        let message = format!("found an unknown key, expected one of {}{hint}", KEYS.join(", "));
        mistakes.tell(&format!("{key}.{}", key_path(&[name])), message);
    }
    let allow = rights(table.shift_remove("allow"), &format!("{key}.allow"), mistakes);
    let deny = rights(table.shift_remove("deny"), &format!("{key}.deny"), mistakes);
    let subjects = [("role", About::Role), ("claim", About::Claim), ("anyone", About::Anyone)];
    let subject_key = format!("{key}.subject");
    let about = match table.shift_remove("subject") {
        None => {
            mistakes.tell(&subject_key, "found nothing, expected \"role\" or \"claim\" or \"anyone\"");
            None
        }
        found => mistakes.choice(found, &subject_key, &subjects),
    };
    let name_key = format!("{key}.name");
    let name = mistakes.text(table.shift_remove("name"), &name_key);
    let subject = match (about?, name) {
        (About::Anyone, None) => Subject::Anyone,
        (About::Anyone, Some(_)) => {
            mistakes.tell(&name_key, "found a name, expected none: the rule is about anyone");
            return None;
        }
        (About::Role | About::Claim, None) => {
            mistakes.tell(&name_key, "found nothing, expected a name");
            return None;
        }
        (About::Role, Some(name)) => Subject::Role(name),
        (About::Claim, Some(name)) => {
            Subject::claim(&name).map_err(|message| mistakes.tell(&name_key, message)).ok()?
        }
    };
    Some(AccessRule { subject, allow, deny })
}

fn rights(found: Option<Written>, key: &str, mistakes: &mut Mistakes) -> BTreeSet<Right> {
    let items = match found {
        None => return BTreeSet::new(),
        Some(Written::List(items)) => items,
        Some(one) => vec![one],
    };
    items.into_iter().filter_map(|item| mistakes.choice(Some(item), key, &Right::ALL)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::parse;

    #[test]
    fn a_module_says_who_may_do_what() {
        let spec = parse(
            "name = \"order\"\n\
             [[acl]]\nsubject = \"role\"\nname = \"editor\"\nallow = [\"read\", \"list-all\", \"update\"]\ndeny = \"delete\"\n\
             [[acl]]\nsubject = \"claim\"\nname = \"department=sales=east\"\nallow = [\"create\"]\n\
             [[acl]]\nsubject = \"anyone\"\nallow = [\"read\"]\n",
            "module.toml",
        )
        .unwrap();
        assert_eq!(spec.acl.len(), 3);
        assert_eq!(spec.acl[0].subject, Subject::Role("editor".to_owned()));
        assert_eq!(spec.acl[0].allow, BTreeSet::from([Right::Read, Right::ListAll, Right::Update]));
        assert_eq!(spec.acl[0].deny, BTreeSet::from([Right::Delete]));
        let claim = Subject::Claim { name: "department".to_owned(), value: "sales=east".to_owned() };
        assert_eq!(spec.acl[1].subject, claim);
        assert_eq!(spec.acl[2].subject, Subject::Anyone);
    }

    #[test]
    fn mistakes_in_rules_are_told_all_at_once() {
        let mistakes = parse(
            "name = \"order\"\nacl = [\n\
             7,\n\
             { subject = \"role\", allow = [\"read\", \"subscribe\"] },\n\
             { subject = \"model\", name = \"x\", allow = [\"read\"] },\n\
             { subject = \"claim\", name = \"x\", allow = [\"raed\"] },\n\
             { subject = \"anyone\", name = \"x\", fields = [\"a\"] },\n\
             { name = \"x\", deny = [\"decrypt\"] },\n\
             { subject = \"role\", name = \"x\" },\n]\n",
            "module.toml",
        );
        insta::assert_snapshot!(mistakes.unwrap_err().join("\n"));
    }
}
