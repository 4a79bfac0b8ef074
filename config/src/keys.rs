//! Every setting once: its key path, its variable, its kind and bounds, its place in [`Config`].
//!
//! Reading, writing and listing are visitors of this one table, so they cannot disagree.

use std::time::Duration;

use crate::{
    defaults::{BURST_SECONDS_MAX, CPU_THREADS_MAX, REQUESTS_PER_SECOND_MAX, THREADS_MAX, WORKERS_MAX},
    environment,
    kind::{
        Addresses, Auto, BasePath, Choice, Count, Kind, Label, LogFilter, Loopback, Number, Optional, Path,
        Size, Switch, Time,
    },
    settings::{Config, Datasource, Limits, LogFormat, ReloadMode},
    trust::Signatures,
};

/// Most addresses to listen on: each is a descriptor of every worker.
const LISTEN_MAX: usize = 16;
/// First segments that belong to the host itself.
const RESERVED_PATHS: &[&str] = &["/livez", "/readyz", "/metrics", "/aegis.config.json"];

const DATASOURCES: &[(&str, Datasource)] = &[("memory", Datasource::Memory), ("file", Datasource::File)];
const RELOAD_MODES: &[(&str, ReloadMode)] = &[("rolling", ReloadMode::Rolling), ("swap", ReloadMode::Swap)];
const SIGNATURES: &[(&str, Signatures)] =
    &[("none", Signatures::None), ("remote", Signatures::Remote), ("all", Signatures::All)];
const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const ZERO: Duration = Duration::ZERO;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

const fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The names of one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Key path in the file.
    pub(crate) key: &'static str,
    /// Variable of the environment.
    pub(crate) variable: &'static str,
}

/// Something that is done to every setting.
pub(crate) trait Visit {
    /// Does it to one.
    fn visit<K: Kind>(&mut self, setting: Setting, kind: &K, value: &mut K::Value);
}

const fn of(key: &'static str, variable: &'static str) -> Setting {
    Setting { key, variable }
}

/// Visits every setting, in the order of the reference file.
pub(crate) fn walk(config: &mut Config, visitor: &mut impl Visit) {
    top(config, visitor);
    workers(config, visitor);
    limits(config, visitor);
    reload(config, visitor);
    drain(config, visitor);
    restart(config, visitor);
    recycle(config, visitor);
    hang(config, visitor);
    cache(config, visitor);
    store(config, visitor);
    query(config, visitor);
    wasm(config, visitor);
    visitor.visit(
        of("trust.require", environment::TRUST_REQUIRE),
        &Auto(Choice(SIGNATURES)),
        &mut config.trust.require,
    );
    auth(config, visitor);
    log(config, visitor);
}

fn top(config: &mut Config, visitor: &mut impl Visit) {
    visitor.visit(
        of("listen", environment::LISTEN),
        &Addresses { count_max: LISTEN_MAX },
        &mut config.listen,
    );
    visitor.visit(of("admin_socket", environment::ADMIN_SOCKET), &Path, &mut config.admin_socket);
    visitor.visit(
        of("admin_listen", environment::ADMIN_LISTEN),
        &Optional(Loopback),
        &mut config.admin_listen,
    );
    visitor.visit(of("admin_on_public", environment::ADMIN_ON_PUBLIC), &Switch, &mut config.admin_on_public);
    visitor.visit(of("control_socket", environment::CONTROL_SOCKET), &Path, &mut config.control_socket);
    visitor.visit(of("modules_dir", environment::MODULES_DIR), &Path, &mut config.modules_dir);
    visitor.visit(of("data_dir", environment::DATA_DIR), &Path, &mut config.data_dir);
    visitor.visit(
        of("api_root", environment::API_ROOT),
        &BasePath { reserved: RESERVED_PATHS },
        &mut config.api_root,
    );
    visitor.visit(of("datasource", environment::DATASOURCE), &Choice(DATASOURCES), &mut config.datasource);
}

