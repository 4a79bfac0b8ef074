//! Rules of access that authors say in three languages: the same of each, and kept by the host alike.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use aegis_harness::{App, words};
use serde_json::{Value, json};

use crate::access::Guarded;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A host that asks who calls, with the letters in one language.
fn host(language: &str) -> Guarded {
    let path = repository().join("tests/guests/letter/components").join(format!("{language}.wasm"));
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // How long an interpreter takes to begin is not what this is about.
    let terms = "[modules.letter]\nlimits = { deadline = \"10s\" }";
    Guarded::start(App::default().component("letter", bytes).settings(terms))
}

/// Requests of callers with these roles, and what each is answered.
fn session() -> Vec<(&'static [&'static str], &'static str, &'static str, u16)> {
    vec![
        (&["editor"], "POST", "letters", 201),
        (&["reader"], "POST", "letters", 403),
        (&["reader"], "GET", "letters", 200),
        (&[], "GET", "letters", 403),
        (&[], "GET", "letters/a", 200),
        (&["former"], "GET", "letters/a", 403),
        (&["editor", "former"], "PATCH", "letters/a", 403),
        (&["editor"], "PATCH", "letters/a", 200),
        (&["editor"], "GET", "letters/a?command=decrypt", 403),
        (&["auditor"], "GET", "letters/a?command=decrypt", 200),
        (&["decrypt"], "POST", "letters/a/decrypt", 200),
        (&["auditor", "former"], "GET", "letters/a?command=decrypt", 403),
        (&["reader"], "GET", "letters/a?command=who", 403),
        (&["editor"], "GET", "letters/a?command=who", 200),
        (&["editor"], "GET", "letters/a/seal", 403),
        (&["auditor"], "GET", "letters/a/seal", 200),
        (&[], "GET", "/post/desk", 200),
        (&["former"], "GET", "/post/desk", 403),
        (&["former"], "GET", "/post/hours", 200),
        (&["editor"], "DELETE", "letters/a", 403),
    ]
}

