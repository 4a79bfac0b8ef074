//! Commands and routes that the operator takes out of service.

use std::process::Command;

use aegis_guests::{Guest, answer, respond, whole};
use aegis_harness::{App, Response, cluster::executable};
use serde_json::{Value, json};

use crate::access::{Guarded, refused, told};

fn letters() -> Guest {
    Guest::model(json!({
        "name": "letter", "endpoint": "letters", "version": "1.0.0",
        "fields": [{ "name": "text", "kind": "text" }],
        "commands": [{ "name": "decrypt", "allow": ["auditor"] }, { "name": "approve" }],
        "acl": [
            { "subject": "role", "name": "reader", "allow": ["read", "list-all"] },
            { "subject": "role", "name": "editor", "allow": ["create", "read", "list-all", "update"] },
        ],
    }))
    .info("letter", "1.0.0")
    .command("decrypt", answer(r#"{"text":"clear text"}"#))
    .command("approve", answer("true"))
}

/// The same with routes, one of which is where the host would answer with the document.
fn routed_letters() -> Guest {
    let get = |path: &str| json!({ "method": "get", "path": path });
    let told = || respond("(i32.const 200)", &[("content-type", "text/plain")], &whole("req_path"));
    letters()
        .route(get("/{id}/seal"), told())
        .route(get("/{id}"), told())
        .route(json!({ "method": "get", "path": "//post/hours", "public": true }), told())
}

fn app(letters: &Guest, disable: &Value) -> App {
    let terms = format!("[modules.letter]\ndisable = {disable}");
    App::default().component("letter", letters.build()).settings(&terms)
}

/// All of an answer that a client can tell two of them apart by, but for names.
fn shown(response: &Response) -> (u16, Value) {
    let mut body = response.json();
    if let Value::Object(members) = &mut body {
        members.retain(|name, _| name != "instance");
    }
    let text = body.to_string().replace("decrypt", "unknown").replace("/seal", "/unknown");
    (response.status, serde_json::from_str(&text).unwrap())
}

/// F32 of the original: without permission 403, with it the text, unknown and disabled 404.
#[test]
fn a_command_that_is_disabled_is_answered_as_one_that_is_unknown() {
    let host = Guarded::start(app(&letters(), &json!(["commands.decrypt"])));
    assert_eq!(host.holding(&["editor"]).post("letters", &json!({"id": "a"})).status, 201);
    for roles in [&["reader"][..], &["editor"], &["reader", "auditor"], &["editor", "auditor"]] {
        let client = host.holding(roles);
        let (disabled, unknown) =
            (client.get("letters/a?command=decrypt"), client.get("letters/a?command=unknown"));
        assert_eq!(shown(&disabled), shown(&unknown), "{roles:?}");
        let send = |method: &str, name: &str| {
            client.send(method, &format!("/aegis/api/models/letters/a/{name}"), b"{}")
        };
        for method in ["PATCH", "POST", "GET", "OPTIONS", "DELETE"] {
            let (disabled, unknown) = (send(method, "decrypt"), send(method, "unknown"));
            assert_eq!(disabled.status, unknown.status, "{method}");
            if !disabled.body.is_empty() {
                assert_eq!(shown(&disabled), shown(&unknown), "{roles:?} {method}");
            }
        }
    }
    let auditor = host.holding(&["editor", "auditor"]);
    assert_eq!(told(&auditor.get("letters/a?command=decrypt")), refused(404, "no-such-command"));
    assert_eq!(auditor.get("letters/a?command=approve").json(), true);

    let listed = host.cluster.admin_get("/aegis/api/config?details=commands&modelName=letter");
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let flags: Vec<_> =
        listed[0]["commands"].as_array().unwrap().iter().map(|one| &one["disabled"]).collect();
    assert_eq!(flags, [true, false], "{listed}");
}

#[test]
fn nothing_is_where_a_disabled_route_was_not_even_what_the_host_would_answer() {
    let disable = json!(["routes.GET /{id}", "routes.GET //post/hours", "routes.GET /{id}/seal"]);
    let host = Guarded::start(app(&routed_letters(), &disable));
    let editor = host.holding(&["editor"]);
    assert_eq!(editor.post("letters", &json!({"id": "a", "text": "x"})).status, 201);
    let send = |method: &str, path: &str| editor.send(method, path, b"");
    let letter = "/aegis/api/models/letters/a";
    for path in [letter, "/post/hours", "/aegis/api/models/letters/a/seal"] {
        assert_eq!(told(&send("GET", path)), refused(404, "no-such-route"), "{path}");
        assert_eq!(send("HEAD", path).status, 404, "{path}");
        assert_eq!(host.cluster.client().send("GET", path, b"").status, 401, "{path}");
    }
    // What others answer at the same paths is there as before.
    assert_eq!(editor.patch("letters/a", &json!({"text": "y"})).status, 200);
    assert_eq!(send("OPTIONS", letter).header("allow"), Some("PUT, PATCH, DELETE, OPTIONS"));
    assert_eq!(told(&send("POST", "/post/hours")), refused(404, "no-such-route"));
    assert_eq!(editor.get("letters?__select=text").json()[0]["text"], "y");

    let listed = host.cluster.admin_get("/aegis/api/config?details=routes&modelName=letter");
    assert_eq!(listed.matches(r#""disabled":true"#).count(), 3, "{listed}");
}

#[test]
fn a_reload_disables_and_enables_without_other_code() {
    let host = Guarded::start(app(&letters(), &json!([])));
    let auditor = host.holding(&["editor", "auditor"]);
    assert_eq!(auditor.post("letters", &json!({"id": "a"})).status, 201);
    let status = || auditor.get("letters/a?command=decrypt").status;
    assert_eq!(status(), 200);
    let path = host.cluster.folder().join("aegis.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    for (disable, expected) in [("[\"commands.decrypt\"]", 404), ("[]", 200)] {
        std::fs::write(&path, text.replace("disable = []", &format!("disable = {disable}"))).unwrap();
        host.cluster.aegis_ok(&["reload"]);
        aegis_harness::eventually("it is in force", std::time::Duration::from_secs(20), || {
            (0..8).all(|_| status() == expected)
        });
    }
}

#[test]
fn a_check_tells_what_is_disabled_and_names_that_are_not_there() {
    let check = |disable: &Value| {
        let folder = tempfile::tempdir().unwrap();
        // Nobody is asked who calls: what is for some has to be out of service.
        let open = Guest::model(json!({
            "name": "letter", "endpoint": "letters", "version": "1.0.0",
            "commands": [{ "name": "decrypt", "allow": ["auditor"] }, { "name": "approve" }],
        }));
        let open = open.command("decrypt", answer("1")).command("approve", answer("true"));
        let terms = format!("[modules.letter]\ndisable = {disable}");
        App::default().component("letter", open.build()).settings(&terms).write(folder.path());
        let checked = Command::new(executable()).arg("check").arg(folder.path()).output().unwrap();
        let text = String::from_utf8_lossy(&checked.stderr).into_owned();
        (checked.status.success(), text + &String::from_utf8_lossy(&checked.stdout))
    };
    let (is_fine, text) = check(&json!(["commands.decrypt"]));
    assert!(is_fine && text.contains("disabled   commands.decrypt"), "{text}");
    let (is_fine, text) = check(&json!(["commands.approve"]));
    assert!(!is_fine && text.contains("commands.decrypt.allow"), "{text}");
    let (is_fine, text) = check(&json!(["commands.decrpyt", "routes.GET /"]));
    let expected = "aegis.toml: modules.letter.disable: found \"commands.decrpyt\" (did you mean \"commands.decrypt\"?), expected one of commands.decrypt, commands.approve";
    assert!(!is_fine && text.contains(expected) && text.contains("found \"routes.GET /\""), "{text}");
}
