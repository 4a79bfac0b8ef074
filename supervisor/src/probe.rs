//! What the compile helper answered: a generation, or why it cannot be one.
//!
//! The helper has validated configuration and modules; the supervisor reads only the configuration. Two settings are
//! the identity of a running host and cannot come with a new generation.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use aegis_config::{Config, located};
use aegis_ipc::{
    bundle::Bundle,
    codec,
    deploy::{Member, Tried},
};
use serde::{Deserialize, Serialize};

use crate::{listen::Binding, with_causes};

/// A generation that the host holds.
#[derive(Debug)]
pub struct Generation {
    /// The sealed memory file, for workers and the store.
    pub bundle: OwnedFd,
    /// Equal digests mean nothing to do.
    pub digest: String,
    /// Who can run its code; empty without code.
    pub engine: String,
    /// Its configuration.
    pub config: Config,
    /// Its modules that are not what the app folder says, or that another version is tried beside.
    pub deployed: Vec<Member>,
    /// Its modules that are signed.
    pub signed: Vec<Member>,
    /// The sockets that serve it, once they are bound.
    pub bindings: Vec<Binding>,
}

/// What stays the same as long as a host runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Locked by this host.
    pub data_dir: PathBuf,
    /// Where operators find this host.
    pub control_socket: PathBuf,
}

impl Identity {
    /// That of a host with this configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self { data_dir: config.data_dir.clone(), control_socket: config.control_socket.clone() }
    }

    /// Why `config` cannot come into force in this host.
    fn contradictions(&self, config: &Config) -> Vec<String> {
        let other = Self::of(config);
        let settings = [
            ("data_dir", &self.data_dir, &other.data_dir),
            ("control_socket", &self.control_socket, &other.control_socket),
        ];
        // Those of an older version have the links on the way in them.
        let is_same = |running: &Path, new: &Path| running == new || located(running) == located(new);
        let changed = settings.iter().filter(|(_, running, new)| !is_same(running, new));
        let sentence = |(name, running, new): &(&str, &PathBuf, &PathBuf)| {
            let (running, new) = (running.display(), new.display());
            format!(
                "{name}: found {new}, expected {running}: it cannot change while the host runs; stop it and start anew"
            )
        };
        changed.map(sentence).collect()
    }
}

impl Generation {
    /// Opens the bundle of a generation. All that speaks against it at once.
    pub fn open(bundle: OwnedFd, identity: &Identity) -> Result<Self, Vec<String>> {
        let Bundle { format: _, digest, engine, config, catalog: _, code: _, modules } =
            Bundle::read(&bundle).map_err(|error| vec![with_causes(&error)])?;
        let config: Config = codec::decode(&config)
            .map_err(|error| vec![format!("the configuration in the bundle: {}", with_causes(&error))])?;
        let contradictions = identity.contradictions(&config);
        if contradictions.is_empty() {
            let signed = modules.iter().filter(|module| module.signed.is_some()).cloned().collect();
            let deployed = modules.into_iter().filter(Member::is_deployed).collect();
            Ok(Self { bundle, digest, engine, config, deployed, signed, bindings: Vec::new() })
        } else {
            Err(contradictions)
        }
    }

    /// Versions that are tried in it, by module.
    pub fn trials(&self) -> impl Iterator<Item = (&str, &Tried)> {
        self.deployed.iter().filter_map(|module| Some((module.name.as_str(), module.trial.as_ref()?)))
    }

    /// The same generation, to be held under another number.
    pub fn duplicate(&self) -> std::io::Result<Self> {
        let Self { bundle, digest, engine, config, deployed, signed, bindings } = self;
        Ok(Self {
            bundle: bundle.try_clone()?,
            digest: digest.clone(),
            engine: engine.clone(),
            config: config.clone(),
            deployed: deployed.clone(),
            signed: signed.clone(),
            bindings: bindings.clone(),
        })
    }

