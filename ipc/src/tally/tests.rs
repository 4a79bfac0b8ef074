use std::{sync::Barrier, thread};

use super::*;

/// Time between two requests at the rate of these tests.
const INTERVAL_NS: u64 = 1000;

/// A rule that lets `burst` through at once.
fn rule(burst: u64) -> impl Fn(u64, u64) -> Result<u64, u64> + Copy {
    move |expected_ns, now_ns| {
        let wait_ns = expected_ns.saturating_sub(now_ns + (burst - 1) * INTERVAL_NS);
        if wait_ns > 0 { Err(wait_ns) } else { Ok(expected_ns.max(now_ns) + INTERVAL_NS) }
    }
}

fn tally() -> Tally {
    Tally::create().unwrap().0
}

fn subject(tally: &Tally, number: usize) -> Client {
    tally.client(Known::Subject, number.to_string().as_bytes())
}

/// So many clients that share a bucket.
fn neighbours(tally: &Tally, count: usize) -> Vec<Client> {
    let first = subject(tally, 0);
    let mut found: Vec<Client> = Vec::new();
    for client in (0..).map(|number| subject(tally, number)) {
        let is_new = found.iter().all(|other| other.fingerprint() != client.fingerprint());
        if is_new && client.0 as usize % BUCKETS == first.0 as usize % BUCKETS {
            found.push(client);
        }
        if found.len() == count {
            break;
        }
    }
    found
}

#[test]
fn all_processes_know_the_same_clients_and_no_two_hosts_do() {
    let (tally, descriptor) = Tally::create().unwrap();
    let (other, stranger) = (Tally::open(&descriptor).unwrap(), self::tally());
    let ada = tally.client(Known::Subject, b"ada");
    assert_eq!(other.client(Known::Subject, b"ada"), ada);
    assert_ne!(tally.client(Known::Subject, b"bob"), ada);
    assert_ne!(tally.client(Known::Network6, b"ada"), ada);
    assert_ne!(stranger.client(Known::Subject, b"ada"), ada, "nobody can work it out");
    assert_eq!(tally.ask(ada, || 5, rule(1)), Outcome::Counted);
    assert_eq!(other.ask(ada, || 5, rule(1)), Outcome::Refused(Some(INTERVAL_NS)));
}

#[test]
fn a_client_is_counted_beside_others_and_forgotten_when_its_time_has_come() {
    // Also where the times of words begin anew.
    for begin_ns in [7, TIME_MASK - INTERVAL_NS, TIME_MASK / 2, 3 << TIME_BITS, u64::MAX / 2] {
        let tally = tally();
        let ask = |number, now_ns| tally.ask(subject(&tally, number), || begin_ns + now_ns, rule(2));
        for number in 0..100 {
            let outcomes = [0, 10, 20, 1020].map(|now_ns| ask(number, now_ns));
            let expected = [
                Outcome::Counted,
                Outcome::Counted,
                Outcome::Refused(Some(INTERVAL_NS - 20)),
                Outcome::Counted,
            ];
            assert_eq!(outcomes, expected, "{begin_ns} {number}");
        }
        let later_ns = 50 * INTERVAL_NS;
        assert_eq!([ask(0, later_ns), ask(0, later_ns)], [Outcome::Counted; 2], "{begin_ns}");
    }
}

#[test]
fn where_there_are_too_many_clients_one_more_is_not_counted_until_one_has_had_its_time() {
    let tally = tally();
    let clients = neighbours(&tally, WAYS + 1);
    let (last, others) = clients.split_last().unwrap();
    for (client, now_ns) in others.iter().zip(1..) {
        assert_eq!(tally.ask(*client, || now_ns, rule(1)), Outcome::Counted);
    }
    let first_is_over_ns = 1 + INTERVAL_NS;
    for now_ns in [100, first_is_over_ns - 1] {
        assert_eq!(tally.ask(*last, || now_ns, rule(1)), Outcome::Uncounted);
        assert!(matches!(tally.ask(others[0], || now_ns, rule(1)), Outcome::Refused(Some(_))));
    }
    assert_eq!(tally.ask(*last, || first_is_over_ns, rule(1)), Outcome::Counted);
    assert_eq!(tally.ask(others[0], || first_is_over_ns, rule(1)), Outcome::Uncounted, "its word is taken");
    assert_eq!(tally.ask(*last, || first_is_over_ns, rule(1)), Outcome::Refused(Some(INTERVAL_NS)));
}

