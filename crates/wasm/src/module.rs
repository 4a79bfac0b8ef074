//! A module as a worker has it: mapped code, and instances that wait for calls.

mod life;
mod succession;

use std::{
    borrow::Cow,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use aegis_domain::code::{CodeLimits, CodeSpec};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::{
    Engine, Store,
    component::{Instance, InstancePre},
};

pub use self::{
    life::{Drained, Halt, Handover},
    succession::{Succession, SuccessionError, Successors},
};
use crate::{
    berths::{self, Berth},
    call::{Budget, Call, CallError},
    contract::{Fault, commanding, documenting, events, handing, handling, hooking, living, routing, types},
    documents,
    entry::{Answer, Entry, Happening},
    mapping::MappingError,
    output::LogBudget,
    pace::Paces,
    pool::Pool,
    runtime::Runtime,
    services::Services,
    state::{self, Owner, State},
    ticker::Ticks,
};

/// Where the code of a module lies in the sealed file of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CodePlace {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// A module that can be called.
pub struct Module {
    owner: Arc<Owner>,
    services: Arc<dyn Services>,
    engine: Engine,
    ticks: Ticks,
    linked: InstancePre<State>,
    hooks: Option<hooking::HasHooksIndices>,
    document_hooks: Option<documenting::HasDocumentHooksIndices>,
    commands: Option<commanding::HasCommandsIndices>,
    events: Option<handling::HasEventHandlersIndices>,
    life: Option<living::HasLifecycleIndices>,
    handover: Option<handing::HasHandoverIndices>,
    routes: Option<routing::HasRoutesIndices>,
    pool: Arc<Pool>,
    /// Somebody has halted it, in whatever generation.
    halted: Arc<AtomicBool>,
    paces: Arc<Paces>,
    /// SHA-256 of the component.
    digest: String,
    version: String,
}

/// An instance and what it exports.
pub(crate) struct Resident {
    store: Store<State>,
    hooks: Option<hooking::HasHooks>,
    document_hooks: Option<documenting::HasDocumentHooks>,
    commands: Option<commanding::HasCommands>,
    routes: Option<routing::HasRoutes>,
    life: Option<living::HasLifecycle>,
    handover: Option<handing::HasHandover>,
    events: Option<handling::HasEventHandlers>,
    calls: u64,
    /// What has its code look at its deadline when it ends.
    ticks: Ticks,
    /// Let go of after everything else.
    _berth: Berth,
}

impl Module {
    pub(crate) fn new(
        runtime: &Runtime,
        model: &str,
        code: &CodeSpec,
        linked: InstancePre<State>,
        services: Arc<dyn Services>,
    ) -> Result<Self, MappingError> {
        let hooks = hooking::HasHooksIndices::new(&linked).ok();
        let document_hooks = documenting::HasDocumentHooksIndices::new(&linked).ok();
        let commands = commanding::HasCommandsIndices::new(&linked).ok();
        let events = handling::HasEventHandlersIndices::new(&linked).ok();
        let life = living::HasLifecycleIndices::new(&linked).ok();
        let handover = handing::HasHandoverIndices::new(&linked).ok();
        let routes = routing::HasRoutesIndices::new(&linked).ok();
        let owner = Owner {
            module: code.module.clone(),
            model: model.to_owned(),
            settings: code.settings.clone(),
            limits: code.limits,
            generation: 0,
            grants: code.grants.clone(),
            log_budget: LogBudget::default(),
        };
        let size = berths::size_of(linked.component());
        Ok(Self {
            pool: Arc::new(Pool::new(code.limits.instances_max as usize, size, runtime.berths())),
            halted: Arc::default(),
            paces: Arc::default(),
            owner: Arc::new(owner),
            services,
            engine: runtime.engine().clone(),
            ticks: runtime.ticker().ticks().clone(),
            linked,
            hooks,
            document_hooks,
            commands,
            events,
            life,
            handover,
            routes,
            digest: code.digest.clone(),
            version: code.version.clone(),
        })
    }

    /// The same as part of a generation with this number, before its first call.
    #[must_use]
    pub fn of_generation(mut self, number: u64) -> Self {
        if let Some(owner) = Arc::get_mut(&mut self.owner) {
            owner.generation = number;
        }
        self
    }

    /// The same code and the same instances for another generation, which answers with its own services what is asked
    /// of the host.
    #[must_use]
    pub fn follow(&self, number: u64, services: Arc<dyn Services>) -> Self {
        Self {
            owner: Arc::new(self.owner.of_generation(number)),
            services,
            engine: self.engine.clone(),
            ticks: self.ticks.clone(),
            linked: self.linked.clone(),
            hooks: self.hooks.clone(),
            document_hooks: self.document_hooks.clone(),
            commands: self.commands.clone(),
            events: self.events.clone(),
            life: self.life.clone(),
            handover: self.handover.clone(),
            routes: self.routes.clone(),
            pool: Arc::clone(&self.pool),
            halted: Arc::clone(&self.halted),
            paces: Arc::clone(&self.paces),
            digest: self.digest.clone(),
            version: self.version.clone(),
        }
    }

    /// Whether both are one code with the same instances, for two generations.
    #[must_use]
    pub fn shares_instances_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.pool, &other.pool)
    }

    /// Whether it may hand state to the next version, or take some.
    #[must_use]
    pub fn hands_over(&self) -> bool {
        self.handover.is_some()
    }

    /// Name that the module gives itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.owner.module
    }

    /// Which of its entries take long.
    pub(crate) fn paces(&self) -> &Arc<Paces> {
        &self.paces
    }

    pub(crate) fn limits(&self) -> CodeLimits {
        self.owner.limits
    }

    /// Instances that exist now.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.pool.instances()
    }

    /// The most memory that an instance which waits for calls ever had, bytes; nothing when none waits.
    #[must_use]
    pub fn peak_memory_bytes(&self) -> Option<usize> {
        self.pool.most(|resident| resident.store.data().limiter.peak_bytes)
    }

    /// Waits until one more call may run, when that is in time.
    pub(crate) async fn place(&self, budget: &Budget) -> Result<OwnedSemaphorePermit, CallError> {
        let place = tokio::time::timeout_at(budget.until.into(), self.pool.place()).await;
        place.map_err(|_| self.busy())
    }

    /// Carries a call out in its `place`. Its code ends when the budget is spent; a call that then waits for the host is
    /// for the caller to give up.
    pub(crate) async fn enter(
        self: Arc<Self>,
        _place: OwnedSemaphorePermit,
        call: Call,
        entry: Entry,
        mut budget: Budget,
    ) -> Result<Answer, CallError> {
        if budget.is_over() {
            // Its turn has come too late: no instance is lost for that.
            return Err(self.busy());
        }
        let found = match self.pool.take() {
            Some(resident) => Ok(resident),
            None => Err(self.berth(&budget).await?),
        };
        budget.begin();
        let (name, signals, allowed) = (entry.name(), budget.signals.clone(), budget.allowed);
        let mut resident = match found {
            Ok(resident) => resident,
            Err(berth) => {
                let made = self.instantiate(berth, &budget, &call).await;
                made.map_err(|error| self.failed(name.clone(), signals.without_waits(allowed), &error, ""))?
            }
        };
        let context = call.context(&budget);
        resident.begin(&self, budget, call);
        match resident.run(context, entry).await {
            Ok(answer) => {
                let answer = answer.map_err(|fault| resident.refusal(fault));
                self.give_back(resident);
                answer
            }
            Err(error) => {
                let allowed = signals.without_waits(allowed);
                let State { output, secrets, .. } = resident.store.data();
                let output = secrets.redact_end(&output.take());
                Err(secrets.redact_error(self.failed(name, allowed, &error, &output)))
            }
        }
    }

    /// Room for another instance, when there is some in time.
    async fn berth(&self, budget: &Budget) -> Result<Berth, CallError> {
        let berth = tokio::time::timeout_at(budget.until.into(), self.pool.berth()).await;
        berth.map_err(|_| self.busy())
    }

    pub(crate) fn busy(&self) -> CallError {
        CallError::Busy { module: self.owner.module.clone() }
    }

    /// Makes an instance and lets it begin its life.
    async fn instantiate(&self, berth: Berth, budget: &Budget, call: &Call) -> wasmtime::Result<Resident> {
        let budget = Budget { signals: budget.signals.clone(), ..*budget };
        let state = State::new(Arc::clone(&self.owner), Arc::clone(&self.services), budget).made_for(call);
        let mut store = state.into_store(&self.engine);
        let instance: Instance = self.linked.instantiate_async(&mut store).await?;
        let life = self.life.as_ref().map(|life| life.load(&mut store, &instance)).transpose()?;
        if let Some(life) = &life {
            let settings = self.owner.settings.to_string();
            let begun = life.aegis_module_lifecycle().call_init(&mut store, &settings).await?;
            begun.map_err(|fault| {
                let message = store.data().secrets.redact(&fault.message);
                wasmtime::Error::msg(format!("it refused to begin: {message}"))
            })?;
        }
        let hooks = self.hooks.as_ref().map(|hooks| hooks.load(&mut store, &instance)).transpose()?;
        let commands =
            self.commands.as_ref().map(|commands| commands.load(&mut store, &instance)).transpose()?;
        let routes = self.routes.as_ref().map(|routes| routes.load(&mut store, &instance)).transpose()?;
        let document_hooks =
            self.document_hooks.as_ref().map(|hooks| hooks.load(&mut store, &instance)).transpose()?;
        let handover =
            self.handover.as_ref().map(|handover| handover.load(&mut store, &instance)).transpose()?;
        let events = self.events.as_ref().map(|events| events.load(&mut store, &instance)).transpose()?;
        Ok(Resident {
            store,
            hooks,
            document_hooks,
            commands,
            routes,
            life,
            handover,
            events,
            calls: 0,
            ticks: self.ticks.clone(),
            _berth: berth,
        })
    }

    fn give_back(&self, resident: Resident) {
        let spent = resident.calls >= self.owner.limits.calls_per_instance_max;
        if spent || resident.store.data().limiter.is_bloated() {
            self.pool.retire(resident);
        } else {
            self.pool.give_back(resident);
        }
    }

    fn failed(
        &self,
        entry: impl Into<Cow<'static, str>>,
        allowed: Duration,
        error: &wasmtime::Error,
        output: &str,
    ) -> CallError {
        CallError::failed(&self.owner.module, entry, allowed, error, output)
    }
}

