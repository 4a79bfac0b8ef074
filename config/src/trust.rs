//! `[trust.keys]`: who may publish which modules. A key is the public half of an Ed25519 key pair (RFC 8032); whoever has
//! the other half signs manifests with it. What signatures are worth is for those who look at modules.

use std::collections::{BTreeMap, BTreeSet};

use data_encoding::BASE64;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::{Deserialize, Serialize};

use crate::{
    error::{ConfigError, Place},
    found::Found,
    raw::{Raw, Written},
    resolve::similar,
};

/// Key of the table.
const SECTION: &str = "trust.keys";
/// Most keys of a host.
const KEYS_MAX: usize = 64;
/// Longest name of a key, and longest name of a module, bytes.
const NAME_BYTES_MAX: usize = 255;
/// Most names that one key may sign.
const MODULES_MAX: usize = 1000;
/// Characters of a day.
const DAY_CHARACTERS: usize = 10;
/// What stands in front of the 32 bytes of a public key in a SubjectPublicKeyInfo (RFC 8410, section 4), which is how
/// openssl writes one.
const INFO_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Parts of a key.
const PARTS: [&str; 3] = ["public-key", "modules", "valid-until"];
const PUBLIC_KEY_EXPECTED: &str = "an Ed25519 public key in Base64, as `aegis key new` prints it";
const MODULES_EXPECTED: &str =
    "a list of names of modules, or of beginnings of names with * behind, such as [\"order\", \"shop-*\"]";
const UNTIL_EXPECTED: &str = "a day such as 2027-12-31 or a moment such as 2027-12-31T12:00:00Z";

/// Who may publish modules.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// Which modules must be signed.
    pub require: Signatures,
    /// Whose signatures count, by the name that signatures have for the key.
    pub keys: BTreeMap<String, TrustedKey>,
}

/// Which modules must be signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signatures {
    /// None.
    #[default]
    None,
    /// Those that come from elsewhere.
    Remote,
    /// Everything with code.
    All,
}

/// A key whose signatures count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedKey {
    /// Its public half.
    pub public_key: PublicKey,
    /// Names of the modules that it may sign, or beginnings of names with `*` behind. Not empty.
    pub modules: Vec<String>,
    /// From this second on, counted from 1970, it signs nothing any more.
    pub valid_until_s: Option<i64>,
}

/// The public half of an Ed25519 key pair (RFC 8032).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);

impl TrustedKey {
    /// Whether it may sign the module of this name.
    #[must_use]
    pub fn may_sign(&self, module: &str) -> bool {
        self.modules.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => module.starts_with(beginning),
            None => pattern == module,
        })
    }
}

/// What is written about one key, until all of it is known.
#[derive(Debug)]
struct Draft {
    /// Where it was first written about.
    place: Place,
    /// Parts that were written, right or wrong.
    written: BTreeSet<String>,
    public_key: Option<PublicKey>,
    modules: Vec<String>,
    valid_until_s: Option<i64>,
}

/// Takes what is written about keys out of the file.
pub(crate) fn take(raw: &mut Raw, mistakes: &mut Vec<ConfigError>) -> BTreeMap<String, TrustedKey> {
    let prefix = format!("{SECTION}.");
    let mut drafts = BTreeMap::<String, Draft>::new();
    for (_, written) in raw.extract_if(.., |key, _| key == SECTION || key.starts_with(&prefix)) {
        let Written { key, line, found } = written;
        if key == SECTION && is_empty_table(&found) {
            continue;
        }
        let place = Place::File { line, key: key.clone() };
        let path = key.strip_prefix(&prefix);
        let (name, part) = match path.map(|path| path.rsplit_once('.').unwrap_or((path, ""))) {
            Some((name, part)) if !part.is_empty() || is_empty_table(&found) => (name, part),
            _ => {
                let expected = format!("a table [{SECTION}.NAME] with public-key and modules");
                mistakes.push(ConfigError::Value { place, found: found.to_string(), expected });
                continue;
            }
        };
        if !is_name(name) {
            let expected = format!("a name of at most {NAME_BYTES_MAX} letters, digits, - or _");
            mistakes.push(ConfigError::Value { place, found: format!("the name {name:?}"), expected });
            continue;
        }
        let draft = drafts.entry(name.to_owned()).or_insert_with(|| Draft::at(line, name));
        if !part.is_empty() {
            draft.read(part, place, &found, mistakes);
        }
    }
    if drafts.len() > KEYS_MAX {
        let place = Place::File { line: 1, key: SECTION.to_owned() };
        let (found, expected) = (format!("{} keys", drafts.len()), format!("at most {KEYS_MAX}"));
        mistakes.push(ConfigError::Value { place, found, expected });
    }
    drafts.into_iter().filter_map(|(name, draft)| Some((name, draft.finish(mistakes)?))).collect()
}

