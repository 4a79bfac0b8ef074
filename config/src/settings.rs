//! What the configuration means: resolved, validated, immutable. Every other crate sees only these types.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{auth::Auth, trust::Trust};

/// The whole resolved configuration of one generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The app folder, absolute.
    pub app_dir: PathBuf,
    /// Folder with the modules, absolute.
    pub modules_dir: PathBuf,
    /// Folder with everything durable, absolute.
    pub data_dir: PathBuf,
    /// Unix socket for commands, absolute.
    pub control_socket: PathBuf,
    /// Addresses that serve the API. Not empty. Port 0 picks one.
    pub listen: Vec<SocketAddr>,
    /// Unix socket that serves operators over HTTP (metrics, introspection, reload), absolute.
    pub admin_socket: PathBuf,
    /// Address that serves operators as well, loopback only.
    pub admin_listen: Option<SocketAddr>,
    /// Also answer operators on the public listeners.
    pub admin_on_public: bool,
    /// Base path of the API, without a slash at the end.
    pub api_root: String,
    /// Worker processes.
    pub workers: Workers,
    /// Bounds on what clients may do.
    pub limits: Limits,
    /// How a new generation comes into force.
    pub reload: Reload,
    /// How a worker leaves.
    pub drain: Drain,
    /// What happens after a crash.
    pub restart: Restart,
    /// When a healthy worker is replaced.
    pub recycle: Recycle,
    /// When a silent worker is replaced.
    pub hang: Hang,
    /// Storage of models that name none.
    pub datasource: Datasource,
    /// Bounds of each worker's cache.
    pub cache: Cache,
    /// The store process.
    pub store: Store,
    /// Bounds on queries.
    pub query: Query,
    /// How the code of modules runs.
    pub wasm: Wasm,
    /// Log output.
    pub log: Log,
    /// What the operator says about single modules, by the name of their folder or source.
    #[serde(default)]
    pub modules: BTreeMap<String, ModuleTerms>,
    /// What modules can be granted that nobody is shown, by name.
    #[serde(default)]
    pub secrets: BTreeMap<String, HostSecret>,
    /// Who may publish modules.
    #[serde(default)]
    pub trust: Trust,
    /// How clients prove who they are.
    #[serde(default)]
    pub auth: Auth,
    /// Whether nobody has said where to listen: then sockets that the service manager passes take the place of `listen`.
    #[serde(default)]
    pub listens_by_default: bool,
}

/// A secret that modules may use as far as they are granted it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSecret {
    /// Where it is.
    pub source: SecretSource,
    /// What is there. Put in by whoever makes a generation: only workers need it.
    #[serde(default)]
    pub value: Option<Secret>,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecretSource {
    /// In a file, absolute.
    File(PathBuf),
    /// In a variable of the environment.
    Variable(String),
}

/// How the code of modules runs in each worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wasm {
    /// Threads for commands that compute for long. At least 1.
    pub cpu_threads: u32,
    /// Such commands that wait for a thread (503 beyond).
    pub cpu_queue_max: u32,
}

/// What the operator says about one module. It goes before what the module says itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModuleTerms {
    /// Settings of the module; those that are not here have the module's defaults.
    pub settings: toml::Table,
    /// What its code may use.
    pub limits: ModuleLimits,
    /// What its code may reach beyond its own model.
    #[serde(default)]
    pub grants: ModuleGrants,
    /// Commands and routes that are taken out of service, as `commands.NAME` and `routes.METHOD PATH`.
    #[serde(default)]
    pub disable: BTreeSet<String>,
    /// Where its team publishes it; otherwise it is in the folder of modules.
    #[serde(default)]
    pub source: Option<ModuleSource>,
    /// How it is built while it is worked on; only `aegis dev` does.
    #[serde(default)]
    pub build: Option<ModuleBuild>,
}

/// How a module is built while it is worked on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleBuild {
    /// A command for the shell, run in the app folder.
    pub command: String,
    /// Folders with what it is built from, absolute: it is built anew when something in them changes.
    pub watch: Vec<PathBuf>,
}

