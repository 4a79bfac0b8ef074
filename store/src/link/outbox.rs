//! What waits to be sent to one worker, and how the live feed and the log are joined. Pure.
//!
//! ```text
//!            restart(None)                copied                 all of the log sent
//!   Idle ──────────────────▶ Copying ─────────────▶ Replaying ─────────────────────────▶ Live
//!     │      restart(applied)                        │   ▲  ▲                            │
//!     └──────────────────────────────────────────────┘   │  └── too much waits to be sent ┤
//!                                    close to the end ▼  │                               │
//!                                                  Joining{up_to} ─────── up_to sent ────┘
//! ```
//!
//! The writer offers every group to every outbox before it is synced. An outbox that replays the log ignores the
//! offers. When little of the log is left it begins to keep them, from the one after `up_to` on, and reads the log up
//! to exactly `up_to`: nothing is missing between the two and nothing comes twice. A worker that does not read fast
//! enough loses the waiting offers, not the answers, and is sent the log again from where it was.
//!
//! While nothing waits, the writer need not wake the sender: it puts a small frame into the socket itself, as far as
//! that takes it without waiting, and leaves the rest here.

use std::collections::VecDeque;

use bytes::Bytes;

/// Numbers that may be left of the log when the live feed is joined. Reading them takes a few milliseconds.
const JOIN_DISTANCE: u64 = 4096;
/// Bytes given to one system call.
const SEND_BYTES: usize = 1 << 20;
/// Frames given to one system call; the kernel takes 1024 pieces.
const SEND_FRAMES: usize = 512;
/// Answers that may wait, bytes. A worker that has more waiting is not read from until some are sent.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Answers that may wait.
const ANSWERS_MAX: usize = 65_536;
/// Questions that may wait for their answer, which may be large.
const QUESTIONS_MAX: usize = 16;

/// One feed frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FeedFrame {
    /// Last number it covers.
    pub(crate) last: u64,
    /// The encoded frame.
    pub(crate) bytes: Bytes,
}

/// What the sender does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send these frames.
    Send(Vec<Bytes>),
    /// Read the log after `after` up to at most `up_to`, send it, and report with [`Outbox::replayed`].
    Replay {
        /// To be given back.
        round: u64,
        /// Last number the worker was sent.
        after: u64,
        /// A committed number.
        up_to: u64,
    },
    /// Send a complete copy and report with [`Outbox::copied`].
    Copy {
        /// To be given back.
        round: u64,
    },
    /// Everything was sent that will ever be.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Idle,
    Copying,
    Replaying,
    Joining { up_to: u64 },
    Live,
}

#[derive(Debug)]
enum Item {
    Feed(FeedFrame),
    Answer(Bytes),
}

/// Messages that wait for one worker.
#[derive(Debug)]
pub(crate) struct Outbox {
    mode: Mode,
    items: VecDeque<Item>,
    feed_bytes: usize,
    feed_bytes_max: usize,
    answer_bytes: usize,
    answers: usize,
    questions: usize,
    /// Number that the complete copy being sent shows.
    copy_at: Option<u64>,
    /// Counts restarts: a report of what was begun before the last one is stale.
    round: u64,
    /// Last number handed to the sender.
    sent: u64,
    /// Last number offered by the writer.
    offered: u64,
    /// Last number that is durable.
    committed: u64,
    last_answer_given: bool,
    /// The sender was given something to send and has not come back.
    sending: bool,
}

impl Outbox {
    /// For a worker that has not introduced itself.
    pub(crate) fn new(offered: u64, committed: u64, feed_bytes_max: usize) -> Self {
        Self {
            mode: Mode::Idle,
            items: VecDeque::new(),
            feed_bytes: 0,
            feed_bytes_max,
            answer_bytes: 0,
            answers: 0,
            questions: 0,
            copy_at: None,
            round: 0,
            sent: 0,
            offered,
            committed,
            last_answer_given: false,
            sending: false,
        }
    }

