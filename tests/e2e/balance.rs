//! Slow keep-alive connections spread evenly over the workers, also after a roll.

use std::{collections::BTreeMap, thread, time::Duration};

use aegis_harness::{App, Client, Cluster, Connection};

const CONNECTIONS: usize = 200;
/// Two for each worker.
const FEW_CONNECTIONS: usize = 16;
const WORKERS: usize = 8;

/// Sends one request on each connection; opens those that were closed anew. Gives the spread over the workers.
fn visit(client: &Client, connections: &mut [Option<Connection>], pace: Duration) -> BTreeMap<String, usize> {
    let mut spread = BTreeMap::new();
    for connection in connections.iter_mut() {
        let open = connection.get_or_insert_with(|| client.connect().unwrap());
        let response = open.request("GET", "/livez", &[], b"").unwrap();
        assert_eq!(response.status, 200);
        *spread.entry(response.worker().to_owned()).or_default() += 1;
        if response.closes() {
            *connection = None;
        }
        thread::sleep(pace); // the pace of the connections is what is tested
    }
    spread
}

/// The busiest worker has at most a quarter more than the idlest. Of a few connections, each may have one more or less than
/// its share: a worker that a busy machine keeps waiting comes late for one.
fn assert_even(spread: &BTreeMap<String, usize>) {
    let (least, most) = (*spread.values().min().unwrap(), *spread.values().max().unwrap());
    let share = spread.values().sum::<usize>() / WORKERS;
    assert_eq!(spread.len(), WORKERS, "{spread:?}");
    assert!(most as f64 / least as f64 <= 1.25 || (share <= least + 1 && most <= share + 1), "{spread:?}");
}

#[test]
fn slow_connections_are_even_before_and_after_a_roll() {
    are_even_before_and_after_a_roll(CONNECTIONS, Duration::from_millis(2));
}

#[test]
fn a_few_slow_connections_are_even_before_and_after_a_roll() {
    are_even_before_and_after_a_roll(FEW_CONNECTIONS, Duration::from_millis(20));
}

fn are_even_before_and_after_a_roll(count: usize, pace: Duration) {
    let cluster = Cluster::start(App::todo().settings("[reload]\ncanary-time = \"50ms\""), WORKERS as u32);
    let client = cluster.client();
    let mut connections: Vec<Option<Connection>> = (0..count).map(|_| None).collect();
    visit(&client, &mut connections, pace);
    assert_even(&visit(&client, &mut connections, pace));

    cluster.aegis_ok(&["restart"]);
    visit(&client, &mut connections, pace);
    visit(&client, &mut connections, pace);
    cluster.await_workers(WORKERS);
    assert_even(&visit(&client, &mut connections, pace));
}
