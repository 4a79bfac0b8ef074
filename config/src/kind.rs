//! Kinds of values: how one is read, what is expected of it, how it is written back.

use std::{fmt, net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use crate::{
    found::Found,
    quantity::{format_size, format_time, parse_size, parse_time},
};

#[cfg(test)]
mod tests;

/// What a value turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Reading<V> {
    /// This.
    Value(V),
    /// The word `auto`: to be chosen by the host.
    Auto,
}

/// Why a value is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) found: String,
    pub(crate) expected: String,
}

/// A kind of values.
pub(crate) trait Kind {
    /// The type it has once it is understood.
    type Value: Clone;
    /// What is accepted, for the end of the sentence "expected …".
    fn expected(&self) -> String;
    /// Understands a value that was written.
    fn read(&self, found: &Found) -> Result<Reading<Self::Value>, Refusal>;
    /// Writes a value as the file has it.
    fn write(&self, value: &Self::Value) -> toml::Value;

    /// Writes a value for programs: sizes as numbers, nothing for what is absent.
    fn show(&self, value: &Self::Value) -> Option<toml::Value> {
        Some(self.write(value))
    }

    /// Accepts or refuses the outcome of a conversion.
    fn accept(&self, found: &Found, value: Option<Self::Value>) -> Result<Reading<Self::Value>, Refusal> {
        match value {
            Some(value) => Ok(Reading::Value(value)),
            None => Err(Refusal { found: found.to_string(), expected: self.expected() }),
        }
    }
}

/// The whole numbers settings are made of.
pub(crate) trait Whole: Copy + PartialOrd + fmt::Display + TryFrom<u64> + Into<u64> {}
impl Whole for u32 {}
impl Whole for u64 {}

/// A whole number within bounds.
pub(crate) struct Count<N>(pub(crate) RangeInclusive<N>);

impl<N: Whole> Kind for Count<N> {
    type Value = N;

    fn expected(&self) -> String {
        format!("a whole number from {} to {}", self.0.start(), self.0.end())
    }

    fn read(&self, found: &Found) -> Result<Reading<N>, Refusal> {
        let number = found.whole().and_then(|number| N::try_from(number).ok());
        self.accept(found, number.filter(|number| self.0.contains(number)))
    }

    fn write(&self, value: &N) -> toml::Value {
        toml::Value::Integer(i64::try_from((*value).into()).unwrap_or(i64::MAX))
    }
}

/// A number within bounds.
pub(crate) struct Number(pub(crate) RangeInclusive<f64>);

impl Kind for Number {
    type Value = f64;

    fn expected(&self) -> String {
        format!("a number from {} to {}", self.0.start(), self.0.end())
    }

    fn read(&self, found: &Found) -> Result<Reading<f64>, Refusal> {
        let number = match found {
            Found::Typed(toml::Value::Float(number)) => Some(*number),
            Found::Word(text) => text.parse().ok(),
            // A whole number between the bounds of any setting fits 32 bits, so nothing is rounded.
            other => other.whole().and_then(|number| u32::try_from(number).ok()).map(f64::from),
        };
        self.accept(found, number.filter(|number| self.0.contains(number)))
    }

    fn write(&self, value: &f64) -> toml::Value {
        toml::Value::Float(*value)
    }
}

/// A size in bytes within bounds.
pub(crate) struct Size(pub(crate) RangeInclusive<u64>);

impl Kind for Size {
    type Value = u64;

    fn expected(&self) -> String {
        let (min, max) = (format_size(*self.0.start()), format_size(*self.0.end()));
        format!("a size from {min} to {max}, such as \"64KiB\" or \"2MiB\"")
    }

    fn read(&self, found: &Found) -> Result<Reading<u64>, Refusal> {
        let bytes = found.whole().or_else(|| found.text().and_then(parse_size));
        self.accept(found, bytes.filter(|bytes| self.0.contains(bytes)))
    }

    fn write(&self, value: &u64) -> toml::Value {
        toml::Value::String(format_size(*value))
    }

    fn show(&self, value: &u64) -> Option<toml::Value> {
        Some(Count(0..=u64::MAX).write(value))
    }
}

/// A time within bounds.
pub(crate) struct Time(pub(crate) RangeInclusive<Duration>);

impl Kind for Time {
    type Value = Duration;

    fn expected(&self) -> String {
        let (min, max) = (format_time(*self.0.start()), format_time(*self.0.end()));
        format!("a time from {min} to {max}, such as \"250ms\" or \"30s\"")
    }

