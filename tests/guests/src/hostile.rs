//! Modules that do not behave. None of them may cost their host more than a refusal or an instance.

use serde_json::{Value, json};

use crate::{
    body::{Body, answer, grow_politely, grow_rudely, log, recurse, refuse, spin, trap},
    bombs::{a_gigabyte_declared, many_locals},
    guest::Guest,
};

/// A component that must not be loaded.
#[derive(Debug)]
pub struct Hostile {
    /// What is wrong with it.
    pub name: &'static str,
    /// The component, or what pretends to be one.
    pub bytes: Vec<u8>,
}

/// A model without anything.
fn bare(more: Value) -> Guest {
    let mut spec = json!({ "name": "hostile", "endpoint": "hostiles", "version": "1.0.0" });
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    Guest::model(spec)
}

/// The smallest valid component: nothing.
#[must_use]
pub fn empty_component() -> Vec<u8> {
    text("(component)")
}

/// A core module, not a component.
#[must_use]
pub fn core_module() -> Vec<u8> {
    text("(module (memory (export \"memory\") 1))")
}

/// A component with more core modules than any language needs.
#[must_use]
pub fn five_thousand_core_modules() -> Vec<u8> {
    text(&format!("(component {})", "(core module)".repeat(5_000)))
}

/// A component in a component in a component, so deep.
#[must_use]
pub fn nested_components(depth: usize) -> Vec<u8> {
    text(&format!("{}{}", "(component ".repeat(depth), ")".repeat(depth)))
}

fn text(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap_or_else(|error| panic!("{error}"))
}

/// Every component that is to be refused before anything of it is published.
#[must_use]
pub fn refused() -> Vec<Hostile> {
    let mut all = Vec::new();
    let mut add = |name, guest: Guest| all.push(Hostile { name, bytes: guest.build() });
    add_defects_of_code(&mut add);
    add_defects_of_contract(&mut add);
    add_defects_of_specification(&mut add);
    add_defects_of_rules(&mut add);
    all.push(Hostile { name: "nothing in it", bytes: empty_component() });
    all.push(Hostile { name: "a core module", bytes: core_module() });
    all.push(Hostile { name: "5000 core modules", bytes: five_thousand_core_modules() });
    let tables = "(table 10 funcref)".repeat(10_000);
    let bytes = text(&format!("(component (core module {tables}))"));
    all.push(Hostile { name: "10000 tables", bytes });
    all.push(Hostile { name: "nested 100 deep", bytes: nested_components(100) });
    all.push(Hostile { name: "a gigabyte of data, declared", bytes: a_gigabyte_declared() });
    let bytes = many_locals(1_000_000).unchecked().build();
    all.push(Hostile { name: "a million local variables", bytes });
    all
}

