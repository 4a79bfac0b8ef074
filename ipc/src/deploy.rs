//! One module instead of all: what is asked for, what a helper is to make of it, and what a generation says about the
//! modules it consists of.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::operator::ReloadMode;

/// Longest name of a module, bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// A module is to be deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Name of the module: that of its folder, or of its table in `aegis.toml`.
    pub module: String,
    /// Where it is taken from.
    pub supply: Supply,
    /// SHA-256 that its component, or its `module.toml`, must have: hexadecimal, lower case.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Also when clients or documents of the version before would notice.
    #[serde(default)]
    pub force: bool,
    /// How it comes into force, this time; running workers exchange it, if that is possible, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ReloadMode>,
    /// Nothing when the version is to be the only one; otherwise what becomes of a trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialStep>,
}

/// What is to become of a trial: a version that gets a share of the requests, beside the one in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "snake_case")]
pub enum TrialStep {
    /// With [`Supply::Source`] or [`Supply::File`]: that version is tried for so many of a hundred keys, 1 to 99. With
    /// [`Supply::App`]: the one that is tried gets so many.
    Share(u8),
    /// The version that is tried becomes the only one.
    Promote,
    /// The trial ends.
    Abort {
        /// Why the host takes it back by itself; nothing when somebody asked.
        #[serde(default)]
        reason: Option<String>,
    },
}

/// Where a module that is deployed is taken from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Supply {
    /// From where the app says.
    App,
    /// From where the app says, and from there again from now on, whatever was deployed.
    Reset,
    /// From this address, as a `source` in `aegis.toml` is written.
    Source(String),
    /// From this file or folder of the host's machine, absolute.
    File(PathBuf),
}

/// What a compile helper is to make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// A generation of the app as it is now.
    #[default]
    App,
    /// The generation in force with another version of one module.
    Deploy(Order),
    /// A generation that is kept on disk.
    Restore(Kept),
}

impl Task {
    /// Whether all code of what it makes is in force already, so that there is nothing to find out about it.
    #[must_use]
    pub fn brings_no_code(&self) -> bool {
        match self {
            Self::Deploy(Order { trial: Some(TrialStep::Abort { .. }), .. })
            | Self::Deploy(Order { trial: Some(TrialStep::Share(_)), supply: Supply::App, .. }) => true,
            Self::App | Self::Deploy(_) | Self::Restore(_) => false,
        }
    }

    /// Why a trial is taken back by this, if the host does so by itself.
    #[must_use]
    pub fn takes_back(&self) -> Option<&str> {
        match self {
            Self::Deploy(Order { trial: Some(TrialStep::Abort { reason }), .. }) => reason.as_deref(),
            Self::App | Self::Deploy(_) | Self::Restore(_) => None,
        }
    }
}

/// Which generation that is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// The one that was in force before the last change.
    Previous,
    /// The one with this digest.
    Digest(String),
}

/// A module of a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Name of the module.
    pub name: String,
    /// What it is.
    pub offers: Offers,
    /// Set when it is not what the app folder says.
    #[serde(default)]
    pub deployed: Option<Deployed>,
    /// Set when its manifest is signed by keys that may do that.
    #[serde(default)]
    pub signed: Option<Signed>,
    /// Set when another version is tried beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Tried>,
}

/// Who signed a module, and as which version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// Names of the keys whose signatures count, in order. Not empty.
    pub keys: Vec<String>,
    /// The version that is signed (semver).
    pub version: String,
    /// Somebody wants it although it may be lower than one before, so that it is what versions are compared with from now on.
    #[serde(default)]
    pub lowers: bool,
}

impl Member {
    /// Whether there is more to it than what the app folder says.
    #[must_use]
    pub fn is_deployed(&self) -> bool {
        self.deployed.is_some() || self.trial.is_some()
    }
}

/// A version that is tried, and what it is tried beside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// How many of a hundred keys it gets, 1 to 99.
    pub share_percent: u8,
    /// Semantic version that it gives itself.
    pub version: String,
    /// Name that it gives itself: what it is counted under.
    pub counted_as: String,
    /// What it consists of.
    pub deployed: Deployed,
    /// Semantic version of the one in force.
    pub current_version: String,
    /// SHA-256 of the component in force, hexadecimal.
    pub current_sha256: String,
    /// Name that the one in force gives itself.
    pub current_counted_as: String,
}

/// What a module is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Offers {
    /// The model of this name, upper case.
    Model(String),
    /// The service of this name.
    Service(String),
}

/// What was deployed in place of what the app folder says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    /// Where it came from, for people.
    pub source: String,
    /// What it consists of.
    pub form: Form,
    /// SHA-256 of the component, or of the `module.toml`: hexadecimal, lower case.
    pub sha256: String,
    /// SHA-256 of the manifest that came with a component.
    #[serde(default)]
    pub manifest_sha256: Option<String>,
    /// SHA-256 of the signatures of the manifest.
    #[serde(default)]
    pub signature_sha256: Option<String>,
    /// When it was deployed, seconds since 1970.
    pub since_s: i64,
}

/// What a module consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// A component, perhaps with a manifest.
    Component,
    /// A `module.toml`.
    Declaration,
}
