//! Exports that a component has as far as `export!` names them.

use super::{Definition, Exported, missing, with};
use crate::{
    Context, Event, HeldDocument, Refusal, RouteRequest,
    bindings::{
        aegis::module::{documents::Document, events::Event as ToldEvent, types::Fault},
        document_hooks::exports::aegis::module::document_hooks,
        events::exports::aegis::module::event_handlers,
        handover::exports::aegis::module::handover,
        routes::exports::aegis::module::routes,
    },
};

impl<D: Definition> document_hooks::Guest for Exported<D> {
    fn on_create(context: Context, input: &Document) -> Result<(), Fault> {
        with::<D, _>(|model| {
            let create = model.held.create.as_ref().ok_or_else(|| missing("on-create of document-hooks"))?;
            Ok(create(&HeldDocument(input), &context)?)
        })
    }

    fn validate(context: Context, before: Option<&Document>, after: &Document) -> Result<(), Fault> {
        with::<D, _>(|model| {
            let validate =
                model.held.validate.as_ref().ok_or_else(|| missing("validate of document-hooks"))?;
            let before = before.map(HeldDocument);
            Ok(validate(&HeldDocument(after), before.as_ref(), &context)?)
        })
    }

    fn on_update(context: Context, current: &Document, changes: &Document) -> Result<(), Fault> {
        with::<D, _>(|model| {
            let update = model.held.update.as_ref().ok_or_else(|| missing("on-update of document-hooks"))?;
            Ok(update(&HeldDocument(current), &HeldDocument(changes), &context)?)
        })
    }

    fn on_delete(context: Context, current: &Document) -> Result<(), Fault> {
        with::<D, _>(|model| {
            let delete = model.held.delete.as_ref().ok_or_else(|| missing("on-delete of document-hooks"))?;
            Ok(delete(&HeldDocument(current), &context)?)
        })
    }
}

impl<D: Definition> event_handlers::Guest for Exported<D> {
    fn on_event(context: Context, event: ToldEvent) -> Result<(), Fault> {
        with::<D, _>(|model| {
            let mut known = model.subscriptions.iter();
            let subscription = known.find(|known| known.is_about(&event.name));
            let subscription = subscription.ok_or_else(|| missing(&format!("handler of {}", event.name)))?;
            Ok((subscription.handle)(Event::try_from(event)?, &context)?)
        })
    }
}

impl<D: Definition> handover::Guest for Exported<D> {
    fn save() -> Result<Vec<u8>, Fault> {
        with::<D, _>(|model| {
            let (save, _) = model.life.handover.as_ref().ok_or_else(|| missing("handover"))?;
            Ok(save()?)
        })
    }

    fn restore(from_version: String, state: Vec<u8>) -> Result<(), Fault> {
        with::<D, _>(|model| {
            let (_, restore) = model.life.handover.as_ref().ok_or_else(|| missing("handover"))?;
            Ok(restore(&state, &from_version)?)
        })
    }
}

impl<D: Definition> routes::Guest for Exported<D> {
    fn handle(context: Context, request: routes::Request) -> Result<routes::Response, Fault> {
        with::<D, _>(|model| {
            let is_asked = |route: &&crate::Route| {
                route.spec.method == request.method && route.spec.path == request.route
            };
            let route = model.routes.iter().find(is_asked);
            let route = route.ok_or_else(|| missing(&format!("route {}", request.route)))?;
            let answered: Result<_, Refusal> = (route.run)(&RouteRequest::from(request), &context);
            Ok(answered?.into())
        })
    }
}
