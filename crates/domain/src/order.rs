//! The one order of all JSON values, and the bytes that carry it.
//!
//! missing < null < false < true < numbers < timestamps < texts < objects < arrays. Numbers are compared exactly, as the
//! decimals they are written as; texts by their UTF-8 bytes (code points); objects as lists of properties sorted by
//! name; arrays item by item.
//!
//! A [`Key`] is its canonical bytes: comparing two keys is comparing bytes, equal values have equal bytes, and an
//! index, a sort and a cursor can therefore never disagree. Layout, first byte first:
//!
//! ```text
//! 10                      missing
//! 20                      null
//! 30 00 | 30 01           false, true
//! 40 …                    number: sign and power of ten, two digits to a byte, 00; negative numbers inverted
//! 4f ssssssss nnnn        point in time: seconds since 1970 with the sign bit flipped, nanoseconds
//! 50 …                    text, UTF-8 (inside an object or array: 00 written as 00 ff, 00 00 at the end)
//! 60 (01 name value)* 00  object
//! 70 (01 value)* 00       array
//! ```

use std::{borrow::Borrow, fmt, sync::Arc};

use serde_json::Value;

mod times;

pub(crate) use times::Times;

use crate::{
    json::{self, Decimal},
    raw,
    spec::FieldKind,
    timestamp::{self, Instant},
};

/// Bytes of a key that sorts and indexes look at. Texts that agree in so many bytes are ties, which keeps cursors and
/// indexes small whatever people store; filters always look at the whole value. 8 sort fields of this size still make
/// a cursor that fits into a request target of 8 KiB.
pub const KEY_BYTES_MAX: usize = 512;

/// First byte of a key: what the value is.
pub(crate) mod tag {
    pub(crate) const MISSING: u8 = 0x10;
    pub(crate) const NULL: u8 = 0x20;
    pub(crate) const BOOLEAN: u8 = 0x30;
    pub(crate) const NUMBER: u8 = 0x40;
    pub(crate) const INSTANT: u8 = 0x4f;
    pub(crate) const TEXT: u8 = 0x50;
    pub(crate) const OBJECT: u8 = 0x60;
    pub(crate) const ARRAY: u8 = 0x70;
}

/// A value, as something to be compared. 24 bytes; short keys (numbers, points in time, texts up to 21 bytes) need no
/// allocation, long ones are shared by their clones.
#[derive(Clone)]
pub struct Key(Repr);

const INLINE_BYTES_MAX: usize = 22;

#[derive(Clone)]
enum Repr {
    Inline { length: u8, bytes: [u8; INLINE_BYTES_MAX] },
    Shared(Arc<[u8]>),
}

impl Key {
    /// The key of a value in a field of this kind; `None` is a missing value. The kind matters for timestamps only: a
    /// text that is one (RFC 3339) is compared as a point in time.
    #[must_use]
    pub fn of(kind: FieldKind, value: Option<&Value>) -> Self {
        let mut bytes = Vec::new();
        write(kind, value, &mut bytes);
        Self::from_canonical(&bytes)
    }

    /// The same for a value as it is written in a stored document.
    #[must_use]
    pub fn of_raw(kind: FieldKind, value: Option<&[u8]>) -> Self {
        let mut bytes = Vec::new();
        write_raw(kind, value, &mut bytes);
        Self::from_canonical(&bytes)
    }

    /// The key that has these bytes, which came from [`Key::as_bytes`].
    #[must_use]
    pub fn from_canonical(canonical: &[u8]) -> Self {
        if let Some(length) =
            u8::try_from(canonical.len()).ok().filter(|_| canonical.len() <= INLINE_BYTES_MAX)
        {
            let mut bytes = [0; INLINE_BYTES_MAX];
            bytes[..canonical.len()].copy_from_slice(canonical);
            Self(Repr::Inline { length, bytes })
        } else {
            Self(Repr::Shared(canonical.into()))
        }
    }

    /// The canonical bytes. Their order is the order of keys.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { length, bytes } => &bytes[..usize::from(*length)],
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Key({})", self.as_bytes().escape_ascii())
    }
}

/// Appends the canonical bytes of a value.
pub(crate) fn write(kind: FieldKind, value: Option<&Value>, out: &mut Vec<u8>) {
    match value {
        None => out.push(tag::MISSING),
        Some(Value::String(text)) => write_text(kind, text, out),
        Some(value) => write_nested(value, out),
    }
}

