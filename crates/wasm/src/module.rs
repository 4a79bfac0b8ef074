//! A module as a worker has it: mapped code, and instances that wait for calls.

use std::{sync::Arc, time::Duration};

use aegis_domain::code::{CodeLimits, CodeSpec};
use wasmtime::{
    Engine, Store,
    component::{Instance, InstancePre},
};

use crate::{
    call::{Budget, Call, CallError, DEPTH_MAX, HARD_DEADLINE_SLACK, Refusal, RefusalCode},
    contract::{Fault, commanding, hooking, living, types},
    entry::Entry,
    mapping::MappingError,
    output::LogBudget,
    pool::Pool,
    runtime::Runtime,
    services::Services,
    state::{Owner, State},
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
    linked: InstancePre<State>,
    hooks: Option<hooking::HasHooksIndices>,
    commands: Option<commanding::HasCommandsIndices>,
    life: Option<living::HasLifecycleIndices>,
    pool: Pool,
}

/// An instance and what it exports.
pub(crate) struct Resident {
    store: Store<State>,
    hooks: Option<hooking::HasHooks>,
    commands: Option<commanding::HasCommands>,
    calls: u64,
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
        let commands = commanding::HasCommandsIndices::new(&linked).ok();
        let life = living::HasLifecycleIndices::new(&linked).ok();
        let owner = Owner {
            module: code.module.clone(),
            model: model.to_owned(),
            settings: code.settings.clone(),
            limits: code.limits,
            grants: code.grants.clone(),
            log_budget: LogBudget::default(),
        };
        Ok(Self {
            pool: Pool::new(code.limits.instances_max as usize),
            owner: Arc::new(owner),
            services,
            engine: runtime.engine().clone(),
            linked,
            hooks,
            commands,
            life,
        })
    }

    /// Name that the module gives itself.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.owner.module
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

    /// Carries a call out within its budget.
    pub(crate) async fn enter(
        self: Arc<Self>,
        call: Call,
        entry: Entry,
        mut budget: Budget,
    ) -> Result<Option<String>, CallError> {
        if call.depth > DEPTH_MAX {
            let message = format!("modules call each other more than {DEPTH_MAX} deep");
            return Err(CallError::Refused(Refusal::new(RefusalCode::Unsupported, message)));
        }
        budget.end_by(call.deadline);
        let allowed = budget.allowed;
        let name = entry.name();
        let late = || CallError::Deadline { module: self.owner.module.clone(), entry: name, allowed };
        let busy = || CallError::Busy { module: self.owner.module.clone() };
        let _place =
            tokio::time::timeout_at(budget.until.into(), self.pool.place()).await.map_err(|_| busy())?;
        let hard = tokio::time::Instant::from_std(budget.until + HARD_DEADLINE_SLACK);
        let carried_out = tokio::time::timeout_at(hard, async {
            let mut resident = match self.pool.take() {
                Some(resident) => resident,
                None => {
                    self.instantiate(&budget).await.map_err(|error| self.failed(name, allowed, &error, ""))?
                }
            };
            let context = call.context(&budget);
            resident.begin(budget, call);
            match resident.run(context, entry).await {
                Ok(answer) => {
                    let answer = answer.map_err(|fault| {
                        CallError::Refused(resident.store.data().secrets.redact_refusal(fault.into()))
                    });
                    self.give_back(resident);
                    answer
                }
                Err(error) => {
                    let State { output, secrets, .. } = resident.store.data();
                    let output = secrets.redact_end(&output.take());
                    Err(secrets.redact_error(self.failed(name, allowed, &error, &output)))
                }
            }
        });
        carried_out.await.unwrap_or_else(|_| Err(late()))
    }

    /// Makes an instance and lets it begin its life.
    async fn instantiate(&self, budget: &Budget) -> wasmtime::Result<Resident> {
        let budget = Budget { signals: budget.signals.clone(), ..*budget };
        let state = State::new(Arc::clone(&self.owner), Arc::clone(&self.services), budget);
        let mut store = state.into_store(&self.engine);
        let instance: Instance = self.linked.instantiate_async(&mut store).await?;
        if let Some(life) = &self.life {
            let settings = self.owner.settings.to_string();
            let life = life.load(&mut store, &instance)?;
            let begun = life.aegis_module_lifecycle().call_init(&mut store, &settings).await?;
            begun.map_err(|fault| {
                let message = store.data().secrets.redact(&fault.message);
                wasmtime::Error::msg(format!("it refused to begin: {message}"))
            })?;
        }
        let hooks = self.hooks.as_ref().map(|hooks| hooks.load(&mut store, &instance)).transpose()?;
        let commands =
            self.commands.as_ref().map(|commands| commands.load(&mut store, &instance)).transpose()?;
        Ok(Resident { store, hooks, commands, calls: 0 })
    }

    fn give_back(&self, resident: Resident) {
        let spent = resident.calls >= self.owner.limits.calls_per_instance_max;
        if !spent && !resident.store.data().limiter.is_bloated() {
            self.pool.give_back(resident);
        }
    }

    fn failed(
        &self,
        entry: &'static str,
        allowed: Duration,
        error: &wasmtime::Error,
        output: &str,
    ) -> CallError {
        CallError::failed(&self.owner.module, entry, allowed, error, output)
    }
}

impl Resident {
    fn begin(&mut self, budget: Budget, call: Call) {
        self.calls += 1;
        let payload_bytes_max = self.store.data().owner.limits.payload_bytes_max;
        let state = self.store.data_mut();
        state.budget = budget;
        state.request_id = call.request_id;
        state.depth = call.depth;
        self.store.set_hostcall_fuel(usize::try_from(payload_bytes_max).unwrap_or(usize::MAX));
        self.store.set_epoch_deadline(1);
    }

    async fn run(
        &mut self,
        context: types::Context,
        entry: Entry,
    ) -> wasmtime::Result<Result<Option<String>, Fault>> {
        let missing =
            |interface: &str| wasmtime::Error::msg(format!("it does not export aegis:module/{interface}"));
        if let Entry::Command { name, target, arguments } = entry {
            let commands = self.commands.as_ref().ok_or_else(|| missing("commands"))?;
            let target = target.map(types::Entity::from);
            let guest = commands.aegis_module_commands();
            let answer =
                guest.call_run(&mut self.store, &context, &name, target.as_ref(), &arguments).await?;
            return Ok(answer.map(Some));
        }
        let guest = self.hooks.as_ref().ok_or_else(|| missing("hooks"))?.aegis_module_hooks();
        let store = &mut self.store;
        Ok(match entry {
            Entry::Create { input } => guest.call_on_create(store, &context, &input).await?.map(Some),
            Entry::Validate { before, after } => {
                guest.call_validate(store, &context, before.as_deref(), &after).await?.map(|()| None)
            }
            Entry::Update { current, changes } => {
                let current = types::Entity::from(current);
                guest.call_on_update(store, &context, &current, &changes).await?.map(Some)
            }
            Entry::Delete { current } => {
                let current = types::Entity::from(current);
                guest.call_on_delete(store, &context, &current).await?.map(|()| None)
            }
            Entry::Command { .. } => return Err(missing("commands")),
        })
    }
}
