//! Bytes from the other side of a socket: no panic, no allocation beyond the frame.

use aegis_ipc::{brief, codec, control, frame, operator};
use bytes::BytesMut;

/// What a target does with the bytes it is given.
pub(crate) fn body(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(payload)) = frame::take(&mut buffer) {
        let _ = brief::read_to_store(&payload);
        let _ = brief::read_from_store(&payload);
    }
    let _ = brief::read_to_store(bytes);
    let _ = brief::read_from_store(bytes);
    let _ = codec::decode::<control::ToChild>(bytes);
    let _ = codec::decode::<control::ToSupervisor>(bytes);
    let _ = codec::decode::<operator::Request>(bytes);
}
