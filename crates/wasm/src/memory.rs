//! How much memory an instance may have.

use wasmtime::ResourceLimiter;

use crate::engine::TABLE_ELEMENTS_MAX;

/// Times that an instance is told no before it is ended: a guest that can live without more memory stops asking.
const REFUSALS_MAX: u32 = 8;

/// Counts what one instance has and wants.
#[derive(Debug)]
pub(crate) struct MemoryLimiter {
    bytes_max: usize,
    /// All linear memories of the instance together, bytes: none of them ever shrinks.
    bytes: usize,
    /// The most that they had, or would have had if they had got what was wanted, bytes.
    pub(crate) peak_bytes: usize,
    refusals: u32,
}

impl MemoryLimiter {
    /// At most `bytes_max` in all linear memories together.
    pub(crate) fn new(bytes_max: u64) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Self { bytes_max, bytes: 0, peak_bytes: 0, refusals: 0 }
    }

    /// Whether the instance has so much that it should not be used again: memory is never given back.
    pub(crate) fn is_bloated(&self) -> bool {
        self.peak_bytes / 4 >= self.bytes_max / 5
    }
}

impl ResourceLimiter for MemoryLimiter {
    /// What a memory does not get although it may have it (the machine has no more) stays counted: it is not told which one
    /// of them that was.
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let wanted = self.bytes.saturating_add(desired.saturating_sub(current));
        if wanted <= self.bytes_max {
            if maximum.is_some_and(|maximum| desired > maximum) {
                return Ok(false);
            }
            self.bytes = wanted;
            self.peak_bytes = self.peak_bytes.max(wanted);
            return Ok(true);
        }
        self.peak_bytes = self.bytes_max;
        self.refusals += 1;
        if self.refusals > REFUSALS_MAX {
            return Err(OutOfMemory { wanted_bytes: wanted, bytes_max: self.bytes_max }.into());
        }
        Ok(false)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}

/// An instance that does not stop asking for memory.
#[derive(Debug, thiserror::Error)]
#[error("it wanted {wanted_bytes} bytes of memory, at most {bytes_max} are allowed")]
pub(crate) struct OutOfMemory {
    wanted_bytes: usize,
    bytes_max: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_told_no_a_few_times_and_then_ended() {
        let mut limiter = MemoryLimiter::new(1000);
        assert!(limiter.memory_growing(0, 1000, None).unwrap());
        for _ in 0..REFUSALS_MAX {
            assert!(!limiter.memory_growing(1000, 1001, None).unwrap());
        }
        let error = limiter.memory_growing(1000, 2000, None).unwrap_err();
        assert_eq!(error.to_string(), "it wanted 2000 bytes of memory, at most 1000 are allowed");
    }

    #[test]
    fn the_memories_of_an_instance_have_the_limit_together() {
        let mut limiter = MemoryLimiter::new(1000);
        limiter.memory_growing(0, 300, None).unwrap();
        limiter.memory_growing(0, 300, None).unwrap();
        assert!(!limiter.memory_growing(300, 701, None).unwrap());
        let mut limiter = MemoryLimiter::new(1000);
        limiter.memory_growing(0, 300, None).unwrap();
        limiter.memory_growing(0, 400, None).unwrap();
        assert!(!limiter.is_bloated());
        assert!(limiter.memory_growing(300, 400, None).unwrap());
        assert!(limiter.is_bloated());
    }

    #[test]
    fn what_a_memory_never_gets_is_not_counted() {
        let mut limiter = MemoryLimiter::new(1000);
        for _ in 0..100 {
            assert!(!limiter.memory_growing(100, 600, Some(500)).unwrap());
        }
        assert!(limiter.memory_growing(0, 700, None).unwrap());
        assert!(!limiter.is_bloated());
    }

    #[test]
    fn an_instance_with_four_fifths_of_its_memory_is_not_used_again() {
        let mut limiter = MemoryLimiter::new(1000);
        limiter.memory_growing(0, 700, None).unwrap();
        assert!(!limiter.is_bloated());
        limiter.memory_growing(700, 800, None).unwrap();
        assert!(limiter.is_bloated());
    }
}
