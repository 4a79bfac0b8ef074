//! The file with signatures: an envelope of DSSE 1.0 (<https://github.com/secure-systems-lab/dsse>, envelope.md and
//! protocol.md), with the manifest in it once more, so that common tools can check it without us.

use data_encoding::{BASE64, BASE64URL};
use serde::{Deserialize, Serialize};

/// Bytes of one file with signatures: the largest manifest in Base64, and signatures.
pub(crate) const ENVELOPE_BYTES_MAX: usize = 512 * 1024;
/// Signatures in one file.
const SIGNATURES_MAX: usize = 16;
/// What is signed.
const PAYLOAD_TYPE: &str = "application/vnd.aegis.module.v1+json";

/// An envelope as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Envelope {
    payload: String,
    payload_type: String,
    /// At most [`SIGNATURES_MAX`].
    pub(crate) signatures: Vec<Signature>,
}

/// One signature as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signature {
    /// Name of the key. It is not signed: it says where to look for the key, and nothing else.
    #[serde(default)]
    pub(crate) keyid: String,
    sig: String,
}

impl Signature {
    /// The signature itself, if it is one.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        decoded(&self.sig)
    }
}

impl Envelope {
    /// One about these bytes, without signatures.
    pub(crate) fn about(payload: &[u8]) -> Self {
        let (payload, payload_type) = (BASE64.encode(payload), PAYLOAD_TYPE.to_owned());
        Self { payload, payload_type, signatures: Vec::new() }
    }

    /// Reads a file with signatures. What it has beside them is passed over, as the specification wants it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let envelope: Self = serde_json::from_slice(bytes).map_err(|error| {
            format!("found no envelope with signatures ({error}), expected one as `aegis sign` writes it")
        })?;
        if envelope.payload_type != PAYLOAD_TYPE {
            let found: String = envelope.payload_type.chars().take(100).collect();
            return Err(format!("found an envelope about {found:?}, expected {PAYLOAD_TYPE:?}"));
        }
        let found = envelope.signatures.len();
        if found > SIGNATURES_MAX {
            return Err(format!("found {found} signatures, expected at most {SIGNATURES_MAX}"));
        }
        Ok(envelope)
    }

    /// Whether it is about these bytes.
    pub(crate) fn is_about(&self, payload: &[u8]) -> bool {
        decoded(&self.payload).is_some_and(|signed| signed == payload)
    }

    /// What signatures about these bytes are made of.
    pub(crate) fn message_about(&self, payload: &[u8]) -> Result<Vec<u8>, String> {
        if self.is_about(payload) {
            return Ok(pre_authentication_encoding(payload));
        }
        Err("found signatures of another manifest, expected those of the one they lie beside; whoever changes a manifest signs it again with `aegis sign`".to_owned())
    }

    /// Puts a signature in, in place of the one with the same key.
    ///
    /// # Errors
    /// When there would be too many.
    pub(crate) fn put(&mut self, keyid: &str, signature: &[u8]) -> Result<(), String> {
        self.signatures.retain(|known| known.keyid != keyid);
        if self.signatures.len() == SIGNATURES_MAX {
            return Err(format!("found {SIGNATURES_MAX} other signatures, expected fewer"));
        }
        self.signatures.push(Signature { keyid: keyid.to_owned(), sig: BASE64.encode(signature) });
        Ok(())
    }

    /// Names of the keys, in the order of the signatures.
    pub(crate) fn signers(&self) -> Vec<&str> {
        self.signatures.iter().map(|signature| signature.keyid.as_str()).collect()
    }
}

/// What is signed of a manifest: type and bytes, each with its length in front (protocol.md, PAE).
pub(crate) fn pre_authentication_encoding(payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}

/// Both alphabets are allowed.
fn decoded(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.as_bytes()).or_else(|_| BASE64URL.decode(text.as_bytes())).ok()
}
