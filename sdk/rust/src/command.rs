//! Commands: what clients can ask of a model beyond storing its documents.

use serde::Serialize;
use serde_json::Value;

use crate::{
    Code, Context, Entity, Refusal,
    bindings::aegis::module::{spec::CommandSpec, types::Fault},
    refuse,
};

type Run = dyn Fn(Value, Option<Entity>, &Context) -> Result<String, Fault>;

/// A command.
pub struct Command {
    pub(crate) spec: CommandSpec,
    pub(crate) run: Box<Run>,
}

impl Command {
    /// A command that gets its arguments and the document it is called for, if it is called for one.
    pub fn new<A: Serialize>(
        name: &str,
        run: impl Fn(Value, Option<Entity>, &Context) -> Result<A, Refusal> + 'static,
    ) -> Self {
        let spec = CommandSpec {
            name: name.to_owned(),
            description: None,
            allow: Vec::new(),
            argument_schema: None,
            saves: false,
            cpu_bound: false,
        };
        let run = move |arguments: Value, target: Option<Entity>, context: &Context| {
            let answer = run(arguments, target, context)?;
            Ok(serde_json::to_string(&answer).map_err(Refusal::from)?)
        };
        Self { spec, run: Box::new(run) }
    }

    /// A command that is refused unless it is called for a document.
    pub fn about_one<A: Serialize>(
        name: &str,
        run: impl Fn(Value, Entity, &Context) -> Result<A, Refusal> + 'static,
    ) -> Self {
        Self::new(name, move |arguments, target, context| match target {
            Some(target) => run(arguments, target, context),
            None => Err(refuse(Code::Invalid, "this command is about one document")),
        })
    }

    /// For people.
    #[must_use]
    pub fn description(mut self, text: &str) -> Self {
        self.spec.description = Some(text.to_owned());
        self
    }

    /// JSON Schema of the arguments; the host checks them.
    #[must_use]
    pub fn arguments(mut self, schema: &Value) -> Self {
        self.spec.argument_schema = Some(schema.to_string());
        self
    }

    /// The result replaces the document instead of only being answered.
    #[must_use]
    pub fn saves(mut self) -> Self {
        self.spec.saves = true;
        self
    }

    /// Only callers with one of these roles may run it; the host needs `[auth]` then.
    #[must_use]
    pub fn allow(mut self, roles: &[&str]) -> Self {
        self.spec.allow = roles.iter().map(|role| (*role).to_owned()).collect();
        self
    }

    /// It computes for long: it runs on threads of its own and has more time.
    #[must_use]
    pub fn cpu_bound(mut self) -> Self {
        self.spec.cpu_bound = true;
        self
    }
}
