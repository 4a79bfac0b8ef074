use data_encoding::BASE64;
use proptest::prelude::*;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use aegis_config::PublicKey;

use super::*;

const NOW_S: i64 = 1_800_000_000;
const SHA256: &str = "abababababababababababababababababababababababababababababababab";

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn key(seed: u8, modules: &[&str]) -> TrustedKey {
    TrustedKey {
        public_key: PublicKey(pair(seed).public_key().as_ref().try_into().unwrap()),
        modules: modules.iter().map(|one| (*one).to_owned()).collect(),
        valid_until_s: None,
    }
}

/// Keys `one` and `two`, which may sign `order`.
fn keys() -> BTreeMap<String, TrustedKey> {
    [("one", 1), ("two", 2)].map(|(name, seed)| (name.to_owned(), key(seed, &["order"]))).into()
}

fn manifest() -> Vec<u8> {
    let component = json!({ "path": "order.wasm", "sha256": SHA256, "size": 7 });
    let manifest =
        json!({ "schema": "aegis.module/1", "name": "order", "version": "1.2.0", "component": component });
    manifest.to_string().into_bytes()
}

/// An envelope about a manifest, signed by these keys.
fn envelope(manifest: &[u8], signers: &[(&str, u8)]) -> Vec<u8> {
    let mut envelope = Envelope::about(manifest);
    for (name, seed) in signers {
        let signature = pair(*seed).sign(&pre_authentication_encoding(manifest));
        envelope.put(name, signature.as_ref()).unwrap();
    }
    serde_json::to_vec(&envelope).unwrap()
}

