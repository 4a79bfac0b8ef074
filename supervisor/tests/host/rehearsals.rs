//! Rehearsals that nobody waits for any more. Each has the lock and the sockets of its host.

use std::os::unix::net::UnixStream;

use aegis_ipc::operator::{Request, StopMode, Verdict};

use crate::{
    harness::{Host, eventually, verdict},
    stories::{TWO, alive, kill},
};

/// Asks for an upgrade whose rehearsal does not end by itself, and waits until it runs: who waits for the verdict, and the
/// process of the rehearsal.
fn begin(host: &Host) -> (UnixStream, u32) {
    let begun = host.folder().join("begun");
    let words = format!("#!/bin/sh\necho $$ > {0}.part\nmv {0}.part {0}\nexec sleep 1000\n", begun.display());
    let asker = host.send(&Request::Upgrade { path: Some(host.script("endless", &words)) });
    let text = eventually("the rehearsal runs", || std::fs::read_to_string(&begun).ok());
    (asker, text.trim().parse().unwrap())
}

pub(crate) fn is_called_off() {
    let host = Host::start(TWO);
    let before = host.settled(2);
    let (asker, rehearsal) = begin(&host);
    assert_eq!(host.verdict(&Request::Drain), Verdict::Done);
    let reason = "all workers were drained on request".to_owned();
    assert_eq!(verdict(asker), Verdict::RolledBack { reason });
    assert!(!alive(rehearsal));
    let image = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
    let upgrade = Request::Upgrade { path: Some(image) };
    assert_eq!(host.verdict(&upgrade), Verdict::Done, "no other one is in its way");
    assert_eq!(host.settled(2).pid, before.pid);
}

pub(crate) fn ends_with_a_stop() {
    let mut host = Host::start(TWO);
    host.settled(2);
    let (asker, rehearsal) = begin(&host);
    assert_eq!(host.verdict(&Request::Stop { mode: StopMode::Graceful }), Verdict::Done);
    assert_eq!(verdict(asker), Verdict::Superseded);
    assert_eq!(host.wait().code(), Some(0));
    assert!(!alive(rehearsal));
}

pub(crate) fn ends_with_a_kill() {
    let host = Host::start(TWO);
    host.settled(2);
    let (_asker, rehearsal) = begin(&host);
    kill(host.pid());
    eventually("the rehearsal is gone", || (!alive(rehearsal)).then_some(()));
    host.replace_after_kill().settled(2);
}
