//! `aegis run`: check everything, then become the supervisor.

use std::{os::unix::process::CommandExt, process::Command};

use aegis_config::{Config, Environment};
use aegis_supervisor::exit;

use crate::{
    app::{Compilation, Keep, load_app},
    arguments::{AppArguments, RunArguments},
    check, logging,
    output::{self, Form},
};

/// Where a process finds the image that it runs, whatever became of the file.
const RUNNING_IMAGE: &str = "/proc/self/exe";

/// Runs the app until it is stopped.
pub(crate) fn run(arguments: RunArguments, environment: &Environment, form: Form) -> u8 {
    let RunArguments { app: arguments, is_checked } = arguments;
    let arguments = arguments.absolute();
    if !is_checked {
        let loaded = Compilation::quiet(Keep::InDataFolder, |compilation| {
            load_app(&arguments.folder, &arguments.overrides(), environment, compilation)
        });
        return match loaded {
            Ok(app) => {
                logging::start(&app.config.log, "supervisor");
                for warning in &app.warnings {
                    tracing::warn!("{warning}");
                }
                begin_anew(&arguments)
            }
            Err(mistakes) => check::refuse(&mistakes, form),
        };
    }
    // The modules are the business of the compile helper, which the supervisor starts first of all.
    let loaded = match Config::load(&arguments.folder, &arguments.overrides(), environment) {
        Ok(loaded) => loaded,
        Err(errors) => {
            output::complain(&output::listed("the configuration has just changed", &errors.lines()));
            return exit::CONFIGURATION;
        }
    };
    logging::start(&loaded.config.log, "supervisor");
    let compile_arguments = arguments.compile_arguments();
    aegis_supervisor::run(aegis_supervisor::Start { config: loaded.config, compile_arguments })
}

/// Goes on as a fresh image in the same process: what checking the modules took in memory would stay with the
/// supervisor for as long as the host runs.
fn begin_anew(arguments: &AppArguments) -> u8 {
    let mut command = Command::new(RUNNING_IMAGE);
    let error = command.arg0("aegis").args(["run", "--checked"]).args(arguments.compile_arguments()).exec();
    output::complain(&format!("run: executing {RUNNING_IMAGE}: {error}"));
    exit::OS
}
