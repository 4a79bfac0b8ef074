//! A module folder with a component: the manifest, the file, and what both say together.
//!
//! The order matters: nothing looks at the bytes of a component before its size and digest are those of the manifest.

use std::{fs, path::Path};

use aegis_config::{
    CONFIG_FILE, ModelGrant, ModuleGrants, ModuleLimits, ModuleTerms, OnModuleFailure, read_module_limit,
};
use aegis_domain::{
    catalog,
    code::{Access, CodeLimits, Grants, OnFailure},
    disable,
    manifest::{self, ComponentClaim, Kind, MANIFEST_BYTES_MAX, Manifest},
    outgoing::HostGrant,
    service::{self, ServiceSpec, Wasi},
    spec::ModelSpec,
    subscription::EventPattern,
};
use aegis_ipc::deploy::Signed;
use aegis_wasm::{COMPONENT_BYTES_MAX, Code, Diagnostic, Terms, kind_of};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    files::{Unread, length_of, read_bytes, read_whole},
    gate::{Admission, Gate, Lower, Origin, Papers},
    material::sha256,
    workshop::Workshop,
};
use crate::trust::{ENVELOPE_BYTES_MAX, SIGNATURES_SUFFIX};

/// Name of a manifest.
pub(super) const MANIFEST_FILE: &str = "aegis.module.json";

/// A component that is part of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Component {
    /// Name of its model.
    pub(crate) model: String,
    /// Bytes of its file.
    pub(crate) bytes: u64,
    /// What it asks for.
    pub(crate) needs: Vec<String>,
    /// Which of the published versions it is, and among which it was chosen.
    pub(crate) chosen: Option<String>,
    /// Who signed it.
    pub(crate) signed: Option<Signed>,
}

/// A folder as it was found.
pub(super) struct Found<'a> {
    pub(super) folder: &'a Path,
    /// The folder's path for people.
    pub(super) shown: &'a str,
    /// Names of the `*.wasm` files.
    pub(super) files: Vec<String>,
    pub(super) has_manifest: bool,
    /// What the operator says.
    pub(super) terms: &'a ModuleTerms,
}

/// A component that was read, and what there is to say about it.
#[derive(Debug)]
pub(crate) enum Read {
    /// It is a model.
    Model(Box<ModelSpec>, Component),
    /// It is a service.
    Service(Service),
}

/// A component that is a service of an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) spec: ServiceSpec,
    /// Bytes of its file.
    pub(crate) bytes: u64,
    /// What it asks for.
    pub(crate) needs: Vec<String>,
    /// Which of the published versions it is, and among which it was chosen.
    pub(crate) chosen: Option<String>,
    /// Who signed it.
    pub(crate) signed: Option<Signed>,
}

