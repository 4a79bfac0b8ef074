//! How instances go on as those of another generation of their module, which has the same code under other settings.
//!
//! ```text
//!   succeed ─▶ saved ─▶ told the settings ─▶ it agrees: it goes on itself
//!                                        └─▶ it cannot: an heir has its state, or nobody, if the module hands none over
//!   all are settled ─▶ go_on                 one is not ─▶ take_back: each is where it was, under the settings of before
//! ```

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use wasmtime::Engine;

use super::{
    Module, Resident,
    life::{Halt, Handover, handing_over},
};
use crate::{call::CallError, runtime::Runtime, state};

/// Time in which instances that have agreed to settings are told those of before again: as much as they have to agree.
const TAKE_BACK_TIME: Duration = Duration::from_secs(2);

/// What became of the instances of the generation before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Succession {
    /// They go on under the new settings.
    pub kept: usize,
    /// They asked to be replaced, could not be asked, or failed when they were. Where the module hands over, others have
    /// their state.
    pub replaced: usize,
}

/// Why the state of an instance that cannot go on is in no other one.
#[derive(Debug, thiserror::Error)]
pub enum SuccessionError {
    /// It does not hand it over.
    #[error(transparent)]
    NotGiven(CallError),
    /// An instance under the new settings does not take it.
    #[error(transparent)]
    NotTaken(CallError),
}

/// Instances about which it is settled how they go on. They are called in no generation before [`Successors::go_on`] or
/// [`Runtime::take_back`].
#[must_use = "they are gone when nobody decides"]
pub struct Successors {
    module: Arc<Module>,
    before: Arc<Module>,
    /// The one used last at the end.
    settled: Vec<Settled>,
}

/// One instance.
struct Settled {
    /// Nothing when it has failed.
    resident: Option<Resident>,
    /// Its state, if it was asked for it.
    handover: Option<Handover>,
    next: Next,
}

/// Who goes on for an instance.
enum Next {
    /// Itself: it has not been told other settings.
    Untold,
    /// Itself: it agrees to other settings.
    Agreed,
    /// One that has its state.
    Heir(Box<Resident>),
    Nobody,
}

impl Settled {
    fn untold(resident: Resident) -> Self {
        Self { resident: Some(resident), handover: None, next: Next::Untold }
    }
}

impl Successors {
    /// They are called in the new generation. What cannot go on ends.
    pub fn go_on(self) -> Succession {
        let Self { module, before, settled } = self;
        let mut outcome = Succession::default();
        for Settled { resident, next, .. } in settled {
            match (next, resident) {
                (Next::Untold | Next::Agreed, Some(mut resident)) => {
                    outcome.kept += 1;
                    state::belong(&mut resident.store, &module.owner, &module.services);
                    module.pool.give_back(resident);
                }
                (next, resident) => {
                    outcome.replaced += 1;
                    if let Next::Heir(heir) = next {
                        module.pool.give_back(*heir);
                    }
                    if let Some(resident) = resident {
                        before.pool.retire(resident);
                    }
                }
            }
        }
        outcome
    }
}

impl Runtime {
    /// Settles how the instances of a module go on as those of another generation of it, which has the same code, while the
    /// one before is halted. Each is told the new settings, if they differ. Where one says no, fails, or cannot be told, its
    /// state goes to another one, if the module hands over; otherwise it is replaced when it is wanted. None goes on where
    /// more than settings differ: see [`Module::may_go_on`].
    ///
    /// # Errors
    /// When state goes nowhere. Then all are where they were, but for an instance that failed without handing over.
    pub async fn succeed(
        &self,
        module: &Arc<Module>,
        (before, _halt): (&Arc<Module>, &Halt),
        deadline: Instant,
    ) -> Result<Successors, SuccessionError> {
        let (of, to) = (Arc::clone(before), Arc::clone(module));
        if !module.may_go_on(before) {
            return Ok(Successors { module: to, before: of, settled: Vec::new() });
        }
        let _running = self.ticker().running();
        // The pool hands out the one used last, which has to come last here.
        let settled = before.pool.empty().into_iter().map(Settled::untold).collect();
        let mut successors = Successors { module: to, before: of, settled };
        if module.owner.settings == before.owner.settings {
            return Ok(successors);
        }
        for index in 0..successors.settled.len() {
            let settled = &mut successors.settled[index];
            if let Err(error) = module.settle(before, settled, deadline).await {
                self.take_back(successors).await;
                return Err(error);
            }
        }
        Ok(successors)
    }

