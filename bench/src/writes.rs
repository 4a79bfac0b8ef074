//! What creating documents costs: durably, beside the storage engine alone, and without a disk.

use std::net::SocketAddr;

use crate::{
    Options,
    bare::Bare,
    engine::{self, Reached},
    median,
    rows::{Row, answered, clean, milliseconds, rate, row},
    subject, told,
    wrk::{self, Load},
};

/// Connections that create documents at a time, and documents in a group of the engine alone.
const AT_ONCE: usize = 64;

/// What one round reached.
struct Round {
    /// Documents per second that were durable when they were answered.
    durable: f64,
    /// Median time of one of them on a connection of its own, milliseconds.
    single_ms: f64,
    /// Documents per second of a host that keeps them in the memory of its store.
    in_memory: f64,
    /// Requests per second of a server that reads the document and stores nothing.
    unstored: f64,
    /// Documents per second of a server that only puts the engine behind its socket.
    stored: f64,
    /// What the engine reaches alone.
    engine: Reached,
}

pub(crate) fn all(options: &Options) -> Vec<Row> {
    let (durable, _) = subject::start("");
    let (in_memory, _) = subject::start("datasource = \"memory\"");
    let mut document = subject::document("x");
    document.as_object_mut().expect("an object").remove("id");
    let body = document.to_string();
    let stored = durable.client().get("todo/bench").body;
    let load = Load::Post("/aegis/api/models/todo", &body);
    let (headers, answer) = answered(&durable);
    let bare = Bare::start(&headers, &answer);
    let storing = Bare::start_storing(&headers);
    let many = |address: SocketAddr| clean(wrk::run(address, AT_ONCE, options.duration(), &load)).rate;
    let rounds = (1..=options.rounds).map(|round| {
        told(&format!("durable POST, round {round} …"));
        Round {
            durable: many(durable.address),
            single_ms: clean(wrk::run(durable.address, 1, options.duration(), &load)).p50.as_secs_f64()
                * 1000.0,
            in_memory: many(in_memory.address),
            unstored: many(bare.address),
            stored: many(storing.address),
            engine: engine::measure(&stored, AT_ONCE, options.duration()),
        }
    });
    rows(&rounds.collect::<Vec<_>>())
}

fn rows(rounds: &[Round]) -> Vec<Row> {
    let of = |value: fn(&Round) -> f64| median(rounds.iter().map(value).collect());
    let ratio = of(|round| round.durable / round.engine.rate);
    let (single, sync) =
        (of(|round| round.single_ms), of(|round| round.engine.single.as_secs_f64() * 1000.0));
    let allowed = 1.5 * sync + 0.5;
    let beside = |name: &str, ours: f64, beside: f64, ratio: f64| {
        row(name, rate(ours), rate(beside), format!("{ratio:.2}"), "–", true)
    };
    vec![
        row(
            "post durable, 64 connections / engine at 64",
            rate(of(|round| round.durable)),
            rate(of(|round| round.engine.rate)),
            format!("{ratio:.2}"),
            "≥ 0.5",
            ratio >= 0.5,
        ),
        beside(
            "post in memory, no disk at all / the same",
            of(|round| round.in_memory),
            of(|round| round.engine.rate),
            of(|round| round.in_memory / round.engine.rate),
        ),
        beside(
            "post, bare hyper before the engine / engine at 64",
            of(|round| round.stored),
            of(|round| round.engine.rate),
            of(|round| round.stored / round.engine.rate),
        ),
        beside(
            "post durable, 64 connections / bare hyper before the engine",
            of(|round| round.durable),
            of(|round| round.stored),
            of(|round| round.durable / round.stored),
        ),
        beside(
            "post durable, 64 connections / bare hyper that stores nothing",
            of(|round| round.durable),
            of(|round| round.unstored),
            of(|round| round.durable / round.unstored),
        ),
        row(
            "post durable, 1 connection: p50",
            milliseconds(single),
            milliseconds(sync),
            format!("{:.2}", single / sync),
            &format!("≤ 1.5 × + 0.5 ms = {allowed:.2} ms"),
            single <= allowed,
        ),
    ]
}
