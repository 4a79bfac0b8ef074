//! Which writes were committed lately, to answer those that a worker sends again after a broken connection.

use std::collections::{HashMap, VecDeque};

use crate::{
    commit::Placed,
    engine::{CommittedWrite, RequestGroup},
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

#[derive(Debug)]
struct Group {
    /// Number of its row on disk.
    row: Option<u64>,
    time_ms: u64,
    identities: Vec<(u64, u64)>,
}

impl RecentRequests {
    /// Continues with what is on disk.
    pub(crate) fn recovered(groups: Vec<RequestGroup>) -> Self {
        let mut recent = Self::default();
        for group in groups {
            recent.next_number = group.number + 1;
            recent.remember(Some(group.number), group.time_ms, &group.writes);
        }
        recent
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
        if committed.is_empty() {
            return;
        }
        let number = row.map(|row| row.number);
        if let Some(number) = number {
            self.next_number = number + 1;
        }
        let writes: Vec<CommittedWrite> = committed.iter().map(|write| write.what).collect();
        self.remember(number, now_ms, &writes);
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

        let mut recovered = RecentRequests::recovered(vec![row]);
        assert_eq!(recovered.find(1, 1).map(|write| write.last), Some(1));
        assert_eq!(recovered.find(1, 2), None);
        assert_eq!(recovered.row(2000, &[placed(4, Place::File)]).unwrap().number, 1);
        assert!(recovered.expire(1000 + KEPT_MS, 10).is_empty());
        assert_eq!(recovered.expire(1001 + KEPT_MS, 10), [0]);
        assert_eq!(recovered.find(1, 1), None);
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