fn workers(config: &mut Config, visitor: &mut impl Visit) {
    let workers = &mut config.workers;
    visitor.visit(
        of("workers.count", environment::WORKERS),
        &Auto(Count(1..=WORKERS_MAX)),
        &mut workers.count,
    );
    visitor.visit(
        of("workers.threads", environment::WORKERS_THREADS),
        &Auto(Count(1..=THREADS_MAX)),
        &mut workers.threads,
    );
    visitor.visit(of("workers.surge", environment::WORKERS_SURGE), &Count(1..=16), &mut workers.surge);
    visitor.visit(
        of("workers.ready_timeout", environment::WORKERS_READY_TIMEOUT),
        &Time(seconds(1)..=HOUR),
        &mut workers.ready_timeout,
    );
    visitor.visit(
        of("workers.orphan_grace", environment::WORKERS_ORPHAN_GRACE),
        &Time(ZERO..=HOUR),
        &mut workers.orphan_grace,
    );
}

fn limits(config: &mut Config, visitor: &mut impl Visit) {
    let limits = &mut config.limits;
    visitor.visit(
        of("limits.body_bytes_max", environment::LIMITS_BODY_BYTES_MAX),
        &Size(KIB..=16 * MIB),
        &mut limits.body_bytes_max,
    );
    visitor.visit(
        of("limits.header_bytes_max", environment::LIMITS_HEADER_BYTES_MAX),
        &Size(8 * KIB..=MIB),
        &mut limits.header_bytes_max,
    );
    visitor.visit(
        of("limits.headers_max", environment::LIMITS_HEADERS_MAX),
        &Count(16..=1024),
        &mut limits.headers_max,
    );
    visitor.visit(
        of("limits.uri_bytes_max", environment::LIMITS_URI_BYTES_MAX),
        &Size(256..=64 * KIB - 1),
        &mut limits.uri_bytes_max,
    );
    visitor.visit(
        of("limits.batch_documents_max", environment::LIMITS_BATCH_DOCUMENTS_MAX),
        &Count(1..=10_000),
        &mut limits.batch_documents_max,
    );
    visitor.visit(
        of("limits.connections_max", environment::LIMITS_CONNECTIONS_MAX),
        &Count(1..=1_000_000),
        &mut limits.connections_max,
    );
    visitor.visit(
        of("limits.requests_in_flight_max", environment::LIMITS_REQUESTS_IN_FLIGHT_MAX),
        &Count(1..=1_000_000),
        &mut limits.requests_in_flight_max,
    );
    visitor.visit(
        of("limits.http2_streams_max", environment::LIMITS_HTTP2_STREAMS_MAX),
        &Count(1..=10_000),
        &mut limits.http2_streams_max,
    );
    visitor.visit(
        of("limits.header_timeout", environment::LIMITS_HEADER_TIMEOUT),
        &Time(milliseconds(100)..=HOUR),
        &mut limits.header_timeout,
    );
    visitor.visit(
        of("limits.request_timeout", environment::LIMITS_REQUEST_TIMEOUT),
        &Time(milliseconds(100)..=DAY),
        &mut limits.request_timeout,
    );
    visitor.visit(
        of("limits.write_timeout", environment::LIMITS_WRITE_TIMEOUT),
        &Time(milliseconds(100)..=seconds(300)),
        &mut limits.write_timeout,
    );
    visitor.visit(
        of("limits.idle_timeout", environment::LIMITS_IDLE_TIMEOUT),
        &Time(seconds(1)..=DAY),
        &mut limits.idle_timeout,
    );
    visitor.visit(
        of("limits.streams_max", environment::LIMITS_STREAMS_MAX),
        &Count(0..=1_000_000),
        &mut limits.streams_max,
    );
    rate(limits, visitor);
}

fn rate(limits: &mut Limits, visitor: &mut impl Visit) {
    visitor.visit(
        of("limits.requests_per_second", environment::LIMITS_REQUESTS_PER_SECOND),
        &Count(0..=REQUESTS_PER_SECOND_MAX),
        &mut limits.requests_per_second,
    );
    visitor.visit(
        of("limits.requests_burst", environment::LIMITS_REQUESTS_BURST),
        &Auto(Count(0..=REQUESTS_PER_SECOND_MAX * BURST_SECONDS_MAX)),
        &mut limits.requests_burst,
    );
}

