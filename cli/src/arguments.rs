//! The command line.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use aegis_config::{Overrides, WORKERS_MAX};
use aegis_ipc::{
    deploy::{Order, Supply, TrialStep},
    operator::ReloadMode,
};
use clap::{Args, Parser, Subcommand, ValueEnum};

#[cfg(test)]
mod tests;

const EXIT_CODES: &str = "\
Exit status:
  0  done                            65  the imported data are wrong
  1  the called code refused         70  a defect of aegis, or of the called code
  3  rejected, nothing was touched   71  the operating system refused something
  4  rolled back                     75  it may work when tried again (no host is running, for one)
  5  superseded by a newer request   78  configuration, modules or data are wrong
  64 the command line is wrong";

/// A federation host: many services in one small cluster of processes.
#[derive(Debug, Parser)]
#[command(name = "aegis", version, after_help = EXIT_CODES, disable_help_subcommand = true, max_term_width = 110)]
pub(crate) struct Arguments {
    /// Print results as JSON, one object per line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the app in DIR until it is stopped
    Run(RunArguments),
    /// Run the app in DIR while it is worked on: what changes is built and brought into force at once
    Dev(AppArguments),
    /// Report every mistake in the configuration and modules of the app in DIR, without running it; DIR may also be a
    /// component, a *.wasm file
    Check(AppArguments),
    /// Begin something new
    #[command(subcommand)]
    New(NewCommand),
    /// Make keys that modules are signed with
    #[command(subcommand)]
    Key(KeyCommand),
    /// Sign the manifest of a module, so that hosts know who publishes it
    Sign(SignArguments),
    /// Call one command or hook of the component in FILE once, without a host
    #[command(name = "run-command")]
    Call(RunCommandArguments),
    /// Show the state of the host
    Status {
        #[command(flatten)]
        host: HostInFolder,
        /// Show every change until interrupted
        #[arg(long)]
        watch: bool,
    },
    /// Bring what has changed into force, or one module of it, and wait for the verdict
    Reload(ReloadArguments),
    /// Bring another version of one module into force, and nothing else
    Deploy(DeployArguments),
    /// Go back to before the last change, and stay there until a reload
    Rollback(HostInFolder),
    /// Change the number of workers until a reload brings something new
    Scale {
        /// How many workers serve
        #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(WORKERS_MAX)))]
        workers: u32,
        #[command(flatten)]
        host: Host,
    },
    /// Let all workers finish and leave; connections wait for a reload, scale or upgrade
    Drain(HostInFolder),
    /// Replace workers one by one, or the one in SLOT
    Restart {
        /// Which worker (see `aegis status`); all by default
        #[arg(value_parser = slot)]
        slot: Option<u32>,
        #[command(flatten)]
        host: Host,
    },
    /// Replace the running executable without losing a connection
    Upgrade {
        /// The new executable; by default the path the host was started from
        path: Option<PathBuf>,
        #[command(flatten)]
        host: Host,
    },
    /// What becomes of log lines
    #[command(subcommand)]
    Logs(LogsCommand),
    /// End the host; what is in flight is finished within the drain timeout, unless said otherwise
    Stop {
        #[command(flatten)]
        host: HostInFolder,
        /// Finish what is in flight however long it takes
        #[arg(long, conflicts_with = "now")]
        patient: bool,
        /// Finish nothing: end at once
        #[arg(long)]
        now: bool,
    },
    /// Look after the documents of an app whose host is stopped
    #[command(subcommand)]
    Data(DataCommand),
    /// The supervisor, when it continues in a new executable.
    #[command(hide = true)]
    Supervisor {
        /// Inherited descriptor of what the predecessor left.
        #[arg(long, value_name = "DESCRIPTOR")]
        resume: i32,
    },
    /// The store process.
    #[command(hide = true)]
    Store,
    /// A worker process.
    #[command(hide = true)]
    Worker,
    /// The process that looks at the app before the host is there.
    #[command(hide = true)]
    Examine(AppArguments),
    /// A program that is asked to end with the process that started it.
    #[command(hide = true)]
    Bound(BoundArguments),
    /// The process that makes a generation.
    #[command(hide = true)]
    Compile(AppArguments),
    /// The process that asks the sources of modules.
    #[command(hide = true)]
    Look,
}

