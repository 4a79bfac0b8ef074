//! Committed changes that a model hears of.

use serde_json::Value;

use crate::{
    Context, Model, Refusal,
    bindings::aegis::module::{events, spec::SubscriptionSpec},
};

type Handle = dyn Fn(Event, &Context) -> Result<(), Refusal>;

/// A change that is committed.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The same when it comes again.
    pub id: String,
    /// Such as `CREATEORDER`.
    pub name: String,
    /// Who says so.
    pub source: String,
    /// When it was, milliseconds since 1970.
    pub time_ms: u64,
    /// Id of the document.
    pub key: Option<String>,
    /// What happened.
    pub data: Value,
}

impl TryFrom<events::Event> for Event {
    type Error = Refusal;

    fn try_from(event: events::Event) -> Result<Self, Refusal> {
        let events::Event { id, name, source, time, key, data, remote: _ } = event;
        Ok(Self { id, name, source, time_ms: time, key, data: serde_json::from_str(&data)? })
    }
}

/// Who is told of some events.
pub(crate) struct Subscription {
    pattern: String,
    pub(crate) handle: Box<Handle>,
}

impl Subscription {
    pub(crate) fn is_about(&self, name: &str) -> bool {
        match self.pattern.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == self.pattern,
        }
    }
}

impl Model {
    /// Is told of events by name, or with `*` at the end of how their names begin; the first handler that fits is called.
    /// `export!` names `events` then.
    #[must_use]
    pub fn on_event(
        mut self,
        pattern: &str,
        handle: impl Fn(Event, &Context) -> Result<(), Refusal> + 'static,
    ) -> Self {
        let pattern = pattern.to_ascii_uppercase();
        self.spec.subscriptions.push(SubscriptionSpec {
            event: pattern.clone(),
            queue_group: None,
            order_key: None,
            max_in_flight: 1,
            durable: true,
        });
        self.subscriptions.push(Subscription { pattern, handle: Box::new(handle) });
        self
    }
}
