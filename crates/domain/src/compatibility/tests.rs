use proptest::{prelude::*, sample::select};

use super::*;
use crate::{
    code::CommandPlace,
    module,
    route::{RouteSpec, Verb},
};

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
fn what_a_command_took_is_taken() {
    let with = |schema: Value| {
        let mut spec = spec(ORDER);
        spec.commands.insert("pay".to_owned(), a_command(CommandEffect::Saves, Some(schema)));
        spec
    };
    let object = |properties: Value| serde_json::json!({"type": "object", "properties": properties});
    let old = serde_json::json!({
        "by": {"enum": ["card", "cash"]}, "times": {"type": "integer", "minimum": 1, "maximum": 9},
        "note": {"type": "string", "maxLength": 9}, "to": {"items": {"type": "string"}}, "any": true,
        "mail": {"type": "string"}, "day": {"type": "string", "format": "date"},
    });
    let wider = serde_json::json!({
        "by": {"enum": ["cash", "card", "coin"], "title": "How"}, "times": {"type": "number", "maximum": 10},
        "note": {"type": ["null", "string"], "maxLength": 10}, "more": {"type": "string"},
        "mail": {"type": "string"}, "day": {"type": "string"},
    });
    assert_eq!(told(&with(object(old.clone())), &with(object(old.clone()))), "");
    assert_eq!(told(&with(object(old.clone())), &with(object(wider))), "");
    let narrower = serde_json::json!({
        "by": {"enum": ["card"]}, "times": {"type": "integer", "minimum": 2, "maximum": 8},
        "note": {"type": "string", "pattern": "^a"}, "to": {"items": {"type": "string", "maxLength": 3}}, "any": {"type": "null"},
        "mail": {"type": "string", "format": "email"}, "day": {"type": "string", "format": "date-time"},
    });
    let mut narrower = object(narrower);
    narrower["additionalProperties"] = false.into();
    narrower["properties"].as_object_mut().unwrap().shift_remove("by");
    insta::assert_snapshot!(told(&with(object(old)), &with(narrower)), @r#"
    commands.pay.arguments.by: found nothing, expected the argument
    commands.pay.arguments.times.minimum: found 2, expected 1
    commands.pay.arguments.times.maximum: found 8, expected 9
    commands.pay.arguments.note.pattern: found "^a", expected none
    commands.pay.arguments.to.items.maxLength: found 3, expected none
    commands.pay.arguments.any.type: found "null", expected none
    commands.pay.arguments.mail.format: found "email", expected none
    commands.pay.arguments.day.format: found "date-time", expected "date"
    commands.pay.arguments.additionalProperties: found false, expected none
    "#);
}

fn a_route(method: Verb, path: &str) -> RouteSpec {
    let path = path.to_owned();
    let place = CommandPlace::Io;
    RouteSpec { method, path, place, openapi: None, public: false, allow: Vec::new(), disabled: false }
}

#[test]
fn callers_find_the_routes_they_know_and_may_do_what_they_might() {
    let route = |method: Verb, path: &str, public: bool, allow: &[&str]| RouteSpec {
        public,
        allow: allow.iter().map(|&role| role.to_owned()).collect(),
        ..a_route(method, path)
    };
    let with = |routes: Vec<RouteSpec>, roles: &[&str], acl: Value| {
        let mut spec = spec(ORDER);
        let command = a_command(CommandEffect::Saves, None);
        let allow = roles.iter().map(|&role| role.to_owned()).collect();
        spec.commands.insert("pay".to_owned(), CommandSpec { allow, ..command });
        spec.code = Some(crate::code::CodeSpec { routes, ..crate::trial::tests::code() });
        spec.acl = serde_json::from_value(acl).unwrap();
        spec
    };
    let rules = serde_json::json!([
        {"subject": {"role": "clerk"}, "allow": ["read", "update"]},
        {"subject": "anyone", "allow": ["read"]},
    ]);
    let old_routes = vec![
        route(Verb::Get, "/{id}/label", true, &[]),
        route(Verb::Post, "/{id}/label", false, &[]),
        route(Verb::Get, "//labels", false, &["clerk", "boss"]),
        route(Verb::Put, "//labels", false, &[]),
    ];
    let old = with(old_routes.clone(), &["clerk"], rules.clone());
    assert_eq!(told(&old, &old), "");
    let mut wider = old_routes;
    wider[0].path = "/{key}/label".to_owned();
    wider[1].public = true;
    wider[2].allow.push("guest".to_owned());
    let more = serde_json::json!([{"subject": "anyone", "allow": ["read", "update"]}]);
    assert_eq!(told(&old, &with(wider.clone(), &["clerk", "boss"], more)), "");
    assert_eq!(told(&old, &with(wider, &[], serde_json::json!([]))), "");
    let fewer = vec![
        route(Verb::Get, "/{id}/label", false, &[]),
        route(Verb::Post, "/{id}/label", false, &["boss"]),
        route(Verb::Get, "//labels", false, &["boss"]),
    ];
    let less = serde_json::json!([{"subject": "anyone", "allow": ["read"], "deny": ["delete"]}]);
    insta::assert_snapshot!(told(&old, &with(fewer, &["boss"], less)), @r"
    commands.pay.allow: found it without clerk, expected them as well
    routes.GET /{id}/label.public: found false, expected true
    routes.POST /{id}/label.allow: found only boss, expected none
    routes.GET //labels.allow: found it without clerk, expected them as well
    routes.PUT //labels: found nothing, expected the route
    acl: found update not allowed to role clerk, expected it allowed
    acl: found delete denied to anyone, expected it not denied
    ");
    let free = with(Vec::new(), &[], serde_json::json!([]));
    insta::assert_snapshot!(told(&free, &with(Vec::new(), &["clerk"], rules)), @r"
    commands.pay.allow: found only clerk, expected none
    acl: found create, list-all, update, delete, command not allowed to anyone, expected it allowed
    ");
}

#[test]
fn callers_are_answered_by_what_is_generated_where_they_were() {
    let with = |routes: &[RouteSpec]| {
        let mut spec = spec(ORDER);
        spec.commands.insert("pay".to_owned(), a_command(CommandEffect::Saves, None));
        spec.code = Some(crate::code::CodeSpec { routes: routes.to_vec(), ..crate::trial::tests::code() });
        spec
    };
    let old = with(&[]);
    // What is new elsewhere adds, and so does what takes the place of a document that hardly anybody has.
    let beside = [
        a_route(Verb::Get, "/search"),
        a_route(Verb::Get, "/{id}/label"),
        a_route(Verb::Get, "/{id}/pay"),
        a_route(Verb::Post, "/{id}"),
        a_route(Verb::Post, "/import/pay"),
        a_route(Verb::Delete, "/"),
        a_route(Verb::Get, "//orders/{id}"),
        a_route(Verb::Get, "/{id}/{part}/{piece}"),
    ];
    assert_eq!(told(&old, &with(&beside)), "");
    let taken = [
        a_route(Verb::Get, "/{key}"),
        a_route(Verb::Head, "/"),
        a_route(Verb::Post, "/"),
        RouteSpec { disabled: true, ..a_route(Verb::Delete, "/{id}") },
        a_route(Verb::Post, "/{id}/{word}"),
        a_route(Verb::Patch, "/{id}/pay"),
        a_route(Verb::Options, "/{id}/pay"),
    ];
    insta::assert_snapshot!(told(&old, &with(&taken)), @r"
    routes.HEAD /: found it in place of what is generated, expected it elsewhere
    routes.POST /: found it in place of what is generated, expected it elsewhere
    routes.GET /{key}: found it in place of what is generated, expected it elsewhere
    routes.DELETE /{id}: found it in place of what is generated, expected it elsewhere
    routes.POST /{id}/{word}: found it in place of what is generated, expected it elsewhere
    routes.PATCH /{id}/pay: found it in place of what is generated, expected it elsewhere
    routes.OPTIONS /{id}/pay: found it in place of what is generated, expected it elsewhere
    ");
    // Where a route answered before, nothing that is generated did.
    assert_eq!(told(&with(&taken), &with(&taken)), "");
    let finer = [&taken[..], &[a_route(Verb::Head, "/{id}"), a_route(Verb::Post, "/{id}/pay")]].concat();
    assert_eq!(told(&with(&taken), &with(&finer)), "");
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
