//! `{api_root}/config?details=…`: what this host serves and how it is doing, as arrays.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use aegis_domain::{
    Problem, ProblemCode,
    breaker::Stand,
    catalog::{Command, Model},
    event::EventKind,
    format_timestamp,
    route::{Base, Route},
    service::ServiceSpec,
    trial::Variant,
};
use aegis_ipc::{
    board::{BEATS, Cell, Counter, Gauge, monotonic_ms},
    deploy::{Deployed, Offers, Tried},
};
use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::page;
use crate::{
    host::Host,
    request,
    response::{Envelope, Outgoing},
};

const KINDS: &[&str] = &[
    "models",
    "data",
    "events",
    "threads",
    "relations",
    "commands",
    "routes",
    "ports",
    "modules",
    "workers",
];

/// Time that all code together has to say whether it is well.
const HEALTH_TIME: Duration = Duration::from_secs(2);

/// Answers with the rows asked for.
pub(super) async fn answer(
    host: &Host,
    query: &str,
    envelope: &Envelope<'_>,
) -> Result<Response<Outgoing>, Problem> {
    let (mut kind, mut model, mut as_page) = ("models".to_owned(), None, false);
    for (name, value) in request::single_pairs(query, &["details", "modelName", "html"])? {
        match name {
            "details" => kind = value,
            "modelName" => model = Some(value.to_ascii_uppercase()),
            _ => as_page = request::flag(name, &value)?,
        }
    }
    if let Some(name) = &model
        && host.catalog.by_name(name).is_none()
    {
        let quoted: String = name.chars().take(100).collect();
        return Err(Problem::new(ProblemCode::NoSuchModel, format!("no model has the name {quoted:?}")));
    }
    let models: Vec<&Model> = host
        .catalog
        .models()
        .iter()
        .map(AsRef::as_ref)
        .filter(|known: &&Model| model.as_ref().is_none_or(|wanted| wanted == known.name()))
        .collect();
    let mut rows = rows(host, &kind, &models)?;
    if kind == "modules" {
        add_health(host, &models, &mut rows).await;
        // A service has no model: who asks about one does not mean it.
        let services = host.services.iter().filter(|_| model.is_none());
        rows.extend(services.map(|service| describe_service(host, service)));
    }
    if as_page {
        let text = page::table(&format!("Ægis {kind}"), &rows);
        return Ok(envelope.page(StatusCode::OK, "text/html; charset=utf-8", Bytes::from(text)));
    }
    Ok(envelope.json(StatusCode::OK, &rows))
}

fn rows(host: &Host, kind: &str, models: &[&Model]) -> Result<Vec<Value>, Problem> {
    Ok(match kind {
        "models" => models.iter().map(|model| describe_model(host, model)).collect(),
        "data" => data(host, models),
        "events" => models.iter().flat_map(|model| events(host, model)).collect(),
        "threads" => threads(host),
        "commands" => models.iter().map(|model| describe_commands(host, model)).collect(),
        "routes" => models.iter().map(|model| describe_routes(host, model)).collect(),
        // No module declares any of them yet.
        "relations" | "ports" => {
            models.iter().map(|model| json!({"modelName": model.name(), kind: []})).collect()
        }
        "modules" => models.iter().map(|model| describe_module(host, model)).collect(),
        "workers" => workers(host),
        other => {
            let quoted: String = other.chars().take(100).collect();
            let detail = format!("parameter details: found {quoted:?}, expected one of {}", KINDS.join(", "));
            return Err(Problem::new(ProblemCode::BadParameter, detail));
        }
    })
}

fn describe_model(host: &Host, model: &Model) -> Value {
    let mut value = json!({
        "modelName": model.name(),
        "path": format!("{}/models/{}", host.config.api_root, model.endpoint()),
    });
    if let (Value::Object(row), Ok(Value::Object(spec))) = (&mut value, serde_json::to_value(model.spec())) {
        row.extend(spec.into_iter().filter(|(name, _)| name != "name"));
    }
    value
}

/// Asks the code of models whether it is well.
async fn add_health(host: &Host, models: &[&Model], rows: &mut [Value]) {
    let deadline = Instant::now() + HEALTH_TIME;
    for (model, row) in models.iter().zip(rows) {
        if let (Some(_), Value::Object(row)) = (&model.spec().code, row) {
            let ailment = host.engine.ailment(model, deadline).await;
            row.insert("health".to_owned(), json!(ailment.as_deref().unwrap_or("ok")));
        }
    }
}

