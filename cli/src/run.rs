//! `aegis run`: check everything, then become the supervisor.
//!
//! A host does not stay away because of its app: what somebody has put back stays, and when the modules have mistakes by
//! now, it comes up on the last generation that was good. Both are said aloud. A mistake in the configuration itself is
//! refused, because it is not known then where the data are.

use std::{os::unix::process::CommandExt, path::Path, process::Command};

use aegis_config::{Config, Environment};
use aegis_supervisor::{Instead, exit, fleet::hold::Cause, kept, process::Image, signals, with_causes};

use crate::{
    app::{Blame, Mistakes, find, last_good},
    arguments::{AppArguments, RunArguments},
    check,
    examine::{self, Examined},
    logging,
    output::{self, Form, counted, listed},
    roles,
};

/// Where a process finds the image that it runs, whatever became of the file.
const RUNNING_IMAGE: &str = "/proc/self/exe";
/// Words for the two reasons to begin with something else than the app.
const CAUSES: [(&str, Cause); 2] = [("pinned", Cause::Pinned), ("mistakes", Cause::Mistakes)];
/// Characters of the mistakes of an app that its host repeats in its status.
const REASON_CHARACTERS_MAX: usize = 500;

/// Runs the app until it is stopped.
pub(crate) fn run(arguments: RunArguments, environment: &Environment, form: Form) -> u8 {
    let RunArguments { app: arguments, is_checked, instead } = arguments;
    let arguments = arguments.absolute();
    if !is_checked {
        return check_first(&arguments, environment, form);
    }
    // The modules are the business of the compile helper, which the supervisor starts first of all.
    let loaded = match Config::load(&arguments.folder, &arguments.overrides(), environment) {
        Ok(loaded) => loaded,
        Err(errors) => {
            output::complain(&listed("the configuration has just changed", &errors.lines()));
            return exit::CONFIGURATION;
        }
    };
    logging::follow(&loaded.config.log, "supervisor");
    let (compile_arguments, instead) = (arguments.compile_arguments(), instead_of(&instead));
    let config = loaded.config;
    let as_json = form == Form::Json;
    aegis_supervisor::run(aegis_supervisor::Start {
        config,
        compile_arguments,
        instead,
        as_json,
        program: roles::SUPERVISING,
    })
}

/// Has a helper look at the app, unless it is known already that something else is to come up.
fn check_first(arguments: &AppArguments, environment: &Environment, form: Form) -> u8 {
    if let Err(error) = signals::hold_back() {
        output::complain(&format!("run: {}", with_causes(&error)));
        return error.exit_code();
    }
    let config = Config::load(&arguments.folder, &arguments.overrides(), environment);
    let config = config.ok().map(|loaded| loaded.config);
    let data_dir = config.as_ref().map(|config| config.data_dir.as_path());
    if let Some(instead) = data_dir.and_then(pinned) {
        return begin_anew(arguments, Some(&instead), form);
    }
    match examine::app(arguments, config.as_ref().map(|config| config.reload.probe_timeout)) {
        Ok(Examined::Valid { warnings }) => {
            if let Some(config) = &config {
                logging::follow(&config.log, "supervisor");
            }
            for warning in &warnings {
                tracing::warn!("{warning}");
            }
            begin_anew(arguments, None, form)
        }
        Ok(Examined::Mistaken(mistakes)) => {
            match data_dir.and_then(|data_dir| good_before(data_dir, &mistakes)) {
                Some(instead) => begin_anew(arguments, Some(&instead), form),
                None => check::refuse_to_start(&mistakes, form),
            }
        }
        Err(error) => {
            output::complain(&format!("run: looking at the app: {error}"));
            exit::OS
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

/// Goes on as a fresh image in the same process: what was taken in memory so far, some of it in huge pages from before they
/// were refused, would stay with the supervisor for as long as the host runs.
fn begin_anew(arguments: &AppArguments, instead: Option<&Instead>, form: Form) -> u8 {
    let mut command = Command::new(RUNNING_IMAGE);
    // The name goes on with it: it may be a link, and an upgrade follows that.
    let name =
        Image::running().map_or_else(|_| Path::new("aegis").to_owned(), |image| image.path().to_owned());
    command.arg0(name).args(["run", "--checked"]);
    if form == Form::Json {
        command.arg("--json");
    }
    if let Some(Instead { digest, cause, reason }) = instead {
        let word = CAUSES.iter().find(|(_, known)| known == cause).map_or("", |(word, _)| word);
        command.args(["--instead", word, digest, reason]);
    }
    let error = command.args(arguments.compile_arguments()).exec();
    output::complain(&format!("run: executing {RUNNING_IMAGE}: {error}"));
    exit::OS
}

/// What the image before has found out.
fn instead_of(words: &[String]) -> Option<Instead> {
    let [word, digest, reason] = words else { return None };
    let (_, cause) = *CAUSES.iter().find(|(known, _)| known == word)?;
    Some(Instead { digest: digest.clone(), cause, reason: reason.clone() })
}
