//! Which worker delivers. Decided by each worker alone, from the board, so that all but a moment agree.
//!
//! It is the one in the first cell among those that accept connections and serve the newest generation up to the one in
//! force: what a version that is still judged gives up would be lost, also when that version is taken back. While nobody
//! serves such a generation, events wait. A worker that drains does not accept any longer, and the supervisor clears the
//! cell of one that is gone, so another follows at once. For a moment two may take themselves for it: both deliver what they
//! deliver then, and the position of only one is kept.

use std::sync::atomic::Ordering;

use aegis_ipc::board::{Board, Cell, Gauge};

use crate::host::Host;

/// What is known about a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Candidate {
    generation: u64,
    accepting: bool,
}

/// Whether this worker is the one that delivers.
pub(super) fn is_owner(host: &Host) -> bool {
    !host.leaving.has_begun()
        && owner(&host.board).is_some_and(|cell| {
            // A cell is told from another by where it is.
            std::ptr::eq(cell.gauge(Gauge::Pid), host.cell.gauge(Gauge::Pid))
        })
}

/// Whether the generation of this worker is still judged, so that another one delivers.
pub(super) fn is_judged(host: &Host) -> bool {
    host.board.in_force().is_some_and(|in_force| host.identity.generation > in_force)
}

fn owner(board: &Board) -> Option<Cell> {
    let load = |cell: &Cell, gauge| cell.gauge(gauge).load(Ordering::Relaxed);
    let candidates = board.cells().map(|cell| Candidate {
        generation: load(&cell, Gauge::Generation),
        accepting: load(&cell, Gauge::Pid) != 0 && load(&cell, Gauge::Accepting) == 1,
    });
    chosen(candidates, board.in_force()).map(|index| board.cell(index))
}

/// The index of the one that delivers. Where it is not known what is in force, the newest generation is.
fn chosen(candidates: impl Iterator<Item = Candidate>, in_force: Option<u64>) -> Option<usize> {
    candidates
        .enumerate()
        .filter(|(_, candidate)| candidate.accepting)
        .filter(|(_, candidate)| in_force.is_none_or(|in_force| candidate.generation <= in_force))
        .reduce(|best, next| if next.1.generation > best.1.generation { next } else { best })
        .map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_newest_generation_in_force_that_accepts_delivers() {
        let when = |in_force: Option<u64>, candidates: &[(u64, bool)]| {
            let candidate = |(generation, accepting): &(u64, bool)| Candidate {
                generation: *generation,
                accepting: *accepting,
            };
            chosen(candidates.iter().map(candidate), in_force)
        };
        let of = |candidates: &[(u64, bool)]| when(Some(2), candidates);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(1, false), (2, false)]), None, "nobody delivers for somebody who is not there");
        assert_eq!(of(&[(1, true), (1, true)]), Some(0));
        assert_eq!(of(&[(1, false), (1, true)]), Some(1), "one that drains lets the next one follow");
        assert_eq!(
            of(&[(1, true), (2, true), (2, true)]),
            Some(1),
            "what is in force knows what is subscribed now"
        );
        assert_eq!(of(&[(3, true), (2, true)]), Some(1), "a canary may be taken back");
        assert_eq!(of(&[(3, true), (2, false)]), None, "events wait until it is known");
        assert_eq!(when(None, &[(1, true), (3, true)]), Some(1), "nobody tells what is in force");
        assert_eq!(of(&[(1, true), (2, false)]), Some(0), "one that was taken back does not count");
    }
}