impl Found<'_> {
    /// Reads, verifies and compiles the component. All mistakes at once, with the place.
    pub(super) fn read(
        &self,
        gate: &Gate,
        workshop: &mut Workshop<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Read, Vec<String>> {
        let origin = format!("{}/{MANIFEST_FILE}", self.shown);
        let told = |mistakes: Vec<Diagnostic>| located(&origin, &mistakes);
        let papers = self.papers().map_err(told)?;
        let manifest = read_manifest(papers.as_ref()).map_err(told)?;
        let said = said_limits(&manifest).map_err(told)?;
        warnings.extend(manifest.warnings.iter().map(|warning| format!("{origin}: {warning}")));
        let name = self.choose(manifest.component.path.as_deref())?;
        let component_origin = format!("{}/{name}", self.shown);
        let bytes = verified(&self.folder.join(&name), &manifest.component)
            .map_err(|mistakes| located(&component_origin, &mistakes))?;
        let (name, sha256) = (self.folder.file_name().unwrap_or_default().to_string_lossy(), sha256(&bytes));
        let (papers, mut told_by_gate) = (papers.as_ref(), Vec::new());
        let admission =
            Admission { name: &name, papers, sha256: &sha256, origin: Origin::Here, lower: Lower::Refused };
        let signed = gate.admit(&admission, &mut told_by_gate).map_err(told)?;
        warnings.extend(told_by_gate.iter().map(|warning| format!("{origin}: {warning}")));
        let (origin, terms) = (component_origin.as_str(), self.terms);
        let package = Package { origin, name: &name, manifest, said, bytes: &bytes, terms };
        let mut read = package.prepare(workshop, warnings)?;
        note_signed(&mut read, signed);
        Ok(read)
    }

    /// The manifest and its signatures, if there is a manifest.
    pub(super) fn papers(&self) -> Result<Option<Papers>, Vec<Diagnostic>> {
        if !self.has_manifest {
            return Ok(None);
        }
        let path = self.folder.join(MANIFEST_FILE);
        let manifest = length_of(&path, "a JSON file")
            .and_then(|_| read_bytes(&path, MANIFEST_BYTES_MAX))
            .map_err(|message| vec![Diagnostic::new(Code::BadManifest, message)])?;
        let path = self.folder.join(format!("{MANIFEST_FILE}{SIGNATURES_SUFFIX}"));
        let signatures = fs::symlink_metadata(&path).is_ok().then(|| {
            let told = |message| {
                let message = format!("{MANIFEST_FILE}{SIGNATURES_SUFFIX}: {message}");
                vec![Diagnostic::new(Code::SignatureDiffers, message)]
            };
            let length = length_of(&path, "a file with signatures");
            length.and_then(|_| read_bytes(&path, ENVELOPE_BYTES_MAX)).map_err(told)
        });
        Ok(Some(Papers { manifest, signatures: signatures.transpose()? }))
    }

    /// The file that the manifest names, or the only one.
    pub(super) fn choose(&self, named: Option<&str>) -> Result<String, Vec<String>> {
        let wrong = |message: String| located(self.shown, &[Diagnostic::new(Code::NoFile, message)]);
        match (named, self.files.as_slice()) {
            (Some(named), files) if files.iter().any(|file| file == named) => Ok(named.to_owned()),
            (Some(named), _) => {
                Err(wrong(format!("found no {named}, expected the file that {MANIFEST_FILE} names")))
            }
            (None, [file]) => Ok(file.clone()),
            (None, []) => Err(wrong("found no *.wasm file, expected one with the component".to_owned())),
            (None, files) => Err(wrong(format!(
                "found {}, expected one *.wasm file, or the manifest {MANIFEST_FILE} that names one",
                files.join(", ")
            ))),
        }
    }
}

/// What a manifest says; one that is not there says nothing.
pub(super) fn read_manifest(papers: Option<&Papers>) -> Result<Manifest, Vec<Diagnostic>> {
    let Some(papers) = papers else { return Ok(Manifest::default()) };
    let wrong = |message| Diagnostic::new(Code::BadManifest, message);
    manifest::parse(&papers.manifest).map_err(|mistakes| mistakes.into_iter().map(wrong).collect())
}

/// What a component is, which its manifest must not contradict. One that is nothing is refused when it is prepared.
pub(super) fn kind(bytes: &[u8], claimed: Option<Kind>) -> Result<Kind, Vec<Diagnostic>> {
    let Ok(kind) = kind_of(bytes) else { return Ok(claimed.unwrap_or(Kind::Model)) };
    match claimed.filter(|claimed| *claimed != kind) {
        Some(claimed) => {
            let message = format!(
                "found a component whose exports make it one of kind {:?}, expected {:?} as its manifest says",
                kind.as_str(),
                claimed.as_str()
            );
            Err(vec![Diagnostic::new(Code::BadManifest, message)])
        }
        None => Ok(kind),
    }
}