/// Where a module is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleSource {
    /// `https:`, or `http:` to a loopback address. Ends in `/` (a folder with a manifest and the component beside it) or
    /// in `.wasm` (the component; then the digest is known).
    pub url: String,
    /// Branch, tag or commit, when the address is one of the contents API of a git host; tag or digest in a registry.
    pub reference: Option<String>,
    /// Whether the address is one of the API of a registry (OCI distribution), and names a repository.
    #[serde(default)]
    pub is_registry: bool,
    /// Which of the versions that are published there may be chosen, as Cargo writes such ranges; otherwise there is one.
    #[serde(default)]
    pub version: Option<String>,
    /// SHA-256 of the component, hexadecimal, lower case.
    pub sha256: Option<String>,
    /// File with the token that the source asks for, absolute.
    pub token_file: Option<PathBuf>,
}

/// What the code of a module may reach beyond its own model; nothing where the operator says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleGrants {
    /// Models by name, upper case.
    pub models: BTreeMap<String, ModelGrant>,
    /// Events of other models: names, or beginnings of names with `*` behind.
    #[serde(default)]
    pub events: Vec<String>,
    /// Hosts that it may send requests to, as they are written.
    #[serde(default)]
    pub http: Vec<String>,
    /// Secrets that it may use without seeing them, by name.
    #[serde(default)]
    pub secrets: BTreeSet<String>,
    /// Secrets whose text it may see, by name.
    #[serde(default)]
    pub reveal: BTreeSet<String>,
}

/// What may be done with the documents of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelGrant {
    /// Find and list them.
    pub read: bool,
    /// Create, change and remove them.
    pub write: bool,
}

/// What the code of a module may use; nothing where the operator says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleLimits {
    /// Linear memory of one instance, bytes.
    pub memory: Option<u64>,
    /// Time of one call.
    pub deadline: Option<Duration>,
    /// Time of one call of a command that computes for long.
    pub cpu_deadline: Option<Duration>,
    /// Bytes that one call may return or hand to the host.
    pub payload: Option<u64>,
    /// Instances in one worker.
    pub instances: Option<u32>,
    /// Calls after which an instance is replaced by a fresh one.
    pub invocations: Option<u64>,
    /// Requests that an instance answers at the same time.
    #[serde(default)]
    pub concurrent: Option<u32>,
    /// What becomes of calls while the code keeps failing.
    #[serde(default)]
    pub on_module_failure: Option<OnModuleFailure>,
}

/// What becomes of a call of code that keeps failing, and is not called for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnModuleFailure {
    /// It is refused.
    Deny,
    /// What only shapes what clients read is left out; the rest is refused.
    Skip,
}

/// Worker processes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Workers {
    /// How many serve. At least 1.
    pub count: u32,
    /// Runtime threads of each. At least 1.
    pub threads: u32,
    /// Extra workers during a rollout. At least 1.
    pub surge: u32,
    /// Time from spawn to ready.
    pub ready_timeout: Duration,
    /// Also end the workers when the supervisor is killed: they see end of file on their control socket and finish
    /// what is in flight for at most this long.
    pub orphan_grace: Duration,
}

/// Bounds on what clients may do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest request body, bytes (413).
    pub body_bytes_max: u64,
    /// Largest request head, bytes (431).
    pub header_bytes_max: u64,
    /// Most header fields (431).
    pub headers_max: u32,
    /// Longest request target, bytes (414).
    pub uri_bytes_max: u64,
    /// Most documents in one batch (413).
    pub batch_documents_max: u32,
    /// Open connections per worker; further ones wait in the kernel.
    pub connections_max: u32,
    /// Requests being answered per worker (503 beyond).
    pub requests_in_flight_max: u32,
    /// Concurrent streams of one HTTP/2 connection.
    pub http2_streams_max: u32,
    /// Time for a request head to arrive (408, then closed).
    pub header_timeout: Duration,
    /// Time for a whole request, body included (504 or 503).
    pub request_timeout: Duration,
    /// Time a write may wait for the store (503 `write-outcome-unknown`).
    pub write_timeout: Duration,
    /// Time a connection may be idle between requests.
    pub idle_timeout: Duration,
    /// Open event streams per worker (503 beyond).
    pub streams_max: u32,
    /// Requests per second that one client is served, over all workers (429 beyond); 0 for no limit.
    #[serde(default)]
    pub requests_per_second: u32,
    /// Requests that one client may have served at once, after a pause. 0 only without a limit.
    #[serde(default)]
    pub requests_burst: u32,
}

