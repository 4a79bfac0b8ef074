//! Turns: those who want the same key go one after the other, in the order they came; others do not notice.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Mutex as Queue, OwnedMutexGuard},
    time::timeout_at,
};

/// Parts of the map, so that runtimes seldom wait for each other.
const SHARDS: usize = 16;

type Shard = Mutex<HashMap<Arc<str>, Arc<Queue<()>>>>;

/// All keys that somebody has or waits for. Its size is bounded by the requests in flight.
#[derive(Debug, Default)]
pub(super) struct KeyedTurns {
    shards: [Shard; SHARDS],
    hasher: RandomState,
}

/// The turn of one key, until dropped.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    // The order matters: the next one gets the turn before the entry is looked at.
    _guard: OwnedMutexGuard<()>,
    _claim: Claim<'a>,
}

/// Somebody has or waits for a key. The last one to go removes the entry.
#[derive(Debug)]
struct Claim<'a> {
    shard: &'a Shard,
    key: Arc<str>,
}

impl KeyedTurns {
    /// Waits for the turn of `key`; `None` when it did not come before the deadline.
    pub(super) async fn turn(&self, key: &str, deadline: Instant) -> Option<Turn<'_>> {
        let shard = &self.shards[self.hasher.hash_one(key) as usize % SHARDS];
        let key: Arc<str> = Arc::from(key);
        let queue = Arc::clone(shard.lock().entry(Arc::clone(&key)).or_default());
        let claim = Claim { shard, key };
        let guard = match Arc::clone(&queue).try_lock_owned() {
            Ok(guard) => guard,
            Err(_) => timeout_at(deadline.into(), queue.lock_owned()).await.ok()?,
        };
        Some(Turn { _guard: guard, _claim: claim })
    }

    #[cfg(test)]
    fn keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut shard = self.shard.lock();
        // Claims are made under this lock, so nobody can take the queue between the two lines.
        if shard.get(&self.key).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            shard.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::yield_now;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[tokio::test]
    async fn equal_keys_wait_and_other_keys_do_not() {
        let turns = KeyedTurns::default();
        let first = turns.turn("a", later()).await.unwrap();
        assert!(turns.turn("b", soon()).await.is_some());
        assert!(turns.turn("a", soon()).await.is_none());
        drop(first);
        assert!(turns.turn("a", soon()).await.is_some());
        assert_eq!(turns.keys(), 0, "nothing stays behind");
    }

    #[tokio::test]
    async fn turns_come_in_the_order_of_asking() {
        let turns = Arc::new(KeyedTurns::default());
        let order = Arc::new(Mutex::new(Vec::new()));
        let first = turns.turn("a", later()).await.unwrap();
        let mut tasks = Vec::new();
        for number in 0..5 {
            let (turns, order) = (Arc::clone(&turns), Arc::clone(&order));
            tasks.push(tokio::spawn(async move {
                let _turn = turns.turn("a", later()).await.unwrap();
                order.lock().push(number);
            }));
            yield_now().await;
        }
        drop(first);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock(), [0, 1, 2, 3, 4]);
        assert_eq!(turns.keys(), 0);
    }

    #[tokio::test]
    async fn those_who_leave_while_they_wait_leave_nothing_behind() {
        let turns = Arc::new(KeyedTurns::default());
        let first = turns.turn("a", later()).await.unwrap();
        let waiting = {
            let turns = Arc::clone(&turns);
            tokio::spawn(async move { turns.turn("a", later()).await.is_some() })
        };
        yield_now().await;
        drop(first); // grants the turn to a task that will never take it
        waiting.abort();
        assert!(waiting.await.is_err());
        assert_eq!(turns.keys(), 0);
    }
}
