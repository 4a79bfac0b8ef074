//! Modules when something around them goes wrong: processes that are killed, caches that cannot be written, code that is
//! in the middle of something.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use aegis_guests::{Guest, mazes, splice, stamping, trap, with_core_module};
use aegis_harness::{
    App, Cluster, app,
    client::MODELS,
    cluster::{executable, signal_process},
    eventually, eventually_some, http,
};
use nix::sys::signal::Signal;
use rustix::process::{Resource, Rlimit};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(30);
/// Places of a labyrinth that takes seconds to compile.
const LABYRINTH: usize = 1_000;
/// Labyrinths of nearly as many bytes as a component may have, and the places of each.
const MAZES: usize = 30;
const MAZE_PLACES: usize = 1_400;
/// Memory that a helper may write to in which it begins to compile and does not get far, bytes: its allocator reserves 1 GiB
/// at once, which counts, whether or not the limit was there before.
const LITTLE_MEMORY_BYTES: u64 = 1_300_000_000;
/// Addresses that a helper may have beside those that it was forked with, in which it reads the component, begins to compile
/// and does not get far, bytes.
const LITTLE_ADDRESS_SPACE_BYTES: u64 = 200_000_000;
/// Addresses in which a helper that is executed begins, and has none for the bytes of that component, KiB.
const TOO_FEW_ADDRESSES_KIB: u64 = 265_000;
/// A busy machine compiles slowly.
const UNHURRIED: &str = "[reload]\nprobe-timeout = \"10m\"\n";

fn by(cluster: &Cluster) -> String {
    let created = cluster.client().post("notes", &json!({"x": 1}));
    created.json()["by"].as_str().unwrap_or_default().to_owned()
}

/// Process id of the compile helper, once there is one.
fn helper(cluster: &Cluster) -> u32 {
    let end = Instant::now() + PATIENCE;
    loop {
        let is_helper = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == b"compile")
        };
        if let Some(pid) = cluster.children().into_iter().find(is_helper) {
            return pid;
        }
        assert!(Instant::now() < end, "no compile helper was started");
        thread::yield_now();
    }
}

#[test]
fn a_compile_helper_that_is_killed_costs_one_reload_and_nothing_else() {
    let cluster = Cluster::start(App::default().component("note", stamping("one")), 2);
    let before: Vec<u32> = cluster.serving().iter().map(|worker| worker.pid).collect();
    app::write_component(cluster.folder(), "note", &stamping("two"));
    let refused = thread::scope(|scope| {
        let reload = scope.spawn(|| cluster.aegis(&["reload"]));
        // Stopped first: it must not get ready between being seen and being killed.
        let helper = helper(&cluster);
        signal_process(helper, Signal::SIGSTOP);
        signal_process(helper, Signal::SIGKILL);
        reload.join().unwrap()
    });
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{told}");
    assert!(told.contains("SIGKILL"), "{told}");
    assert_eq!(by(&cluster), "one");
    let after: Vec<u32> = cluster.serving().iter().map(|worker| worker.pid).collect();
    assert_eq!(before, after, "no worker was touched");
    cluster.aegis_ok(&["reload"]);
    assert_eq!(by(&cluster), "two");
}

#[test]
fn a_call_in_flight_at_a_reload_finishes_on_the_code_it_began_on() {
    let settings = "[modules.todo.limits]\ncpu-deadline = \"200s\"\n[limits]\nrequest_timeout = \"200s\"\n\
                    [drain]\ntimeout = \"200s\"";
    let cluster =
        Cluster::start(App::default().component("todo", aegis_guests::todo().build()).settings(settings), 2);
    assert_eq!(cluster.client().post("todos", &json!({"id": "a", "title": "x"})).status, 201);
    let mut connection = cluster.client().connect().unwrap();
    let headers = [("content-type", "application/json"), ("connection", "close")];
    let (path, address) = (format!("{MODELS}/todos/a/burn"), cluster.address.to_string());
    connection.send(&http::encode("POST", &path, &address, &headers, b"{\"steps\":1000000000}")).unwrap();
    eventually("the command runs", PATIENCE, || {
        cluster.status().workers.iter().any(|worker| worker.in_flight > 0)
    });
    let next = aegis_guests::todo().hook("on-create", splice("input", "\"second\":true"));
    app::write_component(cluster.folder(), "todo", &next.build());
    cluster.aegis_ok(&["reload"]);
    let long = connection.receive_after(Duration::from_secs(200)).unwrap();
    assert_eq!(long.status, 200, "{}", long.text());
    assert!(long.worker().ends_with(".1"), "{long:?}");
    let created = cluster.client().post("todos", &json!({"title": "y"}));
    assert_eq!(created.json()["second"], true);
}

