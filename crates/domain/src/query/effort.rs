//! How much one step of a plan does.
//!
//! Work is counted in bytes of documents, once for each condition that they are read for; patterns count
//! more, as they say themselves.

/// Where a step is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Where others wait: it is short, and leaves undone what alone would be more than it may do.
    Brief,
    /// Where nobody waits: it is long, but the deadline is looked at between two of them.
    Long,
}

/// Work of a brief step. Tests are content with less.
const BRIEF_BYTES_MAX: u64 = if cfg!(test) { 1 << 10 } else { 2 << 20 };
/// Work of a long step: more than the worst pattern takes in the largest document.
const LONG_BYTES_MAX: u64 = if cfg!(test) { 4 << 10 } else { 128 << 20 };

/// The work that a step may still do.
#[derive(Debug)]
pub(super) struct Work {
    bytes_left: u64,
}

impl Work {
    pub(super) fn of(effort: Effort) -> Self {
        let bytes_left = match effort {
            Effort::Brief => BRIEF_BYTES_MAX,
            Effort::Long => LONG_BYTES_MAX,
        };
        Self { bytes_left }
    }

    /// So much work was done, which nobody could know before.
    pub(super) fn charge(&mut self, bytes: u64) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
    }

    /// Whether so much work may be done. Once something could not be, nothing more can; a long step that has
    /// done nothing yet may do anything, so that every plan comes to its end.
    pub(super) fn spend(&mut self, bytes: u64) -> bool {
        let left = self.bytes_left.checked_sub(bytes.min(LONG_BYTES_MAX));
        self.bytes_left = left.unwrap_or(0);
        left.is_some()
    }
}
