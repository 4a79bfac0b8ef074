//! From an app folder to a configuration: the part that looks at the disk.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
};

use crate::{
    environment::Environment,
    error::{ConfigError, ConfigErrors},
    flags::Overrides,
    modules::SECTION,
    raw,
    resolve::{Inputs, resolve},
    settings::Config,
};

/// Name of the configuration file in the app folder.
pub const CONFIG_FILE: &str = "aegis.toml";
/// Name of the folder with the modules, unless `modules_dir` says otherwise.
pub const MODULES_FOLDER: &str = "modules";
/// Largest configuration file, bytes.
const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;

/// A configuration, and what its operator should know.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// One sentence each; for the log.
    pub warnings: Vec<String>,
    /// Where the file speaks of single modules.
    pub module_lines: ModuleLines,
}

/// The lines of the file that speak of modules. They are no part of the configuration: it is the same wherever it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModuleLines(BTreeMap<String, usize>);

impl ModuleLines {
    /// The place of a key path such as `modules.order.grants`, as mistakes are told with it. Letters may be of another case
    /// than in the file.
    #[must_use]
    pub fn place(&self, key: &str) -> String {
        match self.0.iter().find(|(written, _)| written.eq_ignore_ascii_case(key)) {
            Some((written, line)) => format!("{CONFIG_FILE}:{line}: {written}"),
            None => format!("{CONFIG_FILE}: {key}"),
        }
    }
}

impl Config {
    /// Reads the configuration of the app in `app_dir`.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub fn load(
        app_dir: &Path,
        overrides: &Overrides,
        environment: &Environment,
    ) -> Result<Loaded, ConfigErrors> {
        let app_dir = app_folder(app_dir)?;
        let (mut mistakes, mut module_lines) = (Vec::new(), ModuleLines::default());
        let read = read_file(&app_dir).and_then(|text| {
            let raw = raw::parse(&text)?;
            module_lines = ModuleLines(raw::lines_below(&text, SECTION));
            Ok(raw)
        });
        let file = match read {
            Ok(raw) => Some(raw),
            Err(errors) => {
                mistakes.extend(errors);
                None
            }
        };
        let cores =
            thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX));
        let inputs = Inputs { app_dir: &app_dir, overrides, environment, file, cores, mistakes, located };
        resolve(inputs).map(|loaded| Loaded { module_lines, ..loaded })
    }
}

/// The absolute path of the app folder, once it is known to be one.
///
/// Symbolic links stay in the path: whoever deploys by pointing a link elsewhere expects a reload to follow it.
fn app_folder(given: &Path) -> Result<PathBuf, ConfigError> {
    let refuse = |found: &str| ConfigError::App {
        path: given.to_owned(),
        found: found.to_owned(),
        expected: format!("an app folder with {CONFIG_FILE} or {MODULES_FOLDER}/"),
    };
    let read = |source| ConfigError::Read { path: given.to_owned(), source };
    let absolute = std::path::absolute(given).map_err(read)?;
    if absolute.to_str().is_none() {
        return Err(refuse("a path that is not UTF-8"));
    }
    match fs::metadata(&absolute) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(refuse("a file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(refuse("nothing")),
        Err(source) => return Err(read(source)),
    }
    let has = |name: &str| fs::symlink_metadata(absolute.join(name)).is_ok();
    if !has(CONFIG_FILE) && !has(MODULES_FOLDER) {
        return Err(refuse("a folder with neither"));
    }
    Ok(absolute)
}

/// Where `path` leads, with the symbolic links on the way followed as far as there is something.
#[must_use]
pub fn located(path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|there| Some((there, fs::canonicalize(there).ok()?)));
    match found.and_then(|(there, real)| Some((real, path.strip_prefix(there).ok()?))) {
        // Joining nothing would add a slash.
        Some((real, rest)) if rest.as_os_str().is_empty() => real,
        Some((real, rest)) => real.join(rest),
        None => path.to_owned(),
    }
}

