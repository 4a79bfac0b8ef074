//! Commands of a model, compiled.

use jsonschema::Validator;
use serde_json::Value;

use super::{key_path, schema};
use crate::{
    code::{self, CommandSpec},
    json::describe,
    problem::{FieldError, Problem, ProblemCode},
    spec::ModelSpec,
};

/// Mistakes told about the arguments of one call.
const MISTAKES_MAX: usize = 100;

/// One command and the rules for its arguments.
pub struct Command {
    name: String,
    spec: CommandSpec,
    arguments: Option<Validator>,
}

impl Command {
    /// Its name, as it stands in paths.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the module said.
    #[must_use]
    pub fn spec(&self) -> &CommandSpec {
        &self.spec
    }

    /// Whether it can be called with these arguments.
    ///
    /// # Errors
    /// [`ProblemCode::Invalid`] with what the schema of the arguments finds, or when they are no object.
    pub fn check_arguments(&self, arguments: &Value) -> Result<(), Problem> {
        let refused = |detail: String| Problem::new(ProblemCode::Invalid, detail);
        if !arguments.is_object() {
            let found = describe(arguments);
            return Err(refused(format!("arguments of {:?}: found {found}, expected an object", self.name)));
        }
        let Some(schema) = &self.arguments else { return Ok(()) };
        let mistakes: Vec<FieldError> = schema::mistakes(schema, arguments, MISTAKES_MAX);
        match mistakes.as_slice() {
            [] => Ok(()),
            [only] => Err(refused(format!("arguments of {:?}: {}: {}", self.name, only.path, only.message))),
            several => Err(refused(format!("arguments of {:?}: {} mistakes", self.name, several.len()))),
        }
        .map_err(|problem| problem.with_errors(mistakes))
    }
}

/// Compiles the commands of a model, and reports every mistake as (key path, message).
pub(super) fn compile(spec: &ModelSpec, report: &mut dyn FnMut(&str, String)) -> Vec<Command> {
    let found = spec.commands.len();
    if found > code::COMMANDS_MAX {
        report("commands", format!("found {found} commands, expected at most {}", code::COMMANDS_MAX));
    }
    if found > 0 && spec.code.is_none() {
        report("commands", "found commands without code, expected code that carries them out".to_owned());
    }
    let mut commands = Vec::with_capacity(found.min(code::COMMANDS_MAX));
    for (name, command) in spec.commands.iter().take(code::COMMANDS_MAX) {
        if let Err(message) = code::check_command_name(name) {
            report(&key_path(&["commands", name]), message);
        }
        let arguments = command.arguments.as_ref().map(schema::compile).transpose();
        let arguments = arguments.unwrap_or_else(|message| {
            report(&key_path(&["commands", name, "arguments"]), message);
            None
        });
        commands.push(Command { name: name.clone(), spec: command.clone(), arguments });
    }
    commands
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        catalog::Catalog,
        code::{CodeSpec, CommandEffect, CommandPlace},
        module,
    };

    fn command(arguments: Option<Value>) -> CommandSpec {
        CommandSpec {
            description: None,
            arguments,
            effect: CommandEffect::Answers,
            place: CommandPlace::Io,
            allow: Vec::new(),
            disabled: false,
        }
    }

    fn model(commands: &[(&str, Option<Value>)]) -> ModelSpec {
        let mut spec = module::parse("name = \"order\"\n[fields]\ntext = \"text\"\n", "test").unwrap();
        spec.commands = commands
            .iter()
            .map(|(name, arguments)| ((*name).to_owned(), command(arguments.clone())))
            .collect();
        spec.code = Some(CodeSpec::of_a_test("order"));
        spec
    }

    #[test]
    fn arguments_are_an_object_that_fulfils_the_schema() {
        let schema = json!({"type": "object", "required": ["to"], "properties": {"to": {"type": "string"}}});
        let catalog = Catalog::build(vec![model(&[("send", Some(schema)), ("stop", None)])]).unwrap();
        let order = &catalog.models()[0];
        let send = order.command("send").unwrap();
        assert_eq!(send.check_arguments(&json!({"to": "Ada"})), Ok(()));
        let told = |command: &Command, arguments: Value| {
            command.check_arguments(&arguments).unwrap_err().to_string()
        };
        insta::assert_snapshot!(told(send, json!({"to": 1})), @r#"invalid: arguments of "send": /to: the value is not of type "string""#);
        insta::assert_snapshot!(told(order.command("stop").unwrap(), json!([1])), @r#"invalid: arguments of "stop": found an array, expected an object"#);
        assert!(order.command("Send").is_none(), "names of commands are exact");
    }

    #[test]
    fn commands_that_no_path_can_name_are_mistakes_and_so_are_bad_schemas() {
        let spec = model(&[("a/b", None), ("service", None), ("fine", Some(json!({"type": 7})))]);
        let mistakes = Catalog::build(vec![spec]).unwrap_err();
        insta::assert_snapshot!(mistakes.join("\n"));
        let mut spec = model(&[("run", None)]);
        spec.code = None;
        let mistakes = Catalog::build(vec![spec]).unwrap_err();
        insta::assert_snapshot!(mistakes.join("\n"), @"model ORDER: commands: found commands without code, expected code that carries them out");
    }
}
