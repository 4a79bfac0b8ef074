//! Hooks over documents that the host holds: the code is given handles, and asks for the parts that it wants.

use aegis_domain::json::{Changes, Held};
use wasmtime::{Store, component::Resource};

use crate::{
    contract::{Fault, documenting::exports::aegis::module::document_hooks::Guest, types::Context},
    entry::{Answer, Entry},
    services::Entity,
    state::State,
};

/// A document while code looks at it.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings name it in public")]
pub struct Document {
    /// Id and revision, where they are known apart from the document.
    pub(crate) stored: Option<(String, u64)>,
    pub(crate) held: Held,
}

/// Calls a hook. What it makes is what its document has become.
pub(crate) async fn run(
    guest: &Guest,
    store: &mut Store<State>,
    context: &Context,
    entry: Entry,
) -> wasmtime::Result<Result<Answer, Fault>> {
    match entry {
        Entry::Create { input } => {
            let input = hold(store, None, input, Changes::Taken)?;
            let agreed = guest.call_on_create(&mut *store, context, borrowed(&input)).await?;
            let made = let_go(store, input)?;
            Ok(agreed.map(|()| Answer::Json(made)))
        }
        Entry::Validate { before, after } => {
            let mut shown = |text| hold(store, None, text, Changes::Refused);
            let (before, after) = (before.map(&mut shown).transpose()?, shown(after)?);
            let handles = (before.as_ref().map(borrowed), borrowed(&after));
            let agreed = guest.call_validate(&mut *store, context, handles.0, handles.1).await?;
            for document in before.into_iter().chain([after]) {
                let_go(store, document)?;
            }
            Ok(agreed.map(|()| Answer::Agreed))
        }
        Entry::Update { current, changes } => {
            let current = hold_entity(store, current, Changes::Taken)?;
            let changes = hold(store, None, changes, Changes::Refused)?;
            let (one, other) = (borrowed(&current), borrowed(&changes));
            let agreed = guest.call_on_update(&mut *store, context, one, other).await?;
            let_go(store, changes)?;
            let made = let_go(store, current)?;
            Ok(agreed.map(|()| Answer::Json(made)))
        }
        Entry::Delete { current } => {
            let current = hold_entity(store, current, Changes::Refused)?;
            let agreed = guest.call_on_delete(&mut *store, context, borrowed(&current)).await?;
            let_go(store, current)?;
            Ok(agreed.map(|()| Answer::Agreed))
        }
        Entry::Load { .. } | Entry::Command { .. } | Entry::Route { .. } | Entry::Event(_) => {
            Err(wasmtime::Error::msg("aegis:module/document-hooks has no such hook"))
        }
    }
}

fn hold_entity(
    store: &mut Store<State>,
    entity: Entity,
    changes: Changes,
) -> wasmtime::Result<Resource<Document>> {
    hold(store, Some((entity.id, entity.revision)), entity.data, changes)
}

fn hold(
    store: &mut Store<State>,
    stored: Option<(String, u64)>,
    text: String,
    changes: Changes,
) -> wasmtime::Result<Resource<Document>> {
    let state = store.data_mut();
    let held = Held::new(text, changes, state.payload_bytes_max());
    Ok(state.table.push(Document { stored, held })?)
}

/// A handle for the time of a call.
fn borrowed(document: &Resource<Document>) -> Resource<Document> {
    Resource::new_borrow(document.rep())
}

/// What a document has become.
fn let_go(store: &mut Store<State>, document: Resource<Document>) -> wasmtime::Result<String> {
    Ok(store.data_mut().table.delete(document)?.held.into_text())
}
