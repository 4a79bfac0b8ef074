//! How often a client is served: the generic cell rate algorithm, as ITU-T Recommendation I.371 (annex A, "virtual
//! scheduling") describes it for cells.
//!
//! Of a client one number is kept: when its next request is expected, were it to come at the rate. A request may come
//! before that by as much as the burst allows; each one that is served moves the expectation on by one interval. One that
//! is refused moves nothing, so to ask again too early costs a client only the asking.
//!
//! ```text
//!   requests   │ │ │ │ ×            │            3 at once, one every T
//!   expected   T 2T 3T → 4T         │
//!   now ───────┴─────────────────────────▶       refused while `expected` is more than 2T ahead
//! ```

use std::num::NonZeroU32;

const SECOND_NS: u64 = 1_000_000_000;
/// Further ahead than a burst by more than this is what was written under another rate. Less may be the clock of somebody
/// who looked at it a moment before the last one who was served; a second is far more than clocks of one machine, and
/// threads that wait for a processor, are apart.
const CLOCKS_APART_NS_MAX: u64 = SECOND_NS;

/// A rate and how much of it may come at once. Times are nanoseconds of any clock that does not go back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Time between two requests at the rate, rounded down: who keeps to the rate is never refused.
    interval_ns: u64,
    /// Intervals of a whole burst: the furthest that an expectation is ahead.
    burst_ns: u64,
}

/// A request that came too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooEarly {
    /// Time after which the next one is served, unless others are before.
    pub wait_ns: u64,
}

impl Rate {
    /// So many a second, of which `burst` may come at once.
    #[must_use]
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let interval_ns = (SECOND_NS / u64::from(per_second.get())).max(1);
        Self { interval_ns, burst_ns: interval_ns * u64::from(burst.get()) }
    }

    /// Whether a request is served now, of a client whose next one is expected at `expected_ns`, which is any time in the
    /// past for one that nobody knows. Returns when the one after it is.
    ///
    /// What is much further ahead than a burst was written under another rate: then this request is the last of a burst, so
    /// that nobody waits out a rate that is in force no more. In all other cases what is returned is later than
    /// `expected_ns`, so that who looks at the clock before another and asks after it takes nothing back.
    ///
    /// # Errors
    /// How much too early it is.
    pub fn ask(self, expected_ns: u64, now_ns: u64) -> Result<u64, TooEarly> {
        let tolerance_ns = self.burst_ns - self.interval_ns;
        let ahead_ns = match expected_ns.saturating_sub(now_ns) {
            ahead_ns if ahead_ns > self.burst_ns + CLOCKS_APART_NS_MAX => tolerance_ns,
            ahead_ns => ahead_ns,
        };
        if ahead_ns > tolerance_ns {
            return Err(TooEarly { wait_ns: ahead_ns - tolerance_ns });
        }
        Ok(now_ns.saturating_add(ahead_ns).saturating_add(self.interval_ns))
    }
}

impl TooEarly {
    /// The same as `Retry-After` has it: whole seconds, never less than it takes, at least 1.
    #[must_use]
    pub fn retry_after_s(self) -> u32 {
        u32::try_from(self.wait_ns.div_ceil(SECOND_NS)).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
mod tests;