fn check_rules(language: &str) {
    let host = host(language);
    for (roles, method, path, status) in session() {
        let target =
            if path.starts_with('/') { path.to_owned() } else { format!("/aegis/api/models/{path}") };
        let body = if matches!(method, "GET" | "DELETE") { "" } else { r#"{"id":"a","text":"clear"}"# };
        let answer = host.holding(roles).send(method, &target, body.as_bytes());
        assert_eq!(answer.status, status, "{roles:?} {method} {path}: {}", answer.text());
    }

    // Nobody in particular: what is public, and nothing else.
    let nobody = host.cluster.client();
    assert_eq!(nobody.send("GET", "/post/hours", b"").text(), "nine to five");
    for path in ["/post/desk", "/aegis/api/models/letters/a", "/aegis/api/models/letters/a/seal"] {
        assert_eq!(nobody.send("GET", path, b"").status, 401, "{path}");
    }

    // What code learns of the caller, and what a claim is good for.
    let claims = json!({"sub": "bob", "team": "post", "roles": ["editor"], "exp": 4_000_000_000_u64});
    let bob = host.cluster.client().with("authorization", &host.issuer.sign(&claims));
    let who = json!({"subject": "bob", "roles": ["editor"], "team": "post"});
    assert_eq!(bob.get("letters/a?command=who").json(), who);
    assert_eq!(bob.delete("letters/a").status, 200);

    let config = host.cluster.admin_get("/aegis/api/config?details=commands&modelName=letter");
    let listed: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(listed[0]["commands"][0]["allow"], json!(["decrypt", "auditor"]), "{listed}");
}

macro_rules! languages {
    ($($language:ident),*) => {$(
        mod $language {
            #[test]
            #[ignore = "scripts/guests builds the module first"]
            fn what_a_model_says_of_its_callers_is_kept() {
                super::check_rules(stringify!($language));
            }
        }
    )*};
}

languages!(rust, javascript, python);

/// Builds a module of which nothing can come, and what was said about it.
fn refused(file: &str, source: &str, build: impl Fn(&Path, &Path) -> Output) -> String {
    let place = tempfile::tempdir().unwrap();
    let (path, made) = (place.path().join(file), place.path().join("made.wasm"));
    fs::write(&path, source).unwrap();
    let output = build(&path, &made);
    assert!(!output.status.success() && !made.exists(), "{source} was built");
    words(&output)
}

fn build_in_javascript(source: &Path, made: &Path) -> Output {
    let program = repository().join("sdk/js/build.mjs");
    Command::new("node").arg(program).arg(source).arg(made).output().unwrap()
}

#[test]
#[ignore = "scripts/guests brings what builds modules in JavaScript"]
fn a_rule_that_is_misspelt_is_not_built_in_javascript() {
    for (said, expected) in [
        (
            r#"acl: [{ subject: "anyone", deny: ["delte"] }]"#,
            r#"acl.0.deny: found "delte", expected one of create, read, list-all"#,
        ),
        (
            r#"acl: [{ subject: "anyone", fields: ["a"], allow: ["read"] }]"#,
            r#"acl.0: found "fields", expected one of subject, name, allow, deny"#,
        ),
        (
            r#"acl: [{ subject: "role", allow: ["read"] }]"#,
            "acl.0.name: found undefined, expected the name of the role",
        ),
        (
            r#"commands: { open: { allow: "auditor", run: () => 1 } }"#,
            r#"commands.open.allow: found "auditor", expected a list of texts"#,
        ),
        (r#"hook: {}"#, r#"model: found "hook", expected one of name, endpoint"#),
        (
            r#"hooks: { delete: () => {} }"#,
            r#"hooks: found "delete", expected one of create, validate, update, remove, load"#,
        ),
        (
            r#"fields: { a: { required: true } }"#,
            r#"fields.a: found "required", expected one of kind, rules, default, schema"#,
        ),
        (r#"fields: { a: "text" }"#, r#"fields.a: found "text", expected an object of kind, rules"#),
        (r#"fields: { a: { kind: "string" } }"#, r#"fields.a.kind: found "string", expected one of text"#),
        (
            r#"fields: { a: { rules: ["require"] } }"#,
            r#"fields.a.rules: found "require", expected one of required, unique"#,
        ),
        (
            r#"commands: { open: { save: true, run: () => 1 } }"#,
            r#"commands.open: found "save", expected one of description, allow"#,
        ),
        (
            r#"routes: { "GET /a": { roles: ["auditor"], run: () => {} } }"#,
            r#"routes.GET /a: found "roles", expected one of public, allow"#,
        ),
        (
            r#"mixins: [{ name: "range", fields: ["a"], minimum: 1 }]"#,
            r#"mixins.0: found "minimum", expected one of name, fields"#,
        ),
        (
            r#"mixins: [{ name: "hash", fields: ["a"] }]"#,
            r#"mixins.0.name: found "hash", expected one of require"#,
        ),
        (
            r#"datasource: { kind: "memory" }"#,
            r#"datasource: found "kind", expected one of name, cacheEntries"#,
        ),
        (r#"handover: { load: () => {} }"#, r#"handover: found "load", expected one of save, restore"#),
        (r#"handover: { save: () => 1 }"#, r#"handover: found only save, expected save and restore"#),
    ] {
        assert_not_built_in_javascript(said, expected);
    }
}

#[test]
#[ignore = "scripts/guests brings what builds modules in JavaScript"]
fn what_is_no_function_is_not_built_in_javascript() {
    for (said, expected) in [
        ("hooks: { create: \"yes\" }", "hooks.create: found \"yes\", expected a function"),
        ("commands: { seal: {} }", "commands.seal.run: found undefined, expected a function"),
        (
            r#"routes: { "GET /a": { public: true } }"#,
            "routes.GET /a.run: found undefined, expected a function",
        ),
        (r#"events: { "CREATE*": {} }"#, "events.CREATE*: found {}, expected a function"),
        ("health: 7", "health: found 7, expected a function"),
        ("handover: { save: 1, restore: 2 }", "handover.save: found 1, expected a function"),
    ] {
        assert_not_built_in_javascript(said, expected);
    }
}

/// A model that says this is refused with these words.
fn assert_not_built_in_javascript(said: &str, expected: &str) {
    let source = format!(
        "import {{ model }} from \"aegis-module\";\nexport const {{ identity, describeModel, commands }} = model({{ name: \"letter\", {said} }});\n"
    );
    let told = refused("letter.mjs", &source, build_in_javascript);
    assert!(told.contains(expected), "{told}");
}

#[test]
#[ignore = "scripts/guests brings what builds modules in JavaScript"]
fn what_is_no_module_is_not_built_in_javascript() {
    for (source, expected) in [
        ("export const x = 1;", "letter.mjs: found the exports x, expected identity and describeModel"),
        ("const x = 1;", "letter.mjs: found the exports none, expected identity and describeModel"),
        ("import fs from \"node:fs\";\nexport const identity = fs;", "Could not resolve \"node:fs\""),
        (
            "import { model, now } from \"aegis-module\";\nexport const { identity, describeModel } = model({ name: \"a\" }), t = now();",
            "letter.mjs: called \"now\" of the host while the module is built, expected it inside of functions",
        ),
        (
            "let x;\nexport const identity = x.y, describeModel = 1;",
            "letter.mjs: cannot read property 'y' of undefined",
        ),
    ] {
        let told = refused("letter.mjs", source, build_in_javascript);
        assert!(told.contains(expected) && !told.contains("node:internal"), "{told}");
    }
}

#[test]
#[ignore = "scripts/guests brings what builds modules in JavaScript"]
fn what_is_said_wrongly_in_javascript_is_no_yes() {
    let place = tempfile::tempdir().unwrap();
    let (source, made) = (place.path().join("letter.mjs"), place.path().join("letter.wasm"));
    let said = r#"
        import { documents, http, metrics, model, randomBytes, refuse } from "aegis-module";
        const command = (run) => ({ run });
        export const { identity, describeModel, hooks, commands } = model({
            name: "letter",
            hooks: { validate: () => refuse("invalid", "it is not signed") },
            commands: {
                both: command(() => documents.writeAll("letter", [{ remove: "a", create: {} }])),
                misspelt: command(() => documents.writeAll("letter", [{ id: "a", patch: {}, revison: 1 }])),
                filter: command(() => documents.search("letter", { fliter: {} })),
                nobody: command(({ id }) => documents.find("letter", id)),
                request: command(() => http.send({ url: "http://a", metod: "POST" })),
                speechless: command(() => refuse("conflict")),
                counted: command(() => metrics.add("letters", "many")),
                limit: command(() => documents.search("letter", { limit: "10" })),
                revision: command(() => documents.remove("letter", "a", 1.5)),
                chance: command(() => randomBytes(-1)),
            },
        });
    "#;
    fs::write(&source, said).unwrap();
    let built = build_in_javascript(&source, &made);
    assert!(built.status.success(), "{}", words(&built));
    let called = |name: &str, more: &[&str]| {
        let mut command = Command::new(aegis_harness::cluster::executable());
        let output = command.arg("run-command").arg(&made).arg(name).args(more).output().unwrap();
        assert!(!output.status.success(), "{name}: {output:?}");
        words(&output)
    };
    let refused = called("validate", &["--input", "{}"]);
    assert!(refused.contains("it is not signed"), "{refused}");
    for (name, expected) in [
        ("both", "found a write with remove,create, expected one of create, patch, replace, remove"),
        ("misspelt", r#"a write: found "revison", expected one of create, patch"#),
        ("filter", r#"search: found "fliter", expected one of filter, sort"#),
        ("nobody", "find: id: found undefined, expected a text"),
        ("request", r#"a request: found "metod", expected one of method, url"#),
        ("speechless", "found undefined, expected a text that says why"),
        ("counted", r#"add: found "many", expected a number"#),
        ("limit", r#"search: limit: found "10", expected a whole number from 0 on"#),
        ("revision", "a write: revision: found 1.5, expected a whole number from 0 on"),
        ("chance", "randomBytes: found -1, expected a whole number from 0 on"),
    ] {
        let told = called(name, &[]);
        assert!(told.contains(expected), "{name}: {told}");
    }
}

#[test]
#[ignore = "scripts/guests brings what builds modules in Python"]
fn a_rule_that_is_misspelt_is_not_built_in_python() {
    let build = |source: &Path, made: &Path| {
        let program = repository().join("sdk/python/build.py");
        Command::new("python3").arg(program).arg(source).arg(made).output().unwrap()
    };
    for (said, expected) in [
        (
            "Model('letter', acl=[Rule.anyone(deny=['delte'])])",
            "found the right 'delte', expected one of create, read, list-all",
        ),
        (
            "Model('letter').command(allow='auditor')(print)",
            "found 'auditor' for the command print, expected a list of texts",
        ),
    ] {
        let told = refused("letter.py", &format!("from aegis_module import Model, Rule\n{said}\n"), build);
        assert!(told.contains(expected), "{told}");
    }
}
