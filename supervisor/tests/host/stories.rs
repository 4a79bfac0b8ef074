//! The stories.

use std::{
    os::{
        fd::{AsFd, AsRawFd},
        unix::{
            fs::MetadataExt,
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aegis_ipc::{
    bundle::Bundle,
    deploy::{Order, Supply},
    operator::{ReloadMode, Reply, Request, Status, StopMode, Verdict},
};
use aegis_supervisor::last_good::LastGood;
use nix::sys::signal::Signal;

use crate::{
    harness::{Host, eventually},
    rehearsals, upgrades,
};

/// Every story by name.
pub(crate) const ALL: [(&str, fn()); 28] = [
    ("it_serves_and_stops_and_leaves_nothing_behind", serves_and_stops),
    ("a_killed_worker_is_replaced", killed_worker_is_replaced),
    ("a_killed_store_is_started_again", killed_store_is_started_again),
    ("a_reload_replaces_every_worker_and_answers_with_the_verdict", reload),
    ("a_bad_app_is_rejected_and_touches_nothing", bad_app_is_rejected),
    ("a_generation_whose_workers_crash_is_rolled_back", crashing_generation),
    ("it_scales_by_command_and_signal", scales),
    ("it_drains_and_comes_back", drains),
    ("an_upgrade_keeps_process_sockets_and_clients", upgrade),
    ("an_upgrade_that_cannot_work_is_rejected", failed_upgrades),
    ("an_image_that_fails_after_all_becomes_the_old_one_again", upgrades::returns),
    ("an_upgrade_follows_the_link_that_the_host_was_started_by", upgrades::follows_a_link),
    ("an_upgrade_that_is_called_off_does_not_happen", rehearsals::is_called_off),
    ("a_rehearsal_ends_with_a_host_that_is_stopped", rehearsals::ends_with_a_stop),
    ("a_rehearsal_ends_with_a_supervisor_that_is_killed", rehearsals::ends_with_a_kill),
    ("a_killed_supervisor_is_followed_by_another_one", killed_supervisor),
    ("the_service_manager_is_told_everything", service_manager),
    ("what_a_worker_relays_is_answered_through_it", relayed_request),
    ("a_second_host_on_the_same_data_is_refused", second_host),
    ("changed_files_are_a_reload_when_they_are_watched", watched_files),
    ("an_app_folder_that_is_replaced_is_watched_on", replaced_app_folder),
    ("an_app_folder_that_is_away_for_a_while_is_watched_when_it_is_back", app_folder_that_is_away),
    ("a_rollback_right_after_a_change_leads_to_the_generation_before_it", early_rollback),
    ("a_rollback_leads_nowhere_when_the_generation_before_could_not_be_kept", rollback_without_previous),
    ("what_a_host_is_pinned_to_is_kept_whatever_cannot_be_written", pin_without_last_good),
    ("sockets_of_the_service_manager_are_used", activated_sockets),
    ("a_control_socket_of_the_service_manager_is_left_to_it", activated_control_socket),
    ("clients_are_never_refused_while_everything_changes", no_refusal),
];

pub(crate) const TWO: &str =
    "[workers]\ncount = 2\norphan_grace = \"2s\"\n[reload]\ncanary_time = \"50ms\"\n";

pub(crate) const RELOAD: Request = Request::Reload { wait: true, mode: None, automatic: false };

fn serves_and_stops() {
    let mut host = Host::start(TWO);
    let status = host.settled(2);
    assert_eq!(status.pid, host.pid());
    assert_eq!(status.listen[0], format!("http://{}", host.address));
    let (answered_by, _) = host.ask();
    assert!(status.workers.iter().any(|worker| worker.pid == answered_by));
    let stop = Request::Stop { mode: StopMode::Graceful };
    assert_eq!(host.verdict(&stop), Verdict::Done);
    assert_eq!(host.wait().code(), Some(0));
    let config = crate::puppet::load(host.folder());
    assert!(!config.control_socket.exists());
    assert_eq!(std::fs::read_to_string(config.data_dir.join("LOCK")).unwrap(), "");
    let sockets = std::fs::read_dir(&config.data_dir).unwrap().flatten();
    let left: Vec<_> = sockets
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().contains("sock"))
        .collect();
    assert_eq!(left, [] as [std::ffi::OsString; 0]);
}

fn killed_worker_is_replaced() {
    let host = Host::start(TWO);
    let victim = host.settled(2).workers[0].pid;
    kill(victim);
    let status = eventually("another worker", || {
        let status = host.settled(2);
        status.workers.iter().all(|worker| worker.pid != victim).then_some(status)
    });
    assert_eq!(status.deaths[0].reason, "crashed by SIGKILL");
    assert_eq!(status.deaths[0].pid, victim);
}

fn killed_store_is_started_again() {
    let host = Host::start(TWO);
    let before = host.settled(2);
    kill(before.store.pid);
    let after = eventually("another store", || {
        let status = host.status();
        (status.store.pid != before.store.pid && status.store.state == "ready").then_some(status)
    });
    assert_eq!((after.store.restarts, after.store.epoch), (1, before.store.epoch + 1));
    assert_eq!(pids(&before), pids(&after), "workers live on");
}

fn reload() {
    let host = Host::start(TWO);
    let before = host.settled(2);
    host.tell("catalog", "second");
    let replies = host.request(&RELOAD);
    assert!(matches!(replies[0], Reply::Accepted { .. }), "{replies:?}");
    assert!(matches!(replies[1], Reply::Progress { .. }), "{replies:?}");
    let Some(Reply::Job(job)) = replies.last() else { panic!("{replies:?}") };
    assert_eq!(job.verdict, Some(Verdict::Done));
    let after = host.settled(2);
    assert!(after.generation > before.generation);
    assert_eq!(host.ask().1, after.generation);
    assert_eq!(host.verdict(&RELOAD), Verdict::Unchanged);
    let Some(Reply::Job(asked)) = host.request(&Request::Job { job: job.job }).pop() else { panic!() };
    assert_eq!(&asked, job);
}

fn bad_app_is_rejected() {
    let host = Host::start(TWO);
    let before = host.settled(2);
    host.tell("bad", "todo.toml: no fields");
    assert_eq!(host.verdict(&RELOAD), Verdict::Rejected { reasons: vec!["todo.toml: no fields".to_owned()] });
    host.tell("bad", "");
    host.tell("refused", "ORDER.number is not unique");
    host.tell("catalog", "second");
    let verdict = host.verdict(&RELOAD);
    assert_eq!(verdict, Verdict::Rejected { reasons: vec!["ORDER.number is not unique".to_owned()] });
    let config = std::fs::read_to_string(host.folder().join("aegis.toml")).unwrap();
    std::fs::write(host.folder().join("aegis.toml"), format!("data_dir = \"elsewhere\"\n{config}")).unwrap();
    let Verdict::Rejected { reasons } = host.verdict(&RELOAD) else { panic!("not rejected") };
    assert!(reasons[0].starts_with("data_dir: found "), "{reasons:?}");
    let after = host.settled(2);
    assert_eq!((after.generation, pids(&after)), (before.generation, pids(&before)));
}

fn crashing_generation() {
    let host = Host::start(TWO);
    let before = host.settled(2);
    host.tell("catalog", "crash");
    let Verdict::RolledBack { reason } = host.verdict(&RELOAD) else { panic!("not rolled back") };
    assert!(reason.contains("exited with 1"), "{reason}");
    assert_eq!(host.settled(2).generation, before.generation);
}

fn scales() {
    let host = Host::start(TWO);
    host.settled(2);
    assert_eq!(host.verdict(&Request::Scale { workers: 5 }), Verdict::Done);
    host.settled(5);
    host.signal(Signal::SIGTTOU);
    host.settled(4);
    host.signal(Signal::SIGTTIN);
    host.settled(5);
    assert_eq!(host.verdict(&Request::Scale { workers: 1 }), Verdict::Done);
    host.settled(1);
    host.signal(Signal::SIGTTOU);
    let status = host.settled(1);
    assert_eq!(status.workers_wanted, 1, "never below one");
}

fn drains() {
    let host = Host::start(TWO);
    host.settled(2);
    host.signal(Signal::SIGWINCH);
    host.settled(0);
    let waiting = std::net::TcpStream::connect(host.address).unwrap();
    assert_eq!(host.verdict(&Request::Scale { workers: 2 }), Verdict::Done);
    host.settled(2);
    waiting.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut line = String::new();
    std::io::Read::read_to_string(&mut &waiting, &mut line).unwrap();
    assert!(line.ends_with('\n'), "who connected meanwhile is served: {line:?}");
}

fn upgrade() {
    let host = Host::start(TWO);
    let before = host.settled(2);
    let copy = host.folder().join("next");
    std::fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let upgrade = Request::Upgrade { path: Some(copy.to_str().unwrap().to_owned()) };
    assert_eq!(host.verdict(&upgrade), Verdict::Done, "the client that asked is answered by the new image");
    let after = host.settled(2);
    assert_eq!(after.pid, before.pid);
    assert!(after.uptime_ms >= before.uptime_ms, "the host did not start anew");
    let image = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!(image(host.pid()), copy);
    for process in after.workers.iter().map(|worker| worker.pid).chain([after.store.pid]) {
        assert_eq!(image(process), copy);
    }
    assert_eq!(host.ask().1, after.workers[0].generation);

    // Signals still arrive, and nothing piles up.
    let count = host.descriptors();
    for _ in 0..5 {
        assert_eq!(host.verdict(&upgrade), Verdict::Done);
    }
    host.settled(2);
    eventually("no more descriptors than before", || (host.descriptors() <= count).then_some(()));
    host.signal(Signal::SIGTTIN);
    host.settled(3);
}

fn failed_upgrades() {
    let host = Host::start(TWO);
    let before = host.settled(2);
    let rejected = |path: String| match host.verdict(&Request::Upgrade { path: Some(path) }) {
        Verdict::Rejected { reasons } => reasons.join("; "),
        other => panic!("{other:?}"),
    };
    let text = host.script("text", "hello");
    assert_eq!(
        rejected(text.clone()),
        format!("{text} cannot be run: it is neither an ELF image nor a script")
    );
    let absent = host.folder().join("absent").to_str().unwrap().to_owned();
    assert!(rejected(absent).contains("No such file"));
    let fails = rejected(host.script("fails", "#!/bin/sh\nexit 1\n"));
    assert!(fails.ends_with("its rehearsal exited with 1 without a report of success"), "{fails}");
    let crashes = rejected(host.script("crashes", "#!/bin/sh\nkill -SEGV $$\n"));
    assert!(crashes.ends_with("its rehearsal was ended by SIGSEGV"), "{crashes}");
    let hangs = rejected(host.script("hangs", "#!/bin/sh\nsleep 1000\n"));
    assert!(hangs.ends_with("it did not report within 8 s"), "{hangs}");
    let after = host.settled(2);
    assert_eq!(pids(&before), pids(&after), "nothing was touched");
}

fn killed_supervisor() {
    let host = Host::start(TWO);
    let before = host.settled(2);
    let address = host.address;
    let host = host.replace_after_kill();
    assert_eq!(host.address, address);
    let after = host.settled(2);
    assert!(after.workers.iter().all(|worker| before.workers.iter().all(|old| old.pid != worker.pid)));
    for worker in &before.workers {
        eventually("the orphans leave", || (!alive(worker.pid)).then_some(()));
    }
}

fn service_manager() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut host = Host::start_with(TWO, |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000");
    });
    let told = |wanted: &str| loop {
        let mut bytes = [0; 4096];
        let length = match manager.recv(&mut bytes) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => panic!("{wanted}: {error}"),
        };
        let datagram = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if datagram.starts_with(wanted) {
            return datagram;
        }
    };
    assert!(told("READY=1\nSTATUS=gen 1").ends_with('\n'));
    told("WATCHDOG=1\n");
    host.tell("catalog", "second");
    host.signal(Signal::SIGHUP);
    assert!(told("RELOADING=1\n").starts_with("RELOADING=1\nMONOTONIC_USEC="));
    told("READY=1\nSTATUS=gen 2");
    told("WATCHDOG=1\n");
    host.signal(Signal::SIGTERM);
    told("STOPPING=1\n");
    assert_eq!(host.wait().code(), Some(0));
}

