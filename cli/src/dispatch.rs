//! From words to deeds: which part of the program a command line wants.

use std::ffi::OsString;

use aegis_config::environment;
use aegis_ipc::{
    deploy::{Order, Supply},
    handoff::Handoff,
    operator::{Request, StopMode},
};
use aegis_supervisor::exit;
use clap::{
    CommandFactory, Parser,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::{
    arguments::{Arguments, Command, KeyCommand, LogsCommand, NewCommand, ReloadManner, absolute},
    check, compile, data, dev, examine, look, new, operate,
    output::{self, Form},
    roles::{self, Given},
    run, run_command, signing,
};

/// Carries out a command line; the exit status.
pub(crate) fn command_line(words: impl IntoIterator<Item = OsString>) -> u8 {
    let words: Vec<OsString> = words.into_iter().collect();
    if let Some(role) = plain_role(words.get(1..).unwrap_or_default()) {
        return role(Handoff::from_environment());
    }
    match Arguments::try_parse_from(words) {
        Ok(arguments) => carry_out(arguments),
        Err(error) => {
            let error = without_hidden_commands(error);
            // Help goes to standard output, complaints to standard error; when neither can be written, nobody reads it.
            let _ = error.print();
            match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => exit::FINE,
                _ => exit::USAGE,
            }
        }
    }
}

/// The role that a supervisor starts a process for, when nothing else is said. Making the parser takes longer than all that
/// comes before it in a process, and whoever is served beside a worker that starts waits for it.
fn plain_role(words: &[OsString]) -> Option<fn(Given) -> u8> {
    match words {
        [role] if role == "worker" => Some(roles::worker),
        [role] if role == "store" => Some(roles::store),
        [role] if role == "look" => Some(look::look),
        _ => None,
    }
}

/// Plays the role that these arguments name, in a child that was forked for it and is given what it has.
pub(crate) fn role(arguments: &[OsString], given: Given) -> u8 {
    if let Some(role) = plain_role(arguments) {
        return role(given);
    }
    let words = std::iter::once(OsString::from("aegis")).chain(arguments.iter().cloned());
    match Arguments::try_parse_from(words).map(|arguments| arguments.command) {
        Ok(Command::Compile(app)) => {
            compile::compile(&app, &environment::collect(std::env::vars_os()), given)
        }
        Ok(_) | Err(_) => {
            output::complain(&format!(
                "found the role {arguments:?}, expected worker, store, look or compile"
            ));
            exit::BUG
        }
    }
}

/// Takes commands that only aegis itself gives out of what looks like a command that there is not.
fn without_hidden_commands(mut error: clap::Error) -> clap::Error {
    let command = Arguments::command();
    let is_hidden = |name: &String| command.find_subcommand(name).is_some_and(clap::Command::is_hide_set);
    if let Some(ContextValue::Strings(names)) = error.remove(ContextKind::SuggestedSubcommand) {
        let names: Vec<_> = names.into_iter().filter(|name| !is_hidden(name)).collect();
        if !names.is_empty() {
            error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(names));
        }
    }
    error
}

fn carry_out(arguments: Arguments) -> u8 {
    let form = Form::from_flag(arguments.json);
    let environment = environment::collect(std::env::vars_os());
    let (host, request) = match arguments.command {
        Command::Run(app) => return run::run(app, &environment, form),
        Command::Dev(app) => return dev::dev(app, &environment, form),
        Command::Check(app) => return check::check(&app.absolute(), &environment, form),
        Command::New(NewCommand::Model(arguments)) => return new::model(&arguments, form),
        Command::Key(KeyCommand::New(arguments)) => return signing::new_key(&arguments, form),
        Command::Sign(arguments) => return signing::sign(&arguments, form),
        Command::Call(arguments) => return run_command::run(&arguments, form),
        Command::Examine(app) => return examine::examine(&app, &environment),
        Command::Bound(arguments) => return roles::bound(&arguments),
        Command::Compile(app) => return compile::compile(&app, &environment, Handoff::from_environment()),
        Command::Look => return look::look(Handoff::from_environment()),
        Command::Supervisor { resume } => return roles::supervisor(resume),
        Command::Store => return roles::store(Handoff::from_environment()),
        Command::Worker => return roles::worker(Handoff::from_environment()),
        Command::Data(command) => return data::run(&command, &environment, form),
        Command::Status { host, watch: true } => return operate::watch(&host.into(), &environment, form),
        Command::Status { host, watch: false } => (host.into(), Request::Status),
        Command::Reload(reload) => {
            let mode = reload.mode.map(ReloadManner::asked);
            match reload.resolve() {
                (None, host) => (host, Request::Reload { wait: true, mode, automatic: false }),
                (Some(module), host) => {
                    let order =
                        Order { module, supply: Supply::App, sha256: None, force: false, mode, trial: None };
                    (host, Request::Deploy { order, wait: true })
                }
            }
        }
        Command::Deploy(arguments) => {
            let wait = !arguments.no_wait;
            let (order, host) = arguments.order();
            (host, Request::Deploy { order, wait })
        }
        Command::Rollback(host) => (host.into(), Request::Rollback),
        Command::Scale { workers, host } => (host, Request::Scale { workers }),
        Command::Drain(host) => (host.into(), Request::Drain),
        Command::Restart { slot, host } => (host, Request::Restart { slot }),
        Command::Upgrade { path, host } => match upgrade(path) {
            Ok(request) => (host, request),
            Err(complaint) => {
                output::refuse(&complaint, form);
                return exit::USAGE;
            }
        },
        Command::Logs(LogsCommand::Reopen(host)) => (host.into(), Request::LogsReopen),
        Command::Stop { host, patient, now } => {
            (host.into(), Request::Stop { mode: stop_mode(patient, now) })
        }
    };
    operate::request(&host, &environment, &request, form)
}

fn upgrade(path: Option<std::path::PathBuf>) -> Result<Request, String> {
    let path = path.map(|path| {
        let text = absolute(&path).into_os_string().into_string();
        text.map_err(|path| format!("found the path {} of an executable, expected UTF-8", path.display()))
    });
    Ok(Request::Upgrade { path: path.transpose()? })
}

fn stop_mode(patient: bool, now: bool) -> StopMode {
    match (patient, now) {
        (true, _) => StopMode::Patient,
        (false, true) => StopMode::Immediate,
        (false, false) => StopMode::Graceful,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(line: &str) -> String {
        let error = Arguments::try_parse_from(line.split_whitespace()).unwrap_err();
        without_hidden_commands(error).render().to_string().lines().take(3).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn only_commands_for_people_are_offered() {
        insta::assert_snapshot!(complaint("aegis force"), @"error: unrecognized subcommand 'force'");
        insta::assert_snapshot!(complaint("aegis stoer"), @"
        error: unrecognized subcommand 'stoer'

          tip: some similar subcommands exist: 'restart', 'stop'
        ");
        insta::assert_snapshot!(complaint("aegis complie"), @"error: unrecognized subcommand 'complie'");
        insta::assert_snapshot!(complaint("aegis data improt"), @"
        error: unrecognized subcommand 'improt'

          tip: a similar subcommand exists: 'import'
        ");
        insta::assert_snapshot!(complaint("aegis run --workres 2"), @"
        error: unexpected argument '--workres' found

          tip: a similar argument exists: '--workers'
        ");
    }
}