/// What a model is made from: lines of a specification, or code.
fn describe_module(host: &Host, model: &Model) -> Value {
    let mut row = json!({
        "modelName": model.name(),
        "kind": "model",
        "form": if model.spec().code.is_some() { "component" } else { "declarative" },
        "generation": host.identity.generation,
        "digest": host.digest,
    });
    if let (Some(code), Value::Object(row)) = (&model.spec().code, &mut row) {
        row.insert("digest".to_owned(), json!(code.digest));
        row.insert("module".to_owned(), json!(code.module));
        row.insert("version".to_owned(), json!(code.version));
        row.insert("builtWith".to_owned(), json!(code.built_with));
        row.insert("hooks".to_owned(), json!(code.hooks));
        row.insert("limits".to_owned(), json!(code.limits));
        row.insert("instances".to_owned(), json!(host.engine.instances(model)));
        row.insert("breaker".to_owned(), describe_breaker(host, model, Variant::Current));
    }
    note_origin(host, &Offers::Model(model.name().to_owned()), &mut row);
    note_trial(host, model, &mut row);
    row
}

/// A component that answers requests itself.
fn describe_service(host: &Host, service: &ServiceSpec) -> Value {
    let mut row = json!({
        "name": service.name,
        "kind": "service",
        "form": "component",
        "generation": host.identity.generation,
        "digest": service.digest,
        "route": service.route,
        "limits": service.limits,
        "http": service.http,
    });
    note_origin(host, &Offers::Service(service.name.clone()), &mut row);
    row
}

fn note_origin(host: &Host, offers: &Offers, row: &mut Value) {
    let member = host.members.iter().find(|member| member.offers == *offers);
    let (Some(member), Value::Object(row)) = (member, row) else { return };
    if let Some(deployed) = &member.deployed {
        row.insert("deployed".to_owned(), describe_deployed(deployed));
    }
    if let Some(signed) = &member.signed {
        row.insert("signed".to_owned(), json!({"keys": signed.keys, "version": signed.version}));
    }
}

/// What is tried beside the code of a model.
fn note_trial(host: &Host, model: &Model, row: &mut Value) {
    let offers = Offers::Model(model.name().to_owned());
    let member = host.members.iter().find(|member| member.offers == offers);
    let tried = member.and_then(|member| member.trial.as_ref());
    if let (Some(tried), Value::Object(row)) = (tried, row) {
        row.insert("trial".to_owned(), describe_trial(host, model, tried));
    }
}

fn describe_breaker(host: &Host, model: &Model, variant: Variant) -> Value {
    json!(host.engine.stand(model, variant).map(describe_stand))
}

fn describe_stand(stand: Stand) -> &'static str {
    match stand {
        Stand::Closed => "closed",
        Stand::Open { .. } => "open",
        Stand::HalfOpen => "half-open",
    }
}

/// What a module is instead of what the app folder says.
fn describe_deployed(deployed: &Deployed) -> Value {
    let since_ms = u64::try_from(deployed.since_s).unwrap_or(0) * 1000;
    json!({"source": deployed.source, "sha256": deployed.sha256, "since": format_timestamp(since_ms)})
}

/// Which version is tried beside the one that the row is about.
fn describe_trial(host: &Host, model: &Model, tried: &Tried) -> Value {
    let mut row = describe_deployed(&tried.deployed);
    if let Value::Object(row) = &mut row {
        row.insert("sharePercent".to_owned(), json!(tried.share_percent));
        row.insert("version".to_owned(), json!(tried.version));
        row.insert("breaker".to_owned(), describe_breaker(host, model, Variant::Trial));
    }
    row
}

fn describe_commands(host: &Host, model: &Model) -> Value {
    let one = |command: &Command| {
        let spec = command.spec();
        json!({
            "name": command.name(),
            "description": spec.description,
            "path": format!("{}/models/{}/{{id}}/{}", host.config.api_root, model.endpoint(), command.name()),
            "effect": spec.effect,
            "place": spec.place,
            "arguments": spec.arguments,
            "allow": spec.allow,
            "disabled": spec.disabled,
        })
    };
    json!({"modelName": model.name(), "commands": model.commands().iter().map(one).collect::<Vec<_>>()})
}

