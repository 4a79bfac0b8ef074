//! The beginning and the end of a worker as the code behind models learns of them.

use std::{sync::Arc, time::Instant};

use aegis_domain::{breaker::Stand, catalog::Model, code::CodeSpec, trial::Variant};
use aegis_wasm::{CallError, Halt, Module, SuccessionError};

use super::{Loaded, Modules};

impl Modules {
    /// What the code of a model says of itself: nothing when it is well, or cannot be asked.
    pub(crate) async fn ailment(
        &self,
        (model, module): (&Model, &Arc<Module>),
        deadline: Instant,
    ) -> Option<String> {
        if let Some(Stand::Open { left_ms }) = self.stand(model, Variant::Current) {
            return Some(format!(
                "it keeps failing and is not called, for {} s or less",
                left_ms.div_ceil(1000)
            ));
        }
        match self.runtime.health(module, deadline).await {
            Ok(()) => None,
            Err(CallError::Refused(refusal)) => Some(refusal.message),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Lets all code release what it holds, each module in its part of the time that is left.
    pub(crate) async fn drain(&self, deadline: Instant) {
        let modules: Vec<_> = self.all().map(|(_, module)| Arc::clone(module)).collect();
        self.end(&modules, deadline).await;
    }

    /// Makes the first instance of all code, one after the other.
    ///
    /// # Errors
    /// When some does not begin.
    pub(crate) async fn warm_up(&self, deadline: Instant) -> Result<(), BeginError> {
        for (model, module) in self.all() {
            self.runtime.warm_up(module, deadline).await.map_err(|reason| BeginError::of(model, reason))?;
        }
        Ok(())
    }

    /// Lets all code begin that is not the code of the generation before, so that it is known whether it does. What is given
    /// something to begin with later, by that generation, only tries.
    ///
    /// # Errors
    /// When some does not begin. The generation before has all that it had.
    pub(crate) async fn begin_beside(&self, before: &Self, deadline: Instant) -> Result<(), BeginError> {
        for (model, module) in self.all() {
            if before.all().any(|(_, old)| module.shares_instances_with(old)) {
                continue;
            }
            let begins_with = before
                .by_model
                .get(model)
                .map(|old| &old.module)
                .filter(|old| module.may_go_on(old) || (old.hands_over() && module.hands_over()));
            let begun = match begins_with {
                Some(_) => self.runtime.rehearse(module, deadline).await,
                None => self.runtime.warm_up(module, deadline).await,
            };
            begun.map_err(|reason| BeginError::of(model, reason))?;
        }
        Ok(())
    }

    /// The code that does not go on in the next generation.
    pub(crate) fn replaced_by(&self, next: &Self) -> Vec<Arc<Module>> {
        let goes_on = |model: &str, module: &Module| {
            next.all().any(|(other, next)| other == model && next.shares_instances_with(module))
        };
        let replaced = self.all().filter(|(model, module)| !goes_on(model, module));
        replaced.map(|(_, module)| Arc::clone(module)).collect()
    }

    /// All code with its model, what is tried included.
    fn all(&self) -> impl Iterator<Item = (&str, &Arc<Module>)> {
        let all = self.by_model.iter().chain(&self.trials);
        all.map(|(model, loaded)| (model.as_str(), &loaded.module))
    }

    /// Lets some of its code release what it holds.
    pub(crate) async fn end(&self, modules: &[Arc<Module>], deadline: Instant) {
        for (index, module) in modules.iter().enumerate() {
            let left = u32::try_from(modules.len() - index).unwrap_or(u32::MAX);
            let remaining = deadline.saturating_duration_since(Instant::now()) / left;
            self.runtime.drain(module, Instant::now() + remaining).await;
        }
    }

    /// Hands what code remembers to its next version, where both are made for that, and lets instances go on whose code stays
    /// with what it may take and reach, under the settings of now. Under other limits or grants it is handed over as to
    /// another version, and so it is where an instance does not agree to the settings. A version that is tried begins with
    /// nothing, beside one that goes on; when it becomes the only one, it goes on with what it has come to remember.
    ///
    /// Code that remembers nothing begins anew where its calls do not end. What has handed over, or gone over, is not called
    /// as long as what is returned is held: what it came to remember would be lost.
    ///
    /// # Errors
    /// When code does not give or take what it remembers, or is called all the time. Then no instance has gone over: the
    /// generation before has all that it had, but for an instance that failed as it was asked.
    pub(crate) async fn take_over(
        &self,
        before: &Self,
        deadline: Instant,
    ) -> Result<Vec<Halt>, HandoverError> {
        let both = self.by_model.iter().filter_map(|(model, new)| {
            let old = before.by_model.get(model)?;
            let mut of_model = before.all().filter(|(other, _)| *other == model.as_str());
            let goes_on = of_model.any(|(_, module)| module.shares_instances_with(&new.module));
            (!goes_on).then_some(Exchange { model, old, new })
        });
        let mut both = callers_first(both.collect());
        // What remembers nothing waits for nobody, and nobody should wait for it for long.
        both.sort_by_key(|exchange| !exchange.old.module.hands_over());
        let (mut halts, mut stay) = (Vec::with_capacity(both.len()), Vec::new());
        for exchange in both {
            let Exchange { model, old, new } = exchange;
            let not_given = |reason| HandoverError::NotGiven { model: model.clone(), reason };
            let not_taken = |reason| HandoverError::NotTaken { model: model.clone(), reason };
            let stays = new.module.may_go_on(&old.module);
            let hands_over = old.module.hands_over() && new.module.hands_over();
            if !stays && !hands_over {
                continue;
            }
            let halt = match before.runtime.halt(&old.module, deadline).await {
                Ok(halt) => halt,
                Err(_) if !old.module.hands_over() => continue,
                Err(error) => return Err(not_given(error)),
            };
            if stays {
                stay.push((halt, exchange));
                continue;
            }
            let saved = before.runtime.save(&old.module, &halt, deadline).await.map_err(not_given)?;
            if let Some(handover) = saved {
                self.runtime.restore(&new.module, &handover, deadline).await.map_err(not_taken)?;
            }
            halts.push(halt);
        }
        halts.extend(self.succeed_all(stay, deadline).await?);
        Ok(halts)
    }

    /// Lets instances go on whose code stays, when it is settled for all of them how: what remembers nothing comes last, and
    /// fails nobody.
    async fn succeed_all(
        &self,
        stay: Vec<(Halt, Exchange<'_>)>,
        deadline: Instant,
    ) -> Result<Vec<Halt>, HandoverError> {
        let mut settled = Vec::with_capacity(stay.len());
        for (halt, Exchange { model, old, new }) in &stay {
            match self.runtime.succeed(&new.module, (&old.module, halt), deadline).await {
                Ok(successors) => settled.push(successors),
                Err(error) => {
                    for successors in settled {
                        self.runtime.take_back(successors).await;
                    }
                    return Err(HandoverError::of(model, error));
                }
            }
        }
        for successors in settled {
            successors.go_on();
        }
        Ok(stay.into_iter().map(|(halt, _)| halt).collect())
    }
}

/// Code of a model in two generations.
#[derive(Clone, Copy)]
struct Exchange<'a> {
    model: &'a String,
    old: &'a Loaded<CodeSpec, Module>,
    new: &'a Loaded<CodeSpec, Module>,
}

/// In the order in which it is halted: what may call other code comes before that, so that its calls can end.
fn callers_first(mut left: Vec<Exchange<'_>>) -> Vec<Exchange<'_>> {
    let mut sorted = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let calls = |one: &Exchange<'_>, other: &Exchange<'_>| {
            one.model != other.model && one.old.spec.grants.models.contains_key(other.model)
        };
        let is_called = |one: &Exchange<'_>| left.iter().any(|other| calls(other, one));
        // Those that call one another come in any order.
        let next = left.iter().position(|one| !is_called(one)).unwrap_or(0);
        sorted.push(left.swap_remove(next));
    }
    sorted
}

/// Why code does not begin.
#[derive(Debug, thiserror::Error)]
#[error("the code of {model} does not begin: {reason}")]
pub(crate) struct BeginError {
    model: String,
    reason: CallError,
}

impl BeginError {
    fn of(model: &str, reason: CallError) -> Self {
        Self { model: model.to_owned(), reason }
    }
}

/// Why state is not handed to the next version of a model's code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandoverError {
    #[error("the code of {model} does not hand its state over: {reason}")]
    NotGiven { model: String, reason: CallError },
    #[error("the next code of {model} does not take the state of the code before: {reason}")]
    NotTaken { model: String, reason: CallError },
}

impl HandoverError {
    fn of(model: &str, error: SuccessionError) -> Self {
        let model = model.to_owned();
        match error {
            SuccessionError::NotGiven(reason) => Self::NotGiven { model, reason },
            SuccessionError::NotTaken(reason) => Self::NotTaken { model, reason },
        }
    }
}
