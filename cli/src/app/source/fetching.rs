//! One module being fetched: which version, its manifest, its component.

use std::time::Instant;

use aegis_config::ModuleSource;
use aegis_domain::manifest::{self, ComponentClaim, MANIFEST_BYTES_MAX, Manifest};
use aegis_wasm::{COMPONENT_BYTES_MAX, Code, Diagnostic};
use semver::{Version, VersionReq};

use super::{
    super::{component::MANIFEST_FILE, gate::Papers},
    Tools,
    fetch::{Failure, Got, Marks, Wanted},
    index::{self, Entry, INDEX_BYTES_MAX, INDEX_FILE},
    kept::{Kept, LastGood, Seen},
    registry,
};
use crate::trust::{ENVELOPE_BYTES_MAX, SIGNATURES_SUFFIX};

/// The form in which the contents API of a git host hands out files as they are.
const RAW: &str = "application/vnd.github.raw+json";
/// The form in which it hands out what a folder has in it.
const LISTING: &str = "application/vnd.github+json";

/// One module being fetched.
pub(super) struct Fetching<'a> {
    source: &'a ModuleSource,
    /// What the source wants to know about who asks.
    authorization: Option<String>,
    deadline: Instant,
    /// Whether signatures are of any interest.
    asks_for_signatures: bool,
    /// What it had so far.
    seen: Vec<Seen>,
}

/// Manifest and component, which belong together.
pub(super) struct Content {
    pub(super) manifest: Manifest,
    pub(super) bytes: Vec<u8>,
    pub(super) sha256: String,
    /// Its version, if it was chosen among several.
    pub(super) chosen: Option<Version>,
    /// What the source said just now, to be noted when all else is good.
    pub(super) fresh: Option<String>,
    /// Whether the component is kept already.
    pub(super) is_kept: bool,
    /// What its author published about it.
    pub(super) papers: Option<Papers>,
}

/// A manifest that was fetched.
pub(super) struct Read {
    pub(super) manifest: Manifest,
    /// As it came.
    pub(super) text: String,
    /// The folder that the component lies in, seen from the source.
    pub(super) folder: String,
    pub(super) chosen: Option<Version>,
    /// What its author published about it.
    pub(super) papers: Option<Papers>,
}

/// What a component must be.
struct Expected {
    sha256: String,
    bytes_max: usize,
    /// What is wrong when it has more bytes.
    too_large: Code,
}

impl<'a> Fetching<'a> {
    pub(super) fn new(source: &'a ModuleSource, authorization: Option<String>, deadline: Instant) -> Self {
        Self { source, authorization, deadline, asks_for_signatures: false, seen: Vec::new() }
    }

    /// Whether it is asked for signatures as well.
    pub(super) fn asks_for_signatures(&mut self, asks: bool) {
        self.asks_for_signatures = asks;
    }

    pub(super) fn source(&self) -> &'a ModuleSource {
        self.source
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// What the source is told about who asks.
    pub(super) fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    pub(super) fn authorize_with(&mut self, authorization: String) {
        self.authorization = Some(authorization);
    }

    pub(super) fn is_asking_for_signatures(&self) -> bool {
        self.asks_for_signatures
    }

    /// Where the module is published.
    pub(super) fn url(&self) -> &str {
        &self.source.url
    }

    /// What the source is called among those that are kept.
    pub(super) fn name(&self) -> String {
        match (self.source.is_registry, &self.source.version, &self.source.reference) {
            (true, Some(_), _) => self.address("tags/list"),
            (true, None, reference) => {
                self.address(&format!("manifests/{}", reference.as_deref().unwrap_or_default()))
            }
            (false, Some(_), _) => self.address(INDEX_FILE),
            (false, None, _) => self.address(""),
        }
    }

