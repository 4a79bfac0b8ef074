//! `aegis dev`: runs an app while it is worked on. What changes is built, if the configuration says how, and brought into
//! force at once; every outcome is one line.
//!
//! [`plan`] decides what is next. This loop starts the host as a process of its own, watches files, and does what it is told.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    path::PathBuf,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use aegis_config::{Config, Environment, ModuleBuild, environment};
use aegis_ipc::{
    board::monotonic_ms,
    operator::{Reply, Request, Verdict},
};
use aegis_supervisor::{exit, watch::Watch, with_causes};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use signal_hook::consts::signal::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::{
    app::{Blame, Mistakes},
    arguments::AppArguments,
    check,
    client::{Client, ClientError, Incoming},
    output::{Form, complain, result},
};
use plan::{Event, Plan, Step};

mod plan;
mod told;

/// Where a process finds the image that it runs.
const RUNNING_IMAGE: &str = "/proc/self/exe";
/// By these somebody ends it: a key, a terminal that is closed, a service manager.
const ENDS: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];
/// Settings of a host that one person works on, unless the environment has them: outcomes are told here, so the log has
/// what is wrong only, and nobody waits for a verdict over requests that do not come.
const SETTINGS: [(&str, &str); 3] = [
    (environment::LOG_LEVEL, "warn"),
    (environment::RELOAD_WATCH, "false"),
    (environment::RELOAD_CANARY_TIME, "0s"),
];
/// Workers, unless somebody says otherwise.
const WORKERS: &str = "1";
/// Time for one build.
const BUILD_TIME_MAX: Duration = Duration::from_secs(15 * 60);
/// Time between two looks at whether somebody wants to end, while something is waited for.
const TICK: Duration = Duration::from_millis(200);
/// Silence of the host during a reload after which it is given up.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// Runs the app until it is stopped.
pub(crate) fn dev(arguments: AppArguments, environment: &Environment, form: Form) -> u8 {
    let mut arguments = arguments.absolute();
    arguments.workers.get_or_insert_with(|| WORKERS.to_owned());
    let config = match Config::load(&arguments.folder, &arguments.overrides(), environment) {
        Ok(loaded) => loaded.config,
        Err(errors) => {
            let mistakes = Mistakes { lines: errors.lines(), blame: Blame::App };
            return check::refuse_to_start(&mistakes, form);
        }
    };
    match Dev::new(arguments, environment, form, config).and_then(Dev::run) {
        Ok(code) => code,
        // A host that is there is asked to end as soon as this process has.
        Err(failure) => {
            complain(&format!("dev: {}", with_causes(&failure)));
            exit::OS
        }
    }
}

/// Why it cannot go on.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The operating system refused something.
    #[error("{operation} failed")]
    Os {
        /// What was attempted.
        operation: &'static str,
        /// The answer.
        #[source]
        source: io::Error,
    },
    /// Files cannot be watched.
    #[error("the files are not watched")]
    Watch(#[from] aegis_supervisor::SupervisorError),
}

fn os(operation: &'static str) -> impl Fn(io::Error) -> Failure {
    move |source| Failure::Os { operation, source }
}

struct Dev<'a> {
    arguments: AppArguments,
    environment: &'a Environment,
    form: Form,
    config: Config,
    plan: Plan,
    files: Watch,
    sources: BTreeMap<String, Watch>,
    host: Option<Child>,
    /// Where the host listens for commands as long as it runs, whatever the configuration says meanwhile.
    control: PathBuf,
    /// Where the host tells that it serves, until it says no more.
    words: Option<ChildStdout>,
    wake: UnixStream,
    wants_to_end: Arc<AtomicBool>,
}

impl<'a> Dev<'a> {
    fn new(
        arguments: AppArguments,
        environment: &'a Environment,
        form: Form,
        config: Config,
    ) -> Result<Self, Failure> {
        let (wake, waker) = UnixStream::pair().map_err(os("making a pair of sockets"))?;
        wake.set_nonblocking(true).map_err(os("using a socket"))?;
        let wants_to_end = Arc::new(AtomicBool::new(false));
        for signal in ENDS {
            let registered = signal_hook::flag::register(signal, Arc::clone(&wants_to_end));
            registered.map_err(os("setting up signals"))?;
        }
        for signal in ENDS.into_iter().chain([SIGCHLD]) {
            let waker = waker.try_clone().map_err(os("duplicating a socket"))?;
            signal_hook::low_level::pipe::register(signal, waker).map_err(os("setting up signals"))?;
        }
        let plan = Plan::new(builds(&config).into_keys());
        let (files, sources) = (Watch::start(&config)?, watched(&config, form));
        let (host, control, words) = (None, config.control_socket.clone(), None);
        Ok(Self {
            arguments,
            environment,
            form,
            config,
            plan,
            files,
            sources,
            host,
            control,
            words,
            wake,
            wants_to_end,
        })
    }

