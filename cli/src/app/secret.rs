//! The secret of webhooks, from its file into the configuration that a generation is made of.

use aegis_config::{Reload, Secret};

use super::files::{length_of, read_bytes};

/// Shortest secret, bytes: what is shorter can be found by trying.
const SECRET_BYTES_MIN: usize = 16;
/// Longest secret, bytes.
const SECRET_BYTES_MAX: usize = 4096;
/// A secret and the newline that editors put behind it, bytes.
const FILE_BYTES_MAX: usize = SECRET_BYTES_MAX + 2;

/// Puts the secret in place if there is to be one. A mistake tells about the file, and of its content only the length.
pub(super) fn read(reload: &mut Reload) -> Result<(), String> {
    let Some(path) = &reload.webhook_secret_file else { return Ok(()) };
    let refuse = |what: String| format!("reload.webhook_secret_file: {}: {what}", path.display());
    length_of(path, "a file with the secret of webhooks").map_err(refuse)?;
    let bytes = read_bytes(path, FILE_BYTES_MAX).map_err(refuse)?;
    let secret = without_final_newline(&bytes);
    if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len()) {
        let found = secret.len();
        return Err(refuse(format!(
            "found a secret of {found} bytes, expected {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}"
        )));
    }
    reload.webhook_secret = Some(Secret::new(secret.to_vec()));
    Ok(())
}

fn without_final_newline(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(b"\r\n").or_else(|| bytes.strip_suffix(b"\n")).unwrap_or(bytes)
}