fn describe_routes(host: &Host, model: &Model) -> Value {
    let one = |route: &Route| {
        let (spec, pattern) = (route.spec(), route.pattern());
        let path = match pattern.base() {
            Base::Model => {
                let below = pattern.as_str().trim_end_matches('/');
                format!("{}/models/{}{below}", host.config.api_root, model.endpoint())
            }
            Base::Root => pattern.as_str().replacen("//", "/", 1),
        };
        json!({
            "method": spec.method,
            "path": path,
            "place": spec.place,
            "openapi": spec.openapi,
            "public": spec.public,
            "allow": spec.allow,
            "disabled": spec.disabled,
        })
    };
    json!({"modelName": model.name(), "routes": model.routes().iter().map(one).collect::<Vec<_>>()})
}

/// Documents of each model, in all and in this worker's cache.
fn data(host: &Host, models: &[&Model]) -> Vec<Value> {
    let statistics = host.engine.data().statistics();
    models
        .iter()
        .filter_map(|model| statistics.models.iter().find(|row| row.model_name == model.name()))
        .map(|row| {
            json!({
                "modelName": row.model_name,
                "total": row.documents,
                "cached": row.cached_documents,
                "bytes": row.cached_bytes,
            })
        })
        .collect()
}

/// Events of a model, with the event streams that this worker serves.
fn events(host: &Host, model: &Model) -> Vec<Value> {
    [EventKind::Create, EventKind::Update, EventKind::Delete]
        .map(|kind| {
            json!({
                "eventName": format!("{}{}", kind.as_str(), model.name()),
                "modelName": model.name(),
                "handlers": host.load.streams(),
            })
        })
        .into()
}

/// The runtimes of this worker.
fn threads(host: &Host) -> Vec<Value> {
    let now_ms = monotonic_ms();
    let threads = usize::try_from(gauge(&host.cell, Gauge::Threads)).unwrap_or(BEATS).min(BEATS);
    let age = |beat_ms: u64| now_ms.saturating_sub(beat_ms);
    let mut rows: Vec<Value> = (0..threads)
        .map(|thread| {
            let beat_ms = host.cell.beat(thread).load(Ordering::Relaxed);
            json!({"worker": worker(&host.cell), "thread": format!("runtime-{thread}"), "beatAgeMs": age(beat_ms)})
        })
        .collect();
    let beat_ms = gauge(&host.cell, Gauge::AcceptorBeat);
    rows.push(json!({"worker": worker(&host.cell), "thread": "acceptor", "beatAgeMs": age(beat_ms)}));
    if let Some(calls) = host.engine.cpu_calls() {
        rows.push(json!({"worker": worker(&host.cell), "thread": "cpu pool", "calls": calls}));
    }
    rows
}

/// All worker processes of the host, from the board.
fn workers(host: &Host) -> Vec<Value> {
    let answered = [
        Counter::Responses1xx,
        Counter::Responses2xx,
        Counter::Responses3xx,
        Counter::Responses4xx,
        Counter::Responses5xx,
    ];
    host.board
        .cells()
        .filter(|cell| gauge(cell, Gauge::Pid) != 0)
        .map(|cell| {
            let total: u64 = answered.iter().map(|which| cell.counter(*which).load(Ordering::Relaxed)).sum();
            json!({
                "worker": worker(&cell),
                "slot": gauge(&cell, Gauge::Slot),
                "generation": gauge(&cell, Gauge::Generation),
                "pid": gauge(&cell, Gauge::Pid),
                "accepting": gauge(&cell, Gauge::Accepting) == 1,
                "connections": gauge(&cell, Gauge::Connections),
                "inFlight": gauge(&cell, Gauge::InFlight),
                "requests": total,
                "applied": gauge(&cell, Gauge::Applied),
                "lag": host.board.durable().saturating_sub(gauge(&cell, Gauge::Applied)),
                "documents": gauge(&cell, Gauge::Documents),
                "cachedDocuments": gauge(&cell, Gauge::CachedDocuments),
                "cachedBytes": gauge(&cell, Gauge::CachedBytes),
            })
        })
        .collect()
}

fn worker(cell: &Cell) -> String {
    format!("{}.{}", gauge(cell, Gauge::Slot), gauge(cell, Gauge::Generation))
}

fn gauge(cell: &Cell, which: Gauge) -> u64 {
    cell.gauge(which).load(Ordering::Relaxed)
}
