//! What `aegis dev` does next: a pure decision, one step at a time.

use std::collections::BTreeSet;

use aegis_supervisor::exit;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A file of the app.
    AppChanged,
    /// What this module is built from.
    SourcesChanged(String),
    /// This module was built; whether it worked. What came of it is a file of the app.
    Built(String, bool),
    /// The host serves.
    Serves,
    /// The host was asked to reload, and the outcome was told.
    Reloaded,
    /// The host ended with this status.
    Ended(u8),
    /// Somebody wants to end.
    Stop,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Build this module.
    Build(String),
    /// Start the host.
    Start,
    /// Ask the host to reload.
    Reload,
    /// Ask the host to end.
    Terminate,
    /// Wait until something happens.
    Wait,
    /// End with this status.
    End(u8),
}

/// How it is with the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Host {
    /// Not started, and nothing speaks against it.
    Absent,
    /// The app has mistakes; something has to change first.
    Refused,
    Starting,
    Serving,
    /// It was asked to end.
    Ending,
    Ended(u8),
}

/// Everything that decides about the next step.
#[derive(Debug)]
pub(super) struct Plan {
    host: Host,
    is_reload_due: bool,
    builds: BTreeSet<String>,
    is_over: bool,
}

impl Plan {
    /// At the beginning everything is built.
    pub(super) fn new(modules: impl IntoIterator<Item = String>) -> Self {
        let builds = modules.into_iter().collect();
        Self { host: Host::Absent, is_reload_due: false, builds, is_over: false }
    }

    pub(super) fn on(&mut self, event: Event) {
        match event {
            Event::AppChanged if self.host == Host::Refused => self.host = Host::Absent,
            // A host that is not there yet reads everything when it starts.
            Event::AppChanged => self.is_reload_due |= matches!(self.host, Host::Starting | Host::Serving),
            Event::SourcesChanged(module) => {
                self.builds.insert(module);
            }
            Event::Built(module, _) => {
                self.builds.remove(&module);
            }
            Event::Serves if self.host == Host::Starting => self.host = Host::Serving,
            Event::Serves => {}
            Event::Reloaded => self.is_reload_due = false,
            Event::Ended(exit::CONFIGURATION) if self.host == Host::Starting => {
                // What has changed meanwhile may have been the mistake.
                let has_changed = std::mem::take(&mut self.is_reload_due);
                self.host = if has_changed { Host::Absent } else { Host::Refused };
            }
            Event::Ended(code) => self.host = Host::Ended(code),
            Event::Stop => self.is_over = true,
        }
    }

    /// The next step. What is to be done is told until an event says that it was done, except that the host is started
    /// and ended once.
    pub(super) fn next(&mut self) -> Step {
        match (self.host, self.is_over) {
            (Host::Ended(code), _) => return Step::End(code),
            (Host::Absent | Host::Refused, true) => return Step::End(exit::FINE),
            (Host::Starting | Host::Serving, true) => {
                self.host = Host::Ending;
                return Step::Terminate;
            }
            (Host::Ending, _) => return Step::Wait,
            (_, false) => {}
        }
        if let Some(module) = self.builds.first() {
            return Step::Build(module.clone());
        }
        match self.host {
            Host::Absent => {
                self.host = Host::Starting;
                Step::Start
            }
            Host::Serving if self.is_reload_due => Step::Reload,
            _ => Step::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(plan: &mut Plan, event: Event) -> Step {
        plan.on(event);
        plan.next()
    }

    fn serving() -> Plan {
        let mut plan = Plan::new([]);
        assert_eq!(plan.next(), Step::Start);
        assert_eq!(after(&mut plan, Event::Serves), Step::Wait);
        plan
    }

    #[test]
    fn everything_is_built_before_the_host_starts() {
        let mut plan = Plan::new(["b".to_owned(), "a".to_owned()]);
        assert_eq!(plan.next(), Step::Build("a".to_owned()));
        assert_eq!(after(&mut plan, Event::Built("a".to_owned(), false)), Step::Build("b".to_owned()));
        assert_eq!(after(&mut plan, Event::Built("b".to_owned(), true)), Step::Start);
        assert_eq!(plan.next(), Step::Wait, "it is started once");
    }

    #[test]
    fn what_changes_is_built_first_and_brought_into_force_then() {
        let mut plan = serving();
        plan.on(Event::AppChanged);
        assert_eq!(after(&mut plan, Event::SourcesChanged("a".to_owned())), Step::Build("a".to_owned()));
        assert_eq!(after(&mut plan, Event::Built("a".to_owned(), true)), Step::Reload);
        assert_eq!(after(&mut plan, Event::Reloaded), Step::Wait);
    }

    #[test]
    fn a_change_during_the_start_is_brought_into_force_after_it() {
        let mut plan = Plan::new([]);
        assert_eq!(plan.next(), Step::Start);
        assert_eq!(after(&mut plan, Event::AppChanged), Step::Wait);
        assert_eq!(after(&mut plan, Event::Serves), Step::Reload);
    }

    #[test]
    fn an_app_with_mistakes_is_started_when_it_has_changed() {
        let mut plan = Plan::new([]);
        assert_eq!(plan.next(), Step::Start);
        assert_eq!(after(&mut plan, Event::Ended(exit::CONFIGURATION)), Step::Wait);
        assert_eq!(after(&mut plan, Event::AppChanged), Step::Start);
        assert_eq!(after(&mut plan, Event::AppChanged), Step::Wait);
        assert_eq!(
            after(&mut plan, Event::Ended(exit::CONFIGURATION)),
            Step::Start,
            "it has changed already"
        );
    }

    #[test]
    fn it_ends_with_its_host() {
        let mut plan = serving();
        assert_eq!(after(&mut plan, Event::Ended(71)), Step::End(71));
        let mut plan = serving();
        assert_eq!(after(&mut plan, Event::Stop), Step::Terminate);
        assert_eq!(after(&mut plan, Event::AppChanged), Step::Wait);
        assert_eq!(after(&mut plan, Event::Ended(0)), Step::End(0));
        let mut plan = Plan::new(["a".to_owned()]);
        assert_eq!(after(&mut plan, Event::Stop), Step::End(0), "nothing was started");
    }

    fn event() -> impl Strategy<Value = Event> {
        let module = || prop_oneof![Just("a".to_owned()), Just("b".to_owned())];
        prop_oneof![
            Just(Event::AppChanged),
            module().prop_map(Event::SourcesChanged),
            (module(), any::<bool>()).prop_map(|(module, well)| Event::Built(module, well)),
            Just(Event::Serves),
            Just(Event::Reloaded),
        ]
    }

    proptest! {
        /// Whatever happens, a host that is asked to end is asked once, and nothing else is begun.
        #[test]
        fn nothing_is_begun_once_it_is_over(before in prop::collection::vec(event(), 0..20), after in prop::collection::vec(event(), 0..20)) {
            let mut plan = serving();
            before.into_iter().for_each(|event| {
                plan.on(event);
                plan.next();
            });
            plan.on(Event::Stop);
            prop_assert_eq!(plan.next(), Step::Terminate);
            for event in after {
                plan.on(event);
                prop_assert_eq!(plan.next(), Step::Wait);
            }
            plan.on(Event::Ended(0));
            prop_assert_eq!(plan.next(), Step::End(0));
        }
    }
}
