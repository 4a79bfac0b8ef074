//! Rules that a module says as mixins, which the host keeps without asking its code.

use aegis_domain::spec::FieldSpec;
use indexmap::IndexMap;
use serde_json::{Map, Value};

use super::{read_json, unserved};
use crate::contract::spec as wit;

/// The mixins that there are, and what each of them takes beside `fields`. Those that take something need some of it.
const KNOWN: [(&str, &[&str]); 6] = [
    ("require", &[]),
    ("freeze", &[]),
    ("unique", &[]),
    ("default", &["value"]),
    ("range", &["min", "max"]),
    ("pattern", &["pattern"]),
];
/// Characters of a wrong option that a mistake shows.
const SHOWN_CHARACTERS_MAX: usize = 40;

/// Adds the rule of a mixin to its fields. Its options are `{"fields": ["a", "b"], …}`. What would leave a rule out is a
/// mistake: without it, everything would be accepted.
pub(super) fn mix_in(
    mixin: &wit::MixinSpec,
    key: &str,
    fields: &mut IndexMap<String, FieldSpec>,
    mistakes: &mut Vec<String>,
) {
    let name = mixin.name.as_str();
    let Some((_, parts)) = KNOWN.iter().find(|(known, _)| *known == name) else {
        let known = KNOWN.map(|(known, _)| known).join(", ");
        return mistakes.push(format!("{key}: found the mixin {name:?}, expected one of {known}"));
    };
    unserved::refuse_moments(mixin, key, mistakes);
    let Some(options) = read_json(Some(&mixin.options), &format!("{key}.options"), mistakes) else { return };
    let nothing = Map::new();
    let options = options.as_object().unwrap_or(&nothing);
    let names = options.get("fields").and_then(Value::as_array).cloned().unwrap_or_default();
    if names.is_empty() {
        return mistakes.push(format!("{key}.options: found no fields, expected {{\"fields\": [names], …}}"));
    }
    for option in options.keys().filter(|option| *option != "fields" && !parts.contains(&option.as_str())) {
        let expected = ["fields"].iter().chain(*parts).copied().collect::<Vec<_>>().join(", ");
        mistakes.push(format!("{key}.options: found {option:?}, expected none but {expected}"));
    }
    let is_given =
        |part: &&str| options.get(*part).is_some_and(|value| name == "default" || !value.is_null());
    if !parts.is_empty() && !parts.iter().any(is_given) {
        return mistakes.push(format!("{key}.options: found no {}, expected one", parts.join(" and no ")));
    }
    let rule = Rule { name, key, options };
    for name in names {
        match name.as_str().and_then(|name| fields.get_mut(name)) {
            Some(field) => rule.add_to(field, mistakes),
            None => mistakes
                .push(format!("{key}.options.fields: found {name}, expected the name of a declared field")),
        }
    }
}

/// A mixin that has what it needs.
struct Rule<'a> {
    name: &'a str,
    key: &'a str,
    options: &'a Map<String, Value>,
}

impl Rule<'_> {
    fn add_to(&self, field: &mut FieldSpec, mistakes: &mut Vec<String>) {
        match self.name {
            "require" => field.required = true,
            "freeze" => field.frozen = true,
            "unique" => field.unique = true,
            "default" => self.set("value", &mut field.default, |value| Some(value.clone()), mistakes),
            "range" => {
                self.set("min", &mut field.min, |value| value.as_number().cloned(), mistakes);
                self.set("max", &mut field.max, |value| value.as_number().cloned(), mistakes);
            }
            _ => {
                self.set("pattern", &mut field.pattern, |value| value.as_str().map(str::to_owned), mistakes);
            }
        }
    }

    /// Sets a part of a field's rules as an option says, if it does and nothing else said another one before.
    fn set<T: PartialEq>(
        &self,
        option: &str,
        part: &mut Option<T>,
        read: impl FnOnce(&Value) -> Option<T>,
        mistakes: &mut Vec<String>,
    ) {
        let Some(value) = self.options.get(option).filter(|value| option == "value" || !value.is_null())
        else {
            return;
        };
        let key = format!("{}.options.{option}", self.key);
        let shown = || value.to_string().chars().take(SHOWN_CHARACTERS_MAX).collect::<String>();
        match (read(value), &*part) {
            (None, _) if option == "pattern" => {
                mistakes.push(format!("{key}: found no text, expected a pattern"));
            }
            (None, _) => mistakes.push(format!("{key}: found {}, expected a number", shown())),
            (Some(read), Some(before)) if read != *before => {
                mistakes.push(format!("{key}: found {}, expected it once: the field has another", shown()));
            }
            (read, _) => *part = read,
        }
    }
}
