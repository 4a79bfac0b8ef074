//! Documents whose code is asked what becomes of them. What this code leads to cannot write them as well: whoever
//! waits for its answer would find another version each time, and ask again until the time is up.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::operation::Request;

/// Number of the request that the change belongs to, model and id of the document.
type Key = (u64, String, String);

/// All documents whose code runs for a change. Their number is bounded by the requests in flight.
#[derive(Debug, Default)]
pub(super) struct Changing {
    running: Mutex<HashMap<Arc<Key>, u32>>,
}

/// One change that code is asked about, until dropped.
#[derive(Debug)]
pub(super) struct Running<'a> {
    changing: &'a Changing,
    key: Arc<Key>,
}

impl Changing {
    pub(super) fn begin(&self, request: &Request, id: &str) -> Running<'_> {
        let key = Arc::new(key(request, id));
        *self.running.lock().entry(Arc::clone(&key)).or_default() += 1;
        Running { changing: self, key }
    }

    /// Whether code of the same request is asked what becomes of this document.
    pub(super) fn has(&self, request: &Request, id: &str) -> bool {
        let running = self.running.lock();
        !running.is_empty() && running.contains_key(&key(request, id))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut running = self.changing.running.lock();
        if let Some(changes) = running.get_mut(&self.key) {
            *changes -= 1;
            if *changes == 0 {
                running.remove(&self.key);
            }
        }
    }
}

fn key(request: &Request, id: &str) -> Key {
    (request.lineage.root, request.model.name().to_owned(), id.to_owned())
}
