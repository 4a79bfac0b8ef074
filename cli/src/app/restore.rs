//! A generation that is kept on disk, made ready to come into force again: no file of the app is read, nothing is fetched,
//! nothing is compiled.

use std::{os::fd::OwnedFd, path::Path};

use aegis_config::{Config, Overrides};
use aegis_ipc::{
    IpcError,
    bundle::{Bundle, Code},
    codec,
    deploy::{Kept, Member},
};
use aegis_supervisor::{
    last_good::{LastGood, Missing},
    with_causes,
};

use super::digest;

/// What is said when no generation is kept to go back to.
const NOTHING_BEFORE: &str =
    "there is nothing to go back to: there was no change yet, or what was before it could not be kept";

/// Takes up a generation that is kept. `running` is the configuration of the host as it runs, or is about to: its folders
/// and sockets stay, and so does what was said on the command line.
pub(crate) fn restore(kept: &Kept, running: &Config, flags: &Overrides) -> Result<OwnedFd, String> {
    let (held, mut bundle) = match kept {
        Kept::Previous => {
            let held = LastGood::previous_of(&running.data_dir).read().map_err(|missing| match missing {
                Missing::Never => NOTHING_BEFORE.to_owned(),
                damaged @ Missing::Damaged { .. } => damaged.to_string(),
            })?;
            let bundle = read(&held)?;
            (held, bundle)
        }
        Kept::Digest(digest) => find(&running.data_dir, digest)?,
    };
    let before: Config = codec::decode(&bundle.config).map_err(|error| with_causes(&error))?;
    let mut config = before.clone();
    config.app_dir.clone_from(&running.app_dir);
    config.modules_dir.clone_from(&running.modules_dir);
    config.data_dir.clone_from(&running.data_dir);
    config.control_socket.clone_from(&running.control_socket);
    config.admin_socket.clone_from(&running.admin_socket);
    if !flags.listen.is_empty() {
        config.listen.clone_from(&running.listen);
        config.listens_by_default = running.listens_by_default;
    }
    if flags.workers.is_some() {
        config.workers.count = running.workers.count;
    }
    // Whoever goes back to an older version has not said that later ones are compared with it.
    let is_same = config == before && bundle.modules.iter().all(|module| !lowers(module));
    if is_same {
        return Ok(held);
    }
    for signed in bundle.modules.iter_mut().filter_map(|module| module.signed.as_mut()) {
        signed.lowers = false;
    }
    seal(&held, bundle, &config).map_err(|error| with_causes(&error))
}

/// Whether the version of a module is what later ones are compared with, although one before may be higher.
fn lowers(module: &Member) -> bool {
    module.signed.as_ref().is_some_and(|signed| signed.lowers)
}

/// The generation of this digest among those that are kept, if this image can run it. Where one of them could not be written,
/// it may be in the place of the other, or in none.
pub(crate) fn find(data_dir: &Path, digest: &str) -> Result<(OwnedFd, Bundle), String> {
    let mut reasons = Vec::new();
    for place in [LastGood::of(data_dir), LastGood::previous_of(data_dir)] {
        let found = match place.read() {
            Ok(held) => read_fitting(held, digest),
            Err(Missing::Never) => Ok(None),
            Err(damaged @ Missing::Damaged { .. }) => Err(damaged.to_string()),
        };
        match found {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(reason) => reasons.push(reason),
        }
    }
    reasons.dedup();
    reasons.insert(0, format!("no copy of the generation {digest} is kept that can be taken up"));
    Err(reasons.join("; "))
}

/// Digest of the last good generation, if there ever was one.
///
/// # Errors
/// Why this image cannot run it.
pub(crate) fn last_good(data_dir: &Path) -> Result<Option<String>, String> {
    match LastGood::of(data_dir).read() {
        Ok(held) => read(&held).map(|bundle| Some(bundle.digest)),
        Err(Missing::Never) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn read_fitting(held: OwnedFd, digest: &str) -> Result<Option<(OwnedFd, Bundle)>, String> {
    if Bundle::read(&held).map_err(|error| with_causes(&error))?.digest != digest {
        return Ok(None);
    }
    let bundle = read(&held)?;
    Ok(Some((held, bundle)))
}

fn read(held: &OwnedFd) -> Result<Bundle, String> {
    let bundle = Bundle::read(held).map_err(|error| with_causes(&error))?;
    let ours = aegis_wasm::compatibility().map_err(|error| error.to_string())?;
    if bundle.engine.is_empty() || bundle.engine == ours {
        return Ok(bundle);
    }
    Err(format!(
        "the code of the generation {} was compiled by another version of aegis, and this one cannot run it",
        bundle.digest
    ))
}

/// The same with another configuration.
fn seal(held: &OwnedFd, bundle: Bundle, config: &Config) -> Result<OwnedFd, IpcError> {
    let code = bundle.code.iter().map(|place| Bundle::read_code(held, place));
    let code = code.collect::<Result<Vec<Code>, IpcError>>()?;
    let config = codec::encode(config)?;
    let digest = digest(&config, &bundle.catalog, &bundle.modules)?;
    Bundle { digest, config, code: Vec::new(), ..bundle }.seal_with(code)
}

#[cfg(test)]
mod tests {
    use aegis_ipc::bundle::BUNDLE_FORMAT;
    use aegis_supervisor::last_good::Progress;

    use super::*;

    fn keep(place: &LastGood, digest: &str, engine: &str) {
        let bundle = Bundle {
            format: BUNDLE_FORMAT,
            digest: digest.to_owned(),
            engine: engine.to_owned(),
            config: Vec::new(),
            catalog: Vec::new(),
            code: Vec::new(),
            modules: Vec::new(),
        };
        let mut writing = place.begin(&bundle.seal().unwrap()).unwrap();
        while writing.advance().unwrap() == Progress::Some {}
    }

    #[test]
    fn what_is_asked_for_is_found_in_either_place_and_nothing_else_is_taken_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        let refused = |digest: &str| find(data, digest).unwrap_err();
        assert_eq!(refused("two"), "no copy of the generation two is kept that can be taken up");
        keep(&LastGood::previous_of(data), "one", "");
        keep(&LastGood::of(data), "two", "");
        for digest in ["one", "two"] {
            assert_eq!(find(data, digest).unwrap().1.digest, digest);
        }
        assert_eq!(refused("three"), "no copy of the generation three is kept that can be taken up");
    }

    #[test]
    fn a_copy_that_cannot_be_taken_up_is_no_obstacle_to_the_other_one_and_is_told_without_it() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        keep(&LastGood::of(data), "one", "another engine");
        let reason = find(data, "one").unwrap_err();
        assert!(reason.contains("was compiled by another version of aegis"), "{reason}");
        keep(&LastGood::previous_of(data), "one", "");
        assert_eq!(find(data, "one").unwrap().1.engine, "");
    }
}
