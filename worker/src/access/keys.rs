//! Keys that tokens are signed with: secrets, or public keys from PEM (RFC 7468, 5280); both also as a JWK Set (RFC 7517).
//!
//! Each key has one algorithm, which follows from its kind. A token says only which key it means.

use aegis_config::AuthKey;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::{
    hmac,
    signature::{
        ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
        UnparsedPublicKey,
    },
};
use serde_json::Value;

/// Most keys in one file.
const KEYS_MAX: usize = 32;
/// Shortest secret, bytes: as long as what it makes (RFC 7518 section 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// Bytes of the modulus of an RSA key (RFC 7518 section 3.3 wants 2048 bits at least).
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// Most bytes of the exponent of an RSA key.
const EXPONENT_BYTES_MAX: usize = 4;
/// Bytes of a coordinate on P-256, and of an Ed25519 key.
const COORDINATE_BYTES: usize = 32;
/// What a file with secrets has to have.
const SHARED_EXPECTED: &str = "a secret, or a JWK Set of keys with kty oct and at least 32 bytes";
/// What a file with public keys has to have.
const EXPECTED: &str = "PUBLIC KEY blocks (PEM) or a JWK Set with keys of RSA, P-256 or Ed25519";

const RSA_OID: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC_OID: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256_OID: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const ED25519_OID: &[u8] = &[0x2b, 0x65, 0x70];

/// Tags of ASN.1 (X.690).
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;

/// All keys that a token can be signed with.
pub(super) struct Keys(Vec<Key>);

/// One of them.
struct Key {
    /// What tokens call it (`kid`).
    id: Option<String>,
    material: Material,
}

enum Material {
    Shared(hmac::Key),
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    P256([u8; 1 + 2 * COORDINATE_BYTES]),
    Ed25519([u8; COORDINATE_BYTES]),
}

impl Keys {
    pub(super) fn read(key: &AuthKey) -> Result<Self, String> {
        match key {
            AuthKey::Shared(secret) => shared(secret.reveal()),
            AuthKey::Public(text) => {
                let text = std::str::from_utf8(text.reveal())
                    .map_err(|_| format!("found bytes that are not UTF-8, expected {EXPECTED}"))?;
                let keys = if is_set(text.as_bytes()) {
                    key_set(text.as_bytes(), EXPECTED)?.iter().filter_map(public_jwk).collect()
                } else {
                    pem(text)?
                };
                Self::of(keys, EXPECTED)
            }
        }
    }

    fn of(keys: Vec<Key>, expected: &str) -> Result<Self, String> {
        match keys.len() {
            0 => Err(format!("found no usable key, expected {expected}")),
            1..=KEYS_MAX => Ok(Self(keys)),
            found => Err(format!("found {found} keys, expected at most {KEYS_MAX}")),
        }
    }

    /// Whether one of the keys with this algorithm, and with this id if both have one, has signed `message`.
    pub(super) fn verify(&self, algorithm: &str, id: Option<&str>, message: &[u8], signature: &[u8]) -> bool {
        let is_meant = |key: &&Key| match (key.id.as_deref(), id) {
            (Some(known), Some(meant)) => known == meant,
            (None, _) | (_, None) => true,
        };
        let with_algorithm = self.0.iter().filter(|key| key.material.algorithm() == algorithm);
        with_algorithm.filter(is_meant).any(|key| key.material.verify(message, signature))
    }
}

impl Material {
    /// The only algorithm that it is for (RFC 7518 section 3.1, RFC 8037).
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Shared(_) => "HS256",
            Self::Rsa { .. } => "RS256",
            Self::P256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Shared(key) => hmac::verify(key, message, signature).is_ok(),
            Self::Rsa { modulus, exponent } => RsaPublicKeyComponents { n: modulus, e: exponent }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
            Self::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature).is_ok()
            }
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok(),
        }
    }

    fn shared(secret: &[u8]) -> Option<Self> {
        (secret.len() >= SECRET_BYTES_MIN).then(|| Self::Shared(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let (modulus, exponent) = (without_zeros(modulus), without_zeros(exponent));
        let fits =
            MODULUS_BYTES.contains(&modulus.len()) && (1..=EXPONENT_BYTES_MAX).contains(&exponent.len());
        fits.then(|| Self::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() })
    }
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

/// A secret, or a JWK Set of secrets: while one follows another, both count.
fn shared(bytes: &[u8]) -> Result<Keys, String> {
    if is_set(bytes) {
        let keys = key_set(bytes, SHARED_EXPECTED)?;
        return Keys::of(keys.iter().filter_map(shared_jwk).collect(), SHARED_EXPECTED);
    }
    let material = Material::shared(bytes);
    let material = material.ok_or_else(|| {
        format!("found a secret of {} bytes, expected at least {SECRET_BYTES_MIN}", bytes.len())
    })?;
    Ok(Keys(vec![Key { id: None, material }]))
}

fn is_set(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"{")
}

