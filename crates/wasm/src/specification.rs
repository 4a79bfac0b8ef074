//! From what a component says about itself to the specification of a model.
//!
//! What the contract can say and this host does not do yet is refused by name: a port that is never called, or a rule of
//! access that is never asked, would be worse than a module that does not load. What changes nothing about the model is told
//! and ignored.

mod acl;
mod mixins;
mod route;
mod unserved;

use aegis_domain::{
    catalog::Catalog,
    code::{self, CodeSpec, CommandEffect, CommandPlace, CommandSpec, HookSet},
    spec::{Datasource, FieldKind, FieldSpec, IfMatch, ModelName, ModelSpec, UnknownFields},
};
use indexmap::IndexMap;
use serde_json::{Value, json};
use wasmtime::{
    Engine, Store,
    component::{Component, Instance, InstancePre, Linker},
    error::Context as _,
};

use crate::{
    contract::{
        WitModelSpec, base, base::exports::aegis::module::identity::ModuleInfo, commanding, describing,
        documenting, handing, handling, hooking, living, routing, spec as wit,
    },
    describe::Terms,
    state::State,
    subscriptions::{self, Handled},
};

/// Longest version or toolchain that a module may name, bytes.
const LABEL_BYTES_MAX: usize = 256;

/// Optional exports that a component has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exports {
    hooks: bool,
    document_hooks: bool,
    commands: bool,
    routes: bool,
    pub(crate) event_handlers: bool,
}

impl Exports {
    /// Finds out by asking for them.
    pub(crate) fn of(_: &Engine, component: &Component, linker: &Linker<State>) -> wasmtime::Result<Self> {
        let linked = linker.instantiate_pre(component)?;
        Ok(Self {
            hooks: hooking::HasHooksIndices::new(&linked).is_ok(),
            document_hooks: documenting::HasDocumentHooksIndices::new(&linked).is_ok(),
            commands: commanding::HasCommandsIndices::new(&linked).is_ok(),
            routes: routing::HasRoutesIndices::new(&linked).is_ok(),
            event_handlers: handling::HasEventHandlersIndices::new(&linked).is_ok(),
        })
    }

    /// Whether all that it exports of the contract has the types of the contract: names alone do not tell.
    pub(crate) fn check(
        linked: &InstancePre<State>,
        store: &mut Store<State>,
        instance: &Instance,
    ) -> wasmtime::Result<()> {
        let other = |interface| OtherSignature { interface };
        base::BaseIndices::new(linked)?.load(&mut *store, instance).context(other("identity"))?;
        let describing = describing::DescribingIndices::new(linked)?;
        describing.load(&mut *store, instance).context(other("describe-model"))?;
        if let Ok(hooks) = hooking::HasHooksIndices::new(linked) {
            hooks.load(&mut *store, instance).context(other("hooks"))?;
        }
        if let Ok(hooks) = documenting::HasDocumentHooksIndices::new(linked) {
            hooks.load(&mut *store, instance).context(other("document-hooks"))?;
        }
        if let Ok(commands) = commanding::HasCommandsIndices::new(linked) {
            commands.load(&mut *store, instance).context(other("commands"))?;
        }
        if let Ok(events) = handling::HasEventHandlersIndices::new(linked) {
            events.load(&mut *store, instance).context(other("event-handlers"))?;
        }
        if let Ok(life) = living::HasLifecycleIndices::new(linked) {
            life.load(&mut *store, instance).context(other("lifecycle"))?;
        }
        if let Ok(handover) = handing::HasHandoverIndices::new(linked) {
            handover.load(&mut *store, instance).context(other("handover"))?;
        }
        if let Ok(routes) = routing::HasRoutesIndices::new(linked) {
            routes.load(&mut *store, instance).context(other("routes"))?;
        }
        Ok(())
    }
}

/// An export that has the name of one of the contract, and not its types.
#[derive(Debug, thiserror::Error)]
#[error("it exports another aegis:module/{interface} than this host knows")]
pub(crate) struct OtherSignature {
    interface: &'static str,
}

/// Who a component is.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) info: ModuleInfo,
    pub(crate) digest: String,
    pub(crate) exports: Exports,
}

/// What a specification says without any effect, one sentence each.
pub(crate) fn warnings(found: &WitModelSpec) -> Vec<String> {
    unserved::warnings(found)
}

