//! Both engines of a store behind one log: what is on disk and what is only in memory share the sequence numbers.
//!
//! ```text
//! number      1   2   3   4   5   6   7
//! disk        ■       ■   ■           ■        reading the log merges the two rows;
//! memory          ■           ■   ■            a missing number belongs to no change that is kept
//! ```

use std::{
    io::Write,
    sync::atomic::{AtomicU64, Ordering},
};

use aegis_ipc::{
    IpcError,
    data::{Change, Stored, Version},
};
use bytes::Bytes;

use crate::{
    engine::{
        Batch, Engine, EngineResult, KeptResponse, LogBudget, LogPage, Snapshot,
        memory::{MemoryEngine, change_bytes},
    },
    error::EngineError,
    requests::RecentRequests,
};

/// Attempts to open a snapshot between two groups. A group that is being synced does not disturb; only one that ends
/// in the few microseconds between the steps does.
const SNAPSHOT_ATTEMPTS_MAX: u32 = 10_000;

/// Where the documents of a model are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Place {
    /// On disk.
    File,
    /// In memory.
    Memory,
}

/// Both engines.
pub(crate) struct Storage {
    file: Box<dyn Engine>,
    memory: MemoryEngine,
    /// Everything up to this number is in the engines and durable.
    committed: AtomicU64,
}

/// Part of the log, or the news that it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogRead {
    /// What there is.
    Page(LogPage),
    /// Some of what was asked for is no longer kept.
    Gone,
}

/// All documents of both engines as the log up to `at` left them.
pub(crate) struct Copy {
    /// Number of the last change that shows.
    pub(crate) at: u64,
    file: Box<dyn Snapshot>,
    memory: Box<dyn Snapshot>,
}

impl Storage {
    /// Takes over the engines. Changes up to `committed` count as done.
    pub(crate) fn new(file: Box<dyn Engine>, memory: MemoryEngine, committed: u64) -> Self {
        Self { file, memory, committed: AtomicU64::new(committed) }
    }

    /// The engine of a place.
    pub(crate) fn engine(&self, place: Place) -> &dyn Engine {
        match place {
            Place::File => &*self.file,
            Place::Memory => &self.memory,
        }
    }

    /// Number of the last change that is done.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Writes a group that ends with number `last`: first to disk, which may fail, then to memory, which cannot.
    pub(crate) fn apply(&self, file: &Batch<'_>, memory: &Batch<'_>, last: u64) -> EngineResult<()> {
        self.file.apply(file)?;
        self.memory.apply(memory)?;
        self.committed.fetch_max(last, Ordering::AcqRel);
        Ok(())
    }

    /// Writes down what is only in memory, and which of `requests` it came from. Nobody may commit anything meanwhile.
    pub(crate) fn keep(&self, requests: &RecentRequests, output: &mut dyn Write) -> Result<(), IpcError> {
        self.memory.keep(self.committed(), requests.in_memory(), output)
    }

    /// Leaves what is in memory to the end of the process, after which nobody may ask for anything any more.
    pub(crate) fn leave_memory(&self) {
        self.memory.leave();
    }

    /// Oldest number from which on the log is complete.
    pub(crate) fn log_oldest(&self) -> u64 {
        self.file.log_oldest().max(self.memory.log_oldest())
    }

    /// Can everything after `after` be read from the log?
    pub(crate) fn can_replay(&self, after: u64) -> bool {
        after <= self.committed() && self.log_oldest() <= after.saturating_add(1)
    }

    /// Changes after `after` up to `up_to`, which has to be committed, as many as the budget allows.
    pub(crate) fn log(&self, after: u64, up_to: u64, budget: LogBudget) -> EngineResult<LogRead> {
        let file = self.file.log(after, up_to, budget)?;
        let memory = self.memory.log(after, up_to, budget)?;
        // Rows are removed only after the oldest number has been raised, so this check covers what was just read.
        if self.log_oldest() > after.saturating_add(1) {
            return Ok(LogRead::Gone);
        }
        Ok(LogRead::Page(merged(file, memory, budget)))
    }