#[test]
fn a_call_that_outlasts_the_drain_is_answered_503_and_changes_nothing() {
    let settings = "[modules.todo.limits]\ncpu-deadline = \"60s\"\n[limits]\nrequest_timeout = \"60s\"\n\
                    [drain]\ntimeout = \"1s\"\nspread = \"200ms\"";
    let cluster =
        Cluster::start(App::default().component("todo", aegis_guests::todo().build()).settings(settings), 1);
    assert_eq!(cluster.client().post("todos", &json!({"id": "a", "title": "x"})).status, 201);
    let cut = thread::scope(|scope| {
        let long = scope.spawn(|| cluster.client().post("todos/a/burn", &json!({"steps": u64::MAX})));
        eventually("the command runs", PATIENCE, || {
            cluster.status().workers.iter().any(|worker| worker.in_flight > 0)
        });
        cluster.aegis_ok(&["restart"]);
        long.join().unwrap()
    });
    assert_eq!((cut.status, cut.header("retry-after")), (503, Some("1")), "{}", cut.text());
    assert_eq!(cluster.client().get("todos/a").header("etag"), Some("\"1\""));
}

#[test]
fn without_a_place_for_compiled_code_everything_is_compiled_anew_and_works() {
    let mut cluster = Cluster::start(App::default().component("note", stamping("one")), 1);
    cluster.signal(Signal::SIGTERM);
    assert!(cluster.wait_exit(PATIENCE).success());
    let cache = cluster.folder().join("data/code-cache");
    fs::remove_dir_all(&cache).unwrap();
    fs::write(&cache, "in the way").unwrap();
    cluster.restart();
    assert_eq!(by(&cluster), "one");
    app::write_component(cluster.folder(), "note", &stamping("two"));
    cluster.aegis_ok(&["reload"]);
    assert_eq!(by(&cluster), "two");
    assert_eq!(fs::read(&cache).unwrap(), b"in the way", "what is not ours is left alone");
    assert!(cluster.log().contains("code-cache"), "the log says so: {}", cluster.log());
}

#[test]
fn workers_killed_in_the_middle_of_a_reload_do_not_stop_it() {
    let cluster = Cluster::start(App::default().component("note", stamping("one")), 3);
    app::write_component(cluster.folder(), "note", &stamping("two"));
    let old = cluster.serving();
    thread::scope(|scope| {
        let reload = scope.spawn(|| cluster.aegis_ok(&["reload"]));
        eventually("a new worker comes up", PATIENCE, || {
            cluster.status().workers.iter().any(|worker| worker.generation > old[0].generation)
        });
        // One that is still to be replaced, or that drains already.
        let still = eventually_some("an old worker", PATIENCE, || {
            cluster.status().workers.into_iter().find(|worker| worker.generation == old[0].generation)
        });
        signal_process(still.pid, Signal::SIGKILL);
        reload.join().unwrap();
    });
    assert_eq!(by(&cluster), "two");
    let workers = cluster.await_workers(3);
    assert!(workers.iter().all(|worker| worker.generation > old[0].generation), "{workers:?}");
}

/// Addresses that a process has.
fn address_space_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Reloads with a helper that is held to another limit than usual; to one of addresses, beside those that it has. What the
/// command says of it, which is a refusal.
fn reload_within(cluster: &Cluster, resource: Resource, most: u64) -> String {
    let refused = thread::scope(|scope| {
        let reload = scope.spawn(|| cluster.aegis(&["reload"]));
        let helper = helper(cluster);
        signal_process(helper, Signal::SIGSTOP);
        let pid = rustix::process::Pid::from_raw(helper as i32);
        let most = if resource == Resource::As { most + address_space_bytes(helper) } else { most };
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        rustix::process::prlimit(pid, resource, limit).unwrap();
        signal_process(helper, Signal::SIGCONT);
        reload.join().unwrap()
    });
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{told}");
    told
}

/// Nothing became of a reload, and the next one is as good as any.
fn assert_unharmed(cluster: &Cluster, before: &[u32]) {
    assert_eq!(by(cluster), "one");
    let after: Vec<u32> = cluster.serving().iter().map(|worker| worker.pid).collect();
    assert_eq!(before, after, "no worker was touched");
    app::write_component(cluster.folder(), "note", &stamping("two"));
    cluster.aegis_ok(&["reload"]);
    assert_eq!(by(cluster), "two");
}

/// A model with nearly as many bytes as a component may have, all of them hard to compile.
fn endless() -> Vec<u8> {
    let bytes = with_core_module(stamping("endless"), &mazes(MAZES, MAZE_PLACES));
    assert!(bytes.len() > 50_000_000, "{}", bytes.len());
    bytes
}

#[test]
fn a_compile_helper_that_runs_into_its_limit_is_the_components_fault_and_costs_one_reload() {
    let app = App::default().component("note", stamping("one")).settings(UNHURRIED);
    let cluster = Cluster::start(app, 2);
    let before: Vec<u32> = cluster.serving().iter().map(|worker| worker.pid).collect();
    let spec = json!({"name": "note", "endpoint": "notes", "version": "1.0.0"});
    let slow = Guest::model(spec).item(&aegis_guests::maze(LABYRINTH)).build();
    app::write_component(cluster.folder(), "note", &slow);
    let told = reload_within(&cluster, Resource::Cpu, 1);
    assert!(told.contains("while it compiled modules/note/"), "{told}");
    assert_unharmed(&cluster, &before);
}

