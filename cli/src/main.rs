//! `aegis`: what a person types, and what the host starts its own processes with.

use std::{panic, process::ExitCode};

mod app;
mod arguments;
mod check;
mod client;
mod compile;
mod data;
mod dispatch;
mod logging;
mod operate;
mod output;
mod progress;
mod roles;
mod run;
mod status;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let code = panic::catch_unwind(|| dispatch::command_line(std::env::args_os()));
    ExitCode::from(code.unwrap_or(aegis_supervisor::exit::BUG))
}