/// How a changed set of modules comes into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReloadMode {
    /// New workers replace old ones.
    Rolling,
    /// Running workers exchange what has changed, when that is code of modules and nothing else; otherwise as
    /// [`ReloadMode::Rolling`].
    Swap,
}

/// How a new generation comes into force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reload {
    /// By new workers, or inside those that run.
    pub mode: ReloadMode,
    /// Reload when a file of the app changes.
    pub watch: bool,
    /// How often the sources of modules are asked whether something was published; not at all without.
    #[serde(default)]
    pub poll: Option<Duration>,
    /// File with what webhooks that reload are signed with, absolute. Without one, no webhook does.
    #[serde(default)]
    pub webhook_secret_file: Option<PathBuf>,
    /// What is in it. Put in by whoever makes a generation: only workers need it.
    #[serde(default)]
    pub webhook_secret: Option<Secret>,
    /// Time the first new worker serves before it is judged.
    pub canary_time: Duration,
    /// Requests the canary must have answered to be judged by its error rate and latency.
    pub canary_requests_min: u64,
    /// Highest share of 5xx above the old generation's, 0 to 1.
    pub error_rate_margin: f64,
    /// Highest p99 as a multiple of the old generation's. At least 1.
    pub latency_factor_max: f64,
    /// Time for the probe to validate the app.
    pub probe_timeout: Duration,
}

/// Something that is never shown: it is no setting, so no view has it, and its `Debug` form is empty.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Keeps `bytes` secret.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// What is kept secret.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

/// How a worker leaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Drain {
    /// Time for requests in flight and keep-alive connections to end.
    pub timeout: Duration,
    /// The last part of `timeout` over which still idle connections are closed, one after the other.
    pub spread: Duration,
}

/// What happens after a crash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    /// First delay; the crash of a worker that was healthy is answered at once.
    pub delay_min: Duration,
    /// Longest delay.
    pub delay_max: Duration,
    /// A worker that lived this long was healthy.
    pub healthy_after: Duration,
    /// This long without a crash forgets the delay.
    pub reset_after: Duration,
    /// Crashes of one generation within `crash_loop_window` that mean a crash loop.
    pub crash_loop_count: u32,
    /// See `crash_loop_count`.
    pub crash_loop_window: Duration,
}

/// When a healthy worker is replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recycle {
    /// Resident memory that a worker may have, bytes.
    pub memory_bytes_max: Option<u64>,
    /// Requests that a worker may answer, ± 10 % at random.
    pub requests_max: Option<u64>,
}

/// When a silent worker is replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hang {
    /// Without a heartbeat for this long: suspect, a replacement is started.
    pub suspect_after: Duration,
    /// Without a heartbeat for this long: killed.
    pub kill_after: Duration,
}

/// Where the documents of a model are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Datasource {
    /// In the store process only; gone when it ends.
    Memory,
    /// In the embedded store on disk.
    File,
}

/// Bounds of each worker's cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cache {
    /// Bytes of document bodies kept per worker, over all models.
    pub bytes_max: u64,
    /// Documents whose body is kept per worker and model.
    pub documents_max: Option<u64>,
}

/// The store process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Store {
    /// Changes kept in the log for resuming subscribers.
    pub log_changes_min: u64,
    /// How long idempotent responses are kept.
    pub idempotency_time: Duration,
    /// Most writes in one group commit.
    pub group_writes_max: u32,
    /// Writes waiting for the store over all workers, beyond which they are refused.
    pub queue_writes_max: u32,
    /// Feed bytes waiting for one worker, beyond which it is sent the log again.
    pub feed_bytes_max: u64,
    /// Block cache of the engine, bytes.
    pub engine_cache_bytes: u64,
}

/// Bounds on queries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// Documents a filter without an index may look at (400 `query-too-expensive` beyond).
    pub scan_max: u64,
    /// `__limit` when none is given.
    pub limit_default: u32,
    /// Largest `__limit`.
    pub limit_max: u32,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Log output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter per target.
    pub level: String,
    /// Text or JSON.
    pub format: LogFormat,
    /// File to append to; standard error when absent.
    pub file: Option<PathBuf>,
    /// One line per request.
    pub requests: bool,
}
