//! What belongs to one instance while it lives.

use std::{sync::Arc, time::Instant};

use aegis_domain::{
    access::Principal,
    code::{CodeLimits, Grants},
    trial::Lot,
};
use wasmtime::{Engine, Store, UpdateDeadline, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::{
    call::{Budget, Call, Lineage, TimeIsUp},
    http::{Crowd, Http},
    memory::MemoryLimiter,
    output::{GuestOutput, LogBudget},
    secret::OpenSecrets,
    services::{Asker, Services},
};

/// Resources of the host that one instance may always hold: what a call has that has it to itself.
const RESOURCES_MIN: usize = 1_000;
/// Resources of the host that there are for each of the calls that an instance may have at a time, when they are many.
const RESOURCES_EACH: usize = 20;
/// Most handles that one instance may hold.
const RESOURCES_MAX: usize = 10_000;
/// Bytes that a set of header fields may always have in memory, however many others there may be.
const FIELDS_BYTES_MIN: usize = 8 * 1024;
/// Most bytes of one set of header fields in memory.
const FIELDS_BYTES_MAX: usize = 64 * 1024;
/// Most random bytes that a guest gets at once through WASI.
const WASI_RANDOM_BYTES_MAX: u64 = 64 * 1024;

/// Epochs after which code looks up for the first time in a call. The first may end right after the call begins: with one
/// alone, the calls that it falls into would let all others go first, however short they are.
const FIRST_EPOCHS: u64 = 2;

/// Whose instance it is.
#[derive(Debug)]
pub(crate) struct Owner {
    /// Name of the module.
    pub(crate) module: String,
    /// Name of its model, upper case; empty when it is a service.
    pub(crate) model: String,
    /// Non-secret settings.
    pub(crate) settings: serde_json::Value,
    pub(crate) limits: CodeLimits,
    /// Number of the generation that it is part of; 0 outside of a host.
    pub(crate) generation: u64,
    /// What the code may reach beyond its own model.
    pub(crate) grants: Grants,
    pub(crate) log_budget: LogBudget,
}

impl Owner {
    /// Most bytes of one crossing.
    pub(crate) fn payload_bytes_max(&self) -> usize {
        usize::try_from(self.limits.payload_bytes_max).unwrap_or(usize::MAX)
    }

    /// The same in another generation.
    pub(crate) fn of_generation(&self, number: u64) -> Self {
        Self {
            module: self.module.clone(),
            model: self.model.clone(),
            settings: self.settings.clone(),
            limits: self.limits,
            generation: number,
            grants: self.grants.clone(),
            log_budget: LogBudget::default(),
        }
    }
}

/// The host's side of an instance.
pub(crate) struct State {
    pub(crate) owner: Arc<Owner>,
    pub(crate) services: Arc<dyn Services>,
    /// When the instance was made.
    pub(crate) born: Instant,
    pub(crate) budget: Budget,
    /// Those who have the instance at the same time; nothing where one call has it to itself.
    pub(crate) crowd: Option<Arc<Crowd>>,
    /// Request that the present call belongs to.
    pub(crate) request_id: String,
    /// Where the present call comes from.
    pub(crate) lineage: Lineage,
    /// What decides for the present call which versions of other models carry out what it asks.
    lot: Lot,
    /// Who made the request, if that is known.
    pub(crate) principal: Option<Arc<Principal>>,
    pub(crate) limiter: MemoryLimiter,
    /// What the guest wrote to its standard output and error in the present call.
    pub(crate) output: GuestOutput,
    pub(crate) table: ResourceTable,
    pub(crate) http: Http,
    pub(crate) secrets: OpenSecrets,
    wasi: WasiCtx,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl State {
    /// No environment, no files, no network: what a language's runtime wants of WASI, and nothing else.
    pub(crate) fn new(owner: Arc<Owner>, services: Arc<dyn Services>, budget: Budget) -> Self {
        let output = GuestOutput::default();
        let wasi = WasiCtx::builder()
            .stdout(output.clone())
            .stderr(output.clone())
            .max_random_size(WASI_RANDOM_BYTES_MAX)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(resources_max(&owner.limits));
        let limiter = MemoryLimiter::new(owner.limits.memory_bytes_max);
        let http = Http::new(Arc::clone(&owner), Arc::clone(&services));
        Self {
            owner,
            services,
            born: Instant::now(),
            budget,
            crowd: None,
            request_id: String::new(),
            lineage: Lineage::default(),
            lot: Lot::default(),
            principal: None,
            limiter,
            output,
            table,
            http,
            secrets: OpenSecrets::default(),
            wasi,
        }
    }

    /// The state of an instance that is made for a call: what its code asks for while it begins is part of that request.
    pub(crate) fn made_for(mut self, call: &Call) -> Self {
        self.request_id.clone_from(&call.request_id);
        self.lineage = call.lineage;
        self
    }

    /// Who asks for a service of the host.
    pub(crate) fn asker(&self) -> Asker<'_> {
        Asker {
            module: &self.owner.module,
            model: &self.owner.model,
            grants: &self.owner.grants,
            request_id: &self.request_id,
            deadline: self.budget.until,
            payload_bytes_max: self.payload_bytes_max(),
            lineage: self.lineage,
            lot: &self.lot,
            principal: self.principal.as_ref(),
        }
    }

    /// Most bytes of one crossing.
    pub(crate) fn payload_bytes_max(&self) -> usize {
        self.owner.payload_bytes_max()
    }

    /// A store around it, with every limit in force.
    pub(crate) fn into_store(self, engine: &Engine) -> Store<Self> {
        let mut store = Store::new(engine, self);
        store.limiter(|state| &mut state.limiter);
        // Resources of the guest's own are in no table of ours.
        store.set_max_component_handles(RESOURCES_MAX);
        refill(&mut store);
        store.epoch_deadline_callback(|mut store| {
            let has_to_end = match store.data().crowd.clone() {
                Some(crowd) => {
                    let root = store.async_call_stack()?.last();
                    crowd.has_to_end(root)
                }
                None => store.data().budget.is_over(),
            };
            if has_to_end {
                return Err(TimeIsUp.into());
            }
            store.data().budget.signals.use_up_slice();
            // Not the plain yield: the runtime's last-in-first-out slot would run this task again at once.
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        store
    }
}

/// Most resources of the host that one instance may hold, whatever they are.
fn resources_max(limits: &CodeLimits) -> usize {
    let calls = usize::try_from(limits.calls_at_a_time_max).unwrap_or(usize::MAX);
    calls.saturating_mul(RESOURCES_EACH).clamp(RESOURCES_MIN, RESOURCES_MAX)
}

/// Most bytes of one set of header fields, which take more memory of the host than any other resource: if all are such sets,
/// an instance has no more in the host than it may have in its own memory.
pub(crate) fn fields_bytes_max(limits: &CodeLimits) -> usize {
    let memory = usize::try_from(limits.memory_bytes_max).unwrap_or(usize::MAX);
    (memory / resources_max(limits)).clamp(FIELDS_BYTES_MIN, FIELDS_BYTES_MAX)
}

/// The next call in the instance of `store` is of this generation of its module.
pub(crate) fn belong(store: &mut Store<State>, owner: &Arc<Owner>, services: &Arc<dyn Services>) {
    let state = store.data_mut();
    if !Arc::ptr_eq(&state.owner, owner) {
        state.owner = Arc::clone(owner);
        state.services = Arc::clone(services);
        state.http.belong(owner, services);
    }
}

/// Another call begins in the instance of `store`, for nobody who is known.
pub(crate) fn begin(
    store: &mut Store<State>,
    budget: Budget,
    request_id: String,
    lineage: Lineage,
    lot: Lot,
) {
    let state = store.data_mut();
    state.budget = budget;
    state.request_id = request_id;
    state.lineage = lineage;
    state.lot = lot;
    state.principal = None;
    // What a failure of this call is told with is not what another one wrote.
    state.output.clear();
    refill(store);
}

/// Several requests begin in the instance of `store`, each with a budget of its own; `budget` is that of nobody.
pub(crate) fn share(store: &mut Store<State>, budget: Budget, crowd: Arc<Crowd>) {
    begin(store, budget, String::new(), Lineage::default(), Lot::default());
    store.data_mut().crowd = Some(crowd);
}

/// What each call has anew.
fn refill(store: &mut Store<State>) {
    let payload_bytes_max = store.data().payload_bytes_max();
    store.set_hostcall_fuel(payload_bytes_max);
    store.set_epoch_deadline(FIRST_EPOCHS);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEBIBYTE: u64 = 1024 * 1024;

    #[test]
    fn an_instance_has_no_more_in_the_host_than_in_its_own_memory_however_many_calls_it_has() {
        let of = |calls_at_a_time_max, mebibytes: u64| {
            let memory_bytes_max = mebibytes * MEBIBYTE;
            let limits = CodeLimits { calls_at_a_time_max, memory_bytes_max, ..CodeLimits::default() };
            (resources_max(&limits), fields_bytes_max(&limits))
        };
        for calls in [1, 10, 16, 50, 100, 400] {
            for mebibytes in [64, 128, 256] {
                let (resources, bytes) = of(calls, mebibytes);
                assert!((resources * bytes) as u64 <= mebibytes * MEBIBYTE, "{calls} in {mebibytes} MiB");
            }
        }
        assert_eq!(of(1, 64), (1_000, FIELDS_BYTES_MAX));
        assert_eq!(of(16, 64), (1_000, FIELDS_BYTES_MAX));
        assert_eq!(of(1_000, 64), (10_000, FIELDS_BYTES_MIN));
        assert_eq!(of(1, 1), (1_000, FIELDS_BYTES_MIN));
    }
}
