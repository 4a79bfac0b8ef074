//! The command line.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use aegis_config::Overrides;
use aegis_ipc::operator::ReloadMode;
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
    /// Report every mistake in the configuration and modules of the app in DIR, without running it
    Check(AppArguments),
    /// Begin something new
    #[command(subcommand)]
    New(NewCommand),
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
    /// Bring changed configuration and modules into force, and wait for the verdict
    Reload {
        #[command(flatten)]
        host: HostInFolder,
        /// How it comes into force, this time; `reload.mode` of the configuration unless said
        #[arg(long, value_name = "MODE")]
        mode: Option<ReloadManner>,
    },
    /// Change the number of workers until the next reload
    Scale {
        /// How many workers serve
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        workers: u32,
        #[command(flatten)]
        host: Host,
    },
    /// Let all workers finish and leave; a reload or scale brings them back
    Drain(HostInFolder),
    /// Replace workers one by one, or the one in SLOT
    Restart {
        /// Which worker (see `aegis status`); all by default
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
    /// End the host; what is in flight is finished within the drain timeout
    Stop {
        #[command(flatten)]
        host: HostInFolder,
        /// Finish what is in flight however long it takes
        #[arg(long, conflicts_with = "now")]
        patient: bool,
        /// Finish nothing
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
    /// The process that makes a generation.
    #[command(hide = true)]
    Compile(AppArguments),
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
    /// `toml` for a model without code, or `js`
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
}

fn language(name: &str) -> Result<Language, String> {
    match name {
        "toml" => Ok(Language::Toml),
        "js" => Ok(Language::JavaScript),
        "rust" | "python" => Err("it is not there yet, expected toml or js".to_owned()),
        _ => Err("expected toml or js".to_owned()),
    }
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
    /// Write all documents to FILE, one JSON object per line
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

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct RunArguments {
    #[command(flatten)]
    pub(crate) app: AppArguments,
    /// The app was found valid just now by an image that had this process before.
    #[arg(long = "checked", hide = true)]
    pub(crate) is_checked: bool,
}

/// Which code is called, with what. JSON is given as it is, or as `@FILE`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunCommandArguments {
    /// The component
    #[arg(value_name = "FILE.wasm")]
    pub(crate) component: PathBuf,
    /// A command of its model, or a hook: on-create, validate, on-update, on-delete
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
        Self { dir: host.folder, control: host.control }
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
