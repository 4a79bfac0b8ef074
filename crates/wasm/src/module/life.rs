//! The life of instances beyond their calls: whether they are well, what they hand to the next version, and how they end.
//!
//! Whoever puts a new generation in the place of another calls [`Runtime::halt`] for each model, then [`Runtime::succeed`]
//! where the code is the same, and [`Runtime::save`] and [`Runtime::restore`] where it is not; then [`Runtime::drain`] for
//! what is left. Each is asked of the runtime that has loaded the module; for `succeed` that is one for both.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use aegis_domain::trial::Lot;
use tokio::sync::OwnedSemaphorePermit;

use super::{Module, Resident};
use crate::{
    berths::Mortal,
    call::{Budget, Call, CallError, HARD_DEADLINE_SLACK, Lineage, Origin, Refusal},
    contract::Fault,
    runtime::Runtime,
    state::{self, Owner},
};

/// What calls are known by that belong to no request.
const REQUEST_ID: &str = "lifecycle";

/// A module that is halted waits for its calls for so much of the time that one may take. Who waits meanwhile has the rest.
const HALT_SHARE: (u32, u32) = (3, 4);

/// No call of a module runs, and none begins as long as this is held.
#[derive(Debug)]
pub struct Halt {
    halted: Arc<AtomicBool>,
    _places: OwnedSemaphorePermit,
}

impl Drop for Halt {
    fn drop(&mut self) {
        self.halted.store(false, Ordering::Relaxed);
    }
}

/// What a module hands to its next version. It has at most as many bytes as may cross at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// Version of the component that gives it.
    pub from_version: String,
    /// Whatever the component makes of it.
    pub state: Vec<u8>,
}

/// How the instances of a module ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// They released what they held, or hold nothing.
    pub ended: usize,
    /// They failed to, or their time was up.
    pub cut_off: usize,
}

impl Runtime {
    /// Makes the first instance of a module before anybody calls it. Nothing happens when there is one.
    ///
    /// # Errors
    /// As of any call: also when it refuses to begin. Then there is no instance.
    pub async fn warm_up(&self, module: &Arc<Module>, deadline: Instant) -> Result<(), CallError> {
        let _running = self.ticker().running();
        let budget = module.budget(deadline);
        let _place = module.place(&budget).await?;
        let resident = match module.pool.take() {
            Some(resident) => resident,
            None => module.fresh(&budget).await?,
        };
        module.give_back(resident);
        Ok(())
    }

    /// Makes an instance of a module and lets go of it again, where instances come about in another way and only have to be
    /// known to begin. Its code is not told that it ends: nobody has decided for it yet, and what it wrote would stay.
    ///
    /// # Errors
    /// As of any call: also when it refuses to begin.
    pub async fn rehearse(&self, module: &Arc<Module>, deadline: Instant) -> Result<(), CallError> {
        let _running = self.ticker().running();
        let budget = module.budget(deadline);
        let _place = module.place(&budget).await?;
        module.fresh(&budget).await.map(drop)
    }

    /// Asks an instance whether it is well. A module that cannot be asked is.
    ///
    /// # Errors
    /// What it says, or as of any call.
    pub async fn health(&self, module: &Arc<Module>, deadline: Instant) -> Result<(), CallError> {
        if module.life.is_none() {
            return Ok(());
        }
        let _running = self.ticker().running();
        let budget = module.budget(deadline);
        let _place = module.place(&budget).await?;
        let mut resident = match module.pool.take() {
            Some(resident) => resident,
            None => module.fresh(&budget).await?,
        };
        let until = budget.until;
        resident.begin(module, budget, lifecycle(deadline));
        let asked = module.within("health", until, async {
            let Resident { store, life, .. } = &mut resident;
            match life {
                Some(life) => life.aegis_module_lifecycle().call_health(store).await,
                None => Ok(Ok(())),
            }
        });
        let said = asked.await.map_err(|error| resident.without_secrets(error))?;
        let said = said.map_err(|fault| resident.refusal(fault));
        module.give_back(resident);
        said
    }

    /// Waits until no call of a module runs, and lets none begin.
    ///
    /// # Errors
    /// When its calls do not end in time.
    pub async fn halt(&self, module: &Arc<Module>, deadline: Instant) -> Result<Halt, CallError> {
        let (part, whole) = HALT_SHARE;
        let most = Duration::from_millis(u64::from(module.owner.limits.call_ms_max)) * part / whole;
        let places = module.pool.all_places(deadline.min(Instant::now() + most)).await;
        let places = places.ok_or_else(|| module.busy())?;
        let halted = Arc::clone(&module.halted);
        halted.store(true, Ordering::Relaxed);
        Ok(Halt { halted, _places: places })
    }

