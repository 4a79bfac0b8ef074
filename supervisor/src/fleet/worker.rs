//! One worker process, as the fleet sees it.

use serde::{Deserialize, Serialize};

use super::adoption::Adoption;

/// One worker process.
///
/// ```text
/// Starting ── ready ──► Ready ── Serve ──► Serving ── Drain ──► Draining ──► gone
///     │                   │               ▲      │                 │ deadline + grace
///     │                   │          beat │      │ silent          ▼
///     │                   │               └ Suspect ── silent ──► Killed ──► gone
///     └── late, dismissed ┴──────────────────────────────────────► ▲
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Worker {
    pub(super) slot: u32,
    pub(super) generation: u64,
    pub(super) cell: u32,
    /// 0 until it is known.
    pub(super) pid: u32,
    pub(super) purpose: Purpose,
    pub(super) state: State,
    pub(super) spawned_ms: u64,
    pub(super) ready_ms: Option<u64>,
    /// Last known sign of life, once it is ready.
    pub(super) heard_ms: u64,
    /// Why it is to be replaced although nothing is wrong with it.
    pub(super) replace: Option<Replace>,
    /// It announced its end, or cannot be steered; it is killed if it is still there then.
    pub(super) doom: Option<Doom>,
    /// Requests it may answer before it is recycled.
    pub(super) requests_max: Option<u64>,
    /// Whether it can take another generation over.
    #[serde(default)]
    pub(super) adoption: Adoption,
    /// When it last took one over.
    #[serde(default)]
    pub(super) adopted_ms: Option<u64>,
}

/// Why a worker was started; the kinds are limited separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Purpose {
    /// Its slot was empty by plan: start, scaling, resuming.
    Fill,
    /// Its slot was empty because of trouble.
    Refill,
    /// To take over from another one in its slot.
    Replacement,
    /// To be judged.
    Canary,
}

/// State of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum State {
    /// Not ready yet.
    Starting,
    /// Ready, not accepting.
    Ready,
    /// Accepting.
    Serving,
    /// Accepting, as far as we know, but without a sign of life.
    Suspect,
    /// Finishing.
    Draining {
        /// When it is killed.
        kill_at_ms: Option<u64>,
        /// Why it drains.
        why: Leave,
        /// Until when it may take connections, as it has not said that it does not.
        #[serde(default)]
        accepts_until_ms: Option<u64>,
    },
    /// Sent SIGKILL.
    Killed {
        /// What to say about it.
        why: String,
        /// When to send it again.
        again_ms: u64,
    },
}

/// Why a worker drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Leave {
    /// Another one took over.
    Replaced,
    /// Fewer are wanted.
    ScaledDown,
    /// What it was started for was called off.
    Dismissed,
    /// All are drained on request.
    Paused,
    /// The host ends.
    Stopped,
    /// Nobody asked it to: somebody signalled it.
    OwnWill,
}

/// Why a worker is to be replaced although nothing is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Replace {
    /// Somebody asked for it.
    Restart,
    /// It uses too much memory, or answered enough requests.
    Recycle,
}

/// An end that was announced or must be assumed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Doom {
    /// What to say about it.
    pub(super) reason: String,
    /// Exit status that was announced.
    pub(super) code: Option<u8>,
    /// When it is killed.
    pub(super) kill_at_ms: u64,
}

impl Worker {
    /// Whether it fills its slot: neither leaving nor killed.
    pub(super) fn is_incumbent(&self) -> bool {
        match self.state {
            State::Starting | State::Ready | State::Serving | State::Suspect => true,
            State::Draining { .. } | State::Killed { .. } => false,
        }
    }

    /// Whether it takes connections, shows signs of life and is not about to end.
    pub(super) fn is_serving(&self) -> bool {
        self.state == State::Serving && self.doom.is_none()
    }

    /// Whether it is draining.
    pub(super) fn is_draining(&self) -> bool {
        matches!(self.state, State::Draining { .. })
    }

    /// Whether it can stay: of the wanted generation and nothing against it.
    pub(super) fn is_right(&self, generation: u64) -> bool {
        self.generation == generation
            && self.adoption.stays(generation)
            && self.replace.is_none()
            && self.doom.is_none()
            && matches!(self.state, State::Starting | State::Ready | State::Serving)
    }

    /// Milliseconds since it became ready, 0 before.
    pub(super) fn lived_ms(&self, now_ms: u64) -> u64 {
        self.ready_ms.map_or(0, |ready_ms| now_ms.saturating_sub(ready_ms))
    }

    /// Milliseconds since it became ready, or since it took its generation over, 0 before.
    pub(super) fn proven_ms(&self, now_ms: u64) -> u64 {
        self.ready_ms.max(self.adopted_ms).map_or(0, |since_ms| now_ms.saturating_sub(since_ms))
    }

    /// The word for its state in [`aegis_ipc::operator::WorkerStatus`].
    pub(super) fn state_name(&self) -> &'static str {
        match self.state {
            State::Starting => "starting",
            State::Ready => "ready",
            State::Serving => "serving",
            State::Suspect => "suspect",
            State::Draining { .. } => "draining",
            State::Killed { .. } => "killed",
        }
    }
}

impl Leave {
    /// What the death tally says about a worker that left in good order.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Replaced => "drained",
            Self::ScaledDown => "drained, scaled down",
            Self::Dismissed => "drained, not needed any more",
            Self::Paused => "drained on request",
            Self::Stopped => "drained, the host ends",
            Self::OwnWill => "drained by its own will",
        }
    }
}
