//! The gate itself, over altered copies of what was released.

use std::path::PathBuf;

use super::{files, released, rules::broken, surface::Surface};

/// What the gate says about the contract 1.0.0 as this version, with texts replaced in it.
fn judged(version: &str, replaced: &[(&str, &str)]) -> Vec<String> {
    let before = files(&released("1.0.0"));
    let header = ("aegis:module@1.0.0", format!("aegis:module@{version}"));
    let mut after = before.clone();
    for (from, to) in replaced.iter().copied().chain([(header.0, header.1.as_str())]) {
        let found: Vec<&mut (PathBuf, String)> =
            after.iter_mut().filter(|(_, text)| text.contains(from)).collect();
        assert!(!found.is_empty(), "nothing reads {from:?}");
        for (_, text) in found {
            *text = text.replace(from, to);
        }
    }
    broken(&Surface::of(&before), &Surface::of(&after)).iter().map(ToString::to_string).collect()
}

#[test]
fn comments_are_free_in_a_patch() {
    let replaced = [
        ("/// Changes with every reconfiguration.", "/// Grows."),
        ("/// The one error shape", "/// One more line.\n    /// The one error shape"),
        ("interface random {", "// Numbers that nobody guesses.\ninterface random {"),
    ];
    assert_eq!(judged("1.0.1", &replaced), Vec::<String>::new());
    assert_eq!(judged("1.0.0", &replaced), Vec::<String>::new());
}

#[test]
fn a_minor_version_may_add_interfaces_worlds_and_functions_of_the_host() {
    let replaced = [
        ("interface random {", "interface queue {\n    push: func(text: string);\n}\ninterface random {"),
        (
            "uuid: func() -> string;",
            "enum kind { time, chance }\n    uuid: func() -> string;\n    any: func(of: kind) -> string;",
        ),
        (
            "keys: func(pointer: string) -> list<string>;",
            "keys: func(pointer: string) -> list<string>;\n        empty: func() -> bool;",
        ),
        (
            "world service {",
            "world with-queue {\n    import queue;\n    export has-queue;\n}\ninterface has-queue {\n    take: func();\n}\nworld service {",
        ),
        (
            "    import inference;\n    export identity;\n    export describe-service;",
            "    import inference;\n    import queue;\n    export identity;\n    export describe-service;",
        ),
    ];
    assert_eq!(judged("1.1.0", &replaced), Vec::<String>::new());
    let patch = judged("1.0.1", &replaced);
    assert!(
        patch.len() > 5 && patch.iter().all(|one| one.contains("a patch changes comments only")),
        "{patch:#?}"
    );
}

#[test]
fn an_alias_may_be_spelled_out() {
    assert_eq!(
        judged(
            "1.0.1",
            &[(
                "sort: list<string>,\n        limit: u32,\n        cursor: option<string>,\n        fields",
                "sort: list<entity-id>,\n        limit: u32,\n        cursor: option<string>,\n        fields"
            )]
        ),
        Vec::<String>::new()
    );
}

/// What breaks modules or those who write them, as a text of the contract and what takes its place.
const BREAKS: &[(&str, &str, &str)] = &[
    ("a function is gone", "    uuid: func() -> string;\n", ""),
    ("a parameter is another", "bytes: func(len: u32)", "bytes: func(len: u64)"),
    ("a parameter has another name", "bytes: func(len: u32)", "bytes: func(length: u32)"),
    ("a method has no result", "remove: func(pointer: string) -> bool;", "remove: func(pointer: string);"),
    ("a function may wait", "now: func() -> epoch-ms;", "now: async func() -> epoch-ms;"),
    ("an alias is another", "type revision = u64;", "type revision = u32;"),
    ("an enum has one more case", "        circuit-open,\n", "        circuit-open,\n        gone,\n"),
    (
        "a record has one more field",
        "        transient: bool,\n",
        "        transient: bool,\n        at: u64,\n",
    ),
    (
        "fields have changed places",
        "        name: string,\n        value: list<u8>,",
        "        value: list<u8>,\n        name: string,",
    ),
    ("a case carries something else", "number(f64)", "number(f32)"),
    ("flags have one more", "        on-load,\n    }", "        on-load,\n        on-move,\n    }"),
    ("modules offer one more function", "    drain: func();", "    drain: func();\n    pause: func();"),
    ("modules may build one more type", "interface commands {", "interface commands {\n    type step = u32;"),
    ("an interface has another name", "inference", "guessing"),
    (
        "a world is gone",
        "world adapter-resident {\n    include adapter;\n    export adapter-listener;\n}\n",
        "",
    ),
    ("a world asks for more", "world service {\n", "world service {\n    export handover;\n"),
    ("a world imports less", "    import bound-service;\n", ""),
];

#[test]
fn what_breaks_is_told_with_its_name_and_what_was_and_is() {
    let told: String = BREAKS
        .iter()
        .map(|(change, from, to)| {
            let judged = judged("1.1.0", &[(from, to)]);
            assert!(!judged.is_empty(), "{change}: nobody noticed");
            format!("# {change}\n{}\n\n", judged.join("\n"))
        })
        .collect();
    insta::assert_snapshot!(told);
}

#[test]
fn versions_only_grow_and_another_major_version_is_another_contract() {
    let older = judged("1.0.0-draft", &[]);
    assert_eq!(older, ["version: versions only grow\n  was 1.0.0\n  is  1.0.0-draft"]);
    assert_eq!(judged("2.0.0", &[("    uuid: func() -> string;\n", "")]), Vec::<String>::new());
}
