//! One group commit.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use aegis_ipc::{
    board::StoreWord,
    brief,
    data::{Change, ChangeKind, FromStore, Outcome},
    frame,
};
use bytes::Bytes;

use super::{Writer, gather::Patience};
use crate::{
    clock::now_ms,
    commit::{self, Placed, Plan, Requested, View},
    engine::{Batch, CommittedWrite, EngineResult, Head, KeptResponse, UniqueEdit, UniqueKey},
    error::{StoreError, chain},
    link::{FeedFrame, Form, Handover, Link},
    recover::{reserve, truncations},
    requests::RecentRequests,
    shared::Intake,
    storage::{Place, Storage},
};

/// Bytes of messages after which a group takes no further write.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// Bodies and what is different in them in one feed frame, bytes; the last one may exceed it. A larger group is cut into several frames.
const FEED_FRAME_BYTES: usize = 8 * 1024 * 1024;
/// Rough bytes of a change in a feed frame beside its body, for the capacity only.
const CHANGE_OVERHEAD_BYTES: usize = 128;

/// A write's way back.
struct Asker {
    link: Arc<Link>,
    request: u64,
}

impl Writer {
    /// Commits `first` and whatever waits behind it.
    pub(super) fn commit_group(&mut self, first: Intake) -> Result<(), StoreError> {
        let (askers, group) = self.gather_group(first);
        if let Some(reason) = self.space.refusal() {
            let refuse = |_: &Requested| Outcome::Unavailable { reason: reason.to_owned() };
            let outcomes = group.iter().map(refuse).collect();
            answer(askers, outcomes);
            return Ok(());
        }
        let outcomes =
            self.commit(group).map_err(|source| StoreError::engine("committing a group", source))?;
        answer(askers, outcomes);
        Ok(())
    }

    /// Takes what waits in the queue, and perhaps what is about to come, as far as it fits into one group.
    fn gather_group(&mut self, first: Intake) -> (Vec<Asker>, Vec<Requested>) {
        let writes_max = self.settings.store.group_writes_max.max(1) as usize;
        let (mut askers, mut group, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(first);
        let mut waiting: Option<(Patience, usize, Instant)> = None;
        while let Some(Intake { link, requested, bytes: length }) = next {
            self.shared.taken(length);
            askers.push(Asker { link, request: requested.write.request });
            group.push(requested);
            bytes += length;
            if group.len() >= writes_max || bytes >= GROUP_BYTES {
                break;
            }
            next = self.inbox.intake.try_recv().ok();
            if next.is_none() && waiting.is_none() {
                let patience = self.gather.patience(group.len(), writes_max);
                waiting = patience.map(|patience| (patience, group.len(), Instant::now() + patience.wait));
            }
            if next.is_none()
                && let Some((_, _, deadline)) = waiting.filter(|(patience, ..)| group.len() < patience.wanted)
            {
                next = self.inbox.intake.recv_deadline(deadline).ok();
            }
        }
        if let Some((patience, before, _)) = waiting {
            self.gather.waited(patience, before, group.len());
        }
        (askers, group)
    }

    fn commit(&mut self, group: Vec<Requested>) -> EngineResult<Vec<Outcome>> {
        let begun = Instant::now();
        let now_ms = now_ms();
        let shared = Arc::clone(&self.shared);
        let (storage, rules) = (&shared.storage, shared.rules());
        let before = storage.committed();
        let oldest_ms = shared.expired_ms();
        let view = StoredView { storage, requests: &self.requests, oldest_ms };
        let plan = commit::plan(&view, &rules, group, before, now_ms)?;
        shared.board.store(StoreWord::Conflicts).fetch_add(plan.conflicts, Ordering::Relaxed);
        let Plan { outcomes, changes, places, unique, responses, committed, collisions, .. } = plan;
        if committed.is_empty() {
            return Ok(outcomes);
        }
        let last = before + changes.len() as u64;
        if !changes.is_empty() {
            // Before they are synced: the workers take them in meanwhile.
            self.shared.registry.offer(last, |form| feed_frames(before, &changes, form));
        }
        let row = self.requests.row(now_ms, &committed);
        let mut batches = Batches::sort(&changes, &places, unique, responses);
        batches.file.requests.clone_from(&row);
        if places.contains(&Place::Memory) {
            batches.file.meta.extend(reserve(last, &mut self.reserved));
        }
        self.forget_with_group(&mut batches.file)?;
        let syncing = Instant::now();
        storage.apply(&batches.file, &batches.memory, last)?;
        self.gather.committed(outcomes.len(), self.inbox.intake.len(), syncing.elapsed());
        self.published(last, changes.len(), begun);
        self.requests.committed(now_ms, row.as_ref(), &committed);
        collisions.into_iter().for_each(|collision| self.collided(collision));
        Ok(outcomes)
    }

    /// Commits that these models, which are only in memory, have no documents.
    pub(super) fn commit_empty(&mut self, models: &[String]) -> EngineResult<()> {
        let begun = Instant::now();
        let before = self.shared.storage.committed();
        let changes = truncations(before, models);
        let Some(last) = changes.last().map(|change| change.sequence) else { return Ok(()) };
        self.shared.registry.offer(last, |form| feed_frames(before, &changes, form));
        let file =
            Batch { meta: reserve(last, &mut self.reserved).into_iter().collect(), ..Batch::default() };
        let memory = Batch { changes: changes.iter().collect(), ..Batch::default() };
        self.shared.storage.apply(&file, &memory, last)?;
        self.published(last, changes.len(), begun);
        Ok(())
    }

    fn published(&self, last: u64, changes: usize, begun: Instant) {
        let on_disk = self.shared.storage.engine(Place::File).last();
        self.shared.board.store(StoreWord::OnDisk).fetch_max(on_disk, Ordering::Release);
        self.shared.board.publish_durable(last);
        self.shared.registry.published(last);
        let count = |word, amount| self.shared.board.store(word).fetch_add(amount, Ordering::Relaxed);
        count(StoreWord::Groups, 1);
        count(StoreWord::Changes, changes as u64);
        count(StoreWord::CommitMicroseconds, u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
}

/// What goes where.
struct Batches<'a> {
    file: Batch<'a>,
    memory: Batch<'a>,
}

impl<'a> Batches<'a> {
    fn sort(
        changes: &'a [Change],
        places: &[Place],
        unique: Vec<Placed<UniqueEdit>>,
        responses: Vec<Placed<KeptResponse>>,
    ) -> Self {
        let mut batches = Self { file: Batch::default(), memory: Batch::default() };
        for (change, place) in changes.iter().zip(places) {
            batches.at(*place).changes.push(change);
        }
        for Placed { place, what } in unique {
            batches.at(place).unique.push(what);
        }
        for Placed { place, what } in responses {
            batches.at(place).responses.push(what);
        }
        batches
    }

    fn at(&mut self, place: Place) -> &mut Batch<'a> {
        match place {
            Place::File => &mut self.file,
            Place::Memory => &mut self.memory,
        }
    }
}

/// What is committed, as a plan sees it.
struct StoredView<'a> {
    storage: &'a Storage,
    requests: &'a RecentRequests,
    oldest_ms: u64,
}

