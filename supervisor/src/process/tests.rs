use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::*;

fn spawn(path: &str, arguments: &[&str], keep: &[BorrowedFd<'_>]) -> Process {
    let image = Image::open(Path::new(path)).unwrap();
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    Process::spawn(&Launch {
        image: &image,
        arguments: &arguments,
        environment: Environment::Child(&[]),
        keep,
    })
    .unwrap()
}

fn wait(process: &Process) -> Ending {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(ending) = process.reap().unwrap() {
            return ending;
        }
        assert!(Instant::now() < deadline, "process {} did not end", process.pid());
        let second = rustix::time::Timespec { tv_sec: 1, tv_nsec: 0 };
        rustix::event::poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&second)).unwrap();
    }
}

#[test]
fn the_exit_status_is_told() {
    assert_eq!(wait(&spawn("/bin/true", &[], &[])), Ending::Exited(0));
    assert_eq!(wait(&spawn("/bin/sh", &["-c", "exit 78"], &[])), Ending::Exited(78));
}

#[test]
fn a_signal_reaches_the_child_and_its_death_is_told() {
    let process = spawn("/bin/sleep", &["60"], &[]);
    assert_eq!(process.reap().unwrap(), None);
    assert!(process.resident_bytes() > 0);
    process.signal(Signal::TERM);
    assert_eq!(wait(&process), Ending::Killed(15));
    process.signal(Signal::KILL); // gone already: no error, no stranger
}

#[test]
fn kept_descriptors_are_inherited_and_others_are_not() {
    let (kept, other) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let script = format!(
        "test -e /proc/self/fd/{} && ! test -e /proc/self/fd/{}",
        kept.as_raw_fd(),
        other.as_raw_fd()
    );
    assert_eq!(wait(&spawn("/bin/sh", &["-c", &script], &[kept.as_fd()])), Ending::Exited(0));
    let flags = rustix::io::fcntl_getfd(&kept).unwrap();
    assert!(flags.contains(FdFlags::CLOEXEC), "closed on exec again after the spawn");
}

#[test]
fn a_child_has_its_own_process_group_and_is_told_nothing_of_the_service_manager() {
    let script = r#"test "$(cut -d' ' -f5 /proc/$$/stat)" = "$$" && test -z "$NOTIFY_SOCKET$LISTEN_FDS""#;
    assert_eq!(wait(&spawn("/bin/sh", &["-c", script], &[])), Ending::Exited(0));
}

#[test]
fn an_image_runs_although_its_file_was_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("program");
    std::fs::copy("/bin/true", &path).unwrap();
    let image = Image::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let process = Process::spawn(&Launch {
        image: &image,
        arguments: &[],
        environment: Environment::Child(&[]),
        keep: &[],
    })
    .unwrap();
    assert_eq!(wait(&process), Ending::Exited(0));
}

#[test]
fn the_mark_of_a_replaced_file_is_taken_off() {
    assert_eq!(without_deleted_mark(Path::new("/opt/aegis (deleted)")), Path::new("/opt/aegis"));
    assert_eq!(without_deleted_mark(Path::new("/opt/aegis")), Path::new("/opt/aegis"));
}

#[test]
fn files_that_cannot_run_are_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text");
    std::fs::write(&text, "hello").unwrap();
    let reason = |path: &Path| match Image::open(path).unwrap_err() {
        SupervisorError::NotExecutable { reason, .. } => reason,
        other => panic!("{other}"),
    };
    assert!(reason(&text).starts_with("Permission denied"));
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&text, executable).unwrap();
    assert_eq!(reason(&text), "it is neither an ELF image nor a script");
    assert!(reason(&directory.path().join("absent")).starts_with("No such file"));
    assert_eq!(reason(directory.path()), "it is not a regular file");
}

#[test]
fn kills_for_lack_of_memory_are_counted_by_the_kernel() {
    assert_eq!(memory_kills("low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\noom_group_kill 0\n"), 2);
    assert_eq!(memory_kills(""), 0);
    assert!(!MemoryKills::new().take_one());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "oom 2\noom_kill 2\n").unwrap();
    let mut kills = MemoryKills { events: Some(file.path().to_owned()), seen: 0 };
    assert_eq!(
        [(); 3].map(|()| kills.take_one()),
        [true, true, false],
        "one for each process that was killed"
    );
}

#[test]
fn a_child_that_is_put_down_leaves_no_zombie() {
    let process = spawn("/bin/sleep", &["60"], &[]);
    process.put_down();
    assert!(process.reap().is_err(), "there is nothing left to reap");
}

#[test]
fn children_may_open_as_much_as_the_administrator_allows() {
    raise_descriptor_limit().unwrap();
    let script = r#"test "$(ulimit -Sn)" = "$(ulimit -Hn)""#;
    assert_eq!(wait(&spawn("/bin/sh", &["-c", script], &[])), Ending::Exited(0));
}

#[test]
fn a_rehearsal_is_gone_with_whoever_started_it() {
    let rehearse = || {
        let image = Image::open(Path::new("/bin/sleep")).unwrap();
        let arguments = ["1000".into()];
        Process::spawn(&Launch {
            image: &image,
            arguments: &arguments,
            environment: Environment::Own,
            keep: &[],
        })
    };
    let process = std::thread::spawn(rehearse).join().unwrap().unwrap();
    assert_eq!(wait(&process), Ending::Killed(9));
}