    /// What the source has now.
    pub(super) fn content(&mut self, tools: &Tools) -> Result<Content, Vec<Failure>> {
        let source = self.source;
        if source.is_registry {
            return self.in_registry(tools);
        }
        if let (false, Some(sha256)) = (source.url.ends_with('/'), &source.sha256) {
            let claim = ComponentClaim { sha256: Some(sha256.clone()), ..ComponentClaim::default() };
            let manifest = Manifest { component: claim, ..Manifest::default() };
            let read =
                Read { manifest, text: String::new(), folder: String::new(), chosen: None, papers: None };
            let content = self.component(tools, "", read)?;
            return Ok(Content { fresh: None, ..content });
        }
        let entry = match &source.version {
            Some(range) => Some(self.choose(tools, range)?),
            None => None,
        };
        let read = self.manifest(tools, entry)?;
        let file = format!("{}{}", read.folder, read.manifest.component.path.clone().unwrap_or_default());
        self.component(tools, &file, read)
    }

    /// The version that is wanted among those that are published.
    fn choose(&mut self, tools: &Tools, range: &str) -> Result<Entry, Vec<Failure>> {
        let range = VersionReq::parse(range)
            .map_err(|error| wrong(Code::NoVersion, vec![format!("version: {error}")]))?;
        let entries = self.published(tools)?;
        let chosen = index::choose(&range, &entries).cloned();
        chosen.ok_or_else(|| wrong(Code::NoVersion, vec![index::nothing_matches(&range, &entries)]))
    }

    /// The versions that are published. A folder in a repository needs no index: the folders in it have their names.
    fn published(&mut self, tools: &Tools) -> Result<Vec<Entry>, Vec<Failure>> {
        let refused = match self.get(tools, INDEX_FILE, INDEX_BYTES_MAX, Code::BadIndex) {
            Ok(got) => return index::parse(&got.bytes).map_err(|told| wrong(Code::BadIndex, told)),
            Err(failure) => failure,
        };
        let is_absent = matches!(&refused, Failure::Wrong(reason) if reason.code == Code::SourceRefuses);
        if !is_absent || self.source.reference.is_none() {
            return Err(vec![refused]);
        }
        let url = &self.address("").replacen("/?ref=", "?ref=", 1);
        let got = self
            .get_at(tools, url, Some(LISTING), INDEX_BYTES_MAX, Code::BadIndex)
            .map_err(|failure| vec![failure])?;
        index::parse_folders(&got.bytes).map_err(|told| wrong(Code::BadIndex, vec![told]))
    }

    /// The manifest of a version, or the only one there is.
    fn manifest(&mut self, tools: &Tools, entry: Option<Entry>) -> Result<Read, Vec<Failure>> {
        let file = entry.as_ref().map_or(MANIFEST_FILE, |entry| entry.manifest.as_str());
        let got = self.get(tools, file, MANIFEST_BYTES_MAX, Code::BadManifest).map_err(|one| vec![one])?;
        let claimed = entry.as_ref().and_then(|entry| entry.sha256.as_ref());
        if let Some(expected) = claimed.filter(|expected| **expected != got.sha256) {
            let message = format!(
                "found a manifest with the SHA-256 {}, expected {expected} as {INDEX_FILE} says",
                got.sha256
            );
            return Err(wrong(Code::DigestDiffers, vec![message]));
        }
        let manifest = manifest::parse(&got.bytes).map_err(|told| wrong(Code::BadManifest, told))?;
        let text = String::from_utf8(got.bytes)
            .map_err(|error| wrong(Code::BadManifest, vec![error.to_string()]))?;
        let folder = file.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
        let beside = format!("{file}{SIGNATURES_SUFFIX}");
        let chosen = entry.map(|entry| entry.version);
        if let (Some(chosen), said) = (&chosen, manifest.version.as_deref())
            && said.and_then(|said| Version::parse(said).ok()).as_ref() != Some(chosen)
        {
            let found = said.map_or("no version".to_owned(), |said| format!("version {said:?}"));
            let message = format!("found {found} in its manifest, expected {chosen}, which was chosen");
            return Err(wrong(Code::VersionDiffers, vec![message]));
        }
        let signatures = self.signatures(tools, &beside)?;
        let papers = Some(Papers { manifest: text.clone().into_bytes(), signatures });
        Ok(Read { manifest, text, folder, chosen, papers })
    }

