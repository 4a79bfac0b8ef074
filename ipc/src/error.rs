//! What can go wrong between the processes.

use std::io;

/// An error of the inter-process contract. Every variant names the operation and its object.
#[derive(Debug, thiserror::Error)]
pub enum IpcError {
    /// A frame announced more bytes than this side accepts.
    #[error("frame of {length_bytes} bytes refused: at most {max_bytes} are accepted")]
    FrameTooLarge {
        /// Announced payload length.
        length_bytes: u64,
        /// Largest accepted payload length.
        max_bytes: u64,
    },
    /// The payload does not match the checksum in front of it.
    #[error("frame of {length_bytes} bytes is damaged: checksum {found:08x}, expected {expected:08x}")]
    FrameDamaged {
        /// Payload length.
        length_bytes: u64,
        /// Checksum computed over the payload.
        found: u32,
        /// Checksum carried by the frame.
        expected: u32,
    },
    /// A payload is not the MessagePack of the expected message.
    #[error("cannot decode {what}")]
    Decode {
        /// Type of the message that was expected.
        what: &'static str,
        /// Why decoding failed.
        #[source]
        source: rmp_serde::decode::Error,
    },
    /// A message could not be encoded.
    #[error("cannot encode {what}")]
    Encode {
        /// Type of the message.
        what: &'static str,
        /// Why encoding failed.
        #[source]
        source: rmp_serde::encode::Error,
    },
    /// A system call on a socket, memory file or descriptor failed.
    #[error("{operation} failed")]
    Os {
        /// What was attempted, with its object.
        operation: String,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// A shared or inherited object does not have the expected shape.
    #[error("{object}: found {found}, expected {expected}")]
    Unexpected {
        /// The object looked at.
        object: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
}

impl IpcError {
    /// Wraps the failure of a system call.
    pub fn os(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Os { operation: operation.into(), source: source.into() }
    }
}
