//! What is counted per module: by all workers together, in words that they share.
//!
//! ```text
//! MODULES entries: state, name, counters of the host
//! then, for each:  SERIES series that the module itself measures: state, hash, kind and length, key, values
//! ```
//!
//! A worker adds to a word where it is, so that a sum over workers need not be made and nothing is lost when one ends.
//! A module has its own places and nobody else's: one that measures without end uses up those, and what is beyond is
//! refused. Places are given for the life of the board.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Board, MODEL_NAME_BYTES_MAX, WORD_MODULES, name_words};

/// Modules that are counted under their own name; further ones are not counted here.
const MODULES: usize = 64;
/// Series that one module may measure.
const SERIES: usize = 128;
/// Longest key of a series, bytes.
pub const SERIES_KEY_BYTES_MAX: usize = 240;
/// Upper bounds of a histogram's buckets, inclusive; one more bucket is open.
pub const SERIES_BOUNDS: [f64; 22] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0,
    500.0, 1000.0, 2500.0, 5000.0, 10_000.0,
];

const ENTRY_NAME: usize = 1;
/// Behind the name, as part of it.
const ENTRY_PART: usize = ENTRY_NAME + MODEL_NAME_BYTES_MAX / 8;
const ENTRY_COUNTERS: usize = 16;
const ENTRY_WORDS: usize = 32;
const SERIES_HASH: usize = 1;
const SERIES_SHAPE: usize = 2;
const SERIES_KEY: usize = 3;
const SERIES_SUM: usize = SERIES_KEY + SERIES_KEY_BYTES_MAX / 8;
const SERIES_BUCKETS: usize = SERIES_SUM + 1;
const SERIES_WORDS: usize = 64;
const WORD_SERIES: usize = MODULES * ENTRY_WORDS;
pub(super) const WORDS: usize = WORD_SERIES + MODULES * SERIES * SERIES_WORDS;

const _: () = assert!(SERIES_BUCKETS + SERIES_BOUNDS.len() < SERIES_WORDS);

/// What of a module is counted: the version in force, or one that is on trial beside it.
const IN_FORCE: u64 = 0;
const ON_TRIAL: u64 = 1;

/// A place is free, is being taken, is taken.
const FREE: u64 = 0;
const TAKING: u64 = 1;
const TAKEN: u64 = 2;
/// Looks at a place that is being taken, before it is passed over: its taker may have died.
const LOOKS_MAX: u32 = 10_000;

/// What the host counts about a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum ModuleCounter {
    /// Calls.
    Calls,
    /// Calls that were answered no.
    Refusals,
    /// Calls that ended an instance with a defect.
    Traps,
    /// Calls that took too long.
    Timeouts,
    /// Calls that found no instance or no thread in time, or were late when less was left than they may take.
    Busy,
    /// Microseconds spent in calls, waiting included.
    Microseconds,
    /// Measurements of the module that were not taken: a bad name or value, or one series too many.
    MeasurementsRefused,
    /// Events that its code has taken.
    EventsTaken,
    /// Calls about events that were followed by another one about the same event.
    EventsRepeated,
    /// Events that its code has not taken, and is not told of again.
    EventsGivenUp,
    /// Changes that the log had forgotten before it was known whether they were events for it.
    EventChangesMissed,
    /// No total: number of the last change up to which its events are delivered; 0 when it subscribes to none.
    EventPosition,
    /// Times that a worker has stopped calling its code, because it kept failing.
    Openings,
    /// Calls that were not made for that reason.
    Denials,
    /// No total: until when a worker does not call its code, milliseconds of the monotonic clock.
    OpenUntil,
    /// Calls that ended with a defect that the module tells of itself, or with an answer that nobody can use. Those of the
    /// first kind are among the refusals as well.
    Failures,
}

const _: () = assert!(ENTRY_COUNTERS + (ModuleCounter::Failures as usize) < ENTRY_WORDS);
const _: () = assert!(ENTRY_PART < ENTRY_COUNTERS);

