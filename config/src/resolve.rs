//! What it means: flags, environment, file and defaults become one [`Config`], or a list of all mistakes.
//!
//! Pure: whatever it depends on is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{
    aliases, defaults,
    environment::{self, Environment},
    error::{Certain, ConfigError, ConfigErrors, Place},
    flags::{Overrides, word},
    found::Found,
    keys::{self, Setting, Visit},
    kind::{Kind, Reading, Refusal},
    load::{Loaded, ModuleLines},
    modules,
    raw::{Raw, Written},
    rules, secrets, trust,
};

#[cfg(test)]
mod tests;

/// Names of which more than this share differs have nothing to do with each other.
const SHARE_CHANGED_MAX: f64 = 0.35;

/// Everything a configuration depends on.
pub(crate) struct Inputs<'a> {
    /// The app folder, absolute.
    pub(crate) app_dir: &'a Path,
    /// The command line.
    pub(crate) overrides: &'a Overrides,
    /// The environment.
    pub(crate) environment: &'a Environment,
    /// The file; `None` when it could not be read, which is already in `mistakes`.
    pub(crate) file: Option<Raw>,
    /// Processors of the machine.
    pub(crate) cores: u32,
    /// What is already known to be wrong.
    pub(crate) mistakes: Vec<ConfigError>,
    /// Where a path leads, with its symbolic links followed.
    pub(crate) located: fn(&Path) -> PathBuf,
}

/// Resolves a configuration.
pub(crate) fn resolve(inputs: Inputs<'_>) -> Result<Loaded, ConfigErrors> {
    let mut config = defaults::config(inputs.app_dir, inputs.cores);
    let file_is_known = inputs.file.is_some();
    let mut reader = Reader::new(inputs.overrides, inputs.environment, inputs.file, inputs.mistakes);
    keys::walk(&mut config, &mut reader);
    config.listens_by_default = !reader.given.contains_key("listen");
    config.modules = modules::take(&mut reader.raw, inputs.app_dir, &mut reader.mistakes);
    config.secrets = secrets::take(&mut reader.raw, inputs.app_dir, &mut reader.mistakes);
    config.trust.keys = trust::take(&mut reader.raw, &mut reader.mistakes);
    reader.refuse_unknown_keys();
    let mut warnings = std::mem::take(&mut reader.warnings);
    warnings.extend(aliases::unavailable_features(inputs.environment));
    warnings.extend(reader.unknown_variables());
    let data_dir =
        rules::complete(&mut config, |key| !reader.given.contains_key(key), inputs.cores, inputs.located);
    // A value that is wrong by itself, or that an unreadable file may have changed, settles nothing.
    let is_settled = |key: &str| {
        let beats_file = matches!(reader.given.get(key), Some(Place::Flag(_) | Place::Variable(_)));
        (file_is_known || beats_file) && !reader.wrong.contains(key)
    };
    let place = |key| is_settled(key).then(|| reader.given.get(key).cloned().unwrap_or(Place::Default(key)));
    let broken = rules::broken(&config, &data_dir, place);
    let socket_is_settled = is_settled("control_socket")
        && (reader.given.contains_key("control_socket") || is_settled("data_dir"));
    let certain = Certain {
        modules_dir: is_settled("modules_dir").then(|| config.modules_dir.clone()),
        control_socket: socket_is_settled.then(|| config.control_socket.clone()),
        webhook_secret_file: config
            .reload
            .webhook_secret_file
            .clone()
            .filter(|_| is_settled("reload.webhook_secret_file")),
        auth: ["auth.secret_file", "auth.keys_file"].into_iter().all(is_settled).then(|| config.auth.clone()),
        secrets: config.secrets.clone(),
    };
    let mut mistakes = reader.mistakes;
    mistakes.extend(broken);
    mistakes.sort_by_key(ConfigError::rank);
    if mistakes.is_empty() {
        Ok(Loaded { config, warnings, module_lines: ModuleLines::default() })
    } else {
        Err(ConfigErrors::of(mistakes, certain))
    }
}

