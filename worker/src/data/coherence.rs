//! Decides when what the store says becomes visible. Pure: no socket, no clock, no table.
//!
//! ```text
//!            attached            copy_begun           copy_ended        watermark ≥ at
//! Detached ───────────▶ Following ────────▶ Copying ───────────▶ Copied ───────────▶ Following
//!     ▲                  │      ▲                                                        │
//!     │ disconnected     │ gap  │ frame that begins at applied + 1                       │
//!     └── from any ──    ▼      │                                                        │
//!                       Resyncing ◀──────────────────────────── gap ─────────────────────┘
//! ```
//!
//! Three rules make the copy a prefix of the log that nobody can see half of:
//!
//! * Changes are shown only up to a value that the watermark has had. The store publishes it at ends of groups, so
//!   no batch is ever shown in part, however its changes were cut into frames.
//! * Changes received from one store process are never shown because of a watermark of the next one, which may
//!   give the same numbers to other changes: the epoch on the board has to be that of the connection.
//! * What is held back when a connection ends is forgotten. The store sends everything after `applied` again.

use std::time::{Duration, Instant};

use aegis_ipc::data::{Change, Stored};

/// Bytes of changes that may be held back. A store that sends more than this ahead of the watermark is asked for a
/// complete copy, which is loaded without holding anything back.
pub(super) const HELD_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The stream is behind the watermark and silent for this long: a frame was lost.
pub(super) const SILENCE_MAX: Duration = Duration::from_millis(500);
/// The stream is silent for this long in the middle of a complete copy: the connection is given up.
pub(super) const COPY_SILENCE_MAX: Duration = Duration::from_secs(30);
/// Gaps in a row, without any change applied in between, after which a complete copy is asked for.
pub(super) const GAPS_IN_A_ROW_MAX: u32 = 3;

/// Rough memory of a held change beside its id and body, bytes.
const CHANGE_OVERHEAD_BYTES: usize = 128;

/// The two words of the board that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Watermark {
    /// Durable sequence number. It has to be loaded before the epoch.
    pub(super) durable: u64,
    /// Process number of the store that may have published it.
    pub(super) epoch: u64,
}

/// What the driver has to do, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Put these changes into the tables at once; they then show the log up to `through`.
    Apply {
        /// In log order.
        changes: Vec<Change>,
        /// New value of `applied`.
        through: u64,
    },
    /// Begin a complete copy beside the tables in use; an unfinished one is dropped.
    BeginCopy,
    /// Add these documents to the complete copy.
    FillCopy(Vec<Stored>),
    /// The complete copy replaces the tables in use; they then show the log up to `at`.
    AdoptCopy {
        /// New value of `applied`.
        at: u64,
    },
    /// Drop the unfinished complete copy.
    DropCopy,
    /// The stream has a gap: count it and ask for everything after `applied`.
    Resync {
        /// Highest number applied.
        applied: u64,
    },
    /// Requests may be sent, those that were never answered first.
    Resend,
    /// The copy is complete and at or above the watermark seen when it was begun.
    BecomeReady,
    /// Close the connection and make a new one.
    Disconnect {
        /// Why.
        reason: String,
    },
}

/// What the stream is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Detached,
    Following,
    Resyncing,
    Copying { at: u64 },
    Copied { at: u64 },
}

/// State of the copy of one worker.
#[derive(Debug)]
pub(super) struct Coherence {
    phase: Phase,
    /// Number up to which the tables show the log; `None` before the first complete copy.
    applied: Option<u64>,
    /// Last number received in order on this connection.
    received: u64,
    /// Changes in `applied + 1 ..= received`.
    held: Vec<Change>,
    held_bytes: usize,
    /// A value of the watermark above what had been received when it was seen. It is kept until the stream reaches
    /// it, so that a stream that is always a little behind a moving watermark still makes progress.
    goal: u64,
    epoch: u64,
    ready_from: Option<u64>,
    ready: bool,
    gaps_in_a_row: u32,
    distrusted: bool,
    last_progress: Instant,
    /// Since when each tick has found the stream behind the watermark.
    behind_since: Option<Instant>,
}

