//! How late the machine wakes a thread that only sleeps, beside what is measured.
//!
//! Whatever delays such a thread is not the host's code: a processor that the hypervisor does not run, an interrupt, another
//! thread that the kernel lets finish its turn. It is what `cyclictest` of the Linux real-time tests and jHiccup (Gil Tene)
//! measure. Nothing is subtracted from anything: it stands in a row of its own, so that whoever reads a tail of the host sees
//! that of the machine in the same windows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::windows::{Record, Sample};

/// How long it sleeps each time.
const BEAT: Duration = Duration::from_millis(1);

/// A thread that sleeps until it is stopped.
#[derive(Debug)]
pub(crate) struct Metronome {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    late: Record,
}

impl Metronome {
    pub(crate) fn start() -> Self {
        let (stop, late) = (Arc::new(AtomicBool::new(false)), Record::default());
        let thread = thread::spawn({
            let (stop, late) = (Arc::clone(&stop), late.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    thread::sleep(BEAT);
                    late.add(begun, begun.elapsed().saturating_sub(BEAT));
                }
            }
        });
        Self { stop, thread, late }
    }

    /// How late it woke up each time.
    pub(crate) fn stop(self) -> Vec<Sample> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the metronome ends by itself");
        self.late.all()
    }
}
