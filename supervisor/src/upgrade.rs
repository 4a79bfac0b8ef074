//! Replacing the running executable in place: same process, same children, same sockets.
//!
//! ```text
//!   old image                                   new image
//!   ─────────                                   ─────────
//!   opens the file, looks at it
//!   starts it as a child: the rehearsal ──────► restores everything from duplicates, sees that it is not
//!                                               the process the state names, reports, exits
//!   seals the state again, holds signals back
//!   becomes the new image ────────────────────► restores everything; lets signals through: committed
//!                          ◄─────────────────── cannot? becomes the old image again, which continues
//!                                               with the same state and says why
//! ```
//!
//! The state is a sealed memory file: a line of JSON ([`Header`]), whose meaning never changes, so that any image can
//! find the way back, and then the MessagePack of what the host is, with named fields. All descriptors keep their
//! numbers across the exec. Workers and the store notice nothing; the accept queues are those of the same sockets.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    ffi::{CString, OsString},
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
};

use aegis_config::Log;
use aegis_ipc::{handoff, sealed};
use serde::{Deserialize, Serialize};

use crate::{
    SupervisorError,
    process::{Image, Inheritable},
    signals,
};

/// Set when a new image could not continue and became the old one again: why. Never passed on to a child.
pub(crate) const RETURN_VARIABLE: &str = "AEGIS_UPGRADE_RETURN";
/// Version of [`Header`].
const HEADER_FORMAT: u32 = 1;
/// Longest header, bytes.
const HEADER_BYTES_MAX: u64 = 16 * 1024;
/// Largest state, bytes.
const STATE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Longest reason that is carried back in the environment, bytes.
const REASON_BYTES_MAX: usize = 4096;

/// What every image, past and future, must understand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    /// Version of the header.
    pub(crate) format: u32,
    /// The process that the state is about. Another one that reads it only rehearses.
    pub(crate) pid: u32,
    /// Descriptor of this very memory file.
    pub(crate) state: RawFd,
    /// Descriptor of the image that wrote it: the way back.
    pub(crate) image: RawFd,
    /// Where that image was.
    pub(crate) path: PathBuf,
    /// Descriptor of the image that is to continue.
    #[serde(default)]
    pub(crate) successor: Option<RawFd>,
    /// Where a rehearsal reports.
    pub(crate) report: Option<RawFd>,
    /// How to write log lines. Nothing when an image cannot make sense of it.
    #[serde(default)]
    pub(crate) log: serde_json::Value,
}

/// What a rehearsal says in the end, as a line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Everything was restored.
    Passed {
        /// Version of the new image.
        version: String,
    },
    /// Something could not be.
    Failed {
        /// What.
        reason: String,
    },
}

/// A memory file that is being made into a state.
pub(crate) struct Memory {
    file: File,
}

impl Memory {
    /// An empty one; its number is known from here on.
    pub(crate) fn create() -> Result<Self, SupervisorError> {
        Ok(Self { file: sealed::create("aegis-state")? })
    }

    /// The header that goes with it.
    pub(crate) fn header(
        &self,
        image: &Image,
        successor: &Image,
        report: Option<RawFd>,
        log: Option<&Log>,
    ) -> Header {
        Header {
            format: HEADER_FORMAT,
            pid: std::process::id(),
            state: self.file.as_raw_fd(),
            image: image.as_fd().as_raw_fd(),
            path: image.path().to_owned(),
            successor: Some(successor.as_fd().as_raw_fd()),
            report,
            log: log.and_then(|log| serde_json::to_value(log).ok()).unwrap_or_default(),
        }
    }

    /// Writes and seals it.
    pub(crate) fn seal(mut self, header: &Header, body: &[u8]) -> Result<OwnedFd, SupervisorError> {
        let failed = |error: std::io::Error| SupervisorError::os("writing the state for a successor", error);
        let mut bytes = serde_json::to_vec(header).map_err(|error| failed(error.into()))?;
        bytes.push(b'\n');
        bytes.extend_from_slice(body);
        self.file.write_all(&bytes).map_err(failed)?;
        Ok(sealed::seal(self.file)?)
    }
}