fn relayed_request() {
    let host = Host::start(TWO);
    let victim = host.settled(2).workers[0].pid;
    host.tell("ask", "reload");
    kill(victim); // the other one is told to look at its queue, and takes that as its cue
    let answers = eventually("the verdict", || {
        let text = std::fs::read_to_string(host.folder().join("modules/answers")).unwrap_or_default();
        text.contains("outcome").then_some(text)
    });
    let replies: Vec<Reply> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(matches!(replies[0], Reply::Accepted { .. }), "{replies:?}");
    let Some(Reply::Job(job)) = replies.last() else { panic!("{replies:?}") };
    assert_eq!(job.verdict, Some(Verdict::Unchanged));
}

fn second_host() {
    let host = Host::start(TWO);
    host.settled(2);
    let program = std::env::current_exe().unwrap();
    let second = Command::new(program).arg("run").arg(host.folder()).status().unwrap();
    assert_eq!(second.code(), Some(75));
    host.settled(2);
}

fn watched_files() {
    let host = Host::start(&format!("{TWO}watch = true\n"));
    let before = host.settled(2).generation;
    host.tell("catalog", "second");
    let job = eventually("another generation, and the end of its job", || {
        let status = host.status();
        status.last_job.filter(|_| status.generation > before)
    });
    assert_eq!(job.kind, "reload");
    let config = std::fs::read_to_string(host.folder().join("aegis.toml")).unwrap();
    std::fs::write(host.folder().join("aegis.toml"), config.replace("count = 2", "count = 3")).unwrap();
    host.settled(3);
}

