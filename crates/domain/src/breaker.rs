//! When code that keeps failing is not called for a while.
//!
//! ```text
//!          5 faults of 30 s that are a tenth of the calls, or 5 in a row
//!  Closed ───────────────────────────────────────────────────────────────► Open: nobody calls
//!    ▲                                                        ▲              │
//!    │                                                  fault │              │ the pause is over
//!    └──────── it goes well ──────────────────────────── HalfOpen: one calls ◄
//! ```
//!
//! A pause is twice as long as the one before until code has gone without one for a minute, so that code which fails now and
//! then, and would pass each single trial, does not fail more often than a few times a minute either.

/// Time over which calls are counted, milliseconds.
const WINDOW_MS: u64 = PART_MS * PARTS as u64;
/// Time of one part of the window, milliseconds.
const PART_MS: u64 = 3_000;
/// Parts of the window.
const PARTS: usize = 10;
/// Faults below which nothing is concluded.
const FAULTS_MIN: u32 = 5;
/// Calls for each fault, at most, so that code is not called any more.
const CALLS_PER_FAULT_MAX: u32 = 10;
/// First pause, milliseconds.
const PAUSE_MS_MIN: u64 = 1_000;
/// Longest pause, milliseconds.
pub const PAUSE_MS_MAX: u64 = 60_000;
/// Time without a pause after which the next one is a first one, milliseconds.
const PROVEN_MS: u64 = 60_000;

/// Decides whether code is called. Times are milliseconds of any clock that does not go back.
#[derive(Debug, Default)]
pub struct Breaker {
    state: State,
    /// Changes with the state: what a call of another era came to says nothing about this one.
    era: u64,
    /// The last pause, milliseconds; 0 before the first one.
    pause_ms: u64,
    /// When it was closed last.
    closed_ms: u64,
}

#[derive(Debug)]
enum State {
    Closed(Window),
    Open { until_ms: u64 },
    HalfOpen { is_tried: bool },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed(Window::default())
    }
}

/// What calls came to of late.
#[derive(Debug, Default)]
struct Window {
    parts: [Part; PARTS],
    faults_in_a_row: u32,
}

/// What calls came to in [`PART_MS`].
#[derive(Debug, Default, Clone, Copy)]
struct Part {
    /// Number of the part since the clock began.
    number: u64,
    calls: u32,
    faults: u32,
}

/// The right to one call. What it came to has to be told with [`Breaker::end`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    era: u64,
    is_trial: bool,
}

impl Turn {
    /// Whether it is the one call that decides how it goes on.
    #[must_use]
    pub fn is_trial(self) -> bool {
        self.is_trial
    }
}

/// What a call came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The code has answered, if only no.
    Well,
    /// The code has failed by itself.
    Fault,
    /// Nobody knows: it was not waited for, or did not begin.
    Unknown,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is not called for a while.
    Opened {
        /// Faults that led to this.
        faults: u32,
        /// Calls among which they were.
        calls: u32,
        /// For how long, milliseconds.
        pause_ms: u64,
    },
    /// It is called again.
    Closed,
}

/// Where it stands, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// It is called.
    Closed,
    /// It is not called.
    Open {
        /// Time that is left of the pause, milliseconds.
        left_ms: u64,
    },
    /// It is called once, and then it will be known.
    HalfOpen,
}

impl Breaker {
    /// May the code be called?
    ///
    /// # Errors
    /// No; the milliseconds after which it is worth asking again, at least 1.
    pub fn ask(&mut self, now_ms: u64) -> Result<Turn, u64> {
        let is_trial = match &mut self.state {
            State::Closed(_) => false,
            State::Open { until_ms } if *until_ms > now_ms => return Err(*until_ms - now_ms),
            State::HalfOpen { is_tried: true } => return Err(PAUSE_MS_MIN),
            state @ (State::Open { .. } | State::HalfOpen { is_tried: false }) => {
                *state = State::HalfOpen { is_tried: true };
                true
            }
        };
        Ok(Turn { era: self.era, is_trial })
    }

    /// A call has ended.
    pub fn end(&mut self, turn: Turn, outcome: Outcome, now_ms: u64) -> Option<Change> {
        if turn.era != self.era {
            return None;
        }
        match (&mut self.state, outcome) {
            (State::Closed(window), Outcome::Well | Outcome::Fault) => {
                let (faults, calls) = window.add(outcome == Outcome::Fault, now_ms)?;
                Some(self.open(faults, calls, now_ms))
            }
            (State::HalfOpen { .. }, Outcome::Well) => {
                self.era += 1;
                self.state = State::default();
                self.closed_ms = now_ms;
                Some(Change::Closed)
            }
            (State::HalfOpen { .. }, Outcome::Fault) => Some(self.open(1, 1, now_ms)),
            (State::HalfOpen { is_tried }, Outcome::Unknown) => {
                *is_tried = false;
                None
            }
            (State::Closed(_), Outcome::Unknown) | (State::Open { .. }, _) => None,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn stand(&self, now_ms: u64) -> Stand {
        match &self.state {
            State::Closed(_) => Stand::Closed,
            State::Open { until_ms } if *until_ms > now_ms => Stand::Open { left_ms: *until_ms - now_ms },
            State::Open { .. } | State::HalfOpen { .. } => Stand::HalfOpen,
        }
    }

    fn open(&mut self, faults: u32, calls: u32, now_ms: u64) -> Change {
        let is_proven =
            matches!(self.state, State::Closed(_)) && now_ms.saturating_sub(self.closed_ms) >= PROVEN_MS;
        self.pause_ms = match self.pause_ms {
            0 => PAUSE_MS_MIN,
            _ if is_proven => PAUSE_MS_MIN,
            before => (2 * before).min(PAUSE_MS_MAX),
        };
        self.era += 1;
        self.state = State::Open { until_ms: now_ms + self.pause_ms };
        Change::Opened { faults, calls, pause_ms: self.pause_ms }
    }
}

impl Window {
    /// Counts a call. Faults and calls, when they are too many faults.
    fn add(&mut self, is_fault: bool, now_ms: u64) -> Option<(u32, u32)> {
        let number = now_ms / PART_MS;
        let place = usize::try_from(number % PARTS as u64).unwrap_or(0);
        let part = self.parts.get_mut(place)?;
        if part.number < number {
            *part = Part { number, ..Part::default() };
        }
        part.calls = part.calls.saturating_add(1);
        if !is_fault {
            self.faults_in_a_row = 0;
            return None;
        }
        part.faults = part.faults.saturating_add(1);
        self.faults_in_a_row += 1;
        let since = number.saturating_sub(WINDOW_MS / PART_MS - 1);
        let parts = self.parts.iter().filter(|part| part.number >= since);
        let (faults, calls) = parts.fold((0_u32, 0_u32), |(faults, calls), part| {
            (faults.saturating_add(part.faults), calls.saturating_add(part.calls))
        });
        if faults >= FAULTS_MIN && faults.saturating_mul(CALLS_PER_FAULT_MAX) >= calls {
            return Some((faults, calls));
        }
        // Calls that take long to fail are so few that none of them is in the window with another.
        (self.faults_in_a_row >= FAULTS_MIN).then_some((self.faults_in_a_row, self.faults_in_a_row))
    }
}

#[cfg(test)]
mod tests;
