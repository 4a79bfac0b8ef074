//! Modules that behave.

use serde_json::json;

use crate::{
    body::{
        Body, agree, answer, burn, create, echo, find, grow, log, merge, refuse, setting, spin, splice, trap,
    },
    documents::{MERGE, give_back, merge_into, put, refuse_where_true, when_document_holds},
    guest::Guest,
    route::{digits, first_part, respond, whole},
};

/// A model that only says what it is: the host does the rest. Endpoint `plains`, any properties.
#[must_use]
pub fn plain() -> Guest {
    Guest::model(json!({ "name": "plain", "endpoint": "plains", "version": "1.0.0" }))
}

/// A model whose create hook adds `"by":stamp` in front. Its endpoint is its name with an `s`.
#[must_use]
pub fn stamping_model(name: &str, stamp: &str) -> Guest {
    Guest::model(json!({ "name": name, "endpoint": format!("{name}s"), "version": "1.0.0" }))
        .hook("on-create", splice("input", &format!("\"by\":\"{stamp}\"")))
}

/// The component of [`stamping_model`] called `note`.
#[must_use]
pub fn stamping(stamp: &str) -> Vec<u8> {
    stamping_model("note", stamp).build()
}

/// A model with everything that a usual one has. Endpoint `todos`, fields `title` (required), `done` and `priority`
/// (1 to 5), and any others.
///
/// - `on-create` adds `"stamped":true` in front.
/// - `validate` refuses (`invalid`) a document with the text `forbidden` anywhere.
/// - `on-update` merges the changes and adds `"touched":true` in front.
/// - `on-delete` refuses (`conflict`) a document with the text `"protected":true`.
/// - Commands: `echo` answers its arguments; `approve` answers the document with `"approved":true`, which is saved;
///   `burn` computes on the CPU pool as many steps as the first number in its arguments says and answers a number;
///   `refuse` answers a fault (`denied`); `greeting` answers the setting `greeting`, after a line in the log.
///
/// Documents and changes have to come without spaces between their parts, as the host writes them.
#[must_use]
pub fn todo() -> Guest {
    todo_without_hooks()
        .hook("on-create", splice("input", r#""stamped":true"#))
        .hook("validate", refuse("invalid", "it is forbidden").when_holds("after", "forbidden").then(agree()))
        .hook("on-update", touched())
        .hook(
            "on-delete",
            refuse("conflict", "it is protected")
                .when_holds("current_data", "\"protected\":true")
                .then(agree()),
        )
}

/// The same model as [`todo()`], with hooks over documents that the host holds.
#[must_use]
pub fn held_todo() -> Guest {
    let before = "(if (local.get $before_present) (then (call $documents_document (local.get $before))))";
    let forbidden = give_back("after").then(refuse("invalid", "it is forbidden"));
    todo_without_hooks()
        .item(MERGE)
        .function(
            "document-hooks",
            "on-create",
            put("input", "/stamped", "true").then(give_back("input")).then(agree()),
        )
        .function(
            "document-hooks",
            "validate",
            Body::from(before)
                .then(when_document_holds("after", "forbidden", forbidden))
                .then(give_back("after"))
                .then(agree()),
        )
        .function(
            "document-hooks",
            "on-update",
            merge_into("current", "changes")
                .then(give_back("changes"))
                .then(put("current", "/touched", "true"))
                .then(give_back("current"))
                .then(agree()),
        )
        .function(
            "document-hooks",
            "on-delete",
            refuse_where_true("current", "/protected", "it is protected"),
        )
}

/// A model whose documents of the first shape, with `"name"`, become such of the second, with `"title"` beside it, as
/// they are loaded. Endpoint `outgrowns`. Loading refuses (`conflict`) a document with the text `forbidden`, traps with
/// `explode`, and answers no object with `"scalar"`. The command `show` answers the document that it is given.
#[must_use]
pub fn outgrown() -> Guest {
    let spec = json!({
        "name": "outgrown", "endpoint": "outgrowns", "version": "2.0.0", "hooks": ["on-load"],
        "fields": [{ "name": "kind", "kind": "text" }],
    });
    let load = refuse("conflict", "it is forbidden")
        .when_holds("stored_data", "forbidden")
        .then(trap().when_holds("stored_data", "explode"))
        .then(answer("7").when_holds("stored_data", "\"scalar\""))
        .then(splice("stored_data", r#""title":"grown""#).when_holds("stored_data", "\"name\""))
        .then(echo("stored_data"));
    Guest::model(spec).info("outgrown", "2.0.0").hook("on-load", load).command("show", echo("target_data"))
}

fn todo_without_hooks() -> Guest {
    let spec = json!({
        "name": "todo", "endpoint": "todos", "version": "1.0.0",
        "description": "Things to do.",
        "fields": [
            { "name": "title", "kind": "text", "rules": ["required"] },
            { "name": "done", "kind": "boolean", "default-value": "false" },
            { "name": "priority", "kind": "integer" },
        ],
        "mixins": [{ "name": "range", "options": r#"{"fields":["priority"],"min":1,"max":5}"# }],
        "commands": [
            { "name": "echo" },
            { "name": "approve", "saves": true, "description": "Marks it as approved." },
            { "name": "burn", "cpu-bound": true },
            { "name": "refuse" },
            { "name": "greeting" },
        ],
    });
    let approved = merge_text("target_data", r#"{"approved":true}"#);
    Guest::model(spec)
        .info("todo", "1.2.0")
        .command("echo", echo("args"))
        .command("approve", approved)
        .command("burn", burn("args"))
        .command("refuse", refuse("denied", "nobody may do that"))
        .command("greeting", log("greeted").then(setting("/greeting")))
}

/// A model whose commands use the documents of others. Endpoint `orders`.
///
/// - `customer` answers the document of the model `customer` whose id is its argument, a JSON text, or `null`.
/// - `remind` creates a document of the model `todo` from its arguments and answers what it became.
#[must_use]
pub fn order() -> Guest {
    let spec = json!({
        "name": "order", "endpoint": "orders", "version": "2.0.0",
        "fields": [
            { "name": "item", "kind": "text", "rules": ["required", "immutable"] },
            { "name": "count", "kind": "integer", "default-value": "1" },
        ],
        "strict": true,
        "datasource": { "name": "memory", "cache-entries": 1000 },
    });
    Guest::model(spec)
        .info("order", "2.1.3")
        .command("customer", find("customer", "args"))
        .command("remind", create("todo", "args"))
}

/// A model whose instances remember: `next` answers how often the same instance was called, from 1; `generation` answers
/// the number of the generation; `init` begins at
/// 100 when the setting `from` is there. Endpoint `counters`.
#[must_use]
pub fn counter() -> Guest {
    let next = "(global.set $count (i64.add (global.get $count) (i64.const 1)))
                (call $answer (call $digits (global.get $count)))";
    let generation =
        Body::from("(call $answer (call $digits (call $config_generation)))").calling("config", "generation");
    let begin = "(global.set $count (i64.const 100)) (call $agree)";
    let begin = Body::from(begin).when_holds("config", "\"from\"");
    Guest::model(json!({ "name": "counter", "endpoint": "counters", "version": "1.0.0" }))
        .item("(global $count (mut i64) (i64.const 0))")
        .lifecycle("init", begin.then(agree()))
        .command("next", next)
        .command("generation", generation)
}

/// The model [`counter`] in a version whose instances hand their count over to the next one. It takes none over
/// (`unsupported`) from version 0.9.0.
#[must_use]
pub fn heir(version: &str) -> Guest {
    let save = "(local.set $i (call $allocate (i32.const 8)))
                (i64.store (local.get $i) (global.get $count))
                (call $answer (local.get $i) (i32.const 8))";
    let restore = refuse("unsupported", "it is too old")
        .when_is("from_version", "0.9.0")
        .then("(global.set $count (i64.load align=1 (local.get $state)))")
        .then(agree());
    counter()
        .info("counter", version)
        .function("handover", "save", save)
        .function("handover", "restore", restore)
}

/// A model that takes one mebibyte more with every call of `eat` and answers `true`. Endpoint `greedies`.
#[must_use]
pub fn greedy() -> Guest {
    Guest::model(json!({ "name": "greedy", "endpoint": "greedies", "version": "1.0.0" }))
        .command("eat", grow().then(answer("true")))
}

/// A model with custom routes. Endpoint `labels`, any properties.
///
/// - `GET /{id}/label` answers the id, as text; `GET /{id}` answers `custom`, instead of the document.
/// - `POST /echo` answers 201 with the body of the request, and header fields of which some are the host's.
/// - `GET /query` and `GET /path` answer what they are named after; `GET /headers` the number of header fields.
/// - `GET /status` answers with the status that is the query.
/// - `GET /refuse` answers a fault (`conflict`), `GET /trap` traps, `GET /spin` never ends.
/// - `POST /burn` computes on the CPU pool as many steps as the first number in its body says and answers a number.
/// - `GET //labels-of-all/{id}` answers the id, from the root of the host.
#[must_use]
pub fn label() -> Guest {
    let get = |path: &str| json!({ "method": "get", "path": path });
    let ok = "(i32.const 200)";
    let text = [("content-type", "text/plain")];
    let echoed = [
        ("content-type", "application/octet-stream"),
        ("x-kind", "echo"),
        ("aegis-worker", "mine"),
        ("connection", "close"),
        ("content-length", "1"),
    ];
    let burnt = digits("(call $burn (call $number (local.get $req_body) (local.get $req_body_length)))");
    let status = "(i32.wrap_i64 (call $number (local.get $req_query) (local.get $req_query_length)))";
    let mut custom = Body::default();
    let content = custom.text("custom");
    Guest::model(json!({ "name": "label", "endpoint": "labels", "version": "1.0.0" }))
        .route(get("/{id}/label"), respond(ok, &text, &first_part()))
        .route(get("/{id}"), custom.then(respond(ok, &text, &content)))
        .route(
            json!({ "method": "post", "path": "/echo", "openapi": "{\"summary\":\"Says it again.\"}" }),
            respond("(i32.const 201)", &echoed, &whole("req_body")),
        )
        .route(get("/query"), respond(ok, &text, &whole("req_query")))
        .route(get("/path"), respond(ok, &text, &whole("req_path")))
        .route(
            get("/headers"),
            respond(ok, &text, &digits("(i64.extend_i32_u (local.get $req_headers_length))")),
        )
        .route(get("/status"), respond(status, &text, &whole("req_path")))
        .route(get("/refuse"), refuse("conflict", "not now"))
        .route(get("/trap"), trap())
        .route(get("/spin"), spin())
        .route(json!({ "method": "post", "path": "/burn", "cpu-bound": true }), respond(ok, &text, &burnt))
        .route(get("//labels-of-all/{id}"), respond(ok, &text, &first_part()))
}

/// The hook `on-update` of [`todo`].
fn touched() -> Body {
    let mut body = merge("current_data", "changes");
    let mark = body.text(r#"{"touched":true}"#);
    body.wat = format!(
        "(call $merge (local.get $current_data) (local.get $current_data_length)
           (local.get $changes) (local.get $changes_length))
         (local.set $j) (local.set $i)
         (call $answer (call $merge {mark} (local.get $i) (local.get $j)))"
    );
    body
}

/// Answers a parameter with a constant merge patch applied.
pub(crate) fn merge_text(parameter: &str, changes: &str) -> Body {
    let mut body = Body::default();
    let changes = body.text(changes);
    body.wat = format!(
        "(call $answer (call $merge (local.get ${parameter}) (local.get ${parameter}_length) {changes}))"
    );
    body
}
