//! What guests use of WASI, as far as they need to know it: time that passes, and standard error.

use crate::{body::Body, guest::Guest};

const IO: &str = "package wasi:io@0.2.0;
    interface error { resource error; }
    interface poll { resource pollable { block: func(); } }
    interface streams {
        use error.{error};
        variant stream-error { last-operation-failed(error), closed }
        resource output-stream {
            blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
        }
    }";
const POLL_NAME: &str = "wasi:io/poll@0.2.0";
pub(crate) const STREAMS_NAME: &str = "wasi:io/streams@0.2.0";
const CLOCK: &str = "package wasi:clocks@0.2.0;
    interface monotonic-clock {
        use wasi:io/poll@0.2.0.{pollable};
        subscribe-duration: func(when: u64) -> pollable;
    }";
pub(crate) const CLOCK_NAME: &str = "wasi:clocks/monotonic-clock@0.2.0";
const STDERR: &str = "package wasi:cli@0.2.0;
    interface stderr {
        use wasi:io/streams@0.2.0.{output-stream};
        get-stderr: func() -> output-stream;
    }";
pub(crate) const STDERR_NAME: &str = "wasi:cli/stderr@0.2.0";
/// How long a guest sleeps, nanoseconds: an hour, which no test waits for.
const SLEEP_NS: u64 = 3_600_000_000_000;

/// The same guest, whose bodies may [`sleep`] and [`mutter`].
#[must_use]
pub fn with_system(guest: Guest) -> Guest {
    guest.package(IO).package(CLOCK).package(STDERR)
}

/// Waits for an hour without computing anything.
#[must_use]
pub fn sleep() -> Body {
    let wait = "(call $poll_pollable_block (call $monotonic_clock_subscribe_duration";
    Body::from(format!("{wait} (i64.const {SLEEP_NS}))) unreachable"))
        .calling(CLOCK_NAME, "subscribe-duration")
        .calling(POLL_NAME, "[method]pollable.block")
}

/// Writes a text to standard error and goes on.
#[must_use]
pub fn mutter(text: &str) -> Body {
    let mut body = Body::default();
    let text = body.text(text);
    body.then(write_error(&text))
}

/// Writes what two instructions say, its address and length, to standard error and goes on.
pub(crate) fn write_error(text: &str) -> Body {
    Body::from(format!(
        "(call $streams_output_stream_blocking_write_and_flush (call $stderr_get_stderr) {text}
           (call $allocate (global.get $streams_output_stream_blocking_write_and_flush_size)))"
    ))
    .calling(STDERR_NAME, "get-stderr")
    .calling(STREAMS_NAME, "[method]output-stream.blocking-write-and-flush")
}
