//! Modules that are fetched from where their teams publish them.
//!
//! The manifest comes first; it says how large the component is and what its digest is, and until that is so nobody looks
//! at the bytes. A source that cannot be reached does not stop a host that knows what it last published. A source that
//! answers something wrong is a mistake like one in a file.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use aegis_config::{ModuleSource, ModuleTerms};
use aegis_domain::manifest::{self, ComponentClaim, MANIFEST_BYTES_MAX, Manifest};
use aegis_wasm::{COMPONENT_BYTES_MAX, Code, Diagnostic};

use super::{
    component::{MANIFEST_FILE, Package, Read, located, said_limits},
    files::read_text,
    workshop::{Keep, Workshop},
};
use fetch::{Client, Failure, Wanted};
use kept::{Kept, LastGood};

mod fetch;
mod kept;
mod material;
#[cfg(test)]
mod tests;

pub(super) use fetch::Times;

/// Folder with what was fetched, inside the data folder.
const CACHE_FOLDER: &str = "module-cache";
/// The form in which the contents API of a git host hands out files as they are.
const RAW: &str = "application/vnd.github.raw+json";
/// Bytes of a file with a token.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

impl Times {
    /// What is usual, but less than what the whole work on a module may take.
    pub(super) fn within(probe_timeout: Duration) -> Self {
        Self {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(10),
            total: Duration::from_secs(30).min(probe_timeout * 3 / 4),
            pause: Duration::from_millis(250),
        }
    }
}

/// Everything that is needed to fetch modules, made when the first one is.
pub(super) struct Sources {
    times: Times,
    keep: Keep,
    cache_folder: Option<PathBuf>,
    tools: Option<Tools>,
    /// Origins where nobody answered, and how: they are not waited for again.
    mute: BTreeMap<String, Diagnostic>,
    warnings: Vec<String>,
}

struct Tools {
    client: Client,
    kept: Option<Kept>,
}

/// A module that is published somewhere.
pub(super) struct Published<'a> {
    /// Name of the module.
    pub(super) name: &'a str,
    pub(super) source: &'a ModuleSource,
    /// What the operator says.
    pub(super) terms: &'a ModuleTerms,
}

/// Manifest and component, which belong together.
struct Content {
    manifest: Manifest,
    bytes: Vec<u8>,
    sha256: String,
    /// What the source said just now, to be noted when all else is good.
    fresh: Option<String>,
    /// Whether the component is kept already.
    is_kept: bool,
}

impl Sources {
    /// They keep what they fetch in this data folder, if it is known.
    pub(super) fn new(times: Times, keep: Keep, data_dir: Option<&Path>) -> Self {
        let cache_folder = data_dir.map(|data_dir| data_dir.join(CACHE_FOLDER));
        Self { times, keep, cache_folder, tools: None, mute: BTreeMap::new(), warnings: Vec::new() }
    }