    fn read(&self, found: &Found) -> Result<Reading<Duration>, Refusal> {
        let time = found.text().and_then(parse_time);
        self.accept(found, time.filter(|time| self.0.contains(time)))
    }

    fn write(&self, value: &Duration) -> toml::Value {
        toml::Value::String(format_time(*value))
    }
}

/// True or false. Variables may also say 1, 0, yes, no, on, off, in any case.
pub(crate) struct Switch;

impl Kind for Switch {
    type Value = bool;

    fn expected(&self) -> String {
        "true or false".to_owned()
    }

    fn read(&self, found: &Found) -> Result<Reading<bool>, Refusal> {
        let on = match found {
            Found::Typed(toml::Value::Boolean(on)) => Some(*on),
            Found::Word(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(true),
                "false" | "0" | "no" | "off" => Some(false),
                _ => None,
            },
            Found::Typed(_) | Found::NotText(_) => None,
        };
        self.accept(found, on)
    }

    fn write(&self, value: &bool) -> toml::Value {
        toml::Value::Boolean(*value)
    }
}

/// One of a few words.
pub(crate) struct Choice<V: 'static>(pub(crate) &'static [(&'static str, V)]);

impl<V: Copy + PartialEq> Kind for Choice<V> {
    type Value = V;

    fn expected(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        words.join(" or ")
    }

    fn read(&self, found: &Found) -> Result<Reading<V>, Refusal> {
        let choice = found.text().and_then(|text| self.0.iter().find(|(word, _)| *word == text));
        self.accept(found, choice.map(|(_, value)| *value))
    }

    fn write(&self, value: &V) -> toml::Value {
        let word = self.0.iter().find(|(_, known)| known == value).map_or("", |(word, _)| word);
        toml::Value::String(word.to_owned())
    }
}

/// A path of a file, folder or Unix socket. Words that have a meaning elsewhere are none: somebody means to turn it off.
pub(crate) struct Path;

/// What is written in place of a value that there is not, or that is found out.
const WORDS: [&str; 2] = ["none", "auto"];

impl Kind for Path {
    type Value = PathBuf;

    fn expected(&self) -> String {
        "a path".to_owned()
    }

    fn read(&self, found: &Found) -> Result<Reading<PathBuf>, Refusal> {
        let is_path = |text: &&str| !text.is_empty() && !text.contains('\0') && !WORDS.contains(text);
        let path = found.text().filter(is_path);
        self.accept(found, path.map(PathBuf::from))
    }

    fn write(&self, value: &PathBuf) -> toml::Value {
        toml::Value::String(value.to_string_lossy().into_owned())
    }
}

/// Addresses to listen on.
pub(crate) struct Addresses {
    /// Most of them.
    pub(crate) count_max: usize,
}

impl Kind for Addresses {
    type Value = Vec<SocketAddr>;

    fn expected(&self) -> String {
        "an IP address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"".to_owned()
    }

    fn read(&self, found: &Found) -> Result<Reading<Vec<SocketAddr>>, Refusal> {
        let items = found.list();
        if !(1..=self.count_max).contains(&items.len()) {
            let expected = format!("1 to {} addresses", self.count_max);
            return Err(Refusal { found: format!("{} addresses", items.len()), expected });
        }
        let mut addresses = Vec::new();
        for item in items {
            let address = item.text().and_then(|text| text.parse::<SocketAddr>().ok());
            let Some(address) = address else {
                return Err(Refusal { found: item.to_string(), expected: self.expected() });
            };
            // Port 0 picks another port each time, so the same address may come more than once.
            if address.port() != 0 && addresses.contains(&address) {
                return Err(Refusal {
                    found: format!("{item} twice"),
                    expected: "each address once".to_owned(),
                });
            }
            addresses.push(address);
        }
        Ok(Reading::Value(addresses))
    }

    fn write(&self, value: &Vec<SocketAddr>) -> toml::Value {
        toml::Value::Array(value.iter().map(|address| toml::Value::String(address.to_string())).collect())
    }
}

/// An address that only this machine reaches.
pub(crate) struct Loopback;

impl Kind for Loopback {
    type Value = SocketAddr;

    fn expected(&self) -> String {
        "a loopback address and a port, such as \"127.0.0.1:9090\"".to_owned()
    }

    fn read(&self, found: &Found) -> Result<Reading<SocketAddr>, Refusal> {
        let address = found.text().and_then(|text| text.parse::<SocketAddr>().ok());
        self.accept(found, address.filter(|address| address.ip().to_canonical().is_loopback()))
    }

    fn write(&self, value: &SocketAddr) -> toml::Value {
        toml::Value::String(value.to_string())
    }
}

/// The base path of the API.
pub(crate) struct BasePath {
    /// First segments that belong to the host itself.
    pub(crate) reserved: &'static [&'static str],
}

impl Kind for BasePath {
    type Value = String;

    fn expected(&self) -> String {
        let reserved = self.reserved.join(", ");
        format!(
            "a path such as \"/aegis/api\" of letters, digits and -._~, with no slash at its end, not under {reserved}"
        )
    }

    fn read(&self, found: &Found) -> Result<Reading<String>, Refusal> {
        let segment_fits = |segment: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            !matches!(segment, "" | "." | "..") && segment.bytes().all(fits)
        };
        let fits = |path: &str| {
            let segments: Vec<_> = path.split('/').skip(1).collect();
            let first = segments.first().map(|first| format!("/{first}")).unwrap_or_default();
            path.len() <= 256
                && path.starts_with('/')
                && segments.iter().all(|segment| segment_fits(segment))
                && !self.reserved.contains(&first.as_str())
        };
        self.accept(found, found.text().filter(|path| fits(path)).map(str::to_owned))
    }

    fn write(&self, value: &String) -> toml::Value {
        toml::Value::String(value.clone())
    }
}

