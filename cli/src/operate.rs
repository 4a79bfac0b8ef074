//! Commands to a running host.

use std::{
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    path::PathBuf,
    time::Duration,
};

use aegis_config::{Config, Environment, Overrides, default_socket};
use aegis_ipc::operator::{Job, Reply, Request, Status, StopMode, Verdict};
use aegis_supervisor::{exit, with_causes};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    arguments::{Host, absolute},
    client::{ANSWER_TIMEOUT, Client, ClientError, Incoming},
    output::{self, Form, listed},
    progress::Progress,
    status,
};

#[cfg(test)]
mod tests;

/// Exit status when the host refuses a request: the same as that of a reload it rejects.
const REFUSED: u8 = 3;
/// How often a waiting command looks at the clock.
const TICK: Duration = Duration::from_secs(1);

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The control socket cannot be told from the app folder.
    #[error("{}", listed("which socket to talk to cannot be told from the app folder (--control names it)", .0))]
    Unknown(Vec<String>),
    /// There is no answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nobody listens where the app folder says, which may say something else than when the host was started.
    #[error("{error} ({advice})")]
    Elsewhere {
        /// Who was not there.
        error: ClientError,
        /// Where the host may be.
        advice: String,
    },
    /// The host says no.
    #[error("refused: {0}")]
    Refused(String),
    /// The host says something that does not belong here.
    #[error("the host answered something else than was asked: {0}")]
    Unexpected(String),
    /// What the host says cannot be shown.
    #[error("writing to standard output failed")]
    Output(#[source] io::Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Unknown(_) => exit::CONFIGURATION,
            Self::Client(error) | Self::Elsewhere { error, .. } => error.exit_code(),
            Self::Refused(_) => REFUSED,
            Self::Unexpected(_) => exit::BUG,
            Self::Output(_) => exit::OS,
        }
    }
}

/// Carries out a request and prints what comes of it.
pub(crate) fn request(host: &Host, environment: &Environment, request: &Request, form: Form) -> u8 {
    let outcome = connect(host, environment).and_then(|mut client| {
        let mut progress = Progress::new(form);
        let outcome = carry_out(&mut client, request, &mut progress);
        progress.finish();
        outcome
    });
    tell(outcome, form)
}

/// Shows the state of the host until interrupted.
pub(crate) fn watch(host: &Host, environment: &Environment, form: Form) -> u8 {
    let outcome = connect(host, environment).and_then(|mut client| {
        client.send(&Request::Watch)?;
        show_changes(&mut client, form, &mut io::stdout(), TICK)
    });
    tell(outcome, form)
}

/// Shows states as they come, until the host is gone, or whoever sees them. Looks up every `tick`, so that the latter is noticed
/// while nothing changes, too.
fn show_changes(
    client: &mut Client,
    form: Form,
    screen: &mut (impl Write + AsFd + IsTerminal),
    tick: Duration,
) -> Result<Reply, Failure> {
    let (mut shown, mut quiet) = (String::new(), Duration::ZERO);
    loop {
        let incoming = client.receive(tick)?;
        quiet = if incoming == Incoming::Nothing { quiet + tick } else { Duration::ZERO };
        let written = match incoming {
            Incoming::Reply(Reply::Status(status)) => show_change(&status, form, &mut shown, screen),
            Incoming::Reply(Reply::Error { message }) => return Err(Failure::Refused(message)),
            Incoming::Reply(other) => return Err(unexpected(&other)),
            Incoming::Nothing if quiet < ANSWER_TIMEOUT => Ok(()),
            Incoming::Nothing => return Err(ClientError::Silent { path: client.path().to_owned() }.into()),
            Incoming::Closed => return Ok(Reply::Done),
        };
        // Whoever closes the pipe has seen enough, which is no error.
        if is_gone(screen) {
            return Ok(Reply::Done);
        }
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Reply::Done),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {} // it takes the next one
            Err(error) => return Err(Failure::Output(error)),
        }
    }
}