    /// Refuses code that another version of this program compiled. When it is not known which code fits, workers find
    /// out: the engine refuses to load what it did not make.
    pub fn fits(&self, engine: Option<&str>) -> Result<(), String> {
        match engine {
            Some(expected) if self.has_code() && self.engine != expected => Err(format!(
                "the code of its modules was compiled by another version of aegis (found {}, expected {expected})",
                self.engine
            )),
            _ => Ok(()),
        }
    }

    /// Whether it has code, which only images with the same engine can run.
    #[must_use]
    pub fn has_code(&self) -> bool {
        !self.engine.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use aegis_ipc::bundle::BUNDLE_FORMAT;

    use super::*;

    fn bundle(config: Vec<u8>) -> OwnedFd {
        let bundle = Bundle {
            format: BUNDLE_FORMAT,
            digest: "abc".to_owned(),
            engine: String::new(),
            config,
            catalog: vec![0xff; 10],
            code: Vec::new(),
            modules: Vec::new(),
        };
        bundle.seal().unwrap()
    }

    #[test]
    fn a_generation_is_opened_with_its_catalog_unread() {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::test_config(folder.path());
        let bundle = bundle(codec::encode(&config).unwrap());
        let generation = Generation::open(bundle, &Identity::of(&config)).unwrap();
        assert_eq!((generation.digest.as_str(), &generation.config), ("abc", &config));
        assert_eq!(generation.duplicate().unwrap().config, config);
    }

    #[test]
    fn code_fits_only_the_engine_that_it_was_compiled_for() {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::test_config(folder.path());
        let bundle = bundle(codec::encode(&config).unwrap());
        let without = Generation::open(bundle, &Identity::of(&config)).unwrap();
        assert!(without.fits(Some("new")).is_ok(), "what has no code fits all");
        let with = Generation { engine: "old".to_owned(), ..without };
        assert!(with.fits(Some("old")).is_ok());
        assert!(with.fits(None).is_ok());
        let reason = with.fits(Some("new")).unwrap_err();
        insta::assert_snapshot!(reason, @"the code of its modules was compiled by another version of aegis (found old, expected new)");
    }

    #[test]
    fn what_cannot_change_while_the_host_runs_is_told_all_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let config = crate::test_config(folder.path());
        let identity = Identity { data_dir: "/other/data".into(), control_socket: "/other/control".into() };
        let reasons = Generation::open(bundle(codec::encode(&config).unwrap()), &identity).unwrap_err();
        assert_eq!(reasons.len(), 2);
        assert!(reasons[0].starts_with("data_dir: found "), "{reasons:?}");
        assert!(reasons[1].contains(", expected /other/control: it cannot change"), "{reasons:?}");
    }

    #[test]
    fn a_path_by_way_of_a_link_is_the_same_until_the_link_leads_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let (one, link) = (folder.path().join("one"), folder.path().join("link"));
        std::fs::create_dir(&one).unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let config = |data_dir: PathBuf| Config { data_dir, ..crate::test_config(folder.path()) };
        let (direct, linked) = (config(one.join("data")), config(link.join("data")));
        let identity = Identity::of(&direct);
        assert_eq!(identity.contradictions(&linked), Vec::<String>::new());
        assert_eq!(Identity::of(&linked).contradictions(&direct), Vec::<String>::new());
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        assert_eq!(identity.contradictions(&linked).len(), 1);
    }

    #[test]
    fn a_bundle_that_is_none_is_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::of(&crate::test_config(folder.path()));
        let file = tempfile::tempfile().unwrap();
        let reasons = Generation::open(file.into(), &identity).unwrap_err();
        assert!(reasons[0].starts_with("a generation bundle: found 0 bytes, expected "), "{reasons:?}");
        let reasons = Generation::open(bundle(vec![1, 2]), &identity).unwrap_err();
        assert!(reasons[0].starts_with("the configuration in the bundle: cannot decode"), "{reasons:?}");
    }
}
