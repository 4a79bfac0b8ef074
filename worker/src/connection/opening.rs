//! The beginning of a request head, kept to say what is wrong with its target.
//!
//! hyper refuses a target with a character that may not be there, and does not say which. Most often it is JSON in a query,
//! as it is written in examples.

use std::fmt;

use http::uri::PathAndQuery;

/// Bytes that are kept. What comes behind them is refused in general words.
const KEPT_BYTES_MAX: usize = 256;

/// The first bytes of the request head that is being received, as far as reads tell where it began.
#[derive(Debug)]
pub(super) struct Opening {
    kept: [u8; KEPT_BYTES_MAX],
    length: usize,
}

/// A character that may not be in a request target as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Misplaced(u8);

impl Opening {
    pub(super) fn new() -> Self {
        Self { kept: [0; KEPT_BYTES_MAX], length: 0 }
    }

    /// A head begins: what comes now is its beginning.
    pub(super) fn begin(&mut self) {
        self.length = 0;
    }

    /// The head goes on.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let room = &mut self.kept[self.length..];
        let length = bytes.len().min(room.len());
        room[..length].copy_from_slice(&bytes[..length]);
        self.length += length;
    }

    /// The first character for which hyper refuses the target; nothing if that is not certain.
    pub(super) fn misplaced(&self) -> Option<Misplaced> {
        let target = target(&self.kept[..self.length])?;
        // Nobody looks at what follows a fragment sign.
        let seen = target.split(|byte| *byte == b'#').next()?;
        let mut before: &[u8] = b"/";
        for byte in seen {
            if byte.is_ascii() && PathAndQuery::try_from([before, &[*byte]].concat()).is_err() {
                return Some(Misplaced(*byte));
            }
            if *byte == b'?' {
                before = b"/?";
            }
        }
        None
    }
}

/// The target of a request, as far as it is there; nothing if this is not the beginning of a request.
fn target(head: &[u8]) -> Option<&[u8]> {
    let end = head.iter().position(|byte| *byte == b'\n');
    let line = head[..end.unwrap_or(head.len())].trim_ascii_end();
    let method_end = line.iter().position(|byte| !byte.is_ascii_uppercase()).filter(|end| *end > 0)?;
    let rest = line[method_end..].strip_prefix(b" ").filter(|rest| rest.starts_with(b"/"))?;
    let whole = rest.strip_suffix(b" HTTP/1.1").or_else(|| rest.strip_suffix(b" HTTP/1.0"));
    // Without the version behind it, a space may be its end as well as a mistake.
    whole.or_else(|| rest.split(|byte| *byte == b' ').next())
}

impl fmt::Display for Misplaced {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            b' ' => formatter.write_str("a space")?,
            byte if byte.is_ascii_graphic() => write!(formatter, "'{}'", char::from(byte))?,
            byte => write!(formatter, "the byte 0x{byte:02x}")?,
        }
        write!(formatter, ", expected it percent-encoded as %{:02X}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pieces: &[&[u8]]) -> Option<String> {
        let mut opening = Opening::new();
        opening.add(b"what was before");
        opening.begin();
        pieces.iter().for_each(|piece| opening.add(piece));
        opening.misplaced().map(|misplaced| misplaced.to_string())
    }

    #[test]
    fn the_first_character_that_is_refused_is_told_however_it_arrives() {
        let head = b"GET /x{}\"?__aggregate=[{\"$count\":\"n\"}] HTTP/1.1\r\nhost: x\r\n\r\n";
        let expected = Some("'\"', expected it percent-encoded as %22".to_owned());
        let quote = head.iter().position(|byte| *byte == b'[').unwrap() + 3;
        for cut in 0..head.len() {
            assert_eq!(told(&[&head[..cut], &head[cut..]]), expected, "{cut}");
            assert_eq!(told(&[&head[..cut]]), expected.clone().filter(|_| cut >= quote), "{cut}");
        }
    }

    #[test]
    fn a_character_is_told_as_it_looks() {
        let shown = |target: &str| told(&[format!("GET {target} HTTP/1.1\r\n").as_bytes()]);
        let told =
            ["/a b", "/a`b", "/a?b=<c>", "/a?b=\t", "/a?b=\u{7f}"].map(|target| shown(target).unwrap());
        insta::assert_snapshot!(told.join("\n"), @"
        a space, expected it percent-encoded as %20
        '`', expected it percent-encoded as %60
        '<', expected it percent-encoded as %3C
        the byte 0x09, expected it percent-encoded as %09
        the byte 0x7f, expected it percent-encoded as %7F
        ");
        assert_eq!(["/a?b={[|^`]}", "/\u{e9}?\u{e9}", "/a#\"", "/"].map(shown), [const { None }; 4]);
    }

    #[test]
    fn nothing_is_told_of_what_does_not_begin_like_a_request() {
        for head in [
            "",
            "GET",
            "GET /",
            "\"a\" /\"",
            "n\"}] HTTP/1.1\r\n",
            "GET \"",
            "get /?\"",
            "GET  /?\"",
            " /?\"",
        ] {
            assert_eq!(told(&[head.as_bytes()]), None, "{head}");
        }
        // A space may be the end of the target as long as the end of the line is not there.
        assert_eq!(told(&[b"GET /a b"]), None);
        let far = format!("GET /?{}\" HTTP/1.1\r\n", "a".repeat(KEPT_BYTES_MAX));
        assert_eq!(told(&[far.as_bytes()]), None);
    }

    #[test]
    fn what_is_told_is_refused_and_what_is_not_is_accepted() {
        for byte in 0x21..0x7f {
            for target in [[b'/', byte].as_slice(), &[b'/', b'?', byte]] {
                let head = [b"GET ", target, b" HTTP/1.1\r\n"].concat();
                assert_eq!(told(&[&head]).is_some(), http::Uri::try_from(target).is_err(), "{byte}");
            }
        }
    }
}
