//! A child that goes on in the image that its parent runs, instead of executing it once more.
//!
//! Executing an image of this size anew costs a process some milliseconds before its first own step: the kernel maps it, the
//! loader relocates it and writes to hundreds of its pages. A fork has all of that from its parent (ADR 29).

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, BorrowedFd, RawFd},
        unix::process::{CommandExt, parent_id},
    },
    panic::{AssertUnwindSafe, catch_unwind},
    process::{self, Command},
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        prctl,
        signal::{SigSet, Signal},
    },
    unistd::{ForkResult, fork},
};

use crate::IpcError;

/// Where the kernel lists the threads of the process.
const THREADS: &str = "/proc/self/task";
/// Where it lists the descriptors that are open.
const DESCRIPTORS: &str = "/proc/self/fd";
/// Exit status of a child whose life panicked (`EX_SOFTWARE` of sysexits(3)).
const EXIT_BUG: u8 = 70;

/// Starts a child of this process that has, of its descriptors, the standard ones and those of `keep`, under their numbers.
/// It lives as long as `life` runs, and the value of that is its exit status. Returns its process id.
///
/// `life` begins with everything that this process has in memory. Of what owns a descriptor it may only use what it takes from
/// `keep` by number (see [`crate::handoff`]): all others are closed. When they could not be, it is told why, and is to end.
///
/// # Errors
/// When this process has more than one thread, or the kernel refuses.
#[expect(clippy::exit, reason = "a child must never return into the work of its parent")]
pub fn live_on(
    keep: &[BorrowedFd<'_>],
    life: impl FnOnce(io::Result<()>) -> u8 + 'static,
) -> Result<u32, IpcError> {
    let threads = threads().map_err(|error| IpcError::os(format!("reading {THREADS}"), error))?;
    if threads != 1 {
        return Err(IpcError::Unexpected {
            object: "a process that is to fork".to_owned(),
            found: format!("{threads} threads"),
            expected: "one, since the others would be missing in the child".to_owned(),
        });
    }
    match duplicate().map_err(|error| IpcError::os("forking", error))? {
        ForkResult::Parent { child } => Ok(child.as_raw().unsigned_abs()),
        ForkResult::Child => {
            let lived = catch_unwind(AssertUnwindSafe(|| life(close_all_but(keep))));
            process::exit(i32::from(lived.unwrap_or(EXIT_BUG)))
        }
    }
}

/// Has the kernel kill the child that `command` starts when the thread that starts it is gone, however that ends, and lets all
/// signals through to the child, whatever its parent holds back. Both outlast what else the child executes.
#[expect(unsafe_code, reason = "only the child itself can ask for this, before it executes anything")]
pub fn bind_to_life_of_parent(command: &mut Command) {
    let parent = process::id();
    let bind = move || -> io::Result<()> {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // It may have been gone before the kernel was asked to watch over it.
        if parent_id() != parent {
            return Err(Errno::ESRCH.into());
        }
        SigSet::empty().thread_set_mask()?;
        Ok(())
    };
    // SAFETY: between fork and exec it makes three system calls that may be made there; it takes no lock and no memory.
    unsafe { command.pre_exec(bind) };
}

fn threads() -> io::Result<usize> {
    Ok(fs::read_dir(THREADS)?.count())
}

#[expect(unsafe_code, reason = "the compiler cannot see that there is one thread")]
fn duplicate() -> nix::Result<ForkResult> {
    // SAFETY: there is one thread, so no other one can hold a lock, or be in the middle of a change, that the child would
    // never see the end of.
    unsafe { fork() }
}

/// Closes all descriptors but the standard ones and these.
fn close_all_but(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    kept.sort_unstable();
    // Before Linux 5.9 there is no such call, and who filters calls may not know it.
    if close_between(&kept).is_err() {
        for number in all_but(&kept)? {
            match nix::unistd::close(number) {
                Ok(()) | Err(Errno::EBADF) => {} // the one that they were listed through
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Open descriptors but the standard ones and these, which are sorted.
fn all_but(kept: &[RawFd]) -> io::Result<Vec<RawFd>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(DESCRIPTORS)? {
        let number = entry?.file_name().to_str().and_then(|number| number.parse::<RawFd>().ok());
        let is_other = |number: &RawFd| *number > libc::STDERR_FILENO && kept.binary_search(number).is_err();
        numbers.extend(number.filter(is_other));
    }
    Ok(numbers)
}

fn close_between(kept: &[RawFd]) -> nix::Result<()> {
    let mut first = libc::STDERR_FILENO + 1;
    for number in kept.iter().copied() {
        if number > first {
            close_range(first, number - 1)?;
        }
        first = first.max(number + 1);
    }
    close_range(first, RawFd::MAX)
}

#[expect(unsafe_code, reason = "what owns these descriptors is in memory that the child does not go back to")]
fn close_range(first: RawFd, last: RawFd) -> nix::Result<()> {
    // SAFETY: only called in a child, which has one thread and leaves by `exit`: values that own a descriptor in the range
    // are neither used any more, which is asked of who forks, nor dropped.
    let outcome = unsafe { libc::close_range(first.unsigned_abs(), last.unsigned_abs(), 0) };
    Errno::result(outcome).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn bound(program: &str, arguments: &[&str]) -> process::Child {
        let mut command = Command::new(program);
        bind_to_life_of_parent(command.args(arguments));
        command.spawn().unwrap()
    }

    #[test]
    fn what_is_bound_goes_with_the_thread_that_started_it() {
        let mut child = std::thread::spawn(|| bound("/bin/sh", &["-c", "exec sleep 1000"])).join().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn what_is_bound_holds_no_signals_back() {
        SigSet::from(Signal::SIGTERM).thread_block().unwrap();
        let mut child = bound("/bin/grep", &["-Eq", "^SigBlk:\\s0+$", "/proc/self/status"]);
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn what_is_open_and_not_kept_is_known_without_the_call_that_closes_it() {
        let [kept, other] = [(); 2].map(|()| tempfile::tempfile().unwrap());
        let found = all_but(&[kept.as_raw_fd()]).unwrap();
        assert!(found.contains(&other.as_raw_fd()), "{found:?}");
        assert!(!found.contains(&kept.as_raw_fd()) && found.iter().all(|number| *number > 2), "{found:?}");
    }

    #[test]
    fn a_process_with_other_threads_is_not_forked() {
        let (leave, stay) = std::sync::mpsc::channel::<()>();
        let other = std::thread::spawn(move || stay.recv());
        let refusal = live_on(&[], |_| 0).unwrap_err().to_string();
        assert!(refusal.contains("threads, expected one"), "{refusal}");
        drop(leave);
        assert!(other.join().unwrap().is_err());
    }
}
