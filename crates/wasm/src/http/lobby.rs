//! Where requests wait for a seat in an instance that several of them share.
//!
//! An instance takes whoever came first, when it has a seat and nothing to do: one that computes takes nobody, so that
//! nobody waits for it who could be elsewhere. Whoever is not taken finds out whether there are too few seats, and then
//! opens another instance.

use std::{
    collections::{BTreeMap, VecDeque},
    task::Waker,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, futures::Notified};

/// Those who wait, and the rooms that have seats. Whoever waits is in flight, of which a worker bounds the number.
pub(super) struct Lobby<J> {
    hall: Mutex<Hall<J>>,
    /// Rung when there may be too few seats.
    bell: Notify,
}

struct Hall<J> {
    /// Number of the next one who comes, or of the next room.
    next: u64,
    waiting: VecDeque<(u64, J)>,
    rooms: BTreeMap<u64, Room>,
}

/// An instance as those who wait see it.
#[derive(Debug)]
struct Room {
    /// How many it may have at a time.
    seats: u32,
    /// How many it has.
    taken: u32,
    /// How many it may take yet.
    visits_left: u64,
    attention: Attention,
    waker: Option<Waker>,
}

/// Whether a room looks who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attention {
    /// It is being made.
    Opening,
    /// It has looked.
    Here,
    /// It knows that somebody waits, and has not looked yet.
    Called(Instant),
    /// It was told a while ago.
    Away,
}

impl Room {
    fn free(&self) -> u64 {
        if self.attention == Attention::Away {
            0
        } else {
            self.visits_left.min(u64::from(self.seats - self.taken))
        }
    }
}

impl<J> Hall<J> {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn is_short(&self) -> bool {
        let free = self.rooms.values().fold(0_u64, |sum, room| sum.saturating_add(room.free()));
        free < self.waiting.len() as u64
    }

    /// Whom to tell that somebody waits: as many rooms as it takes, those that were opened first.
    fn call(&mut self, now: Instant) -> Vec<Waker> {
        let mut wanted = self.waiting.len() as u64;
        let mut called = Vec::new();
        for room in self.rooms.values_mut() {
            if wanted == 0 {
                break;
            }
            let free = room.free();
            wanted = wanted.saturating_sub(free);
            if free > 0 && room.attention == Attention::Here {
                room.attention = Attention::Called(now);
                called.extend(room.waker.take());
            }
        }
        called
    }
}

impl<J> Lobby<J> {
    pub(super) fn new() -> Self {
        let hall = Hall { next: 0, waiting: VecDeque::new(), rooms: BTreeMap::new() };
        Self { hall: Mutex::new(hall), bell: Notify::new() }
    }

    /// Somebody comes and waits. Gives the number to go away with.
    pub(super) fn arrive(&self, job: J, now: Instant) -> u64 {
        let (number, called) = {
            let mut hall = self.hall.lock();
            let number = hall.number();
            hall.waiting.push_back((number, job));
            (number, hall.call(now))
        };
        called.into_iter().for_each(Waker::wake);
        number
    }

    /// Somebody waits no longer, if that is so.
    pub(super) fn withdraw(&self, number: u64) {
        let withdrawn = {
            let mut hall = self.hall.lock();
            let place = hall.waiting.iter().position(|(waiting, _)| *waiting == number);
            place.and_then(|place| hall.waiting.remove(place))
        };
        drop(withdrawn); // not while the hall is locked: it may be anything
    }

    /// Whether more wait than there are seats.
    pub(super) fn is_short(&self) -> bool {
        self.hall.lock().is_short()
    }

