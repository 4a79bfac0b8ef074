//! Who may do what with the documents of a model: rules, and what they say about one caller.
//!
//! A model without rules serves whoever is known to the host. With rules, what no rule allows is refused, and what a rule
//! denies is refused whatever others allow. A command or route can name those who may use it; then one of these names must
//! be among the roles of the caller, and rules can only take away from that.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::spec::ModelSpec;

/// Most rules of one model.
pub const RULES_MAX: usize = 256;
/// Most names that a command or a route lists.
pub const NAMES_MAX: usize = 64;
/// Bytes of the name of a role, of a claim or of its value.
const NAME_BYTES_MAX: usize = 256;

/// Who asks, as a token says.
#[derive(Debug, Clone, PartialEq)]
pub struct Principal {
    /// Who it is.
    pub subject: String,
    /// Roles and permissions.
    pub roles: Vec<String>,
    /// All that the token says, a JSON object.
    pub claims: Value,
}

impl Principal {
    /// Whether this is one of its roles.
    #[must_use]
    pub fn has_role(&self, role: &str) -> bool {
        self.roles.iter().any(|known| known == role)
    }

    /// Whether a claim has this value, or has it among others in a list. Numbers, true and false are compared as text.
    fn has_claim(&self, name: &str, value: &str) -> bool {
        let is_value = |found: &Value| match found {
            Value::String(text) => text == value,
            Value::Number(number) => number.as_str() == value,
            Value::Bool(flag) => (if *flag { "true" } else { "false" }) == value,
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        };
        match self.claims.get(name) {
            Some(Value::Array(items)) => items.iter().any(is_value),
            Some(found) => is_value(found),
            None => false,
        }
    }
}

/// One rule of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRule {
    /// Whom it is about.
    pub subject: Subject,
    /// What they may do.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub allow: BTreeSet<Right>,
    /// What they may not do, whoever allows it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub deny: BTreeSet<Right>,
}

/// Whom a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// Whoever has this role.
    Role(String),
    /// Whoever's token has a claim with this value.
    Claim {
        /// Name of the claim.
        name: String,
        /// The value.
        value: String,
    },
    /// Whoever is known to the host.
    Anyone,
}

impl Subject {
    /// Reads `name=value`.
    ///
    /// # Errors
    /// What was found and what is expected.
    pub fn claim(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) => Ok(Self::Claim { name: name.to_owned(), value: value.to_owned() }),
            None => Err(format!("found {:?}, expected \"claim=value\"", crate::json::shorten(text))),
        }
    }

    fn is(&self, principal: &Principal) -> bool {
        match self {
            Self::Role(role) => principal.has_role(role),
            Self::Claim { name, value } => principal.has_claim(name, value),
            Self::Anyone => true,
        }
    }

    fn names(&self) -> Vec<&str> {
        match self {
            Self::Role(role) => vec![role],
            Self::Claim { name, value } => vec![name, value],
            Self::Anyone => Vec::new(),
        }
    }
}

/// What can be done with the documents of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Right {
    /// Create them.
    Create,
    /// Read one whose id is known.
    Read,
    /// List, count and follow them.
    ListAll,
    /// Replace and patch them.
    Update,
    /// Remove them.
    Delete,
    /// Run commands on them.
    Command,
}

impl Right {
    /// All of them, as rules name them.
    pub const ALL: [(&'static str, Self); 6] = [
        ("create", Self::Create),
        ("read", Self::Read),
        ("list-all", Self::ListAll),
        ("update", Self::Update),
        ("delete", Self::Delete),
        ("command", Self::Command),
    ];

    /// Its name in rules.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::ListAll => "list-all",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Command => "command",
        }
    }
}

/// What a caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action<'a> {
    /// What the generated interface does.
    Plain(Right),
    /// Run a command, or ask one.
    Command {
        /// Its name.
        name: &'a str,
        /// Who may: one of these roles. Empty: whoever may update.
        allow: &'a [String],
    },
    /// Ask a route that the code of the model answers.
    Route {
        /// What the method would do in the generated interface.
        right: Right,
        /// Who may: one of these roles. Empty: whoever has the right.
        allow: &'a [String],
    },
}

impl Action<'_> {
    /// Rights of which one suffices, and rights that must not be denied.
    fn rights(&self) -> (&'static [Right], &'static [Right]) {
        match self {
            Self::Command { allow: [], .. } => {
                (&[Right::Update, Right::Command], &[Right::Update, Right::Command])
            }
            Self::Command { .. } => (&[], &[Right::Command]),
            Self::Plain(right) | Self::Route { right, .. } => match right {
                Right::Create => (&[Right::Create], &[Right::Create]),
                Right::Read => (&[Right::Read], &[Right::Read]),
                // A list shows documents: whoever is denied those is denied it.
                Right::ListAll => (&[Right::ListAll], &[Right::ListAll, Right::Read]),
                Right::Update => (&[Right::Update], &[Right::Update]),
                Right::Delete => (&[Right::Delete], &[Right::Delete]),
                Right::Command => (&[Right::Command], &[Right::Command]),
            },
        }
    }

    /// Those who are named as the only ones who may; empty when nobody is.
    fn named(&self) -> &[String] {
        match self {
            Self::Command { allow, .. } | Self::Route { allow, .. } => allow,
            Self::Plain(_) => &[],
        }
    }
}

