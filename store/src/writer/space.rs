//! Notices a full disk before the engine does: a write that fails in the engine ends the process.

use std::{
    io,
    path::PathBuf,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use aegis_ipc::board::{Board, StoreWord, monotonic_ms};

use crate::{engine::Engine, error::chain};

/// Free bytes below which writes are refused, beside what the engine still has to sort into its final place.
const RESERVE_BYTES: u64 = 64 * 1024 * 1024;
/// Part of the reserve that is there for removing what is no longer needed, which writes as well.
const REMOVAL_BYTES: u64 = RESERVE_BYTES / 2;
/// Free bytes beyond the reserve at which writes are taken again.
const RELIEF_BYTES: u64 = 8 * 1024 * 1024;
/// How often the file system is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Asks how many bytes are free.
pub(crate) type Probe = Box<dyn Fn() -> io::Result<u64> + Send>;

/// Asks the file system of a folder.
pub(crate) fn probe(folder: PathBuf) -> Probe {
    Box::new(move || {
        let answer = nix::sys::statvfs::statvfs(&folder)?;
        Ok(answer.blocks_available().saturating_mul(answer.fragment_size()))
    })
}

/// Free space where the engine writes.
pub(super) struct Space {
    probe: Option<Probe>,
    looked: Option<Instant>,
    low: bool,
    /// There is not even room to remove something.
    cramped: bool,
}

impl Space {
    /// Watches what the probe says; an engine that is not on disk needs none.
    pub(super) fn new(probe: Option<Probe>) -> Self {
        Self { probe, looked: None, low: false, cramped: false }
    }

    /// Looks again if it is time to, and shows on the board what there is.
    pub(super) fn look(&mut self, engine: &dyn Engine, board: Board) {
        let Some(probe) = &self.probe else { return };
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return;
        }
        self.looked = Some(Instant::now());
        match probe() {
            Ok(free_bytes) => {
                let was_low = self.low;
                let unsettled_bytes = engine.unsettled_bytes();
                self.low = is_low(was_low, free_bytes, unsettled_bytes);
                self.cramped = is_cramped(free_bytes, unsettled_bytes);
                let show = |word, value| board.store(word).store(value, Ordering::Relaxed);
                show(StoreWord::DiskFreeBytes, free_bytes);
                show(StoreWord::DiskNeededBytes, needed_bytes(self.low, unsettled_bytes));
                match (was_low, self.low) {
                    (false, true) => {
                        show(StoreWord::DiskFullSince, monotonic_ms().max(1));
                        tracing::error!(free_bytes, "the disk is nearly full, writes are refused");
                    }
                    (true, false) => {
                        show(StoreWord::DiskFullSince, 0);
                        tracing::info!(free_bytes, "there is room on the disk again, writes are taken");
                    }
                    (true, true) | (false, false) => {}
                }
            }
            Err(error) => tracing::warn!(error = chain(&error), "the free space of the disk is not known"),
        }
    }

    /// Why writes are refused, if they are.
    pub(super) fn refusal(&self) -> Option<&'static str> {
        self.low.then_some("the disk of the store is nearly full")
    }

    /// Whether there is no room to remove something either.
    pub(super) fn is_cramped(&self) -> bool {
        self.cramped
    }
}

fn is_cramped(free_bytes: u64, unsettled_bytes: u64) -> bool {
    free_bytes < (RESERVE_BYTES - REMOVAL_BYTES).saturating_add(unsettled_bytes)
}

fn is_low(was_low: bool, free_bytes: u64, unsettled_bytes: u64) -> bool {
    free_bytes < needed_bytes(was_low, unsettled_bytes)
}

fn needed_bytes(is_low: bool, unsettled_bytes: u64) -> u64 {
    let reserve = RESERVE_BYTES.saturating_add(unsettled_bytes);
    if is_low { reserve.saturating_add(RELIEF_BYTES) } else { reserve }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_refused_below_the_reserve_and_taken_again_a_little_above_it() {
        let mebibyte = 1024 * 1024;
        assert!(!is_low(false, 64 * mebibyte, 0));
        assert!(is_low(false, 64 * mebibyte - 1, 0));
        assert!(is_low(false, 90 * mebibyte, 30 * mebibyte), "what waits in memory needs room as well");
        assert!(is_low(true, 70 * mebibyte, 0));
        assert!(!is_low(true, 72 * mebibyte, 0));
    }

    #[test]
    fn half_of_the_reserve_is_there_for_removing() {
        let mebibyte = 1024 * 1024;
        assert!(is_low(false, 32 * mebibyte, 0) && !is_cramped(32 * mebibyte, 0));
        assert!(is_cramped(32 * mebibyte - 1, 0));
        assert!(is_cramped(40 * mebibyte, 9 * mebibyte));
    }
}
