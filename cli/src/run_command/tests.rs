use std::fs;

use aegis_guests::{Guest, answer, trap};
use tempfile::TempDir;

use super::*;

/// A component in a file, called with a command line.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn of(guest: &Guest) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("m.wasm"), guest.build()).unwrap();
        Self { folder }
    }

    fn arguments(&self, name: &str, options: &[(&str, &str)]) -> RunCommandArguments {
        let option = |wanted: &str| {
            options.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned())
        };
        RunCommandArguments {
            component: self.folder.path().join("m.wasm"),
            name: name.to_owned(),
            target: option("target"),
            arguments: option("arguments"),
            input: option("input"),
            settings: option("settings"),
            repeat: option("repeat").map_or(0, |count| count.parse().unwrap()),
        }
    }

    fn call(&self, name: &str, options: &[(&str, &str)]) -> Result<Outcome, Failure> {
        attempt(&self.arguments(name, options))
    }

    /// What is printed as the answer, or the complaint.
    fn told(&self, name: &str, options: &[(&str, &str)]) -> String {
        match self.call(name, options) {
            Ok(Outcome { answer: Ok(answer), .. }) => answer.unwrap_or_else(|| "null".to_owned()),
            Ok(Outcome { answer: Err(error), .. }) => complaint(&error),
            Err(Failure::Component(mistakes)) => mistakes.lines.join("\n"),
            Err(failure) => failure.to_string(),
        }
    }
}

#[test]
fn commands_and_hooks_answer() {
    let bench = Bench::of(&aegis_guests::todo());
    fs::write(bench.folder.path().join("target.json"), "{ \"title\": \"y\" }\n").unwrap();
    let target = format!("@{}", bench.folder.path().join("target.json").display());
    assert_eq!(bench.told("echo", &[("arguments", "{ \"n\": 1 }")]), "{\"n\":1}");
    assert_eq!(bench.told("approve", &[("target", &target)]), "{\"title\":\"y\",\"approved\":true}");
    assert_eq!(bench.told("greeting", &[("settings", "{\"greeting\": \"hello\"}")]), "\"hello\"");
    assert_eq!(
        bench.told("on-create", &[("input", "{\"title\": \"x\"}")]),
        "{\"stamped\":true,\"title\":\"x\"}"
    );
    assert_eq!(bench.told("validate", &[("input", "{\"title\": \"x\"}")]), "null");
    let updated = bench.told("on-update", &[("target", &target), ("input", "{\"done\": true}")]);
    assert_eq!(updated, "{\"touched\":true,\"title\":\"y\",\"done\":true}");
    assert_eq!(bench.told("on-delete", &[("target", &target)]), "null");
    assert!(
        bench.told("burn", &[("arguments", "{\"steps\": 10}")]).parse::<u64>().is_ok(),
        "on the CPU pool"
    );
}

