//! Secrets of the host, as far as the operator grants them: used without their text entering the module.

use crate::{Refusal, bindings::aegis::module::secrets};

/// A secret. An instance has few at a time, and its text stays what it was when it was opened: open it where it is used.
#[derive(Debug)]
pub struct Secret(pub(crate) secrets::Secret);

/// Opens a secret by name.
///
/// # Errors
/// When it is not granted, or there is none.
pub fn open(name: &str) -> Result<Secret, Refusal> {
    Ok(Secret(secrets::open(name)?))
}

impl Secret {
    /// The text, which needs the grant `secrets.reveal`.
    ///
    /// # Errors
    /// When that is not granted.
    pub fn reveal(&self) -> Result<String, Refusal> {
        Ok(self.0.reveal()?)
    }
}