    /// Ends when it should be looked again whether there are too few seats.
    pub(super) fn rung(&self) -> Notified<'_> {
        self.bell.notified()
    }

    /// Seats of rooms that were called and have not looked for so long do not count until they do.
    pub(super) fn overlook(&self, patience: Duration, now: Instant) {
        let called = {
            let mut hall = self.hall.lock();
            let mut is_changed = false;
            for room in hall.rooms.values_mut() {
                if matches!(room.attention, Attention::Called(since) if since + patience <= now) {
                    room.attention = Attention::Away;
                    is_changed = true;
                }
            }
            is_changed.then(|| hall.call(now))
        };
        if let Some(called) = called {
            called.into_iter().for_each(Waker::wake);
            self.bell.notify_waiters();
        }
    }

    /// A room with so many seats, that may take so many altogether.
    pub(super) fn open(&self, seats: u32, visits_left: u64) -> u64 {
        let mut hall = self.hall.lock();
        let number = hall.number();
        let room = Room { seats, taken: 0, visits_left, attention: Attention::Opening, waker: None };
        hall.rooms.insert(number, room);
        number
    }

    /// Whoever is next, if the room has a seat; the waker is told when somebody comes later.
    pub(super) fn take(&self, room: u64, waker: &Waker, now: Instant) -> Option<J> {
        let mut hall = self.hall.lock();
        let Hall { waiting, rooms, .. } = &mut *hall;
        let room = rooms.get_mut(&room)?;
        room.attention = Attention::Here;
        room.waker = Some(waker.clone());
        if room.free() == 0 {
            return None;
        }
        let (_, job) = waiting.pop_front()?;
        room.taken += 1;
        room.visits_left -= 1;
        if !waiting.is_empty() {
            room.attention = Attention::Called(now);
        }
        Some(job)
    }

    /// A seat of the room is free again.
    pub(super) fn leave(&self, room: u64, now: Instant) {
        let mut hall = self.hall.lock();
        let Hall { waiting, rooms, .. } = &mut *hall;
        let Some(room) = rooms.get_mut(&room) else { return };
        room.taken -= 1;
        if room.attention == Attention::Here && !waiting.is_empty() {
            room.attention = Attention::Called(now);
        }
    }

    /// Whether the room is made.
    #[cfg(test)]
    fn looked(&self, room: u64) -> bool {
        self.hall.lock().rooms.get(&room).is_some_and(|room| room.attention != Attention::Opening)
    }

    /// How many seats are taken.
    #[cfg(test)]
    pub(super) fn taken(&self) -> u32 {
        self.hall.lock().rooms.values().map(|room| room.taken).sum()
    }

    /// The room takes nobody any more.
    pub(super) fn shut(&self, room: u64) {
        let (removed, is_short) = {
            let mut hall = self.hall.lock();
            (hall.rooms.remove(&room), hall.is_short())
        };
        if removed.is_some() && is_short {
            self.bell.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(10);

    fn arrive<J>(lobby: &Lobby<J>, job: J) -> u64 {
        lobby.arrive(job, Instant::now())
    }

    /// A long time passes.
    fn overlook<J>(lobby: &Lobby<J>) {
        lobby.overlook(PATIENCE, Instant::now() + PATIENCE);
    }

    fn take<J>(lobby: &Lobby<J>, room: u64) -> Option<J> {
        lobby.take(room, Waker::noop(), Instant::now())
    }

    #[test]
    fn who_came_first_is_taken_first_as_long_as_there_are_seats() {
        let lobby = Lobby::new();
        let room = lobby.open(2, 10);
        for name in ["a", "b", "c"] {
            arrive(&lobby, name);
        }
        assert!(lobby.is_short());
        assert_eq!(
            [take(&lobby, room), take(&lobby, room), take(&lobby, room)],
            [Some("a"), Some("b"), None]
        );
        lobby.leave(room, Instant::now());
        assert!(!lobby.is_short());
        assert_eq!(take(&lobby, room), Some("c"));
    }

    #[test]
    fn a_room_takes_no_more_in_its_life_than_it_may() {
        let lobby = Lobby::new();
        let room = lobby.open(8, 1);
        arrive(&lobby, "a");
        assert_eq!(take(&lobby, room), Some("a"));
        lobby.leave(room, Instant::now());
        arrive(&lobby, "b");
        assert!(lobby.is_short());
        assert_eq!(take(&lobby, room), None);
    }

    #[test]
    fn seats_of_a_room_that_does_not_look_do_not_count() {
        let lobby = Lobby::new();
        let room = lobby.open(8, 100);
        arrive(&lobby, "a");
        overlook(&lobby);
        assert!(!lobby.is_short(), "it is being made");
        assert_eq!(take(&lobby, room), Some("a"));
        arrive(&lobby, "b");
        assert!(!lobby.is_short(), "it may look at once");
        lobby.overlook(PATIENCE, Instant::now());
        assert!(!lobby.is_short(), "it was not called for long");
        overlook(&lobby);
        assert!(lobby.is_short());
        assert_eq!(take(&lobby, room), Some("b"), "it has looked after all");
        arrive(&lobby, "c");
        assert!(!lobby.is_short());
    }

    #[test]
    fn nobody_waits_for_a_room_that_took_another_one_and_does_not_look_again() {
        let lobby = Lobby::new();
        let room = lobby.open(2, 100);
        arrive(&lobby, "a");
        arrive(&lobby, "b");
        assert_eq!(take(&lobby, room), Some("a"));
        overlook(&lobby);
        assert!(lobby.is_short());
        assert_eq!(take(&lobby, room), Some("b"));
        arrive(&lobby, "c");
        lobby.leave(room, Instant::now());
        overlook(&lobby);
        assert!(lobby.is_short(), "nor for one of which somebody has left");
    }

    #[test]
    fn who_goes_away_is_not_taken_and_a_shut_room_takes_nobody() {
        let lobby = Lobby::new();
        let room = lobby.open(1, 100);
        let number = arrive(&lobby, "a");
        arrive(&lobby, "b");
        lobby.withdraw(number);
        assert_eq!(take(&lobby, room), Some("b"));
        lobby.leave(room, Instant::now());
        lobby.shut(room);
        arrive(&lobby, "c");
        assert_eq!(take(&lobby, room), None);
        assert!(lobby.is_short());
    }

    #[derive(Debug, Clone)]
    enum Event {
        Arrive,
        Open(u32, u64),
        Take(u64),
        Leave(u64),
        Overlook,
        Shut(u64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Arrive),
            Just(Event::Arrive),
            (1_u32..4, 1_u64..6).prop_map(|(seats, visits)| Event::Open(seats, visits)),
            (0_u64..20).prop_map(Event::Take),
            (0_u64..20).prop_map(Event::Take),
            (0_u64..20).prop_map(Event::Leave),
            Just(Event::Overlook),
            (0_u64..20).prop_map(Event::Shut),
        ]
    }

    proptest! {
        #[test]
        fn nobody_is_forgotten_and_no_room_is_overfull(events in prop::collection::vec(event(), 0..60)) {
            let lobby = Lobby::new();
            let mut rooms = BTreeMap::<u64, (u32, u32, u64)>::new();
            let (mut came, mut last) = (0_u64, 0);
            for event in events {
                match event {
                    Event::Arrive => {
                        came += 1;
                        arrive(&lobby, came);
                    }
                    Event::Open(seats, visits) => {
                        rooms.insert(lobby.open(seats, visits), (seats, 0, visits));
                    }
                    Event::Take(room) => if let Some(job) = take(&lobby, room) {
                        prop_assert_eq!(job, last + 1, "in the order in which they came");
                        last = job;
                        let (seats, taken, visits) = rooms.get_mut(&room).unwrap();
                        *taken += 1;
                        prop_assert!(*taken <= *seats && *visits > 0);
                        *visits -= 1;
                    },
                    Event::Leave(room) => if let Some((_, taken, _)) = rooms.get_mut(&room) && *taken > 0 {
                        *taken -= 1;
                        lobby.leave(room, Instant::now());
                    },
                    Event::Overlook => overlook(&lobby),
                    Event::Shut(room) => {
                        rooms.remove(&room);
                        lobby.shut(room);
                    }
                }
            }
            // Nobody waits for a room that does not look, but for one that is being made.
            if last < came && rooms.keys().all(|room| lobby.looked(*room)) {
                // One after the other is called, and does not look.
                for turn in 1..=rooms.len() as u32 {
                    lobby.overlook(PATIENCE, Instant::now() + PATIENCE * (2 * turn));
                }
                prop_assert!(lobby.is_short());
            }
            // Whoever waits is taken when there are rooms enough, however few looked before.
            while last < came {
                let room = lobby.open(1, 1);
                prop_assert_eq!(take(&lobby, room), Some(last + 1));
                last += 1;
            }
            prop_assert!(!lobby.is_short());
        }
    }
}
