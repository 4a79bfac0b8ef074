//! App folders for tests, written from a few lines.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// An app folder to be written: `aegis.toml` and modules.
#[derive(Debug, Clone, Default)]
pub struct App {
    settings: String,
    modules: Vec<(String, String)>,
    components: Vec<(String, Vec<u8>)>,
    example: Option<PathBuf>,
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

/// Settings for a quick rollout: the judgement itself has tests of its own.
pub const QUICK: &str = "[reload]\ncanary-time = \"50ms\"\ncanary-requests-min = 1000000\n";

impl App {
    /// An app with the one model `todo`.
    #[must_use]
    pub fn todo() -> Self {
        Self::default().module("todo", TODO)
    }

    /// A copy of the example app of this name, as it is built.
    #[must_use]
    pub fn example(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository");
        let folder = root.join("examples").join(name);
        let settings = fs::read_to_string(folder.join("aegis.toml")).unwrap_or_default();
        Self { settings, example: Some(folder.join("modules")), ..Self::default() }
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

    /// Adds a module that is a component.
    #[must_use]
    pub fn component(mut self, folder: &str, bytes: Vec<u8>) -> Self {
        self.components.push((folder.to_owned(), bytes));
        self
    }

    /// Writes the folder.
    pub fn write(&self, folder: &Path) {
        fs::create_dir_all(folder.join("modules")).expect("create the app folder");
        fs::write(folder.join("aegis.toml"), &self.settings).expect("write aegis.toml");
        if let Some(example) = &self.example {
            copy_modules(example, &folder.join("modules"));
        }
        for (name, toml) in &self.modules {
            write_module(folder, name, toml);
        }
        for (name, bytes) in &self.components {
            write_component(folder, name, bytes);
        }
    }
}

/// Copies module folders with their files.
fn copy_modules(from: &Path, to: &Path) {
    for module in fs::read_dir(from).expect("list the example's modules") {
        let module = module.expect("read the example's modules").path();
        let copy = to.join(module.file_name().expect("a module folder has a name"));
        fs::create_dir_all(&copy).expect("create a module folder");
        for file in fs::read_dir(&module).expect("list a module folder") {
            let file = file.expect("read a module folder").path();
            let name = file.file_name().expect("a file has a name");
            fs::copy(&file, copy.join(name)).expect("copy a file of a module");
        }
    }
}

/// Writes or replaces one module of an app folder.
pub fn write_module(folder: &Path, name: &str, toml: &str) {
    let folder = folder.join("modules").join(name);
    fs::create_dir_all(&folder).expect("create a module folder");
    fs::write(folder.join("module.toml"), toml).expect("write module.toml");
}

/// Writes or replaces one module of an app folder that is a component, in one step as a publisher does.
pub fn write_component(folder: &Path, name: &str, bytes: &[u8]) {
    let folder = folder.join("modules").join(name);
    fs::create_dir_all(&folder).expect("create a module folder");
    let fresh = folder.join(".module.wasm.new");
    fs::write(&fresh, bytes).expect("write a component");
    fs::rename(fresh, folder.join("module.wasm")).expect("put a component in its place");
}
