//! The highest version of each signed module that was in force, so that nobody brings an older one back by publishing again
//! what was signed once.
//!
//! A note beside the generations, replaced as a whole like those in [`kept`](crate::kept), when a generation comes into
//! force: what was refused or taken back raises nothing.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use aegis_ipc::deploy::Member;
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::{
    SupervisorError,
    kept::{self, GENERATIONS_FOLDER, NoteError},
};

/// Most modules whose version is kept.
const VERSIONS_MAX: usize = 4096;
const FILE: &str = "versions.json";
/// Layout of the note.
const FORMAT: u32 = 1;
/// What a note has to be.
const EXPECTED: &str =
    "the highest versions of signed modules, as this version writes them; without the file they begin anew";

/// Versions by name of the module.
pub type Versions = BTreeMap<String, Version>;

#[derive(Debug, Serialize, Deserialize)]
struct Note {
    format: u32,
    versions: Versions,
}

/// The highest versions that were in force on a data folder.
///
/// # Errors
/// When there is a note that is not as it was written.
pub fn highest(data_directory: &Path) -> Result<Versions, NoteError> {
    let path = path(data_directory);
    let Some(text) = kept::read(&path)? else { return Ok(Versions::new()) };
    let note: Note =
        serde_json::from_slice(&text).map_err(|error| kept::wrong(&path, error.to_string(), EXPECTED))?;
    if note.format != FORMAT || note.versions.len() > VERSIONS_MAX {
        let found = format!("format {} with {} versions", note.format, note.versions.len());
        return Err(kept::wrong(&path, found, EXPECTED));
    }
    Ok(note.versions)
}

/// Notes the versions of a generation that is in force. Nothing is written when they are known. One that lowers what was
/// known has done so then, once: when the generation comes back later, other versions have been in force.
pub(crate) fn keep(data_directory: &Path, signed: &mut [Member]) -> Result<(), SupervisorError> {
    if signed.is_empty() {
        return Ok(());
    }
    let path = path(data_directory);
    let known = highest(data_directory).map_err(|error| {
        SupervisorError::os(format!("reading {}", path.display()), std::io::Error::other(error.to_string()))
    })?;
    let versions = raised(&known, signed);
    if versions != known {
        kept::write(&path, &Note { format: FORMAT, versions })?;
    }
    lower_no_more(signed);
    Ok(())
}

/// Takes it that the versions of a generation have been in force before.
pub(crate) fn lower_no_more(signed: &mut [Member]) {
    for signed in signed.iter_mut().filter_map(|member| member.signed.as_mut()) {
        signed.lowers = false;
    }
}

/// What is known once these modules are in force. Beyond the bound, modules that are not in force are forgotten.
fn raised(known: &Versions, signed: &[Member]) -> Versions {
    let mut versions = known.clone();
    for member in signed {
        let Some(signed) = &member.signed else { continue };
        let Ok(version) = Version::parse(&signed.version) else { continue };
        let is_next = signed.lowers
            || known.get(&member.name).is_none_or(|known| version.cmp_precedence(known).is_gt());
        if is_next {
            versions.insert(member.name.clone(), version);
        }
    }
    let mut surplus = versions.len().saturating_sub(VERSIONS_MAX);
    versions.retain(|name, _| {
        let goes = surplus > 0 && signed.iter().all(|member| member.name != *name);
        surplus -= usize::from(goes);
        !goes
    });
    versions
}

fn path(data_directory: &Path) -> PathBuf {
    data_directory.join(GENERATIONS_FOLDER).join(FILE)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use aegis_ipc::deploy::{Offers, Signed};

    use super::*;

    fn member(name: &str, version: &str, lowers: bool) -> Member {
        let signed = Signed { keys: vec!["team".to_owned()], version: version.to_owned(), lowers };
        let (name, offers) = (name.to_owned(), Offers::Model(name.to_ascii_uppercase()));
        Member { name, offers, deployed: None, signed: Some(signed), trial: None }
    }

    fn shown(versions: &Versions) -> String {
        versions.iter().map(|(name, version)| format!("{name} {version}")).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn what_lowers_a_version_does_so_once() {
        let data = tempfile::tempdir().unwrap();
        let mut lower = [member("a", "1.0.0", true)];
        for (members, expected) in [
            (&mut [member("a", "2.0.0", false)], "a 2.0.0"),
            (&mut lower, "a 1.0.0"),
            (&mut [member("a", "3.0.0", false)], "a 3.0.0"),
        ] {
            keep(data.path(), members).unwrap();
            assert_eq!(shown(&highest(data.path()).unwrap()), expected);
        }
        keep(data.path(), &mut lower).unwrap();
        assert_eq!(
            shown(&highest(data.path()).unwrap()),
            "a 3.0.0",
            "it has come back, nobody asked for it anew"
        );
    }

    #[test]
    fn versions_rise_and_are_lowered_only_by_whoever_wants_that() {
        let data = tempfile::tempdir().unwrap();
        keep(data.path(), &mut []).unwrap();
        assert!(!data.path().join(GENERATIONS_FOLDER).exists(), "nothing is no reason to write");
        for (mut members, expected) in [
            (vec![member("a", "1.0.0", false), member("b", "0.1.0", false)], "a 1.0.0, b 0.1.0"),
            (vec![member("a", "1.10.0", false)], "a 1.10.0, b 0.1.0"),
            (vec![member("a", "1.9.0", false)], "a 1.10.0, b 0.1.0"),
            (vec![member("a", "1.10.0+other", false)], "a 1.10.0, b 0.1.0"),
            (vec![member("a", "1.9.0", true)], "a 1.9.0, b 0.1.0"),
            (vec![member("a", "2.0.0-rc.1", false)], "a 2.0.0-rc.1, b 0.1.0"),
        ] {
            keep(data.path(), &mut members).unwrap();
            assert_eq!(shown(&highest(data.path()).unwrap()), expected);
        }
    }

    #[test]
    fn beyond_the_bound_those_that_are_not_in_force_go() {
        let many = (0..VERSIONS_MAX).map(|n| (format!("old{n}"), Version::new(1, 0, 0))).collect();
        let versions = raised(&many, &[member("new", "1.0.0", false), member("old0", "1.0.0", false)]);
        assert_eq!(versions.len(), VERSIONS_MAX);
        assert!(versions.contains_key("new") && versions.contains_key("old0"));
    }

    #[test]
    fn a_note_that_is_not_as_it_was_written_is_told_and_not_replaced() {
        let data = tempfile::tempdir().unwrap();
        keep(data.path(), &mut [member("a", "1.0.0", false)]).unwrap();
        for text in ["{", "{\"format\":2,\"versions\":{}}", "{\"format\":1,\"versions\":{\"a\":\"x\"}}"] {
            fs::write(path(data.path()), text).unwrap();
            let told = highest(data.path()).unwrap_err().to_string();
            assert!(told.contains("generations/versions.json: found "), "{told}");
            assert!(keep(data.path(), &mut [member("a", "0.1.0", false)]).is_err());
            assert_eq!(fs::read_to_string(path(data.path())).unwrap(), text);
        }
    }
}
