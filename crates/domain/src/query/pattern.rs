//! Patterns of `like`: `%` is any text, `_` any character, `\` takes the next character as it is.
//!
//! Without `_` a pattern is texts in an order, which a regular expression finds in one pass. With `_` one
//! would have to know of each of the characters before whether the pattern may have begun there, which takes
//! text times pattern. So such a pattern is followed at all its places at once, a bit for each, in one pass
//! whatever the text is (Baeza-Yates and Gonnet, A New Approach to Text Searching, 1992).

use std::{collections::BTreeMap, sync::LazyLock};

use regex::{Regex, RegexBuilder, bytes};

/// Characters of a pattern of `like` and `ilike`.
pub(crate) const PATTERN_CHARS_MAX: usize = 256;

const WORDS: usize = PATTERN_CHARS_MAX.div_ceil(u64::BITS as usize);
/// What a pattern costs beyond the bytes of the text: about as much as so many of them.
const CALL_BYTES: u64 = 32;

/// A pattern of `like`.
#[derive(Debug, Clone)]
pub(crate) struct Pattern {
    matcher: Matcher,
    /// What a match starts with.
    prefix: String,
}

/// Whether case matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Case {
    /// It does.
    Sensitive,
    /// It does not.
    Ignored,
}

#[derive(Debug, Clone)]
enum Matcher {
    Texts(bytes::Regex),
    Places(Box<Places>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    AnyText,
    AnyCharacter,
    Character(char),
}

/// A bit for each place of a pattern, which is a piece that one character fits.
type Bits = [u64; WORDS];

/// The places of a pattern.
#[derive(Debug, Clone)]
struct Places {
    /// The places that a character of ASCII fits.
    ascii: [Bits; 128],
    /// The places that another character of the pattern fits.
    others: BTreeMap<char, Bits>,
    /// The places that any character fits.
    any: Bits,
    /// The places with any text behind them.
    lasting: Bits,
    /// 1 if any text may be in front of the first place.
    floating: u64,
    last: usize,
}

impl Pattern {
    /// Reads a pattern of SQL.
    ///
    /// # Errors
    /// What was expected instead.
    pub(crate) fn new(pattern: &str, case: Case) -> Result<Self, String> {
        if pattern.chars().count() > PATTERN_CHARS_MAX {
            return Err(format!("a pattern of at most {PATTERN_CHARS_MAX} characters"));
        }
        let pieces = pieces(pattern);
        let prefix = pieces.iter().map_while(|piece| match piece {
            Piece::Character(character) => Some(*character),
            Piece::AnyText | Piece::AnyCharacter => None,
        });
        let prefix = if case == Case::Sensitive { prefix.collect() } else { String::new() };
        let matcher = if pieces.contains(&Piece::AnyCharacter) {
            Places::new(&pieces, case).map(|places| Matcher::Places(Box::new(places)))
        } else {
            texts(&pieces, case).map(Matcher::Texts)
        };
        Ok(Self { matcher: matcher.map_err(|_| "a shorter pattern".to_owned())?, prefix })
    }

    /// What every text begins with that is like this.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether a text in UTF-8 is like this.
    pub(crate) fn fits(&self, text: &[u8]) -> bool {
        match &self.matcher {
            Matcher::Texts(regex) => regex.is_match(text),
            Matcher::Places(places) => places.fit(&String::from_utf8_lossy(text)),
        }
    }

    /// How much work a text of so many bytes is, in bytes that only have to be read.
    pub(crate) fn work(&self, text_bytes: usize) -> u64 {
        let times = match &self.matcher {
            Matcher::Texts(_) => 1,
            // Four words of bits for each character.
            Matcher::Places(_) => 4,
        };
        (CALL_BYTES + text_bytes as u64) * times
    }
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '%' if pieces.last() == Some(&Piece::AnyText) => {}
            '%' => pieces.push(Piece::AnyText),
            '_' => pieces.push(Piece::AnyCharacter),
            '\\' => pieces.push(Piece::Character(characters.next().unwrap_or('\\'))),
            _ => pieces.push(Piece::Character(character)),
        }
    }
    pieces
}

fn texts(pieces: &[Piece], case: Case) -> Result<bytes::Regex, regex::Error> {
    let mut source = String::from("\\A");
    let mut literal = [0; 4];
    for piece in pieces {
        match piece {
            Piece::AnyText => source.push_str(".*"),
            Piece::AnyCharacter => source.push('.'),
            Piece::Character(character) => {
                source.push_str(&regex::escape(character.encode_utf8(&mut literal)));
            }
        }
    }
    source.push_str("\\z");
    // Without the anchors the engine can search for the literal parts instead of reading every character.
    let source = source.strip_prefix("\\A.*").unwrap_or(&source);
    let source = source.strip_suffix(".*\\z").unwrap_or(source);
    bytes::RegexBuilder::new(source)
        .case_insensitive(case == Case::Ignored)
        .dot_matches_new_line(true)
        .size_limit(1 << 20)
        .build()
}

