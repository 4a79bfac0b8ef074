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
use aegis_ipc::deploy::Signed;
use aegis_wasm::{Code, Diagnostic};
use data_encoding::BASE64;
use semver::Version;

use super::{
    component::{self, Package, Read, located, said_limits},
    files::read_text,
    gate::{Admission, Gate, Lower, Origin},
    workshop::{Keep, Workshop},
};
use fetch::{Client, Failure};
use fetching::{Content, Fetching};
use kept::{Kept, LastGood, Seen};

mod fetch;
mod fetching;
mod index;
mod kept;
mod look;
mod material;
mod registry;
#[cfg(test)]
mod tests;

pub(super) use fetch::Times;
pub(crate) use look::{Look, look};

/// Folder with what was fetched, inside the data folder.
const CACHE_FOLDER: &str = "module-cache";
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
    /// Whether it is noted what sources had, for whoever looks later whether they have something else.
    notes: bool,
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
    /// Who may publish what.
    pub(super) gate: &'a Gate,
    /// What becomes of an older version.
    pub(super) lower: Lower,
}

impl Published<'_> {
    /// Who signed what was fetched, if it may come in.
    fn admit(
        &self,
        content: &Content,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Signed>, Vec<Diagnostic>> {
        let (papers, sha256) = (content.papers.as_ref(), content.sha256.as_str());
        let (name, origin, lower) = (self.name, Origin::of(self.source), self.lower);
        self.gate.admit(&Admission { name, papers, sha256, origin, lower }, warnings)
    }
}

impl Sources {
    /// They keep what they fetch in this data folder, if it is known.
    pub(super) fn new(times: Times, keep: Keep, data_dir: Option<&Path>) -> Self {
        let cache_folder = data_dir.map(|data_dir| data_dir.join(CACHE_FOLDER));
        let (mute, warnings) = (BTreeMap::new(), Vec::new());
        Self { times, keep, cache_folder, tools: None, mute, warnings, notes: true }
    }

    /// They are asked by somebody who wants one module to be replaced. What is refused then, now or once it begins, is still
    /// new to whoever looks.
    pub(super) fn of_deployment(times: Times, keep: Keep, data_dir: &Path) -> Self {
        Self { notes: false, ..Self::new(times, keep, Some(data_dir)) }
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
        let authorization = authorization(published.source).map_err(told)?;
        let deadline = Instant::now() + self.times.total;
        let mut fetching = Fetching::new(published.source, authorization, deadline);
        fetching.asks_for_signatures(published.gate.asks());
        let fetched = self.content(&mut fetching);
        let source = fetching.name();
        self.note(&source, &fetched, fetching.into_seen());
        let (content, absence) = fetched.map_err(Failed::into_diagnostics).map_err(told)?;
        let mut told_by_gate = Vec::new();
        let signed = published.admit(&content, &mut told_by_gate).map_err(|mistakes| {
            let absence = absence.as_ref().map(|absence| format!("{origin}: {absence}"));
            told(mistakes).into_iter().chain(absence).collect::<Vec<_>>()
        })?;
        warnings.extend(told_by_gate.iter().map(|warning| format!("{origin}: {warning}")));
        let Content { manifest, bytes, sha256, chosen, fresh, is_kept, papers } = content;
        let said = said_limits(&manifest).map_err(told)?;
        warnings.extend(absence.map(|absence| format!("{origin}: {absence}")));
        warnings.extend(manifest.warnings.iter().map(|warning| format!("{origin}: {warning}")));
        let (name, terms) = (published.name, published.terms);
        let package = Package { origin: &origin, name, manifest, said, bytes: &bytes, terms };
        let mut read = package.prepare(workshop, warnings)?;
        if let (Some(version), Some(range)) = (&chosen, &published.source.version) {
            verify_version(&read, version).map_err(told)?;
            component::note_choice(&mut read, format!("{version}, of those that match {range}"));
        }
        component::note_signed(&mut read, signed);
        if let Some(kept) = &self.tools().kept {
            if !is_kept {
                kept.keep_component(&sha256, &bytes);
            }
            if let Some(manifest) = fresh {
                kept.keep_manifest(&source, manifest, chosen, papers);
            }
        }
        Ok(read)
    }

    /// What there is to say once all is read.
    pub(super) fn finish(mut self) -> Vec<String> {
        let kept = self.tools.as_ref().and_then(|tools| tools.kept.as_ref());
        if let Some(trouble) = kept.and_then(Kept::trouble) {
            self.warnings.push(format!("{trouble}; so modules are fetched anew"));
        }
        self.warnings
    }

    /// Notes what the source had for whoever looks later whether it has something else. Whoever makes no generation notes
    /// nothing, and what could not be had is still new.
    fn note(&mut self, source: &str, fetched: &Result<(Content, Option<String>), Failed>, seen: Vec<Seen>) {
        let is_answered = match fetched {
            Ok((_, absence)) => absence.is_none(),
            Err(failed) => matches!(failed, Failed::Wrong(_)),
        };
        if is_answered
            && self.notes
            && self.keep == Keep::InDataFolder
            && let Some(kept) = &self.tools().kept
        {
            kept.keep_seen(source, seen);
        }
    }

    /// What the source has, or had when it was last reached; then with a sentence about that.
    fn content(&mut self, fetching: &mut Fetching<'_>) -> Result<(Content, Option<String>), Failed> {
        let at = origin_of(fetching.url()).to_owned();
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
            Ok([Failure::Wrong(reason)]) => return Err(Failed::Wrong(vec![reason])),
            Err(failures) => {
                return Err(Failed::Wrong(failures.into_iter().map(Failure::into_diagnostic).collect()));
            }
        };
        let good = self.tools().kept.as_ref().and_then(|kept| fetching.last_good(kept));
        match good {
            Some((content, good)) => {
                let absence = format!("{reason}; it goes on as {}", reached(&good));
                Ok((content, Some(absence)))
            }
            None => Err(Failed::Away(reason)),
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

/// Why there is nothing to go on with.
enum Failed {
    /// The source has nothing that will do.
    Wrong(Vec<Diagnostic>),
    /// It could not be asked, and nothing is kept.
    Away(Diagnostic),
}

impl Failed {
    fn into_diagnostics(self) -> Vec<Diagnostic> {
        match self {
            Self::Wrong(reasons) => reasons,
            Self::Away(reason) => vec![reason],
        }
    }
}

impl Failure {
    fn into_diagnostic(self) -> Diagnostic {
        match self {
            Self::Mute(reason) | Self::Away(reason) | Self::Wrong(reason) => reason,
        }
    }
}

/// What a component says about itself must be what was chosen. A service says nothing.
fn verify_version(read: &Read, chosen: &Version) -> Result<(), Vec<Diagnostic>> {
    let Read::Model(spec, _) = read else { return Ok(()) };
    let found = spec.code.as_ref().map_or("", |code| code.version.as_str());
    if Version::parse(found).is_ok_and(|found| found == *chosen) {
        return Ok(());
    }
    let message = format!("found a component that says it is version {found:?}, expected {chosen}");
    Err(vec![Diagnostic::new(Code::VersionDiffers, message)])
}

/// What a source is told about who asks. In registries, people have names and words instead of tokens.
fn authorization(source: &ModuleSource) -> Result<Option<String>, Vec<Diagnostic>> {
    let header = |token: String| match source.is_registry && token.contains(':') {
        true => format!("Basic {}", BASE64.encode(token.as_bytes())),
        false => format!("Bearer {token}"),
    };
    Ok(token(source)?.map(header))
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
