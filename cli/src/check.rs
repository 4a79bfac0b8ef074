//! `aegis check`: every mistake of an app, or what it is.

use std::fmt::Write;

use aegis_config::Environment;
use aegis_domain::spec::{Datasource, ModelSpec};
use aegis_supervisor::exit;
use serde::Serialize;

use crate::{
    app::{App, Blame, Mistakes, load_app},
    arguments::AppArguments,
    output::{self, Form, counted, listed},
};

/// What a program reads.
#[derive(Serialize)]
struct Report<'a> {
    valid: bool,
    digest: Option<&'a str>,
    models: Vec<&'a str>,
    mistakes: &'a [String],
    warnings: &'a [String],
}

/// Checks the app and prints what there is to say.
pub(crate) fn check(arguments: &AppArguments, environment: &Environment, form: Form) -> u8 {
    match load_app(&arguments.folder, &arguments.overrides(), environment) {
        Ok(app) => {
            match form {
                Form::Text => output::result(&summary(&app)),
                Form::Json => output::json(&Report {
                    valid: true,
                    digest: Some(&app.bundle.digest),
                    models: app.models.iter().map(|model| model.name.as_str()).collect(),
                    mistakes: &[],
                    warnings: &app.warnings,
                }),
            }
            exit::FINE
        }
        Err(mistakes) => refuse(&mistakes, form),
    }
}

/// Tells the mistakes of an app; the exit status that goes with them.
pub(crate) fn refuse(mistakes: &Mistakes, form: Form) -> u8 {
    match form {
        Form::Text => {
            let heading = format!("{} found, nothing was started", counted(mistakes.lines.len(), "mistake"));
            output::complain(&listed(&heading, &mistakes.lines));
        }
        Form::Json => output::json(&Report {
            valid: false,
            digest: None,
            models: Vec::new(),
            mistakes: &mistakes.lines,
            warnings: &[],
        }),
    }
    match mistakes.blame {
        Blame::CommandLine => exit::USAGE,
        Blame::App => exit::CONFIGURATION,
    }
}

/// What a person reads about a valid app.
pub(crate) fn summary(app: &App) -> String {
    let config = &app.config;
    let listen: Vec<_> = config.listen.iter().map(ToString::to_string).collect();
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(text, "app      {}", config.app_dir.display());
    let _ = writeln!(text, "digest   {}", app.bundle.digest);
    let _ = writeln!(text, "listen   {}", listen.join(", "));
    let _ = writeln!(
        text,
        "workers  {} with {} each",
        config.workers.count,
        counted(config.workers.threads as usize, "thread")
    );
    let _ = writeln!(text, "data     {}", config.data_dir.display());
    let _ = writeln!(text, "models   {}", app.models.len());
    for model in &app.models {
        let _ = writeln!(text, "  {}", line(model, app));
    }
    for warning in &app.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    text
}

fn line(model: &ModelSpec, app: &App) -> String {
    let datasource = match (model.datasource, app.config.datasource) {
        (Some(Datasource::Memory), _) | (None, aegis_config::Datasource::Memory) => "memory",
        (Some(Datasource::File), _) | (None, aegis_config::Datasource::File) => "file",
    };
    let fields = counted(model.fields.len(), "field");
    format!("{}  {}/models/{}  {datasource}, {fields}", model.name, app.config.api_root, model.endpoint)
}