impl Places {
    /// The places of pieces, at least one of which is a place.
    fn new(pieces: &[Piece], case: Case) -> Result<Self, regex::Error> {
        let mut places = Self {
            ascii: [[0; WORDS]; 128],
            others: BTreeMap::new(),
            any: [0; WORDS],
            lasting: [0; WORDS],
            floating: u64::from(pieces.first() == Some(&Piece::AnyText)),
            last: 0,
        };
        let mut named: BTreeMap<char, Bits> = BTreeMap::new();
        let mut count = 0;
        for piece in pieces {
            let bits = match piece {
                Piece::AnyText if count == 0 => continue,
                Piece::AnyText => {
                    set(&mut places.lasting, count - 1);
                    continue;
                }
                Piece::AnyCharacter => &mut places.any,
                Piece::Character(character) => named.entry(*character).or_default(),
            };
            set(bits, count);
            count += 1;
        }
        places.last = count - 1;
        places.ascii = [places.any; 128];
        for (character, bits) in named {
            for variant in variants(character, case)? {
                let fits = match places.ascii.get_mut(variant as usize) {
                    Some(fits) => fits,
                    None => places.others.entry(variant).or_insert(places.any),
                };
                fits.iter_mut().zip(bits).for_each(|(fits, more)| *fits |= more);
            }
        }
        Ok(places)
    }

    fn fit(&self, text: &str) -> bool {
        // The places that the text so far ends at.
        let mut reached = [0; WORDS];
        let mut entering = 1;
        for character in text.chars() {
            let fits = match self.ascii.get(character as usize) {
                Some(fits) => fits,
                None => self.others.get(&character).unwrap_or(&self.any),
            };
            let mut carried = entering;
            let mut alive = self.floating;
            for ((reached, fits), lasting) in reached.iter_mut().zip(fits).zip(&self.lasting) {
                let before: u64 = *reached;
                *reached = (((before << 1) | carried) & fits) | (before & lasting);
                carried = before >> (u64::BITS - 1);
                alive |= *reached;
            }
            if alive == 0 {
                return false;
            }
            entering = self.floating;
        }
        is_set(&reached, self.last)
    }
}

fn set(bits: &mut Bits, place: usize) {
    bits[place / u64::BITS as usize] |= 1 << (place % u64::BITS as usize);
}

fn is_set(bits: &Bits, place: usize) -> bool {
    (bits[place / u64::BITS as usize] >> (place % u64::BITS as usize)) & 1 == 1
}

/// All characters that have a case. There are none beyond these two planes.
static CASED: LazyLock<String> = LazyLock::new(|| {
    let is_cased = |character: &char| {
        !character.to_lowercase().eq([*character]) || !character.to_uppercase().eq([*character])
    };
    ('\0'..='\u{1ffff}').filter(is_cased).collect()
});