/// A level, or levels per target, separated by commas.
pub(crate) struct LogFilter;

impl Kind for LogFilter {
    type Value = String;

    fn expected(&self) -> String {
        "error, warn, info, debug, trace or off, also per target such as \"info,aegis_store=debug\""
            .to_owned()
    }

    fn read(&self, found: &Found) -> Result<Reading<String>, Refusal> {
        let level_fits = |level: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&level);
        let target_fits = |target: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte);
            !target.is_empty() && target.bytes().all(fits)
        };
        let part_fits = |part: &str| match part.split_once('=') {
            Some((target, level)) => target_fits(target) && level_fits(level),
            None => level_fits(part),
        };
        let filter = found.text().filter(|text| text.split(',').all(part_fits));
        self.accept(found, filter.map(str::to_owned))
    }

    fn write(&self, value: &String) -> toml::Value {
        toml::Value::String(value.clone())
    }
}

/// A short text that is compared with others: 1 to 256 visible characters.
pub(crate) struct Label;

impl Kind for Label {
    type Value = String;

    fn expected(&self) -> String {
        "1 to 256 characters without control characters".to_owned()
    }

    fn read(&self, found: &Found) -> Result<Reading<String>, Refusal> {
        let fits = |text: &&str| (1..=256).contains(&text.len()) && !text.chars().any(char::is_control);
        self.accept(found, found.text().filter(fits).map(str::to_owned))
    }

    fn write(&self, value: &String) -> toml::Value {
        toml::Value::String(value.clone())
    }
}

/// A value that may be absent, written `"none"`.
pub(crate) struct Optional<K>(pub(crate) K);

impl<K: Kind> Kind for Optional<K> {
    type Value = Option<K::Value>;

    fn expected(&self) -> String {
        format!("{}, or \"none\"", self.0.expected())
    }

    fn read(&self, found: &Found) -> Result<Reading<Option<K::Value>>, Refusal> {
        if found.text() == Some("none") {
            return Ok(Reading::Value(None));
        }
        match self.0.read(found) {
            Ok(Reading::Value(value)) => Ok(Reading::Value(Some(value))),
            Ok(Reading::Auto) => Ok(Reading::Auto),
            Err(refusal) => Err(Refusal { found: refusal.found, expected: self.expected() }),
        }
    }

    fn write(&self, value: &Option<K::Value>) -> toml::Value {
        match value {
            Some(value) => self.0.write(value),
            None => toml::Value::String("none".to_owned()),
        }
    }

    fn show(&self, value: &Option<K::Value>) -> Option<toml::Value> {
        value.as_ref().and_then(|value| self.0.show(value))
    }
}

/// A value that the host can choose itself, written `"auto"`.
pub(crate) struct Auto<K>(pub(crate) K);

impl<K: Kind> Kind for Auto<K> {
    type Value = K::Value;

    fn expected(&self) -> String {
        format!("\"auto\" or {}", self.0.expected())
    }

    fn read(&self, found: &Found) -> Result<Reading<K::Value>, Refusal> {
        if found.text() == Some("auto") {
            return Ok(Reading::Auto);
        }
        self.0.read(found).map_err(|refusal| Refusal { found: refusal.found, expected: self.expected() })
    }

    fn write(&self, value: &K::Value) -> toml::Value {
        self.0.write(value)
    }
}
