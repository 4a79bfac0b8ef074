//! Length-prefixed, checksummed frames over a byte buffer. Pure: no socket is touched here.
//!
//! ```text
//! ┌──────────────┬──────────────┬───────────┐
//! │ length u32le │ CRC-32 u32le │  payload  │
//! └──────────────┴──────────────┴───────────┘
//! ```

use bytes::{Buf, Bytes, BytesMut};
use serde::Serialize;

use crate::{IpcError, codec};

/// Bytes in front of each payload.
pub const FRAME_HEADER_BYTES: usize = 8;
/// Largest payload either side accepts. A snapshot page and a batch of maximal bodies stay below it.
pub const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Appends one frame holding `payload` to `buffer`.
pub fn write(payload: &[u8], buffer: &mut Vec<u8>) -> Result<(), IpcError> {
    let start = begin(buffer);
    buffer.extend_from_slice(payload);
    finish(buffer, start)
}

/// Appends one frame holding the MessagePack of `message` to `buffer`.
pub fn write_message<T: Serialize>(message: &T, buffer: &mut Vec<u8>) -> Result<(), IpcError> {
    let start = begin(buffer);
    if let Err(error) = codec::encode_into(message, buffer) {
        buffer.truncate(start);
        return Err(error);
    }
    finish(buffer, start)
}

/// Appends one frame holding what `payload` appends to `buffer`.
pub(crate) fn write_with(buffer: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) -> Result<(), IpcError> {
    let start = begin(buffer);
    payload(buffer);
    finish(buffer, start)
}

/// Takes the next complete payload off the front of `buffer`, or `None` when more bytes are needed.
///
/// After an error the stream is out of step and must be closed.
pub fn take(buffer: &mut BytesMut) -> Result<Option<Bytes>, IpcError> {
    let Some(header) = buffer.get(..FRAME_HEADER_BYTES) else { return Ok(None) };
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let expected = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    check_length(length)?;
    if buffer.len() < FRAME_HEADER_BYTES + length {
        buffer.reserve(FRAME_HEADER_BYTES + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(FRAME_HEADER_BYTES);
    let payload = buffer.split_to(length).freeze();
    let found = crc32fast::hash(&payload);
    if found != expected {
        return Err(IpcError::FrameDamaged { length_bytes: length as u64, found, expected });
    }
    Ok(Some(payload))
}

fn begin(buffer: &mut Vec<u8>) -> usize {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    start
}

fn finish(buffer: &mut Vec<u8>, start: usize) -> Result<(), IpcError> {
    let payload_start = start + FRAME_HEADER_BYTES;
    let length = buffer.len() - payload_start;
    if let Err(error) = check_length(length) {
        buffer.truncate(start);
        return Err(error);
    }
    let checksum = crc32fast::hash(&buffer[payload_start..]);
    let length = length as u32; // checked above: at most FRAME_BYTES_MAX
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    buffer[start + 4..payload_start].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

fn check_length(length: usize) -> Result<(), IpcError> {
    if length > FRAME_BYTES_MAX {
        return Err(IpcError::FrameTooLarge {
            length_bytes: length as u64,
            max_bytes: FRAME_BYTES_MAX as u64,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_survive_any_split(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..8), cut in 1usize..97) {
            let mut wire = Vec::new();
            for payload in &payloads {
                write(payload, &mut wire).unwrap();
            }
            let mut buffer = BytesMut::new();
            let mut found = Vec::new();
            for piece in wire.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(payload) = take(&mut buffer).unwrap() {
                    found.push(payload.to_vec());
                }
            }
            prop_assert_eq!(found, payloads);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn a_flipped_payload_bit_is_noticed(payload in prop::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut wire = Vec::new();
            write(&payload, &mut wire).unwrap();
            let at = FRAME_HEADER_BYTES + at.index(payload.len());
            wire[at] ^= 1 << bit;
            let damaged = matches!(take(&mut BytesMut::from(&wire[..])), Err(IpcError::FrameDamaged { .. }));
            prop_assert!(damaged);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take(&mut buffer) {}
        }
    }

    #[test]
    fn an_announced_length_of_four_gigabytes_is_refused_without_allocating() {
        let mut buffer = BytesMut::from(&[0xff; 12][..]);
        let error = take(&mut buffer).unwrap_err();
        assert_eq!(error.to_string(), "frame of 4294967295 bytes refused: at most 67108864 are accepted");
        assert!(buffer.capacity() < 1024);
    }
}
