use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    /// The writer offers this many changes.
    Offer(u64),
    /// The writer sends this many changes himself, if he may, and the socket takes so many bytes.
    OfferAtOnce(u64, usize),
    /// The group that was offered becomes durable.
    Publish,
    /// Somebody answers.
    Answer,
    /// The sender takes one step; a replay reads at most this many numbers.
    Send(u64),
    /// The worker asks for everything after what it has.
    Resync,
    /// The worker wants a copy.
    Forget,
    /// Something happens between the beginning and the end of a replay or copy.
    Interrupted(Box<Event>),
}

fn any_event() -> impl Strategy<Value = Event> {
    let simple = prop_oneof![
        4 => (1_u64..4).prop_map(Event::Offer),
        4 => (1_u64..4, 1_usize..17).prop_map(|(count, bytes)| Event::OfferAtOnce(count, bytes)),
        4 => Just(Event::Publish),
        2 => Just(Event::Answer),
        8 => (1_u64..5).prop_map(Event::Send),
        1 => Just(Event::Resync),
        1 => Just(Event::Forget),
    ];
    prop_oneof![4 => simple.clone(), 1 => simple.prop_map(|event| Event::Interrupted(Box::new(event)))]
}

/// The worker at the other end, and the writer.
struct World {
    outbox: Outbox,
    offered: u64,
    committed: u64,
    received: Option<u64>,
    answers_given: u64,
    answers_received: u64,
    /// Frames of the round before a resync may still arrive; a worker skips them.
    skipping: bool,
    /// Beginning of a frame whose rest is still to come.
    begun: Vec<u8>,
    /// A frame was half sent when the worker asked for everything again: it passes over what it has got already.
    may_repeat: bool,
}

fn feed(first: u64, last: u64) -> Bytes {
    Bytes::from([first.to_le_bytes(), last.to_le_bytes()].concat())
}

impl World {
    fn new() -> Self {
        let mut outbox = Outbox::new(0, 0, 64);
        outbox.restart(None);
        Self {
            outbox,
            offered: 0,
            committed: 0,
            received: None,
            answers_given: 0,
            answers_received: 0,
            skipping: false,
            begun: Vec::new(),
            may_repeat: false,
        }
    }

    fn receive(&mut self, piece: &Bytes) -> Result<(), TestCaseError> {
        self.begun.extend_from_slice(piece);
        let frame = std::mem::take(&mut self.begun);
        if frame.len() == 1 {
            self.answers_received += 1;
            return Ok(());
        }
        let number = |at: usize| u64::from_le_bytes(frame[at..at + 8].try_into().unwrap());
        let (first, last) = (number(0), number(8));
        let Some(received) = self.received else { return Ok(()) };
        if self.skipping && first != received + 1 {
            return Ok(());
        }
        self.skipping = false;
        if self.may_repeat && first <= received {
            self.received = Some(received.max(last));
            return Ok(());
        }
        prop_assert_eq!(first, received + 1, "no gap and no repetition");
        self.received = Some(last);
        Ok(())
    }

    fn happen(&mut self, event: &Event) -> Result<(), TestCaseError> {
        match event {
            Event::Offer(count) if self.offered == self.committed => {
                let frame = FeedFrame {
                    last: self.offered + count,
                    bytes: feed(self.offered + 1, self.offered + count),
                };
                self.offered += count;
                self.outbox.offer(self.offered, &[frame]);
            }
            Event::OfferAtOnce(count, bytes)
                if self.offered == self.committed && self.outbox.takes_feed_at_once() =>
            {
                let mut frame = feed(self.offered + 1, self.offered + count);
                self.offered += count;
                let rest = frame.split_off(*bytes);
                let is_sent = rest.is_empty();
                self.outbox.offered_at_once(self.offered, (!is_sent).then_some(rest));
                if is_sent {
                    self.receive(&frame)?;
                } else {
                    self.begun = frame.to_vec();
                }
            }
            Event::OfferAtOnce(count, _) => self.happen(&Event::Offer(*count))?,
            Event::Offer(_) => {}
            Event::Publish => {
                self.committed = self.offered;
                self.outbox.published(self.committed);
            }
            Event::Answer => {
                self.answers_given += 1;
                self.outbox.answer(Bytes::from_static(b"a"));
            }
            Event::Send(numbers_max) => self.send(*numbers_max, None)?,
            Event::Interrupted(event) => self.send(2, Some(event))?,
            Event::Resync => {
                if let Some(received) = self.received {
                    self.skipping = true;
                    self.may_repeat |= !self.begun.is_empty();
                    self.outbox.restart(Some(received));
                }
            }
            Event::Forget => {
                self.received = None;
                self.outbox.restart(None);
            }
        }
        Ok(())
    }

