//! Reads what one worker asks, and passes it on: writes to the writer, questions to the lookup threads.

use std::{
    io::{self, Read},
    os::unix::net::UnixStream,
    sync::{Arc, atomic::Ordering},
};

use aegis_ipc::{
    PROTOCOL_VERSION, brief,
    data::{Attach, FromStore, Outcome, ToStore, Write},
    frame,
};
use bytes::BytesMut;
use nix::{
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::{Uid, geteuid},
};

use super::Link;
use crate::{
    commit::Requested,
    error::chain,
    lookup::{Lookup, Question},
    shared::{Intake, Shared, Submitted},
};

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 256 * 1024;

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("reading from the socket failed")]
    Socket(#[source] io::Error),
    #[error("what the worker sent is not a message")]
    Message(#[source] aegis_ipc::IpcError),
    #[error("the worker broke the protocol: {reason}")]
    Protocol { reason: &'static str },
    #[error("the process at the other end runs as user {uid}, which is neither ours nor root")]
    Stranger { uid: u32 },
}

/// Reads until the connection ends.
pub(super) fn run(link: &Arc<Link>, shared: &Arc<Shared>) {
    match check_peer(&link.socket).and_then(|()| read(link, shared)) {
        Ok(()) => tracing::debug!(link = link.number, "a worker's connection ended"),
        Err(error) => {
            tracing::warn!(link = link.number, error = chain(&error), "a worker's connection is closed");
        }
    }
}

/// Only our own processes, and root's, may speak to the store.
fn check_peer(socket: &UnixStream) -> Result<(), ReadError> {
    let credentials =
        getsockopt(socket, PeerCredentials).map_err(|error| ReadError::Socket(io::Error::from(error)))?;
    let uid = Uid::from_raw(credentials.uid());
    if uid.is_root() || uid == geteuid() { Ok(()) } else { Err(ReadError::Stranger { uid: uid.as_raw() }) }
}

fn read(link: &Arc<Link>, shared: &Arc<Shared>) -> Result<(), ReadError> {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut piece = vec![0; READ_BYTES];
    let mut incarnation = None;
    let mut socket = &link.socket;
    loop {
        while let Some(payload) = frame::take(&mut buffer).map_err(ReadError::Message)? {
            let bytes = payload.len();
            let message = brief::read_to_store(&payload).map_err(ReadError::Message)?;
            drop(payload);
            match (incarnation, message) {
                (None, ToStore::Attach(attach)) => {
                    if !self::attach(link, shared, &attach) {
                        return wait_until_sent(link);
                    }
                    incarnation = Some(attach.incarnation);
                }
                (None, _) => {
                    return Err(ReadError::Protocol { reason: "its first message is not an introduction" });
                }
                (Some(incarnation), message) => pass_on(link, shared, incarnation, message, bytes)?,
            }
            if !wait_for_room(link) {
                return Ok(());
            }
        }
        match socket.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(length) => buffer.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if link.is_closed() => return Ok(()),
            Err(error) => return Err(ReadError::Socket(error)),
        }
    }
}

/// Answers an introduction. Returns whether the worker is served.
fn attach(link: &Link, shared: &Shared, attach: &Attach) -> bool {
    let reason = if !aegis_ipc::speaks_with(attach.protocol) {
        Some(format!("found protocol {}, expected {PROTOCOL_VERSION}", attach.protocol))
    } else if shared.is_stopping() {
        Some("the store is stopping".to_owned())
    } else {
        None
    };
    if let Some(reason) = reason {
        tracing::warn!(link = link.number, cell = attach.cell, reason, "a worker is refused");
        link.answer(&FromStore::AttachRefused { reason });
        link.change(super::Outbox::close_when_sent);
        return false;
    }
    let replayable = attach.applied.filter(|applied| shared.storage.can_replay(*applied));
    tracing::info!(
        link = link.number,
        cell = attach.cell,
        generation = attach.generation,
        applied = attach.applied,
        copy = replayable.is_none(),
        "a worker is attached"
    );
    let (epoch, durable) = (shared.epoch, shared.board.durable());
    link.answer(&FromStore::Attached { epoch, durable, brief: true });
    link.brief.store(attach.brief, Ordering::Release);
    link.change(|outbox| outbox.restart(replayable));
    link.attached.store(true, Ordering::Release);
    true
}

fn pass_on(
    link: &Arc<Link>,
    shared: &Arc<Shared>,
    incarnation: u64,
    message: ToStore,
    bytes: usize,
) -> Result<(), ReadError> {
    let question = match message {
        ToStore::Attach(_) => return Err(ReadError::Protocol { reason: "it introduces itself twice" }),
        ToStore::Write(write) => {
            submit(link, shared, Requested { incarnation, write }, bytes);
            return Ok(());
        }
        ToStore::Resync { applied } => {
            let replayable = Some(applied).filter(|applied| shared.storage.can_replay(*applied));
            tracing::info!(link = link.number, applied, copy = replayable.is_none(), "a worker found a gap");
            link.change(|outbox| outbox.restart(replayable));
            return Ok(());
        }
        ToStore::Fetch { request, versions } => Question::Fetch { request, versions },
        ToStore::Recall { request, key } => Question::Recall { request, key },
        ToStore::Changes { request, after, limit } => Question::Changes { request, after, limit },
    };
    link.change(super::Outbox::asked);
    shared.lookups.ask(Lookup { link: Arc::clone(link), question });
    Ok(())
}

fn submit(link: &Arc<Link>, shared: &Shared, requested: Requested, bytes: usize) {
    let Write { request, .. } = requested.write;
    let reason = match shared.submit(Intake { link: Arc::clone(link), requested, bytes }) {
        Submitted::Queued => return,
        Submitted::Full => "too many writes are waiting",
        Submitted::Stopping => "the store is stopping",
    };
    link.answer(&FromStore::Written { request, outcome: Outcome::Unavailable { reason: reason.to_owned() } });
}

/// Waits while too many answers wait to be sent. Returns false when the connection ended.
fn wait_for_room(link: &Link) -> bool {
    let mut outbox = link.outbox.lock();
    while !outbox.has_room() && !link.is_closed() {
        link.sent.wait(&mut outbox);
    }
    !link.is_closed()
}

/// Waits until the sender has sent the refusal and closed the connection.
fn wait_until_sent(link: &Link) -> Result<(), ReadError> {
    let mut outbox = link.outbox.lock();
    while !link.is_closed() {
        link.sent.wait(&mut outbox);
    }
    Ok(())
}
