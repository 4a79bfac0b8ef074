//! Whether sources have something else than when they were asked for a generation.
//!
//! Only small files are asked for, and those with the marks of what was seen: a source that keeps its word answers that
//! nothing has changed, in a few hundred bytes.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use aegis_config::{Config, ModuleSource};
use aegis_domain::manifest::MANIFEST_BYTES_MAX;
use aegis_wasm::{COMPONENT_BYTES_MAX, Code, Diagnostic};

use super::{
    CACHE_FOLDER, authorization,
    fetch::{Client, Failure, Times, Wanted},
    fetching::{Fetching, is_blob},
    index::INDEX_BYTES_MAX,
    kept::{Kept, Seen},
    origin_of,
};

/// What was found out about the sources.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Look {
    /// How many sources there are to ask.
    pub(crate) asked: usize,
    /// Modules whose source has something else.
    pub(crate) changed: Vec<String>,
    /// Why sources could not be asked, one line each.
    pub(crate) away: Vec<String>,
}

/// Asks the sources of a configuration.
pub(crate) fn look(config: &Config) -> Look {
    let times = Times::within(config.reload.probe_timeout);
    // Whoever looks is ended after that time; what is left is for telling what was found.
    let until = Instant::now() + config.reload.probe_timeout * 3 / 4;
    let sources = config.modules.iter().filter_map(|(name, terms)| Some((name, terms.source.as_ref()?)));
    // A component that is known by its digest cannot change.
    let sources: Vec<_> = sources.filter(|(_, source)| source.url.ends_with('/')).collect();
    let mut look = Look { asked: sources.len(), ..Look::default() };
    if sources.is_empty() {
        return look;
    }
    let kept = match Kept::open(&config.data_dir.join(CACHE_FOLDER)) {
        Ok(kept) => kept,
        Err(error) => {
            let error = aegis_supervisor::with_causes(&error);
            look.away = sources.iter().map(|(name, _)| format!("modules.{name}: {error}")).collect();
            return look;
        }
    };
    let mut looking = Looking { client: Client::new(times), kept, until, mute: BTreeMap::new() };
    for (name, source) in sources {
        match looking.has_changed(source, times.total) {
            Ok(true) => look.changed.push(name.clone()),
            Ok(false) => {}
            Err(reason) => look.away.push(format!("modules.{name}: {reason}")),
        }
    }
    look
}

struct Looking {
    client: Client,
    kept: Kept,
    until: Instant,
    /// Origins where nobody answered, and how: they are not waited for again.
    mute: BTreeMap<String, Diagnostic>,
}

impl Looking {
    fn has_changed(&mut self, source: &ModuleSource, total: Duration) -> Result<bool, Diagnostic> {
        let deadline = self.until.min(Instant::now() + total);
        let mut fetching = Fetching::new(source, authorization(source).map_err(first)?, deadline);
        let Some(seen) = self.kept.seen(&fetching.name()) else { return Ok(true) };
        let at = origin_of(&source.url);
        if let Some(reason) = self.mute.get(at) {
            return Err(reason.clone());
        }
        match self.has_other(&mut fetching, &seen) {
            Err(Failure::Mute(reason)) => {
                self.mute.insert(at.to_owned(), reason.clone());
                Err(reason)
            }
            other => other.map_err(Failure::into_diagnostic),
        }
    }

    fn has_other(&self, fetching: &mut Fetching<'_>, seen: &[Seen]) -> Result<bool, Failure> {
        if fetching.source().is_registry {
            fetching.authorize(&self.client)?;
        }
        for seen in seen {
            if self.is_other(seen, fetching)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether something else is there than what was seen.
    fn is_other(&self, seen: &Seen, fetching: &Fetching<'_>) -> Result<bool, Failure> {
        let small = MANIFEST_BYTES_MAX.max(INDEX_BYTES_MAX);
        let bytes_max = if seen.url.contains(".wasm") { COMPONENT_BYTES_MAX } else { small };
        let (url, accept, too_large) = (seen.url.as_str(), seen.accept.as_deref(), Code::TooLarge);
        let (authorization, deadline, is_known) =
            (fetching.authorization(), fetching.deadline(), is_blob(url));
        let wanted = Wanted { url, authorization, accept, bytes_max, too_large, deadline, is_known };
        let answer = match &seen.sha256 {
            Some(sha256) => self
                .client
                .get_unless(&wanted, &seen.marks)
                .map(|got| got.is_some_and(|got| got.sha256 != *sha256)),
            None => self.client.has(&wanted).map(|()| true),
        };
        match answer {
            // It is refused now and was not then, or is as it was.
            Err(Failure::Wrong(_)) => Ok(seen.sha256.is_some()),
            other => other,
        }
    }
}

fn first(mut reasons: Vec<Diagnostic>) -> Diagnostic {
    reasons.swap_remove(0)
}