/// A component whose bytes are those that its manifest is about, wherever they came from.
pub(super) struct Package<'a> {
    /// Where it came from, for people.
    pub(super) origin: &'a str,
    /// Name of its folder, or of the module where it is published.
    pub(super) name: &'a str,
    pub(super) manifest: Manifest,
    /// Limits of the manifest.
    pub(super) said: ModuleLimits,
    pub(super) bytes: &'a [u8],
    /// What the operator says.
    pub(super) terms: &'a ModuleTerms,
}

impl Package<'_> {
    /// Makes a model or a service of it, and says where the component and its manifest disagree.
    pub(super) fn prepare(
        self,
        workshop: &mut Workshop<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Read, Vec<String>> {
        let told = |mistakes: Vec<Diagnostic>| located(self.origin, &mistakes);
        match kind(self.bytes, self.manifest.kind).map_err(told)? {
            Kind::HttpService => self.service(workshop, warnings),
            Kind::Model => self.model(workshop, warnings),
        }
    }

    /// What is usual, then what the manifest says, then what the operator says.
    fn limits(&self, usual: CodeLimits) -> CodeLimits {
        overlaid(overlaid(usual, &self.said), &self.terms.limits)
    }

    fn model(self, workshop: &mut Workshop<'_>, warnings: &mut Vec<String>) -> Result<Read, Vec<String>> {
        let limits = self.limits(CodeLimits::default());
        let Self { origin, name, manifest, bytes, terms, .. } = self;
        check_at_a_time(origin, &limits, None)?;
        let grants = grants(name, terms)?;
        let settings = settings(manifest.defaults, terms)
            .map_err(|message| located(origin, &[Diagnostic::new(Code::BadManifest, message)]))?;
        let mut spec = prepare(origin, bytes, Terms { settings, limits, grants }, workshop)?;
        disable::disable(&mut spec, &terms.disable).map_err(|mistakes| not_there(name, &mistakes))?;
        if let Some(code) = &spec.code {
            for (key, said, found) in
                [("name", &manifest.name, &code.module), ("version", &manifest.version, &code.version)]
            {
                if let Some(said) = said.as_ref().filter(|said| *said != found) {
                    warnings.push(format!("{origin}: {key}: it says {found:?}, its manifest {said:?}"));
                }
            }
        }
        let model = spec.name.to_string();
        Ok(Read::Model(
            Box::new(spec),
            Component { model, bytes: bytes.len() as u64, needs: manifest.needs, chosen: None, signed: None },
        ))
    }

    /// A service has no settings, and no grants but of hosts: it knows the interfaces of WASI and no others.
    fn service(self, workshop: &mut Workshop<'_>, warnings: &mut Vec<String>) -> Result<Read, Vec<String>> {
        let limits = self.limits(service::usual_limits());
        let Self { origin, name, manifest, bytes, terms, .. } = self;
        let settings = !manifest.defaults.is_empty() || !terms.settings.is_empty();
        let ModuleGrants { models, events, secrets, reveal, http: _ } = &terms.grants;
        let others = !models.is_empty() || !events.is_empty() || !secrets.is_empty() || !reveal.is_empty();
        for (what, is_there) in [("settings", settings), ("grants other than http", others)] {
            if is_there {
                warnings.push(format!("{origin}: found {what}, which a service over wasi:http does not get"));
            }
        }
        if let Some(first) = terms.disable.first() {
            let mistake = format!("found {first:?}, expected none: a service has no commands and no routes");
            return Err(not_there(name, &[mistake]));
        }
        let route = manifest.route.unwrap_or_else(|| format!("/{name}"));
        let (digest, wasi) = workshop.prepare_service(origin, bytes).map_err(|mistakes| {
            mistakes.iter().map(|mistake| format!("{origin}: {mistake}")).collect::<Vec<_>>()
        })?;
        check_at_a_time(origin, &limits, Some(wasi))?;
        let (name, http) = (name.to_owned(), hosts(name, terms)?);
        let spec = ServiceSpec { name, route, digest, limits, http, wasi };
        let (bytes, needs) = (bytes.len() as u64, manifest.needs);
        Ok(Read::Service(Service { spec, bytes, needs, chosen: None, signed: None }))
    }
}