    fn send(&mut self, numbers_max: u64, between: Option<&Event>) -> Result<(), TestCaseError> {
        match self.outbox.next() {
            None => {}
            Some(Step::Close) => panic!("nobody closes"),
            Some(Step::Send(frames)) => frames.iter().try_for_each(|frame| self.receive(frame))?,
            Some(Step::Replay { round, after, up_to }) => {
                prop_assert!(up_to <= self.committed, "the log is read only where it is durable");
                let reached = up_to.min(after + numbers_max);
                if let Some(event) =
                    between.filter(|event| !matches!(event, Event::Interrupted(_) | Event::Send(_)))
                {
                    self.happen(event)?;
                }
                if self.outbox.is_current(round) {
                    self.receive(&feed(after + 1, reached))?;
                }
                self.outbox.replayed(round, reached);
            }
            Some(Step::Copy { round }) => {
                let at = self.committed;
                if let Some(event) =
                    between.filter(|event| !matches!(event, Event::Interrupted(_) | Event::Send(_)))
                {
                    self.happen(event)?;
                }
                if self.outbox.is_current(round) {
                    self.received = Some(at);
                    (self.skipping, self.may_repeat) = (false, false);
                }
                self.outbox.copied(round, at);
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_worker_gets_every_change_once_in_order_and_every_answer(events in prop::collection::vec(any_event(), 0..120)) {
        let mut world = World::new();
        for event in &events {
            world.happen(event)?;
        }
        world.happen(&Event::Publish)?;
        for _ in 0..1000 {
            world.send(3, None)?;
        }
        prop_assert_eq!(world.received, Some(world.offered));
        prop_assert_eq!(world.answers_received, world.answers_given);
        prop_assert_eq!(world.outbox.mode, Mode::Live);
        prop_assert_eq!((world.outbox.feed_bytes, world.outbox.answer_bytes, world.outbox.answers), (0, 0, 0));
    }
}

#[test]
fn a_worker_that_does_not_read_loses_offers_and_keeps_answers() {
    let mut outbox = Outbox::new(0, 0, 100);
    outbox.restart(Some(0));
    assert_eq!(outbox.next(), None);
    let frame = |last| [FeedFrame { last, bytes: Bytes::from(vec![0; 60]) }];
    assert!(outbox.offer(1, &frame(1)));
    outbox.answer(Bytes::from_static(b"a"));
    assert!(!outbox.offer(2, &frame(2)), "120 bytes are more than 100");
    outbox.published(2);
    assert_eq!(outbox.next(), Some(Step::Send(vec![Bytes::from_static(b"a")])));
    assert_eq!(outbox.next(), Some(Step::Replay { round: 1, after: 0, up_to: 2 }));
}

#[test]
fn answers_overtake_a_long_replay() {
    let mut outbox = Outbox::new(1_000_000, 1_000_000, 100);
    outbox.restart(Some(0));
    assert_eq!(outbox.next(), Some(Step::Replay { round: 1, after: 0, up_to: 1_000_000 }));
    outbox.answer(Bytes::from_static(b"a"));
    outbox.replayed(1, 500);
    assert_eq!(outbox.next(), Some(Step::Send(vec![Bytes::from_static(b"a")])));
    assert_eq!(outbox.next(), Some(Step::Replay { round: 1, after: 500, up_to: 1_000_000 }));
}

#[test]
fn after_the_last_answer_the_link_closes() {
    let mut outbox = Outbox::new(0, 0, 100);
    outbox.answer(Bytes::from_static(b"no"));
    outbox.close_when_sent();
    assert_eq!(outbox.next(), Some(Step::Send(vec![Bytes::from_static(b"no")])));
    assert_eq!(outbox.next(), Some(Step::Close));
}
