//! What becomes of a panic: the end of one request, never of its connection or its worker.
//!
//! Uncaught, it would end the task of its connection, and with it all other requests on that. The runtime would catch
//! it there, so what a request shares with others outlives its panics either way: catching them earlier makes nothing
//! less safe to unwind.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::Poll,
};

/// A panic that was caught. Where it happened was written to standard error when it did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Defect {
    /// What the panic said. It is for the log: a client is told nothing about the inside of the host.
    pub(crate) words: String,
}

impl Defect {
    fn new(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let words = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        Self { words: words.to_owned() }
    }
}

/// The result of `run`, or the panic that ended it.
pub(crate) fn catch<T>(run: impl FnOnce() -> T) -> Result<T, Defect> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| Defect::new(&*panic))
}

/// The output of `future`, or the panic that ended it. The caller pins it: what an `async fn` is given by value, it has
/// room for twice, and each request is made room for.
pub(crate) async fn caught<F: Future>(mut future: Pin<&mut F>) -> Result<F::Output, Defect> {
    poll_fn(|cx| match catch(|| future.as_mut().poll(cx)) {
        Ok(poll) => poll.map(Ok),
        Err(defect) => Poll::Ready(Err(defect)),
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn words<T: std::fmt::Debug>(outcome: Result<T, Defect>) -> String {
        outcome.unwrap_err().words
    }

    #[test]
    fn a_panic_keeps_its_words() {
        assert_eq!(catch(|| 7), Ok(7));
        assert_eq!(words(catch(|| -> u8 { panic!("plain") })), "plain");
        assert_eq!(words(catch(|| -> u8 { panic!("number {}", 7) })), "number 7");
        assert_eq!(words(catch(|| -> u8 { std::panic::panic_any(7) })), "no reason given");
    }

    async fn broken_after(waits: u8) -> u8 {
        for _ in 0..waits {
            tokio::task::yield_now().await;
        }
        panic!("after {waits}")
    }

    #[tokio::test]
    async fn a_panic_before_or_after_a_wait_is_caught() {
        assert_eq!(caught(pin!(tokio::task::yield_now())).await, Ok(()));
        assert_eq!(words(caught(pin!(broken_after(0))).await), "after 0");
        assert_eq!(words(caught(pin!(broken_after(2))).await), "after 2");
    }
}