    /// Fetches, verifies and compiles a module. All mistakes at once, with the place.
    pub(super) fn read(
        &mut self,
        published: &Published<'_>,
        workshop: &mut Workshop<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Read, Vec<String>> {
        let origin = format!("modules.{}", published.name);
        let told = |mistakes: Vec<Diagnostic>| located(&origin, &mistakes);
        workshop.begin(&origin)?;
        let token = token(published.source).map_err(told)?;
        let fetching = Fetching {
            source: published.source,
            token: token.as_deref(),
            deadline: Instant::now() + self.times.total,
        };
        let (content, absence) = self.content(&fetching).map_err(told)?;
        let Content { manifest, bytes, sha256, fresh, is_kept } = content;
        let said = said_limits(&manifest).map_err(told)?;
        warnings.extend(absence.map(|absence| format!("{origin}: {absence}")));
        warnings.extend(manifest.warnings.iter().map(|warning| format!("{origin}: {warning}")));
        let (name, terms) = (published.name, published.terms);
        let package = Package { origin: &origin, name, manifest, said, bytes: &bytes, terms };
        let read = package.prepare(workshop, warnings)?;
        if let Some(kept) = &self.tools().kept {
            if !is_kept {
                kept.keep_component(&sha256, &bytes);
            }
            if let Some(manifest) = fresh {
                kept.keep_manifest(&address(published.source, ""), &manifest);
            }
        }
        Ok(read)
    }

    /// What there is to say once all is read.
    pub(super) fn finish(self) -> Vec<String> {
        self.warnings
    }

    /// What the source has, or had when it was last reached; then with a sentence about that.
    fn content(&mut self, fetching: &Fetching<'_>) -> Result<(Content, Option<String>), Vec<Diagnostic>> {
        let at = origin_of(&fetching.source.url).to_owned();
        let fetched = match self.mute.get(&at) {
            Some(reason) => Err(vec![Failure::Mute(reason.clone())]),
            None => fetching.content(self.tools()),
        };
        let failures = match fetched {
            Ok(content) => return Ok((content, None)),
            Err(failures) => failures,
        };
        let reason = match <[Failure; 1]>::try_from(failures) {
            Ok([Failure::Away(reason)]) => reason,
            Ok([Failure::Mute(reason)]) => {
                self.mute.insert(at, reason.clone());
                reason
            }
            Ok([Failure::Wrong(reason)]) => return Err(vec![reason]),
            Err(failures) => return Err(failures.into_iter().map(Failure::into_diagnostic).collect()),
        };
        let good = self.tools().kept.as_ref().and_then(|kept| fetching.last_good(kept));
        match good {
            Some((content, good)) => {
                let absence = format!("{reason}; it goes on as {}", reached(&good));
                Ok((content, Some(absence)))
            }
            None => Err(vec![reason]),
        }
    }

    fn tools(&mut self) -> &Tools {
        let Self { times, keep, cache_folder, tools, warnings, .. } = self;
        tools.get_or_insert_with(|| {
            let folder =
                cache_folder.as_deref().filter(|folder| *keep == Keep::InDataFolder || folder.is_dir());
            let kept = folder.map(Kept::open).and_then(|opened| {
                let told = |error| {
                    let error = aegis_supervisor::with_causes(&error);
                    warnings.push(format!("{error}; so modules are fetched anew each time"));
                };
                opened.map_err(told).ok()
            });
            Tools { client: Client::new(*times), kept }
        })
    }
}

/// One module being fetched.
struct Fetching<'a> {
    source: &'a ModuleSource,
    token: Option<&'a str>,
    deadline: Instant,
}