fn replaced_app_folder() {
    let elsewhere = tempfile::tempdir().unwrap();
    let data = elsewhere.path().join("data");
    let host = Host::start(&format!("data_dir = {data:?}\n{TWO}watch = true\n"));
    let before = host.settled(2).generation;
    let next = elsewhere.path().join("next");
    std::fs::create_dir_all(next.join("modules")).unwrap();
    std::fs::copy(host.folder().join("aegis.toml"), next.join("aegis.toml")).unwrap();
    std::fs::rename(host.folder(), elsewhere.path().join("before")).unwrap();
    std::fs::rename(&next, host.folder()).unwrap();
    eventually("it is looked at, and found to be the same", || {
        host.status().last_job.filter(|job| job.kind == "reload" && job.verdict == Some(Verdict::Unchanged))
    });
    host.tell("catalog", "second");
    eventually("what changes in it is noticed", || (host.status().generation > before).then_some(()));
}

fn app_folder_that_is_away() {
    let elsewhere = tempfile::tempdir().unwrap();
    let (data, aside) = (elsewhere.path().join("data"), elsewhere.path().join("aside"));
    let host = Host::start(&format!("data_dir = {data:?}\n{TWO}watch = true\n"));
    host.settled(2);
    let another = |than: u64| {
        eventually("another generation", || {
            Some(host.status().generation).filter(|generation| *generation > than)
        })
    };
    let mut generation = host.status().generation;
    for catalog in ["second", "third"] {
        let job = host.status().last_job.map(|job| job.job);
        std::fs::rename(host.folder(), &aside).unwrap();
        eventually("that it is gone is noticed", || {
            host.status()
                .last_job
                .filter(|last| Some(last.job) > job && matches!(last.verdict, Some(Verdict::Rejected { .. })))
        });
        std::fs::write(aside.join("modules/catalog"), catalog).unwrap();
        std::fs::rename(&aside, host.folder()).unwrap();
        generation = another(generation);
        host.tell("catalog", &format!("{catalog}, changed in place"));
        generation = another(generation);
    }
}

