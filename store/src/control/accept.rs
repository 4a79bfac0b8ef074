//! Takes the connections of workers.

use std::{
    os::{fd::AsFd, unix::net::UnixListener},
    sync::Arc,
};

use nix::poll::{PollFd, PollFlags};

use super::{LOOK_EVERY, wait_for};
use crate::{
    error::{StoreError, chain},
    link,
    shared::Shared,
};

/// Takes connections of workers on a thread of its own.
pub(super) fn accept_workers(listener: UnixListener, shared: &Arc<Shared>) -> Result<(), StoreError> {
    let shared = Arc::clone(shared);
    let work = move || {
        while !shared.is_stopping() {
            // The supervisor holds the same socket, so its flags are left as they are.
            match wait_for(&mut [PollFd::new(listener.as_fd(), PollFlags::POLLIN)]) {
                Ok(false) => continue,
                Ok(true) => {}
                Err(error) => tracing::error!(error = chain(&error), "waiting for workers failed"),
            }
            match listener.accept() {
                Ok((socket, _)) => link::serve(socket, &shared),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::error!(error = chain(&error), "a worker cannot connect");
                    std::thread::sleep(LOOK_EVERY); // most likely out of descriptors: give it time to pass
                }
            }
        }
    };
    std::thread::Builder::new()
        .name("accept".to_owned())
        .spawn(work)
        .map(|_| ())
        .map_err(|error| StoreError::os("starting the accept thread", error))
}
