//! A simulated store drives the core through lost connections, lost, doubled and swapped frames, crashes that lose
//! or keep what was not yet published, lag, complete copies and a log that has been cut.

use std::collections::{BTreeMap, VecDeque};

use aegis_ipc::data::ChangeKind;
use bytes::Bytes;
use proptest::prelude::*;

use super::*;

type Documents = BTreeMap<String, (u64, Bytes)>;

#[derive(Debug, Clone)]
enum Frame {
    Attached { epoch: u64, durable: u64 },
    CopyBegin { at: u64 },
    CopyPage { documents: Vec<Stored> },
    CopyEnd { at: u64 },
    Feed { first: u64, last: u64, changes: Vec<Change> },
}

#[derive(Debug, Clone)]
enum Step {
    Commit { changes: u8, skipped_numbers: u8 },
    Publish,
    Crash { keeps_unpublished: bool },
    Deliver { frames: u8 },
    LoseFrame,
    DoubleFrame,
    SwapFrames,
    Cut,
    Lag,
    CutLog,
    Look,
    Tick { milliseconds: u16 },
}

/// The store, its log and one connection to it.
struct Store {
    log: Vec<(Change, GroupEnd)>,
    oldest: u64,
    next: u64,
    board: Watermark,
    epoch: u64,
    made: u64,
    frame_changes: usize,
    copies: Copies,
    wire: VecDeque<Frame>,
    alive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GroupEnd {
    Yes,
    No,
}

/// What a complete copy shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Copies {
    WhatIsDurable,
    WhatIsCommitted,
}

impl Store {
    fn new(frame_changes: usize, copies: Copies) -> Self {
        let board = Watermark { durable: 0, epoch: 1 };
        Self {
            log: Vec::new(),
            oldest: 1,
            next: 1,
            board,
            epoch: 1,
            made: 0,
            frame_changes,
            copies,
            wire: VecDeque::new(),
            alive: true,
        }
    }

    fn commit(&mut self, changes: u8, skipped_numbers: u8) {
        self.next += u64::from(skipped_numbers);
        let before = self.next - 1 - u64::from(skipped_numbers);
        let start = self.log.len();
        for index in 0..changes {
            self.made += 1;
            let id = format!("d{}", self.made % 5);
            let kind = match self.made % 7 {
                0 => ChangeKind::Remove { id, revision: 1 },
                6 if self.made.is_multiple_of(4) => ChangeKind::Truncate,
                _ => ChangeKind::Put {
                    id,
                    revision: 1,
                    body: Bytes::from(self.made.to_string()),
                    changes: None,
                },
            };
            let change = Change { sequence: self.next, model: "M".into(), kind, time_ms: 0 };
            self.next += 1;
            let end = if index + 1 == changes { GroupEnd::Yes } else { GroupEnd::No };
            self.log.push((change, end));
        }
        let changes = self.log[start..].iter().map(|(change, _)| change.clone()).collect();
        self.send(Frame::Feed { first: before + 1, last: self.next - 1, changes });
    }

    fn send(&mut self, frame: Frame) {
        if self.alive {
            self.wire.push_back(frame);
        }
    }

    fn publish(&mut self) {
        self.board.durable = self.next - 1;
    }

    fn crash(&mut self, keeps_unpublished: bool) {
        self.alive = false;
        self.epoch += 1;
        self.board.epoch = self.epoch;
        if keeps_unpublished {
            self.publish();
        } else {
            let durable = self.board.durable;
            self.log.retain(|(change, _)| change.sequence <= durable);
            self.next = durable + 1;
        }
    }

    fn attach(&mut self, from: Option<u64>) {
        self.wire.clear();
        self.alive = true;
        self.send(Frame::Attached { epoch: self.epoch, durable: self.board.durable });
        self.replay(from);
    }

    fn replay(&mut self, from: Option<u64>) {
        let mut after = match from.filter(|from| from + 1 >= self.oldest) {
            Some(from) => from,
            None => {
                let at = match self.copies {
                    Copies::WhatIsDurable => self.board.durable,
                    Copies::WhatIsCommitted => self.next - 1,
                };
                self.send(Frame::CopyBegin { at });
                for (id, (sequence, body)) in self.documents(at) {
                    let stored = Stored { model: "M".into(), id, revision: 1, sequence, body };
                    self.send(Frame::CopyPage { documents: vec![stored] });
                }
                self.send(Frame::CopyEnd { at });
                at
            }
        };
        let rest: Vec<Change> = self
            .log
            .iter()
            .filter(|(change, _)| change.sequence > after)
            .map(|(change, _)| change.clone())
            .collect();
        for changes in rest.chunks(self.frame_changes) {
            let last = changes[changes.len() - 1].sequence;
            self.send(Frame::Feed { first: after + 1, last, changes: changes.to_vec() });
            after = last;
        }
    }

