//! `[modules.NAME]`: what the operator says about single modules.
//!
//! Names and settings are whatever the modules make of them, so they are read apart from the table of settings and are
//! kept to the letter; limits have kinds and bounds like all other settings.

use std::{collections::BTreeMap, path::Path, time::Duration};

use toml::Value;

use crate::{
    builds::{self, Builds},
    disable,
    error::{ConfigError, Place},
    found::Found,
    grants,
    kind::{Choice, Count, Kind, Reading, Size, Time},
    raw::{Raw, Written},
    resolve::similar,
    settings::{ModelGrant, ModuleGrants, ModuleLimits, ModuleTerms, OnModuleFailure},
    sources::{self, Sources},
};

/// Key of the outermost table.
pub(crate) const SECTION: &str = "modules";
/// Keys of `[modules.NAME]`.
const KEYS: [&str; 11] = [
    "source",
    "version",
    "api",
    "sha256",
    "token-file",
    "build",
    "watch",
    "settings",
    "limits",
    "grants",
    "disable",
];
/// Keys of `limits`.
pub(crate) const LIMIT_KEYS: [&str; 8] = [
    "memory",
    "deadline",
    "cpu-deadline",
    "payload",
    "instances",
    "invocations",
    "concurrent",
    "on-module-failure",
];

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const MEMORY: Size = Size(64 * KIB..=256 * MIB);
const DEADLINE: Time = Time(Duration::from_millis(1)..=Duration::from_secs(60));
const CPU_DEADLINE: Time = Time(Duration::from_millis(1)..=Duration::from_secs(3600));
const PAYLOAD: Size = Size(KIB..=64 * MIB);
const INSTANCES: Count<u32> = Count(1..=512);
const INVOCATIONS: Count<u64> = Count(1..=1_000_000_000);
const CONCURRENT: Count<u32> = Count(1..=1000);
const ON_FAILURE: Choice<OnModuleFailure> =
    Choice(&[("deny", OnModuleFailure::Deny), ("skip", OnModuleFailure::Skip)]);

/// Takes what is written about modules out of the file.
pub(crate) fn take(
    raw: &mut Raw,
    app_dir: &Path,
    mistakes: &mut Vec<ConfigError>,
) -> BTreeMap<String, ModuleTerms> {
    let mut modules = BTreeMap::<String, ModuleTerms>::new();
    let (mut sources, mut builds) = (Sources::default(), Builds::default());
    let prefix = format!("{SECTION}.");
    for (key, written) in raw.extract_if(.., |key, _| key == SECTION || key.starts_with(&prefix)) {
        let path = key.strip_prefix(&prefix).unwrap_or_default();
        if let Some(name) = path.strip_suffix(".settings") {
            read_settings(written, &mut modules.entry(name.to_owned()).or_default().settings, mistakes);
        } else if let Some(name) = path.strip_suffix(".grants") {
            read_grants(written, &mut modules.entry(name.to_owned()).or_default().grants, mistakes);
        } else if let Some(name) = path.strip_suffix(".disable") {
            disable::read(written, &mut modules.entry(name.to_owned()).or_default().disable, mistakes);
        } else if let Some((name, limit)) = path.rsplit_once(".limits.") {
            let limits = &mut modules.entry(name.to_owned()).or_default().limits;
            read_limit(limit, written, limits, mistakes);
        } else if let Some((name, part)) = builds::part_of(path) {
            builds.add(name, part, written, mistakes);
        } else if let Some((name, part)) = sources::part_of(path) {
            sources.add(name, part, written, mistakes);
        } else if !is_empty_table(&written.found) {
            let (found, expected) = match path.rsplit_once('.') {
                Some((_, "limits")) => (written.found.to_string(), "a table of limits".to_owned()),
                Some((_, key)) => unknown_key(key, &KEYS),
                None => {
                    let expected = format!("a table [{SECTION}.NAME] with {}", KEYS.join(", "));
                    (written.found.to_string(), expected)
                }
            };
            let place = Place::File { line: written.line, key: written.key };
            mistakes.push(ConfigError::Value { place, found, expected });
        }
    }
    for (name, source) in sources.finish(app_dir, mistakes) {
        modules.entry(name).or_default().source = Some(source);
    }
    for (name, build) in builds.finish(app_dir, mistakes) {
        modules.entry(name).or_default().build = Some(build);
    }
    modules
}

/// What is found and what is expected where only these keys can be.
fn unknown_key(key: &str, known: &'static [&'static str]) -> (String, String) {
    let hint = similar(key, known.iter().copied()).map(|known| format!(" (did you mean `{known}`?)"));
    (format!("an unknown key{}", hint.unwrap_or_default()), format!("one of {}", known.join(", ")))
}

