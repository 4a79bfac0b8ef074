//! Components that never reach a worker, and why.

use std::{fmt::Write, time::Duration};

use aegis_domain::code::CodeLimits;
use aegis_guests::{sleep, with_system};
use rustix::time::ClockId;

use super::{PATIENCE, Worker, prepare, worked};
use crate::{Code, Compiler, Diagnostic, PrepareError};

/// Computing time in which any component has to be refused: its description may spin for half a second.
const REFUSAL_TIME: Duration = Duration::from_secs(5);

/// Computing time in which code that is made to be hard to compile is compiled. It grows faster than with the square of the
/// places; beyond, the helper that compiles runs into its limits.
const LABYRINTH_TIME: Duration = Duration::from_secs(60);

fn diagnostics(bytes: &[u8]) -> Vec<Diagnostic> {
    match prepare(bytes, CodeLimits::default()) {
        Err(PrepareError::Refused(diagnostics)) => diagnostics,
        Err(PrepareError::Engine(error)) => panic!("{error}"),
        Ok(_) => vec![],
    }
}

/// Each without the frames of a trap, whose places are those of the fixture.
fn told(bytes: &[u8]) -> String {
    diagnostics(bytes).iter().fold(String::new(), |mut told, diagnostic| {
        let text = diagnostic.to_string();
        let _ = writeln!(told, "  {}", text.split("; in ").next().unwrap_or_default());
        told
    })
}

#[test]
fn a_part_of_a_component_is_refused() {
    let whole = aegis_guests::todo().build();
    for length in [0, 4, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        let found = diagnostics(&whole[..length]);
        let expected = match length {
            8 => Code::MissingExport, // the smallest component there is
            0..8 => Code::NotAComponent,
            _ => Code::Malformed,
        };
        assert!(found.iter().any(|diagnostic| diagnostic.code == expected), "{length}: {found:?}");
    }
}

#[test]
fn what_is_no_component_is_told_apart() {
    let artifact = prepare(&aegis_guests::plain().build(), CodeLimits::default()).unwrap().code;
    let kinds: [(&str, &[u8]); 5] = [
        ("text", b"(component)"),
        ("a core module", &aegis_guests::core_module()),
        ("our own code", &artifact),
        ("an executable", b"\x7fELF\x02\x01\x01\0\0\0\0\0"),
        ("noise", b"\x93\x11\x07\xff\x00\x00\x00\x00\x00\x01"),
    ];
    let all = kinds.iter().fold(String::new(), |all, (name, bytes)| format!("{all}{name}\n{}", told(bytes)));
    insta::assert_snapshot!(all);
}

#[test]
fn every_hostile_component_is_refused_with_its_reason_in_time() {
    let mut all = String::new();
    for hostile in aegis_guests::refused() {
        let before = worked(ClockId::ProcessCPUTime);
        let _ = write!(all, "{}\n{}", hostile.name, told(&hostile.bytes));
        let did = worked(ClockId::ProcessCPUTime) - before;
        assert!(did < REFUSAL_TIME, "{}: it took {did:?} of computing", hostile.name);
    }
    insta::assert_snapshot!(all);
}

/// A component that imports and exports these instances, which are empty.
fn hollow(imports: &[&str], exports: &[&str]) -> Vec<u8> {
    let imports = imports.iter().map(|name| format!("(import \"{name}\" (instance))"));
    let exports = exports.iter().map(|name| format!("(export \"{name}\" (instance $nothing))"));
    let parts: String = imports.chain(["(instance $nothing)".to_owned()]).chain(exports).collect();
    wat::parse_str(format!("(component {parts})")).unwrap()
}

