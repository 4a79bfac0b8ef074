//! What operators ask over HTTP: is it alive, how is it doing, what does it serve, and would it please reload.

mod deploy;
mod details;
mod jobs;
mod metrics;
mod page;
mod webhook;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use aegis_domain::{Problem, ProblemCode};
use aegis_ipc::board::{StoreWord, monotonic_ms};
use bytes::Bytes;
use http::{Response, StatusCode, request::Parts};
use serde_json::json;

use crate::{
    connection::Link,
    host::Host,
    response::{Envelope, Outgoing},
    route::Place,
};

pub(crate) use deploy::answer as answer_deploy;
pub(crate) use webhook::answer as answer_webhook;

/// Content type of the metrics (Prometheus text format 0.0.4).
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// A store may be silent for so many times as long as a worker before that is told: it is while it syncs.
const STORE_SILENCE_FACTOR: u32 = 3;

/// Answers a request to a place that is not a model's. The caller has checked method and audience.
pub(crate) async fn answer(
    host: &Arc<Host>,
    link: &Link,
    place: &Place<'_, '_>,
    parts: &Parts,
    envelope: &Envelope<'_>,
) -> Result<Response<Outgoing>, Problem> {
    let query = parts.uri.query().unwrap_or_default();
    match place {
        Place::Alive => Ok(envelope.json(StatusCode::OK, &json!({"status": "ok"}))),
        Place::Ready => Ok(readiness(host, envelope)),
        Place::Metrics => {
            let text = metrics::render(&host.board);
            Ok(envelope.page(StatusCode::OK, METRICS_TYPE, Bytes::from(text)))
        }
        Place::PublicConfig => {
            let for_operators = link.lets_operators_in(parts) || host.config.admin_on_public;
            let view = if for_operators { host.config.operator_view() } else { host.config.public_view() };
            Ok(envelope.json(StatusCode::OK, &view))
        }
        Place::Details => details::answer(host, query, envelope).await,
        Place::Reload => jobs::reload(host, query, jobs::Origin::Operator, envelope).await,
        Place::Job(job) => jobs::state(host, job, envelope).await,
        Place::Collection(_)
        | Place::Deploy
        | Place::Document(..)
        | Place::Command(..)
        | Place::Events
        | Place::Service(_) => Err(Problem::new(
            ProblemCode::Internal,
            "a place that has a body was routed to where none is read",
        )),
    }
}

/// Whether the store has shown no sign of life for too long.
fn is_store_silent(host: &Host) -> bool {
    let beat_ms = host.board.store(StoreWord::Beat).load(Ordering::Relaxed);
    let silence = Duration::from_millis(monotonic_ms().saturating_sub(beat_ms));
    // Without any beat there is nothing to judge by.
    beat_ms > 0 && silence >= host.config.hang.suspect_after.saturating_mul(STORE_SILENCE_FACTOR)
}

/// Whether new requests should come here.
fn readiness(host: &Host, envelope: &Envelope<'_>) -> Response<Outgoing> {
    let data = host.engine.data();
    let obstacle = if host.leaving.has_begun() {
        Some("draining")
    } else if !data.is_ready() {
        Some("loading")
    } else if !data.is_connected() {
        Some("store away")
    } else if is_store_silent(host) {
        Some("store silent")
    } else {
        None
    };
    let status = if obstacle.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    envelope.json(status, &json!({"status": obstacle.unwrap_or("ready")}))
}
