//! Documents as modules see them.

use serde_json::Value;

use crate::{Refusal, bindings::aegis::module::types};

/// A JSON object: the properties of a document, in their order. One that is not there reads as `null`.
pub type Document = Value;

/// A stored document.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity {
    /// Its id.
    pub id: String,
    /// Name of its model, upper case.
    pub model: String,
    /// Grows with every change, from 1.
    pub revision: u64,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// When it was changed last, milliseconds since 1970.
    pub updated_ms: u64,
    /// What is in it.
    pub data: Document,
}

impl TryFrom<types::Entity> for Entity {
    type Error = Refusal;

    fn try_from(entity: types::Entity) -> Result<Self, Refusal> {
        Ok(Self {
            id: entity.id,
            model: entity.model,
            revision: entity.revision,
            created_ms: entity.created,
            updated_ms: entity.updated,
            data: serde_json::from_str(&entity.data)?,
        })
    }
}
