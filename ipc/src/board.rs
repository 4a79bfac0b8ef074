//! The board: words in shared memory that every process of a host reads without a system call.
//!
//! ```text
//! word 0..8      header: magic, layout version, generation in force
//! word 8         durable sequence number (alone on its cache line)
//! word 16        epoch of the store, its pid, heartbeat, queue depth …
//! word 64..      names of models, so that counters of one model share an index in all processes
//! then           CELLS cells: gauges, counters, a latency histogram, counters per model
//! then           what is counted per module, in words that all workers share
//! ```
//!
//! Every word is an `AtomicU64`. A cell has one writing process at a time. Its gauges are set to zero by the
//! supervisor when that process is gone; its counters never are: the next process in the cell counts on, so sums
//! over all cells never go down.

mod modules;

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::MemfdFlags,
    mm::{MapFlags, ProtFlags},
};

pub use self::modules::{
    ModuleCounter, ModuleEntry, SERIES_BOUNDS, SERIES_KEY_BYTES_MAX, Series, SeriesKind,
};
use crate::IpcError;

const MAGIC: u64 = u64::from_le_bytes(*b"aegisbrd");
const LAYOUT_VERSION: u64 = 2;

const WORD_MAGIC: usize = 0;
const WORD_LAYOUT: usize = 1;
const WORD_IN_FORCE: usize = 2;
const WORD_DURABLE: usize = 8;
const WORD_STORE: usize = 16;
const WORD_NAMES: usize = 64;

/// Cells of the board: worker processes alive at once, draining ones included.
pub const CELLS: usize = 256;
/// Models that are counted under their own name; further ones share the last index.
pub const MODEL_NAMES: usize = 64;
/// Longest model name kept, bytes.
pub const MODEL_NAME_BYTES_MAX: usize = 64;
/// Runtime threads of a worker that have a heartbeat of their own.
pub const BEATS: usize = 16;
/// Buckets of the latency histogram.
pub const BUCKETS: usize = 64;

const NAME_WORDS: usize = 1 + MODEL_NAME_BYTES_MAX / 8;
const GAUGES: usize = 32;
const COUNTERS: usize = 64;
const MODEL_COUNTERS: usize = 8;
const CELL_WORDS: usize = GAUGES + COUNTERS + BUCKETS + MODEL_NAMES * MODEL_COUNTERS;
const WORD_CELLS: usize = 1024;
const WORD_MODULES: usize = WORD_CELLS + CELLS * CELL_WORDS;
const WORDS: usize = WORD_MODULES + modules::WORDS;

const _: () = assert!(WORD_NAMES + MODEL_NAMES * NAME_WORDS <= WORD_CELLS);

/// Words about the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum StoreWord {
    /// Process number of the store.
    Epoch,
    /// Process id, 0 while down.
    Pid,
    /// Milliseconds of the monotonic clock at its last sign of life.
    Beat,
    /// Writes waiting.
    Queue,
    /// Groups committed, ever.
    Groups,
    /// Changes committed, ever.
    Changes,
    /// Microseconds spent in synced commits, ever.
    CommitMicroseconds,
    /// Writes refused because what they expected did not hold, ever.
    Conflicts,
    /// Oldest sequence number still in the log.
    LogOldest,
    /// Times a worker was sent a complete copy, ever.
    Snapshots,
    /// Bytes that are free on the disk of the store, as it last looked.
    DiskFreeBytes,
    /// Bytes that must be free there for writes to be taken.
    DiskNeededBytes,
    /// Milliseconds of the monotonic clock since when writes are refused for want of them, 0 while they are taken.
    DiskFullSince,
    /// Number of the last published change that is on disk; changes after it are only in memory.
    OnDisk,
}

const _: () = assert!(WORD_STORE + (StoreWord::OnDisk as usize) < WORD_NAMES);

