//! `aegis key new` and `aegis sign`: what an author needs so that hosts know who publishes a module.

use std::{
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use aegis_ipc::replace::FolderSync;
use aegis_supervisor::{exit, with_causes};
use serde_json::json;

use crate::{
    app::{Signable, read_text, signable},
    arguments::{NewKeyArguments, SignArguments},
    output::{self, Form, listed},
    trust::{Envelope, pre_authentication_encoding},
};

mod key;
#[cfg(test)]
mod tests;

use key::PrivateKey;

/// Longest name of a key, bytes.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of a file with a key.
const KEY_BYTES_MAX: usize = 8 * 1024;

/// Why nothing was made or signed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// No key can have this name.
    #[error("--name: found {0:?}, expected a name of at most {NAME_BYTES_MAX} letters, digits, - or _")]
    Name(String),
    /// Nothing is overwritten.
    #[error("{}: found a file, expected none: a key that is lost cannot be made again", .0.display())]
    Occupied(PathBuf),
    /// The file has no key in it that can be used.
    #[error("{}: {message}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What was found and expected.
        message: String,
    },
    /// The module cannot be signed as it is.
    #[error("{}", listed("nothing was signed", .0))]
    Module(Vec<String>),
    /// There is no randomness to make a key of.
    #[error("the operating system gives no random bytes")]
    Random,
    /// The operating system refused a file.
    #[error("writing {} failed", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Name(_) | Self::Occupied(_) => exit::USAGE,
            Self::Key { .. } | Self::Module(_) => exit::CONFIGURATION,
            Self::Random | Self::File { .. } => exit::OS,
        }
    }
}

/// Makes a key and says what hosts that trust it are told; the exit status.
pub(crate) fn new_key(arguments: &NewKeyArguments, form: Form) -> u8 {
    let made = make(arguments).map(|Made { name, public_key }| match form {
        Form::Text => output::result(&told(&arguments.file, &name, &public_key)),
        Form::Json => {
            output::json(&json!({ "file": arguments.file, "name": name, "publicKey": public_key }));
        }
    });
    ended(made, form)
}

/// Signs a manifest and says who has signed it by now; the exit status.
pub(crate) fn sign(arguments: &SignArguments, form: Form) -> u8 {
    let signed = put_signature(arguments).map(|signed| match form {
        Form::Text => {
            if signed.dropped > 0 {
                output::note("the manifest has changed since it was signed, so its signatures begin anew");
            }
            let (file, module, version) = (signed.file.display(), &signed.module, &signed.version);
            output::result(&format!("{file}: {module} {version}, signed by {}\n", signed.signers.join(", ")));
        }
        Form::Json => output::json(&json!({
            "file": signed.file, "module": signed.module, "version": signed.version, "signers": signed.signers,
        })),
    });
    ended(signed, form)
}

fn ended(outcome: Result<(), Failure>, form: Form) -> u8 {
    match outcome {
        Ok(()) => exit::FINE,
        Err(failure) => {
            output::refuse(&with_causes(&failure), form);
            failure.exit_code()
        }
    }
}

/// A key that was made.
#[derive(Debug)]
struct Made {
    name: String,
    public_key: String,
}

fn make(arguments: &NewKeyArguments) -> Result<Made, Failure> {
    let name = key_name(arguments.name.as_deref(), &arguments.file)?;
    let key = PrivateKey::random().ok_or(Failure::Random)?;
    let path = &arguments.file;
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(key.to_pem().as_bytes())?;
        file.sync_all()
    });
    match written {
        Ok(()) => Ok(Made { name, public_key: key.public_key() }),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(Failure::Occupied(path.clone())),
        Err(source) => Err(Failure::File { path: path.clone(), source }),
    }
}

/// What hosts that trust a key say about it.
fn told(file: &Path, name: &str, public_key: &str) -> String {
    format!(
        "{}: a new key; whoever has this file can sign with it\n\n\
         # Hosts that trust it say so in aegis.toml:\n\
         [trust.keys.{name}]\n\
         public-key = \"{public_key}\"\n\
         modules = [\"*\"] # or those alone that it may sign, such as \"order\" or \"shop-*\"\n",
        file.display()
    )
}

/// What a key is called: as was said, or like its file.
fn key_name(said: Option<&str>, file: &Path) -> Result<String, Failure> {
    let stem = || file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let name = said.map_or_else(stem, str::to_owned);
    let is_name = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if is_name { Ok(name) } else { Err(Failure::Name(name)) }
}

/// A manifest that was signed.
#[derive(Debug)]
struct SignedNow {
    /// The file with the signatures.
    file: PathBuf,
    module: String,
    version: String,
    /// Names of all keys that it is signed with.
    signers: Vec<String>,
    /// Signatures of what it was before.
    dropped: usize,
}

fn put_signature(arguments: &SignArguments) -> Result<SignedNow, Failure> {
    let name = key_name(arguments.name.as_deref(), &arguments.key)?;
    let no_key = |message| Failure::Key { path: arguments.key.clone(), message };
    let text = read_text(&arguments.key, KEY_BYTES_MAX).map_err(no_key)?;
    let key = PrivateKey::parse(&text).map_err(no_key)?;
    let Signable { manifest, claims, signatures_path, signatures } =
        signable(&arguments.target).map_err(Failure::Module)?;
    let refuse = |message| Failure::Module(vec![format!("{}: {message}", signatures_path.display())]);
    let before = signatures.as_deref().map(Envelope::parse).transpose().map_err(refuse)?;
    let (mut envelope, dropped) = match before {
        Some(envelope) if envelope.is_about(&manifest) => (envelope, 0),
        Some(other) => (Envelope::about(&manifest), other.signatures.len()),
        None => (Envelope::about(&manifest), 0),
    };
    let signature = key.sign(&pre_authentication_encoding(&manifest));
    envelope.put(&name, &signature).map_err(refuse)?;
    replace(&signatures_path, &envelope)
        .map_err(|source| Failure::File { path: signatures_path.clone(), source })?;
    let signers = envelope.signers().into_iter().map(str::to_owned).collect();
    let (module, version) = (claims.name, claims.version.to_string());
    Ok(SignedNow { file: signatures_path, module, version, signers, dropped })
}

/// Whoever reads the file meanwhile finds what was there or what is there now.
fn replace(path: &Path, envelope: &Envelope) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(envelope)?;
    text.push(b'\n');
    aegis_ipc::replace::replace(path, 0o666, &text, FolderSync::WherePossible)
}
