//! `aegis run-command`: one command or hook of a component that is in no app, loaded as a worker loads it.
//!
//! Nobody else is there: what the code asks about documents is answered `unavailable`. What it answers is printed as it
//! is, without the model's rules and without being stored.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aegis_config::{Log, LogFormat};
use aegis_domain::{
    catalog::Catalog,
    code::{CommandEffect, CommandPlace},
    spec::ModelSpec,
    trial::Lot,
};
use aegis_ipc::bundle::Bundle;
use aegis_supervisor::{exit, with_causes};
use aegis_wasm::{
    Call, CallError, CodePlace, Entity, Entry, Lineage, Module, NoServices, Origin, Refusal, RefusalCode,
    Runtime, SealedFile,
};
use serde_json::{Value, json};

use crate::{
    app::{Mistakes, read_text, seal_component},
    arguments::RunCommandArguments,
    check, logging,
    output::{self, Form},
};

/// Services where there is no host.
const NOBODY: NoServices =
    NoServices { reason: "aegis run-command has no documents but the one of --target" };

#[cfg(test)]
mod tests;

/// Exit status when the code says no.
const REFUSED: u8 = 1;
/// Longest file with JSON, bytes.
const JSON_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Id of a document that does not say its own.
const ID: &str = "1";
/// Time of one call beside the module's own limit.
const CALL_TIME_MAX: Duration = Duration::from_secs(3600);

/// Why nothing was called.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The command line asks for something that is not there.
    #[error("{0}")]
    Usage(String),
    /// The component cannot be used.
    #[error("the component is not acceptable")]
    Component(Mistakes),
    /// This machine cannot do it.
    #[error("{0}")]
    Machine(String),
}

/// What became of the calls.
#[derive(Debug)]
struct Outcome {
    /// Of the first call, or the first that did not succeed.
    answer: Result<Option<String>, CallError>,
    /// With the birth of the instance.
    first: Duration,
    repeats: Vec<Duration>,
    /// The most that the instance had, if it is there still.
    peak_memory_bytes: Option<usize>,
}

/// What the command line gives to the code.
#[derive(Debug, Default)]
struct Given {
    target: Option<Value>,
    arguments: Option<Value>,
    input: Option<Value>,
}

/// Calls the code and prints what it answers.
pub(crate) fn run(arguments: &RunCommandArguments, form: Form) -> u8 {
    let (level, format) = ("info".to_owned(), LogFormat::Text);
    logging::follow(&Log { level, format, file: None, requests: false }, "run-command");
    match attempt(arguments) {
        Ok(outcome) => tell(&outcome, form),
        Err(Failure::Component(mistakes)) => check::refuse(&mistakes, form),
        Err(failure) => {
            output::refuse(&failure.to_string(), form);
            match failure {
                Failure::Usage(_) => exit::USAGE,
                Failure::Component(_) | Failure::Machine(_) => exit::OS,
            }
        }
    }
}

fn attempt(arguments: &RunCommandArguments) -> Result<Outcome, Failure> {
    let settings = read_json("--settings", arguments.settings.as_deref())?.unwrap_or_else(|| json!({}));
    if !settings.is_object() {
        return Err(Failure::Usage(format!("--settings: found {settings}, expected a JSON object")));
    }
    let given = Given {
        target: read_json("--target", arguments.target.as_deref())?,
        arguments: read_json("--arguments", arguments.arguments.as_deref())?,
        input: read_json("--input", arguments.input.as_deref())?,
    };
    let (spec, sealed) = seal_component(&arguments.component, settings).map_err(Failure::Component)?;
    let (place, entry) = match entry(&spec, &arguments.name, given)? {
        Ok(called) => called,
        Err(refusal) => {
            let answer = Err(CallError::Refused(refusal));
            return Ok(Outcome {
                answer,
                first: Duration::ZERO,
                repeats: Vec::new(),
                peak_memory_bytes: None,
            });
        }
    };
    let bundle = Bundle::read(&sealed).map_err(|error| Failure::Machine(with_causes(&error)))?;
    let code = spec.code.as_ref().and_then(|code| Some((code, bundle.place_of(&code.digest)?)));
    let (code, lies) =
        code.ok_or_else(|| Failure::Machine("found no code in what was compiled".to_owned()))?;
    let lies = CodePlace { offset: lies.offset, length: lies.length };
    let failed = |error: &dyn std::error::Error| Failure::Machine(with_causes(error));
    let file = SealedFile::new(std::os::fd::AsFd::as_fd(&sealed)).map_err(|error| failed(&error))?;
    let runtime = Runtime::new(1, 1).map_err(|error| failed(&error))?;
    let module = runtime.load(spec.name.as_str(), code, (&file, lies), Arc::new(NOBODY));
    let module = Arc::new(module.map_err(|error| failed(&error))?);
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let tokio = tokio.map_err(|error| failed(&error))?;
    let mut outcome = tokio.block_on(call_all(&runtime, &module, (place, &entry), arguments.repeat));
    if has_to_be_a_document(&spec, &entry) {
        outcome.answer = outcome.answer.and_then(|answer| as_document(answer, &module, &entry));
    }
    Ok(outcome)
}