impl Draft {
    fn at(line: usize, name: &str) -> Self {
        let place = Place::File { line, key: format!("{SECTION}.{name}") };
        let written = BTreeSet::new();
        Self { place, written, public_key: None, modules: Vec::new(), valid_until_s: None }
    }

    fn read(&mut self, part: &str, place: Place, found: &Found, mistakes: &mut Vec<ConfigError>) {
        let known_as = part.replace('_', "-");
        let expected = match known_as.as_str() {
            "public-key" => {
                self.public_key = found.text().and_then(public_key);
                self.public_key.is_none().then_some(PUBLIC_KEY_EXPECTED)
            }
            "modules" => {
                self.modules = modules(found).unwrap_or_default();
                self.modules.is_empty().then_some(MODULES_EXPECTED)
            }
            "valid-until" => {
                self.valid_until_s = match found {
                    Found::Typed(toml::Value::Datetime(moment)) => second_after(&moment.to_string()),
                    other => other.text().and_then(second_after),
                };
                self.valid_until_s.is_none().then_some(UNTIL_EXPECTED)
            }
            other => {
                let suggestion = similar(other, PARTS.into_iter());
                return mistakes.push(ConfigError::UnknownKey { place, suggestion });
            }
        };
        if let Some(expected) = expected {
            let (found, expected) = (found.to_string(), expected.to_owned());
            mistakes.push(ConfigError::Value { place, found, expected });
        }
        self.written.insert(known_as);
    }

    fn finish(self, mistakes: &mut Vec<ConfigError>) -> Option<TrustedKey> {
        for (part, expected) in [(PARTS[0], PUBLIC_KEY_EXPECTED), (PARTS[1], MODULES_EXPECTED)] {
            if !self.written.contains(part) {
                let (place, found) = (self.place.clone(), format!("no {part}"));
                mistakes.push(ConfigError::Value { place, found, expected: expected.to_owned() });
            }
        }
        let Self { public_key, modules, valid_until_s, .. } = self;
        Some(TrustedKey { public_key: public_key?, modules, valid_until_s })
    }
}

