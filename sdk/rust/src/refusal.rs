//! A no: the answer of a module that is well.

use serde_json::{Map, Value};

use crate::bindings::aegis::module::types::Fault;
pub use crate::bindings::aegis::module::types::FaultCode as Code;

/// Why not. The host passes code, message and details on to the client.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// What kind of no; it decides the status.
    pub code: Code,
    /// In words.
    pub message: String,
    /// Reasons by field.
    pub details: Map<String, Value>,
    /// Worth another attempt.
    pub transient: bool,
}

/// Refuses: `Err(refuse(Code::Conflict, "it is closed"))`.
#[must_use]
pub fn refuse(code: Code, message: impl Into<String>) -> Refusal {
    Refusal { code, message: message.into(), details: Map::new(), transient: false }
}

impl Refusal {
    /// With what is wrong about one field.
    #[must_use]
    pub fn detail(mut self, field: &str, reason: impl Into<Value>) -> Self {
        self.details.insert(field.to_owned(), reason.into());
        self
    }

    /// Worth another attempt.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.transient = true;
        self
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// JSON that is not of the type it is read as: `serde_json::from_value(arguments)?`.
impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        refuse(Code::Invalid, error.to_string())
    }
}

/// What the host refused to the module.
impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        let details = fault.details.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Self { code: fault.code, message: fault.message, details, transient: fault.transient }
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, message, details, transient } = refusal;
        let details = (!details.is_empty()).then(|| Value::Object(details).to_string());
        Self { code, message, details, transient }
    }
}
