//! Requests that are the supervisor's to carry out.

use std::time::{Duration, Instant};

use aegis_domain::{FieldError, Problem, ProblemCode};
use aegis_ipc::operator::{self, Job, ReloadMode, Reply, Verdict};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    host::Host,
    reporting::Answers,
    request,
    response::{Envelope, Outgoing},
};

/// What a job is called that deploys a module.
pub(super) const DEPLOY: &str = "deploy";
/// What a job is called that reloads.
const RELOAD: &str = "reload";
/// Time the supervisor has to take a request.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Longest time a client waits for a verdict; after that it is told where to ask.
const VERDICT_TIME: Duration = Duration::from_secs(600);
/// How often a waiting request looks whether this worker is about to end.
const LEAVE_CHECK: Duration = Duration::from_millis(200);
/// Time before the end of a drain at which a waiting request is told where to ask.
const LEAVE_MARGIN_MS: u64 = 1_000;

/// What a request for a job says beside what it is about.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Wishes {
    /// To be answered with the verdict.
    pub(super) wait: bool,
    /// How a new generation is to come into force.
    pub(super) mode: Option<ReloadMode>,
}

/// Whose idea a reload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// An operator's.
    Operator,
    /// Nobody's: something was published.
    Automatic,
}

impl Wishes {
    /// Reads a query in which there may be `wait` and `mode`.
    pub(super) fn read(query: &str) -> Result<Self, Problem> {
        let mut wishes = Self::default();
        for (name, value) in request::single_pairs(query, &["wait", "mode"])? {
            match (name, value.as_str()) {
                ("wait", _) => wishes.wait = request::flag(name, &value)?,
                (_, "rolling") => wishes.mode = Some(ReloadMode::Rolling),
                (_, "swap") => wishes.mode = Some(ReloadMode::Swap),
                _ => return Err(request::wrong_value(name, &value, "rolling or swap")),
            }
        }
        Ok(wishes)
    }
}

/// Starts a reload; with `wait=true` the answer is its verdict, with `mode` it is `rolling` or `swap` this time.
pub(super) async fn reload(
    host: &Host,
    query: &str,
    origin: Origin,
    envelope: &Envelope<'_>,
) -> Result<Response<Outgoing>, Problem> {
    let Wishes { wait, mode } = Wishes::read(query)?;
    let request = operator::Request::Reload { wait, mode, automatic: origin == Origin::Automatic };
    begin(host, wait, (RELOAD, request), envelope).await
}

/// Starts a job of this kind; who waits is answered with its verdict.
pub(super) async fn begin(
    host: &Host,
    wait: bool,
    (kind, request): (&str, operator::Request),
    envelope: &Envelope<'_>,
) -> Result<Response<Outgoing>, Problem> {
    let mut answers = host.supervisor.ask(request)?;
    let job = match next(&mut answers, ANSWER_TIME).await? {
        Reply::Accepted { job } => job,
        Reply::Job(job) if job.verdict.is_some() => return verdict(&job, host, envelope),
        Reply::Error { message } => return Err(Problem::new(refused(kind), message)),
        other => return Err(unexpected(&other)),
    };
    if wait && let Some(ended) = await_verdict(host, &mut answers).await {
        return verdict(&ended, host, envelope);
    }
    let state = json!({"job": job, "kind": kind, "state": "accepted"});
    Ok(located(envelope.json(StatusCode::ACCEPTED, &state), job, host))
}

/// Answers `GET {api_root}/jobs/{id}`.
pub(super) async fn state(
    host: &Host,
    job: &str,
    envelope: &Envelope<'_>,
) -> Result<Response<Outgoing>, Problem> {
    let unknown = || {
        let quoted: String = job.chars().take(40).collect();
        Problem::new(ProblemCode::NotFound, format!("there is no job {quoted:?}"))
    };
    let number: u64 = job.parse().map_err(|_| unknown())?;
    let mut answers = host.supervisor.ask(operator::Request::Job { job: number })?;
    match next(&mut answers, ANSWER_TIME).await? {
        Reply::Job(job) => Ok(envelope.json(StatusCode::OK, &describe(&job))),
        Reply::Error { .. } => Err(unknown()),
        other => Err(unexpected(&other)),
    }
}