/// Whether nobody will see what is written there: the pipe is closed at its other end, or the terminal.
fn is_gone(screen: &impl AsFd) -> bool {
    // These are told without being asked for, and nothing else is.
    let mut polled = [PollFd::new(screen.as_fd(), PollFlags::empty())];
    poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// Connects to the host, or says where else it may be: what the configuration says now is not what it said when the host was
/// started, if that was changed since.
fn connect(host: &Host, environment: &Environment) -> Result<Client, Failure> {
    let path = socket(host, environment)?;
    let usual = default_socket(&absolute(&host.dir));
    Client::connect(&path).map_err(|error| match error {
        ClientError::NoHost { .. } if host.control.is_none() && path != usual => {
            let advice = if Client::connect(&usual).is_ok() {
                format!("the socket that the configuration names now; one listens on {}, which --control names", usual.display())
            } else {
                "the socket that the configuration names now; if it was changed since the host started, name the old one with --control".to_owned()
            };
            Failure::Elsewhere { error, advice }
        }
        error => error.into(),
    })
}

/// The control socket: named, or where the configuration of the app has it.
fn socket(host: &Host, environment: &Environment) -> Result<PathBuf, Failure> {
    if let Some(path) = &host.control {
        return Ok(absolute(path));
    }
    match Config::load(&absolute(&host.dir), &Overrides::default(), environment) {
        Ok(loaded) => Ok(loaded.config.control_socket),
        // A mistake elsewhere in the file must not keep the operator from the host that still runs.
        Err(errors) => {
            errors.certain().control_socket.clone().ok_or_else(|| Failure::Unknown(errors.lines()))
        }
    }
}

/// Sends a request and waits for the last answer to it.
fn carry_out(
    client: &mut Client,
    request: &Request,
    progress: &mut Progress<impl Write>,
) -> Result<Reply, Failure> {
    match client.ask(request)? {
        Reply::Error { message } => Err(Failure::Refused(message)),
        _ if matches!(request, Request::Stop { .. }) => {
            outlive(client, request, progress)?;
            Ok(Reply::Done)
        }
        Reply::Accepted { job } if matches!(request, Request::Deploy { wait: false, .. }) => {
            Ok(Reply::Accepted { job })
        }
        Reply::Accepted { job } => Ok(Reply::Job(follow(client, job, progress)?)),
        reply => Ok(reply),
    }
}

/// Waits for the outcome of a job, however long it takes, as long as the host shows that it is alive.
fn follow(client: &mut Client, number: u64, progress: &mut Progress<impl Write>) -> Result<Job, Failure> {
    follow_at(client, number, progress, TICK, ANSWER_TIMEOUT)
}

/// [`follow`] with another clock: looks up every `tick`, and asks after a silence of `patience`.
fn follow_at(
    client: &mut Client,
    number: u64,
    progress: &mut Progress<impl Write>,
    tick: Duration,
    patience: Duration,
) -> Result<Job, Failure> {
    let mut quiet = Duration::ZERO;
    loop {
        match client.receive(tick)? {
            Incoming::Reply(Reply::Job(job)) if job.job == number && job.verdict.is_some() => return Ok(job),
            Incoming::Reply(Reply::Job(job)) => progress.step(&job.step),
            Incoming::Reply(Reply::Progress { step, is_warning: true, .. }) => progress.warn(&step),
            Incoming::Reply(Reply::Progress { step, .. }) => progress.step(&step),
            Incoming::Reply(Reply::Error { message }) => return Err(Failure::Refused(message)),
            Incoming::Reply(other) => return Err(unexpected(&other)),
            Incoming::Closed => return Err(ClientError::Closed { path: client.path().to_owned() }.into()),
            Incoming::Nothing => {
                progress.tick();
                quiet += tick;
                if quiet == patience {
                    client.send(&Request::Job { job: number })?;
                }
                if quiet < patience * 2 {
                    continue;
                }
                return Err(ClientError::Silent { path: client.path().to_owned() }.into());
            }
        }
        quiet = Duration::ZERO;
    }
}

/// Waits until a host that was told to end has ended: it tells that all others have, and closes the connection with its last
/// breath. One that does only the latter was killed meanwhile, and what it was to end goes on.
fn outlive(
    client: &mut Client,
    request: &Request,
    progress: &mut Progress<impl Write>,
) -> Result<(), Failure> {
    progress.step(farewell(request));
    let mut has_verdict = false;
    loop {
        match client.receive(TICK)? {
            Incoming::Closed if has_verdict => return Ok(()),
            Incoming::Closed => return Err(ClientError::Closed { path: client.path().to_owned() }.into()),
            Incoming::Reply(Reply::Job(Job { verdict: Some(_), .. })) => has_verdict = true,
            Incoming::Reply(Reply::Progress { step, .. }) => progress.step(&step),
            Incoming::Reply(_) => {}
            Incoming::Nothing => progress.tick(),
        }
    }
}

/// What a host does that was told to end.
fn farewell(request: &Request) -> &'static str {
    match request {
        Request::Stop { mode: StopMode::Immediate } => "ending at once",
        _ => "finishing what is in flight",
    }
}

fn unexpected(reply: &Reply) -> Failure {
    Failure::Unexpected(serde_json::to_string(reply).unwrap_or_else(|error| error.to_string()))
}

fn tell(outcome: Result<Reply, Failure>, form: Form) -> u8 {
    match outcome {
        Ok(reply) => {
            show(&reply, form);
            match reply {
                Reply::Job(Job { verdict: Some(verdict), .. }) => verdict.exit_code(),
                _ => exit::FINE,
            }
        }
        Err(failure) => {
            // What standard output does not take is not told there.
            let form = if matches!(failure, Failure::Output(_)) { Form::Text } else { form };
            output::refuse(&with_causes(&failure), form);
            failure.exit_code()
        }
    }
}

/// One more state: a whole page on a terminal, a line elsewhere if it is another one than was `shown`.
fn show_change(
    state: &Status,
    form: Form,
    shown: &mut String,
    screen: &mut (impl Write + IsTerminal),
) -> io::Result<()> {
    let text = match form {
        Form::Json => serde_json::to_string(state)? + "\n",
        Form::Text if screen.is_terminal() => {
            let clear = "\x1b[H\x1b[J";
            format!("{clear}{}", status::render(state))
        }
        Form::Text if *shown == state.summary => return Ok(()),
        Form::Text => {
            shown.clone_from(&state.summary);
            format!("{}\n", state.summary)
        }
    };
    screen.write_all(text.as_bytes())?;
    screen.flush()
}

fn show(reply: &Reply, form: Form) {
    match (reply, form) {
        (Reply::Status(status), Form::Json) => output::json(status),
        (Reply::Job(job), Form::Json) => output::json(job),
        (reply, Form::Json) => output::json(reply),
        (Reply::Status(status), Form::Text) => output::result(&status::render(status)),
        (Reply::Job(job), Form::Text) => match job.verdict {
            Some(
                Verdict::Rejected { .. }
                | Verdict::Incompatible { .. }
                | Verdict::RolledBack { .. }
                | Verdict::Superseded,
            ) => {
                output::complain(&status::ended(job));
            }
            Some(Verdict::Done | Verdict::Unchanged) | None => output::result(&(status::ended(job) + "\n")),
        },
        (Reply::Accepted { job }, Form::Text) => output::result(&format!("accepted as job {job}\n")),
        (_, Form::Text) => {}
    }
}
