//! Bodies and modules that use what the host offers beyond single documents: batches, aggregates, measurements.

use serde_json::{Value, json};

use crate::{
    body::{Body, agree, answer, create, echo, merge, pass_fault_on, refuse, spin, text_name, trap},
    fixtures::merge_text,
    guest::Guest,
};

/// Bytes of a `write-op` and of an `option<entity>` in memory.
const WRITE_BYTES: usize = 40;
const FOUND_BYTES: usize = 56;
/// The sum of `n`.
const SUM: &str = r#"[{"$group":{"_id":null,"n":{"$sum":"$n"}}}]"#;

/// A model that works on its own documents. Endpoint `entries`.
///
/// - `many` finds the documents `a`, `none` and `b` and answers a digit for each: 1 when it is there, 2 when not.
/// - `trade` creates a document from its arguments, sets `"traded":true` in `a` and removes `b`, together; answers how
///   many documents came back.
/// - `sums` answers the sum of `n` over its own documents as `[{"_id":null,"n":…}]`, `foreign-sums` over those of
///   `todo`; `no-sums` asks for a pipeline that is none.
/// - `count` adds 1 to the counter `counted` with the label `by`, which is its arguments, and answers `true`.
/// - `observe` has the histogram `size` observe the first number in its arguments, and answers `true`.
/// - `label-bomb` adds to `counted` with 10 000 different labels, and answers `true`.
#[must_use]
pub fn entry() -> Guest {
    Guest::model(json!({ "name": "entry", "endpoint": "entries", "version": "1.0.0" }))
        .command("many", find_many("entry", ["a", "none", "b"]))
        .command("trade", trade("entry", "args"))
        .command("sums", aggregate("entry", SUM))
        .command("foreign-sums", aggregate("todo", SUM))
        .command("no-sums", aggregate("entry", "{}"))
        .command("count", count("counted", "args").then(answer("true")))
        .command("observe", observe("size", "args").then(answer("true")))
        .command("label-bomb", label_bomb("counted").then(answer("true")))
}

/// A model each of whose new documents makes one of another model, before it is made itself.
#[must_use]
pub fn creating(name: &str, endpoint: &str, other: &str) -> Guest {
    let mut first = create(other, "input");
    // What the other became is not the answer.
    let at = first.wat.rfind("(call $answer").expect("it ends with the answer");
    first.wat.truncate(at);
    Guest::model(json!({ "name": name, "endpoint": endpoint, "version": "1.0.0" }))
        .hook("on-create", first.then(echo("input")))
}

