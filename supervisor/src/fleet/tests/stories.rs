//! The main stories of a host's life, told as what happened and what was done about it.

mod changes;
mod closings;
mod deployments;
mod drains;
mod ends;
mod keeping;
mod lines;
mod polls;
mod reloads;
mod starts;
mod swaps;
mod trials;
mod troubles;
mod turns;

use std::collections::VecDeque;

use aegis_ipc::deploy::{Order, Supply};

use super::world::{Adopts, App, Closing, Fate, Manner, NewImage, Parting, Probe, World, nothing_new};
use crate::fleet::{Look, Role};

/// Everything goes as it should, in round numbers, except for what was said before.
#[derive(Debug, Default)]
pub(crate) struct Script {
    /// What the next probes find; the application of the start when there is nothing.
    pub(crate) probes: VecDeque<Probe>,
    /// How the next workers behave.
    pub(crate) workers: VecDeque<Manner>,
    /// How the next store processes behave.
    pub(crate) stores: VecDeque<Manner>,
    /// How the next processes leave.
    pub(crate) partings: VecDeque<Parting>,
    /// When the next processes that leave say that they accept no more.
    pub(crate) closings: VecDeque<Closing>,
    /// What the next looks at the sources find; nothing new when there is nothing.
    pub(crate) looks: VecDeque<Option<Look>>,
    /// How long it takes until everything is on the disk, the next times.
    pub(crate) keepings: VecDeque<u64>,
    pub(crate) images: VecDeque<NewImage>,
    /// What the next workers do that are told to take a generation over.
    pub(crate) adopts: VecDeque<Adopts>,
    pub(crate) workers_wanted: u32,
}

impl Fate for Script {
    fn manner(&mut self, role: Role) -> Option<Manner> {
        match role {
            Role::Worker { .. } => self.workers.pop_front(),
            Role::Store { .. } => self.stores.pop_front(),
            Role::Compile | Role::Look => None,
        }
    }

    fn parting(&mut self) -> Parting {
        self.partings.pop_front().unwrap_or(Parting::After(50))
    }

    fn closing(&mut self) -> Closing {
        self.closings.pop_front().unwrap_or(Closing::After(1))
    }

    fn dying(&mut self) -> u64 {
        1
    }

    fn adopts(&mut self) -> Adopts {
        self.adopts.pop_front().unwrap_or(Adopts::After(8))
    }

    fn probe(&mut self) -> Probe {
        self.probes.pop_front().unwrap_or_else(|| App::new("first", self.workers_wanted).found())
    }

    fn look(&mut self) -> Option<Look> {
        self.looks.pop_front().unwrap_or_else(|| Some(nothing_new()))
    }

    fn keeping(&mut self) -> u64 {
        self.keepings.pop_front().unwrap_or(0)
    }

    fn upgrade(&mut self) -> NewImage {
        self.images.pop_front().unwrap_or(NewImage::Works)
    }

    fn delay(&mut self, _most_ms: u64) -> u64 {
        0
    }
}

/// A host of so many workers that has not been started yet.
pub(crate) fn host(workers: u32) -> World<Script> {
    World::new(workers, Script { workers_wanted: workers, ..Script::default() })
}

/// A host of so many workers that serves; its story so far is forgotten.
pub(crate) fn serving(workers: u32) -> World<Script> {
    let mut world = host(workers);
    world.start();
    world.run(1_000);
    assert_eq!(world.serving().len(), workers as usize);
    world.story();
    world
}

/// The same, for long enough that its generation is known to be good.
pub(crate) fn proven(workers: u32) -> World<Script> {
    let mut world = serving(workers);
    world.run(20_000);
    world.story();
    world
}

/// One module from where the app says.
pub(crate) fn an_order(module: &str) -> Order {
    Order {
        module: module.to_owned(),
        supply: Supply::App,
        sha256: None,
        force: false,
        mode: None,
        trial: None,
    }
}

/// The next reload finds this.
pub(crate) fn offer(world: &mut World<Script>, app: App) {
    world.fate.probes.push_back(app.found());
}
