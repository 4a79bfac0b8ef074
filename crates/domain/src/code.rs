//! The code behind a model: what a Wasm component says it does for its model, and what it may use.
//!
//! The domain does not run it. It knows that there are hooks and commands, so that whoever carries out a request knows
//! when to ask the code.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{outgoing::HostGrant, route::RouteSpec, subscription::EventPattern};

/// Most commands of one model.
pub const COMMANDS_MAX: usize = 256;
/// Bytes of a command's name.
const NAME_BYTES_MAX: usize = 64;

/// The Wasm component that is a model's code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CodeSpec {
    /// Name that the component gives itself.
    pub module: String,
    /// Semantic version of the component.
    pub version: String,
    /// Toolchain and language, for people.
    pub built_with: String,
    /// SHA-256 of the component's bytes, hexadecimal: what it is known by.
    pub digest: String,
    /// The hooks to ask.
    pub hooks: HookSet,
    /// What it may use.
    pub limits: CodeLimits,
    /// Non-secret settings, a JSON object.
    pub settings: Value,
    /// What it may reach beyond its own model.
    #[serde(default)]
    pub grants: Grants,
    /// Custom routes, in declared order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteSpec>,
    /// Events that it wants to be told of.
    #[serde(default)]
    pub subscriptions: Vec<EventPattern>,
}

/// What the operator allows a component to reach. Its own model needs no grant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// Other models by name, upper case.
    pub models: BTreeMap<String, Access>,
    /// Events of other models that it may be told of.
    #[serde(default)]
    pub events: Vec<EventPattern>,
    /// Hosts that it may send requests to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HostGrant>,
    /// Secrets that it may use without seeing them, by name.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<String>,
    /// Secrets whose text it may see, by name.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub reveal: BTreeSet<String>,
}

/// What may be done with the documents of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Find and list them.
    pub read: bool,
    /// Create, change and remove them.
    pub write: bool,
}

/// Which moments in the life of a document the code has a say in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookSet {
    /// Makes the document from what the client sent.
    pub create: bool,
    /// Has the last word on a created or changed document.
    pub validate: bool,
    /// Merges changes into the document.
    pub update: bool,
    /// May forbid a removal.
    pub delete: bool,
    /// Brings stored documents of an older shape into the present one, as they are read.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub load: bool,
}

/// Bounds of one component. All are always in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeLimits {
    /// Linear memory of one instance, bytes.
    pub memory_bytes_max: u64,
    /// Time of one call, milliseconds.
    pub call_ms_max: u32,
    /// Time of one call of a CPU-bound command, milliseconds.
    pub cpu_call_ms_max: u32,
    /// Bytes that one call may return or hand to the host.
    pub payload_bytes_max: u64,
    /// Instances in one worker.
    pub instances_max: u32,
    /// Calls after which an instance is replaced by a fresh one.
    pub calls_per_instance_max: u64,
    /// Requests that one instance answers at the same time. More than one only where the code can do that: see
    /// [`crate::service::at_a_time_mistake`].
    #[serde(default = "alone", skip_serializing_if = "is_alone")]
    pub calls_at_a_time_max: u32,
    /// What becomes of calls while the component keeps failing.
    #[serde(default, skip_serializing_if = "OnFailure::is_deny")]
    pub on_failure: OnFailure,
}

/// Calls of one instance at a time when nobody says otherwise.
fn alone() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a function of a reference")]
fn is_alone(calls: &u32) -> bool {
    *calls == alone()
}

/// What becomes of a call of code that keeps failing, and is not called for a while.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// It is refused.
    #[default]
    Deny,
    /// Clients that read see documents as they are stored, without `on-load`. Anything else is refused: what code would
    /// have made, checked or forbidden is not stored without it.
    Skip,
}

impl OnFailure {
    fn is_deny(&self) -> bool {
        *self == Self::Deny
    }
}

impl Default for CodeLimits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 64 * 1024 * 1024,
            call_ms_max: 1_000,
            cpu_call_ms_max: 10_000,
            payload_bytes_max: 4 * 1024 * 1024,
            instances_max: 16,
            calls_per_instance_max: 100_000,
            calls_at_a_time_max: alone(),
            on_failure: OnFailure::Deny,
        }
    }
}

/// One command of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandSpec {
    /// For people.
    pub description: Option<String>,
    /// JSON Schema of the arguments.
    pub arguments: Option<Value>,
    /// What becomes of the result.
    pub effect: CommandEffect,
    /// Where it runs.
    pub place: CommandPlace,
    /// Roles or permissions of which one is needed; whoever may update when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Whether the operator has taken it out of service: then nobody finds it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

/// What becomes of a command's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandEffect {
    /// It is the answer.
    Answers,
    /// It replaces the document, and is the answer.
    Saves,
}

#[cfg(test)]
impl CodeSpec {
    /// Code of a module of this name that has nothing: tests add what they are about.
    pub(crate) fn of_a_test(module: &str) -> Self {
        Self {
            module: module.to_owned(),
            version: "1.0.0".to_owned(),
            built_with: "a test".to_owned(),
            digest: "0".repeat(64),
            hooks: HookSet::default(),
            limits: CodeLimits::default(),
            settings: Value::Object(serde_json::Map::new()),
            grants: Grants::default(),
            routes: Vec::new(),
            subscriptions: Vec::new(),
        }
    }
}

/// Where a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommandPlace {
    /// On the thread that serves the connection: it is over in a moment.
    Io,
    /// On the CPU pool.
    Cpu,
}

/// Whether a text can be the name of a command: one segment of a path that no generated route has.
///
/// # Errors
/// What was found and what is expected.
pub fn check_command_name(name: &str) -> Result<(), String> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if !fits {
        return Err(format!(
            "found {name:?}, expected 1 to {NAME_BYTES_MAX} letters, digits, '_', '-' or '.', starting with a letter"
        ));
    }
    if name == "service" {
        return Err("found \"service\", which leads to ports, expected another name".to_owned());
    }
    Ok(())
}