    /// Changes after `after` as [`log`](Self::log) reads them, also where changes of models in memory are missing among
    /// them; with the oldest number from which on all of those are there.
    pub(crate) fn log_of_subscriber(
        &self,
        after: u64,
        up_to: u64,
        budget: LogBudget,
    ) -> EngineResult<(LogRead, u64)> {
        let file = self.file.log(after, up_to, budget)?;
        let memory = self.memory.log(after, up_to, budget)?;
        let memory_oldest = self.memory.log_oldest();
        if self.file.log_oldest() > after.saturating_add(1) {
            return Ok((LogRead::Gone, memory_oldest));
        }
        Ok((LogRead::Page(merged(file, memory, budget)), memory_oldest))
    }

    /// The body of a document as the change with that number wrote it, if it is still kept anywhere.
    pub(crate) fn version(&self, version: &Version) -> EngineResult<Option<Bytes>> {
        match self.memory.version(version)? {
            Some(body) => Ok(Some(body)),
            None => self.file.version(version),
        }
    }

    /// The response kept under an idempotency key, if it is not older than `oldest_ms`.
    pub(crate) fn response(&self, key: &str, oldest_ms: u64) -> EngineResult<Option<KeptResponse>> {
        let is_young = |kept: &KeptResponse| kept.time_ms >= oldest_ms;
        // One that is too old must not hide the one that came after it in the other engine.
        match self.memory.response(key)?.filter(is_young) {
            Some(kept) => Ok(Some(kept)),
            None => Ok(self.file.response(key)?.filter(is_young)),
        }
    }

    /// Opens a view of everything between two groups. May be called from any thread.
    ///
    /// Everything up to `committed` was in the engines before they were asked. If neither shows a later change, the
    /// view is exactly at `committed`. A group on its way to the disk is in no engine yet.
    pub(crate) fn copy(&self) -> EngineResult<Copy> {
        for _ in 0..SNAPSHOT_ATTEMPTS_MAX {
            let at = self.committed();
            let file = self.file.snapshot()?;
            let memory = self.memory.snapshot()?;
            if file.last() <= at && memory.last() <= at {
                return Ok(Copy { at, file, memory });
            }
            std::thread::yield_now();
        }
        let source = std::io::Error::from(std::io::ErrorKind::TimedOut);
        Err(EngineError::io("opening a view between two group commits", source))
    }
}

impl Copy {
    /// The documents of a model.
    pub(crate) fn documents<'a>(
        &'a self,
        place: Place,
        model: &str,
    ) -> Box<dyn Iterator<Item = EngineResult<Stored>> + 'a> {
        match place {
            Place::File => self.file.documents(model),
            Place::Memory => self.memory.documents(model),
        }
    }
}

/// One page of two, as far as both are known and the budget allows: each of them may have used it up, and exceeded it
/// with its last change, and together they have to fit into one frame. A change that exceeds the budget comes alone; it
/// is at most as large as a write, for which a frame has room.
fn merged(file: LogPage, memory: LogPage, budget: LogBudget) -> LogPage {
    let mut page = LogPage { changes: Vec::new(), reached: file.reached.min(memory.reached) };
    let mut bytes = 0;
    for change in merge(file.changes, memory.changes) {
        if change.sequence > page.reached {
            break;
        }
        bytes += change_bytes(&change);
        if let Some(last) = page.changes.last()
            && (page.changes.len() >= budget.changes_max || bytes > budget.bytes_max)
        {
            page.reached = last.sequence;
            break;
        }
        page.changes.push(change);
    }
    page
}