    /// Puts instances back into the generation before, where they are called as if they had been told nothing.
    pub async fn take_back(&self, successors: Successors) {
        let _running = self.ticker().running();
        let Successors { before, settled, .. } = successors;
        let deadline = Instant::now() + TAKE_BACK_TIME;
        for settled in settled {
            if let Some(mut resident) = before.reinstate(settled, deadline).await {
                state::belong(&mut resident.store, &before.owner, &before.services);
                before.pool.give_back(resident);
            }
        }
    }
}

impl Module {
    /// Whether instances of `before` may go on as those of this module. Under other limits they might have more than they may
    /// now; under other grants, what they were given when they still might have it: an open secret, or what they have read.
    #[must_use]
    pub fn may_go_on(&self, before: &Self) -> bool {
        // Another engine would never end the code of an instance that it does not know.
        Engine::same(&self.engine, &before.engine)
            && self.digest == before.digest
            && self.owner.limits == before.owner.limits
            && self.owner.grants == before.owner.grants
            && self.owner.model == before.owner.model
    }

    /// Settles how an instance of `before` goes on under the settings of this generation.
    async fn settle(
        &self,
        before: &Self,
        settled: &mut Settled,
        deadline: Instant,
    ) -> Result<(), SuccessionError> {
        let Some(resident) = &mut settled.resident else { return Ok(()) };
        settled.next = Next::Nobody;
        // Before it is told anything: if it fails then, it cannot be asked any more.
        let saved = before.state_of(resident, deadline).await;
        let is_well = matches!(saved, Ok(_) | Err(CallError::Refused(_)));
        let agrees = if is_well { self.reconfigure(resident, deadline).await } else { None };
        if agrees == Some(true) {
            settled.next = Next::Agreed;
            settled.handover = saved.ok().flatten();
            return Ok(());
        }
        if agrees.is_none() {
            settled.resident = None;
        }
        let Some(handover) = saved.map_err(SuccessionError::NotGiven)? else { return Ok(()) };
        let heir = self.heir(&handover, self.budget(deadline)).await;
        settled.handover = Some(handover);
        settled.next = Next::Heir(Box::new(heir.map_err(SuccessionError::NotTaken)?));
        Ok(())
    }

    /// The instance that goes on for one under the settings of this generation, which it had before: itself, if it can, or
    /// one that has its state.
    async fn reinstate(&self, settled: Settled, deadline: Instant) -> Option<Resident> {
        let Settled { mut resident, handover, next } = settled;
        if let Some(told) = &mut resident {
            let goes_on = match next {
                Next::Agreed => self.reconfigure(told, deadline).await,
                Next::Untold | Next::Heir(_) | Next::Nobody => Some(true),
            };
            match goes_on {
                Some(true) => return resident,
                Some(false) => {}
                None => resident = None,
            }
        }
        let Some(handover) = handover else { return resident };
        match self.heir(&handover, self.budget(deadline)).await {
            Ok(heir) => Some(heir),
            Err(error) => {
                tracing::warn!(target: "aegis::module", module = self.name(), "{error}; what it was to take is lost");
                // Under settings that are not in force any more, but with its state.
                resident
            }
        }
    }

    /// Whether an instance goes on under the settings of this generation; nothing when it failed.
    async fn reconfigure(&self, resident: &mut Resident, deadline: Instant) -> Option<bool> {
        let settings = self.owner.settings.to_string();
        resident.begin(self, self.budget(deadline), handing_over(deadline));
        let asked = self.within("reconfigure", deadline, async {
            let Resident { store, life, .. } = &mut *resident;
            match life {
                Some(life) => {
                    life.aegis_module_lifecycle().call_reconfigure(store, &settings).await.map(Some)
                }
                None => Ok(None),
            }
        });
        match asked.await {
            Ok(Some(Ok(()))) => Some(true),
            Ok(Some(Err(_)) | None) => Some(false),
            Err(error) => {
                let error = resident.without_secrets(error);
                tracing::warn!(target: "aegis::module", module = self.name(), "{error}; its instance is gone");
                None
            }
        }
    }
}
