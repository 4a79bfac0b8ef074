//! The modules of an app: folders with a `module.toml` or a component.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use aegis_config::{CONFIG_FILE, MODULES_FOLDER, ModuleLines, ModuleTerms, Trust};
use aegis_domain::{
    catalog::Catalog,
    event::EventKind,
    module,
    route::custom_route_mistakes,
    service::{ServiceSpec, route_mistakes},
    spec::ModelSpec,
    subscription::EventPattern,
    suggest,
};
use aegis_ipc::deploy::{Deployed, Member, Offers};

use super::{
    component::{Component, Found, MANIFEST_FILE, Service},
    deployments::{Deployments, origin_of},
    files::{entries, has_extension, read_text, unreadable},
    gate::{Gate, Lower, Passage},
    material::Offer,
    source::{Published, Sources},
    workshop::Workshop,
};

/// Name of a module's specification in its folder.
pub(super) const MODULE_FILE: &str = "module.toml";
/// Most modules of an app.
pub(super) const MODULES_MAX: usize = 1000;
/// Bytes of all module files together: a quarter of what a front of a bundle may have, because the encoded form may be
/// larger.
const MODULES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// All modules that were found.
#[derive(Debug, Default)]
pub(super) struct Modules {
    pub(super) specs: Vec<ModelSpec>,
    pub(super) components: Vec<Component>,
    pub(super) services: Vec<Service>,
    pub(super) mistakes: Vec<String>,
    pub(super) warnings: Vec<String>,
    /// All of them by name, in the order in which they were read.
    pub(super) roster: Vec<Member>,
    /// Names of folders with components, and of modules that are fetched or deployed.
    with_code: BTreeSet<String>,
    bytes: usize,
}

/// What module folders are read with.
pub(super) struct Reading<'a, 'b> {
    pub(super) app_dir: &'a Path,
    pub(super) modules_dir: &'a Path,
    /// Where the interface of the host begins, as far as it is known.
    pub(super) api_root: Option<&'a str>,
    /// What the operator says about modules.
    pub(super) terms: &'a BTreeMap<String, ModuleTerms>,
    /// And where.
    pub(super) lines: &'a ModuleLines,
    pub(super) workshop: &'a mut Workshop<'b>,
    /// Where modules come from that are not in the folder.
    pub(super) sources: &'a mut Sources,
    /// What was deployed in place of what the app says.
    pub(super) deployed: &'a Deployments,
    /// Who may publish what.
    pub(super) gate: &'a Gate,
    /// The same, as the operator says it.
    pub(super) trust: &'a Trust,
}

/// What is wrong with where services and custom routes answer, beside each other and beside the host.
pub(super) fn misplaced(specs: &[ModelSpec], services: &[ServiceSpec], api_root: &str) -> Vec<String> {
    let mut mistakes = route_mistakes(services, api_root);
    mistakes.extend(custom_route_mistakes(specs, services, api_root));
    mistakes
}

impl Modules {
    pub(super) fn read(mut reading: Reading<'_, '_>) -> Self {
        let mut modules = Self::default();
        let (app_dir, modules_dir) = (reading.app_dir, reading.modules_dir);
        let shown = |path: &Path| path.strip_prefix(app_dir).unwrap_or(path).display().to_string();
        match entries(modules_dir) {
            Ok(entries) => {
                if entries.len() > MODULES_MAX {
                    let expected = format!(
                        "{}: found {} entries, expected at most {MODULES_MAX}",
                        shown(modules_dir),
                        entries.len()
                    );
                    modules.mistakes.push(expected);
                } else {
                    for entry in &entries {
                        modules.read_entry(entry, &shown(entry), &mut reading);
                    }
                    modules.fetch(&mut reading);
                    modules.add_deployed(&mut reading);
                    modules.refuse_terms_of_nobody(reading.terms, reading.lines, &entries);
                }
            }
            Err(error) => {
                modules.fetch(&mut reading);
                modules.add_deployed(&mut reading);
                modules.read_failed(app_dir, modules_dir, &shown(modules_dir), &error);
            }
        }
        modules.add_trials(&mut reading);
        if modules.mistakes.is_empty() {
            modules.warn_of_grants_of_nobody(reading.terms, reading.lines);
            modules.refuse_clashes(|name| {
                let folder = modules_dir.join(name);
                if folder.is_dir() { shown(&folder) } else { format!("modules.{name}") }
            });
            if let Some(api_root) = reading.api_root {
                let mistakes = misplaced(&modules.specs, &modules.service_specs(), api_root);
                modules.mistakes.extend(mistakes);
            }
            if modules.specs.is_empty() && modules.services.is_empty() && modules.warnings.is_empty() {
                modules
                    .warnings
                    .push(format!("{}: no modules in it, so no models are served", shown(modules_dir)));
            }
        }
        modules
    }

    pub(super) fn service_specs(&self) -> Vec<ServiceSpec> {
        self.services.iter().map(|service| service.spec.clone()).collect()
    }

