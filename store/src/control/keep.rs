//! What is only in memory, from this process to the one that follows it.

use std::{
    fs::File,
    io::{BufWriter, Seek, SeekFrom, Write},
    os::fd::{AsFd, OwnedFd},
};

use aegis_ipc::{
    IpcError,
    control::{ControlSocket, ToSupervisor},
    sealed,
};

use crate::{engine::memory::kept::Kept, error::chain, requests::RecentRequests, storage::Storage};

/// Whether another store process follows this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Succession {
    /// Nobody said so.
    None,
    /// It is to be given what is only in memory.
    Announced,
}

/// Hands what `storage` has in memory to the supervisor, with those of `requests` that it came from. Without it the next store
/// begins empty, as after a crash, so failing is no reason not to end.
pub(super) fn hand_over(storage: &Storage, requests: &RecentRequests, control: &ControlSocket) {
    let written = write(storage, requests);
    let handed = written.and_then(|memory| control.send(&ToSupervisor::Kept, &[memory.as_fd()]));
    match handed {
        Ok(true) => tracing::info!("what is in memory is kept for the next store"),
        Ok(false) => tracing::error!("the supervisor does not take what is in memory, which is lost"),
        Err(error) => tracing::error!(error = chain(&error), "what is in memory is lost"),
    }
}

fn write(storage: &Storage, requests: &RecentRequests) -> Result<OwnedFd, IpcError> {
    let mut output = BufWriter::new(sealed::create("aegis-kept")?);
    storage.keep(requests, &mut output)?;
    let failed = |error| IpcError::os("writing what is in memory for the next store", error);
    output.flush().map_err(failed)?;
    sealed::seal(output.into_inner().map_err(|error| failed(error.into_error()))?)
}

/// Reads what the store before handed over. What cannot be read is as good as lost.
pub(super) fn take_up(memory: OwnedFd) -> Option<Kept> {
    let mut memory = File::from(memory);
    // The position is shared with the supervisor, and with a store before that did not come far.
    let read = memory
        .seek(SeekFrom::Start(0))
        .map_err(|error| IpcError::os("going to the beginning of what was in memory", error))
        .and_then(|_| Kept::read(&mut memory));
    read.inspect_err(|error| tracing::error!(error = chain(error), "what was in memory is lost")).ok()
}