    /// Takes the state of a module for its next version, from the instance that was used last, while it is halted.
    /// Nothing when it hands nothing over, or has no instance. What its code asks meanwhile of models whose code is halted is
    /// refused.
    ///
    /// # Errors
    /// As of any call: also when the state has more bytes than may cross.
    pub async fn save(
        &self,
        module: &Arc<Module>,
        _halt: &Halt,
        deadline: Instant,
    ) -> Result<Option<Handover>, CallError> {
        let _running = self.ticker().running();
        let Some(mut resident) = module.pool.take() else { return Ok(None) };
        let saved = module.state_of(&mut resident, deadline).await;
        if matches!(saved, Ok(_) | Err(CallError::Refused(_))) {
            module.give_back(resident);
        }
        saved
    }

    /// Makes the first instance of a module out of what the version before has handed over. Nothing happens when it takes
    /// nothing over.
    ///
    /// # Errors
    /// As of any call. Then there is no instance, and whoever asked decides whether the module begins without.
    pub async fn restore(
        &self,
        module: &Arc<Module>,
        handover: &Handover,
        deadline: Instant,
    ) -> Result<(), CallError> {
        if module.handover.is_none() {
            return Ok(());
        }
        let _running = self.ticker().running();
        let budget = module.budget(deadline);
        let _place = module.place(&budget).await?;
        let heir = module.heir(handover, budget).await?;
        module.give_back(heir);
        Ok(())
    }

    /// Ends the instances of a module that is not called any more, each with its part of the time that is left.
    pub async fn drain(&self, module: &Arc<Module>, deadline: Instant) -> Drained {
        let mut drained = Drained::default();
        let _running = self.ticker().running();
        let places = module.pool.all_places(deadline).await;
        let is_idle = places.is_some();
        let residents = module.pool.empty();
        // What they write as they end may lead to hooks of this module. The instances that come about for those go with it:
        // if each were told that it ends, there might be no last one.
        drop(places);
        let count = residents.len();
        for (index, mut resident) in residents.into_iter().enumerate() {
            let left = u32::try_from(count - index).unwrap_or(u32::MAX);
            let remaining = deadline.saturating_duration_since(Instant::now()) / left;
            let until = if is_idle { Instant::now() + remaining } else { Instant::now() };
            match module.end(&mut resident, until).await {
                Ok(()) => drained.ended += 1,
                Err(error) => {
                    drained.cut_off += 1;
                    tracing::warn!(target: "aegis::module", module = module.name(), "{error}; its instance is gone");
                }
            }
        }
        drained
    }
}

impl Module {
    /// Time for one call in the life of an instance.
    pub(super) fn budget(&self, deadline: Instant) -> Budget {
        let mut budget = Budget::new(Duration::from_millis(u64::from(self.owner.limits.call_ms_max)));
        budget.end_by(deadline);
        budget
    }

    /// An instance whose life begins within the time of a call, whatever it waits for.
    async fn fresh(&self, budget: &Budget) -> Result<Resident, CallError> {
        let berth = self.berth(budget).await?;
        self.within("init", budget.until, self.instantiate(berth, budget, &lifecycle(budget.until))).await
    }

    /// What an instance hands to the next version; nothing when it hands nothing over. After anything but a refusal it cannot
    /// be called any more.
    pub(super) async fn state_of(
        &self,
        resident: &mut Resident,
        deadline: Instant,
    ) -> Result<Option<Handover>, CallError> {
        if self.handover.is_none() {
            return Ok(None);
        }
        resident.begin(self, self.budget(deadline), handing_over(deadline));
        let saved = self.within("save", deadline, async {
            let Resident { store, handover, .. } = &mut *resident;
            match handover {
                Some(handover) => handover.aegis_module_handover().call_save(store).await.map(Some),
                None => Ok(None),
            }
        });
        let saved = saved.await.map_err(|error| resident.without_secrets(error))?;
        let state = saved.transpose().map_err(|fault| resident.refusal(fault))?;
        Ok(state.map(|state| Handover { from_version: self.version.clone(), state }))
    }