/// Present values of a worker process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Gauge {
    /// Process id, 0 while the cell is free.
    Pid,
    /// Slot the worker fills.
    Slot,
    /// Generation it serves.
    Generation,
    /// 1 while it accepts connections.
    Accepting,
    /// Open client connections.
    Connections,
    /// Requests being answered.
    InFlight,
    /// Highest sequence number applied to the cache.
    Applied,
    /// Documents indexed.
    Documents,
    /// Documents whose body is in the cache.
    CachedDocuments,
    /// Bytes of bodies in the cache.
    CachedBytes,
    /// Milliseconds of the monotonic clock at the acceptor's last pass.
    AcceptorBeat,
    /// Runtime threads that beat.
    Threads,
    /// 1 while the acceptor could take another connection: it accepts, and a runtime has room.
    Willing,
    /// First of [`BEATS`] heartbeats, one per runtime thread, milliseconds of the monotonic clock.
    FirstBeat,
}

const _: () = assert!(Gauge::FirstBeat as usize + BEATS <= GAUGES);

/// Totals of a cell. They only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Connections accepted.
    Connections,
    /// Requests answered, by class of status.
    Responses1xx,
    /// See [`Counter::Responses1xx`].
    Responses2xx,
    /// See [`Counter::Responses1xx`].
    Responses3xx,
    /// See [`Counter::Responses1xx`].
    Responses4xx,
    /// See [`Counter::Responses1xx`].
    Responses5xx,
    /// Requests refused because the worker was full.
    Overloaded,
    /// Reads that had to wait for the feed.
    ReadWaits,
    /// Bodies found in the cache.
    CacheHits,
    /// Bodies fetched from the store.
    CacheMisses,
    /// Gaps found in the feed.
    FeedGaps,
    /// Changes applied.
    ChangesApplied,
    /// Writes tried again because of a concurrent one.
    WriteRetries,
    /// Writes sent again after the store came back.
    WriteResends,
    /// Writes whose outcome was unknown at the deadline.
    UnknownOutcomes,
    /// Idempotent responses replayed.
    Replays,
    /// Microseconds spent answering requests.
    RequestMicroseconds,
    /// Bytes of request bodies.
    BytesIn,
    /// Bytes of response bodies.
    BytesOut,
    /// Documents looked at by scans.
    Scanned,
    /// Open event streams begun.
    Streams,
    /// Requests that a panic ended.
    Defects,
    /// Calls of modules.
    GuestCalls,
    /// Calls of modules that were answered no.
    GuestRefusals,
    /// Calls of modules that ended their instance with a defect.
    GuestTraps,
    /// Calls of modules that took too long.
    GuestTimeouts,
    /// Calls of modules that found no instance or no place on the CPU pool in time.
    GuestBusy,
    /// Microseconds spent in calls of modules, waiting included.
    GuestMicroseconds,
    /// Requests of modules to other systems.
    OutgoingRequests,
    /// Of these, those that were not allowed.
    OutgoingDenied,
    /// Of these, those that were allowed and got no answer.
    OutgoingFailed,
    /// Requests refused because their client asks more often than it may.
    RateLimited,
    /// Requests let in without being counted for their client, because there were too many clients to count.
    RateUncounted,
}

/// Totals of one model in a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum ModelCounter {
    /// Documents created.
    Creates,
    /// Documents read by id.
    Reads,
    /// Lists answered.
    Lists,
    /// Documents replaced or patched.
    Updates,
    /// Documents removed.
    Removes,
    /// Requests refused with a 4xx.
    Refused,
    /// Commands carried out.
    Commands,
}

/// The mapped board. Cheap to clone; the mapping lives as long as the process.
#[derive(Debug, Clone, Copy)]
pub struct Board {
    words: &'static [AtomicU64],
}

/// One cell of the board.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    words: &'static [AtomicU64],
}

