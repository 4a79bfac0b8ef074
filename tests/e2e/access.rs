//! Who may do what: tokens at the door, rules of models, commands for some.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use aegis_guests::{Guest, answer, splice};
use aegis_harness::{
    App, Cluster, Issuer, QUICK, Start, client::Client, cluster::executable, eventually, http, load::Plan,
    words,
};
use serde_json::{Value, json};

/// A model whose documents readers see and editors change; `decrypt` is for those who are named.
fn letters(commands: &Value) -> Guest {
    let spec = json!({
        "name": "letter", "endpoint": "letters", "version": "1.0.0",
        "fields": [{ "name": "text", "kind": "text" }],
        "commands": commands,
        "acl": [
            { "subject": "role", "name": "reader", "allow": ["read", "list-all"] },
            { "subject": "role", "name": "editor", "allow": ["create", "read", "list-all", "update"] },
            { "subject": "role", "name": "writer", "allow": ["create", "update"] },
            { "subject": "claim", "name": "team=post", "allow": ["delete"] },
            { "subject": "role", "name": "former", "deny": ["create", "read", "update", "delete", "command"] },
        ],
    });
    Guest::model(spec)
        .info("letter", "1.0.0")
        .command("decrypt", answer(r#"{"text":"clear text"}"#))
        .command("approve", splice("target_data", r#""status":"APPROVED""#))
}

fn commands() -> Value {
    json!([
        { "name": "decrypt", "allow": ["decrypt", "auditor"] },
        { "name": "approve", "saves": true },
    ])
}

/// A host that asks for tokens, and who signs them.
pub(crate) struct Guarded {
    pub(crate) cluster: Cluster,
    pub(crate) issuer: Issuer,
    secret: PathBuf,
    _outside: tempfile::TempDir,
}

impl Guarded {
    pub(crate) fn start(app: App) -> Self {
        let outside = tempfile::tempdir().unwrap();
        let (secret, issuer) = (outside.path().join("secret"), Issuer::new("first"));
        issuer.write_secret(&secret);
        let settings = format!("{QUICK}[auth]\nsecret-file = \"{}\"\n", secret.display());
        let cluster = Start::app(app.settings(&settings)).workers(2).compiled_first().start();
        Self { cluster, issuer, secret, _outside: outside }
    }

    fn letters() -> Self {
        Self::start(App::todo().component("letter", letters(&commands()).build()))
    }

    pub(crate) fn holding(&self, roles: &[&str]) -> Client {
        self.cluster.client().with("authorization", &self.issuer.bearer("ada", roles))
    }
}

/// Status and code of what was refused.
pub(crate) fn told(response: &http::Response) -> (u16, String) {
    (response.status, response.json()["code"].as_str().unwrap_or_default().to_owned())
}

pub(crate) fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[test]
fn a_command_that_names_roles_is_for_these_and_another_is_for_whoever_may_update() {
    let host = Guarded::letters();
    let editor = host.holding(&["editor"]);
    assert_eq!(editor.post("letters", &json!({"id": "a", "text": "x"})).status, 201);

    let reader = host.holding(&["reader"]);
    assert_eq!(told(&reader.get("letters/a?command=decrypt")), refused(403, "forbidden"));
    assert_eq!(told(&reader.patch("letters/a/decrypt", &json!({}))), refused(403, "forbidden"));
    assert_eq!(told(&editor.get("letters/a?command=decrypt")), refused(403, "forbidden"));
    let holder = host.holding(&["reader", "decrypt"]).get("letters/a?command=decrypt");
    assert_eq!((holder.status, &holder.json()["text"]), (200, &json!("clear text")));
    let former = host.holding(&["decrypt", "former"]);
    assert_eq!(told(&former.get("letters/a?command=decrypt")), refused(403, "forbidden"), "deny wins");

    assert_eq!(told(&reader.patch("letters/a/approve", &json!({}))), refused(403, "forbidden"));
    assert_eq!(told(&reader.get("letters/a?command=approve")), refused(403, "forbidden"));
    let approved = editor.patch("letters/a/approve", &json!({}));
    assert_eq!(
        (approved.status, &approved.json()["status"]),
        (200, &json!("APPROVED")),
        "{}",
        approved.text()
    );
    assert_eq!(reader.get("letters/a").json()["status"], "APPROVED");

    assert_eq!(told(&editor.patch("letters/a/none", &json!({}))), refused(404, "no-such-command"));
    assert_eq!(told(&editor.get("letters/a?command=none")), refused(404, "no-such-command"));
    let listed: Value =
        serde_json::from_str(&host.cluster.admin_get("/aegis/api/config?details=commands&modelName=letter"))
            .unwrap();
    assert_eq!(listed[0]["commands"][0]["allow"], json!(["decrypt", "auditor"]), "{listed}");
}

#[test]
fn a_command_that_its_module_no_longer_has_is_not_there() {
    let host = Guarded::letters();
    let auditor = host.holding(&["editor", "auditor"]);
    assert_eq!(auditor.post("letters", &json!({"id": "a"})).status, 201);
    assert_eq!(auditor.get("letters/a?command=decrypt").status, 200);
    let without = letters(&json!([{ "name": "approve", "saves": true }])).build();
    aegis_harness::app::write_component(host.cluster.folder(), "letter", &without);
    host.cluster.aegis_ok(&["reload"]);
    eventually("the command is gone", Duration::from_secs(10), || {
        told(&auditor.get("letters/a?command=decrypt")) == refused(404, "no-such-command")
    });
}

#[test]
fn rules_decide_about_documents_lists_batches_and_events() {
    let host = Guarded::letters();
    let (editor, reader) = (host.holding(&["editor"]), host.holding(&["reader"]));
    let batch = json!([{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]);
    assert_eq!(told(&reader.post("letters", &batch)), refused(403, "forbidden"));
    assert_eq!(editor.post("letters", &batch).status, 201);
    assert_eq!(reader.get("letters").json().as_array().unwrap().len(), 2);
    assert_eq!(reader.get("letters?__count=all").status, 200);
    assert_eq!(reader.get("letters/a").status, 200);
    for refusal in [
        reader.put("letters/a", &json!({"text": "z"})),
        reader.patch("letters/a", &json!({"text": "z"})),
        reader.delete("letters/a"),
        editor.delete("letters/a"),
        host.holding(&[]).get("letters"),
        host.holding(&[]).get("letters/a"),
        host.holding(&[]).get("letters?__count=all"),
        host.holding(&["editor", "former"]).get("letters"),
        host.holding(&[]).send("GET", "/aegis/api/events?model=letter", b""),
    ] {
        assert_eq!(told(&refusal), refused(403, "forbidden"), "{}", refusal.text());
    }
    let creates =
        |client: Client| client.with("if-none-match", "*").put("letters/new", &json!({"text": "n"}));
    assert_eq!(told(&creates(reader)), refused(403, "forbidden"));
    assert_eq!(creates(host.holding(&["writer"])).status, 201);

    // Who may write and not read gets no document from a write.
    let writer = host.holding(&["writer"]);
    let whole = writer.with("prefer", "return=representation");
    let written = whole.patch("letters/a", &json!({"text": "w"}));
    assert_eq!(written.header("preference-applied"), None);
    assert_eq!((written.status, written.json()), (200, json!({"status": "ok", "modelId": "a"})));
    let patch = json!([{"op": "test", "path": "/text", "value": 0}]).to_string();
    let tests = |client: &Client| {
        let typed = client.with("content-type", "application/json-patch+json");
        typed.send("PATCH", "/aegis/api/models/letters/a", patch.as_bytes())
    };
    assert_eq!(told(&tests(&writer)), refused(403, "forbidden"), "it would tell what is there");
    assert_eq!(tests(&host.holding(&["editor"])).status, 409);
    let post = json!({"sub": "bob", "team": ["post", "desk"], "exp": 4_000_000_000_u64});
    let removed = host.cluster.client().with("authorization", &host.issuer.sign(&post)).delete("letters/a");
    assert_eq!((removed.status, removed.json()), (200, json!({"status": "ok", "modelId": "a"})));
    // A model without rules is for everybody who is known.
    assert_eq!(host.holding(&[]).post("todo", &json!({"text": "x"})).status, 201);
    let log = host.cluster.log();
    let line = log.lines().find(|line| line.contains("refused: no rule allows it")).unwrap();
    assert!(line.contains("\"ada\"") && line.contains("LETTER"), "{line}");
}

#[test]
fn what_is_stored_is_not_told_to_whoever_may_write_and_not_read() {
    let note = |more: &str| {
        format!(
            "name = \"note\"\n[fields]\nplace = {{ kind = \"text\", max = 9 }}\nword = {{ kind = \"text\" {more} }}\n\
             [[acl]]\nsubject = \"role\"\nname = \"writer\"\nallow = [\"create\", \"update\"]\n\
             [[acl]]\nsubject = \"role\"\nname = \"editor\"\nallow = [\"read\", \"update\"]\n"
        )
    };
    let host = Guarded::start(App::todo().module("note", &note("")));
    let (writer, editor) = (host.holding(&["writer"]), host.holding(&["editor"]));
    assert_eq!(writer.post("notes", &json!({"id": "a", "place": "here", "word": "hush"})).status, 201);
    aegis_harness::app::write_module(host.cluster.folder(), "note", &note(", values = [\"loud\"]"));
    host.cluster.aegis_ok(&["reload"]);

    let seen = editor.patch("notes/a", &json!({"place": "there"}));
    assert_eq!(told(&seen), refused(422, "invalid"));
    assert!(seen.text().contains("found the text \\\"hush\\\""), "{}", seen.text());
    let unseen = writer.patch("notes/a", &json!({"place": "at the other end"}));
    assert_eq!(told(&unseen), refused(422, "invalid"));
    let errors = json!([
        { "path": "/place", "message": "found length 16, expected at most 9" },
        { "path": "", "message": "together with what is stored it breaks a rule of the model" },
    ]);
    assert_eq!(unseen.json()["errors"], errors);
    assert!(!unseen.text().contains("hush") && !unseen.text().contains("word"), "{}", unseen.text());
    assert_eq!(writer.patch("notes/a", &json!({"place": "there", "word": "loud"})).status, 200);

    let stored = editor.get("notes/a").json();
    let claims = json!({"createTime": "x", "updateTime": "x", "revision": 0});
    for refused_writes in [
        writer.patch("notes/a", &claims),
        writer.put("notes/a", &json!({"word": "loud", "createTime": "x", "updateTime": "x", "revision": 0})),
    ] {
        assert_eq!(told(&refused_writes), refused(422, "invalid"));
        let text = refused_writes.text();
        assert!(text.contains("/updateTime") && text.contains("the host keeps this field"), "{text}");
        for field in ["createTime", "updateTime", "revision"] {
            assert!(!text.contains(&format!("expected {}", stored[field])), "{text}");
        }
    }
}

#[test]
fn an_idempotency_key_belongs_to_one_caller_and_is_asked_about_every_time() {
    let host = Guarded::letters();
    let with_key = |roles: &[&str], subject: &str| {
        let bearer = host.issuer.bearer(subject, roles);
        host.cluster.client().with("authorization", &bearer).with("idempotency-key", "k1")
    };
    let first = with_key(&["editor"], "ada").post("letters", &json!({"text": "x"}));
    let again = with_key(&["editor"], "ada").post("letters", &json!({"text": "x"}));
    assert_eq!((first.status, again.header("idempotency-replayed")), (201, Some("true")));
    let other = with_key(&["editor"], "bob").post("letters", &json!({"text": "x"}));
    assert_eq!((other.status, other.header("idempotency-replayed")), (201, None));
    assert_ne!(first.json()["id"], other.json()["id"]);
    let without = with_key(&["reader"], "ada").post("letters", &json!({"text": "x"}));
    assert_eq!(told(&without), refused(403, "forbidden"));
}

#[test]
fn without_a_good_token_nothing_is_served_but_health() {
    let host = Guarded::start(App::todo().component("hello", aegis_guests::service("one")));
    let (client, known) = (host.cluster.client(), host.holding(&["editor"]));
    let stranger = client.with("authorization", &Issuer::new("second").bearer("eve", &["admin"]));
    for path in ["/livez", "/readyz", "/aegis.config.json"] {
        assert_eq!(client.send("GET", path, b"").status, 200, "{path}");
    }
    for path in [
        "/aegis/api/models/todo",
        "/aegis/api/models/todo/a",
        "/aegis/api/models/todo/a?command=x",
        "/aegis/api/models/none",
        "/aegis/api/events",
        "/aegis/api/none",
        "/hello/there",
    ] {
        let nobody = client.send("GET", path, b"");
        assert_eq!(told(&nobody), refused(401, "unauthorized"), "{path}");
        assert_eq!(nobody.header("www-authenticate"), Some("Bearer realm=\"aegis\""), "{path}");
        let eve = stranger.send("GET", path, b"");
        assert_eq!(told(&eve), refused(401, "unauthorized"), "{path}");
        let challenge = "Bearer realm=\"aegis\", error=\"invalid_token\"";
        assert_eq!(eve.header("www-authenticate"), Some(challenge), "{path}");
    }
    assert_eq!(told(&client.post("todo", &json!({"text": "x"}))), refused(401, "unauthorized"));
    assert_eq!(known.post("todo", &json!({"id": "a", "text": "x"})).status, 201);
    assert_eq!(known.get("todo/a").json()["text"], "x");
    assert_eq!(known.send("GET", "/hello/there", b"").text(), "one/hello/there");
    let twice = known.with("authorization", &host.issuer.bearer("ada", &[]));
    assert_eq!(told(&twice.get("todo")), refused(401, "unauthorized"));

    // Operators need no token on the socket; elsewhere the role lets them in.
    let config = "/aegis/api/config?details=models";
    assert!(host.cluster.admin_get(config).contains("TODO"));
    for (method, path) in [("GET", config), ("GET", "/metrics"), ("POST", "/reload")] {
        let nobody = client.send(method, path, b"");
        assert_eq!(told(&nobody), refused(401, "unauthorized"), "{path}");
        assert_eq!(nobody.header("www-authenticate"), Some("Bearer realm=\"aegis\""), "{path}");
    }
    assert_eq!(told(&known.send("GET", config, b"")), refused(403, "admin-only"));
    assert_eq!(told(&stranger.send("GET", config, b"")), refused(401, "unauthorized"));
    assert_eq!(host.holding(&["admin"]).send("GET", config, b"").status, 200);
    for text in [
        host.cluster.log(),
        host.cluster.admin_get("/aegis.config.json"),
        host.cluster.admin_get("/aegis/api/config"),
        client.send("GET", "/aegis.config.json", b"").text(),
    ] {
        assert!(!text.contains(&format!("{}: known", host.issuer.mark())), "{text}");
    }
}

#[test]
fn a_new_key_comes_into_force_with_a_reload_and_no_request_fails() {
    let host = Guarded::start(App::todo());
    let second = Issuer::new("second");
    let (old, new) = (host.issuer.bearer("ada", &[]), second.bearer("ada", &[]));
    let load = |bearer: &str| {
        let address = host.cluster.address.to_string();
        let fields = [("authorization", bearer)];
        let request = http::encode("GET", "/aegis/api/models/todo", &address, &fields, b"");
        Plan::get(host.cluster.address, 4, "").requests(move |_| request.clone()).spawn()
    };
    let with = |bearer: &str| host.cluster.client().with("authorization", bearer).get("todo").status;
    let are = |statuses: (u16, u16)| (0..8).all(|_| (with(&old), with(&new)) == statuses);
    assert!(are((200, 401)));

    // Both count for a while; whoever has a token of the first issuer goes on.
    let running = load(&old);
    Issuer::write_secrets(&host.secret, &[&host.issuer, &second]);
    host.cluster.aegis_ok(&["reload"]);
    eventually("both keys are in force", Duration::from_secs(20), || are((200, 200)));
    let report = running.stop();
    report.assert_clean();
    assert!(report.succeeded > 0);

    // Then only the second one does; whoever has a token of that goes on.
    let running = load(&new);
    second.write_secret(&host.secret);
    host.cluster.aegis_ok(&["reload"]);
    eventually("the old key is gone", Duration::from_secs(20), || are((401, 200)));
    let report = running.stop();
    report.assert_clean();
    assert!(report.succeeded > 0);
}

#[test]
fn a_bad_key_is_refused_with_its_reason_and_the_one_before_stays() {
    let host = Guarded::start(App::todo());
    fs::write(&host.secret, "too short").unwrap();
    let refused = host.cluster.aegis(&["reload"]);
    let text = words(&refused);
    assert_eq!(refused.status.code(), Some(3), "{text}");
    assert!(text.contains("auth.secret_file") && text.contains("found a secret of 9 bytes"), "{text}");
    assert!(!text.contains("too short"), "{text}");
    assert_eq!(host.holding(&[]).get("todo").status, 200);
}

#[test]
fn what_is_for_some_is_not_served_while_nobody_is_asked() {
    let app = App::default().component("letter", letters(&commands()).build());
    let check = |app: App| {
        let folder = tempfile::tempdir().unwrap();
        app.write(folder.path());
        let checked = Command::new(executable()).arg("check").arg(folder.path()).output().unwrap();
        let text = String::from_utf8_lossy(&checked.stderr).into_owned();
        (checked.status.success(), text + &String::from_utf8_lossy(&checked.stdout))
    };
    let (is_fine, text) = check(app.clone());
    assert!(!is_fine && text.contains("model LETTER: acl: found who may"), "{text}");
    assert!(text.contains("commands.decrypt.allow") && text.contains("[auth]"), "{text}");
    let (is_fine, text) = check(app.settings("[auth]\nenabled = true\nissuer = \"https://id\""));
    assert!(!is_fine && text.contains("auth.enabled: found true, expected a key as well"), "{text}");
}
