//! Custom routes: the code of a model is asked as for a command, and answers over HTTP.

use std::{sync::Arc, time::Instant};

use aegis_domain::{Problem, catalog::Model, code::CommandPlace, trial::Variant};
use aegis_wasm::{Call, Module, RouteRequest, RouteResponse};

use super::{Counted, Modules, fault};

impl Modules {
    /// Asks a custom route.
    pub(crate) async fn route(
        &self,
        (model, module, variant): (&Model, &Arc<Module>, Variant),
        place: CommandPlace,
        call: Call,
        request: RouteRequest,
    ) -> Result<RouteResponse, Problem> {
        let guard = self.guard(model, variant)?;
        let pass = guard.enter(call.lineage);
        let pass = pass.map_err(|shut| shut.problem(module.name()))?;
        let (begun, id, route) = (Instant::now(), call.request_id.clone(), request.route.clone());
        let outcome = Box::pin(self.runtime.route(module, place, call, request)).await;
        let counted = Counted { module: module.name(), variant };
        pass.end(guard.outcome(&outcome, place));
        self.count_call(counted, begun);
        let is_short = guard.is_cut_short(&outcome, place);
        outcome.map_err(|error| {
            let (model, request) = (model.name(), id.as_str());
            self.note(counted, (&error, is_short), || {
                tracing::error!(target: "aegis::module", model, route, request, "{error}; its instance is gone");
            });
            fault::problem(error)
        })
    }
}