/// Whether an instance can answer as many requests at the same time as its manifest or the operator wants.
fn check_at_a_time(origin: &str, limits: &CodeLimits, wasi: Option<Wasi>) -> Result<(), Vec<String>> {
    match service::at_a_time_mistake(limits, wasi) {
        Some(message) => Err(located(origin, &[Diagnostic::new(Code::BadManifest, message)])),
        None => Ok(()),
    }
}

/// Notes which of the published versions it is.
pub(super) fn note_choice(read: &mut Read, choice: String) {
    match read {
        Read::Model(_, component) => component.chosen = Some(choice),
        Read::Service(service) => service.chosen = Some(choice),
    }
}

/// Notes who signed it.
pub(super) fn note_signed(read: &mut Read, signed: Option<Signed>) {
    match read {
        Read::Model(_, component) => component.signed = signed,
        Read::Service(service) => service.signed = signed,
    }
}

/// Limits of a manifest.
pub(super) fn said_limits(manifest: &Manifest) -> Result<ModuleLimits, Vec<Diagnostic>> {
    let mut limits = ModuleLimits::default();
    let read = manifest.limits.iter().filter_map(|limit| {
        let read = read_module_limit(limit.limit, &limit.text, &mut limits);
        read.err().map(|message| Diagnostic::new(Code::BadManifest, format!("{}: {message}", limit.key)))
    });
    let mistakes: Vec<_> = read.collect();
    if mistakes.is_empty() { Ok(limits) } else { Err(mistakes) }
}

/// Makes a model of the bytes of a component.
pub(super) fn prepare(
    origin: &str,
    bytes: &[u8],
    terms: Terms,
    workshop: &mut Workshop<'_>,
) -> Result<ModelSpec, Vec<String>> {
    let spec = workshop.prepare(origin, bytes, terms).map_err(|mistakes| {
        mistakes.iter().map(|mistake| format!("{origin}: {mistake}")).collect::<Vec<_>>()
    })?;
    let mistakes = catalog::mistakes(&spec);
    if mistakes.is_empty() {
        return Ok(spec);
    }
    let told = mistakes
        .into_iter()
        .map(|(key, message)| Diagnostic::new(Code::BadSpecification, format!("{key}: {message}")));
    Err(located(origin, &told.collect::<Vec<_>>()))
}

/// Reads the file of a component, unless its size or digest is not what its manifest says.
pub(super) fn verified(path: &Path, claim: &ComponentClaim) -> Result<Vec<u8>, Vec<Diagnostic>> {
    let no_file = |message| vec![Diagnostic::new(Code::NoFile, message)];
    let length = length_of(path, "a Wasm component").map_err(no_file)?;
    let mut mistakes = Vec::new();
    if length > COMPONENT_BYTES_MAX as u64 {
        let message = format!("found {length} bytes, expected at most {COMPONENT_BYTES_MAX}");
        mistakes.push(Diagnostic::new(Code::TooLarge, message));
    }
    if let Some(size) = claim.size.filter(|size| *size != length) {
        let message = format!("found {length} bytes, expected {size} as its manifest says");
        mistakes.push(Diagnostic::new(Code::SizeDiffers, message));
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let bytes = read_component(path).map_err(|mistake| vec![mistake])?;
    match &claim.sha256 {
        Some(expected) => {
            let found = format!("{:x}", Sha256::digest(&bytes));
            if found == *expected {
                return Ok(bytes);
            }
            let message = format!("found the SHA-256 {found}, expected {expected} as its manifest says");
            Err(vec![Diagnostic::new(Code::DigestDiffers, message)])
        }
        None => Ok(bytes),
    }
}

/// The bytes of a component's file.
pub(super) fn read_component(path: &Path) -> Result<Vec<u8>, Diagnostic> {
    read_whole(path, COMPONENT_BYTES_MAX).map_err(|unread| match unread {
        Unread::NoMemory => {
            let message = "found that it takes more memory than there is, expected less";
            Diagnostic::new(Code::BeyondLimits, message)
        }
        Unread::Other(message) => Diagnostic::new(Code::NoFile, message),
    })
}

/// The module's defaults under what the operator says; tables are joined key by key.
fn settings(defaults: Map<String, Value>, terms: &ModuleTerms) -> Result<Value, String> {
    let said = serde_json::to_value(&terms.settings).map_err(|error| format!("settings: {error}"))?;
    let mut settings = Value::Object(defaults);
    lay_over(&mut settings, said);
    Ok(settings)
}

fn lay_over(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                match below.get_mut(&key) {
                    Some(known) => lay_over(known, value),
                    None => {
                        below.insert(key, value);
                    }
                }
            }
        }
        (below, above) => *below = above,
    }
}

