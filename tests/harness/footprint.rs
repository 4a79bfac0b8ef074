//! What a host holds of the system, to be compared before and after.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::{Cluster, wait::eventually_some};

/// Folder of the data folder whose files come and go as the storage engine likes.
const ENGINE_FOLDER: &str = "store";
/// Equal looks in a row that make a footprint a steady one.
const STEADY_LOOKS: u32 = 20;
const STEADY_TIMEOUT: Duration = Duration::from_secs(20);
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// What the supervisor and its folder hold, and the store's mappings of the board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    /// Open descriptors of the supervisor, by what they are.
    pub descriptors: HashMap<String, usize>,
    /// Its threads.
    pub threads: usize,
    /// Its children, whatever their state.
    pub children: usize,
    /// Those that have ended and were not waited for.
    pub zombies: usize,
    /// Mappings of the board in the supervisor and in the store.
    pub boards: [usize; 2],
    /// Everything in the data folder but the files of the storage engine.
    pub entries: BTreeSet<PathBuf>,
}

impl Footprint {
    /// Of a host at rest: what ended a moment ago, be it a question to the supervisor, is no part of it.
    ///
    /// # Panics
    /// When the host does not come to rest.
    #[must_use]
    pub fn steady(cluster: &Cluster) -> Self {
        let (mut last, mut looks) = (Self::of(cluster), 0);
        eventually_some("a steady footprint", STEADY_TIMEOUT, || {
            let now = Self::of(cluster);
            looks = if now == last { looks + 1 } else { 0 };
            last = now;
            (looks >= STEADY_LOOKS).then(|| last.clone())
        })
    }

    /// Waits until the host holds what it held before; gives what it holds in the end.
    #[must_use]
    pub fn settled(cluster: &Cluster, before: &Self, deadline: Duration) -> Self {
        let end = Instant::now() + deadline;
        loop {
            let now = Self::of(cluster);
            if now == *before || Instant::now() >= end {
                return now;
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    fn of(cluster: &Cluster) -> Self {
        let children = cluster.children();
        let data = cluster.folder().join("data");
        let mut entries = BTreeSet::new();
        walk(&data, &data, &mut entries);
        Self {
            descriptors: cluster.descriptors(),
            threads: threads(cluster.pid()),
            zombies: children.iter().filter(|pid| is_zombie(**pid)).count(),
            children: children.len(),
            boards: [cluster.pid(), cluster.status().store.pid].map(boards),
            entries,
        }
    }
}

/// Threads of a process.
#[must_use]
pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

/// Resident memory of a process, bytes.
#[must_use]
pub fn resident_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}

fn is_zombie(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

fn boards(pid: u32) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    maps.lines().filter(|line| line.contains("/memfd:aegis-board")).count()
}

fn walk(root: &Path, folder: &Path, entries: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
        if path.is_dir() && name != Path::new(ENGINE_FOLDER) {
            walk(root, &path, entries);
        }
        entries.insert(name);
    }
}