/// Reads a specification. All mistakes at once, each as `key path: found X, expected Y`.
pub(crate) fn read(found: WitModelSpec, identity: Identity, terms: Terms) -> Result<ModelSpec, Vec<String>> {
    let mut mistakes = Vec::new();
    unserved::refuse(&found, &mut mistakes);
    let name = ModelName::new(&found.name).map_err(|message| mistakes.push(format!("name: {message}"))).ok();
    let mut schema = read_json(found.schema.as_deref(), "schema", &mut mistakes);
    let mut fields = IndexMap::new();
    for field in found.fields {
        let key = format!("fields.{}", field.name);
        if fields.contains_key(&field.name) {
            mistakes.push(format!("{key}: found it a second time, expected every name once"));
            continue;
        }
        if let Some(part) = read_json(field.schema.as_deref(), &format!("{key}.schema"), &mut mistakes) {
            add_to_schema(&mut schema, &field.name, &part);
        }
        fields.insert(field.name.clone(), read_field(&field, &key, &mut mistakes));
    }
    for (number, mixin) in found.mixins.iter().enumerate() {
        mixins::mix_in(mixin, &format!("mixins.{number}"), &mut fields, &mut mistakes);
    }
    let hooks = read_hooks(found.hooks, identity.exports, &mut mistakes);
    let commands = read_commands(found.commands, identity.exports, &mut mistakes);
    let acl = acl::read(found.acl, &mut mistakes);
    let routes = route::read(found.routes, identity.exports, &mut mistakes);
    let handled = Handled { exports: identity.exports, model: &found.name, grants: &terms.grants };
    let subscriptions = subscriptions::read(&found.subscriptions, handled, &mut mistakes);
    let datasource = found.datasource.and_then(|datasource| read_datasource(&datasource, &mut mistakes));
    let Identity { info, digest, .. } = identity;
    check_labels(&info, &mut mistakes);
    let code = CodeSpec {
        module: info.name,
        version: info.version,
        built_with: info.built_with,
        digest,
        hooks,
        limits: terms.limits,
        settings: terms.settings,
        grants: terms.grants,
        routes,
        subscriptions,
    };
    let spec = match name {
        Some(name) if mistakes.is_empty() => ModelSpec {
            name,
            endpoint: found.endpoint,
            description: found.description,
            fields,
            unknown_fields: if found.strict { UnknownFields::Refuse } else { UnknownFields::Keep },
            schema,
            id_field: found.id_field,
            datasource: datasource.as_ref().and_then(|(name, _)| *name),
            if_match: IfMatch::Optional,
            cache_documents_max: datasource.and_then(|(_, most)| most),
            acl,
            commands,
            code: Some(code),
            trial: None,
        },
        _ => return Err(mistakes),
    };
    // What every model must fulfil, whoever wrote it.
    let prefix = format!("model {}: ", spec.name);
    match Catalog::build(vec![spec.clone()]) {
        Ok(_) => Ok(spec),
        Err(mistakes) => {
            Err(mistakes.iter().map(|mistake| mistake.trim_start_matches(&prefix).to_owned()).collect())
        }
    }
}

fn check_labels(info: &ModuleInfo, mistakes: &mut Vec<String>) {
    for (key, label) in
        [("info.name", &info.name), ("info.version", &info.version), ("info.built-with", &info.built_with)]
    {
        if label.len() > LABEL_BYTES_MAX || (key != "info.built-with" && label.is_empty()) {
            mistakes.push(format!("{key}: found {} bytes, expected 1 to {LABEL_BYTES_MAX}", label.len()));
        }
    }
}

/// Reads JSON as strictly as documents are read: numbers stay as they were written, no name comes twice.
fn read_json(text: Option<&str>, key: &str, mistakes: &mut Vec<String>) -> Option<Value> {
    match aegis_domain::json::parse(text?.as_bytes()) {
        Ok(value) => Some(value),
        Err(problem) => {
            let reason = problem.detail;
            mistakes.push(format!("{key}: found text that is not JSON ({reason}), expected JSON"));
            None
        }
    }
}

/// The same where null says as much as nothing.
fn read_json_or_null(text: Option<&str>, key: &str, mistakes: &mut Vec<String>) -> Option<Value> {
    read_json(text, key, mistakes).filter(|value| !value.is_null())
}

/// Puts the schema of one field into the schema of the whole object.
fn add_to_schema(schema: &mut Option<Value>, name: &str, part: &Value) {
    let addition = json!({ "properties": { name: part } });
    *schema = Some(match schema.take() {
        None => addition,
        Some(whole) => json!({ "allOf": [whole, addition] }),
    });
}

