//! Documents that the host holds: a hook asks for the parts that it wants, and the rest is neither copied nor read.

use serde_json::{Number, Value};

use crate::{
    Context, Model, Refusal,
    bindings::aegis::module::{
        documents::{self, Scalar},
        spec::HookSet,
    },
};

type Create = dyn Fn(&HeldDocument<'_>, &Context) -> Result<(), Refusal>;
type Validate = dyn Fn(&HeldDocument<'_>, Option<&HeldDocument<'_>>, &Context) -> Result<(), Refusal>;
type Update = dyn Fn(&HeldDocument<'_>, &HeldDocument<'_>, &Context) -> Result<(), Refusal>;

/// A document while a hook looks at it. Places in it are JSON Pointers (RFC 6901).
#[derive(Debug)]
pub struct HeldDocument<'a>(pub(crate) &'a documents::Document);

impl HeldDocument<'_> {
    /// Its id; nothing when it has none yet.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        self.0.id()
    }

    /// Its revision; 0 when it has none yet.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.0.revision()
    }

    /// The value at a place.
    #[must_use]
    pub fn get(&self, pointer: &str) -> Option<Value> {
        self.value(pointer, self.0.get(pointer)?)
    }

    /// The values at some places, asked for at once.
    #[must_use]
    pub fn get_many<const N: usize>(&self, pointers: [&str; N]) -> [Option<Value>; N] {
        let asked: Vec<String> = pointers.iter().map(|pointer| (*pointer).to_owned()).collect();
        let mut found = self.0.get_many(&asked).into_iter();
        pointers.map(|pointer| self.value(pointer, found.next().flatten()?))
    }

    /// The names in the object at a place; none when there is no object.
    #[must_use]
    pub fn keys(&self, pointer: &str) -> Vec<String> {
        self.0.keys(pointer)
    }

    /// Puts a value at a place: instead of what is there, as a property, or with `-` at the end of an array.
    ///
    /// # Errors
    /// When it cannot be there, or the document is only shown.
    pub fn set(&self, pointer: &str, value: impl Into<Value>) -> Result<(), Refusal> {
        let set = match scalar(value.into()) {
            Ok(scalar) => self.0.set(pointer, &scalar),
            Err(value) => self.0.set_json(pointer, &value.to_string()),
        };
        set.map_err(Refusal::from)
    }

    /// Takes away what is at a place. Whether there was something.
    pub fn remove(&self, pointer: &str) -> bool {
        self.0.remove(pointer)
    }

    fn value(&self, pointer: &str, scalar: Scalar) -> Option<Value> {
        Some(match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(flag) => flag.into(),
            Scalar::Integer(integer) => integer.into(),
            Scalar::Number(number) => number.into(),
            Scalar::Text(text) => text.into(),
            Scalar::Object(_) | Scalar::Array(_) => serde_json::from_str(&self.0.to_json(pointer)?).ok()?,
        })
    }
}

/// A value as the contract says it when it has no parts; the value itself when it has some.
fn scalar(value: Value) -> Result<Scalar, Value> {
    Ok(match value {
        Value::Null => Scalar::Null,
        Value::Bool(flag) => Scalar::Boolean(flag),
        Value::String(text) => Scalar::Text(text),
        Value::Number(ref number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Scalar::Integer(integer),
            (None, Some(decimal)) if Number::from_f64(decimal).as_ref() == Some(number) => {
                Scalar::Number(decimal)
            }
            _ => return Err(value),
        },
        Value::Object(_) | Value::Array(_) => return Err(value),
    })
}

/// Hooks over documents that the host holds, instead of those over copies; only `on_load` has copies alone.
#[derive(Default)]
pub struct DocumentHooks {
    pub(crate) create: Option<Box<Create>>,
    pub(crate) validate: Option<Box<Validate>>,
    pub(crate) update: Option<Box<Update>>,
    pub(crate) delete: Option<Box<Create>>,
}

impl DocumentHooks {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the document out of what the client sent, in place.
    #[must_use]
    pub fn on_create(
        mut self,
        hook: impl Fn(&HeldDocument<'_>, &Context) -> Result<(), Refusal> + 'static,
    ) -> Self {
        self.create = Some(Box::new(hook));
        self
    }

    /// Has the last word on a new or changed document: what it is now, and what it was before if it was.
    #[must_use]
    pub fn validate(
        mut self,
        hook: impl Fn(&HeldDocument<'_>, Option<&HeldDocument<'_>>, &Context) -> Result<(), Refusal> + 'static,
    ) -> Self {
        self.validate = Some(Box::new(hook));
        self
    }

    /// Merges changes (`null` removes) into the document, in place.
    #[must_use]
    pub fn on_update(
        mut self,
        hook: impl Fn(&HeldDocument<'_>, &HeldDocument<'_>, &Context) -> Result<(), Refusal> + 'static,
    ) -> Self {
        self.update = Some(Box::new(hook));
        self
    }

    /// May forbid a removal.
    #[must_use]
    pub fn on_delete(
        mut self,
        hook: impl Fn(&HeldDocument<'_>, &Context) -> Result<(), Refusal> + 'static,
    ) -> Self {
        self.delete = Some(Box::new(hook));
        self
    }
}

impl Model {
    /// Has these hooks instead of those over copies. `export!` names `document_hooks` then.
    #[must_use]
    pub fn document_hooks(mut self, hooks: DocumentHooks) -> Self {
        for (bit, is_there) in [
            (HookSet::ON_CREATE, hooks.create.is_some()),
            (HookSet::VALIDATE, hooks.validate.is_some()),
            (HookSet::ON_UPDATE, hooks.update.is_some()),
            (HookSet::ON_DELETE, hooks.delete.is_some()),
        ] {
            if is_there {
                self.spec.hooks |= bit;
            }
        }
        self.held = hooks;
        self
    }
}
