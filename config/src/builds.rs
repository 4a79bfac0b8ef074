//! `[modules.NAME]` `build` and `watch`: how a module is built while it is worked on.

use std::{collections::BTreeMap, path::Path};

use crate::{
    error::{ConfigError, Place},
    raw::Written,
    settings::ModuleBuild,
};

/// Longest command, bytes.
const COMMAND_BYTES_MAX: usize = 4096;
/// Most folders of one module.
const FOLDERS_MAX: usize = 64;

/// One of the keys that say how a module is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Command,
    Watch,
}

/// Module and key, if a path within `modules` leads to a part of a build.
pub(crate) fn part_of(path: &str) -> Option<(&str, Part)> {
    let (name, key) = path.rsplit_once('.')?;
    match key {
        "build" => Some((name, Part::Command)),
        "watch" => Some((name, Part::Watch)),
        _ => None,
    }
}

/// What is written about builds, until all of it is known.
#[derive(Debug, Default)]
pub(crate) struct Builds {
    commands: BTreeMap<String, String>,
    folders: BTreeMap<String, (Place, Vec<String>)>,
}

impl Builds {
    /// Notes one part.
    pub(crate) fn add(&mut self, name: &str, part: Part, written: Written, mistakes: &mut Vec<ConfigError>) {
        let place = Place::File { line: written.line, key: written.key };
        let found = written.found.to_string();
        let expected = match part {
            Part::Command => {
                let command = written.found.text().map(str::trim).unwrap_or_default();
                if (1..=COMMAND_BYTES_MAX).contains(&command.len()) {
                    self.commands.insert(name.to_owned(), command.to_owned());
                    return;
                }
                format!("a command for the shell of 1 to {COMMAND_BYTES_MAX} bytes")
            }
            Part::Watch => {
                let folders = written.found.list();
                let texts = folders.iter().map(|folder| folder.text().filter(|text| !text.is_empty()));
                let texts: Option<Vec<String>> = texts.map(|text| text.map(str::to_owned)).collect();
                if let Some(texts) = texts.filter(|texts| (1..=FOLDERS_MAX).contains(&texts.len())) {
                    self.folders.insert(name.to_owned(), (place, texts));
                    return;
                }
                format!("a list of 1 to {FOLDERS_MAX} folders")
            }
        };
        mistakes.push(ConfigError::Value { place, found, expected });
    }

    /// The builds, by module.
    pub(crate) fn finish(
        mut self,
        app_dir: &Path,
        mistakes: &mut Vec<ConfigError>,
    ) -> BTreeMap<String, ModuleBuild> {
        let one = |(name, command): (String, String)| {
            let folders = self.folders.remove(&name).map(|(_, folders)| folders).unwrap_or_default();
            let absolute = |folder: String| app_dir.join(folder).components().collect();
            let watch = folders.into_iter().map(absolute).collect();
            (name, ModuleBuild { command, watch })
        };
        let builds = self.commands.into_iter().map(one).collect();
        for (place, _) in self.folders.into_values() {
            let (found, expected) = ("no build beside it".to_owned(), "a command in build".to_owned());
            mistakes.push(ConfigError::Value { place, found, expected });
        }
        builds
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::{modules, raw};

    fn builds(text: &str) -> (BTreeMap<String, Option<ModuleBuild>>, String) {
        let mut raw = raw::parse(text).unwrap();
        let mut mistakes = Vec::new();
        let modules = modules::take(&mut raw, Path::new("/srv/app"), &mut mistakes);
        let mistakes = mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        (modules.into_iter().map(|(name, terms)| (name, terms.build)).collect(), mistakes)
    }

    #[test]
    fn a_build_is_a_command_and_the_folders_that_it_is_about() {
        let (builds, mistakes) = builds(
            "[modules.a]\nbuild = \"npm run build\"\nwatch = [\"../src\", \"/lib\"]\n\
             [modules.b]\nbuild = \"make\"\nwatch = \"src\"\n[modules.c]\nbuild = \"make c\"\n",
        );
        assert_eq!(mistakes, "");
        let a = builds["a"].clone().unwrap();
        assert_eq!(a.command, "npm run build");
        assert_eq!(a.watch, [PathBuf::from("/srv/app/../src"), PathBuf::from("/lib")]);
        assert_eq!(builds["b"].clone().unwrap().watch, [PathBuf::from("/srv/app/src")]);
        assert_eq!(builds["c"].clone().unwrap().watch, [] as [PathBuf; 0]);
    }

    #[test]
    fn mistakes_name_the_key_and_what_was_expected() {
        let (_, mistakes) = builds(
            "[modules.a]\nbuild = \"\"\n[modules.b]\nwatch = [\"src\"]\n[modules.c]\nbuild = \"x\"\nwatch = [1]\n",
        );
        insta::assert_snapshot!(mistakes, @r#"
        aegis.toml:2: modules.a.build: found "", expected a command for the shell of 1 to 4096 bytes
        aegis.toml:7: modules.c.watch: found a list, expected a list of 1 to 64 folders
        aegis.toml:4: modules.b.watch: found no build beside it, expected a command in build
        "#);
    }
}
