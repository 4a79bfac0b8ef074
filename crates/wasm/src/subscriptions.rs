//! What a module wants to be told of, as far as it may.
//!
//! A subscription that is not granted is refused where the module is read, and not where its events would come: a handler
//! that is never called would look as if nothing happened.

use aegis_domain::{
    code::Grants,
    subscription::{EventPattern, SUBSCRIPTIONS_MAX},
};

use crate::{contract::spec as wit, specification::Exports};

/// What decides about subscriptions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handled<'a> {
    pub(crate) exports: Exports,
    /// Name of the module's own model, in any case.
    pub(crate) model: &'a str,
    pub(crate) grants: &'a Grants,
}

/// Reads subscriptions; each mistake as `key path: found X, expected Y`.
pub(crate) fn read(
    found: &[wit::SubscriptionSpec],
    handled: Handled<'_>,
    mistakes: &mut Vec<String>,
) -> Vec<EventPattern> {
    if !found.is_empty() && !handled.exports.event_handlers {
        mistakes.push(
            "subscriptions: found some declared and no export aegis:module/event-handlers, expected both"
                .to_owned(),
        );
    }
    if found.len() > SUBSCRIPTIONS_MAX {
        mistakes.push(format!("subscriptions: found {}, expected at most {SUBSCRIPTIONS_MAX}", found.len()));
        return Vec::new();
    }
    let mut patterns = Vec::with_capacity(found.len());
    for (number, subscription) in found.iter().enumerate() {
        let key = format!("subscriptions.{number}");
        if let Some(group) = &subscription.queue_group {
            mistakes.push(format!(
                "{key}.queue-group: found {group:?}, expected none: there are no other hosts to share events with yet"
            ));
        }
        match EventPattern::new(&subscription.event) {
            Err(message) => mistakes.push(format!("{key}.event: {message}")),
            Ok(pattern) if is_allowed(&pattern, handled) => patterns.push(pattern),
            Ok(pattern) => mistakes.push(format!(
                "{key}.event: found {pattern}, expected changes of its own model, or what [modules.NAME] grants under events"
            )),
        }
    }
    patterns
}

fn is_allowed(pattern: &EventPattern, handled: Handled<'_>) -> bool {
    pattern.is_about(&handled.model.to_ascii_uppercase())
        || handled.grants.events.iter().any(|granted| granted.covers(pattern))
}
