//! Why a component cannot be used, in words for its author.

use std::fmt;

/// What refused a component. The numbers are stable; they stand in front of the message as `AEGIS-M…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// Its manifest is not acceptable.
    BadManifest,
    /// There is no file with it, several, or one that cannot be read.
    NoFile,
    /// Where it is published cannot be reached, or gives no whole answer.
    SourceAway,
    /// Where it is published says that it does not give it away, or does not have it.
    SourceRefuses,
    /// Where it is published answers in a way that is not followed.
    SourceAnswer,
    /// There is no token for where it is published.
    NoToken,
    /// None of the versions that are published is one that is wanted.
    NoVersion,
    /// What is said about the versions that are published is not acceptable.
    BadIndex,
    /// More bytes than a component may have.
    TooLarge,
    /// Another size than its manifest says.
    SizeDiffers,
    /// Another SHA-256 than its manifest says.
    DigestDiffers,
    /// It is another version than the one that was chosen.
    VersionDiffers,
    /// Nobody signed its manifest.
    Unsigned,
    /// None of those who signed its manifest is known.
    UnknownKey,
    /// Whoever signed its manifest may not sign modules of its name.
    KeyNotAllowed,
    /// The key that signed its manifest is not valid any more.
    KeyExpired,
    /// It is an older version than one that was in force.
    VersionLower,
    /// A signature, or what is signed, is not what was signed.
    SignatureDiffers,
    /// Text, a core module, a precompiled artifact, or no Wasm at all.
    NotAComponent,
    /// Not valid Wasm.
    Malformed,
    /// It declares more than a component may.
    DeclaresTooMuch,
    /// It imports what this host does not offer.
    UnknownImport,
    /// It speaks another version of the contract.
    OtherVersion,
    /// It does not export what makes it a module.
    MissingExport,
    /// It cannot be compiled.
    CompileFailed,
    /// There is no memory for it. The supervisor says the same of what no compile helper survives.
    BeyondLimits,
    /// Its imports and ours do not fit.
    LinkFailed,
    /// It failed while it described itself.
    DescribeFailed,
    /// What it says about itself is not acceptable.
    BadSpecification,
}

impl Code {
    /// The stable number.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::BadManifest => 100,
            Self::NoFile => 101,
            Self::SourceAway => 102,
            Self::SourceRefuses => 103,
            Self::SourceAnswer => 104,
            Self::NoToken => 105,
            Self::NoVersion => 106,
            Self::BadIndex => 107,
            Self::TooLarge => 110,
            Self::SizeDiffers => 120,
            Self::DigestDiffers => 121,
            Self::VersionDiffers => 122,
            Self::Unsigned => 123,
            Self::UnknownKey => 124,
            Self::KeyNotAllowed => 125,
            Self::KeyExpired => 126,
            Self::VersionLower => 127,
            Self::SignatureDiffers => 128,
            Self::NotAComponent => 130,
            Self::Malformed => 131,
            Self::DeclaresTooMuch => 140,
            Self::UnknownImport => 150,
            Self::OtherVersion => 151,
            Self::MissingExport => 160,
            Self::CompileFailed => 170,
            Self::LinkFailed => 171,
            Self::BeyondLimits => 172,
            Self::DescribeFailed => 180,
            Self::BadSpecification => 190,
        }
    }

    /// The step of loading at which it is found, and what is loaded.
    #[must_use]
    pub fn step(self) -> &'static str {
        match self {
            Self::BadManifest => "reading the manifest of the component",
            Self::NoFile | Self::TooLarge | Self::BeyondLimits => "reading the component",
            Self::SourceAway | Self::SourceRefuses | Self::SourceAnswer | Self::NoToken => {
                "fetching the module"
            }
            Self::NoVersion | Self::BadIndex => "choosing the version of the component",
            Self::SizeDiffers | Self::DigestDiffers | Self::VersionDiffers => "verifying the component",
            Self::Unsigned
            | Self::UnknownKey
            | Self::KeyNotAllowed
            | Self::KeyExpired
            | Self::VersionLower
            | Self::SignatureDiffers => "verifying who publishes the component",
            Self::NotAComponent
            | Self::Malformed
            | Self::DeclaresTooMuch
            | Self::UnknownImport
            | Self::OtherVersion
            | Self::MissingExport => "inspecting the component",
            Self::CompileFailed => "compiling the component",
            Self::LinkFailed => "linking the component",
            Self::DescribeFailed => "describing the component",
            Self::BadSpecification => "checking the component",
        }
    }
}

/// One reason why a component is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What kind of reason.
    pub code: Code,
    /// What was found and what was expected.
    pub message: String,
}

impl Diagnostic {
    /// A reason.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AEGIS-M{} {}: {}", self.code.number(), self.code.step(), self.message)
    }
}

impl std::error::Error for Diagnostic {}
