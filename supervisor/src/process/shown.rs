//! What a child that was forked has, and lists of processes show, as its command line and environment: without this, those of
//! its parent.
//!
//! Both are in memory where the kernel put them, and are changed there. Where that is refused they stay as they are, which
//! matters to the eyes of people and to a library that asks for a variable.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions, read_to_string},
    io,
    ops::Range,
    os::unix::{ffi::OsStrExt, fs::FileExt},
};

/// Memory of this process, by address.
const MEMORY: &str = "/proc/self/mem";
/// What the kernel knows about this process, in one line.
const ABOUT: &str = "/proc/self/stat";
/// Words of [`ABOUT`] between the name in brackets and the addresses of the command line and of the environment, where each
/// begins and ends (proc_pid_stat(5)).
const WORDS_BEFORE: usize = 45;
/// Bytes of a command line or an environment that are changed. The kernel takes more than any supervisor has.
const BYTES_MAX: usize = 1024 * 1024;

/// The command line `aegis` with these arguments, as it is in memory: each word with a NUL behind it.
pub(super) fn command_line(arguments: &[OsString]) -> Vec<u8> {
    let mut line = b"aegis\0".to_vec();
    for argument in arguments {
        line.extend(argument.as_bytes().iter().chain(b"\0"));
    }
    line
}

/// Takes this command line in place of the one this process has, and these variables out of its environment. For a process
/// with one thread.
pub(super) fn change(command_line: &[u8], without: &[&str]) -> io::Result<()> {
    let [arguments, environment] =
        places(&read_to_string(ABOUT)?).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let memory: File = OpenOptions::new().read(true).write(true).open(MEMORY)?;
    let mut line = command_line.to_vec();
    line.resize(length(&arguments), 0);
    // The kernel takes a line without an end for one that goes on behind its place.
    if let Some(last) = line.last_mut() {
        *last = 0;
    }
    memory.write_all_at(&line, arguments.start)?;
    let mut variables = vec![0; length(&environment)];
    memory.read_exact_at(&mut variables, environment.start)?;
    clear(&mut variables, without);
    memory.write_all_at(&variables, environment.start)
}

fn length(place: &Range<u64>) -> usize {
    usize::try_from(place.end.saturating_sub(place.start)).unwrap_or(0).min(BYTES_MAX)
}

/// Where the command line and the environment are. The name of a process may have spaces and brackets in it.
fn places(about: &str) -> Option<[Range<u64>; 2]> {
    let (_, words) = about.rsplit_once(')')?;
    let mut words = words.split_ascii_whitespace().skip(WORDS_BEFORE).map(|word| word.parse().ok());
    let mut next = || words.next().flatten();
    Some([next()?..next()?, next()?..next()?])
}

/// Overwrites variables of these names, of those that each end with a NUL, with nothing.
fn clear(variables: &mut [u8], names: &[&str]) {
    for variable in variables.split_mut(|byte| *byte == 0) {
        let name = variable.split(|byte| *byte == b'=').next().unwrap_or_default();
        if names.iter().any(|cleared| cleared.as_bytes() == name) {
            variable.fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_shown_in_place_of_the_one_before() {
        let shown = || std::fs::read("/proc/self/cmdline").unwrap();
        let before = shown();
        change(&command_line(&["worker".into()]), &[]).unwrap();
        assert!(shown().starts_with(b"aegis\0worker\0"), "{:?}", shown());
        assert!(shown()[b"aegis\0worker\0".len()..].iter().all(|byte| *byte == 0), "{:?}", shown());
        change(&command_line(&["x".repeat(before.len() * 2).into()]), &[]).unwrap();
        assert_eq!(shown().len(), before.len());
        assert!(shown().starts_with(b"aegis\0xx") && shown().ends_with(b"x\0"), "{:?}", shown());
        change(&before, &[]).unwrap();
        assert_eq!(shown(), before);
    }

    #[test]
    fn variables_are_gone_from_the_environment_and_from_what_is_shown_of_it() {
        let name = "CARGO_PKG_NAME"; // both test runners set it
        assert!(std::env::var_os(name).is_some());
        let before = std::fs::read("/proc/self/cmdline").unwrap();
        change(&before, &[name, "NOT_THERE"]).unwrap();
        assert_eq!(std::env::var_os(name), None);
        assert!(std::env::vars_os().count() > 0);
        let shown = String::from_utf8_lossy(&std::fs::read("/proc/self/environ").unwrap()).into_owned();
        assert!(!shown.contains("CARGO_PKG_NAME=") && shown.contains("CARGO_PKG_VERSION="), "{shown:?}");
    }

    #[test]
    fn only_whole_names_are_cleared() {
        let mut variables = *b"NOTIFY=1\0NOTIFY_SOCKET=/run\0A=NOTIFY\0NOTIFY\0";
        clear(&mut variables, &["NOTIFY"]);
        assert_eq!(&variables, b"\0\0\0\0\0\0\0\0\0NOTIFY_SOCKET=/run\0A=NOTIFY\0\0\0\0\0\0\0\0");
    }

    #[test]
    fn the_places_are_found_whatever_the_name_is() {
        let numbers: Vec<String> = (0..60).map(|number| number.to_string()).collect();
        let about = format!("7 (a) b) S {}", numbers.join(" "));
        assert_eq!(places(&about), Some([44..45, 46..47]));
        assert_eq!(places("7 (a) S 1 2"), None);
        assert_eq!(places(""), None);
    }
}
