//! App folders for tests, written from a few lines.

use std::{fs, path::Path};

/// An app folder to be written: `aegis.toml` and modules.
#[derive(Debug, Clone, Default)]
pub struct App {
    settings: String,
    modules: Vec<(String, String)>,
}

/// The todo model of the example app, with every kind of field that the tests need.
pub const TODO: &str = r#"
name = "todo"
endpoint = "todo"

[fields]
text = "text"
isComplete = "boolean"
n = { kind = "integer", indexed = true }
"#;

/// [`TODO`] with one more field: another module text for each number, and so another generation.
#[must_use]
pub fn revised_todo(number: u32) -> String {
    format!("{TODO}\n[fields.extra{number}]\nkind = \"integer\"\n")
}

impl App {
    /// An app with the one model `todo`.
    #[must_use]
    pub fn todo() -> Self {
        Self::default().module("todo", TODO)
    }

    /// Adds lines to `aegis.toml`.
    #[must_use]
    pub fn settings(mut self, toml: &str) -> Self {
        self.settings.push_str(toml);
        self.settings.push('\n');
        self
    }

    /// Adds a module.
    #[must_use]
    pub fn module(mut self, folder: &str, toml: &str) -> Self {
        self.modules.push((folder.to_owned(), toml.to_owned()));
        self
    }

    /// Writes the folder.
    pub fn write(&self, folder: &Path) {
        fs::create_dir_all(folder.join("modules")).expect("create the app folder");
        fs::write(folder.join("aegis.toml"), &self.settings).expect("write aegis.toml");
        for (name, toml) in &self.modules {
            write_module(folder, name, toml);
        }
    }
}

/// Writes or replaces one module of an app folder.
pub fn write_module(folder: &Path, name: &str, toml: &str) {
    let folder = folder.join("modules").join(name);
    fs::create_dir_all(&folder).expect("create a module folder");
    fs::write(folder.join("module.toml"), toml).expect("write module.toml");
}
