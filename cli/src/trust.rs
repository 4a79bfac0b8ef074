//! Who signed a module, and whether that is somebody who may: a pure core.
//!
//! What is signed is the manifest, to the letter. It names the module, its version and the digest of its component, so that
//! nothing of it can be exchanged for something else that the same people signed. Signatures lie beside it in an
//! [`Envelope`]; one that counts is enough.

use std::collections::BTreeMap;

use aegis_config::TrustedKey;
use aegis_domain::manifest::{self, Manifest};
use aegis_wasm::{Code, Diagnostic};
use ring::signature::{ED25519, UnparsedPublicKey};
use semver::Version;

mod envelope;
#[cfg(test)]
mod tests;

pub(crate) use envelope::{ENVELOPE_BYTES_MAX, Envelope, pre_authentication_encoding};

/// What the name of a manifest has behind it in the name of the file with its signatures.
pub(crate) const SIGNATURES_SUFFIX: &str = ".sig";
/// Keys that are listed in a message.
const LISTED_MAX: usize = 10;

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case<'a> {
    /// What the module is called here.
    pub(crate) name: &'a str,
    /// Its manifest, to the letter.
    pub(crate) manifest: &'a [u8],
    /// The file with its signatures.
    pub(crate) envelope: &'a [u8],
    /// SHA-256 of its component, hexadecimal, lower case.
    pub(crate) sha256: &'a str,
}

/// What a signed manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) name: String,
    pub(crate) version: Version,
    /// SHA-256 of the component, hexadecimal, lower case.
    pub(crate) sha256: String,
}

/// A signature that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Names of the keys whose signatures count, in order, each once. Not empty.
    pub(crate) keys: Vec<String>,
    /// The version that is signed.
    pub(crate) version: Version,
}

/// Whether one of the signatures counts at this time, seconds since 1970. All that speaks against each of them at once.
pub(crate) fn verify(
    case: &Case<'_>,
    keys: &BTreeMap<String, TrustedKey>,
    now_s: i64,
) -> Result<Verdict, Vec<Diagnostic>> {
    let envelope = Envelope::parse(case.envelope).map_err(|message| vec![differs(message)])?;
    let message = envelope.message_about(case.manifest).map_err(|message| vec![differs(message)])?;
    if envelope.signatures.is_empty() {
        return Err(vec![Diagnostic::new(
            Code::Unsigned,
            "found an envelope without signatures, expected one",
        )]);
    }
    let (mut counting, mut mistakes) = (Vec::new(), Vec::new());
    for signature in &envelope.signatures {
        let name = signature.keyid.as_str();
        let Some(key) = keys.get(name) else {
            mistakes.push(unknown(name, keys));
            continue;
        };
        let public_key = UnparsedPublicKey::new(&ED25519, key.public_key.0);
        let is_right = signature.bytes().is_some_and(|bytes| public_key.verify(&message, &bytes).is_ok());
        match is_right.then(|| check(name, key, case.name, now_s)) {
            Some(Ok(())) => counting.push(name.to_owned()),
            Some(Err(mistake)) => mistakes.push(mistake),
            None => mistakes.push(differs(format!(
                "found a signature of {name} that does not fit the manifest, expected one over its bytes as they are, with the key that trust.keys.{name} is about; `aegis sign` makes one"
            ))),
        }
    }
    if counting.is_empty() {
        mistakes.dedup();
        return Err(mistakes);
    }
    counting.sort();
    counting.dedup();
    let manifest = manifest::parse(case.manifest)
        .map_err(|told| told.into_iter().map(bad_manifest).collect::<Vec<_>>())?;
    let claims = claims(&manifest).map_err(|told| told.into_iter().map(bad_manifest).collect::<Vec<_>>())?;
    fits(&claims, case).map(|()| Verdict { keys: counting, version: claims.version })
}

/// What a manifest must say to be signed. The mistakes are the parts that are missing.
pub(crate) fn claims(manifest: &Manifest) -> Result<Claims, Vec<String>> {
    let version = manifest.version.as_deref().and_then(|version| Version::parse(version).ok());
    let missing = |key: &str, found: &Option<String>, expected: &str| {
        let found = found.as_ref().map_or("nothing".to_owned(), |found| format!("{found:?}"));
        format!("{key}: found {found}, expected {expected} in what is signed")
    };
    match (&manifest.name, version, &manifest.component.sha256) {
        (Some(name), Some(version), Some(sha256)) => {
            Ok(Claims { name: name.clone(), version, sha256: sha256.clone() })
        }
        (name, version, sha256) => {
            let parts = [
                (name.is_none(), missing("name", name, "the name of the module")),
                (version.is_none(), missing("version", &manifest.version, "a version such as \"1.4.0\"")),
                (sha256.is_none(), missing("component.sha256", sha256, "the digest of the component")),
            ];
            Err(parts.into_iter().filter(|(is_missing, _)| *is_missing).map(|(_, told)| told).collect())
        }
    }
}

