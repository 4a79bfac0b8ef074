//! The bytes of modules that were deployed in place of what the app folder says: one file each, named after its SHA-256.
//!
//! They are no cache: a reload or a restart makes the module of them again, whether or not its source is still there. So
//! they are synced before anything refers to them, and stay as long as a generation that is kept does.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use aegis_ipc::{
    deploy::{Deployed, Member},
    replace::{FolderSync, replace},
};
use aegis_supervisor::kept::DEPLOYMENTS_FOLDER;
use aegis_wasm::COMPONENT_BYTES_MAX;

use super::{
    files::read_bytes,
    gate::Papers,
    material::{Material, sha256},
};

/// Folder with the bytes, beside the records.
const CONTENT_FOLDER: &str = "content";
/// Bytes of everything that is deployed aside from the app folder.
const DEPLOYED_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Where the bytes are.
#[derive(Debug)]
pub(super) struct Depot {
    folder: PathBuf,
}

impl Depot {
    /// That of a data folder.
    pub(super) fn of(data_dir: &Path) -> Self {
        Self { folder: data_dir.join(DEPLOYMENTS_FOLDER).join(CONTENT_FOLDER) }
    }

    /// Keeps what a module consists of, within what all may have together. What is not `needed` goes.
    pub(super) fn keep(&self, material: &Material, needed: &BTreeSet<String>) -> Result<(), String> {
        let failed = |error: io::Error| format!("{}: cannot be written: {error}", self.folder.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(failed)?;
        let kept = self.sweep(needed).map_err(failed)?;
        let together = kept + material.parts().map(|part| part.len() as u64).sum::<u64>();
        if together > DEPLOYED_BYTES_MAX {
            return Err(format!(
                "found {together} bytes of deployed modules, expected at most {DEPLOYED_BYTES_MAX}; `aegis deploy NAME --reset` makes room"
            ));
        }
        material.parts().try_for_each(|part| self.write(part)).map_err(failed)
    }

    /// What a deployed module consists of.
    pub(super) fn read(&self, deployed: &Deployed) -> Result<Material, String> {
        let bytes = self.content(&deployed.sha256)?;
        let part = |name: &Option<String>| name.as_ref().map(|name| self.content(name)).transpose();
        let signatures = part(&deployed.signature_sha256)?;
        let papers = part(&deployed.manifest_sha256)?.map(|manifest| Papers { manifest, signatures });
        Ok(Material { form: deployed.form, bytes, papers })
    }

    fn content(&self, name: &str) -> Result<Vec<u8>, String> {
        let path = self.folder.join(name);
        let bytes = read_bytes(&path, COMPONENT_BYTES_MAX)
            .map_err(|message| format!("{}: {message}", path.display()))?;
        let found = sha256(&bytes);
        if found == name {
            return Ok(bytes);
        }
        Err(format!("{}: found the SHA-256 {found}, expected its name", path.display()))
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        replace(&self.folder.join(sha256(bytes)), 0o600, bytes, FolderSync::Required)
    }

    /// Removes what is not needed. Bytes of the rest.
    fn sweep(&self, needed: &BTreeSet<String>) -> io::Result<u64> {
        let mut bytes = 0;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| needed.contains(name)) {
                bytes += entry.metadata()?.len();
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(bytes)
    }
}

/// Names of what modules refer to.
pub(super) fn needed<'a>(modules: impl IntoIterator<Item = &'a Member>) -> BTreeSet<String> {
    let deployed = modules.into_iter().flat_map(|module| {
        let tried = module.trial.as_ref().map(|tried| &tried.deployed);
        module.deployed.iter().chain(tried)
    });
    let names = deployed.flat_map(|one| {
        [Some(one.sha256.clone()), one.manifest_sha256.clone(), one.signature_sha256.clone()]
    });
    names.flatten().collect()
}

#[cfg(test)]
mod tests {
    use aegis_ipc::deploy::{Form, Offers, Tried};

    use super::*;

    fn material(text: &str) -> Material {
        let manifest = format!("{{\"about\":\"{text}\"}}").into_bytes();
        let papers = Some(Papers { manifest, signatures: Some(format!("signed {text}").into_bytes()) });
        Material { form: Form::Component, bytes: text.as_bytes().to_vec(), papers }
    }

    fn record(material: &Material) -> Deployed {
        Deployed {
            source: "here".to_owned(),
            form: material.form,
            sha256: material.sha256(),
            manifest_sha256: material.manifest_sha256(),
            signature_sha256: material.signature_sha256(),
            since_s: 0,
        }
    }

    fn member(material: &Material) -> Member {
        let (name, offers) = ("one".to_owned(), Offers::Model("ONE".to_owned()));
        Member { name, offers, deployed: Some(record(material)), signed: None, trial: None }
    }

    fn trial_of(material: &Material) -> Member {
        let tried = Tried {
            share_percent: 20,
            version: "2.0.0".to_owned(),
            counted_as: "one".to_owned(),
            deployed: record(material),
            current_version: "1.0.0".to_owned(),
            current_sha256: "ab".repeat(32),
            current_counted_as: "one".to_owned(),
        };
        Member { deployed: None, trial: Some(tried), ..member(material) }
    }

    #[test]
    fn what_is_kept_is_read_back_and_what_nobody_needs_goes() {
        let data = tempfile::tempdir().unwrap();
        let depot = Depot::of(data.path());
        let (one, two) = (material("one"), material("two"));
        assert!(depot.read(&record(&one)).unwrap_err().contains("found nothing"));
        depot.keep(&one, &BTreeSet::new()).unwrap();
        assert_eq!(depot.read(&record(&one)).unwrap(), one);
        let names = needed(&[member(&one)]);
        assert_eq!(names.len(), 3);
        assert_eq!(needed(&[trial_of(&one)]), names, "what is tried is needed as well");
        depot.keep(&two, &names).unwrap();
        assert_eq!(depot.read(&record(&one)).unwrap(), one);
        depot.keep(&two, &BTreeSet::new()).unwrap();
        assert!(depot.read(&record(&one)).is_err());
        assert_eq!(depot.read(&record(&two)).unwrap(), two);
    }

    #[test]
    fn bytes_that_are_not_those_of_the_record_are_refused() {
        let data = tempfile::tempdir().unwrap();
        let depot = Depot::of(data.path());
        let one = material("one");
        depot.keep(&one, &BTreeSet::new()).unwrap();
        fs::write(depot.folder.join(one.sha256()), "two").unwrap();
        assert!(depot.read(&record(&one)).unwrap_err().contains("expected its name"));
    }
}