impl Coherence {
    /// A worker that has nothing yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Detached,
            applied: None,
            received: 0,
            held: Vec::new(),
            held_bytes: 0,
            goal: 0,
            epoch: 0,
            ready_from: None,
            ready: false,
            gaps_in_a_row: 0,
            distrusted: false,
            last_progress: now,
            behind_since: None,
        }
    }

    /// Number to attach with: what follows it is enough. `None` asks for a complete copy.
    pub(super) fn attach_from(&self) -> Option<u64> {
        if self.distrusted { None } else { self.applied }
    }

    /// Number up to which the tables show the log; `None` before the first complete copy.
    pub(super) fn applied(&self) -> Option<u64> {
        self.applied
    }

    /// Changes that were received and may not be shown yet.
    pub(super) fn held_back(&self) -> usize {
        self.held.len()
    }

    /// Process number of the store that this worker attached to last.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Is the stream attached and the tables in use the ones that the next changes belong to?
    pub(super) fn is_following(&self) -> bool {
        self.phase == Phase::Following
    }

    /// Must somebody look at the watermark soon, although no frame comes?
    pub(super) fn wants_watermark(&self) -> bool {
        !self.held.is_empty() || matches!(self.phase, Phase::Copied { .. })
    }

    /// The store accepted the connection.
    pub(super) fn attached(&mut self, epoch: u64, durable: u64, now: Instant, actions: &mut Vec<Action>) {
        self.epoch = epoch;
        self.forget_received();
        self.phase = Phase::Following;
        self.last_progress = now;
        self.ready_from.get_or_insert(durable);
        actions.push(Action::Resend);
        self.check_ready(actions);
    }

    /// The connection is gone.
    pub(super) fn disconnected(&mut self, actions: &mut Vec<Action>) {
        self.drop_copy(actions);
        self.forget_received();
        self.phase = Phase::Detached;
    }

    /// A complete copy begins.
    pub(super) fn copy_begun(&mut self, at: u64, now: Instant, actions: &mut Vec<Action>) {
        if let Some(applied) = self.applied.filter(|applied| *applied > at) {
            let reason =
                format!("a complete copy shows the log up to {at}, but {applied} was applied before");
            return self.give_up(reason, actions);
        }
        self.forget_received();
        self.received = at;
        self.phase = Phase::Copying { at };
        self.last_progress = now;
        actions.push(Action::BeginCopy);
    }

    /// Part of a complete copy.
    pub(super) fn copy_page(&mut self, documents: Vec<Stored>, now: Instant, actions: &mut Vec<Action>) {
        self.last_progress = now;
        match self.phase {
            Phase::Copying { .. } => actions.push(Action::FillCopy(documents)),
            Phase::Detached | Phase::Following | Phase::Resyncing | Phase::Copied { .. } => {
                self.give_up("a page of a complete copy that was not begun".to_owned(), actions);
            }
        }
    }

    /// A complete copy is complete.
    pub(super) fn copy_ended(
        &mut self,
        at: u64,
        now: Instant,
        watermark: Watermark,
        actions: &mut Vec<Action>,
    ) {
        self.last_progress = now;
        if self.phase != (Phase::Copying { at }) {
            return self.give_up(format!("the end of a complete copy at {at} that was not begun"), actions);
        }
        self.phase = Phase::Copied { at };
        self.look(watermark, actions);
    }

    /// Changes arrived.
    pub(super) fn received(
        &mut self,
        first: u64,
        last: u64,
        mut changes: Vec<Change>,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let inside = changes.iter().all(|change| (first..=last).contains(&change.sequence));
        if first > last || !inside || !changes.is_sorted_by(|a, b| a.sequence < b.sequence) {
            return self.give_up(format!("a feed frame {first} to {last} that contradicts itself"), actions);
        }
        match self.phase {
            Phase::Detached => return,
            Phase::Resyncing if first > self.received + 1 => return, // sent before the store read our request
            Phase::Resyncing | Phase::Following | Phase::Copying { .. } | Phase::Copied { .. } => {}
        }
        if last <= self.received {
            return; // a duplicate
        }
        if first > self.received + 1 {
            return self.gap(now, actions);
        }
        if first <= self.received {
            let seen = changes.partition_point(|change| change.sequence <= self.received);
            changes.drain(..seen);
        }
        if self.phase == Phase::Resyncing {
            self.phase = Phase::Following;
        }
        self.received = last;
        self.last_progress = now;
        self.held_bytes += changes.iter().map(change_bytes).sum::<usize>();
        if self.held.is_empty() {
            self.held = changes;
        } else {
            self.held.append(&mut changes);
        }
        if self.held_bytes > HELD_BYTES_MAX {
            self.give_up(format!("{} bytes of changes ahead of the watermark", self.held_bytes), actions);
        }
    }

    /// Somebody loaded the watermark: shows what may be shown.
    pub(super) fn look(&mut self, watermark: Watermark, actions: &mut Vec<Action>) {
        if watermark.epoch != self.epoch {
            return;
        }
        if let Phase::Copied { at } = self.phase {
            if watermark.durable < at {
                return;
            }
            self.applied = Some(at);
            self.phase = Phase::Following;
            self.distrusted = false;
            self.gaps_in_a_row = 0;
            actions.push(Action::AdoptCopy { at });
        }
        let (Phase::Following, Some(applied)) = (self.phase, self.applied) else { return };
        let through = if watermark.durable <= self.received {
            watermark.durable
        } else if self.goal <= self.received {
            std::mem::replace(&mut self.goal, watermark.durable)
        } else {
            return;
        };
        if through > applied {
            let shown = self.held.partition_point(|change| change.sequence <= through);
            let changes = if shown == self.held.len() {
                self.held_bytes = 0;
                std::mem::take(&mut self.held)
            } else {
                let changes: Vec<Change> = self.held.drain(..shown).collect();
                self.held_bytes -= changes.iter().map(change_bytes).sum::<usize>();
                changes
            };
            self.applied = Some(through);
            self.gaps_in_a_row = 0;
            actions.push(Action::Apply { changes, through });
        }
        self.check_ready(actions);
    }

    /// Time passes: finds a lost frame that no other frame follows.
    pub(super) fn tick(&mut self, watermark: Watermark, now: Instant, actions: &mut Vec<Action>) {
        self.look(watermark, actions);
        let behind = watermark.epoch == self.epoch && watermark.durable > self.received;
        // A stream that had nothing to tell for long is not to blame for that: its next frame may be on its way.
        self.behind_since = behind.then(|| self.behind_since.unwrap_or(now));
        let since = self.behind_since.map_or(self.last_progress, |since| since.max(self.last_progress));
        let silence = now.saturating_duration_since(since);
        match self.phase {
            Phase::Following if behind && silence > SILENCE_MAX => self.gap(now, actions),
            Phase::Resyncing if behind && silence > 4 * SILENCE_MAX => {
                self.give_up(format!("no changes after {} came when asked for", self.received), actions);
            }
            Phase::Copying { at } if silence > COPY_SILENCE_MAX => {
                self.give_up(format!("the complete copy at {at} stopped in the middle"), actions);
            }
            Phase::Detached
            | Phase::Following
            | Phase::Resyncing
            | Phase::Copying { .. }
            | Phase::Copied { .. } => {}
        }
    }

    fn gap(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.gaps_in_a_row += 1;
        let applied = match (self.phase, self.applied) {
            (Phase::Following | Phase::Resyncing, Some(applied))
                if self.gaps_in_a_row <= GAPS_IN_A_ROW_MAX =>
            {
                applied
            }
            _ => return self.give_up(format!("a gap after {}", self.received), actions),
        };
        self.forget_received();
        self.phase = Phase::Resyncing;
        self.last_progress = now;
        actions.push(Action::Resync { applied });
    }

    /// The stream cannot be trusted: a new connection with a complete copy can.
    fn give_up(&mut self, reason: String, actions: &mut Vec<Action>) {
        self.distrusted = true;
        self.drop_copy(actions);
        self.forget_received();
        self.phase = Phase::Detached;
        actions.push(Action::Disconnect { reason });
    }

    fn drop_copy(&mut self, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Copying { .. } | Phase::Copied { .. }) {
            actions.push(Action::DropCopy);
        }
    }

    fn forget_received(&mut self) {
        self.received = self.applied.unwrap_or(0);
        self.held = Vec::new();
        self.held_bytes = 0;
        self.goal = 0;
    }

    fn check_ready(&mut self, actions: &mut Vec<Action>) {
        let reached =
            matches!((self.applied, self.ready_from), (Some(applied), Some(from)) if applied >= from);
        if reached && !self.ready {
            self.ready = true;
            actions.push(Action::BecomeReady);
        }
    }
}

fn change_bytes(change: &Change) -> usize {
    use aegis_ipc::data::ChangeKind;
    let content = match &change.kind {
        ChangeKind::Put { id, body, changes, .. } => {
            id.len() + body.len() + changes.as_ref().map_or(0, bytes::Bytes::len)
        }
        ChangeKind::Remove { id, .. } => id.len(),
        ChangeKind::Truncate => 0,
    };
    CHANGE_OVERHEAD_BYTES + change.model.len() + content
}

#[cfg(test)]
mod tests;
