//! The story of a world: what happened, and what was done about it.

use std::fmt::Write as _;

use super::{EPOCH_MS, Fate, World};
use crate::fleet::{Action, ChildId, Event, Level, Role};

/// An event, as it is told.
pub(super) enum Told {
    /// In any case.
    Always(String),
    /// Only if something was done about it.
    WithActions(String),
}

impl<F: Fate> World<F> {
    /// The last lines of the story.
    pub(crate) fn lately(&self) -> String {
        let lines: Vec<&str> = self.story.lines().collect();
        format!("\n{}", lines[lines.len().saturating_sub(40)..].join("\n"))
    }

    /// Takes what was told so far.
    pub(crate) fn story(&mut self) -> String {
        std::mem::take(&mut self.story)
    }

    pub(super) fn tell_event(&mut self, event: &Event) -> Told {
        let text = match event {
            Event::Tick
            | Event::Vitals(_)
            | Event::Traffic(_)
            | Event::Spawned { .. }
            | Event::Hello { .. } => return Told::WithActions(self.line("…")),
            Event::Draining { child, closed: true, .. } => {
                return Told::WithActions(self.line(&format!("#{} accepts no more", child.0)));
            }
            Event::Ready { child } => format!("{} is ready", self.name(*child)),
            Event::Adopted { child, generation, .. } => format!("#{} adopted gen {generation}", child.0),
            Event::Exited { child, exit } => format!("#{} {}", child.0, exit.describe()),
            Event::Compiled { digest, .. } => format!("compiled {digest}"),
            Event::Request { asker, request } => {
                format!("{request:?} by {:?}", asker.map(|caller| caller.asker.0))
            }
            other => format!("{other:?}"),
        };
        Told::Always(self.line(&text))
    }

    fn line(&self, text: &str) -> String {
        format!("{:>6} {text}\n", self.now_ms - EPOCH_MS)
    }

    pub(super) fn tell_actions(&mut self, told: Told, actions: &[Action]) {
        let mut lines = String::new();
        for action in actions {
            let line = match action {
                Action::ReadVitals(_) | Action::ReadTraffic | Action::Poke { .. } => continue,
                Action::Log { level: Level::Info, .. } => continue,
                Action::Log { level, line } => format!("{level:?}: {line}"),
                Action::Spawn(spawn) => {
                    format!(
                        "spawn #{} {:?} gen {} image {}",
                        spawn.child.0, spawn.role, spawn.generation, spawn.image
                    )
                }
                Action::Adopt { child, generation } => {
                    format!("{} adopts gen {generation}", self.name(*child))
                }
                Action::Serve { child } => format!("serve {}", self.name(*child)),
                Action::Drain { child, deadline_ms } => {
                    format!("drain {} in {deadline_ms:?}", self.name(*child))
                }
                Action::Keep { child } => format!("keep {}", self.name(*child)),
                Action::Terminate { child } => format!("terminate {}", self.name(*child)),
                Action::Kill { child } => format!("kill {}", self.name(*child)),
                Action::Progress { asker, step, .. } => format!("to {}: {step}", asker.0),
                Action::Verdict { asker, verdict, .. } => format!("to {}: {verdict:?}", asker.0),
                other => format!("{other:?}"),
            };
            let _ = writeln!(lines, "         {line}");
        }
        match told {
            Told::WithActions(_) if lines.is_empty() => {}
            Told::Always(told) | Told::WithActions(told) => self.story.push_str(&told),
        }
        self.story.push_str(&lines);
    }

    fn name(&self, child: ChildId) -> String {
        let role = self.processes.get(&child).map(|process| (process.spawn.role, process.spawn.generation));
        match role {
            Some((Role::Worker { slot }, generation)) => {
                format!("#{} (slot {slot} gen {generation})", child.0)
            }
            Some((role, _)) => format!("#{} ({role:?})", child.0),
            None => format!("#{}", child.0),
        }
    }
}