impl View for StoredView<'_> {
    fn head(&self, place: Place, model: &str, id: &str) -> EngineResult<Option<Head>> {
        self.storage.engine(place).head(model, id)
    }

    fn body(&self, place: Place, model: &str, id: &str) -> EngineResult<Option<Bytes>> {
        Ok(self.storage.engine(place).document(model, id)?.map(|stored| stored.body))
    }

    fn unique_owner(&self, place: Place, key: &UniqueKey) -> EngineResult<Option<String>> {
        self.storage.engine(place).unique_owner(key)
    }

    fn response(&self, key: &str) -> EngineResult<Option<KeptResponse>> {
        self.storage.response(key, self.oldest_ms)
    }

    fn committed(&self, incarnation: u64, request: u64) -> Option<CommittedWrite> {
        self.requests.find(incarnation, request)
    }
}

/// Encodes the changes after `before`.
fn feed_frames(before: u64, changes: &[Change], form: Form) -> Vec<FeedFrame> {
    let total: usize = changes.iter().map(body_bytes).sum();
    let mut frames = Vec::with_capacity(1);
    let (mut first, mut rest) = (before + 1, changes);
    while !rest.is_empty() {
        let length = if total <= FEED_FRAME_BYTES { rest.len() } else { piece_length(rest) };
        let (piece, tail) = rest.split_at(length);
        let last = first + piece.len() as u64 - 1;
        let capacity = total.min(2 * FEED_FRAME_BYTES) + piece.len() * CHANGE_OVERHEAD_BYTES;
        let mut bytes = Vec::with_capacity(capacity);
        let written = match form {
            Form::Brief => brief::write_feed(first, last, piece, &mut bytes),
            Form::Plain => {
                let feed = FromStore::Feed { first, last, changes: piece.to_vec() };
                frame::write_message(&feed, &mut bytes)
            }
        };
        match written {
            Ok(()) => frames.push(FeedFrame { last, bytes: bytes.into() }),
            // The worker notices the gap and is sent the log. It cannot happen while the bounds of a write hold.
            Err(error) => {
                tracing::error!(first, last, error = chain(&error), "a group cannot be sent as feed")
            }
        }
        first = last + 1;
        rest = tail;
    }
    frames
}

/// How many of the changes go into one frame.
fn piece_length(changes: &[Change]) -> usize {
    let mut bytes = 0;
    let full = changes.iter().position(|change| {
        bytes += body_bytes(change);
        bytes > FEED_FRAME_BYTES
    });
    full.map_or(changes.len(), |at| at + 1)
}

fn body_bytes(change: &Change) -> usize {
    match &change.kind {
        ChangeKind::Put { body, changes, .. } => body.len() + changes.as_ref().map_or(0, Bytes::len),
        ChangeKind::Remove { .. } | ChangeKind::Truncate => 0,
    }
}

/// Answers everybody, with one piece for each connection.
fn answer(askers: Vec<Asker>, outcomes: Vec<Outcome>) {
    let mut pieces: HashMap<u64, (Arc<Link>, Vec<u8>)> = HashMap::new();
    for (Asker { link, request }, outcome) in askers.into_iter().zip(outcomes) {
        let (link, bytes) = pieces.entry(link.number).or_insert_with(|| (link, Vec::with_capacity(256)));
        let written = match link.form() {
            Form::Brief => brief::write_outcome(request, outcome, bytes),
            Form::Plain => frame::write_message(&FromStore::Written { request, outcome }, bytes),
        };
        if let Err(error) = written {
            tracing::error!(link = link.number, error = chain(&error), "an answer cannot be sent");
            link.close();
        }
    }
    let handover = Handover::to(pieces.len());
    for (link, bytes) in pieces.into_values() {
        link.answer_frames(bytes.into(), handover);
    }
}
