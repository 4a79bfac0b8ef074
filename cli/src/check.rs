//! `aegis check`: every mistake of an app, or of a single component, or what it is.

use std::{fmt::Write, path::Path, time::Duration};

use aegis_config::{Environment, format_size, format_time};
use aegis_domain::{
    code::{CodeLimits, CodeSpec, CommandPlace, OnFailure},
    disable,
    service::ServiceSpec,
    spec::{Datasource, ModelSpec},
};
use aegis_ipc::deploy::Signed;
use aegis_supervisor::exit;
use serde::Serialize;

use crate::{
    app::{
        App, Blame, Compilation, Component, Keep, LoneModule, Mistakes, Read, Service, is_module_folder,
        load_app, load_component, load_module,
    },
    arguments::AppArguments,
    output::{self, Form, counted, listed},
};

/// Characters of a digest that people are shown.
const DIGEST_SHOWN_CHARACTERS: usize = 12;

/// What a program reads.
#[derive(Serialize)]
struct Report<'a> {
    valid: bool,
    digest: Option<&'a str>,
    models: Vec<&'a str>,
    components: Vec<ComponentReport<'a>>,
    services: Vec<ServiceReport<'a>>,
    mistakes: &'a [String],
    warnings: &'a [String],
    /// Keys that a module in no app is signed with.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    signers: &'a [String],
}

/// A service as a program reads it.
#[derive(Serialize)]
struct ServiceReport<'a> {
    #[serde(flatten)]
    spec: &'a ServiceSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed: Option<&'a Signed>,
}

/// A component as a program reads it.
#[derive(Serialize)]
struct ComponentReport<'a> {
    model: &'a str,
    bytes: u64,
    needs: &'a [String],
    chosen: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signed: Option<&'a Signed>,
    commands: Vec<&'a str>,
    /// Commands and routes that are out of service.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    disabled: Vec<String>,
    #[serde(flatten)]
    code: &'a CodeSpec,
}

/// Checks the app, or the component, and prints what there is to say.
pub(crate) fn check(arguments: &AppArguments, environment: &Environment, form: Form) -> u8 {
    let path = &arguments.folder;
    if path.extension().is_some_and(|extension| extension == "wasm") && !path.is_dir() {
        return check_component(path, form);
    }
    if is_module_folder(path) {
        return check_module(path, form);
    }
    let loaded = Compilation::quiet(Keep::WhereThereIsSome, |compilation| {
        load_app(path, &arguments.overrides(), environment, compilation)
    });
    match loaded {
        Ok(app) => {
            match form {
                Form::Text => output::result(&summary(&app)),
                Form::Json => {
                    let with_code = app.models.iter().filter(|model| model.code.is_some());
                    output::json(&Report {
                        valid: true,
                        digest: Some(&app.bundle.digest),
                        models: app.models.iter().map(|model| model.name.as_str()).collect(),
                        components: with_code
                            .zip(&app.components)
                            .filter_map(|(model, component)| report(model, component))
                            .collect(),
                        services: app.services.iter().map(report_service).collect(),
                        mistakes: &[],
                        warnings: &app.warnings,
                        signers: &[],
                    });
                }
            }
            exit::FINE
        }
        Err(mistakes) => refuse(&mistakes, form),
    }
}

/// Checks a component that is in no app.
fn check_component(path: &Path, form: Form) -> u8 {
    match load_component(path) {
        Ok(loaded) => show(&loaded, form),
        Err(mistakes) => refuse(&mistakes, form),
    }
}

/// Checks the folder of a module that is in no app.
fn check_module(folder: &Path, form: Form) -> u8 {
    match load_module(folder) {
        Ok(loaded) => show(&loaded, form),
        Err(mistakes) => refuse(&mistakes, form),
    }
}

