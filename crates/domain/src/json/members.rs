//! The properties of an object, without reading their values.

use std::borrow::Cow;

/// One property: its name, and its value as it is written.
pub type Member<'a> = (Cow<'a, str>, &'a [u8]);

/// Walks over the outermost properties of an object that is known to be well-formed (a stored document).
///
/// Values are skipped by their brackets and quotes only. Bytes that are no object yield an error or wrong
/// members, never a panic.
#[derive(Debug, Clone)]
pub struct Members<'a> {
    bytes: &'a [u8],
    at: usize,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Inside,
    End,
}

impl<'a> Members<'a> {
    /// Starts at the opening brace.
    #[must_use]
    pub fn new(object: &'a [u8]) -> Self {
        Self { bytes: object, at: 0, place: Place::Start }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        self.skip_space();
        if self.peek() != Some(byte) {
            return Err(format!("byte {}: expected {:?}", self.at, char::from(byte)));
        }
        self.at += 1;
        Ok(())
    }

    /// Skips a text whose opening quote is at the current place; returns what is between the quotes.
    fn skip_text(&mut self) -> Result<&'a [u8], String> {
        self.expect(b'"')?;
        let start = self.at;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => {
                    self.at += 1;
                    return Ok(&self.bytes[start..self.at - 1]);
                }
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        Err(format!("byte {start}: expected '\"' at the end of the text"))
    }

    fn skip_value(&mut self) -> Result<&'a [u8], String> {
        self.skip_space();
        let start = self.at;
        let mut open = 0_usize;
        loop {
            match self.peek() {
                None => return Err(format!("byte {start}: expected the end of the value")),
                Some(b'"') => {
                    self.skip_text()?;
                }
                Some(b'{' | b'[') => {
                    open += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') if open > 0 => {
                    open -= 1;
                    self.at += 1;
                }
                Some(b',' | b'}' | b']') if open == 0 => break,
                Some(_) => {
                    self.at += 1;
                    continue;
                }
            }
            if open == 0 {
                break;
            }
        }
        let value = self.bytes.get(start..self.at).unwrap_or_default().trim_ascii_end();
        if value.is_empty() { Err(format!("byte {start}: expected a value")) } else { Ok(value) }
    }

    fn member(&mut self) -> Result<Option<Member<'a>>, String> {
        if self.place == Place::Start {
            self.expect(b'{')?;
            self.place = Place::Inside;
            self.skip_space();
            if self.peek() == Some(b'}') {
                self.place = Place::End;
            }
        } else if self.place == Place::Inside {
            self.skip_space();
            if self.peek() == Some(b'}') {
                self.place = Place::End;
            } else {
                self.expect(b',')?;
            }
        }
        if self.place == Place::End {
            return Ok(None);
        }
        self.skip_space();
        let name_at = self.at;
        let name = self.skip_text()?;
        let name = if name.contains(&b'\\') {
            serde_json::from_slice(&self.bytes[name_at..self.at]).map(Cow::Owned).map_err(|e| e.to_string())
        } else {
            std::str::from_utf8(name).map(Cow::Borrowed).map_err(|e| e.to_string())
        };
        let name = name.map_err(|error| format!("byte {name_at}: {error}"))?;
        self.expect(b':')?;
        Ok(Some((name, self.skip_value()?)))
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Result<Member<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let member = self.member().transpose();
        if matches!(member, Some(Err(_))) {
            self.place = Place::End;
        }
        member
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    fn read(bytes: &[u8]) -> Result<Map<String, Value>, String> {
        Members::new(bytes)
            .map(|member| {
                let (name, value) = member?;
                Ok((name.into_owned(), serde_json::from_slice(value).map_err(|error| error.to_string())?))
            })
            .collect()
    }

    #[test]
    fn values_are_cut_out_as_written() {
        let text = br#" { "a" : 1.50 , "\u0062\"" : [ "]" , {"x":"}"} ] ,"c":"\\","d":{}, "e":null } "#;
        let members: Result<Vec<_>, _> = Members::new(text).collect();
        let shown: Vec<_> = members
            .unwrap()
            .into_iter()
            .map(|(n, v)| format!("{n} = {}", String::from_utf8_lossy(v)))
            .collect();
        assert_eq!(shown, ["a = 1.50", r#"b" = [ "]" , {"x":"}"} ]"#, r#"c = "\\""#, "d = {}", "e = null"]);
        assert_eq!(Members::new(b"{}").count(), 0);
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        for bad in
            ["", "[]", "{", "{\"a\"", "{\"a\":", "{\"a\":}", "{\"a\":1", "{\"a\":1 \"b\":2}", "{\"a\":\"\\"]
        {
            assert!(read(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn members_are_those_that_a_parser_finds(members in proptest::collection::hash_map(".*", ".*", 0..6)) {
            let members: Map<String, Value> = members.into_iter().map(|(n, v)| (n, Value::from(v))).collect();
            prop_assert_eq!(read(Value::Object(members.clone()).to_string().as_bytes()), Ok(members));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Members::new(&bytes).count();
        }

        #[test]
        fn arbitrary_json_pieces_never_panic(text in r#"[{}\[\]":,\\a1 ]{0,40}"#) {
            let _ = Members::new(text.as_bytes()).count();
        }
    }
}