/// Reads every setting from the first source that has it.
struct Reader<'a> {
    overrides: &'a Overrides,
    environment: &'a Environment,
    raw: Raw,
    known_keys: BTreeSet<&'static str>,
    known_variables: BTreeSet<&'static str>,
    given: BTreeMap<&'static str, Place>,
    wrong: BTreeSet<&'static str>,
    mistakes: Vec<ConfigError>,
    warnings: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(
        overrides: &'a Overrides,
        environment: &'a Environment,
        file: Option<Raw>,
        mistakes: Vec<ConfigError>,
    ) -> Self {
        Self {
            overrides,
            environment,
            raw: file.unwrap_or_default(),
            known_keys: BTreeSet::new(),
            known_variables: BTreeSet::new(),
            given: BTreeMap::new(),
            wrong: BTreeSet::new(),
            mistakes,
            warnings: Vec::new(),
        }
    }

    /// All values of a setting, the one that counts first.
    fn written(&mut self, setting: Setting) -> Vec<(Place, Found)> {
        let flag = self.overrides.get(setting.key).map(|(flag, found)| (Place::Flag(flag), found));
        let variable = environment::get(self.environment, setting.variable)
            .map(|value| (Place::Variable(setting.variable.to_owned()), word(value.to_owned())));
        let mut written: Vec<_> = flag.into_iter().chain(variable).collect();
        if written.is_empty() {
            // Names of the original may be meant for another program: they are only looked at when they count.
            written.extend(self.alias(setting.key));
        }
        let mut file = self.raw.remove(setting.key);
        if setting.key == "workers.count" {
            file = file.or_else(|| self.take_unless_table("workers"));
        }
        written.extend(file.map(|value| (Place::File { line: value.line, key: value.key }, value.found)));
        written
    }

    fn alias(&mut self, key: &'static str) -> Option<(Place, Found)> {
        let alias = aliases::get(self.environment, key)?;
        let place = Place::Variable(alias.name.to_owned());
        self.warnings.extend(alias.warning);
        match alias.value {
            Ok(found) => Some((place, found)),
            Err(refusal) => {
                self.refuse(key, place, refusal);
                None
            }
        }
    }

    fn refuse(&mut self, key: &'static str, place: Place, refusal: Refusal) {
        self.wrong.insert(key);
        self.mistakes.push(ConfigError::Value { place, found: refusal.found, expected: refusal.expected });
    }

    /// `workers = 4` is short for `workers.count = 4`.
    fn take_unless_table(&mut self, key: &str) -> Option<Written> {
        let is_table = matches!(self.raw.get(key)?.found, Found::Typed(toml::Value::Table(_)));
        if is_table { None } else { self.raw.remove(key) }
    }

    fn refuse_unknown_keys(&mut self) {
        let sections: BTreeSet<_> =
            self.known_keys.iter().filter_map(|key| key.split_once('.')).map(|(s, _)| s).collect();
        for (key, written) in std::mem::take(&mut self.raw) {
            let is_section = sections.contains(key.as_str());
            let is_table = matches!(written.found, Found::Typed(toml::Value::Table(_)));
            let place = Place::File { line: written.line, key: written.key };
            match (is_section, is_table) {
                (true, true) => {}
                (true, false) => self.mistakes.push(ConfigError::Value {
                    place,
                    found: written.found.to_string(),
                    expected: format!("a table: [{key}]"),
                }),
                (false, _) => {
                    let suggestion =
                        similar(&key, self.known_keys.iter().copied().chain(sections.iter().copied()));
                    self.mistakes.push(ConfigError::UnknownKey { place, suggestion });
                }
            }
        }
    }

    fn unknown_variables(&self) -> Vec<String> {
        let bare = |name: &'static str| name.trim_start_matches(environment::PREFIX);
        let ours = self.environment.keys().filter_map(|name| name.strip_prefix(environment::PREFIX));
        let known = || self.known_variables.iter().copied().map(bare);
        let unknown =
            ours.filter(|name| *name != bare(environment::HANDOFF) && !known().any(|known| known == *name));
        let warning = |name: &str| {
            let prefix = environment::PREFIX;
            let hint = similar(name, known()).map(|known| format!(", did you mean {prefix}{known}?"));
            format!("{prefix}{name}: unknown variable, it has no effect{}", hint.unwrap_or_default())
        };
        unknown.map(warning).collect()
    }
}

impl Visit for Reader<'_> {
    fn visit<K: Kind>(&mut self, setting: Setting, kind: &K, value: &mut K::Value) {
        self.known_keys.insert(setting.key);
        self.known_variables.insert(setting.variable);
        // Sources that are overridden are checked all the same: a mistake does not become right by being hidden.
        for (rank, (place, found)) in self.written(setting).into_iter().enumerate() {
            match kind.read(&found) {
                Ok(Reading::Value(read)) if rank == 0 => {
                    *value = read;
                    self.given.insert(setting.key, place);
                }
                Ok(_) => {}
                Err(refusal) => self.refuse(setting.key, place, refusal),
            }
        }
    }
}

/// The known name most like `name`, with or without its section, if any is like it at all.
pub(crate) fn similar(name: &str, known: impl Iterator<Item = &'static str>) -> Option<String> {
    let likeness = |known: &'static str| {
        let last = known.rsplit('.').next().unwrap_or(known);
        share_changed(name, known).min(share_changed(name, last))
    };
    let best = known.map(|known| (likeness(known), known)).min_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(changed, _)| *changed <= SHARE_CHANGED_MAX).map(|(_, known)| known.to_owned())
}

/// How much of a name must be changed to make it another one.
fn share_changed(name: &str, known: &str) -> f64 {
    1.0 - strsim::normalized_damerau_levenshtein(name, known)
}