fn early_rollback() {
    let host = Host::start(TWO);
    host.settled(2);
    // So much that it takes a while until it is on the disk.
    host.tell("ballast", &(48 << 20).to_string());
    host.tell("catalog", "second");
    assert_eq!(host.verdict(&RELOAD), Verdict::Done);
    let folder = crate::puppet::load(host.folder()).data_dir.join("generations");
    eventually("both generations are on the disk", || {
        let is_there = |name: &str| folder.join(name).exists();
        (is_there("previous") && !is_there("previous.new") && !is_there("last-good.new")).then_some(())
    });
    host.tell("catalog", "third");
    let inode = |name: &str| std::fs::metadata(folder.join(name)).unwrap().ino();
    let second = inode("last-good");
    assert_eq!(host.verdict(&RELOAD), Verdict::Done);
    assert_eq!(inode("previous"), second, "what makes room is where a rollback finds it before");
    assert_eq!(host.verdict(&Request::Rollback), Verdict::Done);
    let digest = host.status().digest;
    assert!(digest.starts_with("second-"), "{digest}");
    // Whatever happens from now on, a host that starts anew comes up on it.
    let data = folder.parent().unwrap();
    assert_eq!([pinned(data), digest_in(&LastGood::of(data))], [digest.clone(), digest]);
    host.tell("catalog", "fourth");
    assert_eq!(host.verdict(&deployment()), Verdict::Done);
    let digest = host.status().digest;
    assert_eq!([pinned(data), digest_in(&LastGood::of(data))], [digest.clone(), digest]);
}

