//! The tally: when the next request of each client is expected, in words of shared memory that all workers write.
//!
//! ```text
//! word 0..8     header: magic, layout version, the key of the hash
//! then          BUCKETS buckets of WAYS words, each bucket one cache line
//!
//! one word      fingerprint of a client (16 bits) | time, nanoseconds of the monotonic clock (48 bits)
//! ```
//!
//! A client has its bucket and its fingerprint from a keyed hash of its name, so nobody can choose whom to share a word
//! with. A word whose time has come is free: a client that is expected now is as good as one that was never seen.
//!
//! A client has at most one word, without a lock. Whoever finds none of a client in its bucket takes the word with the
//! earliest time, the first of several, whatever the own clock says; times of a word only go up. Had two taken different
//! words for the same client, each would have seen the other's word as late as its own or later, and both cannot be
//! first. The clock is looked at after the words, each time they are: so no word that is seen was written by somebody
//! who looked at it later, however long one waits for a processor in between.
//!
//! Where all words of a bucket belong to others that are still expected, a client is not counted: to refuse it would let
//! whoever has many addresses shut out everybody else, and such a one needs no favour to ask as often as it likes.
//!
//! It is a memory file of its own, and not a part of the board: an upgrade keeps the board, and its layout with it, while
//! a tally of another layout is just left behind.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    os::fd::OwnedFd,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use rustix::fs::MemfdFlags;

use crate::{IpcError, board::map};

const MAGIC: u64 = u64::from_le_bytes(*b"aegistly");
const LAYOUT_VERSION: u64 = 1;

const WORD_MAGIC: usize = 0;
const WORD_LAYOUT: usize = 1;
const WORD_KEYS: usize = 2;
const WORD_BUCKETS: usize = 8;

/// Buckets; a power of two. With 32 768 clients that are expected at once, one of nine hundred others finds its bucket full.
const BUCKETS: usize = 1 << 14;
/// Words of a bucket.
const WAYS: usize = 8;
const WORDS: usize = WORD_BUCKETS + BUCKETS * WAYS;

const TIME_BITS: u32 = 48;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;
/// Furthest that a client is expected ahead, twice what a configuration can ask for. What seems further ahead was
/// written long ago: the times of words begin anew every 78 hours. So a client that comes back after exactly that may
/// find less than its burst, once.
const AHEAD_NS_MAX: u64 = 2 * 3600 * 1_000_000_000;
/// How often a word is tried that others keep changing. Each change is a request of somebody else that was let in.
const TRIES_MAX: usize = 64;

/// The mapped tally. Cheap to clone; the mapping lives as long as the process.
#[derive(Debug, Clone, Copy)]
pub struct Tally {
    words: &'static [AtomicU64],
}

/// Who is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client(u64);

/// What kind of name a client is known by: names of different kinds are different clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Known {
    /// By the subject of a token.
    Subject,
    /// By an address of IPv4.
    Address4,
    /// By the network of an address of IPv6.
    Network6,
    /// By having no address.
    Nowhere,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<E> {
    /// It is let in, and counted.
    Counted,
    /// It is let in, and was not counted: there are too many clients.
    Uncounted,
    /// It is refused; why, unless others of the same client were let in again and again in the same instant.
    Refused(Option<E>),
}

impl Tally {
    /// Makes a new tally; the descriptor is for workers.
    pub fn create() -> Result<(Self, OwnedFd), IpcError> {
        let descriptor = rustix::fs::memfd_create("aegis-tally", MemfdFlags::CLOEXEC)
            .map_err(|error| IpcError::os("creating the memory file of the tally", error))?;
        rustix::fs::ftruncate(&descriptor, (WORDS * 8) as u64)
            .map_err(|error| IpcError::os("sizing the tally", error))?;
        let tally = Self { words: map(&descriptor, WORDS, "mapping the tally")? };
        // The standard library asks the system for these, and tells them only through what it hashes.
        let random = RandomState::new();
        for (word, number) in tally.words[WORD_KEYS..WORD_BUCKETS].iter().zip(0_u64..2) {
            word.store(random.hash_one(number), Relaxed);
        }
        tally.words[WORD_LAYOUT].store(LAYOUT_VERSION, Relaxed);
        tally.words[WORD_MAGIC].store(MAGIC, Relaxed);
        Ok((tally, descriptor))
    }

