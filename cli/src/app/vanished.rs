//! A folder of modules that was there and is gone: a disk that is not mounted, a link that leads nowhere. What is served
//! from it does not go out of service by that; whoever means it leaves an empty folder.

use std::{collections::BTreeSet, fs, io, path::Path};

use aegis_config::MODULES_FOLDER;
use aegis_domain::{catalog, service::ServiceSpec, spec::ModelSpec};
use aegis_ipc::bundle::Bundle;
use aegis_supervisor::last_good::LastGood;

use super::modules::Modules;

/// Names that are told at most.
const NAMES_MAX: usize = 5;

/// The mistake, if the folder is missing and what was last good serves more than `modules`. It is known that nobody named
/// another folder: that one has to be there anyway.
pub(super) fn mistake(modules_dir: &Path, data_dir: &Path, modules: &Modules) -> Option<String> {
    let missing = fs::symlink_metadata(modules_dir).err()?;
    if missing.kind() != io::ErrorKind::NotFound {
        return None;
    }
    // What cannot be read is the business of those who want to serve it.
    let before = Bundle::read(&LastGood::of(data_dir).read().ok()?).ok()?;
    let served =
        names(&catalog::decode(&before.catalog).ok()?, &catalog::decode_services(&before.catalog).ok()?);
    let now = names(&modules.specs, &modules.service_specs());
    let lost: Vec<&String> = served.difference(&now).collect();
    if lost.is_empty() {
        return None;
    }
    let mut told = lost.iter().take(NAMES_MAX).map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    if lost.len() > NAMES_MAX {
        told.push_str(&format!(" and {} more", lost.len() - NAMES_MAX));
    }
    Some(format!(
        "{MODULES_FOLDER}: no such folder, and the last good generation serves {told} as well; an empty folder takes out of \
         service what came from it"
    ))
}

fn names(models: &[ModelSpec], services: &[ServiceSpec]) -> BTreeSet<String> {
    let models = models.iter().map(|model| model.name.to_string());
    models.chain(services.iter().map(|service| service.name.clone())).collect()
}
