use std::{
    fs::File,
    io::{BufRead, BufReader, PipeReader},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    thread::{self, JoinHandle},
};

use aegis_ipc::operator::StoreStatus;

use super::*;

/// A host that reads one request and answers it with these lines, then closes.
fn host(folder: &Path, answers: &[Reply]) -> JoinHandle<String> {
    let listener = UnixListener::bind(folder.join("control.sock")).unwrap();
    let answers = answers.to_vec();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let line = read_line(&stream);
        for answer in answers {
            writeln!(&stream, "{}", serde_json::to_string(&answer).unwrap()).unwrap();
        }
        line
    })
}

fn read_line(stream: &UnixStream) -> String {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

fn carried_out(request: &Request, answers: &[Reply]) -> Result<Reply, Failure> {
    let folder = tempfile::tempdir().unwrap();
    let host = host(folder.path(), answers);
    let mut client = Client::connect(&folder.path().join("control.sock")).unwrap();
    let outcome = carry_out(&mut client, request, &mut Progress::new(Form::Json));
    host.join().unwrap();
    outcome
}

fn job(number: u64, verdict: Option<Verdict>) -> Reply {
    let (kind, step) = ("reload".to_owned(), "probing".to_owned());
    Reply::Job(Job { job: number, kind, step, generation: 2, verdict })
}

const RELOAD: Request = Request::Reload { wait: true, mode: None, automatic: false };

#[test]
fn a_reload_ends_with_the_verdict_of_its_own_job() {
    let rejected = || Verdict::Rejected { reasons: vec!["aegis.toml:1: x".to_owned()] };
    let answers = [
        Reply::Accepted { job: 4 },
        Reply::Progress { job: 4, step: "probing".to_owned(), is_warning: false },
        job(3, Some(Verdict::Done)),
        job(4, None),
        job(4, Some(rejected())),
    ];
    assert_eq!(carried_out(&RELOAD, &answers).unwrap(), job(4, Some(rejected())));
}

#[test]
fn verdicts_become_exit_codes() {
    let code = |verdict| tell(Ok(job(1, Some(verdict))), Form::Json);
    assert_eq!(code(Verdict::Done), 0);
    assert_eq!(code(Verdict::Unchanged), 0);
    assert_eq!(code(Verdict::Rejected { reasons: Vec::new() }), 3);
    assert_eq!(code(Verdict::RolledBack { reason: String::new() }), 4);
    assert_eq!(code(Verdict::Superseded), 5);
}

#[test]
fn a_refusal_says_why() {
    let answers = [Reply::Error { message: "the host is stopping".to_owned() }];
    let failure = carried_out(&RELOAD, &answers).unwrap_err();
    insta::assert_snapshot!(with_causes(&failure), @"refused: the host is stopping");
    assert_eq!(failure.exit_code(), REFUSED);
}

#[test]
fn a_host_that_dies_before_the_verdict_is_no_success() {
    let failure = carried_out(&RELOAD, &[Reply::Accepted { job: 4 }]).unwrap_err();
    assert!(matches!(failure, Failure::Client(ClientError::Closed { .. })), "{failure:?}");
    assert_eq!(failure.exit_code(), exit::TRANSIENT);
}

#[test]
fn stop_waits_until_the_host_is_gone() {
    let stop = Request::Stop { mode: aegis_ipc::operator::StopMode::Graceful };
    let progress = Reply::Progress { job: 1, step: "draining".to_owned(), is_warning: false };
    for answers in [
        vec![Reply::Accepted { job: 1 }, job(1, Some(Verdict::Done))],
        vec![Reply::Accepted { job: 1 }, progress.clone(), job(1, Some(Verdict::Done))],
    ] {
        assert_eq!(carried_out(&stop, &answers).unwrap(), Reply::Done);
    }
    // It was killed, and its workers go on.
    for answers in [vec![Reply::Accepted { job: 1 }], vec![Reply::Accepted { job: 1 }, progress]] {
        let failure = carried_out(&stop, &answers).unwrap_err();
        assert!(matches!(failure, Failure::Client(ClientError::Closed { .. })), "{failure:?}");
        assert_eq!(failure.exit_code(), exit::TRANSIENT);
    }
}

#[test]
fn an_answer_to_another_question_is_a_defect() {
    let answers = [Reply::Accepted { job: 4 }, Reply::Done];
    let failure = carried_out(&RELOAD, &answers).unwrap_err();
    insta::assert_snapshot!(with_causes(&failure), @r#"the host answered something else than was asked: {"reply":"done"}"#);
    assert_eq!(failure.exit_code(), exit::BUG);
}

#[test]
fn a_stop_says_how_the_host_ends() {
    use aegis_ipc::operator::StopMode;
    for (mode, words) in [
        (StopMode::Immediate, "ending at once"),
        (StopMode::Graceful, "finishing what is in flight"),
        (StopMode::Patient, "finishing what is in flight"),
    ] {
        assert_eq!(farewell(&Request::Stop { mode }), words);
    }
}

#[test]
fn a_socket_that_was_renamed_since_the_host_started_is_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    std::fs::write(folder.path().join("aegis.toml"), "data_dir = \"d\"\n").unwrap();
    let host = |control: Option<&str>| Host {
        dir: folder.path().to_owned(),
        control: control.map(|name| folder.path().join(name)),
    };
    let told = |host: &Host| {
        let failure = connect(host, &Environment::new()).unwrap_err();
        assert_eq!(failure.exit_code(), exit::TRANSIENT);
        with_causes(&failure).replace(&folder.path().display().to_string(), "APP")
    };
    insta::assert_snapshot!(told(&host(None)), @"no host listens on APP/d/control.sock; is `aegis run` running? (the socket that the configuration names now; if it was changed since the host started, name the old one with --control)");
    let _listener = UnixListener::bind(folder.path().join("data/control.sock")).unwrap();
    insta::assert_snapshot!(told(&host(None)), @"no host listens on APP/d/control.sock; is `aegis run` running? (the socket that the configuration names now; one listens on APP/data/control.sock, which --control names)");
    insta::assert_snapshot!(told(&host(Some("x"))), @"no host listens on APP/x; is `aegis run` running?");
    assert!(connect(&host(Some("data/control.sock")), &Environment::new()).is_ok());
}

#[test]
fn a_quiet_host_is_asked_about_the_job() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("control.sock")).unwrap();
    let host = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let first = read_line(&stream);
        writeln!(&stream, "{}", serde_json::to_string(&Reply::Accepted { job: 4 }).unwrap()).unwrap();
        let second = read_line(&stream);
        writeln!(&stream, "{}", serde_json::to_string(&job(4, Some(Verdict::Done))).unwrap()).unwrap();
        (first, second)
    });
    let mut client = Client::connect(&folder.path().join("control.sock")).unwrap();
    let mut progress = Progress::new(Form::Json);
    let Reply::Accepted { job: number } = client.ask(&RELOAD).unwrap() else { panic!("not accepted") };
    let tick = Duration::from_millis(1);
    let outcome = follow_at(&mut client, number, &mut progress, tick, tick * 10).unwrap();
    assert_eq!(outcome.verdict, Some(Verdict::Done));
    let (_, question) = host.join().unwrap();
    assert_eq!(question, "{\"request\":\"job\",\"job\":4}\n");
}