    /// Maps the tally behind an inherited descriptor.
    pub fn open(descriptor: &OwnedFd) -> Result<Self, IpcError> {
        let size = rustix::fs::fstat(descriptor)
            .map_err(|error| IpcError::os("measuring the tally", error))?
            .st_size;
        let check = |what: &str, found: u64, expected: u64| {
            let unexpected = || IpcError::Unexpected {
                object: format!("{what} of the tally"),
                found: found.to_string(),
                expected: expected.to_string(),
            };
            if found == expected { Ok(()) } else { Err(unexpected()) }
        };
        check("size in bytes", size as u64, (WORDS * 8) as u64)?;
        let tally = Self { words: map(descriptor, WORDS, "mapping the tally")? };
        check("magic", tally.words[WORD_MAGIC].load(Relaxed), MAGIC)?;
        check("layout", tally.words[WORD_LAYOUT].load(Relaxed), LAYOUT_VERSION)?;
        Ok(tally)
    }

    /// The client of this name; the same in every process that has mapped the same tally.
    #[must_use]
    pub fn client(&self, known: Known, name: &[u8]) -> Client {
        let [first, second] = [0, 1].map(|number| self.words[WORD_KEYS + number].load(Relaxed));
        #[expect(deprecated, reason = "no other SipHash of the standard library takes a key")]
        let mut hasher = std::hash::SipHasher::new_with_keys(first, second);
        hasher.write_u8(known as u8);
        hasher.write(name);
        Client(hasher.finish())
    }

    /// Asks `rule` about a request of `client`: it is given when one was expected and the time of `clock`, and says when
    /// the next one is, or why not. Both may be asked several times; the request counts once.
    pub fn ask<E>(
        &self,
        client: Client,
        clock: impl Fn() -> u64,
        rule: impl Fn(u64, u64) -> Result<u64, E>,
    ) -> Outcome<E> {
        let bucket = self.bucket(client);
        for _ in 0..TRIES_MAX {
            let seen: [u64; WAYS] = std::array::from_fn(|way| bucket[way].load(Acquire));
            let now_ns = clock();
            let own = (0..WAYS).find(|way| client.owns(seen[*way]));
            let way = own.unwrap_or_else(|| earliest(&seen, now_ns));
            let ahead_ns = ahead_ns(seen[way], now_ns);
            if own.is_none() && ahead_ns > 0 {
                return Outcome::Uncounted;
            }
            let next_ns = match rule(now_ns.saturating_add(ahead_ns), now_ns) {
                Ok(next_ns) => next_ns,
                Err(error) => return Outcome::Refused(Some(error)),
            };
            let word = client.word(next_ns);
            if bucket[way].compare_exchange(seen[way], word, Release, Relaxed).is_ok() {
                return Outcome::Counted;
            }
        }
        Outcome::Refused(None)
    }

    fn bucket(&self, client: Client) -> &'static [AtomicU64] {
        let start = WORD_BUCKETS + (client.0 as usize % BUCKETS) * WAYS;
        &self.words[start..start + WAYS]
    }
}

impl Client {
    /// Never 0, so that no word of a client looks like one that was never written.
    fn fingerprint(self) -> u64 {
        (self.0 >> TIME_BITS).max(1)
    }

    fn owns(self, word: u64) -> bool {
        word >> TIME_BITS == self.fingerprint()
    }

    fn word(self, time_ns: u64) -> u64 {
        self.fingerprint() << TIME_BITS | time_ns & TIME_MASK
    }
}

/// How far ahead the time of a word is; 0 when it has come.
fn ahead_ns(word: u64, now_ns: u64) -> u64 {
    match word.wrapping_sub(now_ns) & TIME_MASK {
        ahead_ns @ ..=AHEAD_NS_MAX if word != 0 => ahead_ns,
        _ => 0,
    }
}

/// The word with the earliest time, the first of several. One that was never written is earlier than all others.
fn earliest(seen: &[u64; WAYS], now_ns: u64) -> usize {
    // What seems further ahead than can be was written before everything else.
    let since = now_ns.wrapping_add(AHEAD_NS_MAX + 1);
    let order = |way: &usize| match seen[*way] {
        0 => 0,
        word => 1 + (word.wrapping_sub(since) & TIME_MASK),
    };
    (0..WAYS).min_by_key(order).unwrap_or_default()
}

#[cfg(test)]
mod tests;
