//! What waits for one client, bounded in number and bytes.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
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

/// The end where frames are taken.
#[derive(Debug)]
struct Outlet {
    frames: mpsc::Receiver<Waiting>,
    /// Lengths of the last two that were taken: one is being sent, and one is taken before there is room for it.
    sent_bytes: [u64; 2],
}

/// Where the follower puts frames.
#[derive(Debug)]
pub(super) struct Sender {
    frames: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    outlet: Arc<Mutex<Outlet>>,
}

/// Where the body takes them.
#[derive(Debug)]
pub(super) struct Receiver {
    outlet: Arc<Mutex<Outlet>>,
}

pub(super) fn queue() -> (Sender, Receiver) {
    let (frames, receiver) = mpsc::channel(QUEUE_FRAMES_MAX);
    let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX as usize));
    let outlet = Arc::new(Mutex::new(Outlet { frames: receiver, sent_bytes: [0; 2] }));
    (Sender { frames, room, outlet: Arc::clone(&outlet) }, Receiver { outlet })
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

    /// Throws away what waits, and takes nothing more.
    pub(super) fn clear(&self) {
        let frames = &mut self.outlet.lock().frames;
        frames.close();
        while frames.try_recv().is_ok() {}
    }

    /// Bytes that the client may have left untaken: what waits, and what is being sent to it.
    pub(super) fn untaken_bytes(&self) -> u64 {
        let waiting = (QUEUE_BYTES_MAX as usize).saturating_sub(self.room.available_permits());
        self.outlet.lock().sent_bytes.iter().sum::<u64>() + waiting as u64
    }
}

impl Receiver {
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut outlet = self.outlet.lock();
        let next = outlet.frames.poll_recv(cx).map(|waiting| waiting.map(|waiting| waiting.bytes));
        if let Poll::Ready(Some(bytes)) = &next {
            outlet.sent_bytes = [outlet.sent_bytes[1], bytes.len() as u64];
        }
        next
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
    async fn what_is_thrown_away_leaves_what_is_being_sent() {
        let (sender, mut receiver) = queue();
        for length in [1, 20, 300, 4_000] {
            assert_eq!(sender.push(Bytes::from(vec![b'x'; length])), Ok(()));
        }
        for _ in 0..3 {
            assert!(poll_fn(|cx| receiver.poll_next(cx)).await.is_some());
        }
        assert_eq!(sender.untaken_bytes(), 4_320);
        sender.clear();
        assert_eq!(sender.untaken_bytes(), 320);
        assert_eq!(sender.push(Bytes::from_static(b"x")), Err(Slow));
        assert_eq!(poll_fn(|cx| receiver.poll_next(cx)).await, None);
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