/// Whether what is answered becomes a document.
fn has_to_be_a_document(spec: &ModelSpec, entry: &Entry) -> bool {
    match entry {
        Entry::Create { .. } | Entry::Update { .. } | Entry::Load { .. } => true,
        Entry::Command { name, .. } => {
            spec.commands.get(name).is_some_and(|command| command.effect == CommandEffect::Saves)
        }
        _ => false,
    }
}

/// An answer that a host would take for a document.
fn as_document(answer: Option<String>, module: &Module, entry: &Entry) -> Result<Option<String>, CallError> {
    let value = serde_json::from_str(answer.as_deref().unwrap_or_default());
    let reason = match value {
        Ok(Value::Object(_)) => return Ok(answer),
        Ok(_) => "it answered what is no object, expected a document",
        Err(_) => "it answered what is not JSON, expected a document",
    };
    Err(CallError::Trapped {
        module: module.name().to_owned(),
        entry: entry.name(),
        reason: reason.to_owned(),
    })
}

async fn call_all(
    runtime: &Runtime,
    module: &Arc<Module>,
    (place, entry): (CommandPlace, &Entry),
    repeat: u32,
) -> Outcome {
    let begun = Instant::now();
    let answer = runtime.call(module, place, a_call(0, entry), entry.clone()).await;
    let mut outcome =
        Outcome { answer, first: begun.elapsed(), repeats: Vec::new(), peak_memory_bytes: None };
    for number in 1..=repeat {
        if outcome.answer.is_err() {
            break;
        }
        let (call, entry) = (a_call(number, entry), entry.clone());
        let begun = Instant::now();
        let answer = runtime.call(module, place, call, entry).await;
        outcome.repeats.push(begun.elapsed());
        if answer.is_err() {
            outcome.answer = answer;
        }
    }
    outcome.peak_memory_bytes = module.peak_memory_bytes();
    outcome
}

fn a_call(number: u32, entry: &Entry) -> Call {
    Call {
        request_id: format!("run-command-{number}"),
        origin: if matches!(entry, Entry::Command { .. }) { Origin::Command } else { Origin::Api },
        deadline: Instant::now() + CALL_TIME_MAX,
        attempt: 1,
        idempotency_key: None,
        lineage: Lineage::begin(),
        lot: Lot::default(),
        principal: None,
    }
}

/// What is called, or the no of the host, which checks arguments before the code gets them.
fn entry(
    spec: &ModelSpec,
    name: &str,
    given: Given,
) -> Result<Result<(CommandPlace, Entry), Refusal>, Failure> {
    let Given { target, arguments, input } = given;
    let target = target.map(|target| entity(spec, &target)).transpose()?;
    if let Some(command) = spec.commands.get(name) {
        if input.is_some() {
            return Err(Failure::Usage(format!("--input: {name} is a command, expected --arguments")));
        }
        let arguments = arguments.unwrap_or_else(|| json!({}));
        if let Err(refusal) = check_arguments(spec, name, &arguments) {
            return Ok(Err(refusal));
        }
        let entry = Entry::Command { name: name.to_owned(), target, arguments: arguments.to_string() };
        return Ok(Ok((command.place, entry)));
    }
    let callable = callable(spec);
    if !callable.iter().any(|callable| callable == name) {
        let there = if callable.is_empty() { "none".to_owned() } else { callable.join(", ") };
        let model = &spec.name;
        return Err(Failure::Usage(format!(
            "found no command or hook {name:?} in {model}, there are: {there}"
        )));
    }
    if arguments.is_some() {
        return Err(Failure::Usage(format!("--arguments: {name} is a hook, expected --input")));
    }
    let input = input.unwrap_or_else(|| json!({}));
    if !input.is_object() {
        return Err(Failure::Usage(format!("--input: found {input}, expected a JSON object")));
    }
    let input = input.to_string();
    let current =
        |target: Option<Entity>| target.ok_or_else(|| Failure::Usage(format!("{name}: expected --target")));
    let entry = match name {
        "on-create" => Entry::Create { input },
        "validate" => Entry::Validate { before: target.map(|target| target.data), after: input },
        "on-update" => Entry::Update { current: current(target)?, changes: input },
        "on-load" => Entry::Load { stored: current(target)? },
        _ => Entry::Delete { current: current(target)? },
    };
    Ok(Ok((CommandPlace::Io, entry)))
}

fn check_arguments(spec: &ModelSpec, name: &str, arguments: &Value) -> Result<(), Refusal> {
    let catalog = Catalog::build(vec![spec.clone()])
        .map_err(|mistakes| Refusal::new(RefusalCode::Internal, mistakes.join("; ")))?;
    let command = catalog.by_name(spec.name.as_str()).and_then(|model| model.command(name));
    let Some(command) = command else { return Ok(()) };
    command.check_arguments(arguments).map_err(|problem| Refusal::new(RefusalCode::Invalid, problem.detail))
}