/// What can be begun.
#[derive(Debug, Subcommand)]
pub(crate) enum NewCommand {
    /// Write an app folder with a small model in it; nothing is overwritten
    Model(NewModelArguments),
}

/// Which model, and where.
#[derive(Debug, Clone, Args)]
pub(crate) struct NewModelArguments {
    /// Name of the model
    pub(crate) name: String,
    /// The app folder [default: the name]
    #[arg(value_name = "DIR")]
    pub(crate) folder: Option<PathBuf>,
    /// `toml` for a model without code, or `js`, `rust` or `python`
    #[arg(long = "lang", value_name = "LANGUAGE", default_value = "toml", value_parser = language)]
    pub(crate) language: Language,
}

/// What a model is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    /// Declared, without code.
    Toml,
    /// JavaScript.
    JavaScript,
    /// Rust.
    Rust,
    /// Python.
    Python,
}

fn language(name: &str) -> Result<Language, String> {
    match name {
        "toml" => Ok(Language::Toml),
        "js" => Ok(Language::JavaScript),
        "rust" => Ok(Language::Rust),
        "python" => Ok(Language::Python),
        _ => Err("expected toml, js, rust or python".to_owned()),
    }
}

/// What can be done with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key (Ed25519) in FILE, which must not be there, and print what hosts that trust it say in aegis.toml
    New(NewKeyArguments),
}

/// Which key is made.
#[derive(Debug, Clone, Args)]
pub(crate) struct NewKeyArguments {
    /// The private key, in PKCS#8; nobody else may read it
    pub(crate) file: PathBuf,
    /// What signatures call it [default: the name of FILE without its extension]
    #[arg(long)]
    pub(crate) name: Option<String>,
}

/// What is signed, and with what.
#[derive(Debug, Clone, Args)]
pub(crate) struct SignArguments {
    /// The folder of a module, or its manifest; its component lies beside it
    #[arg(value_name = "DIR|MANIFEST")]
    pub(crate) target: PathBuf,
    /// The private key (Ed25519, PKCS#8), as `aegis key new` or openssl makes one
    #[arg(long, value_name = "FILE")]
    pub(crate) key: PathBuf,
    /// What hosts that trust the key call it in aegis.toml [default: the name of its FILE without its extension]
    #[arg(long, value_name = "KEYID")]
    pub(crate) name: Option<String>,
}

/// What becomes of log lines.
#[derive(Debug, Subcommand)]
pub(crate) enum LogsCommand {
    /// Open the log file anew, after it was moved away
    Reopen(HostInFolder),
}

/// What can be done with documents at rest.
#[derive(Debug, Subcommand)]
pub(crate) enum DataCommand {
    /// Write all documents, one JSON object per line
    Export {
        #[command(flatten)]
        app: DataArguments,
        /// Where to [default: standard output]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Read documents that were exported
    Import {
        #[command(flatten)]
        app: DataArguments,
        /// Where from [default: standard input]
        #[arg(long, value_name = "FILE")]
        input: Option<PathBuf>,
    },
    /// Read everything and check that it is whole
    Verify {
        #[command(flatten)]
        app: DataArguments,
    },
}

/// Which app, and what its configuration is overridden with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(crate) struct AppArguments {
    /// The app folder, with `aegis.toml` and `modules/`
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) folder: PathBuf,
    /// Serve the API on this address; may be given several times, port 0 picks one
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Vec<String>,
    /// Number of worker processes, or `auto`
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<String>,
    /// Folder with everything durable
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Unix socket for commands
    #[arg(long, value_name = "SOCKET")]
    pub(crate) control: Option<PathBuf>,
}

/// What is reloaded.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReloadArguments {
    /// The app folder of the host, or a module of it
    #[arg(value_name = "DIR|NAME")]
    pub(crate) target: Option<PathBuf>,
    /// The app folder of the host, when a module is named
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// How it comes into force, this time; `reload.mode` of the configuration, or `swap` for a module, unless said
    #[arg(long, value_name = "MODE")]
    pub(crate) mode: Option<ReloadManner>,
    /// The host's socket for commands, instead of looking it up
    #[arg(long, value_name = "SOCKET")]
    pub(crate) control: Option<PathBuf>,
}

