//! Documents that commands are about to save. What such a command leads to cannot write its document as well: it would
//! find another version each time, and be carried out again until its time is up.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::operation::Request;

/// Number of the request that the command belongs to, model and id of the document.
type Key = (u64, String, String);

/// All documents whose commands run. Their number is bounded by the requests in flight.
#[derive(Debug, Default)]
pub(super) struct Commanded {
    running: Mutex<HashMap<Arc<Key>, u32>>,
}

/// One command that runs, until dropped.
#[derive(Debug)]
pub(super) struct Running<'a> {
    commanded: &'a Commanded,
    key: Arc<Key>,
}

impl Commanded {
    pub(super) fn begin(&self, request: &Request, id: &str) -> Running<'_> {
        let key = Arc::new(key(request, id));
        *self.running.lock().entry(Arc::clone(&key)).or_default() += 1;
        Running { commanded: self, key }
    }

    /// Whether a command of the same request is about to save this document.
    pub(super) fn has(&self, request: &Request, id: &str) -> bool {
        let running = self.running.lock();
        !running.is_empty() && running.contains_key(&key(request, id))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut running = self.commanded.running.lock();
        if let Some(commands) = running.get_mut(&self.key) {
            *commands -= 1;
            if *commands == 0 {
                running.remove(&self.key);
            }
        }
    }
}

fn key(request: &Request, id: &str) -> Key {
    (request.lineage.root, request.model.name().to_owned(), id.to_owned())
}