/// Names of all commands and hooks.
fn callable(spec: &ModelSpec) -> Vec<String> {
    let hooks = spec.code.as_ref().map(|code| code.hooks).unwrap_or_default();
    let hooks = [
        ("on-create", hooks.create),
        ("validate", hooks.validate),
        ("on-update", hooks.update),
        ("on-delete", hooks.delete),
        ("on-load", hooks.load),
    ];
    let hooks = hooks.into_iter().filter(|(_, asked)| *asked).map(|(name, _)| name.to_owned());
    spec.commands.keys().cloned().chain(hooks).collect()
}

/// A document as the code sees it. Id and revision are those that it says, if it does.
fn entity(spec: &ModelSpec, data: &Value) -> Result<Entity, Failure> {
    if !data.is_object() {
        return Err(Failure::Usage(format!("--target: found {data}, expected a JSON object")));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    Ok(Entity {
        id: data["id"].as_str().unwrap_or(ID).to_owned(),
        model: spec.name.to_string(),
        revision: data["revision"].as_u64().unwrap_or(1),
        created_ms: now_ms,
        updated_ms: now_ms,
        data: data.to_string(),
    })
}

/// JSON of the command line, or of the file that it names.
fn read_json(option: &str, given: Option<&str>) -> Result<Option<Value>, Failure> {
    let Some(given) = given else { return Ok(None) };
    let wrong = |what: String| Failure::Usage(format!("{option}: {what}"));
    let text = match given.strip_prefix('@') {
        Some(path) => {
            &read_text(Path::new(path), JSON_BYTES_MAX).map_err(|what| wrong(format!("{path}: {what}")))?
        }
        None => given,
    };
    serde_json::from_str(text).map(Some).map_err(|error| wrong(format!("found no JSON: {error}")))
}

/// Prints the outcome; the exit status.
fn tell(outcome: &Outcome, form: Form) -> u8 {
    match (&outcome.answer, form) {
        (Ok(answer), Form::Text) => {
            output::result(&format!("{}\n", answer.as_deref().unwrap_or("null")));
            output::note(&times(outcome));
        }
        (Err(error), Form::Text) => output::complain(&complaint(error)),
        (_, Form::Json) => output::json(&report(outcome)),
    }
    match &outcome.answer {
        Ok(_) => exit::FINE,
        Err(CallError::Refused(_)) => REFUSED,
        Err(CallError::Busy { .. }) => exit::TRANSIENT,
        Err(CallError::Deadline { .. } | CallError::Trapped { .. } | CallError::Involved { .. }) => exit::BUG,
    }
}

/// How long it took, for people.
fn times(outcome: &Outcome) -> String {
    let mut text = format!("first call  {}, with the birth of its instance", milliseconds(outcome.first));
    if let Some(median) = median(&outcome.repeats) {
        let count = output::counted(outcome.repeats.len(), "repeat");
        text.push_str(&format!("\nmedian      {} of {count}", milliseconds(median)));
    }
    if let Some(bytes) = outcome.peak_memory_bytes {
        text.push_str(&format!("\nmemory      {} KiB at most", bytes.div_ceil(1024)));
    }
    text
}

fn milliseconds(time: Duration) -> String {
    let microseconds = time.as_micros();
    format!("{}.{:03} ms", microseconds / 1000, microseconds % 1000)
}

fn median(times: &[Duration]) -> Option<Duration> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

/// Why there is no answer, for people.
fn complaint(error: &CallError) -> String {
    let CallError::Refused(refusal) = error else { return error.to_string() };
    let details = refusal.details.as_ref().map(|details| format!("\n  {details}")).unwrap_or_default();
    format!("refused: {}: {}{details}", code_name(refusal.code), refusal.message)
}

/// The outcome for programs.
fn report(outcome: &Outcome) -> Value {
    let microseconds = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let parsed = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
    match &outcome.answer {
        Ok(answer) => json!({
            "answer": answer.as_deref().map(parsed),
            "firstMicroseconds": microseconds(outcome.first),
            "medianMicroseconds": median(&outcome.repeats).map(microseconds),
            "peakMemoryBytes": outcome.peak_memory_bytes,
        }),
        Err(CallError::Refused(refusal)) => json!({ "refused": {
            "code": code_name(refusal.code),
            "message": refusal.message,
            "details": refusal.details.as_deref().map(parsed),
        } }),
        Err(error) => json!({ "failed": error.to_string() }),
    }
}

/// As the contract spells it.
fn code_name(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::Invalid => "invalid",
        RefusalCode::NotFound => "not-found",
        RefusalCode::Conflict => "conflict",
        RefusalCode::Denied => "denied",
        RefusalCode::Timeout => "timeout",
        RefusalCode::Unavailable => "unavailable",
        RefusalCode::CircuitOpen => "circuit-open",
        RefusalCode::TooLarge => "too-large",
        RefusalCode::Cancelled => "cancelled",
        RefusalCode::Unsupported => "unsupported",
        RefusalCode::Internal => "internal",
    }
}
