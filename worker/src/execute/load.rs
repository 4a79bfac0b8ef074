//! Documents of older shapes, brought into the shape that the code of their model knows (`on-load`).
//!
//! What a version becomes is kept, so that the code is asked once for each version in each worker. It is only what is
//! shown: the stored document, its revision, and what filters and indexes see of it stay as they are until it is changed.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use aegis_domain::{
    Problem, ProblemCode,
    catalog::Model,
    code::CommandPlace,
    document,
    query::{Page, Showing},
    trial::Variant,
};
use aegis_wasm::Entry;
use bytes::Bytes;
use parking_lot::Mutex;

use super::{Engine, hooks, read::Version};
use crate::{
    modules::Modules,
    operation::{Operation, Request},
};

/// Bytes of documents that are kept in both shapes, in one worker.
const LOADED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes that are counted for each of them, besides their texts.
const ENTRY_BYTES: usize = 200;

/// What versions have become.
#[derive(Default)]
pub(super) struct Loaded {
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    by_place: HashMap<Place, Shapes>,
    /// The oldest first.
    order: VecDeque<Place>,
    bytes: usize,
}

/// Model and id of a document, and the version of the code that was asked.
type Place = (Arc<str>, Arc<str>, Variant);

struct Shapes {
    stored: Bytes,
    loaded: Bytes,
}

impl Shapes {
    /// Copies of both, because what was given may be a small part of a page, and would keep all of it.
    fn new(stored: &Bytes, loaded: &Bytes) -> Self {
        let copy = Bytes::copy_from_slice(stored);
        let loaded = if loaded == stored { copy.clone() } else { Bytes::copy_from_slice(loaded) };
        Self { stored: copy, loaded }
    }
}

/// Whether the code of a model brings documents into another shape.
pub(crate) fn loads(model: &Model) -> bool {
    model.spec().code.as_ref().is_some_and(|code| code.hooks.load)
}

impl Engine {
    /// A version as the code of its model knows it.
    pub(super) async fn loaded(
        &self,
        request: &Request,
        id: &str,
        version: Version,
    ) -> Result<Version, Problem> {
        if !loads(&request.model) {
            return Ok(version);
        }
        let body = self.load(request, id, version.revision, version.body).await?;
        Ok(Version { body, ..version })
    }

    /// A page whose documents are as the code of their model knows them.
    pub(super) async fn loaded_page(
        &self,
        request: &Request,
        page: Page,
        showing: &Showing,
    ) -> Result<Page, Problem> {
        #[derive(serde::Deserialize)]
        struct Head {
            id: String,
            revision: u64,
        }
        let mut rows = showing.rows(&page);
        for row in &mut rows {
            let Head { id, revision } = serde_json::from_slice(row).map_err(|error| {
                let detail = format!("a stored document of {} is damaged: {error}", request.model.name());
                Problem::new(ProblemCode::Internal, detail)
            })?;
            let loaded = self.load(request, &id, revision, row.clone()).await;
            *row = loaded.map_err(|mut problem| {
                problem.detail = format!("document {id:?}: {}", problem.detail);
                problem
            })?;
        }
        showing.show(&page, &rows)
    }

    async fn load(
        &self,
        request: &Request,
        id: &str,
        revision: u64,
        stored: Bytes,
    ) -> Result<Bytes, Problem> {
        let model = &*request.model;
        let place: Place = (model.name().into(), id.into(), request.variant());
        if let Some(loaded) = self.inner.loaded.get(&place, &stored) {
            return Ok(loaded);
        }
        let version = Version { revision, sequence: 0, body: stored.clone() };
        let entry = Entry::Load { stored: hooks::entity(model, id, &version)? };
        let (modules, module) = self.module(request)?;
        let name = entry.name();
        let answer = match modules.call(module, CommandPlace::Io, request, entry).await {
            Err(problem) if may_do_without(modules, request, &problem) => return Ok(stored),
            answer => answer?,
        };
        let loaded = hooks::parse(&answer.unwrap_or_default(), &name, module.name()).and_then(|after| {
            document::reshape(model, &stored, after).map_err(|problem| {
                let detail = format!("{name} of module {} answered: {}", module.name(), problem.detail);
                Problem::new(ProblemCode::GuestFailed, detail)
            })
        });
        let loaded = loaded.inspect_err(|_| modules.note_unusable(module.name(), request.variant()))?;
        self.inner.loaded.keep(place, Shapes::new(&stored, &loaded));
        Ok(loaded)
    }
}

/// Whether a document is shown as it is stored, because its code is not called for now. What is stored, and what code
/// decides by, is never made of one.
fn may_do_without(modules: &Modules, request: &Request, problem: &Problem) -> bool {
    problem.code == ProblemCode::ModuleUnavailable
        && request.lineage.depth == 0
        && matches!(request.operation, Operation::Read { .. } | Operation::List { .. })
        && modules.may_skip(&request.model, request.variant())
}

impl Loaded {
    /// What these bytes have become. The code is not asked twice about the same ones.
    fn get(&self, place: &Place, stored: &Bytes) -> Option<Bytes> {
        let entries = self.entries.lock();
        let shapes = entries.by_place.get(place)?;
        (shapes.stored == *stored).then(|| shapes.loaded.clone())
    }

    fn keep(&self, place: Place, shapes: Shapes) {
        let weight = |shapes: &Shapes| shapes.stored.len() + shapes.loaded.len() + ENTRY_BYTES;
        let bytes = weight(&shapes);
        if bytes > LOADED_BYTES_MAX {
            return;
        }
        let mut entries = self.entries.lock();
        entries.bytes += bytes;
        match entries.by_place.insert(place.clone(), shapes) {
            Some(before) => entries.bytes -= weight(&before),
            None => entries.order.push_back(place),
        }
        while entries.bytes > LOADED_BYTES_MAX {
            let Some(oldest) = entries.order.pop_front() else { break };
            if let Some(gone) = entries.by_place.remove(&oldest) {
                entries.bytes -= weight(&gone);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(id: &str) -> Place {
        ("TODO".into(), id.into(), Variant::Current)
    }

    fn shapes(bytes: usize) -> Shapes {
        Shapes { stored: Bytes::from(vec![1; bytes]), loaded: Bytes::from(vec![2; bytes]) }
    }

    #[test]
    fn what_a_version_became_is_found_by_the_version_only() {
        let loaded = Loaded::default();
        loaded.keep(place("a"), shapes(10));
        assert_eq!(loaded.get(&place("a"), &Bytes::from(vec![1; 10])), Some(Bytes::from(vec![2; 10])));
        assert_eq!(loaded.get(&place("a"), &Bytes::from(vec![1; 11])), None, "another version");
        assert_eq!(loaded.get(&place("b"), &Bytes::from(vec![1; 10])), None);
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let loaded = Loaded::default();
        let each = LOADED_BYTES_MAX / 20;
        for number in 0..100 {
            loaded.keep(place(&number.to_string()), shapes(each));
            loaded.keep(place(&number.to_string()), shapes(each));
        }
        loaded.keep(place("huge"), shapes(LOADED_BYTES_MAX));
        let entries = loaded.entries.lock();
        assert!(entries.bytes <= LOADED_BYTES_MAX && entries.by_place.len() == entries.order.len());
        assert!(entries.by_place.len() == 9, "{}", entries.by_place.len());
        assert!(entries.by_place.contains_key(&place("99")), "the youngest stay");
    }
}
