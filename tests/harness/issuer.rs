//! Somebody who signs tokens that a host accepts (HS256, RFC 7518 section 3.2).

use std::{
    fs,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Bytes that SHA-256 takes at once.
const BLOCK_BYTES: usize = 64;

/// Signs with one secret.
#[derive(Debug, Clone)]
pub struct Issuer {
    secret: String,
}

impl Issuer {
    /// One with a secret of its own.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { secret: format!("{name}: known to the issuer and to the host only") }
    }

    /// Writes the file that the host reads.
    pub fn write_secret(&self, path: &Path) {
        fs::write(path, format!("{}\n", self.secret)).expect("write a secret");
    }

    /// Writes the file that the host reads while one issuer follows another: a JWK Set (RFC 7517).
    pub fn write_secrets(path: &Path, issuers: &[&Self]) {
        let key =
            |issuer: &&Self| json!({"kty": "oct", "k": BASE64URL_NOPAD.encode(issuer.secret.as_bytes())});
        let keys: Vec<Value> = issuers.iter().map(key).collect();
        fs::write(path, json!({"keys": keys}).to_string()).expect("write a set of secrets");
    }

    /// What the secret begins with, to look for it where it must not be.
    #[must_use]
    pub fn mark(&self) -> &str {
        self.secret.split(':').next().unwrap_or_default()
    }

    /// The value of `Authorization` for somebody with these roles, for an hour.
    #[must_use]
    pub fn bearer(&self, subject: &str, roles: &[&str]) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs();
        self.sign(&json!({"sub": subject, "roles": roles, "exp": now + 3600}))
    }

    /// The value of `Authorization` with these claims.
    #[must_use]
    pub fn sign(&self, claims: &Value) -> String {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let message = format!("{}.{}", part(&json!({"alg": "HS256", "typ": "JWT"})), part(claims));
        let signature = hmac(self.secret.as_bytes(), message.as_bytes());
        format!("Bearer {message}.{}", BASE64URL_NOPAD.encode(&signature))
    }
}

/// RFC 2104, for keys of at most one block.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    assert!(key.len() <= BLOCK_BYTES, "a longer key would have to be hashed first");
    let padded = |pad: u8| {
        let mut block = [pad; BLOCK_BYTES];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().to_vec()
}