#[test]
fn a_host_that_says_nothing_even_when_asked_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("control.sock")).unwrap();
    let mut client = Client::connect(&folder.path().join("control.sock")).unwrap();
    let _held = listener.accept().unwrap();
    let tick = Duration::from_millis(1);
    let failure = follow_at(&mut client, 4, &mut Progress::new(Form::Json), tick, tick * 5).unwrap_err();
    assert!(matches!(failure, Failure::Client(ClientError::Silent { .. })), "{failure:?}");
}

#[test]
fn the_socket_is_found_through_the_configuration_even_when_that_has_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host { dir: folder.path().to_owned(), control: None };
    let found = || socket(&host, &Environment::new());
    std::fs::write(folder.path().join("aegis.toml"), "data_dir = \"d\"\n").unwrap();
    assert_eq!(found().unwrap(), folder.path().join("d/control.sock"));
    std::fs::write(folder.path().join("aegis.toml"), "workers = \"many\"\ndata_dir = \"d\"\n").unwrap();
    assert_eq!(found().unwrap(), folder.path().join("d/control.sock"));
    std::fs::write(folder.path().join("aegis.toml"), "data_dir = 3\n").unwrap();
    let failure = found().unwrap_err();
    insta::assert_snapshot!(failure, @"
    which socket to talk to cannot be told from the app folder (--control names it)
      aegis.toml:1: data_dir: found 3, expected a path
    ");
    assert_eq!(failure.exit_code(), exit::CONFIGURATION);
    let named = Host { control: Some("/x/control.sock".into()), ..host };
    assert_eq!(socket(&named, &Environment::new()).unwrap(), PathBuf::from("/x/control.sock"));
}

