use proptest::{collection::vec, prelude::*, sample::subsequence};
use serde_json::json;

use super::*;
use crate::module;

const ROLES: [&str; 4] = ["reader", "editor", "admin", "guest"];

fn principal(roles: &[&str]) -> Principal {
    Principal {
        subject: "ada".to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        claims: json!({"department": "sales", "groups": ["a", "b"], "level": 7, "staff": true, "x": {"y": "z"}}),
    }
}

fn role(name: &str, allow: &[Right], deny: &[Right]) -> AccessRule {
    AccessRule {
        subject: Subject::Role(name.to_owned()),
        allow: allow.iter().copied().collect(),
        deny: deny.iter().copied().collect(),
    }
}

fn rights() -> impl Strategy<Value = BTreeSet<Right>> {
    subsequence(Right::ALL.map(|(_, right)| right).to_vec(), 0..=6)
        .prop_map(|rights| rights.into_iter().collect())
}

fn rules() -> impl Strategy<Value = Vec<AccessRule>> {
    let subject = prop_oneof![
        subsequence(ROLES.to_vec(), 1).prop_map(|roles| Subject::Role(roles[0].to_owned())),
        Just(Subject::Claim { name: "department".to_owned(), value: "sales".to_owned() }),
        Just(Subject::Anyone),
    ];
    let rule = (subject, rights(), rights());
    vec(rule.prop_map(|(subject, allow, deny)| AccessRule { subject, allow, deny }), 0..6)
}

fn callers() -> impl Strategy<Value = Principal> {
    subsequence(ROLES.to_vec(), 0..=4).prop_map(|roles| principal(&roles))
}

/// Every action there is, with and without names.
fn actions(named: &[String]) -> Vec<Action<'_>> {
    let plain = Right::ALL.into_iter().map(|(_, right)| Action::Plain(right));
    let routes = Right::ALL
        .into_iter()
        .flat_map(|(_, right)| [Action::Route { right, allow: &[] }, Action::Route { right, allow: named }]);
    let commands = [Action::Command { name: "go", allow: &[] }, Action::Command { name: "go", allow: named }];
    plain.chain(routes).chain(commands).collect()
}

proptest! {
    #[test]
    fn what_a_rule_denies_is_refused_whatever_others_allow(
        rules in rules(), caller in callers(), at in 0_usize..7,
    ) {
        let mut denying = rules;
        let all: BTreeSet<Right> = Right::ALL.into_iter().map(|(_, right)| right).collect();
        let rule = AccessRule { subject: Subject::Anyone, allow: all.clone(), deny: all };
        denying.insert(at.min(denying.len()), rule);
        let named = vec!["reader".to_owned()];
        for action in actions(&named) {
            prop_assert!(matches!(decide(&denying, &caller, action), Err(Denial::Rule(_))), "{action}");
        }
    }

    #[test]
    fn more_that_is_allowed_takes_nothing_away_and_more_that_is_denied_gives_nothing(
        rules in rules(), caller in callers(), more in rights(), at in 0_usize..6,
    ) {
        prop_assume!(!rules.is_empty());
        let named = vec!["editor".to_owned(), "admin".to_owned()];
        let (mut allowing, mut denying, at) = (rules.clone(), rules.clone(), at % rules.len());
        allowing[at].allow.extend(&more);
        denying[at].deny.extend(&more);
        for action in actions(&named) {
            let before = decide(&rules, &caller, action).is_ok();
            prop_assert!(!before || decide(&allowing, &caller, action).is_ok(), "{action}");
            prop_assert!(before || decide(&denying, &caller, action).is_err(), "{action}");
        }
    }

    #[test]
    fn the_order_of_rules_decides_nothing(rules in rules(), caller in callers()) {
        let mut reversed = rules.clone();
        reversed.reverse();
        let named = vec!["guest".to_owned()];
        for action in actions(&named) {
            let (one, other) = (decide(&rules, &caller, action), decide(&reversed, &caller, action));
            prop_assert_eq!(one.is_ok(), other.is_ok());
        }
    }

    #[test]
    fn rules_about_others_change_nothing_but_that_there_are_some(
        rules in rules(), roles in subsequence(ROLES.to_vec(), 0..=4), allow in rights(), deny in rights(),
    ) {
        prop_assume!(!rules.is_empty());
        let mut more = rules.clone();
        more.push(AccessRule { subject: Subject::Role("nobody has it".to_owned()), allow, deny });
        for action in actions(&[]) {
            prop_assert_eq!(decide(&rules, &principal(&roles), action), decide(&more, &principal(&roles), action));
        }
    }
}

#[test]
fn a_model_without_rules_serves_whoever_is_known() {
    for action in actions(&[]) {
        assert_eq!(decide(&[], &principal(&[]), action), Ok(()), "{action}");
    }
}

