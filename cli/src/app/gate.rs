//! Who may publish what, as one reading of an app decides it: the keys and the policy of its configuration, and the highest
//! versions that were in force. A component is not looked at before its module has passed.

use std::path::Path;

use aegis_config::{ModuleSource, Signatures, Trust};
use aegis_ipc::deploy::Signed;
use aegis_supervisor::{
    versions::{self, Versions},
    with_causes,
};
use aegis_wasm::{Code, Diagnostic};

use crate::trust::{self, Case, Verdict, moment};

/// How long before its end it is told that a key will not be valid any more, seconds.
const NOTICE_S: i64 = 30 * 86_400;

/// What an author published about a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Papers {
    /// The manifest, to the letter.
    pub(super) manifest: Vec<u8>,
    /// The file with its signatures, if there is one.
    pub(super) signatures: Option<Vec<u8>>,
}

/// Where a module comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// From a folder or a file of this machine.
    Here,
    /// From where its team publishes it.
    Elsewhere,
    /// From there, and what it is was said by the operator: a component alone, known by its digest.
    Known,
}

impl Origin {
    /// Whether the operator said what it is.
    pub(super) fn of(source: &ModuleSource) -> Self {
        // Without a digest beside it, such an address is refused.
        if source.url.ends_with(".wasm") { Self::Known } else { Self::Elsewhere }
    }
}

/// What becomes of a version below the highest one that was in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lower {
    /// It is refused.
    Refused,
    /// Somebody wants it: it is what later versions are compared with.
    Wanted,
    /// It was decided about when it was deployed.
    Decided,
}

impl Lower {
    /// Who names a component by its digest wants that one.
    pub(super) fn beside(source: &ModuleSource) -> Self {
        if source.sha256.is_some() { Self::Wanted } else { Self::Refused }
    }
}

/// How a module comes in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Passage<'a> {
    pub(super) gate: &'a Gate,
    pub(super) origin: Origin,
    pub(super) lower: Lower,
}

/// A module in front of the gate. The digest of its component is that of its manifest already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admission<'a> {
    /// Name of the module.
    pub(super) name: &'a str,
    /// Nothing when a component came alone.
    pub(super) papers: Option<&'a Papers>,
    /// SHA-256 of its component, hexadecimal, lower case.
    pub(super) sha256: &'a str,
    pub(super) origin: Origin,
    pub(super) lower: Lower,
}

/// Decides who comes in.
#[derive(Debug)]
pub(super) struct Gate {
    trust: Trust,
    /// Or what is wrong with the note about them.
    highest: Result<Versions, String>,
    now_s: i64,
}

impl Gate {
    /// That of a host with this data folder, if it is known, at this time, seconds since 1970.
    pub(super) fn of(trust: &Trust, data_dir: Option<&Path>, now_s: i64) -> Self {
        let read = data_dir.map(|data_dir| versions::highest(data_dir).map_err(|error| with_causes(&error)));
        Self { trust: trust.clone(), highest: read.unwrap_or_else(|| Ok(Versions::new())), now_s }
    }

    /// Whether signatures are of any interest.
    pub(super) fn asks(&self) -> bool {
        self.trust.require != Signatures::None || !self.trust.keys.is_empty()
    }

    /// Who signed the module, if it may come in. Where nobody has to sign, what is wrong with signatures is a warning.
    pub(super) fn admit(
        &self,
        admission: &Admission<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Signed>, Vec<Diagnostic>> {
        if !self.asks() {
            return Ok(None);
        }
        let require = match (self.trust.require, admission.origin) {
            (Signatures::None, _) | (Signatures::Remote, Origin::Here | Origin::Known) => None,
            (Signatures::Remote, Origin::Elsewhere) => Some("remote"),
            (Signatures::All, _) => Some("all"),
        };
        let signed = admission.papers.and_then(|papers| Some((papers, papers.signatures.as_deref()?)));
        let Some((papers, envelope)) = signed else {
            return match require {
                None => Ok(None),
                Some(require) if admission.papers.is_none() => {
                    Err(vec![trust::unsigned("a component without a manifest", require)])
                }
                Some(require) => Err(vec![trust::unsigned("a manifest without signatures", require)]),
            };
        };
        let Admission { name, sha256, .. } = *admission;
        let case = Case { name, manifest: &papers.manifest, envelope, sha256 };
        let judged = trust::verify(&case, &self.trust.keys, self.now_s).and_then(|verdict| {
            let lower = self.lowers(admission, &verdict, require.is_some());
            lower.map(|lowers| (verdict, lowers)).map_err(|mistake| vec![mistake])
        });
        match (judged, require) {
            (Ok((verdict, lowers)), _) => {
                warnings.extend(self.notice(&verdict));
                let Verdict { keys, version } = verdict;
                Ok(Some(Signed { keys, version: version.to_string(), lowers }))
            }
            (Err(mistakes), Some(_)) => Err(mistakes),
            (Err(mistakes), None) => {
                let one = |mistake: Diagnostic| format!("{mistake}; it need not be signed here");
                warnings.extend(mistakes.into_iter().map(one));
                Ok(None)
            }
        }
    }

    /// Whether it lowers the version that later ones are compared with.
    fn lowers(
        &self,
        admission: &Admission<'_>,
        verdict: &Verdict,
        is_required: bool,
    ) -> Result<bool, Diagnostic> {
        let highest = self.highest.as_ref().map_err(|told| Diagnostic::new(Code::VersionLower, told))?;
        let highest = highest.get(admission.name);
        let Some(highest) = highest.filter(|highest| trust::is_lower(&verdict.version, highest)) else {
            return Ok(false);
        };
        match admission.lower {
            Lower::Wanted => Ok(true),
            Lower::Refused if is_required => Err(trust::lower(admission.name, &verdict.version, highest)),
            Lower::Refused | Lower::Decided => Ok(false),
        }
    }

    /// A word about keys that will not be valid for long.
    fn notice(&self, verdict: &Verdict) -> Option<String> {
        let ends = verdict.keys.iter().filter_map(|name| self.trust.keys.get(name));
        // Nothing to tell while another key goes on.
        let ends: Option<Vec<i64>> = ends.map(|key| key.valid_until_s).collect();
        let last_s = ends?.into_iter().max()?;
        (last_s - self.now_s < NOTICE_S).then(|| {
            let keys = verdict.keys.join(" and ");
            format!("it is signed by {keys}, valid until {}; from then on it is refused", moment(last_s))
        })
    }
}

#[cfg(test)]
mod tests;
