use proptest::{prelude::*, sample::select};

use super::*;
use crate::{code::CommandPlace, module};

const ORDER: &str = r#"
name = "order"
endpoint = "orders"
[fields]
number = { kind = "text", pattern = "^A" }
total = { kind = "decimal", min = 0, max = 100 }
state = { kind = "text", values = ["open", "paid"] }
"#;

fn spec(text: &str) -> ModelSpec {
    module::parse(text, "order/module.toml").unwrap()
}

fn told(old: &ModelSpec, new: &ModelSpec) -> String {
    breaking(old, new, Datasource::File).join("\n")
}

fn a_command(effect: CommandEffect, arguments: Option<Value>) -> CommandSpec {
    CommandSpec {
        description: None,
        arguments,
        effect,
        place: CommandPlace::Io,
        allow: Vec::new(),
        disabled: false,
    }
}

#[test]
fn everything_that_breaks_is_told_at_once() {
    let old = spec(ORDER);
    let new = spec(
        r#"
name = "order"
endpoint = "purchases"
datasource = "memory"
unknown-fields = "refuse"
if-match = "required"
id-field = "number"
[fields]
number = { kind = "text", pattern = "^B" }
total = { kind = "integer", min = 1, max = 99 }
extra = "text"
[mixins]
require = ["number", "extra"]
unique = ["number"]
freeze = ["total"]
[schema]
type = "object"
"#,
    );
    insta::assert_snapshot!(told(&old, &new));
}

#[test]
fn what_adds_or_lets_go_is_fine() {
    let old = spec(ORDER);
    let new = spec(
        r#"
name = "order"
endpoint = "orders"
datasource = "file"
description = "Orders"
[fields]
total = { kind = "decimal", max = 200 }
number = { kind = "text", indexed = true }
state = { kind = "text", values = ["paid", "open", "shipped"] }
extra = { kind = "integer", min = 3 }
"#,
    );
    assert_eq!(told(&old, &new), "");
}

#[test]
fn a_rule_that_is_new_on_a_known_field_breaks() {
    let old = spec("name = \"order\"\n[fields]\na = \"integer\"\nb = \"text\"\n");
    let new = spec(
        "name = \"order\"\n[fields]\na = { kind = \"integer\", min = 1, max = 2 }\nb = { kind = \"text\", pattern = \"x\", values = [\"x\"] }\n",
    );
    insta::assert_snapshot!(told(&old, &new), @r"
    fields.a.min: found 1, expected none
    fields.a.max: found 2, expected none
    fields.b.pattern: found x, expected none
    fields.b.values: found fewer, expected those of the version before at least
    ");
}

#[test]
fn commands_may_come_and_must_not_go_or_demand_more() {
    let mut old = spec(ORDER);
    let demanding = |names: &[&str]| Some(serde_json::json!({"type": "object", "required": names}));
    for name in ["pay", "ship", "show", "ask"] {
        old.commands.insert(name.to_owned(), a_command(CommandEffect::Saves, demanding(&["by"])));
    }
    let mut new = old.clone();
    new.commands.insert("refund".to_owned(), a_command(CommandEffect::Saves, demanding(&["by"])));
    new.commands.insert("ask".to_owned(), a_command(CommandEffect::Saves, None));
    assert_eq!(told(&old, &new), "");
    new.commands.shift_remove("pay");
    new.commands.insert("ship".to_owned(), a_command(CommandEffect::Answers, demanding(&["by"])));
    new.commands.insert("show".to_owned(), a_command(CommandEffect::Saves, demanding(&["to", "by"])));
    old.commands.insert("ask".to_owned(), a_command(CommandEffect::Saves, None));
    new.commands.insert("ask".to_owned(), a_command(CommandEffect::Saves, demanding(&[])));
    insta::assert_snapshot!(told(&old, &new), @r"
    commands.pay: found nothing, expected the command
    commands.ship.effect: found answers, expected saves
    commands.show.arguments: found to required, expected it not required
    commands.ask.arguments: found a schema, expected none
    ");
}

#[test]
fn a_service_keeps_its_route() {
    let one = |route: &str| ServiceSpec {
        name: "hello".to_owned(),
        route: route.to_owned(),
        digest: String::new(),
        limits: crate::service::usual_limits(),
        http: Vec::new(),
        wasi: crate::service::Wasi::V02,
    };
    assert_eq!(breaking_service(&one("/hello"), &one("/hello")), [] as [&str; 0]);
    let told = breaking_service(&one("/hello"), &one("/hi")).join("\n");
    insta::assert_snapshot!(told, @"route: found /hi, expected /hello");
}

/// A model with any fields.
fn any_model() -> impl Strategy<Value = ModelSpec> {
    let kinds = select(vec!["text", "integer", "decimal", "boolean", "timestamp", "any"]);
    let field = (kinds, any::<bool>(), any::<[bool; 3]>());
    let fields = proptest::collection::btree_map("[b-h]{1,4}", field, 1..6);
    (fields, any::<[bool; 3]>()).prop_map(|(fields, [memory, refuse, required])| {
        let mut spec = spec("name = \"order\"\n[fields]\n");
        for (name, (kind, indexed, [required, unique, frozen])) in fields {
            let one = module::parse(&format!("name = \"x\"\n[fields]\n{name} = \"{kind}\"\n"), "x").unwrap();
            let field = one.fields[&name].clone();
            spec.fields.insert(name, FieldSpec { required, unique, frozen, indexed, ..field });
        }
        spec.datasource = memory.then_some(Datasource::Memory);
        spec.unknown_fields = if refuse { UnknownFields::Refuse } else { UnknownFields::Keep };
        spec.if_match = if required { IfMatch::Required } else { IfMatch::Optional };
        spec
    })
}

fn plain_field() -> FieldSpec {
    spec("name = \"x\"\n[fields]\na = \"text\"\n").fields["a"].clone()
}

proptest! {
    #[test]
    fn a_model_is_compatible_with_itself(model in any_model()) {
        prop_assert_eq!(told(&model, &model), "");
    }

    #[test]
    fn one_more_optional_field_is_compatible_and_taking_it_away_again_is_not(model in any_model()) {
        let mut more = model.clone();
        more.fields.insert("added".to_owned(), plain_field());
        prop_assert_eq!(told(&model, &more), "");
        prop_assert_eq!(told(&more, &model), "fields.added: found nothing, expected the field");
    }

    #[test]
    fn whoever_demands_less_is_compatible_and_the_way_back_is_not(model in any_model(), which in any::<proptest::sample::Index>()) {
        let mut strict = model.clone();
        let at = which.index(strict.fields.len());
        let (_, field) = strict.fields.get_index_mut(at).unwrap();
        (field.required, field.unique, field.frozen) = (true, true, true);
        let mut lax = strict.clone();
        let (_, field) = lax.fields.get_index_mut(at).unwrap();
        (field.required, field.unique, field.frozen) = (false, false, false);
        prop_assert_eq!(told(&strict, &lax), "");
        prop_assert_eq!(breaking(&lax, &strict, Datasource::File).len(), 3);
    }

    #[test]
    fn what_breaks_in_two_steps_is_not_less_than_in_one(one in any_model(), two in any_model(), three in any_model()) {
        if told(&one, &two).is_empty() && told(&two, &three).is_empty() {
            prop_assert_eq!(told(&one, &three), "");
        }
    }
}
