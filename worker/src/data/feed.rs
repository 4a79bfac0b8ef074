//! Applied changes, for those who want to hear of them: event streams.

use std::sync::Arc;

use aegis_ipc::data::Change;
use tokio::sync::broadcast::{self, error::RecvError};

/// Steps a subscriber may be behind before it has to read the log. A step is what became visible at once.
const STEPS_BEHIND_MAX: usize = 128;

/// What a subscriber hears.
#[derive(Debug, Clone)]
pub enum Applied {
    /// These changes are visible from now on, in log order.
    Changes(Arc<[Change]>),
    /// Changes became visible that are not told one by one, because the subscriber was too slow or the worker was
    /// sent a complete copy. They are in the log ([`super::Data::changes`]).
    Skipped,
}

/// Hears of every change that becomes visible after it was made.
#[derive(Debug)]
pub struct Subscription {
    receiver: broadcast::Receiver<Applied>,
    applied: u64,
}

impl Subscription {
    /// The worker showed the log up to here when the subscription was made: what follows is told.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// The next step; when the worker's copy is gone for good there is none, and this waits for ever.
    ///
    /// After [`Applied::Skipped`] the next step may tell of changes that the log has told as well.
    pub async fn next(&mut self) -> Applied {
        match self.receiver.recv().await {
            Ok(applied) => applied,
            Err(RecvError::Lagged(_)) => Applied::Skipped,
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The speaking end.
#[derive(Debug)]
pub(super) struct Feed {
    sender: broadcast::Sender<Applied>,
}

impl Feed {
    pub(super) fn new() -> Self {
        Self { sender: broadcast::Sender::new(STEPS_BEHIND_MAX) }
    }

    /// The caller holds the lock under which `applied` changes, so that nothing falls between the two.
    pub(super) fn subscribe(&self, applied: u64) -> Subscription {
        Subscription { receiver: self.sender.subscribe(), applied }
    }

    /// Open subscriptions.
    pub(super) fn subscribers(&self) -> usize {
        self.sender.receiver_count()
    }

    /// Tells all subscribers; without any this does nothing.
    pub(super) fn tell(&self, applied: impl FnOnce() -> Applied) {
        if self.sender.receiver_count() > 0 {
            // Fails when the last one left in between: nobody misses it.
            let _ = self.sender.send(applied());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_subscriber_is_told_that_it_missed_something_and_then_goes_on() {
        let feed = Feed::new();
        let mut subscription = feed.subscribe(7);
        assert_eq!((subscription.applied(), feed.subscribers()), (7, 1));
        for _ in 0..=STEPS_BEHIND_MAX {
            feed.tell(|| Applied::Changes(Arc::from([])));
        }
        assert!(matches!(subscription.next().await, Applied::Skipped));
        for _ in 0..STEPS_BEHIND_MAX {
            assert!(matches!(subscription.next().await, Applied::Changes(_)));
        }
    }
}
