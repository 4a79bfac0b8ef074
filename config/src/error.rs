//! What can be wrong with a configuration, and where.

use std::{collections::BTreeMap, error::Error, fmt, io, path::PathBuf};

use crate::{Auth, HostSecret};

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On the command line.
    Flag(&'static str),
    /// In the environment.
    Variable(String),
    /// In `aegis.toml`.
    File {
        /// Line, counted from 1.
        line: usize,
        /// Key path, such as `limits.body_bytes_max`.
        key: String,
    },
    /// Nowhere: the default of this key path.
    Default(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => formatter.write_str(flag),
            Self::Variable(name) => formatter.write_str(name),
            Self::File { line, key } => write!(formatter, "{}:{line}: {key}", crate::CONFIG_FILE),
            Self::Default(key) => write!(formatter, "default of {key}"),
        }
    }
}

/// One mistake of the operator, or one thing of the machine that stands in the way.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A setting has a value that is not accepted.
    #[error("{place}: found {found}, expected {expected}")]
    Value {
        /// The setting.
        place: Place,
        /// Its value.
        found: String,
        /// What would be accepted.
        expected: String,
    },
    /// The file has a key that means nothing.
    #[error("{place}: unknown key{}", suggest(.suggestion.as_deref()))]
    UnknownKey {
        /// The key.
        place: Place,
        /// A known key that looks alike.
        suggestion: Option<String>,
    },
    /// The file is not TOML.
    #[error("{}:{line}:{column}: not valid TOML: {message}", crate::CONFIG_FILE)]
    Syntax {
        /// Line, counted from 1.
        line: usize,
        /// Character within the line, counted from 1.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// The app folder, or a file in it, is not what it should be.
    #[error("{}: found {found}, expected {expected}", path.display())]
    App {
        /// The folder or file.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What should be there.
        expected: String,
    },
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
}

impl ConfigError {
    /// Orders mistakes for reading: the folder, the command line, the environment, the file from top to bottom.
    pub(crate) fn rank(&self) -> (u8, usize) {
        match self {
            Self::App { .. } | Self::Read { .. } => (0, 0),
            Self::Value { place, .. } | Self::UnknownKey { place, .. } => match place {
                Place::Flag(_) => (1, 0),
                Place::Variable(_) => (2, 0),
                Place::File { line, .. } => (3, *line),
                Place::Default(_) => (4, 0),
            },
            Self::Syntax { line, .. } => (3, *line),
        }
    }
}

fn suggest(suggestion: Option<&str>) -> String {
    suggestion.map(|known| format!(", did you mean `{known}`?")).unwrap_or_default()
}

/// Everything that is wrong with a configuration. Never empty.
#[derive(Debug)]
pub struct ConfigErrors {
    errors: Vec<ConfigError>,
    certain: Box<Certain>,
}

/// What is certain although something else is wrong: enough to look for more mistakes, or to reach a host that runs with the
/// configuration as it was before.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Certain {
    /// Folder with the modules.
    pub modules_dir: Option<PathBuf>,
    /// Unix socket for commands.
    pub control_socket: Option<PathBuf>,
    /// File with the secret of webhooks.
    pub webhook_secret_file: Option<PathBuf>,
    /// What tokens are signed with, without it.
    pub auth: Option<Auth>,
    /// Secrets that modules may be granted, without them.
    pub secrets: BTreeMap<String, HostSecret>,
}

impl ConfigErrors {
    /// Wraps at least one mistake.
    pub(crate) fn of(errors: Vec<ConfigError>, certain: Certain) -> Self {
        debug_assert!(!errors.is_empty(), "no mistakes are no error");
        Self { errors, certain: Box::new(certain) }
    }

    /// The mistakes.
    #[must_use]
    pub fn as_slice(&self) -> &[ConfigError] {
        &self.errors
    }

    /// One line per mistake, with its cause.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.errors.iter().map(line).collect()
    }

    /// What is certain all the same.
    #[must_use]
    pub fn certain(&self) -> &Certain {
        &self.certain
    }

    /// Whether nothing but the command line is to blame.
    #[must_use]
    pub fn blames_only_flags(&self) -> bool {
        self.errors.iter().all(|error| matches!(error, ConfigError::Value { place: Place::Flag(_), .. }))
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self { errors: vec![error], certain: Box::default() }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.lines().join("\n"))
    }
}

// No `source`: there are several, and the lines already carry them.
impl Error for ConfigErrors {}

fn line(error: &ConfigError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