/// What is granted. The mistakes are events and hosts that can have no such name.
fn grants(name: &str, terms: &ModuleTerms) -> Result<Grants, Vec<String>> {
    let one = |(name, grant): (&String, &ModelGrant)| {
        (name.clone(), Access { read: grant.read, write: grant.write })
    };
    let (mut events, mut mistakes) = (Vec::new(), Vec::new());
    for event in &terms.grants.events {
        match EventPattern::new(event) {
            Ok(pattern) => events.push(pattern),
            Err(message) => mistakes.push(format!("modules.{name}.grants.events: {message}")),
        }
    }
    let http = hosts(name, terms).unwrap_or_else(|told| {
        mistakes.extend(told);
        Vec::new()
    });
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    Ok(Grants {
        models: terms.grants.models.iter().map(one).collect(),
        events,
        http,
        secrets: terms.grants.secrets.clone(),
        reveal: terms.grants.reveal.clone(),
    })
}

/// What cannot be disabled, because it is not there.
fn not_there(name: &str, mistakes: &[String]) -> Vec<String> {
    mistakes.iter().map(|mistake| format!("{CONFIG_FILE}: modules.{name}.disable: {mistake}")).collect()
}

/// The hosts that a module is granted.
fn hosts(name: &str, terms: &ModuleTerms) -> Result<Vec<HostGrant>, Vec<String>> {
    let (mut hosts, mut mistakes) = (Vec::new(), Vec::new());
    for written in &terms.grants.http {
        match HostGrant::parse(written) {
            Ok(host) => hosts.push(host),
            Err(mistake) => mistakes.push(format!("modules.{name}.grants.http: {mistake}")),
        }
    }
    if mistakes.is_empty() { Ok(hosts) } else { Err(mistakes) }
}

fn overlaid(limits: CodeLimits, said: &ModuleLimits) -> CodeLimits {
    let milliseconds = |time: std::time::Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    CodeLimits {
        memory_bytes_max: said.memory.unwrap_or(limits.memory_bytes_max),
        call_ms_max: said.deadline.map_or(limits.call_ms_max, milliseconds),
        cpu_call_ms_max: said.cpu_deadline.map_or(limits.cpu_call_ms_max, milliseconds),
        payload_bytes_max: said.payload.unwrap_or(limits.payload_bytes_max),
        instances_max: said.instances.unwrap_or(limits.instances_max),
        calls_per_instance_max: said.invocations.unwrap_or(limits.calls_per_instance_max),
        calls_at_a_time_max: said.concurrent.unwrap_or(limits.calls_at_a_time_max),
        on_failure: match said.on_module_failure {
            Some(OnModuleFailure::Deny) => OnFailure::Deny,
            Some(OnModuleFailure::Skip) => OnFailure::Skip,
            None => limits.on_failure,
        },
    }
}

pub(super) fn located(origin: &str, mistakes: &[Diagnostic]) -> Vec<String> {
    mistakes.iter().map(|mistake| format!("{origin}: {mistake}")).collect()
}