/// Reads a state: its header, and the body, not yet understood.
pub(crate) fn read(descriptor: &OwnedFd) -> Result<(Header, Vec<u8>), SupervisorError> {
    let failed =
        |error: std::io::Error| SupervisorError::os("reading the state of the previous supervisor", error);
    // The position is shared with everybody who inherited the descriptor, so it is set before each use.
    let mut file = File::from(descriptor.try_clone().map_err(failed)?);
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut reader = BufReader::new(file.take(STATE_BYTES_MAX));
    let mut line = Vec::new();
    (&mut reader).take(HEADER_BYTES_MAX).read_until(b'\n', &mut line).map_err(failed)?;
    let header: Header = serde_json::from_slice(&line).map_err(|error| SupervisorError::State {
        found: error.to_string(),
        expected: "a line of JSON that begins the state".to_owned(),
    })?;
    if header.format != HEADER_FORMAT {
        let found = format!("header format {}", header.format);
        return Err(SupervisorError::State { found, expected: HEADER_FORMAT.to_string() });
    }
    let mut body = Vec::new();
    reader.read_to_end(&mut body).map_err(failed)?;
    Ok((header, body))
}

/// Holds inherited descriptors, each at most once whatever the state says, and gives out duplicates. So the originals
/// are still there for the way back when something fails, and all of them are closed once it is not needed any more.
#[derive(Debug, Default)]
pub(crate) struct Adopter {
    originals: BTreeMap<RawFd, OwnedFd>,
}

impl Adopter {
    /// Takes one.
    pub(crate) fn take(&mut self, descriptor: RawFd, object: &str) -> Result<OwnedFd, SupervisorError> {
        if descriptor <= 2 || self.originals.contains_key(&descriptor) {
            return Err(SupervisorError::State {
                found: format!("descriptor {descriptor} for {object}"),
                expected: "one above 2 that nothing else has".to_owned(),
            });
        }
        let original = handoff::adopt(descriptor, object)?;
        let duplicate = original.try_clone();
        self.originals.insert(descriptor, original);
        duplicate.map_err(|error| {
            SupervisorError::os(format!("duplicating descriptor {descriptor} ({object})"), error)
        })
    }

    /// The originals.
    pub(crate) fn originals(&self) -> Vec<BorrowedFd<'_>> {
        self.originals.values().map(OwnedFd::as_fd).collect()
    }
}

/// Arguments of an image that continues with the state behind `state`.
pub(crate) fn arguments(state: RawFd) -> Vec<OsString> {
    vec!["supervisor".into(), "--resume".into(), state.to_string().into()]
}