fn reload(config: &mut Config, visitor: &mut impl Visit) {
    let reload = &mut config.reload;
    visitor.visit(of("reload.mode", environment::RELOAD_MODE), &Choice(RELOAD_MODES), &mut reload.mode);
    visitor.visit(of("reload.watch", environment::RELOAD_WATCH), &Switch, &mut reload.watch);
    visitor.visit(
        of("reload.poll", environment::RELOAD_POLL),
        &Optional(Time(seconds(1)..=DAY)),
        &mut reload.poll,
    );
    visitor.visit(
        of("reload.webhook_secret_file", environment::RELOAD_WEBHOOK_SECRET_FILE),
        &Optional(Path),
        &mut reload.webhook_secret_file,
    );
    visitor.visit(
        of("reload.canary_time", environment::RELOAD_CANARY_TIME),
        &Time(ZERO..=HOUR),
        &mut reload.canary_time,
    );
    visitor.visit(
        of("reload.canary_requests_min", environment::RELOAD_CANARY_REQUESTS_MIN),
        &Count(0..=1_000_000_000),
        &mut reload.canary_requests_min,
    );
    visitor.visit(
        of("reload.error_rate_margin", environment::RELOAD_ERROR_RATE_MARGIN),
        &Number(0.0..=1.0),
        &mut reload.error_rate_margin,
    );
    visitor.visit(
        of("reload.latency_factor_max", environment::RELOAD_LATENCY_FACTOR_MAX),
        &Number(1.0..=1000.0),
        &mut reload.latency_factor_max,
    );
    visitor.visit(
        of("reload.probe_timeout", environment::RELOAD_PROBE_TIMEOUT),
        &Time(seconds(1)..=HOUR),
        &mut reload.probe_timeout,
    );
}

fn drain(config: &mut Config, visitor: &mut impl Visit) {
    let drain = &mut config.drain;
    visitor.visit(of("drain.timeout", environment::DRAIN_TIMEOUT), &Time(ZERO..=DAY), &mut drain.timeout);
    visitor.visit(of("drain.spread", environment::DRAIN_SPREAD), &Time(ZERO..=DAY), &mut drain.spread);
}

fn restart(config: &mut Config, visitor: &mut impl Visit) {
    let restart = &mut config.restart;
    visitor.visit(
        of("restart.delay_min", environment::RESTART_DELAY_MIN),
        &Time(milliseconds(1)..=HOUR),
        &mut restart.delay_min,
    );
    visitor.visit(
        of("restart.delay_max", environment::RESTART_DELAY_MAX),
        &Time(milliseconds(1)..=HOUR),
        &mut restart.delay_max,
    );
    visitor.visit(
        of("restart.healthy_after", environment::RESTART_HEALTHY_AFTER),
        &Time(ZERO..=DAY),
        &mut restart.healthy_after,
    );
    visitor.visit(
        of("restart.reset_after", environment::RESTART_RESET_AFTER),
        &Time(ZERO..=DAY),
        &mut restart.reset_after,
    );
    visitor.visit(
        of("restart.crash_loop_count", environment::RESTART_CRASH_LOOP_COUNT),
        &Auto(Count(2..=1000)),
        &mut restart.crash_loop_count,
    );
    visitor.visit(
        of("restart.crash_loop_window", environment::RESTART_CRASH_LOOP_WINDOW),
        &Time(seconds(1)..=DAY),
        &mut restart.crash_loop_window,
    );
}

fn recycle(config: &mut Config, visitor: &mut impl Visit) {
    let recycle = &mut config.recycle;
    visitor.visit(
        of("recycle.memory_bytes_max", environment::RECYCLE_MEMORY_BYTES_MAX),
        &Optional(Size(32 * MIB..=TIB)),
        &mut recycle.memory_bytes_max,
    );
    visitor.visit(
        of("recycle.requests_max", environment::RECYCLE_REQUESTS_MAX),
        &Optional(Count(100..=u64::MAX)),
        &mut recycle.requests_max,
    );
}

fn hang(config: &mut Config, visitor: &mut impl Visit) {
    let hang = &mut config.hang;
    visitor.visit(
        of("hang.suspect_after", environment::HANG_SUSPECT_AFTER),
        &Time(milliseconds(200)..=HOUR),
        &mut hang.suspect_after,
    );
    visitor.visit(
        of("hang.kill_after", environment::HANG_KILL_AFTER),
        &Time(milliseconds(400)..=HOUR),
        &mut hang.kill_after,
    );
}

fn cache(config: &mut Config, visitor: &mut impl Visit) {
    let cache = &mut config.cache;
    visitor.visit(
        of("cache.bytes_max", environment::CACHE_BYTES_MAX),
        &Size(MIB..=TIB),
        &mut cache.bytes_max,
    );
    visitor.visit(
        of("cache.documents_max", environment::CACHE_DOCUMENTS_MAX),
        &Optional(Count(1..=u64::MAX)),
        &mut cache.documents_max,
    );
}