/// Appends the canonical bytes of a value as it is written in a stored document.
pub(crate) fn write_raw(kind: FieldKind, value: Option<&[u8]>, out: &mut Vec<u8>) {
    match value.map(|raw| (raw, raw.first())) {
        None | Some((_, None)) => out.push(tag::MISSING),
        Some((_, Some(b'n'))) => out.push(tag::NULL),
        Some((_, Some(b't'))) => out.extend_from_slice(&[tag::BOOLEAN, 1]),
        Some((_, Some(b'f'))) => out.extend_from_slice(&[tag::BOOLEAN, 0]),
        Some((raw, Some(b'"'))) if kind == FieldKind::Timestamp => {
            write_text(kind, &raw::text(raw), out);
        }
        Some((raw, Some(b'"'))) => {
            out.push(tag::TEXT);
            out.extend_from_slice(raw::text(raw).as_bytes());
        }
        Some((raw, Some(b'{' | b'['))) => match json::parse(raw) {
            Ok(value) => write_nested(&value, out),
            // Stored documents are well-formed; whatever is not has no value.
            Err(_) => out.push(tag::MISSING),
        },
        Some((raw, Some(_))) => {
            out.push(tag::NUMBER);
            write_number(Decimal::of_text(std::str::from_utf8(raw).unwrap_or("0")), out);
        }
    }
}

/// Appends the canonical bytes of a text.
pub(crate) fn write_text(kind: FieldKind, text: &str, out: &mut Vec<u8>) {
    if kind == FieldKind::Timestamp
        && let Some(instant) = timestamp::instant(text)
    {
        return write_instant(instant, out);
    }
    out.push(tag::TEXT);
    out.extend_from_slice(text.as_bytes());
}

/// Appends the canonical bytes of a point in time.
pub(crate) fn write_instant(Instant { seconds, nanoseconds }: Instant, out: &mut Vec<u8>) {
    out.push(tag::INSTANT);
    out.extend_from_slice(&(seconds ^ i64::MIN).to_be_bytes());
    out.extend_from_slice(&nanoseconds.to_be_bytes());
}

fn write_nested(value: &Value, out: &mut Vec<u8>) {
    write_typed(value, None, out);
}

/// Appends the canonical bytes of a value that others can follow, in which these texts are points in time.
fn write_typed(value: &Value, times: Option<&Times>, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(tag::NULL),
        Value::Bool(flag) => out.extend_from_slice(&[tag::BOOLEAN, u8::from(*flag)]),
        Value::Number(number) => {
            out.push(tag::NUMBER);
            write_number(Decimal::of(number), out);
        }
        Value::String(text) => {
            let instant = times.filter(|times| times.is_time()).and_then(|_| timestamp::instant(text));
            match instant {
                Some(instant) => write_instant(instant, out),
                None => {
                    out.push(tag::TEXT);
                    write_delimited(text.as_bytes(), out);
                }
            }
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| name.as_str());
            out.push(tag::OBJECT);
            for (name, value) in members {
                out.push(1);
                write_delimited(name.as_bytes(), out);
                write_typed(value, times.and_then(|times| times.member(name)), out);
            }
            out.push(0);
        }
        Value::Array(items) => {
            out.push(tag::ARRAY);
            for item in items {
                out.push(1);
                write_typed(item, times.and_then(Times::items), out);
            }
            out.push(0);
        }
    }
}

/// Appends bytes so that something can follow them without disturbing the order.
pub(crate) fn write_delimited(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(0, rest) {
        out.extend_from_slice(&rest[..=at]);
        out.push(0xff);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(&[0, 0]);
}

/// Powers of ten that fit into the first byte of a number, together with its sign.
const SMALL_POWERS: std::ops::RangeInclusive<i64> = -32..=80;

fn write_number(number: Decimal<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    if number.is_zero() {
        out.push(0x80);
        return;
    }
    let power = number.magnitude();
    if SMALL_POWERS.contains(&power) {
        out.push(
            u8::try_from(0x82 + power - SMALL_POWERS.start()).expect("113 powers from 0x82 end at 0xf2"),
        );
    } else {
        out.push(if power < 0 { 0x81 } else { 0xff });
        out.extend_from_slice(&(power ^ i64::MIN).to_be_bytes());
    }
    // Two digits to a byte, from 01 for "00" up, so that the 00 at the end makes the shorter one of two the smaller.
    // Zeros at the end do not count, and are not known to be at the end before the end.
    let mut digits = number.digits().filter(u8::is_ascii_digit);
    let mut zero_pairs = 0;
    while let Some(first) = digits.next() {
        let pair = (first - b'0') * 10 + digits.next().map_or(0, |second| second - b'0');
        if pair == 0 {
            zero_pairs += 1;
        } else {
            out.resize(out.len() + std::mem::take(&mut zero_pairs), 1);
            out.push(pair + 1);
        }
    }
    out.push(0);
    if number.is_negative() {
        out[start..].iter_mut().for_each(|byte| *byte = !*byte);
    }
}

#[cfg(test)]
pub(crate) mod tests;