fn add_defects_of_code(add: &mut dyn FnMut(&'static str, Guest)) {
    add("start traps", bare(json!({})).start(trap()));
    add("start spins", bare(json!({})).start(spin()));
    add("describe traps", bare(json!({})).describe(trap()));
    add("describe spins", bare(json!({})).describe(spin()));
    add("describe recurses", bare(json!({})).describe(recurse()));
    add("describe wants all memory", bare(json!({})).describe(grow_rudely()));
    add("describe answers an address outside", bare(json!({})).describe("(i32.const 0x7ffffff0)"));
    add("describe answers an address that is not aligned", bare(json!({})).describe("(i32.const 65)"));
    add("a description of 10 MB", bare(json!({ "description": "x".repeat(10_000_000) })));
    let fields: Vec<Value> = (0..100_000).map(|number| json!({ "name": format!("f{number}") })).collect();
    add("100000 fields", bare(json!({ "fields": fields })));
    add("declares 3.9 GB of memory", bare(json!({})).memory_pages(59_510));
    add("a table of 10 million elements", bare(json!({})).item("(table $large 10000000 funcref)"));
}

fn add_defects_of_contract(add: &mut dyn FnMut(&'static str, Guest)) {
    let hammer = "package acme:tools@1.0.0; interface hammer { hit: func(); }";
    add("an unknown import", bare(json!({})).package(hammer).import("acme:tools/hammer@1.0.0", "hit"));
    add("another major version", bare(json!({})).contract_version("2.0.0").import("log", "enabled"));
    let newer = bare(json!({}))
        .contract_version("1.1.0")
        .contract_changed("enabled: func(level: level) -> bool;", "flush: func() -> bool;")
        .import("log", "flush");
    add("a newer minor version with one more function", newer);
    let other = bare(json!({}))
        .contract_changed("enabled: func(level: level) -> bool;", "enabled: func(level: u32) -> bool;")
        .import("log", "enabled");
    add("a wrong signature of an import", other);
    let other = bare(json!({})).contract_changed("preload: u32,", "preload: u64,");
    add("a wrong record in its description", other);
    let other = bare(json!({})).contract_changed("input: string)", "input: list<u8>)").export("hooks");
    add("a wrong signature of a hook", other);
    add("no describe-model", bare(json!({})).without("describe-model"));
    add("no identity", bare(json!({})).without("identity"));
    add("hooks without export", bare(json!({ "hooks": ["on-create"] })));
    add(
        "on-load without the export that has it",
        bare(json!({ "hooks": ["on-load"] })).export("document-hooks"),
    );
    add("commands without export", bare(json!({ "commands": [{ "name": "go" }] })));
}

fn add_defects_of_specification(add: &mut dyn FnMut(&'static str, Guest)) {
    let unserved = json!({
        "ports": [{ "name": "pay", "direction": "outbound", "timeout-ms": 1000 }],
        "relations": [{ "name": "customer", "model": "customer", "foreign-key": "customer" }],
        "acl": [
            { "subject": "model", "name": "order", "allow": ["read"] },
            { "subject": "claim", "name": "sales", "allow": ["decrypt"], "deny": ["subscribe"], "fields": ["a"] },
        ],
        "serializers": [{ "target": "network", "key": "*", "action": "drop" }],
        "subscriptions": [{ "event": "order.*" }],
        "extensions": [{ "key": "soon!", "value": "1" }, { "key": "perhaps", "value": "1" }],
    });
    add("what is not served yet", bare(unserved));
    add("no name", bare(json!({ "name": "" })));
    add("a name with a path", bare(json!({ "name": "../x" })));
    add("an endpoint with a path", bare(json!({ "endpoint": "../../etc" })));
    add("no name of its own", bare(json!({})).info("", ""));
    let twice = json!({ "fields": [{ "name": "a" }, { "name": "a" }], "commands": [{ "name": "go" }, { "name": "go" }] });
    add("names twice", bare(twice).export("commands"));
    let commands =
        json!({ "commands": [{ "name": "service" }, { "name": "a/b" }, { "name": "", "allow": [""] }] });
    add("bad names of commands", bare(commands).export("commands"));
    let rules = json!({
        "fields": [{ "name": "a", "rules": ["encrypted", "hidden", "read-only"] }],
        "datasource": { "name": "postgres", "write-behind": true },
    });
    add("rules that are not kept", bare(rules));
    let texts = json!({ "schema": "{", "fields": [{ "name": "a", "default-value": "x", "schema": "[" }, { "name": "b", "default-value": "{\"x\":1,\"x\":2}" }] });
    add("JSON that is none", bare(texts));
    let deep = "[".repeat(64) + &"]".repeat(64);
    add(
        "a default too deep to be read again",
        bare(json!({ "fields": [{ "name": "a", "kind": "any", "default-value": deep }] })),
    );
    add("a schema that is none", bare(json!({ "schema": "{\"type\": 7}" })));
    let mixins = json!({
        "fields": [{ "name": "a" }],
        "mixins": [
            { "name": "hash", "options": "{}" },
            { "name": "require", "options": "{}" },
            { "name": "require", "options": "{\"fields\":[\"b\"]}" },
            { "name": "pattern", "options": "{\"fields\":[\"a\"],\"pattern\":\"(\"}" },
            { "name": "pattern", "options": "{\"fields\":[\"a\"],\"pattern\":7}" },
            { "name": "range", "options": "{\"fields\":[\"a\"],\"min\":\"1\",\"max\":true}" },
        ],
    });
    add("bad mixins", bare(mixins));
    let routes = [
        "label",
        "/../customers",
        "/{id}/./label",
        "/a//b",
        "/%2e%2e/x",
        "/{a}/{a}",
        "//",
        "//{any}/x",
        "//livez",
        "//metrics/x",
        "/service/x",
        "/{id}/twice",
        "/{key}/twice",
    ];
    let routes: Vec<Value> =
        routes.iter().map(|path| json!({ "method": "get", "path": path, "allow": [] })).collect();
    add("bad routes", bare(json!({ "routes": routes })).export("routes"));
    let routes =
        json!([{ "method": "get", "path": "/a", "public": true, "allow": ["admin"], "openapi": "{" }]);
    add("routes with roles and without JSON", bare(json!({ "routes": routes })).export("routes"));
    add("routes without export", bare(json!({ "routes": [{ "method": "get", "path": "/a" }] })));
}

fn add_defects_of_rules(add: &mut dyn FnMut(&'static str, Guest)) {
    let of_some = json!({
        "fields": [{ "name": "a" }],
        "mixins": [
            { "name": "require", "on": ["on-create"], "options": "{\"fields\":[\"a\"]}" },
            { "name": "unique", "on": ["validate", "on-delete"], "options": "{\"fields\":[\"a\"]}" },
            { "name": "freeze", "on": ["on-update"], "options": "{\"fields\":[\"a\"]}" },
            { "name": "require", "on": ["on-create", "on-update"], "options": "{\"fields\":[\"a\"]}" },
        ],
        "datasource": { "name": "file", "options": "{\"replicas\":3}" },
    });
    add("rules of some moments, and options", bare(of_some));
    let lost = json!({
        "fields": [{ "name": "a" }],
        "mixins": [
            { "name": "range", "options": "{\"fields\":[\"a\"],\"minimum\":1}" },
            { "name": "default", "options": "{\"fields\":[\"a\"]}" },
            { "name": "require", "options": "{\"fields\":[\"a\"],\"unless\":\"b\"}" },
            { "name": "pattern", "options": "{\"fields\":[\"a\"],\"pattern\":\"[a-z]\"}" },
            { "name": "pattern", "options": "{\"fields\":[\"a\"],\"pattern\":\"[0-9]\"}" },
        ],
    });
    add("rules that would be lost", bare(lost));
}

/// A model that can be loaded and then does every wrong thing: as a command of that name, and in `on-create` when the
/// document has the name in quotes (`{"do":"trap"}`). Endpoint `unrulies`; without a name `on-create` answers its input.
///
/// `trap`, `divide`, `bad-call`, `spin`, `spin-calling`, `fill`, `recurse`, `memory`, `memory-rude`, `table`, `huge`,
/// `not-json`, `not-utf8`, `outside`, `not-a-tag`, `log-bomb`, `random-bomb`, and the well-behaved `fine` and `refuse`.
#[must_use]
pub fn unruly() -> Guest {
    let deeds = [
        ("fine", answer("{\"fine\":true}")),
        ("refuse", refuse("conflict", "it does not want to")),
        ("trap", trap()),
        ("divide", "(i32.div_u (i32.const 1) (local.get $i))".into()),
        ("bad-call", "(call_indirect $calls (result i32) (i32.const 3))".into()),
        ("spin", spin()),
        ("spin-calling", spin_calling()),
        ("fill", fill()),
        ("recurse", recurse()),
        ("memory", grow_politely()),
        ("memory-rude", grow_rudely()),
        ("table", table_bomb()),
        ("huge", huge()),
        ("not-json", answer("{\"a\":")),
        ("not-utf8", "(i32.store8 (global.get $heap) (i32.const 0xff)) (call $answer (global.get $heap) (i32.const 1))".into()),
        ("outside", "(call $answer (i32.const 0x7ffffff0) (i32.const 100))".into()),
        ("not-a-tag", "(i32.store8 (global.get $heap) (i32.const 9)) (global.get $heap)".into()),
        ("log-bomb", log_bomb()),
        ("random-bomb", random_bomb()),
    ];
    let mut guest = bare(json!({ "name": "unruly", "endpoint": "unrulies" }))
        .item("(table $calls 4 funcref) (table $bomb 1 funcref)");
    let mut create = Body::default();
    for (name, deed) in deeds {
        create = create.then(deed.clone().when_holds("input", &format!("\"{name}\"")));
        guest = guest.command(name, deed);
    }
    guest.hook("on-create", create.then(crate::body::echo("input")))
}

/// Asks the clock for ever.
fn spin_calling() -> Body {
    Body::from("(loop $again (drop (call $clock_monotonic_ns)) (br $again)) unreachable")
        .calling("clock", "monotonic-ns")
}

/// Fills 32 MiB for ever: few instructions, much work in each.
fn fill() -> Body {
    "(drop (memory.grow (i32.const 512)))
     (loop $again (memory.fill (global.get $heap) (i32.const 1) (i32.const 0x2000000)) (br $again))
     unreachable"
        .into()
}

/// Enlarges a table until it may not, and beyond.
fn table_bomb() -> Body {
    Body::from(
        "(loop $again (br_if $again (i32.ne (i32.const -1)
           (table.grow $bomb (ref.null func) (i32.const 10000)))))",
    )
    .then(answer("{\"elements\":0}"))
}

/// Answers 32 MiB.
fn huge() -> Body {
    "(drop (memory.grow (i32.const 513))) (call $answer (global.get $heap) (i32.const 0x2000000))".into()
}

/// Logs a gigabyte, 8 KiB with each line, and answers.
fn log_bomb() -> Body {
    let mut body = Body::from("(local.set $i (i32.const 131072)) (loop $again");
    body = body.then(log(&"x".repeat(8_192)));
    body.then("(local.set $i (i32.sub (local.get $i) (i32.const 1))) (br_if $again (local.get $i)))")
        .then(answer("{\"logged\":true}"))
}

/// Asks for a gigabyte of random bytes.
fn random_bomb() -> Body {
    Body::from("(call $random_bytes (i32.const 0x40000000) (global.get $heap))")
        .calling("random", "bytes")
        .then(answer("null"))
}
