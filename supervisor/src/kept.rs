//! Small notes beside the generations: which one a host stays at, and which modules were deployed in place of what the app
//! folder says.
//!
//! Each is a file of JSON, replaced as a whole (written beside, synced, renamed, directory synced). They repeat what the
//! generation in force says, so they are written when one comes into force, and a deployment that was refused or rolled
//! back leaves nothing.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use aegis_ipc::{
    deploy::{Deployed, Member},
    replace::{FolderSync, replace},
};
use serde::{Deserialize, Serialize};

use crate::SupervisorError;

/// Folder with what was deployed, inside the data directory.
pub const DEPLOYMENTS_FOLDER: &str = "deployments";
/// Most modules that are deployed aside from the app folder.
pub const DEPLOYMENTS_MAX: usize = 1000;

/// Folder with generations and what is noted beside them, inside the data directory.
pub(crate) const GENERATIONS_FOLDER: &str = "generations";
const PIN_FILE: &str = "pinned";
const RECORDS_FILE: &str = "records.json";
/// Layout of the records.
const RECORDS_FORMAT: u32 = 1;
/// Largest note, bytes.
const NOTE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Characters of a SHA-256 in hexadecimal.
const DIGEST_CHARACTERS: usize = 64;

/// Why a note cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: found {found}, expected {expected}")]
pub struct NoteError {
    path: PathBuf,
    found: String,
    expected: &'static str,
}

#[derive(Debug, Serialize, Deserialize)]
struct Pin {
    digest: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Records {
    format: u32,
    modules: Vec<Member>,
}

/// Digest of the generation that a host that starts anew is to come up on, if somebody has put it back.
///
/// # Errors
/// When there is a note that is not as it was written.
pub fn pinned(data_directory: &Path) -> Result<Option<String>, NoteError> {
    let path = pin_path(data_directory);
    let Some(text) = read(&path)? else { return Ok(None) };
    match serde_json::from_slice::<Pin>(&text) {
        Ok(pin) if is_digest(&pin.digest) => Ok(Some(pin.digest)),
        Ok(pin) => Err(wrong(&path, format!("{:?}", pin.digest), "the digest of a generation")),
        Err(error) => Err(wrong(&path, error.to_string(), "the digest of a generation")),
    }
}

/// What is noted there, whether or not it is a digest as generations have it.
pub(crate) fn noted(data_directory: &Path) -> Option<String> {
    let text = read(&pin_path(data_directory)).ok().flatten()?;
    serde_json::from_slice::<Pin>(&text).ok().map(|pin| pin.digest)
}

/// Notes that a host that starts anew is to come up on the generation of this digest, or takes the note away.
pub(crate) fn pin(data_directory: &Path, digest: Option<&str>) -> Result<(), SupervisorError> {
    let path = pin_path(data_directory);
    let Some(digest) = digest else {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(SupervisorError::os(format!("removing {}", path.display()), error))
            }
            _ => Ok(()),
        };
    };
    write(&path, &Pin { digest: digest.to_owned() })
}

/// The modules that were deployed in place of what the app folder says, in the order of their names.
///
/// # Errors
/// When there are records that are not as they were written.
pub fn deployments(data_directory: &Path) -> Result<Vec<Member>, NoteError> {
    let path = records_path(data_directory);
    let Some(text) = read(&path)? else { return Ok(Vec::new()) };
    let expected = "the records of what was deployed, as this version writes them";
    let records: Records =
        serde_json::from_slice(&text).map_err(|error| wrong(&path, error.to_string(), expected))?;
    if records.format != RECORDS_FORMAT {
        return Err(wrong(&path, format!("format {}", records.format), "format 1"));
    }
    if records.modules.len() > DEPLOYMENTS_MAX {
        return Err(wrong(&path, format!("{} records", records.modules.len()), "at most 1000"));
    }
    if let Some(module) = records.modules.iter().find(|module| !is_whole(module)) {
        return Err(wrong(&path, format!("{module:?}"), "a name and digests of what was deployed"));
    }
    Ok(records.modules)
}

/// Keeps which modules are deployed. Nothing is written when that is what is there already.
pub(crate) fn keep_deployments(data_directory: &Path, deployed: &[Member]) -> Result<(), SupervisorError> {
    let mut modules = deployed.to_vec();
    modules.sort_by(|one, other| one.name.cmp(&other.name));
    if deployments(data_directory).is_ok_and(|known| known == modules) {
        return Ok(());
    }
    write(&records_path(data_directory), &Records { format: RECORDS_FORMAT, modules })
}

fn is_whole(module: &Member) -> bool {
    let has_name = !module.name.is_empty() && !module.name.contains(['/', '\0']);
    let is_sound = |deployed: &Deployed| {
        let beside = [&deployed.manifest_sha256, &deployed.signature_sha256];
        is_digest(&deployed.sha256) && beside.into_iter().flatten().all(|digest| is_digest(digest))
    };
    let tried = module.trial.as_ref().map(|tried| &tried.deployed);
    has_name && module.is_deployed() && module.deployed.iter().chain(tried).all(is_sound)
}