/// How the values of a series come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum SeriesKind {
    /// They are added up.
    Counter = 1,
    /// They are counted by size, and added up.
    Histogram = 2,
}

/// One module on the board.
#[derive(Debug, Clone, Copy)]
pub struct ModuleEntry {
    board: Board,
    index: usize,
}

/// One series of a module.
#[derive(Debug, Clone, Copy)]
pub struct Series {
    words: &'static [AtomicU64],
}

impl Board {
    /// Where a module is counted; the same in every process. `None` when there are too many.
    #[must_use]
    pub fn module(&self, name: &str) -> Option<ModuleEntry> {
        self.entry(name, IN_FORCE)
    }

    /// Where the version of a module is counted that is on trial.
    #[must_use]
    pub fn module_on_trial(&self, name: &str) -> Option<ModuleEntry> {
        self.entry(name, ON_TRIAL)
    }

    fn entry(&self, name: &str, part: u64) -> Option<ModuleEntry> {
        let mut wanted = [part; 1 + ENTRY_PART - ENTRY_NAME];
        wanted[..ENTRY_PART - ENTRY_NAME].copy_from_slice(&name_words(name));
        (0..MODULES).map(|index| ModuleEntry { board: *self, index }).find(|entry| {
            let words = entry.words();
            claim(words, |words| write(&words[ENTRY_NAME..], &wanted))
                || matches(&words[ENTRY_NAME..], &wanted)
        })
    }

    /// The modules that are counted, in no promised order.
    pub fn modules(&self) -> impl Iterator<Item = ModuleEntry> + use<> {
        let board = *self;
        (0..MODULES)
            .map(move |index| ModuleEntry { board, index })
            .filter(|entry| entry.words()[0].load(Ordering::Acquire) == TAKEN)
    }
}

impl ModuleEntry {
    /// Its name; cut when it is longer than [`super::MODEL_NAME_BYTES_MAX`].
    #[must_use]
    pub fn name(&self) -> String {
        let bytes: Vec<u8> = self.words()[ENTRY_NAME..ENTRY_PART]
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
            .take_while(|byte| *byte != 0)
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether it is the version on trial that is counted here.
    #[must_use]
    pub fn is_on_trial(&self) -> bool {
        self.words()[ENTRY_PART].load(Ordering::Relaxed) == ON_TRIAL
    }

    /// A total of the host about it.
    #[must_use]
    pub fn counter(&self, counter: ModuleCounter) -> &'static AtomicU64 {
        &self.words()[ENTRY_COUNTERS + counter as usize]
    }

    /// Whether a worker does not call its code at this time of the monotonic clock, because it keeps failing.
    #[must_use]
    pub fn is_open(&self, now_ms: u64) -> bool {
        self.counter(ModuleCounter::OpenUntil).load(Ordering::Relaxed) > now_ms
    }

    /// The series with this key; `None` when the key is too long or the module has too many.
    #[must_use]
    pub fn series(&self, kind: SeriesKind, key: &[u8]) -> Option<Series> {
        if key.is_empty() || key.len() > SERIES_KEY_BYTES_MAX {
            return None;
        }
        let hash = hash_of(kind, key);
        let shape = (key.len() as u64) << 8 | kind as u64;
        let mut wanted = [0; SERIES_KEY_BYTES_MAX / 8];
        for (word, chunk) in wanted.iter_mut().zip(key.chunks(8)) {
            let mut eight = [0; 8];
            eight[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_le_bytes(eight);
        }
        let first = (hash % SERIES as u64) as usize;
        (0..SERIES).map(|step| self.series_words((first + step) % SERIES)).find_map(|words| {
            let is_it = claim(words, |words| {
                write(&words[SERIES_HASH..], &[hash, shape]);
                write(&words[SERIES_KEY..], &wanted);
            }) || (matches(&words[SERIES_HASH..], &[hash, shape])
                && matches(&words[SERIES_KEY..], &wanted));
            is_it.then_some(Series { words })
        })
    }

    /// The series that it measures, in no promised order.
    pub fn all_series(&self) -> impl Iterator<Item = Series> + use<> {
        let entry = *self;
        (0..SERIES)
            .map(move |index| entry.series_words(index))
            .filter(|words| words[0].load(Ordering::Acquire) == TAKEN)
            .map(|words| Series { words })
    }

    fn words(&self) -> &'static [AtomicU64] {
        let start = WORD_MODULES + self.index * ENTRY_WORDS;
        &self.board.words[start..start + ENTRY_WORDS]
    }

