//! Whether everything on disk is readable and fits together.

use std::path::{Path, PathBuf};

use super::{Alone, DataError, Progress};
use crate::{
    engine::fjall::{Audited, Sink},
    error::{EXIT_CONFIGURATION, chain},
};

/// Findings that are kept; further ones are counted.
const FINDINGS_MAX: usize = 1000;

/// What a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// Documents read.
    pub documents: u64,
    /// Changes read from the log.
    pub changes: u64,
    /// Values read from unique indexes.
    pub unique_values: u64,
    /// Kept responses read.
    pub responses: u64,
    /// What is wrong, the first thousand.
    pub findings: Vec<String>,
    /// How much is wrong.
    pub findings_count: u64,
    /// What is worth knowing although nothing is wrong.
    pub notes: Vec<String>,
    /// Whether there are documents whose models are not known, so that nobody has looked at their unique fields.
    pub uncompared: bool,
}

impl Verified {
    fn add(&mut self, finding: String) {
        self.findings_count += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// Reads everything in the store of `data_folder` and compares documents, log and unique indexes with each other.
/// Damage that keeps the store from being opened is a finding, too. `progress` counts rows.
///
/// # Errors
/// There is no store, a host runs, or the operating system refuses.
pub fn verify(data_folder: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Verified, DataError> {
    let mut verified = Verified::default();
    let alone = match Alone::open(data_folder) {
        Ok(alone) => alone,
        Err(DataError::Store { code: EXIT_CONFIGURATION, source, .. }) => {
            verified.add(chain(&*source));
            return Ok(verified);
        }
        Err(error) => return Err(error),
    };
    verified.notes.clone_from(&alone.notes);
    let foreign = alone.engine.foreign_files();
    let foreign = foreign.map_err(|source| DataError::store("looking for foreign files", source))?;
    let note =
        |path: PathBuf| format!("{} is no file of the store, which takes no notice of it", path.display());
    verified.notes.extend(foreign.into_iter().map(note));
    let catalog = alone.catalog();
    verified.uncompared = catalog.is_none();
    if catalog.is_none() {
        let is_known = alone.recovered.catalog.is_some() || alone.recovered.declared.is_some();
        let what = if is_known { "cannot be read" } else { "are not known yet" };
        verified
            .notes
            .push(format!("the models {what}, so unique indexes were not compared with the documents"));
    }
    let rules = catalog.map(|catalog| alone.rules(&catalog));
    let mut rows = |done| progress(Progress { done, total: None });
    let mut finding = |finding| verified.add(finding);
    let audited = alone.engine.audit(rules.as_ref(), &mut Sink::new(&mut finding, &mut rows));
    let Audited { documents, changes, unique_values, responses, unknown_models } = audited;
    verified.uncompared |= !unknown_models.is_empty();
    if !unknown_models.is_empty() {
        let names: Vec<_> = unknown_models.into_iter().collect();
        verified.notes.push(format!(
            "no model is known as {}, so documents of that name were not compared with one",
            names.join(" or ")
        ));
    }
    Ok(Verified { documents, changes, unique_values, responses, ..verified })
}
