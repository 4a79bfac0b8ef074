//! What a module consists of, before anything is made of it: a component, perhaps with a manifest, or a `module.toml`.
//!
//! A module that is deployed is kept in this form, so that a reload or a restart makes the same of it again.

use std::{fs, path::Path};

use aegis_config::ModuleTerms;
use aegis_domain::{manifest::Manifest, module, service::ServiceSpec, spec::ModelSpec};
use aegis_ipc::deploy::{Form, Offers, Signed};
use aegis_wasm::Diagnostic;
use sha2::{Digest, Sha256};

use super::{
    component::{
        Component, Found, MANIFEST_FILE, Package, Read, Service, located, note_signed, read_manifest,
        said_limits, verified,
    },
    files::{entries, has_extension, read_bytes, unreadable},
    gate::{Admission, Papers, Passage},
    modules::MODULE_FILE,
    workshop::Workshop,
};

/// What a module consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Material {
    pub(super) form: Form,
    /// The component, or the `module.toml`.
    pub(super) bytes: Vec<u8>,
    /// What came with a component.
    pub(super) papers: Option<Papers>,
}

/// What a module was made to be.
#[derive(Debug)]
pub(super) enum Offer {
    /// A model, with what there is to say about its component if it has one.
    Model(Box<ModelSpec>, Option<Component>),
    /// A service.
    Service(Service),
}

impl From<Read> for Offer {
    fn from(read: Read) -> Self {
        match read {
            Read::Model(spec, component) => Self::Model(spec, Some(component)),
            Read::Service(service) => Self::Service(service),
        }
    }
}

impl Offer {
    /// What a generation calls it.
    pub(super) fn offers(&self) -> Offers {
        match self {
            Self::Model(spec, _) => Offers::Model(spec.name.to_string()),
            Self::Service(service) => Offers::Service(service.spec.name.clone()),
        }
    }

    /// SHA-256 of its component, if it has one.
    pub(super) fn digest(&self) -> Option<&str> {
        match self {
            Self::Model(spec, _) => spec.code.as_ref().map(|code| code.digest.as_str()),
            Self::Service(Service { spec: ServiceSpec { digest, .. }, .. }) => Some(digest),
        }
    }

    /// Who signed it.
    pub(super) fn signed(&self) -> Option<&Signed> {
        match self {
            Self::Model(_, component) => component.as_ref()?.signed.as_ref(),
            Self::Service(service) => service.signed.as_ref(),
        }
    }
}

impl Material {
    /// What is in a file or a folder. `shown` is its path for people.
    pub(super) fn of_path(path: &Path, shown: &str) -> Result<Self, Vec<String>> {
        let refuse = |message: String| vec![format!("{shown}: {message}")];
        let metadata = fs::metadata(path).map_err(|error| refuse(unreadable(path, &error)))?;
        if metadata.is_dir() {
            return Self::of_folder(path, shown);
        }
        if has_extension(path, "toml") {
            let bytes = read_bytes(path, module::MODULE_BYTES_MAX).map_err(refuse)?;
            return Ok(Self { form: Form::Declaration, bytes, papers: None });
        }
        let bytes = verified(path, &Manifest::default().component).map_err(|wrong| located(shown, &wrong))?;
        Ok(Self { form: Form::Component, bytes, papers: None })
    }

    fn of_folder(folder: &Path, shown: &str) -> Result<Self, Vec<String>> {
        let refuse = |message: String| vec![format!("{shown}: {message}")];
        let files = entries(folder).map_err(|error| refuse(unreadable(folder, &error)))?;
        let names: Vec<_> = files.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        let components: Vec<_> =
            names.iter().filter(|name| has_extension(name, "wasm")).map(|name| (*name).to_owned()).collect();
        let has_manifest = names.contains(&MANIFEST_FILE);
        match (components.is_empty() && !has_manifest, names.contains(&MODULE_FILE)) {
            (true, _) => return Self::of_path(&folder.join(MODULE_FILE), &format!("{shown}/{MODULE_FILE}")),
            (false, true) => {
                let message = format!("found both {MODULE_FILE} and a component, expected one of them");
                return Err(refuse(message));
            }
            (false, false) => {}
        }
        let terms = ModuleTerms::default();
        let found = Found { folder, shown, files: components, has_manifest, terms: &terms };
        let papers = found.papers().map_err(|wrong| located(shown, &wrong))?;
        let read = read_manifest(papers.as_ref()).map_err(|wrong| located(shown, &wrong))?;
        let name = found.choose(read.component.path.as_deref())?;
        let origin = format!("{shown}/{name}");
        let bytes =
            verified(&folder.join(&name), &read.component).map_err(|wrong| located(&origin, &wrong))?;
        Ok(Self { form: Form::Component, bytes, papers })
    }

    /// SHA-256 of the component, or of the `module.toml`.
    pub(super) fn sha256(&self) -> String {
        sha256(&self.bytes)
    }

    /// SHA-256 of the manifest.
    pub(super) fn manifest_sha256(&self) -> Option<String> {
        self.papers.as_ref().map(|papers| sha256(&papers.manifest))
    }

    /// SHA-256 of the signatures.
    pub(super) fn signature_sha256(&self) -> Option<String> {
        self.papers.as_ref()?.signatures.as_deref().map(sha256)
    }

    /// All that it consists of.
    pub(super) fn parts(&self) -> impl Iterator<Item = &Vec<u8>> {
        let papers = self.papers.iter();
        let papers = papers.flat_map(|papers| std::iter::once(&papers.manifest).chain(&papers.signatures));
        std::iter::once(&self.bytes).chain(papers)
    }

    /// Makes a model or a service of it. All mistakes at once, with `origin` in front.
    pub(super) fn prepare(
        &self,
        (origin, name): (&str, &str),
        terms: &ModuleTerms,
        passage: Passage<'_>,
        workshop: &mut Workshop<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Offer, Vec<String>> {
        if self.form == Form::Declaration {
            let text = std::str::from_utf8(&self.bytes).map_err(|_| {
                vec![format!("{origin}: {MODULE_FILE}: found bytes that are not UTF-8, expected UTF-8 text")]
            })?;
            let place = format!("{origin}: {MODULE_FILE}");
            return module::parse(text, &place).map(|spec| Offer::Model(Box::new(spec), None));
        }
        let told = |mistakes: Vec<Diagnostic>| located(origin, &mistakes);
        let (papers, sha256, mut told_by_gate) = (self.papers.as_ref(), self.sha256(), Vec::new());
        let Passage { gate, origin: whence, lower } = passage;
        let admission = Admission { name, papers, sha256: &sha256, origin: whence, lower };
        let signed = gate.admit(&admission, &mut told_by_gate).map_err(told)?;
        warnings.extend(told_by_gate.iter().map(|warning| format!("{origin}: {warning}")));
        let manifest = read_manifest(papers).map_err(told)?;
        let said = said_limits(&manifest).map_err(told)?;
        warnings.extend(manifest.warnings.iter().map(|warning| format!("{origin}: {warning}")));
        let package = Package { origin, name, manifest, said, bytes: &self.bytes, terms };
        let mut read = package.prepare(workshop, warnings)?;
        note_signed(&mut read, signed);
        Ok(Offer::from(read))
    }
}

/// SHA-256, hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