async fn next(answers: &mut Answers<'_>, patience: Duration) -> Result<Reply, Problem> {
    match tokio::time::timeout(patience, answers.next()).await {
        Ok(Some(reply)) => Ok(reply),
        Ok(None) | Err(_) => Err(Problem::new(ProblemCode::Overloaded, "the supervisor does not answer")),
    }
}

/// The job once it has a verdict. `None`: it takes too long, or this worker has to leave first.
async fn await_verdict(host: &Host, answers: &mut Answers<'_>) -> Option<Job> {
    let end = Instant::now() + VERDICT_TIME;
    while Instant::now() < end {
        let leaves = host.leaving.drain().and_then(|drain| drain.remaining_ms(host.clock.now_ms()));
        if leaves.is_some_and(|remaining_ms| remaining_ms <= LEAVE_MARGIN_MS) {
            return None;
        }
        match tokio::time::timeout(LEAVE_CHECK, answers.next()).await {
            Ok(Some(Reply::Job(job))) if job.verdict.is_some() => return Some(job),
            Ok(Some(_)) | Err(_) => {}
            Ok(None) => return None,
        }
    }
    None
}

fn verdict(job: &Job, host: &Host, envelope: &Envelope<'_>) -> Result<Response<Outgoing>, Problem> {
    let refused = |detail: String| Problem::new(refused(&job.kind), detail);
    match &job.verdict {
        Some(Verdict::Rejected { reasons }) => {
            let detail = format!("the new generation was refused: {}", reasons.join("; "));
            Err(refused(detail).with_errors(each(reasons)))
        }
        Some(Verdict::Incompatible { reasons }) => {
            let detail = format!("others would notice the new version: {}", reasons.join("; "));
            Err(Problem::new(ProblemCode::Incompatible, detail).with_errors(each(reasons)))
        }
        Some(Verdict::RolledBack { reason }) => {
            Err(refused(format!("the new generation was rolled back: {reason}")))
        }
        Some(Verdict::Superseded) => {
            Err(refused(format!("the {} was ended by a stop or a newer request before it began", job.kind)))
        }
        Some(Verdict::Done | Verdict::Unchanged) | None => {
            Ok(located(envelope.json(StatusCode::OK, &describe(job)), job.job, host))
        }
    }
}

/// What it is called when a job of this kind is refused.
fn refused(kind: &str) -> ProblemCode {
    if kind == DEPLOY { ProblemCode::DeployRejected } else { ProblemCode::ReloadRejected }
}

fn each(reasons: &[String]) -> Vec<FieldError> {
    reasons.iter().map(|reason| FieldError { path: String::new(), message: reason.clone() }).collect()
}

fn describe(job: &Job) -> Value {
    let (state, reasons) = match &job.verdict {
        None => ("running", Vec::new()),
        Some(Verdict::Done) => ("done", Vec::new()),
        Some(Verdict::Unchanged) => ("unchanged", Vec::new()),
        Some(Verdict::Rejected { reasons }) => ("rejected", reasons.clone()),
        Some(Verdict::Incompatible { reasons }) => ("incompatible", reasons.clone()),
        Some(Verdict::RolledBack { reason }) => ("rolled-back", vec![reason.clone()]),
        Some(Verdict::Superseded) => ("superseded", Vec::new()),
    };
    json!({
        "job": job.job,
        "kind": job.kind,
        "state": state,
        "step": job.step,
        "generation": job.generation,
        "reasons": reasons,
    })
}

fn located(mut response: Response<Outgoing>, job: u64, host: &Host) -> Response<Outgoing> {
    if let Ok(value) = HeaderValue::from_str(&format!("{}/jobs/{job}", host.config.api_root)) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

fn unexpected(reply: &Reply) -> Problem {
    Problem::new(ProblemCode::Internal, format!("the supervisor answered something else: {reply:?}"))
}
