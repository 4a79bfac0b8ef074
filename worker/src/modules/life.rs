//! The beginning and the end of a worker as the code behind models learns of them.

use std::{sync::Arc, time::Instant};

use aegis_wasm::{CallError, Module};

use super::Modules;

impl Modules {
    /// What the code of a model says of itself: nothing when it is well, or cannot be asked.
    pub(crate) async fn ailment(&self, module: &Arc<Module>, deadline: Instant) -> Option<String> {
        match self.runtime.health(module, deadline).await {
            Ok(()) => None,
            Err(CallError::Refused(refusal)) => Some(refusal.message),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Lets all code release what it holds, each module in its part of the time that is left.
    pub(crate) async fn drain(&self, deadline: Instant) {
        for (index, module) in self.by_model.values().enumerate() {
            let left = u32::try_from(self.by_model.len() - index).unwrap_or(u32::MAX);
            let remaining = deadline.saturating_duration_since(Instant::now()) / left;
            self.runtime.drain(module, Instant::now() + remaining).await;
        }
    }
}
