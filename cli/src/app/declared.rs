//! Models that need no code: those that folders of an app declare, read without a look at components.

use std::{fs, io, path::Path};

use aegis_config::{Config, MODULES_FOLDER};
use aegis_domain::{module, spec::ModelSpec};

use super::{
    Blame, Mistakes,
    files::{entries, read_text, unreadable},
    modules::{MODULE_FILE, MODULES_MAX},
};

/// The models of all `module.toml` files. Folders without one are for others to judge.
///
/// # Errors
/// What is wrong with files that are there: without one of them, nobody would know what is unique in its model.
pub(crate) fn declared(config: &Config) -> Result<Vec<ModelSpec>, Mistakes> {
    let (mut models, mut mistakes) = (Vec::new(), Vec::new());
    let shown = |path: &Path| path.strip_prefix(&config.app_dir).unwrap_or(path).display().to_string();
    let dir = &config.modules_dir;
    let folders = entries(dir).unwrap_or_else(|error| {
        let is_missing = fs::symlink_metadata(dir).is_err_and(|error| is_missing(&error));
        match (is_missing, *dir == config.app_dir.join(MODULES_FOLDER)) {
            (true, true) => {}
            (true, false) => {
                mistakes.push(format!("{}: found nothing, expected a folder with modules", shown(dir)));
            }
            (false, _) => mistakes.push(format!("{}: {}", shown(dir), unreadable(dir, &error))),
        }
        Vec::new()
    });
    if folders.len() > MODULES_MAX {
        let (dir, found) = (shown(dir), folders.len());
        mistakes.push(format!("{dir}: found {found} entries, expected at most {MODULES_MAX}"));
    }
    for folder in folders.iter().take(MODULES_MAX) {
        let (path, origin) = (folder.join(MODULE_FILE), shown(&folder.join(MODULE_FILE)));
        if fs::symlink_metadata(&path).is_err_and(|error| is_missing(&error)) {
            continue;
        }
        match read_text(&path, module::MODULE_BYTES_MAX) {
            Ok(text) => match module::parse(&text, &origin) {
                Ok(model) => models.push(model),
                Err(found) => mistakes.extend(found),
            },
            Err(mistake) => mistakes.push(format!("{origin}: {mistake}")),
        }
    }
    if mistakes.is_empty() { Ok(models) } else { Err(Mistakes { lines: mistakes, blame: Blame::App }) }
}

/// Nothing is there, or a file where a folder would be.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
