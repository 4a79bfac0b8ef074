//! Cursors: where a list goes on, opaque to clients.
//!
//! ```text
//! base64url( version 01 │ fingerprint of the query, 8 │ place of the last row, … │ check, 8 )
//! ```
//!
//! The place is keys and id of the last row (see [`super::sort`]), so a cursor stays right whatever is written in the
//! meantime. The check finds mistakes in transport and casual changes; it is no signature and needs none: a cursor says
//! nothing that its holder could not ask for with filters.

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};

/// Bytes of a cursor as it is sent.
pub const CURSOR_BYTES_MAX: usize = 16 * 1024;

const VERSION: u8 = 1;
const HASH_BYTES: usize = 8;

/// What tells one query from another.
pub(crate) type Fingerprint = [u8; HASH_BYTES];

/// The fingerprint of a query: its model, and its parameters that decide which rows come in which order.
pub(crate) fn fingerprint<'a>(
    model: &str,
    parameters: impl IntoIterator<Item = &'a (String, String)>,
) -> Fingerprint {
    let mut hash = Sha256::new();
    let mut feed = |text: &str| {
        hash.update(u64::try_from(text.len()).expect("a length has at most 64 bits").to_be_bytes());
        hash.update(text);
    };
    feed(model);
    for (name, value) in parameters {
        feed(name);
        feed(value);
    }
    shorten(hash)
}

fn check(fingerprint: Fingerprint, place: &[u8]) -> Fingerprint {
    shorten(Sha256::new().chain_update(b"aegis cursor").chain_update(fingerprint).chain_update(place))
}

fn shorten(hash: Sha256) -> Fingerprint {
    let mut short = [0; HASH_BYTES];
    short.copy_from_slice(&hash.finalize()[..HASH_BYTES]);
    short
}

/// The cursor that goes on after a place.
pub(crate) fn encode(fingerprint: Fingerprint, place: &[u8]) -> String {
    let check = check(fingerprint, place);
    BASE64URL_NOPAD.encode(&[&[VERSION], &fingerprint[..], place, &check[..]].concat())
}

/// The place of a cursor.
///
/// # Errors
/// What was found instead of a cursor of this query.
pub(crate) fn decode(fingerprint: Fingerprint, cursor: &str) -> Result<Vec<u8>, &'static str> {
    const DAMAGED: &str = "a damaged cursor";
    if cursor.len() > CURSOR_BYTES_MAX {
        return Err(DAMAGED);
    }
    let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).map_err(|_| DAMAGED)?;
    let (its_fingerprint, rest) =
        bytes.strip_prefix(&[VERSION]).and_then(<[u8]>::split_first_chunk::<HASH_BYTES>).ok_or(DAMAGED)?;
    let (place, its_check) = rest.split_last_chunk::<HASH_BYTES>().ok_or(DAMAGED)?;
    if *its_check != check(*its_fingerprint, place) {
        return Err(DAMAGED);
    }
    if *its_fingerprint != fingerprint {
        return Err("a cursor of another query");
    }
    Ok(place.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_is_read_back_by_its_query_only(place in proptest::collection::vec(any::<u8>(), 0..40)) {
            let (one, other) = (fingerprint("A", []), fingerprint("B", []));
            let cursor = encode(one, &place);
            prop_assert_eq!(decode(other, &cursor), Err("a cursor of another query"));
            prop_assert_eq!(decode(one, &cursor), Ok(place));
        }

        #[test]
        fn every_changed_character_is_noticed(at in 0_usize..64, to in "[A-Za-z0-9_-]") {
            let fingerprint = fingerprint("A", [&("__sort".to_owned(), "a".to_owned())]);
            let cursor = encode(fingerprint, b"a place with an id in it");
            let at = at % cursor.len();
            let changed = format!("{}{to}{}", &cursor[..at], &cursor[at + 1..]);
            prop_assert_eq!(decode(fingerprint, &changed).is_ok(), changed == cursor);
        }

        #[test]
        fn arbitrary_texts_are_damaged(text in ".{0,60}") {
            prop_assert_eq!(decode(fingerprint("A", []), &text), Err("a damaged cursor"));
        }
    }
}