fn read_field(field: &wit::FieldSpec, key: &str, mistakes: &mut Vec<String>) -> FieldSpec {
    use wit::FieldRules as Rules;
    for (rule, name) in
        [(Rules::ENCRYPTED, "encrypted"), (Rules::HIDDEN, "hidden"), (Rules::READ_ONLY, "read-only")]
    {
        if field.rules.contains(rule) {
            mistakes.push(format!(
                "{key}: found the rule {name}, which this version of the host does not keep yet"
            ));
        }
    }
    FieldSpec {
        kind: match field.kind {
            wit::FieldKind::Text | wit::FieldKind::Bytes => FieldKind::Text,
            wit::FieldKind::Integer => FieldKind::Integer,
            wit::FieldKind::Decimal => FieldKind::Decimal,
            wit::FieldKind::Boolean => FieldKind::Boolean,
            wit::FieldKind::Timestamp => FieldKind::Timestamp,
            wit::FieldKind::Object => FieldKind::Object,
            wit::FieldKind::Array => FieldKind::Array,
            wit::FieldKind::Any => FieldKind::Any,
        },
        required: field.rules.contains(Rules::REQUIRED),
        frozen: field.rules.contains(Rules::IMMUTABLE),
        unique: field.rules.contains(Rules::UNIQUE),
        indexed: field.rules.contains(Rules::INDEXED),
        default: read_json_or_null(field.default_value.as_deref(), &format!("{key}.default-value"), mistakes),
        min: None,
        max: None,
        pattern: None,
        values: None,
        description: None,
    }
}

fn read_hooks(found: wit::HookSet, exports: Exports, mistakes: &mut Vec<String>) -> HookSet {
    if found != wit::HookSet::empty() && !exports.hooks && !exports.document_hooks {
        mistakes.push(
            "hooks: found some declared and no export aegis:module/hooks, expected both or none".to_owned(),
        );
    }
    if found.contains(wit::HookSet::ON_LOAD) && exports.document_hooks && !exports.hooks {
        mistakes.push(
            "hooks: found on-load, which aegis:module/document-hooks does not have, expected an export aegis:module/hooks for it"
                .to_owned(),
        );
    }
    HookSet {
        create: found.contains(wit::HookSet::ON_CREATE),
        validate: found.contains(wit::HookSet::VALIDATE),
        update: found.contains(wit::HookSet::ON_UPDATE),
        delete: found.contains(wit::HookSet::ON_DELETE),
        load: found.contains(wit::HookSet::ON_LOAD),
    }
}

fn read_commands(
    found: Vec<wit::CommandSpec>,
    exports: Exports,
    mistakes: &mut Vec<String>,
) -> IndexMap<String, CommandSpec> {
    if !found.is_empty() && !exports.commands {
        mistakes.push(
            "commands: found some declared and no export aegis:module/commands, expected both".to_owned(),
        );
    }
    if found.len() > code::COMMANDS_MAX {
        mistakes.push(format!("commands: found {}, expected at most {}", found.len(), code::COMMANDS_MAX));
    }
    let mut commands = IndexMap::new();
    for command in found {
        let key = format!("commands.{}", command.name);
        if let Err(message) = code::check_command_name(&command.name) {
            mistakes.push(format!("{key}: {message}"));
        }
        let spec = CommandSpec {
            description: command.description,
            arguments: read_json(
                command.argument_schema.as_deref(),
                &format!("{key}.argument-schema"),
                mistakes,
            ),
            effect: if command.saves { CommandEffect::Saves } else { CommandEffect::Answers },
            place: if command.cpu_bound { CommandPlace::Cpu } else { CommandPlace::Io },
            allow: command.allow,
            disabled: false,
        };
        if commands.insert(command.name, spec).is_some() {
            mistakes.push(format!("{key}: found it a second time, expected every name once"));
        }
    }
    commands
}

/// The datasource that the module names, and how many documents a worker keeps.
fn read_datasource(
    found: &wit::DatasourceSpec,
    mistakes: &mut Vec<String>,
) -> Option<(Option<Datasource>, Option<u64>)> {
    let name = match found.name.to_ascii_lowercase().as_str() {
        "" | "default" => None,
        "memory" => Some(Datasource::Memory),
        "file" => Some(Datasource::File),
        _ => {
            mistakes
                .push(format!("datasource.name: found {:?}, expected memory, file or default", found.name));
            return None;
        }
    };
    if found.write_behind {
        mistakes.push(
            "datasource.write-behind: found true, expected false: no write is answered before it is durable"
                .to_owned(),
        );
    }
    Some((name, found.cache_entries.map(u64::from)))
}