/// Whether a version may follow the highest one that was in force. What is behind a `+` is no difference.
pub(crate) fn is_lower(version: &Version, highest: &Version) -> bool {
    version.cmp_precedence(highest).is_lt()
}

/// A module in a version below the highest one that was in force.
pub(crate) fn lower(name: &str, version: &Version, highest: &Version) -> Diagnostic {
    let message = format!(
        "found version {version}, expected {highest}, which was in force, or a later one; `aegis deploy {name} --force` goes below, and so does sha256 of the component beside its source in aegis.toml"
    );
    Diagnostic::new(Code::VersionLower, message)
}

/// A module without signatures, where some are required because of this.
pub(crate) fn unsigned(found: &str, require: &str) -> Diagnostic {
    let message = format!(
        "found {found}, expected a manifest with a signature of a key in [trust.keys] beside it, because trust.require is {require:?}; its author makes one with `aegis sign`"
    );
    Diagnostic::new(Code::Unsigned, message)
}

/// Whether a key whose signature is right may be used for this module, now.
fn check(name: &str, key: &TrustedKey, module: &str, now_s: i64) -> Result<(), Diagnostic> {
    if !key.may_sign(module) {
        let may: Vec<_> = key.modules.iter().take(LISTED_MAX).map(String::as_str).collect();
        let message = format!(
            "found a signature of {name}, which may sign {}, expected one of a key that may sign {module:?}; trust.keys.{name}.modules says which it may",
            may.join(", ")
        );
        return Err(Diagnostic::new(Code::KeyNotAllowed, message));
    }
    match key.valid_until_s.filter(|until_s| now_s >= *until_s) {
        None => Ok(()),
        Some(until_s) => {
            let message = format!(
                "found a signature of {name}, whose key was valid until {}, expected one of a key that is valid now; its author signs with another one, or trust.keys.{name}.valid-until says a later day",
                moment(until_s)
            );
            Err(Diagnostic::new(Code::KeyExpired, message))
        }
    }
}

/// A second since 1970 for people.
pub(crate) fn moment(second: i64) -> String {
    jiff::Timestamp::from_second(second).map_or_else(|_| second.to_string(), |moment| moment.to_string())
}

/// Whether what is signed is about this module and this component.
fn fits(claims: &Claims, case: &Case<'_>) -> Result<(), Vec<Diagnostic>> {
    if claims.name != case.name {
        let message = format!(
            "found the name {:?} in what is signed, expected {:?}, as the module is called here",
            claims.name, case.name
        );
        return Err(vec![Diagnostic::new(Code::KeyNotAllowed, message)]);
    }
    if claims.sha256 != case.sha256 {
        let message =
            format!("found a component with the SHA-256 {}, expected {}", case.sha256, claims.sha256);
        return Err(vec![Diagnostic::new(Code::DigestDiffers, message + ", which is signed")]);
    }
    Ok(())
}

fn unknown(name: &str, keys: &BTreeMap<String, TrustedKey>) -> Diagnostic {
    let found = match name {
        "" => "a signature that names no key".to_owned(),
        name => format!("a signature of {:?}", shortened(name)),
    };
    let known: Vec<_> = keys.keys().take(LISTED_MAX).map(String::as_str).collect();
    let expected = match known.is_empty() {
        true => "one of a key in [trust.keys], where there is none".to_owned(),
        false => format!("one of {}", known.join(", ")),
    };
    let message = format!(
        "found {found}, expected {expected}; whom to trust is said in [trust.keys] of aegis.toml, under the name that signatures have for the key"
    );
    Diagnostic::new(Code::UnknownKey, message)
}

fn shortened(text: &str) -> String {
    text.chars().take(100).collect()
}

fn differs(message: String) -> Diagnostic {
    Diagnostic::new(Code::SignatureDiffers, message)
}

fn bad_manifest(message: String) -> Diagnostic {
    Diagnostic::new(Code::BadManifest, message)
}
