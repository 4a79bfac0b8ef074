//! Short turns on the processor for whoever computes here, on kernels that look at their clock only every few
//! milliseconds.
//!
//! With a tick every 4 ms (`CONFIG_HZ=250`, what distributions have) a process that computes beside those that serve has a
//! core for whole ticks, however little of it the kernel owes to it: nobody asks before the next tick whether its turn is
//! over. A thread that wakes up on that core in between makes the kernel ask, and the one that serves is let in (ADR 28).

use std::{io, thread, time::Duration};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Time between two looks at who should run. A few requests are served in it.
const PERIOD: Duration = Duration::from_micros(500);
/// Stands for the calling thread.
const THIS_THREAD: Pid = Pid::from_raw(0);

/// Makes the kernel choose anew who runs every half millisecond, on each core that this process may use, until the process
/// ends: a thread per core that only sleeps. To be called before this process gives up priority, which the threads would
/// inherit. Answers with how many cores it is done on; where the kernel refuses a thread it has the turns that it has.
pub(crate) fn keep_turns_short() -> usize {
    let Ok(allowed) = sched_getaffinity(THIS_THREAD) else { return 0 };
    let cores = (0..CpuSet::count()).filter(|&core| allowed.is_set(core).unwrap_or(false));
    cores.filter(|&core| start(core).is_ok()).count()
}

/// Starts the thread of one core.
fn start(core: usize) -> io::Result<()> {
    let mut only = CpuSet::new();
    only.set(core)?;
    thread::Builder::new().name(format!("pace-{core}")).spawn(move || {
        // A core may be taken away at any time; then there is nothing to do.
        if sched_setaffinity(THIS_THREAD, &only).is_ok() {
            loop {
                thread::sleep(PERIOD);
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        time::{Duration, Instant},
    };

    use super::*;

    /// The cores on which threads of this process that keep turns short may run, by the name of the thread.
    fn cores_of_pacing_threads() -> Vec<(String, String)> {
        let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
        tasks
            .filter_map(|task| {
                let name = fs::read_to_string(task.join("comm")).ok()?.trim().to_owned();
                let status = fs::read_to_string(task.join("status")).ok()?;
                let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
                name.starts_with("pace-").then(|| (name, format!("pace-{}", cores.trim())))
            })
            .collect()
    }

    #[test]
    fn every_core_has_a_thread_of_its_own_that_wakes_up() {
        let cores = keep_turns_short();
        assert!(cores >= thread::available_parallelism().unwrap().get(), "{cores}");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let found = cores_of_pacing_threads();
            if found.len() == cores && found.iter().all(|(name, bound)| name == bound) {
                break;
            }
            assert!(Instant::now() < deadline, "{found:?}");
            thread::yield_now();
        }
    }
}
