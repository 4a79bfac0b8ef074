//! A version that is tried beside the one in force: whether it can be, and how a reload or a restart finds it again.

use std::{collections::BTreeMap, os::fd::OwnedFd};

use aegis_config::{Config, ModuleTerms};
use aegis_domain::{catalog, code::CodeSpec, spec::ModelSpec, trial, trial::Trial};
use aegis_ipc::{
    bundle::Bundle,
    codec,
    deploy::{Deployed, Member, Offers, Tried},
};

use super::{
    deploy::Refusal,
    deployments::origin_of,
    gate::{Lower, Passage},
    material::Offer,
    modules::{Modules, Reading},
};

/// Why there is no such step of a trial.
#[derive(Debug, thiserror::Error)]
pub(super) enum TrialError {
    #[error(
        "modules.{module}: found no trial, expected one that runs; `aegis deploy {module} --share N` with --source or --file begins one"
    )]
    NotRunning { module: String },
    #[error(
        "modules.{module}: found a trial of {running}, expected none; `aegis deploy {module} --promote` or `--abort` ends it first"
    )]
    Running { module: String, running: String },
    #[error("modules.{module}: found no module of that name, expected one that a version is tried beside")]
    Nobody { module: String },
    #[error("modules.{module}: found a service, expected a model with code: nothing is tried on services")]
    Service { module: String },
    #[error("modules.{module}: found a model without code {which}, expected a component")]
    NoCode { module: String, which: &'static str },
    #[error("modules.{module}: found the version that is in force ({digest}), expected another one to try")]
    Same { module: String, digest: String },
    #[error(
        "modules.{module}: the app has the version that is tried, and says something else of the module or of who may publish by now; nobody asked for that version to be the only one, so `aegis reload` has to say so"
    )]
    Terms { module: String },
    #[error("modules.{module}: share: {message}")]
    Share { module: String, message: String },
}

impl From<TrialError> for Refusal {
    fn from(error: TrialError) -> Self {
        error.to_string().into()
    }
}

/// What is to be tried, and for how many.
pub(super) struct Candidate<'a> {
    pub(super) module: &'a str,
    pub(super) offer: &'a Offer,
    pub(super) share_percent: u8,
    pub(super) deployed: &'a Deployed,
}

impl Candidate<'_> {
    /// The trial of it beside a version in force, and what a generation says about it.
    ///
    /// # Errors
    /// When it is not a version of the same model that differs in code alone.
    pub(super) fn beside(&self, current: &ModelSpec) -> Result<(Trial, Tried), Refusal> {
        let module = || self.module.to_owned();
        let share_percent = trial::check_share(self.share_percent.into())
            .map_err(|message| TrialError::Share { module: module(), message })?;
        let no_code = |which| TrialError::NoCode { module: module(), which };
        let before = current.code.as_ref().ok_or_else(|| no_code("in force"))?;
        let Offer::Model(spec, _) = self.offer else {
            return Err(TrialError::Service { module: module() }.into());
        };
        let code = spec.code.as_ref().ok_or_else(|| no_code("to try"))?;
        if code.digest == before.digest {
            return Err(TrialError::Same { module: module(), digest: code.digest.clone() }.into());
        }
        let differences = trial::differences(current, spec);
        if !differences.is_empty() {
            let told = differences.iter().map(|message| format!("modules.{}: {message}", self.module));
            return Err(Refusal::Incompatible(told.collect()));
        }
        let tried = tried((before, code), share_percent, self.deployed);
        Ok((Trial { share_percent, code: Box::new(code.clone()) }, tried))
    }
}

fn tried((current, code): (&CodeSpec, &CodeSpec), share_percent: u8, deployed: &Deployed) -> Tried {
    Tried {
        share_percent,
        version: code.version.clone(),
        counted_as: code.module.clone(),
        deployed: deployed.clone(),
        current_version: current.version.clone(),
        current_sha256: current.digest.clone(),
        current_counted_as: current.module.clone(),
    }
}

/// A version for people: its number and enough of its digest to tell it from others.
pub(super) fn shown(tried: &Tried) -> String {
    let digest = &tried.deployed.sha256;
    format!("version {} ({})", tried.version, digest.get(..12).unwrap_or(digest))
}