    /// The signatures of a manifest, if they are of any interest and there are some.
    fn signatures(&mut self, tools: &Tools, file: &str) -> Result<Option<Vec<u8>>, Vec<Failure>> {
        if !self.asks_for_signatures {
            return Ok(None);
        }
        match self.get(tools, file, ENVELOPE_BYTES_MAX, Code::SignatureDiffers) {
            Ok(got) => Ok(Some(got.bytes)),
            Err(Failure::Wrong(reason)) if reason.code == Code::SourceRefuses => Ok(None),
            Err(failure) => Err(vec![failure]),
        }
    }

    /// The component that a manifest is about: the one that is kept, or the one that is published.
    pub(super) fn component(
        &mut self,
        tools: &Tools,
        file: &str,
        read: Read,
    ) -> Result<Content, Vec<Failure>> {
        let Read { manifest, text, chosen, papers, .. } = read;
        let fresh = Some(text);
        let expected = self
            .claim(&manifest)
            .map_err(|mistakes| -> Vec<Failure> { mistakes.into_iter().map(Failure::Wrong).collect() })?;
        if let Some(bytes) = tools.kept.as_ref().and_then(|kept| kept.component(&expected.sha256)) {
            has_size(&manifest, &bytes)?;
            let (sha256, is_kept) = (expected.sha256, true);
            return Ok(Content { manifest, bytes, sha256, chosen, fresh, is_kept, papers });
        }
        let got = self.get(tools, file, expected.bytes_max, expected.too_large).map_err(|one| vec![one])?;
        // Whoever replaces a component says so in a manifest, or it is not the one that was meant and may yet come.
        if !self.source.is_registry && (got.sha256 == expected.sha256 || !got.marks.are_there()) {
            self.seen.pop();
        }
        has_size(&manifest, &got.bytes)?;
        if got.sha256 != expected.sha256 {
            let message = format!("found the SHA-256 {}, expected {}", got.sha256, expected.sha256);
            return Err(wrong(Code::DigestDiffers, vec![message]));
        }
        let (bytes, sha256, is_kept) = (got.bytes, got.sha256, false);
        Ok(Content { manifest, bytes, sha256, chosen, fresh, is_kept, papers })
    }

    /// What the component must be, before any of it is asked for.
    fn claim(&self, manifest: &Manifest) -> Result<Expected, Vec<Diagnostic>> {
        let claim = &manifest.component;
        let is_folder = self.source.url.ends_with('/') && !self.source.is_registry;
        let missing = [
            ("component.path", claim.path.is_none()),
            ("component.sha256", claim.sha256.is_none()),
            ("component.size", claim.size.is_none()),
        ];
        let mistakes: Vec<_> = missing
            .into_iter()
            .filter(|(_, is_missing)| is_folder && *is_missing)
            .map(|(key, _)| {
                let message = format!("{key}: found nothing, expected it in what is published");
                Diagnostic::new(Code::BadManifest, message)
            })
            .collect();
        let Some(sha256) = claim.sha256.clone().filter(|_| mistakes.is_empty()) else { return Err(mistakes) };
        if let Some(pinned) = self.source.sha256.as_ref().filter(|pinned| **pinned != sha256) {
            let message = format!("found the SHA-256 {sha256} in its manifest, expected {pinned}");
            return Err(vec![Diagnostic::new(Code::DigestDiffers, message)]);
        }
        let bytes_max = match claim.size {
            None => COMPONENT_BYTES_MAX,
            Some(size) => match usize::try_from(size).ok().filter(|size| *size <= COMPONENT_BYTES_MAX) {
                Some(size) => size,
                None => {
                    let message =
                        format!("found {size} bytes in its manifest, expected at most {COMPONENT_BYTES_MAX}");
                    return Err(vec![Diagnostic::new(Code::TooLarge, message)]);
                }
            },
        };
        let too_large = if claim.size.is_some() { Code::SizeDiffers } else { Code::TooLarge };
        Ok(Expected { sha256, bytes_max, too_large })
    }

