//! `aegis`: what a person types, and what the host starts its own processes with.

use std::{panic, process::ExitCode};

mod app;
mod arguments;
mod check;
mod client;
mod compile;
mod data;
mod dev;
mod dispatch;
mod examine;
mod logging;
mod look;
mod new;
mod operate;
mod output;
mod pace;
mod progress;
mod roles;
mod room;
mod run;
mod run_command;
mod signing;
mod status;
mod trust;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    refuse_huge_pages();
    let code = panic::catch_unwind(|| dispatch::command_line(std::env::args_os()));
    ExitCode::from(code.unwrap_or(aegis_supervisor::exit::BUG))
}

/// Memory comes in small pages, here and in all processes that this one starts. The kernel clears a huge page as a whole
/// when its first byte is touched; for heaps of small documents that come and go, clearing took a sixth of the time of
/// all writes, and it made every process larger than what it uses.
fn refuse_huge_pages() {
    let _ = nix::sys::prctl::set_thp_disable(true); // a kernel that cannot serves all the same
}