#[test]
fn services_are_of_a_released_version_and_import_what_goes_with_it() {
    let (older, newer) = ("wasi:http/incoming-handler@0.2.0", "wasi:http/handler@0.3.0");
    let candidate = "wasi:http/handler@0.3.0-rc-2026-03-15";
    let components = [
        ("a candidate", hollow(&["wasi:http/types@0.3.0-rc-2026-03-15"], &[candidate])),
        ("a version to come", hollow(&[], &["wasi:http/handler@0.4.0"])),
        ("a candidate beside 0.2", hollow(&[], &[candidate, older])),
        ("another shape of 0.3", hollow(&["wasi:cli/stderr@0.3.9", "wasi:io/error@0.2.6"], &[newer])),
        ("both", hollow(&["wasi:cli/stderr@0.3.0"], &[older, newer])),
        ("0.2 with 0.3", hollow(&["wasi:cli/stderr@0.3.0"], &[older])),
        ("0.3 with a candidate", hollow(&["wasi:cli/stderr@0.3.0-rc-2026-03-15"], &[newer])),
        ("0.3 with more", hollow(&["wasi:keyvalue/store@0.2.0", "spin:http/types@3.0.0"], &[newer])),
    ];
    let compiler = Compiler::new().unwrap();
    let told = components.iter().fold(String::new(), |told, (name, bytes)| {
        let refused = compiler.prepare_service(bytes, None).map(|_| ()).unwrap_err().to_string();
        format!("{told}{name}\n  {}\n", refused.replace("; ", "\n  "))
    });
    insta::assert_snapshot!(told);
}

#[test]
fn a_trap_in_describe_tells_where() {
    let guest = aegis_guests::plain()
        .item("(func $deep_inside unreachable)")
        .describe("(call $deep_inside) (i32.const 0)");
    let found = diagnostics(&guest.build());
    assert_eq!(found[0].code, Code::DescribeFailed);
    assert!(found[0].message.contains("; in deep_inside ("), "{}", found[0].message);
}

#[test]
fn a_component_that_sleeps_before_it_has_said_who_it_is_is_refused() {
    let sleeping = || with_system(aegis_guests::plain());
    for (what, guest) in [
        ("start", sleeping().start(sleep())),
        ("info", sleeping().function("identity", "info", sleep())),
        ("describe", sleeping().describe(sleep())),
    ] {
        let bytes = guest.build();
        // On a thread of its own, which nobody waits for if it sleeps for an hour.
        let (told, tells) = std::sync::mpsc::channel();
        std::thread::spawn(move || told.send(diagnostics(&bytes)));
        let found = tells.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{what}: {error}"));
        let [found] = &found[..] else { panic!("{what}: {found:?}") };
        assert!(
            found.code == Code::DescribeFailed && found.message.contains("its time is up"),
            "{what}: {found}"
        );
    }
}

#[test]
fn any_changed_byte_is_refused_or_harmless() {
    let whole = aegis_guests::plain().build();
    for place in (8..whole.len()).step_by(151) {
        let mut changed = whole.clone();
        changed[place] ^= 1 << (place % 8);
        let _ = prepare(&changed, CodeLimits::default()); // it does not panic and it comes back
    }
}

#[test]
fn an_older_host_function_set_and_more_exports_are_fine() {
    let older = aegis_guests::plain().import("log", "enabled").export("lifecycle").export("routes");
    assert_eq!(Worker::of(&older).module.name(), "plain");
    let newer_patch = aegis_guests::plain().contract_version("1.0.3").import("log", "write");
    assert_eq!(Worker::of(&newer_patch).module.name(), "plain");
}

#[test]
fn a_labyrinth_is_compiled_or_refused_in_time() {
    let before = worked(ClockId::ProcessCPUTime);
    let refused = diagnostics(&aegis_guests::labyrinth(200).build());
    let did = worked(ClockId::ProcessCPUTime) - before;
    assert!(did < LABYRINTH_TIME, "it took {did:?} of computing");
    assert_eq!(refused, [], "each place leads to all around it");
}

#[test]
fn as_many_local_variables_as_a_function_may_have_are_compiled() {
    assert_eq!(diagnostics(&aegis_guests::many_locals(50_000).build()), []);
}

#[test]
fn a_component_with_nearly_as_many_bytes_as_it_may_have_is_compiled() {
    let data = aegis_guests::bytes_of_data(60_000_000);
    let bytes = aegis_guests::with_core_module(aegis_guests::plain().build(), &data);
    let prepared = prepare(&bytes, CodeLimits::default()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(prepared.spec.name.as_str(), "PLAIN");
    assert!(prepared.code.len() > 60_000_000, "its data are in the code: {}", prepared.code.len());
}

#[test]
fn a_component_with_more_bytes_than_it_may_have_is_not_looked_into() {
    let mut bytes = aegis_guests::plain().build();
    bytes.resize(crate::COMPONENT_BYTES_MAX + 1, 0);
    assert_eq!(
        told(&bytes),
        "  AEGIS-M110 reading the component: found 67108865 bytes, expected at most 67108864\n"
    );
}
