//! The generation in force with another version of one module. Everything else stays as it is in there: other modules are
//! neither looked at nor compiled again, and the configuration is the one in force.

mod trial;

use std::{
    collections::BTreeSet,
    os::fd::OwnedFd,
    path::{Component as Part, Path},
};

use aegis_config::{Config, ModuleSource, ModuleTerms};
use aegis_domain::{
    access,
    catalog::{self, Catalog},
    compatibility,
    service::ServiceSpec,
    spec::{Datasource, ModelSpec},
};
use aegis_ipc::{
    IpcError,
    bundle::{Bundle, Code},
    codec,
    deploy::{Deployed, Member, NAME_BYTES_MAX, Offers, Order, Supply, TrialStep},
};
use aegis_supervisor::{kept, last_good::LastGood, with_causes};

use super::{
    Compilation,
    depot::{self, Depot},
    digest,
    gate::{Gate, Lower, Origin, Passage},
    material::{Material, Offer},
    modules::misplaced,
    source::{Published, Sources, Times},
    workshop::{Output, Workshop},
};

/// Why nothing is deployed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// All mistakes at once.
    Mistakes(Vec<String>),
    /// Everything that clients or documents would notice.
    Incompatible(Vec<String>),
}

impl From<String> for Refusal {
    fn from(mistake: String) -> Self {
        Self::Mistakes(vec![mistake])
    }
}

impl From<IpcError> for Refusal {
    fn from(error: IpcError) -> Self {
        with_causes(&error).into()
    }
}

/// A generation that was made from another one.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) config: Config,
    pub(crate) bundle: Bundle,
    pub(crate) code: Vec<Code>,
    pub(crate) warnings: Vec<String>,
}

/// A generation taken apart.
struct Parts {
    config: Config,
    models: Vec<ModelSpec>,
    services: Vec<ServiceSpec>,
    modules: Vec<Member>,
}

/// What takes the place of a module.
struct Version {
    /// Nothing when the app has no such module any more.
    offer: Option<Offer>,
    /// What is kept of it, when it is not what the app says.
    deployed: Option<(Deployed, Material)>,
}

/// Makes the generation in `base` again, with another version of one module. `now_s` is the time, seconds since 1970.
pub(crate) fn deploy(
    order: &Order,
    base: &OwnedFd,
    compilation: Compilation<'_>,
    now_s: i64,
) -> Result<Made, Refusal> {
    let bundle = Bundle::read(base)?;
    let engine = aegis_wasm::compatibility().map_err(|error| error.to_string())?;
    if !bundle.engine.is_empty() && bundle.engine != engine {
        let message =
            "the code in force was compiled by another version of aegis; `aegis reload` compiles it anew";
        return Err(message.to_owned().into());
    }
    let mut parts = Parts::of(&bundle)?;
    check_name(&order.module)?;
    let known = parts.modules.iter().position(|module| module.name == order.module);
    if known.is_none() && matches!(order.supply, Supply::App | Supply::Reset) {
        return Err(unknown(&order.module, &parts.modules).into());
    }
    let before = known.map(|at| parts.modules[at].clone());
    let data_dir = parts.config.data_dir.clone();
    let (keep, mut warnings) = (compilation.keep, Vec::new());
    let mut workshop = Workshop::new(compilation, Some(&data_dir));
    let config = parts.config.clone();
    let times = Times::within(config.reload.probe_timeout);
    let mut sources = Sources::of_deployment(times, keep, &data_dir);
    let gate = &Gate::of(&config.trust, Some(&data_dir), now_s);
    let making = Making { order, config: &config, before: before.as_ref(), now_s, gate };
    let material = match &order.trial {
        Some(step @ (TrialStep::Share(_) | TrialStep::Abort { .. })) => {
            making.try_out(step, &mut parts, (&mut sources, &mut workshop), &mut warnings)?
        }
        None | Some(TrialStep::Promote) => {
            let version = making.version((&mut sources, &mut workshop), &mut warnings)?;
            parts.refuse_breaking(order, before.as_ref(), version.offer.as_ref())?;
            let (deployed, material) = version.deployed.unzip();
            parts.put(&order.module, known, version.offer, deployed);
            material
        }
    };
    parts.check()?;
    let Output { code: made, warnings: about_code, .. } = workshop.finish();
    let code = parts.code(&bundle, base, &made)?;
    warnings.extend(sources.finish().into_iter().chain(about_code));
    if let Some(material) = material {
        let needed = needed(&data_dir, &bundle.modules)?;
        Depot::of(&data_dir).keep(&material, &needed)?;
    }
    parts.assemble(bundle, engine, code, warnings)
}