    /// The documents as the log up to `through` makes them.
    fn documents(&self, through: u64) -> Documents {
        let mut documents = Documents::new();
        for (change, _) in self.log.iter().filter(|(change, _)| change.sequence <= through) {
            apply(&mut documents, change);
        }
        documents
    }

    fn ends_a_group(&self, number: u64) -> bool {
        let last = self.log.iter().rfind(|(change, _)| change.sequence <= number);
        last.is_none_or(|(_, end)| *end == GroupEnd::Yes)
    }
}

fn apply(documents: &mut Documents, change: &Change) {
    match &change.kind {
        ChangeKind::Put { id, body, .. } => {
            documents.insert(id.clone(), (change.sequence, body.clone()));
        }
        ChangeKind::Remove { id, .. } => {
            documents.remove(id);
        }
        ChangeKind::Truncate => documents.clear(),
    }
}

/// A worker around the core: carries out its actions and checks every promise.
struct Worker {
    core: Coherence,
    documents: Documents,
    copy: Option<Documents>,
    now: Instant,
    shown: u64,
    ready_from: Option<u64>,
    ready: bool,
}

impl Worker {
    fn new() -> Self {
        let now = Instant::now();
        let core = Coherence::new(now);
        Self { core, documents: Documents::new(), copy: None, now, shown: 0, ready_from: None, ready: false }
    }

    fn carry_out(&mut self, actions: Vec<Action>, store: &mut Store) {
        for action in actions {
            match action {
                Action::Apply { changes, through } => {
                    assert!(through > self.shown, "applied only grows");
                    changes.iter().for_each(|change| apply(&mut self.documents, change));
                    self.check(through, store);
                }
                Action::BeginCopy => self.copy = Some(Documents::new()),
                Action::FillCopy(documents) => {
                    let copy = self.copy.as_mut().expect("begun");
                    copy.extend(documents.into_iter().map(|found| (found.id, (found.sequence, found.body))));
                }
                Action::AdoptCopy { at } => {
                    assert!(at >= self.shown, "applied only grows");
                    self.documents = self.copy.take().expect("begun");
                    self.check(at, store);
                }
                Action::DropCopy => self.copy = None,
                Action::Resync { applied } => {
                    assert_eq!(applied, self.shown);
                    store.replay(Some(applied));
                }
                Action::Resend => {}
                Action::BecomeReady => {
                    assert!(!self.ready, "ready once");
                    assert!(Some(self.shown) >= self.ready_from, "ready too early");
                    self.ready = true;
                }
                Action::Disconnect { .. } => {
                    self.reconnect(store);
                    break;
                }
            }
        }
        assert_eq!(self.core.applied().unwrap_or(0), self.shown);
    }

    fn check(&mut self, through: u64, store: &Store) {
        assert!(
            through <= store.board.durable,
            "{through} shown above the watermark {}",
            store.board.durable
        );
        assert!(store.ends_a_group(through), "{through} is in the middle of a group");
        assert_eq!(self.documents, store.documents(through), "not the log up to {through}");
        self.shown = through;
    }

    fn reconnect(&mut self, store: &mut Store) {
        let mut actions = Vec::new();
        self.core.disconnected(&mut actions);
        self.carry_out(actions, store);
        store.attach(self.core.attach_from());
    }

    fn deliver(&mut self, store: &mut Store) {
        let Some(frame) = store.wire.pop_front() else {
            if !store.alive {
                self.reconnect(store);
            }
            return;
        };
        let mut actions = Vec::new();
        let (now, board) = (self.now, store.board);
        match frame {
            Frame::Attached { epoch, durable } => {
                self.ready_from.get_or_insert(durable);
                self.core.attached(epoch, durable, now, &mut actions);
            }
            Frame::CopyBegin { at } => self.core.copy_begun(at, now, &mut actions),
            Frame::CopyPage { documents } => self.core.copy_page(documents, now, &mut actions),
            Frame::CopyEnd { at } => self.core.copy_ended(at, now, board, &mut actions),
            Frame::Feed { first, last, changes } => {
                self.core.received(first, last, changes, now, &mut actions)
            }
        }
        self.carry_out(actions, store);
    }

    fn look(&mut self, store: &mut Store) {
        let mut actions = Vec::new();
        self.core.look(store.board, &mut actions);
        self.carry_out(actions, store);
    }

