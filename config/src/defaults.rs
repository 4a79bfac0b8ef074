//! What holds when nothing is written, with the reason for every number that has one.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::settings::{
    Cache, Config, Datasource, Drain, Hang, Limits, Log, LogFormat, Query, Recycle, Reload, ReloadMode,
    Restart, Store, Wasm, Workers,
};
use crate::{auth::Auth, trust::Trust};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Most worker processes: with as many draining beside them and the extra ones of a rollout they still fit the board's 256
/// cells.
pub const WORKERS_MAX: u32 = 112;
/// Most runtime threads of a worker: each has one of the board's 16 heartbeats.
pub(crate) const THREADS_MAX: u32 = 16;
/// Most requests per second that a limit can be about: the time between two of them is kept in whole nanoseconds, and
/// is exact to a part in ten thousand up to here.
pub(crate) const REQUESTS_PER_SECOND_MAX: u32 = 100_000;
/// Most seconds' worth of requests that a client may save up: the words that count clients reach no further ahead.
pub(crate) const BURST_SECONDS_MAX: u32 = 3600;
/// Most threads of a worker for commands that compute for long.
pub(crate) const CPU_THREADS_MAX: u32 = 256;

/// Where the host of an app listens for commands when nothing says otherwise.
#[must_use]
pub fn default_socket(app_dir: &Path) -> PathBuf {
    app_dir.join("data/control.sock")
}

/// The defaults on a machine with `cores` processors.
pub(crate) fn config(app_dir: &Path, cores: u32) -> Config {
    let data_dir = app_dir.join("data");
    let workers = workers(cores);
    Config {
        app_dir: app_dir.to_owned(),
        modules_dir: app_dir.join("modules"),
        control_socket: default_socket(app_dir),
        admin_socket: data_dir.join("admin.sock"),
        data_dir,
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))],
        admin_listen: None,
        admin_on_public: false,
        api_root: "/aegis/api".to_owned(),
        restart: restart(workers.count),
        wasm: Wasm { cpu_threads: cpu_threads_auto(cores, workers.count), cpu_queue_max: 64 },
        workers,
        limits: limits(),
        reload: reload(),
        drain: Drain { timeout: Duration::from_secs(30), spread: Duration::from_secs(5) },
        recycle: Recycle { memory_bytes_max: None, requests_max: None },
        hang: Hang { suspect_after: Duration::from_secs(2), kill_after: Duration::from_secs(10) },
        datasource: Datasource::File,
        cache: Cache { bytes_max: 256 * MIB, documents_max: None },
        store: store(),
        query: Query { scan_max: 200_000, limit_default: 100, limit_max: 1000 },
        modules: BTreeMap::new(),
        secrets: BTreeMap::new(),
        trust: Trust::default(),
        auth: Auth::default(),
        listens_by_default: true,
        log: Log { level: "info".to_owned(), format: LogFormat::Text, file: None, requests: false },
    }
}

/// `workers.count = "auto"`: one worker per core, but never fewer than two, so that the crash of one leaves another.
pub(crate) fn workers_auto(cores: u32) -> u32 {
    cores.clamp(2, WORKERS_MAX)
}

/// `workers.threads = "auto"`: the cores shared out among the workers.
pub(crate) fn threads_auto(cores: u32, workers: u32) -> u32 {
    (cores / workers.max(1)).clamp(1, THREADS_MAX)
}

/// `wasm.cpu_threads = "auto"`: the cores shared out among the workers, and the rest as well. More of them than cores take
/// the processors from each other, and what they are owed for it, from those that serve.
pub(crate) fn cpu_threads_auto(cores: u32, workers: u32) -> u32 {
    cores.div_ceil(workers.max(1)).clamp(1, CPU_THREADS_MAX)
}

/// `restart.crash_loop_count = "auto"`: half of the workers, but one worker may crash twice without suspicion.
pub(crate) fn crash_loop_auto(workers: u32) -> u32 {
    (workers / 2).max(3)
}

fn workers(cores: u32) -> Workers {
    let count = workers_auto(cores);
    Workers {
        count,
        threads: threads_auto(cores, count),
        surge: 1,
        ready_timeout: Duration::from_secs(60),
        orphan_grace: Duration::from_secs(10),
    }
}

fn limits() -> Limits {
    Limits {
        body_bytes_max: MIB,
        header_bytes_max: 16 * KIB,
        headers_max: 100,
        uri_bytes_max: 8 * KIB,
        batch_documents_max: 1000,
        connections_max: 4096,
        requests_in_flight_max: 1024,
        // RFC 9113, 6.5.2 recommends no fewer than 100.
        http2_streams_max: 128,
        header_timeout: Duration::from_secs(10),
        request_timeout: Duration::from_secs(30),
        write_timeout: Duration::from_secs(5),
        // Longer than the 60 s after which common load balancers drop an idle connection, so that they close first.
        idle_timeout: Duration::from_secs(75),
        streams_max: 1024,
        requests_per_second: 0,
        requests_burst: 0,
    }
}

fn reload() -> Reload {
    Reload {
        mode: ReloadMode::Rolling,
        watch: false,
        poll: None,
        webhook_secret_file: None,
        webhook_secret: None,
        canary_time: Duration::from_secs(1),
        canary_requests_min: 20,
        error_rate_margin: 0.02,
        // The p99 of the few requests a canary has answered is nearly their slowest, and its cache is cold: a factor
        // near 1 would refuse good builds by chance. One that makes requests many times slower still fails it.
        latency_factor_max: 3.0,
        // A component with an interpreter inside takes a slow machine most of a minute.
        probe_timeout: Duration::from_secs(60),
    }
}

fn restart(workers: u32) -> Restart {
    Restart {
        delay_min: Duration::from_millis(50),
        delay_max: Duration::from_secs(30),
        healthy_after: Duration::from_secs(10),
        reset_after: Duration::from_secs(60),
        crash_loop_count: crash_loop_auto(workers),
        crash_loop_window: Duration::from_secs(30),
    }
}

fn store() -> Store {
    Store {
        log_changes_min: 1_000_000,
        idempotency_time: Duration::from_secs(24 * 60 * 60),
        group_writes_max: 1024,
        queue_writes_max: 65_536,
        feed_bytes_max: 8 * MIB,
        engine_cache_bytes: 64 * MIB,
    }
}
