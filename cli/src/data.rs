//! `aegis data`: documents at rest.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use aegis_config::{Config, Environment};
use aegis_ipc::replace::{FolderSync, put_in_place};
use aegis_store::data::{self, DataError, Declared, Exported, Imported, LeftOut, Progress as Step, Verified};
use aegis_supervisor::{exit, with_causes};
use nix::unistd::{Uid, User, geteuid};
use serde_json::json;

use crate::{
    app::{Blame, Mistakes, declared},
    arguments::{DataArguments, DataCommand, absolute},
    check,
    output::{self, Form, counted, listed},
    progress::Progress,
};

#[cfg(test)]
mod tests;

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The tool says why.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A file of the command line cannot be used.
    #[error("{operation} {} failed", path.display())]
    File {
        /// What was attempted.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// Root would leave files in the data of somebody else.
    #[error(
        "the host of {} runs as another user and could not open what root makes there; run it as that user: \
         sudo -u {user} aegis data import …",
        folder.display()
    )]
    NotOfRoot {
        /// The data folder.
        folder: PathBuf,
        /// Whom the host runs as, as `sudo` and a shell understand it.
        user: String,
    },
}

impl Failure {
    fn file(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { operation, path: path.clone(), source }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Data(error) => error.exit_code(),
            Self::File { .. } => exit::OS,
            Self::NotOfRoot { .. } => exit::USAGE,
        }
    }
}

/// Carries out a command on the documents of an app.
pub(crate) fn run(command: &DataCommand, environment: &Environment, form: Form) -> u8 {
    let (DataCommand::Export { app, .. } | DataCommand::Import { app, .. } | DataCommand::Verify { app }) =
        command;
    let config = match configuration(app, environment) {
        Ok(config) => config,
        Err(mistakes) => return check::refuse(&mistakes, form),
    };
    let data_dir = &config.data_dir;
    let mut progress = Progress::new(form);
    let outcome = match command {
        DataCommand::Export { output, .. } => {
            // What cannot be read keeps nobody from taking the documents out: then the store's own models count.
            let models = declared(&config).unwrap_or_default();
            let declared = Declared { models: &models, datasource: config.datasource };
            export(data_dir, &declared, output.as_deref(), &mut progress, form)
        }
        DataCommand::Import { input, .. } => {
            let models = match declared(&config) {
                Ok(models) => models,
                Err(mistakes) => return check::refuse(&mistakes, form),
            };
            let declared = Declared { models: &models, datasource: config.datasource };
            import(data_dir, &declared, input.as_deref(), &mut progress, form)
        }
        DataCommand::Verify { .. } => verify(data_dir, &mut progress, form),
    };
    progress.finish();
    outcome.unwrap_or_else(|failure| {
        // What is on standard output already is a part of the export.
        let is_on_its_way = matches!(command, DataCommand::Export { output: None, .. });
        output::refuse(&explained(&failure), if is_on_its_way { Form::Text } else { form });
        failure.exit_code()
    })
}

fn configuration(app: &DataArguments, environment: &Environment) -> Result<Config, Mistakes> {
    match Config::load(&absolute(&app.folder), &app.overrides(), environment) {
        Ok(loaded) => Ok(loaded.config),
        Err(errors) => {
            let blame = if errors.blames_only_flags() { Blame::CommandLine } else { Blame::App };
            Err(Mistakes { lines: errors.lines(), blame })
        }
    }
}

fn explained(failure: &Failure) -> String {
    let message = with_causes(failure);
    if failure.exit_code() == exit::TRANSIENT {
        format!("{message}\n  a host that runs locks its data: stop it first")
    } else {
        message
    }
}

fn export(
    data_dir: &Path,
    declared: &Declared<'_>,
    output: Option<&Path>,
    progress: &mut Progress<io::Stderr>,
    form: Form,
) -> Result<u8, Failure> {
    let mut shown = |step: Step| progress.paced(|| steps("exported", step));
    let (exported, destination) = match output {
        Some(path) => {
            // It may be standard output under another name.
            let destination = if is_no_file(path) { Destination::Aside } else { Destination::Result };
            (export_to_file(data_dir, declared, path, &mut shown)?, destination)
        }
        None => {
            let mut stdout = BufWriter::new(io::stdout().lock());
            // Standard output carries the documents, so the summary goes elsewhere.
            (data::export(data_dir, declared, &mut stdout, &mut shown)?, Destination::Aside)
        }
    };
    progress.finish();
    let Exported { documents, sequence, left_out } = exported;
    let text = format!("exported {}, up to change {sequence}\n", counted_rows(documents, "document"));
    let row = |LeftOut { model, documents }: &LeftOut| json!({"model": model, "documents": documents});
    let rows: Vec<_> = left_out.iter().map(row).collect();
    tell(&text, &json!({"documents": documents, "sequence": sequence, "left_out": rows}), destination, form);
    if form == Form::Text {
        // Nobody reads it: nothing failed.
        let _ = io::stderr().lock().write_all(left_out.iter().map(note).collect::<String>().as_bytes());
    }
    Ok(exit::FINE)
}

fn note(LeftOut { model, documents }: &LeftOut) -> String {
    let documents = counted_rows(*documents, "document");
    format!(
        "note: left out {documents} of model {model}, which keeps its documents in memory by now: no import would take \
         them; they stay in the store\n"
    )
}

