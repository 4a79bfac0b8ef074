//! `aegis run`: check everything, then become the supervisor.
//!
//! A host does not stay away because of its app: what somebody has put back stays, and when the modules have mistakes by
//! now, it comes up on the last generation that was good. Both are said aloud. A mistake in the configuration itself is
//! refused, because it is not known then where the data are.

use std::path::Path;

use aegis_config::{Config, Environment};
use aegis_supervisor::{Instead, Start, exit, fleet::hold::Cause, kept, with_causes};

use crate::{
    app::{Blame, Mistakes, find, last_good},
    arguments::AppArguments,
    check,
    examine::{self, Examined},
    logging,
    output::{self, Form, counted, listed},
};

/// Characters of the mistakes of an app that its host repeats in its status.
const REASON_CHARACTERS_MAX: usize = 500;

/// Runs the app until it is stopped.
pub(crate) fn run(arguments: AppArguments, environment: &Environment, form: Form) -> u8 {
    let arguments = arguments.absolute();
    let config = Config::load(&arguments.folder, &arguments.overrides(), environment);
    let config = config.map(|loaded| loaded.config);
    let pinned = config.as_ref().ok().and_then(|config| pinned(&config.data_dir));
    let (instead, warnings) = match pinned {
        Some(instead) => (Some(instead), Vec::new()),
        None => match look_first(&arguments, config.as_ref().ok(), form) {
            Ok(found) => found,
            Err(code) => return code,
        },
    };
    let config = match config {
        Ok(config) => config,
        Err(errors) => {
            output::complain(&listed("the configuration has just changed", &errors.lines()));
            return exit::CONFIGURATION;
        }
    };
    logging::start(&config.log, "supervisor");
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    // The modules are the business of the compile helper, which the supervisor starts first of all.
    let compile_arguments = arguments.compile_arguments();
    aegis_supervisor::run(Start { config, compile_arguments, instead })
}

/// Has the app looked at. What comes up instead of it, if it has mistakes, and what there is to say about it; or the exit
/// status, after what is wrong was told.
fn look_first(
    arguments: &AppArguments,
    config: Option<&Config>,
    form: Form,
) -> Result<(Option<Instead>, Vec<String>), u8> {
    let time = config.map(|config| config.reload.probe_timeout);
    match examine::app(arguments, time) {
        Ok(Examined::Valid { warnings }) => Ok((None, warnings)),
        Ok(Examined::Mistaken(mistakes)) => {
            let instead = config.and_then(|config| good_before(&config.data_dir, &mistakes));
            instead.map(|instead| (Some(instead), Vec::new())).ok_or_else(|| check::refuse(&mistakes, form))
        }
        Err(error) => {
            output::complain(&format!("run: looking at the app: {error}"));
            Err(exit::OS)
        }
    }
}

/// What was put back, if somebody has done that and it is still there.
fn pinned(data_dir: &Path) -> Option<Instead> {
    let digest = match kept::pinned(data_dir) {
        Ok(digest) => digest?,
        Err(error) => {
            output::complain(&format!("what was put back is not known: {}", with_causes(&error)));
            return None;
        }
    };
    match find(data_dir, &digest) {
        Ok(_) => {
            let reason = "rolled back on request; it stays until `aegis reload`".to_owned();
            output::complain(&format!("the host does not come up on the app folder: {reason}"));
            Some(Instead { digest, cause: Cause::Pinned, reason })
        }
        Err(reason) => {
            output::complain(&format!(
                "the generation that was put back cannot come up, so the app folder does: {reason}"
            ));
            None
        }
    }
}

/// The last generation that was good, when only modules have mistakes and there is one.
fn good_before(data_dir: &Path, mistakes: &Mistakes) -> Option<Instead> {
    if mistakes.blame == Blame::CommandLine {
        return None;
    }
    let digest = match last_good(data_dir) {
        Ok(digest) => digest?,
        Err(reason) => {
            output::complain(&format!("the last good generation cannot come up instead: {reason}"));
            return None;
        }
    };
    let count = counted(mistakes.lines.len(), "mistake");
    let heading = format!(
        "{count} found in the app; the host comes up on the LAST GOOD generation instead, until a reload finds none"
    );
    output::complain(&listed(&heading, &mistakes.lines));
    let told: String = mistakes.lines.join("; ").chars().take(REASON_CHARACTERS_MAX).collect();
    let reason = format!("the last good generation, because the app has {count}: {told}");
    Some(Instead { digest, cause: Cause::Mistakes, reason })
}