/// Merges two sorted runs of changes.
fn merge(left: Vec<Change>, right: Vec<Change>) -> impl Iterator<Item = Change> {
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    std::iter::from_fn(move || match (left.peek(), right.peek()) {
        (Some(a), Some(b)) if a.sequence <= b.sequence => left.next(),
        (_, Some(_)) => right.next(),
        (_, None) => left.next(),
    })
}

#[cfg(test)]
mod tests {
    use aegis_ipc::data::ChangeKind;
    use proptest::prelude::*;

    use super::*;
    use crate::engine::Forget;

    fn change(sequence: u64) -> Change {
        let kind = ChangeKind::Put {
            id: sequence.to_string(),
            revision: 1,
            body: Bytes::from_static(b"{}"),
            changes: None,
        };
        Change { sequence, model: "M".into(), kind, time_ms: 0 }
    }

    fn fill(places: &[Option<Place>]) -> Storage {
        let storage = Storage::new(Box::new(MemoryEngine::new()), MemoryEngine::new(), 0);
        for (number, place) in (1..).zip(places) {
            let change = change(number);
            let batch = Batch { changes: vec![&change], ..Batch::default() };
            match place {
                Some(Place::File) => storage.apply(&batch, &Batch::default(), number).unwrap(),
                Some(Place::Memory) => storage.apply(&Batch::default(), &batch, number).unwrap(),
                None => storage.apply(&Batch::default(), &Batch::default(), number).unwrap(),
            }
        }
        storage
    }