/// What is deployed, and from where.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeployArguments {
    /// Name of the module: that of its folder, or of its table in `aegis.toml`
    pub(crate) name: String,
    /// Take it from this address instead of from where the app says
    #[arg(long, value_name = "URL", conflicts_with_all = ["file", "reset"])]
    pub(crate) source: Option<String>,
    /// Take it from this component, `module.toml` or folder
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "reset")]
    pub(crate) file: Option<PathBuf>,
    /// Take it from where the app says again, after it was deployed from elsewhere
    #[arg(long)]
    pub(crate) reset: bool,
    /// SHA-256 that it must have, 64 hexadecimal digits
    #[arg(long, value_name = "DIGEST", value_parser = sha256)]
    pub(crate) sha256: Option<String>,
    /// Also when clients or documents would notice
    #[arg(long)]
    pub(crate) force: bool,
    /// Try it beside the version in force, for so many of a hundred users or requests; without a source or file, change the
    /// share of what is tried
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=99),
        conflicts_with_all = ["promote", "abort", "reset", "force"])]
    pub(crate) share: Option<u8>,
    /// What is tried becomes the only version
    #[arg(long, conflicts_with_all = ["abort", "source", "file", "reset", "force"])]
    pub(crate) promote: bool,
    /// What is tried goes
    #[arg(long, conflicts_with_all = ["source", "file", "reset", "force"])]
    pub(crate) abort: bool,
    /// How it comes into force; `swap` unless said
    #[arg(long, value_name = "MODE")]
    pub(crate) mode: Option<ReloadManner>,
    /// Do not wait for the verdict
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) host: Host,
}

fn slot(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "expected the number of a slot; the app folder is named with --dir".to_owned())
}

fn sha256(text: &str) -> Result<String, String> {
    let digits = text.to_ascii_lowercase();
    let is_digest = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { Ok(digits) } else { Err("expected 64 hexadecimal digits".to_owned()) }
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) app: AppArguments,
    /// The app was looked at just now by an image that had this process before.
    #[arg(long = "checked", hide = true)]
    pub(crate) is_checked: bool,
    /// Instead of the app: why, the digest of a generation that is kept, and more words for people.
    #[arg(long, hide = true, num_args = 3, value_names = ["CAUSE", "DIGEST", "REASON"])]
    pub(crate) instead: Vec<String>,
}

/// Which program, and with whom it ends.
#[derive(Debug, Clone, Args)]
pub(crate) struct BoundArguments {
    /// The process that starts it.
    pub(crate) parent: u32,
    /// Its path, what it is called, and its arguments.
    #[arg(last = true, num_args = 2.., required = true)]
    pub(crate) words: Vec<OsString>,
}

/// Which code is called, with what. JSON is given as it is, or as `@FILE`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunCommandArguments {
    /// The component
    #[arg(value_name = "FILE.wasm")]
    pub(crate) component: PathBuf,
    /// A command of its model, or a hook: on-create, validate, on-update, on-delete, on-load
    #[arg(value_name = "COMMAND")]
    pub(crate) name: String,
    /// The document that it is about; for `validate` what it was before
    #[arg(long, value_name = "JSON|@FILE")]
    pub(crate) target: Option<String>,
    /// Arguments of a command [default: {}]
    #[arg(long, value_name = "JSON|@FILE", conflicts_with = "input")]
    pub(crate) arguments: Option<String>,
    /// What a hook gets: the new document, or for `on-update` the changes [default: {}]
    #[arg(long, value_name = "JSON|@FILE")]
    pub(crate) input: Option<String>,
    /// Settings of the module [default: {}]
    #[arg(long, value_name = "JSON|@FILE")]
    pub(crate) settings: Option<String>,
    /// Call it so many times more and measure
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1_000_000))]
    pub(crate) repeat: u32,
}

/// Which app's documents.
#[derive(Debug, Clone, Args)]
pub(crate) struct DataArguments {
    /// The app folder
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) folder: PathBuf,
    /// Folder with everything durable
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
}

/// Which host, for commands that take something else than a folder.
#[derive(Debug, Clone, Args)]
pub(crate) struct Host {
    /// The app folder of the host
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// The host's socket for commands, instead of looking it up
    #[arg(long, value_name = "SOCKET")]
    pub(crate) control: Option<PathBuf>,
}

