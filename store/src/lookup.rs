//! Answers what workers ask about stored data, on threads of their own so that no write waits for a slow read.

use std::sync::Arc;

use aegis_ipc::data::{FromStore, StoredResponse, Version};
use bytes::Bytes;
use crossbeam::channel::{Receiver, Sender};

use crate::{
    engine::{EngineResult, KeptResponse, LogBudget, LogPage},
    error::chain,
    link::Link,
    shared::Shared,
    storage::{LogRead, Place},
};

/// Threads that answer. Most answers come from memory; two keep one slow disk read from stopping all.
const THREADS: usize = 2;
/// Questions that may wait; a worker that asks more is read more slowly.
const QUESTIONS_MAX: usize = 1024;
/// Bodies in one answer, bytes; the last one may exceed it. A frame has room for twice as much.
const FETCH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Changes in one answer, bytes; a larger one comes alone.
const CHANGES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Changes in one answer.
const CHANGES_MAX: u32 = 10_000;

/// What a worker asks.
#[derive(Debug)]
pub(crate) enum Question {
    /// See [`aegis_ipc::data::ToStore::Fetch`].
    Fetch {
        /// Echoed.
        request: u64,
        /// Which documents, in which version.
        versions: Vec<Version>,
    },
    /// See [`aegis_ipc::data::ToStore::Recall`].
    Recall {
        /// Echoed.
        request: u64,
        /// The idempotency key.
        key: String,
    },
    /// See [`aegis_ipc::data::ToStore::Changes`].
    Changes {
        /// Echoed.
        request: u64,
        /// Last number the subscriber has seen.
        after: u64,
        /// At most this many changes.
        limit: u32,
    },
}

/// A question and who asks.
pub(crate) struct Lookup {
    /// Where the answer goes.
    pub(crate) link: Arc<Link>,
    /// The question.
    pub(crate) question: Question,
}

/// The way to the threads that answer.
pub(crate) struct Lookups {
    questions: Sender<Lookup>,
}

impl Lookups {
    /// A way that nobody serves yet, and its other end.
    pub(crate) fn new() -> (Self, Receiver<Lookup>) {
        let (questions, answering) = crossbeam::channel::bounded(QUESTIONS_MAX);
        (Self { questions }, answering)
    }

    /// Asks; waits while too many questions wait.
    pub(crate) fn ask(&self, lookup: Lookup) {
        // The threads live as long as the process; if one is lost the store is about to end.
        let _ = self.questions.send(lookup);
    }
}

/// Starts the threads that answer.
pub(crate) fn start(shared: &Arc<Shared>, questions: &Receiver<Lookup>) -> std::io::Result<()> {
    for number in 0..THREADS {
        // Only whoever serves workers keeps the store alive: the last one to go ends these threads.
        let (shared, questions) = (Arc::downgrade(shared), questions.clone());
        std::thread::Builder::new().name(format!("lookup-{number}")).spawn(move || {
            for lookup in questions {
                let Some(shared) = shared.upgrade().filter(|_| !lookup.link.is_closed()) else { continue };
                match answer(&shared, lookup.question) {
                    Ok(answer) => lookup.link.answer_question(&answer),
                    Err(error) => {
                        tracing::error!(
                            link = lookup.link.number,
                            error = chain(&error),
                            "a question has no answer"
                        );
                        lookup.link.close();
                        shared.engine_failed("reading for a worker", error);
                    }
                }
            }
        })?;
    }
    Ok(())
}

fn answer(shared: &Shared, question: Question) -> EngineResult<FromStore> {
    Ok(match question {
        Question::Fetch { request, versions } => {
            FromStore::Fetched { request, bodies: fetch(shared, &versions)? }
        }
        Question::Recall { request, key } => FromStore::Recalled { request, stored: recall(shared, &key)? },
        Question::Changes { request, after, limit } => changes(shared, request, after, limit)?,
    })
}

fn fetch(shared: &Shared, versions: &[Version]) -> EngineResult<Vec<Option<Bytes>>> {
    let mut bodies = Vec::with_capacity(versions.len());
    let mut bytes = 0;
    for version in versions {
        let body = shared.storage.version(version)?;
        bytes += body.as_ref().map_or(0, Bytes::len);
        bodies.push(body);
        if bytes > FETCH_BYTES_MAX {
            break;
        }
    }
    Ok(bodies)
}

fn recall(shared: &Shared, key: &str) -> EngineResult<Option<StoredResponse>> {
    let kept = shared.storage.response(key, shared.expired_ms())?;
    // One that is not published yet is nobody's to see either: its write would be told before anybody can read it.
    let published = kept.filter(|kept| kept.sequence <= shared.board.durable());
    Ok(published.map(|KeptResponse { fingerprint, response, sequence, .. }| StoredResponse {
        fingerprint,
        response,
        sequence,
    }))
}

fn changes(shared: &Shared, request: u64, after: u64, limit: u32) -> EngineResult<FromStore> {
    // What is on disk but not published yet is nobody's to see.
    let durable = shared.storage.committed().min(shared.board.durable());
    let budget =
        LogBudget { changes_max: limit.clamp(1, CHANGES_MAX) as usize, bytes_max: CHANGES_BYTES_MAX };
    let mut after = after;
    let oldest = || shared.storage.engine(Place::File).log_oldest();
    let (changes, memory_oldest) = loop {
        match shared.storage.log_of_subscriber(after, durable, budget)? {
            (LogRead::Page(LogPage { changes, .. }), memory_oldest) => break (changes, memory_oldest),
            // The subscriber has missed something, which `oldest` tells; it gets what there is.
            (LogRead::Gone, _) => after = oldest() - 1,
        }
    };
    Ok(FromStore::ChangesRead { request, oldest: oldest(), memory_oldest, durable, changes })
}
