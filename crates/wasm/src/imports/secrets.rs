//! Secrets, as handles: what code may do with one is granted, and its text stays here unless that is granted too.

use wasmtime::component::Resource;

use super::fault;
use crate::{
    contract::{Fault, FaultCode, base::aegis::module::secrets},
    secret::SecretText,
    state::State,
};

/// Most handles that one instance may hold at a time.
const HANDLES_MAX: usize = 64;

/// What is behind a handle.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "the generated bindings name it in public")]
pub struct Secret {
    name: String,
    pub(super) text: SecretText,
}

impl secrets::Host for State {
    fn open(&mut self, name: String) -> wasmtime::Result<Result<Resource<Secret>, Fault>> {
        let grants = &self.owner.grants;
        if !grants.secrets.contains(&name) && !grants.reveal.contains(&name) {
            let message = format!("the secret {name:?} is not granted to this module");
            return Ok(Err(fault(FaultCode::Denied, message)));
        }
        if self.secrets.handles == HANDLES_MAX {
            let message = format!("found {HANDLES_MAX} open secrets, expected fewer: drop those not in use");
            return Ok(Err(fault(FaultCode::TooLarge, message)));
        }
        let text = match self.services.secret(self.asker(), &name) {
            Ok(text) => text,
            Err(refusal) => return Ok(Err(refusal.into())),
        };
        self.secrets.note(&text);
        let handle = self.table.push(Secret { name, text })?;
        self.secrets.handles += 1;
        Ok(Ok(handle))
    }
}

impl secrets::HostSecret for State {
    fn reveal(&mut self, secret: Resource<Secret>) -> wasmtime::Result<Result<String, Fault>> {
        let Secret { name, text } = self.table.get(&secret)?;
        if self.owner.grants.reveal.contains(name) {
            return Ok(Ok(text.reveal().to_owned()));
        }
        let message =
            format!("seeing the secret {name:?} is not granted to this module (\"secrets.reveal\")");
        Ok(Err(fault(FaultCode::Denied, message)))
    }

    fn drop(&mut self, secret: Resource<Secret>) -> wasmtime::Result<()> {
        self.table.delete(secret)?;
        self.secrets.handles = self.secrets.handles.saturating_sub(1);
        Ok(())
    }
}