fn is_empty_table(found: &Found) -> bool {
    matches!(found, Found::Typed(Value::Table(table)) if table.is_empty())
}

fn read_settings(written: Written, settings: &mut toml::Table, mistakes: &mut Vec<ConfigError>) {
    let Written { key, line, found } = written;
    let refusal = match found {
        Found::Typed(Value::Table(table)) => match table.values().find_map(foreign_to_json) {
            None => {
                *settings = table;
                return;
            }
            Some(foreign) => {
                (foreign, "texts, numbers, booleans, lists and tables, as JSON has them".to_owned())
            }
        },
        other => (other.to_string(), "a table of settings".to_owned()),
    };
    let (found, expected) = refusal;
    mistakes.push(ConfigError::Value { place: Place::File { line, key }, found, expected });
}

/// `grants = { models = { customer = ["read", "write"] }, events = ["CREATEORDER"] }`.
fn read_grants(written: Written, grants: &mut ModuleGrants, mistakes: &mut Vec<ConfigError>) {
    const EXPECTED: &str = "a table { models = { NAME = [\"read\", \"write\"] } }";
    let Written { key, line, found } = written;
    let mut refuse = |key: String, found: String, expected: &str| {
        let place = Place::File { line, key };
        mistakes.push(ConfigError::Value { place, found, expected: expected.to_owned() });
    };
    let Found::Typed(Value::Table(table)) = found else { return refuse(key, found.to_string(), EXPECTED) };
    for (capability, value) in table {
        let key = format!("{key}.{capability}");
        if capability == "events" {
            let names = Found::Typed(value.clone()).list();
            let names: Option<Vec<String>> = names.iter().map(|one| one.text().map(str::to_owned)).collect();
            match names.filter(|names| value.is_array() && !names.is_empty()) {
                Some(names) => grants.events = names,
                None => {
                    let found = offender(value, |one| one.text().is_some());
                    refuse(key, found, "a list of names of events");
                }
            }
            continue;
        }
        if let Some(read) = grants::read(&capability, &value, grants) {
            read.unwrap_or_else(|found| refuse(key, found, grants::EXPECTED));
            continue;
        }
        if capability != "models" {
            refuse(key, "a capability that cannot be granted".to_owned(), grants::CAPABILITIES);
            continue;
        }
        let Value::Table(models) = value else {
            refuse(key, Found::Typed(value).to_string(), EXPECTED);
            continue;
        };
        for (model, access) in models {
            let mut grant = ModelGrant::default();
            let known = Found::Typed(access.clone()).list().iter().all(|one| match one.text() {
                Some("read") => {
                    grant.read = true;
                    true
                }
                Some("write") => {
                    grant.write = true;
                    true
                }
                _ => false,
            });
            if known && grant != ModelGrant::default() {
                grants.models.insert(model.to_ascii_uppercase(), grant);
            } else {
                let found = offender(access, |one| matches!(one.text(), Some("read" | "write")));
                refuse(format!("{key}.{model}"), found, "a list of \"read\" and \"write\"");
            }
        }
    }
}

/// What is wrong with a list that is not taken: an item of it, that it is empty, or that it is none.
fn offender(value: Value, is_right: impl Fn(&Found) -> bool) -> String {
    let (is_list, whole) = (value.is_array(), Found::Typed(value));
    let items = whole.clone().list();
    match items.iter().find(|item| !is_right(item)) {
        Some(item) if is_list => item.to_string(),
        None if is_list && items.is_empty() => "an empty list".to_owned(),
        _ => whole.to_string(),
    }
}

/// What JSON cannot say, if anything.
fn foreign_to_json(value: &Value) -> Option<String> {
    match value {
        Value::Datetime(_) => Some("the date or time ".to_owned() + &value.to_string()),
        Value::Float(number) if !number.is_finite() => Some(format!("the number {number}")),
        Value::Array(items) => items.iter().find_map(foreign_to_json),
        Value::Table(table) => table.values().find_map(foreign_to_json),
        Value::String(_) | Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => None,
    }
}

