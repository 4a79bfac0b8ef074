//! What people and programs ask for: by signal, over the operator's socket, or through a worker over HTTP.

use aegis_ipc::{
    board::monotonic_ms,
    codec,
    control::{CONTROL_BYTES_MAX, ToChild},
    deploy::Supply,
    operator::{self, Reply},
};

use super::{Driver, Interest, Ready, Source};
use crate::{
    fleet::{Asker, Caller, ChildId, Event, Origin, Patience, Request, Scale, reload_mode},
    listen::{Occupant, bind_unix},
    relay::{ASKERS_MAX, Who},
    signals::Wish,
    with_causes,
};

/// Longest reply that a worker is told, bytes: a message with it has to fit.
const RELAYED_BYTES_MAX: usize = CONTROL_BYTES_MAX - 1024;

impl Driver {
    pub(super) fn take_signals(&mut self) {
        for wish in self.signals.wishes() {
            tracing::info!(?wish, "signal");
            let request = match wish {
                Wish::Reload => {
                    self.find_operators_again();
                    Request::Reload { origin: Origin::Operator, mode: None }
                }
                Wish::Stop(mode) => Request::Stop { mode },
                Wish::Upgrade => Request::Upgrade { path: None },
                Wish::Drain => Request::Drain,
                Wish::More => Request::Scale(Scale::More),
                Wish::Fewer => Request::Scale(Scale::Fewer),
                Wish::ReopenLogs => {
                    if let Err(error) = self.reopen_logs() {
                        tracing::error!("{}", with_causes(&error));
                    }
                    continue;
                }
            };
            self.events.push_back(Event::Request { asker: None, request });
        }
    }

    /// Listens for operators anew if the file of their socket is gone: somebody has cleaned up, and whoever asks for a reload
    /// by signal may have found no other way.
    fn find_operators_again(&mut self) {
        let path = &self.identity.control_socket;
        if !self.operators.has_lost(path) {
            return;
        }
        match bind_unix(path, Occupant::Ask) {
            Ok(listener) => {
                tracing::warn!(path = %path.display(), "the control socket was gone, it is there again");
                self.admit_operators();
                self.poller.remove(&self.operators);
                self.operators.listen_on(listener);
                if let Err(error) = self.poller.add(&self.operators, Source::Door, Interest::Read) {
                    tracing::error!("{}", with_causes(&error));
                }
            }
            Err(error) => tracing::error!("the control socket is gone: {}", with_causes(&error)),
        }
    }

    pub(super) fn admit_operators(&mut self) {
        for client in self.operators.accept() {
            let Some(socket) = self.operators.client(client) else { continue };
            if let Err(error) = self.poller.add(socket, Source::Operator(client), Interest::Read) {
                tracing::error!("{}", with_causes(&error));
                self.operators.hang_up(client);
            }
        }
    }

    pub(super) fn serve_operator(&mut self, client: u64, ready: Ready) {
        if ready.readable {
            self.take_requests(client);
        }
        if ready.writable {
            self.operators.flush(client);
        }
        if ready.hung_up {
            self.operators.hang_up(client);
        }
    }

    /// Requests that arrived together with others and had to wait for their turn.
    pub(super) fn take_unread_requests(&mut self) {
        for client in self.operators.unread() {
            self.take_requests(client);
        }
    }

    fn take_requests(&mut self, client: u64) {
        for line in self.operators.read(client) {
            match line {
                Ok(request) => self.ask(Who::Client(client), request),
                Err(message) => self.operators.send(client, &Reply::Error { message }),
            }
        }
    }

    /// A worker relays a request.
    pub(super) fn relay(&mut self, child: ChildId, request: u64, ask: operator::Request) {
        let who = Who::Worker { child, request };
        if may_be_relayed(&ask) {
            return self.ask(who, ask);
        }
        let message = "this is only possible over the control socket of the host".to_owned();
        self.reply(who, &Reply::Error { message });
    }

    fn ask(&mut self, who: Who, request: operator::Request) {
        let (request, patience) = match request {
            operator::Request::Status => {
                let reply = self.status_reply();
                return self.reply(who, &reply);
            }
            operator::Request::Watch => return self.begin_watching(who),
            operator::Request::Job { job } => {
                let unknown =
                    || Reply::Error { message: format!("job {job} is not known, or ended long ago") };
                let reply = self.fleet.job(job).map_or_else(unknown, Reply::Job);
                return self.reply(who, &reply);
            }
            operator::Request::LogsReopen => {
                let reply = match self.reopen_logs() {
                    Ok(()) => Reply::Done,
                    Err(error) => Reply::Error { message: with_causes(&error) },
                };
                return self.reply(who, &reply);
            }
            operator::Request::Reload { wait, mode, automatic } => {
                let patience = if wait { Patience::Verdict } else { Patience::Accepted };
                let origin = if automatic { Origin::Automatic } else { Origin::Operator };
                (Request::Reload { origin, mode: mode.map(reload_mode) }, patience)
            }
            operator::Request::Deploy { order, wait } => {
                let patience = if wait { Patience::Verdict } else { Patience::Accepted };
                (Request::Deploy(order), patience)
            }
            operator::Request::Rollback => (Request::Rollback, Patience::Verdict),
            operator::Request::Scale { workers } => (Request::Scale(Scale::To(workers)), Patience::Verdict),
            operator::Request::Restart { slot } => (Request::Restart { slot }, Patience::Verdict),
            operator::Request::Drain => (Request::Drain, Patience::Verdict),
            operator::Request::Upgrade { path } => (Request::Upgrade { path }, Patience::Verdict),
            operator::Request::Stop { mode } => (Request::Stop { mode }, Patience::Verdict),
        };
        let Some(asker) = self.askers.register(who, patience) else {
            let message = format!("{ASKERS_MAX} requests wait for an answer already, try again later");
            return self.reply(who, &Reply::Error { message });
        };
        if let Who::Client(client) = who {
            self.operators.expect(client, asker.0);
        }
        let caller = Caller { asker, patience };
        self.events.push_back(Event::Request { asker: Some(caller), request });
    }

