//! Which writes were committed lately, to answer those that a worker sends again after a broken connection.

use std::collections::{HashMap, VecDeque};

use crate::{
    commit::Placed,
    engine::{CommittedWrite, KeptRequests, RequestGroup},
    storage::Place,
};

/// Writes are recognised at least this long, unless there are more than [`WRITES_MAX`], milliseconds. A worker gives
/// up on a write after seconds.
pub(crate) const KEPT_MS: u64 = 10 * 60 * 1000;
/// Writes that are recognised at most. At fifty thousand a second this is still ten seconds of them.
const WRITES_MAX: usize = 512 * 1024;

/// Writes that were committed lately.
#[derive(Debug, Default)]
pub(crate) struct RecentRequests {
    writes: HashMap<(u64, u64), CommittedWrite>,
    groups: VecDeque<Group>,
    next_number: u64,
}

/// Writes of one group commit in one place.
#[derive(Debug)]
struct Group {
    /// Number of its row on disk; none when they are only in memory.
    row: Option<u64>,
    time_ms: u64,
    identities: Vec<(u64, u64)>,
}

impl RecentRequests {
    /// Continues with what is on disk, and with what the store before had only in memory.
    pub(crate) fn recovered(groups: Vec<RequestGroup>, kept: Vec<KeptRequests>) -> Self {
        let next_number = groups.last().map_or(0, |group| group.number + 1);
        let on_disk = groups.into_iter().map(|group| (Some(group.number), group.time_ms, group.writes));
        let in_memory = kept.into_iter().map(|group| (None, group.time_ms, group.writes));
        let mut all: Vec<_> = on_disk.chain(in_memory).collect();
        // As they were committed: the oldest are forgotten first.
        all.sort_by_key(|(_, _, writes)| writes.first().map_or(0, |write| write.first));
        let mut recent = Self { next_number, ..Self::default() };
        for (row, time_ms, writes) in all {
            recent.remember(row, time_ms, &writes);
        }
        recent
    }

    /// Those that are only in memory, oldest first.
    pub(crate) fn in_memory(&self) -> impl Iterator<Item = KeptRequests> {
        let groups = self.groups.iter().filter(|group| group.row.is_none());
        groups.map(move |group| {
            let writes = group.identities.iter().filter_map(|identity| self.writes.get(identity).copied());
            KeptRequests { time_ms: group.time_ms, writes: writes.collect() }
        })
    }

    /// A write that was committed before.
    pub(crate) fn find(&self, incarnation: u64, request: u64) -> Option<CommittedWrite> {
        self.writes.get(&(incarnation, request)).copied()
    }

    /// The row to be written with a group; none when all of it is only in memory.
    pub(crate) fn row(&self, now_ms: u64, committed: &[Placed<CommittedWrite>]) -> Option<RequestGroup> {
        let on_disk = committed.iter().filter(|write| write.place == Place::File);
        let writes: Vec<CommittedWrite> = on_disk.map(|write| write.what).collect();
        (!writes.is_empty()).then_some(RequestGroup { number: self.next_number, time_ms: now_ms, writes })
    }

    /// The group is durable.
    pub(crate) fn committed(
        &mut self,
        now_ms: u64,
        row: Option<&RequestGroup>,
        committed: &[Placed<CommittedWrite>],
    ) {
        if let Some(row) = row {
            self.next_number = row.number + 1;
            self.remember(Some(row.number), now_ms, &row.writes);
        }
        let in_memory = committed.iter().filter(|write| write.place == Place::Memory);
        let writes: Vec<CommittedWrite> = in_memory.map(|write| write.what).collect();
        if !writes.is_empty() {
            self.remember(None, now_ms, &writes);
        }
    }

    /// Forgets what is too old or too much; returns the rows that can go, at most `rows_max`.
    pub(crate) fn expire(&mut self, now_ms: u64, rows_max: usize) -> Vec<u64> {
        let mut rows = Vec::new();
        while rows.len() < rows_max
            && let Some(group) = self.groups.front()
            && (group.time_ms.saturating_add(KEPT_MS) < now_ms || self.writes.len() > WRITES_MAX)
        {
            for identity in &group.identities {
                self.writes.remove(identity);
            }
            rows.extend(group.row);
            self.groups.pop_front();
        }
        rows
    }