/// The text of the configuration file. No file: nothing is written.
fn read_file(app_dir: &Path) -> Result<String, Vec<ConfigError>> {
    let path = app_dir.join(CONFIG_FILE);
    let refuse = |found: String, expected: &str| {
        vec![ConfigError::App { path: path.clone(), found, expected: expected.to_owned() }]
    };
    let read = |source| vec![ConfigError::Read { path: path.clone(), source }];
    // Looked at before it is opened: opening a named pipe would wait for somebody to write into it.
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(refuse("no regular file".to_owned(), "a file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A link to nowhere is no missing file: somebody wanted one.
            return if fs::symlink_metadata(&path).is_ok() {
                Err(refuse("a symbolic link to nowhere".to_owned(), "a file"))
            } else {
                Ok(String::new())
            };
        }
        Err(source) => return Err(read(source)),
    }
    let file = File::open(&path).map_err(read)?;
    let mut bytes = Vec::new();
    file.take(CONFIG_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > CONFIG_FILE_BYTES_MAX {
        return Err(refuse(format!("more than {CONFIG_FILE_BYTES_MAX} bytes"), "at most that"));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let valid_up_to = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..valid_up_to].iter().filter(|byte| **byte == b'\n').count() + 1;
            Err(refuse(format!("bytes in line {line} that are not UTF-8"), "UTF-8 text"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn load(folder: &Path) -> Result<Config, String> {
        match Config::load(folder, &Overrides::default(), &Environment::new()) {
            Ok(loaded) => Ok(loaded.config),
            Err(errors) => Err(errors.to_string().replace(&folder.display().to_string(), "APP")),
        }
    }

    #[test]
    fn a_folder_with_modules_alone_is_an_app() {
        let app = tempfile::tempdir().unwrap();
        fs::create_dir(app.path().join("modules")).unwrap();
        assert_eq!(load(app.path()).unwrap().modules_dir, app.path().join("modules"));
    }

    #[test]
    fn what_is_no_app_folder_is_refused_with_what_was_expected() {
        let app = tempfile::tempdir().unwrap();
        insta::assert_snapshot!(load(app.path()).unwrap_err(), @"APP: found a folder with neither, expected an app folder with aegis.toml or modules/");
        let file = app.path().join("file");
        fs::write(&file, "").unwrap();
        insta::assert_snapshot!(load(&file).unwrap_err(), @"APP: found a file, expected an app folder with aegis.toml or modules/");
        insta::assert_snapshot!(load(&app.path().join("missing")).unwrap_err(), @"APP: found nothing, expected an app folder with aegis.toml or modules/");
    }

    #[test]
    fn a_file_that_cannot_be_text_is_refused() {
        let app = tempfile::tempdir().unwrap();
        let path = app.path().join(CONFIG_FILE);
        fs::write(&path, b"listen = \"127.0.0.1:0\"\n# \xff\n").unwrap();
        insta::assert_snapshot!(load(app.path()).unwrap_err(), @"APP/aegis.toml: found bytes in line 2 that are not UTF-8, expected UTF-8 text");
        fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
        insta::assert_snapshot!(load(app.path()).unwrap_err(), @"APP/aegis.toml: found more than 1048576 bytes, expected at most that");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        insta::assert_snapshot!(load(app.path()).unwrap_err(), @"APP/aegis.toml: found no regular file, expected a file");
    }

    #[test]
    fn what_is_said_of_a_module_has_its_line() {
        let app = tempfile::tempdir().unwrap();
        let text =
            "workers = 1\n[modules.a]\ngrants.models = { Order = [\"read\"],\n  other = [\"read\"] }\n";
        fs::write(app.path().join(CONFIG_FILE), text).unwrap();
        let loaded = Config::load(app.path(), &Overrides::default(), &Environment::new()).unwrap();
        let keys =
            ["modules.a", "modules.a.grants.models.ORDER", "modules.a.grants.models.OTHER", "modules.b"];
        let places = keys.map(|key| loaded.module_lines.place(key));
        insta::assert_snapshot!(places.join("\n"), @"
        aegis.toml:2: modules.a
        aegis.toml:3: modules.a.grants.models.Order
        aegis.toml:4: modules.a.grants.models.other
        aegis.toml: modules.b
        ");
        assert_eq!(loaded.module_lines.place("workers"), "aegis.toml: workers");
    }

    #[test]
    fn a_link_is_followed_but_not_to_nowhere() {
        let app = tempfile::tempdir().unwrap();
        symlink("real.toml", app.path().join(CONFIG_FILE)).unwrap();
        insta::assert_snapshot!(load(app.path()).unwrap_err(), @"APP/aegis.toml: found a symbolic link to nowhere, expected a file");
        fs::write(app.path().join("real.toml"), "workers = 3").unwrap();
        assert_eq!(load(app.path()).unwrap().workers.count, 3);
        let link = app.path().join("current");
        symlink(".", &link).unwrap();
        assert_eq!(load(&link).unwrap().app_dir, link);
    }

    #[test]
    fn the_data_folder_is_where_links_lead_and_the_app_folder_is_the_link() {
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        let current = root.join("current");
        for release in ["one", "two"] {
            fs::create_dir_all(root.join(release).join("modules")).unwrap();
        }
        symlink("one", &current).unwrap();
        let config = load(&current).unwrap();
        assert_eq!((&config.app_dir, &config.modules_dir), (&current, &current.join("modules")));
        assert_eq!(config.data_dir, root.join("one/data"), "although it is not there yet");
        assert_eq!(config.control_socket, root.join("one/data/control.sock"));
        fs::create_dir(root.join("one/data")).unwrap();
        assert_eq!(load(&current).unwrap().data_dir, root.join("one/data"));
        fs::remove_file(&current).unwrap();
        symlink("two", &current).unwrap();
        assert_eq!(load(&current).unwrap().data_dir, root.join("two/data"));
        symlink("../one/data", root.join("two/data")).unwrap();
        assert_eq!(load(&current).unwrap().data_dir, root.join("one/data"));
        assert_eq!(located(Path::new("/")), Path::new("/"));
    }

    #[test]
    fn a_short_link_to_a_data_folder_that_is_too_long_for_sockets_is_told_with_both_paths() {
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        let (app, long) = (root.join("app"), root.join("l".repeat(100)));
        fs::create_dir_all(app.join("modules")).unwrap();
        fs::create_dir(&long).unwrap();
        symlink(&long, root.join("d")).unwrap();
        let sockets = "control_socket = \"c\"\nadmin_socket = \"a\"\n";
        fs::write(app.join(CONFIG_FILE), format!("data_dir = \"../d\"\n{sockets}")).unwrap();
        let socket = long.join("store.sock");
        let told = format!(
            "aegis.toml:1: data_dir: found {} ({} bytes, which is where the links in APP/../d lead), expected a path of \
             at most 107 bytes for a Unix socket",
            socket.display(),
            socket.as_os_str().len()
        );
        assert_eq!(load(&app).unwrap_err(), told);
    }

    #[test]
    fn an_unreadable_file_is_refused_with_the_reason() {
        let app = tempfile::tempdir().unwrap();
        let path = app.path().join(CONFIG_FILE);
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        // The superuser reads it all the same.
        if File::open(&path).is_err() {
            insta::assert_snapshot!(load(app.path()).unwrap_err(), @"cannot read APP/aegis.toml: Permission denied (os error 13)");
        }
    }
}
