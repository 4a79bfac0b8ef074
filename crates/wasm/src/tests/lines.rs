//! What modules write: lines of the log, and to their standard error.

use std::sync::Arc;

use aegis_guests::{Body, Guest, answer, mutter, trap, with_system};
use parking_lot::Mutex;
use serde_json::json;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use super::{Worker, answer as answered, trapped};

/// Lines that a guest writes at once.
const LINES: u32 = 10_000;

/// A log that has no lines below `info`, and keeps their messages.
#[derive(Clone, Default)]
pub(super) struct Log {
    messages: Arc<Mutex<Vec<String>>>,
}

impl Log {
    /// The messages of modules so far.
    pub(super) fn lines(&self) -> Vec<String> {
        self.messages.lock().clone()
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        if event.metadata().target() == "aegis::module" {
            event.record(&mut Message(self));
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The message of one line.
struct Message<'a>(&'a Log);

impl Visit for Message<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0.messages.lock().push(format!("{value:?}"));
        }
    }
}

/// Logs a message so many times, at the level with this number in the contract.
fn log(level: u32, message: &str, times: u32) -> Body {
    let mut body = Body::default();
    let text = body.text(message);
    let wat = format!(
        "(local.set $i (i32.const {times}))
         (loop $again
           (call $log_write (i32.const {level}) {text} (i32.const 0) (i32.const 0))
           (local.set $i (i32.sub (local.get $i) (i32.const 1)))
           (br_if $again (local.get $i)))"
    );
    body.then(wat).calling("log", "write")
}

/// The messages of a command that writes lines.
fn logged(lines: Body) -> Vec<String> {
    let guest = Guest::model(json!({ "name": "scribe", "endpoint": "scribes", "version": "1.0.0" }))
        .command("write", lines.then(answer("true")));
    let worker = Worker::out_of_time(&guest);
    let log = Log::default();
    let written = tracing::subscriber::with_default(log.clone(), || worker.command("write", "{}"));
    assert_eq!(written, answered("true"));
    log.lines()
}

#[test]
fn lines_that_nobody_reads_leave_room_for_those_that_are_read() {
    let (debug, warn) = (1, 3);
    let noise = "x".repeat(8_192);
    assert_eq!(logged(log(debug, &noise, LINES).then(log(warn, "heard", 1))), ["heard"]);
}

#[test]
fn lines_without_a_text_are_bounded_too() {
    let lines = logged(log(2, "", LINES));
    // Twice as many as fit in a second: the next one may begin meanwhile.
    assert!(!lines.is_empty() && lines.len() <= 1_024 + 1, "{} lines of {LINES}", lines.len());
}

#[test]
fn what_one_call_wrote_is_not_told_when_another_one_fails() {
    let guest = with_system(aegis_guests::plain())
        .command("whisper", mutter("the first one's secret").then(answer("true")))
        .command("break", mutter("the second one's").then(trap()));
    let worker = Worker::out_of_time(&guest);
    assert_eq!(worker.command("whisper", "{}"), answered("true"));
    let reason = trapped(worker.command("break", "{}"));
    assert!(reason.ends_with("; it wrote: the second one's"), "{reason}");
}