    fn remember(&mut self, row: Option<u64>, time_ms: u64, writes: &[CommittedWrite]) {
        let identities = writes.iter().map(|write| (write.incarnation, write.request)).collect();
        for write in writes {
            self.writes.insert((write.incarnation, write.request), *write);
        }
        self.groups.push_back(Group { row, time_ms, identities });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(request: u64, place: Place) -> Placed<CommittedWrite> {
        Placed { place, what: CommittedWrite { incarnation: 1, request, first: request, last: request } }
    }

    #[test]
    fn writes_are_recognised_also_after_a_restart_until_they_are_old() {
        let mut recent = RecentRequests::default();
        let group = [placed(1, Place::File), placed(2, Place::Memory)];
        let row = recent.row(1000, &group).unwrap();
        assert_eq!(row.writes.len(), 1, "what is only in memory is not written to disk");
        recent.committed(1000, Some(&row), &group);
        assert_eq!(recent.find(1, 2).map(|write| write.last), Some(2));
        assert!(recent.row(1000, &[placed(3, Place::Memory)]).is_none());

        let mut recovered = RecentRequests::recovered(vec![row], Vec::new());
        assert_eq!(recovered.find(1, 1).map(|write| write.last), Some(1));
        assert_eq!(recovered.find(1, 2), None);
        assert_eq!(recovered.row(2000, &[placed(4, Place::File)]).unwrap().number, 1);
        assert!(recovered.expire(1000 + KEPT_MS, 10).is_empty());
        assert_eq!(recovered.expire(1001 + KEPT_MS, 10), [0]);
        assert_eq!(recovered.find(1, 1), None);
    }

    #[test]
    fn what_is_only_in_memory_goes_on_beside_what_is_on_disk_and_grows_old_with_it() {
        let mut recent = RecentRequests::default();
        let (mut rows, mut time_ms) = (Vec::new(), 1000);
        for group in [
            vec![placed(1, Place::Memory)],
            vec![placed(2, Place::File), placed(3, Place::Memory)],
            vec![placed(4, Place::File)],
            vec![placed(5, Place::Memory)],
        ] {
            let row = recent.row(time_ms, &group);
            recent.committed(time_ms, row.as_ref(), &group);
            rows.extend(row);
            time_ms += 1000;
        }
        let kept: Vec<KeptRequests> = recent.in_memory().collect();
        let known: Vec<(u64, u64)> =
            kept.iter().map(|group| (group.time_ms, group.writes[0].request)).collect();
        assert_eq!(known, [(1000, 1), (2000, 3), (4000, 5)]);

        let mut recovered = RecentRequests::recovered(rows, kept.clone());
        assert!((1..=5).all(|request| recovered.find(1, request) == recent.find(1, request)));
        assert_eq!(recovered.in_memory().collect::<Vec<_>>(), kept, "also for the store after the next");
        assert_eq!(recovered.row(5000, &[placed(6, Place::File)]).unwrap().number, 2);
        assert_eq!(recovered.expire(2001 + KEPT_MS, 10), [0]);
        let known = |request| recovered.find(1, request).is_some();
        assert_eq!([1, 2, 3, 4, 5].map(known), [false, false, false, true, true]);
    }

    #[test]
    fn the_number_of_writes_is_bounded() {
        let mut recent = RecentRequests::default();
        for first in (0..WRITES_MAX as u64 + 2000).step_by(1000) {
            let group: Vec<_> = (first..first + 1000).map(|request| placed(request, Place::File)).collect();
            let row = recent.row(1, &group);
            recent.committed(1, row.as_ref(), &group);
        }
        let rows = recent.expire(1, 1000);
        assert!(!rows.is_empty() && recent.writes.len() <= WRITES_MAX);
        assert!(recent.expire(1, 1000).is_empty(), "no more than needed");
    }
}