/// A component that takes more of a resource than the helper may have is refused with a number of its own.
fn assert_refused_beyond(resource: Resource, most: u64) {
    let app = App::default().component("note", stamping("one")).settings(UNHURRIED);
    let cluster = Cluster::start(app, 2);
    let before: Vec<u32> = cluster.serving().iter().map(|worker| worker.pid).collect();
    app::write_component(cluster.folder(), "note", &endless());
    let told = reload_within(&cluster, resource, most);
    let expected = "modules/note/module.wasm: AEGIS-M172 compiling the component: found that it takes more memory than \
                    the compile helper may have";
    assert!(told.contains(expected), "{told}");
    assert_unharmed(&cluster, &before);
}

#[test]
fn a_component_that_takes_more_memory_than_the_helper_may_have_is_refused_with_a_number_of_its_own() {
    assert_refused_beyond(Resource::Data, LITTLE_MEMORY_BYTES);
}

#[test]
fn a_component_that_takes_more_addresses_than_the_helper_may_have_is_refused_with_that_number_too() {
    assert_refused_beyond(Resource::As, LITTLE_ADDRESS_SPACE_BYTES);
}

#[test]
fn a_component_that_takes_more_memory_to_read_than_there_is_is_refused_with_that_number_too() {
    let folder = tempfile::tempdir().unwrap();
    app::write_component(folder.path(), "note", &endless());
    let limited = format!("ulimit -v {TOO_FEW_ADDRESSES_KIB}; exec \"$0\" check \"$1\"");
    let refused =
        Command::new("sh").args(["-c", &limited]).arg(executable()).arg(folder.path()).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(78), "{told}");
    assert!(told.contains("modules/note/module.wasm: AEGIS-M172 reading the component"), "{told}");
}

#[test]
fn a_component_that_nobody_can_compile_in_time_is_refused() {
    let settings = "[reload]\nprobe-timeout = \"5s\"\n";
    let cluster = Cluster::start(App::default().component("note", stamping("one")).settings(settings), 2);
    let before: Vec<u32> = cluster.serving().iter().map(|worker| worker.pid).collect();
    app::write_component(cluster.folder(), "note", &endless());
    let refused = cluster.aegis(&["reload"]);
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(3), "{told}");
    assert!(told.contains("(did not end in time) while it compiled modules/note/"), "{told}");
    assert_unharmed(&cluster, &before);
}

#[test]
fn a_component_that_nobody_can_compile_in_time_does_not_keep_a_host_from_coming_up() {
    let settings = "[reload]\nprobe-timeout = \"5s\"\n[restart]\nhealthy-after = \"50ms\"\n";
    let mut cluster = Cluster::start(App::default().component("note", stamping("one")).settings(settings), 1);
    let last_good = cluster.folder().join("data/generations/last-good");
    eventually("the generation is kept", PATIENCE, || last_good.exists());
    app::write_component(cluster.folder(), "note", &endless());
    cluster.stop_and_restart();
    assert_eq!(by(&cluster), "one");
    let (log, mistake) = (cluster.log(), "(did not end in time) while it compiled modules/note/module.wasm");
    assert!(
        log.contains("1 mistake found in the app; the host comes up on the LAST GOOD generation"),
        "{log}"
    );
    assert!(log.contains(mistake), "{log}");
    assert!(cluster.aegis_ok(&["status"]).contains(mistake));
    // Without one, it is refused as any mistake is.
    cluster.aegis_ok(&["stop"]);
    assert!(cluster.wait_exit(PATIENCE).success());
    fs::remove_file(&last_good).unwrap();
    let refused = cluster.start_in_vain();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(78), "{told}");
    assert!(told.contains("1 mistake found, nothing was started"), "{told}");
    assert!(told.contains(mistake), "{told}");
}

#[test]
fn code_that_keeps_failing_is_not_called_for_a_while_and_the_log_says_so() {
    let spec = json!({"name": "note", "endpoint": "notes", "version": "1.0.0"});
    let guest = Guest::model(spec)
        .hook("on-create", trap().when_holds("input", "boom").then(splice("input", "\"by\":\"one\"")));
    let cluster = Cluster::start(App::default().component("note", guest.build()), 1);
    assert_eq!(cluster.client().post("notes", &json!({"id": "a"})).status, 201);
    let boom = || cluster.client().post("notes", &json!({"x": "boom"}));
    let refused = eventually_some("it is not called", PATIENCE, || {
        let answer = boom();
        (answer.status == 503).then_some(answer)
    });
    assert_eq!(refused.json()["code"], "module-unavailable", "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    eventually("operators see it", PATIENCE, || {
        boom();
        cluster.status().failing == ["note"]
    });
    assert_eq!(cluster.client().get("notes/a").status, 200, "reads need no code");
    eventually("it is called again", PATIENCE, || by(&cluster) == "one");
    eventually("the log has both", PATIENCE, || {
        let log = cluster.log();
        log.contains("AEGIS-M200") && log.contains("AEGIS-M201")
    });
}