    /// The worker needs everything after `applied`, which the log still has, or a complete copy.
    pub(crate) fn restart(&mut self, applied: Option<u64>) {
        self.round += 1;
        self.copy_at = None;
        self.drop_feed();
        self.mode = match applied {
            Some(applied) => {
                self.sent = applied;
                Mode::Replaying
            }
            None => Mode::Copying,
        };
    }

    /// Would the frames of an offer be kept?
    pub(crate) fn wants_feed(&self) -> bool {
        matches!(self.mode, Mode::Joining { .. } | Mode::Live)
    }

    /// The writer is about to sync a group whose last number is `last`. Returns false when the waiting offers were
    /// dropped because there are too many.
    pub(crate) fn offer(&mut self, last: u64, frames: &[FeedFrame]) -> bool {
        self.offered = last;
        if !self.wants_feed() {
            return true;
        }
        let bytes: usize = frames.iter().map(|frame| frame.bytes.len()).sum();
        // One group always fits, however large: reading it from the log would not make it smaller.
        if self.feed_bytes > 0 && self.feed_bytes + bytes > self.feed_bytes_max {
            self.drop_feed();
            self.mode = Mode::Replaying;
            return false;
        }
        self.feed_bytes += bytes;
        self.items.extend(frames.iter().cloned().map(Item::Feed));
        true
    }

    /// Does nothing wait, and is nothing being sent? Then whoever has an answer may send it himself.
    pub(crate) fn is_quiet(&self) -> bool {
        self.items.is_empty() && !self.sending
    }

    /// May the writer send the next group himself?
    pub(crate) fn takes_feed_at_once(&self) -> bool {
        self.mode == Mode::Live && self.is_quiet()
    }

    /// The writer has sent the frame of a group himself, all but this rest of it.
    pub(crate) fn offered_at_once(&mut self, last: u64, rest: Option<Bytes>) {
        self.offered = last;
        self.sent = last;
        if let Some(rest) = rest {
            // What is begun has to be finished: like an answer it is never dropped. A worker that asks for everything
            // from an earlier number on meanwhile is sent this group twice, as when it is just being sent.
            self.answer(rest);
        }
    }

    /// Everything up to this number is durable.
    pub(crate) fn published(&mut self, committed: u64) {
        self.committed = self.committed.max(committed);
    }

    /// Is the worker sent the log, so that a published number may be news for the sender?
    pub(crate) fn replays(&self) -> bool {
        matches!(self.mode, Mode::Replaying | Mode::Joining { .. })
    }

    /// An answer, or several in one piece.
    pub(crate) fn answer(&mut self, bytes: Bytes) {
        self.answer_bytes += bytes.len();
        self.answers += 1;
        self.items.push_back(Item::Answer(bytes));
    }

    /// The worker has asked something.
    pub(crate) fn asked(&mut self) {
        self.questions += 1;
    }

    /// A question is answered.
    pub(crate) fn answer_question(&mut self, bytes: Bytes) {
        self.questions = self.questions.saturating_sub(1);
        self.answer(bytes);
    }

    /// The answers given so far are the last ones.
    pub(crate) fn close_when_sent(&mut self) {
        self.last_answer_given = true;
    }

    /// May the worker ask for more?
    pub(crate) fn has_room(&self) -> bool {
        self.answer_bytes <= ANSWER_BYTES_MAX && self.answers <= ANSWERS_MAX && self.questions < QUESTIONS_MAX
    }

    /// Has every answer been sent?
    pub(crate) fn is_answered(&self) -> bool {
        self.answers == 0 && !self.sending
    }

    /// What the sender does next, now that the step before is done; `None` to wait.
    pub(crate) fn next(&mut self) -> Option<Step> {
        let step = self.step();
        self.sending = step.is_some();
        step
    }

