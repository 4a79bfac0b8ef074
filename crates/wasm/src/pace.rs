//! Which entries of a module are known to take long, so that their calls begin on a thread of their own.
//!
//! Whatever code computes where requests are served, others wait for. One slice of that is what it costs to learn that an
//! entry takes long; what is known is kept, so that it is paid once and not for each call. A few short calls in a row, and
//! the next one begins where its request is again.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{entry::Entry, ticker::EPOCH};

/// A call is long that computes for so long.
const LONG: Duration = EPOCH;
/// Short calls in a row after which an entry is no longer known to take long.
const SHORT_CALLS: u32 = 8;

/// An entry, and which of those it leads to: the name of a command, the method and pattern of a route. There are as many as
/// the specification declares.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Way {
    entry: &'static str,
    name: String,
}

impl Way {
    pub(crate) fn of(entry: &Entry) -> Self {
        let name = match entry {
            Entry::Command { name, .. } => name.clone(),
            Entry::Route { request } => format!("{:?} {}", request.method, request.route),
            Entry::Event(happening) => happening.name.clone(),
            _ => String::new(),
        };
        Self { entry: entry.kind(), name }
    }
}

/// What is known of the entries of a module.
#[derive(Debug, Default)]
pub(crate) struct Paces {
    /// How many are known to take long: as long as there are none, calls ask nothing else.
    long_count: AtomicUsize,
    /// Those, with the short calls that are missing until they are not.
    long: Mutex<HashMap<Way, u32>>,
}

impl Paces {
    /// Whether any entry is known to take long.
    pub(crate) fn knows_any(&self) -> bool {
        self.long_count.load(Ordering::Relaxed) > 0
    }

    /// Whether this one is.
    pub(crate) fn is_long(&self, way: &Way) -> bool {
        self.knows_any() && self.long.lock().unwrap_or_else(PoisonError::into_inner).contains_key(way)
    }

    /// A call on a thread of its own computed for so long there.
    pub(crate) fn note(&self, way: Way, computed: Duration) {
        let mut long = self.long.lock().unwrap_or_else(PoisonError::into_inner);
        if computed >= LONG {
            long.insert(way, SHORT_CALLS);
        } else if let Some(missing) = long.get_mut(&way) {
            *missing -= 1;
            if *missing == 0 {
                long.remove(&way);
            }
        }
        self.long_count.store(long.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(name: &str) -> Way {
        Way::of(&Entry::Command { name: name.to_owned(), target: None, arguments: "{}".to_owned() })
    }

    #[test]
    fn an_entry_is_long_from_its_first_long_call() {
        let paces = Paces::default();
        assert!(!paces.knows_any() && !paces.is_long(&command("burn")));
        paces.note(command("burn"), LONG);
        assert!(paces.is_long(&command("burn")));
        assert!(!paces.is_long(&command("other")), "of that command nothing is known");
        assert!(!paces.is_long(&Way::of(&Entry::Create { input: "{}".to_owned() })));
    }

    #[test]
    fn a_few_short_calls_in_a_row_make_it_short_again() {
        let paces = Paces::default();
        paces.note(command("burn"), LONG);
        for _ in 1..SHORT_CALLS {
            paces.note(command("burn"), Duration::from_micros(3));
        }
        assert!(paces.is_long(&command("burn")));
        paces.note(command("burn"), LONG);
        for _ in 0..SHORT_CALLS {
            assert!(paces.is_long(&command("burn")), "a long one in between counts anew");
            paces.note(command("burn"), Duration::from_micros(3));
        }
        assert!(!paces.knows_any() && !paces.is_long(&command("burn")));
    }

    #[test]
    fn a_short_call_says_nothing_of_an_entry_of_which_nothing_is_known() {
        let paces = Paces::default();
        paces.note(command("quick"), Duration::ZERO);
        assert!(!paces.knows_any());
    }
}