fn judged(manifest: &[u8], envelope: &[u8], keys: &BTreeMap<String, TrustedKey>) -> Result<Verdict, String> {
    let case = Case { name: "order", manifest, envelope, sha256: SHA256 };
    let told = |mistakes: Vec<Diagnostic>| {
        assert!(!mistakes.is_empty());
        mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    verify(&case, keys, NOW_S).map_err(told)
}

#[test]
fn the_encoding_that_is_signed_is_that_of_the_specification() {
    let expected = b"DSSEv1 36 application/vnd.aegis.module.v1+json 5 hello";
    assert_eq!(pre_authentication_encoding(b"hello"), expected);
}

#[test]
fn one_signature_that_counts_is_enough_whoever_else_signed() {
    let manifest = manifest();
    for (signers, expected) in [
        (&[("one", 1)][..], &["one"][..]),
        (&[("one", 1), ("stranger", 9)], &["one"]),
        (&[("two", 2), ("one", 1)], &["one", "two"]),
        (&[("one", 9), ("two", 2)], &["two"]),
    ] {
        let verdict = judged(&manifest, &envelope(&manifest, signers), &keys()).unwrap();
        assert_eq!(
            verdict,
            Verdict {
                keys: expected.iter().map(|one| (*one).to_owned()).collect(),
                version: Version::new(1, 2, 0)
            }
        );
    }
}

#[test]
fn a_key_is_valid_until_its_last_second() {
    let manifest = manifest();
    let envelope = envelope(&manifest, &[("one", 1)]);
    for (until_s, is_valid) in [(NOW_S + 1, true), (NOW_S, false), (NOW_S - 1, false)] {
        let mut keys = keys();
        keys.get_mut("one").unwrap().valid_until_s = Some(until_s);
        assert_eq!(judged(&manifest, &envelope, &keys).is_ok(), is_valid, "{until_s}");
    }
}

#[test]
fn what_speaks_against_a_signature_is_told_with_what_to_do() {
    let manifest = manifest();
    let judge = |signers: &[(&str, u8)], keys: &BTreeMap<String, TrustedKey>| {
        judged(&manifest, &envelope(&manifest, signers), keys)
    };
    let mut told = vec![
        judge(&[], &keys()).unwrap_err(),
        judge(&[("stranger", 9)], &keys()).unwrap_err(),
        judge(&[("one", 1)], &BTreeMap::new()).unwrap_err(),
        judge(&[("", 1)], &keys()).unwrap_err(),
        judge(&[("one", 2)], &keys()).unwrap_err(),
        judge(&[("stranger", 9), ("one", 2)], &keys()).unwrap_err(),
    ];
    let mut other = keys();
    other.insert("one".to_owned(), key(1, &["shop-*", "customer"]));
    told.push(judge(&[("one", 1)], &other).unwrap_err());
    other.insert("one".to_owned(), TrustedKey { valid_until_s: Some(NOW_S), ..key(1, &["*"]) });
    told.push(judge(&[("one", 1)], &other).unwrap_err());
    told.push(lower("order", &Version::new(1, 2, 0), &Version::new(1, 10, 0)).to_string());
    told.push(unsigned("a manifest without signatures", "remote").to_string());
    insta::assert_snapshot!(told.join("\n"), @r#"
    AEGIS-M123 verifying who publishes the component: found an envelope without signatures, expected one
    AEGIS-M124 verifying who publishes the component: found a signature of "stranger", expected one of one, two; whom to trust is said in [trust.keys] of aegis.toml, under the name that signatures have for the key
    AEGIS-M124 verifying who publishes the component: found a signature of "one", expected one of a key in [trust.keys], where there is none; whom to trust is said in [trust.keys] of aegis.toml, under the name that signatures have for the key
    AEGIS-M124 verifying who publishes the component: found a signature that names no key, expected one of one, two; whom to trust is said in [trust.keys] of aegis.toml, under the name that signatures have for the key
    AEGIS-M128 verifying who publishes the component: found a signature of one that does not fit the manifest, expected one over its bytes as they are, with the key that trust.keys.one is about; `aegis sign` makes one
    AEGIS-M124 verifying who publishes the component: found a signature of "stranger", expected one of one, two; whom to trust is said in [trust.keys] of aegis.toml, under the name that signatures have for the key
    AEGIS-M128 verifying who publishes the component: found a signature of one that does not fit the manifest, expected one over its bytes as they are, with the key that trust.keys.one is about; `aegis sign` makes one
    AEGIS-M125 verifying who publishes the component: found a signature of one, which may sign shop-*, customer, expected one of a key that may sign "order"; trust.keys.one.modules says which it may
    AEGIS-M126 verifying who publishes the component: found a signature of one, whose key was valid until 2027-01-15T08:00:00Z, expected one of a key that is valid now; its author signs with another one, or trust.keys.one.valid-until says a later day
    AEGIS-M127 verifying who publishes the component: found version 1.2.0, expected 1.10.0, which was in force, or a later one; `aegis deploy order --force` goes below, and so does sha256 of the component beside its source in aegis.toml
    AEGIS-M123 verifying who publishes the component: found a manifest without signatures, expected a manifest with a signature of a key in [trust.keys] beside it, because trust.require is "remote"; its author makes one with `aegis sign`
    "#);
}

#[test]
fn what_is_signed_must_be_about_this_module_and_this_component() {
    let change = |pointer: &str, value: Value| {
        let mut changed: Value = serde_json::from_slice(&manifest()).unwrap();
        *changed.pointer_mut(pointer).unwrap() = value;
        let changed = changed.to_string().into_bytes();
        judged(&changed, &envelope(&changed, &[("one", 1)]), &keys()).unwrap_err()
    };
    let told = [
        change("/name", json!("customer")),
        change("/component/sha256", json!("0".repeat(64))),
        change("/version", json!("new")),
        change("/component", json!({})),
    ];
    insta::assert_snapshot!(told.join("\n"), @r#"
    AEGIS-M125 verifying who publishes the component: found the name "customer" in what is signed, expected "order", as the module is called here
    AEGIS-M121 verifying the component: found a component with the SHA-256 abababababababababababababababababababababababababababababababab, expected 0000000000000000000000000000000000000000000000000000000000000000, which is signed
    AEGIS-M100 reading the manifest of the component: version: found "new", expected a version such as "1.4.0" in what is signed
    AEGIS-M100 reading the manifest of the component: component.sha256: found nothing, expected the digest of the component in what is signed
    "#);
}

#[test]
fn a_file_that_is_no_envelope_is_refused() {
    let manifest = manifest();
    let whole: Value = serde_json::from_slice(&envelope(&manifest, &[("one", 1)])).unwrap();
    let with = |key: &str, value: Value| {
        let mut changed = whole.clone();
        changed[key] = value;
        judged(&manifest, changed.to_string().as_bytes(), &keys()).unwrap_err()
    };
    let many: Vec<Value> = vec![whole["signatures"][0].clone(); 17];
    let told = [
        judged(&manifest, b"", &keys()).unwrap_err(),
        judged(&manifest, b"[]", &keys()).unwrap_err(),
        with("payloadType", json!("application/json")),
        with("payload", json!(BASE64.encode(b"{}"))),
        with("payload", json!("?")),
        with("signatures", json!(many)),
        with("signatures", json!([{ "keyid": "one", "sig": "?" }])),
    ];
    insta::assert_snapshot!(told.join("\n"), @r#"
    AEGIS-M128 verifying who publishes the component: found no envelope with signatures (EOF while parsing a value at line 1 column 0), expected one as `aegis sign` writes it
    AEGIS-M128 verifying who publishes the component: found no envelope with signatures (invalid length 0, expected struct Envelope with 3 elements at line 1 column 2), expected one as `aegis sign` writes it
    AEGIS-M128 verifying who publishes the component: found an envelope about "application/json", expected "application/vnd.aegis.module.v1+json"
    AEGIS-M128 verifying who publishes the component: found signatures of another manifest, expected those of the one they lie beside; whoever changes a manifest signs it again with `aegis sign`
    AEGIS-M128 verifying who publishes the component: found signatures of another manifest, expected those of the one they lie beside; whoever changes a manifest signs it again with `aegis sign`
    AEGIS-M128 verifying who publishes the component: found 17 signatures, expected at most 16
    AEGIS-M128 verifying who publishes the component: found a signature of one that does not fit the manifest, expected one over its bytes as they are, with the key that trust.keys.one is about; `aegis sign` makes one
    "#);
}

#[test]
fn both_alphabets_of_base64_and_more_fields_are_read() {
    let manifest = manifest();
    let mut envelope: Value = serde_json::from_slice(&envelope(&manifest, &[("one", 1)])).unwrap();
    envelope["more"] = json!({ "fields": [] });
    for pointer in ["/payload", "/signatures/0/sig"] {
        let value = envelope.pointer_mut(pointer).unwrap();
        *value = json!(value.as_str().unwrap().replace('+', "-").replace('/', "_"));
    }
    judged(&manifest, envelope.to_string().as_bytes(), &keys()).unwrap();
}

#[test]
fn a_version_is_lower_as_semantic_versions_are() {
    let is = |version: &str, highest: &str| {
        is_lower(&Version::parse(version).unwrap(), &Version::parse(highest).unwrap())
    };
    assert!(is("1.9.0", "1.10.0") && is("2.0.0-rc.1", "2.0.0") && is("1.0.0-rc.2", "1.0.0-rc.10"));
    assert!(!is("1.10.0", "1.9.0") && !is("1.0.0", "1.0.0") && !is("1.0.0+a", "1.0.0+b"));
}

#[test]
fn a_signature_is_the_one_that_another_tool_makes() {
    // Made with `openssl pkeyutl -sign -rawin` over the encoding of `{}`, with the key of RFC 8032, section 7.1, test 1.
    let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let bytes = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
    let pair = Ed25519KeyPair::from_seed_and_public_key(&bytes(seed), &bytes(public)).unwrap();
    let signature = pair.sign(&pre_authentication_encoding(b"{}"));
    let made = "BgyMLZRdd6URwHkKqXsgspvTL5Avajq154XK6HUloLF70g7UzWiceRmlbSapeRnKtR8T8l5xlROmld/9LjxQBw==";
    assert_eq!(BASE64.encode(signature.as_ref()), made);
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut flipped = bytes.to_owned();
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}

#[test]
fn a_flipped_bit_anywhere_in_manifest_or_signatures_is_refused() {
    let manifest = manifest();
    let envelope = envelope(&manifest, &[("one", 1)]);
    judged(&manifest, &envelope, &keys()).unwrap();
    for bit in 0..manifest.len() * 8 {
        let told = judged(&flipped(&manifest, bit), &envelope, &keys()).unwrap_err();
        assert!(told.starts_with("AEGIS-M128"), "bit {bit}: {told}");
    }
    for bit in 0..envelope.len() * 8 {
        let told = judged(&manifest, &flipped(&envelope, bit), &keys()).unwrap_err();
        let is_known = ["AEGIS-M123", "AEGIS-M124", "AEGIS-M128"].iter().any(|code| told.starts_with(code));
        assert!(is_known, "bit {bit}: {told}");
    }
}

proptest! {
    /// Whatever the manifest says, one with a bit flipped is refused, also when the envelope is made to fit it.
    #[test]
    fn a_signature_fits_only_what_was_signed(text in ".{0,200}", bit in any::<prop::sample::Index>(), seed in 1_u8..) {
        let manifest = json!({ "schema": "aegis.module/1", "name": "order", "version": "1.0.0", "more": text,
            "component": { "sha256": SHA256 } }).to_string().into_bytes();
        let changed = flipped(&manifest, bit.index(manifest.len() * 8));
        let keys = [("k".to_owned(), key(seed, &["*"]))].into();
        let signed = envelope(&manifest, &[("k", seed)]);
        prop_assert!(judged(&manifest, &signed, &keys).is_ok());
        prop_assert!(judged(&changed, &signed, &keys).is_err());
        let mut other: Value = serde_json::from_slice(&signed).unwrap();
        other["payload"] = json!(BASE64.encode(&changed));
        prop_assert!(judged(&changed, other.to_string().as_bytes(), &keys).is_err());
    }

    /// A verdict names keys that are known, may sign this name and are valid, and never any other.
    #[test]
    fn only_keys_that_may_count(
        policy in prop::collection::vec((any::<bool>(), any::<bool>(), prop::option::of(-5_i64..5)), 1..6),
        signers in prop::collection::vec((0_usize..8, any::<bool>()), 0..8),
    ) {
        let keys: BTreeMap<_, _> = policy.iter().enumerate().map(|(at, (may, by_prefix, until))| {
            let modules: &[&str] = match (may, by_prefix) {
                (true, true) => &["ord*"],
                (true, false) => &["order"],
                (false, true) => &["orders*"],
                (false, false) => &["orde"],
            };
            let valid_until_s = until.map(|seconds| NOW_S + seconds);
            (format!("k{at}"), TrustedKey { valid_until_s, ..key(at as u8 + 1, modules) })
        }).collect();
        let manifest = manifest();
        let mut made = Envelope::about(&manifest);
        let mut expected = Vec::new();
        for (at, is_right) in signers {
            let (name, seed) = (format!("k{at}"), if is_right { at as u8 + 1 } else { 99 });
            made.put(&name, pair(seed).sign(&pre_authentication_encoding(&manifest)).as_ref()).unwrap();
            expected.retain(|known| *known != name);
            let counts = policy.get(at).is_some_and(|(may, _, until)| *may && until.is_none_or(|until| until > 0));
            if is_right && counts {
                expected.push(name);
            }
        }
        expected.sort();
        let verdict = judged(&manifest, &serde_json::to_vec(&made).unwrap(), &keys);
        prop_assert_eq!(verdict.map(|verdict| verdict.keys).unwrap_or_default(), expected);
    }

    /// Whatever lies beside a manifest, it is looked at without a panic and not believed.
    #[test]
    fn garbage_is_not_believed(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(judged(&manifest(), &bytes, &keys()).is_err());
    }
}