impl Fetching<'_> {
    /// What the source has now.
    fn content(&self, tools: &Tools) -> Result<Content, Vec<Failure>> {
        let source = self.source;
        if let (false, Some(sha256)) = (source.url.ends_with('/'), &source.sha256) {
            let claim = ComponentClaim { sha256: Some(sha256.clone()), ..ComponentClaim::default() };
            let manifest = Manifest { component: claim, ..Manifest::default() };
            return self.component(tools, "", manifest, None);
        }
        let got =
            self.get(tools, MANIFEST_FILE, MANIFEST_BYTES_MAX, Code::BadManifest).map_err(|one| vec![one])?;
        let wrong = |messages: Vec<String>| -> Vec<Failure> {
            let told = |message| Failure::Wrong(Diagnostic::new(Code::BadManifest, message));
            messages.into_iter().map(told).collect()
        };
        let manifest = manifest::parse(&got.bytes).map_err(wrong)?;
        let text = String::from_utf8(got.bytes).map_err(|error| wrong(vec![error.to_string()]))?;
        let name = manifest.component.path.clone().unwrap_or_default();
        self.component(tools, &name, manifest, Some(text))
    }

    /// The component that a manifest is about: the one that is kept, or the one that is published.
    fn component(
        &self,
        tools: &Tools,
        file: &str,
        manifest: Manifest,
        fresh: Option<String>,
    ) -> Result<Content, Vec<Failure>> {
        let expected = self
            .claim(&manifest)
            .map_err(|mistakes| -> Vec<Failure> { mistakes.into_iter().map(Failure::Wrong).collect() })?;
        if let Some(bytes) = tools.kept.as_ref().and_then(|kept| kept.component(&expected.sha256)) {
            return Ok(Content { manifest, bytes, sha256: expected.sha256, fresh, is_kept: true });
        }
        let got = self.get(tools, file, expected.bytes_max, expected.too_large).map_err(|one| vec![one])?;
        let differs = |code, message| vec![Failure::Wrong(Diagnostic::new(code, message))];
        let length = got.bytes.len() as u64;
        if let Some(size) = manifest.component.size.filter(|size| *size != length) {
            let message = format!("found {length} bytes, expected {size} as its manifest says");
            return Err(differs(Code::SizeDiffers, message));
        }
        if got.sha256 != expected.sha256 {
            let message = format!("found the SHA-256 {}, expected {}", got.sha256, expected.sha256);
            return Err(differs(Code::DigestDiffers, message));
        }
        Ok(Content { manifest, bytes: got.bytes, sha256: got.sha256, fresh, is_kept: false })
    }

    /// What the component must be, before any of it is asked for.
    fn claim(&self, manifest: &Manifest) -> Result<Expected, Vec<Diagnostic>> {
        let claim = &manifest.component;
        let is_folder = self.source.url.ends_with('/');
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
    fn get(
        &self,
        tools: &Tools,
        file: &str,
        bytes_max: usize,
        too_large: Code,
    ) -> Result<fetch::Got, Failure> {
        let (url, token, deadline) = (&address(self.source, file), self.token, self.deadline);
        let accept = self.source.reference.as_ref().map(|_| RAW);
        tools.client.get(&Wanted { url, token, accept, bytes_max, too_large, deadline })
    }

    /// What the source published when it was last reached, if that is kept and still wanted.
    fn last_good(&self, kept: &Kept) -> Option<(Content, LastGood)> {
        let good = kept.last_good(&address(self.source, ""))?;
        let manifest = manifest::parse(good.manifest.as_bytes()).ok()?;
        let sha256 = self.claim(&manifest).ok()?.sha256;
        let bytes = kept.component(&sha256)?;
        Some((Content { manifest, bytes, sha256, fresh: None, is_kept: true }, good))
    }
}

/// What a component must be.
struct Expected {
    sha256: String,
    bytes_max: usize,
    /// What is wrong when it has more bytes.
    too_large: Code,
}

impl Failure {
    fn into_diagnostic(self) -> Diagnostic {
        match self {
            Self::Mute(reason) | Self::Away(reason) | Self::Wrong(reason) => reason,
        }
    }
}

/// The token for a source, if it asks for one.
fn token(source: &ModuleSource) -> Result<Option<String>, Vec<Diagnostic>> {
    let Some(path) = &source.token_file else { return Ok(None) };
    let refuse = |message: String| {
        let message = format!("{}: {message}", path.display());
        vec![Diagnostic::new(Code::NoToken, message)]
    };
    let text = read_text(path, TOKEN_BYTES_MAX).map_err(refuse)?;
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let expected = "found no token, expected one line of ASCII characters without spaces";
        return Err(refuse(expected.to_owned()));
    }
    Ok(Some(token.to_owned()))
}

/// Where a file of a source is.
fn address(source: &ModuleSource, file: &str) -> String {
    let query = source.reference.as_ref().map(|reference| format!("?ref={reference}"));
    format!("{}{file}{}", source.url, query.unwrap_or_default())
}

/// Scheme, host and port of an address.
pub(super) fn origin_of(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(host..).and_then(|rest| rest.find('/')).map_or(url.len(), |at| host + at);
    url.get(..end).unwrap_or(url)
}

fn reached(good: &LastGood) -> String {
    match jiff::Timestamp::from_second(good.reached_at_s) {
        Ok(time) => format!("it was published when it was last reached, {time}"),
        Err(_) => "it was published when it was last reached".to_owned(),
    }
}
