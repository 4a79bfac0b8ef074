//! What a module says of itself and answers, called as the host calls it, without one.

use aegis_module::{
    Code, Command, Context, Definition, Event, Exported, Field, Model, Origin, Refusal, Response, Rights,
    Route, Value, Who,
    bindings::{
        aegis::module::{events, spec, types},
        events::exports::aegis::module::event_handlers,
        exports::aegis::module::{commands, describe_model, hooks, identity, lifecycle},
        handover::exports::aegis::module::handover,
        routes::exports::aegis::module::routes,
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
            .allow(Who::Claim("team", "post"), Rights::READ | Rights::LIST_ALL)
            .deny(Who::Role("former"), Rights::READ)
            .allow(Who::Anyone, Rights::CREATE)
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
                .allow(&["auditor"])
                .cpu_bound(),
            )
            .command(
                Command::about_one("id", |_, note, context: &Context| Ok((note.id, context.attempt))).saves(),
            )
            .on_load(|mut stored, _| {
                stored.data["loaded"] = stored.revision.into();
                Ok(stored.data)
            })
            .route(Route::get("/{id}/label", |request, _| {
                let id = request.param("id").unwrap_or_default();
                Ok(Response::new(200).header("content-type", "text/label").with_text(&format!("<{id}>")))
            }))
            .route(Route::post("/{id}/label", |request, _| {
                Ok(Response::new(201).with_json(&request.json::<Value>()?))
            }))
            .on_event("createnote", |event: Event, _| {
                Err(refuse(Code::Denied, format!("exactly {}", event.data)))
            })
            .on_event("CREATE*", |event, _| Err(refuse(Code::Denied, event.name)))
            .handover(
                || Ok(vec![1, 2]),
                |state: Vec<u8>, from| Err(refuse(Code::Invalid, format!("{state:?} from {from}"))),
            )
            .health(|| Err(refuse(Code::Unavailable, "it is not well")))
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
fn it_says_who_may_do_what() {
    let described = <Module as describe_model::Guest>::describe();
    let rules: Vec<_> =
        described.acl.iter().map(|rule| (rule.subject, rule.name.as_str(), rule.allow, rule.deny)).collect();
    let none = Rights::empty();
    let expected = [
        (spec::AclSubject::Claim, "team=post", Rights::READ | Rights::LIST_ALL, none),
        (spec::AclSubject::Role, "former", none, Rights::READ),
        (spec::AclSubject::Anyone, "", Rights::CREATE, none),
    ];
    assert_eq!(rules, expected);
    let allowed: Vec<_> = described.commands.iter().map(|command| command.allow.len()).collect();
    assert_eq!(allowed, [1, 0]);
}

#[test]
fn it_says_what_it_is() {
    let info = <Module as identity::Guest>::info();
    assert_eq!((info.name.as_str(), info.version.as_str()), ("note", "1.2.0"));
    let described = <Module as describe_model::Guest>::describe();
    assert_eq!((described.name.as_str(), described.endpoint.as_str()), ("note", "notes"));
    let hooks = spec::HookSet::ON_CREATE | spec::HookSet::VALIDATE | spec::HookSet::ON_LOAD;
    assert_eq!(described.hooks, hooks);
    let routes: Vec<_> = described.routes.iter().map(|route| (route.method, route.path.as_str())).collect();
    assert_eq!(routes, [(spec::HttpMethod::Get, "/{id}/label"), (spec::HttpMethod::Post, "/{id}/label")]);
    let events: Vec<_> = described.subscriptions.iter().map(|one| one.event.as_str()).collect();
    assert_eq!(events, ["CREATENOTE", "CREATE*"]);
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
    let loaded = <Module as hooks::Guest>::on_load(context(), entity(r#"{"a":1}"#)).unwrap();
    assert_eq!(loaded, r#"{"a":1,"loaded":1}"#);
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

#[test]
fn it_goes_on_under_other_settings_as_it_began_and_says_whether_it_is_well() {
    <Module as lifecycle::Guest>::reconfigure("{}".to_owned()).unwrap();
    let broken = <Module as lifecycle::Guest>::reconfigure(r#"{"broken":true}"#.to_owned());
    assert_eq!(broken.unwrap_err().message, "it is broken");
    assert_eq!(<Module as lifecycle::Guest>::health().unwrap_err().message, "it is not well");
    <Module as lifecycle::Guest>::drain();
}

fn route(method: spec::HttpMethod, body: &[u8]) -> Result<routes::Response, types::Fault> {
    let request = routes::Request {
        method,
        route: "/{id}/label".to_owned(),
        path: "/aegis/api/models/notes/a/label".to_owned(),
        query: String::new(),
        params: vec![("id".to_owned(), "a".to_owned())],
        headers: Vec::new(),
        body: body.to_vec(),
    };
    <Module as routes::Guest>::handle(context(), request)
}

#[test]
fn routes_are_told_apart_by_their_method() {
    let header = |response: &routes::Response| {
        let of = |header: &types::Header| {
            format!("{}: {}", header.name, String::from_utf8(header.value.clone()).unwrap())
        };
        response.headers.iter().map(of).collect::<Vec<_>>()
    };
    let label = route(spec::HttpMethod::Get, b"").unwrap();
    assert_eq!((label.status, label.body.as_slice()), (200, b"<a>".as_slice()));
    assert_eq!(header(&label), ["content-type: text/label"], "the type that is said goes before");
    let echo = route(spec::HttpMethod::Post, b"{\"b\":[1]}").unwrap();
    assert_eq!((echo.status, echo.body.as_slice()), (201, b"{\"b\":[1]}".as_slice()));
    assert_eq!(header(&echo), ["content-type: application/json"]);
    assert_eq!(route(spec::HttpMethod::Post, b"{").unwrap_err().code, Code::Invalid);
    assert_eq!(route(spec::HttpMethod::Put, b"").unwrap_err().code, Code::Unsupported);
}

#[test]
fn the_first_handler_that_fits_an_event_is_told() {
    let told = |name: &str| {
        let (id, name, source) = ("1".to_owned(), name.to_owned(), "NOTE".to_owned());
        let data = r#"{"n":1}"#.to_owned();
        let event = events::Event { id, name, source, time: 1, key: None, data, remote: false };
        <Module as event_handlers::Guest>::on_event(context(), event).unwrap_err().message
    };
    assert_eq!(told("CREATENOTE"), r#"exactly {"n":1}"#);
    assert_eq!(told("CREATEORDER"), "CREATEORDER");
    assert_eq!(told("DELETENOTE"), "this module has no handler of DELETENOTE");
}

#[test]
fn what_it_remembers_is_handed_over_as_json() {
    assert_eq!(<Module as handover::Guest>::save().unwrap(), b"[1,2]");
    let restored = |state: &[u8]| <Module as handover::Guest>::restore("1.0.0".to_owned(), state.to_vec());
    assert_eq!(restored(b"[1,2]").unwrap_err().message, "[1, 2] from 1.0.0");
    assert_eq!(restored(b"no JSON").unwrap_err().code, Code::Invalid);
}
