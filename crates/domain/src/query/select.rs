//! Parts of documents, copied as they are written.

use crate::raw;

/// A choice of properties, by name; a name without a choice below it means the whole value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Select {
    names: Vec<(String, Option<Select>)>,
}

/// What a choice means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Only what is named.
    Keep,
    /// All but what is named.
    Drop,
}

impl Select {
    /// Adds the property at the end of a path.
    pub(crate) fn add(&mut self, path: &[String]) {
        let Some((first, rest)) = path.split_first() else { return };
        let index = self.names.iter().position(|(name, _)| name == first).unwrap_or_else(|| {
            self.names.push((first.clone(), (!rest.is_empty()).then(Self::default)));
            self.names.len() - 1
        });
        let below = &mut self.names[index].1;
        match below {
            Some(below) if !rest.is_empty() => below.add(rest),
            // The whole value includes every part of it.
            _ => *below = None,
        }
    }

    /// Whether a property of this name is named, or something within it.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.iter().any(|(named, _)| named == name)
    }

    /// Whether nothing is named.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Appends the chosen part of an object, in the order in which it is written. Parts of values that are no objects are
    /// missing.
    pub(crate) fn write(&self, mode: Mode, object: &[u8], out: &mut Vec<u8>) {
        out.push(b'{');
        let start = out.len();
        for member in raw::members(object) {
            let named = self.names.iter().find(|(name, _)| member.is(name));
            let inside = match (named, mode) {
                (None, Mode::Keep) | (Some((_, None)), Mode::Drop) => continue,
                (Some((_, None)), Mode::Keep) | (None, Mode::Drop) => None,
                (Some((_, Some(below))), _) if member.value.starts_with(b"{") => Some(below),
                (Some(_), Mode::Keep) => continue,
                (Some(_), Mode::Drop) => None,
            };
            if out.len() > start {
                out.push(b',');
            }
            out.extend_from_slice(member.written_name());
            out.push(b':');
            match inside {
                Some(below) => below.write(mode, member.value, out),
                None => out.extend_from_slice(member.value),
            }
        }
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn select(mode: Mode, paths: &[&str], object: &str) -> String {
        let mut select = Select::default();
        for path in paths {
            select.add(&path.split('.').map(str::to_owned).collect::<Vec<_>>());
        }
        let mut out = Vec::new();
        select.write(mode, object.as_bytes(), &mut out);
        String::from_utf8(out).expect("text")
    }

    const OBJECT: &str = r#"{"a":1.50,"b":{"c":[1, 2],"d":{"e":null}},"f":"x"}"#;

    #[test]
    fn chosen_properties_keep_their_order_and_spelling() {
        assert_eq!(select(Mode::Keep, &["f", "a"], OBJECT), r#"{"a":1.50,"f":"x"}"#);
        assert_eq!(select(Mode::Keep, &["b.c", "g"], OBJECT), r#"{"b":{"c":[1, 2]}}"#);
        assert_eq!(select(Mode::Keep, &["b.d.e", "a.x", "b.c.0"], OBJECT), r#"{"b":{"d":{"e":null}}}"#);
        assert_eq!(select(Mode::Keep, &["b.c", "b"], OBJECT), select(Mode::Keep, &["b", "b.c"], OBJECT));
        assert_eq!(select(Mode::Keep, &[], OBJECT), "{}");
    }

    #[test]
    fn dropped_properties_leave_the_rest_as_it_is() {
        assert_eq!(select(Mode::Drop, &["f", "b.d"], OBJECT), r#"{"a":1.50,"b":{"c":[1, 2]}}"#);
        assert_eq!(select(Mode::Drop, &["a", "b", "f"], OBJECT), "{}");
        assert_eq!(select(Mode::Drop, &["a.x"], OBJECT), OBJECT);
    }
}
