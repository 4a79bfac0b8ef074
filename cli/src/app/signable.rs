//! A module that is in no app: as its author has it, who signs it and looks at it before it is published.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aegis_config::{CONFIG_FILE, MODULES_FOLDER, ModuleTerms, Trust};
use aegis_domain::manifest::{self, MANIFEST_BYTES_MAX, Manifest};
use aegis_wasm::{Code, Diagnostic};

use super::{
    Blame, Compilation, Mistakes,
    component::{Found, MANIFEST_FILE, Read, located, verified},
    files::{entries, has_extension, length_of, read_bytes, unreadable},
    gate::Gate,
    material::sha256,
    workshop::{Keep, Workshop},
};
use crate::trust::{Claims, ENVELOPE_BYTES_MAX, Envelope, SIGNATURES_SUFFIX, claims};

/// A manifest whose component is the one that it is about.
#[derive(Debug)]
pub(crate) struct Signable {
    /// To the letter.
    pub(crate) manifest: Vec<u8>,
    pub(crate) claims: Claims,
    /// Where its signatures are, or will be.
    pub(crate) signatures_path: PathBuf,
    /// The file with its signatures, if there is one.
    pub(crate) signatures: Option<Vec<u8>>,
}

/// Reads a manifest, or the one in a folder, and the component beside it. All mistakes at once, with the place.
pub(crate) fn signable(target: &Path) -> Result<Signable, Vec<String>> {
    let path = if target.is_dir() { target.join(MANIFEST_FILE) } else { target.to_owned() };
    let shown = path.display().to_string();
    let refuse = |message: String| vec![format!("{shown}: {message}")];
    let manifest =
        length_of(&path, "a manifest").and_then(|_| read_bytes(&path, MANIFEST_BYTES_MAX)).map_err(refuse)?;
    let wrong = |told: Vec<String>| -> Vec<String> {
        told.iter().map(|message| format!("{shown}: {message}")).collect()
    };
    let read = manifest::parse(&manifest).map_err(wrong)?;
    let component = component(&path, &shown, &read)?;
    let claims = match claims(&read) {
        Ok(claims) => claims,
        Err(mut told) => {
            if read.component.sha256.is_none() {
                told.push(format!("component.sha256: that of the component is {}", sha256(&component)));
            }
            return Err(wrong(told));
        }
    };
    let mut signatures_path = path.into_os_string();
    signatures_path.push(SIGNATURES_SUFFIX);
    let signatures_path = PathBuf::from(signatures_path);
    let signatures = fs::symlink_metadata(&signatures_path).is_ok().then(|| {
        length_of(&signatures_path, "a file with signatures")
            .and_then(|_| read_bytes(&signatures_path, ENVELOPE_BYTES_MAX))
            .map_err(|message| vec![format!("{}: {message}", signatures_path.display())])
    });
    let signatures = signatures.transpose()?;
    Ok(Signable { manifest, claims, signatures_path, signatures })
}

/// The component that a manifest is about: the one that it names, or the only one beside it.
fn component(path: &Path, shown: &str, manifest: &Manifest) -> Result<Vec<u8>, Vec<String>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let terms = ModuleTerms::default();
    let found = Found { folder, shown, files: components(folder)?, has_manifest: true, terms: &terms };
    let file = folder.join(found.choose(manifest.component.path.as_deref())?);
    verified(&file, &manifest.component).map_err(|wrong| located(&file.display().to_string(), &wrong))
}

/// Names of the components in a folder.
fn components(folder: &Path) -> Result<Vec<String>, Vec<String>> {
    let paths = entries(folder)
        .map_err(|error| vec![format!("{}: {}", folder.display(), unreadable(folder, &error))])?;
    let names = paths.iter().filter_map(|path| path.file_name()?.to_str());
    Ok(names.filter(|name| has_extension(name, "wasm")).map(str::to_owned).collect())
}

/// Whether it is the folder of a module rather than of an app.
pub(crate) fn is_module_folder(path: &Path) -> bool {
    let has = |name: &str| fs::symlink_metadata(path.join(name)).is_ok();
    has(MANIFEST_FILE) && !has(CONFIG_FILE) && !has(MODULES_FOLDER)
}

/// A module that is in no app.
pub(crate) struct LoneModule {
    pub(crate) read: Read,
    /// Names of the keys that its manifest is signed with; which of them count is for an app to say.
    pub(crate) signers: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// Reads the folder of a module that is in no app.
pub(crate) fn load_module(folder: &Path) -> Result<LoneModule, Mistakes> {
    let shown = folder.display().to_string();
    let refuse = |lines| Mistakes { lines, blame: Blame::App };
    let files = components(folder).map_err(refuse)?;
    let terms = ModuleTerms::default();
    let found = Found { folder, shown: &shown, files, has_manifest: true, terms: &terms };
    let mut warnings = Vec::new();
    let read = Compilation::quiet(Keep::WhereThereIsSome, |compilation| {
        // Nobody is trusted yet, so nobody has to sign.
        let gate = Gate::of(&Trust::default(), None, 0);
        let mut workshop = Workshop::new(compilation, None);
        let read = found.read(&gate, &mut workshop, &mut warnings);
        warnings.extend(workshop.finish().warnings);
        read
    });
    let read = read.map_err(refuse)?;
    let signers = signers(&found).map_err(|mistakes| {
        refuse(located(&format!("{shown}/{MANIFEST_FILE}{SIGNATURES_SUFFIX}"), &mistakes))
    })?;
    Ok(LoneModule { read, signers, warnings })
}

/// Whose signatures there are, if they are about the manifest as it is.
fn signers(found: &Found<'_>) -> Result<Vec<String>, Vec<Diagnostic>> {
    let Some(papers) = found.papers()? else { return Ok(Vec::new()) };
    let Some(signatures) = &papers.signatures else { return Ok(Vec::new()) };
    let differs = |message| vec![Diagnostic::new(Code::SignatureDiffers, message)];
    let envelope = Envelope::parse(signatures).map_err(differs)?;
    envelope.message_about(&papers.manifest).map_err(differs)?;
    Ok(envelope.signers().into_iter().map(str::to_owned).collect())
}
