//! Every variable of the environment that means something, one documented constant each.
//!
//! The name of a setting's variable is `AEGIS_` and its key path with `_` for `.`, but for [`WORKERS`]. An empty
//! variable is the same as none. Names that start with `AEGIS_` and are not listed here are warned about, not
//! refused: container platforms add such names by themselves for a service called `aegis`.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

/// The variables of a process by name.
pub type Environment = BTreeMap<String, OsString>;

/// Takes over those variables whose name is text; the others cannot be ours.
pub fn collect(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Environment {
    let named = variables.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    named.collect()
}

/// The value of a variable, unless it is empty.
pub(crate) fn get<'a>(environment: &'a Environment, name: &str) -> Option<&'a OsStr> {
    environment.get(name).map(OsString::as_os_str).filter(|value| !value.is_empty())
}

/// Prefix of our own names.
pub const PREFIX: &str = "AEGIS_";
/// Set by the supervisor for its children: which descriptors they inherit. Not for people.
pub const HANDOFF: &str = "AEGIS_HANDOFF";

/// Addresses that serve the API, separated by commas.
pub const LISTEN: &str = "AEGIS_LISTEN";
/// Unix socket that serves operators over HTTP.
pub const ADMIN_SOCKET: &str = "AEGIS_ADMIN_SOCKET";
/// Loopback address that serves operators as well, or `none`.
pub const ADMIN_LISTEN: &str = "AEGIS_ADMIN_LISTEN";
/// Whether operators are served on the public addresses too.
pub const ADMIN_ON_PUBLIC: &str = "AEGIS_ADMIN_ON_PUBLIC";
/// Unix socket for commands such as `aegis status`.
pub const CONTROL_SOCKET: &str = "AEGIS_CONTROL_SOCKET";
/// Folder with the modules.
pub const MODULES_DIR: &str = "AEGIS_MODULES_DIR";
/// Folder with everything durable.
pub const DATA_DIR: &str = "AEGIS_DATA_DIR";
/// Base path of the API.
pub const API_ROOT: &str = "AEGIS_API_ROOT";
/// Where models keep their documents unless they say otherwise: `memory` or `file`.
pub const DATASOURCE: &str = "AEGIS_DATASOURCE";
/// Number of worker processes, or `auto`.
pub const WORKERS: &str = "AEGIS_WORKERS";
/// Runtime threads of each worker, or `auto`.
pub const WORKERS_THREADS: &str = "AEGIS_WORKERS_THREADS";
/// Extra workers during a rollout.
pub const WORKERS_SURGE: &str = "AEGIS_WORKERS_SURGE";
/// Time a new worker has to become ready.
pub const WORKERS_READY_TIMEOUT: &str = "AEGIS_WORKERS_READY_TIMEOUT";
/// Time workers have to finish after the supervisor was killed.
pub const WORKERS_ORPHAN_GRACE: &str = "AEGIS_WORKERS_ORPHAN_GRACE";
/// Largest request body.
pub const LIMITS_BODY_BYTES_MAX: &str = "AEGIS_LIMITS_BODY_BYTES_MAX";
/// Largest request head.
pub const LIMITS_HEADER_BYTES_MAX: &str = "AEGIS_LIMITS_HEADER_BYTES_MAX";
/// Most header fields of a request.
pub const LIMITS_HEADERS_MAX: &str = "AEGIS_LIMITS_HEADERS_MAX";
/// Longest request target.
pub const LIMITS_URI_BYTES_MAX: &str = "AEGIS_LIMITS_URI_BYTES_MAX";
/// Most documents in one batch.
pub const LIMITS_BATCH_DOCUMENTS_MAX: &str = "AEGIS_LIMITS_BATCH_DOCUMENTS_MAX";
/// Open connections per worker.
pub const LIMITS_CONNECTIONS_MAX: &str = "AEGIS_LIMITS_CONNECTIONS_MAX";
/// Requests being answered per worker.
pub const LIMITS_REQUESTS_IN_FLIGHT_MAX: &str = "AEGIS_LIMITS_REQUESTS_IN_FLIGHT_MAX";
/// Concurrent streams of one HTTP/2 connection.
pub const LIMITS_HTTP2_STREAMS_MAX: &str = "AEGIS_LIMITS_HTTP2_STREAMS_MAX";
/// Time for a request head to arrive.
pub const LIMITS_HEADER_TIMEOUT: &str = "AEGIS_LIMITS_HEADER_TIMEOUT";
/// Time for a whole request.
pub const LIMITS_REQUEST_TIMEOUT: &str = "AEGIS_LIMITS_REQUEST_TIMEOUT";
/// Time a write may wait for the store.
pub const LIMITS_WRITE_TIMEOUT: &str = "AEGIS_LIMITS_WRITE_TIMEOUT";
/// Time a connection may be idle between requests.
pub const LIMITS_IDLE_TIMEOUT: &str = "AEGIS_LIMITS_IDLE_TIMEOUT";
/// Open event streams per worker.
pub const LIMITS_STREAMS_MAX: &str = "AEGIS_LIMITS_STREAMS_MAX";
/// Requests per second that one client is served.
pub const LIMITS_REQUESTS_PER_SECOND: &str = "AEGIS_LIMITS_REQUESTS_PER_SECOND";
/// Requests that one client may have served at once, or `auto`.
pub const LIMITS_REQUESTS_BURST: &str = "AEGIS_LIMITS_REQUESTS_BURST";
/// How changed modules come into force: `rolling`.
pub const RELOAD_MODE: &str = "AEGIS_RELOAD_MODE";
/// Whether a changed file of the app reloads it.
pub const RELOAD_WATCH: &str = "AEGIS_RELOAD_WATCH";
/// How often the sources of modules are asked whether something was published.
pub const RELOAD_POLL: &str = "AEGIS_RELOAD_POLL";
/// File with what webhooks that reload are signed with.
pub const RELOAD_WEBHOOK_SECRET_FILE: &str = "AEGIS_RELOAD_WEBHOOK_SECRET_FILE";
/// Time the first new worker serves before it is judged.
pub const RELOAD_CANARY_TIME: &str = "AEGIS_RELOAD_CANARY_TIME";
/// Requests it takes to judge error rate and latency.
pub const RELOAD_CANARY_REQUESTS_MIN: &str = "AEGIS_RELOAD_CANARY_REQUESTS_MIN";
/// How much larger the share of 5xx answers may be.
pub const RELOAD_ERROR_RATE_MARGIN: &str = "AEGIS_RELOAD_ERROR_RATE_MARGIN";
/// How many times longer the p99 may be.
pub const RELOAD_LATENCY_FACTOR_MAX: &str = "AEGIS_RELOAD_LATENCY_FACTOR_MAX";
/// Time to validate the app.
pub const RELOAD_PROBE_TIMEOUT: &str = "AEGIS_RELOAD_PROBE_TIMEOUT";
/// Time a leaving worker has to finish.
pub const DRAIN_TIMEOUT: &str = "AEGIS_DRAIN_TIMEOUT";
/// Last part of it, over which idle connections are closed.
pub const DRAIN_SPREAD: &str = "AEGIS_DRAIN_SPREAD";
/// First delay before a crashed worker is started again.
pub const RESTART_DELAY_MIN: &str = "AEGIS_RESTART_DELAY_MIN";
/// Longest such delay.
pub const RESTART_DELAY_MAX: &str = "AEGIS_RESTART_DELAY_MAX";
/// A worker that lived this long was healthy.
pub const RESTART_HEALTHY_AFTER: &str = "AEGIS_RESTART_HEALTHY_AFTER";
/// This long without a crash forgets the delay.
pub const RESTART_RESET_AFTER: &str = "AEGIS_RESTART_RESET_AFTER";
/// Crashes that mean a crash loop, or `auto`.
pub const RESTART_CRASH_LOOP_COUNT: &str = "AEGIS_RESTART_CRASH_LOOP_COUNT";
/// Time within which they count.
pub const RESTART_CRASH_LOOP_WINDOW: &str = "AEGIS_RESTART_CRASH_LOOP_WINDOW";
/// Resident memory above which a worker is replaced, or `none`.
pub const RECYCLE_MEMORY_BYTES_MAX: &str = "AEGIS_RECYCLE_MEMORY_BYTES_MAX";
/// Answered requests after which a worker is replaced, or `none`.
pub const RECYCLE_REQUESTS_MAX: &str = "AEGIS_RECYCLE_REQUESTS_MAX";
/// Silence that makes a worker suspect.
pub const HANG_SUSPECT_AFTER: &str = "AEGIS_HANG_SUSPECT_AFTER";
/// Silence that has a worker killed.
pub const HANG_KILL_AFTER: &str = "AEGIS_HANG_KILL_AFTER";
/// Document bodies kept per worker.
pub const CACHE_BYTES_MAX: &str = "AEGIS_CACHE_BYTES_MAX";
/// Bodies kept per worker and model, or `none`.
pub const CACHE_DOCUMENTS_MAX: &str = "AEGIS_CACHE_DOCUMENTS_MAX";
/// Changes kept for subscribers that resume.
pub const STORE_LOG_CHANGES_MIN: &str = "AEGIS_STORE_LOG_CHANGES_MIN";
/// Time the answer to an idempotent request is kept.
pub const STORE_IDEMPOTENCY_TIME: &str = "AEGIS_STORE_IDEMPOTENCY_TIME";
/// Most writes in one group commit.
pub const STORE_GROUP_WRITES_MAX: &str = "AEGIS_STORE_GROUP_WRITES_MAX";
/// Most writes waiting for the store.
pub const STORE_QUEUE_WRITES_MAX: &str = "AEGIS_STORE_QUEUE_WRITES_MAX";
/// Feed waiting for one worker before it must read the log again.
pub const STORE_FEED_BYTES_MAX: &str = "AEGIS_STORE_FEED_BYTES_MAX";
/// Block cache of the storage engine.
pub const STORE_ENGINE_CACHE_BYTES: &str = "AEGIS_STORE_ENGINE_CACHE_BYTES";
/// Documents a filter without an index may look at.
pub const QUERY_SCAN_MAX: &str = "AEGIS_QUERY_SCAN_MAX";
/// Length of a list unless the client says.
pub const QUERY_LIMIT_DEFAULT: &str = "AEGIS_QUERY_LIMIT_DEFAULT";
/// Largest length a client may ask for.
pub const QUERY_LIMIT_MAX: &str = "AEGIS_QUERY_LIMIT_MAX";
/// Threads of each worker for commands that compute for long, or `auto`.
pub const WASM_CPU_THREADS: &str = "AEGIS_WASM_CPU_THREADS";
/// Such commands that wait for a thread.
pub const WASM_CPU_QUEUE_MAX: &str = "AEGIS_WASM_CPU_QUEUE_MAX";
/// Which modules must be signed, or `auto`.
pub const TRUST_REQUIRE: &str = "AEGIS_TRUST_REQUIRE";
/// Whether every request to the API needs a token, or `auto`.
pub const AUTH_ENABLED: &str = "AEGIS_AUTH_ENABLED";
/// File with the secret that tokens are signed with, or `none`.
pub const AUTH_SECRET_FILE: &str = "AEGIS_AUTH_SECRET_FILE";
/// File with the public keys of whoever signs tokens, or `none`.
pub const AUTH_KEYS_FILE: &str = "AEGIS_AUTH_KEYS_FILE";
/// What tokens must name as their issuer, or `none`.
pub const AUTH_ISSUER: &str = "AEGIS_AUTH_ISSUER";
/// Whom tokens must be meant for, or `none`.
pub const AUTH_AUDIENCE: &str = "AEGIS_AUTH_AUDIENCE";
/// How far the clocks of host and issuer may be apart.
pub const AUTH_LEEWAY: &str = "AEGIS_AUTH_LEEWAY";
/// The claim that holds the roles of the caller.
pub const AUTH_ROLES_CLAIM: &str = "AEGIS_AUTH_ROLES_CLAIM";
/// How much is logged: a level, or levels per target.
pub const LOG_LEVEL: &str = "AEGIS_LOG_LEVEL";
/// `text` or `json`.
pub const LOG_FORMAT: &str = "AEGIS_LOG_FORMAT";
/// File that log lines are appended to, or `none` for standard error.
pub const LOG_FILE: &str = "AEGIS_LOG_FILE";
/// Whether every request is logged.
pub const LOG_REQUESTS: &str = "AEGIS_LOG_REQUESTS";