impl Board {
    /// Makes a new board; the descriptor is for children.
    pub fn create() -> Result<(Self, OwnedFd), IpcError> {
        let descriptor = rustix::fs::memfd_create("aegis-board", MemfdFlags::CLOEXEC)
            .map_err(|error| IpcError::os("creating the memory file of the board", error))?;
        rustix::fs::ftruncate(&descriptor, (WORDS * 8) as u64)
            .map_err(|error| IpcError::os("sizing the board", error))?;
        let board = Self { words: map(&descriptor, WORDS, "mapping the board")? };
        board.words[WORD_LAYOUT].store(LAYOUT_VERSION, Ordering::Relaxed);
        board.words[WORD_MAGIC].store(MAGIC, Ordering::Release);
        Ok((board, descriptor))
    }

    /// Maps the board behind an inherited descriptor.
    pub fn open(descriptor: &OwnedFd) -> Result<Self, IpcError> {
        let size = rustix::fs::fstat(descriptor)
            .map_err(|error| IpcError::os("measuring the board", error))?
            .st_size;
        let unexpected = |what: &str, found: u64, expected: u64| IpcError::Unexpected {
            object: format!("{what} of the board"),
            found: found.to_string(),
            expected: expected.to_string(),
        };
        if size as usize != WORDS * 8 {
            return Err(unexpected("size in bytes", size as u64, (WORDS * 8) as u64));
        }
        let board = Self { words: map(descriptor, WORDS, "mapping the board")? };
        for (what, word, expected) in [("magic", WORD_MAGIC, MAGIC), ("layout", WORD_LAYOUT, LAYOUT_VERSION)]
        {
            let found = board.words[word].load(Ordering::Acquire);
            if found != expected {
                return Err(unexpected(what, found, expected));
            }
        }
        Ok(board)
    }

    /// The durable sequence number: everything up to it is on disk and may be shown.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.words[WORD_DURABLE].load(Ordering::Acquire)
    }

    /// Publishes a new durable sequence number. Only the store calls it; it never goes down.
    pub fn publish_durable(&self, sequence: u64) {
        self.words[WORD_DURABLE].fetch_max(sequence, Ordering::Release);
    }

    /// The number of the generation in force; nothing before there is one, or where the supervisor does not tell.
    #[must_use]
    pub fn in_force(&self) -> Option<u64> {
        Some(self.words[WORD_IN_FORCE].load(Ordering::Relaxed)).filter(|generation| *generation > 0)
    }

    /// Tells which generation is in force. Only the supervisor calls it.
    pub fn publish_in_force(&self, generation: u64) {
        self.words[WORD_IN_FORCE].store(generation, Ordering::Relaxed);
    }

    /// A word about the store.
    #[must_use]
    pub fn store(&self, word: StoreWord) -> &'static AtomicU64 {
        &self.words[WORD_STORE + word as usize]
    }

    /// One cell.
    ///
    /// # Panics
    /// When `index` is not below [`CELLS`].
    #[must_use]
    pub fn cell(&self, index: usize) -> Cell {
        assert!(index < CELLS, "cell {index} of {CELLS}");
        let start = WORD_CELLS + index * CELL_WORDS;
        Cell { words: &self.words[start..start + CELL_WORDS] }
    }

    /// All cells.
    pub fn cells(&self) -> impl Iterator<Item = Cell> + use<> {
        let board = *self;
        (0..CELLS).map(move |index| board.cell(index))
    }

    /// Sum of a counter over all cells.
    #[must_use]
    pub fn total(&self, counter: Counter) -> u64 {
        self.cells().map(|cell| cell.counter(counter).load(Ordering::Relaxed)).sum()
    }

    /// Index under which a model is counted; the same in every process. Names beyond the table share its last entry.
    #[must_use]
    pub fn model_index(&self, name: &str) -> usize {
        let wanted = name_words(name);
        for index in 0..MODEL_NAMES - 1 {
            let entry = self.name_entry(index);
            // 0 free, 1 being written, 2 written. Writers are few and rare: a short spin is enough.
            if entry[0].compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                for (word, value) in entry[1..].iter().zip(wanted) {
                    word.store(value, Ordering::Relaxed);
                }
                entry[0].store(2, Ordering::Release);
                return index;
            }
            let mut spins = 0_u32;
            while entry[0].load(Ordering::Acquire) == 1 && spins < 1_000_000 {
                spins += 1;
                std::hint::spin_loop();
            }
            if entry[1..].iter().zip(wanted).all(|(word, value)| word.load(Ordering::Relaxed) == value) {
                return index;
            }
        }
        MODEL_NAMES - 1
    }

    /// Names of the models that are counted, with their index.
    #[must_use]
    pub fn model_names(&self) -> Vec<(usize, String)> {
        (0..MODEL_NAMES)
            .filter(|index| self.name_entry(*index)[0].load(Ordering::Acquire) == 2)
            .map(|index| {
                let bytes: Vec<u8> = self.name_entry(index)[1..]
                    .iter()
                    .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
                    .take_while(|byte| *byte != 0)
                    .collect();
                (index, String::from_utf8_lossy(&bytes).into_owned())
            })
            .collect()
    }

    fn name_entry(&self, index: usize) -> &'static [AtomicU64] {
        let start = WORD_NAMES + index * NAME_WORDS;
        &self.words[start..start + NAME_WORDS]
    }
}