#[test]
fn a_refusal_tells_its_code_and_message() {
    let bench = Bench::of(&aegis_guests::todo());
    insta::assert_snapshot!(bench.told("refuse", &[]), @"refused: denied: nobody may do that");
    insta::assert_snapshot!(bench.told("validate", &[("input", "{\"title\": \"forbidden\"}")]), @"refused: invalid: it is forbidden");
    insta::assert_snapshot!(bench.told("on-delete", &[("target", "{\"protected\": true}")]), @"refused: conflict: it is protected");
    insta::assert_snapshot!(bench.told("echo", &[("arguments", "[1]")]), @r#"refused: invalid: arguments of "echo": found an array, expected an object"#);
    let bench = Bench::of(&aegis_guests::order());
    insta::assert_snapshot!(bench.told("remind", &[]), @"refused: unavailable: aegis run-command has no documents but the one of --target");
    assert_eq!(tell(&bench.call("remind", &[]).unwrap(), Form::Json), REFUSED);
}

#[test]
fn a_trap_tells_its_reason_and_frames() {
    let spec = json!({"name": "note", "endpoint": "notes", "version": "1.0.0"});
    let bench = Bench::of(&Guest::model(spec).command("crash", trap()).command("fine", answer("1")));
    let outcome = bench.call("crash", &[("repeat", "5")]).unwrap();
    let text = complaint(outcome.answer.as_ref().unwrap_err());
    assert!(text.contains("of module note failed") && text.contains("unreachable"), "{text}");
    assert!(text.contains("; in "), "{text}");
    assert_eq!((outcome.repeats.len(), tell(&outcome, Form::Text)), (0, exit::BUG));
    assert_eq!(bench.told("fine", &[]), "1");
}

#[test]
fn what_becomes_a_document_has_to_be_one() {
    let spec = json!({
        "name": "note", "endpoint": "notes", "version": "1.0.0",
        "commands": [{ "name": "keep", "saves": true }, { "name": "say" }],
    });
    let guest = Guest::model(spec).hook("on-create", answer("[1]")).command_body(answer("\"text\""));
    let bench = Bench::of(&guest);
    for (name, entry) in [("on-create", "on-create"), ("keep", "command keep")] {
        let outcome = bench.call(name, &[]).unwrap();
        let text = complaint(outcome.answer.as_ref().unwrap_err());
        let told =
            format!("{entry} of module note failed: it answered what is no object, expected a document");
        assert!(text.contains(&told), "{text}");
        assert_eq!(tell(&outcome, Form::Text), exit::BUG);
    }
    assert_eq!(bench.told("say", &[]), "\"text\"");
}

#[test]
fn repeats_are_calls_of_the_same_instance() {
    let bench = Bench::of(&aegis_guests::counter());
    let outcome = bench.call("next", &[("repeat", "3")]).unwrap();
    assert_eq!((outcome.answer.as_ref(), outcome.repeats.len()), (Ok(&Some("1".to_owned())), 3));
    assert_eq!(report(&outcome)["answer"], 1);
}

#[test]
fn the_memory_of_the_instance_is_told_as_long_as_there_is_one() {
    let bench = Bench::of(&aegis_guests::greedy());
    let of = |repeat| bench.call("eat", &[("repeat", repeat)]).unwrap().peak_memory_bytes.unwrap();
    assert_eq!(of("3") - of("0"), 3 << 20);
    let refused = Bench::of(&aegis_guests::todo()).call("refuse", &[]).unwrap();
    assert!(refused.peak_memory_bytes.is_some(), "its instance is well");
}

#[test]
fn times_are_told() {
    let times_of = |repeats: &[u64], peak_memory_bytes: Option<usize>| {
        let repeats = repeats.iter().map(|micros| Duration::from_micros(*micros)).collect();
        times(&Outcome { answer: Ok(None), first: Duration::from_micros(12_345), repeats, peak_memory_bytes })
    };
    insta::assert_snapshot!(times_of(&[], None), @"first call  12.345 ms, with the birth of its instance");
    insta::assert_snapshot!(times_of(&[30, 9, 41], Some(131_072)), @"
    first call  12.345 ms, with the birth of its instance
    median      0.030 ms of 3 repeats
    memory      128 KiB at most
    ");
}

#[test]
fn what_is_not_there_or_does_not_fit_is_told() {
    let bench = Bench::of(&aegis_guests::todo());
    insta::assert_snapshot!(bench.told("nap", &[]), @r#"found no command or hook "nap" in TODO, there are: echo, approve, burn, refuse, greeting, on-create, validate, on-update, on-delete"#);
    insta::assert_snapshot!(Bench::of(&aegis_guests::plain()).told("on-create", &[]), @r#"found no command or hook "on-create" in PLAIN, there are: none"#);
    insta::assert_snapshot!(bench.told("echo", &[("input", "{}")]), @"--input: echo is a command, expected --arguments");
    insta::assert_snapshot!(bench.told("validate", &[("arguments", "{}")]), @"--arguments: validate is a hook, expected --input");
    insta::assert_snapshot!(bench.told("on-delete", &[]), @"on-delete: expected --target");
    insta::assert_snapshot!(bench.told("echo", &[("target", "7")]), @"--target: found 7, expected a JSON object");
    insta::assert_snapshot!(bench.told("on-create", &[("input", "[]")]), @"--input: found [], expected a JSON object");
    insta::assert_snapshot!(bench.told("echo", &[("settings", "[]")]), @"--settings: found [], expected a JSON object");
    insta::assert_snapshot!(bench.told("echo", &[("arguments", "{")]), @"--arguments: found no JSON: EOF while parsing an object at line 1 column 1");
    assert!(matches!(bench.call("nap", &[]), Err(Failure::Usage(_))));
    let text = bench.told("echo", &[("arguments", "@nowhere.json")]);
    assert!(text.starts_with("--arguments: nowhere.json: "), "{text}");
}

#[test]
fn a_service_has_no_commands() {
    let bench = Bench::of(&aegis_guests::plain());
    fs::write(bench.folder.path().join("m.wasm"), aegis_guests::service("one")).unwrap();
    let text = bench.told("echo", &[]);
    assert!(
        text.ends_with("m.wasm: found a service over wasi:http, expected a model with commands or hooks"),
        "{text}"
    );
}
