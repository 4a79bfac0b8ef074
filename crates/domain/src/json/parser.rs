//! A recursive descent parser, one pass, no copy of texts without escapes before they are stored.

use serde_json::{Map, Number, Value};

use super::{DEPTH_MAX, NUMBER_BYTES_MAX, RESERVED_PREFIX, shorten};

/// Properties for which the outermost object has room from the start; nested ones grow as needed, so that
/// many small objects stay small.
const OUTERMOST_CAPACITY: usize = 16;

/// What is wrong, and at which byte.
pub(super) struct Fault {
    pub(super) at: usize,
    pub(super) message: String,
}

pub(super) fn parse(input: &[u8]) -> Result<Value, Fault> {
    let text = std::str::from_utf8(input).map_err(|error| Fault {
        at: error.valid_up_to(),
        message: format!("found the byte 0x{:02x}, expected UTF-8", input[error.valid_up_to()]),
    })?;
    let mut parser = Parser { text, bytes: input, at: 0 };
    parser.skip_space();
    let value = parser.value(0)?;
    parser.skip_space();
    if parser.at < input.len() { Err(parser.unexpected("the end of the input")) } else { Ok(value) }
}

/// Line and column of a byte, both from 1; columns count characters.
pub(super) fn position(input: &[u8], at: usize) -> (usize, usize) {
    let before = &input[..at.min(input.len())];
    let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let is_character_start = |byte: &&u8| **byte & 0b1100_0000 != 0b1000_0000;
    (line, 1 + before[line_start..].iter().filter(is_character_start).count())
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn fault(&self, message: impl Into<String>) -> Fault {
        Fault { at: self.at, message: message.into() }
    }

    fn unexpected(&self, expected: &str) -> Fault {
        let found = match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            None => "the end".to_owned(),
            Some('\u{feff}') => "a byte order mark".to_owned(),
            Some(character) => format!("{character:?}"),
        };
        self.fault(format!("found {found}, expected {expected}"))
    }

    fn value(&mut self, depth: usize) -> Result<Value, Fault> {
        match self.peek() {
            Some(b'{') => self.object(self.deeper(depth)?),
            Some(b'[') => self.array(self.deeper(depth)?),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true", Value::Bool(true)),
            Some(b'f') => self.literal("false", Value::Bool(false)),
            Some(b'n') => self.literal("null", Value::Null),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn deeper(&self, depth: usize) -> Result<usize, Fault> {
        if depth == DEPTH_MAX {
            return Err(self.fault(format!("found level {}, expected at most {DEPTH_MAX}", depth + 1)));
        }
        Ok(depth + 1)
    }

    fn literal(&mut self, literal: &str, value: Value) -> Result<Value, Fault> {
        if !self.bytes[self.at..].starts_with(literal.as_bytes()) {
            return Err(self.fault(format!("found an unknown word, expected {literal}")));
        }
        self.at += literal.len();
        Ok(value)
    }

    fn object(&mut self, depth: usize) -> Result<Value, Fault> {
        self.at += 1;
        let mut members = if depth == 1 { Map::with_capacity(OUTERMOST_CAPACITY) } else { Map::new() };
        self.skip_space();
        if self.take(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            let name_at = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("a property name in double quotes"));
            }
            let name = self.string()?;
            if name.starts_with(RESERVED_PREFIX) {
                let message =
                    format!("found the reserved property name {:?}, expected another", shorten(&name));
                return Err(Fault { at: name_at, message });
            }
            self.skip_space();
            if !self.take(b':') {
                return Err(self.unexpected("':' after the property name"));
            }
            self.skip_space();
            let value = self.value(depth)?;
            self.skip_space();
            match members.entry(name) {
                serde_json::map::Entry::Vacant(place) => {
                    place.insert(value);
                }
                serde_json::map::Entry::Occupied(place) => {
                    let name = shorten(place.key());
                    let message = format!("found the property {name:?} a second time, expected it once");
                    return Err(Fault { at: name_at, message });
                }
            }
            if self.take(b'}') {
                return Ok(Value::Object(members));
            }
            if !self.take(b',') {
                return Err(self.unexpected("',' or '}'"));
            }
            self.skip_space();
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, Fault> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.take(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth)?);
            self.skip_space();
            if self.take(b']') {
                return Ok(Value::Array(items));
            }
            if !self.take(b',') {
                return Err(self.unexpected("',' or ']'"));
            }
            self.skip_space();
        }
    }

    fn number(&mut self) -> Result<Value, Fault> {
        let start = self.at;
        self.take(b'-');
        if self.take(b'0') {
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.unexpected("no digit after a leading zero"));
            }
        } else {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        let text = &self.text[start..self.at];
        if text.len() > NUMBER_BYTES_MAX {
            let message =
                format!("found a number of {} characters, expected at most {NUMBER_BYTES_MAX}", text.len());
            return Err(Fault { at: start, message });
        }
        // The public constructors respell the exponent (`1E5` becomes `1e+5`). This one takes the text as it
        // is, and the text has just been checked against the grammar of JSON numbers.
        Ok(Value::Number(Number::from_string_unchecked(text.to_owned())))
    }

    fn digits(&mut self) -> Result<(), Fault> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.unexpected("a digit")) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<String, Fault> {
        self.at += 1;
        let start = self.at;
        self.skip_plain()?;
        let plain = &self.text[start..self.at];
        if self.take(b'"') {
            return Ok(plain.to_owned());
        }
        let mut text = plain.to_owned();
        loop {
            // `skip_plain` stops only at a quote, which ends the text, or at a backslash.
            if self.take(b'"') {
                return Ok(text);
            }
            self.at += 1;
            text.push(self.escape()?);
            let start = self.at;
            self.skip_plain()?;
            text.push_str(&self.text[start..self.at]);
        }
    }

    /// Moves to the next quote or backslash.
    fn skip_plain(&mut self) -> Result<(), Fault> {
        while let Some(byte) = self.peek() {
            match byte {
                b'"' | b'\\' => return Ok(()),
                0..=0x1f => return Err(self.unexpected("an escape instead of a control character")),
                _ => self.at += 1,
            }
        }
        Err(self.unexpected("'\"' at the end of the text"))
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let plain = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.unexpected("one of \" \\ / b f n r t u after a backslash")),
        };
        self.at += 1;
        Ok(plain)
    }

    fn unicode_escape(&mut self) -> Result<char, Fault> {
        let escape_at = self.at - 1;
        let half =
            |what| Fault { at: escape_at, message: format!("found {what}, expected a surrogate pair") };
        let high = self.hex_unit()?;
        let code = match high {
            0xd800..=0xdbff => {
                if !self.bytes[self.at..].starts_with(b"\\u") {
                    return Err(half("a high surrogate alone"));
                }
                self.at += 1;
                let low = self.hex_unit()?;
                if !(0xdc00..=0xdfff).contains(&low) {
                    return Err(half("a high surrogate alone"));
                }
                0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
            }
            0xdc00..=0xdfff => return Err(half("a low surrogate alone")),
            code => code,
        };
        char::from_u32(code).ok_or_else(|| half("half a character"))
    }

    /// Reads `uXXXX`.
    fn hex_unit(&mut self) -> Result<u32, Fault> {
        self.at += 1;
        let mut unit = 0;
        for _ in 0..4 {
            let digit = self.peek().and_then(|byte| char::from(byte).to_digit(16));
            unit = unit * 16 + digit.ok_or_else(|| self.unexpected("four hexadecimal digits"))?;
            self.at += 1;
        }
        Ok(unit)
    }
}
