//! Commands: code that is asked about one document, and may answer with its next version.

use aegis_domain::{
    Problem, ProblemCode,
    catalog::Command,
    code::CommandEffect,
    document::{self, Evolved},
    json,
    query::no_such_command,
};
use aegis_ipc::board::ModelCounter;
use aegis_wasm::Entry;
use bytes::Bytes;
use serde_json::Value;

use super::{Engine, change, hooks, precondition, read::Version};
use crate::operation::{Outcome, Reply, Request};

/// A command and what it is given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order<'a> {
    pub(super) name: &'a str,
    /// JSON; nothing means none.
    pub(super) arguments: &'a Bytes,
}

/// What a command came to.
pub(super) enum Carried {
    /// This is the answer, and nothing is stored.
    Answered(Bytes),
    /// This is the next version of the document.
    Saved(Evolved),
}

impl Engine {
    /// Asks a command that stores nothing itself.
    pub(super) async fn ask(&self, request: &Request, id: &str, order: Order<'_>) -> Result<Reply, Problem> {
        let command = find(request, order.name)?;
        if command.spec().effect == CommandEffect::Saves {
            let detail = format!(
                "parameter \"command\": found {:?}, which changes the document, expected it with PATCH or POST",
                order.name
            );
            return Err(Problem::new(ProblemCode::BadParameter, detail));
        }
        let arguments = read(order.arguments).map_err(|problem| {
            let detail = format!(
                "parameter \"args\": found no JSON ({}), expected an argument as JSON",
                problem.detail
            );
            Problem::new(ProblemCode::BadParameter, detail)
        })?;
        let (current, sequence) = self.current(&request.model, id, request.deadline).await?;
        let version = current.ok_or_else(|| change::not_found(&request.model, id))?;
        precondition::check_read(&request.precondition, version.revision)?;
        let version = self.loaded(request, id, version).await?;
        let (answer, _) = self.run(request, command, (id, &version), (order.name, &arguments)).await?;
        self.count_model(&request.model, ModelCounter::Commands, 1);
        Ok(Reply { result: Outcome::Answered, body: answer.into(), sequence, replayed: false })
    }

    /// Carries a command out on a version of a document.
    pub(super) async fn carry_out_command(
        &self,
        request: &Request,
        current: (&str, &Version),
        order: Order<'_>,
    ) -> Result<Carried, Problem> {
        let command = find(request, order.name)?;
        let saves = command.spec().effect == CommandEffect::Saves;
        let _running = saves.then(|| self.begin_change(request, current.0));
        let arguments = read(order.arguments)?;
        let (answer, after) = self.run(request, command, current, (order.name, &arguments)).await?;
        if !saves {
            return Ok(Carried::Answered(answer.into()));
        }
        let (model, before) = (&*request.model, &current.1.body);
        let evolved = document::replace(model, before, after, super::now_ms())?;
        self.approve(request, before, &evolved).await?;
        Ok(Carried::Saved(evolved))
    }

    /// What code answers, as it is and as it is read.
    async fn run(
        &self,
        request: &Request,
        command: &Command,
        (id, version): (&str, &Version),
        (name, arguments): (&str, &Value),
    ) -> Result<(String, Value), Problem> {
        command.check_arguments(arguments)?;
        let (modules, module) = self.module(request)?;
        let entry = Entry::Command {
            name: name.to_owned(),
            target: Some(hooks::entity(&request.model, id, version)?),
            arguments: arguments.to_string(),
        };
        let answer = modules.call(module, command.spec().place, request, entry).await?.unwrap_or_default();
        let parsed = match command.spec().effect {
            CommandEffect::Answers => hooks::parse(&answer, name, module.name()),
            CommandEffect::Saves => hooks::parse_document(&answer, name, module.name()),
        };
        let parsed = parsed.inspect_err(|_| modules.note_unusable(module.name(), request.variant()))?;
        Ok((answer, parsed))
    }
}

/// Whether the command may lead to another version of its document.
pub(super) fn stores(request: &Request, order: Order<'_>) -> Result<bool, Problem> {
    find(request, order.name).map(|command| command.spec().effect == CommandEffect::Saves)
}

/// What a command is given; nothing comes to an empty object.
fn read(arguments: &Bytes) -> Result<Value, Problem> {
    if arguments.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    json::parse(arguments)
}

fn find<'a>(request: &'a Request, name: &str) -> Result<&'a Command, Problem> {
    request.model.command(name).ok_or_else(|| no_such_command(&request.model, name))
}
