//! How often a client is served, counted over all workers.

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::AsRawFd,
    thread,
    time::{Duration, Instant},
};

use aegis_harness::{App, Client, Cluster, Connection, QUICK, Response, eventually};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

use crate::{access::Guarded, errors::assert_problem};

const LIST: &str = "/aegis/api/models/todo";
const BURST: u64 = 5;
const LIMITS: &str = "[limits]\nrequests-per-second = 1\nrequests-burst = 5\n";
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What a client may have had served since then, at most.
fn most(begun: Instant) -> u64 {
    BURST + begun.elapsed().as_secs()
}

/// A list, asked for from another address of this machine.
fn list_from(source: Ipv4Addr, address: SocketAddr, fields: &[(&str, &str)]) -> Response {
    let SocketAddr::V4(to) = address else { panic!("{address}") };
    let stream = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let from = std::net::SocketAddrV4::new(source, 0);
    bind(stream.as_raw_fd(), &SockaddrIn::from(from)).unwrap();
    connect(stream.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
    let mut connection = Connection::from_stream(TcpStream::from(stream), &address.to_string());
    connection.request("GET", LIST, fields, b"").unwrap()
}

/// Asks until the answer is 429; how often it was another one.
fn served_until_refused(client: &Client) -> u64 {
    let begun = Instant::now();
    let answers = (0..).map(|_| client.send("GET", LIST, b"").status);
    answers.take_while(|status| *status == 200).fold(0, |served, _| {
        assert!(served < most(begun), "{served} served");
        served + 1
    })
}

fn metric(cluster: &Cluster, name: &str) -> u64 {
    let text = cluster.admin_get("/metrics");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[test]
fn over_many_connections_to_all_workers_a_client_is_served_as_often_as_it_may() {
    const REFUSED_MIN: usize = 40;
    let cluster = Cluster::start(App::todo().settings(LIMITS), 2);
    let begun = Instant::now();
    let ask = || {
        let client = cluster.client();
        let (mut served, mut refused) = (0, Vec::new());
        let workers = |refused: &[Response]| -> usize {
            refused.iter().map(Response::worker).collect::<BTreeSet<_>>().len()
        };
        while refused.len() < REFUSED_MIN || workers(&refused) < 2 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} refused", refused.len());
            match client.send("GET", LIST, b"") {
                answer if answer.status == 200 => served += 1,
                answer => refused.push(answer),
            }
        }
        (served, refused)
    };
    let outcomes: Vec<(u64, Vec<Response>)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let served: u64 = outcomes.iter().map(|(served, _)| served).sum();
    assert!((BURST..=most(begun)).contains(&served), "{served} in {:?}", begun.elapsed());
    let refused: Vec<&Response> = outcomes.iter().flat_map(|(_, refused)| refused).collect();
    for answer in &refused {
        assert_problem(answer, 429, "rate-limited");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert_eq!(metric(&cluster, "aegis_rate_limited_total"), refused.len() as u64, "summed over workers");
    assert_eq!(metric(&cluster, "aegis_rate_uncounted_total"), 0);
}

#[test]
fn a_client_is_told_when_it_is_served_again_and_others_do_not_notice() {
    let cluster = Cluster::start(App::todo().settings(LIMITS), 2);
    let mut connection = cluster.client().connect().unwrap();
    let begun = Instant::now();
    let mut asked = 0;
    let answer = loop {
        let answer = connection.request("GET", LIST, &[], b"").unwrap();
        if answer.status == 429 {
            break answer;
        }
        asked += 1;
        assert!(asked <= most(begun));
    };
    let refused = Instant::now();
    assert_eq!(list_from(OTHER, cluster.address, &[]).status, 200, "another address");
    for _ in 0..3 * BURST {
        for path in ["/livez", "/readyz"] {
            assert_eq!(connection.request("GET", path, &[], b"").unwrap().status, 200, "{path}");
        }
        assert!(cluster.admin_get("/aegis/api/config?details=models").contains("TODO"));
    }
    let mut problem = answer.json();
    problem["instance"] = "…".into();
    insta::assert_snapshot!(problem, @r#"{"type":"https://aegis/problems/rate-limited","title":"Too many requests","status":429,"detail":"requests from one address (IPv6: one /64) that name no caller are served at a rate of 1 a second, at most 5 at once","instance":"…","code":"rate-limited","retry":"after","error":"requests from one address (IPv6: one /64) that name no caller are served at a rate of 1 a second, at most 5 at once"}"#);
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    eventually("the time to come again", Duration::from_secs(20), || {
        refused.elapsed() >= Duration::from_secs(seconds)
    });
    assert_eq!(connection.request("GET", LIST, &[], b"").unwrap().status, 200, "on the same connection");
}

#[test]
fn a_caller_is_the_same_at_every_address_and_a_bad_token_counts_for_the_address() {
    let host = Guarded::start(App::todo().settings(LIMITS));
    let address = host.cluster.address;
    let ada = host.issuer.bearer("ada", &[]);
    let (begun, mut served, mut refused) = (Instant::now(), 0, None);
    for turn in 0..20 * BURST {
        let source = if turn % 2 == 0 { OTHER } else { Ipv4Addr::LOCALHOST };
        match list_from(source, address, &[("authorization", &ada)]) {
            answer if answer.status == 200 => served += 1,
            answer => refused = Some(answer),
        }
    }
    assert!((BURST..=most(begun)).contains(&served), "{served} in {:?}", begun.elapsed());
    let refused = refused.expect("one of so many is refused");
    assert_problem(&refused, 429, "rate-limited");
    insta::assert_snapshot!(
        refused.json()["detail"].as_str().unwrap(),
        @"requests of one caller are served at a rate of 1 a second, at most 5 at once, whatever address they come from"
    );

    let bob = host.cluster.client().with("authorization", &host.issuer.bearer("bob", &[]));
    let stranger = host.cluster.client().with("authorization", "Bearer e30.e30.AAAA");
    assert_eq!(bob.get("todo").status, 200);
    let begun = Instant::now();
    let told = (0..).map(|_| stranger.get("todo").status).take_while(|status| *status != 429);
    let unknown: Vec<u16> = told.collect();
    assert!(unknown.iter().all(|status| *status == 401), "{unknown:?}");
    assert!((BURST..=most(begun)).contains(&(unknown.len() as u64)), "{unknown:?}");
    assert_eq!(
        host.cluster.client().with("authorization", &host.issuer.bearer("eve", &[])).get("todo").status,
        200
    );
}

#[test]
fn a_limit_comes_and_goes_with_a_reload_and_there_is_none_at_first() {
    let cluster = Cluster::start(App::todo().settings(QUICK), 2);
    let client = cluster.client();
    let all_served = || (0..10 * BURST).all(|_| client.send("GET", LIST, b"").status == 200);
    assert!(all_served());
    let settings = cluster.folder().join("aegis.toml");
    fs::write(&settings, format!("{LIMITS}{QUICK}")).unwrap();
    cluster.aegis_ok(&["reload"]);
    let begun = Instant::now();
    let before = served_until_refused(&client);
    assert_eq!(metric(&cluster, "aegis_rate_limited_total"), 1);
    // What was counted stays when workers go.
    cluster.aegis_ok(&["restart"]);
    let served = before + served_until_refused(&client);
    assert!(served <= most(begun), "{served} in {:?}", begun.elapsed());
    assert_eq!(metric(&cluster, "aegis_rate_limited_total"), 2);
    fs::write(&settings, QUICK).unwrap();
    cluster.aegis_ok(&["reload"]);
    assert!(all_served());
}