fn check_name(name: &str) -> Result<(), String> {
    let is_name = matches!(
        Path::new(name).components().collect::<Vec<_>>()[..],
        [Part::Normal(part)] if part == name
    );
    if is_name && name.len() <= NAME_BYTES_MAX && !name.starts_with('.') {
        return Ok(());
    }
    let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
    Err(format!("found the module {shown:?}, expected the name of a folder of modules"))
}

fn unknown(name: &str, modules: &[Member]) -> String {
    let names: Vec<_> = modules.iter().map(|module| module.name.as_str()).collect();
    let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    format!(
        "found no module {name:?} in the generation in force, there are: {there}; what is new in the app folder comes with `aegis reload`"
    )
}

/// One module on its way.
struct Making<'a> {
    order: &'a Order,
    /// The configuration in force.
    config: &'a Config,
    before: Option<&'a Member>,
    now_s: i64,
    /// Who may publish what.
    gate: &'a Gate,
}

impl Making<'_> {
    fn version(
        &self,
        (sources, workshop): (&mut Sources, &mut Workshop<'_>),
        warnings: &mut Vec<String>,
    ) -> Result<Version, Refusal> {
        let nothing = ModuleTerms::default();
        let name = &self.order.module;
        let terms = self.config.modules.get(name).unwrap_or(&nothing);
        if self.order.trial.is_some() {
            return self.promoted(terms, workshop, warnings);
        }
        self.refuse_while_tried()?;
        match &self.order.supply {
            Supply::App => {
                if let Some(deployed) = self.before.and_then(|before| before.deployed.as_ref()) {
                    return Err(format!(
                        "modules.{name}: found what was deployed from {}, which goes before what the app says; `aegis deploy {name} --reset` goes back to that",
                        deployed.source
                    )
                    .into());
                }
                self.of_app(terms, sources, workshop, warnings)
            }
            Supply::Reset => self.of_app(terms, sources, workshop, warnings),
            Supply::Source(_) | Supply::File(_) => {
                let found = self.material(terms, sources, workshop)?;
                let missing = || Refusal::from("found nothing to deploy".to_owned());
                let (material, source, origin) = found.ok_or_else(missing)?;
                self.of_material(material, (&source, origin), terms, workshop, warnings)
            }
        }
    }

    /// What is deployed in place of what the app says, if anything, and where it is from.
    fn material(
        &self,
        terms: &ModuleTerms,
        sources: &mut Sources,
        workshop: &mut Workshop<'_>,
    ) -> Result<Option<(Material, String, Origin)>, Refusal> {
        let name = &self.order.module;
        match &self.order.supply {
            Supply::App | Supply::Reset => Ok(None),
            Supply::Source(address) => {
                let (sha256, beside) = (self.order.sha256.as_deref(), terms.source.as_ref());
                let mut source = ModuleSource::read(address, sha256, beside)
                    .map_err(|message| format!("source: {message}"))?;
                source.token_file = token_for(&source, terms);
                workshop.begin(&format!("modules.{name}")).map_err(Refusal::Mistakes)?;
                let published =
                    Published { name, source: &source, terms, gate: self.gate, lower: self.lower() };
                let material = sources.material(&published).map_err(Refusal::Mistakes)?;
                Ok(Some((material, address.clone(), Origin::of(&source))))
            }
            Supply::File(path) => {
                let shown = path.display().to_string();
                let material = Material::of_path(path, &shown).map_err(Refusal::Mistakes)?;
                Ok(Some((material, format!("file {shown}"), Origin::Here)))
            }
        }
    }

    /// What the app says about the module, now.
    fn of_app(
        &self,
        terms: &ModuleTerms,
        sources: &mut Sources,
        workshop: &mut Workshop<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Version, Refusal> {
        let name = &self.order.module;
        if let Some(source) = &terms.source {
            let lower = if self.order.force { Lower::Wanted } else { Lower::beside(source) };
            let published = Published { name, source, terms, gate: self.gate, lower };
            let read = sources.read(&published, workshop, warnings);
            let offer = Offer::from(read.map_err(Refusal::Mistakes)?);
            self.check_digest(offer.digest().unwrap_or_default())?;
            return Ok(Version { offer: Some(offer), deployed: None });
        }
        let folder = self.config.modules_dir.join(name);
        if self.order.supply == Supply::Reset && !folder.exists() {
            return Ok(Version { offer: None, deployed: None });
        }
        let shown = folder.strip_prefix(&self.config.app_dir).unwrap_or(&folder).display().to_string();
        let material = Material::of_path(&folder, &shown).map_err(Refusal::Mistakes)?;
        self.check_digest(&material.sha256())?;
        let passage = Passage { gate: self.gate, origin: Origin::Here, lower: self.lower() };
        let offer = material.prepare((&shown, name), terms, passage, workshop, warnings);
        Ok(Version { offer: Some(offer.map_err(Refusal::Mistakes)?), deployed: None })
    }

    /// What is deployed in place of what the app says.
    fn of_material(
        &self,
        material: Material,
        (source, whence): (&str, Origin),
        terms: &ModuleTerms,
        workshop: &mut Workshop<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Version, Refusal> {
        self.check_digest(&material.sha256())?;
        let name = &self.order.module;
        let origin = format!("modules.{name}");
        let passage = Passage { gate: self.gate, origin: whence, lower: self.lower() };
        let offer = material.prepare((&origin, name), terms, passage, workshop, warnings);
        let offer = offer.map_err(Refusal::Mistakes)?;
        let mut deployed = self.record(&material, source);
        if let Some(known) = self.before.and_then(|before| before.deployed.as_ref()) {
            let again = Deployed { since_s: known.since_s, ..deployed.clone() };
            if again == *known {
                deployed = again; // nothing new
            }
        }
        Ok(Version { offer: Some(offer), deployed: Some((deployed, material)) })
    }

    /// What is said of something that is deployed now.
    fn record(&self, material: &Material, source: &str) -> Deployed {
        Deployed {
            source: source.to_owned(),
            form: material.form,
            sha256: material.sha256(),
            manifest_sha256: material.manifest_sha256(),
            signature_sha256: material.signature_sha256(),
            since_s: self.now_s,
        }
    }

    /// Who forces a version wants that one, also below one that was in force.
    fn lower(&self) -> Lower {
        if self.order.force { Lower::Wanted } else { Lower::Refused }
    }

    fn check_digest(&self, found: &str) -> Result<(), Refusal> {
        match self.order.sha256.as_deref().filter(|expected| *expected != found) {
            None => Ok(()),
            Some(expected) => {
                let module = &self.order.module;
                Err(format!("modules.{module}: found the SHA-256 {found}, expected {expected}").into())
            }
        }
    }
}

/// Names of the bytes that the generation in force and those that are kept refer to.
fn needed(data_dir: &Path, in_force: &[Member]) -> Result<BTreeSet<String>, String> {
    let mut needed = depot::needed(in_force);
    needed.extend(depot::needed(&kept::deployments(data_dir).map_err(|error| with_causes(&error))?));
    for place in [LastGood::of(data_dir), LastGood::previous_of(data_dir)] {
        let bundle = place.read().ok().and_then(|bundle| Bundle::read(&bundle).ok());
        needed.extend(depot::needed(&bundle.map(|bundle| bundle.modules).unwrap_or_default()));
    }
    Ok(needed)
}

/// The token for a source, if it is where the app has a token for.
fn token_for(source: &ModuleSource, terms: &ModuleTerms) -> Option<std::path::PathBuf> {
    let known = terms.source.as_ref()?;
    let is_same = super::source::origin_of(&known.url) == super::source::origin_of(&source.url);
    known.token_file.clone().filter(|_| is_same)
}

impl Parts {
    fn of(bundle: &Bundle) -> Result<Self, Refusal> {
        Ok(Self {
            config: codec::decode(&bundle.config)?,
            models: catalog::decode(&bundle.catalog)?,
            services: catalog::decode_services(&bundle.catalog)?,
            modules: bundle.modules.clone(),
        })
    }

    fn model(&self, name: &str) -> Option<&ModelSpec> {
        self.models.iter().find(|model| model.name.as_str() == name)
    }

    /// Refuses what clients or documents would notice, unless they may.
    fn refuse_breaking(
        &self,
        order: &Order,
        before: Option<&Member>,
        after: Option<&Offer>,
    ) -> Result<(), Refusal> {
        let breaks = self.breaks(before, after);
        if order.force || breaks.is_empty() {
            return Ok(());
        }
        let module = &order.module;
        let told = breaks.into_iter().map(|message| format!("modules.{module}: {message}")).collect();
        Err(Refusal::Incompatible(told))
    }

    /// What clients or documents would notice.
    fn breaks(&self, before: Option<&Member>, after: Option<&Offer>) -> Vec<String> {
        let Some(before) = before else { return Vec::new() };
        let default = match self.config.datasource {
            aegis_config::Datasource::Memory => Datasource::Memory,
            aegis_config::Datasource::File => Datasource::File,
        };
        match (&before.offers, after) {
            (Offers::Model(name), Some(Offer::Model(new, _))) => {
                self.model(name).map(|old| compatibility::breaking(old, new, default)).unwrap_or_default()
            }
            (Offers::Service(name), Some(Offer::Service(new))) => {
                let old = self.services.iter().find(|service| service.name == *name);
                old.map(|old| compatibility::breaking_service(old, &new.spec)).unwrap_or_default()
            }
            (Offers::Model(name), None) => vec![format!("found nothing, expected model {name}")],
            (Offers::Service(name), None) => vec![format!("found nothing, expected service {name}")],
            (Offers::Model(name), Some(Offer::Service(_))) => {
                vec![format!("found a service, expected model {name}")]
            }
            (Offers::Service(name), Some(Offer::Model(..))) => {
                vec![format!("found a model, expected service {name}")]
            }
        }
    }

    /// Puts a version in the place of the one before.
    fn put(&mut self, name: &str, known: Option<usize>, offer: Option<Offer>, deployed: Option<Deployed>) {
        let before = known.map(|at| self.modules[at].offers.clone());
        let (mut model_at, mut service_at) = (self.models.len(), self.services.len());
        match before {
            Some(Offers::Model(model)) => {
                if let Some(at) = self.models.iter().position(|spec| spec.name.as_str() == model) {
                    self.models.remove(at);
                    model_at = at;
                }
            }
            Some(Offers::Service(service)) => {
                if let Some(at) = self.services.iter().position(|spec| spec.name == service) {
                    self.services.remove(at);
                    service_at = at;
                }
            }
            None => {}
        }
        let at = known.unwrap_or(self.modules.len());
        if known.is_some() {
            self.modules.remove(at);
        }
        let Some(offer) = offer else { return };
        let (name, offers) = (name.to_owned(), offer.offers());
        let signed = offer.signed().cloned();
        self.modules.insert(at, Member { name, offers, deployed, signed, trial: None });
        match offer {
            Offer::Model(spec, _) => self.models.insert(model_at, *spec),
            Offer::Service(service) => self.services.insert(service_at, service.spec),
        }
    }

    /// Whether all of it fits together.
    fn check(&self) -> Result<(), Refusal> {
        let mut mistakes = Catalog::build(self.models.clone()).err().unwrap_or_default();
        mistakes.extend(misplaced(&self.models, &self.services, &self.config.api_root));
        if !self.config.auth.enabled {
            mistakes.extend(access::unguarded(&self.models));
        }
        if mistakes.is_empty() { Ok(()) } else { Err(Refusal::Mistakes(mistakes)) }
    }

    /// Code of all components: what was made just now, and what is in the generation in force.
    fn code(&self, bundle: &Bundle, base: &OwnedFd, made: &[Code]) -> Result<Vec<Code>, Refusal> {
        let tried = self.models.iter().filter_map(|model| Some(&*model.trial.as_ref()?.code));
        let of_models = self.models.iter().filter_map(|model| model.code.as_ref()).chain(tried);
        let digests = of_models.map(|code| &code.digest).chain(self.services.iter().map(|one| &one.digest));
        let mut code: Vec<Code> = Vec::new();
        for digest in digests {
            if code.iter().any(|known| known.digest == *digest) {
                continue;
            }
            if let Some(made) = made.iter().find(|made| made.digest == *digest) {
                code.push(made.clone());
                continue;
            }
            let place = bundle.place_of(digest);
            let place =
                place.ok_or_else(|| format!("found no code of {digest} in the generation in force"))?;
            code.push(Bundle::read_code(base, place)?);
        }
        Ok(code)
    }

    fn assemble(
        self,
        before: Bundle,
        engine: String,
        code: Vec<Code>,
        warnings: Vec<String>,
    ) -> Result<Made, Refusal> {
        let catalog = catalog::encode_with(&self.models, &self.services);
        let bundle = Bundle {
            digest: digest(&before.config, &catalog, &self.modules)?,
            engine: if code.is_empty() { String::new() } else { engine },
            catalog,
            code: Vec::new(),
            modules: self.modules,
            ..before
        };
        Ok(Made { config: self.config, bundle, code, warnings })
    }
}