/// The keys of a JWK Set. Those that are for something else are left out (RFC 7517 section 5).
fn key_set(bytes: &[u8], expected: &str) -> Result<Vec<Value>, String> {
    // What is wrong with the text is told without any of it: it may be a secret.
    let set = aegis_domain::json::parse(bytes)
        .map_err(|_| format!("found text that begins as JSON and is none, expected {expected}"))?;
    match set.get("keys") {
        Some(Value::Array(keys)) => Ok(keys.clone()),
        Some(_) | None => Err(format!("found no list \"keys\", expected {expected}")),
    }
}

/// A key with what it says of itself, unless it says that it is for something else.
fn usable(jwk: &Value, material: Material) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let is_for_this = text("use").is_none_or(|usage| usage == "sig")
        && text("alg").is_none_or(|algorithm| algorithm == material.algorithm());
    is_for_this.then(|| Key { id: text("kid").map(str::to_owned), material })
}

fn decoded(jwk: &Value, name: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(jwk.get(name)?.as_str()?.as_bytes()).ok()
}

fn shared_jwk(jwk: &Value) -> Option<Key> {
    let is_secret = jwk.get("kty").and_then(Value::as_str) == Some("oct");
    usable(jwk, Material::shared(&decoded(jwk, "k").filter(|_| is_secret)?)?)
}

fn public_jwk(jwk: &Value) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let coordinate = |name: &str| <[u8; COORDINATE_BYTES]>::try_from(decoded(jwk, name)?).ok();
    let material = match (text("kty")?, text("crv")) {
        ("RSA", _) => Material::rsa(&decoded(jwk, "n")?, &decoded(jwk, "e")?)?,
        ("EC", Some("P-256")) => {
            let mut point = [4; 1 + 2 * COORDINATE_BYTES]; // 4: not compressed
            point[1..=COORDINATE_BYTES].copy_from_slice(&coordinate("x")?);
            point[1 + COORDINATE_BYTES..].copy_from_slice(&coordinate("y")?);
            Material::P256(point)
        }
        ("OKP", Some("Ed25519")) => Material::Ed25519(coordinate("x")?),
        _ => return None,
    };
    usable(jwk, material)
}

/// All blocks of a file; each has to be a key that can sign tokens.
fn pem(text: &str) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    let mut rest = text;
    while let Some((_, begun)) = rest.split_once("-----BEGIN ") {
        let (label, body) = begun.split_once("-----").unwrap_or((begun, ""));
        if label != "PUBLIC KEY" {
            // Never the label alone of something private with its contents: only what it is.
            let label: String = label.chars().take(40).collect();
            return Err(format!("found a block {label:?}, expected {EXPECTED}"));
        }
        let (body, after) = body
            .split_once("-----END PUBLIC KEY-----")
            .ok_or_else(|| format!("found a block without its end, expected {EXPECTED}"))?;
        let digits: String = body.split_ascii_whitespace().collect();
        let der = BASE64.decode(digits.as_bytes()).ok();
        let material = der.as_deref().and_then(public_key_info);
        let number = keys.len() + 1;
        let material = material.ok_or_else(|| {
            format!("found a PUBLIC KEY (number {number}) of another kind, expected RSA of 2048 to 8192 bits, P-256 or Ed25519")
        })?;
        keys.push(Key { id: None, material });
        rest = after;
    }
    Ok(keys)
}

/// Reads a SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7).
fn public_key_info(der: &[u8]) -> Option<Material> {
    let info = only(der, SEQUENCE)?;
    let (algorithm, rest) = element(info, SEQUENCE)?;
    let (oid, parameters) = element(algorithm, OBJECT_IDENTIFIER)?;
    // The first byte says how many bits of the last one are not used.
    let key = only(rest, BIT_STRING)?.strip_prefix(&[0])?;
    match oid {
        RSA_OID => {
            let numbers = only(key, SEQUENCE)?;
            let (modulus, rest) = element(numbers, INTEGER)?;
            Material::rsa(modulus, only(rest, INTEGER)?)
        }
        EC_OID if only(parameters, OBJECT_IDENTIFIER)? == P256_OID => {
            let point = <[u8; 1 + 2 * COORDINATE_BYTES]>::try_from(key).ok()?;
            (point[0] == 4).then_some(Material::P256(point))
        }
        ED25519_OID => key.try_into().ok().map(Material::Ed25519),
        _ => None,
    }
}

/// The contents of the one element that there is.
fn only(der: &[u8], tag: u8) -> Option<&[u8]> {
    element(der, tag).filter(|(_, rest)| rest.is_empty()).map(|(contents, _)| contents)
}

/// The contents of the first element, and what comes behind it. Lengths are definite and at most 65 535 bytes.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (length, rest) = match der.strip_prefix(&[tag])? {
        [short @ 0..=0x7f, rest @ ..] => (usize::from(*short), rest),
        [0x81, length, rest @ ..] => (usize::from(*length), rest),
        [0x82, high, low, rest @ ..] => (usize::from(*high) << 8 | usize::from(*low), rest),
        _ => return None,
    };
    rest.split_at_checked(length)
}
