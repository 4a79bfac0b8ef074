//! One command, one table of ratios: this host beside a bare hyper server of two processes on one shared socket that
//! answers the same bytes, nginx serving them as a file, and the storage engine's own group commit.
//!
//! Everything runs on this machine in one go, in interleaved rounds, so that the ratios hold although the machine is
//! small and its speed drifts. Absolute numbers are printed for orientation only.
//!
//! Such a machine also pauses, for longer than any request takes, so a tail that was measured in one stretch says whether
//! there was a pause in it. Rows that compare tails do so over [`windows`] that alternate quickly and are pooled, tell how
//! late the [`metronome`] was in the same windows, and compare counts with a test of [`chance`].

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command that prints a table")]

mod auth;
mod bare;
mod chance;
mod computing;
mod disturbed;
mod engine;
mod joining;
mod metronome;
mod modules;
mod nginx;
mod reload;
mod rows;
mod serving;
mod subject;
mod swap;
mod windows;
mod writes;
mod wrk;

use std::{env, process::ExitCode, time::Duration};

/// What the operator of the benchmark may choose.
#[derive(Debug, Clone)]
struct Options {
    /// Seconds of one measurement.
    seconds: u64,
    /// Interleaved rounds; medians are reported.
    rounds: usize,
    /// Rolling reloads under load.
    reloads: usize,
    /// Rows whose name contains this.
    only: Option<String>,
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let mut options = Options { seconds: 5, rounds: 3, reloads: 200, only: None };
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse::<u64>().ok());
        match argument.as_str() {
            "bare" => return bare::serve(arguments.next()),
            "storing" => return bare::serve_storing(arguments.next()),
            "--seconds" => options.seconds = number().unwrap_or(5).max(1),
            "--rounds" => options.rounds = number().unwrap_or(3).max(1) as usize,
            "--reloads" => options.reloads = number().unwrap_or(200) as usize,
            "--only" => options.only = arguments.next(),
            other => {
                eprintln!("unknown argument {other}; known: --seconds N --rounds N --reloads N --only ROW");
                return ExitCode::from(64);
            }
        }
    }
    if !rows::NAMES.iter().any(|name| options.wants(name)) {
        eprintln!("no row of that name; known: {}", rows::NAMES.join(" "));
        return ExitCode::from(64);
    }
    let rows = rows::all(&options);
    let held = rows.iter().filter(|row| row.held).count();
    println!();
    println!("{:<44} {:>12} {:>12} {:>8}  must hold", "row", "ours", "beside", "ratio");
    for row in &rows {
        let sign = if row.held { "✓" } else { "✗" };
        println!(
            "{:<44} {:>12} {:>12} {:>8}  {sign} {}",
            row.name, row.ours, row.beside, row.ratio, row.must
        );
    }
    println!("\n{held} of {} rows hold", rows.len());
    if held == rows.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Options {
    fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    fn wants(&self, row: &str) -> bool {
        self.only.as_ref().is_none_or(|only| row.contains(only.as_str()))
    }
}

/// Tells what is being measured.
fn told(text: &str) {
    eprintln!("{text}");
}

/// Waits until a load has completed so many requests.
fn keep_running(running: &aegis_harness::load::Running, requests: u64) {
    let deadline = Duration::from_secs(600);
    aegis_harness::eventually("enough requests", deadline, || running.completed() >= requests);
}

/// The middle value.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
