//! Long runs that break things on purpose while clients write down what they see.
//!
//! ```text
//! aegis-chaos linear   histories of HTTP clients over 4 workers are linearizable and lists show one prefix of the log
//!                      while workers, the store and the whole host are killed or stopped, generations roll and the
//!                      fleet is scaled
//! aegis-chaos storm    workers are killed every 100 ms; nothing acknowledged is lost, the fleet is whole at once
//! aegis-chaos upgrade  the executable is replaced over and over under load
//! aegis-chaos leaks    after a thousand reloads, restarts, kills and changes of scale the host holds what it held
//! aegis-chaos all      the four
//! ```

#![expect(clippy::print_stdout, reason = "a command that reports")]

mod clients;
mod history;
mod leaks;
mod linear;
mod lists;
mod nemesis;
mod storm;
mod upgrade;
mod watch;

use std::{env, process::ExitCode};

/// How long and how hard.
#[derive(Debug, Clone, Copy)]
struct Options {
    /// Seconds of one run.
    seconds: u64,
    /// Clients at once.
    clients: usize,
    /// Documents they fight over.
    keys: usize,
    /// Workers.
    workers: u32,
    /// Upgrades in a row.
    upgrades: u32,
    /// Cycles that have to leave nothing behind.
    cycles: u32,
}

/// One thing that was checked.
struct Check {
    what: String,
    held: bool,
    seen: String,
}

impl Check {
    fn new(what: impl Into<String>, held: bool, seen: impl Into<String>) -> Self {
        Self { what: what.into(), held, seen: seen.into() }
    }

    /// Held when there is no example of the contrary.
    fn none(what: impl Into<String>, examples: &[String]) -> Self {
        Self::new(what, examples.is_empty(), format!("{} seen {:?}", examples.len(), examples.first()))
    }
}

fn main() -> ExitCode {
    let mut options = Options { seconds: 60, clients: 16, keys: 40, workers: 4, upgrades: 20, cycles: 1000 };
    let mut wanted = String::from("all");
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number =
            |default: u64| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
        match argument.as_str() {
            "--seconds" => options.seconds = number(60),
            "--clients" => options.clients = number(16) as usize,
            "--keys" => options.keys = number(40) as usize,
            "--workers" => options.workers = number(4) as u32,
            "--upgrades" => options.upgrades = number(20) as u32,
            "--cycles" => options.cycles = number(1000) as u32,
            name @ ("linear" | "storm" | "upgrade" | "leaks" | "all") => name.clone_into(&mut wanted),
            other => {
                println!("unknown argument {other}");
                return ExitCode::from(64);
            }
        }
    }
    let mut checks = Vec::new();
    if wanted == "linear" || wanted == "all" {
        checks.extend(linear::run(options));
    }
    if wanted == "storm" || wanted == "all" {
        checks.extend(storm::run(options));
    }
    if wanted == "upgrade" || wanted == "all" {
        checks.extend(upgrade::run(options));
    }
    if wanted == "leaks" || wanted == "all" {
        checks.extend(leaks::run(options));
    }
    for check in &checks {
        println!("{} {}: {}", if check.held { "ok    " } else { "FAILED" }, check.what, check.seen);
    }
    let failed = checks.iter().filter(|check| !check.held).count();
    println!("{} passed, {failed} failed", checks.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