    fn run(mut self) -> Result<u8, Failure> {
        loop {
            if self.wants_to_end.load(Ordering::SeqCst) {
                self.plan.on(Event::Stop);
            }
            match self.plan.next() {
                Step::Build(module) => self.build(&module)?,
                Step::Start => self.start()?,
                Step::Reload => self.reload(),
                Step::Terminate => self.terminate(),
                Step::Wait => self.wait()?,
                Step::End(code) => return Ok(code),
            }
        }
    }

    /// Starts the host. Signals of the terminal are for this process: it passes them on when it is time.
    fn start(&mut self) -> Result<(), Failure> {
        // It reads everything that is there now.
        self.files.read(monotonic_ms());
        if self.files.take_due(u64::MAX) {
            self.read_configuration_anew();
        }
        self.control.clone_from(&self.config.control_socket);
        let mut command = bound([RUNNING_IMAGE, "aegis", "run"]);
        if self.form == Form::Json {
            command.arg("--json");
        }
        command.args(self.arguments.compile_arguments());
        let unset = SETTINGS.iter().filter(|(name, _)| !self.environment.contains_key(*name));
        command.envs(unset.copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut host = command.spawn().map_err(os("starting the host"))?;
        self.words = host.stdout.take();
        self.host = Some(host);
        Ok(())
    }

    fn terminate(&self) {
        if let Some(pid) = self.host.as_ref().and_then(pid_of) {
            let _ = kill(pid, Signal::SIGTERM); // it may have ended already
        }
    }

    /// Builds a module; what it prints is for the eyes of the person.
    fn build(&mut self, module: &str) -> Result<(), Failure> {
        let Some(build) = builds(&self.config).remove(module) else {
            self.plan.on(Event::Built(module.to_owned(), false));
            return Ok(());
        };
        let begun = Instant::now();
        let status = self.run_command(&build.command)?;
        result(&told::build(self.form, module, status, begun.elapsed()));
        let well = status.is_some_and(|status| status.success());
        self.plan.on(Event::Built(module.to_owned(), well));
        Ok(())
    }

    /// Nothing when it was ended before its time.
    fn run_command(&self, line: &str) -> Result<Option<ExitStatus>, Failure> {
        let deadline = Instant::now() + BUILD_TIME_MAX;
        let shown = io::stderr().as_fd().try_clone_to_owned().map_err(os("duplicating standard error"))?;
        let mut command = bound(["/bin/sh", "sh", "-c"]);
        command.arg(line).current_dir(&self.config.app_dir);
        command.stdin(Stdio::null()).stdout(Stdio::from(shown)).process_group(0);
        let mut child = command.spawn().map_err(os("starting a build"))?;
        let mut is_given_up = false;
        loop {
            if let Some(status) = child.try_wait().map_err(os("waiting for a build"))? {
                return Ok((!is_given_up).then_some(status));
            }
            if self.wants_to_end.load(Ordering::SeqCst) || Instant::now() > deadline {
                // A build that does not take the first hint gets no second one.
                let signal = if is_given_up { Signal::SIGKILL } else { Signal::SIGTERM };
                let _ = pid_of(&child).map(|pid| killpg(pid, signal)); // it may have ended just now
                is_given_up = true;
            }
            self.sleep(&[], TICK)?;
        }
    }

    /// Asks the host to reload, and tells the outcome.
    fn reload(&mut self) {
        let begun = Instant::now();
        let outcome = self.ask_to_reload();
        result(&told::reload(self.form, &outcome, begun.elapsed()));
        self.plan.on(Event::Reloaded);
    }

    fn ask_to_reload(&self) -> Result<Option<Verdict>, ClientError> {
        let mut client = Client::connect(&self.control)?;
        client.send(&Request::Reload { wait: true, mode: None, automatic: false })?;
        let mut heard = Instant::now();
        while !self.wants_to_end.load(Ordering::SeqCst) && heard.elapsed() < SILENCE_MAX {
            match client.receive(TICK)? {
                Incoming::Reply(Reply::Job(job)) if job.verdict.is_some() => return Ok(job.verdict),
                Incoming::Reply(Reply::Error { message }) => {
                    return Ok(Some(Verdict::Rejected { reasons: vec![message] }));
                }
                Incoming::Reply(_) => heard = Instant::now(),
                Incoming::Nothing => {}
                Incoming::Closed => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Waits until something happens, and notes it.
    fn wait(&mut self) -> Result<(), Failure> {
        let due_ms = self.sources.values().chain([&self.files]).filter_map(Watch::due_ms).min();
        let left_ms =
            due_ms.map_or(SILENCE_MAX.as_millis() as u64, |due_ms| due_ms.saturating_sub(monotonic_ms()));
        let mut watched: Vec<BorrowedFd<'_>> = self.sources.values().map(AsFd::as_fd).collect();
        watched.push(self.files.as_fd());
        watched.extend(self.words.as_ref().map(AsFd::as_fd));
        self.sleep(&watched, Duration::from_millis(left_ms))?;
        self.hear();
        if let Some(status) =
            self.host.as_mut().map(Child::try_wait).transpose().map_err(os("waiting for the host"))?.flatten()
        {
            self.host = None;
            self.words = None;
            // Killed by a signal: as the shell says it.
            let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::BUG);
            self.plan.on(Event::Ended(code));
        }
        self.look_at_files();
        Ok(())
    }

    /// Waits until there is something to read, or somebody wants something, or the time is over.
    fn sleep(&self, watched: &[BorrowedFd<'_>], time: Duration) -> Result<(), Failure> {
        let mut polled: Vec<PollFd<'_>> =
            watched.iter().map(|descriptor| PollFd::new(*descriptor, PollFlags::POLLIN)).collect();
        polled.push(PollFd::new(self.wake.as_fd(), PollFlags::POLLIN));
        match poll(&mut polled, PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(os("waiting")(error.into())),
        }
        let mut signals = [0; 64];
        let _ = (&self.wake).read(&mut signals); // one byte for each signal; the flags tell which
        Ok(())
    }

    /// Passes on what the host says. Its first words are where it listens.
    fn hear(&mut self) {
        let Some(words) = &mut self.words else { return };
        let mut polled = [PollFd::new(words.as_fd(), PollFlags::POLLIN)];
        if !poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
            return;
        }
        let mut bytes = [0; 4096];
        match words.read(&mut bytes) {
            Ok(0) | Err(_) => self.words = None,
            Ok(count) => {
                let said = String::from_utf8_lossy(&bytes[..count]);
                result(&said);
                if told::serves(self.form, &said) {
                    self.plan.on(Event::Serves);
                }
            }
        }
    }

    fn look_at_files(&mut self) {
        let now_ms = monotonic_ms();
        self.files.read(now_ms);
        if self.files.take_due(now_ms) {
            self.plan.on(Event::AppChanged);
            self.read_configuration_anew();
        }
        for (module, watch) in &mut self.sources {
            watch.read(now_ms);
            if watch.take_due(now_ms) {
                self.plan.on(Event::SourcesChanged(module.clone()));
            }
        }
    }

    /// The configuration may say something else now about builds, and where the modules are. One with mistakes is the host's
    /// to refuse.
    fn read_configuration_anew(&mut self) {
        let loaded = Config::load(&self.arguments.folder, &self.arguments.overrides(), self.environment);
        let Ok(loaded) = loaded else { return };
        let before = std::mem::replace(&mut self.config, loaded.config);
        if !self.files.fits(&self.config) {
            match Watch::start(&self.config) {
                Ok(watch) => self.files = watch,
                Err(error) => {
                    complain(&format!("dev: the files are watched as before: {}", with_causes(&error)));
                }
            }
        }
        let (old, new) = (builds(&before), builds(&self.config));
        if old != new {
            self.sources = watched(&self.config, self.form);
            for (module, _) in new.into_iter().filter(|(module, build)| old.get(module) != Some(build)) {
                self.plan.on(Event::SourcesChanged(module));
            }
        }
    }
}

fn builds(config: &Config) -> BTreeMap<String, ModuleBuild> {
    let one =
        |(name, terms): (&String, &aegis_config::ModuleTerms)| Some((name.clone(), terms.build.clone()?));
    config.modules.iter().filter_map(one).collect()
}

/// Watches over what modules are built from. Folders that are not there are told, and not watched.
fn watched(config: &Config, form: Form) -> BTreeMap<String, Watch> {
    let mut watches = BTreeMap::new();
    for (module, build) in builds(config) {
        match Watch::start_on(&build.watch) {
            Ok(watch) => {
                watches.insert(module, watch);
            }
            Err(error) => result(&told::unwatched(form, &module, &with_causes(&error))),
        }
    }
    watches
}

/// A program, what it is called, and its first argument: it is asked to end when this process is gone, whatever became of it.
fn bound(words: [&str; 3]) -> Command {
    let mut command = Command::new(RUNNING_IMAGE);
    command.arg0("aegis").arg("bound").arg(std::process::id().to_string()).arg("--").args(words);
    command
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().map(Pid::from_raw)
}
