//! The life of an instance: how it begins, goes on, hands over and ends.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Model, Refusal};

type Told = dyn Fn(Value) -> Result<(), Refusal>;
type Save = dyn Fn() -> Result<Vec<u8>, Refusal>;
type Restore = dyn Fn(&[u8], &str) -> Result<(), Refusal>;

/// What a module does in the life of its instances.
#[derive(Default)]
pub(crate) struct Life {
    pub(crate) begin: Option<Box<Told>>,
    pub(crate) reconfigure: Option<Box<Told>>,
    pub(crate) drain: Option<Box<dyn Fn()>>,
    pub(crate) health: Option<Box<dyn Fn() -> Result<(), Refusal>>>,
    pub(crate) handover: Option<(Box<Save>, Box<Restore>)>,
}

impl Model {
    /// Called with the settings when an instance begins.
    #[must_use]
    pub fn begin(mut self, begin: impl Fn(Value) -> Result<(), Refusal> + 'static) -> Self {
        self.life.begin = Some(Box::new(begin));
        self
    }

    /// Called with other settings while an instance goes on; `begin` is, unless this is there. An `Err` has it replaced.
    #[must_use]
    pub fn reconfigure(mut self, reconfigure: impl Fn(Value) -> Result<(), Refusal> + 'static) -> Self {
        self.life.reconfigure = Some(Box::new(reconfigure));
        self
    }

    /// Called when an instance ends, unless it failed or another one wants its room at once: releases what is held.
    #[must_use]
    pub fn drain(mut self, drain: impl Fn() + 'static) -> Self {
        self.life.drain = Some(Box::new(drain));
        self
    }

    /// Says whether an instance is well, and why not.
    #[must_use]
    pub fn health(mut self, health: impl Fn() -> Result<(), Refusal> + 'static) -> Self {
        self.life.health = Some(Box::new(health));
        self
    }

    /// Hands what an instance remembers to the next version, as JSON; `restore` gets the version that it comes from as
    /// well. `export!` names `handover` then.
    #[must_use]
    pub fn handover<S: Serialize, T: DeserializeOwned>(
        mut self,
        save: impl Fn() -> Result<S, Refusal> + 'static,
        restore: impl Fn(T, &str) -> Result<(), Refusal> + 'static,
    ) -> Self {
        let save = move || Ok(serde_json::to_vec(&save()?)?);
        let restore =
            move |state: &[u8], from_version: &str| restore(serde_json::from_slice(state)?, from_version);
        self.life.handover = Some((Box::new(save), Box::new(restore)));
        self
    }
}
