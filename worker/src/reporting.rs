//! The worker's end of the control socket: what the supervisor wants, and what it is asked.
//!
//! ```text
//!   Hello ─▶   … everything is put in place, the self-test answers …   Ready ─▶
//!   ◀─ Serve   ◀─ Poke   ◀─ ReopenLogs
//!   ◀─ Drain   Draining ─▶ (when nothing is accepted any more, and once a second)   Bye ─▶
//!   ◀─ Adopt   Adopted ─▶ or NotAdopted ─▶   (see `adoption`)
//!   Ask{n} ─▶ … ◀─ Answer{n} …            (for requests over HTTP that are the supervisor's to answer)
//! ```
//!
//! End of file means that the supervisor is gone: the worker finishes what is in flight and leaves.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use aegis_domain::{Problem, ProblemCode};
use aegis_ipc::{
    IpcError,
    control::{ControlSocket, Received, ToChild, ToSupervisor},
    operator,
};
use parking_lot::Mutex;
use tokio::{io::unix::AsyncFd, sync::mpsc, task::AbortHandle};

use crate::{
    acceptor::Doorbell,
    adoption::{self, Order},
    present::Present,
};

/// Questions to the supervisor that wait for an answer at once.
const ASKED_MAX: usize = 64;
/// Answers to one question that wait to be read. Further ones are dropped: they only tell progress.
const ANSWERS_MAX: usize = 16;

/// The way to the supervisor, for everybody in the process.
#[derive(Debug)]
pub(crate) struct Supervisor {
    socket: Mutex<Option<Arc<ControlSocket>>>,
    next: AtomicU64,
    asked: Mutex<HashMap<u64, mpsc::Sender<operator::Reply>>>,
}

/// The answers to one question. Dropping it forgets the question.
#[derive(Debug)]
pub(crate) struct Answers<'s> {
    supervisor: &'s Supervisor,
    request: u64,
    replies: mpsc::Receiver<operator::Reply>,
}

impl Supervisor {
    /// Questions and reports go over this socket.
    pub(crate) fn new(socket: Arc<ControlSocket>) -> Self {
        Self { socket: Mutex::new(Some(socket)), next: AtomicU64::new(1), asked: Mutex::default() }
    }

    /// Asks for something that is the supervisor's to do.
    pub(crate) fn ask(&self, ask: operator::Request) -> Result<Answers<'_>, Problem> {
        let unavailable = |detail: &str| Problem::new(ProblemCode::Overloaded, detail);
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, replies) = mpsc::channel(ANSWERS_MAX);
        {
            let mut asked = self.asked.lock();
            if asked.len() >= ASKED_MAX {
                return Err(unavailable("too many questions to the supervisor are waiting for an answer"));
            }
            asked.insert(request, sender);
        }
        let answers = Answers { supervisor: self, request, replies };
        match self.tell(&ToSupervisor::Ask { request, ask }) {
            Ok(true) => Ok(answers),
            Ok(false) => Err(unavailable("the supervisor is not listening")),
            Err(error) => Err(Problem::new(ProblemCode::Internal, format!("asking the supervisor: {error}"))),
        }
    }

    /// Sends a report. `Ok(false)`: the supervisor is gone or does not keep up.
    pub(crate) fn tell(&self, report: &ToSupervisor) -> Result<bool, IpcError> {
        let socket = self.socket.lock();
        match &*socket {
            Some(socket) => socket.send(report, &[]),
            None => Ok(false),
        }
    }

    fn deliver(&self, request: u64, reply: operator::Reply) {
        if let Some(sender) = self.asked.lock().get(&request)
            && sender.try_send(reply).is_err()
        {
            tracing::debug!(target: "aegis::worker", request, "an answer of the supervisor was not read in time");
        }
    }

    /// Nobody will answer any more.
    fn close(&self) {
        *self.socket.lock() = None;
        self.asked.lock().clear();
    }
}

impl Answers<'_> {
    /// The next answer; `None` when there will be none.
    pub(crate) async fn next(&mut self) -> Option<operator::Reply> {
        self.replies.recv().await
    }
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        self.supervisor.asked.lock().remove(&self.request);
    }
}

