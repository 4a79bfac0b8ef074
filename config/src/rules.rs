//! What settings mean to each other: defaults that follow other settings, and combinations that make no sense.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    defaults,
    error::{ConfigError, Place},
    quantity::{format_size, format_time},
    settings::{Config, Limits},
    trust::Signatures,
};

/// Longest path of a Unix socket, bytes: `sockaddr_un` has room for 108 and the last one is zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Name of the store's socket in the data folder.
const STORE_SOCKET: &str = "store.sock";

/// Lets the settings that are `absent` follow those that were given. Returns the data folder as it was written, before
/// links were followed.
pub(crate) fn complete(
    config: &mut Config,
    absent: impl Fn(&'static str) -> bool,
    cores: u32,
    located: fn(&Path) -> PathBuf,
) -> PathBuf {
    let Config { workers, limits, restart, drain, hang, query, wasm, .. } = config;
    let fill = |key, default: u32, value: &mut u32| follow(absent(key), default, value);
    fill("workers.threads", defaults::threads_auto(cores, workers.count), &mut workers.threads);
    fill("wasm.cpu_threads", defaults::cpu_threads_auto(cores, workers.count), &mut wasm.cpu_threads);
    fill("restart.crash_loop_count", defaults::crash_loop_auto(workers.count), &mut restart.crash_loop_count);
    fill("query.limit_max", query.limit_max.max(query.limit_default), &mut query.limit_max);
    fill("query.limit_default", query.limit_default.min(query.limit_max), &mut query.limit_default);
    fill("limits.requests_burst", limits.requests_per_second, &mut limits.requests_burst);
    let fill = |key, default: u64, value: &mut u64| follow(absent(key), default, value);
    let head = limits.header_bytes_max.max(limits.uri_bytes_max);
    fill("limits.header_bytes_max", head, &mut limits.header_bytes_max);
    fill(
        "limits.uri_bytes_max",
        limits.uri_bytes_max.min(limits.header_bytes_max),
        &mut limits.uri_bytes_max,
    );
    let fill = |key, default: Duration, value: &mut Duration| follow(absent(key), default, value);
    fill("drain.timeout", drain.timeout.max(drain.spread), &mut drain.timeout);
    fill("drain.spread", drain.spread.min(drain.timeout), &mut drain.spread);
    fill("restart.delay_max", restart.delay_max.max(restart.delay_min), &mut restart.delay_max);
    fill("restart.delay_min", restart.delay_min.min(restart.delay_max), &mut restart.delay_min);
    fill("hang.kill_after", hang.kill_after.max(hang.suspect_after * 2), &mut hang.kill_after);
    fill("hang.suspect_after", hang.suspect_after.min(hang.kill_after / 2), &mut hang.suspect_after);
    // Keys are there to be used; without one, nobody could sign anything.
    if absent("trust.require") && !config.trust.keys.is_empty() {
        config.trust.require = Signatures::Remote;
    }
    // The same for keys that tokens are signed with.
    follow(absent("auth.enabled"), has_key(config), &mut config.auth.enabled);
    complete_paths(config, absent, located)
}

fn has_key(config: &Config) -> bool {
    config.auth.secret_file.is_some() || config.auth.keys_file.is_some()
}

fn follow<T>(absent: bool, default: T, value: &mut T) {
    if absent {
        *value = default;
    }
}

fn complete_paths(
    config: &mut Config,
    absent: impl Fn(&'static str) -> bool,
    located: fn(&Path) -> PathBuf,
) -> PathBuf {
    // The data stay where they are when a link on the way there is pointed elsewhere; all processes of a host go by this
    // path, and a generation with another one is refused.
    let written = below(&config.app_dir, &config.data_dir);
    config.data_dir = located(&written);
    if absent("control_socket") {
        config.control_socket = config.data_dir.join("control.sock");
    }
    if absent("admin_socket") {
        config.admin_socket = config.data_dir.join("admin.sock");
    }
    let paths = [&mut config.control_socket, &mut config.admin_socket, &mut config.modules_dir];
    let of_auth = config.auth.secret_file.iter_mut().chain(&mut config.auth.keys_file);
    let optional = config.log.file.iter_mut().chain(&mut config.reload.webhook_secret_file).chain(of_auth);
    for path in paths.into_iter().chain(optional) {
        *path = below(&config.app_dir, path);
    }
    written
}

/// `path` as seen from `folder`, without `.` components.
fn below(folder: &Path, path: &Path) -> PathBuf {
    folder.join(path).components().collect()
}

/// Every rule that the configuration breaks, whose data folder was `written` so.
///
/// `settled` tells where a setting comes from, or `None` while its value is not certain: then nothing follows from it.
pub(crate) fn broken(
    config: &Config,
    written: &Path,
    settled: impl Fn(&'static str) -> Option<Place>,
) -> Vec<ConfigError> {
    let mut rules = Rules { settled, broken: Vec::new() };
    order(config, &mut rules);
    rate(&config.limits, &mut rules);
    sockets(config, written, &mut rules);
    folders(config, written, &mut rules);
    auth(config, &mut rules);
    if let Some(admin) =
        config.admin_listen.filter(|admin| admin.port() != 0 && config.listen.contains(admin))
    {
        rules.check("admin_listen", "listen", false, admin, "an address that is not in listen");
    }
    rules.broken
}

struct Rules<S> {
    settled: S,
    broken: Vec<ConfigError>,
}

impl<S: Fn(&'static str) -> Option<Place>> Rules<S> {
    fn check(
        &mut self,
        key: &'static str,
        other: &'static str,
        holds: bool,
        found: impl Display,
        expected: &str,
    ) {
        if let (false, Some(place), Some(_)) = (holds, (self.settled)(key), (self.settled)(other)) {
            let error = ConfigError::Value { place, found: found.to_string(), expected: expected.to_owned() };
            self.broken.push(error);
        }
    }
}

fn order<S: Fn(&'static str) -> Option<Place>>(config: &Config, rules: &mut Rules<S>) {
    let Config { limits, restart, drain, hang, query, .. } = config;
    let at_most = |other: &str, bound: String| format!("at most {other} ({bound})");
    rules.check(
        "limits.uri_bytes_max",
        "limits.header_bytes_max",
        limits.uri_bytes_max <= limits.header_bytes_max,
        format_size(limits.uri_bytes_max),
        &at_most("limits.header_bytes_max, which includes it", format_size(limits.header_bytes_max)),
    );
    rules.check(
        "drain.spread",
        "drain.timeout",
        drain.spread <= drain.timeout,
        format_time(drain.spread),
        &at_most("drain.timeout", format_time(drain.timeout)),
    );
    rules.check(
        "restart.delay_min",
        "restart.delay_max",
        restart.delay_min <= restart.delay_max,
        format_time(restart.delay_min),
        &at_most("restart.delay_max", format_time(restart.delay_max)),
    );
    rules.check(
        "hang.suspect_after",
        "hang.kill_after",
        hang.suspect_after < hang.kill_after,
        format_time(hang.suspect_after),
        &format!("less than hang.kill_after ({})", format_time(hang.kill_after)),
    );
    rules.check(
        "query.limit_default",
        "query.limit_max",
        query.limit_default <= query.limit_max,
        query.limit_default,
        &at_most("query.limit_max", query.limit_max.to_string()),
    );
}

/// A burst is part of a limit: without one it would mean nothing, and a limit without it would let nobody in.
fn rate<S: Fn(&'static str) -> Option<Place>>(limits: &Limits, rules: &mut Rules<S>) {
    let (per_second, burst) = (limits.requests_per_second, limits.requests_burst);
    let burst_max = u64::from(per_second) * u64::from(defaults::BURST_SECONDS_MAX);
    let mut check = |holds, expected: &str| {
        rules.check("limits.requests_burst", "limits.requests_per_second", holds, burst, expected)
    };
    if per_second == 0 {
        check(burst == 0, "limits.requests_per_second as well");
    } else {
        check(burst > 0, "at least 1 while there is limits.requests_per_second");
        check(
            u64::from(burst) <= burst_max,
            &format!("at most as many as limits.requests_per_second lets through in an hour ({burst_max})"),
        );
    }
}

/// Sockets are bound where the data are, not by way of links, which somebody may point elsewhere meanwhile: so that is the
/// path that has to be short.
fn sockets<S: Fn(&'static str) -> Option<Place>>(config: &Config, written: &Path, rules: &mut Rules<S>) {
    let store = config.data_dir.join(STORE_SOCKET);
    let sockets = [
        ("control_socket", &config.control_socket),
        ("admin_socket", &config.admin_socket),
        ("data_dir", &store),
    ];
    for (at, (key, path)) in sockets.into_iter().enumerate() {
        let bytes = path.as_os_str().len();
        let link = if config.data_dir != written && path.starts_with(&config.data_dir) {
            format!(", which is where the links in {} lead", written.display())
        } else {
            String::new()
        };
        rules.check(
            key,
            "data_dir",
            bytes <= SOCKET_PATH_BYTES_MAX,
            format_args!("{} ({bytes} bytes{link})", path.display()),
            &format!("a path of at most {SOCKET_PATH_BYTES_MAX} bytes for a Unix socket"),
        );
        for (other, _) in sockets[..at].iter().filter(|(_, taken)| *taken == path) {
            rules.check(key, other, false, path.display(), &format!("another path than that of {other}"));
        }
    }
}

/// What is in the folder of modules is a module each, also what the store makes there.
fn folders<S: Fn(&'static str) -> Option<Place>>(config: &Config, written: &Path, rules: &mut Rules<S>) {
    let modules = config.modules_dir.as_path();
    let is_module = |data: &Path| data == modules || data.parent() == Some(modules);
    rules.check(
        "data_dir",
        "modules_dir",
        !is_module(written) && !is_module(&config.data_dir),
        written.display(),
        "a folder outside of modules_dir",
    );
}

/// A host that is told to ask who calls must be able to, and must not let operators in who are not asked.
fn auth<S: Fn(&'static str) -> Option<Place>>(config: &Config, rules: &mut Rules<S>) {
    const KEY: &str = "a key as well: auth.secret_file or auth.keys_file";
    let auth = &config.auth;
    let key_is_known =
        (rules.settled)("auth.secret_file").is_some() && (rules.settled)("auth.keys_file").is_some();
    if key_is_known && !has_key(config) {
        rules.check("auth.enabled", "auth.keys_file", !auth.enabled, "true", KEY);
        for (key, wanted) in [("auth.issuer", &auth.issuer), ("auth.audience", &auth.audience)] {
            rules.check(
                key,
                "auth.keys_file",
                wanted.is_none(),
                format_args!("{:?}", wanted.as_deref().unwrap_or_default()),
                KEY,
            );
        }
    }
    let has_both = auth.secret_file.is_some() && auth.keys_file.is_some();
    rules.check(
        "auth.secret_file",
        "auth.keys_file",
        !has_both,
        "a secret beside auth.keys_file",
        "one of them",
    );
    rules.check(
        "admin_on_public",
        "auth.enabled",
        !(auth.enabled && config.admin_on_public),
        "true",
        "false while auth.enabled: callers with the role admin are let in on the public addresses",
    );
}