fn read_limit(key: &str, written: Written, limits: &mut ModuleLimits, mistakes: &mut Vec<ConfigError>) {
    let Written { key: written_key, line, found } = written;
    let place = Place::File { line, key: written_key };
    let refusal = match key {
        "memory" => read(&MEMORY, &found, &mut limits.memory),
        "deadline" => read(&DEADLINE, &found, &mut limits.deadline),
        "cpu_deadline" => read(&CPU_DEADLINE, &found, &mut limits.cpu_deadline),
        "payload" => read(&PAYLOAD, &found, &mut limits.payload),
        "instances" => read(&INSTANCES, &found, &mut limits.instances),
        "invocations" => read(&INVOCATIONS, &found, &mut limits.invocations),
        "concurrent" => read(&CONCURRENT, &found, &mut limits.concurrent),
        "on_module_failure" => read(&ON_FAILURE, &found, &mut limits.on_module_failure),
        _ => Some(unknown_key(&key.replace('_', "-"), &LIMIT_KEYS)),
    };
    if let Some((found, expected)) = refusal {
        mistakes.push(ConfigError::Value { place, found, expected });
    }
}

/// What was found and what is expected, unless it is right.
fn read<K: Kind>(kind: &K, found: &Found, value: &mut Option<K::Value>) -> Option<(String, String)> {
    match kind.read(found) {
        Ok(Reading::Value(read)) => {
            *value = Some(read);
            None
        }
        Ok(Reading::Auto) => None,
        Err(refusal) => Some((refusal.found, refusal.expected)),
    }
}