    fn tick(&mut self, passed: Duration, store: &mut Store) {
        self.now += passed;
        let mut actions = Vec::new();
        self.core.tick(store.board, self.now, &mut actions);
        self.carry_out(actions, store);
    }
}

fn run(step: &Step, worker: &mut Worker, store: &mut Store) {
    let feeds: Vec<usize> =
        (0..store.wire.len()).filter(|index| matches!(store.wire[*index], Frame::Feed { .. })).collect();
    match step {
        Step::Commit { changes, skipped_numbers } => store.commit(*changes, *skipped_numbers),
        Step::Publish => store.publish(),
        Step::Crash { keeps_unpublished } => store.crash(*keeps_unpublished),
        Step::Deliver { frames } => (0..*frames).for_each(|_| worker.deliver(store)),
        Step::LoseFrame => {
            feeds.first().map(|index| store.wire.remove(*index));
        }
        Step::DoubleFrame => {
            if let Some(index) = feeds.last() {
                let frame = store.wire[*index].clone();
                store.wire.push_back(frame);
            }
        }
        Step::SwapFrames => {
            if let [first, .., last] = feeds[..] {
                store.wire.swap(first, last);
            }
        }
        Step::Cut => worker.reconnect(store),
        Step::Lag => store.wire.retain(|frame| !matches!(frame, Frame::Feed { .. })),
        Step::CutLog => store.oldest = store.board.durable + 1,
        Step::Look => worker.look(store),
        Step::Tick { milliseconds } => worker.tick(Duration::from_millis(u64::from(*milliseconds)), store),
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1..4_u8, prop_oneof![8 => Just(0_u8), 1 => 1..3_u8])
            .prop_map(|(changes, skipped_numbers)| Step::Commit { changes, skipped_numbers }),
        6 => Just(Step::Publish),
        1 => any::<bool>().prop_map(|keeps_unpublished| Step::Crash { keeps_unpublished }),
        8 => (1..6_u8).prop_map(|frames| Step::Deliver { frames }),
        6 => Just(Step::Look),
        1 => Just(Step::LoseFrame),
        1 => Just(Step::DoubleFrame),
        1 => Just(Step::SwapFrames),
        1 => Just(Step::Cut),
        1 => Just(Step::Lag),
        1 => Just(Step::CutLog),
        2 => (0..3000_u16).prop_map(|milliseconds| Step::Tick { milliseconds }),
    ];
    prop::collection::vec(step, 0..160)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_copy_is_always_the_log_up_to_an_end_of_a_group_and_catches_up(
        steps in steps(),
        frame_changes in 1..4_usize,
        copies in prop_oneof![Just(Copies::WhatIsDurable), Just(Copies::WhatIsCommitted)],
    ) {
        let mut store = Store::new(frame_changes, copies);
        let mut worker = Worker::new();
        store.attach(worker.core.attach_from());
        for step in &steps {
            run(step, &mut worker, &mut store);
        }
        store.publish();
        for _ in 0..400 {
            worker.deliver(&mut store);
            worker.tick(Duration::from_millis(50), &mut store);
        }
        prop_assert_eq!(worker.core.applied(), Some(store.board.durable));
        prop_assert!(worker.ready);
        prop_assert_eq!(worker.core.held_back(), 0);
    }
}

fn put(sequence: u64) -> Change {
    let kind = ChangeKind::Put {
        id: format!("d{sequence}"),
        revision: 1,
        body: Bytes::from_static(b"{}"),
        changes: None,
    };
    Change { sequence, model: "M".into(), kind, time_ms: 0 }
}

fn following(now: Instant) -> Coherence {
    let mut core = Coherence::new(now);
    let mut actions = Vec::new();
    core.attached(1, 0, now, &mut actions);
    core.copy_begun(0, now, &mut actions);
    core.copy_ended(0, now, Watermark { durable: 0, epoch: 1 }, &mut actions);
    assert_eq!(
        actions,
        [Action::Resend, Action::BeginCopy, Action::AdoptCopy { at: 0 }, Action::BecomeReady],
        "an empty store makes a worker ready at once"
    );
    core
}

#[test]
fn changes_of_a_dead_store_are_not_shown_by_the_watermark_of_the_next_one() {
    let now = Instant::now();
    let mut core = following(now);
    let mut actions = Vec::new();
    core.received(1, 2, vec![put(1), put(2)], now, &mut actions);
    core.look(Watermark { durable: 2, epoch: 2 }, &mut actions);
    assert_eq!(actions, [], "the numbers 1 and 2 mean something else by now");
    core.look(Watermark { durable: 2, epoch: 1 }, &mut actions);
    assert_eq!(actions, [Action::Apply { changes: vec![put(1), put(2)], through: 2 }]);
}

