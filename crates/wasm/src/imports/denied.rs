//! Interfaces of the contract that answer no, whoever asks: nothing grants them yet.

use super::fault;
use crate::{
    contract::{
        Fault, FaultCode,
        base::aegis::module::{bound_service, events, inbound, inference, ports, spec},
    },
    state::State,
};

fn no<T>(what: &str) -> wasmtime::Result<Result<T, Fault>> {
    Ok(Err(denied(what)))
}

fn all<T>(what: &str, count: usize) -> wasmtime::Result<Vec<Result<T, Fault>>> {
    Ok((0..count).map(|_| Err(denied(what))).collect())
}

fn denied(what: &str) -> Fault {
    fault(FaultCode::Denied, format!("{what} is not granted to this module"))
}

impl spec::Host for State {}

impl ports::Host for State {
    fn invoke(&mut self, call: ports::PortCall) -> wasmtime::Result<Result<String, Fault>> {
        no(&format!("the port {:?}", call.port))
    }

    fn invoke_all(&mut self, calls: Vec<ports::PortCall>) -> wasmtime::Result<Vec<Result<String, Fault>>> {
        all("invoking ports", calls.len())
    }

    fn invoke_later(&mut self, call: ports::PortCall, _: u32) -> wasmtime::Result<Result<String, Fault>> {
        no(&format!("the port {:?}", call.port))
    }

    fn command(
        &mut self,
        model: String,
        _: Option<String>,
        command: String,
        _: String,
    ) -> wasmtime::Result<Result<String, Fault>> {
        no(&format!("the command {command:?} of {model:?}"))
    }
}

impl events::Host for State {
    fn publish(
        &mut self,
        name: String,
        _: Option<String>,
        _: String,
    ) -> wasmtime::Result<Result<String, Fault>> {
        no(&format!("publishing {name:?}"))
    }

    fn publish_all(
        &mut self,
        _: Vec<(String, Option<String>, String)>,
    ) -> wasmtime::Result<Result<Vec<String>, Fault>> {
        no("publishing events")
    }

    fn subscribe(&mut self, pattern: String) -> wasmtime::Result<Result<u64, Fault>> {
        no(&format!("subscribing to {pattern:?}"))
    }

    fn unsubscribe(&mut self, _: u64) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl bound_service::Host for State {
    fn name(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }

    fn call(&mut self, operation: String, _: String) -> wasmtime::Result<Result<String, Fault>> {
        no(&format!("the operation {operation:?} of a service"))
    }

    fn call_all(&mut self, calls: Vec<(String, String)>) -> wasmtime::Result<Vec<Result<String, Fault>>> {
        all("calling a service", calls.len())
    }
}

impl inbound::Host for State {
    fn submit(
        &mut self,
        port: String,
        _: Option<String>,
        _: String,
    ) -> wasmtime::Result<Result<String, Fault>> {
        no(&format!("the port {port:?}"))
    }
}

impl inference::Host for State {
    fn info(&mut self, model: String) -> wasmtime::Result<Result<inference::ModelInfo, Fault>> {
        no(&format!("inference with {model:?}"))
    }

    fn run(
        &mut self,
        model: String,
        _: Vec<inference::Tensor>,
    ) -> wasmtime::Result<Result<Vec<inference::Tensor>, Fault>> {
        no(&format!("inference with {model:?}"))
    }

    fn run_many(
        &mut self,
        _: String,
        batch: Vec<Vec<inference::Tensor>>,
    ) -> wasmtime::Result<Vec<Result<Vec<inference::Tensor>, Fault>>> {
        all("inference", batch.len())
    }
}
