//! `aegis run`: check everything, then become the supervisor.

use aegis_config::Environment;

use crate::{app::load_app, arguments::AppArguments, check, logging, output::Form};

/// Runs the app until it is stopped.
pub(crate) fn run(arguments: AppArguments, environment: &Environment, form: Form) -> u8 {
    let arguments = arguments.absolute();
    let app = match load_app(&arguments.folder, &arguments.overrides(), environment) {
        Ok(app) => app,
        Err(mistakes) => return check::refuse(&mistakes, form),
    };
    logging::start(&app.config.log, "supervisor");
    for warning in &app.warnings {
        tracing::warn!("{warning}");
    }
    let compile_arguments = arguments.compile_arguments();
    aegis_supervisor::run(aegis_supervisor::Start { config: app.config, compile_arguments })
}