/// Which host.
#[derive(Debug, Clone, Args)]
pub(crate) struct HostInFolder {
    /// The app folder of the host
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) folder: PathBuf,
    /// The same, as with the other commands
    #[arg(long, value_name = "DIR", conflicts_with = "folder")]
    pub(crate) dir: Option<PathBuf>,
    /// The host's socket for commands, instead of looking it up
    #[arg(long, value_name = "SOCKET")]
    pub(crate) control: Option<PathBuf>,
}

/// How a changed app comes into force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReloadManner {
    /// New workers replace old ones
    Rolling,
    /// The workers that run exchange the code of modules, if nothing else has changed
    Swap,
}

impl ReloadManner {
    /// As the supervisor is asked.
    pub(crate) fn asked(self) -> ReloadMode {
        match self {
            Self::Rolling => ReloadMode::Rolling,
            Self::Swap => ReloadMode::Swap,
        }
    }
}

impl From<HostInFolder> for Host {
    fn from(host: HostInFolder) -> Self {
        Self { dir: host.dir.unwrap_or(host.folder), control: host.control }
    }
}

impl ReloadArguments {
    /// Which module, if one is meant, of which host. What is there as a folder, or looks like a path, is no module.
    pub(crate) fn resolve(self) -> (Option<String>, Host) {
        let Self { target, dir, control, mode: _ } = self;
        let here = || PathBuf::from(".");
        let Some(target) = target else { return (None, Host { dir: dir.unwrap_or_else(here), control }) };
        let is_path = target.is_dir() || target.components().count() != 1 || target.as_os_str() == "..";
        match target.to_str().filter(|_| dir.is_some() || !is_path) {
            Some(name) => (Some(name.to_owned()), Host { dir: dir.unwrap_or_else(here), control }),
            None => (None, Host { dir: target, control }),
        }
    }
}

impl DeployArguments {
    /// What is asked of the host.
    pub(crate) fn order(self) -> (Order, Host) {
        let supply = match (self.source, self.file) {
            (Some(source), _) => Supply::Source(source),
            (None, Some(file)) => Supply::File(absolute(&file)),
            (None, None) if self.reset => Supply::Reset,
            (None, None) => Supply::App,
        };
        let trial = match (self.share, self.promote, self.abort) {
            (Some(share), _, _) => Some(TrialStep::Share(share)),
            (None, true, _) => Some(TrialStep::Promote),
            (None, false, true) => Some(TrialStep::Abort { reason: None }),
            (None, false, false) => None,
        };
        let mode = self.mode.map(ReloadManner::asked);
        let order = Order { module: self.name, supply, sha256: self.sha256, force: self.force, mode, trial };
        (order, self.host)
    }
}

impl AppArguments {
    /// The same with absolute paths, so that they mean the same in a process that is started elsewhere.
    pub(crate) fn absolute(self) -> Self {
        Self {
            folder: absolute(&self.folder),
            data: self.data.as_deref().map(absolute),
            control: self.control.as_deref().map(absolute),
            ..self
        }
    }

    /// What the configuration is overridden with.
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides {
            listen: self.listen.clone(),
            workers: self.workers.clone(),
            data: self.data.clone(),
            control: self.control.clone(),
        }
    }

    /// Arguments of the helper that reads the same app with the same overrides.
    pub(crate) fn compile_arguments(&self) -> Vec<OsString> {
        let mut words = Vec::new();
        let mut flag = |name: &str, value: OsString| {
            let mut word = OsString::from(name);
            word.push("=");
            word.push(value);
            words.push(word);
        };
        self.listen.iter().for_each(|address| flag("--listen", address.into()));
        self.workers.iter().for_each(|count| flag("--workers", count.into()));
        self.data.iter().for_each(|path| flag("--data", path.into()));
        self.control.iter().for_each(|path| flag("--control", path.into()));
        words.push("--".into());
        words.push(self.folder.clone().into());
        words
    }
}

impl DataArguments {
    /// What the configuration is overridden with.
    pub(crate) fn overrides(&self) -> Overrides {
        Overrides { data: self.data.as_deref().map(absolute), ..Overrides::default() }
    }
}

/// A path as seen from where the command was typed. An empty path is left for the configuration to refuse.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