#[test]
fn what_was_written_long_ago_holds_nobody_up() {
    let tally = tally();
    let clients = neighbours(&tally, WAYS + 1);
    for client in &clients[..WAYS] {
        assert_eq!(tally.ask(*client, || 1, |_, _| Ok::<_, ()>(1 + AHEAD_NS_MAX)), Outcome::Counted);
    }
    assert_eq!(tally.ask(clients[WAYS], || 1, rule(1)), Outcome::Uncounted);
    // Seen from here, their times seem to come after more than two hours.
    let now_ns = 1 + (1 << TIME_BITS) - INTERVAL_NS;
    assert_eq!(tally.ask(clients[0], || now_ns, rule(1)), Outcome::Counted);
    assert_eq!(tally.ask(clients[WAYS], || now_ns, rule(1)), Outcome::Counted);
}

#[test]
fn clients_who_race_are_let_in_exactly_as_often_as_one() {
    const THREADS: u64 = 4;
    const BURST: u64 = 500;
    for round in 0..20 {
        let (tally, begin) = (tally(), Barrier::new(THREADS as usize));
        let client = subject(&tally, round);
        let counted: u64 = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| {
                    scope.spawn(|| {
                        begin.wait();
                        let asked = (0..BURST).map(|_| tally.ask(client, || 9, rule(BURST)));
                        asked.filter(|outcome| *outcome == Outcome::Counted).count() as u64
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(counted, BURST);
    }
}

#[test]
fn the_clock_is_looked_at_after_the_words_each_time_that_they_are() {
    let tally = tally();
    let client = subject(&tally, 0);
    let looks = std::cell::Cell::new(0);
    // Somebody else is served between each look at the words and what comes of it, until nothing is left of the burst.
    let clock = || {
        looks.set(looks.get() + 1);
        let now_ns = 10 * looks.get();
        tally.ask(client, || now_ns, rule(3));
        now_ns
    };
    assert_eq!(tally.ask(client, clock, rule(3)), Outcome::Refused(Some(INTERVAL_NS - 30)));
    assert_eq!(looks.get(), 4);
}

#[test]
fn neighbours_who_race_for_words_have_one_each_and_are_counted_right() {
    const CLIENTS: usize = WAYS / 2;
    let tally = tally();
    let clients = neighbours(&tally, 3 * CLIENTS);
    for round in 0..300_u64 {
        // Times of others are up one after the other, while clocks of different threads are apart.
        let begin_ns = 1 + round * 100 * INTERVAL_NS;
        for (client, place) in clients[CLIENTS..CLIENTS + WAYS].iter().zip(1..) {
            tally.ask(*client, || begin_ns, |_, _| Ok::<_, ()>(begin_ns + place));
        }
        let begin = Barrier::new(2 * CLIENTS);
        let counted: Vec<(Client, usize)> = thread::scope(|scope| {
            let ask = |client: Client, thread: u64| {
                let (tally, begin) = (&tally, &begin);
                scope.spawn(move || {
                    begin.wait();
                    let asked =
                        (0..4).map(|turn| tally.ask(client, || begin_ns + 4 + 4 * thread + turn, rule(5)));
                    (client, asked.filter(|outcome| *outcome == Outcome::Counted).count())
                })
            };
            let threads: Vec<_> = clients[..CLIENTS]
                .iter()
                .flat_map(|client| [0, 1].map(|thread| ask(*client, thread)))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for client in &clients[..CLIENTS] {
            let of = |(other, count): &(Client, usize)| if other == client { *count } else { 0 };
            // The one whose clock is behind may find the fifth a moment too early.
            let sum: usize = counted.iter().map(of).sum();
            assert!((4..=5).contains(&sum), "round {round}: {sum}");
            let words = tally.bucket(*client).iter().filter(|word| client.owns(word.load(Relaxed)));
            assert_eq!(words.count(), 1, "round {round}");
        }
    }
}

#[test]
fn a_file_of_another_shape_is_refused() {
    let descriptor = rustix::fs::memfd_create("x", MemfdFlags::CLOEXEC).unwrap();
    let error = Tally::open(&descriptor).unwrap_err().to_string();
    assert!(error.starts_with("size in bytes of the tally: found 0, expected "), "{error}");
    rustix::fs::ftruncate(&descriptor, (WORDS * 8) as u64).unwrap();
    assert!(Tally::open(&descriptor).unwrap_err().to_string().starts_with("magic of the tally"));
    let (tally, descriptor) = Tally::create().unwrap();
    tally.words[WORD_LAYOUT].store(LAYOUT_VERSION + 1, Relaxed);
    assert!(Tally::open(&descriptor).unwrap_err().to_string().starts_with("layout of the tally: found 2"));
}
