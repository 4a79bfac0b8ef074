//! How often a client is served: by all workers together, before anything of its request is carried out or its body is
//! read.
//!
//! A client is whoever the token names, wherever it comes from; else the address its connection comes from. The rule is
//! [`aegis_domain::rate`], what is known about clients is in [`aegis_ipc::tally`].

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
};

use aegis_config::settings::Limits;
use aegis_domain::{Problem, ProblemCode, access::Principal, rate::Rate};
use aegis_ipc::{
    board::{Cell, Counter, monotonic_ns},
    handoff::Audience,
    tally::{Client, Known, Outcome, Tally},
};

/// Bytes of an address of IPv6 that name a network: within it, whoever has one address has as many as it likes.
const NETWORK_BYTES: usize = 8;

/// Counts the requests of clients.
#[derive(Debug)]
pub(crate) struct Throttle {
    rate: Rate,
    per_second: NonZeroU32,
    burst: NonZeroU32,
    tally: Tally,
    refused: &'static AtomicU64,
    uncounted: &'static AtomicU64,
}

impl Throttle {
    /// Nothing while there is no limit.
    pub(crate) fn new(limits: &Limits, tally: Tally, cell: Cell) -> Option<Self> {
        let per_second = NonZeroU32::new(limits.requests_per_second)?;
        let burst = NonZeroU32::new(limits.requests_burst).unwrap_or(per_second);
        Some(Self {
            rate: Rate::new(per_second, burst),
            per_second,
            burst,
            tally,
            refused: cell.counter(Counter::RateLimited),
            uncounted: cell.counter(Counter::RateUncounted),
        })
    }

    /// Who asks over a connection, as long as no token says more: whoever comes over a Unix socket is one client. Operators
    /// on a listener of theirs are not counted.
    pub(crate) fn origin(&self, audience: Audience, peer: Option<IpAddr>) -> Option<Client> {
        match (audience, peer.map(|address| address.to_canonical())) {
            (Audience::Admin, _) => None,
            (Audience::Public, None) => Some(self.tally.client(Known::Nowhere, b"")),
            (Audience::Public, Some(IpAddr::V4(address))) => {
                Some(self.tally.client(Known::Address4, &address.octets()))
            }
            (Audience::Public, Some(IpAddr::V6(address))) => {
                Some(self.tally.client(Known::Network6, &network(address)))
            }
        }
    }

    /// Lets a request in that came over a connection of `origin`, or says when it is worth coming again.
    pub(crate) fn admit(&self, origin: Client, principal: Option<&Principal>) -> Result<(), Problem> {
        let subject = |principal: &Principal| self.tally.client(Known::Subject, principal.subject.as_bytes());
        let client = principal.map_or(origin, subject);
        let rule = |expected_ns, now_ns| self.rate.ask(expected_ns, now_ns);
        match self.tally.ask(client, monotonic_ns, rule) {
            Outcome::Counted => Ok(()),
            Outcome::Uncounted => {
                self.uncounted.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Outcome::Refused(early) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                let seconds = early.map_or(1, |early| early.retry_after_s());
                Err(self.refusal(principal.is_some()).worth_trying_after(seconds))
            }
        }
    }

    fn refusal(&self, is_known: bool) -> Problem {
        let (per_second, burst) = (self.per_second, self.burst);
        let rate = format!("are served at a rate of {per_second} a second, at most {burst} at once");
        let detail = if is_known {
            format!("requests of one caller {rate}, whatever address they come from")
        } else {
            format!("requests from one address (IPv6: one /64) that name no caller {rate}")
        };
        Problem::new(ProblemCode::RateLimited, detail)
    }
}