#[test]
fn a_group_cut_into_two_frames_is_shown_once_it_is_complete() {
    let now = Instant::now();
    let mut core = following(now);
    let mut actions = Vec::new();
    core.received(1, 2, vec![put(1), put(2)], now, &mut actions);
    core.look(Watermark { durable: 3, epoch: 1 }, &mut actions);
    assert_eq!(actions, []);
    core.received(3, 5, vec![put(3), put(4), put(5)], now, &mut actions);
    core.look(Watermark { durable: 9, epoch: 1 }, &mut actions);
    assert_eq!(actions, [Action::Apply { changes: vec![put(1), put(2), put(3)], through: 3 }]);
    assert_eq!(core.held_back(), 2);
}

#[test]
fn a_change_that_comes_in_two_frames_is_shown_once() {
    let now = Instant::now();
    let mut core = following(now);
    let mut actions = Vec::new();
    core.received(1, 2, vec![put(1), put(2)], now, &mut actions);
    core.received(1, 2, vec![put(1), put(2)], now, &mut actions);
    core.received(2, 3, vec![put(2), put(3)], now, &mut actions);
    core.look(Watermark { durable: 3, epoch: 1 }, &mut actions);
    assert_eq!(actions, [Action::Apply { changes: vec![put(1), put(2), put(3)], through: 3 }]);
}

#[test]
fn a_lost_last_frame_is_noticed_by_the_watermark() {
    let now = Instant::now();
    let mut core = following(now);
    let mut actions = Vec::new();
    let board = Watermark { durable: 4, epoch: 1 };
    core.tick(board, now, &mut actions);
    core.tick(board, now + SILENCE_MAX, &mut actions);
    assert_eq!(actions, []);
    core.tick(board, now + SILENCE_MAX + Duration::from_millis(1), &mut actions);
    assert_eq!(actions, [Action::Resync { applied: 0 }]);
}

#[test]
fn a_stream_that_had_nothing_to_tell_is_not_taken_for_one_that_lost_a_frame() {
    let now = Instant::now();
    let mut core = following(now);
    let mut actions = Vec::new();
    let late = now + 60 * SILENCE_MAX;
    core.tick(Watermark { durable: 0, epoch: 1 }, late, &mut actions);
    core.tick(Watermark { durable: 1, epoch: 1 }, late + SILENCE_MAX + SILENCE_MAX, &mut actions);
    assert_eq!(actions, [], "the frame of a change that was published just now is on its way");
    core.received(1, 1, vec![put(1)], late + 2 * SILENCE_MAX, &mut actions);
    core.tick(Watermark { durable: 1, epoch: 1 }, late + 3 * SILENCE_MAX, &mut actions);
    assert_eq!(actions, [Action::Apply { changes: vec![put(1)], through: 1 }]);
}

#[test]
fn a_gap_that_stays_is_answered_with_a_complete_copy() {
    let now = Instant::now();
    let mut core = following(now);
    for _ in 0..GAPS_IN_A_ROW_MAX {
        let mut actions = Vec::new();
        core.received(5, 5, vec![put(5)], now, &mut actions);
        assert_eq!(actions, [Action::Resync { applied: 0 }]);
        core.attached(1, 5, now, &mut Vec::new());
        assert_eq!(core.attach_from(), Some(0));
    }
    let mut actions = Vec::new();
    core.received(5, 5, vec![put(5)], now, &mut actions);
    assert_eq!(actions, [Action::Disconnect { reason: "a gap after 0".to_owned() }]);
    assert_eq!(core.attach_from(), None);
}

#[test]
fn frames_that_contradict_themselves_end_the_connection() {
    for (first, last, changes) in
        [(2, 1, vec![]), (1, 2, vec![put(3)]), (1, 3, vec![put(2), put(1)]), (1, 3, vec![put(1), put(1)])]
    {
        let now = Instant::now();
        let mut core = following(now);
        let mut actions = Vec::new();
        core.received(first, last, changes, now, &mut actions);
        assert!(matches!(actions[..], [Action::Disconnect { .. }]), "{actions:?}");
    }
}

#[test]
fn a_copy_from_the_past_is_refused() {
    let now = Instant::now();
    let mut core = following(now);
    let mut actions = Vec::new();
    core.received(1, 2, vec![put(1), put(2)], now, &mut actions);
    core.look(Watermark { durable: 2, epoch: 1 }, &mut actions);
    actions.clear();
    core.copy_begun(1, now, &mut actions);
    assert!(matches!(actions[..], [Action::Disconnect { .. }]), "{actions:?}");
}