    fn step(&mut self) -> Option<Step> {
        if let Some(frames) = self.take() {
            return Some(Step::Send(frames));
        }
        if self.last_answer_given {
            return Some(Step::Close);
        }
        if self.mode == Mode::Replaying {
            if self.sent >= self.offered {
                self.mode = Mode::Live;
            } else if self.offered - self.sent <= JOIN_DISTANCE {
                self.mode = Mode::Joining { up_to: self.offered };
            }
        }
        let up_to = match self.mode {
            Mode::Idle => return None,
            Mode::Copying => return Some(Step::Copy { round: self.round }),
            Mode::Joining { up_to } if self.sent >= up_to => {
                self.mode = Mode::Live;
                return self.take().map(Step::Send);
            }
            Mode::Live => return self.take().map(Step::Send),
            Mode::Joining { up_to } => up_to.min(self.committed),
            Mode::Replaying => self.committed,
        };
        (up_to > self.sent).then_some(Step::Replay { round: self.round, after: self.sent, up_to })
    }

    /// The answers that wait, for a sender in the middle of a complete copy.
    pub(crate) fn take_answers(&mut self) -> Vec<Bytes> {
        let mut answers = Vec::new();
        self.items.retain(|item| match item {
            Item::Feed(_) => true,
            Item::Answer(bytes) => {
                answers.push(bytes.clone());
                false
            }
        });
        self.answer_bytes = 0;
        self.answers = 0;
        answers
    }

    /// Is this round still wanted?
    pub(crate) fn is_current(&self, round: u64) -> bool {
        self.round == round
    }

    /// The log was sent up to this number.
    pub(crate) fn replayed(&mut self, round: u64, reached: u64) {
        if self.is_current(round) {
            self.sent = self.sent.max(reached);
        }
    }

    /// A complete copy that shows the log up to `at` is about to be sent.
    pub(crate) fn copying(&mut self, round: u64, at: u64) {
        if self.is_current(round) && self.mode == Mode::Copying {
            self.copy_at = Some(at);
        }
    }

    /// A complete copy was sent.
    pub(crate) fn copied(&mut self, round: u64, at: u64) {
        if self.is_current(round) && self.mode == Mode::Copying {
            self.copy_at = None;
            self.sent = at;
            self.mode = Mode::Replaying;
        }
    }

    /// The log does not go back far enough.
    pub(crate) fn gone(&mut self, round: u64) {
        if self.is_current(round) {
            self.restart(None);
        }
    }

    /// Last number that the log has to keep for this worker, if it is sent the log or a copy.
    pub(crate) fn needs_log_after(&self) -> Option<u64> {
        if self.replays() { Some(self.sent) } else { self.copy_at }
    }

    /// Is the worker sent the live feed?
    #[cfg(test)]
    pub(crate) fn is_live(&self) -> bool {
        self.mode == Mode::Live
    }

    fn take(&mut self) -> Option<Vec<Bytes>> {
        if self.mode != Mode::Live {
            return (self.answers > 0).then(|| self.take_answers());
        }
        let (mut frames, mut bytes) = (Vec::new(), 0);
        while let Some(item) = self.items.front() {
            let length = match item {
                Item::Feed(frame) => frame.bytes.len(),
                Item::Answer(bytes) => bytes.len(),
            };
            if !frames.is_empty() && (bytes + length > SEND_BYTES || frames.len() >= SEND_FRAMES) {
                break;
            }
            bytes += length;
            match self.items.pop_front() {
                Some(Item::Feed(frame)) => {
                    self.feed_bytes -= length;
                    self.sent = frame.last;
                    frames.push(frame.bytes);
                }
                Some(Item::Answer(answer)) => {
                    self.answer_bytes -= length;
                    self.answers -= 1;
                    frames.push(answer);
                }
                None => break,
            }
        }
        (!frames.is_empty()).then_some(frames)
    }

    fn drop_feed(&mut self) {
        self.items.retain(|item| matches!(item, Item::Answer(_)));
        self.feed_bytes = 0;
    }
}

#[cfg(test)]
mod tests;
