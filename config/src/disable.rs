//! `[modules.NAME] disable`: commands and routes that the operator takes out of service. Whether the module has them is for
//! whoever knows the module.

use std::collections::BTreeSet;

use crate::{
    error::{ConfigError, Place},
    found::Found,
    raw::Written,
};

/// Most names of one module.
const NAMES_MAX: usize = 512;

/// Reads the names.
pub(crate) fn read(written: Written, disable: &mut BTreeSet<String>, mistakes: &mut Vec<ConfigError>) {
    let found = written.found.to_string();
    let is_list = matches!(&written.found, Found::Typed(value) if value.is_array());
    let names: Option<BTreeSet<String>> =
        written.found.list().iter().map(|name| name.text().map(str::to_owned)).collect();
    match names.filter(|names| is_list && names.len() <= NAMES_MAX) {
        Some(names) => *disable = names,
        None => {
            let place = Place::File { line: written.line, key: written.key };
            let expected = format!(
                "a list of at most {NAMES_MAX} names such as \"commands.approve\" or \"routes.GET /{{id}}/label\""
            );
            mistakes.push(ConfigError::Value { place, found, expected });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::{modules, raw};

    #[test]
    fn names_of_commands_and_routes_are_kept_to_the_letter() {
        let text = "[modules.a]\ndisable = [\"commands.Approve\", \"routes.GET /{id}/label\"]\n[modules.b]\ndisable = []\n\
                    [modules.c]\ndisable = \"commands.x\"\n[modules.d]\ndisable = [7]\n";
        let (mut raw, mut mistakes) = (raw::parse(text).unwrap(), Vec::new());
        let modules = modules::take(&mut raw, Path::new("/app"), &mut mistakes);
        let names: Vec<_> = modules["a"].disable.iter().map(String::as_str).collect();
        assert_eq!(names, ["commands.Approve", "routes.GET /{id}/label"]);
        assert!(modules["b"].disable.is_empty());
        let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        aegis.toml:6: modules.c.disable: found "commands.x", expected a list of at most 512 names such as "commands.approve" or "routes.GET /{id}/label"
        aegis.toml:8: modules.d.disable: found a list, expected a list of at most 512 names such as "commands.approve" or "routes.GET /{id}/label"
        "#);
    }
}