/// A module as it is in force, with what is tried beside it. Its code comes along.
///
/// # Errors
/// It is not to be as it is: what `aegis.toml` says of it has changed, or who may publish.
fn untouched(
    name: &str,
    in_force: &OwnedFd,
    reading: &mut Reading<'_, '_>,
) -> Result<(ModelSpec, Member), Refusal> {
    let bundle = Bundle::read(in_force)?;
    let config: Config = codec::decode(&bundle.config)?;
    // Where it is from is what may have changed.
    let terms = |of: &BTreeMap<String, ModuleTerms>| ModuleTerms {
        source: None,
        ..of.get(name).cloned().unwrap_or_default()
    };
    if terms(&config.modules) != terms(reading.terms) || config.trust != *reading.trust {
        return Err(TrialError::Terms { module: name.to_owned() }.into());
    }
    let workshop = &mut *reading.workshop;
    let nobody = || TrialError::NotRunning { module: name.to_owned() };
    let member = bundle.modules.iter().find(|member| member.name == name && member.trial.is_some());
    let member = member.ok_or_else(nobody)?.clone();
    let models = catalog::decode(&bundle.catalog)?;
    let is_its_model = |spec: &ModelSpec| member.offers == Offers::Model(spec.name.to_string());
    let spec = models.into_iter().find(is_its_model).ok_or_else(nobody)?;
    let trial = spec.trial.as_ref().map(|trial| &*trial.code);
    for code in spec.code.iter().chain(trial) {
        let place = bundle.place_of(&code.digest).ok_or_else(nobody)?;
        workshop.take(Bundle::read_code(in_force, place)?).map_err(Refusal::Mistakes)?;
    }
    Ok((spec, member))
}

impl Modules {
    /// Trials that run, once all modules are read that they are beside.
    pub(super) fn add_trials(&mut self, reading: &mut Reading<'_, '_>) {
        let deployed = reading.deployed;
        for (name, tried) in deployed.trials() {
            match self.add_trial(name, tried, reading) {
                Ok(()) => {}
                Err(Refusal::Mistakes(mistakes) | Refusal::Incompatible(mistakes)) => {
                    let advice = format!(
                        "modules.{name}: {} cannot be tried any more beside what the app says; `aegis deploy {name} --abort` ends the trial",
                        shown(tried)
                    );
                    self.mistakes.extend(mistakes.into_iter().chain([advice]));
                }
            }
        }
    }

    fn add_trial(&mut self, name: &str, tried: &Tried, reading: &mut Reading<'_, '_>) -> Result<(), Refusal> {
        let nobody = || TrialError::Nobody { module: name.to_owned() };
        let Some(member) = self.roster.iter_mut().find(|member| member.name == name) else {
            // What is wrong with it has been told.
            return if self.mistakes.is_empty() { Err(nobody().into()) } else { Ok(()) };
        };
        let Offers::Model(model) = &member.offers else {
            return Err(TrialError::Service { module: name.to_owned() }.into());
        };
        let spec = self.specs.iter_mut().find(|spec| spec.name.as_str() == model).ok_or_else(nobody)?;
        if spec.code.as_ref().is_some_and(|code| code.digest == tried.deployed.sha256) {
            let Some(in_force) = reading.workshop.in_force() else {
                self.warnings.push(format!(
                    "modules.{name}: the app has the version that was tried by now, so the trial is over"
                ));
                return Ok(());
            };
            (*spec, *member) = untouched(name, in_force, reading)?;
            self.warnings.push(format!(
                "modules.{name}: the app has the version that is tried by now; nobody asked for it to be the only one, so it goes on being tried; `aegis deploy {name} --promote` or `aegis reload` ends that"
            ));
            return Ok(());
        }
        let origin = format!("modules.{name}");
        let material = reading.deployed.read(&origin, &tried.deployed).map_err(Refusal::Mistakes)?;
        let terms = reading.terms.get(name).cloned().unwrap_or_default();
        let passage =
            Passage { gate: reading.gate, origin: origin_of(&tried.deployed), lower: Lower::Decided };
        let offer = material.prepare((&origin, name), &terms, passage, reading.workshop, &mut self.warnings);
        let offer = offer.map_err(Refusal::Mistakes)?;
        let candidate = Candidate {
            module: name,
            offer: &offer,
            share_percent: tried.share_percent,
            deployed: &tried.deployed,
        };
        let (trial, tried) = candidate.beside(spec)?;
        self.warnings.push(format!(
            "modules.{name}: {} % of the users get {}, which is tried; `aegis deploy {name} --promote` or `--abort` ends that",
            tried.share_percent,
            shown(&tried)
        ));
        spec.trial = Some(trial);
        member.trial = Some(tried);
        Ok(())
    }
}
