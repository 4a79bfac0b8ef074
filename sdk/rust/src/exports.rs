//! What the component exports: the model's code, called with JSON texts.

mod optional;

use std::{cell::OnceCell, marker::PhantomData};

use serde_json::Value;

use crate::{
    Code, Context, Document, Entity, Model, Refusal,
    bindings::{
        aegis::module::{
            spec::ModelSpec,
            types::{self, Fault},
        },
        exports::aegis::module::{commands, describe_model, hooks, identity, lifecycle},
    },
    refuse,
};

/// Who gives the model of a component.
pub trait Definition {
    /// The model.
    fn model() -> Model;
}

/// The exports of a component around its model.
pub struct Exported<D>(PhantomData<D>);

thread_local! {
    /// The model of this component, made when it is first asked for.
    static MODEL: OnceCell<Model> = const { OnceCell::new() };
}

fn with<D: Definition, A>(work: impl FnOnce(&Model) -> A) -> A {
    MODEL.with(|model| work(model.get_or_init(D::model)))
}

/// The host calls only what the description names; anything else is a defect on its side.
fn missing(what: &str) -> Refusal {
    refuse(Code::Unsupported, format!("this module has no {what}"))
}

impl<D: Definition> identity::Guest for Exported<D> {
    fn info() -> identity::ModuleInfo {
        with::<D, _>(|model| model.info.clone())
    }
}

impl<D: Definition> describe_model::Guest for Exported<D> {
    fn describe() -> ModelSpec {
        with::<D, _>(|model| model.spec.clone())
    }
}

impl<D: Definition> hooks::Guest for Exported<D> {
    fn on_create(context: Context, input: String) -> Result<String, Fault> {
        with::<D, _>(|model| {
            let create = model.create.as_ref().ok_or_else(|| missing("on-create"))?;
            Ok(create(document(&input)?, &context)?.to_string())
        })
    }

    fn validate(context: Context, before: Option<String>, after: String) -> Result<(), Fault> {
        with::<D, _>(|model| {
            let validate = model.validate.as_ref().ok_or_else(|| missing("validate"))?;
            let before = before.as_deref().map(document).transpose()?;
            Ok(validate(&document(&after)?, before.as_ref(), &context)?)
        })
    }

    fn on_update(context: Context, current: types::Entity, changes: String) -> Result<String, Fault> {
        with::<D, _>(|model| {
            let update = model.update.as_ref().ok_or_else(|| missing("on-update"))?;
            Ok(update(current.try_into()?, document(&changes)?, &context)?.to_string())
        })
    }

    fn on_delete(context: Context, current: types::Entity) -> Result<(), Fault> {
        with::<D, _>(|model| {
            let delete = model.delete.as_ref().ok_or_else(|| missing("on-delete"))?;
            Ok(delete(&Entity::try_from(current)?, &context)?)
        })
    }

    fn on_load(context: Context, stored: types::Entity) -> Result<String, Fault> {
        with::<D, _>(|model| {
            let load = model.load.as_ref().ok_or_else(|| missing("on-load"))?;
            Ok(load(stored.try_into()?, &context)?.to_string())
        })
    }
}

impl<D: Definition> commands::Guest for Exported<D> {
    fn run(
        context: Context,
        command: String,
        target: Option<types::Entity>,
        args: String,
    ) -> Result<String, Fault> {
        with::<D, _>(|model| {
            let called = model.commands.iter().find(|known| known.spec.name == command);
            let called = called.ok_or_else(|| missing(&format!("command {command}")))?;
            let target = target.map(Entity::try_from).transpose()?;
            let arguments: Value = serde_json::from_str(&args).map_err(Refusal::from)?;
            (called.run)(arguments, target, &context)
        })
    }
}

impl<D: Definition> lifecycle::Guest for Exported<D> {
    fn init(config: String) -> Result<(), Fault> {
        with::<D, _>(|model| {
            let Some(begin) = &model.life.begin else { return Ok(()) };
            Ok(begin(document(&config)?)?)
        })
    }

    fn reconfigure(config: String) -> Result<(), Fault> {
        with::<D, _>(|model| {
            let life = &model.life;
            let Some(told) = life.reconfigure.as_ref().or(life.begin.as_ref()) else { return Ok(()) };
            Ok(told(document(&config)?)?)
        })
    }

    fn drain() {
        with::<D, _>(|model| model.life.drain.as_ref().map_or((), |drain| drain()));
    }

    fn health() -> Result<(), Fault> {
        with::<D, _>(|model| Ok(model.life.health.as_ref().map_or(Ok(()), |health| health())?))
    }
}

fn document(text: &str) -> Result<Document, Refusal> {
    Ok(serde_json::from_str(text)?)
}