fn is_digest(text: &str) -> bool {
    text.len() == DIGEST_CHARACTERS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn pin_path(data_directory: &Path) -> PathBuf {
    data_directory.join(GENERATIONS_FOLDER).join(PIN_FILE)
}

fn records_path(data_directory: &Path) -> PathBuf {
    data_directory.join(DEPLOYMENTS_FOLDER).join(RECORDS_FILE)
}

pub(crate) fn wrong(path: &Path, found: String, expected: &'static str) -> NoteError {
    NoteError { path: path.to_owned(), found, expected }
}

pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, NoteError> {
    let unreadable = |error: io::Error| wrong(path, error.to_string(), "a file that can be read");
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut bytes = Vec::new();
    file.take(NOTE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > NOTE_BYTES_MAX {
        return Err(wrong(path, "more than 4 MiB".to_owned(), "at most that"));
    }
    Ok(Some(bytes))
}

pub(crate) fn write(path: &Path, note: &impl Serialize) -> Result<(), SupervisorError> {
    let write = || {
        let text = serde_json::to_vec(note).map_err(io::Error::other)?;
        let folder = path.parent().unwrap_or(path);
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        replace(path, 0o600, &text, FolderSync::Required)
    };
    write().map_err(|error| SupervisorError::os(format!("writing {}", path.display()), error))
}

#[cfg(test)]
mod tests {
    use aegis_ipc::deploy::{Form, Offers, Tried};

    use super::*;

    fn module(name: &str) -> Member {
        let deployed = Deployed {
            source: "file order.wasm".to_owned(),
            form: Form::Component,
            sha256: "ab".repeat(32),
            manifest_sha256: None,
            signature_sha256: None,
            since_s: 1_700_000_000,
        };
        Member {
            name: name.to_owned(),
            offers: Offers::Model(name.to_ascii_uppercase()),
            deployed: Some(deployed),
            signed: None,
            trial: None,
        }
    }

    #[test]
    fn what_was_deployed_is_read_back_in_the_order_of_names() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(deployments(data.path()).unwrap(), []);
        keep_deployments(data.path(), &[]).unwrap();
        assert!(!data.path().join(DEPLOYMENTS_FOLDER).exists(), "nothing is no reason to write");
        keep_deployments(data.path(), &[module("order"), module("customer")]).unwrap();
        assert_eq!(deployments(data.path()).unwrap(), [module("customer"), module("order")]);
        keep_deployments(data.path(), &[]).unwrap();
        assert_eq!(deployments(data.path()).unwrap(), []);
    }

    #[test]
    fn what_is_tried_is_kept_whether_or_not_the_module_it_is_beside_was_deployed() {
        let data = tempfile::tempdir().unwrap();
        let (alone, mut both) = (module("order"), module("customer"));
        let tried = Tried {
            share_percent: 20,
            version: "2.0.0".to_owned(),
            counted_as: "order".to_owned(),
            deployed: Deployed { signature_sha256: Some("ef".repeat(32)), ..alone.deployed.clone().unwrap() },
            current_version: "1.0.0".to_owned(),
            current_sha256: "cd".repeat(32),
            current_counted_as: "order".to_owned(),
        };
        both.trial = Some(tried.clone());
        let alone = Member { deployed: None, trial: Some(tried), ..alone };
        keep_deployments(data.path(), &[both.clone(), alone.clone()]).unwrap();
        assert_eq!(deployments(data.path()).unwrap(), [both, alone]);
        let path = records_path(data.path());
        fs::write(&path, fs::read_to_string(&path).unwrap().replace("efef", "EFEF")).unwrap();
        assert!(deployments(data.path()).is_err(), "its digests are looked at as well");
    }

    #[test]
    fn what_could_not_be_kept_is_kept_when_it_is_tried_again() {
        let data = tempfile::tempdir().unwrap();
        let path = records_path(data.path());
        fs::create_dir_all(&path).unwrap();
        let message = keep_deployments(data.path(), &[module("order")]).unwrap_err().to_string();
        assert!(message.contains("deployments/records.json"), "{message}");
        fs::remove_dir(&path).unwrap();
        keep_deployments(data.path(), &[module("order")]).unwrap();
        assert_eq!(deployments(data.path()).unwrap(), [module("order")]);
    }

    #[test]
    fn records_that_are_not_as_they_were_written_are_told_with_their_path() {
        let data = tempfile::tempdir().unwrap();
        keep_deployments(data.path(), &[module("order")]).unwrap();
        let path = records_path(data.path());
        let whole = fs::read_to_string(&path).unwrap();
        let told = |text: &str| {
            fs::write(&path, text).unwrap();
            deployments(data.path()).unwrap_err().to_string()
        };
        for text in [
            whole[..whole.len() / 2].to_owned(),
            whole.replace("\"format\":1", "\"format\":2"),
            whole.replace("abab", "ABAB"),
            whole.replace("order\"", "../order\""),
            String::new(),
        ] {
            let message = told(&text);
            assert!(message.contains("deployments/records.json: found "), "{message}");
        }
    }

    #[test]
    fn a_pin_is_set_and_taken_away() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(pinned(data.path()).unwrap(), None);
        pin(data.path(), None).unwrap();
        let digest = "0f".repeat(32);
        pin(data.path(), Some(&digest)).unwrap();
        assert_eq!(pinned(data.path()).unwrap().as_deref(), Some(digest.as_str()));
        assert_eq!(noted(data.path()), Some(digest));
        fs::write(pin_path(data.path()), "{\"digest\":\"x\"}").unwrap();
        assert!(pinned(data.path()).unwrap_err().to_string().contains("found \"x\""));
        pin(data.path(), None).unwrap();
        assert_eq!(pinned(data.path()).unwrap(), None);
    }
}