/// Prints what a module in no app is; the exit status.
fn show(loaded: &LoneModule, form: Form) -> u8 {
    let LoneModule { read, signers, warnings } = loaded;
    match (form, read) {
        (Form::Text, read) => {
            let mut text = match read {
                Read::Model(model, component) => describe(model, component),
                Read::Service(service) => describe_service(service),
            };
            if !signers.is_empty() {
                let signers = signers.join(", ");
                // Writing to a String cannot fail.
                let _ = writeln!(text, "signatures of {signers}; who counts is said by the app that uses it");
            }
            for warning in warnings {
                let _ = writeln!(text, "warning: {warning}");
            }
            output::result(&text);
        }
        (Form::Json, Read::Model(model, component)) => output::json(&Report {
            valid: true,
            digest: model.code.as_ref().map(|code| code.digest.as_str()),
            models: vec![model.name.as_str()],
            components: report(model, component).into_iter().collect(),
            services: Vec::new(),
            mistakes: &[],
            warnings,
            signers,
        }),
        (Form::Json, Read::Service(service)) => output::json(&Report {
            valid: true,
            digest: Some(&service.spec.digest),
            models: Vec::new(),
            components: Vec::new(),
            services: vec![report_service(service)],
            mistakes: &[],
            warnings,
            signers,
        }),
    }
    exit::FINE
}

fn report<'a>(model: &'a ModelSpec, component: &'a Component) -> Option<ComponentReport<'a>> {
    Some(ComponentReport {
        model: &component.model,
        bytes: component.bytes,
        needs: &component.needs,
        chosen: component.chosen.as_deref(),
        signed: component.signed.as_ref(),
        commands: model.commands.keys().map(String::as_str).collect(),
        disabled: disable::disabled(model),
        code: model.code.as_ref()?,
    })
}

fn report_service(service: &Service) -> ServiceReport<'_> {
    ServiceReport { spec: &service.spec, signed: service.signed.as_ref() }
}

/// Tells the mistakes of an app that is not started because of them; the exit status that goes with them.
pub(crate) fn refuse_to_start(mistakes: &Mistakes, form: Form) -> u8 {
    tell(mistakes, ", nothing was started", form)
}

/// Tells the mistakes of what was looked at; the exit status that goes with them.
pub(crate) fn refuse(mistakes: &Mistakes, form: Form) -> u8 {
    tell(mistakes, "", form)
}

