//! Bytes from the other side of a socket: no panic, no allocation beyond the frame.

use aegis_ipc::{codec, control, data, frame, operator};
use bytes::BytesMut;

/// What a target does with the bytes it is given.
pub(crate) fn body(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(payload)) = frame::take(&mut buffer) {
        let _ = codec::decode::<data::ToStore>(&payload);
        let _ = codec::decode::<data::FromStore>(&payload);
    }
    let _ = codec::decode::<data::ToStore>(bytes);
    let _ = codec::decode::<data::FromStore>(bytes);
    let _ = codec::decode::<control::ToChild>(bytes);
    let _ = codec::decode::<control::ToSupervisor>(bytes);
    let _ = codec::decode::<operator::Request>(bytes);
}