    /// Gets a file of the source.
    fn get(&mut self, tools: &Tools, file: &str, bytes_max: usize, too_large: Code) -> Result<Got, Failure> {
        let is_raw = self.source.reference.is_some() && !self.source.is_registry;
        self.get_as(tools, file, is_raw.then_some(RAW), bytes_max, too_large)
    }

    /// Gets a file of the source in this form.
    pub(super) fn get_as(
        &mut self,
        tools: &Tools,
        file: &str,
        accept: Option<&str>,
        bytes_max: usize,
        too_large: Code,
    ) -> Result<Got, Failure> {
        self.get_at(tools, &self.address(file), accept, bytes_max, too_large)
    }

    fn get_at(
        &mut self,
        tools: &Tools,
        url: &str,
        accept: Option<&str>,
        bytes_max: usize,
        too_large: Code,
    ) -> Result<Got, Failure> {
        let authorization = self.authorization.clone();
        let (authorization, deadline) = (authorization.as_deref(), self.deadline);
        let is_known = is_blob(url) && self.source.is_registry;
        let wanted = Wanted { url, authorization, accept, bytes_max, too_large, deadline, is_known };
        let got = tools.client.get(&wanted);
        // What is known by its digest does not change.
        if is_known && got.is_ok() { got } else { self.note(&wanted, got) }
    }

    /// Notes what the source has, or has not.
    fn note(&mut self, wanted: &Wanted<'_>, got: Result<Got, Failure>) -> Result<Got, Failure> {
        let (sha256, marks) = match &got {
            Ok(got) => (Some(got.sha256.clone()), got.marks.clone()),
            Err(Failure::Wrong(_)) => (None, Marks::default()),
            Err(Failure::Mute(_) | Failure::Away(_)) => return got,
        };
        let (url, accept) = (wanted.url.to_owned(), wanted.accept.map(str::to_owned));
        self.seen.push(Seen { url, accept, sha256, marks });
        got
    }

    /// What the source had, to be compared with what it has later.
    pub(super) fn into_seen(self) -> Vec<Seen> {
        self.seen
    }

    /// Where a file of the source is.
    fn address(&self, file: &str) -> String {
        let reference = self.source.reference.as_ref().filter(|_| !self.source.is_registry);
        let query = reference.map(|reference| format!("?ref={reference}"));
        format!("{}{file}{}", self.source.url, query.unwrap_or_default())
    }

    /// What the source published when it was last reached, if that is kept and still wanted.
    pub(super) fn last_good(&self, kept: &Kept) -> Option<(Content, LastGood)> {
        let good = kept.last_good(&self.name())?;
        let chosen = match &self.source.version {
            Some(range) => Some(
                good.version
                    .clone()
                    .filter(|version| VersionReq::parse(range).is_ok_and(|range| range.matches(version)))?,
            ),
            None => None,
        };
        let mut manifest = manifest::parse(good.manifest.as_bytes()).ok()?;
        let papers = good.papers();
        if let Some(papers) = &papers
            && self.source.is_registry
        {
            // What is signed goes before what was made of it.
            manifest = registry::manifest_of(&papers.manifest, &manifest.component).ok()?.1;
        }
        let sha256 = self.claim(&manifest).ok()?.sha256;
        let bytes = kept.component(&sha256)?;
        Some((Content { manifest, bytes, sha256, chosen, fresh: None, is_kept: true, papers }, good))
    }
}

/// Whether a component is as long as its manifest says.
fn has_size(manifest: &Manifest, component: &[u8]) -> Result<(), Vec<Failure>> {
    let length = component.len() as u64;
    let Some(size) = manifest.component.size.filter(|size| *size != length) else { return Ok(()) };
    let message = format!("found {length} bytes, expected {size} as its manifest says");
    Err(wrong(Code::SizeDiffers, vec![message]))
}

/// Whether it is the address of something that a registry knows by its digest.
pub(super) fn is_blob(url: &str) -> bool {
    url.contains("/blobs/sha256:")
}

/// An answer that will not do, for these reasons.
pub(super) fn wrong(code: Code, messages: Vec<String>) -> Vec<Failure> {
    messages.into_iter().map(|message| Failure::Wrong(Diagnostic::new(code, message))).collect()
}
