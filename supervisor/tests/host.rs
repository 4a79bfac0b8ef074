//! Stories of a whole host: a real supervisor, with puppets for the store, the workers and the compile helper.
//!
//! This program is the tests and every process of the host they start. With the name of a role as first argument it
//! plays that role, as the real executable does; otherwise it runs the stories, with the options of the usual test
//! harness that matter (`--list`, `--exact`, a filter).

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that fails says so")]

#[path = "host/harness.rs"]
mod harness;
#[path = "host/puppet.rs"]
mod puppet;
#[path = "host/rehearsals.rs"]
mod rehearsals;
#[path = "host/stories.rs"]
mod stories;
#[path = "host/upgrades.rs"]
mod upgrades;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = puppet::play(&arguments) {
        return ExitCode::from(code);
    }
    let selection = Selection::from(&arguments);
    for (name, story) in stories::ALL.into_iter().filter(|(name, _)| selection.has(name)) {
        if selection.only_list {
            println!("{name}: test");
        } else {
            story(); // a panic ends the program with its message and a failing status
            println!("test {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

/// Which stories are wanted: the options of the usual test harness.
#[derive(Default)]
struct Selection {
    only_list: bool,
    only_ignored: bool,
    exact: bool,
    filters: Vec<String>,
    skipped: Vec<String>,
}

impl Selection {
    fn from(arguments: &[String]) -> Self {
        let mut selection = Self::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--list" => selection.only_list = true,
                "--ignored" => selection.only_ignored = true,
                "--exact" => selection.exact = true,
                "--skip" => selection.skipped.extend(arguments.next().cloned()),
                "--format" | "--color" | "--test-threads" => {
                    arguments.next();
                }
                option if option.starts_with('-') => {}
                filter => selection.filters.push(filter.to_owned()),
            }
        }
        selection
    }

    fn has(&self, name: &str) -> bool {
        let fits = |filter: &String| if self.exact { filter == name } else { name.contains(filter.as_str()) };
        let wanted = self.filters.is_empty() || self.filters.iter().any(fits);
        wanted && !self.only_ignored && !self.skipped.iter().any(fits)
    }
}