/// The characters that a character of a pattern stands for, as regular expressions have it.
fn variants(character: char, case: Case) -> Result<Vec<char>, regex::Error> {
    let mut variants = vec![character];
    if case == Case::Sensitive {
        return Ok(variants);
    }
    match character {
        'k' | 'K' => variants.extend(['k', 'K', '\u{212a}']),
        's' | 'S' => variants.extend(['s', 'S', '\u{17f}']),
        '\0'..='\x7f' => variants.extend([character.to_ascii_lowercase(), character.to_ascii_uppercase()]),
        _ if CASED.contains(character) => {
            let same: Regex = RegexBuilder::new(&character.to_string()).case_insensitive(true).build()?;
            variants.extend(same.find_iter(&CASED).flat_map(|found| found.as_str().chars()));
        }
        _ => {}
    }
    Ok(variants)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    /// The definition, as a regular expression.
    fn is_like(text: &str, pattern: &str, case: Case) -> bool {
        let source: String = pieces(pattern)
            .iter()
            .map(|piece| match piece {
                Piece::AnyText => ".*".to_owned(),
                Piece::AnyCharacter => ".".to_owned(),
                Piece::Character(character) => regex::escape(&character.to_string()),
            })
            .collect();
        RegexBuilder::new(&format!("\\A{source}\\z"))
            .case_insensitive(case == Case::Ignored)
            .dot_matches_new_line(true)
            .build()
            .unwrap()
            .is_match(text)
    }

    fn word(
        pieces: &'static [&'static str],
        length: std::ops::Range<usize>,
    ) -> impl Strategy<Value = String> {
        vec(select(pieces), length).prop_map(|pieces| pieces.concat())
    }

    fn case() -> impl Strategy<Value = Case> {
        select(&[Case::Sensitive, Case::Ignored][..])
    }

    const CHARACTERS: [&str; 24] = [
        "a", "A", "b", "k", "K", "\u{212a}", "s", "S", "ſ", "σ", "ς", "Σ", "ß", "ẞ", "i", "I", "ı", "İ", "é",
        "É", "猫", "🦀", "\n", "\\",
    ];
    const FEW: [&str; 3] = ["a", "é", "\n"];

    #[test]
    fn escapes_lengths_and_ends_are_exact() {
        let long = "x".repeat(300);
        for (pattern, text, fits) in [
            ("_", "", false),
            ("_", "🦀", true),
            ("__", "é", false),
            ("%_", "", false),
            ("_%", "ab\nc", true),
            ("\\_", "_", true),
            ("\\_", "a", false),
            ("_\\", "a\\", true),
            ("_\\%%", "a%b", true),
            ("_\\%%", "aab", false),
            ("a_c%e_", "abcdef", true),
            ("a_c%e_", "abcde", false),
            ("%a%_%a", "aa", false),
            ("%a%_%a", "axa", true),
            (&"_".repeat(256), &long[..256], true),
            (&"_".repeat(256), &long[..257], false),
            (&format!("{}%", "_".repeat(255)), &long, true),
        ] {
            let found = Pattern::new(pattern, Case::Sensitive).unwrap().fits(text.as_bytes());
            assert_eq!(found, fits, "{text:?} like {pattern:?}");
        }
    }

    #[test]
    fn characters_stand_for_what_a_regular_expression_says() {
        for character in '\0'..='\x7f' {
            let source = regex::escape(&character.to_string());
            let same = RegexBuilder::new(&source).case_insensitive(true).build().unwrap();
            let mut expected: Vec<_> =
                same.find_iter(&CASED).flat_map(|found| found.as_str().chars()).collect();
            expected.push(character);
            let mut found = variants(character, Case::Ignored).unwrap();
            for variants in [&mut expected, &mut found] {
                variants.sort_unstable();
                variants.dedup();
            }
            assert_eq!(found, expected);
        }
        let cased = RegexBuilder::new(&format!("[{}]", *CASED)).case_insensitive(true).build().unwrap();
        let known: std::collections::HashSet<char> = CASED.chars().collect();
        let others: String = ('\0'..=char::MAX).filter(|character| !known.contains(character)).collect();
        assert_eq!(cased.find(&others), None, "a character that has a case");
    }

    #[test]
    fn the_work_does_not_depend_on_the_text() {
        let pattern = Pattern::new(&format!("%a{}b%", "_".repeat(200)), Case::Sensitive).unwrap();
        assert!(
            matches!(pattern.matcher, Matcher::Places(_)),
            "a regular expression takes text times pattern"
        );
        assert_eq!(pattern.work(1 << 20), 4 * ((1 << 20) + CALL_BYTES));
    }

    proptest! {
        #[test]
        fn a_pattern_is_what_it_is_by_definition(
            pattern in prop_oneof![
                vec(prop_oneof![select(&CHARACTERS[..]), select(&["_", "%", "\\", "a"][..])], 0..8)
                    .prop_map(|pieces| pieces.concat()),
                word(&["a", "_", "_", "%"], 0..12),
            ],
            texts in vec(prop_oneof![word(&CHARACTERS, 0..8), word(&FEW, 0..14)], 1..8),
            case in case(),
        ) {
            let read = Pattern::new(&pattern, case).unwrap();
            for text in texts {
                prop_assert_eq!(
                    read.fits(text.as_bytes()),
                    is_like(&text, &pattern, case),
                    "{:?} like {:?}", text, pattern
                );
            }
        }

        #[test]
        fn patterns_of_several_words_are_followed_across_them(
            before in 0..80_usize,
            between in 0..90_usize,
            after in 0..80_usize,
            text in word(&["a", "b"], 0..400),
        ) {
            let pattern = format!("%{}a{}b{}%", "_".repeat(before), "_".repeat(between), "_".repeat(after));
            let read = Pattern::new(&pattern, Case::Sensitive).unwrap();
            prop_assert_eq!(read.fits(text.as_bytes()), is_like(&text, &pattern, Case::Sensitive));
        }
    }
}
