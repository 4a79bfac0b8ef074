//! One beat for everything in the process that has to happen every now and then.
//!
//! A runtime with a timer that is always armed asks the clock twice and sets a kernel timer whenever it goes to
//! sleep, which at full load is after every request: 3 % of what a request costs. So what happens every tenth of a
//! second waits for a beat from one thread, and the runtimes have timers only while a request needs one. If the
//! thread stopped, so would the heartbeats, and the supervisor would replace the worker.

use std::{io, sync::OnceLock, thread, time::Duration};

use tokio::sync::watch;

/// Time between two beats.
const BEAT: Duration = Duration::from_millis(100);

/// Waits for the next beat.
pub(crate) async fn beat() {
    match beats() {
        // The sender lives as long as the process, so the only outcome is a beat.
        Some(beats) => drop(beats.subscribe().changed().await),
        None => tokio::time::sleep(BEAT).await,
    }
}

/// The beats of the thread, which is started by whoever waits first. `None`: it cannot be made, so everybody has to
/// use a timer of their own.
fn beats() -> Option<&'static watch::Sender<u64>> {
    static BEATS: OnceLock<watch::Sender<u64>> = OnceLock::new();
    static THREAD: OnceLock<bool> = OnceLock::new();
    let beats = BEATS.get_or_init(|| watch::Sender::new(0));
    THREAD.get_or_init(|| start(beats).is_ok()).then_some(beats)
}

fn start(beats: &'static watch::Sender<u64>) -> io::Result<()> {
    thread::Builder::new().name("metronome".to_owned()).spawn(move || {
        loop {
            thread::sleep(BEAT);
            beats.send_modify(|beats| *beats = beats.wrapping_add(1));
        }
    })?;
    Ok(())
}