fn store(config: &mut Config, visitor: &mut impl Visit) {
    let store = &mut config.store;
    visitor.visit(
        of("store.log_changes_min", environment::STORE_LOG_CHANGES_MIN),
        &Count(1..=1_000_000_000_000),
        &mut store.log_changes_min,
    );
    visitor.visit(
        of("store.idempotency_time", environment::STORE_IDEMPOTENCY_TIME),
        &Time(milliseconds(1)..=seconds(30 * 86_400)),
        &mut store.idempotency_time,
    );
    visitor.visit(
        of("store.group_writes_max", environment::STORE_GROUP_WRITES_MAX),
        &Count(1..=65_536),
        &mut store.group_writes_max,
    );
    visitor.visit(
        of("store.queue_writes_max", environment::STORE_QUEUE_WRITES_MAX),
        &Count(16..=1 << 24),
        &mut store.queue_writes_max,
    );
    visitor.visit(
        of("store.feed_bytes_max", environment::STORE_FEED_BYTES_MAX),
        &Size(64 * KIB..=GIB),
        &mut store.feed_bytes_max,
    );
    visitor.visit(
        of("store.engine_cache_bytes", environment::STORE_ENGINE_CACHE_BYTES),
        &Size(MIB..=TIB),
        &mut store.engine_cache_bytes,
    );
}

fn query(config: &mut Config, visitor: &mut impl Visit) {
    let query = &mut config.query;
    visitor.visit(
        of("query.scan_max", environment::QUERY_SCAN_MAX),
        &Count(1..=1_000_000_000),
        &mut query.scan_max,
    );
    visitor.visit(
        of("query.limit_default", environment::QUERY_LIMIT_DEFAULT),
        &Count(1..=100_000),
        &mut query.limit_default,
    );
    visitor.visit(
        of("query.limit_max", environment::QUERY_LIMIT_MAX),
        &Count(1..=100_000),
        &mut query.limit_max,
    );
}

fn wasm(config: &mut Config, visitor: &mut impl Visit) {
    let wasm = &mut config.wasm;
    visitor.visit(
        of("wasm.cpu_threads", environment::WASM_CPU_THREADS),
        &Auto(Count(1..=CPU_THREADS_MAX)),
        &mut wasm.cpu_threads,
    );
    visitor.visit(
        of("wasm.cpu_queue_max", environment::WASM_CPU_QUEUE_MAX),
        &Count(0..=65_536),
        &mut wasm.cpu_queue_max,
    );
}

fn auth(config: &mut Config, visitor: &mut impl Visit) {
    let auth = &mut config.auth;
    visitor.visit(of("auth.enabled", environment::AUTH_ENABLED), &Auto(Switch), &mut auth.enabled);
    visitor.visit(
        of("auth.secret_file", environment::AUTH_SECRET_FILE),
        &Optional(Path),
        &mut auth.secret_file,
    );
    visitor.visit(of("auth.keys_file", environment::AUTH_KEYS_FILE), &Optional(Path), &mut auth.keys_file);
    visitor.visit(of("auth.issuer", environment::AUTH_ISSUER), &Optional(Label), &mut auth.issuer);
    visitor.visit(of("auth.audience", environment::AUTH_AUDIENCE), &Optional(Label), &mut auth.audience);
    visitor.visit(of("auth.leeway", environment::AUTH_LEEWAY), &Time(ZERO..=seconds(600)), &mut auth.leeway);
    visitor.visit(of("auth.roles_claim", environment::AUTH_ROLES_CLAIM), &Label, &mut auth.roles_claim);
}

fn log(config: &mut Config, visitor: &mut impl Visit) {
    let log = &mut config.log;
    visitor.visit(of("log.level", environment::LOG_LEVEL), &LogFilter, &mut log.level);
    visitor.visit(of("log.format", environment::LOG_FORMAT), &Choice(LOG_FORMATS), &mut log.format);
    visitor.visit(of("log.file", environment::LOG_FILE), &Optional(Path), &mut log.file);
    visitor.visit(of("log.requests", environment::LOG_REQUESTS), &Switch, &mut log.requests);
}