/// Follows the supervisor until it is gone.
///
/// # Errors
/// When the socket cannot be watched or read; the caller treats that like a supervisor that is gone.
#[expect(
    deprecated,
    reason = "its successor needs unsafe code to promise what holds here: the socket owns its descriptor"
)]
pub(crate) async fn follow(
    socket: Arc<ControlSocket>,
    present: Arc<Present>,
    doorbell: &Doorbell,
) -> io::Result<()> {
    let socket = AsyncFd::new(socket)?;
    let (sender, orders) = adoption::orders();
    let _adopting = AbortOnDrop(tokio::spawn(adoption::run(Arc::clone(&present), orders)).abort_handle());
    let ears = Ears { present: &present, doorbell, orders: sender };
    let outcome = loop {
        let mut ready = match socket.readable().await {
            Ok(ready) => ready,
            Err(error) => break Err(error),
        };
        match socket.get_ref().receive::<ToChild>() {
            Ok(Received::Message(message, descriptors)) => ears.obey(message, descriptors),
            Ok(Received::Empty) => ready.clear_ready(),
            Ok(Received::Closed) => break Ok(()),
            // A message that this version cannot read asks for something that it cannot do.
            Err(error @ IpcError::Os { .. }) => break Err(io::Error::other(error)),
            Err(error) => tracing::warn!(target: "aegis::worker", "ignoring a control message: {error}"),
        }
    };
    present.premises().supervisor.close();
    outcome
}

/// Ends a task with whoever began it.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Does what the supervisor says.
struct Ears<'e> {
    present: &'e Present,
    doorbell: &'e Doorbell,
    orders: mpsc::Sender<Order>,
}

impl Ears<'_> {
    fn obey(&self, message: ToChild, descriptors: Vec<OwnedFd>) {
        let premises = self.present.premises();
        match message {
            ToChild::Serve => self.doorbell.serve(),
            ToChild::Poke => self.doorbell.poke(),
            ToChild::Drain { deadline_ms, is_last } => {
                let deadline = deadline_ms.map(std::time::Duration::from_millis);
                let spread = self.present.look().config.drain.spread;
                if is_last {
                    premises.leave_to_nobody(deadline, spread);
                } else {
                    premises.leave(deadline, spread);
                }
            }
            ToChild::Adopt { generation } => self.adopt(generation, descriptors),
            ToChild::ReopenLogs => match descriptors.into_iter().next() {
                Some(file) => {
                    if let Err(error) = nix::unistd::dup2_stderr(&file) {
                        tracing::error!(target: "aegis::worker", "putting the new log file in place: {error}");
                    }
                }
                None => {
                    tracing::warn!(target: "aegis::worker", "asked to reopen logs without a new log file")
                }
            },
            ToChild::Answer { request, reply } => premises.supervisor.deliver(request, reply),
            ToChild::Prepare { .. } | ToChild::Activate { .. } | ToChild::Discard { .. } | ToChild::Keep => {
                tracing::warn!(target: "aegis::worker", "ignoring a message that is for the store: {message:?}");
            }
        }
    }

    fn adopt(&self, generation: u64, descriptors: Vec<OwnedFd>) {
        let refused = match descriptors.into_iter().next() {
            Some(bundle) => match self.orders.try_send(Order { generation, bundle }) {
                Ok(()) => return,
                Err(_) => "others wait to be taken over already",
            },
            None => "its bundle did not come with it",
        };
        let answer = adoption::failed(&self.present.look(), generation, refused.to_owned());
        if let Err(error) = self.present.premises().supervisor.tell(&answer) {
            tracing::error!(target: "aegis::worker", %error, "the supervisor is not told what is served");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Arc<Supervisor>, ControlSocket) {
        let (ours, theirs) = ControlSocket::pair().unwrap();
        (Arc::new(Supervisor::new(Arc::new(ours))), theirs)
    }

    #[tokio::test]
    async fn answers_find_the_question_and_a_dropped_question_is_forgotten() {
        let (supervisor, other) = pair();
        let mut first =
            supervisor.ask(operator::Request::Reload { wait: false, mode: None, automatic: false }).unwrap();
        let second = supervisor.ask(operator::Request::Status).unwrap();
        let Received::Message(ToSupervisor::Ask { request, ask }, _) = other.receive().unwrap() else {
            panic!("nothing was asked")
        };
        assert_eq!(ask, operator::Request::Reload { wait: false, mode: None, automatic: false });
        supervisor.deliver(request, operator::Reply::Accepted { job: 7 });
        assert_eq!(first.next().await, Some(operator::Reply::Accepted { job: 7 }));
        drop(first);
        assert_eq!(supervisor.asked.lock().len(), 1);
        supervisor.close();
        drop(second);
        assert!(supervisor.asked.lock().is_empty());
    }

    #[tokio::test]
    async fn questions_are_bounded_and_need_a_supervisor() {
        let (supervisor, other) = pair();
        let waiting: Vec<_> =
            (0..ASKED_MAX).map(|_| supervisor.ask(operator::Request::Status).unwrap()).collect();
        let refused = supervisor.ask(operator::Request::Status).unwrap_err();
        assert_eq!(refused.code, ProblemCode::Overloaded);
        drop(waiting);
        drop(other);
        let refused = supervisor.ask(operator::Request::Status).unwrap_err();
        assert_eq!(refused.detail, "the supervisor is not listening");
        assert!(supervisor.asked.lock().is_empty());
    }
}