/// Whether there is something that can only be written to, not replaced: a device, a pipe, a terminal.
fn is_no_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// A file that has its name is complete: it is written beside, synced, then renamed. What is there and is no file, such
/// as a pipe or `/dev/stdout`, is written to and stays what it is.
fn export_to_file(
    data_dir: &Path,
    declared: &Declared<'_>,
    path: &Path,
    shown: &mut dyn FnMut(Step),
) -> Result<Exported, Failure> {
    if is_no_file(path) {
        let file = File::options().write(true).open(path).map_err(Failure::file("opening", path))?;
        return Ok(data::export(data_dir, declared, &mut BufWriter::new(file), shown)?);
    }
    // A link goes on leading to the file.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".part");
    let unfinished = PathBuf::from(unfinished);
    let file = File::create(&unfinished).map_err(Failure::file("creating", &unfinished))?;
    let written = data::export(data_dir, declared, &mut BufWriter::new(&file), shown)
        .map_err(Failure::from)
        .and_then(|exported| {
            put_in_place(&file, &unfinished, path, FolderSync::WherePossible)
                .map_err(Failure::file("creating", path))?;
            Ok(exported)
        });
    if written.is_err() {
        // What is left of it is of no use; that it cannot be removed changes nothing about the failure.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn import(
    data_dir: &Path,
    declared: &Declared<'_>,
    input: Option<&Path>,
    progress: &mut Progress<io::Stderr>,
    form: Form,
) -> Result<u8, Failure> {
    leave_to_owner(data_dir)?;
    let mut shown = |step: Step| progress.paced(|| steps("imported", step));
    let imported = match input {
        Some(path) => {
            let file = File::open(path).map_err(Failure::file("opening", path))?;
            data::import(data_dir, declared, &mut BufReader::new(file), &mut shown)?
        }
        None => data::import(data_dir, declared, &mut io::stdin().lock(), &mut shown)?,
    };
    progress.finish();
    let Imported { created, replaced, unchanged } = imported;
    let text = format!("imported: {created} created, {replaced} replaced, {unchanged} unchanged\n");
    let json = json!({"created": created, "replaced": replaced, "unchanged": unchanged});
    tell(&text, &json, Destination::Result, form);
    Ok(exit::FINE)
}

/// Refuses to write as root what only the owner of the data folder should.
fn leave_to_owner(data_dir: &Path) -> Result<(), Failure> {
    let name = |owner: u32| Some(User::from_uid(Uid::from_raw(owner)).ok()??.name);
    let refused = whose(data_dir).and_then(|(folder, owner)| {
        let user = instead_of(geteuid().as_raw(), owner, name)?;
        Some(Failure::NotOfRoot { folder, user })
    });
    refused.map_or(Ok(()), Err)
}

/// What a host has made in the data folder, with the number of the user that it ran as. Who has the folder itself says nothing:
/// a host may run as root in one of somebody else.
fn whose(data_dir: &Path) -> Option<(PathBuf, u32)> {
    let made = ["store", "LOCK"].map(|name| data_dir.join(name));
    made.iter().find_map(|path| Some((data_dir.to_owned(), fs::metadata(path).ok()?.uid())))
}

/// Who is to write to a folder of `owner` instead of `user`, if that is root; `name` knows what users are called.
fn instead_of(user: u32, owner: u32, name: impl FnOnce(u32) -> Option<String>) -> Option<String> {
    (user == 0 && owner != 0).then(|| name(owner).unwrap_or_else(|| format!("'#{owner}'")))
}

fn verify(data_dir: &Path, progress: &mut Progress<io::Stderr>, form: Form) -> Result<u8, Failure> {
    let verified = data::verify(data_dir, &mut |step| progress.paced(|| steps("verified", step)))?;
    progress.finish();
    let json = json!({
        "documents": verified.documents,
        "changes": verified.changes,
        "unique_values": verified.unique_values,
        "responses": verified.responses,
        "findings": verified.findings,
        "findings_count": verified.findings_count,
        "notes": verified.notes,
        "uncompared": verified.uncompared,
    });
    tell(&verdict(&verified), &json, Destination::Result, form);
    if verified.findings_count == 0 {
        return Ok(exit::FINE);
    }
    if form == Form::Text {
        output::complain(&findings(&verified));
    }
    Ok(exit::CONFIGURATION)
}

fn verdict(verified: &Verified) -> String {
    let Verified { documents, changes, unique_values, responses, .. } = verified;
    let rows = [
        (documents, "document"),
        (changes, "change"),
        (unique_values, "unique value"),
        (responses, "kept response"),
    ];
    let rows = rows.map(|(count, one)| counted_rows(*count, one));
    let mut text = format!("read {}\n", rows.join(", "));
    for note in &verified.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    if verified.findings_count == 0 {
        let but = if verified.uncompared { ", but not all of it was compared with the models" } else { "" };
        text.push_str(&format!("everything is whole{but}\n"));
    }
    text
}

fn findings(verified: &Verified) -> String {
    let count = usize::try_from(verified.findings_count).unwrap_or(usize::MAX);
    let mut lines = verified.findings.clone();
    if count > lines.len() {
        lines.push(format!("and {} more", count - lines.len()));
    }
    listed(&format!("{}, nothing was changed", counted(count, "finding")), &lines)
}

/// Where a summary goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Destination {
    /// To standard output.
    Result,
    /// To standard error.
    Aside,
}

fn tell(text: &str, json: &serde_json::Value, destination: Destination, form: Form) {
    let text = match form {
        Form::Text => text.to_owned(),
        Form::Json => format!("{json}\n"),
    };
    match destination {
        Destination::Result => output::result(&text),
        Destination::Aside => {
            // Nobody reads it: the exit status says the same.
            let _ = io::stderr().lock().write_all(text.as_bytes());
        }
    }
}

fn steps(verb: &str, step: Step) -> String {
    match step.total {
        Some(total) => format!("{verb} {} of {total}", step.done),
        None => format!("{verb} {}", step.done),
    }
}

fn counted_rows(count: u64, one: &str) -> String {
    counted(usize::try_from(count).unwrap_or(usize::MAX), one)
}
