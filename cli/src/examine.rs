//! The first look at an app, by a process of its own that is bounded as the compile helper is: a component that no helper
//! survives is a mistake of the app, as it is in a reload, and not the end of the host.
//!
//! It says on its standard output, one JSON object per line, which component it begins with, and last what it found.

use std::{
    io::{self, Read},
    os::{
        fd::AsFd,
        unix::process::{CommandExt, ExitStatusExt},
    },
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use aegis_config::Environment;
use aegis_supervisor::{
    exit,
    fleet::{Exit, LATE, unanswered},
};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};

use crate::{
    app::{App, Blame, Compilation, Keep, Mistakes, load_app},
    arguments::AppArguments,
    compile, output, roles,
};

/// Where a process finds the image that it runs, whatever became of the file.
const RUNNING_IMAGE: &str = "/proc/self/exe";
/// Time for one component, when the configuration cannot say it.
const USUAL_TIME: Duration = Duration::from_secs(60);
/// Bytes of all that the helper says.
const WORDS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What the helper says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Word {
    /// This component is next.
    Begins(String),
    /// The end: what was found.
    Found(Examined),
}

/// What was found.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Examined {
    /// The app can be served.
    Valid {
        /// What its operator should know, one sentence each.
        warnings: Vec<String>,
    },
    /// It cannot.
    Mistaken(Mistakes),
}

/// Looks at the app: the helper.
pub(crate) fn examine(arguments: &AppArguments, environment: &Environment) -> u8 {
    roles::name_process("examine");
    if let Err(error) = compile::become_bounded() {
        return roles::fail("examine", &error);
    }
    let mut begins = |origin: &str, _: &str| {
        output::json(&Word::Begins(origin.to_owned()));
        compile::renew_computing_time();
    };
    let compilation = Compilation { keep: Keep::InDataFolder, begins: &mut begins, in_force: None };
    let found = match load_app(&arguments.folder, &arguments.overrides(), environment, compilation) {
        Ok(App { warnings, .. }) => Examined::Valid { warnings },
        Err(mistakes) => Examined::Mistaken(mistakes),
    };
    output::json(&Word::Found(found));
    exit::FINE
}

/// Has a helper look at the app, which has so much time for each component. Its death is a mistake of the app.
///
/// # Errors
/// The operating system gives no process.
pub(crate) fn app(arguments: &AppArguments, time: Option<Duration>) -> io::Result<Examined> {
    let mut command = Command::new(RUNNING_IMAGE);
    command.arg0("aegis").arg("examine").args(arguments.compile_arguments());
    let mut helper = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let heard = hear(&mut helper, time.unwrap_or(USUAL_TIME));
    // It has nothing more to do, and nobody waits any longer.
    let _ = helper.kill();
    let status = helper.wait()?;
    let Heard { found, working_on, is_late } = heard?;
    if let Some(found) = found {
        return Ok(found);
    }
    let exit = match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(0)),
    };
    let reason = if is_late { format!("{} ({LATE})", exit.describe()) } else { exit.describe() };
    let (told, _) = unanswered(working_on.as_deref(), Some(exit), reason);
    Ok(Examined::Mistaken(Mistakes { lines: vec![told], blame: Blame::App }))
}

/// What was heard of a helper.
#[derive(Debug, Default)]
struct Heard {
    found: Option<Examined>,
    working_on: Option<String>,
    is_late: bool,
}

/// Listens to the helper until it has told what it found, is gone, or has been silent for too long.
fn hear(helper: &mut Child, time: Duration) -> io::Result<Heard> {
    let mut heard = Heard::default();
    let Some(mut words) = helper.stdout.take() else { return Ok(heard) };
    let mut deadline = Instant::now() + time;
    let (mut line, mut piece) = (Vec::new(), [0; 4096]);
    let mut bytes = 0;
    while bytes <= WORDS_BYTES_MAX {
        if !is_readable(&words, deadline.saturating_duration_since(Instant::now()))? {
            heard.is_late = Instant::now() >= deadline;
            if heard.is_late {
                return Ok(heard);
            }
            continue;
        }
        let count = words.read(&mut piece)?;
        if count == 0 {
            return Ok(heard);
        }
        bytes += count;
        line.extend_from_slice(&piece[..count]);
        while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            match serde_json::from_slice(&line[..end])? {
                Word::Begins(origin) => {
                    heard.working_on = Some(origin);
                    deadline = Instant::now() + time;
                }
                Word::Found(found) => return Ok(Heard { found: Some(found), ..heard }),
            }
            line.drain(..=end);
        }
    }
    Ok(heard)
}

fn is_readable(words: &ChildStdout, time: Duration) -> io::Result<bool> {
    let mut polled = [PollFd::new(words.as_fd(), PollFlags::POLLIN)];
    // A pause that was rounded down to nothing would be no pause.
    let pause = time + Duration::from_millis(1);
    match poll(&mut polled, PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX)) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::Error::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
