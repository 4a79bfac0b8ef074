//! Modules that were deployed in place of what the app says, as a reload or a restart finds them.

use std::path::Path;

use aegis_config::ModuleSource;
use aegis_ipc::deploy::{Deployed, Member, Tried};
use aegis_supervisor::{kept, with_causes};

use super::{depot::Depot, gate::Origin, material::Material};

/// What was deployed and is in force until it is taken back.
#[derive(Debug, Default)]
pub(super) struct Deployments {
    modules: Vec<Member>,
    depot: Option<Depot>,
}

impl Deployments {
    /// Those of a data folder, if it is known; and what is wrong with the records, if anything is.
    pub(super) fn of(data_dir: Option<&Path>) -> (Self, Option<String>) {
        let Some(data_dir) = data_dir else { return (Self::default(), None) };
        match kept::deployments(data_dir) {
            Ok(modules) => (Self { modules, depot: Some(Depot::of(data_dir)) }, None),
            Err(error) => (Self::default(), Some(with_causes(&error))),
        }
    }

    /// What was deployed as this module.
    pub(super) fn of_module(&self, name: &str) -> Option<&Deployed> {
        self.modules.iter().find(|module| module.name == name)?.deployed.as_ref()
    }

    /// Versions that are tried, by module, in the order of their names.
    pub(super) fn trials(&self) -> impl Iterator<Item = (&str, &Tried)> {
        self.modules.iter().filter_map(|module| Some((module.name.as_str(), module.trial.as_ref()?)))
    }

    /// Names of all of them, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.modules.iter().map(|module| module.name.as_str())
    }

    /// What a deployed module consists of.
    pub(super) fn read(&self, origin: &str, deployed: &Deployed) -> Result<Material, Vec<String>> {
        let read = self.depot.as_ref().map(|depot| depot.read(deployed));
        let missing = || Err("found no data folder, expected one with what was deployed".to_owned());
        read.unwrap_or_else(missing).map_err(|message| vec![format!("{origin}: {message}")])
    }

    /// What operators should know: that these modules are not what the app says.
    pub(super) fn warnings(&self) -> Vec<String> {
        let one = |module: &Member| {
            let (name, deployed) = (&module.name, module.deployed.as_ref()?);
            let since = jiff::Timestamp::from_second(deployed.since_s).map(|since| format!(" since {since}"));
            Some(format!(
                "modules.{name}: deployed from {}{}, not what the app folder says; `aegis deploy {name} --reset` goes back to that",
                deployed.source,
                since.unwrap_or_default()
            ))
        };
        self.modules.iter().filter_map(one).collect()
    }
}

/// Where it came from when it was deployed. A file has no address.
pub(super) fn origin_of(deployed: &Deployed) -> Origin {
    let source = ModuleSource::read(&deployed.source, Some(&deployed.sha256), None);
    source.map_or(Origin::Here, |source| Origin::of(&source))
}