fn state(summary: &str) -> Status {
    Status {
        pid: 4242,
        version: "0.1.0".to_owned(),
        uptime_ms: 90_061_000,
        summary: summary.to_owned(),
        listen: Vec::new(),
        generation: 7,
        digest: "0123456789abcdef".repeat(4),
        notice: None,
        deployed: Vec::new(),
        failing: Vec::new(),
        trials: Vec::new(),
        workers_wanted: 2,
        workers: Vec::new(),
        store: StoreStatus {
            pid: 4250,
            state: "ready".to_owned(),
            durable: 1,
            epoch: 1,
            restarts: 0,
            disk_full: None,
        },
        jobs: Vec::new(),
        last_job: None,
        deaths: Vec::new(),
        loop_longest_us: 800,
    }
}

/// What comes of watching a host that shows these states, and then goes on without a change. `see` reads them.
fn watched(summaries: &[&str], form: Form, see: impl FnOnce(PipeReader)) -> Result<Reply, Failure> {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("control.sock")).unwrap();
    let mut client = Client::connect(&folder.path().join("control.sock")).unwrap();
    let (host, _) = listener.accept().unwrap();
    for summary in summaries {
        let reply = Reply::Status(Box::new(state(summary)));
        writeln!(&host, "{}", serde_json::to_string(&reply).unwrap()).unwrap();
    }
    let (reader, writer) = std::io::pipe().unwrap();
    let mut screen = File::from(OwnedFd::from(writer));
    thread::scope(|scope| {
        let watch = scope.spawn(|| show_changes(&mut client, form, &mut screen, Duration::from_millis(1)));
        see(reader);
        watch.join().unwrap()
    })
}

#[test]
fn a_watch_ends_when_whoever_sees_it_has_seen_enough() {
    for form in [Form::Text, Form::Json] {
        let see = |reader: PipeReader| {
            let mut line = String::new();
            BufReader::new(reader).read_line(&mut line).unwrap();
            assert!(line.contains("one"), "{line}");
        };
        // Nothing is left to be written when the pipe is closed.
        assert_eq!(watched(&["one"], form, see).unwrap(), Reply::Done);
        assert_eq!(watched(&["one", "two", "three"], form, see).unwrap(), Reply::Done);
        // Nobody ever reads it.
        let outcome = watched(&["one"], form, drop);
        assert_eq!(outcome.unwrap(), Reply::Done);
    }
}

#[test]
fn a_watch_that_cannot_be_shown_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("control.sock")).unwrap();
    let mut client = Client::connect(&folder.path().join("control.sock")).unwrap();
    let (host, _) = listener.accept().unwrap();
    let reply = Reply::Status(Box::new(state("one")));
    writeln!(&host, "{}", serde_json::to_string(&reply).unwrap()).unwrap();
    let mut full = File::options().write(true).open("/dev/full").unwrap();
    let failure = show_changes(&mut client, Form::Text, &mut full, TICK).unwrap_err();
    insta::assert_snapshot!(
        with_causes(&failure),
        @"writing to standard output failed: No space left on device (os error 28)"
    );
    assert_eq!(failure.exit_code(), exit::OS);
}
