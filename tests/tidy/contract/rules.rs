//! What one version of the contract may be beside a later one.

use std::{collections::BTreeMap, fmt};

use super::surface::{Promises, Surface};

/// A promise that is not kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken {
    /// Interface or world, and what in it.
    place: String,
    /// What was promised; nothing if it was not there.
    was: Option<String>,
    /// What is there now, or nothing.
    is: Option<String>,
    /// Which rule this is against.
    rule: &'static str,
}

impl fmt::Display for Broken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, was, is, rule } = self;
        let nothing = "nothing";
        let (was, is) = (was.as_deref().unwrap_or(nothing), is.as_deref().unwrap_or(nothing));
        write!(formatter, "{place}: {rule}\n  was {was}\n  is  {is}")
    }
}

const STAYS: &str = "what was released stays as it is";
const WITHIN_MINOR: &str = "a patch changes comments only: this needs the next minor version";
const BY_MODULES: &str = "modules that were built before lack it: it needs an interface of its own";
const WORLD_EXPORTS: &str =
    "whoever builds for this world would have to offer it: it needs a world of its own";

/// What modules or authors who rely on `before` would find broken in `after`.
pub(super) fn broken(before: &Surface, after: &Surface) -> Vec<Broken> {
    let mut found = Vec::new();
    if after.version.major != before.version.major {
        // Another major version is served beside the old one; the old one's files stay.
        return found;
    }
    if after.version < before.version {
        let (was, is) = (Some(before.version.to_string()), Some(after.version.to_string()));
        found.push(Broken { place: "version".to_owned(), was, is, rule: "versions only grow" });
    }
    let grows = after.version.minor > before.version.minor;
    let none = Promises { by_modules: false, functions: BTreeMap::new(), types: BTreeMap::new() };
    for (name, was) in &before.interfaces {
        let place = format!("interface {name}");
        let Some(is) = after.interfaces.get(name) else {
            found.push(gone(place));
            continue;
        };
        if was.by_modules != is.by_modules {
            let whose = |by_modules| {
                Some(if by_modules { "offered by modules" } else { "provided by the host" }.to_owned())
            };
            let (was, is) = (whose(was.by_modules), whose(is.by_modules));
            found.push(Broken { place: place.clone(), was, is, rule: STAYS });
        }
        let addition = match (grows, was.by_modules) {
            (false, _) => Some(WITHIN_MINOR),
            (true, true) => Some(BY_MODULES),
            (true, false) => None,
        };
        compare(&format!("{place}, function"), &was.functions, &is.functions, addition, &mut found);
        compare(&format!("{place}, type"), &was.types, &is.types, addition, &mut found);
    }
    for (name, is) in &after.interfaces {
        if !grows && !before.interfaces.contains_key(name) {
            let place = format!("interface {name}, function");
            compare(&place, &none.functions, &is.functions, Some(WITHIN_MINOR), &mut found);
            let place = format!("interface {name}, type");
            compare(&place, &none.types, &is.types, Some(WITHIN_MINOR), &mut found);
        }
    }
    compare_worlds(before, after, grows, &mut found);
    found
}

fn gone(place: String) -> Broken {
    Broken { place, was: Some("there".to_owned()), is: None, rule: STAYS }
}

/// Compares things with names; `addition` is the rule against new ones, if there is one.
fn compare(
    place: &str,
    before: &BTreeMap<String, String>,
    after: &BTreeMap<String, String>,
    addition: Option<&'static str>,
    found: &mut Vec<Broken>,
) {
    for (name, was) in before {
        let is = after.get(name);
        if is != Some(was) {
            let (was, is) = (Some(was.clone()), is.cloned());
            found.push(Broken { place: format!("{place} {name}"), was, is, rule: STAYS });
        }
    }
    let Some(rule) = addition else { return };
    for (name, is) in after {
        if !before.contains_key(name) {
            let is = Some(is.clone());
            found.push(Broken { place: format!("{place} {name}"), was: None, is, rule });
        }
    }
}

fn compare_worlds(before: &Surface, after: &Surface, grows: bool, found: &mut Vec<Broken>) {
    for (name, was) in &before.worlds {
        let place = format!("world {name}");
        let Some(is) = after.worlds.get(name) else {
            found.push(gone(place));
            continue;
        };
        let named = |names: &std::collections::BTreeSet<String>| -> BTreeMap<String, String> {
            names.iter().map(|name| (name.clone(), "there".to_owned())).collect()
        };
        let addition = if grows { None } else { Some(WITHIN_MINOR) };
        compare(&format!("{place}, import"), &named(&was.imports), &named(&is.imports), addition, found);
        let addition = Some(if grows { WORLD_EXPORTS } else { WITHIN_MINOR });
        compare(&format!("{place}, export"), &named(&was.exports), &named(&is.exports), addition, found);
    }
    for name in after.worlds.keys() {
        if !grows && !before.worlds.contains_key(name) {
            let is = Some("there".to_owned());
            found.push(Broken { place: format!("world {name}"), was: None, is, rule: WITHIN_MINOR });
        }
    }
}