impl Cell {
    /// A present value.
    #[must_use]
    pub fn gauge(&self, gauge: Gauge) -> &'static AtomicU64 {
        &self.words[gauge as usize]
    }

    /// The heartbeat of runtime thread `thread` (those beyond [`BEATS`] share the last word).
    #[must_use]
    pub fn beat(&self, thread: usize) -> &'static AtomicU64 {
        &self.words[Gauge::FirstBeat as usize + thread.min(BEATS - 1)]
    }

    /// A total.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> &'static AtomicU64 {
        &self.words[GAUGES + counter as usize]
    }

    /// A bucket of the latency histogram; see [`bucket_of`].
    #[must_use]
    pub fn bucket(&self, index: usize) -> &'static AtomicU64 {
        &self.words[GAUGES + COUNTERS + index.min(BUCKETS - 1)]
    }

    /// A total of the model with index `model`.
    #[must_use]
    pub fn model_counter(&self, model: usize, counter: ModelCounter) -> &'static AtomicU64 {
        let model = model.min(MODEL_NAMES - 1);
        &self.words[GAUGES + COUNTERS + BUCKETS + model * MODEL_COUNTERS + counter as usize]
    }

    /// Sets all present values to zero: the process that wrote them is gone.
    pub fn clear_gauges(&self) {
        for word in &self.words[..GAUGES] {
            word.store(0, Ordering::Relaxed);
        }
    }
}

/// Histogram bucket of a latency: quarter steps of powers of two, from 16 µs up; the last one is open.
#[must_use]
pub fn bucket_of(microseconds: u64) -> usize {
    if microseconds < 16 {
        return 0;
    }
    let power = microseconds.ilog2() as usize; // at least 4
    let quarter = ((microseconds >> (power - 2)) & 3) as usize;
    (1 + (power - 4) * 4 + quarter).min(BUCKETS - 1)
}

/// Upper bound of a bucket in microseconds, exclusive; `None` for the last, open one.
#[must_use]
pub fn bucket_bound(index: usize) -> Option<u64> {
    match index {
        0 => Some(16),
        index if index >= BUCKETS - 1 => None,
        index => {
            let (power, quarter) = (4 + (index - 1) / 4, (index - 1) % 4);
            Some((5 + quarter as u64) << (power - 2))
        }
    }
}

/// Milliseconds of the clock that heartbeats use: monotonic, the same for all processes of a machine.
#[must_use]
pub fn monotonic_ms() -> u64 {
    monotonic_ns() / 1_000_000
}

/// The same clock in nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn name_words(name: &str) -> [u64; NAME_WORDS - 1] {
    let mut bytes = [0_u8; MODEL_NAME_BYTES_MAX];
    let length = name.len().min(MODEL_NAME_BYTES_MAX);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    let mut words = [0; NAME_WORDS - 1];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        let mut eight = [0; 8];
        eight.copy_from_slice(chunk);
        *word = u64::from_le_bytes(eight);
    }
    words
}

