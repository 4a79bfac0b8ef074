//! Components: how they are compiled, described, instantiated, limited and called.
//!
//! ```text
//!   compile helper:  bytes ─▶ Compiler::prepare ─▶ specification + code ─▶ sealed into the generation
//!   worker:          sealed code ─▶ Runtime::load ─▶ Module ─▶ Runtime::call ─▶ JSON or a CallError
//!                                └▶ Runtime::load_service ─▶ HttpService ─▶ Runtime::serve ─▶ an HTTP answer
//! ```
//!
//! What always holds: code runs only under a deadline, a memory limit and a bound on what it hands over; an instance
//! that trapped is never called again; code that we did not compile ourselves is never loaded; what is not granted
//! answers no. This is the only crate that names `wasmtime` and `rayon`.

mod berths;
mod cache;
mod call;
mod compatibility;
mod contract;
mod cpu;
mod describe;
mod diagnostic;
mod documents;
mod engine;
mod entry;
mod failure;
mod http;
mod imports;
mod inspect;
mod kept;
mod mapping;
mod memory;
mod module;
mod outgoing;
mod output;
mod overtime;
mod pace;
mod platform;
mod pool;
mod route;
mod runtime;
mod secret;
mod services;
mod specification;
mod state;
mod subscriptions;
#[cfg(test)]
mod tests;
mod ticker;

pub use cache::CodeCache;
pub use call::{Call, CallError, DEPTH_MAX, Lineage, Origin, Refusal, RefusalCode};
pub use compatibility::compatibility;
pub use cpu::CpuPool;
pub use describe::{Compiler, PrepareError, Prepared, PreparedService, Terms};
pub use diagnostic::{Code, Diagnostic};
pub use engine::{EngineError, MEMORY_BYTES_MAX};
pub use entry::{Entry, Happening};
pub use http::{HttpService, ServiceBody, UploadError, Visit};
pub use inspect::{COMPONENT_BYTES_MAX, kind_of};
pub use kept::{KeptError, KeptFiles};
pub use mapping::{CODE_ALIGNMENT, MappingError, SealedFile};
pub use module::{CodePlace, Drained, Halt, Handover, Module, Succession, SuccessionError, Successors};
pub use outgoing::{Credential, Dispatch, OutgoingError, Reply, Sent, StreamedBody, Waits};
pub use route::{RouteRequest, RouteResponse};
pub use runtime::Runtime;
pub use secret::SecretText;
pub use services::{Asker, Entity, Measure, Measurement, NoServices, Page, Search, Served, Services, Write};