fn network(address: Ipv6Addr) -> [u8; NETWORK_BYTES] {
    std::array::from_fn(|at| address.octets()[at])
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Barrier, thread};

    use aegis_ipc::board::Board;

    use super::*;
    use crate::data::tests::config;

    fn throttle(per_second: u32, burst: u32) -> (Throttle, Cell) {
        let (board, _descriptor) = Board::create().unwrap();
        let limits = Limits { requests_per_second: per_second, requests_burst: burst, ..config().limits };
        let tally = Tally::create().unwrap().0;
        (Throttle::new(&limits, tally, board.cell(0)).unwrap(), board.cell(0))
    }

    #[test]
    fn without_a_rate_there_is_nothing_that_counts() {
        let (board, _descriptor) = Board::create().unwrap();
        assert!(Throttle::new(&config().limits, Tally::create().unwrap().0, board.cell(0)).is_none());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_an_address_of_ipv4_is_the_same_however_it_is_written() {
        let (throttle, _cell) = throttle(1, 1);
        let of = |text: &str| throttle.origin(Audience::Public, Some(text.parse().unwrap())).unwrap();
        let nowhere = throttle.origin(Audience::Public, None).unwrap();
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        let different =
            ["2001:db8:1:2::", "2001:db8:1:3::", "::", "::1:0:0:0:0", "192.0.2.1", "192.0.2.2"].map(of);
        let names: BTreeSet<String> =
            different.iter().chain([&nowhere]).map(|client| format!("{client:?}")).collect();
        assert_eq!(names.len(), different.len() + 1);
        assert!(throttle.origin(Audience::Admin, Some("127.0.0.1".parse().unwrap())).is_none());
        assert!(throttle.origin(Audience::Admin, None).is_none());
    }

    #[test]
    fn threads_whose_clocks_are_apart_let_a_burst_through_and_no_more() {
        const APART_NS: [u64; 4] = [0, 1, 50, 1000];
        for (round, burst) in [1, 1, 2, 3, 40].into_iter().cycle().take(50).enumerate() {
            let (throttle, _cell) = throttle(1, burst);
            let client = throttle.tally.client(Known::Subject, &round.to_le_bytes());
            let begin = Barrier::new(APART_NS.len());
            let ask = |behind_ns: u64| {
                begin.wait();
                let clock = || 7_000_000_000 - behind_ns;
                let rule = |expected_ns, now_ns| throttle.rate.ask(expected_ns, now_ns);
                let asked = (0..=burst).map(|_| throttle.tally.ask(client, clock, rule));
                asked.filter(|outcome| *outcome == Outcome::Counted).count()
            };
            let counted: usize = thread::scope(|scope| {
                let threads = APART_NS.map(|behind_ns| {
                    let ask = &ask;
                    scope.spawn(move || ask(behind_ns))
                });
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(counted, burst as usize, "round {round}");
        }
    }

    #[test]
    fn who_is_refused_learns_what_the_limit_is_and_for_whom_and_is_counted() {
        let (throttle, cell) = throttle(1, 50);
        let principal = |subject: &str| Principal {
            subject: subject.to_owned(),
            roles: Default::default(),
            claims: serde_json::json!({}),
        };
        let origin = throttle.origin(Audience::Public, Some("192.0.2.1".parse().unwrap())).unwrap();
        let mut told = Vec::new();
        for principal in [Some(principal("ada")), None] {
            let problem = (0..).find_map(|_| throttle.admit(origin, principal.as_ref()).err()).unwrap();
            assert_eq!(problem.retry_after_s, Some(1));
            told.push(problem.to_string());
        }
        throttle.admit(origin, Some(&principal("bob"))).unwrap();
        assert_eq!(cell.counter(Counter::RateLimited).load(Ordering::Relaxed), 2);
        assert_eq!(cell.counter(Counter::RateUncounted).load(Ordering::Relaxed), 0);
        insta::assert_snapshot!(told.join("\n"), @"
        rate-limited: requests of one caller are served at a rate of 1 a second, at most 50 at once, whatever address they come from
        rate-limited: requests from one address (IPv6: one /64) that name no caller are served at a rate of 1 a second, at most 50 at once
        ");
    }
}