    /// Those that are published elsewhere, in the order of their names.
    fn fetch(&mut self, reading: &mut Reading<'_, '_>) {
        let (terms, gate) = (reading.terms, reading.gate);
        let published = terms.iter().filter_map(|(name, terms)| {
            let source = terms.source.as_ref()?;
            Some(Published { name, source, terms, gate, lower: Lower::beside(source) })
        });
        for (number, published) in published.enumerate() {
            if number == MODULES_MAX {
                let message =
                    format!("{CONFIG_FILE}: found more than {MODULES_MAX} sources, expected at most that");
                return self.mistakes.push(message);
            }
            if self.is_deployed(published.name, reading) {
                continue;
            }
            self.with_code.insert(published.name.to_owned());
            match reading.sources.read(&published, reading.workshop, &mut self.warnings) {
                Ok(read) => self.add(published.name, read.into(), None),
                Err(mistakes) => self.mistakes.extend(mistakes),
            }
        }
    }

    /// What is said about a module that is not there is a mistake in its name.
    fn refuse_terms_of_nobody(
        &mut self,
        terms: &BTreeMap<String, ModuleTerms>,
        lines: &ModuleLines,
        entries: &[PathBuf],
    ) {
        let folders: BTreeSet<&str> =
            entries.iter().filter_map(|entry| entry.file_name()?.to_str()).collect();
        for name in terms.keys().filter(|name| !self.with_code.contains(*name)) {
            let place = lines.place(&format!("modules.{name}"));
            self.mistakes.push(if folders.contains(name.as_str()) {
                format!(
                    "{place}: found settings, limits or other terms of code, expected them for a folder of modules with a component"
                )
            } else {
                let known = self.with_code.iter().map(String::as_str).chain(folders.iter().copied());
                let hint = suggest::similar(name, known);
                format!(
                    "{place}: found no such module{hint}, expected one with a component, or its source"
                )
            });
        }
    }

    /// What is wrong with models beside each other. Of several with one name it is told where they are, and the first goes on.
    fn refuse_clashes(&mut self, place: impl Fn(&str) -> String) {
        let members = self.roster.iter().filter(|member| matches!(member.offers, Offers::Model(_)));
        let (mut found, mut specs) = (BTreeMap::new(), Vec::new());
        for (member, spec) in members.zip(&self.specs) {
            match found.entry(spec.name.as_str()) {
                Entry::Vacant(entry) => {
                    entry.insert(&member.name);
                    specs.push(spec.clone());
                }
                Entry::Occupied(entry) => self.mistakes.push(format!(
                    "model {}: name: found it in {} and in {}, expected one of its own for each",
                    spec.name,
                    place(entry.get()),
                    place(&member.name)
                )),
            }
        }
        self.mistakes.extend(Catalog::build(specs).err().unwrap_or_default());
    }

    /// What is granted of a model that is not there is probably a mistake in its name; or it is there some other day. Events
    /// are those of models.
    fn warn_of_grants_of_nobody(&mut self, terms: &BTreeMap<String, ModuleTerms>, lines: &ModuleLines) {
        let known: BTreeSet<&str> = self.specs.iter().map(|spec| spec.name.as_str()).collect();
        let kinds = [EventKind::Create, EventKind::Update, EventKind::Delete].map(EventKind::as_str);
        let events: Vec<String> =
            known.iter().flat_map(|model| kinds.map(|kind| format!("{kind}{model}"))).collect();
        for (name, terms) in terms {
            let strangers = terms.grants.models.keys().filter(|model| !known.contains(model.as_str()));
            self.warnings.extend(strangers.map(|model| {
                let place = lines.place(&format!("modules.{name}.grants.models.{model}"));
                let hint = suggest::similar(model, known.iter().copied());
                format!("{place}: there is no such model{hint}, so nothing is granted by that")
            }));
            let place = lines.place(&format!("modules.{name}.grants.events"));
            let patterns = terms.grants.events.iter().filter_map(|text| EventPattern::new(text).ok());
            let strangers = patterns.filter(|pattern| !events.iter().any(|event| pattern.matches(event)));
            self.warnings.extend(strangers.map(|pattern| {
                let hint = suggest::similar(pattern.as_str(), events.iter().map(String::as_str));
                format!("{place}: there is no event {pattern}{hint}, so nothing is granted by that")
            }));
        }
    }

    /// A missing folder is fine unless somebody named it.
    fn read_failed(&mut self, app_dir: &Path, modules_dir: &Path, shown: &str, error: &io::Error) {
        let is_missing =
            error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(modules_dir).is_err();
        match (is_missing, modules_dir == app_dir.join(MODULES_FOLDER)) {
            (true, true) if !self.with_code.is_empty() => {}
            (true, true) => self.warnings.push(format!("{shown}: no such folder, so no models are served")),
            (true, false) => {
                self.mistakes.push(format!("{shown}: found nothing, expected a folder with modules"))
            }
            (false, _) => self.mistakes.push(format!("{shown}: {}", unreadable(modules_dir, error))),
        }
    }

