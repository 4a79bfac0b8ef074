//! An engine, and what components can import on it.

use wasmtime::{Engine, component::Linker};

use crate::{
    engine::{EngineError, Profile},
    imports,
    state::State,
};

/// What components of one kind are linked on.
pub(crate) struct Platform {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<State>,
}

impl Platform {
    /// All that a component may import, on this engine.
    ///
    /// # Errors
    /// When the engine does not take it.
    pub(crate) fn new(engine: Engine, profile: Profile) -> Result<Self, EngineError> {
        let mut linker = Linker::new(&engine);
        let linked = imports::link(&mut linker, profile);
        linked.map_err(|error| EngineError { reason: format!("{error:#}") })?;
        Ok(Self { engine, linker })
    }
}