/// A model whose commands write first, and then save the document that they are about with `"gave":true`. Endpoint
/// `accounts`.
///
/// - `give` sets `"got":true` in the document whose id is in its arguments, `{"to":"…"}`.
/// - `trade` does what it does in [`entry`].
/// - `stall` does what `give` does, and never ends.
#[must_use]
pub fn account() -> Guest {
    let saved = || merge_text("target_data", r#"{"gave":true}"#);
    let mut trade = trade("account", "args");
    let at = trade.wat.rfind("(call $answer").expect("it ends with the answer");
    trade.wat.truncate(at);
    let spec = json!({
        "name": "account", "endpoint": "accounts", "version": "1.0.0",
        "commands": [{ "name": "give", "saves": true }, { "name": "trade", "saves": true },
            { "name": "stall", "saves": true }],
    });
    Guest::model(spec)
        .command("give", mark("account", "args", r#"{"got":true}"#).then(saved()))
        .command("trade", trade.then(saved()))
        .command("stall", mark("account", "args", r#"{"got":true}"#).then(spin()))
}

/// A model whose hooks write the document `a` before they say what becomes of the one that they are asked about, each
/// where its own name stands in that: they set `"got":true`, but `on-delete` removes `a`. The command `trade` does what
/// it does in [`entry`]. Endpoint `meddlers`.
#[must_use]
pub fn meddler() -> Guest {
    let patch = || write("meddler", 1, ["a", r#"{"got":true}"#]);
    let merged = || merge("current_data", "changes");
    Guest::model(json!({ "name": "meddler", "endpoint": "meddlers", "version": "1.0.0" }))
        .hook("on-create", patch().then(echo("input")).when_holds("input", "on-create").then(echo("input")))
        .hook("on-update", patch().then(merged()).when_holds("changes", "on-update").then(merged()))
        .hook("validate", patch().then(agree()).when_holds("after", "validate").then(agree()))
        .hook(
            "on-delete",
            write("meddler", 3, ["a", ""])
                .then(agree())
                .when_holds("current_data", "on-delete")
                .then(agree()),
        )
        .command("trade", trade("meddler", "args"))
}

/// Writes a document, and goes on: a case of `write-op` and the texts that it has, an id and changes if there are any.
fn write(model: &str, case: u32, texts: [&str; 2]) -> Body {
    let mut body = Body::default();
    let model = body.text(model);
    let [id, changes] = texts.map(|text| {
        body.text(text);
        text_name(text)
    });
    let changes = match texts[1] {
        "" => "(i32.const 0) (i64.const 0)".to_owned(),
        _ => format!("(global.get {changes}) (i64.extend_i32_u (global.get {changes}_length))"),
    };
    body.wat = format!(
        "(local.set $k (call $allocate (global.get $models_write_size)))
         (call $models_write {model}
           (i32.const {case}) (global.get {id}) (global.get {id}_length)
           {changes} (i32.const 0) (i64.const 0)
           (local.get $k))
         {fault}",
        fault = pass_fault_on("models_write")
    );
    body.calling("models", "write")
}

/// Patches the document whose id is in a parameter, `{"to":"…"}`, and goes on.
fn mark(model: &str, parameter: &str, changes: &str) -> Body {
    let mut body = Body::default();
    let (model, _) = (body.text(model), body.text(changes));
    let changes = text_name(changes);
    body.wat = format!(
        "(local.set $k (call $allocate (global.get $models_write_size)))
         (call $models_write {model}
           (i32.const 1)
           (i32.add (local.get ${parameter}) (i32.const 7))
           (i32.sub (local.get ${parameter}_length) (i32.const 9))
           (global.get {changes}) (i64.extend_i32_u (global.get {changes}_length))
           (i32.const 0) (i64.const 0)
           (local.get $k))
         {fault}",
        fault = pass_fault_on("models_write")
    );
    body.calling("models", "write")
}

/// Creates a document of a model from a text, and goes on whether that is refused or not.
#[must_use]
pub fn leave(model: &str, data: &str) -> Body {
    let mut body = Body::default();
    let (model, data) = (body.text(model), body.text(data));
    body.wat = format!(
        "(local.set $k (call $allocate (global.get $models_write_size)))
         (call $models_write {model}
           (i32.const 0) {data}
           (i32.const 0) (i64.const 0) (i32.const 0) (i64.const 0)
           (local.get $k))"
    );
    body.calling("models", "write")
}

/// Adds 1 to a counter without labels, and goes on.
#[must_use]
pub fn tally(name: &str) -> Body {
    let mut body = Body::default();
    let name = body.text(name);
    body.wat = format!("(call $metrics_add {name} (f64.const 1) (i32.const 0) (i32.const 0))");
    body.calling("metrics", "add")
}

/// Adds 1 to a counter whose label `by` is a parameter, and goes on.
#[must_use]
pub fn count(name: &str, parameter: &str) -> Body {
    let mut body = Body::default();
    let name = body.text(name);
    let label = label_by(&mut body);
    body.wat = format!(
        "{label}
         (i32.store offset=8 (local.get $k) (local.get ${parameter}))
         (i32.store offset=12 (local.get $k) (local.get ${parameter}_length))
         (call $metrics_add {name} (f64.const 1) (local.get $k) (i32.const 1))"
    );
    body.calling("metrics", "add")
}

/// Has a histogram observe the first number in a parameter, and goes on.
#[must_use]
pub fn observe(name: &str, parameter: &str) -> Body {
    let mut body = Body::default();
    let name = body.text(name);
    body.wat = format!(
        "(call $metrics_observe {name}
           (f64.convert_i64_u (call $number (local.get ${parameter}) (local.get ${parameter}_length)))
           (i32.const 0) (i32.const 0))"
    );
    body.calling("metrics", "observe")
}

/// Adds to a counter with 10 000 different labels, and goes on.
fn label_bomb(name: &str) -> Body {
    let mut body = Body::default();
    let name = body.text(name);
    let label = label_by(&mut body);
    body.wat = format!(
        "(local.set $i (i32.const 10000))
         (loop $again
           {label}
           (local.get $k) (call $digits (i64.extend_i32_u (local.get $i))) (local.set $j)
           (i32.store offset=8)
           (i32.store offset=12 (local.get $k) (local.get $j))
           (call $metrics_add {name} (f64.const 1) (local.get $k) (i32.const 1))
           (local.set $i (i32.sub (local.get $i) (i32.const 1)))
           (br_if $again (local.get $i)))"
    );
    body.calling("metrics", "add")
}

/// Room for one label at `$k`, with the name `by`.
fn label_by(body: &mut Body) -> String {
    body.text("by");
    let by = text_name("by");
    format!(
        "(local.set $k (call $allocate (i32.const 16)))
         (i32.store (local.get $k) (global.get {by}))
         (i32.store offset=4 (local.get $k) (global.get {by}_length))"
    )
}

/// Finds documents and answers a digit for each: 1 when it is there, 2 when not.
fn find_many(model: &str, ids: [&str; 3]) -> Body {
    let mut body = Body::default();
    let model = body.text(model);
    let mut wat = "(local.set $j (call $allocate (i32.const 24)))".to_owned();
    for (number, id) in ids.into_iter().enumerate() {
        wat.push_str(&store_text(&mut body, "$j", number * 8, id));
    }
    wat.push_str(&format!(
        "(local.set $k (call $allocate (global.get $models_find_many_size)))
         (call $models_find_many {model} (local.get $j) (i32.const {count}) (local.get $k))
         {fault}
         (local.set $i (i32.load (i32.add (local.get $k) (global.get $models_find_many_ok))))
         (local.set $j (i32.load (i32.add (local.get $k) (global.get $models_find_many_ok_length))))
         (local.set $n (i64.const 0))
         (loop $next
           (local.set $n (i64.add (i64.mul (local.get $n) (i64.const 10))
             (i64.sub (i64.const 2) (i64.load8_u (local.get $i)))))
           (local.set $i (i32.add (local.get $i) (i32.const {FOUND_BYTES})))
           (local.set $j (i32.sub (local.get $j) (i32.const 1)))
           (br_if $next (local.get $j)))
         (call $answer (call $digits (local.get $n)))",
        count = ids.len(),
        fault = pass_fault_on("models_find_many"),
    ));
    body.wat = wat;
    body.calling("models", "find-many")
}

/// Creates a document from a parameter, changes `a` and removes `b`, together.
fn trade(model: &str, parameter: &str) -> Body {
    let mut body = Body::default();
    let model = body.text(model);
    // Each is a case at 0 and what it has from 8 on: texts, and no revision.
    let (patch, delete) = (WRITE_BYTES, 2 * WRITE_BYTES);
    let texts = [
        store_text(&mut body, "$j", patch + 8, "a"),
        store_text(&mut body, "$j", patch + 16, r#"{"traded":true}"#),
        store_text(&mut body, "$j", delete + 8, "b"),
    ];
    body.wat = format!(
        "(local.set $j (call $allocate (i32.const {size})))
         (memory.fill (local.get $j) (i32.const 0) (i32.const {size}))
         (i32.store offset=8 (local.get $j) (local.get ${parameter}))
         (i32.store offset=12 (local.get $j) (local.get ${parameter}_length))
         (i32.store8 offset={patch} (local.get $j) (i32.const 1))
         (i32.store8 offset={delete} (local.get $j) (i32.const 3))
         {texts}
         (local.set $k (call $allocate (global.get $models_write_batch_size)))
         (call $models_write_batch {model} (local.get $j) (i32.const 3) (local.get $k))
         {fault}
         (call $answer (call $digits (i64.load32_u
           (i32.add (local.get $k) (global.get $models_write_batch_ok_length)))))",
        size = 3 * WRITE_BYTES,
        texts = texts.concat(),
        fault = pass_fault_on("models_write_batch"),
    );
    body.calling("models", "write-batch")
}

/// Answers what a pipeline makes of the documents of a model.
fn aggregate(model: &str, pipeline: &str) -> Body {
    let mut body = Body::default();
    let (model, pipeline) = (body.text(model), body.text(pipeline));
    body.wat = format!(
        "(local.set $k (call $allocate (global.get $models_aggregate_size)))
         (call $models_aggregate {model} {pipeline} (local.get $k))
         {fault}
         (call $answer
           (i32.load (i32.add (local.get $k) (global.get $models_aggregate_ok)))
           (i32.load (i32.add (local.get $k) (global.get $models_aggregate_ok_length))))",
        fault = pass_fault_on("models_aggregate"),
    );
    body.calling("models", "aggregate")
}

/// Puts address and length of a text somewhere behind the address in a variable.
fn store_text(body: &mut Body, base: &str, offset: usize, text: &str) -> String {
    body.text(text);
    let name = text_name(text);
    format!(
        "(i32.store offset={offset} (local.get {base}) (global.get {name}))
         (i32.store offset={length} (local.get {base}) (global.get {name}_length))\n",
        length = offset + 4
    )
}

/// A model that keeps what it hears: each event makes a document `{"of": key, "name": name}`. Endpoint `journals`.
///
/// About a document with `poison` in its id it traps, with `never` it refuses (`invalid`), with `spin` it does not end.
#[must_use]
pub fn journal(subscriptions: &[&str]) -> Guest {
    let subscriptions: Vec<_> = subscriptions.iter().map(|event| json!({ "event": event })).collect();
    journal_of(json!({
        "name": "journal", "endpoint": "journals", "version": "1.0.0", "subscriptions": subscriptions,
    }))
}

/// The same, of which this is said.
#[must_use]
pub fn journal_of(spec: Value) -> Guest {
    Guest::model(spec).function(
        "event-handlers",
        "on-event",
        trap()
            .when_holds("event_key", "poison")
            .then(refuse("invalid", "it does not want to hear of it").when_holds("event_key", "never"))
            .then(spin().when_holds("event_key", "spin"))
            .then(keep("journal")),
    )
}

/// Makes a document from the key and the name of an event.
fn keep(model: &str) -> Body {
    let mut body = Body::default();
    let model = body.text(model);
    let text = |body: &mut Body, text: &str| {
        body.text(text);
        let name = text_name(text);
        (format!("(global.get {name})"), format!("(global.get {name}_length)"))
    };
    let parameter = |name: &str| (format!("(local.get ${name})"), format!("(local.get ${name}_length)"));
    let parts = [
        text(&mut body, r#"{"of":""#),
        parameter("event_key"),
        text(&mut body, r#"","name":""#),
        parameter("event_name"),
        text(&mut body, r#""}"#),
    ];
    let parts: String = parts
        .iter()
        .map(|(at, length)| {
            format!(
                "(memory.copy (local.get $i) {at} {length})
                 (local.set $i (i32.add (local.get $i) {length}))\n"
            )
        })
        .collect();
    body.wat = format!(
        "(local.set $j (call $allocate (i32.add (i32.const 64)
           (i32.add (local.get $event_key_length) (local.get $event_name_length)))))
         (local.set $i (local.get $j))
         {parts}
         (local.set $k (call $allocate (global.get $models_write_size)))
         (call $models_write {model}
           (i32.const 0) (local.get $j) (i32.sub (local.get $i) (local.get $j))
           (i32.const 0) (i64.const 0) (i32.const 0) (i64.const 0)
           (local.get $k))
         {fault}
         (call $agree)",
        fault = pass_fault_on("models_write")
    );
    body.calling("models", "write")
}