    fn read_entry(&mut self, path: &Path, shown: &str, reading: &mut Reading<'_, '_>) {
        let Some(name) = path.file_name().and_then(OsStr::to_str) else {
            self.mistakes.push(format!("{shown}: found a name that is not UTF-8, expected one that is"));
            return;
        };
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.read_module(path, name, shown, reading),
            Ok(_) if has_extension(name, "toml") => {
                let folder = name.trim_end_matches(".toml");
                self.mistakes.push(format!(
                    "{shown}: found a file, expected a folder: a module is {MODULES_FOLDER}/{folder}/{MODULE_FILE}"
                ));
            }
            Ok(_) if has_extension(name, "wasm") => {
                let folder = name.trim_end_matches(".wasm");
                self.mistakes.push(format!(
                    "{shown}: found a file, expected a folder: a module is {MODULES_FOLDER}/{folder}/{name}"
                ));
            }
            Ok(_) => self.warnings.push(format!("{shown}: not a folder, so no module; ignored")),
            Err(error) => self.mistakes.push(format!("{shown}: {}", unreadable(path, &error))),
        }
    }

    /// A folder is a component when there is one in it, or at least its manifest.
    fn read_module(&mut self, folder: &Path, name: &str, shown: &str, reading: &mut Reading<'_, '_>) {
        if self.is_deployed(name, reading) {
            return;
        }
        if reading.terms.get(name).is_some_and(|terms| terms.source.is_some()) {
            let message = format!(
                "{shown}: found a folder, expected none: {CONFIG_FILE} has a source for modules.{name}"
            );
            return self.mistakes.push(message);
        }
        let files = match entries(folder) {
            Ok(files) => files,
            Err(error) => return self.mistakes.push(format!("{shown}: {}", unreadable(folder, &error))),
        };
        let names: Vec<_> = files.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        let components: Vec<_> =
            names.iter().filter(|name| has_extension(name, "wasm")).map(|name| (*name).to_owned()).collect();
        let has_manifest = names.contains(&MANIFEST_FILE);
        if components.is_empty() && !has_manifest {
            return self.read_declaration(folder, name, shown);
        }
        if names.contains(&MODULE_FILE) {
            let other = components.first().map_or(MANIFEST_FILE, String::as_str);
            return self
                .mistakes
                .push(format!("{shown}: found both {MODULE_FILE} and {other}, expected one of them"));
        }
        self.with_code.insert(name.to_owned());
        let nothing = ModuleTerms::default();
        let terms = reading.terms.get(name).unwrap_or(&nothing);
        let found = Found { folder, shown, files: components, has_manifest, terms };
        match found.read(reading.gate, reading.workshop, &mut self.warnings) {
            Ok(read) => self.add(name, read.into(), None),
            Err(mistakes) => self.mistakes.extend(mistakes),
        }
    }

    /// Whether something else goes before what the app says of this module; then that is read, once.
    fn is_deployed(&mut self, name: &str, reading: &mut Reading<'_, '_>) -> bool {
        let Some(deployed) = reading.deployed.of_module(name) else { return false };
        if self.roster.iter().all(|known| known.name != name) && self.with_code.insert(name.to_owned()) {
            let nothing = ModuleTerms::default();
            let terms = reading.terms.get(name).unwrap_or(&nothing);
            let origin = format!("modules.{name}");
            let material = reading.deployed.read(&origin, deployed);
            let offer = material.and_then(|material| {
                let passage =
                    Passage { gate: reading.gate, origin: origin_of(deployed), lower: Lower::Decided };
                material.prepare((&origin, name), terms, passage, reading.workshop, &mut self.warnings)
            });
            match offer {
                Ok(offer) => self.add(name, offer, Some(deployed)),
                Err(mistakes) => self.mistakes.extend(mistakes),
            }
        }
        true
    }

    /// Modules that were deployed and that the app does not know.
    fn add_deployed(&mut self, reading: &mut Reading<'_, '_>) {
        for name in reading.deployed.names() {
            self.is_deployed(name, reading);
        }
    }

    fn add(&mut self, name: &str, offer: Offer, deployed: Option<&Deployed>) {
        let (name, offers, signed) = (name.to_owned(), offer.offers(), offer.signed().cloned());
        self.roster.push(Member { name, offers, deployed: deployed.cloned(), signed, trial: None });
        match offer {
            Offer::Model(spec, component) => {
                self.specs.push(*spec);
                self.components.extend(component);
            }
            Offer::Service(service) => self.services.push(service),
        }
    }

    fn read_declaration(&mut self, folder: &Path, name: &str, shown: &str) {
        let origin = format!("{shown}/{MODULE_FILE}");
        let text = match read_text(&folder.join(MODULE_FILE), module::MODULE_BYTES_MAX) {
            Ok(text) => text,
            Err(mistake) => return self.mistakes.push(format!("{origin}: {mistake}")),
        };
        self.bytes += text.len();
        if self.bytes > MODULES_BYTES_MAX {
            return self.mistakes.push(format!("{origin}: with this file, modules have more than {MODULES_BYTES_MAX} bytes together, expected at most that"));
        }
        match module::parse(&text, &origin) {
            Ok(spec) => self.add(name, Offer::Model(Box::new(spec), None), None),
            Err(mistakes) => self.mistakes.extend(mistakes),
        }
    }
}