    fn series_words(&self, index: usize) -> &'static [AtomicU64] {
        let start = WORD_MODULES + WORD_SERIES + (self.index * SERIES + index) * SERIES_WORDS;
        &self.board.words[start..start + SERIES_WORDS]
    }
}

impl Series {
    /// How its values come together.
    #[must_use]
    pub fn kind(&self) -> SeriesKind {
        match self.words[SERIES_SHAPE].load(Ordering::Relaxed) as u8 {
            2 => SeriesKind::Histogram,
            _ => SeriesKind::Counter,
        }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> Vec<u8> {
        let length = (self.words[SERIES_SHAPE].load(Ordering::Relaxed) >> 8) as usize;
        let words = self.words[SERIES_KEY..SERIES_SUM].iter();
        words.flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).take(length).collect()
    }

    /// Takes a value, a number that is one.
    pub fn take(&self, value: f64) {
        if self.kind() == SeriesKind::Histogram {
            let bucket = SERIES_BOUNDS.iter().position(|bound| value <= *bound);
            let bucket = bucket.unwrap_or(SERIES_BOUNDS.len());
            self.words[SERIES_BUCKETS + bucket].fetch_add(1, Ordering::Relaxed);
        }
        let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
        let _ = self.words[SERIES_SUM].fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Sum of the values taken.
    #[must_use]
    pub fn sum(&self) -> f64 {
        f64::from_bits(self.words[SERIES_SUM].load(Ordering::Relaxed))
    }

    /// Values that a histogram took, by bucket: those of [`SERIES_BOUNDS`] and the open one.
    #[must_use]
    pub fn buckets(&self) -> Vec<u64> {
        let words = &self.words[SERIES_BUCKETS..=SERIES_BUCKETS + SERIES_BOUNDS.len()];
        words.iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }
}

/// Takes a place if it is free. Waits for one that is being taken, so that its key can be compared.
fn claim(words: &'static [AtomicU64], fill: impl FnOnce(&'static [AtomicU64])) -> bool {
    // Most are taken: to read that leaves the line with all processors, to try to change it does not.
    if words[0].load(Ordering::Acquire) == TAKEN {
        return false;
    }
    match words[0].compare_exchange(FREE, TAKING, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            fill(words);
            words[0].store(TAKEN, Ordering::Release);
            true
        }
        Err(TAKING) => {
            let mut looks = 0;
            while words[0].load(Ordering::Acquire) == TAKING && looks < LOOKS_MAX {
                looks += 1;
                std::hint::spin_loop();
            }
            false
        }
        Err(_) => false,
    }
}

fn write(words: &[AtomicU64], values: &[u64]) {
    for (word, value) in words.iter().zip(values) {
        word.store(*value, Ordering::Relaxed);
    }
}

fn matches(words: &[AtomicU64], values: &[u64]) -> bool {
    words.iter().zip(values).all(|(word, value)| word.load(Ordering::Relaxed) == *value)
}

