//! What waits for one client, bounded in number and bytes.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Most frames that wait for one client.
const QUEUE_FRAMES_MAX: usize = 1024;
/// Most bytes that wait for one client. A larger frame may wait alone.
const QUEUE_BYTES_MAX: u32 = 1024 * 1024;

/// The client does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slow;

#[derive(Debug)]
struct Waiting {
    bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// Where the follower puts frames.
#[derive(Debug)]
pub(super) struct Sender {
    frames: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
}

/// Where the body takes them.
#[derive(Debug)]
pub(super) struct Receiver {
    frames: mpsc::Receiver<Waiting>,
}

pub(super) fn queue() -> (Sender, Receiver) {
    let (frames, receiver) = mpsc::channel(QUEUE_FRAMES_MAX);
    let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX as usize));
    (Sender { frames, room }, Receiver { frames: receiver })
}

impl Sender {
    /// Puts a frame in if there is room for it.
    pub(super) fn push(&self, bytes: Bytes) -> Result<(), Slow> {
        let room = Arc::clone(&self.room).try_acquire_many_owned(weight(&bytes)).map_err(|_| Slow)?;
        self.frames.try_send(Waiting { bytes, _room: room }).map_err(|_| Slow)
    }

    /// Puts a frame in as soon as there is room for it.
    pub(super) async fn push_within(&self, bytes: Bytes, patience: Duration) -> Result<(), Slow> {
        let push = async {
            let room = Arc::clone(&self.room).acquire_many_owned(weight(&bytes)).await.map_err(|_| Slow)?;
            self.frames.send(Waiting { bytes, _room: room }).await.map_err(|_| Slow)
        };
        tokio::time::timeout(patience, push).await.unwrap_or(Err(Slow))
    }
}

impl Receiver {
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.frames.poll_recv(cx).map(|waiting| waiting.map(|waiting| waiting.bytes))
    }
}

fn weight(bytes: &Bytes) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).min(QUEUE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn a_client_that_does_not_read_is_noticed_by_bytes_and_by_number() {
        let (sender, mut receiver) = queue();
        let half = Bytes::from(vec![b'x'; QUEUE_BYTES_MAX as usize / 2]);
        assert_eq!(sender.push(half.clone()), Ok(()));
        assert_eq!(sender.push(half.clone()), Ok(()));
        assert_eq!(sender.push(Bytes::from_static(b"x")), Err(Slow));
        assert_eq!(poll_fn(|cx| receiver.poll_next(cx)).await, Some(half));
        assert_eq!(sender.push(Bytes::from_static(b"x")), Ok(()));

        let (sender, _receiver) = queue();
        let pushed = (0..).take_while(|_| sender.push(Bytes::from_static(b"x")).is_ok()).count();
        assert_eq!(pushed, QUEUE_FRAMES_MAX);
        assert_eq!(sender.push_within(Bytes::from_static(b"x"), Duration::from_millis(1)).await, Err(Slow));
    }

    #[tokio::test]
    async fn a_frame_beyond_the_bound_may_wait_alone() {
        let (sender, mut receiver) = queue();
        let large = Bytes::from(vec![b'x'; QUEUE_BYTES_MAX as usize + 1]);
        assert_eq!(sender.push(large.clone()), Ok(()));
        assert_eq!(sender.push(Bytes::from_static(b"x")), Err(Slow));
        assert_eq!(poll_fn(|cx| receiver.poll_next(cx)).await, Some(large));
    }
}
