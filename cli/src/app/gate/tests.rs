use std::fs;

use aegis_config::{PublicKey, TrustedKey};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::*;
use crate::trust::{Envelope, pre_authentication_encoding};

const NOW_S: i64 = 1_800_000_000;
const SHA256: &str = "abababababababababababababababababababababababababababababababab";

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn trust(require: Signatures, valid_until_s: Option<i64>) -> Trust {
    let public_key = PublicKey(pair().public_key().as_ref().try_into().unwrap());
    let key = TrustedKey { public_key, modules: vec!["order".to_owned()], valid_until_s };
    Trust { require, keys: [("team".to_owned(), key)].into() }
}

/// A gate that has seen version 2.0.0 of the module in force.
fn gate(trust: &Trust) -> Gate {
    let data = tempfile::tempdir().unwrap();
    fs::create_dir(data.path().join("generations")).unwrap();
    let note = json!({ "format": 1, "versions": { "order": "2.0.0" } });
    fs::write(data.path().join("generations/versions.json"), note.to_string()).unwrap();
    Gate::of(trust, Some(data.path()), NOW_S)
}

/// What is published as this version: signed, with a wrong signature, or without one.
fn papers(version: &str, signed: Option<bool>) -> Papers {
    let component = json!({ "sha256": SHA256 });
    let manifest =
        json!({ "schema": "aegis.module/1", "name": "order", "version": version, "component": component });
    let manifest = manifest.to_string().into_bytes();
    let signatures = signed.map(|is_right| {
        let message = pre_authentication_encoding(if is_right { &manifest } else { b"other" });
        let mut envelope = Envelope::about(&manifest);
        envelope.put("team", pair().sign(&message).as_ref()).unwrap();
        serde_json::to_vec(&envelope).unwrap()
    });
    Papers { manifest, signatures }
}

/// The code of the refusal, or who signed; and how many warnings there are.
fn admitted(gate: &Gate, papers: Option<&Papers>, origin: Origin, lower: Lower) -> (String, usize) {
    let mut warnings = Vec::new();
    let admission = Admission { name: "order", papers, sha256: SHA256, origin, lower };
    let told = match gate.admit(&admission, &mut warnings) {
        Ok(None) => "nobody".to_owned(),
        Ok(Some(signed)) => {
            let lowers = if signed.lowers { ", lowers" } else { "" };
            format!("{} {}{lowers}", signed.keys.join(" "), signed.version)
        }
        Err(mistakes) => mistakes[0].code.number().to_string(),
    };
    (told, warnings.len())
}

#[test]
fn who_must_sign_depends_on_where_a_module_comes_from() {
    let (good, bad, none) =
        (papers("2.0.0", Some(true)), papers("2.0.0", Some(false)), papers("2.0.0", None));
    let cases = [("good", Some(&good)), ("bad", Some(&bad)), ("none", Some(&none)), ("alone", None)];
    let mut told = Vec::new();
    for require in [Signatures::None, Signatures::Remote, Signatures::All] {
        for origin in [Origin::Here, Origin::Known, Origin::Elsewhere] {
            let gate = gate(&trust(require, None));
            let row = cases.map(|(name, papers)| {
                let (who, warnings) = admitted(&gate, papers, origin, Lower::Refused);
                let warnings = if warnings > 0 { " (warning)" } else { "" };
                format!("{name}: {who}{warnings}")
            });
            told.push(format!("{require:?} {origin:?}: {}", row.join(", ")));
        }
    }
    insta::assert_snapshot!(told.join("\n"), @"
    None Here: good: team 2.0.0, bad: nobody (warning), none: nobody, alone: nobody
    None Known: good: team 2.0.0, bad: nobody (warning), none: nobody, alone: nobody
    None Elsewhere: good: team 2.0.0, bad: nobody (warning), none: nobody, alone: nobody
    Remote Here: good: team 2.0.0, bad: nobody (warning), none: nobody, alone: nobody
    Remote Known: good: team 2.0.0, bad: nobody (warning), none: nobody, alone: nobody
    Remote Elsewhere: good: team 2.0.0, bad: 128, none: 123, alone: 123
    All Here: good: team 2.0.0, bad: 128, none: 123, alone: 123
    All Known: good: team 2.0.0, bad: 128, none: 123, alone: 123
    All Elsewhere: good: team 2.0.0, bad: 128, none: 123, alone: 123
    ");
}

#[test]
fn without_keys_and_a_policy_nobody_looks() {
    let gate = Gate::of(&Trust::default(), None, NOW_S);
    assert!(!gate.asks());
    let bad = papers("2.0.0", Some(false));
    assert_eq!(admitted(&gate, Some(&bad), Origin::Elsewhere, Lower::Refused), ("nobody".to_owned(), 0));
}

#[test]
fn an_older_version_comes_in_only_if_somebody_wants_it() {
    let gate = gate(&trust(Signatures::Remote, None));
    for (version, lower, expected) in [
        ("2.0.0", Lower::Refused, "team 2.0.0"),
        ("2.0.1", Lower::Refused, "team 2.0.1"),
        ("1.9.9", Lower::Refused, "127"),
        ("2.0.0-rc.1", Lower::Refused, "127"),
        ("1.9.9", Lower::Wanted, "team 1.9.9, lowers"),
        ("2.0.1", Lower::Wanted, "team 2.0.1"),
        ("1.9.9", Lower::Decided, "team 1.9.9"),
    ] {
        let papers = papers(version, Some(true));
        let (told, _) = admitted(&gate, Some(&papers), Origin::Elsewhere, lower);
        assert_eq!(told, expected, "{version} {lower:?}");
    }
    let old = papers("1.9.9", Some(true));
    assert_eq!(admitted(&gate, Some(&old), Origin::Here, Lower::Refused).0, "team 1.9.9");
}

#[test]
fn a_note_about_versions_that_cannot_be_read_lets_nobody_in() {
    let data = tempfile::tempdir().unwrap();
    fs::create_dir(data.path().join("generations")).unwrap();
    fs::write(data.path().join("generations/versions.json"), "{").unwrap();
    let gate = Gate::of(&trust(Signatures::Remote, None), Some(data.path()), NOW_S);
    let papers = papers("2.0.0", Some(true));
    assert_eq!(admitted(&gate, Some(&papers), Origin::Elsewhere, Lower::Refused).0, "127");
}

#[test]
fn a_key_that_ends_soon_is_told_before_it_does() {
    let papers = papers("2.0.0", Some(true));
    for (until_s, warnings) in [(None, 0), (Some(NOW_S + NOTICE_S), 0), (Some(NOW_S + NOTICE_S - 1), 1)] {
        let gate = gate(&trust(Signatures::Remote, until_s));
        let told = admitted(&gate, Some(&papers), Origin::Elsewhere, Lower::Refused);
        assert_eq!(told, ("team 2.0.0".to_owned(), warnings), "{until_s:?}");
    }
}
