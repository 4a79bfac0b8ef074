//! Where the code of a model has a say in the life of its documents.
//!
//! ```text
//! create:  client's input ─▶ on-create ─▶ the model's rules ─▶ validate ─▶ commit
//! change:  client's changes ─▶ on-update ─▶ the model's rules ─▶ validate ─▶ commit
//! remove:  on-delete ─▶ commit
//! ```
//!
//! What the code makes is checked by the same rules as what a client sends: it cannot store what its own model forbids.
//! After a conflict with another writer the code is asked again about the winner's version, so it must not count on being
//! asked once.

use std::sync::Arc;

use aegis_domain::{
    Problem, ProblemCode,
    catalog::Model,
    code::{CommandPlace, HookSet},
    document::{self, Draft, Evolved, Form, Said, Stamp},
    json,
    trial::Variant,
};
use aegis_wasm::{Entity, Entry, Module};
use bytes::Bytes;
use serde_json::Value;

use super::{Engine, read::Version};
use crate::{
    modules::{self, Modules},
    operation::{Answer, Request},
};

/// The code of a model and the hooks it wants to be called for.
struct Code<'a> {
    modules: &'a Modules,
    module: &'a Arc<Module>,
    hooks: HookSet,
}

impl Engine {
    fn code<'a>(&'a self, request: &Request) -> Result<Option<Code<'a>>, Problem> {
        // What is tried has the same hooks.
        let Some(spec) = &request.model.spec().code else { return Ok(None) };
        let (modules, module) = self.module(request)?;
        Ok(Some(Code { modules, module, hooks: spec.hooks }))
    }

    /// The module that carries a request out to a model that has code.
    pub(super) fn module<'a>(&'a self, request: &Request) -> Result<(&'a Modules, &'a Arc<Module>), Problem> {
        self.module_of(&request.model, request.variant())
    }

    /// One of the modules of a model that has code.
    pub(super) fn module_of<'a>(
        &'a self,
        model: &Model,
        variant: Variant,
    ) -> Result<(&'a Modules, &'a Arc<Module>), Problem> {
        let found = self.modules().and_then(|modules| Some((modules, modules.of_variant(model, variant)?)));
        found.ok_or_else(|| {
            Problem::new(ProblemCode::Internal, format!("the code of {} is not loaded", model.name()))
        })
    }

    /// A new document from what a client sent.
    pub(super) async fn draft(
        &self,
        request: &Request,
        input: Value,
        stamp: &Stamp,
    ) -> Result<Draft, Problem> {
        let model = &*request.model;
        let code = self.code(request)?;
        let input = match &code {
            Some(code) if code.hooks.create && input.is_object() => {
                code.ask(request, Entry::Create { input: input.to_string() }).await?
            }
            _ => input,
        };
        let draft = document::create(model, input, stamp)?;
        if let Some(code) = &code {
            code.approve(request, None, &draft.body).await?;
        }
        Ok(draft)
    }

    /// The next version of a document from what a client wants to change.
    pub(super) async fn evolved(
        &self,
        request: &Request,
        current: (&str, &Version),
        form: Form,
        input: &Bytes,
    ) -> Result<Evolved, Problem> {
        let model = &*request.model;
        let (id, version) = current;
        let (before, now_ms) = (&version.body, super::now_ms());
        let input = json::parse(input)?;
        let said = unseen(request, form, &input);
        let told = |problem: Problem| match &said {
            Some(said) => document::only_about(said, problem),
            None => problem,
        };
        let code = self.code(request)?;
        let evolved = match &code {
            Some(code) if code.hooks.update => {
                let wanted = document::wanted(model, before, form, input).map_err(told)?;
                let changes = Value::Object(wanted).to_string();
                let current = entity(model, id, version)?;
                let after = code.ask(request, Entry::Update { current, changes }).await?;
                document::replace(model, before, after, now_ms)
            }
            _ => match form {
                Form::Replacement => document::replace(model, before, input, now_ms),
                Form::MergePatch => document::merge(model, before, input, now_ms),
                Form::JsonPatch => document::patch(model, before, input, now_ms),
            },
        };
        let evolved = evolved.map_err(told)?;
        self.approve(request, before, &evolved).await?;
        Ok(evolved)
    }

    /// Asks the code whether a changed document may be stored.
    pub(super) async fn approve(
        &self,
        request: &Request,
        before: &Bytes,
        evolved: &Evolved,
    ) -> Result<(), Problem> {
        match (self.code(request)?, evolved) {
            (Some(code), Evolved::Changed(draft)) => code.approve(request, Some(before), &draft.body).await,
            (None, _) | (_, Evolved::Unchanged) => Ok(()),
        }
    }

    /// Asks the code whether a document may be removed.
    pub(super) async fn may_remove(
        &self,
        request: &Request,
        id: &str,
        version: &Version,
    ) -> Result<(), Problem> {
        match self.code(request)? {
            Some(code) if code.hooks.delete => {
                let current = entity(&request.model, id, version)?;
                code.call(request, Entry::Delete { current }).await.map(|_| ())
            }
            _ => Ok(()),
        }
    }
}

impl Code<'_> {
    async fn approve(&self, request: &Request, before: Option<&Bytes>, after: &Bytes) -> Result<(), Problem> {
        if !self.hooks.validate {
            return Ok(());
        }
        let text = |body| modules::text(&request.model, body);
        let entry = Entry::Validate { before: before.map(text).transpose()?, after: text(after)? };
        self.call(request, entry).await.map(|_| ())
    }

    /// Calls an entry that answers a document.
    async fn ask(&self, request: &Request, entry: Entry) -> Result<Value, Problem> {
        let name = entry.name();
        let answer = self.call(request, entry).await?.unwrap_or_default();
        parse_document(&answer, &name, self.module.name())
            .inspect_err(|_| self.modules.note_unusable(self.module.name(), request.variant()))
    }

    async fn call(&self, request: &Request, entry: Entry) -> Result<Option<String>, Problem> {
        self.modules.call(self.module, CommandPlace::Io, request, entry).await
    }
}

/// What a change says itself, if its caller may not see the rest of the document.
fn unseen(request: &Request, form: Form, input: &Value) -> Option<Said> {
    let members = input.as_object().filter(|_| request.answer == Answer::Blind)?;
    match form {
        Form::MergePatch => Some(Said::by_patch(members)),
        Form::Replacement => Some(Said::by_replacement(members)),
        // It is for those only who may see what is stored.
        Form::JsonPatch => None,
    }
}

/// What code answered, if it is JSON.
pub(super) fn parse(answer: &str, entry: &str, module: &str) -> Result<Value, Problem> {
    json::parse(answer.as_bytes()).map_err(|problem| {
        let detail = format!("{entry} of module {module} answered what is not JSON: {}", problem.detail);
        Problem::new(ProblemCode::GuestFailed, detail)
    })
}

/// What code answered as a document, if it is one: what is none is no client's mistake.
pub(super) fn parse_document(answer: &str, entry: &str, module: &str) -> Result<Value, Problem> {
    let document = parse(answer, entry, module)?;
    if document.is_object() {
        return Ok(document);
    }
    let detail = format!("{entry} of module {module} answered what is no object, expected a document");
    Err(Problem::new(ProblemCode::GuestFailed, detail))
}

/// A version of a document as modules see it.
pub(super) fn entity(model: &Model, id: &str, version: &Version) -> Result<Entity, Problem> {
    modules::to_entity(model, id, version.revision, &version.body)
}
