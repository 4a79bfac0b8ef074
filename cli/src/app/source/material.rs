//! What a source has at this moment, for whoever deploys it: one that is away is no answer here.

use std::time::Instant;

use aegis_ipc::deploy::Form;

use super::{Fetching, Published, Sources, authorization, located};
use crate::app::material::Material;

impl Sources {
    /// Fetches what a module consists of. All mistakes at once, with the place.
    pub(in crate::app) fn material(&mut self, published: &Published<'_>) -> Result<Material, Vec<String>> {
        let origin = format!("modules.{}", published.name);
        let authorization =
            authorization(published.source).map_err(|mistakes| located(&origin, &mistakes))?;
        let deadline = Instant::now() + self.times.total;
        let mut fetching = Fetching::new(published.source, authorization, deadline);
        fetching.asks_for_signatures(published.gate.asks());
        let content = fetching.content(self.tools()).map_err(|failures| {
            let mistakes: Vec<_> = failures.into_iter().map(super::Failure::into_diagnostic).collect();
            located(&origin, &mistakes)
        })?;
        Ok(Material { form: Form::Component, bytes: content.bytes, papers: content.papers })
    }
}
