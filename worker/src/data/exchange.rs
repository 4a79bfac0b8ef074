//! Requests to the store and their answers.

use std::{sync::atomic::Ordering, time::Instant};

use aegis_domain::{Problem, ProblemCode};
use aegis_ipc::{
    IpcError,
    board::Counter,
    brief,
    data::{Outcome, StoredResponse, ToStore},
};
use bytes::Bytes;
use tokio::{sync::oneshot, time::timeout_at};

use super::{
    ChangesPage,
    ledger::{Full, Nature, Withdrawn},
    shared::Shared,
};

/// An answer of the store.
#[derive(Debug)]
pub(super) enum Answer {
    Written(Outcome),
    Fetched(Vec<Option<Bytes>>),
    Recalled(Option<StoredResponse>),
    ChangesRead(ChangesPage),
}

impl Shared {
    pub(super) fn next_request(&self) -> u64 {
        self.next_request.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) async fn question(
        &self,
        message: impl FnOnce(u64) -> ToStore,
        deadline: Instant,
    ) -> Result<Answer, Problem> {
        let request = self.next_request();
        self.ask(Nature::Question, request, &message(request), deadline).await
    }

    /// Sends one request and waits for its answer.
    pub(super) async fn ask(
        &self,
        nature: Nature,
        request: u64,
        message: &ToStore,
        deadline: Instant,
    ) -> Result<Answer, Problem> {
        let mut encoded = Vec::new();
        brief::write_to_store(message, &mut encoded).map_err(|error| unsendable(&error))?;
        let (sender, mut receiver) = oneshot::channel();
        let admitted = self.ledger.lock().admit(request, nature, encoded, Instant::now(), sender);
        admitted.map_err(|Full| overloaded())?;
        self.outgoing.notify_one();
        let waiting = Waiting { shared: self, request };
        let answer = match timeout_at(deadline.into(), &mut receiver).await {
            Ok(answer) => answer.map_err(|_| Withdrawn::Sent),
            Err(_) => match waiting.withdraw() {
                Withdrawn::Settled => receiver.try_recv().map_err(|_| Withdrawn::Sent),
                withdrawn => Err(withdrawn),
            },
        };
        answer.map_err(|withdrawn| match (nature, withdrawn) {
            (Nature::Write, Withdrawn::Sent | Withdrawn::Settled) => {
                self.count(Counter::UnknownOutcomes, 1);
                unknown_outcome()
            }
            (Nature::Write, Withdrawn::NeverSent) => unreachable_store("the write was not sent"),
            (Nature::Question, _) => unreachable_store("it did not answer in time"),
        })
    }
}

/// Takes the request back when the client no longer waits, so that it is not sent for nothing.
struct Waiting<'a> {
    shared: &'a Shared,
    request: u64,
}

impl Waiting<'_> {
    fn withdraw(&self) -> Withdrawn {
        self.shared.ledger.lock().withdraw(self.request)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.withdraw();
    }
}

pub(super) fn overloaded() -> Problem {
    Problem::new(ProblemCode::Overloaded, "too many writes are waiting for the store")
}

pub(super) fn unreachable_store(what: &str) -> Problem {
    Problem::new(ProblemCode::StoreUnavailable, format!("the store could not be reached in time: {what}"))
}

fn unknown_outcome() -> Problem {
    let detail = "the store did not answer in time, so the write may have been made or may still be made; \
                  sending it again with the same Idempotency-Key tells";
    Problem::new(ProblemCode::WriteOutcomeUnknown, detail)
}

fn unsendable(error: &IpcError) -> Problem {
    match error {
        IpcError::FrameTooLarge { length_bytes, max_bytes } => too_large(*length_bytes, *max_bytes),
        other => Problem::new(ProblemCode::Internal, other.to_string()),
    }
}

pub(super) fn too_large(found: u64, most: u64) -> Problem {
    let detail = format!("found {found} bytes of documents in one request, expected at most {most}");
    Problem::new(ProblemCode::BodyTooLarge, detail)
}

pub(super) fn wrong_answer(asked: &str, answer: &Answer) -> Problem {
    tracing::error!(?answer, "the store answered {asked} with something else");
    Problem::new(ProblemCode::Internal, format!("the store answered {asked} with something else"))
}