    /// An instance that begins with what another one has handed over.
    pub(super) async fn heir(&self, handover: &Handover, budget: Budget) -> Result<Resident, CallError> {
        let mut resident = self.fresh(&budget).await?;
        let until = budget.until;
        resident.begin(self, budget, handing_over(until));
        let restored = self.within("restore", until, async {
            let Resident { store, handover: takes, .. } = &mut resident;
            let Handover { from_version, state } = handover;
            match takes {
                Some(takes) => takes.aegis_module_handover().call_restore(store, from_version, state).await,
                None => Ok(Ok(())),
            }
        });
        let restored = restored.await.map_err(|error| resident.without_secrets(error))?;
        restored.map_err(|fault| resident.refusal(fault))?;
        Ok(resident)
    }

    /// The answer to a call that can only wait in vain: the module is halted until state is handed over, and whoever hands
    /// it over would wait for the call.
    pub(crate) fn refuses(&self, call: &Call) -> Option<Refusal> {
        (call.lineage.leads_from_handover() && self.halted.load(Ordering::Relaxed)).then(|| {
            let name = self.name();
            Refusal::unavailable(format!("module {name} is not called while state is handed over"))
        })
    }

    async fn end(&self, resident: &mut Resident, until: Instant) -> Result<(), CallError> {
        state::belong(&mut resident.store, &self.owner, &self.services);
        resident.release(until).await
    }

    /// Waits for a call, no longer than it may take.
    pub(super) async fn within<T>(
        &self,
        entry: &'static str,
        deadline: Instant,
        called: impl Future<Output = wasmtime::Result<T>>,
    ) -> Result<T, CallError> {
        within(&self.owner, entry, deadline, called).await
    }
}

/// Waits for a call of the code of `owner`, no longer than it may take.
async fn within<T>(
    owner: &Owner,
    entry: &'static str,
    deadline: Instant,
    called: impl Future<Output = wasmtime::Result<T>>,
) -> Result<T, CallError> {
    let begun = Instant::now();
    let most = begun + Duration::from_millis(u64::from(owner.limits.call_ms_max));
    let allowed = most.min(deadline).saturating_duration_since(begun);
    let hard = begun + allowed + HARD_DEADLINE_SLACK;
    match tokio::time::timeout_at(hard.into(), called).await {
        Ok(outcome) => outcome.map_err(|error| CallError::failed(&owner.module, entry, allowed, &error, "")),
        Err(_) => Err(CallError::Deadline { module: owner.module.clone(), entry: entry.into(), allowed }),
    }
}

impl Resident {
    /// The no of its code, without the secrets that it has opened.
    pub(super) fn refusal(&self, fault: Fault) -> CallError {
        CallError::Refused(self.store.data().secrets.redact_refusal(fault.into()))
    }

    /// What went wrong in it, without the secrets that it has opened.
    pub(super) fn without_secrets(&self, error: CallError) -> CallError {
        self.store.data().secrets.redact_error(error)
    }

    /// Has its code release what it holds.
    async fn release(&mut self, until: Instant) -> Result<(), CallError> {
        let Self { store, life: Some(life), .. } = self else { return Ok(()) };
        let owner = Arc::clone(&store.data().owner);
        let budget = Budget::new(until.saturating_duration_since(Instant::now()));
        state::begin(store, budget, REQUEST_ID.to_owned(), Lineage::begin(), Lot::current());
        let called = life.aegis_module_lifecycle().call_drain(&mut *store);
        let released = within(&owner, "drain", until, called).await;
        released.map_err(|error| self.without_secrets(error))
    }
}

impl Mortal for Resident {
    fn is_told(&self) -> bool {
        self.life.is_some()
    }

    async fn end(mut self, until: Instant) {
        let Some(_running) = self.ticks.running() else { return };
        if let Err(error) = self.release(until).await {
            let module = self.store.data().owner.module.as_str();
            tracing::warn!(target: "aegis::module", module, "{error}; its instance is gone");
        }
    }
}

/// A call of the host's own doing.
fn lifecycle(deadline: Instant) -> Call {
    Call {
        request_id: REQUEST_ID.to_owned(),
        origin: Origin::Lifecycle,
        deadline,
        attempt: 1,
        idempotency_key: None,
        lineage: Lineage::begin(),
        lot: Lot::current(),
        principal: None,
    }
}

/// One in which an instance hands its state over, takes some, or is told that it goes on.
pub(super) fn handing_over(deadline: Instant) -> Call {
    Call { lineage: Lineage::of_handover(), ..lifecycle(deadline) }
}
