//! A private key in a file: Ed25519 in PKCS#8, as text (RFC 8410, RFC 7468).

use data_encoding::BASE64;
use ring::{
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};

/// What stands in front of the 32 bytes of a private key in PKCS#8 without its public half (RFC 8410, section 7): the form
/// that all tools read.
const PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// Bytes of a private key.
const SEED_BYTES: usize = 32;
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
const EXPECTED: &str = "a private key (Ed25519, PKCS#8) as `aegis key new` or openssl makes one";

/// A private key.
pub(super) struct PrivateKey {
    pkcs8: Vec<u8>,
    pair: Ed25519KeyPair,
}

impl PrivateKey {
    /// A new one, if there is randomness.
    pub(super) fn random() -> Option<Self> {
        let mut seed = [0; SEED_BYTES];
        SystemRandom::new().fill(&mut seed).ok()?;
        let pkcs8 = [PREFIX.as_slice(), &seed].concat();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).ok()?;
        Some(Self { pkcs8, pair })
    }

    /// Reads the text of a file.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let body = text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
        let (body, _) = body.ok_or_else(|| format!("found no {BEGIN}, expected {EXPECTED}"))?;
        let body: String = body.split_whitespace().collect();
        let pkcs8 = BASE64
            .decode(body.as_bytes())
            .map_err(|error| format!("found no Base64 ({error}), expected {EXPECTED}"))?;
        // With its public half, it is checked that both belong together.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8)
            .map_err(|error| format!("found another key ({error}), expected {EXPECTED}"))?;
        Ok(Self { pkcs8, pair })
    }

    /// The text of its file.
    pub(super) fn to_pem(&self) -> String {
        format!("{BEGIN}\n{}\n{END}\n", BASE64.encode(&self.pkcs8))
    }

    /// The public half, in Base64.
    pub(super) fn public_key(&self) -> String {
        BASE64.encode(self.pair.public_key().as_ref())
    }

    /// Signs a message.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_owned()
    }
}