fn rollback_without_previous() {
    let host = Host::start(TWO);
    host.settled(2);
    let change = |catalog: &str| {
        host.tell("catalog", catalog);
        assert_eq!(host.verdict(&RELOAD), Verdict::Done);
    };
    let in_force = || host.status().digest.split('-').next().map(str::to_owned);
    let folder = crate::puppet::load(host.folder()).data_dir.join("generations");
    change("second");
    assert!(folder.join("previous").exists());
    std::fs::create_dir(folder.join("previous.new")).unwrap();
    change("third");
    assert!(!folder.join("previous").exists(), "the first one is not the one before");
    assert!(matches!(host.verdict(&Request::Rollback), Verdict::Rejected { .. }));
    assert_eq!(in_force().as_deref(), Some("third"));
    std::fs::remove_dir(folder.join("previous.new")).unwrap();
    change("fourth");
    assert_eq!(host.verdict(&Request::Rollback), Verdict::Done);
    assert_eq!(in_force().as_deref(), Some("third"));
    // What was put back is pinned, and nowhere else: it stays.
    for file in ["previous.new", "last-good.new"] {
        std::fs::create_dir(folder.join(file)).unwrap();
    }
    assert!(matches!(host.verdict(&Request::Rollback), Verdict::Done));
    assert_eq!(in_force().as_deref(), Some("fourth"));
    let kept = digest_in(&LastGood::previous_of(folder.parent().unwrap()));
    assert!(kept.starts_with("fourth-"), "{kept}");
}

fn digest_in(place: &LastGood) -> String {
    Bundle::read(&place.read().unwrap()).unwrap().digest
}

/// The digest that a host which starts anew in this folder looks for.
fn pinned(data: &Path) -> String {
    let note = std::fs::read(data.join("generations/pinned")).unwrap();
    let note: serde_json::Value = serde_json::from_slice(&note).unwrap();
    note["digest"].as_str().unwrap().to_owned()
}

fn deployment() -> Request {
    let order = Order {
        module: "customer".to_owned(),
        supply: Supply::App,
        sha256: None,
        force: false,
        mode: Some(ReloadMode::Rolling), // puppets take nothing over
        trial: None,
    };
    Request::Deploy { order, wait: true }
}