fn is_empty_table(found: &Found) -> bool {
    matches!(found, Found::Typed(toml::Value::Table(table)) if table.is_empty())
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn public_key(text: &str) -> Option<PublicKey> {
    let bytes = BASE64.decode(text.as_bytes()).ok()?;
    let bytes = bytes.strip_prefix(&INFO_PREFIX).unwrap_or(&bytes);
    bytes.try_into().ok().map(PublicKey)
}

/// Names, or beginnings of names with one `*` behind.
fn modules(found: &Found) -> Option<Vec<String>> {
    let Found::Typed(toml::Value::Array(items)) = found else { return None };
    let is_pattern = |text: &&str| {
        let name = text.strip_suffix('*').unwrap_or(text);
        !text.is_empty() && text.len() <= NAME_BYTES_MAX && !name.contains(['*', '/', '\0'])
    };
    if items.len() > MODULES_MAX {
        return None;
    }
    items.iter().map(|item| item.as_str().filter(is_pattern).map(str::to_owned)).collect()
}

/// The first second, of those since 1970, at which what is valid until then no longer is: a day counts as a whole, in UTC.
fn second_after(text: &str) -> Option<i64> {
    if text.len() == DAY_CHARACTERS {
        let next = text.parse::<Date>().ok()?.tomorrow().ok()?;
        return next.to_zoned(TimeZone::UTC).ok().map(|midnight| midnight.timestamp().as_second());
    }
    text.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw;

    /// 32 bytes of 7, alone and as openssl writes them.
    const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    const INFO: &str = "MCowBQYDK2VwAyEABwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

    fn keys(text: &str) -> (BTreeMap<String, TrustedKey>, String) {
        let mut raw = raw::parse(text).unwrap();
        let mut mistakes = Vec::new();
        let keys = take(&mut raw, &mut mistakes);
        assert!(raw.is_empty(), "{raw:?}");
        (keys, mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn a_key_says_what_it_may_sign_and_until_when() {
        let (keys, mistakes) = keys(&format!(
            "[trust.keys.shop-team]\npublic-key = \"{KEY}\"\nmodules = [\"order\", \"shop-*\"]\nvalid-until = 1970-01-02\n\
             [trust.keys]\nother = {{ public_key = \"{INFO}\", modules = [\"*\"], valid_until = \"1970-01-01T01:00:00+00:00\" }}\n\
             third = {{ public-key = \"{KEY}\", modules = [\"a\"], valid-until = 1970-01-01T00:00:07Z }}\n"
        ));
        assert_eq!(mistakes, "");
        assert_eq!(keys["shop-team"].public_key, PublicKey([7; 32]));
        assert_eq!(keys["shop-team"].modules, ["order", "shop-*"]);
        assert_eq!(keys["other"].public_key, PublicKey([7; 32]));
        let until = |name: &str| keys[name].valid_until_s;
        assert_eq!(until("shop-team"), Some(2 * 86_400), "the day counts as a whole");
        assert_eq!((until("other"), until("third")), (Some(3600), Some(7)));
        assert_eq!(super::tests::keys("[trust.keys]\n"), (BTreeMap::new(), String::new()));
    }

    #[test]
    fn a_key_signs_the_names_that_it_is_given_and_no_others() {
        let key = |modules: &[&str]| TrustedKey {
            public_key: PublicKey([0; 32]),
            modules: modules.iter().map(|one| (*one).to_owned()).collect(),
            valid_until_s: None,
        };
        for (modules, name, may) in [
            (&["order"][..], "order", true),
            (&["order"], "order-2", false),
            (&["order"], "orde", false),
            (&["shop-*"], "shop-cart", true),
            (&["shop-*"], "shop-", true),
            (&["shop-*"], "shop", false),
            (&["a", "shop-*"], "bshop-x", false),
            (&["*"], "anything", true),
            (&[], "anything", false),
        ] {
            assert_eq!(key(modules).may_sign(name), may, "{modules:?} {name}");
        }
    }

    #[test]
    fn mistakes_name_the_key_and_what_was_expected() {
        let (found, mistakes) = keys(&format!(
            "[trust.keys.a]\npublic-key = \"abc\"\nmodules = []\nvalid-until = \"soon\"\n\
             [trust.keys.b]\npublik-key = \"{KEY}\"\nmodules = [\"x*y\"]\n\
             [trust.keys.c]\n[trust.keys.\"d.e\"]\nmodules = [\"x\"]\n\
             [trust.keys]\nf = 7\ng = {{ public-key = \"{KEY}\", modules = \"x\", valid-until = 2027-01-01T00:00:00 }}\n"
        ));
        assert_eq!(found.len(), 1, "{found:?}");
        insta::assert_snapshot!(mistakes, @r#"
        aegis.toml:3: trust.keys.a.modules: found a list, expected a list of names of modules, or of beginnings of names with * behind, such as ["order", "shop-*"]
        aegis.toml:2: trust.keys.a.public-key: found "abc", expected an Ed25519 public key in Base64, as `aegis key new` prints it
        aegis.toml:4: trust.keys.a.valid-until: found "soon", expected a day such as 2027-12-31 or a moment such as 2027-12-31T12:00:00Z
        aegis.toml:7: trust.keys.b.modules: found a list, expected a list of names of modules, or of beginnings of names with * behind, such as ["order", "shop-*"]
        aegis.toml:6: trust.keys.b.publik-key: unknown key, did you mean `public-key`?
        aegis.toml:10: trust.keys.d.e.modules: found the name "d.e", expected a name of at most 255 letters, digits, - or _
        aegis.toml:12: trust.keys.f: found 7, expected a table [trust.keys.NAME] with public-key and modules
        aegis.toml:13: trust.keys.g.modules: found "x", expected a list of names of modules, or of beginnings of names with * behind, such as ["order", "shop-*"]
        aegis.toml:13: trust.keys.g.valid-until: found 2027-01-01T00:00:00, expected a day such as 2027-12-31 or a moment such as 2027-12-31T12:00:00Z
        aegis.toml:7: trust.keys.b: found no public-key, expected an Ed25519 public key in Base64, as `aegis key new` prints it
        aegis.toml:8: trust.keys.c: found no public-key, expected an Ed25519 public key in Base64, as `aegis key new` prints it
        aegis.toml:8: trust.keys.c: found no modules, expected a list of names of modules, or of beginnings of names with * behind, such as ["order", "shop-*"]
        "#);
    }
}