/// FNV-1a. Processes of different versions share a board, so it is none of the standard library, which may change.
fn hash_of(kind: SeriesKind, key: &[u8]) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    key.iter().fold(step(0xcbf2_9ce4_8422_2325, kind as u8), |hash, byte| step(hash, *byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_processes_count_about_a_module_comes_together() {
        let (board, memory) = Board::create().unwrap();
        let other = Board::open(&memory).unwrap();
        let (order, again) = (board.module("order").unwrap(), other.module("order").unwrap());
        let _ = board.module("todo").unwrap();
        order.counter(ModuleCounter::Calls).fetch_add(2, Ordering::Relaxed);
        again.counter(ModuleCounter::Calls).fetch_add(3, Ordering::Relaxed);
        assert_eq!(order.counter(ModuleCounter::Calls).load(Ordering::Relaxed), 5);
        for entry in [order, again] {
            entry.series(SeriesKind::Counter, b"placed").unwrap().take(1.5);
            entry.series(SeriesKind::Histogram, b"placed").unwrap().take(0.5);
        }
        let mut names: Vec<String> = other.modules().map(|entry| entry.name()).collect();
        names.sort();
        assert_eq!(names, ["order", "todo"]);
        let mut series: Vec<_> = order.all_series().map(|one| (one.kind(), one.key(), one.sum())).collect();
        series.sort_by_key(|(kind, ..)| *kind);
        let key = || b"placed".to_vec();
        assert_eq!(series, [(SeriesKind::Counter, key(), 3.0), (SeriesKind::Histogram, key(), 1.0)]);
    }

    #[test]
    fn what_is_on_trial_is_counted_beside_what_is_in_force() {
        let (board, memory) = Board::create().unwrap();
        let other = Board::open(&memory).unwrap();
        let long = "x".repeat(2 * MODEL_NAME_BYTES_MAX);
        for name in ["order", &long] {
            board
                .module_on_trial(name)
                .unwrap()
                .counter(ModuleCounter::Calls)
                .fetch_add(2, Ordering::Relaxed);
            board.module(name).unwrap().counter(ModuleCounter::Calls).fetch_add(3, Ordering::Relaxed);
            let calls = |entry: ModuleEntry| entry.counter(ModuleCounter::Calls).load(Ordering::Relaxed);
            assert_eq!(calls(other.module_on_trial(name).unwrap()), 2);
            assert_eq!(calls(other.module(name).unwrap()), 3);
        }
        let shown: Vec<_> = other.modules().map(|entry| (entry.name().len(), entry.is_on_trial())).collect();
        assert_eq!(shown, [(5, true), (5, false), (64, true), (64, false)]);
    }

    #[test]
    fn a_value_is_in_the_first_bucket_that_holds_it() {
        let (board, _memory) = Board::create().unwrap();
        let series = board.module("order").unwrap().series(SeriesKind::Histogram, b"size").unwrap();
        for value in [-1.0, 0.001, 0.0011, 10_000.0, 10_001.0] {
            series.take(value);
        }
        let counted: Vec<(usize, u64)> =
            series.buckets().into_iter().enumerate().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(0, 2), (1, 1), (21, 1), (22, 1)]);
    }

    #[test]
    fn a_module_that_measures_without_end_uses_up_its_own_places_only() {
        let (board, _memory) = Board::create().unwrap();
        let (bomb, calm) = (board.module("bomb").unwrap(), board.module("calm").unwrap());
        let taken = (0..10_000_u32)
            .filter(|number| bomb.series(SeriesKind::Counter, &number.to_le_bytes()).is_some())
            .count();
        assert_eq!(taken, SERIES);
        assert!(bomb.series(SeriesKind::Counter, &7_u32.to_le_bytes()).is_some(), "what it has stays");
        assert!(calm.series(SeriesKind::Counter, b"fine").is_some());
        assert!(calm.series(SeriesKind::Counter, &[b'x'; SERIES_KEY_BYTES_MAX + 1]).is_none());
    }

    #[test]
    fn modules_beyond_the_table_are_not_counted_under_another_name() {
        let (board, _memory) = Board::create().unwrap();
        let found = (0..MODULES + 5).filter(|number| board.module(&format!("m{number}")).is_some()).count();
        assert_eq!((found, board.modules().count()), (MODULES, MODULES));
    }
}
