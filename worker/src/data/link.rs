//! The connection to the store: made again for ever, read and written by one task.

use std::{
    convert::Infallible,
    io,
    path::Path,
    time::{Duration, Instant},
};

use aegis_ipc::{
    IpcError, PROTOCOL_VERSION,
    board::Counter,
    brief,
    data::{Attach, FromStore, ToStore},
    frame,
};
use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{ReadHalf, WriteHalf},
    },
    time::{sleep, timeout},
};

use super::{exchange::Answer, shared::Shared};
use crate::metronome;

/// Pause before a new connection: doubled up to the longest one, as long as the store does not accept.
const RECONNECT_DELAY_MIN: Duration = Duration::from_millis(1);
const RECONNECT_DELAY_MAX: Duration = Duration::from_millis(100);
/// Room for each read, bytes.
const READ_BYTES: usize = 256 * 1024;
/// Requests gathered for one write, bytes.
const WRITE_BYTES: usize = 256 * 1024;
/// The watermark is looked at this often while changes are held back. Frames and waiting readers make it sooner.
const HELD_BACK_TICK: Duration = Duration::from_millis(2);
/// What the store has said before it closed the connection is read at most this long.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);
/// Gauges are written and silence is noticed this often.
const IDLE_TICK: Duration = Duration::from_millis(100);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("connecting to the store failed")]
    Connect(#[source] io::Error),
    #[error("reading from the store failed")]
    Read(#[source] io::Error),
    #[error("writing to the store failed")]
    Write(#[source] io::Error),
    #[error("the store closed the connection")]
    Closed,
    #[error("a message of the store is damaged")]
    Message(#[source] IpcError),
    #[error("the store refuses this worker: {reason}")]
    Refused { reason: String },
    #[error("the stream cannot be trusted: {reason}")]
    Distrusted { reason: String },
}

/// Keeps the worker connected.
pub(super) async fn run(shared: &Shared, store_path: &Path) -> Infallible {
    let mut delay = RECONNECT_DELAY_MIN;
    loop {
        let end = match UnixStream::connect(store_path).await {
            Ok(stream) => serve(shared, stream).await,
            Err(error) => LinkError::Connect(error),
        };
        let was_accepted = shared.disconnected();
        tell(&end, was_accepted || delay == RECONNECT_DELAY_MIN);
        if was_accepted {
            delay = RECONNECT_DELAY_MIN;
        }
        sleep(delay).await;
        delay = (delay * 2).min(RECONNECT_DELAY_MAX);
    }
}

/// Logs why a connection ended, loudly if that is news.
fn tell(end: &LinkError, is_news: bool) {
    let error = end as &dyn std::error::Error;
    if is_news {
        tracing::warn!(error, "there is no connection to the store, it is made again and again");
    } else {
        tracing::debug!(error, "the store does not accept this worker yet");
    }
}

/// Serves one connection until it ends.
async fn serve(shared: &Shared, mut stream: UnixStream) -> LinkError {
    let attach = Attach {
        protocol: PROTOCOL_VERSION,
        incarnation: shared.identity.incarnation,
        cell: shared.identity.cell,
        generation: shared.generation.load(std::sync::atomic::Ordering::Relaxed),
        applied: shared.core.lock().attach_from(),
        brief: true,
    };
    if let Err(error) = shared.send_first(&ToStore::Attach(attach)) {
        return LinkError::Message(error);
    }
    let (reader, writer) = stream.split();
    let mut reading = std::pin::pin!(read(shared, reader));
    let end = tokio::select! {
        end = &mut reading => end,
        end = write(shared, writer) => end,
        end = tick(shared) => end,
    };
    if matches!(end, LinkError::Write(_)) {
        // A store that leaves gives its last answers and closes the connection at once: they have arrived, also when it
        // is a write that notices first. Reading ends with the end of what there is.
        let _ = timeout(LAST_WORDS_MAX, reading).await;
    }
    end
}

async fn read(shared: &Shared, mut reader: ReadHalf<'_>) -> LinkError {
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let mut answers = Vec::new();
    loop {
        buffer.reserve(READ_BYTES);
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return LinkError::Closed,
            Ok(_) => {}
            Err(error) => return LinkError::Read(error),
        }
        let taken = take_messages(shared, &mut buffer, &mut answers);
        // The answer to a write comes after its watermark: a worker shows its own writes before it answers them.
        let looked = shared
            .step(|core, actions| core.look(shared.watermark(), actions))
            .and_then(|rest| shared.finish(rest));
        for (request, answer) in answers.drain(..) {
            shared.answered(request, answer);
        }
        if let Err(end) = taken.and(looked.map_err(distrusted)) {
            return end;
        }
    }
}

/// Carries out all complete messages in `buffer` but the answers.
fn take_messages(
    shared: &Shared,
    buffer: &mut BytesMut,
    answers: &mut Vec<(u64, Answer)>,
) -> Result<(), LinkError> {
    while let Some(payload) = frame::take(buffer).map_err(LinkError::Message)? {
        let message = brief::read_from_store(&payload).map_err(LinkError::Message)?;
        take_message(shared, message, answers)?;
    }
    Ok(())
}

fn take_message(
    shared: &Shared,
    message: FromStore,
    answers: &mut Vec<(u64, Answer)>,
) -> Result<(), LinkError> {
    let now = Instant::now();
    let rest = match message {
        FromStore::AttachRefused { reason } => return Err(LinkError::Refused { reason }),
        FromStore::Attached { epoch, durable, brief } => {
            tracing::debug!(epoch, durable, brief, "attached to the store");
            shared.ledger.lock().attached(brief);
            shared.step(|core, actions| core.attached(epoch, durable, now, actions))
        }
        FromStore::SnapshotBegin { at } => shared.step(|core, actions| core.copy_begun(at, now, actions)),
        FromStore::SnapshotPage { documents } => {
            shared.step(|core, actions| core.copy_page(documents, now, actions))
        }
        FromStore::SnapshotEnd { at } => {
            shared.step(|core, actions| core.copy_ended(at, now, shared.watermark(), actions))
        }
        FromStore::Feed { first, last, changes } => {
            shared.step(|core, actions| core.received(first, last, changes, now, actions))
        }
        FromStore::Written { request, outcome } => {
            answers.push((request, Answer::Written(outcome)));
            return Ok(());
        }
        FromStore::Fetched { request, bodies } => {
            answers.push((request, Answer::Fetched(bodies)));
            return Ok(());
        }
        FromStore::Recalled { request, stored } => {
            answers.push((request, Answer::Recalled(stored)));
            return Ok(());
        }
        FromStore::ChangesRead { request, oldest, memory_oldest, durable, changes } => {
            let page = super::ChangesPage { oldest, memory_oldest, durable, changes };
            answers.push((request, Answer::ChangesRead(page)));
            return Ok(());
        }
    };
    rest.and_then(|rest| shared.finish(rest)).map_err(distrusted)
}

async fn write(shared: &Shared, mut writer: WriteHalf<'_>) -> LinkError {
    let mut buffer = Vec::with_capacity(WRITE_BYTES);
    loop {
        let again = shared.ledger.lock().take(&mut buffer, WRITE_BYTES);
        if again > 0 {
            shared.count(Counter::WriteResends, again);
        }
        if buffer.is_empty() {
            shared.outgoing.notified().await;
            continue;
        }
        if let Err(error) = writer.write_all(&buffer).await {
            return LinkError::Write(error);
        }
        buffer.clear();
        if buffer.capacity() > 4 * WRITE_BYTES {
            buffer = Vec::with_capacity(WRITE_BYTES);
        }
    }
}

async fn tick(shared: &Shared) -> LinkError {
    let mut gauges_at = Instant::now();
    loop {
        if shared.core.lock().wants_watermark() {
            sleep(HELD_BACK_TICK).await;
        } else {
            tokio::select! {
                () = metronome::beat() => {}
                () = shared.held_back.notified() => sleep(HELD_BACK_TICK).await,
            }
        }
        let now = Instant::now();
        let ticked = shared.step(|core, actions| core.tick(shared.watermark(), now, actions));
        if let Err(end) = ticked.and_then(|rest| shared.finish(rest)).map_err(distrusted) {
            return end;
        }
        if now.saturating_duration_since(gauges_at) >= IDLE_TICK {
            gauges_at = now;
            shared.write_gauges();
        }
    }
}

fn distrusted(reason: String) -> LinkError {
    LinkError::Distrusted { reason }
}

#[cfg(test)]
mod tests {
    use aegis_ipc::{board::Board, data::Outcome};
    use tokio::sync::oneshot;

    use super::*;
    use crate::data::{
        ledger::Nature,
        shared::Identity,
        tests::{catalog, config},
    };

    #[tokio::test]
    async fn answers_that_came_before_the_store_closed_the_connection_are_told() {
        let (board, _) = Board::create().unwrap();
        let shared = Shared::new(&config(), &catalog(&[]), board, Identity { cell: 0, incarnation: 1 }, 1);
        // Whether reading or writing is tried first is left to chance.
        for request in 1..=64 {
            let (sender, mut answer) = oneshot::channel();
            let admitted =
                shared.ledger.lock().admit(request, Nature::Write, vec![0], Instant::now(), sender);
            admitted.unwrap();
            let outcome = Outcome::Committed { first: request, last: request };
            let (stream, mut store) = UnixStream::pair().unwrap();
            let mut said = Vec::new();
            frame::write_message(&FromStore::Written { request, outcome: outcome.clone() }, &mut said)
                .unwrap();
            store.write_all(&said).await.unwrap();
            drop(store);
            let end = serve(&shared, stream).await;
            shared.disconnected();
            let told = answer.try_recv();
            assert!(matches!(&told, Ok(Answer::Written(told)) if *told == outcome), "{told:?} after {end}");
        }
    }
}