#[test]
fn with_rules_what_no_rule_allows_is_refused() {
    let rules = [role("reader", &[Right::Read, Right::ListAll], &[])];
    let may = |roles: &[&str], right| decide(&rules, &principal(roles), Action::Plain(right));
    assert_eq!(may(&["reader"], Right::Read), Ok(()));
    assert_eq!(may(&["reader"], Right::Update), Err(Denial::NoRule));
    assert_eq!(may(&["Reader"], Right::Read), Err(Denial::NoRule), "names of roles are exact");
    assert_eq!(may(&[], Right::Read), Err(Denial::NoRule));
}

#[test]
fn who_is_denied_documents_is_denied_lists_of_them() {
    let rules = [role("guest", &[Right::ListAll], &[]), role("guest", &[], &[Right::Read])];
    let listing = Action::Plain(Right::ListAll);
    assert_eq!(decide(&rules, &principal(&["guest"]), listing), Err(Denial::Rule(1)));
    assert_eq!(decide(&rules[..1], &principal(&["guest"]), listing), Ok(()));
}

#[test]
fn a_command_that_names_nobody_is_for_whoever_may_update_or_run_commands() {
    let rules = [
        role("editor", &[Right::Update], &[]),
        role("clerk", &[Right::Command], &[]),
        role("reader", &[Right::Read], &[]),
        role("trainee", &[Right::Update], &[Right::Command]),
    ];
    let may =
        |role: &str| decide(&rules, &principal(&[role]), Action::Command { name: "approve", allow: &[] });
    assert_eq!((may("editor"), may("clerk")), (Ok(()), Ok(())));
    assert_eq!((may("reader"), may("trainee")), (Err(Denial::NoRule), Err(Denial::Rule(3))));
}

#[test]
fn a_command_that_names_roles_is_for_these_and_a_rule_can_only_take_it_away() {
    let named = ["decrypt".to_owned(), "auditor".to_owned()];
    let action = Action::Command { name: "decrypt", allow: &named };
    let rules =
        [role("editor", &[Right::Update, Right::Command], &[]), role("former", &[], &[Right::Command])];
    let may = |roles: &[&str]| decide(&rules, &principal(roles), action);
    assert_eq!(may(&["auditor"]), Ok(()));
    assert_eq!(may(&["editor"]), Err(Denial::NoRole));
    assert_eq!(may(&["auditor", "former"]), Err(Denial::Rule(1)));
    assert_eq!(decide(&[], &principal(&["editor"]), action), Err(Denial::NoRole), "without rules as well");
}

#[test]
fn a_claim_has_a_value_or_has_it_in_a_list() {
    let is = |text: &str| Subject::claim(text).unwrap().is(&principal(&[]));
    for held in ["department=sales", "groups=b", "level=7", "staff=true"] {
        assert!(is(held), "{held}");
    }
    for other in
        ["department=sale", "groups=c", "groups=a,b", "level=70", "x=z", "y=z", "none=", "department="]
    {
        assert!(!is(other), "{other}");
    }
    insta::assert_snapshot!(Subject::claim("sales").unwrap_err(), @r#"found "sales", expected "claim=value""#);
}

#[test]
fn rules_that_say_nothing_or_name_nobody_are_mistakes() {
    let mut spec = module::parse("name = \"order\"\n", "test").unwrap();
    spec.acl =
        vec![role("", &[Right::Read], &[]), role("x", &[], &[]), role(&"x".repeat(257), &[Right::Read], &[])];
    let mut told = Vec::new();
    check(&spec, &mut |key, message| told.push(format!("{key}: {message}")));
    insta::assert_snapshot!(told.join("\n"), @r"
    acl.0.name: found a name of 0 bytes, expected 1 to 256
    acl.1: found neither allow nor deny, expected at least one of them
    acl.2.name: found a name of 257 bytes, expected 1 to 256
    ");
    spec.acl = vec![role("x", &[Right::Read], &[]); RULES_MAX + 1];
    let mut told = Vec::new();
    check(&spec, &mut |key, message| told.push(format!("{key}: {message}")));
    assert_eq!(told, ["acl: found 257 rules, expected at most 256"]);
}

#[test]
fn what_nobody_could_be_asked_for_is_told() {
    let open = module::parse("name = \"order\"\n", "test").unwrap();
    assert!(unguarded(std::slice::from_ref(&open)).is_empty());
    let ruled = ModelSpec { acl: vec![role("x", &[Right::Read], &[])], ..open.clone() };
    insta::assert_snapshot!(unguarded(&[open, ruled]).join("\n"), @"model ORDER: acl: found who may, which nobody is asked while authentication is off, expected [auth] in aegis.toml with a key");
}