fn tell(mistakes: &Mistakes, consequence: &str, form: Form) -> u8 {
    match form {
        Form::Text => {
            let heading = format!("{} found{consequence}", counted(mistakes.lines.len(), "mistake"));
            output::complain(&listed(&heading, &mistakes.lines));
        }
        Form::Json => output::json(&Report {
            valid: false,
            digest: None,
            models: Vec::new(),
            components: Vec::new(),
            services: Vec::new(),
            mistakes: &mistakes.lines,
            warnings: &[],
            signers: &[],
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
        let component = app.components.iter().find(|component| component.model == model.name.as_str());
        if let Some(component) = component {
            for line in describe(model, component).lines() {
                let _ = writeln!(text, "    {line}");
            }
        }
    }
    if !app.services.is_empty() {
        let _ = writeln!(text, "services {}", app.services.len());
    }
    for service in &app.services {
        let _ = writeln!(text, "  {}  {} and below", service.spec.name, service.spec.route);
        for line in describe_service(service).lines() {
            let _ = writeln!(text, "    {line}");
        }
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

/// What a person reads about a component.
pub(crate) fn describe(model: &ModelSpec, component: &Component) -> String {
    let Some(code) = &model.code else { return String::new() };
    let mut text = String::new();
    // Writing to a String cannot fail.
    let built =
        if code.built_with.is_empty() { String::new() } else { format!(", built with {}", code.built_with) };
    let _ = writeln!(text, "component  {} {}{built}", code.module, code.version);
    if let Some(chosen) = &component.chosen {
        let _ = writeln!(text, "version    {chosen}");
    }
    text.push_str(&signed_line(component.signed.as_ref()));
    let digest = code.digest.get(..DIGEST_SHOWN_CHARACTERS).unwrap_or(&code.digest);
    let _ = writeln!(text, "file       {}, SHA-256 {digest}…", rounded(component.bytes));
    let _ = writeln!(text, "model      {} at {}", model.name, model.endpoint);
    let hooks = code.hooks;
    let hooks = [
        ("create", hooks.create),
        ("validate", hooks.validate),
        ("update", hooks.update),
        ("delete", hooks.delete),
        ("load", hooks.load),
    ];
    let hooks = hooks.into_iter().filter(|(_, asked)| *asked).map(|(name, _)| name.to_owned());
    let _ = writeln!(text, "hooks      {}", or_none(&hooks.collect::<Vec<_>>()));
    let commands = model.commands.iter().map(|(name, command)| match command.place {
        CommandPlace::Cpu => format!("{name} (CPU pool)"),
        CommandPlace::Io => name.clone(),
    });
    let _ = writeln!(text, "commands   {}", or_none(&commands.collect::<Vec<_>>()));
    if !code.routes.is_empty() {
        let routes = code.routes.iter().map(|route| format!("{} {}", route.method, route.path));
        let _ = writeln!(text, "routes     {}", routes.collect::<Vec<_>>().join(", "));
    }
    let disabled = disable::disabled(model);
    if !disabled.is_empty() {
        let _ = writeln!(text, "disabled   {}", disabled.join(", "));
    }
    if !component.needs.is_empty() {
        let _ = writeln!(text, "needs      {}", component.needs.join(", "));
    }
    let _ = writeln!(text, "{}", limits_line(&code.limits));
    text
}

/// What a person reads about a component that is a service.
fn describe_service(service: &Service) -> String {
    let mut text = format!("component  a service over wasi:http {}\n", service.spec.wasi);
    let digest = service.spec.digest.get(..DIGEST_SHOWN_CHARACTERS).unwrap_or(&service.spec.digest);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "file       {}, SHA-256 {digest}…", rounded(service.bytes));
    if let Some(chosen) = &service.chosen {
        let _ = writeln!(text, "version    {chosen}");
    }
    text.push_str(&signed_line(service.signed.as_ref()));
    if !service.needs.is_empty() {
        let _ = writeln!(text, "needs      {}", service.needs.join(", "));
    }
    let limits = &service.spec.limits;
    let _ = writeln!(
        text,
        "limits     memory {}, deadline {}, payload {}, {}{}",
        format_size(limits.memory_bytes_max),
        format_time(Duration::from_millis(limits.call_ms_max.into())),
        format_size(limits.payload_bytes_max),
        counted(limits.instances_max as usize, "instance"),
        match limits.calls_at_a_time_max {
            1 => String::new(),
            several => format!(" with {several} requests at a time each"),
        },
    );
    text
}

/// Who signed a module, if somebody did whose signature counts.
fn signed_line(signed: Option<&Signed>) -> String {
    let line = |signed: &Signed| {
        format!("signed     by {}, as version {}\n", signed.keys.join(", "), signed.version)
    };
    signed.map(line).unwrap_or_default()
}

fn limits_line(limits: &CodeLimits) -> String {
    let time = |milliseconds: u32| format_time(Duration::from_millis(milliseconds.into()));
    format!(
        "limits     memory {}, deadline {}, cpu-deadline {}, payload {}, {} with {} each",
        format_size(limits.memory_bytes_max),
        time(limits.call_ms_max),
        time(limits.cpu_call_ms_max),
        format_size(limits.payload_bytes_max),
        counted(limits.instances_max as usize, "instance"),
        counted(usize::try_from(limits.calls_per_instance_max).unwrap_or(usize::MAX), "call"),
    ) + match limits.on_failure {
        OnFailure::Deny => "",
        OnFailure::Skip => ", on-module-failure skip",
    }
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// A size for people, with one digit behind the point.
fn rounded(bytes: u64) -> String {
    const UNITS: [(&str, u64); 2] = [("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{}{name}", bytes / unit, bytes % unit * 10 / unit),
        None => format_size(bytes),
    }
}