/// One limit as a manifest has it: text, or a number for counts. The key is one of [`LIMIT_KEYS`].
///
/// # Errors
/// What was found and what is expected.
pub fn read_module_limit(key: &str, text: &str, limits: &mut ModuleLimits) -> Result<(), String> {
    let mut mistakes = Vec::new();
    let found = Found::Word(text.to_owned());
    let written = Written { key: key.to_owned(), line: 0, found };
    read_limit(&key.replace('-', "_"), written, limits, &mut mistakes);
    match mistakes.pop() {
        None => Ok(()),
        Some(ConfigError::Value { found, expected, .. }) => {
            Err(format!("found {found}, expected {expected}"))
        }
        Some(other) => Err(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raw;

    fn modules(text: &str) -> (BTreeMap<String, ModuleTerms>, String) {
        let mut raw = raw::parse(text).unwrap();
        let mut mistakes = Vec::new();
        let modules = take(&mut raw, Path::new("/app"), &mut mistakes);
        assert!(raw.is_empty(), "{raw:?}");
        (modules, mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn settings_and_names_are_kept_to_the_letter() {
        let (modules, mistakes) = modules(
            "[modules.my-order]\nsettings = { base-url = \"x\", deep = { a_b = [1, 2.5, true] } }\n\
             [modules.my_order.settings]\nempty = {}\n[modules.\"a.b\".limits]\nmemory = \"1MiB\"\n[modules.none]\n",
        );
        assert_eq!(mistakes, "");
        let names: Vec<_> = modules.keys().map(String::as_str).collect();
        assert_eq!(names, ["a.b", "my-order", "my_order"]);
        assert_eq!(modules["my-order"].settings["base-url"].as_str(), Some("x"));
        assert_eq!(modules["my-order"].settings["deep"]["a_b"].as_array().unwrap().len(), 3);
        assert_eq!(modules["a.b"].limits.memory, Some(1 << 20));
    }

    #[test]
    fn limits_have_kinds_and_bounds() {
        let (modules, mistakes) = modules(
            "[modules.a.limits]\nmemory = \"64MiB\"\ndeadline = \"250ms\"\ncpu-deadline = \"5s\"\npayload = \"1MiB\"\n\
             instances = 8\ninvocations = 10_000\nconcurrent = 4\non-module-failure = \"skip\"\n",
        );
        assert_eq!(mistakes, "");
        insta::assert_debug_snapshot!(modules["a"].limits, @"
        ModuleLimits {
            memory: Some(
                67108864,
            ),
            deadline: Some(
                250ms,
            ),
            cpu_deadline: Some(
                5s,
            ),
            payload: Some(
                1048576,
            ),
            instances: Some(
                8,
            ),
            invocations: Some(
                10000,
            ),
            concurrent: Some(
                4,
            ),
            on_module_failure: Some(
                Skip,
            ),
        }
        ");
    }

    #[test]
    fn mistakes_come_all_at_once_with_their_lines() {
        let (_, mistakes) = modules(
            "[modules.a]\nsetings = 1\nsettings = { at = 2020-01-01, }\n[modules.a.limits]\nmemory = \"1GiB\"\n\
             deadline = 5\ncpu-dedline = \"1s\"\n[modules]\nb = true\nc.settings = [1]\nd.settings.x = nan\n",
        );
        insta::assert_snapshot!(mistakes, @r#"
        aegis.toml:7: modules.a.limits.cpu-dedline: found an unknown key (did you mean `cpu-deadline`?), expected one of memory, deadline, cpu-deadline, payload, instances, invocations, concurrent, on-module-failure
        aegis.toml:6: modules.a.limits.deadline: found 5, expected a time from 1ms to 1m, such as "250ms" or "30s"
        aegis.toml:5: modules.a.limits.memory: found "1GiB", expected a size from 64KiB to 256MiB, such as "64KiB" or "2MiB"
        aegis.toml:2: modules.a.setings: found an unknown key (did you mean `settings`?), expected one of source, version, api, sha256, token-file, build, watch, settings, limits, grants, disable
        aegis.toml:3: modules.a.settings: found the date or time 2020-01-01, expected texts, numbers, booleans, lists and tables, as JSON has them
        aegis.toml:9: modules.b: found true, expected a table [modules.NAME] with source, version, api, sha256, token-file, build, watch, settings, limits, grants, disable
        aegis.toml:10: modules.c.settings: found a list, expected a table of settings
        aegis.toml:11: modules.d.settings: found the number NaN, expected texts, numbers, booleans, lists and tables, as JSON has them
        "#);
    }

    #[test]
    fn an_unknown_key_is_told_with_those_that_are_known() {
        let (_, mistakes) =
            modules("[modules.m]\nlimit = { memory = \"1MiB\" }\nlimits = 5\nfrobnicate = true\n");
        insta::assert_snapshot!(mistakes, @"
        aegis.toml:4: modules.m.frobnicate: found an unknown key, expected one of source, version, api, sha256, token-file, build, watch, settings, limits, grants, disable
        aegis.toml:2: modules.m.limit: found an unknown key (did you mean `limits`?), expected one of source, version, api, sha256, token-file, build, watch, settings, limits, grants, disable
        aegis.toml:3: modules.m.limits: found 5, expected a table of limits
        ");
    }

    #[test]
    fn a_manifest_has_the_same_limits() {
        let mut limits = ModuleLimits::default();
        for (key, text) in [("memory", "1MiB"), ("cpu-deadline", "2s"), ("instances", "3")] {
            read_module_limit(key, text, &mut limits).unwrap();
        }
        assert_eq!(limits.memory, Some(1 << 20));
        assert_eq!(limits.cpu_deadline, Some(Duration::from_secs(2)));
        assert_eq!(limits.instances, Some(3));
        let message = read_module_limit("deadline", "soon", &mut limits).unwrap_err();
        insta::assert_snapshot!(message, @r#"found "soon", expected a time from 1ms to 1m, such as "250ms" or "30s""#);
        read_module_limit("on-module-failure", "deny", &mut limits).unwrap();
        let message = read_module_limit("on-module-failure", "ignore", &mut limits).unwrap_err();
        insta::assert_snapshot!(message, @r#"found "ignore", expected "deny" or "skip""#);
        assert!(read_module_limit("other", "1", &mut limits).is_err());
    }

    #[test]
    fn grants_name_models_and_what_may_be_done_with_their_documents() {
        let (modules, mistakes) = modules(
            "[modules.order]\ngrants = { models = { Customer = [\"read\"], inventory = [\"read\", \"write\"] }, events = [\"CREATE*\"] }\n\
             [modules.a]\ngrants = { models = { x = [\"own\"], y = [] }, http = {}, secrets = 7, files = {}, evnts = [\"X\"], events = [3] }\n\
             [modules.b]\ngrants = true\n",
        );
        let models = &modules["order"].grants.models;
        assert_eq!(models["CUSTOMER"], ModelGrant { read: true, write: false });
        assert_eq!(modules["order"].grants.events, ["CREATE*"]);
        assert_eq!(models["INVENTORY"], ModelGrant { read: true, write: true });
        insta::assert_snapshot!(mistakes, @r#"
        aegis.toml:4: modules.a.grants.models.x: found "own", expected a list of "read" and "write"
        aegis.toml:4: modules.a.grants.models.y: found an empty list, expected a list of "read" and "write"
        aegis.toml:4: modules.a.grants.http: found a table, expected a list of texts
        aegis.toml:4: modules.a.grants.secrets: found 7, expected a list of texts
        aegis.toml:4: modules.a.grants.files: found a capability that cannot be granted, expected models, events, http, secrets or "secrets.reveal"
        aegis.toml:4: modules.a.grants.evnts: found a capability that cannot be granted, expected models, events, http, secrets or "secrets.reveal"
        aegis.toml:4: modules.a.grants.events: found 3, expected a list of names of events
        aegis.toml:6: modules.b.grants: found true, expected a table { models = { NAME = ["read", "write"] } }
        "#);
    }
}
