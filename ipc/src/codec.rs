//! MessagePack in and out, with named fields so that neighbouring versions understand each other.

use serde::{Serialize, de::DeserializeOwned};

use crate::IpcError;

/// Encodes `message` as a MessagePack map.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, IpcError> {
    rmp_serde::to_vec_named(message)
        .map_err(|source| IpcError::Encode { what: std::any::type_name::<T>(), source })
}

/// Appends the MessagePack map of `message` to `buffer`.
pub fn encode_into<T: Serialize>(message: &T, buffer: &mut Vec<u8>) -> Result<(), IpcError> {
    rmp_serde::encode::write_named(buffer, message)
        .map_err(|source| IpcError::Encode { what: std::any::type_name::<T>(), source })
}

/// Decodes one message from exactly `bytes`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, IpcError> {
    rmp_serde::from_slice(bytes)
        .map_err(|source| IpcError::Decode { what: std::any::type_name::<T>(), source })
}
