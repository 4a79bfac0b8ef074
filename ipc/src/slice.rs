//! Short turns on the processor, for threads that others wait for.
//!
//! The store's writer, who brings it the writes, a worker's acceptor and its runtimes work a fraction of a millisecond at a
//! time, and every client waits for them. When all processors are busy the kernel lets who runs go on for the rest of its
//! turn, which is milliseconds, before it lets them in. A thread that asks for short turns is let in at once instead, and
//! gets no more time for it than any other (EEVDF, Linux 6.12; see `sched_setattr(2)`). Earlier kernels take the wish and do
//! nothing. Threads inherit it from the one that starts them.
//!
//! Threads that compute for long are better off with the usual turns. Long ones let others in at once as well, but what the
//! kernel owes to a thread that had to wait, it keeps up to two turns of it, and pays back in one piece: tens of milliseconds
//! in which nobody else is let in.

use std::{io, mem, time::Duration};

use nix::libc;

/// Shortest turn that the kernel knows.
const SLICE: Duration = Duration::from_micros(100);

/// What stands for a turn as long as the kernel gives those who do not ask.
const USUAL: Duration = Duration::ZERO;

/// Bytes of what the kernel is asked with.
const SIZE: usize = mem::size_of::<libc::sched_attr>();

/// Asks for short turns for the calling thread. It is a wish: nothing else changes where the kernel refuses it.
pub fn ask_for_short() {
    let _ = set(SLICE);
}

/// Asks for turns of the usual length, for a thread that was started by one with short turns.
pub fn ask_for_usual() {
    let _ = set(USUAL);
}

#[expect(unsafe_code, reason = "neither the standard library nor a crate that is here has this call")]
fn get() -> io::Result<libc::sched_attr> {
    let mut attributes = libc::sched_attr {
        size: SIZE as u32,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let address = &raw mut attributes;
    // SAFETY: thread 0 is the calling one; the kernel writes at most `SIZE` bytes into a structure of that size, which
    // lives until the call returns.
    if unsafe { libc::syscall(libc::SYS_sched_getattr, 0, address, SIZE, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(attributes)
}

#[expect(unsafe_code, reason = "neither the standard library nor a crate that is here has this call")]
fn set(slice: Duration) -> io::Result<()> {
    let mut attributes = get()?;
    attributes.sched_runtime = slice.as_nanos() as u64;
    // SAFETY: thread 0 is the calling one; the kernel only reads. Policy and niceness are what they were.
    if unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_may_ask_for_short_turns() {
        std::thread::scope(|scope| {
            scope.spawn(|| set(SLICE).unwrap());
        });
    }

    #[test]
    fn a_thread_may_go_back_to_usual_turns() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let usual = get().unwrap().sched_runtime;
                set(SLICE).unwrap();
                std::thread::scope(|scope| {
                    scope.spawn(|| {
                        set(USUAL).unwrap();
                        assert_eq!(get().unwrap().sched_runtime, usual);
                    });
                });
            });
        });
    }
}
