//! Sends what waits for one worker. Blocks on the worker's socket, and nobody waits for it.

use std::{
    io::{self, IoSlice, Write},
    os::unix::net::UnixStream,
    sync::{Arc, atomic::Ordering},
};

use aegis_ipc::{
    board::StoreWord,
    data::{FromStore, Stored},
    frame,
};
use bytes::Bytes;

use super::{Link, outbox::Step};
use crate::{
    engine::{EngineResult, LogBudget},
    error::{EngineError, chain},
    shared::Shared,
    storage::LogRead,
};

/// Changes in one frame of the log.
const REPLAY_BUDGET: LogBudget = LogBudget { changes_max: 1024, bytes_max: 1 << 20 };
/// Bodies in one page of a complete copy, bytes; the last one may exceed it.
const PAGE_BYTES: usize = 512 * 1024;
/// Rough bytes of a document beside its body.
const DOCUMENT_OVERHEAD_BYTES: usize = 128;

/// Why sending ended.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("writing to the socket failed")]
    Socket(#[source] io::Error),
    #[error("encoding a message failed")]
    Encode(#[source] aegis_ipc::IpcError),
    #[error("reading from the engine failed")]
    Engine(#[source] EngineError),
}

/// Sends until the connection ends.
pub(super) fn run(link: &Arc<Link>, shared: &Arc<Shared>) {
    let mut buffer = Vec::new();
    while let Some(step) = next(link) {
        let done = match step {
            Step::Close => return,
            Step::Send(frames) => send(&link.socket, &frames),
            Step::Replay { round, after, up_to } => replay(link, shared, (round, after, up_to), &mut buffer),
            Step::Copy { round } => copy(link, shared, round, &mut buffer),
        };
        match done {
            Ok(()) => {}
            Err(error @ SendError::Socket(_)) => {
                tracing::debug!(link = link.number, error = chain(&error), "a worker's connection ended");
                return;
            }
            Err(error) => {
                tracing::error!(link = link.number, error = chain(&error), "a worker's connection is closed");
                if let SendError::Engine(error) = error {
                    shared.engine_failed("reading for a worker", error);
                }
                return;
            }
        }
    }
}

/// Waits for something to do; `None` when the connection ended.
fn next(link: &Link) -> Option<Step> {
    let mut outbox = link.outbox.lock();
    loop {
        if link.is_closed() {
            return None;
        }
        let step = outbox.next();
        link.sent.notify_all();
        if step.is_some() {
            return step;
        }
        link.to_send.wait(&mut outbox);
    }
}

fn send(mut socket: &UnixStream, frames: &[Bytes]) -> Result<(), SendError> {
    let mut slices: Vec<IoSlice<'_>> = frames.iter().map(|frame| IoSlice::new(frame)).collect();
    let mut left = &mut slices[..];
    while !left.is_empty() {
        match socket.write_vectored(left) {
            Ok(0) => return Err(SendError::Socket(io::ErrorKind::WriteZero.into())),
            Ok(written) => IoSlice::advance_slices(&mut left, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(SendError::Socket(error)),
        }
    }
    Ok(())
}

fn send_message(socket: &UnixStream, message: &FromStore, buffer: &mut Vec<u8>) -> Result<(), SendError> {
    buffer.clear();
    frame::write_message(message, buffer).map_err(SendError::Encode)?;
    let mut socket = socket;
    socket.write_all(buffer).map_err(SendError::Socket)
}

/// Sends a piece of the log.
fn replay(
    link: &Link,
    shared: &Shared,
    (round, after, up_to): (u64, u64, u64),
    buffer: &mut Vec<u8>,
) -> Result<(), SendError> {
    match shared.storage.log(after, up_to, REPLAY_BUDGET).map_err(SendError::Engine)? {
        LogRead::Gone => {
            tracing::info!(
                link = link.number,
                after,
                "the log no longer has what a worker needs, it is sent a copy"
            );
            link.outbox.lock().gone(round);
        }
        LogRead::Page(page) => {
            // Numbers without a change belong to changes that were only in memory and are gone: the frame covers them.
            let feed = FromStore::Feed { first: after + 1, last: page.reached, changes: page.changes };
            if link.outbox.lock().is_current(round) {
                send_message(&link.socket, &feed, buffer)?;
            }
            link.outbox.lock().replayed(round, page.reached);
        }
    }
    Ok(())
}

/// Sends all documents, and in between the answers that come up.
fn copy(link: &Link, shared: &Shared, round: u64, buffer: &mut Vec<u8>) -> Result<(), SendError> {
    let copy = shared.storage.copy().map_err(SendError::Engine)?;
    link.outbox.lock().copying(round, copy.at);
    let rules = shared.rules();
    shared.board.store(StoreWord::Snapshots).fetch_add(1, Ordering::Relaxed);
    send_message(&link.socket, &FromStore::SnapshotBegin { at: copy.at }, buffer)?;
    let mut page: Vec<Stored> = Vec::new();
    let mut page_bytes = 0;
    for (model, place) in rules.places() {
        for stored in copy.documents(place, model) {
            let stored: EngineResult<Stored> = stored;
            let stored = stored.map_err(SendError::Engine)?;
            page_bytes += stored.body.len() + DOCUMENT_OVERHEAD_BYTES;
            page.push(stored);
            if page_bytes < PAGE_BYTES {
                continue;
            }
            page_bytes = 0;
            if !send_page(link, round, &mut page, buffer)? {
                return Ok(());
            }
        }
    }
    if !send_page(link, round, &mut page, buffer)? {
        return Ok(());
    }
    send_message(&link.socket, &FromStore::SnapshotEnd { at: copy.at }, buffer)?;
    link.outbox.lock().copied(round, copy.at);
    Ok(())
}

/// Sends a page and the answers that wait. Returns false when the copy is no longer wanted.
fn send_page(
    link: &Link,
    round: u64,
    page: &mut Vec<Stored>,
    buffer: &mut Vec<u8>,
) -> Result<bool, SendError> {
    if !page.is_empty() {
        send_message(&link.socket, &FromStore::SnapshotPage { documents: std::mem::take(page) }, buffer)?;
    }
    let (answers, wanted) = {
        let mut outbox = link.outbox.lock();
        (outbox.take_answers(), outbox.is_current(round) && !link.is_closed())
    };
    link.sent.notify_all();
    send(&link.socket, &answers)?;
    Ok(wanted)
}