impl fmt::Display for Action<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(right) => formatter.write_str(right.as_str()),
            Self::Command { name, .. } => write!(formatter, "command {name}"),
            Self::Route { right, .. } => write!(formatter, "{} by a route", right.as_str()),
        }
    }
}

/// Why a caller may not do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// A rule says so.
    #[error("rule {0} denies it")]
    Rule(usize),
    /// There are rules, and none allows it.
    #[error("no rule allows it")]
    NoRule,
    /// It is for others, by name.
    #[error("the caller has none of the roles that it is for")]
    NoRole,
}

/// Whether `principal` may do it, by the rules of the model.
///
/// # Errors
/// Why not. A rule that denies goes before everything else.
pub fn decide(rules: &[AccessRule], principal: &Principal, action: Action<'_>) -> Result<(), Denial> {
    let (granting, denying) = action.rights();
    let mut is_allowed = false;
    for (number, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.subject.is(principal)) {
        if denying.iter().any(|right| rule.deny.contains(right)) {
            return Err(Denial::Rule(number));
        }
        is_allowed |= granting.iter().any(|right| rule.allow.contains(right));
    }
    let named = action.named();
    if !named.is_empty() {
        let is_named = named.iter().any(|role| principal.has_role(role));
        return if is_named { Ok(()) } else { Err(Denial::NoRole) };
    }
    if rules.is_empty() || is_allowed { Ok(()) } else { Err(Denial::NoRule) }
}

/// Everything that is wrong with the rules of a model and with those that its commands and routes name, as (key path,
/// message).
pub(crate) fn check(spec: &ModelSpec, report: &mut dyn FnMut(&str, String)) {
    if spec.acl.len() > RULES_MAX {
        report("acl", format!("found {} rules, expected at most {RULES_MAX}", spec.acl.len()));
    }
    for (number, rule) in spec.acl.iter().take(RULES_MAX).enumerate() {
        for name in rule.subject.names() {
            if let Err(message) = check_name(name) {
                report(&format!("acl.{number}.name"), message);
            }
        }
        if rule.allow.is_empty() && rule.deny.is_empty() {
            let message = "found neither allow nor deny, expected at least one of them";
            report(&format!("acl.{number}"), message.to_owned());
        }
    }
    let commands =
        spec.commands.iter().map(|(name, command)| (format!("commands.{name}.allow"), &command.allow));
    let routes = spec.code.iter().flat_map(|code| code.routes.iter().enumerate());
    let routes = routes.map(|(number, route)| (format!("routes.{number}.allow"), &route.allow));
    for (key, names) in commands.chain(routes) {
        if names.len() > NAMES_MAX {
            report(&key, format!("found {} names, expected at most {NAMES_MAX}", names.len()));
        }
        for message in names.iter().take(NAMES_MAX).filter_map(|name| check_name(name).err()) {
            report(&key, message);
        }
    }
}

fn check_name(name: &str) -> Result<(), String> {
    if (1..=NAME_BYTES_MAX).contains(&name.len()) {
        return Ok(());
    }
    Err(format!("found a name of {} bytes, expected 1 to {NAME_BYTES_MAX}", name.len()))
}

/// What only a host can keep that knows its callers, one sentence each as `model NAME: key path: …`. A host that does not
/// must not serve these models: everybody could do what is for some. What is disabled nobody can do.
#[must_use]
pub fn unguarded(specs: &[ModelSpec]) -> Vec<String> {
    let mut found = Vec::new();
    for spec in specs {
        let mut report = |key: String| {
            found.push(format!(
                "model {}: {key}: found who may, which nobody is asked while authentication is off, expected [auth] in aegis.toml with a key",
                spec.name
            ));
        };
        if !spec.acl.is_empty() {
            report("acl".to_owned());
        }
        let is_guarded = |allow: &[String], disabled: bool| !allow.is_empty() && !disabled;
        for (name, _) in
            spec.commands.iter().filter(|(_, command)| is_guarded(&command.allow, command.disabled))
        {
            report(format!("commands.{name}.allow"));
        }
        let routes = spec.code.iter().flat_map(|code| code.routes.iter().enumerate());
        for (number, _) in routes.filter(|(_, route)| is_guarded(&route.allow, route.disabled)) {
            report(format!("routes.{number}.allow"));
        }
    }
    found
}