    fn begin_watching(&mut self, who: Who) {
        if let Who::Client(client) = who {
            let reply = self.status_reply();
            self.operators.send(client, &reply);
            self.operators.watch(client);
        }
    }

    /// Gives an answer to whoever asked. One that left meanwhile misses it.
    pub(super) fn reply(&mut self, who: Who, reply: &Reply) {
        match who {
            Who::Client(client) => self.operators.send(client, reply),
            Who::Worker { child, request } => {
                let answer = ToChild::Answer { request, reply: fitting(reply) };
                if !self.tell(child, &answer, &[]) {
                    tracing::debug!(child = child.0, request, "a worker did not take an answer");
                }
            }
        }
    }

    /// No further answer comes for this asker.
    pub(super) fn unexpect(&mut self, who: Who, asker: Asker) {
        if let Who::Client(client) = who {
            self.operators.fulfilled(client, asker.0);
        }
    }

    /// Sends what is queued for operators, and lets go of those that are done with.
    pub(super) fn answer_operators(&mut self) {
        self.tell_watchers(monotonic_ms());
        self.flush_operators();
        for client in self.operators.finished() {
            if let Some(socket) = self.operators.client(client) {
                self.poller.remove(socket);
            }
            for asker in self.operators.close(client).into_iter().map(Asker) {
                self.askers.finish(asker);
                self.events.push_back(Event::Left { asker });
            }
        }
        for (client, readiness) in self.operators.changed_readiness() {
            let interest = match (readiness.read, readiness.write) {
                (true, true) => Interest::ReadWrite,
                (true, false) => Interest::Read,
                (false, true) => Interest::Write,
                (false, false) => Interest::Nothing,
            };
            if let Some(socket) = self.operators.client(client) {
                self.poller.change(socket, Source::Operator(client), interest);
            }
        }
    }

    pub(super) fn flush_operators(&mut self) {
        let clients: Vec<u64> = self.operators.ids().collect();
        for client in clients {
            self.operators.flush(client);
        }
    }

    fn tell_watchers(&mut self, now_ms: u64) {
        let revision = self.fleet.revision();
        if !self.operators.has_watchers() || !self.rhythm.watchers_due(revision, now_ms) {
            return;
        }
        self.rhythm.watchers_told(revision, now_ms);
        let watchers = self.operators.watchers();
        if watchers.is_empty() {
            return; // nobody has taken the last one yet
        }
        let reply = self.status_reply();
        for client in watchers {
            self.operators.send(client, &reply);
        }
    }
}

/// What a worker is answered: the reply, as far as it fits into a message.
fn fitting(reply: &Reply) -> Reply {
    let bytes = codec::encode(reply).map_or(0, |bytes| bytes.len());
    if bytes <= RELAYED_BYTES_MAX {
        return reply.clone();
    }
    let message = format!("the answer has {bytes} bytes, too many to be relayed: ask on the machine itself");
    Reply::Error { message }
}

/// Whether a worker may ask for it. Workers face the network: whoever takes one over must not be able to end the host or
/// to have it run another program.
fn may_be_relayed(request: &operator::Request) -> bool {
    match request {
        operator::Request::Status
        | operator::Request::Job { .. }
        | operator::Request::Reload { .. }
        | operator::Request::Restart { .. }
        | operator::Request::Scale { .. }
        | operator::Request::LogsReopen => true,
        // Files of the machine are only for those who are on it.
        operator::Request::Deploy { order, .. } => !matches!(order.supply, Supply::File(_)),
        operator::Request::Watch
        | operator::Request::Rollback
        | operator::Request::Drain
        | operator::Request::Upgrade { .. }
        | operator::Request::Stop { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use aegis_ipc::deploy::Order;

    use super::*;

    #[test]
    fn a_reply_that_is_too_long_to_be_relayed_is_an_error_instead() {
        let long = |length| Reply::Error { message: "x".repeat(length) };
        assert_eq!(fitting(&long(1000)), long(1000));
        let Reply::Error { message } = fitting(&long(CONTROL_BYTES_MAX)) else { panic!() };
        assert!(message.contains("too many to be relayed"), "{message}");
        let longest = ToChild::Answer { request: u64::MAX, reply: fitting(&long(RELAYED_BYTES_MAX - 50)) };
        assert!(codec::encode(&longest).unwrap().len() <= CONTROL_BYTES_MAX);
    }

    #[test]
    fn workers_relay_no_request_about_files_of_the_machine_or_the_life_of_the_host() {
        let deploy = |supply| {
            let order = Order {
                module: "order".to_owned(),
                supply,
                sha256: None,
                force: false,
                mode: None,
                trial: None,
            };
            operator::Request::Deploy { order, wait: true }
        };
        for supply in [Supply::App, Supply::Source("https://a.example/".to_owned())] {
            assert!(may_be_relayed(&deploy(supply)));
        }
        assert!(!may_be_relayed(&deploy(Supply::File("/etc/passwd".into()))));
        assert!(!may_be_relayed(&operator::Request::Rollback));
        assert!(!may_be_relayed(&operator::Request::Upgrade { path: None }));
    }
}