fn pin_without_last_good() {
    let host = Host::start(TWO);
    let first = host.settled(2).digest;
    host.tell("catalog", "second");
    assert_eq!(host.verdict(&RELOAD), Verdict::Done);
    let second = host.status().digest;
    let data = crate::puppet::load(host.folder()).data_dir;
    let (last_good, previous) = (LastGood::of(&data), LastGood::previous_of(&data));
    let in_the_way = data.join("generations/last-good.new");
    std::fs::create_dir(&in_the_way).unwrap();
    assert_eq!(host.verdict(&Request::Rollback), Verdict::Done);
    assert_eq!(host.status().digest, first);
    assert_eq!(
        [digest_in(&last_good), digest_in(&previous), pinned(&data)],
        [second, first.clone(), first.clone()]
    );
    let left = std::fs::read_dir(data.join("generations")).unwrap().flatten();
    assert!(left.into_iter().all(|entry| entry.file_name() != "previous.new"));
    // A deployment that cannot be kept does not take the pin along.
    host.tell("catalog", "third");
    let replies = host.request(&deployment());
    let told = "a restart may come up on another generation than 4: it could not be kept";
    let is_told = |reply: &Reply| matches!(reply, Reply::Progress { step, .. } if step == told);
    assert!(replies.iter().any(is_told), "{replies:?}");
    assert!(host.status().digest.starts_with("third-"));
    assert_eq!([digest_in(&previous), pinned(&data)], [first.clone(), first]);
    std::fs::remove_dir(&in_the_way).unwrap();
    host.tell("catalog", "fourth");
    assert_eq!(host.verdict(&deployment()), Verdict::Done);
    let fourth = host.status().digest;
    assert_eq!([digest_in(&last_good), pinned(&data)], [fourth.clone(), fourth.clone()]);
    host.tell("catalog", "fifth");
    assert_eq!(host.verdict(&deployment()), Verdict::Done);
    let fifth = host.status().digest;
    assert_eq!([digest_in(&last_good), digest_in(&previous), pinned(&data)], [fifth.clone(), fourth, fifth]);
}

fn activated_sockets() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut host = Host::start_with(TWO, |command| give(command, &socket, "public"));
    assert_eq!(host.address, socket.local_addr().unwrap());
    host.settled(2);
    assert_eq!(host.ask().1, 1);
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait().code(), Some(0));
    std::net::TcpStream::connect(host.address).expect("the service manager's socket is still open");
}

fn activated_control_socket() {
    let mut given = None;
    let mut host = Host::start_with(TWO, |command| {
        let folder = command.get_args().last().unwrap();
        let path = crate::puppet::load(Path::new(folder)).control_socket;
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let socket = UnixListener::bind(&path).unwrap();
        give(command, &socket, "control");
        given = Some((path, socket));
    });
    let (path, _socket) = given.unwrap();
    host.settled(2);
    let image = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    assert_eq!(host.verdict(&Request::Upgrade { path: Some(image) }), Verdict::Done);
    host.signal(Signal::SIGTERM);
    assert_eq!(host.wait().code(), Some(0));
    UnixStream::connect(path).expect("the service manager's socket is still there");
}

/// Has `command` started as the service manager does it: the socket becomes number 3, the process id is known only in the
/// child.
fn give(command: &mut Command, socket: &impl AsFd, name: &str) {
    let socket = socket.as_fd();
    rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).unwrap();
    let script = format!(
        "exec 3<&{}; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name} exec \"$0\" \"$@\"",
        socket.as_raw_fd()
    );
    let arguments: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
    let mut shell = Command::new("/bin/bash");
    shell.arg("-c").arg(script).arg(command.get_program()).args(arguments);
    shell.stdin(Stdio::null()).stdout(Stdio::piped());
    *command = shell;
}

fn no_refusal() {
    let host = Host::start(TWO);
    host.settled(2);
    let (address, over) = (host.address, Arc::new(AtomicBool::new(false)));
    let ended = over.clone();
    let client = std::thread::spawn(move || {
        let mut connected = 0_u32;
        while !ended.load(Ordering::Relaxed) {
            // Puppets that leave do not finish what they accepted, so only being refused counts.
            std::net::TcpStream::connect(address).unwrap();
            connected += 1;
        }
        connected
    });
    let image = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    for round in 0..3 {
        host.tell("catalog", &format!("round {round}"));
        assert_eq!(host.verdict(&RELOAD), Verdict::Done);
        kill(host.status().workers[0].pid);
        assert_eq!(host.verdict(&Request::Upgrade { path: Some(image.clone()) }), Verdict::Done);
    }
    over.store(true, Ordering::Relaxed);
    assert!(client.join().unwrap() > 0);
}

pub(crate) fn pids(status: &Status) -> Vec<u32> {
    status.workers.iter().map(|worker| worker.pid).collect()
}

pub(crate) fn kill(pid: u32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
}

pub(crate) fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
