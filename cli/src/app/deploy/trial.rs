//! Steps of a trial: a version is put beside the one in force, gets another share, becomes the only one, or goes.

use aegis_config::ModuleTerms;
use aegis_domain::trial::Trial;
use aegis_ipc::deploy::{Deployed, Offers, Supply, TrialStep, Tried};

use super::{Making, Parts, Refusal, Version};
use crate::app::{
    deployments::origin_of,
    depot::Depot,
    gate::Passage,
    material::{Material, Offer},
    source::Sources,
    trial::{Candidate, TrialError, shown},
    workshop::Workshop,
};

impl Making<'_> {
    /// The trial that runs.
    fn running(&self) -> Result<&Tried, Refusal> {
        let running = self.before.and_then(|before| before.trial.as_ref());
        let module = self.order.module.clone();
        Ok(running.ok_or(TrialError::NotRunning { module })?)
    }

    /// While a version is tried, no other one takes the place of the one it is tried beside.
    pub(super) fn refuse_while_tried(&self) -> Result<(), Refusal> {
        match self.running() {
            Ok(tried) => {
                let (module, running) = (self.order.module.clone(), shown(tried));
                Err(TrialError::Running { module, running }.into())
            }
            Err(_) => Ok(()),
        }
    }

    /// The version that is tried, as the only one: the same as if it were deployed now.
    pub(super) fn promoted(
        &self,
        terms: &ModuleTerms,
        workshop: &mut Workshop<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Version, Refusal> {
        let deployed = &self.running()?.deployed;
        let material = self.kept(self.running()?)?;
        let whence = (deployed.source.as_str(), origin_of(deployed));
        self.of_material(material, whence, terms, workshop, warnings)
    }

    fn kept(&self, tried: &Tried) -> Result<Material, Refusal> {
        self.check_digest(&tried.deployed.sha256)?;
        let module = &self.order.module;
        let read = Depot::of(&self.config.data_dir).read(&tried.deployed);
        read.map_err(|message| format!("modules.{module}: {message}").into())
    }

    /// Begins a trial, changes its share or ends it. Answers what is to be kept.
    pub(super) fn try_out(
        &self,
        step: &TrialStep,
        parts: &mut Parts,
        (sources, workshop): (&mut Sources, &mut Workshop<'_>),
        warnings: &mut Vec<String>,
    ) -> Result<Option<Material>, Refusal> {
        let TrialStep::Share(share_percent) = step else {
            self.check_digest(&self.running()?.deployed.sha256)?;
            parts.set_trial(&self.order.module, None);
            return Ok(None);
        };
        if matches!(self.order.supply, Supply::App | Supply::Reset) {
            let tried = self.running()?;
            self.check_digest(&tried.deployed.sha256)?;
            parts.set_share(tried, &self.order.module, *share_percent);
            return Ok(None);
        }
        self.begin(*share_percent, parts, (sources, workshop), warnings)
    }

    fn begin(
        &self,
        share_percent: u8,
        parts: &mut Parts,
        (sources, workshop): (&mut Sources, &mut Workshop<'_>),
        warnings: &mut Vec<String>,
    ) -> Result<Option<Material>, Refusal> {
        let module = &self.order.module;
        let nothing = ModuleTerms::default();
        let terms = self.config.modules.get(module).unwrap_or(&nothing);
        let nobody = || TrialError::Nobody { module: module.clone() };
        let (material, source, whence) = self.material(terms, sources, workshop)?.ok_or_else(nobody)?;
        let deployed = self.record(&material, &source);
        self.check_digest(&deployed.sha256)?;
        if let Ok(tried) = self.running() {
            // The same bytes signed anew are another version: what was verified of the first is what is kept.
            let known = &tried.deployed;
            let again = Deployed { source: known.source.clone(), since_s: known.since_s, ..deployed };
            if again != *known {
                return self.refuse_while_tried().map(|()| None);
            }
            parts.set_share(tried, module, share_percent);
            return Ok(None);
        }
        let current = match self.before.ok_or_else(nobody)?.offers.clone() {
            Offers::Model(model) => parts.model(&model).cloned().ok_or_else(nobody)?,
            Offers::Service(_) => return Err(TrialError::Service { module: module.clone() }.into()),
        };
        let origin = format!("modules.{module}");
        let passage = Passage { gate: self.gate, origin: whence, lower: self.lower() };
        let offer = material.prepare((&origin, module), terms, passage, workshop, warnings);
        let offer: Offer = offer.map_err(Refusal::Mistakes)?;
        let candidate = Candidate { module, offer: &offer, share_percent, deployed: &deployed };
        parts.set_trial(module, Some(candidate.beside(&current)?));
        Ok(Some(material))
    }
}

impl Parts {
    fn set_share(&mut self, tried: &Tried, module: &str, share_percent: u8) {
        let code = self.modules.iter().find(|member| member.name == module).and_then(|member| {
            let Offers::Model(model) = &member.offers else { return None };
            self.model(model)?.trial.clone().map(|trial| trial.code)
        });
        let tried = Tried { share_percent, ..tried.clone() };
        self.set_trial(module, code.map(|code| (Trial { share_percent, code }, tried)));
    }

    /// Puts a version beside a module, or takes it away.
    fn set_trial(&mut self, module: &str, trial: Option<(Trial, Tried)>) {
        let (trial, tried) = trial.unzip();
        let Some(member) = self.modules.iter_mut().find(|member| member.name == module) else { return };
        member.trial = tried;
        let Offers::Model(model) = &member.offers else { return };
        if let Some(spec) = self.models.iter_mut().find(|spec| spec.name.as_str() == model) {
            spec.trial = trial;
        }
    }
}