/// Becomes `image`, which continues with the state behind the descriptor `state`. Returns only when that fails; nothing
/// has changed then. `kept` are the descriptors that stay open: the state, and all that it names.
pub(crate) fn become_image(
    image: &Image,
    state: RawFd,
    kept: &[BorrowedFd<'_>],
    reason_to_return: Option<&str>,
) -> SupervisorError {
    let become_it = || -> Result<Infallible, SupervisorError> {
        let failed = |error: std::io::Error| {
            SupervisorError::os(format!("becoming {}", image.path().display()), error)
        };
        // By the first word it knows where the next one will be: see `process::name`.
        let name = image.path().as_os_str().to_owned();
        let mut words = Vec::new();
        for word in std::iter::once(name).chain(arguments(state)) {
            words.push(CString::new(word.as_bytes()).map_err(|error| failed(error.into()))?);
        }
        let environment = environment(reason_to_return);
        signals::block()?;
        let _inheritable = Inheritable::mark(kept).map_err(failed)?;
        nix::unistd::fexecve(image, &words, &environment).map_err(|error| failed(error.into()))
    };
    let Err(error) = become_it();
    if let Err(error) = signals::unblock() {
        tracing::error!("{}", crate::with_causes(&error));
    }
    error
}

/// Our own environment, with the reason to return as the only change.
fn environment(reason_to_return: Option<&str>) -> Vec<CString> {
    let mut environment = Vec::new();
    for (name, value) in std::env::vars_os() {
        if name != RETURN_VARIABLE {
            let entry = [name.as_bytes(), b"=", value.as_bytes()].concat();
            environment.extend(CString::new(entry)); // the operating system gave it to us, so it has no NUL inside
        }
    }
    if let Some(reason) = reason_to_return {
        let mut reason = reason.replace('\0', " ");
        reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
        environment.extend(CString::new(format!("{RETURN_VARIABLE}={reason}")));
    }
    environment
}

/// Why a new image became this one again, if that is what happened.
pub(crate) fn reason_of_return() -> Option<String> {
    std::env::var(RETURN_VARIABLE).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_back_by_whoever_inherits_it() {
        let memory = Memory::create().unwrap();
        let image = Image::running().unwrap();
        let header = memory.header(&image, &image, Some(9), None);
        let sealed = memory.seal(&header, b"body\nwith lines").unwrap();
        assert_eq!(header.state, sealed.as_raw_fd());
        for _ in 0..2 {
            assert_eq!(read(&sealed).unwrap(), (header.clone(), b"body\nwith lines".to_vec()));
        }
        assert!(File::from(sealed).write_all(b"x").is_err());
    }

    #[test]
    fn the_header_may_grow() {
        let memory = Memory::create().unwrap();
        let mut file = memory.file;
        let line = r#"{"format":1,"pid":7,"state":3,"image":4,"path":"/x","report":null,"later":[1]}"#;
        file.write_all(line.as_bytes()).unwrap();
        file.write_all(b"\nrest").unwrap();
        let (header, body) = read(&file.into()).unwrap();
        assert_eq!((header.pid, header.report, body.as_slice()), (7, None, b"rest".as_slice()));
    }

    #[test]
    fn what_is_no_state_is_refused() {
        let message = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            read(&file.into()).unwrap_err().to_string()
        };
        assert!(message(b"").starts_with("state of the previous supervisor: found EOF while parsing"));
        assert!(
            message(&[b'x'; 100_000]).starts_with("state of the previous supervisor: found expected value")
        );
        let later = br#"{"format":2,"pid":7,"state":3,"image":4,"path":"/x","report":null}"#;
        assert_eq!(message(later), "state of the previous supervisor: found header format 2, expected 1");
    }

    #[test]
    fn no_descriptor_is_taken_twice_and_none_that_is_not_open() {
        use std::os::fd::IntoRawFd;
        let mut adopter = Adopter::default();
        let number = tempfile::tempfile().unwrap().into_raw_fd();
        let taken = adopter.take(number, "a file").unwrap();
        assert_ne!(taken.as_raw_fd(), number);
        assert_eq!(adopter.originals().len(), 1);
        let error = adopter.take(number, "another").unwrap_err().to_string();
        assert!(error.contains(&format!("found descriptor {number} for another")), "{error}");
        assert!(adopter.take(2, "standard error").is_err());
        assert!(adopter.take(1_000_000, "nothing").is_err());
        drop(taken);
    }

    #[test]
    fn the_environment_carries_the_reason_to_return_and_nothing_stale() {
        let reason = format!("it\0broke {}", "é".repeat(REASON_BYTES_MAX));
        let environment = environment(Some(&reason));
        let entry = environment.last().unwrap().to_str().unwrap();
        assert!(entry.starts_with("AEGIS_UPGRADE_RETURN=it broke é"));
        assert!(entry.len() <= RETURN_VARIABLE.len() + 1 + REASON_BYTES_MAX);
        assert_eq!(super::environment(None).len(), std::env::vars_os().count());
    }
}
