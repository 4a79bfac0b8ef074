//! The host's side of the contract: what a module can call.
//!
//! What the operator has not granted, and what this host does not offer yet, is there and answers no: components of
//! some languages import all that their world lists, whether they use it or not.

mod basics;
mod denied;
mod documents;
mod http;
mod models;
mod secrets;

use wasmtime::component::{HasSelf, Linker};

use crate::{
    contract::{base::Base, types},
    engine::Profile,
    state::State,
};

#[expect(unreachable_pub, reason = "the generated bindings name it in public")]
pub use secrets::Secret;

/// Everything that a component may import. One of WASI 0.3 may import 0.2 as well: what its language's runtime wants is
/// often of the older one.
pub(crate) fn link(linker: &mut Linker<State>, profile: Profile) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    if profile == Profile::Concurrent {
        wasmtime_wasi::p3::add_to_linker(linker)?;
        wasmtime_wasi_http::p3::add_to_linker(linker)?;
        crate::http::link_client(linker)?;
    }
    Base::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

impl types::Host for State {}

/// A no that has one sentence.
pub(super) fn fault(code: types::FaultCode, message: impl Into<String>) -> types::Fault {
    types::Fault { code, message: message.into(), details: None, transient: false }
}