#[expect(unsafe_code, reason = "shared memory is mapped here and nowhere else")]
pub(crate) fn map(
    descriptor: &OwnedFd,
    words: usize,
    operation: &str,
) -> Result<&'static [AtomicU64], IpcError> {
    let length = words * 8;
    // SAFETY: a fresh shared mapping of a file of at least `length` bytes (all callers checked or set the size), at
    // an address the kernel chooses, aligned to a page. It is never unmapped, so 'static holds. The memory is only
    // ever accessed as `AtomicU64`, for which every bit pattern is valid, so other processes writing to it are no
    // data race. The file cannot shrink under us: nobody truncates one after it was made.
    unsafe {
        let address = rustix::mm::mmap(
            std::ptr::null_mut(),
            length,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED,
            descriptor.as_fd(),
            0,
        )
        .map_err(|error| IpcError::os(operation, error))?;
        Ok(std::slice::from_raw_parts(address.cast::<AtomicU64>(), words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_mappings_show_the_same_words() {
        let (board, descriptor) = Board::create().unwrap();
        let other = Board::open(&descriptor).unwrap();
        board.publish_durable(7);
        board.publish_durable(5);
        assert_eq!(other.durable(), 7, "the watermark never goes down");
        other.cell(3).counter(Counter::CacheHits).fetch_add(2, Ordering::Relaxed);
        board.cell(9).counter(Counter::CacheHits).fetch_add(3, Ordering::Relaxed);
        assert_eq!(board.total(Counter::CacheHits), 5);
    }

    #[test]
    fn nothing_is_in_force_until_it_is_told() {
        let (board, descriptor) = Board::create().unwrap();
        let other = Board::open(&descriptor).unwrap();
        assert_eq!(other.in_force(), None);
        board.publish_in_force(3);
        assert_eq!(other.in_force(), Some(3));
    }

    #[test]
    fn clearing_gauges_keeps_counters() {
        let (board, _descriptor) = Board::create().unwrap();
        let cell = board.cell(0);
        cell.gauge(Gauge::Connections).store(4, Ordering::Relaxed);
        cell.beat(BEATS + 9).store(4, Ordering::Relaxed);
        cell.counter(Counter::Connections).store(4, Ordering::Relaxed);
        cell.clear_gauges();
        assert_eq!(cell.gauge(Gauge::Connections).load(Ordering::Relaxed), 0);
        assert_eq!(cell.beat(BEATS - 1).load(Ordering::Relaxed), 0);
        assert_eq!(cell.counter(Counter::Connections).load(Ordering::Relaxed), 4);
    }

    #[test]
    fn a_model_has_one_index_in_all_processes() {
        let (board, descriptor) = Board::create().unwrap();
        let other = Board::open(&descriptor).unwrap();
        let todo = board.model_index("TODO");
        assert_eq!(other.model_index("ORDER"), other.model_index("ORDER"));
        assert_eq!(other.model_index("TODO"), todo);
        assert_eq!(board.model_names(), vec![(0, "TODO".to_owned()), (1, "ORDER".to_owned())]);
        for index in 0..MODEL_NAMES * 2 {
            assert!(board.model_index(&format!("M{index}")) < MODEL_NAMES);
        }
    }

    #[test]
    fn a_file_of_another_shape_is_refused() {
        let descriptor = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
        let error = Board::open(&descriptor).unwrap_err().to_string();
        assert!(error.starts_with("size in bytes of the board: found 0, expected "), "{error}");
        rustix::fs::ftruncate(&descriptor, (WORDS * 8) as u64).unwrap();
        assert!(Board::open(&descriptor).unwrap_err().to_string().starts_with("magic of the board"));
    }

    #[test]
    fn buckets_are_contiguous() {
        for microseconds in 0..200_000_u64 {
            let index = bucket_of(microseconds);
            assert!(bucket_bound(index).is_none_or(|bound| microseconds < bound), "{microseconds}");
            assert!(
                index == 0 || bucket_bound(index - 1).is_some_and(|bound| microseconds >= bound),
                "{microseconds}"
            );
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }
}
