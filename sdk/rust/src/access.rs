//! Who may do what with the documents of the model, on hosts that ask who calls (`[auth]`); others refuse the module.

use crate::{
    Model,
    bindings::aegis::module::spec::{AclActions, AclRule, AclSubject},
};

/// What can be done with documents. `SUBSCRIBE` and `DECRYPT` are refused by this version of the host.
pub use crate::bindings::aegis::module::spec::AclActions as Rights;

/// Whom a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who<'a> {
    /// Callers with this role.
    Role(&'a str),
    /// Callers whose token has a claim of this name with this value, or with it in a list.
    Claim(&'a str, &'a str),
    /// Whoever has a token.
    Anyone,
}

impl Model {
    /// They may do this. As soon as there is a rule, what none allows is refused.
    #[must_use]
    pub fn allow(self, who: Who<'_>, rights: Rights) -> Self {
        self.rule(who, rights, AclActions::empty())
    }

    /// They may not do this, whatever other rules allow.
    #[must_use]
    pub fn deny(self, who: Who<'_>, rights: Rights) -> Self {
        self.rule(who, AclActions::empty(), rights)
    }

    fn rule(mut self, who: Who<'_>, allow: AclActions, deny: AclActions) -> Self {
        let (subject, name) = match who {
            Who::Role(role) => (AclSubject::Role, role.to_owned()),
            Who::Claim(name, value) => (AclSubject::Claim, format!("{name}={value}")),
            Who::Anyone => (AclSubject::Anyone, String::new()),
        };
        self.spec.acl.push(AclRule { subject, name, allow, deny, fields: Vec::new() });
        self
    }
}
