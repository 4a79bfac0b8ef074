//! Models that need no code: those that folders of an app declare, read without a look at components.

use std::path::Path;

use aegis_config::Config;
use aegis_domain::{module, spec::ModelSpec};

use super::{
    files::{entries, read_text},
    modules::{MODULE_FILE, MODULES_MAX},
};

/// The models of all `module.toml` files that can be read. What is wrong with others is told when a host starts.
pub(crate) fn declared(config: &Config) -> Vec<ModelSpec> {
    let read = |folder: &Path| {
        let text = read_text(&folder.join(MODULE_FILE), module::MODULE_BYTES_MAX).ok()?;
        module::parse(&text, MODULE_FILE).ok()
    };
    let folders = entries(&config.modules_dir).unwrap_or_default();
    folders.iter().take(MODULES_MAX).filter_map(|folder| read(folder)).collect()
}
