//! What a guest writes: its standard output and error, and how much it may log.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

/// Bytes of a guest's output that are kept: a panic says on standard error what it is about.
const TAIL_BYTES_MAX: usize = 4 * 1024;
/// Bytes that one module may log in a second, in one worker.
const LOG_BYTES_PER_SECOND_MAX: u64 = 64 * 1024;

/// The end of what a guest wrote.
#[derive(Debug, Clone, Default)]
pub(crate) struct GuestOutput {
    tail: Arc<Mutex<VecDeque<u8>>>,
}

impl GuestOutput {
    /// Takes the end of what was written.
    pub(crate) fn take(&self) -> String {
        let bytes: Vec<u8> = std::mem::take(&mut *self.tail.lock()).into();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// Forgets what was written.
    pub(crate) fn clear(&self) {
        self.tail.lock().clear();
    }

    fn keep(&self, bytes: &[u8]) {
        let mut tail = self.tail.lock();
        let bytes = &bytes[bytes.len().saturating_sub(TAIL_BYTES_MAX)..];
        let overflow = (tail.len() + bytes.len()).saturating_sub(TAIL_BYTES_MAX);
        tail.drain(..overflow);
        tail.extend(bytes);
    }
}

impl AsyncWrite for GuestOutput {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.keep(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is logged. So many were dropped before, and nobody has told how many.
    Logged {
        /// How many.
        dropped: u64,
    },
    /// It is dropped, as the first one since it was told.
    FirstDropped,
    /// It is dropped.
    Dropped,
}

/// How much a module may still log in this second.
#[derive(Debug)]
pub(crate) struct LogBudget {
    begun: Instant,
    /// The second it is about.
    second: AtomicU64,
    used_bytes: AtomicU64,
    dropped_lines: AtomicU64,
}

impl Default for LogBudget {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            second: AtomicU64::new(0),
            used_bytes: AtomicU64::new(0),
            dropped_lines: AtomicU64::new(0),
        }
    }
}

impl LogBudget {
    /// Whether a line of so many bytes may be logged. The first line of a new second is told how many were not.
    pub(crate) fn admit(&self, bytes: usize) -> Admission {
        self.admit_at(bytes, self.begun.elapsed().as_secs())
    }

    fn admit_at(&self, bytes: usize, second: u64) -> Admission {
        let mut dropped = 0;
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.used_bytes.store(0, Ordering::Relaxed);
            dropped = self.dropped_lines.swap(0, Ordering::Relaxed);
        }
        if self.used_bytes.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64
            > LOG_BYTES_PER_SECOND_MAX
        {
            let before = dropped + self.dropped_lines.fetch_add(1 + dropped, Ordering::Relaxed);
            return if before == 0 { Admission::FirstDropped } else { Admission::Dropped };
        }
        Admission::Logged { dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_output_is_kept() {
        let output = GuestOutput::default();
        output.keep(&[b'a'; TAIL_BYTES_MAX]);
        output.keep(b"the end");
        let kept = output.take();
        assert_eq!(kept.len(), TAIL_BYTES_MAX);
        assert!(kept.ends_with("athe end"));
        assert_eq!(output.take(), "");
    }

    #[test]
    fn lines_beyond_the_budget_are_told_at_once_and_their_number_in_the_next_second() {
        use Admission::{Dropped, FirstDropped, Logged};
        let budget = LogBudget::default();
        let most = usize::try_from(LOG_BYTES_PER_SECOND_MAX).unwrap();
        assert_eq!(budget.admit_at(most, 0), Logged { dropped: 0 });
        assert_eq!([1, 1].map(|bytes| budget.admit_at(bytes, 0)), [FirstDropped, Dropped]);
        assert_eq!([1, most].map(|bytes| budget.admit_at(bytes, 1)), [Logged { dropped: 2 }, FirstDropped]);
        assert_eq!(budget.admit_at(most + 1, 2), Dropped, "nobody has told of the one before");
        assert_eq!(
            [1, 1].map(|bytes| budget.admit_at(bytes, 3)),
            [Logged { dropped: 2 }, Logged { dropped: 0 }]
        );
    }
}
