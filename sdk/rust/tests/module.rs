//! What a module says of itself and answers, called as the host calls it, without one.

use aegis_module::{
    Code, Command, Context, Definition, Exported, Field, Model, Origin, Refusal,
    bindings::{
        aegis::module::{spec, types},
        exports::aegis::module::{commands, describe_model, hooks, identity, lifecycle},
    },
    json, refuse,
};

struct Note;

impl Definition for Note {
    fn model() -> Model {
        let many = json!({ "type": "object", "required": ["n"] });
        Model::new("note")
            .version("1.2.0")
            .description("Something to remember")
            .field("text", Field::text().required().unique().longest(9).pattern("^[a-z]*$").default("x"))
            .field("n", Field::integer().min(1).max(5))
            .on_create(|mut input, _| {
                input["made"] = true.into();
                Ok(input)
            })
            .validate(|after, before, _| match before {
                Some(before) if before != after => {
                    Err(refuse(Code::Conflict, "it stays").detail("text", "is kept").transient())
                }
                _ => Ok(()),
            })
            .command(
                Command::new("twice", |arguments, _, _| {
                    let n: i64 = serde_json::from_value(arguments["n"].clone())?;
                    Ok(2 * n)
                })
                .arguments(&many)
                .cpu_bound(),
            )
            .command(
                Command::about_one("id", |_, note, context: &Context| Ok((note.id, context.attempt))).saves(),
            )
            .begin(|settings| match settings["broken"].as_bool() {
                Some(true) => Err(refuse(Code::Unavailable, "it is broken")),
                _ => Ok(()),
            })
    }
}

type Module = Exported<Note>;

fn context() -> Context {
    Context {
        request_id: "r1".to_owned(),
        traceparent: None,
        tenant: None,
        principal: None,
        origin: Origin::Api,
        budget_ms: 1000,
        attempt: 1,
        idempotency_key: None,
    }
}

fn entity(data: &str) -> types::Entity {
    let model = "NOTE".to_owned();
    types::Entity { id: "a".to_owned(), model, revision: 1, created: 1, updated: 2, data: data.to_owned() }
}

fn run(command: &str, target: Option<types::Entity>, arguments: &str) -> Result<String, types::Fault> {
    <Module as commands::Guest>::run(context(), command.to_owned(), target, arguments.to_owned())
}

#[test]
fn it_says_what_it_is() {
    let info = <Module as identity::Guest>::info();
    assert_eq!((info.name.as_str(), info.version.as_str()), ("note", "1.2.0"));
    let described = <Module as describe_model::Guest>::describe();
    assert_eq!((described.name.as_str(), described.endpoint.as_str()), ("note", "notes"));
    assert_eq!(described.hooks, spec::HookSet::ON_CREATE | spec::HookSet::VALIDATE);
    let text = &described.fields[0];
    assert_eq!(text.rules, spec::FieldRules::REQUIRED | spec::FieldRules::UNIQUE);
    assert_eq!(text.schema.as_deref(), Some(r#"{"maxLength":9}"#));
    assert_eq!(text.default_value.as_deref(), Some(r#""x""#));
    let mixins: Vec<_> =
        described.mixins.iter().map(|mixin| (mixin.name.as_str(), mixin.options.as_str())).collect();
    assert_eq!(
        mixins,
        [
            ("pattern", r#"{"pattern":"^[a-z]*$","fields":["text"]}"#),
            ("range", r#"{"min":1,"max":5,"fields":["n"]}"#)
        ]
    );
    let commands: Vec<_> = described
        .commands
        .iter()
        .map(|command| (command.name.as_str(), command.saves, command.cpu_bound))
        .collect();
    assert_eq!(commands, [("twice", false, true), ("id", true, false)]);
}

#[test]
fn hooks_get_documents_and_answer_documents() {
    let made = <Module as hooks::Guest>::on_create(context(), r#"{"b":1,"a":2}"#.to_owned());
    assert_eq!(made.unwrap(), r#"{"b":1,"a":2,"made":true}"#, "in the order in which they came");
    let validate = |before: Option<&str>| {
        <Module as hooks::Guest>::validate(context(), before.map(str::to_owned), "{\"n\":2}".to_owned())
    };
    validate(None).unwrap();
    let refused = validate(Some("{\"n\":1}")).unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str(), refused.transient),
        (Code::Conflict, "it stays", true)
    );
    assert_eq!(refused.details.as_deref(), Some(r#"{"text":"is kept"}"#));
    let undeclared = <Module as hooks::Guest>::on_delete(context(), entity("{}")).unwrap_err();
    assert_eq!(undeclared.code, Code::Unsupported);
}

#[test]
fn commands_get_arguments_and_their_document() {
    assert_eq!(run("twice", None, r#"{"n":21}"#).unwrap(), "42");
    assert_eq!(run("id", Some(entity("{}")), "{}").unwrap(), r#"["a",1]"#);
    let refused = |answer: Result<String, types::Fault>| Refusal::from(answer.unwrap_err());
    assert_eq!(refused(run("twice", None, r#"{"n":"x"}"#)).code, Code::Invalid);
    assert_eq!(refused(run("id", None, "{}")).message, "this command is about one document");
    assert_eq!(refused(run("unheard", None, "{}")).message, "this module has no command unheard");
}

#[test]
fn it_begins_with_its_settings() {
    <Module as lifecycle::Guest>::init("{}".to_owned()).unwrap();
    assert_eq!(
        <Module as lifecycle::Guest>::init(r#"{"broken":true}"#.to_owned()).unwrap_err().code,
        Code::Unavailable
    );
}
