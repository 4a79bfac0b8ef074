//! The configuration as clients and operators read it.

use serde::Serialize;

use crate::{
    keys::{self, Setting, Visit},
    kind::Kind,
    settings::Config,
};

/// Settings that tell about the machine rather than the service.
const PRIVATE: &[&str] = &[
    "admin_socket",
    "admin_listen",
    "control_socket",
    "modules_dir",
    "data_dir",
    "reload.webhook_secret_file",
    "log.file",
    "log.level",
    "trust.require",
    "auth.secret_file",
    "auth.keys_file",
];

/// Settings under the keys of `aegis.toml`: times as text such as `"30s"`, sizes in bytes, nothing for what is `"none"`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct View(toml::Table);

impl Config {
    /// What everybody may know: nothing about paths and addresses of the machine.
    #[must_use]
    pub fn public_view(&self) -> View {
        self.view(|key| !PRIVATE.contains(&key))
    }

    /// What operators may know: everything.
    #[must_use]
    pub fn operator_view(&self) -> View {
        self.view(|_| true)
    }

    fn view(&self, is_shown: impl Fn(&str) -> bool) -> View {
        let mut shown = Shown { is_shown, table: toml::Table::new() };
        keys::walk(&mut self.clone(), &mut shown);
        View(shown.table)
    }
}

struct Shown<F> {
    is_shown: F,
    table: toml::Table,
}

impl<F: Fn(&str) -> bool> Visit for Shown<F> {
    fn visit<K: Kind>(&mut self, setting: Setting, kind: &K, value: &mut K::Value) {
        if let (true, Some(value)) = ((self.is_shown)(setting.key), kind.show(value)) {
            insert(&mut self.table, setting.key, value);
        }
    }
}

fn insert(table: &mut toml::Table, key: &str, value: toml::Value) {
    let Some((section, key)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return;
    };
    let section = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    if let toml::Value::Table(section) = section {
        section.insert(key.to_owned(), value);
    }
}

/// All settings, as the file would have them.
#[cfg(test)]
pub(crate) fn written(config: &Config) -> toml::Table {
    struct Written(toml::Table);
    impl Visit for Written {
        fn visit<K: Kind>(&mut self, setting: Setting, kind: &K, value: &mut K::Value) {
            insert(&mut self.0, setting.key, kind.write(value));
        }
    }
    let mut written = Written(toml::Table::new());
    keys::walk(&mut config.clone(), &mut written);
    written.0
}