impl Resident {
    /// A call of `module` begins, which shares this instance with itself in other generations.
    fn begin(&mut self, module: &Module, budget: Budget, call: Call) {
        self.calls += 1;
        state::belong(&mut self.store, &module.owner, &module.services);
        state::begin(&mut self.store, budget, call.request_id, call.lineage, call.lot);
        self.store.data_mut().principal = call.principal;
    }

    async fn run(
        &mut self,
        context: types::Context,
        entry: Entry,
    ) -> wasmtime::Result<Result<Answer, Fault>> {
        let missing =
            |interface: &str| wasmtime::Error::msg(format!("it does not export aegis:module/{interface}"));
        if let Entry::Command { name, target, arguments } = entry {
            let commands = self.commands.as_ref().ok_or_else(|| missing("commands"))?;
            let target = target.map(types::Entity::from);
            let guest = commands.aegis_module_commands();
            let answer =
                guest.call_run(&mut self.store, &context, &name, target.as_ref(), &arguments).await?;
            return Ok(answer.map(Answer::Json));
        }
        if let Entry::Route { request } = entry {
            let routes = self.routes.as_ref().ok_or_else(|| missing("routes"))?;
            let request = routing::exports::aegis::module::routes::Request::from(*request);
            let answer =
                routes.aegis_module_routes().call_handle(&mut self.store, &context, &request).await?;
            return Ok(answer.map(|response| Answer::Response(response.into())));
        }
        if let Entry::Event(happening) = entry {
            let events = self.events.as_ref().ok_or_else(|| missing("event-handlers"))?;
            let (guest, event) = (events.aegis_module_event_handlers(), events::Event::from(happening));
            return Ok(guest
                .call_on_event(&mut self.store, &context, &event)
                .await?
                .map(|()| Answer::Agreed));
        }
        if let Some(hooks) = &self.document_hooks
            && !matches!(entry, Entry::Load { .. })
        {
            let guest = hooks.aegis_module_document_hooks();
            return documents::run(guest, &mut self.store, &context, entry).await;
        }
        let guest = self.hooks.as_ref().ok_or_else(|| missing("hooks"))?.aegis_module_hooks();
        let store = &mut self.store;
        Ok(match entry {
            Entry::Create { input } => guest.call_on_create(store, &context, &input).await?.map(Answer::Json),
            Entry::Validate { before, after } => guest
                .call_validate(store, &context, before.as_deref(), &after)
                .await?
                .map(|()| Answer::Agreed),
            Entry::Update { current, changes } => {
                let current = types::Entity::from(current);
                guest.call_on_update(store, &context, &current, &changes).await?.map(Answer::Json)
            }
            Entry::Delete { current } => {
                let current = types::Entity::from(current);
                guest.call_on_delete(store, &context, &current).await?.map(|()| Answer::Agreed)
            }
            Entry::Load { stored } => {
                let stored = types::Entity::from(stored);
                guest.call_on_load(store, &context, &stored).await?.map(Answer::Json)
            }
            Entry::Command { .. } | Entry::Route { .. } | Entry::Event(_) => {
                return Err(missing("commands"));
            }
        })
    }
}

impl From<Happening> for events::Event {
    fn from(happening: Happening) -> Self {
        let Happening { id, name, source, time_ms, key, data } = happening;
        Self { id, name, source, time: time_ms, key, data, remote: false }
    }
}
