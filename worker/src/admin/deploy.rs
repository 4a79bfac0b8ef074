//! `POST {api_root}/deploy`: another version of one module, and everything else as it is.
//!
//! ```json
//! {"module": "order", "source": "https://modules.example.com/order/", "sha256": "…", "force": false}
//! ```
//!
//! `?mode=` is as with `POST {api_root}/reload`. Without `source` it is taken from where the app says. `share`, `promote`
//! or `abort` make it a step of a trial (see `docs/deploy.md`).

use std::{sync::atomic::Ordering, time::Instant};

use aegis_config::ModuleSource;
use aegis_domain::{FieldError, Problem, ProblemCode, json, trial::check_share};
use aegis_ipc::{
    board::Counter,
    deploy::{Member, NAME_BYTES_MAX, Order, Supply, TrialStep},
    operator,
};
use http::{Response, request::Parts};
use serde_json::{Map, Value};

use super::jobs::{self, Wishes};
use crate::{
    host::Host,
    request::{self, RequestBody},
    response::{Envelope, Outgoing},
};

/// What an order may say.
const FIELDS: [&str; 7] = ["module", "source", "sha256", "force", "share", "promote", "abort"];
/// Characters of a SHA-256 in hexadecimal.
const DIGEST_CHARACTERS: usize = 64;
/// Characters of something found that are repeated.
const FOUND_CHARACTERS_MAX: usize = 100;

/// Deploys what the body names; with `wait=true` the answer is the verdict, with `mode` it goes that way this time. The
/// caller has checked that an operator asks.
pub(crate) async fn answer(
    host: &Host,
    (parts, body): (&Parts, &mut RequestBody),
    envelope: &Envelope<'_>,
    begun: Instant,
) -> Result<Response<Outgoing>, Problem> {
    let mut order = {
        let limits = &host.config.limits;
        let _admitted = host.load.admit()?;
        request::media_type(&parts.headers, false)?;
        let body = body.read(limits.body_bytes_max, begun + limits.request_timeout).await?;
        host.cell.counter(Counter::BytesIn).fetch_add(body.len() as u64, Ordering::Relaxed);
        read(&json::parse(&body)?)?
    };
    if order.supply == Supply::App && host.members.iter().all(|member| member.name != order.module) {
        return Err(unknown(&order.module, &host.members));
    }
    let Wishes { wait, mode } = Wishes::read(parts.uri.query().unwrap_or_default())?;
    order.mode = mode;
    jobs::begin(host, wait, (jobs::DEPLOY, operator::Request::Deploy { order, wait }), envelope).await
}

fn unknown(name: &str, members: &[Member]) -> Problem {
    let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
    let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let detail = format!("there is no module {name:?}, there are: {there}; with a source it is added");
    Problem::new(ProblemCode::NoSuchModule, detail)
}

/// What is asked for, or everything that is wrong with it.
fn read(body: &Value) -> Result<Order, Problem> {
    let mut errors = Vec::new();
    let nothing = Map::new();
    let fields = body.as_object().unwrap_or(&nothing);
    let mut wrong = |name: &str, found: Option<&Value>, expected: &str| {
        let found = found.map_or_else(|| "nothing".to_owned(), shown);
        let path = if name.is_empty() { String::new() } else { format!("/{name}") };
        errors.push(FieldError { path, message: format!("found {found}, expected {expected}") });
    };
    if !body.is_object() {
        wrong("", Some(body), "an object with the module to deploy");
    }
    for (name, value) in fields {
        if !FIELDS.contains(&name.as_str()) {
            wrong(name, Some(value), &format!("one of {}", FIELDS.join(", ")));
        }
    }
    let module = fields.get("module").and_then(Value::as_str).filter(|name| is_name(name));
    if module.is_none() && body.is_object() {
        wrong("module", fields.get("module"), "the name of a module");
    }
    let sha256 = fields.get("sha256").and_then(Value::as_str).and_then(digest);
    if let Some(value) = fields.get("sha256").filter(|_| sha256.is_none()) {
        wrong("sha256", Some(value), "64 hexadecimal digits");
    }
    let force = fields.get("force").map_or(Some(false), Value::as_bool);
    if force.is_none() {
        wrong("force", fields.get("force"), "true or false");
    }
    let trial = trial_step(fields, &mut wrong);
    let mut supply = Supply::App;
    if let Some(value) = fields.get("source") {
        // A digest that is wrong has been told already.
        let claimed = fields.contains_key("sha256").then_some("");
        match value.as_str().map(|source| (source, ModuleSource::read(source, claimed, None))) {
            Some((source, Ok(_))) => supply = Supply::Source(source.to_owned()),
            Some((_, Err(message))) => errors.push(FieldError { path: "/source".to_owned(), message }),
            None => wrong("source", Some(value), "an address"),
        }
    }
    match (module, errors.is_empty()) {
        (Some(module), true) => {
            let (module, force) = (module.to_owned(), force.unwrap_or_default());
            Ok(Order { module, supply, sha256, force, mode: None, trial })
        }
        _ => {
            let detail = "this is no order to deploy a module; the errors say why";
            Err(Problem::new(ProblemCode::Invalid, detail).with_errors(errors))
        }
    }
}

/// What is to become of a trial, if anything; an order is one step.
fn trial_step(
    fields: &Map<String, Value>,
    wrong: &mut impl FnMut(&str, Option<&Value>, &str),
) -> Option<TrialStep> {
    let mut steps = Vec::new();
    if let Some(value) = fields.get("share") {
        match value.as_u64().and_then(|share| check_share(share).ok()) {
            Some(share) => steps.push(("share", TrialStep::Share(share))),
            None => wrong("share", Some(value), "a whole number of percent, 1 to 99"),
        }
    }
    for (name, step) in [("promote", TrialStep::Promote), ("abort", TrialStep::Abort { reason: None })] {
        match fields.get(name).map(Value::as_bool) {
            Some(Some(true)) => {
                steps.push((name, step));
                if let Some(source) = fields.get("source") {
                    wrong("source", Some(source), &format!("none with {name}"));
                }
            }
            Some(None) => wrong(name, fields.get(name), "true or false"),
            None | Some(Some(false)) => {}
        }
    }
    for (name, _) in steps.iter().skip(1) {
        wrong(name, fields.get(*name), "one of share, promote and abort only");
    }
    if let Some((name, _)) = steps.first()
        && fields.get("force") == Some(&Value::Bool(true))
    {
        wrong("force", fields.get("force"), &format!("none with {name}"));
    }
    steps.into_iter().next().map(|(_, step)| step)
}

fn shown(value: &Value) -> String {
    value.to_string().chars().take(FOUND_CHARACTERS_MAX).collect()
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.starts_with('.') && !name.contains(['/', '\0'])
}

fn digest(text: &str) -> Option<String> {
    let digits = text.to_ascii_lowercase();
    let is_digest = digits.len() == DIGEST_CHARACTERS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then_some(digits)
}