    proptest! {
        #[test]
        fn the_merged_log_is_every_change_once_in_order(
            places in prop::collection::vec(
                prop::option::weighted(0.8, prop_oneof![Just(Place::File), Just(Place::Memory)]),
                1..40,
            ),
            after in 0_u64..40,
            changes_max in 1_usize..5,
        ) {
            let storage = fill(&places);
            let (mut reached, mut found) = (after, Vec::new());
            while reached < storage.committed() {
                let budget = LogBudget { changes_max, bytes_max: usize::MAX };
                let LogRead::Page(page) = storage.log(reached, storage.committed(), budget).unwrap() else {
                    panic!("nothing was removed")
                };
                prop_assert!(page.reached > reached);
                reached = page.reached;
                found.extend(page.changes.into_iter().map(|change| change.sequence));
            }
            let expected: Vec<u64> =
                (1..).zip(&places).filter(|(number, place)| place.is_some() && *number > after).map(|(number, _)| number).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_page_of_both_engines_keeps_to_the_budget_and_a_change_that_exceeds_it_comes_alone() {
        let storage = Storage::new(Box::new(MemoryEngine::new()), MemoryEngine::new(), 0);
        let lengths = [600, 600, 600, 600, 5000, 5000, 600, 600];
        for (number, length) in (1_u64..).zip(lengths) {
            let body = Bytes::from(vec![b'x'; length]);
            let kind = ChangeKind::Put { id: number.to_string(), revision: 1, body, changes: None };
            let change = Change { kind, ..change(number) };
            let (here, nothing) = (Batch { changes: vec![&change], ..Batch::default() }, Batch::default());
            let (file, memory) = if number % 2 == 0 { (&here, &nothing) } else { (&nothing, &here) };
            storage.apply(file, memory, number).unwrap();
        }
        let budget = LogBudget { changes_max: 10, bytes_max: 2000 };
        let mut pages = Vec::new();
        let mut reached = 0;
        while reached < storage.committed() {
            let LogRead::Page(page) = storage.log(reached, storage.committed(), budget).unwrap() else {
                panic!("nothing was removed")
            };
            let (of_subscriber, _) = storage.log_of_subscriber(reached, storage.committed(), budget).unwrap();
            assert_eq!(of_subscriber, LogRead::Page(page.clone()));
            reached = page.reached;
            pages.push(page.changes.iter().map(|change| change.sequence).collect::<Vec<_>>());
        }
        assert_eq!(pages, [vec![1, 2], vec![3, 4], vec![5], vec![6], vec![7, 8]]);
    }

    #[test]
    fn a_response_that_has_expired_in_memory_does_not_hide_the_one_on_disk() {
        let storage = fill(&[]);
        let keep = |place: Place, time_ms: u64| {
            let kept = KeptResponse {
                key: "k".into(),
                fingerprint: Bytes::new(),
                response: Bytes::new(),
                sequence: time_ms,
                time_ms,
            };
            storage.engine(place).apply(&Batch { responses: vec![kept], ..Batch::default() }).unwrap();
        };
        let found = |oldest_ms| storage.response("k", oldest_ms).unwrap().map(|kept| kept.time_ms);
        keep(Place::Memory, 1000);
        assert_eq!((found(1000), found(1001)), (Some(1000), None));
        keep(Place::File, 2000);
        assert_eq!((found(1001), found(2000), found(2001)), (Some(2000), Some(2000), None));
        keep(Place::Memory, 3000);
        assert_eq!((found(2001), found(3001)), (Some(3000), None));
    }

    #[test]
    fn what_was_removed_is_gone_and_not_just_missing() {
        let storage = fill(&[Some(Place::File), Some(Place::Memory), Some(Place::File)]);
        let forget = Forget { log_before: Some(2), log: vec![1], ..Forget::default() };
        storage.apply(&Batch { forget, ..Batch::default() }, &Batch::default(), 0).unwrap();
        let budget = LogBudget { changes_max: 10, bytes_max: 1000 };
        assert_eq!(storage.log(0, 3, budget).unwrap(), LogRead::Gone);
        assert!(matches!(storage.log(1, 3, budget).unwrap(), LogRead::Page(_)));
        assert!(
            !storage.can_replay(0)
                && storage.can_replay(1)
                && storage.can_replay(3)
                && !storage.can_replay(4)
        );
    }

    #[test]
    fn what_memory_has_forgotten_is_missing_for_workers_and_told_to_subscribers() {
        let storage = fill(&[Some(Place::Memory), Some(Place::File), Some(Place::Memory), Some(Place::File)]);
        let forget = Forget { log_before: Some(3), log: vec![1], ..Forget::default() };
        storage.apply(&Batch::default(), &Batch { forget, ..Batch::default() }, 0).unwrap();
        let budget = LogBudget { changes_max: 10, bytes_max: 1000 };
        assert_eq!(storage.log(0, 4, budget).unwrap(), LogRead::Gone);
        let (read, memory_oldest) = storage.log_of_subscriber(0, 4, budget).unwrap();
        let LogRead::Page(page) = read else { panic!("what is on disk is there") };
        let numbers: Vec<u64> = page.changes.iter().map(|change| change.sequence).collect();
        assert_eq!((numbers, memory_oldest), (vec![2, 3, 4], 3));
        let forget = Forget { log_before: Some(3), log: vec![2], ..Forget::default() };
        storage.apply(&Batch { forget, ..Batch::default() }, &Batch::default(), 0).unwrap();
        assert_eq!(storage.log_of_subscriber(0, 4, budget).unwrap(), (LogRead::Gone, 3));
    }

    #[test]
    fn a_view_is_never_half_a_group() {
        let storage = fill(&[]);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for number in (1..4_000).step_by(2) {
                    let (disk, memory) = (change(number), change(number + 1));
                    let file = Batch { changes: vec![&disk], ..Batch::default() };
                    let volatile = Batch { changes: vec![&memory], ..Batch::default() };
                    storage.apply(&file, &volatile, number + 1).unwrap();
                }
            });
            while !writer.is_finished() {
                let copy = storage.copy().unwrap();
                let last = |place| copy.documents(place, "M").map(|stored| stored.unwrap().sequence).max();
                let (file, memory) = (last(Place::File), last(Place::Memory));
                assert_eq!(file.map(|number| number + 1), memory);
                assert_eq!(memory.unwrap_or(0), copy.at);
            }
        });
    }
}
